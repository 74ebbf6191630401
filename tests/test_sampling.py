"""From logits to tokens: most probable ones, draws and probabilities, each row on its own."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from langchain_rain.engines.sampling import answer_wants, ranked, sampled
from langchain_rain.engines.transfer import ToHost, packed_bytes, to_device, unpacked
from langchain_rain.engines.wants import Draw, Got, MostProbable, NextToken, Place, Probability

HERE = Place(None, (0,))


def most_probable(count: int, temperature: float = 1.0) -> MostProbable:
    return MostProbable(HERE, temperature, count)


def draw(*uniforms: float, temperature: float = 1.0, top_k: int | None = None) -> Draw:
    return Draw(HERE, temperature, uniforms, top_k)


def answer_one(want: NextToken, *probabilities: float, dtype: torch.dtype = torch.float64) -> Got:
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
    ids, logprobs = answer_one(Probability(HERE, (3, 0)), 0.1, 0.4, 0.2, 0.3)
    assert ids.tolist() == [3, 0]
    assert np.exp(logprobs) == pytest.approx([0.3, 0.1])


WANTS: list[NextToken] = [
    most_probable(3),
    most_probable(20, temperature=0.7),
    draw(0.4),
    draw(0.9, temperature=1.3),
    draw(0.0, 0.3, 0.999, top_k=7),
    draw(0.6, temperature=1.3, top_k=30),
    Probability(HERE, (2, 5)),
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


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("uniform", "token", "probability"), [(0.0, 7, 0.75), (0.74, 7, 0.75), (0.76, 3, 0.25), (1 - 2**-53, 3, 0.25)]
)
def test_a_draw_from_the_top_renormalises_over_it(
    dtype: torch.dtype, uniform: float, token: int, probability: float
) -> None:
    probabilities = [0.1, 0.05, 0.05, 0.15, 0.1, 0.05, 0.05, 0.45]
    ids, logprobs = answer_one(draw(uniform, top_k=2), *probabilities, dtype=dtype)
    assert ids.tolist() == [token]
    assert np.exp(logprobs) == pytest.approx([probability])


def test_draws_from_one_place_come_together_and_from_no_more_tokens_than_there_are() -> None:
    ids, logprobs = answer_one(draw(0.0, 0.55, 0.999, top_k=99), 0.5, 0.2, 0.3)
    assert ids.tolist() == [0, 2, 1]
    assert np.exp(logprobs) == pytest.approx([0.5, 0.3, 0.2])


def test_a_draw_from_the_top_survives_probabilities_too_small_to_be_written() -> None:
    logits = torch.tensor([[0.0, -2000.0, -3000.0]], dtype=torch.float64)
    ((ids, logprobs),) = answer_wants([draw(0.6, 1 - 2**-53, top_k=3)], logits)
    assert ids.tolist() == [0, 0]
    assert logprobs.tolist() == [0, 0]


def test_wants_of_one_place_share_its_row() -> None:
    wants: list[NextToken] = [most_probable(1), draw(0.5, top_k=1), Probability(HERE, (1,)), most_probable(2)]
    to_host = ToHost()
    answers = sampled(wants, [1, 1, 0, 0], torch.tensor([[0.2, 0.8], [0.9, 0.1]]).log(), to_host)
    to_host.copy()
    assert [ids.tolist() for ids, _ in answers()] == [[0], [0], [1], [1, 0]]


@given(values=st.lists(st.sampled_from([0.0, -0.5, -1.0, -7.25, float("-inf")]), min_size=1, max_size=40))
def test_ranks_in_float32_are_those_of_a_stable_sort(values: list[float]) -> None:
    logprobs = torch.tensor([values])
    found, ids = ranked(logprobs, len(values))
    expected = torch.sort(logprobs, descending=True, stable=True)
    assert ids.tolist() == expected.indices.tolist()
    assert found.tolist() == expected.values.tolist()


# --- Transfer ----------------------------------------------------------------------------------------------------


def test_arrays_of_any_type_cross_in_one_buffer() -> None:
    arrays = [np.arange(6).reshape(2, 3), np.array([[True], [False], [True]]), np.array([0.5, -1.5]), np.zeros(0)]
    buffer = packed_bytes(arrays)
    assert len(buffer) == 6 * 8 + 8 + 2 * 8
    for array, tensor, on_cpu in zip(
        arrays, unpacked(torch.from_numpy(buffer), arrays), to_device(torch.device("cpu"), *arrays), strict=True
    ):
        assert tensor.tolist() == array.tolist() == on_cpu.tolist()
        assert tensor.dtype == on_cpu.dtype
