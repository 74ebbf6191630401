"""How findings about criteria become a verdict."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_rain.rubrics import Criterion
from langchain_rain.rubrics.aggregation import NOTHING_JUDGED, aggregated, is_open, verdict_of
from langchain_rain.rubrics.asking import Finding
from langchain_rain.rubrics.rubric import Aggregate
from langchain_rain.search.protocol import Verdict

AGGREGATES: tuple[Aggregate, ...] = ("mean", "minimum", "product")

values = st.floats(-1, 1)
weights = st.floats(0.01, 100)
weighed = st.lists(st.tuples(values, weights), min_size=1, max_size=5)


def criterion(name: str, **given: Any) -> Criterion:
    return Criterion(name=name, instruction="?", good="Yes.", bad="No.", **given)


KIND, TRUE, SAFE = criterion("kind"), criterion("true", weight=3.0), criterion("safe", veto=True)


@pytest.mark.parametrize(
    ("aggregate", "value"),
    [
        ("mean", -0.25),  # (0.5 + 3 * -0.5) / 4
        ("minimum", -0.5),
        ("product", 2 * 0.75 * 0.25**3 - 1),
    ],
)
def test_values_are_taken_together_as_the_rubric_says(aggregate: Aggregate, value: float) -> None:
    assert aggregated(aggregate, [0.5, -0.5], [1.0, 3.0]) == pytest.approx(value)


@given(st.sampled_from(AGGREGATES), weighed)
def test_the_value_of_all_lies_in_range_and_never_above_the_best(
    aggregate: Aggregate, given: list[tuple[float, float]]
) -> None:
    of, by = zip(*given, strict=True)
    value = aggregated(aggregate, of, by)
    assert -1 <= value <= 1
    if aggregate != "product":
        assert min(of) <= value <= max(of)


@given(st.sampled_from(AGGREGATES), weighed, st.integers(0, 4), values)
def test_the_value_of_all_does_not_fall_where_one_rises(
    aggregate: Aggregate, given: list[tuple[float, float]], number: int, other: float
) -> None:
    of, by = map(list, zip(*given, strict=True))
    number %= len(of)
    raised = [max(other, value) if index == number else value for index, value in enumerate(of)]
    assert aggregated(aggregate, raised, by) >= aggregated(aggregate, of, by) - 1e-12


@given(st.sampled_from(AGGREGATES), values, weights)
def test_one_criterion_alone_is_the_value_but_for_the_power_of_a_product(
    aggregate: Aggregate, value: float, weight: float
) -> None:
    by = 1.0 if aggregate == "product" else weight
    assert aggregated(aggregate, [value], [by]) == pytest.approx(value)


def verdict(aggregate: Aggregate, found: dict[Criterion, Finding]) -> Verdict:
    return verdict_of(aggregate, list(found), {criterion.name: each for criterion, each in found.items()})


GOOD, BAD, NO_IDEA = Finding(1.0, 0.9), Finding(-1.0, 0.8), Finding(0.0, 0.05, is_abstained=True)


def test_a_verdict_tells_each_criterion_with_its_mass() -> None:
    assert verdict("mean", {KIND: GOOD, TRUE: BAD}) == Verdict(
        -0.5, {"kind": 1.0, "true": -1.0}, masses={"kind": 0.9, "true": 0.8}
    )


def test_who_vetoed_and_who_abstained_is_named() -> None:
    vetoed = verdict("mean", {KIND: NO_IDEA, SAFE: BAD})
    assert (vetoed.value, vetoed.is_vetoed, vetoed.is_abstained) == (-1.0, True, False)
    assert (vetoed.vetoed_by, vetoed.abstained) == (("safe",), ("kind",))
    abstained = verdict("mean", {KIND: NO_IDEA, SAFE: GOOD})
    assert (abstained.value, abstained.is_vetoed, abstained.is_abstained) == (0.0, False, True)


def test_nothing_judged_satisfies_nothing() -> None:
    assert verdict("mean", {}) is NOTHING_JUDGED
    assert not NOTHING_JUDGED.satisfies(-1.0)


@pytest.mark.parametrize(
    ("aggregate", "judged", "unjudged", "expected"),
    [
        ("mean", {KIND: BAD}, [TRUE], True),
        ("minimum", {KIND: BAD}, [TRUE], False),
        ("product", {KIND: BAD}, [TRUE], False),
        ("minimum", {KIND: GOOD}, [TRUE], True),
        ("minimum", {KIND: BAD}, [SAFE], True),  # it may still be vetoed, which is more than bad
        ("mean", {SAFE: BAD}, [TRUE], False),
        ("mean", {KIND: NO_IDEA}, [TRUE], False),
        ("mean", {KIND: NO_IDEA}, [SAFE], True),
        ("mean", {KIND: GOOD}, [], False),
        ("mean", {}, [KIND], True),
    ],
)
def test_a_verdict_is_open_while_what_is_left_can_change_it(
    aggregate: Aggregate, judged: Any, unjudged: Any, expected: bool
) -> None:
    found = {criterion.name: each for criterion, each in judged.items()}
    assert is_open(aggregate, [*judged, *unjudged], found) is expected


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (verdict("mean", {KIND: GOOD, TRUE: BAD}), "-0.50: kind +1.00 (mass 0.90), true -1.00 (mass 0.80)"),
        (
            verdict("mean", {SAFE: BAD, KIND: Finding(1.0)}),
            "-1.00 (vetoed by safe): safe -1.00 (mass 0.80), kind +1.00",
        ),
        (verdict("mean", {KIND: NO_IDEA}), "+0.00 (abstained by kind): kind abstained (mass 0.05)"),
        (Verdict(0.25), "+0.25"),
        (Verdict(0.0, is_abstained=True), "+0.00 (abstained)"),
    ],
)
def test_a_verdict_reads_well(given: Verdict, text: str) -> None:
    assert str(given) == text
