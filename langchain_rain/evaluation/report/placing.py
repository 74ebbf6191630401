"""Writing names beside the points of a plot so that none lies upon another."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

DISTANCES = (9.0, 15.0, 24.0, 36.0, 50.0, 66.0, 84.0)
"""Between a point and its name, in points."""

NEARNESS = 1.5
"""The area in square points that one point of distance counts as."""

MARK_SIZE = 6.0
"""Half the side of what a mark takes."""

HEAVIER = 3
"""Times that a heavy line counts more than a bar."""

FAR = 20.0
"""From this distance on a line leads to the name."""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of the figure, in points."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: "Box") -> float:
        """The area that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(0.0, width) * max(0.0, height)

    @property
    def area(self) -> float:
        """Width times height."""
        return (self.right - self.left) * (self.top - self.bottom)


@dataclass(frozen=True, slots=True)
class Name:
    """What is written, in its colour, and of which point of the data."""

    text: str
    color: str
    point: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a name may stand: how far from its point, and which side of it is there."""

    x: float
    y: float
    horizontal: str
    vertical: str

    @property
    def distance(self) -> float:
        """From its point."""
        return math.hypot(self.x, self.y)

    def box(self, point: tuple[float, float], width: float, height: float) -> Box:
        """What the name covers there."""
        left = point[0] + self.x - {"left": 0.0, "center": 0.5, "right": 1.0}[self.horizontal] * width
        bottom = point[1] + self.y - {"bottom": 0.0, "center": 0.5, "top": 1.0}[self.vertical] * height
        return Box(left, bottom, left + width, bottom + height)


def write_names(
    axes: Any,
    names: Sequence[Name],
    bars: Sequence[Sequence[float]],
    *,
    lines: Sequence[Sequence[float]] = (),
    marks: Sequence[tuple[float, float]] = (),
) -> None:
    """Writes each name beside its point.

    Args:
        axes: whose limits and scales are those that they will be drawn with.
        names: the first are placed first.
        bars: of intervals, as (x low, y low, x high, y high); better not written upon.
        lines: pieces of lines that are as heavy as letters, likewise.
        marks: points that have no name.
    """
    axes.figure.draw_without_rendering()
    room = Box(*axes.get_window_extent().extents)
    shown = [tuple(axes.transData.transform(name.point)) for name in names]
    nameless = [tuple(axes.transData.transform(mark)) for mark in marks]
    taken = [Box(x - MARK_SIZE, y - MARK_SIZE, x + MARK_SIZE, y + MARK_SIZE) for x, y in [*shown, *nameless]]
    thin = [_thin(axes, bar) for bar in [*bars, *HEAVIER * list(lines)]]
    for name, at in zip(names, shown, strict=True):
        text = axes.annotate(
            name.text,
            name.point,
            xytext=(0, 0),
            textcoords="offset points",
            fontsize=10,
            color=name.color,
            in_layout=False,
        )
        extent = text.get_window_extent()
        places = [(place, place.box(at, extent.width, extent.height)) for place in _places()]
        place, box = min(places, key=lambda each: NEARNESS * each[0].distance + _crowding(each[1], room, taken, thin))
        taken.append(box)
        text.set(position=(place.x, place.y), ha=place.horizontal, va=place.vertical)
        if place.distance >= FAR:
            _lead(axes, name, place)


def _lead(axes: Any, name: Name, place: Place) -> None:
    """A line from a name to its point."""
    line = {"arrowstyle": "-", "color": name.color, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 5}
    axes.annotate(
        "", name.point, textcoords="offset points", xytext=(place.x, place.y), arrowprops=line, in_layout=False
    )


def _places() -> Iterator[Place]:
    """The best first."""
    sides = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
    for distance, (x, y) in product(DISTANCES, sides):
        horizontal = {1: "left", 0: "center", -1: "right"}[x]
        vertical = {1: "bottom", 0: "center", -1: "top"}[y]
        part = 0.75 if x and y else 1.0  # beside is read more easily than across a corner
        yield Place(x * distance * part, y * distance * part, horizontal, vertical)


def _crowding(box: Box, room: Box, taken: Sequence[Box], thin: Sequence[Box]) -> float:
    """How badly a name would stand there; 0 is well."""
    outside = box.area - box.overlap(room)
    return 4 * outside + 2 * sum(map(box.overlap, taken)) + sum(map(box.overlap, thin))


def _thin(axes: Any, bar: Sequence[float]) -> Box:
    (left, bottom), (right, top) = axes.transData.transform([(bar[0], bar[1]), (bar[2], bar[3])])
    return Box(
        min(left, right) - 1, min(bottom, top) - 1, max(left, right) + 1, max(bottom, top) + 1
    )  # of no height or width it could not be overlapped
