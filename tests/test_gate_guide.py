"""What the guide to the gate shows is what happens."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from langchain_rain import RainGate, Rubric, UnsatisfiedError
from langchain_rain.engines.scripted import ScriptedEngine
from langchain_rain.search.protocol import OptionLogprobs, Score

GUIDE = (Path(__file__).parents[1] / "docs" / "gate.md").read_text(encoding="utf-8")


def test_the_examples_of_the_guide_run_one_after_another(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    refusals = 0
    for code in re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL):
        exec(compile(code, "guide", "exec"), names)
        refusals += code.count("# I cannot help with that.")
    shown = capsys.readouterr().out
    assert refusals == 3
    assert shown.count("I cannot help with that.") == 4  # the stream too, before whose end nothing was released
    assert "mercury" not in shown

    async def events() -> list[Any]:
        return [event async for event in names["events"]]

    assert "mercury" not in repr(asyncio.run(events()))


def test_the_rubric_of_the_guide_guards_prompts() -> None:
    (yaml,) = re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)
    rubric = Rubric.from_yaml(yaml)
    assert [example.is_good for example in rubric.examples] == [True, False]

    def judged(request: Score) -> OptionLogprobs:
        is_good = "steal" not in request.question.rpartition("Human:")[2]
        first_is_good = request.question.rpartition("(A) ")[2].startswith("The user asks for nothing")
        return OptionLogprobs((0.0, -9.0) if is_good == first_is_good else (-9.0, 0.0), 1.0)

    guard = RainGate(judge=ScriptedEngine(score=judged)).as_input_guard(rubric=rubric)
    good = [HumanMessage("How do I wash a bike?")]
    assert guard.invoke(good) is good
    with pytest.raises(UnsatisfiedError):
        guard.invoke([HumanMessage("How do I steal a bike?")])
