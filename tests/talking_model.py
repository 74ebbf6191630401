"""A chat model that streams given pieces and remembers how far it came, and whether it was stopped."""

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import PrivateAttr

USAGE = UsageMetadata(input_tokens=3, output_tokens=5, total_tokens=8)


class TalkingModel(BaseChatModel):
    """Says its pieces one by one; the last chunk brings usage and metadata.

    Attributes:
        pieces: texts, or whole chunks.
    """

    pieces: Sequence[Any]

    _said: list[Any] = PrivateAttr(default_factory=list)
    _ends: list[str] = PrivateAttr(default_factory=list)

    @property
    def said(self) -> list[Any]:
        """The pieces that were asked for."""
        return self._said

    @property
    def ends(self) -> list[str]:
        """How its streams ended: "done" or "stopped"."""
        return self._ends

    @property
    def _llm_type(self) -> str:
        return "talking-model"

    def chunks(self) -> Iterator[ChatGenerationChunk]:
        end = "stopped"
        try:
            for piece in self.pieces:
                self._said.append(piece)
                message = AIMessageChunk(content=piece) if isinstance(piece, str) else piece
                yield ChatGenerationChunk(message=message)
            told = {"model_name": "talking", "finish_reason": "stop"}
            yield ChatGenerationChunk(
                message=AIMessageChunk(content="", usage_metadata=USAGE, response_metadata=told, chunk_position="last")
            )
            end = "done"
        finally:
            self._ends.append(end)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        first, *others = self.chunks()
        whole = first
        for each in others:
            whole += each
        return ChatResult(generations=[ChatGeneration(message=whole.message)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        yield from self.chunks()

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in self.chunks():
            yield chunk
