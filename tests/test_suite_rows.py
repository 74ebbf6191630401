"""Rows of files as others wrote them: every row is read or named, whatever stands beside it."""

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_rain import RainConfigError
from langchain_rain.evaluation.suites import rows
from langchain_rain.evaluation.suites.base import Malformed
from langchain_rain.evaluation.suites.csv_rows import read_records
from langchain_rain.evaluation.suites.rows import Row, read_rows

AB = ("a", "b")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the current one, so that places are short."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(content: bytes, name: str = "f.csv", *columns: tuple[str, ...]) -> list[Row | Malformed]:
    path = Path(name)
    path.write_bytes(content)
    return list(read_rows(path, *(columns or (AB,))))


def told(found: list[Row | Malformed]) -> list[Any]:
    """The values of what is a row, and where the others are."""
    return [tuple(each.values.values()) if isinstance(each, Row) else each.where for each in found]


def reasons(found: list[Row | Malformed]) -> list[str]:
    return [each.reason for each in found if isinstance(each, Malformed)]


# --- csv ---


def test_csv_is_read_with_quotes_lines_and_commas_in_its_fields(folder: Path) -> None:
    found = read(b'a,b\n"one, ""two""\nthree",4\n\n,5\n')
    assert told(found) == [('one, "two"\nthree', "4"), ("", "5")]
    assert [(each.number, each.where) for each in found if isinstance(each, Row)] == [
        (1, "f.csv, line 2"),
        (2, "f.csv, line 5"),
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_byte_order_mark_and_any_end_of_lines_are_no_part_of_csv(folder: Path, end: str) -> None:
    content = end.join([' A ,"B",', "1,2,", "3,4,"]).encode("utf-8-sig")
    found = read(content)
    assert [each.values for each in found if isinstance(each, Row)] == [
        {"a": "1", "b": "2", "": ""},
        {"a": "3", "b": "4", "": ""},
    ]


def test_the_names_of_columns_are_lower_case_with_underscores(folder: Path) -> None:
    (row,) = read(b"Best  Answer,X\n1,2\n", "f.csv", ("best_answer",))
    assert isinstance(row, Row)
    assert row.values == {"best_answer": "1", "x": "2"}


def test_a_row_with_other_columns_is_named_and_the_others_are_read(folder: Path) -> None:
    found = read(b"a,b\n1,2\n3\n4,5,6\n7,8\n")
    assert told(found) == [("1", "2"), "f.csv, line 3", "f.csv, line 4", ("7", "8")]
    assert reasons(found) == [f"2 columns are wanted, as in the header, given {number}." for number in (1, 3)]
    assert [each.row for each in found if isinstance(each, Malformed)] == ["3\n", "4,5,6\n"]
    assert [each.number for each in found if isinstance(each, Row)] == [1, 4]


@pytest.mark.parametrize(
    "line",
    [
        b'"never closed,2',
        b'"closed" too early,2',
        b"\xff\xfe,2",
        b"x" * 140_000 + b",2",  # more than the csv module takes for one field
    ],
)
def test_one_line_that_is_no_csv_takes_no_other_with_it(folder: Path, line: bytes) -> None:
    found = read(b"a,b\n1,2\n" + line + b'\n3,4\n"5","6"\n7,8\n')
    assert told(found) == [("1", "2"), "f.csv, line 3", ("3", "4"), ("5", "6"), ("7", "8")]


def test_a_quote_that_is_never_closed_is_told_with_what_follows_from_it(folder: Path) -> None:
    found = read(b'a,b\n"x,2\n3,4"\n5,6\n')
    assert told(found) == ["f.csv, line 2", ("3", '4"'), ("5", "6")]
    assert reasons(found) == [
        "a quote is opened here, and up to where it is closed there are 1 columns; 2 are wanted.",
    ]


def test_what_is_kept_of_a_malformed_row_is_short_and_printable(folder: Path) -> None:
    (found,) = read(b"a,b\n\xe9" + b"x" * 3000 + b"\n")
    assert isinstance(found, Malformed)
    assert found.row.startswith("\\udce9xxx")
    assert found.row.endswith("x... (3007 characters)")
    assert len(found.row) < 2100


def test_csv_without_the_columns_is_one_error(folder: Path) -> None:
    with pytest.raises(
        RainConfigError, match=r"csv with the columns a and b, or c is wanted; the first line has 'a', 'd'."
    ):
        read(b"a,d\n1,2\n", "f.csv", AB, ("c",))
    with pytest.raises(RainConfigError, match="the header names b again"):
        read(b"a,b,b\n1,2,3\n")
    with pytest.raises(RainConfigError, match="is wanted"):
        read(b"")


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@given(st.lists(st.lists(TEXTS, min_size=2, max_size=2), min_size=1, max_size=8), st.sampled_from(["\n", "\r\n"]))
def test_whatever_the_csv_module_writes_is_read_back(records: list[list[str]], end: str) -> None:
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator=end, quoting=csv.QUOTE_ALL).writerows(records)
    found = list(read_records(list(io.StringIO(file.getvalue(), newline=""))))
    assert [record.fields for record in found] == records
    assert "".join(record.text for record in found) == file.getvalue()


@given(st.lists(st.text('ab",\n\r ', max_size=12), max_size=6))
def test_every_line_of_anything_is_part_of_some_record_or_empty(texts: list[str]) -> None:
    lines = list(io.StringIO("\n".join(texts), newline=""))
    found = list(read_records(lines))
    kept = "".join(record.text for record in found)
    assert [line for line in kept.splitlines() if line] == [line for line in "".join(lines).splitlines() if line]
    assert all(bool(record.problem) != bool(record.fields) for record in found)


# --- JSON ---


def test_json_lines_are_read_one_by_one_and_bad_ones_are_named(folder: Path) -> None:
    lines = [b'\xef\xbb\xbf{"a": 1}\r', b"", b"{", b"[1]", b'{"a": NaN}', b'{"a": 1, "a": 2}', b'"\xff"', b'{"a": 2}']
    found = read(b"\n".join(lines), "f.jsonl")
    assert told(found) == [(1,), *(f"f.jsonl, line {number}" for number in range(3, 8)), (2,)]
    assert [each.number for each in found if isinstance(each, Row)] == [1, 7]
    assert not any("f.jsonl" in reason for reason in reasons(found))


def test_a_line_of_json_that_is_too_long_is_passed_over(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MAX_LINE_BYTES", 10)
    found = read(b'{"a": 1}\n{"a": "' + b"x" * 95 + b'"}\n{"a": 2}\n', "f.jsonl")
    assert told(found) == [(1,), "f.jsonl, line 2", (2,)]
    assert reasons(found) == ["a line of at most 10 bytes is wanted."]


def test_an_array_is_read_entry_by_entry(folder: Path) -> None:
    entries = ['{"a": 1}', "7", '{"a": Infinity}', '{"a": 1, "a": 2}', '{"a": [{"b": "]"}]}']
    found = read(f"\ufeff [ {', '.join(entries)},\n]\n".encode(), "f.json")
    assert told(found) == [(1,), "f.json, entry 2", "f.json, entry 3", "f.json, entry 4", ([{"b": "]"}],)]


def test_of_a_broken_array_what_comes_before_is_read(folder: Path) -> None:
    found = read(b'[{"a": 1}, {"a": 2}, {"a" 3}, {"a": 4}]', "f.json")
    assert told(found) == [(1,), (2,), "f.json, entry 3"]
    assert "nothing after it can be read" in reasons(found)[0]


def test_the_format_is_told_by_the_name_or_else_by_the_first_character(folder: Path) -> None:
    assert told(read(b'[{"a": 1}]', "f")) == [(1,)]
    assert told(read(b' \n{"a": 1}', "f")) == [(1,)]
    assert told(read(b"a,b\n1,2", "f")) == [("1", "2")]
    assert told(read(b'{"a": 1}\n[', "f.JSON")) == [(1,), "f.JSON, line 2"]
    assert told(read(b'nothing\n{"a": 1}', "f.jsonl")) == ["f.jsonl, line 1", (1,)]


# --- gzip, and what is no file ---

CONTENTS = {
    "f.csv.gz": b"a,b\n" + b"".join(b"%d,%d\n" % (number, number) for number in range(30_000)),
    "f.jsonl.gz": b"".join(b'{"a": %d}\n' % number for number in range(30_000)),
    "f.json.gz": json.dumps([{"a": number} for number in range(30_000)]).encode(),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_a_file_packed_by_gzip_is_the_same(folder: Path, name: str) -> None:
    assert told(read(gzip.compress(CONTENTS[name]), name)) == told(read(CONTENTS[name], name.removesuffix(".gz")))


@pytest.mark.parametrize("name", CONTENTS)
def test_of_a_packed_file_that_was_cut_off_the_rows_before_are_read(folder: Path, name: str) -> None:
    whole, packed = told(read(gzip.compress(CONTENTS[name]), name)), gzip.compress(CONTENTS[name])
    found = read(packed[: len(packed) // 2], name)
    good = told([each for each in found if isinstance(each, Row)])
    assert 1000 < len(good) < 29_000
    assert good == whole[: len(good)]
    assert any("the rest cannot be unpacked: Compressed file ended" in reason for reason in reasons(found))


def test_a_packed_file_whose_bytes_are_broken_is_named_too(folder: Path) -> None:
    packed = bytearray(gzip.compress(CONTENTS["f.jsonl.gz"]))
    packed[-6] ^= 1  # of the checksum
    *good, bad = read(bytes(packed), "f.jsonl.gz")
    assert len(good) > 29_000
    assert isinstance(bad, Malformed)
    assert "CRC check failed" in bad.reason


def test_what_cannot_be_read_at_all_is_one_error(folder: Path) -> None:
    for content, why in ((b"\x1f\x8b", "cannot be unpacked"), ("a,b".encode("utf-16"), "UTF-8 is wanted")):
        with pytest.raises(RainConfigError, match=why):
            read(content)
    for name in ("missing.csv", "."):
        with pytest.raises(RainConfigError, match="A file is wanted"):
            list(read_rows(Path(name), AB))
