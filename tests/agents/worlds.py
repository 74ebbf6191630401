"""Agents in which all that is rejected carries a mark, by every way to run one, and what must hold afterwards."""

import asyncio
import inspect
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.messages import AIMessage, AIMessageChunk, AnyMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.messages.tool import tool_call, tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver

from langchain_rain import CallableCriterion, RainConfig, Rubric
from langchain_rain.engines.callables import JudgedText
from langchain_rain.middleware import RainMiddleware
from langchain_rain.tool_calls import proposed_call
from tests.conformance.listening import MODES
from tests.fake_chat_models import FakeChat
from tests.tiny_models import UNTRIED

MARK = "xyzzy"
"""Stands in every draft that is rejected, and in the arguments of every call that is."""

ASKED = "Please tidy up my notes."
REFUSAL = "I cannot help with that."
QUICK = RainConfig(max_simulations=3, num_children=3)

Done = list[tuple[str, str]]
"""What tools have done: the name and the argument, each time one ran."""


class StreamingFakeChat(FakeChat):
    """The same, word by word and telling its handlers of each, as providers do."""

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        (generation,) = self._generate(messages, stop, run_manager, **kwargs).generations
        message = generation.message
        assert isinstance(message, AIMessage)
        pieces = [AIMessageChunk(content=f"{word} ") for word in str(message.text).split()]
        for index, call in enumerate(message.tool_calls):
            begun = tool_call_chunk(name=call["name"], args="", id=call["id"], index=index)
            rest = tool_call_chunk(name=None, args=json.dumps(call["args"]), id=None, index=index)
            pieces += [AIMessageChunk(content="", tool_call_chunks=[each]) for each in (begun, rest)]
        last = AIMessageChunk(content="", usage_metadata=message.usage_metadata, chunk_position="last")
        last.response_metadata = message.response_metadata
        pieces.append(last)
        for piece in pieces:
            chunk = ChatGenerationChunk(message=piece)
            if run_manager is not None:
                run_manager.on_llm_new_token(str(piece.text), chunk=chunk)
            yield chunk


WRITERS: dict[str, type[FakeChat]] = {"whole": FakeChat, "streamed": StreamingFakeChat}


def dislikes_marks(transcript: str) -> float:
    """Judges an answer, or a trajectory."""
    return -1.0 if MARK in transcript else 1.0


def dislikes_marked_answers(text: JudgedText) -> float:
    """Judges an answer by itself, whatever was said before."""
    return dislikes_marks(text.answer)


def is_unmarked(text: JudgedText) -> float:
    """Judges a call."""
    return -1.0 if MARK in str(dict(proposed_call(text).args)) else 1.0


UNMARKED_CALLS = Rubric(name="unmarked", criteria=(CallableCriterion(name="unmarked", function=is_unmarked),))


def calling(*calls: tuple[str, str], text: str = "", number: int = 0) -> AIMessage:
    """A message that calls tools, each by its name and its one argument."""
    made = [
        tool_call(name=name, args={"path": path}, id=f"call_{number}_{index}_{path}")
        for index, (name, path) in enumerate(calls)
    ]
    return AIMessage(text, tool_calls=made)


def tools(done: Done, **says: str) -> list[Any]:
    """Tools that note what they do; `read` says what `says` has for a path."""

    @tool
    def read(path: str) -> str:
        """Read a file."""
        done.append(("read", path))
        return says.get(path, f"All is well in {path}.")

    @tool
    def write(path: str) -> str:
        """Write a file."""
        done.append(("write", path))
        return f"Wrote {path}."

    return [read, write]


class World:
    """An agent on a scripted model.

    Args:
        answers: of the model, one a call, the last again and again; `answers` are those to come.
        reply: what the model answers by instead.
        kind: how it writes, one of `WRITERS`.
        says: what files hold.
        middleware: that of the agent from the guard; by default that alone.
        agent: more arguments of `create_agent`.
        arguments: of the guard.
    """

    def __init__(
        self,
        *answers: AIMessage,
        reply: Any = None,
        kind: str = "whole",
        says: dict[str, str] | None = None,
        middleware: Callable[[RainMiddleware], Sequence[Any]] = lambda rain: [rain],
        agent: dict[str, Any] | None = None,
        **arguments: Any,
    ) -> None:
        self.done: Done = []
        self.answers = list(answers)
        self.writer = WRITERS[kind](reply=reply or self._next)
        self.guard = rain(**arguments)
        self.agent: Any = create_agent(
            **{
                "model": self.writer,
                "tools": tools(self.done, **(says or {})),
                "middleware": middleware(self.guard),
                "checkpointer": InMemorySaver(),
                **(agent or {}),
            },
        )
        self.config: RunnableConfig = {"configurable": {"thread_id": "desk"}}

    def _next(self, messages: Sequence[BaseMessage], arguments: Any) -> AIMessage:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    @property
    def num_drafts(self) -> int:
        """How often the model was asked to write."""
        return len(self.writer.asked)

    @property
    def state(self) -> Any:
        """The last checkpoint."""
        return self.agent.get_state(self.config)

    @property
    def messages(self) -> list[AnyMessage]:
        """Those of the last checkpoint."""
        return list(self.state.values["messages"])

    def ask(self, asked: Any = ASKED) -> Any:
        """Runs the agent, by a question or by what goes on with a run that was interrupted."""
        return self.agent.invoke({"messages": [HumanMessage(asked)]} if isinstance(asked, str) else asked, self.config)

    def hear(self, way: str) -> Any:
        """All that comes out when it is asked in some way."""
        return run(way, self.agent, {"messages": [HumanMessage(ASKED)]}, self.config)


def rain(**arguments: Any) -> RainMiddleware:
    """A guard that dislikes marks, in text and in calls."""
    settings = {
        "rubric": UNTRIED,
        "judge": dislikes_marks,
        "tool_rubric": UNMARKED_CALLS,
        "config": QUICK,
        "seed": 1,
    }
    return RainMiddleware(**{**settings, **arguments})


DONE = AIMessage("All done.")
BAD = calling(("write", MARK), text=f"I write {MARK}.", number=9)
GOOD = calling(("write", "a"), number=1)

either_side = pytest.mark.parametrize("is_first", [True, False], ids=["guard first", "guard last"])


def beside(*others: Any, is_first: bool) -> Callable[[RainMiddleware], Sequence[Any]]:
    """The guard with other middleware after or before it."""
    return lambda guard: [guard, *others] if is_first else [*others, guard]


# --- What must hold after a run ----------------------------------------------------------------------------------


def assert_nothing_rejected_is_in(seen: Any, rejected: Sequence[str] = (MARK,)) -> None:
    """What was rejected is nowhere in what somebody has seen, and neither is the bookkeeping of the middleware."""
    text = repr(seen)
    assert [each for each in rejected if each in text] == []
    assert "'taken_back'" not in text


def assert_state_is_clean(state: Any, rejected: Sequence[str] = (MARK,), *, is_open: bool = False) -> None:
    """The messages of a state are a conversation that a model can go on from, and hold nothing that was rejected.

    Args:
        state: what a run gave back, or the values of a checkpoint.
        rejected: marks of what was rejected.
        is_open: whether the last calls may still wait for their results.
    """
    messages: list[AnyMessage] = list(state["messages"])
    assert_nothing_rejected_is_in(messages, rejected)
    ids = Counter(each.id for each in messages)
    assert None not in ids
    called = Counter(call["id"] for each in messages if isinstance(each, AIMessage) for call in each.tool_calls)
    assert [each for each, count in [*ids.items(), *called.items()] if count > 1] == []
    waiting: set[Any] = set()
    for message in messages:
        if isinstance(message, ToolMessage):
            assert message.tool_call_id in waiting, "a result without its call, or twice"
            waiting.remove(message.tool_call_id)
            continue
        assert not waiting, "a call without its result"
        if isinstance(message, AIMessage):
            waiting = {call["id"] for call in message.tool_calls}
    assert is_open or not waiting


# --- Ways to run an agent ----------------------------------------------------------------------------------------

Way = Callable[[Any, Any, RunnableConfig], Any]
"""Runs an agent on an input; returns all that came out, perhaps as a coroutine."""


def _moded(mode: Any, **more: Any) -> tuple[Way, Way]:
    def sync(agent: Any, given: Any, config: RunnableConfig) -> list[Any]:
        return list(agent.stream(given, config, stream_mode=mode, **more))

    async def coroutine(agent: Any, given: Any, config: RunnableConfig) -> list[Any]:
        return [item async for item in agent.astream(given, config, stream_mode=mode, **more)]

    return sync, coroutine


async def _aevents_v2(agent: Any, given: Any, config: RunnableConfig) -> list[Any]:
    """All but the custom events that show a search to who asks for them."""
    events = [event async for event in agent.astream_events(given, config, version="v2")]
    return [event for event in events if event["event"] != "on_custom_event"]


def _events_v3(agent: Any, given: Any, config: RunnableConfig) -> list[Any]:
    with agent.stream_events(given, config, version="v3") as run:
        heard: list[Any] = []
        for name, item in run.interleave("messages", "values"):
            heard += [name, *item, item.output] if name == "messages" else [name, item]
        return [*heard, run.output]


async def _aevents_v3(agent: Any, given: Any, config: RunnableConfig) -> list[Any]:
    async with await agent.astream_events(given, config, version="v3") as run:
        heard: list[Any] = []
        async for message in run.messages:
            heard += [event async for event in message]
            heard.append(await message.output)
        return [*heard, await run.output()]


WAYS: dict[str, Way] = {
    "invoke": lambda agent, given, config: [agent.invoke(given, config)],
    "ainvoke": lambda agent, given, config: agent.ainvoke(given, config),
    "astream_events v2": _aevents_v2,
    "stream_events v3": _events_v3,
    "astream_events v3": _aevents_v3,
}
for _mode in [*MODES, MODES]:
    _name = _mode if isinstance(_mode, str) else "all modes"
    WAYS[f"stream {_name}"], WAYS[f"astream {_name}"] = _moded(_mode, subgraphs=_name == "all modes")

SHOWN = [name for name in WAYS if not name.endswith(("checkpoints", "tasks", "debug", "all modes"))]
"""Those that are for users; the others show what a checkpoint holds, to whoever debugs."""


def run(way: str, agent: Any, given: Any, config: RunnableConfig) -> Any:
    """All that comes out of a run."""
    out = WAYS[way](agent, given, config)
    return asyncio.run(_awaited(out)) if inspect.isawaitable(out) else out


async def _awaited(awaitable: Any) -> Any:
    return await awaitable
