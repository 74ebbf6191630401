"""The tables of the report, alike for page and Markdown."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from langchain_rain.evaluation.report import formats
from langchain_rain.evaluation.report.formats import NONE, amount, listed, printable, words
from langchain_rain.evaluation.report.marks import Mark, mark_of
from langchain_rain.evaluation.report.models import Model, mark_in
from langchain_rain.evaluation.results import SIGNIFICANT, Comparison, Costs, Rate, Results, Strategy
from langchain_rain.evaluation.suites.xstest import SAFE

BETTER, WORSE, EVEN = "▲ better", "▼ worse", "≈ not told apart"
MORE, LESS = "▲ more often", "▼ less often"
"""What a paired difference says; of a label of which neither is better, the last two."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What stands in a table.

    Attributes:
        detail: what stands below it, smaller.
        key: what its column is sorted by; None goes last, whichever way.
        mark: of the strategy that it names.
        tag: a word that marks it.
        is_best: of its column.
        tone: "good", "bad", "even" or none, told by more than a colour.
    """

    text: str
    detail: str = ""
    key: float | str | None = None
    mark: Mark | None = None
    tag: str = ""
    is_best: bool = False
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """The head of a column; `detail` stands below it, smaller."""

    name: str
    detail: str = ""
    is_number: bool = True


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells, one for each column; the first cell names the row."""

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]


def quality_table(results: Results) -> Table:
    """How often the answers of each strategy have each label, and what a guardrail would refuse."""
    told = {label for each in results.strategies for label in each.rates}
    told |= {label for each in results.strategies for label, num in each.unknown.items() if num}
    labels = [label for label in results.all_labels if label in told]
    columns = [Column(words(label), direction(results, label)) for label in labels]
    by_column = [_rates_of_label(results, label) for label in labels]
    for name, rate_of in _REFUSALS.items():
        rates = [rate_of(each) for each in results.strategies]
        if any(rates):
            columns.append(Column(name, "see below"))
            by_column.append([_rate_cell(rate) for rate in rates])
    return _of_strategies(results, "Rates of the answers by strategy, with 95% intervals", columns, by_column)


_REFUSALS: dict[str, Callable[[Strategy], Rate | None]] = {
    "would refuse": lambda each: each.would_refuse,
    "below threshold": lambda each: each.returned_below_threshold,
}


def direction(results: Results, label: str) -> str:
    """Which rates of a label are better, in words."""
    better = results.better_rate(label)
    return "neither is better" if better == "neither" else f"{better} is better"


def _rates_of_label(results: Results, label: str) -> list[Cell]:
    rates = [each.rates.get(label) for each in results.strategies]
    found = [rate.value for rate in rates if rate is not None]
    bests = {"lower": min, "higher": max}
    best = bests[results.better_rate(label)](found) if found and results.better_rate(label) in bests else None
    return [
        _rate_cell(rate, each.unknown.get(label, 0), is_best=len(found) > 1 and rate is not None and rate.value == best)
        for rate, each in zip(rates, results.strategies, strict=True)
    ]


def _rate_cell(rate: Rate | None, num_unknown: int = 0, *, is_best: bool = False) -> Cell:
    unknown = f"{num_unknown:,} unknown" if num_unknown else ""
    if rate is None:
        return Cell(NONE, tag=unknown)
    return Cell(formats.percent(rate.value), formats.interval(rate), rate.value, tag=unknown, is_best=is_best)


COSTS: Sequence[tuple[Column, Callable[[Costs], float | None]]] = (
    (Column("forward passes", "per answer"), lambda costs: costs.forward_passes),
    (Column("token positions", "per answer"), lambda costs: costs.token_positions),
    (Column("length", "tokens"), lambda costs: costs.num_tokens),
    (Column("simulations", "per answer"), lambda costs: costs.num_simulations),
    (Column("rewinds", "per answer"), lambda costs: costs.num_rewinds),
    (Column("median time", "seconds"), lambda costs: costs.seconds_p50),
    (Column("95th percentile", "seconds"), lambda costs: costs.seconds_p95),
)
"""Each with the cost that it shows."""

NUM_COMPARED = 2
"""Of the costs, that are told as multiples of the reference too."""


def cost_table(results: Results) -> Table:
    """What an answer of each strategy costs; the first two also as multiples of what it is compared with."""
    bases = [_base(results, each) for each in results.strategies]
    columns, by_column = [], []
    for number, (column, cost_of) in enumerate(COSTS):
        costs = [cost_of(each.costs) for each in results.strategies]
        if any(cost is not None for cost in costs):
            based = [cost_of(base.costs) if base is not None and number < NUM_COMPARED else None for base in bases]
            columns.append(column)
            by_column.append([_cost_cell(cost, base) for cost, base in zip(costs, based, strict=True)])
    names = list(dict.fromkeys(_name(base) for base in bases if base is not None))
    compared = f"; {formats.TIMES} is against {listed(names, 'or')}" if names else ""
    return _of_strategies(results, f"Costs by strategy, means but for the times{compared}", columns, by_column)


def _base(results: Results, strategy: Strategy) -> Strategy | None:
    """The reference that a strategy is compared with: itself, where it is one, and else the first where none is."""
    if strategy.is_reference:
        return strategy
    compared = {each.strategy for each in results.comparisons if each.other == strategy.name}
    return next((each for each in results.references if each.name in compared), next(iter(results.references), None))


def _cost_cell(cost: float | None, base: float | None) -> Cell:
    detail = formats.times(cost / base) if cost is not None and base else ""
    return Cell(amount(cost), detail, cost)


def language_table(results: Results) -> Table | None:
    """How fluent the answers are; None where nobody measured it."""
    fluent = [each.fluency for each in results.strategies]
    if not any(fluent):
        return None
    shares = [
        [None if it is None else it.distinct_1 for it in fluent],
        [None if it is None else it.distinct_2 for it in fluent],
    ]
    by_column = [[Cell(NONE if it is None else f"{it:.3f}", key=it) for it in column] for column in shares]
    perplexities = [None if it is None else it.perplexity for it in fluent]
    by_column.append([Cell(amount(it), key=it) for it in perplexities])
    columns = [Column("distinct words", "share"), Column("distinct pairs", "share"), Column("perplexity")]
    return _of_strategies(results, "Wording of the answers by strategy", columns, by_column)


def differences_table(results: Results) -> Table:
    """Every paired comparison."""
    columns = [
        Column("strategy", is_number=False),
        Column("against", is_number=False),
        Column("label", is_number=False),
        Column("difference", "points"),
        Column("verdict", is_number=False),
        Column("p-value"),
        Column("won", "cases"),
        Column("lost", "cases"),
        Column("cases", "n"),
    ]
    return Table("Paired differences", columns, [_difference_row(results, each) for each in results.comparisons])


def _difference_row(results: Results, each: Comparison) -> Sequence[Cell]:
    ends = f"{formats.points(each.low)} to {formats.points(each.high)}"
    return (
        strategy_cell(results, each.strategy),
        strategy_cell(results, each.other),
        Cell(words(each.label), direction(results, each.label), each.label),
        Cell(formats.points(each.difference), ends, each.difference),
        _verdict_cell(verdict(results, each)),
        Cell(formats.p_value(each.p_value), key=each.p_value),
        *(Cell(f"{number:,}", key=number) for number in (each.better, each.worse, each.num)),
    )


def _verdict_cell(told: str) -> Cell:
    tones = {BETTER: ("good", 1), WORSE: ("bad", -1), EVEN: ("even", 0), MORE: ("even", 1), LESS: ("even", -1)}
    tone, key = tones[told]
    return Cell(told, key=key, tone=tone)


def verdict(results: Results, each: Comparison) -> str:
    """What a difference says of the strategy, where its interval and its test agree that it is one."""
    if each.low <= 0 <= each.high or (each.p_value is not None and each.p_value >= SIGNIFICANT):
        return EVEN
    verdicts = {"higher": (WORSE, BETTER), "lower": (BETTER, WORSE), "neither": (LESS, MORE)}
    return verdicts[results.better_rate(each.label)][each.low > 0]


def wins_table(results: Results) -> Table:
    """Which of two answers was preferred."""
    columns = [Column(name, is_number=False) for name in ("strategy", "against", "by")]
    columns += [Column("win rate", "ties half"), Column("p-value")]
    columns += [Column(name, "cases") for name in ("wins", "ties", "losses")]
    columns += [Column("first place", "points"), Column("unknown", "pairs")]
    rows = []
    for each in results.win_rates:
        bias = each.position_bias
        rows.append(
            (
                strategy_cell(results, each.strategy),
                strategy_cell(results, each.other),
                Cell(words(each.by)),
                _rate_cell(each.rate),
                Cell(formats.p_value(each.p_value), key=each.p_value),
                *(Cell(f"{count:,}", key=count) for count in (each.wins, each.ties, each.losses)),
                Cell(NONE if bias is None else formats.points(bias), key=bias),
                Cell(f"{each.unknown:,}", key=each.unknown),
            )
        )
    return Table("Which answer was preferred, by pair of strategies", columns, rows)


def groups_table(results: Results) -> Table | None:
    """Rates by group of the suite; None where there is none, or one alone, which is everything."""
    groups = list(dict.fromkeys(group for each in results.strategies for group in each.groups))
    if len(groups) < 2:
        return None
    labels = [label for label in results.all_labels if label in set(_labels_in_groups(results))]
    columns = [Column("strategy", is_number=False), Column("group", is_number=False)]
    columns += [Column(words(label), _direction_in_groups(results, label)) for label in labels]
    rows = [
        (
            strategy_cell(results, each.name),
            Cell(formats.name_of(group) or "(none)", key=group),
            *(_rate_cell(each.groups[group].get(label)) for label in labels),
        )
        for group in groups
        for each in results.strategies
        if group in each.groups
    ]
    return Table("Rates by group and strategy, with 95% intervals", columns, rows)


def tells_over_refusal(results: Results) -> bool:
    """Whether refusals of safe requests are set apart from those of others."""
    return results.rated == SAFE and "refused" in results.all_labels


def _direction_in_groups(results: Results, label: str) -> str:
    return "see below" if label == "refused" and tells_over_refusal(results) else direction(results, label)


def _labels_in_groups(results: Results) -> Iterator[str]:
    return (label for each in results.strategies for group in each.groups.values() for label in group)


def models_table(results: Results, models: Sequence[Model]) -> Table:
    """A row for each model and strategy, those of this run first."""
    rated = {label for model in models for each in model.found.strategies for label in each.rates}
    labels = [label for label in results.all_labels if label in rated]
    columns = [Column(name, is_number=False) for name in ("model", "strategy")]
    columns += [Column(words(label), direction(results, label)) for label in labels]
    columns += [Column("token positions", "per answer"), Column("cases")]
    rows = [
        (
            Cell(model.full_name, key=model.full_name, tag="" if model.found.folder else "this run"),
            Cell(formats.name_of(each.name), key=each.name, mark=mark_in(models, model, each)),
            *(_rate_cell(each.rates.get(label), each.unknown.get(label, 0)) for label in labels),
            Cell(amount(each.costs.token_positions), key=each.costs.token_positions),
            Cell(f"{results.num_cases:,}", formats.counted(len(model.found.seeds), "seed"), results.num_cases),
        )
        for model in models
        for each in model.found.strategies
    ]
    return Table("Rates by model and strategy, with 95% intervals", columns, rows)


def malformed_table(results: Results) -> Table:
    """The rows that are no cases."""
    columns = [Column(name, is_number=False) for name in ("where", "reason", "row")]
    rows = [
        tuple(Cell(formats.shortened(printable(text), 300), key=text) for text in (it.where, it.reason, it.row))
        for it in results.malformed
    ]
    return Table("Rows that could not be read", columns, rows)


def strategy_cell(results: Results, name: str) -> Cell:
    """Names a strategy."""
    number = next(number for number, each in enumerate(results.strategies) if each.name == name)
    is_reference = results.strategies[number].is_reference
    mark, tag = mark_of(number, is_reference=is_reference), "reference" if is_reference else ""
    return Cell(_name(results.strategies[number]), key=name, mark=mark, tag=tag)


def _name(strategy: Strategy) -> str:
    return formats.name_of(strategy.name)


def _of_strategies(results: Results, caption: str, columns: list[Column], by_column: list[list[Cell]]) -> Table:
    names = [strategy_cell(results, each.name) for each in results.strategies]
    rows = list(zip(names, *by_column, strict=True))
    return Table(caption, [Column("strategy", is_number=False), *columns], rows)
