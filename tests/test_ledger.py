"""The ledger: what is written stays, what was not written to its end goes, and nothing of others is touched."""

import fcntl
import json
import math
import os
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from langchain_rain import RainConfigError
from langchain_rain.ledger import Ledger, fingerprint


def row(row_id: str, *, settings_hash: str = "s", input_hash: str = "i", **others: Any) -> dict[str, Any]:
    return {"id": row_id, "settings_hash": settings_hash, "input_hash": input_hash, **others}


def line(row_id: str, **others: Any) -> bytes:
    return json.dumps(row(row_id, **others)).encode() + b"\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "answers.jsonl"


def held(path: Path, ids: str) -> str:
    """Those of `ids` that the ledger holds."""
    with Ledger(path) as ledger:
        return "".join(each for each in ids if ledger.holds(each, "i"))


def test_a_row_is_in_the_file_when_append_returns(path: Path) -> None:
    with Ledger(path) as ledger:
        for each in "ab":
            ledger.append(row(each, answer="Zoë \ud83d\n"))
            assert json.loads(path.read_bytes().splitlines()[-1]) == row(each, answer="Zoë \ud83d\n")
    assert held(path, "abc") == "ab"


def test_the_id_comes_first_whatever_the_order_of_the_keys(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.append({"settings_hash": "s", "input_hash": "i", "id": "a"})
    assert path.read_bytes().startswith(b'{"id": "a", ')


@pytest.mark.parametrize("length", range(1, len(line("b"))))
def test_a_last_line_that_was_cut_anywhere_is_taken_back(path: Path, length: int) -> None:
    path.write_bytes(line("a") + line("b")[:length])
    assert held(path, "ab") == "a"
    assert path.read_bytes() == line("a")


@pytest.mark.parametrize("torn", [b"\0" * 40, b'{"id": "b", "ans' + b"\0" * 9, b'{"id": "b", \0\0\0\0"}\n'])
def test_a_last_line_whose_data_did_not_arrive_before_power_was_lost_is_taken_back(path: Path, torn: bytes) -> None:
    path.write_bytes(line("a") + torn)
    assert held(path, "ab") == "a"
    with Ledger(path) as ledger:
        ledger.append(row("b"))
    assert path.read_bytes() == line("a") + line("b")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"Dear diary, today", "line 1: one JSON object"),
        (b"Dear diary, today\n", "line 1: one JSON object"),
        (line("a") + b"\n" + line("b"), "line 2: one JSON object"),
        (line("a") + b'{"id": "b", "ans\n' + line("c"), "line 2: one JSON object"),
        (line("a") + b'["b"]\n', "line 2: a JSON object is wanted"),
        (b'{"id": 7}\n', "line 1: a row with id, settings_hash, input_hash"),
        (b'{"prompt": "Who?"}', "line 1: a row with id, settings_hash, input_hash"),
        (b'{"input_hash": "i", "settings_hash": "s", "id": "a"}', "line 1: a row with .* and an end is wanted"),
        (line("a") + line("b") + line("a"), "line 3: the id 'a' stands in a line before"),
        (line("a") + line("b", settings_hash="t"), "line 2: .*other settings"),
        (b"\xff\n", "line 1: this is not UTF-8"),
        (line("a", value=math.nan), "line 1: .*NaN is no JSON"),
        # Whole objects, so that nothing was torn off them.
        (b'{"id": "b", "x": NaN}', "line 1: .*NaN is no JSON"),
        (b'{"id": "b", "id": "c"}\n', "line 1: .*a key is given twice"),
        (b'{"id": "b", "x": ' + b"[" * 9999, "line 1: .*recursion"),
    ],
)
def test_a_file_of_somebody_else_is_an_error_that_names_the_line_and_is_not_touched(
    path: Path, content: bytes, told: str
) -> None:
    path.write_bytes(content)
    with pytest.raises(RainConfigError, match=f"answers.jsonl, {told}"):
        Ledger(path)
    assert path.read_bytes() == content


def test_rows_by_other_settings_do_not_come_into_the_same_file(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.check_settings("s")
        ledger.append(row("a"))
        ledger.check_settings("s")
        with pytest.raises(RainConfigError, match=r"answers\.jsonl holds rows that were made by other settings"):
            ledger.append(row("b", settings_hash="t"))
    assert path.read_bytes() == line("a")


def test_a_row_that_was_made_from_another_input_is_no_answer_to_this_one(path: Path) -> None:
    path.write_bytes(line("a"))
    with Ledger(path) as ledger, pytest.raises(RainConfigError, match="the id 'a' that was made from another input"):
        ledger.holds("a", "j")


def test_one_process_writes_at_a_time(path: Path) -> None:
    with Ledger(path), pytest.raises(RainConfigError, match=r"Another process is writing to '.*answers.jsonl'"):
        Ledger(path)
    with Ledger(path) as ledger:  # the lock has gone with the first one
        ledger.append(row("a"))


@contextmanager
def disk_full_at(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size` bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_of_a_row_for_which_the_disk_has_no_room_nothing_stays(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.append(row("a"))
        with disk_full_at(len(line("a")) + 10):  # the first ten bytes of the next row still fit
            with pytest.raises(RainConfigError, match=re.escape(f"{str(path)!r} cannot be written: File too large.")):
                ledger.append(row("b"))
            assert path.read_bytes() == line("a")
        ledger.append(row("b"))
    assert path.read_bytes() == line("a") + line("b")


def test_a_row_whose_writing_was_interrupted_does_not_stay(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with Ledger(path) as ledger:
        monkeypatch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            ledger.append(row("a"))
        assert path.read_bytes() == b""


def test_a_row_with_a_number_that_json_does_not_have_is_not_written(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.append(row("a"))
        with pytest.raises(RainConfigError, match="The row 'b' cannot be written as JSON"):
            ledger.append(row("b", value=float("nan")))
    assert path.read_bytes() == line("a")


def test_a_file_that_was_made_goes_again_if_nothing_came_into_it(path: Path) -> None:
    with Ledger(path):
        assert path.exists()
    assert not path.exists()
    with pytest.raises(KeyboardInterrupt), Ledger(path):
        raise KeyboardInterrupt
    assert not path.exists()


def test_an_empty_file_that_was_there_stays(path: Path) -> None:
    path.touch()
    with Ledger(path):
        pass
    assert path.read_bytes() == b""


def test_whoever_does_not_get_the_lock_takes_nothing_back(path: Path) -> None:
    with Ledger(path) as ledger:
        with pytest.raises(RainConfigError, match="Another process"):
            Ledger(path)
        ledger.append(row("a"))
    assert path.read_bytes() == line("a")


def test_another_file_that_came_to_stand_at_the_path_is_not_taken_back(path: Path) -> None:
    with Ledger(path):
        path.rename(path.with_name("moved.jsonl"))
        path.touch()
    assert path.exists()


def test_a_file_that_goes_between_opening_and_locking_is_made_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else rows would be written into a file that nobody finds."""
    flock = fcntl.flock
    goes = [True]

    def flock_late(*arguments: Any) -> None:
        if goes:
            goes.pop()
            path.unlink()  # by the process that had the lock
        flock(*arguments)

    monkeypatch.setattr(fcntl, "flock", flock_late)
    with Ledger(path) as ledger:
        ledger.append(row("a"))
    assert path.read_bytes() == line("a")


@pytest.mark.parametrize("given", [".", "/dev/null"])
def test_what_is_no_file_is_an_error(given: str) -> None:
    with pytest.raises(RainConfigError, match=f"A file is wanted to write to, given {given!r}"):
        Ledger(Path(given))


def test_a_file_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RainConfigError, match="cannot be opened: No such file or directory"):
        Ledger(tmp_path / "nowhere" / "answers.jsonl")


def test_a_fingerprint_does_not_depend_on_the_order_of_keys() -> None:
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1}) != fingerprint({"a": 1, "b": [3]})


def test_a_file_of_somebody_else_without_a_last_line_end_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_bytes(b'{"id": "a", "prompt": "precious"}')
    with pytest.raises(RainConfigError):
        Ledger(path)
    assert path.read_bytes() == b'{"id": "a", "prompt": "precious"}'
