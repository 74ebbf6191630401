"""Whole searches with a model: the naive ones, and merged, in tasks and in threads what each is alone."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch

from langchain_rain.drivers import Job, Outcome, arun, run, run_batch, stream
from langchain_rain.engines.base import Engine
from langchain_rain.engines.transformers import TransformersEngine
from langchain_rain.rubrics.asking import Scoring
from langchain_rain.search.config import SimilarityScope
from langchain_rain.search.paper import SearchResult
from langchain_rain.search.protocol import Committed, Simulated
from tests.comparing import PROMPT, ROUNDING, SMALL_SEARCH, assert_same, counted_forward_passes, search_job
from tests.naive_engine import NaiveEngine
from tests.tiny_models import tiny_llama

PROMPTS = [PROMPT, "The answer is: (B", "Human: yes or no? Rinse it, then dry it.\n\nAssistant: no\n\nHuman:"]


def trace(engine: Engine, **settings: Any) -> tuple[list[Any], SearchResult]:
    """All events of a search, and its result."""
    *events, outcome = stream(search_job(engine, **settings))
    assert isinstance(outcome, Outcome)
    return [*events], outcome.result


def assert_naive_search(
    model: Any, tokenizer: Any, *, tolerance: float = ROUNDING, **settings: Any
) -> tuple[list[Any], SearchResult]:
    """Returns the events and the result in which the engine and the oracle agree."""
    events, result = trace(TransformersEngine(model, tokenizer), **settings)
    expected_events, expected = trace(NaiveEngine(model, tokenizer), **settings)
    assert_same(events, expected_events, tolerance=tolerance, where="events")
    assert_same(result, expected, tolerance=tolerance, where="result")
    return events, result


@pytest.mark.parametrize("scope", ["all", "visited", "off"])
@pytest.mark.parametrize("scoring", ["binary", "probability"])
def test_search_is_the_naive_one_token_for_token_and_visit_for_visit(
    llama: Any, tokenizer: Any, scoring: Scoring, scope: SimilarityScope
) -> None:
    config = replace(SMALL_SEARCH, similarity_scope=scope)
    events, result = assert_naive_search(llama, tokenizer, scoring=scoring, config=config)
    values = {event.verdict.value for event in events if isinstance(event, Simulated)}
    assert len(values) > 1  # the judge has an opinion
    assert result.num_rewinds > 0


@pytest.mark.parametrize("model_seed", [4, 5])
@pytest.mark.parametrize("seed", [1, 2])
def test_search_is_the_naive_one_whatever_model_and_seed(tokenizer: Any, model_seed: int, seed: int) -> None:
    assert_naive_search(tiny_llama(tokenizer, seed=model_seed), tokenizer, seed=seed)


def test_search_that_adds_children_is_the_naive_one(tokenizer: Any) -> None:
    # This judge finds everything bad, and with such a threshold all children are alike.
    config = replace(
        SMALL_SEARCH, token_set_lengths=(1,), num_children=2, max_children=4, max_simulations=12, spread_threshold=1e6
    )
    events, _ = assert_naive_search(tiny_llama(tokenizer, seed=4), tokenizer, config=config, max_tokens=4)
    first_commit = next(index for index, event in enumerate(events) if isinstance(event, Committed))
    assert len({event.prefix[0] for event in events[:first_commit]}) > config.num_children


def test_search_that_ends_at_a_stop_string_is_the_naive_one(llama: Any, tokenizer: Any) -> None:
    _, result = assert_naive_search(llama, tokenizer, stop=("it", "\x14"), max_tokens=40)
    assert result.stop_reason == "stop"
    assert "it" not in result.text
    assert "\x14" not in result.text


def test_log_probabilities_in_float32_are_the_naive_ones_to_1e_4(tokenizer: Any) -> None:
    model = tiny_llama(tokenizer, seed=1, dtype=torch.float32)
    events, _ = assert_naive_search(model, tokenizer, tolerance=1e-4)
    assert any(event.token_set.logprob < 0 for event in events if isinstance(event, Committed))


def jobs_on(engine: Engine) -> list[Job[SearchResult]]:
    return [search_job(engine, prompt=prompt, seed=seed) for seed, prompt in enumerate(PROMPTS)]


@pytest.fixture(scope="module")
def alone(llama: Any, tokenizer: Any) -> list[Outcome[SearchResult]]:
    """Each search on an engine that nobody else uses."""
    return [run(jobs_on(TransformersEngine(llama, tokenizer))[number]) for number in range(len(PROMPTS))]


def assert_same_outcomes(
    outcomes: Sequence[Outcome[SearchResult] | Exception], expected: Sequence[Outcome[SearchResult]]
) -> None:
    """Results up to rounding; what one has computed already, as prompts and rubrics begin alike, another need not."""
    num_saved = 0
    for outcome, other in zip(outcomes, expected, strict=True):
        assert isinstance(outcome, Outcome)
        assert_same(outcome.result, other.result, tolerance=ROUNDING)
        assert outcome.cost.forward_passes == other.cost.forward_passes
        assert outcome.cost.token_positions <= other.cost.token_positions
        num_saved += other.cost.token_positions - outcome.cost.token_positions
    assert num_saved > 0


def test_searches_merged_are_each_search_alone_at_less_cost(
    llama: Any, tokenizer: Any, alone: list[Outcome[SearchResult]]
) -> None:
    with counted_forward_passes(llama) as shapes:
        outcomes = run_batch(jobs_on(TransformersEngine(llama, tokenizer)))
    assert_same_outcomes(outcomes, alone)
    assert max(num_lines for num_lines, _ in shapes) == len(PROMPTS)
    assert len(shapes) < sum(outcome.cost.forward_passes for outcome in alone) / 2


def test_searches_that_wait_for_their_turn_are_each_search_alone(
    llama: Any, tokenizer: Any, alone: list[Outcome[SearchResult]]
) -> None:
    outcomes = run_batch(jobs_on(TransformersEngine(llama, tokenizer)), max_concurrent=2)
    assert_same_outcomes(outcomes, alone)


async def test_searches_of_several_tasks_are_each_search_alone(
    llama: Any, tokenizer: Any, alone: list[Outcome[SearchResult]]
) -> None:
    jobs = jobs_on(TransformersEngine(llama, tokenizer))
    assert_same_outcomes(await asyncio.gather(*(arun(job) for job in jobs)), alone)


def test_searches_of_several_threads_are_each_search_alone(
    llama: Any, tokenizer: Any, alone: list[Outcome[SearchResult]]
) -> None:
    engine = TransformersEngine(llama, tokenizer)

    def search(number: int) -> Outcome[SearchResult]:
        return run(search_job(engine, prompt=PROMPTS[number], seed=number))

    with ThreadPoolExecutor(len(PROMPTS)) as pool:
        assert_same_outcomes(list(pool.map(search, range(len(PROMPTS)))), alone)
