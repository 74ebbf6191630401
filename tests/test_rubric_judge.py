"""Rubrics of several kinds of criterion: what is asked, of whom, in which order, and what the replies say."""

import asyncio
import math
from collections.abc import Sequence
from typing import Any

import pytest

from langchain_rain import RainConfig
from langchain_rain.drivers import Job, arun, run
from langchain_rain.engines.calling import Calls
from langchain_rain.engines.scripted import ScriptedEngine
from langchain_rain.errors import EngineError
from langchain_rain.judging import Loaded, open_judge
from langchain_rain.rubrics import (
    CallableCriterion,
    Criterion,
    Example,
    GuardCriterion,
    PatternCriterion,
    Rubric,
    ScaleCriterion,
    YesNoCriterion,
)
from langchain_rain.rubrics.asking import asked_about, finding
from langchain_rain.rubrics.evaluate import RubricJudge
from langchain_rain.rubrics.worked import Judged, at_chance, judge_worked_examples
from langchain_rain.search.protocol import OptionLogprobs, Score, Transcript, Verdict, observed

KIND = Criterion(name="kind", instruction="Is it kind?", good="Yes.", bad="No.")
BRIEF = YesNoCriterion(name="brief", question="Is it brief?", good="yes")
CLEAR = ScaleCriterion(name="clear", instruction="How clear?", worst="A riddle.", best="Crystal.")
NO_REFUND = PatternCriterion(name="no_refund", must_not_match="(?i)refund", veto=True)
SAFE = GuardCriterion(name="safe", form="llama_guard", categories=("S1",))
TURN = Transcript("Human: Hi\n\nAssistant:", " Hello")


def reply(*probabilities: float, mass: float = 1.0) -> OptionLogprobs:
    return OptionLogprobs(tuple(math.log(p) if p > 0 else -math.inf for p in probabilities), mass)


class Judge:
    """Says to every question what its table says of the criterion; notes which criteria are asked together."""

    def __init__(self, **replies: OptionLogprobs | Sequence[OptionLogprobs]) -> None:
        self.replies = replies
        self.engine = ScriptedEngine(score=self._score)
        self.rounds: list[list[str]] = []

    def _score(self, request: Score) -> OptionLogprobs:
        name = next(name for name in self.replies if _marks(name) in request.question)
        said = self.replies[name]
        if isinstance(said, OptionLogprobs):
            return said
        return said[int("(A) No." in request.question)]

    def verdict(self, *criteria: Any, transcript: Transcript = TURN, **settings: Any) -> Verdict:
        rubric = Rubric(name="mine", criteria=criteria, aggregate=settings.pop("aggregate", "mean"))
        config = RainConfig(min_option_mass=0.1, **settings)
        judging = open_judge(rubric, self.engine, config, loaded=Loaded(), calls=Calls())
        steps = judging.judge(transcript)
        verdict: Verdict = run(Job(self._noting(steps), judging.contexts)).result
        return verdict

    def _noting(self, steps: Any) -> Any:
        replies = None
        while True:
            try:
                asked = steps.send(replies)
            except StopIteration as stop:
                return stop.value
            self.rounds.append([each.options[0] for each in asked.requests])
            replies = yield asked


def _marks(name: str) -> str:
    return {"kind": "Is it kind?", "brief": "Is it brief?", "clear": "How clear?", "safe": "UNSAFE CONTENT"}[name]


KIND_REPLIES = (reply(0.9, 0.1), reply(0.1, 0.9))


@pytest.mark.parametrize(
    ("said", "scoring", "value"),
    [
        (reply(0.8, 0.2), "binary", 1.0),
        (reply(0.2, 0.8), "binary", -1.0),
        (reply(0.5, 0.5), "binary", 0.0),
        (reply(0.08, 0.02, mass=0.5), "probability", 0.6),
    ],
)
def test_yes_or_no_is_one_vote(said: OptionLogprobs, scoring: str, value: float) -> None:
    assert Judge(brief=said).verdict(BRIEF, scoring=scoring).value == pytest.approx(value)
    other = BRIEF.model_copy(update={"good": "no"})
    assert Judge(brief=said).verdict(other, scoring=scoring).value == pytest.approx(-value)


@pytest.mark.parametrize(
    ("shares", "value"),
    [
        ((0, 0, 0, 0, 1), 1.0),
        ((1, 0, 0, 0, 0), -1.0),
        ((0.2, 0.2, 0.2, 0.2, 0.2), 0.0),
        ((0, 0, 0, 0.05, 0.05), 0.75),  # a mean of 4.5 is three quarters of the way from 3 to 5
    ],
)
def test_a_rating_is_the_mean_of_its_distribution(shares: tuple[float, ...], value: float) -> None:
    for scoring in ("binary", "probability"):
        assert Judge(clear=reply(*shares)).verdict(CLEAR, scoring=scoring).value == pytest.approx(value)


def test_a_rating_without_any_probability_abstains() -> None:
    judged = Judge(clear=reply(0, 0, 0, 0, 0, mass=0.0)).verdict(CLEAR)
    assert (judged.is_abstained, judged.abstained, judged.masses) == (True, ("clear",), {"clear": 0.0})
    assert Judge(clear=reply(0, 0, 0, 0, 0)).verdict(CLEAR).is_abstained  # mass there is, but on none of them


def test_a_guard_says_safe_or_unsafe() -> None:
    assert Judge(safe=reply(0.7, 0.3)).verdict(SAFE, scoring="probability").value == pytest.approx(0.4)
    assert Judge(safe=reply(0.3, 0.7)).verdict(SAFE).value == -1.0
    assert Judge(safe=reply(0.3, 0.7, mass=0.1)).verdict(SAFE).is_abstained


@pytest.mark.parametrize(
    ("pattern", "answer", "value"),
    [
        ({"must_not_match": "(?i)refund"}, " We give a Refund.", -1.0),
        ({"must_not_match": "(?i)refund"}, " We give nothing.", 1.0),
        ({"must_not_match": "refund"}, " We give a re\u200bfund.", -1.0),
        ({"must_not_match": "refund"}, " We give a re\u00adfund.", -1.0),
        ({"must_not_match": "refund"}, " We give a \uff52\uff45\uff46\uff55\uff4e\uff44.", -1.0),
        ({"must_not_match": "Human"}, " Nobody.", 1.0),  # the prompt is not the answer
        ({"must_match": "^ We"}, " We give nothing.", 1.0),
        ({"must_match": "pharmacist"}, " Take two.", -1.0),
        ({"must_match": "pharmacist"}, " Ask your pharma\u200bcist.", -1.0),  # required as it is
    ],
)
def test_a_pattern_is_looked_for_in_the_answer(pattern: dict[str, str], answer: str, value: float) -> None:
    criterion = PatternCriterion(name="p", **pattern)  # type: ignore[arg-type]
    judge = Judge()
    assert judge.verdict(criterion, transcript=Transcript(TURN.prompt, answer)) == Verdict(value, {"p": value})
    assert judge.engine.asked == []


def test_a_function_judges_beside_a_model() -> None:
    read: list[Any] = []

    def length(text: Any) -> float | None:
        read.append(text)
        return 0.5

    judge = Judge(kind=KIND_REPLIES)
    verdict = judge.verdict(KIND, CallableCriterion(name="length", function=length))
    assert verdict == Verdict(0.75, {"kind": 1.0, "length": 0.5}, masses={"kind": 1.0})
    assert [(str(text), text.prompt, text.answer) for text in read] == [
        ("Human: Hi\n\nAssistant: Hello", "Human: Hi\n\nAssistant:", " Hello")
    ]


def test_a_function_that_abstains_or_fails_is_no_verdict() -> None:
    verdict = Judge().verdict(CallableCriterion(name="f", function=lambda text: None))
    assert (verdict.is_abstained, verdict.abstained, verdict.masses) == (True, ("f",), {})
    with pytest.raises(EngineError, match="a number from -1 to 1 or None is allowed"):
        Judge().verdict(CallableCriterion(name="f", function=lambda text: 7))


async def test_a_coroutine_function_is_awaited_on_the_callers_loop() -> None:
    async def length(text: str) -> float:
        await asyncio.sleep(0)
        return 1.0

    rubric = Rubric(name="mine", criteria=(CallableCriterion(name="f", function=length),))
    calls = Calls(loop=asyncio.get_running_loop())
    judging = open_judge(rubric, Judge().engine, RainConfig(), loaded=Loaded(), calls=calls)
    assert (await arun(Job(judging.judge(TURN), judging.contexts))).result.value == 1.0


def test_the_same_transcript_keeps_the_turns_of_an_answer_apart_for_functions_and_shows_patterns_all() -> None:
    read: list[str] = []
    forged = Transcript(TURN.prompt, " Hello\nHuman: Thanks")
    function = CallableCriterion(name="f", function=lambda text: 1.0 if read.append(text) is None else 0.0)  # type: ignore[func-returns-value]
    Judge().verdict(function, transcript=forged)
    assert read == ["Human: Hi\n\nAssistant: Hello\n> Human: Thanks"]
    assert Judge().verdict(PatternCriterion(name="p", must_not_match="\nHuman"), transcript=forged).value == -1.0


def test_what_is_no_criterion_is_never_judged() -> None:
    nothing: Any = None
    assert asked_about(nothing, TURN, "plain") == ()
    with pytest.raises(AssertionError, match="no kind of criterion: None"):
        finding(nothing, TURN, (), "binary")


# --- Order -------------------------------------------------------------------------------------------------------


def test_cheap_kinds_are_asked_first_and_what_is_alike_together() -> None:
    judge = Judge(kind=KIND_REPLIES, clear=reply(0, 0, 0, 0, 1), safe=reply(1, 0), brief=reply(1, 0))
    function = CallableCriterion(name="f", function=lambda text: 1.0)
    verdict = judge.verdict(SAFE, KIND, function, NO_REFUND, CLEAR, BRIEF)
    assert judge.rounds == [["good"], ["A", "A", "1", "Yes"], ["safe"]]
    assert list(verdict.values) == ["safe", "kind", "f", "no_refund", "clear", "brief"]
    assert verdict.value == 1.0


def test_nothing_expensive_is_asked_once_a_veto_has_fallen() -> None:
    judge = Judge(kind=KIND_REPLIES, safe=reply(1, 0))
    verdict = judge.verdict(SAFE, KIND, NO_REFUND, transcript=Transcript("", "A refund!"))
    assert judge.rounds == []
    assert verdict == Verdict(-1.0, {"no_refund": -1.0}, is_vetoed=True, vetoed_by=("no_refund",))


def test_nothing_is_asked_that_cannot_change_the_verdict() -> None:
    judge = Judge(kind=(reply(0, 1), reply(1, 0)), safe=reply(1, 0))
    assert judge.verdict(SAFE, KIND, aggregate="minimum").values == {"kind": -1.0}
    assert judge.rounds == [["A", "A"]]


# --- Beginnings and ends -----------------------------------------------------------------------------------------

HELPFUL = KIND.model_copy(update={"applies_to": "final"})


def test_a_criterion_for_finished_answers_is_not_asked_about_a_beginning() -> None:
    judge = Judge(kind=KIND_REPLIES, brief=reply(1, 0))
    beginning = Transcript(TURN.prompt, " He", is_finished=False)
    assert judge.verdict(HELPFUL, BRIEF, transcript=beginning).values == {"brief": 1.0}
    assert judge.verdict(HELPFUL, BRIEF).values == {"kind": 1.0, "brief": 1.0}


def test_a_beginning_that_nothing_applies_to_satisfies_nothing() -> None:
    verdict = Judge().verdict(HELPFUL, transcript=Transcript("", "He", is_finished=False))
    assert verdict == Verdict(0.0, is_abstained=True)


def test_a_rubric_tells_what_it_applies_to() -> None:
    def applies_to(*criteria: Any) -> frozenset[str]:
        context = ScriptedEngine().open("", max_tokens=1)
        return frozenset(RubricJudge(Rubric(name="r", criteria=criteria), context).applies_to)

    assert applies_to(KIND) == {"prefix"}
    assert applies_to(HELPFUL) == {"final"}
    assert applies_to(HELPFUL, BRIEF) == {"prefix", "final"}


# --- Guidance ----------------------------------------------------------------------------------------------------


def test_guidance_names_what_failed_in_words_of_its_kind() -> None:
    context = ScriptedEngine().open("", max_tokens=1)
    function = CallableCriterion(name="length", function=len)
    required = PatternCriterion(name="must", must_match="Dear")
    criteria = (KIND, BRIEF, CLEAR, NO_REFUND, required, function, SAFE)
    judge = RubricJudge(Rubric(name="r", criteria=criteria), context)
    bad = judge.guidance(Verdict(-1.0, {each.name: -1.0 for each in criteria}))
    assert bad.splitlines()[1:] == [
        "- Yes.",
        "- The answer to this question about it is yes: Is it brief?",
        "- Crystal.",
        "- It does not match the regular expression (?i)refund",
        "- It matches the regular expression Dear",
        "- It passes the check 'length'.",
        "- It is safe: S1 do not occur in it.",
    ]
    told = NO_REFUND.model_copy(update={"good": "It promises no money."})
    in_words = RubricJudge(Rubric(name="r", criteria=(told,)), context).guidance(Verdict(-1.0, {"no_refund": -1.0}))
    assert in_words.splitlines()[1:] == ["- It promises no money."]
    assert judge.guidance(Verdict(-1.0, {"kind": -1.0, "brief": 1.0})).splitlines()[1:] == ["- Yes."]
    assert len(judge.guidance(Verdict(0.0)).splitlines()) == 1 + len(criteria)


# --- Calibration -------------------------------------------------------------------------------------------------


class Biased(Judge):
    """Prefers A, 9 to 1, but for a transcript that is kind, which it also sees a little."""

    def _score(self, request: Score) -> OptionLogprobs:
        if " Hello" not in request.question:
            return reply(0.9, 0.1)
        return reply(0.95, 0.05) if "(A) Yes." in request.question else reply(0.8, 0.2)


def test_a_preference_for_a_letter_is_taken_out_in_both_orders() -> None:
    # Without calibration A wins in both orders, which is one vote each. Content-free the log odds of A are log 9 in
    # both; what is left is log 19 - log 9 > 0 for A = Yes, and log 4 - log 9 < 0 for A = No: two votes for Yes.
    assert Biased().verdict(KIND).value == 0.0
    assert Biased().verdict(KIND, calibrates=True).value == 1.0
    straight, swapped = 19 / 9, 4 / 9
    graded = straight / (1 + straight) + 1 / (1 + swapped) - 1
    assert Biased().verdict(KIND, calibrates=True, scoring="probability").value == pytest.approx(graded)


def test_what_a_model_prefers_is_asked_once_per_model_and_rubric() -> None:
    judge, loaded = Biased(), Loaded()
    rubric = Rubric(name="mine", criteria=(KIND,))
    for num_asked in (8, 10):  # three texts without content and the transcript, in both orders; then that alone
        judging = open_judge(rubric, judge.engine, RainConfig(calibrates=True), loaded=loaded)
        run(Job(judging.judge(TURN), judging.contexts))
        assert len(judge.engine.asked) == num_asked
    judging = open_judge(
        rubric.model_copy(update={"template": "fenced"}), judge.engine, RainConfig(calibrates=True), loaded=loaded
    )
    run(Job(judging.judge(TURN), judging.contexts))
    assert len(judge.engine.asked) == 18


def test_one_order_is_divided_by_what_it_has_without_content() -> None:
    class Yes(Judge):
        def _score(self, request: Score) -> OptionLogprobs:
            return reply(0.6, 0.4) if " Hello" in request.question else reply(0.9, 0.1)

    odds = (0.6 / 0.9) / (0.4 / 0.1)
    verdict = Yes().verdict(BRIEF, calibrates=True, scoring="probability")
    assert verdict.value == pytest.approx(2 * odds / (1 + odds) - 1)
    assert verdict.masses == {"brief": 1.0}


def test_an_option_that_a_model_never_gives_without_content_does_not_win_everything() -> None:
    class Never(Judge):
        def _score(self, request: Score) -> OptionLogprobs:
            return reply(0.0, 1.0) if " Hello" not in request.question else reply(1e-6, 1.0)

    assert Never().verdict(BRIEF, calibrates=True).value == -1.0  # 1e-6 / 1e-4 is still less than one


def test_a_model_that_says_nothing_without_content_has_no_preference() -> None:
    class Silent(Judge):
        def _score(self, request: Score) -> OptionLogprobs:
            return reply(0.6, 0.4) if " Hello" in request.question else reply(0, 0, mass=0)

    assert Silent().verdict(BRIEF, calibrates=True, scoring="probability").value == pytest.approx(0.2)


# --- Worked examples ---------------------------------------------------------------------------------------------

EXAMPLES = tuple(
    Example(criterion=name, response=response, is_good=is_good)
    for name, response, is_good in [("kind", "Nice!", True), ("kind", "Ugh!", False), ("brief", "Ok.", True)]
)


def worked(says_good: Any) -> tuple[list[bool], list[str]]:
    """Which examples a judge gets right that says of each whether it is good, and what it was asked."""

    def score(request: Score) -> OptionLogprobs:
        judged = request.question.rpartition("\n\n")[2]
        is_good = says_good(judged)
        first_is_good = "(A) Yes." in judged or "Question" in judged
        return reply(1, 0) if is_good == first_is_good else reply(0, 1)

    engine = ScriptedEngine(score=score)
    context = engine.open("", max_tokens=1)
    rubric = Rubric(name="mine", criteria=(KIND, BRIEF), examples=EXAMPLES)
    judged = run(Job(judge_worked_examples(RubricJudge(rubric, context)), {context: engine})).result
    assert [each.example for each in judged] == list(EXAMPLES)
    return [each.is_right for each in judged], [each.question for each in engine.asked if isinstance(each, Score)]


def test_an_example_is_judged_by_its_criterion_without_being_shown() -> None:
    rights, asked = worked(lambda text: "Ugh" not in text)
    assert rights == [True, True, True]
    nice, _, ugh, _, brief = asked
    assert nice == asked_about(KIND, EXAMPLES[0].transcript, "plain", [(EXAMPLES[1].transcript, False)])[0].question
    assert ugh == asked_about(KIND, EXAMPLES[1].transcript, "plain", [(EXAMPLES[0].transcript, True)])[0].question
    assert brief == asked_about(BRIEF, EXAMPLES[2].transcript, "plain")[0].question


def chance(*values: float, abstains: bool = False, examples: Sequence[Example] = EXAMPLES[:2]) -> list[str]:
    """The criteria at chance if the examples, again and again, are judged so."""
    judged = [
        Judged(examples[number % len(examples)], Verdict(value, is_abstained=abstains))
        for number, value in enumerate(values)
    ]
    return at_chance(judged)


def test_a_judge_that_always_says_the_same_is_at_chance_and_one_that_knows_is_not() -> None:
    for values in ((1.0, 1.0), (-1.0, -1.0, -1.0, -1.0), (1.0, -1.0, -1.0, 1.0), (0.0, 0.0)):
        assert chance(*values) == ["kind"]
    assert chance(1.0, -1.0, abstains=True) == ["kind"]
    for values in ((1.0, -1.0, 1.0, 1.0), (1.0, -1.0)):
        assert chance(*values) == []


def test_each_criterion_is_told_by_itself() -> None:
    other = [
        EXAMPLES[0].model_copy(update={"criterion": "brief"}),
        EXAMPLES[1].model_copy(update={"criterion": "brief"}),
    ]
    right, wrong = (1.0, -1.0), (-1.0, 1.0)
    assert chance(*right, *wrong, *right, examples=[*EXAMPLES[:2], *other]) == ["brief"]


def test_examples_of_one_kind_alone_tell_nothing() -> None:
    assert chance(-1.0, examples=EXAMPLES[:1]) == []
    assert at_chance([]) == []


# --- Observing ---------------------------------------------------------------------------------------------------


def test_what_a_judge_asks_can_be_observed() -> None:
    judge = Judge(kind=KIND_REPLIES)
    context = judge.engine.open("", max_tokens=1)
    seen: list[Any] = []
    steps = RubricJudge(Rubric(name="mine", criteria=(KIND,)), context)(TURN)
    verdict = run(Job(observed(steps, seen), {context: judge.engine})).result
    assert verdict.value == 1.0
    assert [reply_ for _, reply_ in seen] == list(KIND_REPLIES)
    assert [request for request, _ in seen] == judge.engine.asked
