"""The plots of many strategies, which would cover each other in a plane: a row for each."""

from collections.abc import Callable, Sequence
from typing import Any

from langchain_rain.evaluation.report.figures import name_sides, set_log_limits, set_share_limits, sides
from langchain_rain.evaluation.report.formats import printable, shortened, words
from langchain_rain.evaluation.report.marks import hue, mark_of, marker
from langchain_rain.evaluation.report.svg import INK, draw
from langchain_rain.evaluation.results import Costs, Results, Strategy

MAX_IN_PLANE = 10
"""Strategies that can be told apart in a plane, with their names."""

MAX_NAME = 30
"""Characters of the name of a row."""

Row = tuple[int, Strategy]
"""A strategy with its number among all of them."""


def rates_plot(name: str, results: Results, label: str) -> str:
    """A rate of each strategy that has one, with its interval."""
    rows = [(number, each) for number, each in enumerate(results.strategies) if label in each.rates]

    def paint(figure: Any) -> None:
        axes = _axes_of_rows(figure, rows)
        axes.set_xlabel(f"{shortened(words(label), MAX_NAME)}, % of answers")
        set_share_limits(axes.xaxis, [each.rates[label] for _, each in rows])
        for place, (number, each) in enumerate(rows):
            rate = each.rates[label]
            axes.plot([rate.low, rate.high], [place, place], color=hue(number), linewidth=1.8)
            _draw_mark(axes, number, each, rate.value, place)
        name_sides(axes, *sides(results, label))

    return draw(name, _height(rows), paint)


def costs_plot(name: str, results: Results, cost_name: str, cost_of: Callable[[Costs], float | None]) -> str:
    """A cost of each strategy that has one; of a cost of 0 there is no logarithm."""
    rows = [(number, each) for number, each in enumerate(results.strategies) if cost_of(each.costs)]

    def paint(figure: Any) -> None:
        axes = _axes_of_rows(figure, rows)
        axes.set_xscale("log")
        axes.set_xlabel(f"{cost_name} per answer (log scale)")
        costs = [cost_of(each.costs) or 0.0 for _, each in rows]
        set_log_limits(axes, costs)
        for place, ((number, each), cost) in enumerate(zip(rows, costs, strict=True)):
            _draw_mark(axes, number, each, cost, place)
        name_sides(axes, "cheaper", "dearer")

    return draw(name, _height(rows), paint)


def _axes_of_rows(figure: Any, rows: Sequence[Row]) -> Any:
    axes = figure.add_subplot()
    axes.set_yticks(range(len(rows)), [shortened(printable(each.name), MAX_NAME) for _, each in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    for place, (_, each) in enumerate(rows):
        if each.is_reference:
            axes.axhline(place, color=INK, linewidth=0.8, linestyle=(0, (1, 3)))
    return axes


def _draw_mark(axes: Any, number: int, strategy: Strategy, value: float, place: int) -> None:
    mark = marker(mark_of(number, is_reference=strategy.is_reference))
    axes.plot(value, place, **mark, markersize=7, markeredgewidth=1.6, linestyle="", clip_on=False, zorder=3)


def _height(rows: Sequence[Row]) -> float:
    return 22 * len(rows) + 68
