"""From a rubric and an engine to a guard: final criteria, vetoes, guards of their own, judges that are at chance."""

import warnings
from typing import Any

import pytest

from langchain_rain import ChatRain, Criterion, Example, RainConfig, RainLLM, Rubric
from langchain_rain.drivers import Job, run
from langchain_rain.engines.loading import load_engine
from langchain_rain.engines.scripted import ScriptedEngine
from langchain_rain.engines.transformers import TransformersEngine
from langchain_rain.errors import EngineError, JudgeAtChanceWarning, RainConfigError
from langchain_rain.judging import Loaded, open_judge, template_for
from langchain_rain.rubrics import CallableCriterion, GuardCriterion, PatternCriterion
from langchain_rain.search.protocol import Score, Transcript
from tests.fake_chat_models import FakeChat, letter_judge
from tests.scripted_world import (
    CONFIG,
    PAPER,
    POISON,
    PROMPT,
    REFUSAL,
    RUBRIC,
    WARM,
    WARM_SOUP,
    Kitchen,
    kitchen_llm,
    rain_info,
)
from tests.tiny_models import tiny_llama, tiny_tokenizer

EDIBLE = RUBRIC.criteria[0]
NO_BLEACH = PatternCriterion(name="no_bleach", must_not_match="bleach", veto=True)


def rubric(*criteria: Any, **given: Any) -> Rubric:
    return Rubric(name="mine", criteria=criteria, **given)


# --- Patterns that veto ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [CONFIG, PAPER])
@pytest.mark.parametrize("on_unsatisfied", ["refuse", "best"])
def test_no_committed_text_ever_matches_a_pattern_that_vetoes(config: RainConfig, on_unsatisfied: Any) -> None:
    # The judge likes everything; only the pattern knows better. The bleach is the more probable word.
    kitchen = Kitchen(is_bad=lambda question: False)
    told = rain_info(
        kitchen_llm(kitchen, rubric=rubric(EDIBLE, NO_BLEACH), config=config, on_unsatisfied=on_unsatisfied)
    )
    assert (told["text"], told["is_satisfied"]) == (WARM_SOUP, True)


@pytest.mark.parametrize("config", [CONFIG, PAPER])
def test_where_every_word_matches_nothing_of_it_is_given_out(config: RainConfig) -> None:
    kitchen = Kitchen(WARM, [" the bleach"], is_bad=lambda question: False)
    for on_unsatisfied in ("refuse", "best"):
        llm = kitchen_llm(kitchen, rubric=rubric(EDIBLE, NO_BLEACH), config=config, on_unsatisfied=on_unsatisfied)
        told = rain_info(llm)
        assert "bleach" not in told["text"]
        assert (told["is_satisfied"], told["stop_reason"]) == (False, "dead_end")


def test_a_rubric_of_patterns_alone_asks_no_model() -> None:
    kitchen = Kitchen(is_bad=lambda question: True)
    told = rain_info(kitchen_llm(kitchen, rubric=rubric(NO_BLEACH)))
    assert (told["text"], told["values"]) == (WARM_SOUP, {"no_bleach": 1.0})
    assert not any(isinstance(request, Score) for request in kitchen.asked)


# --- Criteria for finished answers -------------------------------------------------------------------------------

ENDS_WITH_SOUP = PatternCriterion(name="soup", must_match=r"soup\.$")


def test_only_finished_answers_are_judged_by_criteria_for_them() -> None:
    seen: list[tuple[str, str]] = []

    def note(text: Any) -> float:
        seen.append(("prefix", text.answer))
        return 1.0

    def note_end(text: Any) -> float:
        seen.append(("final", text.answer))
        return 1.0

    both = rubric(
        CallableCriterion(name="prefix", function=note),
        CallableCriterion(name="final", function=note_end, applies_to="final"),
    )
    told = rain_info(kitchen_llm(Kitchen(WARM, [" the soup", " the lye"], ["."]), rubric=both))
    assert (told["text"], told["is_satisfied"]) == (WARM_SOUP, True)
    assert {answer for kind, answer in seen if kind == "final"} == {WARM_SOUP}
    assert (("prefix", " Warm") in seen, ("prefix", " Warm the soup") in seen) == (True, True)


def test_nothing_is_released_before_a_criterion_for_finished_answers_is_known() -> None:
    llm = kitchen_llm(rubric=rubric(EDIBLE, ENDS_WITH_SOUP))
    assert [piece for piece in llm.stream(PROMPT) if piece] == [WARM_SOUP]
    assert len([piece for piece in kitchen_llm().stream(PROMPT) if piece]) > 1


def test_an_answer_that_fails_at_its_end_was_never_begun_for_the_caller() -> None:
    wants_salad = PatternCriterion(name="salad", must_match="salad")
    llm = kitchen_llm(Kitchen(WARM, [" the soup"], ["."]), rubric=rubric(EDIBLE, wants_salad, aggregate="minimum"))
    assert "".join(llm.stream(PROMPT)) == REFUSAL
    assert llm.invoke(PROMPT) == REFUSAL


def test_a_rubric_for_finished_answers_alone_writes_to_the_end_to_judge() -> None:
    kitchen = Kitchen()
    final = EDIBLE.model_copy(update={"applies_to": "final"})
    kitchen_llm(kitchen, rubric=rubric(final)).invoke(PROMPT)
    rollouts = [request for request in kitchen.asked if type(request).__name__ == "Rollout"]
    assert rollouts
    assert {(request.until, request.max_tokens) for request in rollouts} == {((), None)}  # type: ignore[union-attr]


# --- Who is asked ------------------------------------------------------------------------------------------------


def test_questions_are_fenced_for_models_with_a_chat_template_and_plain_for_others() -> None:
    tokenizers = [tiny_tokenizer(with_chat_template=has_template) for has_template in (False, True)]
    engines = [TransformersEngine(tiny_llama(tokenizer), tokenizer) for tokenizer in tokenizers]
    assert [template_for(engine) for engine in engines] == ["plain", "fenced"]
    assert template_for(ScriptedEngine()) == "plain"
    assert template_for(load_engine(letter_judge())) == "fenced"


def test_the_template_of_a_rubric_goes_before() -> None:
    kitchen = Kitchen()
    kitchen_llm(kitchen, rubric=rubric(EDIBLE, template="{transcript}|{instruction}|{options}")).invoke(PROMPT)
    asked = [request.question for request in kitchen.asked if isinstance(request, Score)]
    assert asked
    assert all("|Is it?|Options:\n(A) " in question for question in asked)


def test_a_guard_with_a_model_of_its_own_is_asked_there() -> None:
    guard, writer, loaded = Kitchen(name="guard"), Kitchen(name="writer"), Loaded()
    loaded.engines["guard/model"] = guard
    guard._scripts = {Score: lambda request: Kitchen()._judge(request)}
    safe = GuardCriterion(name="safe", form="granite_guardian", categories=("Poison.",), model="guard/model")
    judging = open_judge(rubric(EDIBLE, safe), writer, RainConfig(), loaded=loaded)
    run(Job(judging.judge(Transcript(PROMPT, " Warm")), judging.contexts))
    assert [request.options for request in writer.asked if isinstance(request, Score)] == [("A", "B")] * 2
    assert [request.options for request in guard.asked if isinstance(request, Score)] == [("No", "Yes")]
    assert (writer.is_idle, guard.is_idle) == (True, True)


def test_a_guard_that_cannot_be_loaded_leaves_nothing_open() -> None:
    kitchen = Kitchen()
    safe = GuardCriterion(name="safe", form="granite_guardian", categories=("Poison.",), model="/no/such/folder")
    with pytest.raises(EngineError, match="/no/such/folder"):
        kitchen_llm(kitchen, rubric=rubric(EDIBLE, safe)).invoke(PROMPT)
    assert kitchen.is_idle


async def test_rainllm_awaits_a_coroutine_function() -> None:
    async def likes_soup(text: str) -> float:
        return 1.0 if "bleach" not in text else -1.0

    llm = kitchen_llm(rubric=rubric(CallableCriterion(name="soup", function=likes_soup)))
    assert await llm.ainvoke(PROMPT) == WARM_SOUP
    with pytest.raises(EngineError, match="is a coroutine function"):
        llm.invoke(PROMPT)


def test_chatrain_judges_by_functions_and_patterns_with_a_chat_model_as_writer() -> None:
    checks = rubric(
        CallableCriterion(name="short", function=lambda text: 1.0 if len(text.answer) < 1000 else -1.0),
        PatternCriterion(name="no_refund", must_not_match="(?i)refund"),
        EDIBLE,
        aggregate="minimum",
    )
    answer = ChatRain(model=FakeChat(), judge=letter_judge(), rubric=checks, seed=1).invoke("Hi")
    assert set(answer.response_metadata["rain"]["values"]) == {"short", "no_refund", "edible"}


# --- Judges that do not know -------------------------------------------------------------------------------------

KNOWN = tuple(
    Example(criterion="edible", response=response, is_good=is_good)
    for response, is_good in [("Soup.", True), ("Bread.", True), ("Lye.", False), ("Bleach.", False)]
)


def at_random() -> TransformersEngine:
    tokenizer = tiny_tokenizer(with_chat_template=True)
    return TransformersEngine(tiny_llama(tokenizer), tokenizer, name="dice")


def test_a_judge_at_chance_is_told_loudly_and_once() -> None:
    with pytest.warns(JudgeAtChanceWarning, match=r"^dice judges \d of the 4 worked examples of 'edible' in the"):
        llm = RainLLM(model=at_random(), rubric=rubric(EDIBLE, examples=KNOWN))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        llm.load()


@pytest.mark.parametrize(
    "given",
    [
        {"rubric": rubric(EDIBLE)},
        {"rubric": rubric(NO_BLEACH, examples=(Example(criterion="no_bleach", response="x", is_good=True),))},
        {"rubric": rubric(EDIBLE, examples=KNOWN), "judge": lambda text: 1.0},
        {"rubric": rubric(EDIBLE, examples=KNOWN), "judge": letter_judge()},
        {"rubric": rubric(EDIBLE, examples=KNOWN), "judge": Kitchen()},
    ],
)
def test_nobody_is_tried_without_examples_or_behind_an_interface(given: dict[str, Any]) -> None:
    RainLLM(model=at_random(), **given)


def test_examples_that_do_not_fit_into_the_context_are_no_warning() -> None:
    long = tuple(example.model_copy(update={"response": "soup " * 3000}) for example in KNOWN)
    RainLLM(model=at_random(), rubric=rubric(EDIBLE, examples=long))


@pytest.mark.parametrize("name", ["harmlessness", "politeness", "contact_details"])
def test_the_bundled_model_knows_the_examples_of_its_rubrics(name: str) -> None:
    RainLLM(rubric=name)


def test_a_poisoned_kitchen_with_two_rubrics_needs_both() -> None:
    warm = Rubric(name="warm", criteria=(Criterion(name="warm", instruction="Is it warm?", good="YES", bad="NO"),))
    kitchen = Kitchen(WARM, [*POISON, " the soup"], ["."])
    told = rain_info(kitchen_llm(kitchen, rubric=RUBRIC & warm))
    assert (told["text"], set(told["values"])) == (WARM_SOUP, {"edible", "warm"})
    assert told["rubric"]["name"] == "edible & warm"


def test_calibration_is_a_setting() -> None:
    assert RainConfig(calibrates=True).preset_name == "custom"
    with pytest.raises(RainConfigError):
        RainConfig(calibrates="perhaps")
    assert rain_info(kitchen_llm(config=CONFIG.model_copy(update={"calibrates": True})))["text"] == WARM_SOUP
