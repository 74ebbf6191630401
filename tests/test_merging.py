"""Channels, what they make of the replies of their engines, and the scripted engine."""

import asyncio
import gc
import logging
import math
import sys
import threading
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from langchain_rain.engines.base import Answered, Cost, Engine, StepReport, Ticket, checked_reply
from langchain_rain.engines.merging import AsyncChannel, StepperChannel
from langchain_rain.engines.scripted import ScriptedEngine
from langchain_rain.errors import EngineError
from langchain_rain.search.protocol import Context, Embed, Expand, OptionLogprobs, Request, Rollout, Score, TokenSet

CONTEXT = Context("engine", 1)
PATIENCE = 10.0
"""Seconds after which a test that waits for another thread gives up."""


def roll(number: int, context: Context = CONTEXT) -> Rollout:
    return Rollout(context, (number,), (), None, 1.0, 0)


def said(number: int) -> TokenSet:
    return TokenSet((), str(number))


class Heard:
    """A listener that notes what it is told, and on which thread; `until` waits for so many replies."""

    def __init__(self) -> None:
        self.costs: list[Cost] = []
        self.replies: dict[int, Any] = {}
        self.threads: set[str] = set()
        self.news = threading.Condition()

    def on_progress(self, cost: Cost, replies: Mapping[int, Any]) -> None:
        with self.news:
            self.costs.append(cost)
            self.replies.update(replies)
            self.threads.add(threading.current_thread().name)
            self.news.notify_all()

    def until(self, num_replies: int) -> dict[int, Any]:
        with self.news:
            assert self.news.wait_for(lambda: len(self.replies) >= num_replies, PATIENCE)
            return self.replies


def settle(channel: StepperChannel | AsyncChannel) -> None:
    """Returns when all that was posted before is done, and what that posted in turn."""
    for _ in range(3):
        done = threading.Event()
        channel.post(done.set)
        assert done.wait(PATIENCE)


def threads_of(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == f"rain-{name}"]


def join_threads_of(name: str) -> None:
    for thread in threads_of(name):
        thread.join(PATIENCE)
    assert threads_of(name) == []


class Stepping:
    """A stepper whose requests take as many steps as their prefix says, with 3 positions each; it notes all it is told.

    `before_step` is called with the number of the step; whatever it raises is the engine's failure.
    """

    identity: Mapping[str, Any] = {}

    def __init__(self, name: str = "stepping", before_step: Callable[[int], object] = lambda number: None) -> None:
        self.name = name
        self.channel = StepperChannel(self)
        self.before_step = before_step
        self.num_steps = 0
        self.pending: dict[Ticket, list[Any]] = {}
        self.submitted: list[Request] = []
        self.cancelled: list[Ticket] = []
        self.closed: list[Context] = []

    def open(self, prompt: str, *, max_tokens: int, stop: Sequence[str] = ()) -> Context:
        return Context(self.name, 1)

    def close(self, context: Context) -> None:
        self.closed.append(context)

    def submit(self, request: Request) -> Ticket:
        assert isinstance(request, Rollout)
        if request.prefix[0] < 0:
            raise ValueError("no negative numbers")
        ticket = len(self.submitted)
        self.submitted.append(request)
        self.pending[ticket] = [request, request.prefix[0]]
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        self.cancelled.append(ticket)
        del self.pending[ticket]

    def step(self) -> StepReport:
        self.num_steps += 1
        self.before_step(self.num_steps)
        finished = {}
        positions = dict.fromkeys(self.pending, 3)
        for ticket, entry in list(self.pending.items()):
            entry[1] -= 1
            if entry[1] <= 0:
                finished[ticket] = said(entry[0].prefix[0])
                del self.pending[ticket]
        return StepReport(finished, positions)


# The owner of a stepper


def test_requests_of_several_listeners_share_steps_and_each_hears_its_own_replies_and_costs() -> None:
    engine, first, second = Stepping(), Heard(), Heard()

    def both() -> None:  # as one job, so that both are there at the first step
        engine.channel.submit({0: roll(1), 1: roll(3)}, first)
        engine.channel.submit({0: roll(2)}, second)

    engine.channel.post(both)
    assert first.until(2) == {0: said(1), 1: said(3)}
    assert second.until(1) == {0: said(2)}
    settle(engine.channel)
    assert engine.num_steps == 3
    assert first.costs == [Cost(1, 6), Cost(1, 3), Cost(1, 3)]
    assert second.costs == [Cost(1, 3), Cost(1, 3)]


def test_a_listener_is_told_where_the_engine_is_owned_and_the_owner_ends_with_its_work() -> None:
    engine, heard = Stepping("one-owner"), Heard()
    for _ in range(2):  # a second owner follows the first
        heard.replies.clear()
        engine.channel.submit({0: roll(1)}, heard)
        heard.until(1)
        join_threads_of("one-owner")
    assert heard.threads == {"rain-one-owner"}


def test_replies_without_a_forward_pass_cost_nothing() -> None:
    class Remembering(Stepping):
        def step(self) -> StepReport:
            return StepReport(finished=super().step().finished)

    engine, heard = Remembering(), Heard()
    engine.channel.submit({0: roll(1)}, heard)
    heard.until(1)
    assert heard.costs == [Cost()]


def test_a_listener_may_submit_again_from_inside() -> None:
    engine = Stepping()

    class Asking(Heard):
        def on_progress(self, cost: Cost, replies: Mapping[int, Any]) -> None:
            super().on_progress(cost, replies)
            if 1 not in self.replies:
                engine.channel.submit({1: roll(2)}, self)

    heard = Asking()
    engine.channel.submit({0: roll(1)}, heard)
    assert heard.until(2) == {0: said(1), 1: said(2)}


def test_cancelling_drops_the_requests_of_one_listener_alone() -> None:
    started = threading.Event()
    engine, given_up, patient = Stepping(before_step=lambda number: started.set()), Heard(), Heard()
    engine.channel.submit({0: roll(10**9), 1: roll(10**9)}, given_up)
    assert started.wait(PATIENCE)
    engine.channel.submit({0: roll(2)}, patient)
    engine.channel.cancel(given_up)
    assert patient.until(1) == {0: said(2)}
    join_threads_of(engine.name)
    assert (engine.cancelled, engine.pending, given_up.replies) == ([0, 1], {}, {})


def test_cancelling_by_number_drops_only_these() -> None:
    started = threading.Event()
    engine, choosy, other = Stepping(before_step=lambda number: started.set()), Heard(), Heard()
    engine.channel.submit({0: roll(10**9), 1: roll(10**9), 2: roll(10**9 + 1)}, choosy)
    engine.channel.submit({0: roll(10**9 + 2)}, other)  # another's number 0
    assert started.wait(PATIENCE)
    engine.channel.cancel(choosy, {0, 2, 7})
    engine.channel.cancel(choosy, ())
    settle(engine.channel)
    assert engine.cancelled == [0, 2]
    assert sorted(engine.pending) == [1, 3]
    engine.channel.cancel(other, [0])
    engine.channel.cancel(choosy)
    join_threads_of(engine.name)
    assert (engine.cancelled, engine.pending) == ([0, 2, 3, 1], {})
    assert (choosy.replies, other.replies) == ({}, {})


def test_a_reply_to_a_request_that_was_cancelled_meanwhile_is_dropped() -> None:
    heard, other = Heard(), Heard()

    class Late(Stepping):
        def cancel(self, ticket: Ticket) -> None:
            """Answers all the same."""

    engine = Late(before_step=lambda number: engine.channel.cancel(heard) if number == 1 else None)
    engine.channel.post(lambda: engine.channel.submit({0: roll(2)}, heard))
    engine.channel.submit({0: roll(3)}, other)
    other.until(1)
    join_threads_of(engine.name)
    assert heard.replies == {}


def test_a_request_that_cannot_be_submitted_fails_alone() -> None:
    engine, heard = Stepping(), Heard()
    engine.channel.submit({0: roll(1), 1: roll(-1), 2: roll(2)}, heard)
    replies = heard.until(3)
    assert (replies[0], replies[2]) == (said(1), said(2))
    failure = replies[1]
    assert isinstance(failure, EngineError)
    assert str(failure) == "stepping failed: ValueError: no negative numbers"
    assert (failure.engine, failure.request, failure.is_retryable) == ("stepping", "Rollout", False)
    assert isinstance(failure.__cause__, ValueError)


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), SystemExit("odd"), KeyboardInterrupt("odd")])
def test_a_step_that_raises_fails_all_that_wait_and_the_next_request_works(error: BaseException) -> None:
    def fail_first(number: int) -> None:
        if number == 1:
            raise error

    engine, first, second = Stepping(before_step=fail_first), Heard(), Heard()

    def both() -> None:
        engine.channel.submit({0: roll(1), 1: roll(2)}, first)
        engine.channel.submit({0: roll(3)}, second)

    engine.channel.post(both)
    failures = [*first.until(2).values(), *second.until(1).values()]
    assert [str(failure) for failure in failures] == [f"stepping failed: {type(error).__name__}: {error}"] * 3
    assert [(type(failure), failure.__cause__, failure.request) for failure in failures] == [
        (EngineError, error, "Rollout")
    ] * 3
    assert len({id(failure) for failure in failures}) == 3  # each is raised in a thread of its own
    settle(engine.channel)
    assert (engine.cancelled, engine.pending) == ([0, 1, 2], {})
    second.replies.clear()
    engine.channel.submit({0: roll(1)}, second)
    assert second.until(1) == {0: said(1)}


def test_a_report_that_is_none_is_a_step_that_failed() -> None:
    class Silent(Stepping):
        def step(self) -> Any:
            return None

    engine, heard = Silent(), Heard()
    engine.channel.submit({0: roll(1)}, heard)
    assert isinstance(heard.until(1)[0], EngineError)


def test_a_listener_that_raises_does_not_keep_the_news_from_others(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Heard):
        def on_progress(self, cost: Cost, replies: Mapping[int, Any]) -> None:
            raise SystemExit("broken")

    engine, heard = Stepping(), Heard()

    def both() -> None:
        engine.channel.submit({0: roll(1)}, Broken())
        engine.channel.submit({0: roll(1)}, heard)

    engine.channel.post(both)
    assert heard.until(1) == {0: said(1)}
    assert "A job on the engine stepping failed." in caplog.messages


def test_an_engine_that_cannot_cancel_or_close_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    class Stubborn(Stepping):
        def cancel(self, ticket: Ticket) -> None:
            raise ValueError("never")

        def close(self, context: Context) -> None:
            raise ValueError("never")

    def fail_first(number: int) -> None:
        if number == 1:
            raise ValueError("first")

    engine, heard = Stubborn(before_step=fail_first), Heard()
    engine.channel.submit({0: roll(1)}, heard)
    assert isinstance(heard.until(1)[0], EngineError)
    engine.channel.close(CONTEXT)
    settle(engine.channel)
    assert caplog.messages.count("A job on the engine stepping failed.") == 2
    heard.replies.clear()
    engine.pending.clear()
    engine.channel.submit({0: roll(1)}, heard)
    assert heard.until(1) == {0: said(1)}


@pytest.mark.skipif(sys.platform != "linux", reason="a stack that large is refused when the thread starts")
def test_after_a_thread_that_could_not_start_the_next_job_starts_one() -> None:
    engine, heard = Stepping(), Heard()
    before = threading.stack_size(1 << 46)
    try:
        with pytest.raises(RuntimeError, match="can't start new thread"):
            engine.channel.submit({0: roll(1)}, heard)
    finally:
        threading.stack_size(before)
    engine.channel.submit({1: roll(1)}, heard)
    assert heard.until(2) == {0: said(1), 1: said(1)}


# The owner of an async engine


class Answering:
    """An async engine that answers by a coroutine function; notes what it is told."""

    identity: Mapping[str, Any] = {}

    def __init__(self, answer: Callable[[Any], Awaitable[Any]], name: str = "answering") -> None:
        self.name = name
        self.channel = AsyncChannel(self)
        self.closed: list[Context] = []
        self.has_closed = threading.Event()
        self._answer = answer

    def open(self, prompt: str, *, max_tokens: int, stop: Sequence[str] = ()) -> Context:
        return Context(self.name, 1)

    async def answer(self, request: Request) -> Any:
        return await self._answer(request)

    async def aclose(self, context: Context) -> None:
        self.closed.append(context)
        self.has_closed.set()


async def echo(request: Rollout) -> Answered:
    return Answered(said(request.prefix[0]), Cost(1, 5))


def test_an_async_engine_answers_on_its_own_loop_with_its_costs() -> None:
    engine, heard = Answering(echo), Heard()
    engine.channel.submit({0: roll(1), 1: roll(2)}, heard)
    assert heard.until(2) == {0: said(1), 1: said(2)}
    assert heard.costs == [Cost(1, 5), Cost(1, 5)]
    assert heard.threads == {f"rain-{engine.name}"}


def test_requests_are_answered_concurrently() -> None:
    second_came = asyncio.Event()

    async def wait_for_the_second(request: Rollout) -> Answered:
        if request.prefix[0] == 1:
            await asyncio.wait_for(second_came.wait(), PATIENCE)
        second_came.set()
        return await echo(request)

    engine, heard = Answering(wait_for_the_second), Heard()
    engine.channel.submit({0: roll(1), 1: roll(2)}, heard)
    heard.until(2)
    assert list(heard.replies) == [1, 0]


def test_an_exception_in_place_of_a_reply_is_handed_on() -> None:
    refusal = EngineError("busy", is_retryable=True)

    async def refuse(request: Request) -> Answered:
        return Answered(refusal, Cost(1, 2))

    heard = Heard()
    Answering(refuse).channel.submit({0: roll(1)}, heard)
    assert heard.until(1) == {0: refusal}
    assert heard.costs == [Cost(1, 2)]


@pytest.mark.parametrize("error", [ValueError("odd"), asyncio.CancelledError("from inside"), TimeoutError("slow")])
def test_an_engine_that_raises_is_told_to_who_waits(error: BaseException) -> None:
    async def fail(request: Request) -> Answered:
        raise error

    engine, heard = Answering(fail), Heard()
    engine.channel.submit({0: roll(1)}, heard)
    failure = heard.until(1)[0]
    assert isinstance(failure, EngineError)
    assert str(failure) == f"{engine.name} failed: {type(error).__name__}: {error}"
    assert (failure.__cause__, failure.request) == (error, "Rollout")


def test_an_answer_of_the_wrong_kind_is_told_to_who_waits() -> None:
    async def bare(request: Request) -> Any:
        return said(1)

    heard = Heard()
    Answering(bare).channel.submit({0: roll(1)}, heard)
    assert isinstance(heard.until(1)[0], EngineError)


def test_cancelling_cancels_the_answers_of_one_listener_alone() -> None:
    started, was_cancelled = threading.Event(), threading.Event()

    async def wait_forever(request: Rollout) -> Answered:
        if request.prefix[0] == 0:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                was_cancelled.set()
        return await echo(request)

    engine, given_up, patient = Answering(wait_forever), Heard(), Heard()
    engine.channel.submit({0: roll(0)}, given_up)
    assert started.wait(PATIENCE)
    engine.channel.submit({0: roll(7)}, patient)
    engine.channel.cancel(given_up)
    assert was_cancelled.wait(PATIENCE)
    assert patient.until(1) == {0: said(7)}
    settle(engine.channel)
    assert given_up.replies == {}


def test_cancelling_by_number_cancels_only_these_answers() -> None:
    started, go_on = threading.Semaphore(0), asyncio.Event()
    cancelled: list[int] = []

    async def wait_to_go_on(request: Rollout) -> Answered:
        started.release()
        try:
            await go_on.wait()
        except asyncio.CancelledError:
            cancelled.append(request.prefix[0])
            raise
        return await echo(request)

    engine, choosy, other = Answering(wait_to_go_on), Heard(), Heard()
    engine.channel.submit({0: roll(0), 1: roll(1), 2: roll(2)}, choosy)
    engine.channel.submit({0: roll(10)}, other)  # another's number 0
    assert all(started.acquire(timeout=PATIENCE) for _ in range(4))
    engine.channel.cancel(choosy, {0, 2, 7})
    engine.channel.cancel(choosy, ())
    settle(engine.channel)
    assert sorted(cancelled) == [0, 2]
    engine.channel.post(go_on.set)
    assert choosy.until(1) == {1: said(1)}
    assert other.until(1) == {0: said(10)}
    settle(engine.channel)
    assert (choosy.replies, sorted(cancelled)) == ({1: said(1)}, [0, 2])


def test_an_answer_that_comes_in_spite_of_a_cancellation_is_dropped() -> None:
    started, answered = threading.Event(), threading.Event()

    async def answer_anyway(request: Rollout) -> Answered:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            answered.set()
        return await echo(request)

    engine, heard = Answering(answer_anyway), Heard()
    engine.channel.submit({0: roll(1)}, heard)
    assert started.wait(PATIENCE)
    engine.channel.cancel(heard)
    assert answered.wait(PATIENCE)
    settle(engine.channel)
    assert heard.replies == {}


def test_conversations_are_closed_on_the_loop_and_a_failure_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    engine = Answering(echo)
    engine.channel.close(CONTEXT)
    assert engine.has_closed.wait(PATIENCE)
    assert engine.closed == [CONTEXT]

    class Stubborn(Answering):
        async def aclose(self, context: Context) -> None:
            raise ValueError("never")

    stubborn, heard = Stubborn(echo), Heard()
    stubborn.channel.close(CONTEXT)
    settle(stubborn.channel)
    assert "The engine answering could not close a conversation." in caplog.messages
    stubborn.channel.submit({0: roll(1)}, heard)
    assert heard.until(1) == {0: said(1)}


def test_a_closing_that_takes_long_is_not_collected_meanwhile() -> None:
    # The loop holds its tasks weakly, and so does this test: only the channel keeps the closing alive.
    begun, finished = threading.Event(), threading.Event()
    waits: list[weakref.ref[asyncio.Future[None]]] = []

    class Slow(Answering):
        async def aclose(self, context: Context) -> None:
            wait: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            waits.append(weakref.ref(wait))
            begun.set()
            await wait
            finished.set()

    engine = Slow(echo)
    engine.channel.close(CONTEXT)
    assert begun.wait(PATIENCE)
    settle(engine.channel)
    gc.collect()

    def go_on() -> None:
        wait = waits[0]()
        if wait is not None:
            wait.set_result(None)

    engine.channel.post(go_on)
    settle(engine.channel)
    assert finished.is_set()


def test_the_thread_of_an_async_engine_ends_when_nobody_holds_it() -> None:
    engine, heard = Answering(echo, name="let-go"), Heard()
    engine.channel.submit({0: roll(1)}, heard)
    heard.until(1)
    settle(engine.channel)
    (thread,) = threads_of("let-go")
    del engine
    gc.collect()
    thread.join(PATIENCE)
    assert not thread.is_alive()


# What replies must look like

EXPAND = Expand(CONTEXT, (), 2, 2, 9, 15, 1.0, 0, frozenset({(9,)}))
SCORE = Score(CONTEXT, "question", "(", ("A", "B"))
EMBED = Embed(CONTEXT, (1,), 1)
SHORT = Rollout(CONTEXT, (1,), (".",), 2, 1.0, 0)


@pytest.mark.parametrize(
    ("request_", "reply"),
    [
        (EXPAND, []),
        (EXPAND, [TokenSet((1,), "a"), TokenSet((1, 2), "ab")]),
        (SHORT, TokenSet((), "")),
        (SHORT, TokenSet((1, 2), "ab")),
        (roll(1), TokenSet((1,) * 1000, "")),
        (SCORE, OptionLogprobs((0.0, -math.inf), 1.0)),
        (SCORE, OptionLogprobs((-math.inf, -math.inf), 0.0)),
        (EMBED, np.array([0.6, 0.8])),
        (SCORE, EngineError("no")),
    ],
)
def test_a_reply_that_answers_is_handed_on(request_: Request, reply: Any) -> None:
    assert checked_reply(request_, reply, engine="engine") is reply


@pytest.mark.parametrize(
    ("request_", "reply", "problem"),
    [
        (EXPAND, None, "a list of TokenSet is wanted, given None"),
        (EXPAND, (TokenSet((1,), "a"),), "a list of TokenSet is wanted"),
        (EXPAND, ["a"], "a list of TokenSet is wanted"),
        (EXPAND, [TokenSet((n,), "") for n in range(3)], "at most 2 token sets are wanted, given 3"),
        (EXPAND, [TokenSet((1,), "a"), TokenSet((1,), "b")], "the token sets are not distinct"),
        (EXPAND, [TokenSet((9,), "a")], "one of them was excluded"),
        (EXPAND, [TokenSet((), "")], r"token sets of 1 to 2 tokens are wanted, given \[0\]"),
        (EXPAND, [TokenSet((1, 2, 3), "")], r"token sets of 1 to 2 tokens are wanted, given \[3\]"),
        (EXPAND, [TokenSet((1,), "a", math.nan)], r"log probabilities are wanted, given \[nan\]"),
        (SHORT, [TokenSet((1,), "a")], "a TokenSet is wanted"),
        (SHORT, TokenSet((1, 2, 3), ""), "at most 2 tokens are wanted, given 3"),
        (SHORT, TokenSet((1,), "", math.nan), "log probabilities are wanted"),
        (SCORE, None, "OptionLogprobs of 2 options are wanted, given None"),
        (SCORE, OptionLogprobs((0.0,), 1.0), "OptionLogprobs of 2 options are wanted"),
        (SCORE, OptionLogprobs((0.0, math.nan), 1.0), r"a mass in \[0, 1\]"),
        (SCORE, OptionLogprobs((0.0, 0.0), 1.5), r"a mass in \[0, 1\]"),
        (SCORE, OptionLogprobs((0.0, 0.0), -0.5), r"a mass in \[0, 1\]"),
        (SCORE, OptionLogprobs((0.0, 0.0), math.nan), r"a mass in \[0, 1\]"),
        (EMBED, [0.6, 0.8], "one finite vector is wanted, given list of shape None"),
        (EMBED, np.eye(2), r"one finite vector is wanted, given ndarray of shape \(2, 2\)"),
        (EMBED, np.array([np.nan, 0.0]), "one finite vector is wanted"),
        (EMBED, np.array([np.inf, 0.0]), "one finite vector is wanted"),
    ],
)
def test_a_reply_that_does_not_answer_is_an_engine_error_that_says_why(
    request_: Request, reply: Any, problem: str
) -> None:
    error = checked_reply(request_, reply, engine="mine")
    assert isinstance(error, EngineError)
    assert (error.engine, error.request) == ("mine", type(request_).__name__)
    with pytest.raises(EngineError, match=f"^mine gave a wrong reply to {error.request}: .*{problem}"):
        raise error


@pytest.mark.parametrize(
    ("request_", "reply"),
    [
        (EXPAND, [TokenSet([1], "unhashable")]),  # type: ignore[arg-type]
        (SCORE, OptionLogprobs(("a", "b"), 1.0)),  # type: ignore[arg-type]
        (EMBED, np.array(["a", "b"])),
    ],
)
def test_a_reply_that_the_check_trips_over_is_an_engine_error_too(request_: Any, reply: Any) -> None:
    kind = type(request_).__name__.lower()
    scripts: dict[str, Any] = {kind: lambda request: reply, "rollout": lambda request: said(1)}
    engine, heard, other = ScriptedEngine(**scripts), Heard(), Heard()
    engine.channel.submit({0: request_}, heard)
    engine.channel.submit({0: roll(1)}, other)
    assert isinstance(heard.until(1)[0], EngineError)
    assert other.until(1) == {0: said(1)}


# The scripted engine


def test_a_scripted_engine_is_an_engine_and_notes_what_it_is_told() -> None:
    engine = ScriptedEngine(rollout={(1,): said(1)}, name="mine")
    assert isinstance(engine, Engine)
    assert (engine.name, engine.identity) == ("mine", {"engine": "scripted", "name": "mine"})
    context = engine.open("one two three", max_tokens=1)
    assert (context.engine_name, context.num_prompt_tokens) == ("mine", 3)
    request = roll(1, context)
    ticket = engine.submit(request)
    assert engine.step() == StepReport({ticket: said(1)}, {ticket: 1})
    engine.close(context)
    assert (engine.asked, engine.opened, engine.closed) == ([request], [context], [context])


def test_scripts_are_tables_by_prefix_or_question_or_functions_of_the_request() -> None:
    token_sets, logprobs, vector = [TokenSet((1,), "a")], OptionLogprobs((0.0, -1.0), 1.0), np.array([1.0])
    engine = ScriptedEngine(
        expand={(): token_sets}, score={"question": logprobs}, embed=lambda request: vector * request.num_tokens
    )
    tickets = [engine.submit(request) for request in (EXPAND, SCORE, EMBED)]
    finished = engine.step().finished
    assert [finished[ticket] for ticket in tickets] == [token_sets, logprobs, vector]


@pytest.mark.parametrize(
    ("engine", "request_", "message"),
    [
        (ScriptedEngine(), roll(1), r"scripted has no reply to Rollout of \(1,\)\."),
        (ScriptedEngine(rollout={(2,): said(2)}), roll(1), r"scripted has no reply to Rollout of \(1,\)\."),
        (ScriptedEngine(score={}), SCORE, r"scripted has no reply to Score of 'question'\."),
    ],
)
def test_a_request_that_the_script_lacks_is_answered_by_an_engine_error(
    engine: ScriptedEngine, request_: Request, message: str
) -> None:
    ticket = engine.submit(request_)
    error = engine.step().finished[ticket]
    with pytest.raises(EngineError, match=message):
        raise error


def test_a_cancelled_request_is_not_answered() -> None:
    engine = ScriptedEngine(rollout=lambda request: said(request.prefix[0]))
    tickets = [engine.submit(roll(1)), engine.submit(roll(2))]
    engine.cancel(tickets[0])
    engine.cancel(tickets[0])  # once more does no harm
    assert engine.step().finished == {tickets[1]: said(2)}


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
