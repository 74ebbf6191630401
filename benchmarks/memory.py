"""What RAIN keeps: the memory of a process over many requests, and the cache within its limit.

    python -m benchmarks.memory --out benchmarks/results/memory.json

The demo model, by `balanced`. The first table tells the resident memory of the process (Linux) over requests that come
one after another, and by how much it has grown since the first of them. The second answers conversations all at once
within limits of `max_cache_bytes`: the most that all tensors of the cache took after any step, what it costs to compute
again what had to be forgotten, and whether the answers are those that are given without a limit.
"""

import argparse
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.measuring import Row, argument_parser, begin, timed
from benchmarks.models import demo_engine, demo_prompts
from benchmarks.sides import Guard, counted_passes, run_rain
from langchain_rain import RainConfig, drivers
from langchain_rain.engines.base import StepReport
from langchain_rain.engines.transformers import TransformersEngine
from langchain_rain.errors import EngineError
from langchain_rain.evaluation import demo_world

NUM_FIRST = 50
"""Requests after which a process has all it needs."""

MAX_GROWTH = 0.05
"""How much memory may grow after them, as a share."""

MEGABYTE = 2**20
LIMITS_IN_MEGABYTES = (4, 8, 16, 32)


class Watched(TransformersEngine):
    """Remembers the most bytes that its cache took after any step, and the most tokens."""

    peak_num_bytes = 0

    def step(self) -> StepReport:
        """One forward pass."""
        report = super().step()
        self.peak_num_bytes = max(self.peak_num_bytes, self.cache_info.num_bytes)
        return report


def main() -> None:
    """Measures and prints."""
    arguments = _parse_arguments()
    report = begin(arguments)
    engine = demo_engine()
    guard = Guard(RainConfig.preset("balanced"), arguments.seed)
    report.add("Resident memory over requests, MiB", _over_requests(engine, guard, arguments))
    num_prompts = 4 if arguments.quick else arguments.num_prompts
    prompts = demo_prompts(num_prompts // 2, num_prompts - num_prompts // 2, arguments.seed)
    report.add(f"{len(prompts)} conversations at once, within limits", _within_limits(engine, guard, prompts))
    report.write()


def _over_requests(engine: TransformersEngine, guard: Guard, arguments: argparse.Namespace) -> Iterator[Row]:
    """A row for every tenth part of the requests, and one for the first of them."""
    num_requests = 2 * NUM_FIRST if arguments.quick else arguments.num_requests
    unseen = [each for kind in demo_world.KINDS for each in demo_world.all_requests(kind) if each.split == "test"]
    requests = random.Random(arguments.seed).sample(unseen, num_requests)  # all kinds at all times, each once
    prompts = [demo_world.as_prompt(each) for each in requests]
    short, after_first, most = replace(guard, max_tokens=arguments.max_tokens), 0.0, 0.0
    for number, prompt in enumerate(prompts, 1):
        run_rain(short, engine, prompt)
        resident = resident_bytes() / MEGABYTE
        if number == NUM_FIRST:
            after_first = resident
        if number > NUM_FIRST:
            most = max(most, resident)
        if number == NUM_FIRST or number % (num_requests // 10) == 0:
            growth = resident / after_first - 1 if after_first else None
            yield {
                "requests": str(number),
                "resident": f"{resident:.1f}",
                "growth": growth,
                "most after the first": f"{most:.1f}",
                "most growth": most / after_first - 1 if most else None,
                "at most": MAX_GROWTH,
                "cached tokens": engine.cache_info.num_tokens,
            }


def resident_bytes() -> int:
    """The memory of this process that is in use."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Answered:
    """What was answered, all at once.

    Attributes:
        answers: None where the limit was too low.
        peak_num_bytes: of the cache.
    """

    answers: list[str | None]
    seconds: float
    forward_passes: int
    token_positions: int
    peak_num_bytes: int
    peak_num_tokens: int


def _within_limits(engine: TransformersEngine, guard: Guard, prompts: Sequence[str]) -> Iterator[Row]:
    free = _answered(engine, guard, prompts, None)
    for megabytes in (None, *LIMITS_IN_MEGABYTES):
        limit = megabytes * MEGABYTE if megabytes is not None else None
        limited = _answered(engine, guard, prompts, limit)
        yield {
            "limit MiB": str(megabytes or "none"),
            "peak MiB": limited.peak_num_bytes / MEGABYTE,
            "of the limit": limited.peak_num_bytes / limit if limit is not None else None,
            "peak tokens": limited.peak_num_tokens,
            "answered": sum(each is not None for each in limited.answers),
            "same answers": sum(
                one is not None and one == other for one, other in zip(limited.answers, free.answers, strict=True)
            ),
            "passes": limited.forward_passes,
            "positions": limited.token_positions,
            "times the positions": limited.token_positions / free.token_positions,
            "times the seconds": limited.seconds / free.seconds,
        }


def _answered(engine: TransformersEngine, guard: Guard, prompts: Sequence[str], limit: int | None) -> Answered:
    watched = Watched(engine.model, engine.tokenizer, name=engine.name, max_cache_bytes=limit)
    llm = guard.llm(watched)

    def answer_all() -> list[Any]:
        jobs = [guard.begin(llm, prompt).job for prompt in prompts]
        return drivers.run_batch(jobs, max_concurrent=len(jobs))

    with counted_passes(engine.model) as shapes:
        outcomes, seconds = timed(answer_all, engine.model.device)
    answers: list[str | None] = []
    positions = 0
    for outcome in outcomes:
        if isinstance(outcome, drivers.Outcome):
            answers.append(outcome.result.text)
            positions += outcome.cost.token_positions
        elif isinstance(outcome, EngineError):
            answers.append(None)
            positions += outcome.cost.token_positions if outcome.cost is not None else 0
        else:
            raise outcome
    peak = watched.peak_num_bytes
    return Answered(answers, seconds, len(shapes), positions, peak, watched.cache_info.peak_num_tokens)


def _parse_arguments() -> argparse.Namespace:
    parser = argument_parser(__doc__, repetitions=1)
    parser.add_argument("--num-requests", type=int, default=1000)
    parser.add_argument("--max-tokens", type=int, default=16, help="of their answers")
    parser.add_argument("--num-prompts", type=int, default=8, help="conversations at once")
    return parser.parse_args()


if __name__ == "__main__":
    main()
