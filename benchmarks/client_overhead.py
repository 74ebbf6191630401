"""What the client of inference servers takes: requests a second without a model, and its share of the time with one.

    python -m benchmarks.client_overhead --out benchmarks/results/client_overhead.json

32 searches at once ask a stub, a process that answers at once, and then vLLM with the demo model. The client's share of
the time is what its process computes of the seconds that all takes; what is left the servers take, or nobody. It is an
upper bound of what a client that takes nothing would save, as client and server compute side by side.
"""

import argparse
import cProfile
import pstats
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measuring import Row, argument_parser, begin
from benchmarks.serving import connected, cpu_seconds, observed, running
from benchmarks.sides import UNTRIED
from langchain_rain import RainConfig, RainLLM, drivers
from langchain_rain.engines.calling import Calls
from langchain_rain.engines.completions import CompletionsEngine
from langchain_rain.evaluation import demo_world
from tests.servers.processes import ServerProcess
from tests.servers.stub_server import stub_server

MIN_REQUESTS = 500
"""Requests a second that the client is to send on two cores."""

MIN_SERVER_SHARE = 0.9
"""The share of the time that is to be a real server's."""

NUM_AT_ONCE = 32

NUM_SHOWN = 12


def main() -> None:
    """Measures and prints."""
    arguments = _parse_arguments()
    report = begin(arguments)
    num = 32 if arguments.quick else arguments.num_prompts
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder, stub_server(Path(folder) / "stub.log") as server:
        rows.append(_measured("stub", server, num, arguments))
        report.add("Where the client's thread is, asking the stub", _profiled(server, num, arguments.seed))
    with running("vLLM") as (server,):
        rows.append(_measured("vLLM", server, num, arguments))
    report.add("32 searches at once", rows)
    report.write()


def _measured(name: str, server: ServerProcess, num: int, arguments: argparse.Namespace) -> Row:
    engine = connected(server.url)
    _answer(engine, num, arguments.seed)  # the first time everything is slower
    runs = [_run(engine, server, num, arguments.seed) for _ in range(arguments.repetitions)]
    engine.shut_down()
    requests, seconds, client, servers = (statistics.median(column) for column in zip(*runs, strict=True))
    rates = [run[0] / run[1] for run in runs]
    return {
        "server": name,
        "searches": num,
        "requests": requests,
        "seconds": seconds,
        "requests a second": statistics.median(rates),
        "least": min(rates),
        "greatest": max(rates),
        "at least": MIN_REQUESTS if name == "stub" else None,
        "client's CPU ms a request": 1000 * client / requests,
        "server's CPU ms a request": 1000 * servers / requests,
        "client's share of the time": client / seconds,
        "the rest": 1 - client / seconds,
        "of it at least": MIN_SERVER_SHARE if name != "stub" else None,
    }


def _run(engine: CompletionsEngine, server: ServerProcess, num: int, seed: int) -> tuple[float, float, float, float]:
    """How many requests, the seconds of all, and what client and server computed meanwhile."""
    traffic = observed(engine)
    own, theirs, started = time.process_time(), cpu_seconds(server), time.monotonic()
    _answer(engine, num, seed)
    seconds = time.monotonic() - started
    return len(traffic.asked), seconds, time.process_time() - own, cpu_seconds(server) - theirs


def _answer(engine: CompletionsEngine, num: int, seed: int) -> None:
    llm = RainLLM(
        model=engine,
        rubric=UNTRIED,
        config=RainConfig(max_simulations=8),
        seed=seed,
        max_tokens=24,
        on_unsatisfied="best",
    )
    requests = demo_world.test_requests(num // 2, num - num // 2, seed=seed)
    prompts = [demo_world.as_prompt(each) for each in requests]
    jobs = [llm.begin(prompt, prompt, None, calls=Calls()).job for prompt in prompts]
    for outcome in drivers.run_batch(jobs, max_concurrent=NUM_AT_ONCE):
        if isinstance(outcome, Exception):
            raise outcome


def _profiled(server: ServerProcess, num: int, seed: int) -> Iterator[Row]:
    """Time of the functions that take most by themselves; profiling makes all of them slower, small ones most."""
    engine = connected(server.url)
    traffic, profile = observed(engine), cProfile.Profile()
    engine.channel.post(profile.enable)
    _answer(engine, num, seed)
    engine.channel.run(_stopped(profile))
    engine.shut_down()
    stats = pstats.Stats(profile)
    total = stats.total_tt  # type: ignore[attr-defined]
    groups: dict[str, float] = {}
    for (path, _, name), (_, _, own, _, _) in stats.stats.items():  # type: ignore[attr-defined]
        group = _group(path, name)
        groups[group] = groups.get(group, 0.0) + own
    for group, seconds in sorted(groups.items(), key=lambda each: -each[1])[:NUM_SHOWN]:
        yield {"code": group, "share": seconds / total, "ms a request, profiled": 1000 * seconds / len(traffic.asked)}


async def _stopped(profile: cProfile.Profile) -> None:
    profile.disable()


def _group(path: str, name: str) -> str:
    """The package, or the built-in function."""
    _, is_installed, rest = path.partition("site-packages/")
    if is_installed:
        return rest.split("/")[0]
    if "langchain_rain" in path:
        return "langchain_rain/" + path.rpartition("langchain_rain/")[2].removesuffix(".py")
    return f"Python: {Path(path).parent.name}/{Path(path).name}" if path != "~" else f"built in: {name}"


def _parse_arguments() -> argparse.Namespace:
    parser = argument_parser(__doc__, repetitions=3)
    parser.add_argument("--num-prompts", type=int, default=64)
    return parser.parse_args()


if __name__ == "__main__":
    main()
