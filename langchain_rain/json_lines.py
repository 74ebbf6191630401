"""Files of one JSON object a line, as others wrote them: every mistake names its place."""

import json
from collections.abc import Sequence
from typing import Any

from langchain_rain.errors import RainConfigError


def read_object(line: bytes, where: str) -> dict[str, Any]:
    """The object that a line holds.

    Args:
        line: one line, with or without its end.
        where: names it in errors, for example "answers.jsonl, line 3".

    Raises:
        RainConfigError: it is no UTF-8, no JSON, no object, or one with two equal keys.
    """
    try:
        data = json.loads(line.decode(), object_pairs_hook=_without_doubles)
    except UnicodeDecodeError as error:
        raise RainConfigError(f"{where}: this is not UTF-8 text: {error.reason} at byte {error.start}.") from error
    except (ValueError, RecursionError) as error:
        reason = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else error
        raise RainConfigError(f"{where}: one JSON object a line is wanted, without empty lines: {reason}.") from error
    if not isinstance(data, dict):
        raise RainConfigError(f"{where}: a JSON object is wanted, given {data!r:.80}.")
    return data


def _without_doubles(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """JSON takes the last of two equal keys and forgets the first."""
    data = dict(pairs)
    if len(data) < len(pairs):
        raise ValueError(f"a key is given twice among {', '.join(repr(key) for key, _ in pairs)}")
    return data
