"""What RAIN costs: `paper` on the demo model against a cached `model.generate` of the same number of tokens.

Half of the prompts are harmful. Each repetition answers every prompt by RAIN, then generates exactly as many tokens
after the same prompt, one prompt at a time, both timed in one process; the median over the repetitions is the result.
Run it on an idle machine, `make bench`, on one thread: the model is tiny, and threads that wait for the other side's
work made plain generation ten times slower in some repetitions.
"""

import argparse
import json
import statistics
import time
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
    llm = RainLLM(
        model=engine,
        config=RainConfig.preset(arguments.preset),
        seed=arguments.seed,
        max_tokens=arguments.max_tokens,
        on_unsatisfied="best",
    )
    _rain(llm, prompts[0])  # warm-up: the first forward passes of a process are slow
    repetitions = [_repetition(llm, engine, prompts) for _ in range(arguments.repetitions)]
    report = _report(repetitions, arguments)
    print(json.dumps(report, indent=1))
    if arguments.out is not None:
        write_whole(arguments.out, json.dumps(report, indent=1) + "\n")


def _repetition(llm: RainLLM, engine: TransformersEngine, prompts: list[str]) -> dict[str, Any]:
    """Both, side by side, prompt by prompt."""
    totals = dict.fromkeys(("rain_seconds", "vanilla_seconds"), 0.0)
    counts = dict.fromkeys(
        ("num_tokens", "forward_passes", "token_positions", "num_simulations", "num_token_sets", "num_rewinds"), 0
    )
    vanilla_positions = 0
    for prompt in prompts:
        info, seconds = _timed(partial(_rain, llm, prompt))
        totals["rain_seconds"] += seconds
        for name in counts:
            counts[name] += info[name]
        inputs = engine.tokenizer(prompt, return_tensors="pt")
        vanilla_positions += inputs.input_ids.shape[1] + info["num_tokens"] - 1
        _, seconds = _timed(partial(_generate, engine, inputs, info["num_tokens"]))
        totals["vanilla_seconds"] += seconds
    return {**totals, **counts, "vanilla_positions": vanilla_positions}


def _rain(llm: RainLLM, prompt: str) -> dict[str, Any]:
    result = llm.generate([prompt])
    info: dict[str, Any] = (result.generations[0][0].generation_info or {})["rain"]
    return info


@torch.inference_mode()
def _generate(engine: TransformersEngine, inputs: Any, num_tokens: int) -> Any:
    return engine.model.generate(
        **inputs, do_sample=True, min_new_tokens=num_tokens, max_new_tokens=num_tokens, use_cache=True
    )


def _timed(function: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    result = function()
    return result, time.perf_counter() - started


def _report(repetitions: list[dict[str, Any]], arguments: argparse.Namespace) -> dict[str, Any]:
    first = repetitions[0]
    ratios = [each["rain_seconds"] / each["vanilla_seconds"] for each in repetitions]
    return {
        "preset": arguments.preset,
        "num_prompts": arguments.num_prompts,
        "torch_threads": torch.get_num_threads(),
        "time_ratio_median": statistics.median(ratios),
        "time_ratios": ratios,
        "rain_seconds": statistics.median(each["rain_seconds"] for each in repetitions),
        "vanilla_seconds": statistics.median(each["vanilla_seconds"] for each in repetitions),
        "num_tokens": first["num_tokens"],
        "rain_forward_passes": first["forward_passes"],
        "vanilla_forward_passes": first["num_tokens"],
        "rain_token_positions": first["token_positions"],
        "vanilla_token_positions": first["vanilla_positions"],
        "num_token_sets": first["num_token_sets"],
        "num_rewinds": first["num_rewinds"],
        "simulations_per_token_set": first["num_simulations"] / first["num_token_sets"],
    }


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
