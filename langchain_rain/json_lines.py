"""Files of one JSON object a line, as others wrote them: every mistake names its place."""

import json
import math
from collections.abc import Sequence
from io import FileIO
from typing import Any, NoReturn

from langchain_rain.errors import RainConfigError


def read_object(line: bytes, where: str) -> dict[str, Any]:
    """The object that a line holds.

    Args:
        line: one line, with or without its end.
        where: names it in errors, for example "answers.jsonl, line 3".

    Raises:
        RainConfigError: it is no UTF-8, no JSON, no object, or one with two equal keys or a number beyond all floats.
    """
    try:
        data = json.loads(
            line.decode(),
            object_pairs_hook=_without_doubles,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
    except UnicodeDecodeError as error:
        raise RainConfigError(f"{where}: this is not UTF-8 text: {error.reason} at byte {error.start}.") from error
    except (ValueError, RecursionError) as error:
        reason = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else error
        raise RainConfigError(f"{where}: one JSON object a line is wanted, without empty lines: {reason}.") from error
    if not isinstance(data, dict):
        raise RainConfigError(f"{where}: a JSON object is wanted, given {data!r:.80}.")
    return data


def write_line(file: FileIO, line: bytes) -> None:
    """Writes all of a line, of which a file without a buffer may take a part, on a disk that is nearly full.

    Raises:
        OSError: not all of it can be written; a part of it may stand in the file.
    """
    written = 0
    while written < len(line):
        written += file.write(line[written:])


def _refuse_constant(name: str) -> NoReturn:
    """Python reads NaN and Infinity, and would write them where others read JSON."""
    raise ValueError(f"{name} is no JSON")


def _finite(number: str) -> float:
    """Python reads 1e999 as infinity."""
    if math.isinf(value := float(number)):
        raise ValueError(f"{number:.40} is beyond all floats")
    return value


def _without_doubles(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """JSON takes the last of two equal keys and forgets the first."""
    data = dict(pairs)
    if len(data) < len(pairs):
        raise ValueError(f"a key is given twice among {', '.join(repr(key) for key, _ in pairs)}")
    return data
