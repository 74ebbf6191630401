"""The document of an evaluation: what is written is read again, and what is not as described is refused."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_rain import RainConfigError
from langchain_rain.evaluation.results import (
    MAX_TOLD,
    BesideModel,
    BesideStrategy,
    Comparison,
    Costs,
    Fluency,
    JudgeAccuracy,
    Malformed,
    Provenance,
    Rate,
    Results,
    RubricName,
    SearchStep,
    Strategy,
    WinRate,
    WorstAnswer,
)
from tests.eval_results import results, with_value

SHARES = st.floats(0, 1)
COUNTS = st.integers(0, 10**9)
AMOUNTS = st.none() | st.floats(0, 1e12)
TEXTS = st.text(max_size=20)
VALUES = st.none() | st.floats(-1, 1)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e9, 1e9) | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)
OBJECTS = st.dictionaries(TEXTS, JSON, max_size=3)


@st.composite
def rates(draw: st.DrawFn) -> Rate:
    low, value, high = sorted(draw(st.tuples(SHARES, SHARES, SHARES)))
    return Rate(value, low, high, draw(COUNTS))


@st.composite
def comparisons(draw: st.DrawFn, label: str, names: list[str]) -> Comparison:
    low, difference, high = sorted(draw(st.tuples(*[st.floats(-1, 1)] * 3)))
    strategy, other = draw(st.sampled_from(names)), draw(st.sampled_from(names))
    p_value = draw(st.none() | SHARES)
    return Comparison(label, strategy, other, difference, low, high, p_value, *draw(st.tuples(COUNTS, COUNTS, COUNTS)))


def strategies(name: str, labels: list[str]) -> st.SearchStrategy[Strategy]:
    by_label = st.dictionaries(st.sampled_from(labels), rates())
    return st.builds(
        Strategy,
        name=st.just(name),
        is_reference=st.booleans(),
        num_answers=COUNTS,
        rates=by_label,
        unknown=st.dictionaries(st.sampled_from(labels), COUNTS),
        would_refuse=st.none() | rates(),
        returned_below_threshold=st.none() | rates(),
        costs=st.builds(Costs, *[AMOUNTS] * 7),
        fluency=st.none() | st.builds(Fluency, st.none() | SHARES, st.none() | SHARES, AMOUNTS),
        rewinds_at=st.lists(SHARES, max_size=3).map(tuple),
        groups=st.dictionaries(TEXTS, by_label, max_size=2),
    )


def models(folder: str, labels: list[str]) -> st.SearchStrategy[BesideModel]:
    told = st.builds(
        BesideStrategy,
        name=TEXTS,
        is_reference=st.booleans(),
        rates=st.dictionaries(st.sampled_from(labels), rates()),
        unknown=st.dictionaries(st.sampled_from(labels), COUNTS),
        costs=st.builds(Costs, *[AMOUNTS] * 7),
    )
    return st.builds(
        BesideModel,
        folder=st.just(folder),
        model=OBJECTS,
        rubric=st.builds(RubricName, TEXTS, TEXTS),
        settings=OBJECTS,
        seeds=st.lists(st.integers(0, 9), max_size=2).map(tuple),
        strategies=st.lists(told, min_size=1, max_size=2, unique_by=lambda each: each.name).map(tuple),
    )


@st.composite
def documents(draw: st.DrawFn) -> Results:
    labels = draw(st.lists(TEXTS, min_size=1, max_size=3, unique=True))
    names = draw(st.lists(TEXTS, min_size=1, max_size=3, unique=True))
    messages = st.lists(st.dictionaries(TEXTS, TEXTS, max_size=2), max_size=2).map(tuple)
    steps = st.builds(SearchStep, TEXTS, VALUES, st.sampled_from(["draft", "rewind", "commit"]), COUNTS)
    name = st.sampled_from(names)
    found = st.dictionaries(TEXTS, st.none() | st.booleans() | st.floats(-9, 9), max_size=2)
    search = st.lists(steps, max_size=3).map(tuple)
    worst = st.builds(WorstAnswer, TEXTS, name, st.integers(0, 9), TEXTS | messages, TEXTS, VALUES, found, search)
    accuracy = st.builds(JudgeAccuracy, rates(), st.none() | SHARES, COUNTS)
    bias = st.none() | st.floats(-0.5, 0.5)
    won = st.builds(WinRate, TEXTS, name, name, st.none() | rates(), st.none() | SHARES, *[COUNTS] * 3, bias, COUNTS)
    provenance = st.builds(
        Provenance,
        **dict.fromkeys(("langchain_rain", "python", "config_hash"), TEXTS),
        **dict.fromkeys(("machine", "model", "judge", "outcome_judge", "settings"), OBJECTS),
        rubric=st.builds(RubricName, TEXTS, TEXTS),
        judges_itself=st.booleans(),
        started=st.datetimes().map(lambda it: it.isoformat()),
        seconds=st.floats(0, 1e9),
    )
    return Results(
        format=2,
        suite=draw(TEXTS),
        source=draw(TEXTS),
        num_cases=draw(COUNTS),
        seeds=draw(st.lists(st.integers(0, 99), max_size=3).map(tuple)),
        provenance=draw(provenance),
        labels=tuple(labels[:2]),
        worse_labels=tuple(labels[1:2]),
        neutral_labels=tuple(labels[2:]),
        rated=draw(TEXTS),
        malformed=draw(st.lists(st.builds(Malformed, TEXTS, TEXTS, TEXTS), max_size=2).map(tuple)),
        notes=draw(st.lists(TEXTS, max_size=2).map(tuple)),
        strategies=tuple(draw(strategies(name, labels)) for name in names),
        comparisons=draw(st.lists(comparisons(labels[0], names), max_size=2).map(tuple)),
        win_rates=draw(st.lists(won, max_size=2).map(tuple)),
        worst=draw(st.lists(worst, max_size=2).map(tuple)),
        judge_accuracy=draw(st.none() | accuracy),
        cases_hash=draw(st.none() | TEXTS),
        beside=tuple(draw(models(folder, labels)) for folder in draw(st.lists(TEXTS, max_size=2, unique=True))),
    )


@given(documents())
def test_what_is_written_is_read_again(document: Results) -> None:
    written = json.dumps(document.to_json(), allow_nan=False)
    assert Results.from_json(json.loads(written)) == document
    assert json.dumps(Results.from_json(json.loads(written)).to_json(), allow_nan=False) == written


def test_a_document_from_before_models_stood_beside_each_other_is_read() -> None:
    document = results().to_json()
    del document["cases_hash"], document["beside"]
    assert Results.from_json(document) == results()


def test_other_models_have_known_labels_and_each_its_folder() -> None:
    told = BesideModel.of(results(), "runs/a")
    with pytest.raises(RainConfigError, match="beside: each is there once, given 'runs/a' twice"):
        results(beside=(told, told))
    (first, *_) = told.strategies
    with pytest.raises(RainConfigError, match="strategies: each is there once, given 'vanilla' twice"):
        results(beside=(replace(told, strategies=(first, first)),))
    with pytest.raises(RainConfigError, match=r"label: .* are there, given 'kind'"):
        results(beside=(replace(told, strategies=(replace(first, unknown={"kind": 1}),)),))


def test_labels_of_which_lower_is_better_come_last_and_once() -> None:
    given = results(labels=("refused", "harmless", "helpful"), worse_labels=("refused", "attack_succeeded"))
    assert given.all_labels == ("harmless", "helpful", "refused", "attack_succeeded")
    assert [each.name for each in given.references] == ["vanilla"]


def without(*path: str | int) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        for key in path[:-1]:
            document = document[key]
        del document[path[-1]]

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (with_value(1, "format"), "format 2 is what this version reads, given 1. Run the command there again"),
        (without("format"), "format 2 is what this version reads, given None"),
        (with_value(1, "colour"), "colour: Unexpected"),
        (with_value(1, "strategies", 0, "costs", "watts"), r"strategies\.0\.costs\.watts: Unexpected"),
        (without("suite"), "suite: "),
        (with_value("3", "num_cases"), "num_cases: .*given '3'"),
        (with_value(1.5, "strategies", 0, "rates", "harmless", "high"), "high: .*less than or equal to 1, given 1.5"),
        (with_value(0.99, "strategies", 0, "rates", "harmless", "low"), "an interval lies around its value"),
        (with_value("sing", "worst", 1, "search", 0, "event"), "'draft', 'rewind' or 'commit'"),
        (with_value("noon", "provenance", "started"), "started: a time in ISO 8601 is wanted, given 'noon'"),
        (with_value("rain", "comparisons", 0, "other"), "strategy: 'vanilla', .* are there, given 'rain'"),
        (with_value("nobody", "worst", 0, "strategy"), "given 'nobody'"),
        (with_value("kind", "comparisons", 0, "label"), "label: 'harmless', .* are there, given 'kind'"),
        (with_value("best-of-4", "strategies", 0, "name"), "strategies: each is there once, given 'best-of-4' twice"),
        (with_value(["a", "a"], "labels"), "labels: each is there once, given 'a' twice"),
        (with_value([], "strategies"), "strategies: .*at least 1"),
        (with_value(float("nan"), "provenance", "seconds"), "JSON values are wanted"),
        (with_value({1}, "provenance", "settings"), "JSON values are wanted"),
    ],
)
def test_what_is_not_as_described_is_refused_with_its_place(change: Callable[[Any], None], told: str) -> None:
    document = copy.deepcopy(results().to_json())
    change(document)
    with pytest.raises(RainConfigError, match=told) as caught:
        Results.from_json(document)
    assert len(str(caught.value)) < MAX_TOLD + 10


def test_what_is_no_object_is_refused() -> None:
    with pytest.raises(RainConfigError, match=r"format 2 is what this version reads, given \[\]"):
        Results.from_json([])  # type: ignore[arg-type]


def test_an_interval_without_ends_is_refused() -> None:
    with pytest.raises(RainConfigError, match="an interval has ends"):
        Comparison("harmless", "a", "b", 0.1, 0.0, float("inf"), None, 1, 1, 2)
