"""Many prompts through one answerer: some at once, each result written down as soon as it is there."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from langchain_rain.answerer import Tried
from langchain_rain.errors import EngineError, RainConfigError
from langchain_rain.json_lines import write_line
from langchain_rain.ledger import Ledger

MAX_FAILURES_ON_END = 20
"""After so many failures alike, without anything else between them, the next row would fail too: nobody is there who
could answer, or nothing can be answered by these settings."""

MAY_PASS = "may pass"
"""The cause of all failures that may pass, whatever they say."""


@dataclass(slots=True)
class Tally:
    """How far a run is.

    Attributes:
        num_rows: all there are.
        num_before: those that were answered before this run.
        num_answered: by this run.
        num_unsatisfied: of these, how many do not satisfy the rubric, or are refusals.
        num_failed: in this run.
        num_positions: token positions that went through a model for the answers.
        num_tokens: of the answers.
        started: when, by `time.monotonic`.
    """

    num_rows: int
    num_before: int
    num_answered: int = 0
    num_unsatisfied: int = 0
    num_failed: int = 0
    num_positions: int = 0
    num_tokens: int = 0
    started: float = field(default_factory=time.monotonic)

    @property
    def num_tried(self) -> int:
        """Rows that nothing more is done about in this run."""
        return self.num_before + self.num_answered + self.num_failed

    @property
    def rows_told(self) -> str:
        """How many rows, at what rate since the start, and for how long still at that rate."""
        parts = [f"{self.num_before + self.num_answered}/{self.num_rows} answered", f"{self.num_failed} failed"]
        if num_new := self.num_answered + self.num_failed:
            rate = num_new / max(time.monotonic() - self.started, 1e-3)
            parts.append(f"{rate:.2f} rows/s")
            if self.num_tried < self.num_rows:
                parts.append(f"{timedelta(seconds=round((self.num_rows - self.num_tried) / rate))} left")
        return ", ".join(parts)

    @property
    def cost_told(self) -> str:
        """What went through models and what came out, and how many answers the guardrail kept back or marked."""
        return f"{self.num_tokens} tokens out of {self.num_positions} positions, {self.num_unsatisfied} not satisfied"


class Failures:
    """The file that names what failed in this run, and why; it is there only if something did.

    What stands there of the run before stays until this one has tried a row, which it may never come to.

    Raises:
        RainConfigError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._num_rows = 0
        self._is_of_this_run = not path.exists()
        try:
            self._file = FileIO(path, "a")
        except OSError as error:
            raise self._cannot_be_written(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.begin()
        self._file.close()
        if self._is_of_this_run and not self._num_rows:
            self.path.unlink(missing_ok=True)

    def begin(self) -> None:
        """Forgets the run before; called once a row was tried."""
        if not self._is_of_this_run:
            self._file.truncate(0)
            self._is_of_this_run = True

    def add(self, tried: Tried) -> None:
        """Adds a row."""
        self.begin()
        try:
            write_line(self._file, json.dumps(tried.row).encode() + b"\n")
        except OSError as error:
            raise self._cannot_be_written(error) from error
        self._num_rows += 1

    def _cannot_be_written(self, error: OSError) -> RainConfigError:
        return RainConfigError(f"{str(self.path)!r} cannot be written: {error.strerror or error}.")


@dataclass(slots=True)
class Recorder:
    """Writes down what came of each prompt.

    Attributes:
        ledger: takes the answers.
        failures: takes the rest.
        tally: counts them.
        num_failures_on_end: of one cause, since anything else came.
        last_cause: theirs.
    """

    ledger: Ledger
    failures: Failures
    tally: Tally
    num_failures_on_end: int = 0
    last_cause: str | None = None

    def take(self, tried: Tried) -> None:
        """Takes one; when it returns, an answer is on the disk.

        Raises:
            EngineError: it is the last of `MAX_FAILURES_ON_END`.
            RainConfigError: it cannot be written, or was made by other settings than those before.
        """
        if tried.is_answered:
            self._take_answer(tried)
            return
        self.failures.add(tried)
        self.tally.num_failed += 1
        cause = _cause_of(tried.row)
        self.num_failures_on_end = self.num_failures_on_end + 1 if cause == self.last_cause else 1
        self.last_cause = cause
        if cause is not None and self.num_failures_on_end >= MAX_FAILURES_ON_END:
            raise _end_after(tried.row)

    def _take_answer(self, tried: Tried) -> None:
        self.ledger.append(tried.row)
        self.failures.begin()
        rain = tried.row["rain"]
        self.tally.num_answered += 1
        self.tally.num_unsatisfied += not rain["is_satisfied"]
        self.tally.num_positions += rain["token_positions"] or 0  # a server may not tell
        self.tally.num_tokens += rain["num_tokens"]
        self.last_cause = None


def _cause_of(failure: Mapping[str, Any]) -> str | None:
    """What would fail the next row too; None where the model did answer, though not as the rubric wants."""
    if failure["kind"] != EngineError.__name__:
        return None
    return MAY_PASS if failure["is_retryable"] else str(failure["error"])


def _end_after(last: Mapping[str, Any]) -> EngineError:
    """Why the run ends with this failure."""
    if last["is_retryable"]:
        return EngineError(
            f"{MAX_FAILURES_ON_END} rows on end failed in a way that may pass, so the others were not tried; run the "
            f"same command again when it has passed. The last one: {last['error']}",
            is_retryable=True,
        )
    return EngineError(
        f"{MAX_FAILURES_ON_END} rows on end failed for one reason, so the others were not tried: {last['error']}"
    )
