"""Two servers of one model against one: the throughput of many searches, and that each stays at one server.

    python -m benchmarks.data_parallel --out benchmarks/results/data_parallel.json

Servers of the demo model: one, two (each of vLLM computes on a core of its own), and one vLLM of two data-parallel
ranks. Client and servers share the machine's cores; how many each takes is told beside the throughput: where one server
takes all, two cannot do more.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.measuring import Row, argument_parser, begin
from benchmarks.serving import connected, cpu_seconds, observed, on_core, running
from langchain_rain import RainConfig, RainLLM
from langchain_rain.engines.completions import PARALLEL_RANK, CompletionsEngine
from langchain_rain.evaluation import demo_world
from tests.servers.processes import ServerProcess, vllm_server

MIN_SPEEDUP = 1.5
"""Times the throughput of one server."""

SESSION = "X-Session-ID"
NUM_AT_ONCE = 16


def main() -> None:
    """Measures and prints."""
    arguments = _parse_arguments()
    report = begin(arguments)
    num = 16 if arguments.quick else arguments.num_prompts
    requests = demo_world.test_requests(num // 2, num - num // 2, seed=arguments.seed)
    prompts = [demo_world.as_prompt(each) for each in requests]
    for kind in arguments.servers:
        rows = _of_two(kind, prompts, arguments)
        if kind == "vLLM":
            with _with_ranks() as server:
                ranks = connected(server.url, session_header=SESSION, data_parallel_size=2)
                rows += _measured({"one server of two ranks": ranks}, [server], prompts, arguments)
        base = rows[0]["answers a second"]
        report.add(f"Searches by {kind}, 16 at once", [_with_speedup(row, base) for row in rows])
    report.write()


def _of_two(kind: str, prompts: Sequence[str], arguments: argparse.Namespace) -> list[Row]:
    with running(kind, kind) as servers:
        one = connected(servers[0].url, session_header=SESSION)
        two = connected(*(server.url for server in servers), session_header=SESSION)
        return _measured({"one server": one, "two servers": two}, servers, prompts, arguments)


def _with_speedup(row: Row, base: object) -> Row:
    own = row["answers a second"]
    assert isinstance(own, float)
    assert isinstance(base, float)
    is_base = row["searched by"] == "one server"
    return {**row, "times the throughput": own / base, "at least": None if is_base else MIN_SPEEDUP}


@contextmanager
def _with_ranks() -> Iterator[ServerProcess]:
    with tempfile.TemporaryDirectory() as folder:
        server = vllm_server(Path(folder) / "ranks.log", "--data-parallel-size", "2")
        with on_core(server, "0|1") as running_server:
            yield running_server


def _measured(
    engines: dict[str, CompletionsEngine],
    servers: Sequence[ServerProcess],
    prompts: Sequence[str],
    arguments: argparse.Namespace,
) -> list[Row]:
    """Each engine in turn, again and again."""
    for engine in engines.values():
        _answer(engine, prompts[:NUM_AT_ONCE], arguments.seed + 1)
    runs = [
        {name: _run(engine, servers, prompts, arguments.seed) for name, engine in engines.items()}
        for _ in range(arguments.repetitions)
    ]
    for engine in engines.values():
        engine.shut_down()
    return [_row(name, [run[name] for run in runs], len(prompts)) for name in engines]


Figures = dict[str, float]


def _run(engine: CompletionsEngine, servers: Sequence[ServerProcess], prompts: Sequence[str], seed: int) -> Figures:
    traffic = observed(engine, session_header=SESSION, rank_header=PARALLEL_RANK)
    own, theirs, started = time.process_time(), sum(map(cpu_seconds, servers)), time.monotonic()
    _answer(engine, prompts, seed)
    seconds = time.monotonic() - started
    of_places: dict[str, int] = {}
    for places in traffic.places.values():
        for place, num in places.items():
            of_places[place] = of_places.get(place, 0) + num
    total = sum(of_places.values())
    return {
        "seconds": seconds,
        "requests": total,
        "busiest": max(of_places.values()) / total,
        "conversations": len(traffic.places),
        "whole": sum(len(places) == 1 for places in traffic.places.values()),
        "client": (time.process_time() - own) / seconds,
        "servers": (sum(map(cpu_seconds, servers)) - theirs) / seconds,
    }


def _row(name: str, runs: Sequence[Figures], num: int) -> Row:
    told = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    return {
        "searched by": name,
        "answers": num,
        "answers a second": num / told["seconds"],
        "least": num / max(run["seconds"] for run in runs),
        "greatest": num / min(run["seconds"] for run in runs),
        "requests": told["requests"],
        "share of the busiest": told["busiest"],
        "conversations": told["conversations"],
        "at one server": told["whole"],
        "cores of the client": told["client"],
        "cores of the servers": told["servers"],
    }


def _answer(engine: CompletionsEngine, prompts: Sequence[str], seed: int) -> None:
    llm = RainLLM(model=engine, config=RainConfig(), seed=seed, max_tokens=256, on_unsatisfied="best")
    llm.batch(list(prompts))  # 16 at once


def _parse_arguments() -> argparse.Namespace:
    parser = argument_parser(__doc__, repetitions=3)
    parser.add_argument("--num-prompts", type=int, default=64, help="half of them harmful")
    kinds = ("vLLM", "llama-server")
    parser.add_argument("--servers", nargs="+", choices=kinds, default=kinds)
    return parser.parse_args()


if __name__ == "__main__":
    main()
