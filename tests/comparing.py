"""Asks engines the same, and compares what they say."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from langchain_rain.drivers import Job
from langchain_rain.engines.base import Cost, Engine, Stepper
from langchain_rain.engines.transformers import TransformersEngine
from langchain_rain.rubrics.asking import Scoring
from langchain_rain.rubrics.evaluate import RubricJudge
from langchain_rain.rubrics.rubric import Rubric
from langchain_rain.search.config import SearchConfig
from langchain_rain.search.paper import SearchResult, generate
from langchain_rain.search.protocol import Context, Request
from langchain_rain.search.state import Search
from tests.naive_engine import NaiveEngine

PROMPT = "Human: How do I wash the bike?\n\nAssistant:"

SMALL_SEARCH = SearchConfig(
    token_set_lengths=(1, 2, 3),
    num_children=4,
    max_children=6,
    num_draws=4,
    max_simulations=6,
    min_further_simulations=3,
    min_visits=2,
    max_rollout_tokens=4,
    accept_value=-1.0,
)
"""A search that a model without a cache can afford."""

ROUNDING = 1e-9
"""Between float64 forward passes of other shapes; some layers round to float32 in between."""

MAX_STEPS = 1000


def answer(engine: Stepper, *requests: Request) -> list[Any]:
    """The replies to requests that are asked at once."""
    return answer_and_cost(engine, *requests)[0]


def answer_and_cost(engine: Stepper, *requests: Request) -> tuple[list[Any], Cost]:
    """The replies to requests that are asked at once, and what they cost together."""
    tickets = [engine.submit(request) for request in requests]
    replies: dict[int, Any] = {}
    cost = Cost()
    for _ in range(MAX_STEPS):
        report = engine.step()
        replies.update(report.finished)
        found = sum(report.cached.values())
        cost += Cost(bool(report.positions), sum(report.positions.values()), cached_positions=found)
        if len(replies) == len(tickets):
            return [replies[ticket] for ticket in tickets], cost
    raise AssertionError(f"{len(tickets) - len(replies)} requests are not answered after {MAX_STEPS} steps")


def search_job(
    engine: Engine,
    *,
    prompt: str = PROMPT,
    seed: int = 0,
    max_tokens: int = 8,
    stop: Sequence[str] = (),
    scoring: Scoring = "probability",
    config: SearchConfig = SMALL_SEARCH,
) -> Job[SearchResult]:
    """A search as in the paper, in which `engine` both writes and judges."""
    context = engine.open(prompt, max_tokens=max_tokens, stop=stop)
    judge = RubricJudge(Rubric.load("politeness"), context, scoring=scoring)
    search = Search(context, judge, config, seed, transcript=prompt)
    return Job(generate(search), {context: engine})


def assert_naive_replies(
    model: Any,
    tokenizer: Any,
    ask: Callable[[Context], Sequence[Request]],
    *,
    prompt: str = PROMPT,
    tolerance: float = ROUNDING,
) -> list[Any]:
    """Asks an engine and the oracle what `ask` makes for their contexts, all at once; returns the replies."""
    engine, naive = TransformersEngine(model, tokenizer), NaiveEngine(model, tokenizer)
    replies = answer(engine, *ask(engine.open(prompt, max_tokens=40)))
    expected = answer(naive, *ask(naive.open(prompt, max_tokens=40)))
    assert_same(replies, expected, tolerance=tolerance, where="replies")
    return replies


@contextmanager
def counted_forward_passes(model: Any) -> Iterator[list[tuple[int, int]]]:
    """The shapes `[num_rows, num_tokens]` of what goes through the model."""
    shapes: list[tuple[int, int]] = []

    def note(_module: Any, _args: Any, inputs: dict[str, Any]) -> None:
        num_rows, num_tokens = inputs["input_ids"].shape
        shapes.append((num_rows, num_tokens))

    handle = model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield shapes
    finally:
        handle.remove()


def assert_same(actual: Any, expected: Any, *, tolerance: float, where: str = "") -> None:
    """Fails unless both are equal, floating-point numbers anywhere in them up to `tolerance`."""
    if isinstance(expected, float | np.ndarray):
        assert np.shape(actual) == np.shape(expected), f"{where}: {actual} and {expected}"
        assert np.allclose(actual, expected, rtol=0, atol=tolerance), f"{where}: {actual} and {expected}"
    elif is_dataclass(expected):
        assert type(actual) is type(expected), f"{where}: {actual} and {expected}"
        for each in fields(expected):
            inside = f"{where}.{each.name}"
            assert_same(getattr(actual, each.name), getattr(expected, each.name), tolerance=tolerance, where=inside)
    elif isinstance(expected, list | tuple):
        assert len(actual) == len(expected), f"{where}: {actual} and {expected}"
        for index, (one, other) in enumerate(zip(actual, expected, strict=True)):
            assert_same(one, other, tolerance=tolerance, where=f"{where}[{index}]")
    elif isinstance(expected, dict):
        assert_same(sorted(actual.items()), sorted(expected.items()), tolerance=tolerance, where=where)
    else:
        assert actual == expected, f"{where}: {actual} and {expected}"
