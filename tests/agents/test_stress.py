"""Hundreds of runs at once, many of them cancelled: nothing is left behind, and what is half done can go on."""

import asyncio
import gc
import random
import tempfile
import threading
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver

from langchain_rain import EngineError, PatternCriterion, Rubric
from langchain_rain.engines.chat_model import ChatModelEngine
from tests.agents.worlds import (
    MARK,
    StreamingFakeChat,
    World,
    assert_nothing_rejected_is_in,
    assert_state_is_clean,
    calling,
    dislikes_marks,
)
from tests.conformance.worlds import is_guided, is_judgement

NUM_RUNS = 500
NUM_AT_ONCE = 16
SHARE_CANCELLED = 0.2
SHARE_FAILED = 0.01
"""Of judgements."""

MAX_TICKS = 120
"""Turns of the event loop until a run is cancelled; a whole one takes some hundreds."""


UNMARKED = Rubric(name="unmarked", criteria=(PatternCriterion(name="unmarked", must_not_match=MARK),))


class PatientChat(StreamingFakeChat):
    """A chat model that lets others go on while it writes, as one behind a network does."""

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        for _ in range(len(str(messages[-1].text)) % 5):
            await asyncio.sleep(0)
        return self._generate(messages, stop, None, **kwargs)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in self._stream(messages, stop, None, **kwargs):
            await asyncio.sleep(0)
            yield chunk


class Office:
    """An agent whose every first draft is marked, with a model that judges it and sometimes fails."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.fails = True
        self.world = World(
            reply=self._write,
            judge=PatientChat(reply=self._judge),
            tool_rubric=UNMARKED,
            says={"b": f"{MARK} obey"},
            max_rewind_steps=1,
            agent={"model": PatientChat(reply=self._write), "checkpointer": InMemorySaver()},
        )
        self.outcomes: Counter[str] = Counter()

    @property
    def sizes(self) -> list[int]:
        """Of all that could grow: guarded models, engines, priors, and of each engine what is open and under way."""
        guards: list[Any] = self.world.guard._guarded
        (_, guarded, _), *_ = guards
        engines = [each for each in guarded.loaded.engines.values() if isinstance(each, ChatModelEngine)]
        open_now = [size for each in engines for size in (len(each._conversations), len(each.channel._under_way))]
        return [len(guards), len(guarded.loaded.engines), len(guarded.loaded.priors), *open_now]

    def _judge(self, messages: Sequence[BaseMessage], arguments: Any) -> AIMessage:
        question = str(messages[-1].text)
        assert is_judgement(messages)
        if self.fails and self.random.random() < SHARE_FAILED:
            raise ConnectionError("away")
        good, bad = ("A", "B") if "(A) Assistant's response is harmless" in question else ("B", "A")
        return AIMessage(good if dislikes_marks(question) > 0 else bad)

    def _write(self, messages: Sequence[BaseMessage], arguments: Any) -> AIMessage:
        if not is_guided(messages):
            return calling(("write", MARK), text=f"I write {MARK}.", number=9)
        if any(isinstance(each, ToolMessage) for each in messages):
            return AIMessage("All done.")
        return calling(("read", "a"), ("read", "b"), text="Let me see.", number=len(messages))

    async def run(self, number: int) -> None:
        """One run, to its end or not."""
        config: RunnableConfig = {"configurable": {"thread_id": f"run {number}"}}
        run = asyncio.create_task(self._streamed(config) if number % 2 else self._invoked(config))
        if self.random.random() < SHARE_CANCELLED:
            for _ in range(self.random.randrange(MAX_TICKS)):
                await asyncio.sleep(0)
            run.cancel()
        try:
            await run
            self.outcomes["done"] += 1
        except asyncio.CancelledError:
            self.outcomes["cancelled"] += 1
        except EngineError:
            self.outcomes["failed"] += 1
        self.values_are_clean((await self.world.agent.aget_state(config)).values)

    async def _invoked(self, config: RunnableConfig) -> None:
        out = await self.world.agent.ainvoke(_asked(), config)
        assert out["messages"][-1].text == "All done."
        assert_state_is_clean(out)

    async def _streamed(self, config: RunnableConfig) -> None:
        async for mode, item in self.world.agent.astream(_asked(), config, stream_mode=["messages", "custom"]):
            if mode == "custom" or not isinstance(item[0], ToolMessage):  # what a tool says is seen before it is judged
                assert_nothing_rejected_is_in(item)

    async def go_on(self, number: int) -> None:
        """What was cancelled or has failed goes on from where it was."""
        config: RunnableConfig = {"configurable": {"thread_id": f"run {number}"}}
        state = await self.world.agent.aget_state(config)
        if state.next or not state.values:
            out = await self.world.agent.ainvoke(None if state.next else _asked(), config)
            assert out["messages"][-1].text == "All done."
            assert_state_is_clean(out)

    def values_are_clean(self, values: Any) -> None:
        """What a run has left can be gone on with, wherever it was cut off."""
        if values:
            messages = [each for each in values["messages"] if not isinstance(each, ToolMessage)]
            assert_nothing_rejected_is_in(messages)


def _asked() -> dict[str, Any]:
    return {"messages": [HumanMessage("Please tidy up.")]}


async def all_of(office: Office, numbers: range, *, goes_on: bool = False) -> None:
    """Runs so many, some at a time, and looks for tasks that are left."""
    places = asyncio.Semaphore(NUM_AT_ONCE)

    async def placed(number: int) -> None:
        async with places:
            await (office.go_on(number) if goes_on else office.run(number))

    async with asyncio.TaskGroup() as group:
        for number in numbers:
            group.create_task(placed(number))
    for _ in range(3):  # callbacks of what was cancelled last
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


def ours() -> Counter[str]:
    """How many objects of this package there are, by type."""
    gc.collect()
    kinds = (type(each) for each in gc.get_objects())
    return Counter(kind.__qualname__ for kind in kinds if str(kind.__module__).startswith("langchain_rain"))


def test_hundreds_of_runs_at_once_with_cancellations_leave_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    office = Office(seed=7)
    asyncio.run(all_of(office, range(-NUM_AT_ONCE, 0)))  # what is loaded once is loaded now
    threads, objects = set(threading.enumerate()), ours()
    caches = office.sizes
    assert set(caches[3:]) == {0}
    office.outcomes.clear()

    asyncio.run(all_of(office, range(NUM_RUNS)))
    assert office.outcomes.total() == NUM_RUNS
    assert 0.5 * SHARE_CANCELLED * NUM_RUNS < office.outcomes["cancelled"] < 1.5 * SHARE_CANCELLED * NUM_RUNS
    assert office.outcomes["failed"] > 0
    assert office.outcomes["done"] > NUM_RUNS / 2
    office.fails = False
    asyncio.run(all_of(office, range(NUM_RUNS), goes_on=True))

    assert {each for each in threading.enumerate() if each.is_alive()} <= threads
    assert list(tmp_path.iterdir()) == []
    assert office.sizes == caches
    assert not ours() - objects
