"""How varied texts are: the share of distinct n-grams of words."""

import itertools
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import regex

from langchain_rain.errors import RainConfigError


@dataclass(frozen=True, slots=True)
class Distinct:
    """The n-grams of some texts.

    Attributes:
        num_distinct: of n-grams, each counted once.
        num: of n-grams.
    """

    num_distinct: int
    num: int

    @property
    def value(self) -> float | None:
        """The share of distinct ones, in [0, 1]; None without any."""
        return self.num_distinct / self.num if self.num else None


def distinct_n(texts: Iterable[str], n: int) -> Distinct:
    """Distinct-n over all texts together (Li et al. 2016, arXiv 1510.03055, section 5).

    It falls as texts get longer and more, so only equally many of about the same length compare. No n-gram goes from
    one text into the next.

    Raises:
        RainConfigError: `n` is no number of words.
    """
    if n < 1:
        raise RainConfigError(f"n: a number of words from 1 on is wanted, given {n!r}.")
    seen: set[tuple[str, ...]] = set()
    num = 0
    for text in texts:
        words = list(words_of(text))
        grams = list(zip(*(itertools.islice(words, start, None) for start in range(n)), strict=False))
        seen.update(grams)
        num += len(grams)
    return Distinct(len(seen), num)


def words_of(text: str) -> Iterator[str]:
    """The words of a text by the boundaries of Unicode (UAX #29), in one form and without case; no punctuation.

    In scripts without spaces between words, such as Chinese and Thai, each character is one.
    """
    for piece in regex.splititer(r"\b", unicodedata.normalize("NFC", text).casefold(), flags=regex.WORD | regex.V1):
        if any(character.isalnum() for character in piece):
            yield piece
