"""What was measured, in figures: rates and means with 95 % intervals, and percentiles.

What was measured is given by case, with a value for each seed that the case was answered with. Cases are what is drawn
anew by the bootstrap, with all of their values: answers to one question are not independent (Cameron, Gelbach and
Miller 2008, "Bootstrap-based improvements for inference with clustered errors"). Every case weighs the same.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, TypeAlias

import numpy as np

from langchain_rain.errors import RainConfigError
from langchain_rain.evaluation.packages import needed

CONFIDENCE = 0.95
"""Of all intervals."""

NUM_RESAMPLES = 9999
"""Of the bootstrap and of random permutations; scipy's own number."""

ROUNDING = 1e-12
"""By which values differ that are equal: means over seeds, which are added up in another order."""

MAX_DRAWN = 1 << 22
"""Numbers that are drawn at once, so that many cases do not fill the memory."""

Outcomes: TypeAlias = Mapping[str, Sequence[float]]
"""By the id of a case, the values of its answers; truth values are 0 and 1."""

Numbers: TypeAlias = np.ndarray[tuple[int], np.dtype[np.float64]]
"""One for each case."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of cases, in [0, 1].

    Attributes:
        value: None without cases.
        low: of its interval, [0, 1] without cases; `high` likewise.
        num: of cases.
    """

    value: float | None
    low: float
    high: float
    num: int


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over cases.

    Attributes:
        value: None without cases.
        low: of its interval, None with fewer than two cases; `high` likewise.
        num: of cases.
    """

    value: float | None
    low: float | None
    high: float | None
    num: int


@dataclass(frozen=True, slots=True)
class Percentiles:
    """What half and what 95 % of the values do not exceed; None without any. Between two values it is interpolated."""

    p50: float | None
    p95: float | None
    num: int


def wilson(num_true: int, num: int) -> Rate:
    """A share of independent cases, with the interval of Wilson 1927, "Probable inference", JASA 22, 209-212.

    Raises:
        RainConfigError: the counts are no counts.
    """
    if not 0 <= num_true <= num:
        raise RainConfigError(f"A count from 0 to the number of cases is wanted, given {num_true!r} of {num!r}.")
    if num == 0:
        return Rate(None, 0.0, 1.0, 0)
    found = scipy_stats().binomtest(num_true, num).proportion_ci(CONFIDENCE, "wilson")
    return Rate(num_true / num, float(found.low), float(found.high), num)


def rate(outcomes: Outcomes, rng: np.random.Generator) -> Rate:
    """The share of what is true.

    The interval is Wilson's where all answers to a case are the same, so where each case was answered once, and
    otherwise the bootstrap's.

    Raises:
        RainConfigError: a value is neither true nor false, or a case has none.
    """
    values = case_means(outcomes)
    if not are_truth_values(outcomes):
        raise RainConfigError("A rate is of what is true or false; of other values take the mean.")
    if set(values.tolist()) <= {0.0, 1.0}:
        return wilson(int(values.sum()), len(values))
    low, high = interval(values, rng)
    if low is None or high is None or low == high:  # equal cases: no resample differs, though a new case may
        num_true = float(values.sum())
        low = wilson(math.floor(num_true), len(values)).low
        high = wilson(math.ceil(num_true), len(values)).high
    return Rate(fmean(values), low, high, len(values))


def mean(outcomes: Outcomes, rng: np.random.Generator) -> Mean:
    """The mean over the cases, each by the mean of its values, with the interval of the bootstrap (percentiles).

    Raises:
        RainConfigError: a value is no finite number, or a case has none.
    """
    values = case_means(outcomes)
    return Mean(fmean(values) if len(values) else None, *interval(values, rng), len(values))


def percentiles(values: Sequence[float]) -> Percentiles:
    """The median and the 95th percentile.

    Raises:
        RainConfigError: a value is no finite number.
    """
    if not all(math.isfinite(value) for value in values):
        raise RainConfigError(f"Finite numbers are wanted, given {list(values)!r:.80}.")
    if not values:
        return Percentiles(None, None, 0)
    p50, p95 = np.percentile(values, [50, 95])
    return Percentiles(float(p50), float(p95), len(values))


def are_truth_values(outcomes: Outcomes) -> bool:
    """Whether each value is true or false."""
    return all(value in (0, 1) for values in outcomes.values() for value in values)


def case_means(outcomes: Outcomes) -> Numbers:
    """The mean of each case.

    Raises:
        RainConfigError: a value is no finite number, or a case has none.
    """
    for case_id, values in outcomes.items():
        if not values or not all(math.isfinite(value) for value in values):
            raise RainConfigError(
                f"Case {case_id!r}: at least one value, and finite ones, are wanted, given {values!r}."
            )
    return np.array([fmean(values) for values in outcomes.values()], dtype=np.float64)


def interval(values: Numbers, rng: np.random.Generator) -> tuple[float | None, float | None]:
    """The 95 % interval of the mean by the bootstrap: percentiles of the means of resamples.

    None with fewer than two cases, which say nothing of their spread; a point where all are equal.
    """
    if len(values) < 2:
        return None, None
    if np.ptp(values) <= ROUNDING:  # which sums of resamples would make an interval of
        return float(values[0]), float(values[0])
    drawn = scipy_stats().bootstrap(
        (values,),
        np.mean,
        n_resamples=NUM_RESAMPLES,
        batch=max(1, MAX_DRAWN // len(values)),
        vectorized=True,
        confidence_level=CONFIDENCE,
        method="percentile",  # BCa has none where all cases are equal
        rng=rng,
    )
    return float(drawn.confidence_interval.low), float(drawn.confidence_interval.high)


def interval_or_bounds(values: Numbers, least: float, most: float, rng: np.random.Generator) -> tuple[float, float]:
    """The interval of the mean by the bootstrap; where all values are equal, what some unlike ones could make of it.

    No resample of equal cases differs from them, though a new case may: of so many cases, a share up to Wilson's bound
    for none seen may be unlike, and each of these between `least` and `most`.
    """
    low, high = interval(values, rng)
    if low is not None and high is not None and high - low > ROUNDING:
        return low, high
    value, share = fmean(values), wilson(0, len(values)).high
    return value - share * (value - least), value + share * (most - value)


def scipy_stats() -> Any:
    """The module.

    Raises:
        RainConfigError: it is not installed.
    """
    return needed("scipy.stats")
