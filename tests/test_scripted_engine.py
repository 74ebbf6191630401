"""The engine for tests without a model, which users' tests stand on too."""

from typing import Any

import numpy as np
import pytest

from langchain_rain.drivers import Job, run
from langchain_rain.engines.base import Cost, Engine
from langchain_rain.engines.scripted import ScriptedEngine
from langchain_rain.errors import EngineError
from langchain_rain.search.protocol import (
    Context,
    Embed,
    Expand,
    OptionLogprobs,
    Request,
    Rollout,
    Score,
    Steps,
    Tokens,
    TokenSet,
    ask,
    ask_all,
)
from tests.comparing import answer, answer_and_cost

YES = TokenSet((1,), "yes", logprob=-0.5)
JUDGEMENT = OptionLogprobs((-0.1, -2.4), mass=1.0)


def expand(context: Context, *prefix: int) -> Expand:
    return Expand(context, prefix, num_token_sets=2, num_tokens=1, num_draws=0, top_k=2, temperature=1.0, seed=0)


def test_replies_come_from_tables_by_prefix_and_by_question() -> None:
    vector = np.array([1.0, 0.0])
    engine = ScriptedEngine(expand={(): [YES]}, rollout={(1,): YES}, score={"Good?": JUDGEMENT}, embed={(1,): vector})
    context = engine.open("two words", max_tokens=9)
    requests: list[Request] = [
        expand(context),
        Rollout(context, (1,), until=(), max_tokens=None, temperature=1.0, seed=0),
        Score(context, "Good?", "(", ("A", "B")),
        Embed(context, (1,), num_tokens=1),
    ]
    replies, cost = answer_and_cost(engine, *requests)
    assert replies == [[YES], YES, JUDGEMENT, vector]
    assert cost == Cost(forward_passes=1, token_positions=4)
    assert engine.asked == requests
    assert context.num_prompt_tokens == 2


def test_replies_come_from_functions_of_the_request() -> None:
    engine = ScriptedEngine(expand=lambda request: [TokenSet((len(request.prefix),), "")])
    context = engine.open("a", max_tokens=9)
    assert answer(engine, expand(context, 5, 5), expand(context)) == [[TokenSet((2,), "")], [TokenSet((0,), "")]]


@pytest.mark.parametrize("script", [None, {}, {(9,): []}])
def test_what_the_script_lacks_is_an_error_that_says_what_was_asked(
    script: dict[Tokens, Any] | None,
) -> None:
    engine = ScriptedEngine(expand=script)
    (error,) = answer(engine, expand(engine.open("a", max_tokens=9), 3))
    assert isinstance(error, EngineError)
    assert str(error) == "scripted has no reply to Expand of (3,)."
    assert error.request == "Expand"


def test_a_cancelled_request_is_not_answered() -> None:
    engine = ScriptedEngine(expand=lambda _: [YES])
    context = engine.open("a", max_tokens=9)
    cancelled, kept = engine.submit(expand(context)), engine.submit(expand(context))
    engine.cancel(cancelled)
    engine.cancel(cancelled)
    assert engine.step().finished == {kept: [YES]}
    assert engine.step().finished == {}


def test_an_exception_in_the_script_reaches_the_search_that_asked() -> None:
    engine = ScriptedEngine(expand=lambda _: EngineError("no more"))
    context = engine.open("a", max_tokens=9)

    def search() -> Steps[str]:
        try:
            yield from ask(expand(context))
        except EngineError as error:
            return str(error)
        return "nothing was raised"

    assert run(Job(search(), {context: engine})).result == "no more"


def test_it_notes_the_conversations_that_were_opened_and_closed() -> None:
    engine = ScriptedEngine(score={"Good?": JUDGEMENT})
    context = engine.open("a", max_tokens=9)

    def search() -> Steps[list[Any]]:
        question = Score(context, "Good?", "(", ("A", "B"))
        return list((yield from ask_all([question, question])))

    assert run(Job(search(), {context: engine})).result == [JUDGEMENT, JUDGEMENT]
    closed = run(Job(search(), {context: engine}))  # what was posted before it has been done by now
    assert closed.cost == Cost(1, token_positions=1, judging_positions=1)  # equal requests are asked once
    assert engine.opened == [context]
    assert context in engine.closed


def test_it_is_an_engine_with_a_name_of_its_own() -> None:
    engine = ScriptedEngine(name="my script")
    assert isinstance(engine, Engine)
    assert engine.identity == {"engine": "scripted", "name": "my script"}
    assert engine.open("a", max_tokens=9).engine_name == "my script"
