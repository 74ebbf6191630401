"""The plots of models beside each other: for each a line from its vanilla answers to those of its reference."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from langchain_rain.evaluation.report.figures import (
    MAX_NAME,
    NUM_PIECES,
    name_sides,
    set_share_limits,
    sides,
    two_labels,
)
from langchain_rain.evaluation.report.formats import end_of, printable, shortened, words
from langchain_rain.evaluation.report.marks import FORMS, Mark, marker
from langchain_rain.evaluation.report.models import Model, form_of, mark_in, strategy_names
from langchain_rain.evaluation.report.placing import Name, write_names
from langchain_rain.evaluation.report.svg import INK, SOFT, draw
from langchain_rain.evaluation.results import Rate, Results

MAX_NARROW = 13
"""Of names of strategies that stand three beside each other in a legend."""

ROOM = 0.14
"""Of the width, to the right of the best, for their names."""

SHORTEST = 16.0
"""Points between the ends of a line that has a head; a shorter one would be hidden by the marks."""


def plotted_labels(results: Results, models: Sequence[Model]) -> tuple[str, ...]:
    """The label to the right and the label upwards, or the one that there is; none without any rate."""
    rated = [each.rates for model in models for each in model.found.strategies]
    both = two_labels(results, rated)
    if both is not None:
        return both
    return tuple(label for label in results.all_labels if any(label in rates for rates in rated))[:1]


@dataclass(frozen=True, slots=True)
class ModelPoint:
    """A strategy of a model in a plot, with a rate for each label of the plot."""

    mark: Mark
    rates: Sequence[Rate]

    @property
    def at(self) -> tuple[float, ...]:
        """Where it is."""
        return tuple(rate.value for rate in self.rates)


@dataclass(frozen=True, slots=True)
class ModelPoints:
    """The points of a model, and of its line the two ends, if both are there."""

    name: str
    color: str
    points: Sequence[ModelPoint]
    ends: tuple[ModelPoint, ModelPoint] | None


def model_points(models: Sequence[Model], labels: Sequence[str]) -> list[ModelPoints]:
    """The models of which something can be shown; of more strategies than there are forms, only the ends of lines."""
    shows_all = len(strategy_names(models)) <= len(FORMS)
    found = []
    for model, name in zip(models, _short_names(models), strict=True):
        shown = {
            each.name: ModelPoint(mark_in(models, model, each), [each.rates[label] for label in labels])
            for each in model.found.strategies
            if set(labels) <= set(each.rates) and (shows_all or each in model.ends)
        }
        start, end = (shown.get(each.name) for each in model.ends)
        ends = (start, end) if start is not None and end is not None and start is not end else None
        if shown:
            found.append(ModelPoints(name, model.color, list(shown.values()), ends))
    return found


def _short_names(models: Sequence[Model]) -> list[str]:
    """The ends of long names, as what tells models apart stands there; those that are alike all the same by number."""
    names = [_short_name(model) for model in models]
    return [
        f"{number}: {end_of(name, MAX_NAME - 4)}" if names.count(name) > 1 else name
        for number, name in enumerate(names, 1)
    ]


def _short_name(model: Model) -> str:
    if not model.folder:
        return end_of(model.name, MAX_NAME)
    half = MAX_NAME // 2 - 2
    name = end_of(model.name, max(half, MAX_NAME - 3 - len(model.folder)))
    return f"{name} ({end_of(model.folder, MAX_NAME - 3 - len(name))})"


# --- One rate against another ----------------------------------------------------------------------------------------


def models_plot(name: str, right: str, upwards: str, models: Sequence[Model]) -> str:
    """Two rates of each model and strategy."""
    shown = model_points(models, (right, upwards))

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        axes.set(xlabel=f"{_label(right)}, % of answers", ylabel=f"{_label(upwards)}, % of answers")
        points = [point for each in shown for point in each.points]
        set_share_limits(axes.xaxis, [each.rates[0] for each in points])
        set_share_limits(axes.yaxis, [each.rates[1] for each in points])
        left, end = axes.get_xlim()
        axes.set_xlim(left, end + ROOM * (end - left))
        _write_legend(axes, models)
        axes.figure.draw_without_rendering()  # the heads of lines depend on the limits
        bars = [bar for each in shown for bar in _draw_model(axes, each)]
        lines = [piece for each in shown for piece in _pieces(each)]
        names = [Name(each.name, each.color, _named_point(axes, each, shown)) for each in shown]
        write_names(axes, names, bars, lines=lines, marks=[_pair(each) for each in points])

    return draw(name, 380, paint)


def _draw_model(axes: Any, model: ModelPoints) -> Iterator[tuple[float, float, float, float]]:
    """Draws a model; yields the bars of its intervals."""
    for point in model.points:
        (x, y), (across, upright) = _pair(point), point.rates
        for bar in ((across.low, y, across.high, y), (x, upright.low, x, upright.high)):
            axes.plot(bar[::2], bar[1::2], color=model.color, linewidth=1, alpha=0.35)
            yield bar
        _draw_mark(axes, point.mark, (x, y))
    if model.ends is not None:
        _draw_line(axes, model.color, *map(_pair, model.ends))


def _named_point(axes: Any, model: ModelPoints, all_models: Sequence[ModelPoints]) -> tuple[float, float]:
    """Beside which the name stands: the end of the line that is farther from the points of other models."""
    others = [_pair(point) for each in all_models if each is not model for point in each.points]
    ends = [_pair(each) for each in model.ends or model.points[-1:]]
    if not others:
        return ends[-1]
    shown = axes.transData.transform(others)
    return max(ends, key=lambda end: min(math.dist(axes.transData.transform(end), other) for other in shown))


def _draw_mark(axes: Any, mark: Mark, at: tuple[float, float]) -> None:
    axes.plot(*at, **marker(mark), markersize=7, markeredgewidth=1.2, linestyle="", clip_on=False, zorder=3)


def _draw_line(axes: Any, color: str, start: tuple[float, float], end: tuple[float, float]) -> None:
    """With a head, where there is room for one."""
    axes.plot(*zip(start, end, strict=True), color=color, linewidth=1.8, zorder=2)
    (x, y), (other_x, other_y) = axes.transData.transform([start, end])
    if math.hypot(other_x - x, other_y - y) >= SHORTEST:
        head = {"arrowstyle": "-|>", "color": color, "linewidth": 0, "shrinkA": 0, "shrinkB": 5, "mutation_scale": 17}
        axes.annotate("", end, xytext=start, arrowprops=head, in_layout=False, zorder=2)


def _pieces(model: ModelPoints) -> Iterator[tuple[float, float, float, float]]:
    """Of the line of a model: short enough for boxes."""
    if model.ends is not None:
        (x, y), (other_x, other_y) = map(_pair, model.ends)
        shares = [number / NUM_PIECES for number in range(NUM_PIECES + 1)]
        at = [(x + share * (other_x - x), y + share * (other_y - y)) for share in shares]
        yield from ((*one, *other) for one, other in pairwise(at))


def _pair(point: ModelPoint) -> tuple[float, float]:
    x, y = point.at
    return x, y


# --- One rate --------------------------------------------------------------------------------------------------------


def one_rate_plot(name: str, results: Results, label: str, models: Sequence[Model]) -> str:
    """One rate of each model and strategy, a row for each model."""
    shown = model_points(models, (label,))

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        axes.set_xlabel(f"{_label(label)}, % of answers")
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.set_yticks(range(len(shown)), [each.name for each in shown])
        set_share_limits(axes.xaxis, [point.rates[0] for each in shown for point in each.points])
        name_sides(axes, *sides(results, label))
        _write_legend(axes, models, above=18)
        axes.figure.draw_without_rendering()
        for row, each in enumerate(shown):
            axes.get_yticklabels()[row].set_color(each.color)
            _draw_row(axes, row, each)

    return draw(name, (16 * most_points(shown) + 14) * len(shown) + 96, paint)


def most_points(shown: Sequence[ModelPoints]) -> int:
    """Of one model."""
    return max(len(each.points) for each in shown)


def _draw_row(axes: Any, row: int, model: ModelPoints) -> None:
    """The strategies of a model one below the other."""
    step = 0.8 / len(model.points)
    top = row - step * (len(model.points) - 1) / 2
    places = {id(point): top + step * number for number, point in enumerate(model.points)}
    for point in model.points:
        (rate,), y = point.rates, places[id(point)]
        axes.plot([rate.low, rate.high], [y, y], color=model.color, linewidth=1.4, alpha=0.5)
        _draw_mark(axes, point.mark, (rate.value, y))
    if model.ends is not None:
        start, end = ((point.rates[0].value, places[id(point)]) for point in model.ends)
        _draw_line(axes, model.color, start, end)


# --- What both have --------------------------------------------------------------------------------------------------


def _write_legend(axes: Any, models: Sequence[Model], above: float = 0) -> None:
    """Above the plot: which form is which strategy."""
    names = strategy_names(models)
    if len(names) > len(FORMS):
        return
    for each in names:
        mark = Mark(SOFT, form_of(models, each))
        axes.plot([], [], **marker(mark), markersize=7, linestyle="", label=shortened(printable(each), MAX_NAME))
    num_columns = 3 if max(map(len, names)) <= MAX_NARROW else 2
    place = (-0.02, 1 + above / 300)
    axes.legend(
        frameon=False,
        loc="lower left",
        bbox_to_anchor=place,
        borderpad=0,
        ncols=num_columns,
        labelcolor=INK,
        handlelength=1.2,
        handletextpad=0.3,
        columnspacing=1.2,
    )


def _label(label: str) -> str:
    return shortened(words(label), MAX_NAME)
