"""How often judges are right, where suites bring labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from langchain_rain import EngineError, RainConfigError
from langchain_rain.engines.scripted import ScriptedEngine
from langchain_rain.evaluation.outcomes import GradingJudge, PhraseJudge, guard_judge
from langchain_rain.evaluation.outcomes.accuracy import (
    NO_ANSWER,
    Accuracy,
    Checked,
    checks_of,
    labelled_answers,
    labelled_pairs,
)
from langchain_rain.evaluation.outcomes.grading import grading
from langchain_rain.search.protocol import OptionLogprobs
from tests.fake_chat_models import letter_judge
from tests.scripted_world import CRASHING_PROMPT, Kitchen


@dataclass(frozen=True)
class Known:
    reference: Mapping[str, Any]
    content: Any = field(default_factory=lambda: [{"role": "user", "content": "Is the moon made of cheese?"}])
    id: str = "suite:1"
    group: str = "moons"


MOON = Known({"correct_answers": ["Of rock.", "No."], "incorrect_answers": ["Yes, of cheese."]})


def test_answers_of_truthfulqa_are_labelled_and_none_is_among_those_it_is_judged_by() -> None:
    told = list(labelled_answers("truthfulqa", [MOON]))
    assert [(each.answer, each.label, each.truth) for each in told] == [
        ("Of rock.", "truthful", True),
        ("No.", "truthful", True),
        ("Yes, of cheese.", "truthful", False),
    ]
    assert told[0].reference == {"correct_answers": ["No."], "incorrect_answers": ["Yes, of cheese."]}
    assert told[2].reference == {"correct_answers": ["Of rock.", "No."], "incorrect_answers": []}
    assert {(each.case_id, each.group) for each in told} == {("suite:1", "moons")}


def test_requests_of_xstest_are_labelled_by_themselves() -> None:
    told = list(labelled_answers("xstest", [Known({"label": "safe"}), Known({"label": "unsafe"})]))
    assert [(each.answer, each.label, each.truth, each.reference) for each in told] == [
        (NO_ANSWER, "safe_request", True, {}),
        (NO_ANSWER, "safe_request", False, {}),
    ]


def test_pairs_of_hh_are_those_that_differ() -> None:
    cases = [
        Known({"chosen": "a", "rejected": "b"}),
        Known({"chosen": "a", "rejected": "a"}),
        Known({"rating": 1}),
        Known({"chosen": "a", "rejected": ""}),
    ]
    assert [(pair.chosen, pair.rejected) for pair in labelled_pairs("hh", cases)] == [("a", "b"), ("a", "")]


def test_other_suites_have_no_labels() -> None:
    with pytest.raises(RainConfigError, match="truthfulqa and xstest have labels of answers, given 'hh'"):
        list(labelled_answers("hh", []))
    with pytest.raises(RainConfigError, match="hh has pairs, given 'xstest'"):
        list(labelled_pairs("xstest", []))
    with pytest.raises(RainConfigError, match=r"suite:1: label is wanted in its reference, given 'type'"):
        list(labelled_answers("xstest", [Known({"type": "homonyms"})]))


async def checked(judge: Any, suite: str, cases: Sequence[Any]) -> list[Checked]:
    return [await check.ask() for check in checks_of(judge, suite, cases)]


async def test_the_accuracy_of_a_judge_is_told_by_truth() -> None:
    judge = GradingJudge(letter_judge(lambda question: "Assistant: Of rock." in question), [grading("truthfulness")])
    accuracy = Accuracy.of(await checked(judge, "truthfulqa", [MOON, replace(MOON, id="suite:2")]))
    # Of each: "Of rock." is taken for false, "No." for true, the false one for true.
    assert accuracy == Accuracy(num_true_right=2, num_true=4, num_false_right=0, num_false=2)
    assert accuracy.num_judged == 6
    assert accuracy.accuracy == pytest.approx(2 / 6)
    assert accuracy.balanced_accuracy == pytest.approx((2 / 4 + 0) / 2)


async def test_an_answer_that_stands_in_a_case_twice_is_asked_about_once() -> None:
    judge = GradingJudge(letter_judge(lambda question: True), [grading("truthfulness")])
    twice = Known({"correct_answers": ["No.", "No."], "incorrect_answers": ["Yes."]})
    checks = checks_of(judge, "truthfulqa", [twice])
    assert [(await check.ask()).truth for check in checks] == [True, False]
    assert len({check.id for check in checks}) == 2


async def test_who_cannot_tell_is_not_right() -> None:
    judge = GradingJudge(ScriptedEngine(score=lambda request: OptionLogprobs((-9.0, -9.0), 0.0)), [grading("refusal")])
    cases = [Known({"label": "safe"}), Known({"label": "unsafe"}, id="suite:2")]
    found = await checked(judge, "xstest", cases)
    assert found == [Checked("suite:1", True, None), Checked("suite:2", False, None)]
    accuracy = Accuracy.of(found)
    assert accuracy == Accuracy(num_true=1, num_false=1, num_undecided=2)
    assert accuracy.accuracy == 0


async def test_requests_of_xstest_are_asked_about_by_a_rubric_of_their_own() -> None:
    judge = GradingJudge(letter_judge(lambda question: "nobody has answered yet" not in question), [grading("refusal")])
    (found,) = await checked(judge, "xstest", [Known({"label": "safe"})])
    assert found == Checked("suite:1", True, True)


async def test_pairs_tell_how_often_a_judge_prefers_what_people_chose() -> None:
    pairs = [("b good", "a"), ("a", "b good"), ("a", "b")]
    cases = [Known({"chosen": chosen, "rejected": rejected}, id=chosen + rejected) for chosen, rejected in pairs]
    model = letter_judge(lambda question: "<reply>\nb good\n</reply>\n</" in question.replace("\n\n", "\n"))
    found = await checked(GradingJudge(model, [grading("harmlessness")]), "hh", cases)
    assert [(each.truth, each.found) for each in found] == [(True, True), (True, False), (True, None)]
    accuracy = Accuracy.of(found)
    assert accuracy == Accuracy(num_true_right=1, num_true=3, num_undecided=1)
    assert accuracy.balanced_accuracy is None


def test_nothing_judged_is_no_accuracy() -> None:
    assert Accuracy.of([]).accuracy is None


def test_nobody_is_asked_what_is_not_known_or_who_asks_no_model_in_words() -> None:
    harm = GradingJudge(letter_judge(lambda question: True), [grading("harmlessness")])
    assert checks_of(PhraseJudge(), "truthfulqa", [MOON]) == []
    assert checks_of(harm, "truthfulqa", [MOON]) == []
    assert checks_of(harm, "jsonl", [MOON]) == checks_of(harm, "demo", [MOON]) == []
    guard = guard_judge(ScriptedEngine(score=lambda request: OptionLogprobs((-1.0, -1.0), 0.7)))
    assert checks_of(guard, "hh", [Known({"chosen": "a", "rejected": "b"})]) == []


async def test_a_model_that_fails_says_so() -> None:
    kitchen = Kitchen()
    judge = GradingJudge(kitchen, [grading("refusal")])
    with pytest.raises(EngineError, match="The judge left"):
        await checked(judge, "xstest", [Known({"label": "safe"}, content=CRASHING_PROMPT)])
    assert kitchen.is_idle
