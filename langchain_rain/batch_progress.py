"""How far a batch is, on standard error: a bar on a terminal, elsewhere a line now and then."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.text import Text

from langchain_rain.batch import Tally
from langchain_rain.quoting import visible

SECONDS_BETWEEN_LINES = 10.0
"""How often it is told how far the run is, where that is no terminal."""


@contextmanager
def telling(tally: Tally, out: Path, failed: Path) -> Iterator[Callable[[], None]]:
    """Yields what is called after each row, and tells at the end how far it came; on a stop, how to go on."""
    console = Console(stderr=True)
    if tally.num_before:
        _tell(console, f"{tally.num_before} of {tally.num_rows} rows are in {out} already.")
    try:
        with _bar(tally, console) if console.is_terminal else _lines(tally, console) as tell:
            yield tell
    finally:
        _tell(console, f"{tally.rows_told}; {tally.cost_told}.")
        if tally.num_failed:
            _tell(console, f"What failed is named in {failed}, with the reason.")
        if tally.num_before + tally.num_answered < tally.num_rows:
            _tell(console, f"What is answered stands in {out}; the same command goes on with the rest.")


@contextmanager
def _bar(tally: Tally, console: Console) -> Iterator[Callable[[], None]]:
    columns = (SpinnerColumn(), BarColumn(10), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=tally.num_rows)

        def tell() -> None:
            told = f"{tally.rows_told}\n{tally.cost_told}"
            progress.update(task, completed=tally.num_tried, description=told)

        tell()
        yield tell


@contextmanager
def _lines(tally: Tally, console: Console) -> Iterator[Callable[[], None]]:
    told_at = time.monotonic()

    def tell() -> None:
        nonlocal told_at
        if time.monotonic() - told_at >= SECONDS_BETWEEN_LINES:
            told_at = time.monotonic()
            _tell(console, f"{tally.rows_told}; {tally.cost_told}")

    yield tell


def _tell(console: Console, line: str) -> None:
    console.print(Text(visible(line)), soft_wrap=True)
