"""A channel to what is called and not stepped: chat models and functions of the user's.

They are called as the user would call them. On behalf of a coroutine that is on its own event loop, where clients and
callback handlers of the user live; else in a thread. Nothing waits for anything but its own answer.
"""

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable, Collection, Coroutine, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager, Callbacks, UsageMetadataCallbackHandler
from langchain_core.runnables.config import var_child_runnable_config

from langchain_rain.engines.base import Answered, Cost, Listener, checked_reply
from langchain_rain.errors import EngineError
from langchain_rain.search.protocol import Context, Request

logger = logging.getLogger(__name__)

NO_STREAM_TAG = "nostream"
"""Keeps what a run says out of LangGraph's streams of messages."""


def _count_no_usage() -> None:
    """Takes handlers that count usage out of the context: the answer tells of all that was run for it."""
    for variable, value in contextvars.copy_context().items():
        if isinstance(value, UsageMetadataCallbackHandler):
            variable.set(None)


def _stay_below(callbacks: BaseCallbackManager | None) -> None:
    """Makes runnables that are called without a word of whose run they are in child runs too, which no stream shows.

    A function that judges by asking a chat model would else do so in the run of a graph's node, for all to see.
    """
    config = var_child_runnable_config.get() or {}
    tags = [*(config.get("tags") or []), NO_STREAM_TAG]
    var_child_runnable_config.set({**config, "tags": tags, "callbacks": callbacks or []})


@dataclass(frozen=True, slots=True, eq=False)
class Calls:
    """On whose behalf something is called.

    Attributes:
        callbacks: that the calls are child runs under; None for none.
        loop: the event loop of the caller if it is a coroutine.
        context: the caller's context variables.
    """

    callbacks: BaseCallbackManager | None = None
    loop: asyncio.AbstractEventLoop | None = None
    context: contextvars.Context = field(default_factory=contextvars.copy_context)

    def __post_init__(self) -> None:
        self.context.run(_stay_below, self.callbacks)


class WithoutTokens(BaseCallbackHandler):
    """A handler as it is, but deaf to tokens: whoever shows them as they come would show a draft.

    Chat models tell of tokens when they stream, which some do whenever they are called.
    """

    def __init__(self, handler: BaseCallbackHandler) -> None:
        self._handler = handler

    def __getattribute__(self, name: str) -> Any:
        if name in ("on_llm_new_token", "on_stream_event"):
            return _hear_nothing
        return getattr(object.__getattribute__(self, "_handler"), name)

    def __eq__(self, other: object) -> bool:
        """Whether it is the same handler, so that one that the model has of its own is not told twice."""
        return bool(object.__getattribute__(self, "_handler") == other)

    def __hash__(self) -> int:
        return hash(object.__getattribute__(self, "_handler"))


def without_tokens(callbacks: Callbacks) -> Callbacks:
    """Callbacks as they are, but deaf to tokens."""
    if not isinstance(callbacks, BaseCallbackManager):
        return [WithoutTokens(handler) for handler in callbacks] if callbacks is not None else None
    manager = callbacks.copy()
    manager.handlers = [WithoutTokens(handler) for handler in manager.handlers]
    manager.inheritable_handlers = [WithoutTokens(handler) for handler in manager.inheritable_handlers]
    return manager


def _hear_nothing(*args: Any, **kwargs: Any) -> None:
    pass


class Callee(Protocol):
    """An engine that is called."""

    @property
    def name(self) -> str:
        """Names the engine in errors."""

    @property
    def is_async(self) -> bool:
        """Whether it is called on the event loop of a coroutine; else in a thread for that too."""

    @property
    def tells_cost(self) -> bool:
        """Whether its answers tell what they cost, so that nobody else has to count it."""

    def calls_of(self, context: Context) -> Calls:
        """On whose behalf a conversation is."""

    def call(self, request: Request) -> Answered:
        """Answers a request; what it raises becomes the reply."""

    async def acall(self, request: Request) -> Answered:
        """The same without blocking the event loop."""

    def forget(self, context: Context) -> None:
        """Frees what a conversation holds."""


class CallingChannel:
    """Calls a `Callee`, each request on its own."""

    def __init__(self, engine: Callee) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._under_way: dict[Future[Answered], tuple[Listener, int]] = {}

    def post(self, job: Callable[[], None]) -> None:
        """Runs `job` now: nobody owns a model that is called."""
        job()

    def submit(self, requests: Mapping[int, Request], listener: Listener) -> None:
        """Asks; the listener hears of each answer where it arrives."""
        for number, request in requests.items():
            try:
                future = self._start(request)
            except Exception as error:  # noqa: BLE001 - the loop may be closed, threads may be used up; nobody hangs
                self._tell(listener, number, request, error)
                continue
            with self._lock:
                self._under_way[future] = (listener, number)
            future.add_done_callback(lambda done, request=request: self._finish(done, request))  # type: ignore[misc]

    def cancel(self, listener: Listener, numbers: Collection[int] | None = None) -> None:
        """Drops what the listener has asked under `numbers`, None for all; a thread that has begun runs to its end."""
        with self._lock:
            dropped = [
                future
                for future, (asker, number) in self._under_way.items()
                if asker is listener and (numbers is None or number in numbers)
            ]
            for future in dropped:
                del self._under_way[future]
        for future in dropped:
            future.cancel()

    def close(self, context: Context) -> None:
        """Closes a conversation."""
        self._engine.forget(context)

    def _start(self, request: Request) -> "Future[Answered]":
        calls = self._engine.calls_of(request.context)
        context = calls.context.copy()
        if self._engine.tells_cost:
            context.run(_count_no_usage)
        if calls.loop is not None and self._engine.is_async:
            return _run_on(calls.loop, self._engine.acall(request), context)
        return _run_in_thread(lambda: context.run(self._engine.call, request), name=f"rain-{self._engine.name}")

    def _finish(self, done: "Future[Answered]", request: Request) -> None:
        with self._lock:
            entry = self._under_way.pop(done, None)
        if entry is None:
            return
        error = EngineError("The call was cancelled.") if done.cancelled() else done.exception()
        self._tell(*entry, request, error or done.result())

    def _tell(self, listener: Listener, number: int, request: Request, answered: Answered | BaseException) -> None:
        name, kind = self._engine.name, type(request).__name__
        if isinstance(answered, Answered):
            listener.on_progress(answered.cost, {number: checked_reply(request, answered.reply, engine=name)})
            return
        failure = answered
        if not isinstance(answered, EngineError):
            logger.debug("A call of %s failed.", name, exc_info=answered)
            failure = EngineError(
                f"{name} failed: {type(answered).__name__}: {answered}", engine=name, request=kind, is_retryable=True
            )
            failure.__cause__ = answered
        listener.on_progress(Cost(forward_passes=1), {number: failure})


def _run_on(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Answered], context: contextvars.Context
) -> "Future[Answered]":
    """Runs a coroutine on a loop, usually another thread's; what is scheduled from inside a context stays in it."""
    try:
        return context.run(asyncio.run_coroutine_threadsafe, coroutine, loop)
    except BaseException:
        coroutine.close()
        raise


def _run_in_thread(call: Callable[[], Answered], *, name: str) -> "Future[Answered]":
    """Calls in a thread of its own, so that one that never returns holds up neither the others nor the exit."""
    future: Future[Answered] = Future()

    def run() -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - it belongs to who waits
            future.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future
