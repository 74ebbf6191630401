"""The records of a csv file, read so that one with a quote too many or too few does not take the others with it."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Record:
    """One record.

    Attributes:
        line_number: of the line on which it begins, from 1.
        fields: empty if it could not be read.
        problem: why it could not.
        text: as it stands in the file.
    """

    line_number: int
    fields: list[str]
    problem: str
    text: str


def read_records(lines: Sequence[str]) -> Iterator[Record]:
    """Yields the records, the first being the header; empty lines between them are passed over.

    A record that cannot be read, or that spans several lines and has another number of fields than the header, is the
    one line that it begins on: a quote that is never closed would go on to the next one, wherever that is.
    """
    start = num_wanted = 0
    while start < len(lines):
        fields, num_lines, problem = _read_one(lines, start, num_wanted)
        if fields or problem:
            num_wanted = num_wanted or len(fields)
            yield Record(start + 1, fields, problem, "".join(lines[start : start + num_lines]))
        start += num_lines


def _read_one(lines: Sequence[str], start: int, num_wanted: int) -> tuple[list[str], int, str]:
    """The fields of the record that begins at `start`, on how many lines it stands, and what is wrong with it."""
    reader = csv.reader((lines[index] for index in range(start, len(lines))), strict=True)
    try:
        fields = next(reader)
    except csv.Error as error:
        return [], 1, f"this is no csv: {error}."
    if reader.line_num > 1 and num_wanted and len(fields) != num_wanted:
        told = f"a quote is opened here, and up to where it is closed there are {len(fields)} columns"
        return [], 1, f"{told}; {num_wanted} are wanted."
    return fields, reader.line_num, ""
