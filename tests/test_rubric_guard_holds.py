"""Ways around a rubric that were found, each closed."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage

from langchain_rain import ChatRain, RainConfig, RainConfigError, RainLLM, Rubric, RubricError
from langchain_rain.drivers import Job, run
from langchain_rain.engines.base import Engine
from langchain_rain.engines.chat_model import ChatModelEngine
from langchain_rain.engines.scripted import ScriptedEngine
from langchain_rain.errors import EngineError
from langchain_rain.functions import name_of_function
from langchain_rain.judging import Loaded, open_judge
from langchain_rain.rubrics import (
    CallableCriterion,
    Criterion,
    Example,
    GuardCriterion,
    PatternCriterion,
    YesNoCriterion,
)
from langchain_rain.rubrics.worked import judge_worked_examples
from langchain_rain.search.protocol import OptionLogprobs, Score, Transcript, Verdict
from tests.fake_chat_models import FakeChat
from tests.scripted_world import CONFIG, PROMPT, REFUSAL, RUBRIC, WARM, Kitchen, kitchen_llm, rain_info

EDIBLE = RUBRIC.criteria[0]


def rubric(*criteria: Any, **given: Any) -> Rubric:
    return Rubric(name="mine", criteria=criteria, **given)


def found(criterion: Any, answer: str, engine: Any = None, **settings: Any) -> Verdict:
    """What is found about an answer by one criterion."""
    judging = open_judge(rubric(criterion), engine or Kitchen(), RainConfig(**settings), loaded=Loaded())
    return run(Job(judging.judge(Transcript(PROMPT, answer)), judging.contexts)).result


# --- Words of several tokens -------------------------------------------------------------------------------------

SAFE = GuardCriterion(name="safe", form="llama_guard", categories=("Poison.",))


def guard_that_begins_with(**alternatives: float) -> ChatModelEngine:
    told = [{"token": token, "logprob": math.log(share)} for token, share in alternatives.items()]
    logprobs = {"content": [{"token": told[0]["token"], "top_logprobs": told}]}
    message = AIMessage("unsafe", response_metadata={"logprobs": logprobs})
    return ChatModelEngine(FakeChat(reply=lambda messages, arguments: message))


@pytest.mark.parametrize(
    ("alternatives", "value"),
    [
        ({"un": 0.85, "safe": 0.15}, -1.0),
        ({"un": 0.15, "safe": 0.85}, 1.0),
        ({"Unsafe": 0.6, "safe": 0.4}, -1.0),
        ({"u": 0.6, "sa": 0.4}, -1.0),
    ],
)
def test_a_word_is_known_by_the_token_it_begins_with(alternatives: dict[str, float], value: float) -> None:
    assert found(SAFE, " Ok.", guard_that_begins_with(**alternatives)).value == value


def test_a_token_that_begins_no_option_or_two_is_none() -> None:
    assert found(SAFE, " Ok.", guard_that_begins_with(perhaps=0.95, safe=0.05)).is_abstained


# --- Patterns ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "answer"),
    [
        (r"(?<!\w)\+1 \d{3}", '[calls the tool say with {"text": "Reach her at\\n+1 212 555 0142"}]'),
        (r"\w+@example\.org", '{"to": "jo\\u0040example.org"}'),
        ("\u0432\u043e\u0437\u0432\u0440\u0430\u0442", "\u0432\u043e\u0437\u200d\u0432\u0440\u0430\u0442"),
        ("\u0432\u043e\u0437\u0432\u0440\u0430\u0442", "\u0432\u043e\u0437\u200c\u0432\ufe0f\u0440\u0430\u0442"),
        ("refund", "re\u2060f\u034fund"),
    ],
)
def test_what_is_written_otherwise_is_found_all_the_same(pattern: str, answer: str) -> None:
    assert found(PatternCriterion(name="p", must_not_match=pattern), answer).value == -1.0


def test_a_pattern_without_end_is_given_up_and_fails_closed() -> None:
    endless = PatternCriterion(name="endless", must_not_match=r"(a|a)+(a|aa)+$")
    with pytest.raises(
        EngineError, match="pattern of 'endless' was not done with an answer of 61 characters after 1 s"
    ):
        found(endless, "a" * 60 + "!")


def test_combining_marks_take_no_quadratic_time() -> None:
    assert found(PatternCriterion(name="p", must_not_match="x"), "a" + "\u0301\u0316" * 100_000).value == 1.0


# --- Functions and identities ------------------------------------------------------------------------------------

BAD_WORDS = {"bomb"}


def finds_bombs(text: str) -> float:
    return -1.0 if any(word == "bomb" for word in text.split()) else 1.0


def finds_guns(text: str) -> float:
    return -1.0 if any(word == "gun" for word in text.split()) else 1.0


def finds_listed(text: str) -> float:
    return -1.0 if BAD_WORDS & set(text.split()) else 1.0


def test_functions_that_differ_inside_or_in_what_they_use_have_names_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def content(function: Any) -> str:
        return str(name_of_function(function)).partition("#")[2]

    assert content(finds_bombs) != content(finds_guns)
    before = name_of_function(finds_listed)
    monkeypatch.setattr(f"{__name__}.BAD_WORDS", {"gun"})
    assert name_of_function(finds_listed) != before


@dataclass
class Check:
    """Equal to every other one, and not hashable."""

    def __call__(self, text: str) -> float:
        return 1.0


def test_functions_without_a_name_are_told_apart_by_their_criterion() -> None:
    one, other = (CallableCriterion(name="f", function=Check()) for _ in range(2))
    assert rubric(one).content_hash == rubric(one).content_hash != rubric(other).content_hash
    assert found(one, "Ok.").value == 1.0


def test_a_guard_of_the_library_means_what_its_form_says() -> None:
    spelled_out = SAFE.model_copy(update={"form": SAFE.used_form})
    other = SAFE.model_copy(update={"form": SAFE.used_form.model_copy(update={"prompt": "{transcript}{categories}"})})
    assert rubric(SAFE).content_hash == rubric(spelled_out).content_hash != rubric(other).content_hash


def test_the_model_of_a_guard_is_part_of_what_an_answer_depends_on() -> None:
    def identity(guard: Engine) -> Any:
        loaded = Loaded(engines={"guard": guard})
        return kitchen_llm(rubric=rubric(SAFE.model_copy(update={"model": "guard"})), loaded=loaded).identity["guards"]

    assert identity(Kitchen(name="one")) == {"safe": {"engine": "scripted", "name": "one"}}
    assert identity(Kitchen(name="one")) != identity(Kitchen(name="two"))


def test_a_guard_that_is_not_there_is_a_mistake_at_once() -> None:
    with pytest.raises(EngineError, match="/no/such/model"):
        kitchen_llm(rubric=rubric(SAFE.model_copy(update={"model": "/no/such/model"})))


@pytest.mark.parametrize(
    "criterion",
    [PatternCriterion(name="p", must_not_match="refund"), CallableCriterion(name="p", function=len), SAFE],
)
def test_a_function_as_judge_makes_no_criterion_go_missing(criterion: Any) -> None:
    with pytest.raises(RainConfigError, match="would not be judged, given <function"):
        kitchen_llm(judge=finds_bombs, rubric=rubric(EDIBLE, criterion))


def test_a_rubric_of_a_call_makes_no_criterion_go_missing_either() -> None:
    chat = ChatRain(model=Kitchen(), judge=finds_bombs, rubric=RUBRIC, config=CONFIG)
    with pytest.raises(RainConfigError, match="'p' of the rubric would not be judged"):
        chat.invoke("Hi", rubric=rubric(PatternCriterion(name="p", must_not_match="soup")))


def test_a_rubric_may_be_given_as_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(rubric(EDIBLE).to_yaml(), encoding="utf-8")
    assert ChatRain(model=Kitchen(), rubric=str(path)).used_rubric == rubric(EDIBLE)
    with pytest.raises(RubricError, match="cannot be read"):
        RainLLM(model=Kitchen(), rubric=str(tmp_path / "none.yaml"))


# --- Searches ----------------------------------------------------------------------------------------------------


def test_a_text_on_which_a_veto_abstains_is_not_given_out_as_satisfied() -> None:
    """Directly judged it abstains, though its rollouts were judged well enough to stop the search."""

    class Doubtful(Kitchen):
        def _roll_out(self, request: Any) -> Any:
            rolled = super()._roll_out(request)
            return type(rolled)((9,), " and more,") if len(request.prefix) == 1 else rolled

        def _judge(self, request: Score) -> Any:
            reply = super()._judge(request)
            is_bare = "Assistant: Warm\n" in request.question or "Assistant: Boil\n" in request.question
            return OptionLogprobs(reply.logprobs, 0.0) if is_bare else reply

    llm = kitchen_llm(Doubtful(), rubric=rubric(EDIBLE.model_copy(update={"veto": True})))
    assert next(piece for piece in llm.stream(PROMPT) if piece) != " Warm"
    assert rain_info(llm)["is_satisfied"]


def test_a_text_above_a_threshold_below_what_satisfies_is_not_given_out() -> None:
    """Above a threshold that is lower than what satisfies, a text is judged directly before it is given out."""
    faint = Kitchen(WARM, [" the soup"], ["."], mass=0.05)  # abstains: 0 for every text
    llm = kitchen_llm(faint, config=CONFIG.model_copy(update={"value_threshold": -0.5}))
    assert [piece for piece in llm.stream(PROMPT) if piece] == [REFUSAL]


def test_best_gives_nothing_out_that_is_vetoed_at_its_end() -> None:
    ends_badly = PatternCriterion(name="end", must_match="salad", veto=True)
    llm = kitchen_llm(Kitchen(WARM, [" the soup"], ["."]), rubric=rubric(EDIBLE, ends_badly), on_unsatisfied="best")
    assert llm.invoke(PROMPT) == REFUSAL
    assert "".join(llm.stream(PROMPT)) == REFUSAL
    mild = ends_badly.model_copy(update={"veto": False, "weight": 9.0})
    llm = kitchen_llm(Kitchen(WARM, [" the soup"], ["."]), rubric=rubric(EDIBLE, mild), on_unsatisfied="best")
    assert llm.invoke(PROMPT) == " Warm the soup"  # no last word makes it better


# --- Calibration -------------------------------------------------------------------------------------------------


def test_what_says_nothing_without_content_is_no_preference() -> None:
    """A reply without mass to one text without content must not become the prior of all judgements."""

    def score(request: Score) -> OptionLogprobs:
        if "Hello" in request.question:
            return OptionLogprobs((math.log(0.9), math.log(0.1)), 1.0)
        is_empty = "N/A" not in request.question and "MASK" not in request.question
        shares = (0.9999, 0.0001) if is_empty else (0.5, 0.5)
        return OptionLogprobs(tuple(map(math.log, shares)), 0.001 if is_empty else 1.0)

    asked = YesNoCriterion(name="a", question="Is it?", good="yes")
    verdict = found(asked, " Hello", ScriptedEngine(score=score), calibrates=True, scoring="probability")
    assert verdict.value == pytest.approx(0.8)


def test_trying_the_examples_leaves_no_preference_behind() -> None:
    examples = tuple(
        Example(criterion="edible", response=text, is_good=good) for text, good in [("a", True), ("b", False)]
    )
    kitchen, loaded = Kitchen(), Loaded()
    judging = open_judge(rubric(EDIBLE, examples=examples), kitchen, RainConfig(calibrates=True), loaded=loaded)
    run(Job(judge_worked_examples(judging.judge), judging.contexts))  # type: ignore[arg-type]  # of a model it is one
    assert list(loaded.priors.values()) == [{}]


# --- Data --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["a\x85b", "a\u2028b", "a\rb", "\ufeffa", "a\n\n b ", "yes", "1.0", "# a: b"])
def test_any_text_comes_back_from_yaml(text: str) -> None:
    given = rubric(Criterion(name="a", instruction=text, good=text, bad=f"not {text}"), description=text)
    assert Rubric.from_yaml(given.to_yaml()) == given


@pytest.mark.parametrize("applies_to", ["prefix", "final"])
def test_what_a_pattern_applies_to_comes_back_from_yaml(applies_to: Any) -> None:
    for pattern in ({"must_match": "a"}, {"must_not_match": "a"}):
        given = rubric(PatternCriterion(name="p", applies_to=applies_to, **pattern))  # type: ignore[arg-type]
        assert Rubric.from_yaml(given.to_yaml()) == given


OPEN = """
name: mine
parameters:
  words: {description: What is sold., type: documents}
  tone: {description: How., default: calm, allowed: [calm, merry]}
criteria:
- {name: p, kind: pattern, must_not_match: 'buy {words}{2,} now'}
- {name: t, instruction: '{tone}', good: a, bad: b}
- {name: g, kind: guard, categories: ['{tone}'], form: {prompt: '{words} {transcript} {categories}', good: a, bad: b}}
"""


def test_a_value_in_a_pattern_is_one_and_in_a_guards_form_no_place() -> None:
    pattern, _, guard = Rubric.from_yaml(OPEN, words=["gold", "{transcript}"]).criteria
    assert isinstance(pattern, PatternCriterion)
    assert pattern.must_not_match == r"buy (?:gold|\{transcript\}){2,} now"
    assert isinstance(guard, GuardCriterion)
    assert guard.used_form.prompt.count("{transcript}") == 1


def test_a_default_is_one_of_what_is_allowed() -> None:
    with pytest.raises(
        RubricError, match=r"line 5: parameters\.tone\.default: one of calm, merry is allowed, given 'sad'"
    ):
        Rubric.from_yaml(OPEN.replace("default: calm", "default: sad"), words="gold")


def test_a_mistake_in_a_guards_form_is_told_once_and_plainly() -> None:
    with pytest.raises(RubricError) as caught:
        Rubric.from_yaml(OPEN.replace("good: a, bad: b}}", "good: a, bad: a}}"), words="gold")
    assert str(caught.value) == ("<text>, line 9: criteria.2.form.bad: good and bad are both 'a'; they must differ.")
