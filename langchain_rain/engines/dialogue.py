"""Conversations of LangChain messages, as chat templates and judges read them.

Text that comes from outside never becomes a marker of a turn: in lines it is quoted, in templates the tokenizer
encodes what looks like a control token as text.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, BaseMessage, ChatMessage, SystemMessage, ToolMessage

from langchain_rain.errors import EngineError, RainConfigError
from langchain_rain.quoting import quoted

if TYPE_CHECKING:
    from langchain_rain.engines.calling import Calls

SPEAKERS = {"system": "System", "human": "Human", "ai": "Assistant", "tool": "Tool"}
TEMPLATE_ROLES = {"system": "system", "human": "user", "ai": "assistant", "tool": "tool"}
SPEAKER_OF_ROLE = {"system": "system", "developer": "system", "user": "human", "assistant": "ai", "tool": "tool"}

NEXT_TURNS = tuple(f"\n{speaker}:" for speaker in SPEAKERS.values())
"""Where an answer ends that was asked for in lines."""

UNSPOKEN_BLOCKS = frozenset({"tool_use", "tool_call", "reasoning", "thinking", "redacted_thinking"})
"""Content blocks that hold nothing but what the message says elsewhere, or what was not said."""

OPAQUE_BLOCKS = frozenset({"image", "image_url", "audio", "video", "file", "output_image", "inline_data"})
"""Content blocks that a judge cannot read."""


@dataclass(frozen=True, eq=False)
class Dialogue:
    """What a chat model is asked to answer.

    Attributes:
        messages: the conversation so far, at least one.
        tools: that may be called, in OpenAI's form.
        tool_choice: "any", the name of the tool that must be called, or None.
        call_arguments: what else a chat model behind an engine is called with.
        calls: how such a model is called: on whose behalf, and on which event loop.
        beginning: what the answer begins with, put into the assistant's mouth; it goes on from there.
    """

    messages: tuple[BaseMessage, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    tool_choice: str | None = None
    call_arguments: Mapping[str, Any] = field(default_factory=dict)
    calls: "Calls | None" = None
    beginning: str = ""

    def __post_init__(self) -> None:
        if not self.messages:
            raise RainConfigError("A conversation of at least one message is needed, given none.")

    @property
    def as_lines(self) -> str:
        """All of it as `Human: ...` and `Assistant: ...`, ending where the answer goes on."""
        lines = as_lines(self.messages)
        return f"{lines} {quoted(self.beginning)}" if self.beginning else lines


def as_lines(messages: Sequence[BaseMessage], *, max_turns: int | None = None, next_speaker: str = "ai") -> str:
    """The conversation as `Human: ...` and `Assistant: ...`, ending where the next one is to speak.

    Args:
        messages: the conversation.
        max_turns: how many of its last turns are wanted, each from a human message to the next; system messages at its
            beginning stay. None for all.
        next_speaker: who that is.
    """
    wanted = _last_turns(messages, max_turns)
    lines = [f"{SPEAKERS[speaker_of(message)]}: {quoted(said(message))}" for message in wanted]
    return "\n\n".join([*lines, f"{SPEAKERS[next_speaker]}:"])


def said(message: BaseMessage) -> str:
    """What a message says, its tool calls included; what is not text is named in brackets."""
    parts = [str(message.text)]
    parts += [f"[{kind}]" for kind in _other_blocks(message)]
    if isinstance(message, AIMessage):
        for call in message.tool_calls:
            arguments = json.dumps(call["args"], ensure_ascii=False, sort_keys=True, default=str)
            parts.append(f"[calls the tool {call['name']} with {arguments}]")
    return "\n".join(part for part in parts if part)


def said_in_full(message: BaseMessage) -> str:
    """All that a message brings to whoever gets it, thoughts and unreadable calls too, to be judged.

    Raises:
        EngineError: it holds an image, half of a character, or something else that cannot be read.
    """
    opaque = next((kind for kind in _other_blocks(message) if kind in OPAQUE_BLOCKS), None)
    if opaque is not None:
        raise EngineError(f"A message with a content block of type {opaque!r} cannot be judged.")
    parts = [said_with_blocks(message)]
    parts += [_as_json(call) for call in getattr(message, "invalid_tool_calls", ())]
    parts += [_as_json(message.additional_kwargs)] if any(message.additional_kwargs.values()) else []
    text = "\n".join(part for part in parts if part)
    try:
        text.encode()
    except UnicodeEncodeError as error:  # no conversation that it became a part of could be judged any more
        raise EngineError("A message that is not valid Unicode text cannot be judged.") from error
    return text


def said_with_blocks(message: BaseMessage) -> str:
    """What a message says, and what its content blocks hold beside their text, but for images and the like."""
    parts = [said(message)]
    for block in message.content if isinstance(message.content, list) else []:
        if isinstance(block, dict) and block.get("type") not in OPAQUE_BLOCKS:
            is_text = block.get("type") == "text" and isinstance(block.get("text"), str)
            known = ("type", "index", "signature", *(("text",) if is_text else ()))
            rest = {name: value for name, value in block.items() if name not in known}
            parts += [_as_json(rest)] if any(rest.values()) else []
    return "\n".join(part for part in parts if part)


def guided(messages: Sequence[BaseMessage], guidance: str) -> list[BaseMessage]:
    """The conversation with guidance in its system message, one of its own if there is none."""
    if not guidance:
        return list(messages)
    if messages and isinstance(messages[0], SystemMessage):
        return [SystemMessage(f"{messages[0].text}\n\n{guidance}"), *messages[1:]]
    return [SystemMessage(guidance), *messages]


def _as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def speaker_of(message: BaseMessage) -> str:
    """Who speaks: "system", "human", "ai" or "tool".

    Raises:
        RainConfigError: somebody else does.
    """
    kind = message.type.removesuffix("MessageChunk").lower()
    if isinstance(message, ChatMessage):
        kind = SPEAKER_OF_ROLE.get(message.role, message.role)
    kind = "tool" if kind == "function" else kind
    if kind not in SPEAKERS:
        raise RainConfigError(f"A message of {', '.join(SPEAKERS)} is allowed, given one of {kind!r}.")
    return kind


def template_messages(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    """The conversation as chat templates take it; turns of one speaker that follow each other become one.

    Raises:
        RainConfigError: a message holds something else than text.
    """
    turns: list[dict[str, Any]] = []
    for message in messages:
        turn = _template_message(message)
        if turns and turns[-1]["role"] == turn["role"] != "tool":
            turns[-1]["content"] = "\n\n".join(part for part in (turns[-1]["content"], turn["content"]) if part)
            calls = turns[-1].get("tool_calls", []) + turn.get("tool_calls", [])
            turns[-1] |= {"tool_calls": calls} if calls else {}
        else:
            turns.append(turn)
    return turns


def with_system_in_first_turn(turns: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same for templates without a system role: its text stands at the beginning of the first turn of the user."""
    system = "\n\n".join(turn["content"] for turn in turns if turn["role"] == "system")
    others = [dict(turn) for turn in turns if turn["role"] != "system"]
    first = next((turn for turn in others if turn["role"] == "user"), None)
    if first is None:
        return [{"role": "user", "content": system}, *others]
    first["content"] = f"{system}\n\n{first['content']}"
    return others


def _template_message(message: BaseMessage) -> dict[str, Any]:
    others = _other_blocks(message)
    if others:
        raise RainConfigError(f"This model reads text alone, given a content block of type {others[0]!r}.")
    turn: dict[str, Any] = {"role": TEMPLATE_ROLES[speaker_of(message)], "content": str(message.text)}
    if isinstance(message, AIMessage) and message.tool_calls:
        turn["tool_calls"] = [
            {"type": "function", "id": call["id"], "function": {"name": call["name"], "arguments": call["args"]}}
            for call in message.tool_calls
        ]
    if isinstance(message, ToolMessage):
        turn["tool_call_id"] = message.tool_call_id
        turn |= {"name": message.name} if message.name else {}
    return turn


def _other_blocks(message: BaseMessage) -> list[str]:
    if isinstance(message.content, str):
        return []
    kinds = [str(block.get("type")) for block in message.content if isinstance(block, dict)]
    return [kind for kind in kinds if kind != "text" and kind not in UNSPOKEN_BLOCKS]


def _last_turns(messages: Sequence[BaseMessage], max_turns: int | None) -> list[BaseMessage]:
    starts = [index for index, message in enumerate(messages) if speaker_of(message) == "human"]
    if max_turns is None or len(starts) <= max_turns:
        return list(messages)
    num_system = next(index for index, message in enumerate(messages) if speaker_of(message) != "system")
    return [*messages[:num_system], *messages[starts[-max_turns] :]]
