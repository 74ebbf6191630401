"""Messages of LlamaIndex as those of LangChain and back, with tool calls, their results and their ids."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import ToolCall, tool_call
from llama_index.core.base.llms.types import (
    CachePoint,
    ChatMessage,
    ChatResponse,
    ContentBlock,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)

from langchain_rain.errors import RainConfigError

SYSTEM_ROLES = (MessageRole.SYSTEM, MessageRole.DEVELOPER)
ASSISTANT_ROLES = (MessageRole.ASSISTANT, MessageRole.CHATBOT, MessageRole.MODEL)


def to_langchain(messages: Sequence[ChatMessage]) -> list[BaseMessage]:
    """The conversation as LangChain has it.

    Raises:
        RainConfigError: a message holds what cannot be passed on, or the result of a tool does not name its call.
    """
    return [_to_langchain(message) for message in messages]


def _to_langchain(message: ChatMessage) -> BaseMessage:
    content = _content(message)
    if message.role in SYSTEM_ROLES:
        return SystemMessage(content)
    if message.role in ASSISTANT_ROLES:
        return AIMessage(content, tool_calls=_calls(message))
    if message.role == MessageRole.USER:
        return HumanMessage(content)
    call_id = message.additional_kwargs.get("tool_call_id")
    if not isinstance(call_id, str):
        raise RainConfigError(
            f"A message of role {message.role.value!r} needs the id of the call that it answers as "
            f"additional_kwargs['tool_call_id'], given {call_id!r}."
        )
    return ToolMessage(content, tool_call_id=call_id, name=message.additional_kwargs.get("name"))


def _content(message: ChatMessage) -> str | list[str | dict[str, Any]]:
    """Text as text; with images a list of blocks."""
    parts = [_part(block) for block in message.blocks]
    shown: list[str | dict[str, Any]] = [part for part in parts if part is not None]
    if all(isinstance(part, str) for part in shown):
        return "\n".join(map(str, shown))
    return [{"type": "text", "text": part} if isinstance(part, str) else part for part in shown]


def _part(block: Any) -> str | dict[str, Any] | None:
    """What a block says; None if that stands elsewhere, or was only thought."""
    if isinstance(block, TextBlock):
        return block.text
    if isinstance(block, ToolCallBlock | ThinkingBlock | CachePoint):
        return None
    if isinstance(block, ImageBlock):  # an address is passed on; what lies here is put into the message
        address = str(block.url) if block.url is not None and block.image is None else block.inline_url()
        return {"type": "image_url", "image_url": {"url": address}}
    raise RainConfigError(f"Text and images can be passed on, given a block of type {block.block_type!r}.")


def _calls(message: ChatMessage) -> list[ToolCall]:
    """The calls of a message; of one that another integration wrote, those that it notes in OpenAI's form."""
    blocks = [block for block in message.blocks if isinstance(block, ToolCallBlock)]
    if blocks:
        return [
            tool_call(name=block.tool_name, args=arguments_of(block.tool_kwargs), id=block.tool_call_id)
            for block in blocks
        ]
    noted = [
        call if isinstance(call, Mapping) else call.model_dump()
        for call in message.additional_kwargs.get("tool_calls") or ()
    ]
    return [
        tool_call(name=call["function"]["name"], args=arguments_of(call["function"]["arguments"]), id=call.get("id"))
        for call in noted
    ]


def arguments_of(given: Any) -> dict[str, Any]:
    """Arguments as a mapping; text that is none is kept as it is, for the judge to see."""
    if isinstance(given, Mapping):
        return dict(given)
    try:
        read = json.loads(given)
    except ValueError:
        read = None
    return read if isinstance(read, dict) else {"arguments": given}


def to_llama_index(message: AIMessage) -> ChatMessage:
    """An answer as LlamaIndex has it; of tool calls those that can be made."""
    thoughts = [block for block in message.content_blocks if block["type"] == "reasoning"]
    blocks: list[ContentBlock] = [ThinkingBlock(content=str(block.get("reasoning", ""))) for block in thoughts]
    text = str(message.text)
    if text or not message.tool_calls:
        blocks.append(TextBlock(text=text))
    blocks += [
        ToolCallBlock(tool_call_id=call["id"], tool_name=call["name"], tool_kwargs=call["args"])
        for call in message.tool_calls
    ]
    return ChatMessage(role=MessageRole.ASSISTANT, blocks=blocks)


def to_response(message: AIMessage, *, delta: str | None = None) -> ChatResponse:
    """An answer, or what there is of it.

    `raw` holds what the answer tells of itself, as plain data: `rain`, `finish_reason`, `model_name` and `usage`.
    """
    told = _told_by(message)
    counts = _counts_of(message.usage_metadata)
    return ChatResponse(message=to_llama_index(message), delta=delta, raw=told or None, additional_kwargs=counts)


def _told_by(message: AIMessage) -> dict[str, Any]:
    """What an answer tells of itself; empty while it is not whole."""
    told = dict(message.response_metadata)
    if message.usage_metadata is not None:
        told["usage"] = dict(message.usage_metadata)
    if message.invalid_tool_calls:
        told["invalid_tool_calls"] = [dict(call) for call in message.invalid_tool_calls]
    return told


def _counts_of(usage: UsageMetadata | None) -> dict[str, int]:
    """Token counts under the names that LlamaIndex's counters look for."""
    if usage is None:
        return {}
    return {
        "prompt_tokens": usage["input_tokens"],
        "completion_tokens": usage["output_tokens"],
        "total_tokens": usage["total_tokens"],
    }
