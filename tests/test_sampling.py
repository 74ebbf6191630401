"""From logits to tokens: most probable ones, draws and probabilities, each row on its own."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from langchain_rain.engines.prefix_tree import CachedToken
from langchain_rain.engines.sampling import answer_wants
from langchain_rain.engines.work import Draw, Got, MostProbable, Probability, Want, draw_from_top

NODE = CachedToken(token=0, parent=None, slot=1, position=0)


def most_probable(count: int, temperature: float = 1.0) -> MostProbable:
    return MostProbable(NODE, temperature, count)


def draw(uniform: float, temperature: float = 1.0) -> Draw:
    return Draw(NODE, temperature, uniform)


def answer_one(want: Want, *probabilities: float, dtype: torch.dtype = torch.float64) -> Got:
    """The answer for a row of these probabilities."""
    (got,) = answer_wants([want], torch.tensor([probabilities], dtype=dtype).log())
    return got


def test_most_probable_tokens_come_in_order_with_their_log_probabilities() -> None:
    ids, logprobs = answer_one(most_probable(3), 0.1, 0.4, 0.2, 0.3)
    assert ids.tolist() == [1, 3, 2]
    assert np.exp(logprobs) == pytest.approx([0.4, 0.3, 0.2])


def test_no_more_tokens_are_most_probable_than_there_are() -> None:
    assert answer_one(most_probable(9), 0.5, 0.2, 0.3)[0].tolist() == [0, 2, 1]


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_of_equally_probable_tokens_the_lower_id_comes_first(count: int) -> None:
    assert answer_one(most_probable(count), 0.2, 0.1, 0.3, 0.1, 0.3)[0].tolist() == [2, 4, 0, 1, 3][:count]


def test_a_temperature_divides_logits_before_they_become_probabilities() -> None:
    _, logprobs = answer_one(most_probable(2, temperature=2.0), 0.8, 0.2)
    assert np.exp(logprobs) == pytest.approx([2 / 3, 1 / 3])  # the square roots of 0.8 and 0.2 are as 2 to 1


@pytest.mark.parametrize(("uniform", "token"), [(0.0, 1), (0.0999, 1), (0.1001, 2), (0.8999, 2), (0.9001, 4)])
def test_a_draw_takes_the_token_in_whose_part_of_the_unit_interval_it_falls(uniform: float, token: int) -> None:
    ids, logprobs = answer_one(draw(uniform), 0.0, 0.1, 0.8, 0.0, 0.1)
    assert ids.tolist() == [token]
    assert np.exp(logprobs) == pytest.approx([[0.0, 0.1, 0.8, 0.0, 0.1][token]])


def test_the_largest_uniform_falls_into_the_last_token_and_not_beyond() -> None:
    uniform = float(np.nextafter(1.0, 0.0))
    assert answer_one(draw(uniform), 0.3, 0.3, 0.4)[0].tolist() == [2]


def test_draws_are_as_frequent_as_tokens_are_probable() -> None:
    probabilities = np.array([0.05, 0.5, 0.3, 0.15])
    uniforms = (np.arange(1000) + 0.5) / 1000
    logits = torch.tensor(probabilities).log().expand(1000, 4)
    drawn = [int(ids[0]) for ids, _ in answer_wants([draw(float(each)) for each in uniforms], logits)]
    assert np.bincount(drawn) / 1000 == pytest.approx(probabilities)


def test_probabilities_are_those_of_the_full_distribution_in_the_order_asked_for() -> None:
    ids, logprobs = answer_one(Probability(NODE, (3, 0)), 0.1, 0.4, 0.2, 0.3)
    assert ids.tolist() == [3, 0]
    assert np.exp(logprobs) == pytest.approx([0.3, 0.1])


WANTS: list[Want] = [
    most_probable(3),
    most_probable(20, temperature=0.7),
    draw(0.4),
    draw(0.9, temperature=1.3),
    Probability(NODE, (2, 5)),
]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@given(order=st.permutations(range(len(WANTS))), seed=st.integers(0, 9))
def test_an_answer_does_not_depend_on_what_is_asked_beside_it(dtype: torch.dtype, order: list[int], seed: int) -> None:
    # In bfloat16 many logits are equal.
    logits = (3 * torch.randn(len(WANTS), 50, generator=torch.Generator().manual_seed(seed))).to(dtype)
    together = answer_wants([WANTS[row] for row in order], logits[order])
    for row, (ids, logprobs) in zip(order, together, strict=True):
        ((ids_alone, logprobs_alone),) = answer_wants([WANTS[row]], logits[row : row + 1])
        assert ids.tolist() == ids_alone.tolist()
        assert logprobs.tolist() == logprobs_alone.tolist()


def test_a_row_that_is_not_a_number_is_answered_and_leaves_its_neighbours_alone() -> None:
    logits = torch.tensor([[float("nan")] * 3, [0.0, 1.0, 2.0], [float("nan")] * 3])
    spoiled, healthy, drawn = answer_wants([most_probable(2), most_probable(2), draw(0.5)], logits)
    assert np.isnan(spoiled[1]).all()
    assert len(spoiled[0]) == 2
    assert healthy[0].tolist() == [2, 1]
    assert np.isnan(drawn[1]).all()


@pytest.mark.parametrize(
    ("uniform", "token", "probability"), [(0.0, 7, 0.75), (0.74, 7, 0.75), (0.76, 3, 0.25), (1 - 2**-53, 3, 0.25)]
)
def test_a_draw_from_the_top_renormalises_over_it(uniform: float, token: int, probability: float) -> None:
    ((drawn, logprob),) = draw_from_top(np.array([7, 3]), np.log([0.3, 0.1]), [uniform])
    assert drawn == token
    assert np.exp(logprob) == pytest.approx(probability)


def test_a_draw_from_the_top_survives_probabilities_too_small_to_be_written() -> None:
    ((drawn, logprob),) = draw_from_top(np.array([4, 5]), np.array([-2000.0, -2000.0]), [0.6])
    assert drawn == 5
    assert np.exp(logprob) == pytest.approx(0.5)
