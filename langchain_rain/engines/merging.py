"""Channels: one owner per engine, so that everybody's pending requests share its forward passes.

Searches of one caller, of several threads and of several tasks all submit to the channel of the engine. Its owner takes
what has come in, does one step, tells the listeners (who may submit again at once, from inside), and goes on.
"""

import asyncio
import logging
import threading
import weakref
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from functools import partial
from typing import Any, TypeVar

from langchain_rain.engines.base import AsyncEngine, Cost, Listener, Stepper, StepReport, Ticket, checked_reply
from langchain_rain.errors import EngineError
from langchain_rain.search.protocol import Context, Request, Score

T = TypeVar("T")

logger = logging.getLogger(__name__)


class StepperChannel:
    """Owns a stepper by a thread that lives while there is work, and ends when there is none."""

    def __init__(self, engine: Stepper) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._inbox: list[Callable[[], None]] = []
        self._thread: threading.Thread | None = None
        self._waiting: dict[Ticket, tuple[Listener, int, Request]] = {}

    def post(self, job: Callable[[], None]) -> None:
        """Runs `job` on the owner, between two steps."""
        with self._lock:
            self._inbox.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name=f"rain-{self._engine.name}")
                try:
                    self._thread.start()
                except RuntimeError:  # there can be no more threads for now; the next job tries again
                    self._thread = None
                    raise

    def submit(self, requests: Mapping[int, Request], listener: Listener) -> None:
        """Asks; the listener hears of it from the owner."""

        def job() -> None:
            failed = {}
            for number, request in requests.items():
                try:
                    self._waiting[self._engine.submit(request)] = (listener, number, request)
                except BaseException as error:  # whoever asked is told, nobody hangs
                    logger.exception("The engine %s failed.", self._engine.name)
                    failed[number] = _failure(self._engine.name, error, request)
            if failed:
                listener.on_progress(Cost(), failed)

        self.post(job)

    def cancel(self, listener: Listener, numbers: Collection[int] | None = None) -> None:
        """Drops what the listener has asked under `numbers`, None for all."""

        def job() -> None:
            for ticket in [ticket for ticket, entry in self._waiting.items() if _is_of(listener, numbers, *entry[:2])]:
                del self._waiting[ticket]
                self._engine.cancel(ticket)

        self.post(job)

    def close(self, context: Context) -> None:
        """Closes a conversation, between two steps."""
        self.post(lambda: self._engine.close(context))

    def _work(self) -> None:
        while True:
            with self._lock:
                jobs, self._inbox = self._inbox, []
                if not jobs and not self._waiting:
                    self._thread = None
                    return
            for job in jobs:
                self._do(job)
            if self._waiting:
                self._step()

    def _do(self, job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException:  # the owner lives on for the others
            logger.exception("A job on the engine %s failed.", self._engine.name)

    def _step(self) -> None:
        try:
            stepped = self._engine.step()
            # What is no report of a step fails here, where it is caught.
            report = StepReport(stepped.finished, stepped.positions, stepped.cached)
        except BaseException as error:  # the step belongs to all; whoever waits is told, nobody hangs
            logger.exception("The engine %s failed.", self._engine.name)
            for ticket in self._waiting:
                self._do(partial(self._engine.cancel, ticket))
            report = StepReport(
                {
                    ticket: _failure(self._engine.name, error, request)
                    for ticket, (_, _, request) in self._waiting.items()
                }
            )
        self._tell(report)

    def _tell(self, report: StepReport) -> None:
        """Tells every listener once, in the order of their oldest request."""
        finished, positions = report.finished, report.positions
        spent: dict[int, int] = {}
        judging: Counter[int] = Counter()
        found: Counter[int] = Counter()
        replies: dict[int, dict[int, Any]] = {}
        listeners: dict[int, Listener] = {}
        for ticket, (listener, number, request) in list(self._waiting.items()):
            if ticket in finished or ticket in positions:
                listeners[id(listener)] = listener
            if ticket in positions:
                spent[id(listener)] = spent.get(id(listener), 0) + positions[ticket]
                judging[id(listener)] += positions[ticket] if isinstance(request, Score) else 0
                found[id(listener)] += report.cached.get(ticket, 0)
            if ticket in finished:
                del self._waiting[ticket]
                reply = _checked(request, finished[ticket], self._engine.name)
                replies.setdefault(id(listener), {})[number] = reply
        for key, listener in listeners.items():
            cost = Cost(1, spent[key], judging[key], cached_positions=found[key]) if key in spent else Cost()
            self._do(partial(listener.on_progress, cost, replies.get(key, {})))


class AsyncChannel:
    """Owns an async engine by an event loop in a thread of its own, started with the first request.

    Args:
        engine: the engine.
        at_end: awaited on that loop before it ends, with the channel or by `shut_down`.
    """

    def __init__(self, engine: AsyncEngine, *, at_end: Callable[[], Awaitable[None]] | None = None) -> None:
        self._engine = engine
        self._at_end = at_end
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._finish: weakref.finalize[..., AsyncChannel] | None = None
        self._tasks: dict[asyncio.Task[None], tuple[Listener, int]] = {}
        self._closing: set[asyncio.Task[None]] = set()  # the loop itself holds tasks weakly

    def post(self, job: Callable[[], None]) -> None:
        """Runs `job` on the owner, between two steps."""
        self._running_loop().call_soon_threadsafe(job)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine on the owner and waits for it; not for the owner itself."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._running_loop()).result()

    def shut_down(self) -> None:
        """Ends the owner; whoever waits for it is told. The next request starts another."""
        with self._lock:
            finish, self._finish, self._loop = self._finish, None, None
        if finish is not None:
            finish()

    def submit(self, requests: Mapping[int, Request], listener: Listener) -> None:
        """Asks; the listener hears of it from the owner."""

        def job() -> None:
            for number, request in requests.items():
                task = asyncio.get_running_loop().create_task(self._answer(number, request, listener))
                self._tasks[task] = (listener, number)
                task.add_done_callback(lambda done: self._tasks.pop(done, None))

        self.post(job)

    def cancel(self, listener: Listener, numbers: Collection[int] | None = None) -> None:
        """Drops what the listener has asked under `numbers`, None for all."""

        def job() -> None:
            for task in [task for task, entry in self._tasks.items() if _is_of(listener, numbers, *entry)]:
                del self._tasks[task]
                task.cancel()

        self.post(job)

    def close(self, context: Context) -> None:
        """Closes a conversation, between two steps."""

        def job() -> None:
            task = asyncio.get_running_loop().create_task(self._close(context))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

        self.post(job)

    async def _close(self, context: Context) -> None:
        try:
            await self._engine.aclose(context)
        except Exception:  # the owner lives on for the others
            logger.exception("The engine %s could not close a conversation.", self._engine.name)

    async def _answer(self, number: int, request: Request, listener: Listener) -> None:
        name = self._engine.name
        try:
            answered = await self._engine.answer(request)
            reply, cost = _checked(request, answered.reply, name), answered.cost
        except (Exception, asyncio.CancelledError) as error:  # whoever waits is told, nobody hangs
            if asyncio.current_task() not in self._tasks:  # cancelled by who asked
                return
            logger.exception("The engine %s failed.", name)
            reply, cost = _failure(name, error, request), Cost()
        if asyncio.current_task() in self._tasks:
            listener.on_progress(cost, {number: reply})

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                thread = threading.Thread(
                    target=_run_loop, args=(self._loop,), name=f"rain-{self._engine.name}", daemon=True
                )
                thread.start()
                self._finish = weakref.finalize(self, _end_loop, self._loop, self._at_end)
            return self._loop


def _is_of(listener: Listener, numbers: Collection[int] | None, asker: Listener, number: int) -> bool:
    return asker is listener and (numbers is None or number in numbers)


def _end_loop(loop: asyncio.AbstractEventLoop, at_end: Callable[[], Awaitable[None]] | None) -> None:
    """Has a loop end, whichever thread this is."""

    async def end() -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        if at_end is not None:
            await at_end()
        loop.stop()

    def start() -> None:
        loop.ending = loop.create_task(end())  # type: ignore[attr-defined]  # the loop itself holds tasks weakly

    loop.call_soon_threadsafe(start)


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()


def _checked(request: Request, reply: Any, engine: str) -> Any:
    """`checked_reply`, and an error as well for a reply so strange that the check trips over it."""
    try:
        return checked_reply(request, reply, engine=engine)
    except Exception as error:  # whoever asked is told, nobody hangs
        logger.exception("The engine %s gave a reply that cannot be checked.", engine)
        return _failure(engine, error, request)


def _failure(engine: str, error: BaseException, request: Request) -> EngineError:
    """What a listener is told in place of a reply when an engine raised."""
    kind = type(request).__name__
    failure = EngineError(f"{engine} failed: {type(error).__name__}: {error}", engine=engine, request=kind)
    failure.__cause__ = error
    return failure
