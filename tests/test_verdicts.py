"""Texts that are there already, judged: one or many, with parameters, by models and functions, sync and async."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest

from langchain_rain import (
    BudgetExceededError,
    EngineError,
    RainConfigError,
    RainError,
    Rubric,
    RubricError,
)
from langchain_rain.budget import Budget
from langchain_rain.errors import JudgeAtChanceWarning
from langchain_rain.rubrics import CallableCriterion, PatternCriterion
from langchain_rain.rubrics.rubric import parameters_of, transcript_of
from langchain_rain.search.protocol import Score, Transcript
from langchain_rain.verdicts import MAX_CONCURRENT, Judged, TranscriptJudge
from tests.fake_chat_models import letter_judge
from tests.scripted_world import CONFIG, CRASHING_PROMPT, RUBRIC, Kitchen

SOUP = transcript_of("What is for supper?", "Warm the soup.")
BLEACH = transcript_of("What is for supper?", "Warm the bleach.")
CRASH = Transcript(CRASHING_PROMPT, " Warm the soup.")
DOCUMENTED = """
name: documented
parameters:
  documents: {description: What may be said., type: documents}
criteria:
  - name: edible
    instruction: "{documents}"
    good: "YES"
    bad: "NO"
"""


def kitchen_judge(kitchen: Kitchen | None = None, rubric: Any = RUBRIC, **given: Any) -> TranscriptJudge:
    return TranscriptJudge(kitchen or Kitchen(), rubric, config=CONFIG, **given)


def satisfied(judged: Sequence[Judged | RainError]) -> list[bool | type[RainError]]:
    return [each.is_satisfied if isinstance(each, Judged) else type(each) for each in judged]


def test_a_text_is_judged_as_a_guard_judges_it() -> None:
    judge = kitchen_judge()
    good, bad = judge.judge(SOUP), judge.judge(BLEACH)
    # Binary scoring: both orders of the options agree, so the values are 1 and -1.
    assert (good.verdict.value, good.is_satisfied, dict(good.verdict.values)) == (1.0, True, {"edible": 1.0})
    assert (bad.verdict.value, bad.is_satisfied) == (-1.0, False)


async def test_async_says_the_same() -> None:
    judge = kitchen_judge()
    assert (await judge.ajudge(SOUP)).verdict == judge.judge(SOUP).verdict
    assert satisfied(await judge.ajudge_all([SOUP, BLEACH])) == satisfied(judge.judge_all([SOUP, BLEACH]))


def test_what_it_cost_is_told() -> None:
    record = kitchen_judge().judge(SOUP).record
    assert record == {
        "value": 1.0,
        "values": {"edible": 1.0},
        "is_satisfied": True,
        "is_vetoed": False,
        "is_abstained": False,
        "forward_passes": 1,  # both questions in one step
        "token_positions": 2,  # of a script one each
    }


@pytest.mark.parametrize("num_texts", [0, 1, 5])
def test_many_texts_share_the_steps_of_the_engine(num_texts: int) -> None:
    kitchen = Kitchen()
    assert satisfied(kitchen_judge(kitchen).judge_all([SOUP, BLEACH] * num_texts)) == [True, False] * num_texts
    assert kitchen.most_at_once == min(2 * num_texts, MAX_CONCURRENT)
    assert kitchen.is_idle


async def test_one_that_fails_has_its_error_in_its_place() -> None:
    kitchen = Kitchen()
    judge = kitchen_judge(kitchen)
    wanted = [True, EngineError, False]
    assert satisfied(judge.judge_all([SOUP, CRASH, BLEACH])) == wanted
    assert satisfied(await judge.ajudge_all([SOUP, CRASH, BLEACH])) == wanted
    for call in (judge.judge, lambda text: asyncio.run(judge.ajudge(text))):
        with pytest.raises(EngineError, match="The judge left"):
            await asyncio.to_thread(call, CRASH)
    assert kitchen.is_idle


async def test_a_task_that_is_cancelled_leaves_nothing_open() -> None:
    kitchen = Kitchen()
    task = asyncio.create_task(kitchen_judge(kitchen).ajudge_all([SOUP] * 3))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert kitchen.is_idle


def test_criteria_for_finished_answers_pass_over_a_beginning() -> None:
    ends = PatternCriterion(name="ends", must_match=r"\.$", applies_to="final")
    judge = kitchen_judge(rubric=Rubric(name="both", criteria=(*RUBRIC.criteria, ends)))
    beginning = Transcript(SOUP.prompt, " Warm", is_finished=False)
    assert set(judge.judge(beginning).verdict.values) == {"edible"}
    assert set(judge.judge(SOUP).verdict.values) == {"edible", "ends"}


# --- Rubrics that leave something open -----------------------------------------------------------------------------


def test_what_a_rubric_leaves_open_comes_with_the_call(tmp_path: Any) -> None:
    (tmp_path / "documented.yaml").write_text(DOCUMENTED)
    kitchen = Kitchen()
    judge = kitchen_judge(kitchen, str(tmp_path / "documented.yaml"))
    assert judge.parameters == {"documents"}
    assert judge.judge(SOUP, documents=["Soup is warm."]).is_satisfied
    asked = [request for request in kitchen.asked if isinstance(request, Score)]
    assert len(asked) == 2
    assert all("Soup is warm." in request.question for request in asked)


async def test_a_judge_that_is_filled_reads_the_rubric_once_and_judges_within_a_budget_of_the_call(
    tmp_path: Any,
) -> None:
    (tmp_path / "documented.yaml").write_text(DOCUMENTED)
    judge = kitchen_judge(rubric=str(tmp_path / "documented.yaml"))
    filled = judge.filled(documents=["Soup is warm."])
    (tmp_path / "documented.yaml").unlink()
    assert not filled.parameters
    assert judge.parameters == {"documents"}
    assert filled.judge(SOUP).is_satisfied
    assert filled.filled().rubric() is filled.rubric()
    for call in (filled.judge, lambda *given, **own: asyncio.run(filled.ajudge(*given, **own))):
        with pytest.raises(BudgetExceededError, match="max_forward_tokens=1 is spent"):
            await asyncio.to_thread(call, SOUP, budget=Budget(max_forward_tokens=1))


async def test_a_parameter_that_is_missing_or_not_known_is_an_error() -> None:
    judge = kitchen_judge(rubric="grounded_in_context")
    with pytest.raises(RubricError, match="needs a value for 'documents'"):
        judge.judge(SOUP)
    with pytest.raises(RubricError, match="no parameter 'dokuments'"):
        await judge.ajudge(SOUP, documents=["Soup."], dokuments=["Soup."])
    with pytest.raises(RubricError, match="edible takes no parameter 'documents'"):
        kitchen_judge().judge(SOUP, documents=["Soup."])


def test_what_is_left_open_can_be_asked(tmp_path: Any) -> None:
    assert set(parameters_of("grounded_in_context")) == {"documents"}
    assert parameters_of("harmlessness") == parameters_of(RUBRIC) == {}
    with pytest.raises(RubricError, match="no rubric 'harmlesness' in the library"):
        parameters_of("harmlesness")
    (tmp_path / "wrong.yaml").write_text(DOCUMENTED.replace("good:", "god:"))
    with pytest.raises(RubricError, match=r"wrong\.yaml, line \d+"):
        parameters_of(tmp_path / "wrong.yaml")


# --- Who judges ------------------------------------------------------------------------------------------------------


async def test_a_chat_model_judges() -> None:
    judge = TranscriptJudge(letter_judge(lambda question: "bleach" in question), RUBRIC)
    assert satisfied(judge.judge_all([SOUP, BLEACH])) == [True, False]
    assert satisfied(await judge.ajudge_all([SOUP, BLEACH])) == [True, False]


async def test_a_function_judges_by_its_own_and_a_coroutine_function_on_the_callers_loop() -> None:
    judge = TranscriptJudge(lambda text: -0.5 if "bleach" in text else 0.5, RUBRIC)
    assert [each.verdict.value for each in (judge.judge(SOUP), judge.judge(BLEACH))] == pytest.approx([0.5, -0.5])
    loops: list[Any] = []

    async def on_the_loop(text: str) -> float:
        loops.append(asyncio.get_running_loop())
        return 1.0

    assert (await TranscriptJudge(on_the_loop, RUBRIC).ajudge(SOUP)).is_satisfied
    assert loops == [asyncio.get_running_loop()]


def test_a_function_as_judge_makes_no_criterion_go_missing() -> None:
    pattern = Rubric(name="mine", criteria=(PatternCriterion(name="no_bleach", must_not_match="bleach"),))
    with pytest.raises(RainConfigError, match="'no_bleach' of the rubric would not be judged"):
        TranscriptJudge(lambda text: 1.0, pattern)
    with pytest.raises(RainConfigError, match="would not be told documents"):
        TranscriptJudge(lambda text: 1.0, "grounded_in_context")


def test_a_judge_that_does_no_better_than_a_coin_is_told_of() -> None:
    from langchain_rain.engines.transformers import TransformersEngine
    from tests.tiny_models import tiny_llama, tiny_tokenizer

    tokenizer = tiny_tokenizer()
    engine = TransformersEngine(tiny_llama(tokenizer, seed=1), tokenizer)
    with pytest.warns(JudgeAtChanceWarning, match="no better than a coin"):
        TranscriptJudge(engine, "politeness")


def test_mistakes_show_when_a_judge_is_made_or_given_a_text() -> None:
    with pytest.raises(RainConfigError, match="judge: a Hugging Face id"):
        TranscriptJudge(7, RUBRIC)
    with pytest.raises(RubricError, match="no rubric 'harmlesness'"):
        TranscriptJudge(Kitchen(), "harmlesness")


async def test_a_text_that_is_not_valid_is_an_error_in_its_place() -> None:
    kitchen = Kitchen()
    judge, texts = kitchen_judge(kitchen), [SOUP, Transcript("", "\ud800")]
    assert satisfied(judge.judge_all(texts)) == satisfied(await judge.ajudge_all(texts)) == [True, RainConfigError]
    with pytest.raises(RainConfigError, match="not valid Unicode"):
        judge.judge(texts[1])
    assert kitchen.is_idle


def test_a_budget_that_is_spent_is_an_error() -> None:
    def sleepy(text: str) -> float:
        time.sleep(0.2)
        return 1.0

    judge = TranscriptJudge(sleepy, RUBRIC, budget=Budget(max_seconds=0.01))
    with pytest.raises(BudgetExceededError, match=r"max_seconds=0\.01 is spent"):
        judge.judge(SOUP)


def test_what_a_function_of_a_criterion_raises_is_the_judges_failure() -> None:
    def fail(text: Any) -> float:
        raise ZeroDivisionError("the scale broke")

    broken = Rubric(name="mine", criteria=(CallableCriterion(name="f", function=fail),))
    (judged,) = kitchen_judge(rubric=broken).judge_all([SOUP])
    assert isinstance(judged, EngineError)
    assert "the scale broke" in str(judged)
