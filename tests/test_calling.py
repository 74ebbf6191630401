"""Engines that are called and not stepped: where and when, and searches whose engine never answers."""

import asyncio
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import pytest

from langchain_rain import RainLLM, UnsatisfiedError
from langchain_rain.budget import Budget
from langchain_rain.drivers import Job, arun, run, run_batch
from langchain_rain.engines.base import Answered, Channel, Cost, Listener
from langchain_rain.engines.calling import CallingChannel, Calls
from langchain_rain.engines.merging import AsyncChannel
from langchain_rain.errors import BudgetExceededError, EngineError
from langchain_rain.search.protocol import Context, Request, Rollout, Steps, TokenSet, ask, ask_all
from tests.scripted_world import CONFIG, PROMPT, REFUSAL, RUBRIC, rain_info
from tests.test_drivers import asking
from tests.test_merging import PATIENCE, Heard, roll, said

NUM_CALLS = 65


class Called:
    """Answers a `Rollout` by its number, once it may; notes where, and what was cancelled.

    Negative numbers fail. `before` is called first, in the thread or on the loop of the answer.
    """

    tells_cost = True
    is_async = True

    identity: Mapping[str, Any] = {}

    def __init__(self, before: Callable[[int], Any] = lambda number: None) -> None:
        self.name = "called"
        self.before = before
        self.calls = Calls()
        self.channel: Channel = CallingChannel(self)
        self.threads: list[str] = []
        self.loops: list[asyncio.AbstractEventLoop] = []
        self.cancelled: list[int] = []
        self.forgotten: list[Context] = []

    def open(self, prompt: str, *, max_tokens: int, stop: Sequence[str] = ()) -> Context:
        return Context(self.name, 1)

    def calls_of(self, context: Context) -> Calls:
        return self.calls

    def forget(self, context: Context) -> None:
        self.forgotten.append(context)

    def call(self, request: Request) -> Answered:
        assert isinstance(request, Rollout)
        self.threads.append(threading.current_thread().name)
        self.before(request.prefix[0])
        return Answered(said(request.prefix[0]), Cost(1, 3))

    async def acall(self, request: Request) -> Answered:
        assert isinstance(request, Rollout)
        self.loops.append(asyncio.get_running_loop())
        try:
            await self.before(request.prefix[0])
        except asyncio.CancelledError:
            self.cancelled.append(request.prefix[0])
            raise
        return Answered(said(request.prefix[0]), Cost(1, 3))


def job_on(engine: Any, *numbers: int, budget: Budget | None = None) -> Job[str]:
    context = engine.open("Question", max_tokens=1)
    return Job(asking(context, *numbers), {context: engine}, budget or Budget())


async def at_once(number: int) -> None:
    """Needs no time."""


# --- In threads --------------------------------------------------------------------------------------------------


def test_a_request_is_answered_in_a_thread_of_the_engine_and_costs_what_it_says() -> None:
    engine, heard = Called(), Heard()
    engine.channel.submit({7: roll(1)}, heard)
    assert heard.until(1) == {7: said(1)}
    assert heard.costs == [Cost(1, 3)]
    assert [name.startswith("rain-called") for name in engine.threads] == [True]


def test_requests_are_answered_beside_each_other() -> None:
    meeting = threading.Barrier(5)
    engine, heard = Called(lambda number: meeting.wait(PATIENCE)), Heard()
    engine.channel.submit({number: roll(number) for number in range(5)}, heard)
    assert heard.until(5) == {number: said(number) for number in range(5)}


def test_what_a_call_raises_is_the_reply_to_it_alone_and_may_pass() -> None:
    cause = ValueError("no negative numbers")

    def fail_below_zero(number: int) -> None:
        if number < 0:
            raise cause

    engine, heard = Called(fail_below_zero), Heard()
    engine.channel.submit({1: roll(1), 2: roll(-1)}, heard)
    replies = heard.until(2)
    assert replies[1] == said(1)
    error = replies[2]
    assert isinstance(error, EngineError)
    assert str(error) == "called failed: ValueError: no negative numbers"
    assert (error.engine, error.request, error.is_retryable, error.__cause__) == ("called", "Rollout", True, cause)
    assert sorted(heard.costs, key=repr) == [Cost(1), Cost(1, 3)]  # a call that failed was a call


def test_an_engine_error_of_a_call_is_the_reply_as_it_is() -> None:
    error = EngineError("Not today.")

    def refuse(number: int) -> None:
        raise error

    heard = Heard()
    Called(refuse).channel.submit({1: roll(1)}, heard)
    assert heard.until(1) == {1: error}


def test_what_answers_another_question_is_an_error() -> None:
    class Wrong(Called):
        def call(self, request: Request) -> Answered:
            return Answered("soup", Cost())

    heard = Heard()
    Wrong().channel.submit({1: roll(1)}, heard)
    assert str(heard.until(1)[1]) == "called gave a wrong reply to Rollout: a TokenSet is wanted, given str."


def test_calls_that_hang_hold_up_no_other_and_what_is_cancelled_is_not_heard_of() -> None:
    begun, may_end = threading.Semaphore(0), threading.Event()

    def wait(number: int) -> None:
        begun.release()
        assert number >= 1000 or may_end.wait(PATIENCE)

    engine, quick, heard = Called(wait), Heard(), Heard()
    engine.channel.submit({number: roll(number) for number in range(NUM_CALLS)}, heard)
    for _ in range(NUM_CALLS):
        assert begun.acquire(timeout=PATIENCE)
    engine.channel.submit({1: roll(1001), 2: roll(1002)}, quick)
    assert quick.until(2) == {1: said(1001), 2: said(1002)}
    engine.channel.cancel(heard, [3])  # runs to its end, which nobody hears of
    engine.channel.cancel(heard, [])
    may_end.set()
    assert sorted(heard.until(NUM_CALLS - 1)) == [number for number in range(NUM_CALLS) if number != 3]


def test_all_of_a_listener_is_dropped_where_no_number_is_named() -> None:
    may_end, has_begun = threading.Event(), threading.Semaphore(0)

    def wait(number: int) -> None:
        has_begun.release()
        assert may_end.wait(PATIENCE)

    engine, dropped, heard = Called(wait), Heard(), Heard()
    engine.channel.submit({1: roll(1), 2: roll(2)}, dropped)
    engine.channel.submit({3: roll(3)}, heard)
    for _ in range(3):
        assert has_begun.acquire(timeout=PATIENCE)
    engine.channel.cancel(dropped)
    may_end.set()
    assert heard.until(1) == {3: said(3)}
    assert dropped.replies == {}


def test_a_conversation_is_closed_at_once() -> None:
    engine = Called()
    run(job_on(engine, 1, 2))
    assert len(engine.forgotten) == 1


def test_a_search_on_such_an_engine_goes_like_any_other() -> None:
    outcome = run(job_on(Called(), 1, 2, 3))
    assert (outcome.result, outcome.cost) == ("1 2 3", Cost(3, 9))


def test_many_searches_at_once_whose_answers_come_at_any_moment() -> None:
    engine = Called()
    outcomes = run_batch([job_on(engine, number, number + 1) for number in range(50)])
    assert [getattr(outcome, "result", outcome) for outcome in outcomes] == [
        f"{number} {number + 1}" for number in range(50)
    ]


class AnsweringAtOnce:
    """A channel that tells of the reply before `submit` returns, as one that calls may where a call takes no time."""

    def post(self, job: Callable[[], None]) -> None:
        job()

    def submit(self, requests: Mapping[int, Request], listener: Listener) -> None:
        for number, request in requests.items():
            assert isinstance(request, Rollout)
            listener.on_progress(Cost(1, 3), {number: said(request.prefix[0])})

    def cancel(self, listener: Listener, numbers: Collection[int] | None = None) -> None:
        pass

    def close(self, context: Context) -> None:
        pass


@pytest.mark.parametrize("num_rounds", [1, 2, 5000])  # that many are no deep recursion either
def test_a_search_may_be_told_of_replies_while_it_asks(num_rounds: int) -> None:
    engine = Called()
    engine.channel = AnsweringAtOnce()

    def search(context: Context) -> Steps[list[str]]:
        heard = []
        for number in range(num_rounds):
            replies = yield from ask_all([roll(2 * number, context), roll(2 * number + 1, context)])
            heard += [reply.text for reply in replies]
        return heard

    context = engine.open("Question", max_tokens=1)
    outcome = run(Job(search(context), {context: engine}))
    assert outcome.result == [str(number) for number in range(2 * num_rounds)]
    assert outcome.cost == Cost(2 * num_rounds, 6 * num_rounds)


def test_a_budget_spent_by_such_replies_ends_the_search() -> None:
    engine = Called()
    engine.channel = AnsweringAtOnce()
    with pytest.raises(BudgetExceededError, match="max_forward_tokens=6 is spent: 6 positions"):
        run(job_on(engine, 1, 2, 3, budget=Budget(max_forward_tokens=6)))


# --- On event loops ----------------------------------------------------------------------------------------------


async def test_a_request_of_a_coroutine_is_answered_on_its_loop() -> None:
    engine = Called(at_once)
    engine.calls = Calls(loop=asyncio.get_running_loop())
    outcome = await arun(job_on(engine, 1, 2))
    assert (outcome.result, outcome.cost) == ("1 2", Cost(2, 6))
    assert engine.loops == [asyncio.get_running_loop()] * 2
    assert engine.threads == []


async def test_a_cancelled_task_cancels_what_it_waits_for() -> None:
    has_begun = asyncio.Event()

    async def wait(number: int) -> None:
        has_begun.set()
        await asyncio.Event().wait()

    engine = Called(wait)
    engine.calls = Calls(loop=asyncio.get_running_loop())
    task = asyncio.create_task(arun(job_on(engine, 1)))
    await has_begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    while not engine.cancelled:
        await asyncio.sleep(0)  # the cancellation goes through the loop
    assert (engine.cancelled, len(engine.forgotten)) == ([1], 1)


async def test_a_call_that_the_model_itself_cancels_is_an_error_and_nobody_hangs() -> None:
    async def give_up(number: int) -> None:
        raise asyncio.CancelledError

    engine = Called(give_up)
    engine.calls = Calls(loop=asyncio.get_running_loop())
    with pytest.raises(EngineError, match="The call was cancelled"):
        await arun(job_on(engine, 1))


def test_a_loop_that_is_closed_is_an_error_and_nobody_hangs() -> None:
    engine = Called(at_once)
    loop = asyncio.new_event_loop()
    loop.close()
    engine.calls = Calls(loop=loop)
    with pytest.raises(EngineError, match="called failed: RuntimeError: Event loop is closed"):
        run(job_on(engine, 1))


# --- Engines that never answer -----------------------------------------------------------------------------------


class Silent:
    """An async engine that begins to answer, and never does."""

    name = "silent"
    identity: Mapping[str, Any] = {"engine": "silent"}

    def __init__(self) -> None:
        self.channel = AsyncChannel(self)
        self.has_begun = threading.Event()
        self.was_cancelled = threading.Event()
        self.was_closed = threading.Event()

    def open(self, prompt: str, *, max_tokens: int, stop: Sequence[str] = ()) -> Context:
        return Context(self.name, 1)

    async def answer(self, request: Request) -> Answered:
        self.has_begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.was_cancelled.set()
        raise AssertionError("it never answers")

    async def aclose(self, context: Context) -> None:
        self.was_closed.set()


def test_max_seconds_end_a_search_whose_engine_never_answers() -> None:
    engine = Silent()
    with pytest.raises(BudgetExceededError, match=r"max_seconds=0\.01 is spent after"):
        run(job_on(engine, 1, budget=Budget(max_seconds=0.01)))
    assert engine.was_cancelled.wait(PATIENCE)
    assert engine.was_closed.wait(PATIENCE)


def test_a_timeout_ends_it_with_an_error_that_may_pass_and_tells_its_cost() -> None:
    with pytest.raises(EngineError, match=r"^No answer within timeout=0\.01 s\.$") as caught:
        run(job_on(Silent(), 1, budget=Budget(timeout=0.01)))
    assert (caught.value.is_retryable, caught.value.cost) == (True, Cost())


@pytest.mark.parametrize(
    ("budget", "error"),
    [
        (Budget(max_seconds=0.01, timeout=1000), BudgetExceededError),
        (Budget(max_seconds=1000, timeout=0.01), EngineError),
    ],
)
def test_of_two_limits_the_first_holds(budget: Budget, error: type[Exception]) -> None:
    with pytest.raises(error):
        run(job_on(Silent(), 1, budget=budget))


async def test_a_coroutine_is_ended_alike() -> None:
    with pytest.raises(EngineError, match="No answer within timeout"):
        await arun(job_on(Silent(), 1, budget=Budget(timeout=0.01)))


def silent_llm(**arguments: Any) -> RainLLM:
    return RainLLM(model=Silent(), rubric=RUBRIC, config=CONFIG, seed=1, **arguments)


def test_the_end_of_max_seconds_goes_by_on_unsatisfied() -> None:
    info = rain_info(silent_llm(max_seconds=0.01))
    assert (info["text"], info["finish"], info["stop_reason"]) == (REFUSAL, "unsatisfied", "budget")
    with pytest.raises(UnsatisfiedError):
        silent_llm(max_seconds=0.01, on_unsatisfied="raise").invoke(PROMPT)


def test_the_end_of_a_timeout_goes_by_on_error() -> None:
    with pytest.raises(EngineError, match="No answer within timeout"):
        silent_llm(timeout=0.01).invoke(PROMPT)
    info = rain_info(silent_llm(timeout=0.01, on_error="refuse"))
    assert (info["text"], info["finish"], info["stop_reason"]) == (REFUSAL, "unsatisfied", "error")


@pytest.mark.parametrize(
    ("budget", "seconds", "error"),
    [
        (Budget(timeout=5), 5, EngineError),
        (Budget(timeout=5, max_seconds=5), 5, EngineError),  # a model that fails is told before a budget
        (Budget(timeout=5), 4.9, type(None)),
        (Budget(timeout=5, max_seconds=3), 4, BudgetExceededError),
        (Budget(), 10**9, type(None)),
    ],
)
def test_a_limit_of_time_is_spent_when_it_is_reached(budget: Budget, seconds: float, error: type) -> None:
    assert type(budget.exceeded_by(Cost(), seconds)) is error


@pytest.mark.parametrize(
    ("budget", "deadline"),
    [
        (Budget(), None),
        (Budget(max_forward_tokens=5), None),
        (Budget(max_seconds=3), 3),
        (Budget(timeout=5), 5),
        (Budget(max_seconds=3, timeout=5), 3),
        (Budget(max_seconds=5, timeout=3), 3),
    ],
)
def test_the_deadline_is_the_first_limit_of_time(budget: Budget, deadline: float | None) -> None:
    assert budget.deadline == deadline


def timers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]


@pytest.fixture
def no_timer_is_left() -> Iterator[None]:
    before = timers()
    yield
    for timer in timers():
        if timer not in before:
            timer.join(PATIENCE)  # one that was cancelled ends now, the other in an hour
            assert not timer.is_alive()


@pytest.mark.usefixtures("no_timer_is_left")
@pytest.mark.parametrize("number", [1, -1])
def test_nothing_waits_for_the_deadline_of_a_search_that_has_ended(number: int) -> None:
    def note_timer(number: int) -> None:
        seen.extend(timers())
        if number < 0:
            raise ValueError("no negative numbers")

    seen: list[threading.Thread] = []
    (outcome,) = run_batch([job_on(Called(note_timer), number, budget=Budget(timeout=3600))])
    assert isinstance(outcome, EngineError) == (number < 0)
    assert len(seen) == 1


@pytest.mark.usefixtures("no_timer_is_left")
def test_nothing_waits_for_the_deadline_of_a_search_that_was_given_up() -> None:
    engine = Silent()

    def search(context: Context) -> Steps[TokenSet]:
        yield from ask(roll(1, context))
        raise AssertionError("it never answers")

    async def give_up() -> None:
        context = engine.open("Question", max_tokens=1)
        task = asyncio.create_task(arun(Job(search(context), {context: engine}, Budget(timeout=3600))))
        await asyncio.to_thread(engine.has_begun.wait, PATIENCE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(give_up())


def test_a_timer_that_wakes_early_by_the_clock_of_the_search_is_set_again() -> None:
    times = iter([100.0, 100.005, 100.005])  # the start; half of the time, looked at and counted down from

    def clock() -> float:
        return next(times, 101.0)

    with pytest.raises(EngineError, match=r"No answer within timeout=0\.01 s"):
        run(job_on(Silent(), 1, budget=Budget(timeout=0.01)), clock=clock)
