"""What an evaluation found, as one JSON document: `langchain-rain eval` writes it, the report is drawn from it."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config

from langchain_rain.errors import RainConfigError, describe_mistakes

SIGNIFICANT = 0.01
"""Below this p-value a difference is said to be one."""

FORMAT: Literal[2] = 2
"""Of the document; a later one that means something else has another number."""

MAX_WORST = 10
"""Answers that are told in full."""

ROUNDING = 1e-9
"""By which an end of an interval may miss the value inside it."""

MAX_TOLD = 1000
"""Characters of the mistakes in a document that an error tells."""

Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Count: TypeAlias = Annotated[int, Field(ge=0)]
Amount: TypeAlias = Annotated[float, Field(ge=0)]
Value: TypeAlias = Annotated[float, Field(ge=-1, le=1)]
Label: TypeAlias = bool | float | None
"""Of one answer; None where the outcome judge could not tell."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of `num` answers, with its 95 % interval."""

    value: Share
    low: Share
    high: Share
    num: Count

    def __post_init__(self) -> None:
        _check_ends(self.low, self.value, self.high)


@dataclass(frozen=True, slots=True)
class RubricName:
    """A rubric and the hash of what it means."""

    name: str
    hash: str


@dataclass(frozen=True, slots=True)
class Provenance:
    """How the figures came about.

    Attributes:
        judge: who steered the searches.
        outcome_judge: who says how the answers turned out.
        judges_itself: whether the outcome was judged by a model that steered.
        started: the time in ISO 8601.
        seconds: that the run took.
    """

    langchain_rain: str
    python: str
    machine: Mapping[str, Any]
    model: Mapping[str, Any]
    judge: Mapping[str, Any]
    outcome_judge: Mapping[str, Any]
    judges_itself: bool
    rubric: RubricName
    config_hash: str
    settings: Mapping[str, Any]
    started: str
    seconds: Amount

    def __post_init__(self) -> None:
        try:
            datetime.fromisoformat(self.started)
        except ValueError as error:
            raise RainConfigError(f"started: a time in ISO 8601 is wanted, given {self.started!r:.80}.") from error


@dataclass(frozen=True, slots=True)
class Malformed:
    """A row of the suite that is no case."""

    where: str
    reason: str
    row: str


@dataclass(frozen=True, slots=True)
class Costs:
    """What an answer costs: means over all answers, but for the percentiles; None is what was not measured.

    Attributes:
        token_positions: counted of the answer alone.
    """

    forward_passes: Amount | None
    token_positions: Amount | None
    num_tokens: Amount | None
    num_simulations: Amount | None
    num_rewinds: Amount | None
    seconds_p50: Amount | None
    seconds_p95: Amount | None


@dataclass(frozen=True, slots=True)
class Fluency:
    """How varied the answers are, and how surprising to the model that wrote them.

    Attributes:
        distinct_1: different words as a share of all words; `distinct_2` of pairs of neighbouring words.
    """

    distinct_1: Share | None
    distinct_2: Share | None
    perplexity: Amount | None


@dataclass(frozen=True, slots=True)
class Strategy:
    """How the answers of one way of writing turned out.

    Attributes:
        is_reference: the others are compared with it.
        num_answers: that there are.
        rates: by label, of the answers about which the outcome judge could tell.
        unknown: by label, the number of those about which it could not.
        would_refuse: answers instead of which a guardrail would refuse; None where nobody steers.
        returned_below_threshold: answers that were returned though the steering judge accepts them not.
        rewinds_at: where they happened, one for each, as shares of the length of the answer.
        groups: rates by group of the suite and by label.
    """

    name: str
    is_reference: bool
    num_answers: Count
    rates: Mapping[str, Rate]
    unknown: Mapping[str, Count]
    would_refuse: Rate | None
    returned_below_threshold: Rate | None
    costs: Costs
    fluency: Fluency | None
    rewinds_at: tuple[Share, ...]
    groups: Mapping[str, Mapping[str, Rate]]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A label of two strategies' answers to the same cases, with the same seeds.

    Attributes:
        difference: the rate of `strategy` minus that of `other`, whichever of the two is better.
        low: of its 95 % interval; `high` likewise.
        better: cases in which the answers of `strategy` have the better rate; `worse` those in which that of `other`
            is; of a neutral label, the higher one.
        num: of cases.
    """

    label: str
    strategy: str
    other: str
    difference: Annotated[float, Field(ge=-1, le=1)]
    low: float
    high: float
    p_value: Share | None
    better: Count
    worse: Count
    num: Count

    def __post_init__(self) -> None:
        _check_ends(self.low, self.difference, self.high)


@dataclass(frozen=True, slots=True)
class WinRate:
    """How often somebody who was shown both answers, in both orders, preferred that of `strategy`.

    Attributes:
        by: what the better one was told by.
        rate: wins and half of the ties, as a share; 0.5 if they are as good. None without any.
        p_value: of the exact sign test of wins against losses; None likewise.
        wins: cases in which that of `strategy` is preferred in both orders; `losses`, `ties` likewise.
        position_bias: the probability that the answer shown first is preferred, minus 0.5; None likewise.
        unknown: pairs of which the judge could not tell.
    """

    by: str
    strategy: str
    other: str
    rate: Rate | None
    p_value: Share | None
    wins: Count
    ties: Count
    losses: Count
    position_bias: Annotated[float, Field(ge=-0.5, le=0.5)] | None
    unknown: Count


@dataclass(frozen=True, slots=True)
class SearchStep:
    """A piece of text that a search drafted, took back or kept; None is the value of what nobody judged."""

    text: str
    value: Value | None
    event: Literal["draft", "rewind", "commit"]
    num_tokens: Count


@dataclass(frozen=True, slots=True)
class WorstAnswer:
    """An answer and how it came about.

    Attributes:
        prompt: a text to continue, or role and content of each message.
        value: by the judge that steered; None where there was none.
        labels: what the outcome judge found.
    """

    case_id: str
    strategy: str
    seed: int
    prompt: str | tuple[Mapping[str, str], ...]
    answer: str
    value: Value | None
    labels: Mapping[str, Label]
    search: tuple[SearchStep, ...]


@dataclass(frozen=True, slots=True)
class JudgeAccuracy:
    """How often the outcome judge was right where the truth is known.

    Attributes:
        rate: of all it was asked, what it could not tell included.
        balanced: the mean of the shares of what is true and of what is false; None without both.
        unknown: what it could not tell.
    """

    rate: Rate
    balanced: Share | None
    unknown: Count


@dataclass(frozen=True, slots=True)
class BesideStrategy:
    """What is told of a strategy where models stand beside each other; as in `Strategy`."""

    name: str
    is_reference: bool
    rates: Mapping[str, Rate]
    unknown: Mapping[str, Count]
    costs: Costs


@dataclass(frozen=True, slots=True)
class BesideModel:
    """What another run has found of the same cases by the same outcome judge.

    Attributes:
        folder: of that run, as the user named it; "" for the run itself.
        model: who wrote, as in `Provenance`; `rubric` and `settings` likewise.
    """

    folder: str
    model: Mapping[str, Any]
    rubric: RubricName
    settings: Mapping[str, Any]
    seeds: tuple[int, ...]
    strategies: Annotated[tuple[BesideStrategy, ...], Field(min_length=1)]

    @classmethod
    def of(cls, results: "Results", folder: str) -> Self:
        """What is told of a run."""
        given = results.provenance
        strategies = [
            BesideStrategy(each.name, each.is_reference, each.rates, each.unknown, each.costs)
            for each in results.strategies
        ]
        return cls(folder, given.model, given.rubric, given.settings, results.seeds, tuple(strategies))


@with_config(ConfigDict(extra="forbid", strict=True, allow_inf_nan=False))
@dataclass(frozen=True, slots=True)
class Results:
    """What came of answering a suite by several strategies.

    Attributes:
        source: where the cases come from, in words.
        labels: what is found of an answer, the most important first; a higher rate is better.
        worse_labels: those of which a lower rate is better; in `labels` or beside them.
        neutral_labels: those of which neither is, as it depends on what was asked; likewise.
        rated: the group of cases that rates, comparisons and win rates are of; "" for all.
        notes: sentences that have to be read before the figures.
        worst: the answers that turned out worst, the very worst first.
        judge_accuracy: None where it was not measured.
        cases_hash: tells the cases from any others; None in documents that were written before there was one.
        beside: what other runs have found, in the order in which they are told.
    """

    format: Literal[2]
    suite: str
    source: str
    num_cases: Count
    seeds: tuple[int, ...]
    provenance: Provenance
    labels: tuple[str, ...]
    worse_labels: tuple[str, ...]
    neutral_labels: tuple[str, ...]
    rated: str
    malformed: tuple[Malformed, ...]
    notes: tuple[str, ...]
    strategies: Annotated[tuple[Strategy, ...], Field(min_length=1)]
    comparisons: tuple[Comparison, ...]
    win_rates: tuple[WinRate, ...]
    worst: Annotated[tuple[WorstAnswer, ...], Field(max_length=MAX_WORST)]
    judge_accuracy: JudgeAccuracy | None
    cases_hash: str | None = None
    beside: tuple[BesideModel, ...] = ()

    def __post_init__(self) -> None:
        names = [each.name for each in self.strategies]
        _check_unlike("strategies", names)
        _check_unlike("labels", self.labels)
        for strategy in self.strategies:
            rates = (strategy.rates, strategy.unknown, *strategy.groups.values())
            _check_known("label", self.all_labels, (label for each in rates for label in each))
        _check_known("label", self.all_labels, (each.label for each in self.comparisons))
        pairs: tuple[Comparison | WinRate, ...] = (*self.comparisons, *self.win_rates)
        told = [name for each in pairs for name in (each.strategy, each.other)]
        _check_known("strategy", names, [*told, *(each.strategy for each in self.worst)])
        _check_unlike("beside", [each.folder for each in self.beside])
        for model in self.beside:
            _check_unlike("strategies", [each.name for each in model.strategies])
            told_of = (found for each in model.strategies for found in (each.rates, each.unknown))
            _check_known("label", self.all_labels, (label for found in told_of for label in found))

    @property
    def all_labels(self) -> tuple[str, ...]:
        """The labels of which a higher rate is better, those of which a lower one is, and the others, each once."""
        others = (*self.worse_labels, *self.neutral_labels)
        better = [label for label in self.labels if label not in others]
        return tuple(dict.fromkeys([*better, *others]))

    def better_rate(self, label: str) -> Literal["higher", "lower", "neither"]:
        """Which rates of a label are better."""
        if label in self.neutral_labels:
            return "neither"
        return "lower" if label in self.worse_labels else "higher"

    @property
    def references(self) -> tuple[Strategy, ...]:
        """The strategies that the others are compared with."""
        return tuple(each for each in self.strategies if each.is_reference)

    def to_json(self) -> dict[str, Any]:
        """The document as JSON values."""
        document: dict[str, Any] = _document().dump_python(self, mode="json")
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Reads a document.

        Raises:
            RainConfigError: it is of another format, or not as it is described here; tells all keys that are wrong.
        """
        given = document.get("format") if isinstance(document, Mapping) else document
        if given != FORMAT:
            told = f"results: format {FORMAT} is what this version reads, given {given!r:.80}"
            raise RainConfigError(f"{told}. Run the command there again.")
        try:
            text = json.dumps(document, allow_nan=False)
            results: Self = _document().validate_json(text)
        except ValidationError as error:
            told = describe_mistakes("results", error)
            raise RainConfigError(told if len(told) <= MAX_TOLD else f"{told[:MAX_TOLD]}...") from error
        except (TypeError, ValueError) as error:
            raise RainConfigError(f"results: JSON values are wanted: {error}.") from error
        return results


@cache
def _document() -> TypeAdapter[Any]:
    """Made when it is first asked for, which takes a while."""
    return TypeAdapter(Results)


def _check_ends(low: float, value: float, high: float) -> None:
    if not low - ROUNDING <= value <= high + ROUNDING:
        raise RainConfigError(f"an interval lies around its value, given {low!r} to {high!r} around {value!r}.")
    if not math.isfinite(high - low):
        raise RainConfigError(f"an interval has ends, given {low!r} to {high!r}.")


def _check_unlike(what: str, names: Sequence[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise RainConfigError(f"{what}: each is there once, given {twice!r:.80} twice.")


def _check_known(what: str, known: Sequence[str], names: Iterable[str]) -> None:
    unknown = next((name for name in names if name not in known), None)
    if unknown is not None:
        raise RainConfigError(f"{what}: {', '.join(map(repr, known)):.400} are there, given {unknown!r:.80}.")
