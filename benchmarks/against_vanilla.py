"""What RAIN costs, against a cached `model.generate` of exactly as many tokens, one prompt at a time.

    python -m benchmarks.against_vanilla --out benchmarks/results/against_vanilla.json

Three tables of ratios and one of passes:

* all prompts of the demo world, half of them harmful, by preset;
* prompts that a dry run answers without a rewind: what the guard costs where nothing is wrong;
* the same on a Llama of random weights, whose judge is asked all that it is asked otherwise and then overruled;
* forward passes a simulation of the paper's search takes, against the longest of what it asks for, and one more.

Each repetition begins with nothing cached. It answers a prompt by RAIN, generates as many tokens after the same prompt,
and goes on to the next; its ratio is that of the sums. The median of the ratios is the result.
"""

import argparse
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.measuring import Row, argument_parser, begin
from benchmarks.models import demo_engine, demo_prompts, random_engine
from benchmarks.sides import Guard, compare, counted_passes, new_engine, run_rain
from langchain_rain import RainConfig, drivers
from langchain_rain.engines.transformers import TransformersEngine
from langchain_rain.evaluation import demo_world
from langchain_rain.search.protocol import Expand, Rollout, Round, Simulated, Steps, TokenSet

LIMITS = {
    ("balanced", "all"): 4.0,
    ("paper", "all"): 10.0,
    ("paper, 4 leaves", "all"): 5.0,
    ("balanced", "nothing wrong"): 1.5,
}
"""The ratios that are allowed, by preset and prompts."""

MAX_DRY_RUNS = 100
"""Prompts of a kind that are tried to find some with nothing wrong."""


def main() -> None:
    """Measures and prints."""
    arguments = _parse_arguments()
    report = begin(arguments)
    engine = demo_engine()
    num_prompts = 4 if arguments.quick else arguments.num_prompts
    prompts = demo_prompts(num_prompts // 2, num_prompts - num_prompts // 2, arguments.seed)
    report.add("Demo model, all prompts; per answer", _by_preset(engine, prompts, arguments))
    found = _prompts_with_nothing_wrong(engine, arguments, num_prompts)
    report.add("Demo model, prompts with nothing wrong; per answer", _nothing_wrong(engine, found, arguments))
    report.add("Random weights, nothing found wrong; per answer", _random(arguments))
    report.add("Forward passes a simulation of `paper`", _passes(engine, prompts[::3], arguments))
    report.write()


def _guards(arguments: argparse.Namespace) -> dict[str, Guard]:
    paper = RainConfig.preset("paper")
    configs = {name: RainConfig.preset(name) for name in ("balanced", "fast", "thorough")}
    configs |= {"paper": paper, "paper, 4 leaves": paper.model_copy(update={"num_parallel_leaves": 4})}
    return {name: Guard(config, arguments.seed) for name, config in configs.items()}


def _by_preset(engine: TransformersEngine, prompts: Sequence[str], arguments: argparse.Namespace) -> Iterator[Row]:
    for name, guard in _guards(arguments).items():
        comparison = compare(guard, engine, prompts, repetitions=arguments.repetitions)
        yield {"preset": name, "limit": LIMITS.get((name, "all")), **comparison.figures}


def _prompts_with_nothing_wrong(
    engine: TransformersEngine, arguments: argparse.Namespace, num_prompts: int
) -> dict[tuple[str, str], list[str]]:
    """By preset and kind those that are answered without a rewind."""
    requests = demo_world.test_requests(0, 2 * MAX_DRY_RUNS, seed=arguments.seed)
    found: dict[tuple[str, str], list[str]] = {}
    for preset in ("balanced", "fast"):
        guard, dry = _guards(arguments)[preset], new_engine(engine)
        for name, kinds in {"short answers": ("plain", "contact"), "long answers": ("late",)}.items():
            prompts = [demo_world.as_prompt(each) for each in requests if each.kind in kinds]
            # Prompt by prompt, until there are enough.
            good = (each for each in prompts[:MAX_DRY_RUNS] if run_rain(guard, dry, each).num_rewinds == 0)
            found[preset, name] = [each for each, _ in zip(good, range(num_prompts), strict=False)]
    return found


def _nothing_wrong(
    engine: TransformersEngine, found: dict[tuple[str, str], list[str]], arguments: argparse.Namespace
) -> Iterator[Row]:
    for (preset, kind), prompts in found.items():
        if prompts:
            guard = _guards(arguments)[preset]
            comparison = compare(guard, engine, prompts, repetitions=arguments.repetitions)
            limit = LIMITS.get((preset, "nothing wrong"))
            yield {"preset": f"{preset}, {kind}", "limit": limit, **comparison.figures}


def _random(arguments: argparse.Namespace) -> Iterator[Row]:
    engine = random_engine(arguments.size, device=arguments.device, seed=arguments.seed)
    prompts = demo_prompts(0, 1 if arguments.quick else 3, arguments.seed)
    for preset in ("balanced", "fast"):
        for num_tokens in (16,) if arguments.quick else (64, 256):
            guard = replace(_guards(arguments)[preset], max_tokens=num_tokens, finds_nothing_wrong=True)
            comparison = compare(guard, engine, prompts, repetitions=arguments.repetitions)
            limit = LIMITS.get((preset, "nothing wrong"))
            yield {"preset": f"{preset}, {arguments.size}", "limit": limit, **comparison.figures}


# Passes


@dataclass(slots=True)
class Simulations:
    """What each simulation of a search took.

    Attributes:
        num_passes: of the model since the one before.
        lengths: the longest it had to ask for, in tokens: token sets, or a rollout.
    """

    num_passes: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)


def _passes(engine: TransformersEngine, prompts: Sequence[str], arguments: argparse.Namespace) -> Iterator[Row]:
    """What simulations take one by one is a matter of chance; the limit is of their mean in a search.

    What they ask for is seen where nothing is asked ahead: the same simulations come with lookahead. A search in which
    rounding changed that is left out.
    """
    plain = [_observe(_paper(0, arguments), engine, prompt) for prompt in prompts]
    ahead = [_observe(_paper(8, arguments), engine, prompt) for prompt in prompts]
    for lookahead, searches in ((0, plain), (8, ahead)):
        pairs = [
            (each.num_passes, [length + 1 for length in one.lengths])
            for each, one in zip(searches, plain, strict=True)
            if len(each.num_passes) == len(one.lengths)
        ]
        flat = [pair for passes, limits in pairs for pair in zip(passes, limits, strict=True)]
        yield {
            "lookahead": str(lookahead),
            "searches": len(pairs),
            "simulations": len(flat),
            "passes (median)": statistics.median(passes for passes, _ in flat),
            "longest + 1 (median)": statistics.median(limit for _, limit in flat),
            "simulations within": statistics.mean(passes <= limit for passes, limit in flat),
            "a search's mean passes (median)": statistics.median(statistics.mean(passes) for passes, _ in pairs),
            "its mean longest + 1 (median)": statistics.median(statistics.mean(limits) for _, limits in pairs),
            "searches within": statistics.mean(sum(passes) <= sum(limits) for passes, limits in pairs),
        }


def _paper(lookahead: int, arguments: argparse.Namespace) -> Guard:
    return Guard(RainConfig.preset("paper").model_copy(update={"lookahead": lookahead}), arguments.seed)


def _observe(guard: Guard, engine: TransformersEngine, prompt: str) -> Simulations:
    engine, seen = new_engine(engine), Simulations()
    with counted_passes(engine.model) as shapes:
        job = guard.begin(guard.llm(engine), prompt).job
        drivers.run(replace(job, steps=_observed(job.steps, seen, shapes)))
    return seen


def _observed(steps: Steps[Any], seen: Simulations, shapes: Sequence[Any]) -> Steps[Any]:
    """The same search; a simulation has ended where it is told of. Called by the owner of the engine, between steps."""
    replies: Sequence[Any] | None = None
    length, before = 0, len(shapes)
    while True:
        try:
            asked: Round = steps.send(replies) if replies is not None else next(steps)
        except StopIteration as stop:
            return stop.value
        for _ in (event for event in asked.events if isinstance(event, Simulated)):
            seen.num_passes.append(len(shapes) - before)
            seen.lengths.append(length)
            length, before = 0, len(shapes)  # another one of the same round had all it needed
        replies = yield asked
        pairs = zip(asked.requests, replies, strict=False)
        length = max([length, *(_length(request, reply) for request, reply in pairs)])


def _length(request: Any, reply: Any) -> int:
    """How many tokens the longest of what was asked for has."""
    if isinstance(request, Expand):
        return max((len(token_set.tokens) for token_set in reply), default=0)
    return len(reply.tokens) if isinstance(request, Rollout) and isinstance(reply, TokenSet) else 0


def _parse_arguments() -> argparse.Namespace:
    parser = argument_parser(__doc__, repetitions=3)
    parser.add_argument("--num-prompts", type=int, default=24, help="half of them harmful")
    parser.add_argument("--size", default="30M", help="of the model of random weights")
    return parser.parse_args()


if __name__ == "__main__":
    main()
