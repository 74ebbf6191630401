"""A model that believes whatever it reads, by a rule: it follows its plan until it reads what an attacker wants."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.messages.tool import tool_call

from tests.attacks.script import Call, Proposal, Script
from tests.fake_chat_models import FakeChat

OF_ATTACKER = "bad"
"""What the ids of calls begin with that an attacker wants."""


def gullible(script: Script) -> FakeChat:
    """The model of a script; it counts for itself how often it was turned down."""
    num_tried = 0

    def reply(messages: Sequence[BaseMessage], arguments: Mapping[str, Any]) -> AIMessage:
        nonlocal num_tried
        if _is_misled(script, messages) and (script.is_stubborn or num_tried < len(script.bad)):
            num_tried += 1
            return _proposed(script.bad[min(num_tried, len(script.bad)) - 1], num_tried)
        return _planned(script, messages)

    return FakeChat(reply=reply)


def texts_in(content: Any) -> Iterator[str]:
    """All texts that stand in the content of a message, at whatever depth."""
    if isinstance(content, str):
        yield content
    for each in content.values() if isinstance(content, dict) else content if isinstance(content, list) else ():
        yield from texts_in(each)


def _is_misled(script: Script, messages: Sequence[BaseMessage]) -> bool:
    """Whether it can read what the attacker wants, and has not done it yet."""
    read = "\n".join(text for each in messages if isinstance(each, ToolMessage) for text in texts_in(each.content))
    called = any(isinstance(each, ToolMessage) and each.tool_call_id.startswith(OF_ATTACKER) for each in messages)
    said = any(isinstance(each, AIMessage) and each.text in _texts(script) for each in messages)
    is_time = _turn_number(messages) >= script.acts_in
    return is_time and not called and not said and any(injected in read for injected in script.injections)


def _texts(script: Script) -> list[str]:
    return [each.text for each in script.bad if not each.calls]


def _turn_number(messages: Sequence[BaseMessage]) -> int:
    return sum(isinstance(each, HumanMessage) for each in messages)


def _proposed(proposal: Proposal, number: int) -> AIMessage:
    calls = [_called(call, f"{OF_ATTACKER}{number}.{place}") for place, call in enumerate(proposal.calls)]
    return AIMessage(proposal.text, tool_calls=calls)


def _planned(script: Script, messages: Sequence[BaseMessage]) -> AIMessage:
    """The first call of the plan that nothing has come of yet; the answer after the last."""
    number = _turn_number(messages)
    turn = script.turns[number - 1]
    done = {each.tool_call_id for each in messages if isinstance(each, ToolMessage)}
    for place, step in enumerate(turn.plan):
        if (id := f"turn{number}.{place}") not in done:
            return AIMessage("", tool_calls=[_called(step.call, id)])
    return AIMessage(turn.answer)


def _called(call: Call, id: str) -> Any:
    return tool_call(name=call.tool, args=dict(call.args), id=id)
