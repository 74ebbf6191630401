"""An agent that runs a script, and what came of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver

from langchain_rain.middleware import RainMiddleware
from tests.attacks.agent import gullible, texts_in
from tests.attacks.script import Call, Script
from tests.attacks.world import World
from tests.fake_chat_models import FakeChat

MODES = ("messages", "updates", "custom")
THREAD: RunnableConfig = {"configurable": {"thread_id": "1"}}


@dataclass(frozen=True)
class Outcome:
    """What came of a script.

    Attributes:
        script: what was run.
        messages: of the state in the end.
        streamed: all that the streams brought, but for the middleware's own bookkeeping.
        ran: the tool calls that ran.
        bad: those of them that an honest model does not make.
        said: what the attacker wanted to be said, and was.
        model: what was asked.
    """

    script: Script
    messages: list[BaseMessage]
    streamed: list[Any]
    ran: list[Call]
    bad: list[Call]
    said: list[str]
    model: FakeChat

    @property
    def is_harmed(self) -> bool:
        """Whether the attacker got anything."""
        return bool(self.bad or self.said)

    @property
    def answers(self) -> list[str]:
        """What stands last in each turn."""
        ends = [at for at, each in enumerate(self.messages) if isinstance(each, HumanMessage)][1:]
        return [self.messages[end - 1].text for end in [*ends, len(self.messages)]]

    @property
    def shown(self) -> list[AIMessage]:
        """The turns of the model that anybody was shown, in the state or in a stream."""
        return [each for each in messages_in([self.messages, self.streamed]) if isinstance(each, AIMessage)]


def run(script: Script, *middleware: RainMiddleware, ends_with: str = "") -> Outcome:
    """Runs all turns of a script; what the tool `ends_with` gives back ends a turn."""
    agent, world, model = _made(script, middleware, ends_with)
    streamed: list[Any] = []
    for turn in script.turns:
        asked: Any = {"messages": [HumanMessage(turn.ask)]}
        streamed += map(_kept, agent.stream(asked, THREAD, stream_mode=list(MODES)))
    return _outcome(script, agent, world, model, streamed)


async def arun(script: Script, *middleware: RainMiddleware) -> Outcome:
    """The same on an event loop."""
    agent, world, model = _made(script, middleware)
    streamed: list[Any] = []
    for turn in script.turns:
        asked: Any = {"messages": [HumanMessage(turn.ask)]}
        async for event in agent.astream(asked, THREAD, stream_mode=list(MODES)):
            streamed.append(_kept(event))
    return _outcome(script, agent, world, model, streamed)


def _made(script: Script, middleware: Sequence[RainMiddleware], ends_with: str = "") -> tuple[Any, World, FakeChat]:
    world, model = World(script), gullible(script)
    for tool in world.tools:
        tool.return_direct = tool.name == ends_with
    return create_agent(model, world.tools, middleware=middleware, checkpointer=InMemorySaver()), world, model


def _outcome(script: Script, agent: Any, world: World, model: FakeChat, streamed: list[Any]) -> Outcome:
    messages = agent.get_state(THREAD).values["messages"]
    wanted = [each.text for each in script.bad if not each.calls]
    said = [str(each.text) for each in messages if isinstance(each, AIMessage) and each.text in wanted]
    return Outcome(script, messages, streamed, world.ran, world.bad(script), said, model)


def _kept(event: Any) -> Any:
    """What a stream brings, without what the middleware keeps for itself."""
    if isinstance(event, dict):
        return {key: _kept(each) for key, each in event.items() if key != "rain"}
    return [_kept(each) for each in event] if isinstance(event, list | tuple) else event


def messages_in(value: Any) -> Iterator[BaseMessage]:
    """All messages in what a stream brought, at whatever depth."""
    if isinstance(value, BaseMessage):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
        yield from messages_in(each)


# --- What a state must be --------------------------------------------------------------------------------------------


def faults(outcome: Outcome) -> Iterator[str]:
    """What is wrong with the state and the streams of a guarded run, whatever else happened in it."""
    ids = [each.id for each in outcome.messages]
    if None in ids or len(set(ids)) != len(ids):
        yield f"ids of messages: {ids}"
    results = [each.tool_call_id for each in outcome.messages if isinstance(each, ToolMessage)]
    calls = [call["id"] for each in outcome.messages if isinstance(each, AIMessage) for call in each.tool_calls]
    if calls != results:
        yield f"calls {calls} with results {results}"
    shown = [call for each in outcome.shown for call in each.tool_calls]
    unplanned = [call for call in shown if Call(call["name"], call["args"]) not in outcome.script.planned]
    if unplanned:
        yield f"calls that were rejected are shown: {unplanned}"
    shown_texts = [repr(each) for each in outcome.shown]
    secrets = [secret for secret in rejected_texts(outcome.script) if any(secret in text for text in shown_texts)]
    if secrets:
        yield f"of what was rejected is shown: {secrets}"


def rejected_texts(script: Script) -> set[str]:
    """Texts in the bad proposals that an honest model says nowhere."""
    said = repr([*script.planned, *(turn.answer for turn in script.turns)])
    args = [call.args for proposal in script.bad for call in proposal.calls]
    texts = [*texts_in([dict(each) for each in args]), *(proposal.text for proposal in script.bad)]
    return {text for text in texts if len(text) > 3 and text not in said}
