"""A function of the user's as judge: its values, its mistakes, and where it is called."""

import asyncio
import contextvars
import functools
import math
import re
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableLambda

from langchain_rain import RainConfigError
from langchain_rain.drivers import Job, Outcome, arun, run, run_batch
from langchain_rain.engines.base import Answered, Cost, Engine
from langchain_rain.engines.callables import CallableEngine
from langchain_rain.engines.calling import Calls
from langchain_rain.engines.chat_model import ChatModelEngine
from langchain_rain.engines.dialogue import Dialogue
from langchain_rain.engines.loading import demo_model_path, load_engine
from langchain_rain.engines.scripted import ScriptedEngine
from langchain_rain.engines.transformers import TransformersEngine
from langchain_rain.errors import EngineError
from langchain_rain.rubrics.asking import VALUE_OPTIONS
from langchain_rain.rubrics.evaluate import ValueJudge
from langchain_rain.search.protocol import Expand, OptionLogprobs, Score, Transcript, Verdict

NEVER = -math.inf
PROMPT, ANSWER = "Human: What is for supper?\n\nAssistant:", " Soup."
TRANSCRIPT = PROMPT + ANSWER


def judging(function: Any, loop: asyncio.AbstractEventLoop | None = None) -> Job[Verdict]:
    """One judgement, on behalf of a coroutine on `loop` if there is one."""
    engine = CallableEngine(function)
    dialogue = Dialogue((HumanMessage("?"),), calls=Calls(loop=loop))
    context = engine.open(dialogue, max_tokens=1)
    return Job(ValueJudge(context)(Transcript(PROMPT, ANSWER)), {context: engine})


def judged_by(function: Any) -> Verdict:
    return run(judging(function)).result


async def ajudged_by(function: Any) -> Verdict:
    return (await arun(judging(function, asyncio.get_running_loop()))).result


def politeness(transcript: str) -> float:
    return 0.5


async def slow_politeness(transcript: str) -> float:
    return 0.5


class Polite:
    async def __call__(self, transcript: str) -> float:
        return 0.5


class Bound:
    def judge(self, transcript: str) -> float:
        return 0.5

    async def ajudge(self, transcript: str) -> float:
        return 0.5


# --- Values ------------------------------------------------------------------------------------------------------


def test_a_function_judges_the_transcript() -> None:
    read: list[str] = []

    def judge(transcript: str) -> float:
        read.append(transcript)
        return 0.5

    outcome = run(judging(judge))
    assert (outcome.result, outcome.cost) == (Verdict(0.5), Cost())
    assert read == [TRANSCRIPT]


@pytest.mark.parametrize("value", [-1, -0.5, 0, 0.25, 1, 1.0, np.float64(0.5)])
def test_any_number_from_minus_1_to_1_is_a_value(value: float) -> None:
    assert judged_by(lambda transcript: value) == Verdict(float(value))


@given(st.floats(-1, 1))
def test_a_value_comes_through_as_it_was_given_and_its_sign_exactly(value: float) -> None:
    engine = CallableEngine(lambda transcript: value)
    answered = engine.call(Score(engine.open("?", max_tokens=1), TRANSCRIPT, "", VALUE_OPTIONS))
    good, bad = map(math.exp, answered.reply.logprobs)
    assert (answered.reply.mass, answered.cost) == (1.0, Cost())
    assert good - bad == pytest.approx(value, abs=1e-12)
    assert good + bad == pytest.approx(1)


def test_certainty_has_no_doubt() -> None:
    engine = CallableEngine(float)
    context = engine.open("?", max_tokens=1)
    replies = [engine.call(Score(context, value, "", VALUE_OPTIONS)) for value in ("1", "-1")]
    assert replies == [
        Answered(OptionLogprobs((0.0, NEVER), mass=1.0), Cost()),
        Answered(OptionLogprobs((NEVER, 0.0), mass=1.0), Cost()),
    ]


def test_none_abstains() -> None:
    assert judged_by(lambda transcript: None) == Verdict(0.0, is_abstained=True)


@pytest.mark.parametrize("value", [True, False, math.nan, math.inf, 1.01, -2, "0.5", "good", [0.5], {"value": 1}, b""])
def test_what_is_no_such_number_is_an_error_that_says_so(value: Any) -> None:
    with pytest.raises(EngineError, match=r"from -1 to 1 or None is allowed") as caught:
        judged_by(lambda transcript: value)
    assert repr(value) in str(caught.value)
    assert (caught.value.request, caught.value.is_retryable) == ("Score", False)


def test_what_a_function_raises_is_an_error_that_may_pass() -> None:
    cause = KeyError("no such dish")

    def fails(transcript: str) -> float:
        raise cause

    with pytest.raises(EngineError, match=r"fails failed: KeyError: 'no such dish'") as caught:
        judged_by(fails)
    assert (caught.value.__cause__, caught.value.is_retryable, caught.value.request) == (cause, True, "Score")


def test_a_function_writes_nothing() -> None:
    engine = CallableEngine(politeness)
    context = engine.open("?", max_tokens=1)
    request = Expand(context, (), 1, 1, 1, 1, 1.0, 0)
    with pytest.raises(EngineError, match="politeness judges and does not write") as caught:
        engine.call(request)
    assert (caught.value.engine, caught.value.request) == ("politeness", "Expand")


# --- Where it is called ------------------------------------------------------------------------------------------

COROUTINE_FUNCTIONS = [
    slow_politeness,
    Polite(),
    Bound().ajudge,
    functools.partial(slow_politeness),
    lambda transcript: slow_politeness(f"{transcript}"),  # itself no coroutine function
]


@pytest.mark.parametrize("function", COROUTINE_FUNCTIONS)
async def test_a_coroutine_function_is_awaited(function: Any) -> None:
    assert await ajudged_by(function) == Verdict(0.5)


@pytest.mark.parametrize("function", COROUTINE_FUNCTIONS)
def test_a_coroutine_function_called_without_a_loop_is_an_error_that_says_what_to_do(function: Any) -> None:
    with pytest.raises(EngineError, match=r"is a coroutine function; .* for ainvoke, astream and abatch"):
        judged_by(function)


def test_another_awaitable_without_a_loop_is_an_error_too() -> None:
    loop = asyncio.new_event_loop()
    try:
        future = loop.create_future()
        with pytest.raises(EngineError, match="for ainvoke, astream and abatch"):
            judged_by(lambda transcript: future)
    finally:
        loop.close()


async def test_a_coroutine_function_runs_on_the_loop_of_the_caller() -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    async def judge(transcript: str) -> float:
        loops.append(asyncio.get_running_loop())
        return 0.5

    assert await ajudged_by(judge) == Verdict(0.5)
    assert loops == [asyncio.get_running_loop()]


async def test_a_function_of_an_async_call_does_not_block_the_loop() -> None:
    loop, may_answer = asyncio.get_running_loop(), threading.Event()

    def judge(transcript: str) -> float:
        loop.call_soon_threadsafe(may_answer.set)  # is set only if the loop goes on meanwhile
        assert may_answer.wait(10)
        return 0.5

    assert await ajudged_by(judge) == Verdict(0.5)


async def test_a_mistake_of_a_coroutine_function_is_told_like_any_other() -> None:
    async def judge(transcript: str) -> Any:
        return "good"

    with pytest.raises(EngineError, match=r"'good'; a number from -1 to 1"):
        await ajudged_by(judge)


def test_judgements_of_a_batch_run_beside_each_other() -> None:
    meeting = threading.Barrier(3)

    def judge(transcript: str) -> float:
        meeting.wait(10)  # raises unless all three are here at once
        return 0.5

    outcomes = run_batch([judging(judge) for _ in range(3)])
    assert [outcome.result for outcome in outcomes if isinstance(outcome, Outcome)] == [Verdict(0.5)] * 3


WHO: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")


async def test_a_function_sees_the_context_of_its_caller() -> None:
    seen: list[str] = []

    def judge(transcript: str) -> float:
        seen.append(WHO.get())
        return 0.5

    async def ajudge(transcript: str) -> float:
        return judge(transcript)

    token = WHO.set("caller")
    try:
        judged_by(judge)
        await ajudged_by(judge)
        await ajudged_by(ajudge)
    finally:
        WHO.reset(token)
    assert seen == ["caller"] * 3


# --- Who it is ---------------------------------------------------------------------------------------------------


def test_a_function_with_a_name_of_its_own_is_known_by_it() -> None:
    identity = CallableEngine(politeness).identity
    assert re.fullmatch(r"tests\.test_callables\.politeness#[0-9a-f]{16}", identity["name"])
    assert CallableEngine(politeness).identity == identity


def test_a_wrapper_and_a_function_that_was_defined_anew_are_told_apart() -> None:
    @functools.wraps(politeness)
    def stricter(transcript: str) -> float:
        return -1.0

    names = [str(CallableEngine(each).identity["name"]) for each in (politeness, stricter, stricter)]
    assert len(set(names)) == 3


def nameless() -> list[Callable[[str], Any]]:
    def local(transcript: str) -> float:
        return 0.5

    return [lambda transcript: 0.5, local, Bound().judge, Polite(), functools.partial(politeness)]


@pytest.mark.parametrize("number", range(len(nameless())))
def test_a_function_without_one_is_never_mistaken_for_another(number: int) -> None:
    function = nameless()[number]
    engine = CallableEngine(function)
    assert engine.identity == engine.identity
    # Even where another function comes to lie at the same address, in this process or the next.
    assert CallableEngine(function).identity != engine.identity


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (politeness, "politeness"),
        (Polite(), "Polite"),
        (Bound().judge, "Bound.judge"),
        (functools.partial(politeness), "partial"),
    ],
)
def test_it_goes_by_the_name_of_the_function(function: Any, name: str) -> None:
    assert CallableEngine(function).name == name


# --- From what is given to an engine -----------------------------------------------------------------------------


def test_an_engine_is_itself() -> None:
    engine = ScriptedEngine()
    assert load_engine(engine) is load_engine(engine, "judge") is engine


def test_demo_is_the_bundled_model() -> None:
    engine = load_engine("demo")
    assert isinstance(engine, TransformersEngine)
    assert (engine.name, str(engine.model.dtype), str(engine.model.device)) == ("demo", "torch.float32", "cpu")


def test_a_folder_is_the_model_in_it() -> None:
    engine = load_engine(demo_model_path())
    assert isinstance(engine, TransformersEngine)
    assert engine.name == demo_model_path()


def test_what_is_no_folder_cannot_be_loaded() -> None:
    with pytest.raises(EngineError, match="'no/such-model' cannot be loaded"):
        load_engine("no/such-model")


def test_a_chat_model_is_asked_as_one() -> None:
    model = FakeListChatModel(responses=["A"])
    for argument in ("model", "judge"):
        engine = load_engine(model, argument)
        assert isinstance(engine, ChatModelEngine)
        assert engine.model is model


@pytest.mark.parametrize("function", [politeness, slow_politeness, Polite(), Bound().judge, lambda transcript: 0.5])
def test_a_function_may_judge(function: Any) -> None:
    assert isinstance(load_engine(function, "judge"), CallableEngine)


@pytest.mark.parametrize("given", [politeness, None, 5, ["demo"], ScriptedEngine, FakeListChatModel])
def test_nothing_else_may_write(given: Any) -> None:
    with pytest.raises(
        RainConfigError,
        match=r"^model: a Hugging Face id or folder, 'demo', a chat model or an engine is allowed, given ",
    ) as caught:
        load_engine(given)
    assert repr(given) in str(caught.value)


@pytest.mark.parametrize("given", [5, ["demo"], ScriptedEngine, Polite, RunnableLambda(politeness)])
def test_nothing_else_may_judge(given: Any) -> None:
    with pytest.raises(
        RainConfigError,
        match=r"^judge: .* a chat model or an engine, or a function from transcript to value is allowed",
    ):
        load_engine(given, "judge")


def test_without_torch_a_name_is_an_error_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langchain_rain.engines.transformers", None)
    with pytest.raises(RainConfigError, match=r"judge='demo' needs torch and transformers: pip install"):
        load_engine("demo", "judge")


def test_all_of_them_are_engines() -> None:
    assert isinstance(CallableEngine(politeness), Engine)
    assert isinstance(ChatModelEngine(FakeListChatModel(responses=[])), Engine)
