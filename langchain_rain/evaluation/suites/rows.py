"""The rows of a file, whatever they are rows of: JSON lines, an array in JSON, or csv; packed by gzip or not.

What cannot be read is a `Malformed` in its place, and what follows is read all the same.
"""

import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from langchain_rain.errors import RainConfigError
from langchain_rain.evaluation.suites.base import Malformed, shortened
from langchain_rain.evaluation.suites.csv_rows import read_records
from langchain_rain.json_lines import read_object

MAX_LINE_BYTES = 1 << 24
"""Of a line of JSON; one longer is passed over, as it would fill the memory."""

DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile)
"""What gzip raises where a file was cut off or is broken."""

_BYTE_ORDER_MARK = "\ufeff"
_BETWEEN = re.compile(r"[\s,]*")
_lenient = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Attributes:
        number: from 1; malformed rows count.
        where: file and line.
    """

    number: int
    where: str
    values: Mapping[str, Any]


Found: TypeAlias = Row | Malformed

_File: TypeAlias = io.BufferedReader | gzip.GzipFile


def read_rows(path: Path, *columns: tuple[str, ...]) -> Iterator[Found]:
    """Yields the rows of a file in their order.

    Args:
        path: what its name ends in tells the format, otherwise its first character.
        columns: of a csv file, of which the header needs to hold all of one tuple.

    Raises:
        RainConfigError: it cannot be read, is UTF-16, or is csv with another header.
    """
    if not path.is_file():
        raise RainConfigError(f"A file is wanted, given {str(path)!r}.")
    try:
        with open(path, "rb") as packed:
            file = _unpacked(packed)
            try:
                beginning = file.peek(4096)
            except DAMAGED as error:
                raise RainConfigError(f"{path} cannot be unpacked: {error}.") from error
            if beginning.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise RainConfigError(f"{path} is UTF-16; UTF-8 is wanted.")
            read = {"lines": _read_lines, "array": _read_array}.get(_format_of(path, beginning))
            yield from read(file, path) if read else _read_csv(file, path, columns)
    except OSError as error:
        raise RainConfigError(f"{str(path)!r} cannot be read: {error.strerror or error}.") from error


def _unpacked(packed: io.BufferedReader) -> _File:
    return gzip.GzipFile(fileobj=packed) if packed.peek(2).startswith(b"\x1f\x8b") else packed


def _format_of(path: Path, beginning: bytes) -> str:
    ending = Path(path.name.lower().removesuffix(".gz")).suffix
    first = beginning.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if first == b"[" and ending != ".csv":
        return "array"
    if ending in (".jsonl", ".ndjson", ".json") or (first == b"{" and ending != ".csv"):
        return "lines"
    return "csv"


# --- JSON lines ------------------------------------------------------------------------------------------------------


def _read_lines(file: _File, path: Path) -> Iterator[Found]:
    """One by one, so that the file may be longer than memory; blank lines are passed over."""
    number = line_number = 0
    while True:
        try:
            line = file.readline(MAX_LINE_BYTES)
            is_cut = len(line) == MAX_LINE_BYTES and not line.endswith(b"\n")
            if is_cut:
                _skip_line(file)
        except DAMAGED as error:
            yield _damage(path, line_number, error)
            return
        if not line:
            return
        line_number += 1
        if line_number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line.strip():
            continue
        number += 1
        where = f"{path}, line {line_number}"
        if is_cut:
            yield Malformed(where, f"a line of at most {MAX_LINE_BYTES} bytes is wanted.", _text(line[:10_000]))
        else:
            yield row_of(line, number, where)


def _skip_line(file: _File) -> None:
    while (rest := file.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
        pass


def row_of(line: bytes, number: int, where: str) -> Found:
    """The row that an object in JSON holds."""
    try:
        return Row(number, where, read_object(line, where))
    except RainConfigError as error:
        return Malformed(where, reason_of(error, where), _text(line))


def reason_of(error: RainConfigError, where: str) -> str:
    """What an error says, without the place."""
    return str(error).removeprefix(f"{where}: ")


def _text(line: bytes) -> str:
    return shortened(line.decode(errors="backslashreplace").rstrip("\r\n"))


def _damage(path: Path, line_number: int, error: Exception) -> Malformed:
    return Malformed(f"{path}, after line {line_number}", f"the rest cannot be unpacked: {error}.", "")


# --- An array in JSON ------------------------------------------------------------------------------------------------


def _read_array(file: _File, path: Path) -> Iterator[Found]:
    """Entry by entry, so that one that is wrong in itself leaves the others as they are."""
    content, damage = _read_all(file)
    text = content.decode(errors="surrogateescape").removeprefix(_BYTE_ORDER_MARK)
    position, number = text.index("[") + 1, 0
    while (position := _end_of(_BETWEEN, text, position)) < len(text) and text[position] != "]":
        number += 1
        where = f"{path}, entry {number}"
        try:
            _, end = _lenient.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            # Where the next one begins cannot be known.
            told = f"this is no JSON, and nothing after it can be read: {error}."
            yield Malformed(where, told, shortened(text[position:]))
            break
        yield row_of(text[position:end].encode(errors="surrogateescape"), number, where)
        position = end
    if damage is not None:
        yield Malformed(f"{path}, after entry {number}", f"the rest cannot be unpacked: {damage}.", "")


def _end_of(pattern: re.Pattern[str], text: str, position: int) -> int:
    found = pattern.match(text, position)
    return found.end() if found else position


def _read_all(file: _File) -> tuple[bytes, Exception | None]:
    """All that can be unpacked, and what came after it if that was an error."""
    parts = []
    try:
        while part := file.read1(1 << 20):  # `read` would lose what came before an error
            parts.append(part)
    except DAMAGED as error:
        return b"".join(parts), error
    return b"".join(parts), None


# --- csv -------------------------------------------------------------------------------------------------------------


def _read_csv(file: _File, path: Path, columns: tuple[tuple[str, ...], ...]) -> Iterator[Found]:
    content, damage = _read_all(file)
    text = content.decode(errors="surrogateescape").removeprefix(_BYTE_ORDER_MARK)
    lines = list(io.StringIO(text, newline=""))
    cut = [lines.pop()] if damage is not None and lines and not lines[-1].endswith("\n") else []
    records = read_records(lines)
    header = next(records, None)
    names = [] if header is None else [re.sub(r"\s+", "_", name.strip().lower()) for name in header.fields]
    _check_header(path, names, columns)
    for number, record in enumerate(records, start=1):
        where = f"{path}, line {record.line_number}"
        problem = record.problem
        if not problem and len(record.fields) != len(names):
            problem = f"{len(names)} columns are wanted, as in the header, given {len(record.fields)}."
        if not problem and any("\udc80" <= letter <= "\udcff" for field in record.fields for letter in field):
            problem = "this is not UTF-8 text."
        if problem:
            yield Malformed(where, problem, shortened(record.text))
        else:
            yield Row(number, where, dict(zip(names, record.fields, strict=True)))
    if damage is not None:
        yield _damage(path, len(lines), damage)
    if cut:
        yield Malformed(f"{path}, line {len(lines) + 1}", "this is cut off.", shortened(cut[0]))


def _check_header(path: Path, names: list[str], columns: tuple[tuple[str, ...], ...]) -> None:
    wanted = ", or ".join(" and ".join(each) for each in columns)
    if not any(set(each) <= set(names) for each in columns):
        given = ", ".join(map(repr, names[:20]))
        raise RainConfigError(
            f"{path}: JSON lines, an array in JSON, or csv with the columns {wanted} is wanted; the first line has "
            f"{given:.400}."
        )
    doubled = sorted({name for name in names if name and names.count(name) > 1})
    if doubled:
        raise RainConfigError(f"{path}: each column is wanted once; the header names {', '.join(doubled)} again.")
