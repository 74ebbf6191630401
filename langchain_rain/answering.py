"""Answers of a chat model on their way to the caller: as chunks while they are written, or whole."""

import json
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import aclosing, closing
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from langchain_core.messages import AIMessage, AIMessageChunk, InvalidToolCall, ToolCall
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from langchain_rain.arguments import Answer, cost_of
from langchain_rain.callbacks import Run
from langchain_rain.drivers import Outcome
from langchain_rain.engines.base import Cost
from langchain_rain.engines.reading import AnswerReader
from langchain_rain.errors import EngineError
from langchain_rain.search.paper import SearchResult
from langchain_rain.streaming import Happening, Releasing, ahappenings, happenings
from langchain_rain.trace import records_of
from langchain_rain.usage import usage_of

TOLD_BY_MODELS = frozenset(
    {"model_name", "model_provider", "finish_reason", "stop_reason", "system_fingerprint", "service_tier", "id"}
)
"""What a chat model tells of its answer that is passed on; the rest may quote what nobody has judged."""


@dataclass(slots=True)
class Answering:
    """An answer on its way to the caller of a chat model.

    Attributes:
        answer: the search for it.
        reader: tells what a message shows of the text.
        releasing: tells what of the text may be given out.
    """

    answer: Answer
    reader: AnswerReader
    releasing: Releasing
    _shown: str = ""

    def may_begin_anew(self, event: Happening) -> bool:
        """Whether an engine failed in a way that may pass, and nothing has been given out yet."""
        return isinstance(event, EngineError) and event.is_retryable and not self._shown

    def chunks(self, event: Happening) -> Iterator[ChatGenerationChunk]:
        """The chunks that may be given out now; the last brings what is told of the whole answer."""
        if isinstance(event, Outcome | EngineError):
            shown = self._shown
            generation = self._finish(event)
            message = generation.message
            assert isinstance(message, AIMessage)
            rest: Any = message.content
            if isinstance(rest, str):
                assert rest.startswith(shown)
                rest = rest[len(shown) :]
            yield ChatGenerationChunk(message=_last_chunk(message, rest), generation_info=generation.generation_info)
        elif piece := self._show(self.releasing.take(event)):
            yield ChatGenerationChunk(message=AIMessageChunk(content=piece))

    def result(self, outcome: Happening | None) -> ChatResult:
        """The whole answer at once."""
        assert isinstance(outcome, Outcome | EngineError)
        return ChatResult(generations=[self._finish(outcome)])

    def _finish(self, outcome: Outcome[SearchResult] | EngineError) -> ChatGeneration:
        release = self.answer.release(outcome)
        self._show(release.answer[len(self.releasing.released) :])
        is_whole = release.addition is None
        if is_whole and isinstance(outcome, Outcome):
            message = self.reader.message(outcome.result.tokens)
        else:  # an answer that is not whole calls no tools
            message = AIMessage(self._shown + release.addition_after(self._shown))
        info = {
            "model_name": self.answer.arguments.writer.name,
            **{name: value for name, value in message.response_metadata.items() if name in TOLD_BY_MODELS},
            **self.answer.info(outcome, release),
        }
        told = message.response_metadata.get("finish_reason")
        if is_whole and told not in (None, "unsatisfied"):
            info["finish_reason"] = told  # "tool_calls", for example
        usage = usage_of(self.answer, outcome, message if is_whole else None)
        invalid = [_unreadable(call) for call in message.invalid_tool_calls]
        changed: dict[str, Any] = {
            "invalid_tool_calls": invalid,
            "usage_metadata": usage,
            "response_metadata": {},
            "id": None,
        }
        message = message.model_copy(update=changed)
        return ChatGeneration(message=message, generation_info=info)

    def _show(self, text: str) -> str:
        piece = self.reader.feed(text) if text else ""
        self._shown += piece
        return piece


def _last_chunk(message: AIMessage, rest: Any) -> AIMessageChunk:
    """The chunk that ends a stream; of invalid calls all but the error, which no sum of chunks keeps."""
    calls: list[tuple[ToolCall | InvalidToolCall, str | None]] = [
        (call, json.dumps(call["args"], ensure_ascii=False)) for call in message.tool_calls
    ]
    calls += [(call, call["args"]) for call in message.invalid_tool_calls]
    return AIMessageChunk(
        content=rest,
        additional_kwargs=message.additional_kwargs,
        tool_call_chunks=[
            tool_call_chunk(name=call["name"], args=arguments, id=call["id"], index=index)
            for index, (call, arguments) in enumerate(calls)
        ],
        usage_metadata=message.usage_metadata,
        chunk_position="last",
    )


def _unreadable(call: InvalidToolCall) -> InvalidToolCall:
    """The same call with arguments that are no JSON.

    A sum of chunks reads them anew, as much of them as it can, and must not find what was invalid to be valid.
    """
    return {**call, "args": f"invalid: {call['args'] or ''}"}


def _with_what_failed(event: Happening, failed: EngineError | None) -> Happening:
    """The end of an answer with the cost of the attempts that failed before; anything else as it is."""
    if failed is None:
        return event
    spent = cost_of(failed) or Cost()
    if isinstance(event, Outcome):
        return replace(event, cost=event.cost + spent, seconds=event.seconds + failed.seconds)
    if isinstance(event, EngineError):
        event.cost, event.seconds = (cost_of(event) or Cost()) + spent, event.seconds + failed.seconds
    return event


Begin: TypeAlias = Callable[[EngineError | None, bool], Answering]
"""Begins an answer, anew after an attempt that failed: what that has used of the budget is gone.

It is told whether another attempt may follow.
"""

Step: TypeAlias = tuple[Answering, Happening]
"""What happened, and the answer that it happened to."""


def answered(begin: Begin, run: Run | None, *, max_retries: int) -> Generator[Step]:
    """What happens until an answer has ended, told to the handlers of `run` too.

    An answer whose engine fails in a way that may pass is begun anew, up to `max_retries` times, as long as nothing of
    it has been given out.
    """
    failed: EngineError | None = None
    for attempt in range(max_retries + 1):
        answering = begin(failed, attempt < max_retries)
        with closing(happenings(answering.answer.job)) as events:
            for happened in events:
                event = _with_what_failed(happened, failed)
                if isinstance(event, EngineError) and attempt < max_retries and answering.may_begin_anew(event):
                    failed = event
                    break
                if run is not None and run.handlers and not isinstance(event, Outcome | EngineError):
                    run.tell(records_of(event))
                yield answering, event
            else:
                return


async def aanswered(begin: Begin, run: Run | None, *, max_retries: int) -> AsyncGenerator[Step]:
    """The same without blocking the event loop."""
    failed: EngineError | None = None
    for attempt in range(max_retries + 1):
        answering = begin(failed, attempt < max_retries)
        async with aclosing(ahappenings(answering.answer.job)) as events:
            async for happened in events:
                event = _with_what_failed(happened, failed)
                if isinstance(event, EngineError) and attempt < max_retries and answering.may_begin_anew(event):
                    failed = event
                    break
                if run is not None and run.handlers and not isinstance(event, Outcome | EngineError):
                    await run.atell(records_of(event))
                yield answering, event
            else:
                return
