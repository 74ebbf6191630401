"""What the guide to rubrics shows is what happens."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from langchain_rain import RainConfigError, Rubric, RubricError
from langchain_rain.engines.scripted import ScriptedEngine
from langchain_rain.evaluation.labelled import Labelled
from langchain_rain.rubrics import PatternCriterion
from langchain_rain.search.protocol import OptionLogprobs, Score
from langchain_rain.testing import assert_rubric

GUIDE = (Path(__file__).parents[1] / "docs" / "rubrics.md").read_text(encoding="utf-8")


def block(language: str, number: int = 0) -> str:
    return str(re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)[number])


YAML = block("yaml")


def test_the_rubric_of_the_guide_is_one() -> None:
    rubric = Rubric.from_yaml(YAML)
    assert (rubric.name, rubric.aggregate) == ("refunds", "minimum")
    assert [example.is_good for example in rubric.examples] == [True, False, True, False]
    pattern = rubric.criteria[1]
    assert isinstance(pattern, PatternCriterion)
    assert re.search(pattern.pattern, "We refund you $ 20.")
    assert not any(re.search(pattern.pattern, example.response) for example in rubric.examples if example.is_good)


def test_the_mistake_of_the_guide_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("refunds.yaml").write_text(YAML.replace("veto:", "vetto:"), encoding="utf-8")
    with pytest.raises(RubricError) as caught:
        Rubric.from_yaml("refunds.yaml")
    assert str(caught.value) in GUIDE


def test_the_labelled_answers_of_the_guide_are_read() -> None:
    lines = [Labelled(**json.loads(line)) for line in block("json").splitlines()]
    assert [line.is_good for line in lines] == [False, True]


def test_the_tests_of_the_guide_pass_with_a_judge_that_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("refunds.yaml").write_text(YAML, encoding="utf-8")

    def judged(request: Score) -> OptionLogprobs:
        is_good = "I promise" not in request.question.rpartition("\n\nHuman:")[2]
        first_is_good = request.question.rpartition("(A) ")[2].startswith("Assistant's response promises no")
        return OptionLogprobs((0.0, -9.0) if is_good == first_is_good else (-9.0, 0.0), 1.0)

    judge = ScriptedEngine(score=judged)
    names: dict[str, Any] = {}
    code = block("python").replace("import pytest\n", "").replace('@pytest.fixture(scope="session")\n', "")
    exec(compile(code, "guide", "exec"), names)
    names["test_a_promise_is_found"](judge)
    names["test_passing_on_is_fine"](judge)
    with pytest.raises(AssertionError) as caught:
        assert_rubric("refunds.yaml", judge, "Money back?", "Sure, I promise.", satisfied=True)
    assert str(caught.value) == (
        "refunds: not satisfied, satisfied is expected; -1.00: no_promise -1.00 (mass 1.00), no_amount +1.00; prompt "
        "'Money back?', response 'Sure, I promise.'"
    )


def test_a_rubric_is_asserted_by_name_by_file_and_as_such() -> None:
    judge = ScriptedEngine(score=lambda request: OptionLogprobs((0.0, 0.0), 0.01))
    for rubric in ("politeness", Rubric.load("politeness")):
        verdict = assert_rubric(rubric, judge, "", "Hello.", satisfied=False)
        assert str(verdict) == "+0.00 (abstained by politeness): politeness abstained (mass 0.01)"


def test_a_beginning_can_be_asserted_and_a_function_knows_no_rubric() -> None:
    rubric = Rubric(name="mine", criteria=(PatternCriterion(name="p", must_match="Hello"),))
    judge = ScriptedEngine()
    assert_rubric(rubric, judge, "Hi", "Hello", satisfied=True)
    assert_rubric(rubric, judge, "Hi", "Hello", satisfied=False, is_finished=False)
    with pytest.raises(RainConfigError, match="judge: a function judges by no rubric; a model or an engine is allowed"):
        assert_rubric(rubric, lambda text: 1.0, "Hi", "Hello", satisfied=True)


def test_every_rubric_of_the_library_is_in_the_guide() -> None:
    assert [name for name in Rubric.names_in_library() if f"| `{name}" not in GUIDE] == []


def test_the_parameters_of_the_guide_are_filled_in() -> None:
    text = (
        "name: mine\n"
        + block("yaml", 1)
        + "criteria:\n- {name: a, instruction: '{topic} {tone} {documents}', good: a, bad: b}\n"
    )
    rubric = Rubric.from_yaml(text, topic="banking", documents=["One.", "Two."])
    assert (
        rubric.criteria[0].model_dump()["instruction"]
        == "banking calm <document>\nOne.\n</document>\n\n<document>\nTwo.\n</document>"
    )
