"""Two ways to answer, or two answers, beside each other: what differs, and whether that may be chance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

import numpy as np

from langchain_rain.errors import RainConfigError
from langchain_rain.evaluation.statistics import (
    MAX_DRAWN,
    NUM_RESAMPLES,
    Numbers,
    Outcomes,
    are_truth_values,
    case_means,
    interval_or_bounds,
    scipy_stats,
)


@dataclass(frozen=True, slots=True)
class Paired:
    """How one way to answer does against another on the same cases.

    Attributes:
        difference: of the means, the new minus the old.
        low: of its interval; `high` likewise.
        p_value: how probable a difference so large is, either way, if the two ways are the same.
        test: where the p-value comes from.
        better: cases whose value is higher by the new way; `worse` likewise.
        num: of cases.
        num_unpaired: cases that only one of the two has, and that are left out.
    """

    difference: float
    low: float
    high: float
    p_value: float
    test: Literal["McNemar, exact", "permutation of signs"]
    better: int
    worse: int
    num: int
    num_unpaired: int


@dataclass(frozen=True, slots=True)
class WinRate:
    """How often an answer is preferred to another.

    Attributes:
        value: wins and half of the ties, as a share; 0.5 if the answers are as good.
        low: of its interval; `high` likewise.
        p_value: of the exact sign test of wins against losses.
        wins: cases in which it is preferred; `losses`, `ties` likewise.
        position_bias: the probability that the answer shown first is preferred, minus 0.5.
        num: of cases.
    """

    value: float
    low: float
    high: float
    p_value: float
    wins: int
    losses: int
    ties: int
    position_bias: float
    num: int


def compare(old: Outcomes, new: Outcomes, rng: np.random.Generator) -> Paired:
    """Compares two ways to answer on the cases that both have, with the interval of the bootstrap over these.

    The test is McNemar's, which is exact, where both answered each case once and what is told is true or false;
    otherwise the differences of the cases are given random signs, or all signs where there are few.

    Raises:
        RainConfigError: no case is in both, a value is no finite number, or a case has none.
    """
    ids = [case_id for case_id in old if case_id in new]
    if not ids:
        raise RainConfigError("At least one case that both have answered is wanted for a comparison, given none.")
    pairs = [{case_id: outcomes[case_id] for case_id in ids} for outcomes in (old, new)]
    differences = case_means(pairs[1]) - case_means(pairs[0])
    better, worse = int((differences > 0).sum()), int((differences < 0).sum())
    are_truths = all(map(are_truth_values, pairs))
    is_mcnemar = are_truths and all(len(values) == 1 for each in pairs for values in each.values())
    furthest = 1.0 if are_truths else float(np.abs(differences).max())
    low, high = interval_or_bounds(differences, -furthest, furthest, rng)
    return Paired(
        difference=fmean(differences),
        low=low,
        high=high,
        p_value=sign_test(better, worse) if is_mcnemar else _permutation_test(differences, rng),
        test="McNemar, exact" if is_mcnemar else "permutation of signs",
        better=better,
        worse=worse,
        num=len(ids),
        num_unpaired=len(old.keys() ^ new.keys()),
    )


def win_rate(preferences: Mapping[str, Sequence[tuple[float, float]]], rng: np.random.Generator) -> WinRate:
    """How often an answer is preferred, where a judge was asked in both orders.

    A comparison is won if the answer is preferred in both orders, lost if it is in neither, and a tie otherwise. A case
    that was compared several times is won if more of its comparisons are won than lost.

    Args:
        preferences: by case, for each comparison: how far the answer is preferred when it is shown first, and when it
            is shown second; 1, 0, 0.5 where the judge sees no difference, or a probability.
        rng: of the bootstrap.

    Raises:
        RainConfigError: there is no case, a case has no comparison, or a preference is not in [0, 1].
    """
    if not preferences:
        raise RainConfigError("At least one case is wanted for a win rate, given none.")
    given = [share for pairs in preferences.values() for pair in pairs for share in pair]
    if not all(0 <= share <= 1 for share in given):  # nor NaN
        raise RainConfigError("A preference in [0, 1] is wanted of every comparison.")
    points = {case: [_points(*pair) for pair in pairs] for case, pairs in preferences.items()}
    leanings = {case: [(first - second) / 2 for first, second in pairs] for case, pairs in preferences.items()}
    values = case_means(points)
    wins, losses = int((values > 0.5).sum()), int((values < 0.5).sum())
    low, high = interval_or_bounds(values, 0.0, 1.0, rng)
    return WinRate(
        value=fmean(values),
        low=low,
        high=high,
        p_value=sign_test(wins, losses),
        wins=wins,
        losses=losses,
        ties=len(values) - wins - losses,
        position_bias=fmean(case_means(leanings)),
        num=len(values),
    )


def sign_test(num_up: int, num_down: int) -> float:
    """How probable counts so unequal are if both ways are as probable; 1 without any. McNemar's test, exact."""
    if num_up + num_down == 0:
        return 1.0
    return float(scipy_stats().binomtest(num_up, num_up + num_down).pvalue)


def _points(first: float, second: float) -> float:
    if min(first, second) > 0.5:
        return 1.0
    return 0.0 if max(first, second) < 0.5 else 0.5


def _permutation_test(differences: Numbers, rng: np.random.Generator) -> float:
    """Of a mean of 0, if a difference may as well have been the other way round."""
    if len(differences) < 2 or not differences.any():
        return 1.0
    drawn = scipy_stats().permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        n_resamples=NUM_RESAMPLES,
        batch=max(1, MAX_DRAWN // len(differences)),
        vectorized=True,
        rng=rng,
    )
    return float(drawn.pvalue)
