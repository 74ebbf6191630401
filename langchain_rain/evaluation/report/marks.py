"""By which mark a strategy is known, in plots and tables alike: a colour and, for who sees no colours, a form."""

from dataclasses import dataclass
from typing import Any

from langchain_rain.evaluation.packages import needed
from langchain_rain.evaluation.report.svg import HUES, PAPER, VARIABLES

FORMS = ("o", "s", "^", "D", "v", "P", "X", "p")
"""Matplotlib's names of forms that look unlike."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A form of `FORMS` in a colour of `HUES`."""

    color: str
    form: str
    is_hollow: bool = False


def mark_of(number: int, *, is_reference: bool) -> Mark:
    """Of the strategy of this number, from 0; that of a reference is hollow."""
    return Mark(hue(number), form(number), is_reference)


def form(number: int) -> str:
    """Of the strategy of this number, from 0; the first 64 are all of another form or colour."""
    return FORMS[(number + number // len(HUES)) % len(FORMS)]


def hue(number: int) -> str:
    """Of the strategy of this number, from 0."""
    return HUES[number % len(HUES)]


def marker(mark: Mark) -> dict[str, Any]:
    """What matplotlib has to know to draw the mark."""
    fill = PAPER if mark.is_hollow else mark.color
    return {"marker": mark.form, "markerfacecolor": fill, "markeredgecolor": mark.color, "color": mark.color}


def glyph(mark: Mark) -> str:
    """The mark as an SVG element of the height of a letter.

    Raises:
        RainConfigError: matplotlib is missing.
    """
    style = needed("matplotlib.markers").MarkerStyle(mark.form)
    path = style.get_path().transformed(style.get_transform())
    parts = []
    for points, code in path.iter_segments():
        letter = {1: "M", 2: "L", 3: "Q", 4: "C", 79: "Z"}[int(code)]
        parts.append(letter + ("" if letter == "Z" else " ".join(f"{each:.3f}" for each in points)))
    color = VARIABLES[mark.color]
    fill = VARIABLES[PAPER] if mark.is_hollow else color
    return (
        '<svg class="mark" viewBox="-0.75 -0.75 1.5 1.5" aria-hidden="true"><g transform="scale(1,-1)">'
        f'<path d="{"".join(parts)}" fill="{fill}" stroke="{color}" stroke-width="0.18"/></g></svg>'
    )
