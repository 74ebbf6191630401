"""What two judges said of the same answers, side by side."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from langchain_rain.errors import RainConfigError
from langchain_rain.evaluation.outcomes.base import Key, Label, Outcome


@dataclass(frozen=True, slots=True)
class PairedLabels:
    """The labels that two judges gave, in the same order: what Cohen's kappa is of.

    Attributes:
        first: of the one judge, where both could tell.
        second: of the other one.
        num_undecided: answers that both were asked about and one could not tell.
        num_alone: answers that only one of them was asked about.
    """

    first: tuple[bool, ...]
    second: tuple[bool, ...]
    num_undecided: int
    num_alone: int

    @property
    def num_agreed(self) -> int:
        """Answers of which they say the same."""
        return sum(one == other for one, other in zip(self.first, self.second, strict=True))


def paired_labels(first: Iterable[Outcome], second: Iterable[Outcome], label: str) -> PairedLabels:
    """What two judges say of a label, paired by case, strategy and seed.

    Raises:
        RainConfigError: one of them judged an answer twice, or gave a number.
    """
    one, other = _by_key(first, label), _by_key(second, label)
    shared = sorted(one.keys() & other.keys())
    decided = [(left, right) for left, right in ((one[key], other[key]) for key in shared) if None not in (left, right)]
    return PairedLabels(
        tuple(bool(left) for left, _ in decided),
        tuple(bool(right) for _, right in decided),
        len(shared) - len(decided),
        len(one.keys() ^ other.keys()),
    )


def _by_key(outcomes: Iterable[Outcome], label: str) -> Mapping[Key, Label]:
    found: dict[Key, Label] = {}
    for outcome in outcomes:
        if label not in outcome.labels:
            continue
        given = outcome.labels[label]
        if given is not None and not isinstance(given, bool):
            raise RainConfigError(f"{label}: true, false or None is allowed, {outcome.judge} gave {given!r}.")
        if outcome.key in found:
            raise RainConfigError(f"{label}: {outcome.judge} judged {outcome.key!r} twice.")
        found[outcome.key] = given
    return found
