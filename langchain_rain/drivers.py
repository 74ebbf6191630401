"""Drivers: the only code that resumes a search.

A search asks by yielding rounds; a driver carries its requests to the engines, and the replies back. It lives by these
rules:

1. Only this file resumes a search, and only where its requests are answered: on the owner of an engine. So a search
   goes on as soon as its own requests are done, whatever others wait for.
2. An exception in place of a reply is thrown into the search that asked, and into no other.
3. Only `send` and `throw` stand inside `try ... except StopIteration`.
4. The number of replies is that of the requests, of those asked ahead too; what each must look like is checked by the
   channel.
5. A search that ends in whatever way is closed, its pending requests are cancelled, its contexts freed.
6. Generators cannot be pickled; whoever wants a checkpoint keeps the `Tree`.

`run`, `run_batch`, `arun`, `stream` and `astream` differ only in how they wait.
"""

import asyncio
import itertools
import logging
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from langchain_rain.budget import Budget
from langchain_rain.engines.base import Channel, Cost, Engine
from langchain_rain.errors import BudgetExceededError, EngineError
from langchain_rain.observing import Observer
from langchain_rain.search.protocol import Context, Event, Request, Round, Steps

T = TypeVar("T")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job(Generic[T]):
    """A search, the contexts it asks about with the engines that opened them, its budget, and who hears of it.

    The driver that takes the job closes the contexts.
    """

    steps: Steps[T]
    contexts: Mapping[Context, Engine]
    budget: Budget = field(default_factory=Budget)
    observer: Observer | None = None

    def __post_init__(self) -> None:
        assert self.contexts, "a search asks about at least one context"


def close_contexts(contexts: Mapping[Context, Engine]) -> None:
    """Closes contexts with the engines that opened them."""
    for context, engine in contexts.items():
        engine.channel.close(context)


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """What a search returned, and what it cost."""

    result: T
    cost: Cost
    seconds: float


Clock = Callable[[], float]


def run(job: Job[T], *, clock: Clock = time.monotonic) -> Outcome[T]:
    """Runs one search to its end and returns its outcome."""
    flight = _InFlight(job, clock=clock)
    try:
        flight.launch()
        return flight.future.result()
    finally:
        flight.abort()


def run_batch(
    jobs: Sequence[Job[T]], *, max_concurrent: int = 16, clock: Clock = time.monotonic
) -> list[Outcome[T] | Exception]:
    """Runs searches together, merging what they ask; returns outcomes in their order, exceptions in their place.

    At most `max_concurrent` are under way at once.
    """
    assert max_concurrent >= 1
    flights = [_InFlight(job, clock=clock) for job in jobs]
    try:
        _launch_in_window(flights, max_concurrent)
        return [_outcome_or_error(flight.future) for flight in flights]
    finally:
        for flight in flights:
            flight.abort()


async def arun(job: Job[T], *, clock: Clock = time.monotonic) -> Outcome[T]:
    """Runs one search without blocking the event loop; tasks that run at once are merged by the engine's channel."""
    flight = _InFlight(job, clock=clock)
    try:
        flight.launch()
        return await asyncio.wrap_future(flight.future)
    finally:
        flight.abort()


def stream(job: Job[T], *, clock: Clock = time.monotonic) -> Iterator[Event | Outcome[T]]:
    """Yields events as they happen, and last the outcome."""
    happened: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
    flight = _InFlight(job, clock=clock, on_event=happened.put)
    flight.future.add_done_callback(lambda _: happened.put(None))
    try:
        flight.launch()
        while (event := happened.get()) is not None:
            yield event
        yield flight.future.result()
    finally:
        flight.abort()


async def astream(job: Job[T], *, clock: Clock = time.monotonic) -> AsyncIterator[Event | Outcome[T]]:
    """Yields events as they happen, and last the outcome, without blocking the event loop."""
    loop = asyncio.get_running_loop()
    happened: asyncio.Queue[Event | None] = asyncio.Queue()

    def put(event: Event | None) -> None:
        if not loop.is_closed():  # nobody reads any more; the flight is about to be aborted
            loop.call_soon_threadsafe(happened.put_nowait, event)

    flight = _InFlight(job, clock=clock, on_event=put)
    flight.future.add_done_callback(lambda _: put(None))
    try:
        flight.launch()
        while (event := await happened.get()) is not None:
            yield event
        yield flight.future.result()
    finally:
        flight.abort()


def _launch_in_window(flights: Sequence["_InFlight[T]"], max_concurrent: int) -> None:
    """Launches the first `max_concurrent`, and one more whenever one ends.

    The first go as one job, so that what is merged does not depend on who is faster, caller or owner.
    """
    waiting = iter(flights)
    lock = threading.Lock()

    def launch_next(_: Any = None) -> None:
        with lock:
            flight = next(waiting, None)
        if flight is not None:
            flight.future.add_done_callback(launch_next)
            flight.launch()

    def launch_first() -> None:
        for _ in range(max_concurrent):
            launch_next()

    if flights:
        flights[0].home.post(launch_first)


def _outcome_or_error(future: "Future[Outcome[T]]") -> Outcome[T] | Exception:
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, Exception):
        return error
    raise error


class _InFlight(Generic[T]):
    """One search under way: its open round, what it has cost, and its end.

    All of it happens under a lock: replies may come from the owners of two engines, an abort from the caller.
    """

    def __init__(self, job: Job[T], *, clock: Clock, on_event: Callable[[Event], None] | None = None) -> None:
        self.future: Future[Outcome[T]] = Future()
        self.future.set_running_or_notify_cancel()  # only `abort` ends it early, and frees what it holds
        self._has_ended = False
        self._steps = job.steps
        self._budget = job.budget
        self._engines = job.contexts
        self._clock = clock
        self._on_event = on_event
        self._observer = job.observer
        self._lock = threading.RLock()
        self._started_at: float | None = None
        self._cost = Cost()
        self._round = Round(())
        self._numbers: dict[Request, int] = {}  # of what is under way, or answered ahead
        self._replies: dict[int, Any] = {}
        self._missing: set[int] = set()  # what the search waits for
        self._next_number = itertools.count()
        self._spent: BudgetExceededError | EngineError | None = None
        self._timer: threading.Timer | None = None
        self._is_asking = False

    @property
    def home(self) -> Channel:
        """Where the search starts: the owner of its first context's engine."""
        return next(iter(self._engines.values())).channel

    def launch(self) -> None:
        """Starts the search on the owner of its engine."""
        self.home.post(self.start)

    def start(self) -> None:
        """Runs the search up to its first round."""
        self._attempt(self._start)

    def on_progress(self, cost: Cost, replies: Mapping[int, Any]) -> None:
        """Takes what a step of an engine has brought; resumes the search when its round is complete."""
        self._attempt(lambda: self._take(cost, replies))

    def abort(self) -> None:
        """Ends the search if it has not ended; frees what it holds."""
        with self._lock:
            if not self._has_ended:
                self._fail(CancelledError())

    def _attempt(self, act: Callable[[], None]) -> None:
        """Does `act` unless the search has ended; whatever it raises ends this search, not the owner of an engine."""
        with self._lock:
            if self._has_ended:
                return
            try:
                act()
            except BaseException as error:  # noqa: BLE001 - it belongs to who waits for the search
                self._fail(error)

    def _start(self) -> None:
        self._started_at = self._clock()
        if self._budget.deadline is not None:
            self._look_at_time_after(self._budget.deadline)
        self._resume(self._steps.send, None)

    def _look_at_time_after(self, seconds: float) -> None:
        """An engine that does not answer brings no step at which time could be looked at."""
        self._timer = threading.Timer(seconds, self._attempt, [self._look_at_time])
        self._timer.daemon = True
        self._timer.start()

    def _look_at_time(self) -> None:
        exceeded = self._check_budget()
        if exceeded is not None:
            self._resume(self._steps.throw, exceeded)
            return
        assert self._budget.deadline is not None
        self._look_at_time_after(self._budget.deadline - self._seconds())  # a timer goes by a clock of its own

    def _take(self, cost: Cost, replies: Mapping[int, Any]) -> None:
        self._cost += cost
        if self._observer is not None:
            self._tell(self._observer.on_replies, replies)
        # The owner of another engine may bring a reply that was given up meanwhile.
        self._replies.update({number: replies[number] for number in self._numbers.values() if number in replies})
        self._missing.difference_update(replies)
        if self._is_asking:
            return  # told from inside `submit`; the search is resumed where it asked
        if not self._missing:
            self._resume(*self._next_move())
        elif (exceeded := self._check_budget()) is not None:
            self._resume(self._steps.throw, exceeded)  # it can only end now, which cancels what is pending

    def _next_move(self) -> tuple[Callable[[Any], Round], Any]:
        """How the search is resumed now that all it waits for is there, and what it gets."""
        awaited = (self._replies[self._numbers[request]] for request in self._round.requests)
        failure = next((reply for reply in awaited if isinstance(reply, Exception)), None) or self._check_budget()
        return (self._steps.send, self._hand_over()) if failure is None else (self._steps.throw, failure)

    def _hand_over(self) -> list[Any]:
        """The replies to the open round, None for what was asked ahead and is under way."""
        asked = (*self._round.requests, *(self._round.ahead or ()))
        replies = [self._reply_to(request) for request in asked]
        self._forget([request for request, reply in zip(asked, replies, strict=True) if reply is not None])
        return replies

    def _forget(self, requests: Iterable[Request]) -> None:
        """Lets go of requests and their replies."""
        for request in dict.fromkeys(requests):
            self._replies.pop(self._numbers.pop(request), None)

    def _check_budget(self) -> BudgetExceededError | EngineError | None:
        """What is thrown into the search if a limit is spent."""
        self._spent = self._budget.exceeded_by(self._cost, self._seconds())
        return self._spent

    def _resume(self, resume: Callable[[Any], Round], with_what: Any) -> None:
        """Takes the search on to a round with replies that are not there yet, or to its end."""
        while True:
            try:
                self._round = resume(with_what)
            except StopIteration as stop:
                self._succeed(stop.value)
                return
            self._emit(self._round.events)
            if self._spent is not None:
                raise BudgetExceededError(f"{self._spent}, and the search asked on.")
            self._is_asking = True
            try:
                self._ask(self._round)
            finally:
                self._is_asking = False
            if self._missing:
                return
            resume, with_what = self._next_move()

    def _ask(self, asked: Round) -> None:
        """Submits what is not under way yet, and drops what was asked ahead and is not wanted any more."""
        wanted = dict.fromkeys((*asked.requests, *(asked.ahead or ())))
        stranger = next((request for request in wanted if request.context not in self._engines), None)
        if stranger is not None:
            raise EngineError(f"{stranger!r} names a context that is not of this search.")
        # What failed ahead, or was asked for by a round that failed, is asked anew.
        self._forget([each for each in asked.requests if isinstance(self._reply_to(each), Exception)])
        if asked.ahead is not None:
            self._drop([request for request in self._numbers if request not in wanted])
        new = {next(self._next_number): request for request in wanted if request not in self._numbers}
        self._numbers.update({request: number for number, request in new.items()})
        self._missing = {self._numbers[request] for request in asked.requests} - self._replies.keys()
        if self._observer is not None:
            self._tell(self._observer.on_round, asked, new)
        for engine, of_engine in self._by_engine(new):
            engine.channel.submit(of_engine, self)

    def _drop(self, requests: Sequence[Request]) -> None:
        given_up = {self._numbers[request]: request for request in requests if self._reply_to(request) is None}
        self._forget(requests)
        for engine, of_engine in self._by_engine(given_up):
            engine.channel.cancel(self, of_engine.keys())

    def _reply_to(self, request: Request) -> Any:
        return self._replies.get(self._numbers.get(request, -1))

    def _by_engine(self, requests: Mapping[int, Request]) -> Iterator[tuple[Engine, dict[int, Request]]]:
        for engine in {id(engine): engine for engine in self._engines.values()}.values():
            of_engine = {
                number: request for number, request in requests.items() if self._engines[request.context] is engine
            }
            if of_engine:
                yield engine, of_engine

    def _succeed(self, result: T) -> None:
        self._emit(getattr(result, "events", ()))
        outcome = Outcome(result, self._cost, self._seconds())
        self._end(outcome)
        self.future.set_result(outcome)

    def _fail(self, error: BaseException) -> None:
        if isinstance(error, EngineError):
            error.cost, error.seconds = self._cost, self._seconds()
        self._end(error)
        self.future.set_exception(error)

    def _end(self, end: Outcome[T] | BaseException) -> None:
        """Rule 5: closes the search, cancels what it waits for, frees its contexts."""
        self._has_ended = True
        if self._timer is not None:
            self._timer.cancel()
        for let_go in (self._steps.close, self._cancel_all, lambda: close_contexts(self._engines)):
            try:
                let_go()
            except Exception:  # whoever waits for the search is told how it ended all the same
                logger.exception("A search could not let go of what it held.")
        if self._observer is not None:
            self._tell(self._observer.on_end, end, self._cost)

    def _cancel_all(self) -> None:
        for engine in self._engines.values():
            engine.channel.cancel(self)

    def _emit(self, events: Sequence[Event]) -> None:
        if self._on_event is not None:
            for event in events:
                self._on_event(event)

    def _tell(self, hear: Callable[..., None], *what: Any) -> None:
        """Tells the observer."""
        try:
            hear(*what, self._clock())
        except Exception:  # it looks on; the search is none of its business
            logger.exception("An observer of a search failed.")

    def _seconds(self) -> float:
        return self._clock() - self._started_at if self._started_at is not None else 0.0
