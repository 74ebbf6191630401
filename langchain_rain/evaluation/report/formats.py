"""Figures as people read them, and text from outside as it may stand beside them."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from langchain_rain.evaluation.results import Rate
from langchain_rain.quoting import visible

TO = "\u2013"
"""The dash between the ends of an interval."""

NONE = TO
"""Stands where there is no figure."""

MINUS = "\u2212"
"""As wide as a plus."""

TIMES = "\u00d7"
"""The sign of a product."""

MAX_NAME = 40
"""Characters of a name that stands in a sentence or a table."""

SMALLEST_P = 0.001
"""Smaller ones are only told to be smaller: their digits mean nothing."""


def percent(share: float, digits: int = 1) -> str:
    """A share in [0, 1], for example 97.0%."""
    return f"{share:.{digits}%}"


def interval(rate: Rate) -> str:
    """The 95 % interval in percent, and of how many answers."""
    return f"{ends(rate.low, rate.high)}, n\u00a0{rate.num:,}"


def ends(low: float, high: float) -> str:
    """Of an interval of shares, in percent."""
    return f"{100 * low:.1f}{TO}{100 * high:.1f}"


def points(difference: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    return _signed(100 * difference, 1)


def _signed(number: float, digits: int) -> str:
    rounded = f"{abs(number):.{digits}f}"
    is_zero = not rounded.strip("0.")
    return rounded if is_zero else f"{'+' if number > 0 else MINUS}{rounded}"


def value(number: float | None) -> str:
    """What a judge makes of a text, in [-1, 1]."""
    return NONE if number is None else _signed(number, 2)


def p_value(probability: float | None) -> str:
    """Of a test; with three digits at most."""
    if probability is None:
        return NONE
    return f"<{SMALLEST_P}" if probability < SMALLEST_P else f"{probability:.3f}"


def amount(number: float | None, digits: int = 3) -> str:
    """A mean in so many digits that count, and never fewer than it has before the point."""
    if number is None:
        return NONE
    num_places = next((place for place in range(digits) if number < 10**place), digits)
    decimals = digits - max(1, num_places)
    return "0" if number == 0 else f"{number:,.{decimals}f}"


def times(number: float) -> str:
    """A ratio as what something is multiplied by."""
    return f"{TIMES}{amount(number, 2)}"


def counted(number: int, one: str, many: str = "") -> str:
    """A number and what there is so many of: "1 case", "2 cases"."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def listed(words: list[str], joint: str = "and") -> str:
    """Words as a sentence lists them: "a, b and c"."""
    return f" {joint} ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def duration(seconds: float) -> str:
    """For example 2 h 05 min, 3 min 20 s or 4.2 s."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60:,} h {minutes % 60:02} min"


def moment(started: str) -> str:
    """A time in ISO 8601 to the minute."""
    return datetime.fromisoformat(started).strftime("%Y-%m-%d %H:%M %Z").strip()


def words(name: str) -> str:
    """A name of the data as words: "attack_succeeded" is "attack succeeded"."""
    return name_of(name.replace("_", " "))


def name_of(text: str) -> str:
    """A name from outside as it stands in a sentence or a table."""
    return shortened(printable(text), MAX_NAME)


def printable(text: str) -> str:
    """A text in one line, of which nothing is invisible: what cannot be printed stands as an escape."""
    return "".join(each if each.isprintable() else _escape(each) for each in visible(text))


def _escape(character: str) -> str:
    return " " if character.isspace() else character.encode("unicode_escape").decode()


def shortened(text: str, most: int) -> str:
    """The beginning of a text that is too long."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def end_of(text: str, most: int) -> str:
    """The end of a text that is too long, as of paths it tells more."""
    return text if len(text) <= most else f"…{text[1 - most :]}"


def named(who: Mapping[str, Any]) -> str:
    """Whom a description names; else all that it says."""
    name = who.get("name") or who.get("model")
    told = printable(name) if isinstance(name, str) else ", ".join(lines(who))
    return shortened(told, 2 * MAX_NAME)


def lines(description: Mapping[str, Any]) -> list[str]:
    """All that a description says, a line for each key."""
    return [printable(f"{key}: {json_words(it)}") for key, it in description.items()] or [NONE]


def json_words(given: Any) -> str:
    """A JSON value as it stands in a sentence."""
    return given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
