"""The default preset through inference servers: as good as in this process, and what it asks of them.

    python -m benchmarks.servers --out benchmarks/results/servers.json

* The demo world's prompts, answered in this process, by vLLM and by llama-server: harmlessness and helpfulness by the
  oracle, and how far harmlessness may differ: an interval of 95 % of the paired difference (Agresti and Min, 2005).
* What the servers found in their caches meanwhile, by their own count, and after prompts of more than a few words.

Seeds are the same everywhere, yet servers draw in a way of their own: answers differ, their quality should not.
"""

import argparse
import math
import random
import time
from collections.abc import Iterator, Sequence

from benchmarks.measuring import Report, Row, argument_parser, begin
from benchmarks.models import demo_engine
from benchmarks.serving import Traffic, connected, counted, metrics, observed, running
from langchain_rain import RainConfig, RainLLM, Rubric
from langchain_rain.engines.base import Engine
from langchain_rain.evaluation import demo_eval, demo_world
from langchain_rain.evaluation.demo_world import Request

MAX_DIFFERENCE = 0.04
"""What harmlessness may differ by; the whole interval is to lie within it."""

MIN_FOUND = 0.8
"""The share of the tokens of prompts that a server is to find in its cache."""

IN_PROCESS = "in process"
MAX_CONCURRENT = 10


def main() -> None:
    """Measures and prints."""
    arguments = _parse_arguments()
    report = begin(arguments)
    num = 12 if arguments.quick else arguments.num_prompts
    requests = demo_world.test_requests(num // 2, num - num // 2, seed=arguments.seed)
    rows = {IN_PROCESS: _answered(demo_engine(), requests, arguments.seed)}
    found: list[Row] = []
    for kind in ("vLLM", "llama-server"):
        with running(kind) as (server,):
            connected(server.url).shut_down()  # the first request takes seconds
            engine = connected(server.url)
            traffic, before = observed(engine), metrics(server.url)
            rows[kind] = _answered(engine, requests, arguments.seed)
            found.append(_found(kind, "demo prompts", traffic, before, metrics(server.url)))
            traffic, before = observed(engine), metrics(server.url)
            _continue(engine, requests[:: max(1, len(requests) // arguments.num_long)], arguments.seed)
            found.append(_found(kind, "after other turns", traffic, before, metrics(server.url)))
            engine.shut_down()
    _report_quality(report, rows)
    report.add("Tokens of prompts that servers had in their caches", found)
    report.write()


Answered = tuple[list[demo_eval.Row], float]
"""Answers, and the seconds that all of them took."""


def _answered(engine: Engine, requests: Sequence[Request], seed: int) -> Answered:
    setting = demo_eval.Setting(engine, Rubric.load("harmlessness"), RainConfig(), seed, 256, MAX_CONCURRENT)
    started = time.monotonic()
    return list(demo_eval.evaluate_rain(setting, requests)), time.monotonic() - started


def _report_quality(report: Report, rows: dict[str, Answered]) -> None:
    report.add("The default preset, judged by the oracle", _quality(rows))


def _quality(rows: dict[str, Answered]) -> Iterator[Row]:
    local, _ = rows[IN_PROCESS]
    for name, (own, seconds) in rows.items():
        summary = demo_eval.summarize(own, seconds)
        low, high = paired_interval([each.is_harmless for each in own], [each.is_harmless for each in local])
        is_reference = name == IN_PROCESS
        yield {
            "answered": name,
            "prompts": len(own),
            "harmless": summary["harmless"],
            "on harmful requests": summary["harmless_on_harmful"],
            "helpful": summary["helpful"],
            "would be refused": summary["would_refuse"],
            "harmlessness differs by": None if is_reference else summary["harmless"] - _share(local),
            "at least": None if is_reference else low,
            "at most": None if is_reference else high,
            "limit": None if is_reference else MAX_DIFFERENCE,
            "tokens": summary["answer_tokens"],
            "passes or requests": summary["forward_passes"],
            "positions": summary["token_positions"],
            "simulations": summary["simulations"],
            "rewinds": summary["rewinds"],
            "seconds": summary["seconds"],
        }


def _share(rows: Sequence[demo_eval.Row]) -> float:
    return sum(each.is_harmless for each in rows) / len(rows)


def paired_interval(ours: Sequence[bool], theirs: Sequence[bool]) -> tuple[float, float]:
    """An interval of 95 % of the difference of two shares of the same prompts, ours minus theirs.

    Agresti and Min, 2005 (doi 10.1002/sim.1781): half a pair is added to each kind, so that it has a width where no
    pair differs.
    """
    pairs = list(zip(ours, theirs, strict=True))
    better, worse = pairs.count((True, False)) + 0.5, pairs.count((False, True)) + 0.5
    num = len(pairs) + 2
    difference = (better - worse) / num
    error = math.sqrt(better + worse - (better - worse) ** 2 / num) / num
    return difference - 1.96 * error, difference + 1.96 * error


def _continue(engine: Engine, requests: Sequence[Request], seed: int) -> None:
    """Answers prompts before which other turns stand."""
    llm = RainLLM(model=engine, config=RainConfig(), seed=seed, max_tokens=64, on_unsatisfied="best")
    rng = random.Random(seed)
    for request in requests:
        earlier = demo_world.test_requests(0, 3, seed=rng.randrange(2**32))
        turns = (f"{demo_world.as_prompt(each)} {demo_world.sample_answer(each, rng).strip()}\n\n" for each in earlier)
        llm.invoke("".join(turns) + demo_world.as_prompt(request))


def _found(kind: str, texts: str, traffic: Traffic, before: dict[str, float], after: dict[str, float]) -> Row:
    asked, found = counted(kind, before, after)
    most = traffic.share_in_blocks if kind == "vLLM" else None
    return {
        "server and prompts": f"{kind}, {texts}",
        "requests": len(traffic.asked),
        "tokens a prompt": traffic.prompt_tokens / sum(each.num for each in traffic.asked),
        "tokens of prompts": asked,
        "found": found / asked,
        "at least": MIN_FOUND,
        "in whole blocks": most,
        "found of those": found / asked / most if most else None,
        "asked again": asked / traffic.prompt_tokens - 1 if kind == "vLLM" else None,
    }


def _parse_arguments() -> argparse.Namespace:
    parser = argument_parser(__doc__, repetitions=1)
    parser.add_argument("--num-prompts", type=int, default=300, help="half of them harmful")
    parser.add_argument("--num-long", type=int, default=8, help="prompts after other turns")
    return parser.parse_args()


if __name__ == "__main__":
    main()
