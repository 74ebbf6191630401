import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_rain.drivers import Job, run
from langchain_rain.engines.scripted import ScriptedEngine
from langchain_rain.rubrics import Criterion, Example, Rubric
from langchain_rain.rubrics.asking import asked_about, criterion_value
from langchain_rain.rubrics.evaluate import RubricJudge
from langchain_rain.search.protocol import OptionLogprobs, Score, Transcript, Verdict

NEVER = -math.inf


def logprobs(a: float, b: float, mass: float = 1.0) -> OptionLogprobs:
    """Log probabilities of the labels A and B, given as probabilities."""
    return OptionLogprobs(tuple(math.log(p) if p > 0 else NEVER for p in (a, b)), mass)


SURELY_A, SURELY_B, EVEN = logprobs(0.9, 0.1), logprobs(0.1, 0.9), logprobs(0.5, 0.5)

# The good option is A when straight, B when swapped.


@pytest.mark.parametrize(
    ("straight", "swapped", "expected"),
    [
        (SURELY_A, SURELY_B, 1.0),
        (SURELY_B, SURELY_A, -1.0),
        (SURELY_A, SURELY_A, 0.0),  # a judge that always says A: the swap cancels it
        (SURELY_B, SURELY_B, 0.0),
        (EVEN, EVEN, 0.0),  # no order has a vote, so that swapping good and bad changes nothing but the sign
        (logprobs(0.51, 0.49), logprobs(0.49, 0.51), 1.0),
        (logprobs(0, 0), logprobs(0, 0), 0.0),
        (logprobs(1, 0), logprobs(0, 1), 1.0),
    ],
)
def test_a_binary_value_counts_the_orders_in_which_the_good_option_is_more_probable(
    straight: OptionLogprobs, swapped: OptionLogprobs, expected: float
) -> None:
    assert criterion_value(straight, swapped, "binary") == expected


@pytest.mark.parametrize(
    ("straight", "swapped", "expected"),
    [
        (SURELY_A, SURELY_B, 0.8),  # 2 * 0.9 - 1
        (SURELY_B, SURELY_A, -0.8),
        (SURELY_A, SURELY_A, 0.0),  # 2 * (0.9 + 0.1) / 2 - 1
        (SURELY_A, EVEN, 0.4),  # 2 * (0.9 + 0.5) / 2 - 1
        (logprobs(0.09, 0.01), logprobs(0.001, 0.009), 0.8),  # only the ratio counts
        (logprobs(0, 0), logprobs(0, 0), 0.0),
        (logprobs(1, 0), logprobs(0, 1), 1.0),
        (logprobs(0, 1), logprobs(1, 0), -1.0),
    ],
)
def test_a_graded_value_is_the_mean_share_of_the_good_option(
    straight: OptionLogprobs, swapped: OptionLogprobs, expected: float
) -> None:
    assert criterion_value(straight, swapped, "probability") == pytest.approx(expected)


any_logprob = st.one_of(st.floats(-1e6, 0), st.just(NEVER))


@settings(max_examples=50, deadline=None)
@given(any_logprob, any_logprob, any_logprob, any_logprob)
def test_values_are_in_range_and_change_sign_with_the_options(a: float, b: float, c: float, d: float) -> None:
    straight, swapped = OptionLogprobs((a, b), 1.0), OptionLogprobs((c, d), 1.0)
    reversed_ = OptionLogprobs((b, a), 1.0), OptionLogprobs((d, c), 1.0)
    binary = criterion_value(straight, swapped, "binary")
    assert binary in (-1.0, -0.5, 0.0, 0.5, 1.0)
    assert binary == -criterion_value(*reversed_, "binary")
    graded = criterion_value(straight, swapped, "probability")
    assert -1 <= graded <= 1
    assert graded == pytest.approx(-criterion_value(*reversed_, "probability"), abs=1e-12)


KIND = Criterion(name="kind", instruction="Is it kind?", good="Yes.", bad="No.")
TRUE = Criterion(name="true", instruction="Is it true?", good="Right.", bad="Wrong.", weight=3.0)
SAFE = Criterion(name="safe", instruction="Is it safe?", good="Safe.", bad="Unsafe.", veto=True)

HELLO = Transcript("", "Hello")
GOOD, BAD, UNSURE = (SURELY_A, SURELY_B), (SURELY_B, SURELY_A), (SURELY_A, SURELY_A)


def judge(*pairs: tuple[Criterion, tuple[OptionLogprobs, OptionLogprobs]], **settings: Any) -> Verdict:
    """The verdict on "Hello" if the criteria are answered so, straight and swapped."""
    replies = {
        asked.question: reply
        for criterion, pair in pairs
        for asked, reply in zip(asked_about(criterion, HELLO, "plain"), pair, strict=True)
    }
    engine = ScriptedEngine(score=replies)
    context = engine.open("", max_tokens=1)
    rubric = Rubric(name="mine", criteria=tuple(criterion for criterion, _ in pairs))
    return run(Job(RubricJudge(rubric, context, **settings)(HELLO), {context: engine})).result


def verdict(value: float, values: dict[str, float], masses: dict[str, float] | None = None, **told: Any) -> Verdict:
    """A verdict; criteria whose mass is not given had all of it on their options."""
    told |= {"is_vetoed": bool(told.get("vetoed_by"))}
    return Verdict(value, values, masses=dict.fromkeys(values, 1.0) | (masses or {}), **told)


def test_a_criterion_alone_gives_the_verdict() -> None:
    assert judge((KIND, GOOD)) == verdict(1.0, {"kind": 1.0})
    assert judge((KIND, GOOD), scoring="probability").value == pytest.approx(0.8)


def test_the_value_is_the_mean_of_the_criteria_by_weight() -> None:
    # one quarter of 1 and three quarters of -1
    judged = judge((KIND, GOOD), (TRUE, BAD))
    assert judged == verdict(-0.5, {"kind": 1.0, "true": -1.0})
    assert judged.values == {"kind": 1.0, "true": -1.0}


def test_a_veto_rules_out_whatever_the_others_say() -> None:
    judged = judge((TRUE, GOOD), (SAFE, BAD))
    assert judged == verdict(-1.0, {"true": 1.0, "safe": -1.0}, vetoed_by=("safe",))


def test_a_criterion_that_may_veto_and_finds_nothing_counts_like_the_others() -> None:
    assert judge((KIND, GOOD), (SAFE, UNSURE)) == verdict(0.5, {"kind": 1.0, "safe": 0.0})


def test_bad_without_veto_is_no_veto() -> None:
    assert judge((KIND, BAD)) == verdict(-1.0, {"kind": -1.0})


def faint(pair: tuple[OptionLogprobs, OptionLogprobs], *masses: float) -> tuple[OptionLogprobs, OptionLogprobs]:
    first, second = (OptionLogprobs(reply.logprobs, mass) for reply, mass in zip(pair, masses, strict=True))
    return first, second


@pytest.mark.parametrize("masses", [(0.2, 0.9), (0.9, 0.2), (0.1, 0.1)])
def test_little_mass_on_the_options_in_either_order_is_an_abstention(masses: tuple[float, float]) -> None:
    judged = judge((KIND, faint(GOOD, *masses)), (TRUE, GOOD), min_option_mass=0.2)
    assert judged == verdict(
        0.0, {"kind": 0.0, "true": 1.0}, {"kind": min(masses)}, is_abstained=True, abstained=("kind",)
    )
    assert not judged.satisfies(-1.0)


def test_more_mass_than_the_least_is_no_abstention() -> None:
    assert judge((KIND, faint(GOOD, 0.21, 0.21)), min_option_mass=0.2) == verdict(1.0, {"kind": 1.0}, {"kind": 0.21})


def test_no_mass_at_all_is_always_an_abstention() -> None:
    assert judge((KIND, (logprobs(0, 0, 0.0), logprobs(0, 0, 0.0)))).is_abstained


def test_a_criterion_that_abstains_does_not_veto() -> None:
    # Neither order has a probability for any option, which would be no vote for either: found against nothing.
    nothing = (logprobs(0, 0, 0.0), logprobs(0, 0, 0.0))
    abstained: dict[str, Any] = {"is_abstained": True, "abstained": ("safe",)}
    assert judge((SAFE, nothing)) == verdict(0.0, {"safe": 0.0}, {"safe": 0.0}, **abstained)
    assert judge((SAFE, faint(BAD, 0.1, 0.1)), min_option_mass=0.2) == verdict(
        0.0, {"safe": 0.0}, {"safe": 0.1}, **abstained
    )


def test_a_veto_weighs_more_than_the_abstention_of_another_criterion() -> None:
    judged = judge((KIND, faint(GOOD, 0.1, 0.1)), (SAFE, BAD), min_option_mass=0.2)
    assert judged == verdict(-1.0, {"kind": 0.0, "safe": -1.0}, {"kind": 0.1}, vetoed_by=("safe",), abstained=("kind",))


def test_a_rubric_can_veto_if_any_criterion_can() -> None:
    context = ScriptedEngine().open("", max_tokens=1)
    rubrics = [Rubric(name="mine", criteria=criteria) for criteria in [(KIND,), (KIND, SAFE)]]
    assert [RubricJudge(rubric, context).can_veto for rubric in rubrics] == [False, True]


def test_all_criteria_are_asked_in_both_orders_in_one_round_each_with_its_own_examples() -> None:
    examples = (
        Example(criterion="true", response="2 + 2 = 5", is_good=False),
        Example(criterion="kind", prompt="Well?", response="Nice!", is_good=True),
    )
    rubric = Rubric(name="mine", criteria=(KIND, TRUE), examples=examples)
    context = ScriptedEngine().open("", max_tokens=1)
    asked = next(RubricJudge(rubric, context)(HELLO))
    shown = (
        (KIND, Transcript("Human: Well?\n\nAssistant:", " Nice!"), True),
        (TRUE, Transcript("", "2 + 2 = 5"), False),
    )
    questions = [
        each.question
        for criterion, transcript, is_good in shown
        for each in asked_about(criterion, HELLO, "plain", [(transcript, is_good)])
    ]
    assert asked.requests == tuple(Score(context, each, "The answer is: (", ("A", "B")) for each in questions)
