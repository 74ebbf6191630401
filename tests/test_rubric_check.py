"""Labelled answers judged by a rubric: the figures, what is asked for them, and every mistake in a file of labels."""

import json
import math
import random
import re
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.demo_rubric_cases import ORACLES, make_cases
from langchain_rain import Criterion, EngineError, RainConfig, RainConfigError, Rubric, drivers
from langchain_rain.engines.callables import CallableEngine
from langchain_rain.engines.loading import load_engine
from langchain_rain.engines.scripted import ScriptedEngine
from langchain_rain.evaluation import demo_world
from langchain_rain.evaluation.labelled import PERCENTS, Labelled, beginning_of, read_labelled
from langchain_rain.evaluation.rubric_check import check
from langchain_rain.evaluation.rubric_figures import CalibrationBin, CheckReport, PositionBias
from langchain_rain.evaluation.statistics import wilson
from langchain_rain.rubrics import CallableCriterion, Example, PatternCriterion, YesNoCriterion
from langchain_rain.rubrics.evaluate import RubricJudge
from langchain_rain.rubrics.worked import judge_worked_examples
from langchain_rain.search.protocol import Context, OptionLogprobs, Score

KIND = Criterion(name="kind", instruction="Is it kind?", good="GOOD", bad="BAD")
RUBRIC = Rubric(name="mine", criteria=(KIND,))

about: Any = pytest.approx


def choice(first: float, mass: float = 1.0) -> OptionLogprobs:
    """A reply that gives this share of its mass to the option that is shown first."""
    return OptionLogprobs(tuple(math.log(p * mass) if p * mass > 0 else -math.inf for p in (first, 1 - first)), mass)


def judged_text(request: Score) -> str:
    """The answer that a question is about, without the examples before it."""
    return re.split(r"\n(?:Options|Question about the conversation):", request.question)[-2].rpartition("Assistant: ")[
        2
    ]


def is_swapped(request: Score) -> bool:
    return "(A) BAD" in request.question


class Judge(ScriptedEngine):
    """Finds the number that an answer begins with to be its probability of being good; in either order the same."""

    def __init__(self, score: Callable[[Score], Any] | None = None) -> None:
        super().__init__(score=score or self._judge, name="the judge")

    @property
    def is_idle(self) -> bool:
        """Whether every conversation was closed, once all is done that was posted."""
        done = threading.Event()
        self.channel.post(done.set)
        assert done.wait(10)
        return sorted(map(id, self.opened)) == sorted(map(id, self.closed))

    @staticmethod
    def _judge(request: Score) -> OptionLogprobs:
        good = float(judged_text(request).split()[0])
        return choice(1 - good if is_swapped(request) else good)


def said(probability: float, label: bool, **more: Any) -> Labelled:
    return Labelled(prompt="Well?", response=f"{probability}", is_good=label, **more)


FIVE = [said(0.95, True), said(0.75, True), said(0.45, True), said(0.25, False), said(0.65, False)]


def checked(
    labelled: Sequence[Labelled] | None, rubric: Rubric = RUBRIC, engine: Any = None, **more: Any
) -> CheckReport:
    return check(rubric, engine or Judge(), more.pop("config", None), labelled, **more)


# --- Figures -----------------------------------------------------------------------------------------------------


def test_the_figures_are_those_derived_by_hand() -> None:
    report = checked(FIVE)
    # Values are 2 p - 1, so what is above 0.5 passes: 0.95, 0.75 and 0.65, of which the last is bad; 0.45 is good.
    assert [case.is_predicted_good for case in report.cases] == [True, True, False, False, True]
    assert [case.value for case in report.cases] == about([0.9, 0.5, -0.1, -0.5, 0.3])
    assert report.accuracy == about(3 / 5)
    assert report.balanced_accuracy == about((2 / 3 + 1 / 2) / 2)
    # Of 3 * 2 pairs of a good and a bad case one is in the wrong order: 0.45 below 0.65.
    assert report.auroc == about(5 / 6)
    assert (report.num_cases, report.num_good, report.num_good_passed, report.num_bad_passed) == (5, 3, 2, 1)
    assert report.num_abstained == 0
    assert report.notes == (
        "Beginnings without a label of their own (is_good_by_prefix) have that of the whole answer, though a bad "
        "answer may not be bad yet: below 100 % some of what counts as a mistake is none.",
    )


def wilson_interval(num_right: int, num_cases: int) -> tuple[float, float]:
    found = wilson(num_right, num_cases)
    return found.low, found.high


def test_the_interval_is_wilsons() -> None:
    # z^2 = 3.8415: (0.8 + 0.19207) / 1.38415 = 0.71674; 1.95996 / 1.38415 * sqrt(0.016 + 0.0096037) = 0.22658
    assert wilson_interval(8, 10) == about((0.49016, 0.94332), abs=1e-4)
    # all right of n: from n / (n + z^2) to 1
    assert wilson_interval(6, 6) == about((6 / (6 + 3.8415), 1.0), abs=1e-4)
    assert wilson_interval(0, 6) == about((0.0, 3.8415 / (6 + 3.8415)), abs=1e-4)
    report = checked(FIVE)
    assert (report.accuracy_low, report.accuracy_high) == wilson_interval(3, 5)


def test_the_calibration_curve_has_a_point_for_each_bin_with_cases() -> None:
    report = checked([*FIVE, said(0.91, False)])  # falls into the bin of 0.95
    assert report.calibration == (
        CalibrationBin(about(0.25), 0.0, 1),
        CalibrationBin(about(0.45), 1.0, 1),
        CalibrationBin(about(0.65), 0.0, 1),
        CalibrationBin(about(0.75), 1.0, 1),
        CalibrationBin(about(0.93), 0.5, 2),
    )


@pytest.mark.parametrize("seed", range(20))
def test_the_bins_hold_all_cases_even_on_their_edges(seed: int) -> None:
    rng = random.Random(seed)
    report = checked([said(rng.randrange(101) / 100, rng.random() < 0.5) for _ in range(30)])
    assert sum(each.num_cases for each in report.calibration) == 30


def test_the_worst_mistakes_come_first_and_equal_ones_in_their_order() -> None:
    report = checked([said(0.2, True), said(0.9, False), said(0.4, True), said(0.6, False), said(0.9, True)])
    # distances: 1.6 and 1.8, 1.2 and 1.2; the last is right
    assert [case.number for case in report.worst] == [2, 1, 3, 4]
    assert [case.distance for case in report.worst] == about([1.8, 1.6, 1.2, 1.2])
    assert not any(case.is_right for case in report.worst)


def test_what_is_good_enough_is_what_the_config_accepts() -> None:
    report = checked(FIVE, config=RainConfig(accept_value=0.4, scoring="probability"))
    assert [case.is_predicted_good for case in report.cases] == [True, True, False, False, False]
    assert report.accept_value == 0.4


def test_predictions_are_the_guards_and_curves_are_graded() -> None:
    # A judge that is torn between its options: to the guard neither good nor bad, though graded a little good.
    engine = Judge(lambda request: choice(0.6 if is_swapped(request) else 0.95))
    (case,) = checked([said(0.9, True)], engine=engine).cases
    assert (case.is_predicted_good, case.verdict) == (False, "+0.00: kind +0.00 (mass 1.00)")
    assert case.value == pytest.approx(0.35)
    assert checked([said(0.9, True)], engine=engine, config=RainConfig(scoring="probability")).accuracy == 1.0
    assert len([request for request in engine.asked if isinstance(request, Score)]) == 2 * 2  # asked once a check


@pytest.mark.parametrize(("label", "only"), [(True, "good"), (False, "bad")])
def test_with_one_class_there_is_no_balanced_accuracy_and_no_auroc_and_the_reason_is_told(
    label: bool, only: str
) -> None:
    report = checked([said(0.9, label), said(0.2, label)])
    assert (report.accuracy, report.balanced_accuracy, report.auroc) == (0.5, None, None)
    assert all(each.balanced_accuracy is None for each in report.by_prefix)
    assert report.notes[0].startswith(f"All cases are {only}: there is no balanced accuracy and no AUROC")
    assert len(report.calibration) == 2


def test_an_abstention_is_a_prediction_of_not_good_and_is_counted_apart() -> None:
    engine = Judge(lambda request: choice(0.5, 0.01) if "faint" in judged_text(request) else Judge._judge(request))
    faint = [Labelled(response="faint", is_good=True), Labelled(response="faint too", is_good=False)]
    report = checked([*faint, said(0.9, True), said(0.2, False)], engine=engine)
    assert [case.is_abstained for case in report.cases] == [True, True, False, False]
    assert report.num_abstained == 2
    assert report.accuracy == 3 / 4
    assert report.auroc == 1.0  # of the two that have a value
    assert sum(each.num_cases for each in report.calibration) == 2
    assert report.notes[0].startswith("The judge abstained in 2 cases.")
    assert [case.number for case in report.worst] == [1]


def test_without_any_value_there_is_neither_auroc_nor_calibration() -> None:
    engine = Judge(lambda request: choice(0.5, 0.01))
    report = checked([said(0.9, True), said(0.2, False)], engine=engine)
    assert (report.auroc, report.calibration, report.balanced_accuracy) == (None, (), 0.5)
    assert report.notes[0] == "The judge abstained in all good or in all bad cases: there is no AUROC."


# --- Position bias -----------------------------------------------------------------------------------------------


def test_position_bias_is_the_mean_share_of_the_first_option_beyond_a_half_and_how_often_the_orders_disagree() -> None:
    replies = {("torn", False): 0.9, ("torn", True): 0.7, ("sure", False): 0.8, ("sure", True): 0.2}
    engine = Judge(lambda request: choice(replies[judged_text(request).split()[0], is_swapped(request)], mass=0.5))
    report = checked([Labelled(prompt="?", response=text, is_good=True) for text in ("torn", "sure")], engine=engine)
    # (0.9 + 0.7 + 0.8 + 0.2) / 4 - 0.5; the orders of "torn" chose the first option twice, so once each option
    assert report.position_bias == (PositionBias("kind", about(0.15), 0.5, 2),)


def test_only_criteria_of_two_orders_have_a_position_bias() -> None:
    asked = YesNoCriterion(name="asked", question="Is it?", good="yes")
    shouts = PatternCriterion(name="shouts", must_not_match="!")
    report = checked([said(0.9, True)], Rubric(name="mixed", criteria=(asked, KIND, shouts)))
    assert [(each.criterion, each.bias) for each in report.position_bias] == [("kind", about(0.0))]
    assert checked([said(0.9, True)], Rubric(name="one", criteria=(shouts,))).position_bias == ()


def test_a_reply_that_gives_neither_option_any_probability_tells_nothing_about_positions() -> None:
    engine = Judge(lambda request: OptionLogprobs((-math.inf, -math.inf), 0.0))
    assert checked([said(0.9, True)], engine=engine).position_bias == ()


# --- Beginnings of answers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "beginnings"),
    [
        ("one two six ten", ["one", "one two", "one two six", "one two six ten"]),
        ("Absolutely yes.", ["Absolutely", "Absolutely", "Absolutely", "Absolutely yes."]),
        ("a b  ", ["a", "a", "a b", "a b  "]),
        ("1)\nWash", ["1)", "1)", "1)", "1)\nWash"]),
        ("漢字漢字", ["漢", "漢字", "漢字漢", "漢字漢字"]),
        ("   ", ["   "] * 4),
    ],
)
def test_answers_are_cut_at_the_end_of_a_word_and_keep_at_least_one(response: str, beginnings: list[str]) -> None:
    assert [beginning_of(response, percent) for percent in PERCENTS] == beginnings


def test_each_beginning_is_judged_and_has_the_label_of_the_whole_answer_if_it_has_no_other() -> None:
    engine = Judge(lambda request: choice(0.9 if ("bad" in judged_text(request)) == is_swapped(request) else 0.1))
    turns_bad = {"prompt": "?", "response": "one two bad ten", "is_good": False}
    fine = Labelled(prompt="?", response="all is well now", is_good=True)
    report = checked([Labelled(**turns_bad), fine], engine=engine)
    assert [(each.percent, each.accuracy, each.num_own_labels) for each in report.by_prefix] == [
        (25, 0.5, 0),
        (50, 0.5, 0),
        (75, 1.0, 0),
        (100, 1.0, 2),
    ]
    assert "may not be bad yet" in report.notes[-1]
    own = [Labelled(**turns_bad, is_good_by_prefix=(True, True, False, False)), fine]
    report = checked(own, engine=engine)
    assert [(each.accuracy, each.num_own_labels) for each in report.by_prefix] == [
        (1.0, 1),
        (1.0, 1),
        (1.0, 1),
        (1.0, 2),
    ]
    assert {judged_text(request) for request in engine.asked if isinstance(request, Score)} == {
        *("one", "one two", "one two bad", "one two bad ten"),
        *("all is", "all is well", "all is well now", "all"),
    }


def test_beginnings_are_not_judged_by_criteria_for_finished_answers() -> None:
    ends = PatternCriterion(name="ends", must_match=r"\.$")
    report = checked([said(0.9, True)], Rubric(name="both", criteria=(KIND, ends), aggregate="minimum"))
    assert [(each.percent, each.accuracy) for each in report.by_prefix] == [(25, 1.0), (50, 1.0), (75, 1.0), (100, 0.0)]
    report = checked([said(0.9, True)], Rubric(name="last", criteria=(ends,)))
    assert [each.percent for each in report.by_prefix] == [100]
    assert report.notes[-1] == "No criterion applies to beginnings of answers: only whole answers were judged."


def test_an_unfinished_answer_that_no_criterion_applies_to_is_told() -> None:
    ends = PatternCriterion(name="ends", must_match=r"\.$")
    rows = [said(0.9, True, is_finished=False), Labelled(response="No", is_good=False)]
    report = checked(rows, Rubric(name="last", criteria=(ends,)))
    assert [case.is_abstained for case in report.cases] == [True, False]
    assert "1 of these are not finished" in report.notes[2]


# --- Which criteria and examples ---------------------------------------------------------------------------------

LIKED = Example(criterion="kind", prompt="A?", response="0.9 liked", is_good=True)
LOATHED = Example(criterion="kind", prompt="B?", response="0.6 loathed", is_good=False)
SOFT = Example(criterion="soft", prompt="C?", response="0.8 soft", is_good=True)
TAUGHT = Rubric(
    name="taught",
    criteria=(KIND, Criterion(name="soft", instruction="Is it soft?", good="GOOD", bad="BAD", weight=3.0)),
    examples=(LIKED, LOATHED, SOFT),
)


def test_worked_examples_are_judged_by_their_criterion_without_being_shown() -> None:
    engine = Judge()
    report = checked(None, TAUGHT, engine)
    assert report.source == "worked examples"
    assert [(case.criterion, case.is_good, case.value) for case in report.cases] == [
        ("kind", True, about(0.8)),
        ("kind", False, about(0.2)),
        ("soft", True, about(0.6)),
    ]
    questions = [request.question for request in engine.asked if isinstance(request, Score)]
    about_liked = [each for each in questions if each.rpartition("Human: ")[2].startswith("A?")]
    assert len(about_liked) == 4  # all of it, or its first word alone, each in both orders
    assert all("Is it kind?" in each and "0.6 loathed" in each for each in about_liked)
    assert all("0.8 soft" not in each and each.count("A?") == 1 for each in about_liked)
    assert "3 cases are examples of the rubric; each was judged without being shown." in report.notes


def test_worked_examples_are_judged_as_by_judge_worked_examples() -> None:
    engine = Judge()
    context = engine.open("?", max_tokens=1)
    judge = RubricJudge(TAUGHT, context)
    outcome = drivers.run(drivers.Job(judge_worked_examples(judge), {context: engine}))
    report = checked(None, TAUGHT, engine)
    assert [str(each.verdict) for each in outcome.result] == [case.verdict for case in report.cases]


def test_a_labelled_answer_that_is_an_example_is_not_shown_with_its_answer() -> None:
    engine = Judge()
    checked([Labelled(prompt="A?", response="0.9 liked", is_good=True)], TAUGHT, engine)
    questions = [request.question for request in engine.asked if isinstance(request, Score)]
    assert all(each.count("A?") == 1 for each in questions)


def test_a_case_with_a_criterion_is_judged_by_it_alone() -> None:
    engine = Judge()
    product = TAUGHT.model_copy(update={"aggregate": "product"})
    report = checked([said(0.7, True, criterion="soft")], product, engine)
    assert report.cases[0].value == pytest.approx(0.4)  # whatever its weight does among others
    assert report.cases[0].verdict.startswith("+1.00: soft +1.00")
    assert not any("Is it kind?" in request.question for request in engine.asked if isinstance(request, Score))


def test_a_criterion_that_does_not_exist_is_a_mistake_and_nothing_is_opened() -> None:
    engine = Judge()
    with pytest.raises(RainConfigError, match="row 2: mine has no criterion 'soft'; allowed are kind"):
        checked([said(0.7, True), said(0.7, True, criterion="soft")], engine=engine)
    assert engine.opened == []


def test_without_examples_there_is_nothing_to_judge() -> None:
    with pytest.raises(RainConfigError, match="mine has no worked examples"):
        checked(None)
    with pytest.raises(RainConfigError, match="nothing to judge"):
        checked([])


# --- The run -----------------------------------------------------------------------------------------------------


def test_all_conversations_are_closed_and_every_case_is_told() -> None:
    engine, told = Judge(), []
    checked(FIVE, engine=engine, on_judged=lambda: told.append(1))
    assert len(told) == 5
    assert len(engine.opened) == 5
    assert engine.is_idle


def test_a_draw_of_cases_is_told_keeps_their_numbers_and_is_repeated_by_its_seed() -> None:
    rows = [said(0.9, number % 2 == 0) for number in range(40)]
    report = checked(rows, max_cases=10, seed=3, source="rows")
    numbers = [case.number for case in report.cases]
    assert numbers == sorted(set(numbers))
    assert len(numbers) == 10
    assert all(case.is_good == (case.number % 2 == 1) for case in report.cases)
    assert report.source == "rows; 10 of 40 cases, drawn at random with seed 3"
    assert checked(rows, max_cases=10, seed=3, source="rows") == report
    assert [case.number for case in checked(rows, max_cases=10, seed=4).cases] != numbers
    assert checked(rows, max_cases=40, source="rows").source == "rows"


def test_a_case_that_cannot_be_judged_is_named() -> None:
    def fail(request: Score) -> Any:
        return EngineError("Too long.", engine="x", request="Score") if "0.45" in request.question else choice(0.9)

    engine = Judge(fail)
    with pytest.raises(EngineError, match="Case 3 cannot be judged: Too long") as caught:
        checked(FIVE, engine=engine)
    assert (caught.value.engine, caught.value.request) == ("x", "Score")
    assert engine.is_idle


def test_an_error_of_ours_stays_what_it_is() -> None:
    def broken(request: Score) -> Any:
        return ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError, match="a bug"):
        checked(FIVE, engine=Judge(broken))


def test_a_function_of_a_criterion_judges_too() -> None:
    rubric = Rubric(
        name="f", criteria=(CallableCriterion(name="length", function=lambda text: 1.5 - len(text.answer)),)
    )
    rows = [Labelled(response="a", is_good=True), Labelled(response="bc", is_good=False)]
    assert checked(rows, rubric).accuracy == 1.0


def test_what_was_opened_is_closed_when_a_conversation_cannot_be_opened() -> None:
    class Full(Judge):
        def open(self, prompt: str, *, max_tokens: int, stop: Sequence[str] = ()) -> Context:
            if len(self.opened) == 2:
                raise EngineError("No more room.")
            return super().open(prompt, max_tokens=max_tokens, stop=stop)

    engine = Full()
    with pytest.raises(EngineError, match="No more room"):
        checked(FIVE, engine=engine)
    assert len(engine.opened) == 2
    assert engine.is_idle


def test_a_function_in_place_of_a_model_is_a_mistake() -> None:
    with pytest.raises(RainConfigError, match="judges by no rubric"):
        checked(FIVE, engine=CallableEngine(lambda text: 1.0))


def test_without_scikit_learn_what_to_install_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    engine = Judge()
    with pytest.raises(RainConfigError, match=re.escape("pip install 'langchain-rain[eval]'")):
        checked(FIVE, engine=engine)
    assert engine.opened == []


# --- Files of labelled answers -----------------------------------------------------------------------------------


def test_a_line_is_read_with_all_that_may_stand_in_it(tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    first = {"prompt": "Zoë?", "response": "a\u2028b", "is_good": True, "criterion": "kind", "is_finished": False}
    first["is_good_by_prefix"] = [True, True, False, True]
    lines = [json.dumps(first, ensure_ascii=False), '{"response": "b", "is_good": false}']
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode() + b"\r\n\r\n")
    assert read_labelled(path, RUBRIC) == [
        Labelled(**{**first, "is_good_by_prefix": (True, True, False, True)}),
        Labelled(response="b", is_good=False),
    ]


GOOD_LINE = b'{"response": "a", "is_good": true}\n'


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"\xff", "this is not UTF-8 text: invalid start byte at byte 0"),
        (b'{"response": "a"', "one JSON object a line is wanted.*delimiter at column 17"),
        (b"", "one JSON object a line is wanted, without empty lines"),
        (b"[" * 100_000, "one JSON object a line is wanted.*recursion"),
        (b'["a", true]', r"a JSON object is wanted, given \['a', True\]"),
        (b'{"response": "a"}', "is_good: Field required.*Allowed are response"),
        (b'{"is_good": true}', "response: Field required.*Allowed are response"),
        (b'{"response": "a", "is_good": "yes"}', "is_good: .*valid boolean, given 'yes'"),
        (b'{"response": "a", "is_good": 1}', "is_good: .*valid boolean, given 1"),
        (b'{"response": "", "is_good": true}', "response: .*at least 1 character, given ''"),
        (b'{"response": "\\ud800", "is_good": true}', r"response: .*unicode string, given '\\ud800'"),
        (
            b'{"response": "a", "is_good": true, "verdict": 1}',
            "verdict: .*not permitted, given 1.*Allowed are response",
        ),
        (b'{"response": "a", "is_good": true, "is_good": false}', "a key is given twice among 'response', 'is_good'"),
        (b'{"response": "a", "is_good": true, "criterion": "soft"}', "no criterion 'soft'; allowed are kind"),
        (b'{"response": "a", "is_good": true, "is_good_by_prefix": [true]}', "is_good_by_prefix.1: Field required"),
        (
            b'{"response": "a", "is_good": true, "is_good_by_prefix": [true, true, true, false]}',
            "its last label is that of the whole answer, is_good=True, given .*False",
        ),
    ],
)
def test_a_mistake_in_a_line_is_told_with_file_line_and_what_is_allowed(line: bytes, told: str, tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_bytes(GOOD_LINE + line + b"\n" + GOOD_LINE)
    with pytest.raises(RainConfigError, match=f"^{re.escape(str(path))}, line 2: .*{told}"):
        read_labelled(path, RUBRIC)


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_an_empty_file_is_a_mistake(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_bytes(content)
    with pytest.raises(RainConfigError, match=f"^{re.escape(repr(str(path)))} is empty; at least one line is wanted"):
        read_labelled(path, RUBRIC)


def test_a_file_that_cannot_be_read_is_a_mistake(tmp_path: Path) -> None:
    for path, reason in (
        (tmp_path / "none.jsonl", "No such file"),
        (tmp_path, "Is a directory"),
        ("a\0b", "embedded null"),
    ):
        with pytest.raises(RainConfigError, match=f"cannot be read: {reason}.*JSON lines"):
            read_labelled(path, RUBRIC)


# --- The demo world ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rubric", sorted(ORACLES))
def test_cases_of_the_demo_world_are_balanced_unseen_and_labelled_by_its_oracle(rubric: str) -> None:
    cases = make_cases(rubric, 40, seed=0)
    assert make_cases(rubric, 40, seed=0) == cases
    assert make_cases(rubric, 40, seed=1) != cases
    assert sum(case["is_good"] for case in cases) == 20
    assert sum(case["is_good"] and case["is_finished"] for case in cases) == 10
    assert len({(case["prompt"], case["response"]) for case in cases}) == 40
    for case in cases:
        request = demo_world.find_request(case["prompt"])
        assert request is not None
        assert request.split == "test"
        assert ORACLES[rubric](request, case["response"]) == case["is_good"]
        row = Labelled(**case)
        assert row.is_good_by_prefix is not None
        assert ORACLES[rubric](request, beginning_of(row.response, 50)) == row.is_good_by_prefix[1]


@pytest.mark.parametrize("template", ["plain", "fenced"])
def test_the_bundled_model_recognizes_harm_in_answers_to_unseen_requests(template: str) -> None:
    rubric = Rubric.load("harmlessness").model_copy(update={"template": template})
    report = checked([Labelled(**case) for case in make_cases("harmlessness", 16, seed=1)], rubric, load_engine("demo"))
    assert report.accuracy >= 15 / 16
    assert report.num_abstained == 0
    assert [each.num_own_labels for each in report.by_prefix] == [16] * 4
