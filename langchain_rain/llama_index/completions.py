"""Completions for LlamaIndex: answers of a chat as texts, and texts that are continued as they stand."""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, closing
from dataclasses import dataclass
from typing import Any

from langchain_core.outputs import GenerationChunk, LLMResult
from llama_index.core.base.llms.types import (
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
)

from langchain_rain.llms import RainLLM


def completion_of(response: ChatResponse) -> CompletionResponse:
    """The text of an answer, with all that is told of it."""
    return CompletionResponse(
        text=response.message.content or "",
        delta=response.delta,
        raw=response.raw,
        additional_kwargs=response.additional_kwargs,
    )


def completions_of(responses: ChatResponseGen) -> CompletionResponseGen:
    """The texts of an answer as it grows."""
    with closing(responses):
        for response in responses:
            yield completion_of(response)


async def acompletions_of(responses: ChatResponseAsyncGen) -> CompletionResponseAsyncGen:
    """The same without blocking the event loop."""
    async with aclosing(responses):
        async for response in responses:
            yield completion_of(response)


@dataclass(frozen=True, slots=True)
class Continuations:
    """Continues texts as they stand.

    Attributes:
        llm: who continues them.
        bound: arguments of every call; it takes `stop` alone.
        form: what is made of a text before; None for nothing.
    """

    llm: RainLLM
    bound: Mapping[str, Any]
    form: Callable[[str], str] | None

    def whole(self, prompt: str, given: Mapping[str, Any]) -> CompletionResponse:
        """The continuation of a text, by the arguments of a call."""
        return _whole(self.llm.generate([self._formed(prompt)], **{**self.bound, **given}))

    async def awhole(self, prompt: str, given: Mapping[str, Any]) -> CompletionResponse:
        """Like `whole`, without blocking the event loop."""
        return _whole(await self.llm.agenerate([self._formed(prompt)], **{**self.bound, **given}))

    # `stream` of an LLM brings the text and none of what is told of it.

    def growing(self, prompt: str, given: Mapping[str, Any]) -> CompletionResponseGen:
        """What there is of the continuation, as it is committed."""
        text = ""
        for chunk in self.llm._stream(self._formed(prompt), **{**self.bound, **given}):
            text += chunk.text
            yield _part(text, chunk, self.llm)

    async def agrowing(self, prompt: str, given: Mapping[str, Any]) -> CompletionResponseAsyncGen:
        """Like `growing`, without blocking the event loop."""
        text = ""
        chunks = self.llm._astream(self._formed(prompt), **{**self.bound, **given})
        assert isinstance(chunks, AsyncGenerator)
        async with aclosing(chunks):
            async for chunk in chunks:
                text += chunk.text
                yield _part(text, chunk, self.llm)

    def _formed(self, prompt: str) -> str:
        return prompt if self.form is None else self.form(prompt)


def _whole(result: LLMResult) -> CompletionResponse:
    ((generation,),) = result.generations
    output = result.llm_output or {}
    usage = output["token_usage"]
    raw = {"model_name": output["model_name"], "usage": usage, **(generation.generation_info or {})}
    counts = {name: usage[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")}
    return CompletionResponse(text=generation.text, raw=raw, additional_kwargs=counts)


def _part(text: str, chunk: GenerationChunk, llm: RainLLM) -> CompletionResponse:
    raw = {"model_name": llm.writer.name, **chunk.generation_info} if chunk.generation_info is not None else None
    return CompletionResponse(text=text, delta=chunk.text, raw=raw)
