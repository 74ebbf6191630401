"""The engine on a GPU: RAIN against a cached `model.generate`, prompts at once, and where the time of a step goes.

    python -m benchmarks.on_gpu --device cuda --out benchmarks/results/on_gpu.json

Llamas of random weights in bfloat16. Of each size:

* one forward pass of the model alone over new positions after a cached beginning: until the host has launched it, until
  it is done, and how long the GPU computes; without a mask, with one as trees have it, and that at other lengths; once
  by cuDNN's attention, which is left out of all that follows, on both sides: it plans anew for each length;
* prompts at once, merged: `balanced` with nothing found wrong, and `paper`, which searches, as a judge of random
  weights finds anything; plain samples by the engine and by one batch of `generate`;
* one prompt at a time: the same, and `fast`;
* steps: what of one goes through the model, and what the host takes, which packs, samples and searches.

The figures are written after each table: a run that is cut off leaves those it has.
"""

import argparse
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from benchmarks.measuring import Row, Run, argument_parser, begin, median_seconds, ratios, timed, wait_for
from benchmarks.models import SHAPES, demo_prompts, random_engine
from benchmarks.passes import NUM_CACHED, forward_passes
from benchmarks.sides import (
    NUM_WARM_UP_TOKENS,
    Guard,
    compare,
    counted_passes,
    generate,
    new_engine,
    run_rain,
    run_rain_on_all,
)
from langchain_rain import RainConfig, drivers
from langchain_rain.engines.transformers import TransformersEngine
from langchain_rain.search.protocol import Rollout, ask


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is measured: so little that all of it takes minutes on one H100.

    Attributes:
        positions: new ones of a forward pass.
        num_passes: forward passes of each kind.
        num_prompts: at once.
        drafted: tokens of an answer in which nothing is found wrong.
        searched: of one by `paper`, which takes many passes for each.
        drafted_at_once: of each of the prompts at once.
        searched_at_once: of each of the prompts at once.
    """

    positions: Sequence[int] = (1, 16, 256, 2048)
    num_passes: int = 10
    num_prompts: int = 16
    drafted: int = 128
    searched: int = 32
    drafted_at_once: int = 64
    searched_at_once: int = 12


QUICK = Extent((1, 16), 2, 4, 16, 4, 8, 4)


def main() -> None:
    """Measures and prints."""
    arguments = _parse_arguments()
    report = begin(arguments)
    torch.backends.cuda.enable_cudnn_sdp(False)  # for both sides; the engine turns it off by itself
    extent = QUICK if arguments.quick else Extent()
    for size in arguments.sizes:
        make = partial(random_engine, size, device=arguments.device, seed=arguments.seed, dtype=torch.bfloat16)
        engine, seconds = timed(make, torch.device(arguments.device))
        tables = {
            "the model": _model(engine, seconds),
            f"a forward pass after {NUM_CACHED} cached tokens, by cuDNN's attention": _by_cudnn(engine, extent),
            f"a forward pass after {NUM_CACHED} cached tokens": _by_torch(engine, extent),
            f"{extent.num_prompts} prompts at once": _at_once(engine, extent, arguments),
            "one prompt at a time; per answer": _one_at_a_time(engine, extent, arguments),
            "where the time of a step goes": _steps(engine, extent, arguments),
        }
        for title, rows in tables.items():
            report.add(f"{size}: {title}", rows)
            report.save()
        del engine, tables, rows
        _free()
    report.write()


def _by_cudnn(engine: TransformersEngine, extent: Extent) -> Iterator[Row]:
    """What torch takes by itself on some GPUs."""
    torch.backends.cuda.enable_cudnn_sdp(True)
    try:
        yield from forward_passes(engine.model, extent.positions[:2], extent.num_passes)
    finally:
        torch.backends.cuda.enable_cudnn_sdp(False)


def _by_torch(engine: TransformersEngine, extent: Extent) -> Iterator[Row]:
    yield from forward_passes(engine.model, extent.positions, extent.num_passes)


def _free() -> None:
    """Gives back the memory of engines that are not used any more, which hold themselves in cycles."""
    gc.collect()
    torch.cuda.empty_cache()


def _model(engine: TransformersEngine, seconds: float) -> Iterator[Row]:
    weights = list(engine.model.parameters())
    yield {
        "model": engine.name,
        "dtype": str(engine.model.dtype),
        "attention": engine.model.config._attn_implementation,
        "parameters": sum(each.numel() for each in weights),
        "weights GB": sum(each.numel() * each.element_size() for each in weights) / 1e9,
        "cached as a tree": str(engine.cache_info.max_tokens > 0),
        "made in seconds": seconds,
    }


# Answers


def _guards(extent: Extent, arguments: argparse.Namespace) -> dict[str, Guard]:
    drafting = {
        name: Guard(RainConfig.preset(name), arguments.seed, extent.drafted, finds_nothing_wrong=True)
        for name in ("balanced", "fast")
    }
    return drafting | {"paper": Guard(RainConfig.preset("paper"), arguments.seed, extent.searched)}


def _guards_at_once(extent: Extent, arguments: argparse.Namespace) -> dict[str, Guard]:
    guards = _guards(extent, arguments)
    return {
        "balanced": replace(guards["balanced"], max_tokens=extent.drafted_at_once),
        "paper": replace(guards["paper"], max_tokens=extent.searched_at_once),
    }


def _repetitions(guard: Guard, arguments: argparse.Namespace) -> int:
    """A search takes as long as many answers in which nothing is wrong, and runs once."""
    repetitions: int = arguments.repetitions
    return repetitions if guard.finds_nothing_wrong else 1


def _one_at_a_time(engine: TransformersEngine, extent: Extent, arguments: argparse.Namespace) -> Iterator[Row]:
    prompts = demo_prompts(0, 1, arguments.seed)
    for name, guard in _guards(extent, arguments).items():
        _free()
        both = compare(guard, engine, prompts, repetitions=_repetitions(guard, arguments))
        rain, plain = both.rain[0], both.plain[0]
        seconds, plain_seconds = median_seconds(both.rain), median_seconds(both.plain)
        yield {
            "preset": name,
            "tokens": rain.num_tokens,
            **ratios(both.rain, both.plain),
            **_figures("rain", seconds, rain),
            **_figures("generate", plain_seconds, plain),
            "simulations": rain.num_simulations,
        }


def _figures(side: str, seconds: float, run: Run) -> dict[str, float]:
    return {
        f"{side}: passes": run.forward_passes,
        f"{side}: positions": run.token_positions,
        f"{side}: ms a pass": 1000 * seconds / run.forward_passes,
        f"{side}: positions a second": run.token_positions / seconds,
        f"{side}: tokens a second": run.num_tokens / seconds,
    }


def _at_once(engine: TransformersEngine, extent: Extent, arguments: argparse.Namespace) -> Iterator[Row]:
    count, num_tokens = extent.num_prompts, extent.drafted_at_once
    prompts = demo_prompts(count // 2, count - count // 2, arguments.seed)
    temperature = RainConfig.preset("balanced").temperature
    for sampling in (_generate_batch, _sample_all):
        sampling(engine, prompts, NUM_WARM_UP_TOKENS, temperature)
    batch = _repeated(partial(_generate_batch, engine, prompts, num_tokens, temperature), arguments.repetitions)
    yield _row_of_batch("generate", batch, batch, count)
    samples = _repeated(partial(_sample_all, engine, prompts, num_tokens, temperature), arguments.repetitions)
    yield _row_of_batch("samples of the engine", samples, batch, count)
    for name, guard in _guards_at_once(extent, arguments).items():
        runs = _repeated(partial(_rain_on_all, guard, engine, prompts), _repetitions(guard, arguments))
        yield _row_of_batch(name, runs, batch if guard.finds_nothing_wrong else None, count)


@dataclass(frozen=True, slots=True)
class Repeated:
    """Runs that are alike.

    Attributes:
        peak_bytes: of the GPU's memory, None without one.
    """

    runs: list[Run]
    peak_bytes: int | None


def _repeated(run: Callable[[], Run], repetitions: int) -> Repeated:
    _free()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    runs = [run() for _ in range(repetitions)]
    return Repeated(runs, torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None)


def _row_of_batch(name: str, repeated: Repeated, plain: Repeated | None, count: int) -> Row:
    first, seconds = repeated.runs[0], median_seconds(repeated.runs)
    return {
        "side": name,
        "tokens an answer": first.num_tokens / count,
        "seconds": seconds,
        "seconds an answer": seconds / count,
        "times generate's": ratios(repeated.runs, plain.runs)["ratio"] if plain is not None else None,
        "passes": first.forward_passes,
        "positions": first.token_positions,
        "ms a pass": 1000 * seconds / first.forward_passes,
        "positions a pass": first.token_positions / first.forward_passes,
        "positions a second": first.token_positions / seconds,
        "tokens a second": first.num_tokens / seconds,
        "simulations": first.num_simulations,
        "GPU GB, at most": repeated.peak_bytes / 1e9 if repeated.peak_bytes is not None else None,
    }


def _rain_on_all(guard: Guard, engine: TransformersEngine, prompts: Sequence[str]) -> Run:
    return run_rain_on_all(guard, new_engine(engine), prompts)


def _generate_batch(engine: TransformersEngine, prompts: Sequence[str], num_tokens: int, temperature: float) -> Run:
    """One batch of `generate`; positions of padding count."""
    inputs = engine.tokenizer(list(prompts), return_tensors="pt", padding=True, padding_side="left")
    inputs = inputs.to(engine.model.device)
    generating = partial(generate, engine.model, inputs, num_tokens, temperature=temperature)
    _, seconds = timed(generating, engine.model.device)
    num_positions = len(prompts) * (inputs.input_ids.shape[1] + num_tokens - 1)
    return Run(seconds, len(prompts) * num_tokens, num_tokens, num_positions)


def _sample_all(engine: TransformersEngine, prompts: Sequence[str], num_tokens: int, temperature: float) -> Run:
    """Whole answers by the engine, not judged."""
    engine = new_engine(engine)

    def sample_all() -> list[Any]:
        contexts = [engine.open(prompt, max_tokens=num_tokens) for prompt in prompts]
        asked = [ask(Rollout(each, (), (), num_tokens, temperature, seed)) for seed, each in enumerate(contexts)]
        jobs = [drivers.Job(steps, {context: engine}) for steps, context in zip(asked, contexts, strict=True)]
        return drivers.run_batch(jobs, max_concurrent=len(jobs))

    with counted_passes(engine.model) as shapes:
        outcomes, seconds = timed(sample_all, engine.model.device)
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
    tokens = sum(len(outcome.result.tokens) for outcome in outcomes)
    return Run(seconds, tokens, len(shapes), sum(outcome.cost.token_positions for outcome in outcomes))


# Steps


def _steps(engine: TransformersEngine, extent: Extent, arguments: argparse.Namespace) -> Iterator[Row]:
    """Answers half as long. Whoever times the model waits for it, so that a step takes a little longer than above."""
    count = extent.num_prompts
    prompts = demo_prompts(count // 2, count - count // 2, arguments.seed)
    for name, guard in _guards_at_once(extent, arguments).items():
        short = replace(guard, max_tokens=guard.max_tokens // 2)
        for side, run in (
            ("one prompt", partial(run_rain, short, prompt=prompts[-1])),
            (f"{count} prompts", partial(run_rain_on_all, short, prompts=prompts)),
        ):
            _free()
            fresh = new_engine(engine)
            with seconds_in(fresh.model) as seconds:
                found = run(engine=fresh)
            inside = sum(seconds)
            yield {
                "preset": f"{name}, {side}",
                "passes": found.forward_passes,
                "positions a pass": found.token_positions / found.forward_passes,
                "ms a step": 1000 * found.seconds / found.forward_passes,
                "ms in the model": 1000 * inside / found.forward_passes,
                "ms of the host": 1000 * (found.seconds - inside) / found.forward_passes,
                "the host's share": 1 - inside / found.seconds,
            }


@contextmanager
def seconds_in(model: Any) -> Iterator[list[float]]:
    """How long each pass of a model takes until it is done."""
    seconds: list[float] = []
    started = 0.0

    def enter(*_: Any) -> None:
        nonlocal started
        wait_for(model.device)
        started = time.perf_counter()

    def leave(*_: Any) -> None:
        wait_for(model.device)
        seconds.append(time.perf_counter() - started)

    handles = [model.register_forward_pre_hook(enter), model.register_forward_hook(leave)]
    try:
        yield seconds
    finally:
        for handle in handles:
            handle.remove()


def _parse_arguments() -> argparse.Namespace:
    parser = argument_parser(__doc__, repetitions=2)
    parser.add_argument("--sizes", nargs="+", choices=SHAPES, default=["1B", "7B"], help="of the models")
    return parser.parse_args()


if __name__ == "__main__":
    main()
