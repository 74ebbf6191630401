"""The plots of the report, each an SVG element."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from langchain_rain.evaluation.outcomes.joint import without_joint
from langchain_rain.evaluation.report import formats
from langchain_rain.evaluation.report.formats import printable, shortened, words
from langchain_rain.evaluation.report.marks import FORMS, hue, mark_of, marker
from langchain_rain.evaluation.report.placing import Name, write_names
from langchain_rain.evaluation.report.svg import INK, SOFT, draw
from langchain_rain.evaluation.results import Comparison, Costs, Rate, Results, Strategy

MAX_NAME = 24
"""Characters of a name in a plot."""

NUM_PIECES = 16
"""Of a line that names should not be written upon."""

NUM_BINS = 20
"""Of the histogram of rewinds over an answer."""


@dataclass(frozen=True, slots=True)
class Point:
    """A strategy in a plot of two quantities, with the interval of each (its own ends where it has none)."""

    number: int
    name: str
    is_reference: bool
    x: Rate | float
    y: Rate

    @property
    def at(self) -> tuple[float, float]:
        """Where it is."""
        return (self.x.value if isinstance(self.x, Rate) else self.x), self.y.value


# --- Quality against cost --------------------------------------------------------------------------------------------


def cost_points(results: Results, label: str, cost_of: Callable[[Costs], float | None]) -> list[Point]:
    """The strategies of which both are known; of a cost of 0 there is no logarithm."""
    points = []
    for number, each in enumerate(results.strategies):
        cost, rate = cost_of(each.costs), each.rates.get(label)
        if cost and rate is not None:
            points.append(Point(number, _short(each.name), each.is_reference, cost, rate))
    return points


def unbeaten(points: Sequence[Point], *, is_worse: bool) -> list[Point]:
    """Those than which none is both cheaper and better (or as good in one, and better in the other), by cost."""
    best: list[Point] = []
    ordered = sorted(points, key=lambda each: (each.at[0], each.at[1] if is_worse else -each.at[1]))
    for point in ordered:
        if not best or (point.at[1] < best[-1].at[1] if is_worse else point.at[1] > best[-1].at[1]):
            best.append(point)
    return best


def cost_plot(name: str, results: Results, label: str, cost_name: str, points: Sequence[Point]) -> str:
    """How often answers have a label, against a cost; up is better, left is cheaper."""
    better = results.better_rate(label)

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        axes.set_xscale("log")
        axes.set(xlabel=f"{cost_name} per answer (log scale)", ylabel=f"{_short(words(label))}, % of answers")
        set_log_limits(axes, [each.at[0] for each in points])
        set_share_limits(axes.yaxis, [each.y for each in points])
        if better == "lower":
            axes.invert_yaxis()
        best = unbeaten(points, is_worse=better == "lower") if better != "neither" else []
        if len(best) > 1:
            x, y = zip(*(each.at for each in best), strict=True)
            axes.plot(x, y, color=SOFT, linestyle=(0, (4, 3)), linewidth=1.2, label="no other is cheaper and better")
            axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(-0.02, 0.99), borderpad=0, labelcolor=SOFT)
        _draw_points(axes, points, [piece for ends in pairwise(best) for piece in _pieces(*ends)])

    return draw(name, 280, paint)


def _pieces(start: Point, end: Point) -> Iterator[tuple[float, float, float, float]]:
    """Of the line between two points, which is straight where costs are logarithms: short enough for boxes."""
    shares = [number / NUM_PIECES for number in range(NUM_PIECES + 1)]
    at = [
        (start.at[0] * (end.at[0] / start.at[0]) ** share, start.at[1] + share * (end.at[1] - start.at[1]))
        for share in shares
    ]
    return ((*one, *other) for one, other in pairwise(at))


def set_log_limits(axes: Any, costs: Sequence[float]) -> None:
    """An axis of costs as logarithms, with some room on both sides."""
    low, high = math.log10(min(costs)), math.log10(max(costs))
    room = max(0.15 * (high - low), 0.5 - (high - low) / 2, 0.1)
    low, high = low - room, high + room
    axes.set_xlim(10**low, 10**high)
    steps = (1,) if high - low > 2 else (1, 3) if high - low > 1 else (1, 2, 5)
    powers = range(math.floor(low), math.ceil(high) + 1)
    ticks = [step * 10.0**power for power in powers for step in steps]
    axes.set_xticks([tick for tick in ticks if 10**low <= tick <= 10**high])
    axes.xaxis.set_major_formatter(lambda cost, _: f"{cost:,.10g}")
    axes.xaxis.minorticks_off()


# --- One quality against another -------------------------------------------------------------------------------------


def trade_off_labels(results: Results) -> tuple[str, str] | None:
    """The label to the right and the label upwards: helpful and harmless, else the first two of the better ones.

    A joint label is none of them, as its parts say what it is a trade-off of.
    """
    return two_labels(results, [each.rates for each in results.strategies])


def two_labels(results: Results, rated: Sequence[Mapping[str, Rate]]) -> tuple[str, str] | None:
    """The same, of the labels that somebody has a rate of."""
    known = [label for label in without_joint(results.all_labels) if results.better_rate(label) == "higher"]
    known = [label for label in known if any(label in rates for rates in rated)]
    if {"harmless", "helpful"} <= set(known):
        return "helpful", "harmless"
    return (known[1], known[0]) if len(known) > 1 else None


def trade_off_points(results: Results, right: str, upwards: str) -> list[Point]:
    """The strategies that have both rates."""
    return [
        Point(number, _short(each.name), each.is_reference, each.rates[right], each.rates[upwards])
        for number, each in enumerate(results.strategies)
        if {right, upwards} <= set(each.rates)
    ]


def trade_off_plot(name: str, right: str, upwards: str, points: Sequence[Point]) -> str:
    """One rate against another."""

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        axes.set(xlabel=f"{_short(words(right))}, % of answers", ylabel=f"{_short(words(upwards))}, % of answers")
        set_share_limits(axes.xaxis, [each.x for each in points if isinstance(each.x, Rate)])
        set_share_limits(axes.yaxis, [each.y for each in points])
        _draw_points(axes, points)

    return draw(name, 320, paint)


def _draw_points(axes: Any, points: Sequence[Point], lines: Sequence[tuple[float, float, float, float]] = ()) -> None:
    bars = [*lines, *(bar for point in points for bar in _bars(point))]
    for point in points:
        for left, bottom, right, top in _bars(point):
            axes.plot([left, right], [bottom, top], color=hue(point.number), linewidth=1.3, alpha=0.7)
    for point in points:
        mark = marker(mark_of(point.number, is_reference=point.is_reference))
        axes.plot(*point.at, **mark, markersize=7, markeredgewidth=1.6, linestyle="", clip_on=False, zorder=3)
    write_names(axes, [Name(each.name, hue(each.number), each.at) for each in points], bars)


def _bars(point: Point) -> Iterator[tuple[float, float, float, float]]:
    x, y = point.at
    yield x, point.y.low, x, point.y.high
    if isinstance(point.x, Rate):
        yield point.x.low, y, point.x.high, y


def set_share_limits(axis: Any, rates: Sequence[Rate]) -> None:
    """An axis of shares, told in percent, that holds all intervals."""
    low, high = min(each.low for each in rates), max(each.high for each in rates)
    room = max(0.08 * (high - low), 0.01)
    axis.axes.set(**{f"{axis.axis_name}lim": (max(-0.02, low - room), min(1.02, high + room))})
    axis.set_major_formatter(lambda share, _: f"{100 * share:.3g}")
    axis.get_major_locator().set_params(nbins=6, steps=[1, 2, 5, 10])
    least, most = (max(0, low - room), min(1, high + room))  # a tick outside would widen the axis
    axis.set_ticks([tick for tick in axis.get_majorticklocs() if least - 1e-9 <= tick <= most + 1e-9])


# --- Where rewinds happened ------------------------------------------------------------------------------------------


def rewinds_plot(name: str, results: Results) -> str:
    """A row of heights for each strategy that rewound; of many only the references."""
    rewound = [(number, each) for number, each in enumerate(results.strategies) if each in shown_rewinds(results)]

    def paint(figure: Any) -> None:
        rows = figure.subplots(len(rewound), sharex=True, squeeze=False)
        for (axes,), (number, each) in zip(rows, rewound, strict=True):
            counts = bin_counts(each.rewinds_at)
            edges = [bin_number / NUM_BINS for bin_number in range(NUM_BINS)]
            axes.bar(edges, counts, width=0.86 / NUM_BINS, align="edge", color=hue(number), linewidth=0)
            told = f"{_short(each.name)}: {formats.counted(len(each.rewinds_at), 'rewind')}"
            axes.set_title(told, loc="left", fontsize=10, color=INK, pad=4)
            axes.set(xlim=(0, 1), ylim=(0, 1.05 * max(counts)), yticks=[])
            axes.spines["left"].set_visible(False)
            axes.grid(visible=False)
            axes.tick_params(axis="x", length=3)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"])
        axes.set_xlabel("place in the answer (0% is its beginning)")

    return draw(name, 62 * len(rewound) + 42, paint)


def shown_rewinds(results: Results) -> list[Strategy]:
    """The strategies that rewound, of more than there are forms only the references."""
    rewound = [each for each in results.strategies if each.rewinds_at]
    return rewound if len(rewound) <= len(FORMS) else [each for each in rewound if each.is_reference] or rewound[-1:]


def bin_counts(shares: Sequence[float]) -> list[int]:
    """How many shares lie in each of `NUM_BINS` equal parts of [0, 1]."""
    counts = [0] * NUM_BINS
    for share in shares:
        counts[min(NUM_BINS - 1, int(share * NUM_BINS))] += 1
    return counts


# --- Paired differences ----------------------------------------------------------------------------------------------


def differences_plot(name: str, results: Results, label: str) -> str:
    """A row for each comparison by a label; on the side of zero that is better for the strategy, or across."""
    compared = [each for each in results.comparisons if each.label == label]
    numbers = {each.name: number for number, each in enumerate(results.strategies)}
    is_one = len({each.strategy for each in compared}) == 1  # the caption names it, and the marks are the others'

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        axes.axvline(0, color=INK, linewidth=1)
        for row, each in enumerate(compared):
            number = numbers[each.other if is_one else each.strategy]
            mark = marker(mark_of(number, is_reference=results.strategies[number].is_reference))
            axes.plot([100 * each.low, 100 * each.high], [row, row], color=hue(number), linewidth=1.8)
            axes.plot(100 * each.difference, row, **mark, markersize=7, markeredgewidth=1.6, linestyle="", zorder=3)
        told = [f"against {_short(each.other)}" if is_one else _pair(each) for each in compared]
        axes.set_yticks(range(len(compared)), told)
        axes.set_ylim(len(compared) - 0.4, -0.6)
        axes.set_xlabel(f"{_short(words(label))}: difference in points")
        _set_limits_with_zero(axes, compared)
        name_sides(axes, *sides(results, label))

    return draw(name, (24 if is_one else 36) * len(compared) + 68, paint)


def sides(results: Results, label: str) -> tuple[str, str]:
    """What lower and higher rates of a label are."""
    named = {"higher": ("worse", "better"), "lower": ("better", "worse"), "neither": ("less", "more")}
    return named[results.better_rate(label)]


def name_sides(axes: Any, left: str, right: str) -> None:
    """Rows, and above them what is to the left and to the right."""
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    for side, place, where in ((f"← {left}", "left", 0), (f"{right} →", "right", 1)):
        axes.text(where, 1.01, side, transform=axes.transAxes, ha=place, va="bottom", color=SOFT)


def _set_limits_with_zero(axes: Any, compared: Sequence[Comparison]) -> None:
    """Zero stays in sight."""
    low, high = min(0.0, *(each.low for each in compared)), max(0.0, *(each.high for each in compared))
    room = max(0.06 * (high - low), 0.005)
    axes.set_xlim(100 * (low - room), 100 * (high + room))
    axes.xaxis.get_major_locator().set_params(nbins=5)
    axes.xaxis.set_major_formatter(lambda points, _: formats.points(points / 100).removesuffix(".0"))


def _pair(each: Comparison) -> str:
    return f"{_short(each.strategy)}\nagainst {_short(each.other)}"


def _short(name: str) -> str:
    return shortened(printable(name), MAX_NAME)
