"""How an answer ends before its end: cancelled, closed, out of budget, with an error; and batches (defects 13, 15)."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatResult
from pydantic import PrivateAttr

from langchain_rain import ChatRain, EngineError, UnsatisfiedError, drivers
from langchain_rain.engines.calling import Calls
from langchain_rain.engines.chat_model import ChatModelEngine
from langchain_rain.search.protocol import Expand, Score
from tests.conformance.listening import graph_of
from tests.conformance.worlds import (
    DISH,
    QUESTION,
    REFUSAL,
    Chef,
    MarkedKitchen,
    chef_chat,
    is_judgement,
    kitchen_chat,
)
from tests.scripted_world import CRASHING_PROMPT, PROMPT, Kitchen

CRASHING = CRASHING_PROMPT.removeprefix("Human: ").removesuffix("\n\nAssistant:")


# --- The event loop is never blocked (defect 13) -----------------------------------------------------------------


class Clockwork:
    """Ticks on the event loop; whoever works slowly waits for it to tick on."""

    def __init__(self) -> None:
        self.num_ticks = 0
        self._has_ticked = threading.Event()

    async def tick(self) -> None:
        while True:
            self.num_ticks += 1
            self._has_ticked.set()
            await asyncio.sleep(0)

    def wait(self) -> None:
        for _ in range(3):
            self._has_ticked.clear()
            assert self._has_ticked.wait(10), "the event loop stands still"


class SlowChef(Chef):
    """Has sync methods alone, as many chat models do."""

    _clockwork: Any = PrivateAttr(default=None)

    def answer(self, messages: list[BaseMessage], **kwargs: Any) -> Any:
        self._clockwork.wait()
        return super().answer(messages, **kwargs)


class SlowKitchen(MarkedKitchen):
    def __init__(self, clockwork: Clockwork) -> None:
        super().__init__()
        self._clockwork = clockwork

    def _offer(self, request: Expand) -> Any:
        self._clockwork.wait()
        return super()._offer(request)

    def _judge(self, request: Score) -> Any:
        self._clockwork.wait()
        return super()._judge(request)


def slow_chef(clockwork: Clockwork) -> ChatRain:
    chef = SlowChef()
    chef._clockwork = clockwork
    return chef_chat(chef)


def slow_judge(clockwork: Clockwork) -> ChatRain:
    def judge(transcript: str) -> float:
        clockwork.wait()
        return -1.0 if "xyzzy!" in transcript else 1.0

    return kitchen_chat(judge=judge)


SLOW: dict[str, Callable[[Clockwork], ChatRain]] = {
    "token sets": lambda clockwork: kitchen_chat(SlowKitchen(clockwork)),
    "messages": slow_chef,
    "a function that judges": slow_judge,
}


async def _streamed(chat: Any) -> str:
    return "".join([chunk.content async for chunk in chat.astream(QUESTION)])


async def _invoked(chat: Any) -> str:
    return str((await chat.ainvoke(QUESTION)).content)


async def _in_batch(chat: Any) -> str:
    return str((await chat.abatch([QUESTION]))[0].content)


async def _by_events(chat: Any) -> str:
    events = [event async for event in chat.astream_events(QUESTION, version="v2")]
    return "".join(event["data"]["chunk"].content for event in events if event["event"] == "on_chat_model_stream")


async def _in_graph(chat: Any) -> str:
    config: Any = {"configurable": {"thread_id": "table 4"}}
    state = await graph_of(chat).ainvoke({"messages": [("human", QUESTION)]}, config)
    return str(state["messages"][-1].content)


@pytest.mark.parametrize("call", [_invoked, _streamed, _in_batch, _by_events, _in_graph])
@pytest.mark.parametrize("world", SLOW)
async def test_coroutines_never_block_the_event_loop(world: str, call: Callable[[Any], Awaitable[str]]) -> None:
    """Defect 13: a task ticks on while a slow model, step or judge works, and they work on only if it does."""
    clockwork = Clockwork()
    ticking = asyncio.create_task(clockwork.tick())
    try:
        assert await call(SLOW[world](clockwork)) == DISH
    finally:
        ticking.cancel()
    assert clockwork.num_ticks > 3


# --- Cancelling and closing --------------------------------------------------------------------------------------


class GatedKitchen(MarkedKitchen):
    """Its second course waits, once begun, until it is let through."""

    def __init__(self) -> None:
        super().__init__()
        self.has_begun = threading.Event()
        self.gate = threading.Event()

    def _offer(self, request: Expand) -> Any:
        if request.prefix:
            self.has_begun.set()
            assert self.gate.wait(10)
        return super()._offer(request)

    @property
    def num_courses(self) -> int:
        return len({len(each.prefix) for each in self.asked if isinstance(each, Expand)})


@pytest.mark.parametrize("call", [_invoked, _streamed, _in_batch, _by_events, _in_graph])
async def test_cancelling_stops_the_search_at_the_next_round(call: Callable[[Any], Any]) -> None:
    engine = GatedKitchen()
    task = asyncio.create_task(call(kitchen_chat(engine)))
    assert await asyncio.to_thread(engine.has_begun.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    engine.gate.set()
    assert engine.is_idle
    assert engine.num_courses == 2  # of three


def test_closing_a_stream_early_stops_the_search() -> None:
    engine = GatedKitchen()
    chunks = kitchen_chat(engine).stream(QUESTION)
    assert next(chunks).content == "Warm"
    assert engine.has_begun.wait(10)
    chunks.close()  # type: ignore[attr-defined]  # a generator, typed as an iterator
    engine.gate.set()
    assert engine.is_idle
    assert engine.num_courses == 2


async def test_closing_a_stream_of_a_coroutine_early_stops_the_search() -> None:
    engine = GatedKitchen()
    chunks = kitchen_chat(engine).astream(QUESTION)
    assert (await anext(chunks)).content == "Warm"
    assert await asyncio.to_thread(engine.has_begun.wait, 10)
    await chunks.aclose()  # type: ignore[attr-defined]
    await asyncio.sleep(0)  # LangChain leaves the innermost generator to the event loop
    engine.gate.set()
    assert engine.is_idle
    assert engine.num_courses == 2


class PatientChef(Chef):
    """Never answers: sync calls wait until they are let go, coroutines until they are cancelled."""

    _gate: threading.Event = PrivateAttr(default_factory=threading.Event)
    _begun: list[threading.Event] = PrivateAttr(default_factory=lambda: [threading.Event()])
    _cancelled: list[str] = PrivateAttr(default_factory=list)
    judges_too: bool = False

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        if self.is_patient(messages):
            self._begun[0].set()
            assert self._gate.wait(10)
        return super()._generate(messages, stop, run_manager, **kwargs)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        if self.is_patient(messages):
            self._begun[0].set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self._cancelled.append("draft")
                raise
        return super()._generate(messages, stop, **kwargs)

    def is_patient(self, messages: list[BaseMessage]) -> bool:
        """Whether this is not answered: any draft; with `judges_too` judgements and no drafts."""
        return is_judgement(messages) == self.judges_too


@pytest.fixture
def chef() -> Iterator[PatientChef]:
    chef = PatientChef()
    yield chef
    chef._gate.set()


def open_conversations(chat: ChatRain) -> int:
    engine = chat.writer
    assert isinstance(engine, ChatModelEngine)
    return len(engine._conversations)


@pytest.mark.parametrize("call", [_invoked, _streamed, _in_batch])
async def test_cancelling_cancels_the_call_of_a_chat_model(chef: PatientChef, call: Callable[[Any], Any]) -> None:
    chat = chef_chat(chef)
    task = asyncio.create_task(call(chat))
    while not chef._begun[0].is_set():
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    while not chef._cancelled:
        await asyncio.sleep(0)
    assert (chef.log.asked, open_conversations(chat)) == ([], 0)


# --- Budgets are hard --------------------------------------------------------------------------------------------


def ended(message: BaseMessage) -> tuple[Any, str, str]:
    metadata = message.response_metadata
    return message.content, metadata["finish_reason"], metadata["rain"]["stop_reason"]


OUT_OF_BUDGET = (REFUSAL, "unsatisfied", "budget")


@pytest.mark.parametrize("judges_too", [False, True])
async def test_max_seconds_ends_an_answer_that_never_comes(*, judges_too: bool) -> None:
    chef = PatientChef(judges_too=judges_too)
    try:
        chat = chef_chat(chef, max_seconds=0.02)
        last = None
        for chunk in chat.stream(QUESTION):
            last = chunk if last is None else last + chunk
        assert last is not None
        answers = [chat.invoke(QUESTION), await chat.ainvoke(QUESTION), *chat.batch([QUESTION]), last]
    finally:
        chef._gate.set()
    assert [ended(answer) for answer in answers] == [OUT_OF_BUDGET] * len(answers)
    assert open_conversations(chat) == 0


async def test_a_timeout_raises_an_error_that_may_be_retried(chef: PatientChef) -> None:
    chat = chef_chat(chef, timeout=0.02)
    errors = []
    for call in (_invoked, _streamed, _in_batch):
        with pytest.raises(EngineError, match=r"timeout=0\.02") as raised:
            await call(chat)
        errors.append(raised.value)
    with pytest.raises(EngineError) as raised:
        chat.invoke(QUESTION)
    assert [error.is_retryable for error in [*errors, raised.value]] == [True] * 4


async def test_a_timeout_goes_by_on_error(chef: PatientChef) -> None:
    chat = chef_chat(chef, timeout=0.02, on_error="refuse")
    answers = [chat.invoke(QUESTION), await chat.ainvoke(QUESTION)]
    assert [ended(answer) for answer in answers] == [(REFUSAL, "unsatisfied", "error")] * 2


def test_a_budget_goes_by_on_unsatisfied() -> None:
    chef = PatientChef(judges_too=True)
    with pytest.raises(UnsatisfiedError, match="budget"):
        chef_chat(chef, max_seconds=0.02, on_unsatisfied="raise").invoke(QUESTION)
    chef._gate.set()


@pytest.mark.parametrize("slow_at", range(1, 15))
def test_one_slow_step_is_the_last_one(slow_at: int) -> None:
    """A step that takes all the time there is ends the search: nothing is asked after it, the last step included."""
    now = [0.0]

    class SlowOnce(MarkedKitchen):
        def step(self) -> Any:
            report = super().step()
            if len(self.asked) >= slow_at and not now[0]:
                self.num_asked_then = len(self.asked)
                now[0] = 100.0
            return report

    engine = SlowOnce()
    answer = kitchen_chat(engine, max_seconds=50).begin(PROMPT, PROMPT, None, calls=Calls())
    outcome = drivers.run(answer.job, clock=lambda: now[0])
    assert (outcome.result.stop_reason, outcome.result.is_satisfied) == ("budget", False)
    assert len(engine.asked) == engine.num_asked_then


@pytest.mark.parametrize("limit", range(1, 14))
def test_max_forward_tokens_is_overshot_by_one_step_at_most(limit: int) -> None:
    answer = kitchen_chat(max_forward_tokens=limit).invoke(QUESTION)
    rain = answer.response_metadata["rain"]
    assert rain["stop_reason"] == "budget"
    assert limit <= rain["token_positions"] <= limit + 1  # a step here asks at most about both orders of the options


@pytest.mark.parametrize("most", [1, 2, 3])
def test_max_simulations_is_hard(most: int) -> None:
    chef = Chef(is_hopeless=True)
    chat = chef_chat(chef)
    chat.invoke(QUESTION, rain_config=chat.config.model_copy(update={"max_simulations": most}))
    assert sum(not is_judgement(messages) for messages, _ in chef.log.asked) == most


# --- Errors end it closed (defect 15) ----------------------------------------------------------------------------


class LeavingChef(Chef):
    """Writes, and leaves when it is to judge."""

    def judge(self, messages: Any) -> Any:
        raise ConnectionError("The judge left.")


def broken_judge(transcript: str) -> float:
    raise ZeroDivisionError("The judge left.")


BROKEN: dict[str, Callable[..., ChatRain]] = {
    "messages": lambda **given: chef_chat(LeavingChef(), **given),
    "messages, judged by another": lambda **given: chef_chat(judge=LeavingChef(), **given),
    "messages, judged by a function": lambda **given: chef_chat(judge=broken_judge, **given),
    "token sets, judged by a function": lambda **given: kitchen_chat(judge=broken_judge, **given),
    "token sets, judged by a chat model": lambda **given: kitchen_chat(judge=LeavingChef(), **given),
}


@pytest.mark.parametrize("world", BROKEN)
async def test_a_judge_that_fails_lets_nothing_through(world: str, caplog: pytest.LogCaptureFixture) -> None:
    """Defect 15: an error is raised, or refused and said; never is the answer given as if it were judged well."""
    for call in (_invoked, _streamed, _in_batch):
        with pytest.raises(EngineError, match="The judge left"):
            await call(BROKEN[world]())
    refusing = BROKEN[world](on_error="refuse")
    caplog.set_level("INFO")
    assert ended(refusing.invoke(QUESTION)) == (REFUSAL, "unsatisfied", "error")
    assert [call for call in caplog.messages if call.startswith("Refused, on_error")]


def test_an_answer_that_is_let_through_by_policy_is_said_loudly(caplog: pytest.LogCaptureFixture) -> None:
    """Defect 15: a bypass is a warning and is told on the answer."""
    answer = chef_chat(Chef(is_hopeless=True), on_unsatisfied="best").invoke(QUESTION)
    assert answer.response_metadata["finish_reason"] == "unsatisfied" or answer.response_metadata["rain"]["bypass"]
    assert answer.response_metadata["rain"]["bypass"] == "on_unsatisfied=best"
    assert answer.response_metadata["rain"]["is_satisfied"] is False
    assert [record.levelname for record in caplog.records] == ["WARNING"]


# --- Batches -----------------------------------------------------------------------------------------------------

QUESTIONS: list[LanguageModelInput] = [f"{QUESTION} {number}" for number in range(8)]


class CountingKitchen(MarkedKitchen):
    """Counts the conversations that are open while it works."""

    most_open = 0

    def step(self) -> Any:
        self.most_open = max(self.most_open, len(self.opened) - len(self.closed))
        return super().step()


@pytest.mark.parametrize("most", [1, 2, 3])
async def test_no_more_than_max_concurrency_are_under_way(most: int) -> None:
    for call in ("batch", "abatch", "batch_as_completed"):
        engine = CountingKitchen()
        answers = getattr(kitchen_chat(engine), call)(QUESTIONS, {"max_concurrency": most})
        contents = [str(each) for each in (await answers if call == "abatch" else answers)]
        assert len(contents) == len(QUESTIONS)
        assert all(DISH in content for content in contents)
        assert engine.most_open <= most


@pytest.mark.parametrize("most", [1, 2])
async def test_no_more_than_max_concurrency_are_under_way_with_a_chat_model(most: int) -> None:
    class CountingChef(Chef):
        _counts: list[int] = PrivateAttr(default_factory=list)

        def answer(self, messages: list[BaseMessage], **kwargs: Any) -> Any:
            self._counts.append(open_conversations(chat))
            return super().answer(messages, **kwargs)

    chef = CountingChef()
    chat = chef_chat(chef)
    config: Any = {"max_concurrency": most}
    answers = [*chat.batch(QUESTIONS, config), *await chat.abatch(QUESTIONS, config)]
    assert [answer.content for answer in answers] == [DISH] * 16
    assert max(chef._counts) <= most


async def test_exceptions_of_a_batch_stand_each_in_its_own_place() -> None:
    given: list[LanguageModelInput] = [QUESTION, CRASHING, QUESTION, CRASHING]
    chat = kitchen_chat(Kitchen())
    completed: Any = chat.batch_as_completed(given, return_exceptions=True)
    batches: list[list[Any]] = [
        chat.batch(given, return_exceptions=True),
        await chat.abatch(given, return_exceptions=True),
        [answer for _, answer in sorted(completed)],
    ]
    for answers in batches:
        good, bad = answers[::2], answers[1::2]
        assert [answer.content for answer in good] == [DISH] * 2
        assert [type(answer) for answer in bad] == [EngineError] * 2
        assert bad[0] is not bad[1]


async def test_a_batch_without_returned_exceptions_raises_the_first() -> None:
    chat = kitchen_chat(Kitchen())
    with pytest.raises(EngineError, match="The judge left"):
        chat.batch([QUESTION, CRASHING])
    with pytest.raises(EngineError, match="The judge left"):
        await chat.abatch([QUESTION, CRASHING])
