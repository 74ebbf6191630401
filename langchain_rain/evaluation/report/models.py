"""The models of several runs beside each other: what each is called, by which mark, and what its run did otherwise."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_rain.evaluation.report import formats
from langchain_rain.evaluation.report.formats import end_of, listed, name_of, named, printable, words
from langchain_rain.evaluation.report.marks import FORMS, Mark, hue
from langchain_rain.evaluation.results import BesideModel, BesideStrategy, Results

VANILLA = "vanilla"
"""The strategy from which a line leads to the reference."""

MAX_SETTING = 60
"""Characters of a setting in a sentence."""

NOT_COMPARED = frozenset(
    "model server server_model tokenizer suite data attack limit outcome beside strategies concurrency seeds rubric "
    "parameter functions win_rates judge_accuracy".split()
)
"""Settings that name models, files, cases or judges of outcomes, that change no figure, or that are told elsewhere."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model with the place that it has among the others, from 0.

    Attributes:
        folder: of its run, where another model has the same name; else "".
    """

    number: int
    name: str
    folder: str
    found: BesideModel

    @property
    def full_name(self) -> str:
        """What it is called among the others."""
        return f"{self.name} ({self.folder})" if self.folder else self.name

    @property
    def color(self) -> str:
        """Of all that is its own."""
        return hue(self.number)

    @property
    def reference(self) -> BesideStrategy:
        """The strategy that the others of its run are compared with; where none is marked, the last."""
        return next((each for each in self.found.strategies if each.is_reference), self.found.strategies[-1])

    @property
    def ends(self) -> tuple[BesideStrategy, BesideStrategy]:
        """Where a line begins and ends: vanilla, or the first strategy, and the reference; one twice if it is alone."""
        strategies = self.found.strategies
        start = next((each for each in strategies if each.name == VANILLA), strategies[0])
        others = [each for each in strategies if each is not start]
        if self.reference is not start or not others:
            return start, self.reference
        return start, others[-1]


def all_models(results: Results) -> list[Model]:
    """That of this run first, then the others; what has the name of another is told apart by its folder."""
    given = [BesideModel.of(results, ""), *results.beside]
    names = [named(each.model) for each in given]
    return [
        Model(number, name, end_of(printable(each.folder), formats.MAX_NAME) if names.count(name) > 1 else "", each)
        for number, (name, each) in enumerate(zip(names, given, strict=True))
    ]


def strategy_names(models: Sequence[Model]) -> list[str]:
    """Of all models, each once."""
    return list(dict.fromkeys(each.name for model in models for each in model.found.strategies))


def mark_in(models: Sequence[Model], model: Model, strategy: BesideStrategy) -> Mark:
    """The colour says which model, the form which strategy."""
    return Mark(model.color, form_of(models, strategy.name))


def form_of(models: Sequence[Model], strategy: str) -> str:
    """Of a strategy, whichever model wrote."""
    return FORMS[strategy_names(models).index(strategy) % len(FORMS)]


def differing_settings(models: Sequence[Model]) -> Iterator[str]:
    """For each of the other models a sentence with the settings that it does not share with this run."""
    here, *others = models
    for model in others:
        told = list(_differences(model.found, here.found))
        if told:
            yield f"{model.full_name} was run with other settings: {listed(told)}."


def _differences(there: BesideModel, here: BesideModel) -> Iterator[str]:
    if there.rubric != here.rubric:
        yield f"rubric {_rubric(there)} (here {_rubric(here)})"
    if there.seeds != here.seeds:
        yield f"seeds {_told(list(there.seeds))} (here {_told(list(here.seeds))})"
    for name in dict.fromkeys([*here.settings, *there.settings]):
        one, other = _setting(there.settings, name), _setting(here.settings, name)
        if name not in NOT_COMPARED and one != other:
            yield f"{words(name)} {one} (here {other})"


def _rubric(model: BesideModel) -> str:
    return f"{name_of(model.rubric.name)} {name_of(model.rubric.hash)}"


def _setting(settings: Mapping[str, Any], name: str) -> str:
    return _told(settings[name]) if name in settings else "not given"


def _told(setting: Any) -> str:
    return formats.shortened(printable(formats.json_words(setting)), MAX_SETTING)
