"""What a suite is read into: cases to answer, and the rows that are none, each with its reason."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from langchain_rain.arguments import check_text
from langchain_rain.errors import RainConfigError
from langchain_rain.ledger import fingerprint

MAX_SHOWN = 2000
"""Characters of a row that are kept where it is malformed."""


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to answer.

    Attributes:
        id: the file's own or "suite:number", the number counting all rows from 1; no other case of the suite has it.
        content: a text to continue, or a conversation to answer, as role and content of each message.
        groups: what a report sets apart, the widest first: all safe requests, and those of a type.
        reference: what is known of it, as JSON values: good and bad answers, labels.
        prefill: how the answer begins, put into the assistant's mouth; what is written goes on from there.
        remarks: how it was read, where the row was not quite as rows of the suite are.
    """

    id: str
    content: str | list[dict[str, str]]
    groups: tuple[str, ...] = ()
    reference: Mapping[str, Any] = field(default_factory=dict)
    prefill: str = ""
    remarks: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        """The narrowest of its groups; "" if it has none."""
        return self.groups[-1] if self.groups else ""

    @property
    def input_hash(self) -> str:
        """Tells what is asked here from any other; without a prefill that of a `prompts.Prompt` of this content."""
        return fingerprint([self.content, self.prefill] if self.prefill else self.content)


@dataclass(frozen=True, slots=True)
class Malformed:
    """A row that is no case.

    Attributes:
        where: file and line.
        reason: what is wrong with it, and what is allowed.
        row: its text, of a long one the beginning.
    """

    where: str
    reason: str
    row: str


@dataclass(frozen=True, slots=True)
class SuiteData:
    """The rows of a suite.

    Attributes:
        source: where they come from, in words.
        cases: in the order of the file.
        malformed: the rows that are no case, in that order too.
        num_rows: of the file, whatever was drawn from it: every row is a case or malformed.
        rated: the group that rates and comparisons are of, where a label is good in one group and bad in another; the
            others are told by group alone. "" for all cases.
    """

    name: str
    source: str
    cases: tuple[Case, ...]
    malformed: tuple[Malformed, ...]
    num_rows: int
    rated: str = ""

    def is_rated(self, case: Case) -> bool:
        """Whether a case counts for rates and comparisons."""
        return not self.rated or self.rated in case.groups

    @property
    def notes(self) -> tuple[str, ...]:
        """What has to be known of how the cases were read, with counts."""
        counts = Counter(remark for case in self.cases for remark in case.remarks)
        return tuple(f"{count} of {len(self.cases)} cases: {remark}" for remark, count in sorted(counts.items()))

    @property
    def cases_hash(self) -> str:
        """Tells these cases from any others."""
        return fingerprint([[case.id, case.input_hash, case.groups, case.reference] for case in self.cases])

    def sampled(self, limit: int | None, seed: int = 0) -> "SuiteData":
        """At most `limit` of the cases, drawn at random, in the order of the file; None for all.

        Each case has a place in the draw of its own, by seed and id: a larger limit adds cases and takes none away.

        Raises:
            RainConfigError: the limit is no positive number.
        """
        if limit is None:
            return self
        if limit < 1:
            raise RainConfigError(f"limit: a number from 1 on is allowed, or none for all cases, given {limit!r}.")
        drawn = {case.id for case in sorted(self.cases, key=lambda case: _place(case, seed))[:limit]}
        if len(drawn) == len(self.cases):
            return self
        told = f"{self.source}; {len(drawn)} of {len(self.cases)} cases, drawn at random with seed {seed}"
        cases = tuple(case for case in self.cases if case.id in drawn)
        rated = self.rated if any(map(self.is_rated, cases)) else ""
        return replace(self, source=told, cases=cases, rated=rated)


def _place(case: Case, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\0{case.id}".encode()).digest()


def shortened(row: Any) -> str:
    """A row as text that can be printed and written anywhere, of a long one the beginning."""
    text = row if isinstance(row, str) else json.dumps(row, ensure_ascii=False, default=str)
    text = text.encode(errors="backslashreplace").decode()
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}... ({len(text)} characters)"


def text_in(row: Mapping[str, Any], key: str) -> str:
    """The text that a row has under `key`, without the space around it.

    Raises:
        RainConfigError: there is none, or it holds what no text does.
    """
    text = optional_text_in(row, key)
    if not text:
        raise RainConfigError(f"{key}: a text is wanted, given {row.get(key)!r:.80}.")
    return text


def optional_text_in(row: Mapping[str, Any], key: str) -> str:
    """The same; "" if the row has nothing there.

    Raises:
        RainConfigError: there is something else, or it holds what no text does.
    """
    text = row.get(key)
    if text is None:
        return ""
    if not isinstance(text, str):
        raise RainConfigError(f"{key}: a text is wanted, given {text!r:.80}.")
    if "\0" in text:
        raise RainConfigError(f"{key}: a text without NUL characters is wanted, given {text!r:.80}.")
    check_text(key, text)
    return text.strip()
