"""Every statistic comes to what scipy, statsmodels or the definition comes to by another way."""

import importlib
import itertools
import math
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_rain import RainConfigError
from langchain_rain.evaluation import statistics
from langchain_rain.evaluation.agreement import agreement
from langchain_rain.evaluation.comparisons import WinRate, compare, sign_test, win_rate
from langchain_rain.evaluation.diversity import distinct_n, words_of
from langchain_rain.evaluation.statistics import Mean, Percentiles, Rate, mean, percentiles, rate, wilson

about: Any = pytest.approx

few_draws = settings(max_examples=25)
"""Each example draws 9,999 resamples."""


def other_way(module: str) -> Any:
    """A module that a statistic is compared with; statsmodels warns when imported beside a newer scipy."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(module)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def once(values: Sequence[float]) -> dict[str, list[float]]:
    """Outcomes of cases that were answered once."""
    return {str(number): [value] for number, value in enumerate(values)}


def counts() -> st.SearchStrategy[tuple[int, int]]:
    return st.integers(1, 3000).flatmap(lambda num: st.tuples(st.integers(0, num), st.just(num)))


# --- Rates ---


@given(counts())
def test_a_rate_has_the_interval_of_wilson(count: tuple[int, int]) -> None:
    found = wilson(*count)
    proportion = other_way("statsmodels.stats.proportion")
    assert (found.low, found.high) == about(proportion.proportion_confint(*count, method="wilson"), abs=1e-12)
    assert (found.value, found.num) == (count[0] / count[1], count[1])


def test_a_rate_of_no_cases_is_none_and_may_be_anything() -> None:
    assert wilson(0, 0) == rate({}, rng()) == Rate(None, 0.0, 1.0, 0)


def test_counts_that_are_none_are_refused() -> None:
    for count in ((3, 2), (-1, 2)):
        with pytest.raises(RainConfigError, match="A count from 0 to the number of cases is wanted"):
            wilson(*count)


def test_a_rate_over_cases_that_were_answered_once_or_alike_is_wilsons() -> None:
    assert rate(once([True, False, True]), rng()) == wilson(2, 3)
    assert rate({"a": [1, 1], "b": [0, 0], "c": [1, 1]}, rng()) == wilson(2, 3)
    assert rate(once([True] * 9), rng()) == wilson(9, 9)


def test_a_rate_over_seeds_weighs_all_cases_alike() -> None:
    outcomes = {"a": [True, False, False, False], "b": [True, True], "c": [False]}
    found = rate(outcomes, rng())
    assert found.value == about((0.25 + 1 + 0) / 3)
    assert found.num == 3
    assert 0 <= found.low < found.high <= 1


def test_a_rate_whose_cases_are_all_torn_is_as_uncertain_as_its_cases_are_few() -> None:
    found = rate({"a": [1, 0], "b": [0, 1], "c": [1, 0]}, rng())
    assert found == Rate(0.5, wilson(1, 3).low, wilson(2, 3).high, 3)
    assert rate({"a": [1, 0]}, rng()) == Rate(0.5, 0.0, 1.0, 1)


def test_answers_to_one_case_do_not_count_as_so_many_cases() -> None:
    outcomes = {str(number): [number % 2 == 0] * 50 + [number % 3 == 0] for number in range(20)}
    found = rate(outcomes, rng())
    as_if_independent = wilson(sum(map(sum, outcomes.values())), 51 * 20)
    assert found.high - found.low > 4 * (as_if_independent.high - as_if_independent.low)


def test_a_rate_is_of_what_is_true_or_false() -> None:
    with pytest.raises(RainConfigError, match="of other values take the mean"):
        rate(once([0.5]), rng())


# --- Means and the bootstrap ---


def exact_interval(values: Sequence[float], tail: float) -> tuple[float, float]:
    """The quantiles at `tail` and 1 - `tail` of the means of all resamples there are, each as probable."""
    means = sorted(float(np.mean(drawn)) for drawn in itertools.product(values, repeat=len(values)))
    return means[int(tail * len(means))], means[math.ceil((1 - tail) * len(means)) - 1]


@few_draws
@given(st.lists(st.integers(-20, 20), min_size=2, max_size=5))
def test_the_bootstrap_comes_to_the_quantiles_of_all_resamples(values: list[int]) -> None:
    found = mean(once(values), rng())
    assert found.low is not None
    assert found.high is not None
    outer, inner = exact_interval(values, 0.015), exact_interval(values, 0.035)  # 0.025 within what chance allows
    assert outer[0] - 1e-9 <= found.low <= inner[0] + 1e-9
    assert inner[1] - 1e-9 <= found.high <= outer[1] + 1e-9


@few_draws
@given(st.integers(0, 2**32 - 1))
def test_for_many_cases_the_bootstrap_comes_to_the_normal_interval(seed: int) -> None:
    values = np.random.default_rng(seed).exponential(size=400)
    low, high = other_way("scipy.stats").norm.interval(0.95, values.mean(), values.std() / math.sqrt(len(values)))
    found = mean(once(values.tolist()), rng())
    assert found.low == about(low, abs=0.02)
    assert found.high == about(high, abs=0.02)


def test_a_mean_of_too_few_cases_has_no_interval_and_one_of_equal_ones_is_a_point() -> None:
    assert mean({}, rng()) == Mean(None, None, None, 0)
    assert mean({"a": [1.0, 2.0]}, rng()) == Mean(1.5, None, None, 1)
    assert mean(once([0.1] * 7), rng()) == Mean(0.1, 0.1, 0.1, 7)


def test_the_same_generator_gives_the_same_interval_whatever_is_drawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    values = once(np.random.default_rng(1).random(50).tolist())
    found = mean(values, rng())
    assert found == mean(values, rng())
    assert found != mean(values, np.random.default_rng(1))
    monkeypatch.setattr(statistics, "MAX_DRAWN", 1000)
    again = mean(values, rng())
    assert (again.low, again.high) == about((found.low, found.high))


@pytest.mark.parametrize("bad", [[math.nan], [1.0, math.inf], []])
@pytest.mark.parametrize(
    "statistic",
    [
        lambda outcomes: rate(outcomes, rng()),
        lambda outcomes: mean(outcomes, rng()),
        lambda outcomes: compare(outcomes, once([1.0]), rng()),
        lambda outcomes: compare(once([1.0]), outcomes, rng()),
    ],
)
def test_what_is_no_number_is_refused(statistic: Callable[[Any], Any], bad: list[float]) -> None:
    with pytest.raises(RainConfigError, match="Case '0': at least one value, and finite ones, are wanted"):
        statistic({"0": bad})


# --- Pairs ---


@few_draws
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_pairs_that_were_answered_once_are_compared_by_mcnemars_exact_test(pairs: list[tuple[bool, bool]]) -> None:
    old, new = zip(*pairs, strict=True)
    found = compare(once(old), once(new), rng())
    count = Counter(pairs)
    table = [[count[True, True], count[True, False]], [count[False, True], count[False, False]]]
    mcnemar = other_way("statsmodels.stats.contingency_tables").mcnemar
    assert found.p_value == about(mcnemar(table, exact=True).pvalue)
    assert found.test == "McNemar, exact"
    assert (found.better, found.worse) == (count[False, True], count[True, False])
    assert found.difference == about((count[False, True] - count[True, False]) / len(pairs))
    assert (found.num, found.num_unpaired) == (len(pairs), 0)


def test_one_way_that_is_always_better_is_told_from_chance_after_six_pairs() -> None:
    found = compare(once([0] * 6), once([1] * 6), rng())
    assert found.p_value == 2 / 2**6
    assert (found.difference, found.high) == (1.0, 1.0)
    assert found.low == about(1 - 2 * wilson(0, 6).high)  # cases unlike these six may be as many, and all the other way


def test_equal_cases_are_equal_whatever_the_order_in_which_their_seeds_are_added_up() -> None:
    old = [[0, 0, 0], [1, 0, 0], [0, 1, 1]] * 3
    new = [[0, 1, 0], [1, 1, 0], [1, 1, 1]] * 3
    before, after = ({str(number): values for number, values in enumerate(each)} for each in (old, new))
    found = compare(before, after, rng())
    assert found.difference == about(1 / 3)
    assert found.high - found.low > 0.3


def test_pairs_without_any_difference_are_no_sign_of_one() -> None:
    found = compare(once([1, 0, 1]), once([1, 0, 1]), rng())
    assert (found.difference, found.p_value) == (0.0, 1.0)
    assert (found.low, found.high) == (-wilson(0, 3).high, wilson(0, 3).high)
    graded = compare(once([0.5, 0.25]), once([0.5, 0.25]), rng())
    assert (graded.difference, graded.low, graded.high, graded.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_one_pair_tells_nothing_beyond_itself() -> None:
    found = compare(once([0]), once([1]), rng())
    assert (found.difference, found.high, found.p_value) == (1.0, 1.0, 1.0)
    assert found.low < 0


def test_the_same_answers_over_more_seeds_make_no_difference_more_certain() -> None:
    old, new = [0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0], [1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0]
    one = compare(once(old), once(new), rng())
    many = compare({name: values * 9 for name, values in once(old).items()}, once(new), rng())
    assert (many.difference, many.low, many.high) == (one.difference, one.low, one.high)
    assert many.test == "permutation of signs"


@few_draws
@given(st.lists(st.integers(-9, 9), min_size=2, max_size=8))
def test_few_graded_pairs_are_compared_by_all_signs_there_are(differences: list[int]) -> None:
    found = compare(once([0.5] * len(differences)), once([0.5 + each for each in differences]), rng())
    total = abs(sum(differences))
    sums = [sum(signed) for signed in itertools.product(*((each, -each) for each in differences))]
    assert found.p_value == about(float(Fraction(sum(abs(each) >= total for each in sums), len(sums))))
    assert found.difference == about(sum(differences) / len(differences))


def test_cases_of_only_one_way_are_left_out_and_counted() -> None:
    found = compare({"a": [1], "b": [0]}, {"b": [1], "c": [0], "d": [1]}, rng())
    assert (found.num, found.num_unpaired, found.difference) == (1, 3, 1.0)
    with pytest.raises(RainConfigError, match="At least one case that both have answered"):
        compare({"a": [1]}, {"b": [1]}, rng())


@given(st.integers(0, 200), st.integers(0, 200))
def test_the_sign_test_is_that_of_a_fair_coin(num_up: int, num_down: int) -> None:
    num = num_up + num_down
    least = min(num_up, num_down)
    tail = sum(math.comb(num, number) for number in range(least + 1))
    assert sign_test(num_up, num_down) == about(min(1.0, float(Fraction(2 * tail, 2**num))))


# --- Win rates ---


def test_an_answer_wins_if_it_is_preferred_in_both_orders() -> None:
    shown = {"win": (1, 1), "loss": (0, 0), "torn": (1, 0), "near": (1, 0.5), "none": (0.5, 0.5), "sure": (0.9, 0.6)}
    found = win_rate({name: [pair] for name, pair in shown.items()}, rng())
    assert (found.wins, found.losses, found.ties, found.num) == (2, 1, 3, 6)
    assert found.value == about((2 + 3 / 2) / 6)
    assert found.p_value == 1.0
    assert found.position_bias == about((1 + 0.5 + 0.3) / 2 / 6)
    assert found.low < found.value < found.high


def test_comparisons_of_one_case_count_as_one_case() -> None:
    found = win_rate({"a": [(1, 1), (1, 1), (0, 0)], "b": [(0, 0)]}, rng())
    assert (found.wins, found.losses, found.num) == (1, 1, 2)
    assert found.value == about((2 / 3 + 0) / 2)


@few_draws
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=20))
def test_the_other_answer_has_the_other_win_rate(pairs: list[tuple[float, float]]) -> None:
    found = win_rate({str(number): [pair] for number, pair in enumerate(pairs)}, rng())
    others = [(1 - second, 1 - first) for first, second in pairs]
    other = win_rate({str(number): [pair] for number, pair in enumerate(others)}, rng())
    assert (found.wins, found.losses, found.value) == (other.losses, other.wins, about(1 - other.value))
    assert found.position_bias == about(other.position_bias, abs=1e-12)
    assert found.p_value == other.p_value


def test_one_comparison_tells_hardly_anything_and_none_is_refused() -> None:
    assert win_rate({"a": [(1, 1)]}, rng()) == WinRate(1.0, about(1 - wilson(0, 1).high), 1.0, 1.0, 1, 0, 0, 0.0, 1)
    with pytest.raises(RainConfigError, match="At least one case is wanted for a win rate"):
        win_rate({}, rng())
    for bad in (math.nan, 1.5, -0.5):
        with pytest.raises(RainConfigError, match=r"A preference in \[0, 1\] is wanted"):
            win_rate({"a": [(0.5, bad)]}, rng())
    with pytest.raises(RainConfigError, match="Case 'a': at least one value"):
        win_rate({"a": []}, rng())


# --- Percentiles ---


# Seconds, as large as they come: beyond, a double is no more exact than the bound.
@given(st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=50))
def test_percentiles_are_interpolated_as_by_scipy(values: list[float]) -> None:
    found = percentiles(values)
    other = other_way("scipy.stats").mstats.mquantiles(values, [0.5, 0.95], alphap=1, betap=1)
    assert (found.p50, found.p95) == about(tuple(other), abs=1e-9)
    assert found.num == len(values)


def test_there_are_no_percentiles_of_nothing_and_one_value_is_all_of_them() -> None:
    assert percentiles([]) == Percentiles(None, None, 0)
    assert percentiles([7]) == Percentiles(7.0, 7.0, 1)
    with pytest.raises(RainConfigError, match="Finite numbers are wanted"):
        percentiles([1.0, math.nan])


# --- Agreement ---


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=1, max_size=60))
def test_kappa_is_that_of_statsmodels(pairs: list[tuple[str, str]]) -> None:
    first, second = zip(*pairs, strict=True)
    found = agreement(first, second)
    assert found.rate == wilson(sum(one == other for one, other in pairs), len(pairs))
    if len({*first, *second}) == 1:
        assert found.kappa is None
        return
    count = Counter(pairs)
    table = np.array([[count[row, column] for column in "abc"] for row in "abc"])
    cohens_kappa = other_way("statsmodels.stats.inter_rater").cohens_kappa
    assert found.kappa == about(cohens_kappa(table, return_results=False), abs=1e-12)


def test_labels_may_be_anything_that_can_be_told_apart() -> None:
    assert agreement([True, False, None], [1, 0, None]).kappa == 1.0
    assert agreement([], []).kappa is None
    with pytest.raises(RainConfigError, match="Judgements of the same cases are wanted, given 1 and 0"):
        agreement(["a"], [])


# --- Diversity ---


def test_distinct_n_counts_over_all_texts_but_not_across_them() -> None:
    texts = ["The cat, the CAT.", "the dog"]
    assert (distinct_n(texts, 1).num_distinct, distinct_n(texts, 1).num) == (3, 6)
    # the-cat, cat-the, the-cat; the-dog
    assert (distinct_n(texts, 2).num_distinct, distinct_n(texts, 2).num) == (3, 4)
    assert distinct_n(texts, 2).value == 0.75
    assert distinct_n(["one two"], 3).value is None
    with pytest.raises(RainConfigError, match="a number of words from 1 on is wanted, given 0"):
        distinct_n(texts, 0)


@given(st.lists(st.lists(st.sampled_from(["a", "b", "c"]), max_size=12), max_size=6), st.integers(1, 4))
def test_distinct_n_is_the_share_of_distinct_windows(texts: list[list[str]], n: int) -> None:
    windows = [tuple(words[start : start + n]) for words in texts for start in range(len(words) - n + 1)]
    found = distinct_n([" ".join(words) for words in texts], n)
    assert (found.num_distinct, found.num) == (len(set(windows)), len(windows))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don\u2019t stop - 3.14, naïve!", ["don\u2019t", "stop", "3.14", "naïve"]),
        ("E\u0301TE\u0301", ["été"]),
        ("STRASSE Straße", ["strasse", "strasse"]),
        ("我们 カタカナ", ["我", "们", "カタカナ"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("-- 😀 ...", []),
    ],
)
def test_words_are_those_of_unicode(text: str, words: list[str]) -> None:
    assert list(words_of(text)) == words


def test_without_scipy_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    with pytest.raises(RainConfigError, match=r"pip install 'langchain-rain\[eval\]'"):
        wilson(1, 2)
