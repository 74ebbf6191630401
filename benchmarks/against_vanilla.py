"""What RAIN costs: `paper` on the demo model against a cached `model.generate` of the same number of tokens.

Half of the prompts are harmful. Each repetition answers every prompt by RAIN, with and without asking ahead (the
answers are the same), then generates exactly as many tokens after the same prompt, one prompt at a time, all timed in
one process; the median over the repetitions is the result.
Run it on an idle machine, `make bench`, on one thread: the model is tiny, and threads that wait for the other side's
work made plain generation ten times slower in some repetitions.
"""

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from langchain_rain.config import RainConfig
from langchain_rain.engines.loading import load_engine
from langchain_rain.engines.transformers import TransformersEngine
from langchain_rain.evaluation import demo_world
from langchain_rain.files import write_whole
from langchain_rain.llms import RainLLM

Side = defaultdict[str, float]  # seconds and counts, summed over the prompts

COUNTS = ("num_tokens", "forward_passes", "token_positions", "num_simulations", "num_token_sets", "num_rewinds")

NUM_GENERATIONS = 3
"""How often plain generation is timed for each run of RAIN: it takes a tenth of a second, too little to time well."""


def main() -> None:
    """Runs the benchmark and prints its figures."""
    arguments = _parse_arguments()
    engine = load_engine("demo")
    assert isinstance(engine, TransformersEngine)
    half = arguments.num_prompts // 2
    prompts = [
        demo_world.as_prompt(request)
        for request in demo_world.test_requests(half, arguments.num_prompts - half, seed=arguments.seed)
    ]
    config = RainConfig.preset(arguments.preset)
    llms = {
        name: RainLLM(
            model=engine,
            config=config.model_copy(update={"lookahead": lookahead}),
            seed=arguments.seed,
            max_tokens=arguments.max_tokens,
            on_unsatisfied="best",
        )
        for name, lookahead in {"rain": config.lookahead, "rain_asking_nothing_ahead": 0}.items()
    }
    _repetition(llms, engine, prompts[:1])  # warm-up: the first forward passes of a process are slow
    repetitions = [_repetition(llms, engine, prompts) for _ in range(arguments.repetitions)]
    vanilla = [each["vanilla"] for each in repetitions]
    report = {
        "preset": arguments.preset,
        "lookahead": config.lookahead,
        "num_prompts": arguments.num_prompts,
        "torch_threads": torch.get_num_threads(),
        **{name: _summary([each[name] for each in repetitions], vanilla) for name in llms},
        "vanilla": _medians(vanilla),
        "peak_cached_tokens": max(_peak(llms["rain"], prompt) for prompt in prompts),
    }
    print(json.dumps(report, indent=1))
    if arguments.out is not None:
        write_whole(arguments.out, json.dumps(report, indent=1) + "\n")


def _repetition(llms: dict[str, RainLLM], engine: TransformersEngine, prompts: list[str]) -> dict[str, Side]:
    """All side by side, prompt by prompt."""
    sides: dict[str, Side] = {name: defaultdict(float) for name in (*llms, "vanilla")}
    for prompt in prompts:
        answers = set()
        for name, llm in llms.items():
            (text, info), seconds = _timed(partial(_rain, llm, prompt))
            _add(sides[name], {"seconds": seconds, **{count: info[count] for count in COUNTS}})
            answers.add((text, info["num_tokens"], info["num_simulations"]))
        ((_, num_tokens, _),) = answers  # one: asking ahead changes none of it
        inputs = engine.tokenizer(prompt, return_tensors="pt")
        for _ in range(NUM_GENERATIONS):
            _, seconds = _timed(partial(_generate, engine, inputs, num_tokens))
            _add(sides["vanilla"], {"seconds": seconds / NUM_GENERATIONS})
        num_positions = inputs.input_ids.shape[1] + num_tokens - 1
        counts = {"num_tokens": num_tokens, "forward_passes": num_tokens, "token_positions": num_positions}
        _add(sides["vanilla"], counts)
    return sides


def _add(side: Side, more: dict[str, float]) -> None:
    for name, number in more.items():
        side[name] += number


def _rain(llm: RainLLM, prompt: str) -> tuple[str, dict[str, Any]]:
    ((generation,),) = llm.generate([prompt]).generations
    return generation.text, (generation.generation_info or {})["rain"]


def _peak(llm: RainLLM, prompt: str) -> int:
    """The most tokens that a search has cached at once."""
    engine = load_engine("demo")  # a new one, as its peak is that of all it has answered
    assert isinstance(engine, TransformersEngine)
    _rain(llm.model_copy(update={"model": engine}), prompt)
    return engine.cache_info.peak_num_tokens


@torch.inference_mode()
def _generate(engine: TransformersEngine, inputs: Any, num_tokens: int) -> Any:
    return engine.model.generate(
        **inputs, do_sample=True, min_new_tokens=num_tokens, max_new_tokens=num_tokens, use_cache=True
    )


def _timed(function: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    result = function()
    return result, time.perf_counter() - started


def _summary(sides: list[Side], vanilla: list[Side]) -> dict[str, Any]:
    ratios = [side["seconds"] / plain["seconds"] for side, plain in zip(sides, vanilla, strict=True)]
    medians = _medians(sides)
    return {
        "time_ratio_median": statistics.median(ratios),
        "time_ratios": ratios,
        **medians,
        "simulations_per_token_set": medians["num_simulations"] / medians["num_token_sets"],
    }


def _medians(sides: list[Side]) -> dict[str, float]:
    return {name: statistics.median(side[name] for side in sides) for name in sides[0]}


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--num-prompts", type=int, default=8)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    return parser.parse_args()


if __name__ == "__main__":
    main()
