"""Files of comma-separated values that people open in a spreadsheet, which runs what looks like a formula."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from langchain_rain.errors import RainConfigError
from langchain_rain.files import write_whole
from langchain_rain.quoting import as_seen

MAX_CELL = 32_000
"""Characters of a text that are shown; a spreadsheet cuts a cell at 32,767 without a word."""

DELIMITERS = (",", ";", "\t")
"""What spreadsheets of one country or another put between cells; written is the first."""

MAX_NUMBER = 30
"""Characters of a number or a date."""

FORMULA_STARTS = frozenset("=+-@")

_BYTE_ORDER_MARK = "\ufeff"  # without it some spreadsheets take UTF-8 for something else


@dataclass(frozen=True, slots=True)
class SheetRow:
    """A row.

    Attributes:
        line: where it begins, from 1.
        cells: by the names of the columns.
    """

    line: int
    cells: Mapping[str, str]


def as_cell(text: str) -> str:
    """A text as a cell that stays as it is: an apostrophe stands before what might be taken for a formula or a number.

    So it does before what begins with an apostrophe, so that `text_of_cell` gives back every text that is not too long.
    """
    if len(text) > MAX_CELL:
        text = f"{text[:MAX_CELL]}\n[{len(text) - MAX_CELL} characters more]"
    begins = as_seen(text).lstrip()[:1]
    is_other = begins in FORMULA_STARTS or text[:1] in ("'", "\t", "\r", "\n") or _may_become_another(text.strip())
    return f"'{text}" if is_other else text


def _may_become_another(text: str) -> bool:
    """Whether a spreadsheet might read a number, a date or a truth, and write it in its own way."""
    if len(text) > MAX_NUMBER or not any(character.isdigit() for character in text):
        return text.casefold() in ("true", "false")
    return text[0].isdigit() or not text.isalnum()


def text_of_cell(cell: str) -> str:
    """The text that was made a cell."""
    return cell.removeprefix("'")


def write_sheet(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Writes a file, whole or not at all.

    Raises:
        RainConfigError: it cannot be written.
    """
    file = io.StringIO(newline="")
    writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([as_cell(text) for text in row] for row in rows)
    try:
        write_whole(path, _BYTE_ORDER_MARK + file.getvalue())
    except OSError as error:
        raise RainConfigError(f"{str(path)!r} cannot be written: {error.strerror or error}.") from error


def read_sheet(path: Path, columns: Sequence[str]) -> tuple[list[SheetRow], list[str]]:
    """The rows of a file, cells as texts, and what is wrong with the others, each with its line.

    The order of columns does not matter; empty rows and columns are passed over.

    Args:
        path: the file.
        columns: those that there are.

    Raises:
        RainConfigError: it cannot be read, is no UTF-8, or has other columns.
    """
    records = list(_records(path, _text_of(path)))
    header = [name.strip() for name in records[0][1]] if records else []
    while header and not header[-1]:
        header.pop()
    if sorted(header) != sorted(columns):
        raise RainConfigError(
            f"{path}, line 1: the columns {', '.join(columns)} are wanted, given {', '.join(header)!r}."
        )
    rows, mistakes = [], []
    for line, cells in records[1:]:
        if len(cells) < len(header) or any(cells[len(header) :]):
            mistakes.append(f"line {line}: {len(header)} cells are wanted, given {len(cells)}")
        else:
            rows.append(SheetRow(line, dict(zip(header, map(text_of_cell, cells), strict=False))))
    return rows, mistakes


def _text_of(path: Path) -> str:
    try:
        return path.read_bytes().decode().removeprefix(_BYTE_ORDER_MARK)
    except UnicodeDecodeError as error:
        told = "save it as csv in UTF-8"
        raise RainConfigError(
            f"{path}: this is not UTF-8 text: {error.reason} at byte {error.start}; {told}."
        ) from error
    except OSError as error:
        raise RainConfigError(f"{str(path)!r} cannot be read: {error.strerror or error}.") from error


def _records(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """The cells of each row that has any, with the line where it begins."""
    first_line = text.partition("\n")[0]
    delimiter = max(DELIMITERS, key=first_line.count)  # column names hold none of them
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    try:
        for cells in reader:
            if any(cells):
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise RainConfigError(f"{path}, line {line}: this is no csv: {error}.") from error
