"""Gatings under way, in a thread or on an event loop: whatever one asks for is done, and what it gives comes out."""

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from contextlib import closing
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun

from langchain_rain.callbacks import Run
from langchain_rain.errors import BudgetExceededError, EngineError
from langchain_rain.gating import END, Ask, Finding, Give, More, Steps, Stop, Tell
from langchain_rain.verdicts import TranscriptJudge


def passed(
    steps: Steps,
    chunks: Iterator[Any],
    judge: TranscriptJudge,
    manager: CallbackManagerForChainRun,
) -> Generator[Any]:
    """What is given out; judgements are child runs."""
    run = Run.of(manager, manager.run_id, tells_usage=False)
    reply: Any = None
    with closing(steps):
        while True:
            try:
                step = steps.send(reply)
            except StopIteration:
                return
            reply = None
            match step:
                case More():
                    reply = next(chunks, END)
                case Ask():
                    reply = _judged(step, judge, run)
                case Stop():
                    close(chunks)
                case Tell(record):
                    run.tell([record])
                case Give(output):
                    yield output


async def apassed(
    steps: Steps,
    chunks: AsyncIterator[Any],
    judge: TranscriptJudge,
    manager: AsyncCallbackManagerForChainRun,
) -> AsyncGenerator[Any]:
    """The same without blocking the event loop."""
    run = Run.of(manager, manager.run_id, tells_usage=False)
    reply: Any = None
    with closing(steps):
        while True:
            try:
                step = steps.send(reply)
            except StopIteration:
                return
            reply = None
            match step:
                case More():
                    reply = await anext(chunks, END)
                case Ask():
                    reply = await _ajudged(step, judge, run)
                case Stop():
                    await aclose(chunks)
                case Tell(record):
                    await run.atell([record])
                case Give(output):
                    yield output


def _judged(asked: Ask, judge: TranscriptJudge, run: Run) -> Finding:
    try:
        return judge.judge(asked.transcript, callbacks=run.children(), budget=asked.budget)
    except (BudgetExceededError, EngineError) as error:
        return error


async def _ajudged(asked: Ask, judge: TranscriptJudge, run: Run) -> Finding:
    try:
        return await judge.ajudge(asked.transcript, callbacks=run.achildren(), budget=asked.budget)
    except (BudgetExceededError, EngineError) as error:
        return error


def led_by(first: Any, following: Iterator[Any]) -> Generator[Any]:
    """A stream of which the first chunk was taken; closing it closes the rest."""
    try:
        if first is not END:
            yield first
            yield from following
    finally:
        close(following)


async def aled_by(first: Any, following: AsyncIterator[Any]) -> AsyncGenerator[Any]:
    """The same of an asynchronous one."""
    try:
        if first is not END:
            yield first
            async for chunk in following:
                yield chunk
    finally:
        await aclose(following)


async def nothing() -> AsyncGenerator[Any]:
    """A stream without a chunk."""
    return
    yield  # which makes it a generator


def close(chunks: Iterator[Any]) -> None:
    """Ends a stream, if it can be ended."""
    if hasattr(chunks, "close"):
        chunks.close()


async def aclose(chunks: AsyncIterator[Any]) -> None:
    """Ends an asynchronous stream, if it can be ended."""
    if hasattr(chunks, "aclose"):
        await chunks.aclose()
