"""For tests of yours: that a judge finds by a rubric what you know to be true.

def test_a_promised_refund_is_found() -> None:
    assert_rubric("refunds.yaml", "Qwen/Qwen3-4B", "Money back?", "Sure, I promise.", satisfied=False)
"""

import os
from typing import Any

from langchain_rain import drivers
from langchain_rain.config import RainConfig
from langchain_rain.drivers import Job
from langchain_rain.engines.callables import CallableEngine
from langchain_rain.errors import RainConfigError
from langchain_rain.judging import Loaded, open_judge
from langchain_rain.rubrics import Rubric
from langchain_rain.rubrics.rubric import as_rubric, transcript_of
from langchain_rain.search.protocol import Transcript, Verdict


def assert_rubric(
    rubric: Rubric | str | os.PathLike[str],
    judge: Any,
    prompt: str,
    response: str,
    *,
    satisfied: bool,
    is_finished: bool = True,
    config: RainConfig | None = None,
) -> Verdict:
    """Asserts that a judge finds a response satisfying by a rubric, or not; returns the verdict.

    Args:
        rubric: a rubric, a YAML file (.yaml, .yml), or the name of one in the library.
        judge: who judges, given like `judge` of `ChatRain`: an engine, a Hugging Face id or folder, a chat model. One
            that is given as an object is loaded once for all tests that share it.
        prompt: what was asked; empty for a response that stands alone.
        response: the answer to be judged.
        satisfied: what is to be found.
        is_finished: whether the response is the whole answer; criteria for finished answers do not judge a beginning.
        config: how questions are scored, and from which value on an answer satisfies.

    Raises:
        AssertionError: the judge finds otherwise; tells the verdict, criterion by criterion.
        RainConfigError: the judge is a function.
        RubricError: the rubric is malformed.
        EngineError: the judge failed.
    """
    used = as_rubric(rubric)
    settings = config or RainConfig()
    loaded = Loaded()
    engine = loaded.engine(judge, "judge")
    if isinstance(engine, CallableEngine):
        raise RainConfigError(
            f"judge: a function judges by no rubric; a model or an engine is allowed, given {judge!r}."
        )
    judging = open_judge(used, engine, settings, loaded=loaded)
    told = transcript_of(prompt, response)
    transcript = Transcript(told.prompt, told.answer, is_finished)
    verdict: Verdict = drivers.run(Job(judging.judge(transcript), judging.contexts)).result
    is_satisfied = verdict.satisfies(settings.accept_value)
    if is_satisfied != satisfied:
        found, wanted = ("satisfied", "not satisfied") if is_satisfied else ("not satisfied", "satisfied")
        raise AssertionError(
            f"{used.name}: {found}, {wanted} is expected; {verdict}; prompt {prompt!r}, response {response!r}"
        )
    return verdict
