"""How cost grows: with the length of answers, the number of siblings and prompts, the size of the model; and what is
shared between requests.

    python -m benchmarks.scaling --out benchmarks/results/scaling.json
    python -m benchmarks.scaling --parts length batch         # only these parts

All on Llamas of random weights, by `balanced`, whose judge is asked all that it is asked otherwise and then overruled,
so that answers have a fixed length:

* length: a committed token's time in answers of 64 to 1024 tokens against `generate`, and how both grow;
* siblings: token sets side by side over one prefix, against as many runs of `generate`, and against one batch of them;
* batch: prompts all at once against one after another, and the same with the demo model, searches and all;
* size: the ratio to `generate` on models of several sizes;
* sharing: positions of what the second request has in common with the first one that are computed again.
"""

import argparse
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from benchmarks.measuring import Row, Run, argument_parser, begin, median_seconds, ratios, timed, total
from benchmarks.models import demo_engine, demo_prompts, random_engine
from benchmarks.sides import Guard, compare, generate, new_engine, run_generate, run_rain, run_rain_on_all
from langchain_rain import RainConfig, drivers
from langchain_rain.engines.transformers import TransformersEngine
from langchain_rain.rubrics.evaluate import RubricJudge
from langchain_rain.search.protocol import Expand, TokenSet, Transcript, ask

MAX_GROWTH = 1.2
"""How much faster the time of a token may grow with the length of the answer than with `generate`."""

MIN_THROUGHPUT = {8: 2.5}
"""By the number of prompts, how many times the throughput of one after another there must be."""

NUM_SIBLING_TOKENS = 8


def main() -> None:
    """Measures and prints."""
    arguments = _parse_arguments()
    report = begin(arguments)
    titles = {
        "length": "A committed token by the length of the answer, nothing found wrong",
        "siblings": f"Siblings of {NUM_SIBLING_TOKENS} tokens over one prefix, which is computed as well",
        "batch": "Prompts all at once against one after another",
        "size": "The size of the model, nothing found wrong; per answer",
        "sharing": "The second request of the same system prompt and rubric",
    }
    for part in arguments.parts:
        report.add(titles[part], PARTS[part](arguments))
    report.write()


def _engine(arguments: argparse.Namespace, size: str | None = None) -> TransformersEngine:
    return random_engine(size or arguments.size, device=arguments.device, seed=arguments.seed)


def _guard(arguments: argparse.Namespace, max_tokens: int) -> Guard:
    return Guard(RainConfig.preset("balanced"), arguments.seed, max_tokens, finds_nothing_wrong=True)


def _length(arguments: argparse.Namespace) -> Iterator[Row]:
    engine, prompts = _engine(arguments), demo_prompts(0, 1, arguments.seed)
    lengths = (16, 32) if arguments.quick else (64, 128, 256, 512, 1024)
    first: tuple[float, float] | None = None
    for length in lengths:
        both = compare(_guard(arguments, length), engine, prompts, repetitions=arguments.repetitions)
        ours, plain = (1000 * median_seconds(runs) / length for runs in (both.rain, both.plain))
        first = first or (ours, plain)
        growth, plain_growth = ours / first[0], plain / first[1]
        yield {
            "tokens": str(length),
            "rain ms a token": ours,
            "generate ms a token": plain,
            **ratios(both.rain, both.plain),
            "growth": growth,
            "generate's growth": plain_growth,
            "growth / generate's": growth / plain_growth,
            "at most": MAX_GROWTH,
            "passes a token": both.rain[0].forward_passes / length,
            "positions a token": both.rain[0].token_positions / length,
        }


# Siblings


def _siblings(arguments: argparse.Namespace) -> Iterator[Row]:
    engine = _engine(arguments)
    for num_prefix_tokens in (50,) if arguments.quick else (200, 1000):
        prompt = _prompt_of(engine, num_prefix_tokens, arguments.seed)
        for count in (1, 4) if arguments.quick else (1, 2, 4, 8, 16):
            runs = [_sibling_runs(engine, prompt, count) for _ in range(arguments.repetitions + 1)][1:]
            ours, apart, batch = ([run[side] for run in runs] for side in range(3))
            yield {
                "prefix and siblings": f"{num_prefix_tokens}, {count}",
                "ms": 1000 * median_seconds(ours),
                "apart ms": 1000 * median_seconds(apart),
                "one batch ms": 1000 * median_seconds(batch),
                "times faster than apart": 1 / ratios(ours, apart)["ratio"],
                "than one batch": 1 / ratios(ours, batch)["ratio"],
                "passes": ours[0].forward_passes,
                "passes apart": apart[0].forward_passes,
                "positions": ours[0].token_positions,
                "positions apart": apart[0].token_positions,
                "positions of one batch": batch[0].token_positions,
            }


def _prompt_of(engine: TransformersEngine, num_tokens: int, seed: int) -> str:
    """A text of about so many tokens."""
    prompts, text = demo_prompts(0, 200, seed), ""
    for prompt in prompts:
        if len(engine.tokenizer(text).input_ids) >= num_tokens:
            break
        text += f"\n\n{prompt}"
    return text.strip()


def _sibling_runs(engine: TransformersEngine, prompt: str, count: int) -> tuple[Run, Run, Run]:
    """Side by side on a tree, apart, and as one batch of `generate`."""
    temperature = 1.0
    ours = _expand(new_engine(engine), prompt, count, temperature)
    apart = [run_generate(engine, prompt, NUM_SIBLING_TOKENS, temperature) for _ in range(count)]
    inputs = engine.tokenizer(prompt, return_tensors="pt").to(engine.model.device)
    output, seconds = timed(
        partial(generate, engine.model, inputs, NUM_SIBLING_TOKENS, temperature=temperature, num_answers=count),
        engine.model.device,
    )
    num_positions = count * (inputs.input_ids.shape[1] + NUM_SIBLING_TOKENS - 1)
    return ours, total(apart), Run(seconds, output.shape[0] * NUM_SIBLING_TOKENS, NUM_SIBLING_TOKENS, num_positions)


def _expand(engine: TransformersEngine, prompt: str, count: int, temperature: float) -> Run:
    context = engine.open(prompt, max_tokens=NUM_SIBLING_TOKENS)
    request = Expand(
        context,
        (),
        num_token_sets=count,
        num_tokens=NUM_SIBLING_TOKENS,
        num_draws=count - 1,  # and the greedy one
        top_k=15,
        temperature=temperature,
        seed=0,
    )
    outcome, seconds = timed(lambda: drivers.run(drivers.Job(ask(request), {context: engine})), engine.model.device)
    token_sets: Sequence[TokenSet] = outcome.result
    num_tokens = sum(len(each.tokens) for each in token_sets)
    return Run(seconds, num_tokens, outcome.cost.forward_passes, outcome.cost.token_positions)


# Batches


def _batch(arguments: argparse.Namespace) -> Iterator[Row]:
    counts = (2,) if arguments.quick else (1, 2, 4, 8, 16, 32)
    guard = _guard(arguments, 16 if arguments.quick else 64)
    yield from _batches(arguments.size, guard, _engine(arguments), counts, arguments)
    real = Guard(RainConfig.preset("balanced"), arguments.seed)
    yield from _batches("demo", real, demo_engine(), counts[-3:], arguments)


def _batches(
    name: str, guard: Guard, engine: TransformersEngine, counts: Iterable[int], arguments: argparse.Namespace
) -> Iterator[Row]:
    for count in counts:
        prompts = demo_prompts(count // 2, count - count // 2, arguments.seed)
        _batch_runs(guard, engine, prompts[-1:])  # the first passes of a process are slow
        runs = [_batch_runs(guard, engine, prompts) for _ in range(arguments.repetitions)]
        batch, apart = [pair[0] for pair in runs], [pair[1] for pair in runs]
        yield {
            "prompts": f"{name}, {count}",
            "tokens": apart[0].num_tokens,
            "times the throughput": 1 / ratios(batch, apart)["ratio"],
            "at least": MIN_THROUGHPUT.get(count),
            "tokens a second": statistics.median(run.num_tokens / run.seconds for run in batch),
            "one after another": statistics.median(run.num_tokens / run.seconds for run in apart),
            "passes": batch[0].forward_passes,
            "passes, one after another": apart[0].forward_passes,
            "positions": batch[0].token_positions,
            "positions, one after another": apart[0].token_positions,
        }


def _batch_runs(guard: Guard, engine: TransformersEngine, prompts: Sequence[str]) -> tuple[Run, Run]:
    apart = new_engine(engine)
    return run_rain_on_all(guard, new_engine(engine), prompts), total(run_rain(guard, apart, each) for each in prompts)


# Sizes, sharing


def _size(arguments: argparse.Namespace) -> Iterator[Row]:
    prompts = demo_prompts(0, 1, arguments.seed)
    for size in ("0.2M",) if arguments.quick else arguments.sizes:
        guard = _guard(arguments, 16 if arguments.quick else 128)
        both = compare(guard, _engine(arguments, size), prompts, repetitions=arguments.repetitions)
        yield {"size": size, **both.figures}


def _sharing(arguments: argparse.Namespace) -> Iterator[Row]:
    """What a new engine computes for the second request, less what one computes that has answered the first."""
    cold, warm = _engine(arguments), _engine(arguments)
    system = _prompt_of(cold, 300, arguments.seed)
    first, second = (f"{system} Yes.\n\n{each}" for each in demo_prompts(0, 2, arguments.seed + 1))
    guard = replace(_guard(arguments, 32), seed=arguments.seed)
    of_first = run_rain(guard, warm, first)
    of_second, alone = run_rain(guard, warm, second), run_rain(guard, cold, second)
    prompts = [[cold.tokenizer.decode(each) for each in cold.tokenizer(text).input_ids] for text in (first, second)]
    questions = [_question(guard, cold, each) for each in (first, second)]
    in_prompt, in_question = _num_common(*prompts), _num_common(*questions)
    shared = in_prompt + in_question - _num_common(prompts[0], questions[0])  # both begin with the same token
    saved = alone.token_positions - of_second.token_positions
    yield {
        "request": "second",
        "first's positions": of_first.token_positions,
        "positions": of_second.token_positions,
        "positions on a new engine": alone.token_positions,
        "shared in the prompt": in_prompt,
        "shared in the question": in_question,
        "computed again": max(0, shared - saved),
        "at most": 0,
    }


def _question(guard: Guard, engine: TransformersEngine, prompt: str) -> Sequence[str]:
    """The tokens of the question about the beginning of an answer."""
    answer = replace(guard, finds_nothing_wrong=False).begin(guard.llm(engine), prompt)
    try:
        judge = answer.search.judge
        assert isinstance(judge, RubricJudge)
        (asked, *_) = judge.requests_about(judge.rubric.criteria[0], Transcript(prompt, ""))
        return engine.shown_to_model(asked)[1]
    finally:
        drivers.close_contexts(answer.job.contexts)


def _num_common(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How many items both begin with alike."""
    return next((i for i, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), len(one))


PARTS: dict[str, Callable[[argparse.Namespace], Iterator[Row]]] = {
    "length": _length,
    "siblings": _siblings,
    "batch": _batch,
    "size": _size,
    "sharing": _sharing,
}


def _parse_arguments() -> argparse.Namespace:
    parser = argument_parser(__doc__, repetitions=3)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[*PARTS], help="all by default")
    parser.add_argument("--size", default="30M", help="of the model")
    parser.add_argument("--sizes", nargs="+", default=["7M", "30M", "120M"], help="of the models that are compared")
    return parser.parse_args()


if __name__ == "__main__":
    main()
