"""What the benchmarks share: what is measured of a run, the machine, and how figures are told.

Figures in seconds depend on the machine; ratios of what one process ran side by side, forward passes and token
positions do hardly or not at all.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
import transformers
from rich.console import Console
from rich.table import Table

from langchain_rain.files import write_whole

T = TypeVar("T")

Row = Mapping[str, str | float | None]
"""Figures by what they are of."""


@dataclass(frozen=True, slots=True)
class Run:
    """What was run, and how long it took.

    Attributes:
        num_tokens: of the answers.
        num_simulations: 0 where nothing was searched.
        num_rewinds: 0 where nothing was searched.
    """

    seconds: float
    num_tokens: int
    forward_passes: int
    token_positions: int
    num_simulations: int = 0
    num_rewinds: int = 0

    def __add__(self, other: "Run") -> "Run":
        return Run(
            self.seconds + other.seconds,
            self.num_tokens + other.num_tokens,
            self.forward_passes + other.forward_passes,
            self.token_positions + other.token_positions,
            self.num_simulations + other.num_simulations,
            self.num_rewinds + other.num_rewinds,
        )


def total(runs: Iterable[Run]) -> Run:
    """All of them as one."""
    return sum(runs, start=Run(0.0, 0, 0, 0))


def timed(function: Callable[[], T], device: torch.device) -> tuple[T, float]:
    """What `function` returns, and the seconds until the device had done it."""
    wait_for(device)
    started = time.perf_counter()
    result = function()
    wait_for(device)
    return result, time.perf_counter() - started


def wait_for(device: torch.device) -> None:
    """Until it has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def ratios(ours: Sequence[Run], theirs: Sequence[Run]) -> dict[str, float]:
    """The median, least and greatest ratio of the seconds of runs that stood side by side."""
    each = [own.seconds / other.seconds for own, other in zip(ours, theirs, strict=True)]
    return {"ratio": statistics.median(each), "least": min(each), "greatest": max(each)}


def median_seconds(runs: Iterable[Run]) -> float:
    """The median of their seconds."""
    return statistics.median(run.seconds for run in runs)


@dataclass(slots=True)
class Report:
    """Tables of figures, printed as they come, and written with what they were measured on.

    Attributes:
        arguments: of the command line.
        tables: rows by the title of the table.
    """

    arguments: argparse.Namespace
    tables: dict[str, list[Row]] = field(default_factory=dict)

    def add(self, title: str, rows: Iterable[Row]) -> None:
        """Prints a table, and keeps it."""
        self.tables[title] = list(rows)
        Console(width=None if os.isatty(1) else 200).print(_rendered(title, self.tables[title]))

    def write(self) -> None:
        """Prints what all of it was measured on, and writes it where `--out` says."""
        Console(highlight=False).print(f"Measured on: {machine(self.arguments.device)}")
        self.save()

    def save(self) -> None:
        """Writes what there is so far where `--out` says."""
        settings = {name: value for name, value in vars(self.arguments).items() if name != "out"}
        report = {"machine": machine(self.arguments.device), "settings": settings, "tables": self.tables}
        if self.arguments.out is not None:
            write_whole(self.arguments.out, json.dumps(report, indent=1, default=str) + "\n")


def _rendered(title: str, rows: Sequence[Row]) -> Table:
    table = Table(title=title)
    for number, name in enumerate(rows[0] if rows else ()):
        table.add_column(name, justify="left" if number == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(told, row.values()))
    return table


def told(figure: str | float | None) -> str:
    """A figure as tables show it: to three digits."""
    if figure is None or isinstance(figure, str):
        return figure or "-"
    return f"{figure:.3g}" if isinstance(figure, float) and abs(figure) < 1000 else f"{figure:.0f}"


def machine(device: str) -> dict[str, str | int]:
    """What is measured on."""
    found: dict[str, str | int] = {
        "cpu": _cpu_name(),
        "cores": os.cpu_count() or 0,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "load_average": f"{os.getloadavg()[0]:.1f}",
    }
    return found if device == "cpu" else found | {"gpu": torch.cuda.get_device_name(device)}


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def argument_parser(doc: str | None, *, repetitions: int) -> argparse.ArgumentParser:
    """The arguments that all benchmarks take."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="of torch, for both sides of every ratio")
    parser.add_argument("--device", default="cpu", help="where the models of random weights run: cpu, cuda")
    parser.add_argument("--repetitions", type=int, default=repetitions, help="of which the median is told")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="small settings: to see that it runs")
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    return parser


def begin(arguments: argparse.Namespace) -> Report:
    """Sets the number of threads; the report that is to be filled."""
    torch.set_num_threads(arguments.threads)
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    return Report(arguments)
