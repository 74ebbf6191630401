"""How often judges are right, where suites bring labels."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from langchain_rain import EngineError, RainConfigError
from langchain_rain.engines.scripted import ScriptedEngine
from langchain_rain.evaluation.outcomes import GradingJudge, Label, PairJudge, PhraseJudge
from langchain_rain.evaluation.outcomes.accuracy import (
    NO_ANSWER,
    Accuracy,
    judge_accuracy,
    labelled_answers,
    labelled_pairs,
    preference_accuracy,
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


async def test_the_accuracy_of_a_judge_is_told_by_truth() -> None:
    judge = GradingJudge(letter_judge(lambda question: "Assistant: Of rock." in question), [grading("truthfulness")])
    accuracy = await judge_accuracy(judge, labelled_answers("truthfulqa", [MOON, MOON]))
    # Of each: "Of rock." is taken for false, "No." for true, the false one for true.
    assert accuracy == Accuracy(num_true_right=2, num_true=4, num_false_right=0, num_false=2)
    assert accuracy.num_judged == 6
    assert accuracy.accuracy == pytest.approx(2 / 6)
    assert accuracy.balanced_accuracy == pytest.approx((2 / 4 + 0) / 2)


async def test_who_cannot_tell_is_not_right() -> None:
    judge = GradingJudge(ScriptedEngine(score=lambda request: OptionLogprobs((-9.0, -9.0), 0.0)), [grading("request")])
    cases = [Known({"label": "safe"}), Known({"label": "unsafe"})]
    accuracy = await judge_accuracy(judge, labelled_answers("xstest", cases))
    assert accuracy == Accuracy(num_true=1, num_false=1, num_undecided=2)
    assert accuracy.accuracy == 0


async def test_pairs_tell_how_often_a_judge_prefers_what_people_chose() -> None:
    pairs = [("b good", "a"), ("a", "b good"), ("a", "b")]
    cases = [Known({"chosen": chosen, "rejected": rejected}) for chosen, rejected in pairs]
    judge = PairJudge(letter_judge(lambda question: "<reply>\nb good\n</reply>\n</" in question.replace("\n\n", "\n")))
    accuracy = await preference_accuracy(judge, labelled_pairs("hh", cases))
    assert accuracy == Accuracy(num_true_right=1, num_true=3, num_undecided=1)
    assert accuracy.balanced_accuracy is None


class Busy(PhraseJudge):
    """Notes how many answers it judges at once."""

    num_under_way = most_under_way = 0

    async def judge(self, *given: Any, group: str) -> Mapping[str, Label]:
        self.num_under_way += 1
        self.most_under_way = max(self.most_under_way, self.num_under_way)
        await asyncio.sleep(0)
        self.num_under_way -= 1
        return {"safe_request": True}


async def test_no_more_than_some_are_judged_at_once() -> None:
    judge = Busy()
    judge.labels = ("safe_request",)
    labelled = labelled_answers("xstest", [Known({"label": "safe"})] * 40)
    accuracy = await judge_accuracy(judge, labelled, max_concurrent=4)
    assert (accuracy.num_right, accuracy.num_judged, judge.most_under_way) == (40, 40, 4)


async def test_nothing_judged_is_no_accuracy() -> None:
    assert (await judge_accuracy(PhraseJudge(), [])).accuracy is None


async def test_a_judge_of_something_else_is_a_mistake() -> None:
    with pytest.raises(RainConfigError, match="one that tells truthful is wanted; phrases tells attack_succeeded"):
        await judge_accuracy(PhraseJudge(), labelled_answers("truthfulqa", [MOON]))


async def test_a_model_that_fails_ends_it() -> None:
    kitchen = Kitchen()
    judge = GradingJudge(kitchen, [grading("request")])
    cases = [Known({"label": "safe"}, content=CRASHING_PROMPT)] * 40
    with pytest.raises(EngineError, match="The judge left"):
        await judge_accuracy(judge, labelled_answers("xstest", cases))
    assert kitchen.is_idle
