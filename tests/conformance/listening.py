"""Everything that comes out of a chat model, a graph or an agent, by every way there is into it."""

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Annotated, Any, TypedDict
from uuid import UUID

from langchain.agents import create_agent
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.messages import AnyMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tracers._streaming import _StreamingCallbackHandler, _V2StreamingCallbackHandler
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages

from langchain_rain import ChatRain
from tests.conformance.worlds import QUESTION, serve

CHILDREN = frozenset({"rain_draft", "rain_judgement"})
"""Names of the runs below one of ChatRain: they are the trace."""

MODES: list[Any] = ["values", "updates", "messages", "custom", "checkpoints", "tasks", "debug"]


class Ear(BaseCallbackHandler):
    """Hears everything; keeps apart the trace of ChatRain's own runs and its custom events.

    Attributes:
        heard: what must hold nothing that was rejected.
        custom: custom events, by name, with their run.
        trace: runs below one of ChatRain: name, run, parent, tags.
        tops: runs of chat models that are not below one of ChatRain.
    """

    run_inline = True

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.tokens: list[str] = []
        self.custom: list[tuple[str, Any, UUID]] = []
        self.trace: list[tuple[str, UUID, UUID | None, list[str]]] = []
        self.tops: list[UUID] = []
        self.ended: list[UUID] = []
        self.errors: list[BaseException] = []
        self._children: set[UUID] = set()

    def on_chat_model_start(self, serialized: Any, messages: Any, **told: Any) -> None:
        if told.get("name") in CHILDREN or told["parent_run_id"] in {*self.tops, *self._children}:
            self._children.add(told["run_id"])
            self.trace.append((told["name"], told["run_id"], told["parent_run_id"], list(told["tags"] or [])))
        else:
            self.tops.append(told["run_id"])
            self.heard.append((messages, told))

    def on_llm_new_token(self, token: Any, **told: Any) -> None:
        self.tokens.append(token)
        self.heard.append((token, told))

    def on_stream_event(self, event: Any, **told: Any) -> None:
        self.heard.append((event, told))

    def on_llm_end(self, response: Any, **told: Any) -> None:
        self.ended.append(told["run_id"])
        if told["run_id"] not in self._children:
            self.heard.append((response, told))

    def on_llm_error(self, error: BaseException, **told: Any) -> None:
        if told["run_id"] not in self._children:
            self.errors.append(error)
            self.heard.append((error, told))

    def on_chain_start(self, serialized: Any, inputs: Any, **told: Any) -> None:
        self.heard.append((inputs, told))

    def on_chain_end(self, outputs: Any, **told: Any) -> None:
        self.heard.append((outputs, told))

    def on_chain_error(self, error: BaseException, **told: Any) -> None:
        self.heard.append((error, told))

    def on_tool_start(self, serialized: Any, input_str: str, **told: Any) -> None:
        self.heard.append((input_str, told))

    def on_tool_end(self, output: Any, **told: Any) -> None:
        self.heard.append((output, told))

    def on_text(self, text: str, **told: Any) -> None:
        self.heard.append(text)

    def on_custom_event(self, name: str, data: Any, *, run_id: UUID, **told: Any) -> None:
        self.custom.append((name, data, run_id))
        if not name.startswith("rain_"):
            self.heard.append((name, data))


class StreamingEar(Ear, _StreamingCallbackHandler[Any]):
    """Makes `invoke` stream, as the handlers of LangGraph and of `astream_events` do; drafts are not for it."""

    def tap_output_aiter(self, run_id: UUID, output: AsyncIterator[Any]) -> AsyncIterator[Any]:
        return output

    def tap_output_iter(self, run_id: UUID, output: Iterator[Any]) -> Iterator[Any]:
        return output


class StreamingV2Ear(Ear, _V2StreamingCallbackHandler):
    """The same by the events of v3."""


class AsyncEar(AsyncCallbackHandler):
    """The tokens that a coroutine is told."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    async def on_llm_new_token(self, token: Any, **told: Any) -> None:
        self.heard.append((token, told))

    async def on_stream_event(self, event: Any, **told: Any) -> None:
        self.heard.append((event, told))


def is_of_rain(event: Any) -> bool:
    """Whether an event of `astream_events` is one of those in which drafts may be seen."""
    return isinstance(event, dict) and event.get("event") == "on_custom_event" and event["name"].startswith("rain_")


Entry = Callable[[Any, Any, RunnableConfig], Any]
"""Calls something with an input; returns all that came out, in the order in which it came, perhaps as a coroutine."""


async def _taken(items: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in items if not is_of_rain(item)]


async def _entered_v3(runnable: Any, given: Any, config: RunnableConfig) -> list[Any]:
    stream = await runnable.astream_events(given, config, version="v3")
    out = [event async for event in stream] + [await stream.output]
    assert stream._producer_task is not None
    await stream._producer_task  # it tells of the end of the run after the stream has ended
    return out


def _stream_v3(runnable: Any, given: Any, config: RunnableConfig) -> list[Any]:
    stream = runnable.stream_events(given, config, version="v3")
    return [*stream, stream.output]


# --- Of any runnable ---------------------------------------------------------------------------------------------

RUNNABLE: dict[str, Entry] = {
    "invoke": lambda runnable, given, config: [runnable.invoke(given, config)],
    "ainvoke": lambda runnable, given, config: runnable.ainvoke(given, config),
    "stream": lambda runnable, given, config: list(runnable.stream(given, config)),
    "astream": lambda runnable, given, config: _taken(runnable.astream(given, config)),
    "batch": lambda runnable, given, config: runnable.batch([given, given], config),
    "abatch": lambda runnable, given, config: runnable.abatch([given, given], config),
    "batch_as_completed": lambda runnable, given, config: list(runnable.batch_as_completed([given, given], config)),
    "abatch_as_completed": lambda runnable, given, config: _taken(runnable.abatch_as_completed([given, given], config)),
    "transform": lambda runnable, given, config: list(runnable.transform(iter([given]), config)),
    "astream_log": lambda runnable, given, config: _taken(runnable.astream_log(given, config)),
    "astream_log whole": lambda runnable, given, config: _taken(runnable.astream_log(given, config, diff=False)),
    "astream_events v1": lambda runnable, given, config: _taken(runnable.astream_events(given, config, version="v1")),
    "astream_events v2": lambda runnable, given, config: _taken(runnable.astream_events(given, config, version="v2")),
}

# --- Of a chat model ---------------------------------------------------------------------------------------------


def _messages() -> list[list[Any]]:
    return [[HumanMessage(QUESTION)], [HumanMessage(QUESTION)]]


CHAT: dict[str, Entry] = RUNNABLE | {
    "generate": lambda chat, _, config: [chat.generate(_messages(), callbacks=config["callbacks"])],
    "agenerate": lambda chat, _, config: chat.agenerate(_messages(), callbacks=config["callbacks"]),
    "stream_events v3": _stream_v3,
    "astream_events v3": _entered_v3,
}


def chain_of(chat: ChatRain) -> Runnable[Any, Any]:
    return ChatPromptTemplate.from_messages([("system", "You cook."), ("human", "{question}")]) | chat


def parsing_chain_of(chat: ChatRain) -> Runnable[Any, Any]:
    return chain_of(chat) | StrOutputParser()


# --- Of a graph --------------------------------------------------------------------------------------------------


class State(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


def graph_of(chat: ChatRain) -> Any:
    """A graph of one node that calls the model as it is called itself."""
    return _graph(lambda state: {"messages": [chat.invoke(state["messages"])]}, _acalling(chat))


def streaming_graph_of(chat: ChatRain) -> Any:
    """A graph whose node streams the model."""

    def node(state: State) -> Any:
        pieces = list(chat.stream(state["messages"]))
        whole = pieces[0]
        for piece in pieces[1:]:
            whole += piece
        return {"messages": [whole]}

    return _graph(node, None)


def _acalling(chat: ChatRain) -> Callable[[State], Any]:
    async def node(state: State) -> Any:
        return {"messages": [await chat.ainvoke(state["messages"])]}

    return node


def _graph(node: Any, anode: Any) -> Any:
    from langgraph._internal._runnable import RunnableCallable

    graph = StateGraph(State)
    graph.add_node("cook", RunnableCallable(node, anode, name="cook") if anode else node)
    graph.add_edge(START, "cook")
    graph.add_edge("cook", END)
    return graph.compile(checkpointer=InMemorySaver())


def agent_of(chat: ChatRain) -> Any:
    """A real agent, with a tool where the model calls any."""
    tools = [serve] if not chat.model_name.startswith("kitchen") else []
    return create_agent(chat, tools=tools, checkpointer=InMemorySaver())


def _v3_projections(graph: Any, given: Any, config: RunnableConfig) -> list[Any]:
    with graph.stream_events(given, config, version="v3") as run:
        heard: list[Any] = []
        for name, item in run.interleave("messages", "values"):
            heard += [name, *item, item.output] if name == "messages" else [name, item]
        return [*heard, run.output]


async def _av3_messages(graph: Any, given: Any, config: RunnableConfig) -> list[Any]:
    async with await graph.astream_events(given, config, version="v3") as run:
        heard: list[Any] = []
        async for message in run.messages:
            heard += [event async for event in message]
            heard.append(await message.output)
        return [*heard, await run.output()]


def _moded(mode: Any, **given_too: Any) -> tuple[Entry, Entry]:
    def sync(graph: Any, given: Any, config: RunnableConfig) -> list[Any]:
        return list(graph.stream(given, config, stream_mode=mode, **given_too))

    async def coroutine(graph: Any, given: Any, config: RunnableConfig) -> list[Any]:
        return [item async for item in graph.astream(given, config, stream_mode=mode, **given_too)]

    return sync, coroutine


GRAPH: dict[str, Entry] = {
    name: RUNNABLE[name] for name in ("invoke", "ainvoke", "astream_events v1", "astream_events v2")
}
for _mode in [*MODES, MODES]:
    _name = _mode if isinstance(_mode, str) else "all modes"
    GRAPH[f"stream {_name}"], GRAPH[f"astream {_name}"] = _moded(_mode)
for _name, _modes in (("messages", "messages"), ("all modes", MODES)):
    GRAPH[f"stream {_name} v2"], GRAPH[f"astream {_name} v2"] = _moded(_modes, version="v2", subgraphs=True)
GRAPH |= {
    "stream_events v3": lambda graph, given, config: list(graph.stream_events(given, config, version="v3")),
    "stream_events v3 projections": _v3_projections,
    "astream_events v3 messages": _av3_messages,
}

# --- Running them ------------------------------------------------------------------------------------------------


def entered(entry: Entry, runnable: Any, given: Any, config: RunnableConfig) -> Any:
    """What came out; a coroutine is run."""
    out = entry(runnable, given, config)
    return asyncio.run(_awaited(out)) if inspect.isawaitable(out) else out


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


def kept_by(graph: Any, config: RunnableConfig) -> list[Any]:
    """What a graph remembers of a thread: its states and all that its checkpointer holds."""
    saver = graph.checkpointer
    return [
        graph.get_state(config),
        list(graph.get_state_history(config)),
        {key: dict(value) for key, value in saver.storage.items()},
        dict(saver.writes),
        dict(saver.blobs),
    ]


def cached_by(cache: InMemoryCache) -> Mapping[Any, Any]:
    return cache._cache


def loud(records: list[logging.LogRecord]) -> list[str]:
    """What was logged above DEBUG, with the exceptions that came with it."""
    formatter = logging.Formatter()
    return [formatter.format(record) + repr(record.args) for record in records if record.levelno > logging.DEBUG]
