"""The parts of the report, in the order in which they are read; of what there is nothing, a sentence says why."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from langchain_rain.evaluation.report import figures, formats, model_figures, row_figures, tables
from langchain_rain.evaluation.report import words as texts
from langchain_rain.evaluation.report.formats import counted, listed, name_of, printable, words
from langchain_rain.evaluation.report.models import Model, all_models, differing_settings
from langchain_rain.evaluation.report.tables import Table
from langchain_rain.evaluation.results import Costs, Results


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot that is drawn when the page needs it; `caption` says in words what it shows."""

    caption: str
    draw: Callable[[], str]


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the report.

    Attributes:
        name: an id.
        explanation: paragraphs that say how to read it.
        remarks: sentences about these figures.
    """

    name: str
    title: str
    explanation: Sequence[str]
    plots: Sequence[Plot] = ()
    tables: Sequence[Table] = ()
    remarks: Sequence[str] = ()


def all_sections(results: Results) -> list[Section]:
    """Those that this report has."""
    found = [
        _quality(results),
        _cost(results),
        _trade_off(results),
        _beside(results),
        _rewinds(results),
        _differences(results),
        _wins(results),
        _groups(results),
        _language(results),
    ]
    return [section for section in found if section is not None]


def _quality(results: Results) -> Section:
    explanation = [texts.SAME_JUDGE if results.provenance.judges_itself else texts.OTHER_JUDGE, texts.INTERVAL]
    table = tables.quality_table(results)
    remarks = [f"{words(label)}: {meaning}." for label, meaning in texts.glossary(results.all_labels)]
    shown = {column.name for column in table.columns}
    remarks += [f"{it}." for it in (texts.WOULD_REFUSE, texts.BELOW_THRESHOLD) if it.partition(":")[0] in shown]
    remarks += [texts.OVER_REFUSAL] if tables.tells_over_refusal(results) else []
    remarks += [texts.SEVERAL_SEEDS] if len(results.seeds) > 1 else []
    return Section("quality", "How good the answers are", explanation, tables=[table], remarks=remarks)


PLOTTED_COSTS: Sequence[tuple[str, Callable[[Costs], float | None]]] = (
    ("token positions", lambda costs: costs.token_positions),
    ("forward passes", lambda costs: costs.forward_passes),
)


def _cost(results: Results) -> Section:
    table = tables.cost_table(results)
    if len(results.strategies) > row_figures.MAX_IN_PLANE:
        return Section("cost", "What they cost", texts.COST_IN_ROWS, list(_row_plots(results)), [table])
    label = results.all_labels[0] if results.all_labels else ""
    plots, remarks = [], []
    for number, (name, cost_of) in enumerate(PLOTTED_COSTS):
        points = figures.cost_points(results, label, cost_of)
        left_out = len(results.strategies) - len(points)
        if points:
            caption = _cost_caption(results, label, name, points)
            paint = partial(figures.cost_plot, f"cost-{number}", results, label, name, points)
            plots.append(Plot(caption, paint))
        if left_out:
            told = "has" if left_out == 1 else "have"
            remarks.append(f"{counted(left_out, 'strategy', 'strategies')} {told} no {name} to plot, or no rate.")
    is_neutral = results.better_rate(label) == "neither"
    explanation = [texts.PASSES_AND_POSITIONS] if is_neutral else texts.COST
    return Section("cost", "What they cost", explanation, plots, [table], remarks)


def _row_plots(results: Results) -> Iterator[Plot]:
    """Rates and costs of many strategies, a row for each."""
    for number, label in enumerate(results.all_labels):
        if any(label in each.rates for each in results.strategies):
            paint = partial(row_figures.rates_plot, f"rates-{number}", results, label)
            yield Plot(f"{words(label).capitalize()}, by strategy; {tables.direction(results, label)}.", paint)
    for number, (name, cost_of) in enumerate(PLOTTED_COSTS):
        if any(cost_of(each.costs) for each in results.strategies):
            paint = partial(row_figures.costs_plot, f"costs-{number}", results, name, cost_of)
            yield Plot(f"{name.capitalize()} per answer, by strategy.", paint)


def _cost_caption(results: Results, label: str, name: str, points: Sequence[figures.Point]) -> str:
    title = f"{words(label).capitalize()} against {name}."
    if results.better_rate(label) == "neither":
        return title
    is_worse = results.better_rate(label) == "lower"
    best = [each.name for each in figures.unbeaten(points, is_worse=is_worse)]
    reversed_axis = " The upright axis is turned over, as lower rates are better: up is better." if is_worse else ""
    return f"{title} Unbeaten at their cost: {listed(best)}.{reversed_axis}"


def _trade_off(results: Results) -> Section | None:
    labels = figures.trade_off_labels(results)
    if len(results.strategies) > row_figures.MAX_IN_PLANE:  # both stand in rows
        return None
    if labels is None:
        if "harmless" not in results.all_labels:
            return None
        remark = "There is no plot: the answers of this suite were not judged for helpfulness."
        return Section("trade-off", "Harmless against helpful", texts.TRADE_OFF, remarks=[remark])
    points = figures.trade_off_points(results, *labels)
    title = f"{words(labels[1]).capitalize()} against {words(labels[0])}"
    caption = f"{title}, by strategy. The upper right corner is best."
    plots = [Plot(caption, partial(figures.trade_off_plot, "trade-off", *labels, points))] if points else []
    remarks = [] if points else ["No strategy has both rates."]
    return Section("trade-off", title, texts.TRADE_OFF, plots, remarks=remarks)


def _beside(results: Results) -> Section | None:
    if not results.beside:
        return None
    models = all_models(results)
    labels = model_figures.plotted_labels(results, models)
    shown = model_figures.model_points(models, labels) if labels else []
    plots = [Plot(_beside_caption(results, models, labels), _beside_paint(results, models, labels))] if shown else []
    remarks = list(differing_settings(models))
    left_out = len(models) - len(shown)
    if left_out:
        remarks.append(f"{counted(left_out, 'model')} {'has' if left_out == 1 else 'have'} no such rate to plot.")
    remarks += [texts.PEOPLE_BESIDE] if results.provenance.outcome_judge.get("judge") == "people" else []
    table = tables.models_table(results, models)
    return Section("beside", "Models beside each other", texts.BESIDE, plots, [table], remarks)


def _beside_caption(results: Results, models: Sequence[Model], labels: Sequence[str]) -> str:
    rates = " against ".join(map(words, reversed(labels)))
    ends = {tuple(name_of(each.name) for each in model.ends) for model in models if model.ends[0] is not model.ends[1]}
    told = f"{rates.capitalize()}, by model and strategy. The colour says which model, the form which strategy."
    if len(ends) == 1:
        told += " A line leads from {} to {}.".format(*ends.pop())
    elif ends:
        told += " A line leads to the reference of each model."
    if len(labels) == 2:
        return f"{told} The upper right corner is best."
    return f"{told} {tables.direction(results, labels[0]).capitalize()}."


def _beside_paint(results: Results, models: Sequence[Model], labels: Sequence[str]) -> Callable[[], str]:
    if len(labels) == 2:
        return partial(model_figures.models_plot, "beside", labels[0], labels[1], models)
    return partial(model_figures.one_rate_plot, "beside", results, labels[0], models)


def _rewinds(results: Results) -> Section:
    rewound = figures.shown_rewinds(results)
    if not rewound:
        return Section(
            "rewinds", "Where rewinds happened", texts.REWINDS, remarks=["There was no rewind in any answer."]
        )
    without = [name_of(each.name) for each in results.strategies if not each.rewinds_at]
    remarks = [f"Without any rewind: {listed(without)}."] if without else []
    caption = f"Rewinds by place in the answer, in {figures.NUM_BINS} equal parts. " + " ".join(
        f"{name_of(each.name)}: {_half(each.rewinds_at)} in the first half." for each in rewound
    )
    plot = Plot(caption, partial(figures.rewinds_plot, "rewinds", results))
    return Section("rewinds", "Where rewinds happened", texts.REWINDS, [plot], remarks=remarks)


def _half(shares: Sequence[float]) -> str:
    return formats.percent(sum(share < 0.5 for share in shares) / len(shares), 0)


def _differences(results: Results) -> Section | None:
    if not results.comparisons:
        return None
    labels = [label for label in results.all_labels if any(each.label == label for each in results.comparisons)]
    plots = [
        Plot(
            f"{words(label).capitalize()}{_compared(results, label)}: {_tally(results, label)}",
            partial(figures.differences_plot, f"differences-{number}", results, label),
        )
        for number, label in enumerate(labels)
    ]
    table = tables.differences_table(results)
    return Section("differences", "Compared answer by answer", texts.DIFFERENCES, plots, [table])


def _compared(results: Results, label: str) -> str:
    """The strategy that is compared with others, if it is one alone."""
    names = {each.strategy for each in results.comparisons if each.label == label}
    return f", {name_of(names.pop())} against others" if len(names) == 1 else ""


def _tally(results: Results, label: str) -> str:
    verdicts = [tables.verdict(results, each) for each in results.comparisons if each.label == label]
    counts = [(verdicts.count(it), it[2:]) for it in dict.fromkeys(verdicts)]
    return f"{listed([f'{count:,} {it}' for count, it in counts])}."


def _wins(results: Results) -> Section | None:
    if not results.win_rates:
        return None
    return Section("wins", "Which answer was preferred", texts.WINS, tables=[tables.wins_table(results)])


def _groups(results: Results) -> Section | None:
    table = tables.groups_table(results)
    if table is None:
        return None
    remarks = [texts.OVER_REFUSAL] if tables.tells_over_refusal(results) else []
    return Section("groups", "By group of cases", texts.GROUPS, tables=[table], remarks=remarks)


def _language(results: Results) -> Section | None:
    table = tables.language_table(results)
    return None if table is None else Section("wording", "Wording", texts.LANGUAGE, tables=[table])


# --- What stands above and below them --------------------------------------------------------------------------------


def facts(results: Results) -> Iterator[tuple[str, str, str]]:
    """The figures at the top: each its name, itself, and what it means."""
    seeds = counted(len(results.seeds), "seed")
    yield "cases", f"{results.num_cases:,}", "in the suite"
    counts = sorted({each.num_answers for each in results.strategies})
    answers = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,}{formats.TO}{counts[-1]:,}"
    yield "answers per strategy", answers, f"each case with {seeds}"
    yield "strategies", f"{len(results.strategies):,}", _references(results)
    yield "outcome judge right", *_judge_is_right(results)


def _judge_is_right(results: Results) -> tuple[str, str]:
    """How often, and what that means."""
    accuracy = results.judge_accuracy
    if accuracy is not None:
        told = f"{formats.interval(accuracy.rate)}, where the truth is known"
        balanced = "" if accuracy.balanced is None else f"; balanced {formats.percent(accuracy.balanced)}"
        return formats.percent(accuracy.rate.value), told + balanced
    if results.provenance.outcome_judge.get("judge") == "oracle":
        return formats.percent(1.0), "it is the rules that the demo world is made by"
    return formats.NONE, "not measured: trust its figures accordingly"


def _references(results: Results) -> str:
    names = [tables.strategy_cell(results, each.name).text for each in results.references]
    return f"reference: {listed(names)}" if names else "none of them a reference"


def highlights(results: Results) -> Iterator[str]:
    """For each label who has the best rate, and what the first reference has."""
    reference = results.references[0] if results.references else None
    for label in results.all_labels:
        rated = [(each, each.rates[label]) for each in results.strategies if label in each.rates]
        if len(rated) < 2 or results.better_rate(label) == "neither":
            continue
        is_worse = results.better_rate(label) == "lower"
        best, rate = (min if is_worse else max)(rated, key=lambda each: each[1].value)
        as_good = sum(each[1].value == rate.value for each in rated) - 1
        names = listed([name_of(best.name), *([counted(as_good, "other")] if as_good else [])])
        told = f"{words(label).capitalize()}: {'lowest' if is_worse else 'highest'} for {names}, "
        told += f"{formats.percent(rate.value)} ({formats.interval(rate)})"
        if reference is not None and reference is not best and label in reference.rates:
            base = reference.rates[label]
            told += f"; {name_of(reference.name)} has {formats.percent(base.value)} ({formats.interval(base)})"
        yield f"{told}."


def provenance(results: Results) -> Iterator[tuple[str, Sequence[str]]]:
    """How the figures came about: each thing with its lines."""
    given = results.provenance
    yield "suite", [printable(results.suite), printable(results.source)]
    yield "seeds", [", ".join(map(str, results.seeds))]
    for name in ("model", "judge", "outcome_judge", "machine"):
        yield words(name), formats.lines(getattr(given, name))
    yield "rubric", [f"{printable(given.rubric.name)} ({printable(given.rubric.hash)})"]
    yield "settings", formats.lines(given.settings)
    yield "hash of the configuration", [printable(given.config_hash)]
    yield "langchain-rain", [printable(given.langchain_rain)]
    yield "Python", [printable(given.python)]
    took = formats.duration(given.seconds)
    yield "started", [f"{formats.moment(given.started)}; it took {took}, without what was answered before"]
