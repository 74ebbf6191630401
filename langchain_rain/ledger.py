"""Finished work by id: one JSON object a line, each written once and never again.

What was killed in the middle goes on where it stopped, for what stands in the file is done. Every row says what it was
made from and by which settings, so that nothing is mixed and no answer is taken for that to another question. A last
line that was not written to its end is taken back; any other line that is no row of a ledger is an error, as it must
be somebody else's.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from langchain_rain.errors import RainConfigError
from langchain_rain.json_lines import read_object, write_line

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

_ROW_START = b'{"id": "'
"""How every row begins that a ledger has written."""


def fingerprint(value: Any) -> str:
    """A short hash of a JSON value that does not depend on the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


class Ledger:
    """Rows in a file, each on the disk when `append` returns; one process writes at a time, where the system has locks.

    A row has `id` (a text), `settings_hash` and `input_hash`, both `fingerprint`s, and whatever else.

    Args:
        path: the file; made if there is none, and taken back at the end if no row has come into it.

    Raises:
        RainConfigError: it cannot be opened, another process writes to it, or a line of it is no such row, or has the
            id of another or other settings.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._settings_hash: str | None = None
        self._input_hashes: dict[str, str] = {}
        if path.exists() and not path.is_file():
            raise RainConfigError(f"A file is wanted to write to, given {str(path)!r}.")
        self._is_new = False
        self._file = self._open()
        try:
            self._read()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # While the lock is held, so that nobody has begun to write to it.
        if self._is_new and self._file.seek(0, os.SEEK_END) == 0 and self._is_at_path(self._file):
            with contextlib.suppress(OSError):  # Windows lets no file go that is open
                self.path.unlink()
        self._file.close()

    def holds(self, row_id: str, input_hash: str) -> bool:
        """Whether there is a row of this id.

        Raises:
            RainConfigError: there is, but it was made from another input.
        """
        found = self._input_hashes.get(row_id)
        if found is not None and found != input_hash:
            raise RainConfigError(
                f"{self.path} holds a row with the id {row_id!r} that was made from another input than the one given "
                "now. Give another file, or another id."
            )
        return found is not None

    def check_settings(self, settings_hash: str) -> None:
        """Checks that rows made by these settings may stand beside those that are there.

        Raises:
            RainConfigError: those were made by others.
        """
        if self._settings_hash not in (None, settings_hash):
            raise RainConfigError(
                f"{self.path} holds rows that were made by other settings (model, judge, rubric, seed, ...; "
                f"settings_hash {self._settings_hash}, now {settings_hash}). Give another file, or the same settings."
            )

    def append(self, row: Mapping[str, Any]) -> None:
        """Adds a row, whose id is not there yet.

        Raises:
            RainConfigError: it was made by other settings, holds a number that JSON does not have (NaN, infinity), or
                cannot be written; then nothing of it stays in the file.
        """
        row_id = row["id"]
        assert row_id not in self._input_hashes, f"the row {row_id!r} is there already"
        self.check_settings(row["settings_hash"])
        # A half of a surrogate pair is escaped by JSON just as `backslashreplace` does it.
        try:
            text = json.dumps({"id": row_id, **row}, ensure_ascii=False, allow_nan=False)
        except ValueError as error:
            raise RainConfigError(f"The row {row_id!r} cannot be written as JSON: {error}.") from error
        line = text.encode(errors="backslashreplace") + b"\n"
        start = self._file.seek(0, os.SEEK_END)
        try:
            write_line(self._file, line)
            os.fsync(self._file.fileno())
        except BaseException as error:
            self._file.truncate(start)
            if isinstance(error, OSError):
                raise self._cannot("written", error) from error
            raise
        self._note(row)

    def _note(self, row: Mapping[str, Any]) -> None:
        self._settings_hash = row["settings_hash"]
        self._input_hashes[row["id"]] = row["input_hash"]

    def _open(self) -> FileIO:
        """The file that stands at the path, locked."""
        while True:
            self._is_new = not self.path.exists()
            try:
                file = FileIO(self.path, "a+")  # without a buffer, in which a row that failed would wait
            except OSError as error:
                raise self._cannot("opened", error) from error
            try:
                self._lock(file)
                if self._is_at_path(file):  # and was not taken back by who held the lock until now
                    return file
            except BaseException:
                file.close()
                raise
            file.close()

    def _is_at_path(self, file: FileIO) -> bool:
        try:
            return os.path.samestat(os.fstat(file.fileno()), os.stat(self.path))
        except FileNotFoundError:
            return False

    def _lock(self, file: FileIO) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RainConfigError(
                f"Another process is writing to {str(self.path)!r}. Wait for it, or give another file."
            ) from error
        except OSError as error:
            raise self._cannot("locked", error) from error

    def _read(self) -> None:
        """Takes what is there; a last line that was not written to its end is cut off."""
        size = self._file.seek(0, os.SEEK_END)
        self._file.seek(0)
        end = 0
        with open(self._file.fileno(), "rb", closefd=False) as file:
            for number, line in enumerate(file, start=1):
                if end + len(line) == size and _is_torn(line):
                    self._file.truncate(end)
                    return
                self._take(line, f"{self.path}, line {number}")
                end += len(line)

    def _take(self, line: bytes, where: str) -> None:
        row = read_object(line, where)
        needed = ("id", "settings_hash", "input_hash")
        if not line.endswith(b"\n") or not all(isinstance(row.get(key), str) for key in needed):
            raise RainConfigError(f"{where}: a row with {', '.join(needed)} and an end is wanted, given {line!r:.80}.")
        if row["id"] in self._input_hashes:
            raise RainConfigError(f"{where}: the id {row['id']!r} stands in a line before.")
        try:
            self.check_settings(row["settings_hash"])
        except RainConfigError as error:
            raise RainConfigError(f"{where}: {error}") from error
        self._note(row)

    def _cannot(self, what: str, error: OSError) -> RainConfigError:
        return RainConfigError(f"{str(self.path)!r} cannot be {what}: {error.strerror or error}.")


def _is_torn(last_line: bytes) -> bool:
    """Whether a row was begun here, and the process or the machine stopped before its end was on the disk."""
    written = last_line.rstrip(b"\0")  # which a file system may leave where data did not arrive
    if not written.startswith(_ROW_START) and not _ROW_START.startswith(written):
        return False
    try:
        row = json.loads(written.decode())  # whatever Python takes for JSON: it has an end
    except ValueError:
        return True
    except RecursionError:
        return False
    # A whole object that no ledger wrote is somebody's, though no end of a line follows.
    return not last_line.endswith(b"\n") and {"settings_hash", "input_hash"} <= row.keys()
