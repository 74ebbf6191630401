import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_rain.search.protocol import TokenSet
from langchain_rain.search.puct import child_priors, normalised_value, puct, running_mean


def token_set(probability: float, *, is_greedy: bool = False) -> TokenSet:
    return TokenSet((1,), "", math.log(probability), is_greedy)


def test_puct_adds_the_normalised_value_and_the_weighted_exploration() -> None:
    # 1.5 / 2.00001 + 2 * 0.25 * sqrt(16) / (1 + 3) == 0.749996... + 0.5
    number = puct(prior=0.25, value=0.5, effective_visits=3, parent_effective_visits=16, c_puct=2)
    assert number == 1.5 / 2.00001 + 0.5


def test_puct_prefers_the_unvisited_child_of_equal_prior() -> None:
    # 0 + 2 * 0.5 * 2 / 1 == 2 against 1 / 2.00001 + 2 * 0.5 * 2 / 3 == 1.17
    unvisited = puct(prior=0.5, value=0, effective_visits=0, parent_effective_visits=4, c_puct=2)
    visited = puct(prior=0.5, value=0, effective_visits=2, parent_effective_visits=4, c_puct=2)
    assert unvisited == 2.0
    assert visited == pytest.approx(0.5 + 2 / 3, abs=1e-5)


def test_the_value_of_a_node_of_which_nothing_is_known_is_normalised_to_0() -> None:
    assert normalised_value(0.9, 0) == 0


@pytest.mark.parametrize(("value", "expected"), [(-1, 0), (0, 1 / 2.00001), (1, 2 / 2.00001)])
def test_known_values_are_moved_from_minus_1_and_1_to_0_and_nearly_1(value: float, expected: float) -> None:
    assert normalised_value(value, 0.2) == expected


def test_a_running_mean_weighs_what_it_takes_in() -> None:
    assert running_mean(1.0, 3, -1.0, 1) == 0.5  # (1 + 1 + 1 - 1) / 4
    assert running_mean(0.0, 0, -0.75, 0.2) == pytest.approx(-0.75)  # the first thing known of a node is all of it


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(0.01, 1)), min_size=1, max_size=30))
def test_a_running_mean_of_values_stays_in_their_range(parts: list[tuple[float, float]]) -> None:
    mean, weight = 0.0, 0.0
    for value, value_weight in parts:
        mean = running_mean(mean, weight, value, value_weight)
        weight += value_weight
        assert -1 <= mean <= 1


def test_priors_of_single_tokens_are_their_probabilities_renormalised() -> None:
    priors = child_priors([token_set(0.3, is_greedy=True), token_set(0.2)], num_tokens=1, root_mixing=0)
    assert priors == pytest.approx([0.6, 0.4])


def test_a_greedy_set_that_would_drown_the_others_weighs_as_much_as_all_of_them() -> None:
    # 0.9 is clamped to 0.04 + 0.02 + 0.02 == 0.08, above 0.04 + 0.02
    sets = [token_set(0.9, is_greedy=True), token_set(0.04), token_set(0.02), token_set(0.02)]
    assert child_priors(sets, num_tokens=2, root_mixing=0) == pytest.approx([0.5, 0.25, 0.125, 0.125])


def test_a_greedy_set_that_would_vanish_weighs_more_than_the_best_of_the_others() -> None:
    # 0.001 is raised to 0.04 + 0.02 == 0.06; all weigh 0.14
    sets = [token_set(0.001, is_greedy=True), token_set(0.04), token_set(0.02), token_set(0.02)]
    assert child_priors(sets, num_tokens=2, root_mixing=0) == pytest.approx([6 / 14, 4 / 14, 2 / 14, 2 / 14])


def test_with_one_sampled_set_the_lower_bound_decides() -> None:
    # lower bound 0.1 + 0.1, upper bound 0.1: max(min(0.5, 0.1), 0.2) == 0.2
    sets = [token_set(0.5, is_greedy=True), token_set(0.1)]
    assert child_priors(sets, num_tokens=4, root_mixing=0) == pytest.approx([2 / 3, 1 / 3])


def test_a_greedy_set_between_the_bounds_keeps_its_weight() -> None:
    # the bounds are 0.04 + 0.02 and 0.10; all weigh 0.17
    sets = [token_set(0.07, is_greedy=True), token_set(0.04), token_set(0.04), token_set(0.02)]
    assert child_priors(sets, num_tokens=2, root_mixing=0) == pytest.approx([7 / 17, 4 / 17, 4 / 17, 2 / 17])


def test_a_greedy_set_alone_has_prior_1() -> None:
    assert child_priors([token_set(0.01, is_greedy=True)], num_tokens=10, root_mixing=0) == [1.0]


def test_children_of_the_root_share_a_quarter_evenly() -> None:
    # three quarters of 0.8 and 0.2, and a quarter of one half each
    priors = child_priors([token_set(0.8, is_greedy=True), token_set(0.2)], num_tokens=1, root_mixing=0.25)
    assert priors == pytest.approx([0.725, 0.275])


def test_sets_too_improbable_for_a_float_are_equally_probable() -> None:
    sets = [TokenSet((1,), "", -1e6), TokenSet((2,), "", -2e6)]
    assert child_priors(sets, num_tokens=10, root_mixing=0.25) == [0.5, 0.5]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-200, 0), min_size=1, max_size=20),
    st.booleans(),
    st.integers(1, 10),
    st.sampled_from([0.0, 0.25]),
)
def test_priors_sum_to_1(logprobs: list[float], has_greedy: bool, num_tokens: int, root_mixing: float) -> None:
    sets = [TokenSet((n,), "", logprob, has_greedy and n == 0) for n, logprob in enumerate(logprobs)]
    priors = child_priors(sets, num_tokens=num_tokens, root_mixing=root_mixing)
    assert sum(priors) == pytest.approx(1, abs=1e-12)
    assert all(0 <= prior <= 1 for prior in priors)
