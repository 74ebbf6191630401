"""How far two who judged the same agree."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from langchain_rain.errors import RainConfigError
from langchain_rain.evaluation.packages import needed
from langchain_rain.evaluation.statistics import Rate, wilson


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two judges agree.

    Attributes:
        rate: how often they say the same, chance included.
        kappa: how far they agree beyond chance, in [-1, 1]; None without cases, and where both said one and the same of
            all, as chance would have done too.
    """

    rate: Rate
    kappa: float | None


def agreement(first: Sequence[Hashable], second: Sequence[Hashable]) -> Agreement:
    """What two judges said of the same cases, in the same order (Cohen 1960, "A coefficient of agreement").

    Raises:
        RainConfigError: they did not judge equally many.
    """
    if len(first) != len(second):
        raise RainConfigError(f"Judgements of the same cases are wanted, given {len(first)} and {len(second)}.")
    same = wilson(sum(one == other for one, other in zip(first, second, strict=True)), len(first))
    numbers = {label: number for number, label in enumerate(dict.fromkeys([*first, *second]))}
    if len(numbers) < 2:
        return Agreement(same, None)
    labels = [[numbers[label] for label in labels] for labels in (first, second)]
    return Agreement(same, float(needed("sklearn.metrics").cohen_kappa_score(*labels)))
