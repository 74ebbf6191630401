"""Searches with a model: the same as without a cache, merged or alone, and at the cost of the new tokens."""

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch

from langchain_rain.drivers import Outcome, arun, run, run_batch, stream
from langchain_rain.engines.base import Cost, Engine
from langchain_rain.engines.transformers import TransformersEngine
from langchain_rain.rubrics.evaluate import Scoring
from langchain_rain.search.config import SimilarityScope
from langchain_rain.search.paper import SearchResult
from langchain_rain.search.protocol import (
    Committed,
    Context,
    Expand,
    Score,
    Simulated,
)
from tests.comparing import PROMPT, SMALL_SEARCH, answer_and_cost, assert_same, search_job
from tests.naive_engine import NaiveEngine
from tests.tiny_models import tiny_llama

ROUNDING = 1e-9
"""Between float64 forward passes of other shapes; some layers round to float32 in between."""

PROMPTS = [PROMPT, "The answer is: (B", "Human: yes or no? Rinse it, then dry it.\n\nAssistant: no\n\nHuman:"]


def trace(engine: Engine, **settings: Any) -> tuple[list[Any], SearchResult]:
    """All events of a search, and its result."""
    *events, outcome = stream(search_job(engine, **settings))
    assert isinstance(outcome, Outcome)
    return [*events], outcome.result


def assert_same_trace(model: Any, tokenizer: Any, *, tolerance: float = ROUNDING, **settings: Any) -> list[Any]:
    """Returns the events in which the engine and the oracle agree."""
    events, result = trace(TransformersEngine(model, tokenizer), **settings)
    expected_events, expected = trace(NaiveEngine(model, tokenizer), **settings)
    assert_same(events, expected_events, tolerance=tolerance, where="events")
    assert_same(result, expected, tolerance=tolerance, where="result")
    return events


@contextmanager
def counted_forward_passes(model: Any) -> Iterator[list[tuple[int, int]]]:
    """The shapes `[num_rows, num_tokens]` of what goes through the model."""
    shapes: list[tuple[int, int]] = []

    def note(_module: Any, _args: Any, inputs: dict[str, Any]) -> None:
        shapes.append(tuple(inputs["input_ids"].shape))

    handle = model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield shapes
    finally:
        handle.remove()


# --- The same as the oracle --------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["all", "visited", "off"])
@pytest.mark.parametrize("scoring", ["binary", "probability"])
def test_search_is_the_naive_one_token_for_token_and_visit_for_visit(
    llama: Any, tokenizer: Any, scoring: Scoring, scope: SimilarityScope
) -> None:
    config = replace(SMALL_SEARCH, similarity_scope=scope)
    events = assert_same_trace(llama, tokenizer, scoring=scoring, config=config)
    values = {event.value for event in events if isinstance(event, Simulated)}
    assert len(values) > 1  # a judge that always says the same would compare nothing


@pytest.mark.parametrize(("model_seed", "seed"), itertools.product([4, 5], [1, 2]))
def test_search_is_the_naive_one_whatever_model_and_seed(tokenizer: Any, model_seed: int, seed: int) -> None:
    assert_same_trace(tiny_llama(tokenizer, seed=model_seed), tokenizer, seed=seed)


def test_search_with_added_children_is_the_naive_one(tokenizer: Any) -> None:
    # This judge finds everything bad, and any spread counts as alike.
    config = replace(SMALL_SEARCH, num_children=2, max_children=4, max_simulations=12, spread_threshold=1e6)
    model = tiny_llama(tokenizer, seed=4)
    asked = []
    engine = TransformersEngine(model, tokenizer)
    submit = engine.submit
    engine.submit = lambda request: asked.append(request) or submit(request)  # type: ignore[func-returns-value,method-assign]
    result = run(search_job(engine, config=config)).result
    assert any(isinstance(request, Expand) and request.exclude for request in asked)
    assert_same(result, run(search_job(NaiveEngine(model, tokenizer), config=config)).result, tolerance=ROUNDING)


def test_search_that_ends_at_a_stop_string_is_the_naive_one(llama: Any, tokenizer: Any) -> None:
    stop = ("it", "\x13")
    assert_same_trace(llama, tokenizer, stop=stop, max_tokens=40)
    _, result = trace(TransformersEngine(llama, tokenizer), stop=stop, max_tokens=40)
    assert result.stop_reason == "stop"
    assert not any(each in result.text for each in stop)


def test_log_probabilities_in_float32_are_the_naive_ones_to_1e_4(tokenizer: Any) -> None:
    model = tiny_llama(tokenizer, seed=1, dtype=torch.float32)
    events = assert_same_trace(model, tokenizer, tolerance=1e-4)
    assert any(isinstance(event, Committed) and event.token_set.logprob < 0 for event in events)


# --- Merged, alone, async, threads -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone(llama: Any, tokenizer: Any) -> list[Outcome[SearchResult]]:
    """Each search on an engine of its own."""
    return [
        run(search_job(TransformersEngine(llama, tokenizer), prompt=prompt, seed=seed))
        for seed, prompt in enumerate(PROMPTS)
    ]


def assert_same_outcomes(
    outcomes: Sequence[Outcome[SearchResult] | Exception], expected: Sequence[Outcome[SearchResult]]
) -> None:
    """Results up to rounding, costs to the last position; the time it took may differ."""
    for outcome, other in zip(outcomes, expected, strict=True):
        assert isinstance(outcome, Outcome)
        assert_same(outcome.result, other.result, tolerance=ROUNDING)
        assert outcome.cost == other.cost


def test_searches_merged_are_each_search_alone_at_the_same_cost(
    llama: Any, tokenizer: Any, alone: list[Outcome[SearchResult]]
) -> None:
    engine = TransformersEngine(llama, tokenizer)
    jobs = [search_job(engine, prompt=prompt, seed=seed) for seed, prompt in enumerate(PROMPTS)]
    with counted_forward_passes(llama) as shapes:
        outcomes = run_batch(jobs)
    assert_same_outcomes(outcomes, alone)
    # They shared forward passes: as many as the longest search needs, not as all of them together.
    assert len(shapes) == max(outcome.cost.forward_passes for outcome in alone)
    assert max(rows for rows, _ in shapes) == len(PROMPTS)


def test_searches_in_a_narrow_window_are_each_search_alone(
    llama: Any, tokenizer: Any, alone: list[Outcome[SearchResult]]
) -> None:
    engine = TransformersEngine(llama, tokenizer)
    jobs = [search_job(engine, prompt=prompt, seed=seed) for seed, prompt in enumerate(PROMPTS)]
    assert_same_outcomes(run_batch(jobs, max_concurrent=2), alone)


async def test_searches_of_tasks_are_each_search_alone(
    llama: Any, tokenizer: Any, alone: list[Outcome[SearchResult]]
) -> None:
    engine = TransformersEngine(llama, tokenizer)
    jobs = [search_job(engine, prompt=prompt, seed=seed) for seed, prompt in enumerate(PROMPTS)]
    assert_same_outcomes(await asyncio.gather(*(arun(job) for job in jobs)), alone)


def test_searches_of_threads_are_each_search_alone(
    llama: Any, tokenizer: Any, alone: list[Outcome[SearchResult]]
) -> None:
    engine = TransformersEngine(llama, tokenizer)

    def search(numbered: tuple[int, str]) -> Outcome[SearchResult]:
        seed, prompt = numbered
        return run(search_job(engine, prompt=prompt, seed=seed))

    with ThreadPoolExecutor(len(PROMPTS)) as pool:
        outcomes = list(pool.map(search, enumerate(PROMPTS)))
    assert_same_outcomes(outcomes, alone)


# --- What it costs -----------------------------------------------------------------------------------------------


def scores(context: Context) -> list[Score]:
    """A judgement in both orders of its options."""
    options = ("(A) yes\n(B) no", "(A) no\n(B) yes")
    return [Score(context, f"{PROMPT}\n{each}\n", "The answer is: (", ("A", "B")) for each in options]


def test_both_orders_of_a_judgement_take_one_forward_pass_over_what_they_do_not_share(
    llama: Any, tokenizer: Any
) -> None:
    engine = TransformersEngine(llama, tokenizer)
    context = engine.open(PROMPT, max_tokens=8)
    questions = [tokenizer(each.question + each.answer_prefix).input_ids for each in scores(context)]
    num_shared = next(i for i, (a, b) in enumerate(zip(*questions, strict=False)) if a != b)
    with counted_forward_passes(llama) as shapes:
        replies, cost = answer_and_cost(engine, *scores(context))
    num_positions = sum(map(len, questions)) - num_shared
    assert shapes == [(1, num_positions)]
    assert cost == Cost(forward_passes=1, token_positions=num_positions)
    assert_same(replies, [NaiveEngineOf(llama, tokenizer).reply(each) for each in scores], tolerance=ROUNDING)
