"""Answers of ChatRain to conversations of LlamaIndex: whole, or as they are committed."""

from collections.abc import Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass, field
from typing import Any

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.runnables import Runnable
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, ChatResponseAsyncGen, ChatResponseGen

from langchain_rain.chat_models import ChatRain
from langchain_rain.errors import RainConfigError
from langchain_rain.llama_index.messages import to_langchain, to_response


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers conversations.

    Attributes:
        guard: who answers.
        bound: arguments of every call.
    """

    guard: ChatRain
    bound: Mapping[str, Any] = field(default_factory=dict)

    def whole(self, messages: Sequence[ChatMessage], given: Mapping[str, Any]) -> ChatResponse:
        """The answer to a conversation, by the arguments of a call."""
        answering, arguments = self._asked(given)
        return to_response(answering.invoke(to_langchain(messages), **arguments))

    async def awhole(self, messages: Sequence[ChatMessage], given: Mapping[str, Any]) -> ChatResponse:
        """Like `whole`, without blocking the event loop."""
        answering, arguments = self._asked(given)
        return to_response(await answering.ainvoke(to_langchain(messages), **arguments))

    def growing(self, messages: Sequence[ChatMessage], given: Mapping[str, Any]) -> ChatResponseGen:
        """What there is of the answer, as it is committed; the last part is all of it and what is told of it."""
        answering, arguments = self._asked(given)
        so_far: AIMessageChunk | None = None
        with closing(answering.stream(to_langchain(messages), **arguments)) as chunks:  # type: ignore[type-var]
            for chunk in chunks:
                so_far = _added(so_far, chunk)
                yield to_response(so_far, delta=str(chunk.text))

    async def agrowing(self, messages: Sequence[ChatMessage], given: Mapping[str, Any]) -> ChatResponseAsyncGen:
        """Like `growing`, without blocking the event loop."""
        answering, arguments = self._asked(given)
        so_far: AIMessageChunk | None = None
        async with aclosing(answering.astream(to_langchain(messages), **arguments)) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                so_far = _added(so_far, chunk)
                yield to_response(so_far, delta=str(chunk.text))

    def _asked(self, given: Mapping[str, Any]) -> tuple[Runnable[LanguageModelInput, AIMessage], dict[str, Any]]:
        """Who answers a call, with its tools, and with which other arguments."""
        arguments = {**self.bound, **given}
        tools, choice = arguments.pop("tools", None), arguments.pop("tool_choice", None)
        if tools and choice != "none":
            return self.guard.bind_tools(tools, tool_choice=choice), arguments
        if choice not in (None, "none", "auto"):
            raise RainConfigError(f"tool_choice: without tools 'auto', 'none' or None is allowed, given {choice!r}.")
        return self.guard, arguments


def _added(so_far: AIMessageChunk | None, chunk: AIMessage) -> AIMessageChunk:
    assert isinstance(chunk, AIMessageChunk)
    return chunk if so_far is None else so_far + chunk
