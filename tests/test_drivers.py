"""The six rules of the drivers (architecture.md, "Rounds, engines, drivers"), budgets, and every way to end early."""

import asyncio
import contextlib
import pickle
import signal
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_rain import drivers
from langchain_rain.budget import Budget
from langchain_rain.drivers import Job, Outcome, arun, astream, run, run_batch, stream
from langchain_rain.engines.base import Answered, Cost, Engine
from langchain_rain.engines.scripted import ScriptedEngine
from langchain_rain.errors import BudgetExceededError, EngineError
from langchain_rain.search.config import SearchConfig
from langchain_rain.search.paper import SearchResult, choose
from langchain_rain.search.protocol import (
    Committed,
    Context,
    Embed,
    Expand,
    Rollout,
    Round,
    Score,
    Simulated,
    Steps,
    TokenSet,
    Verdict,
    ask,
    ask_all,
)
from langchain_rain.search.tree import Node, Tree
from tests.scripted_games import RandomGame, begin, configs, games
from tests.test_merging import PATIENCE, Answering, Stepping, join_threads_of, roll, said, settle

FOREVER = 10**9
EVENT = Simulated((1,), "", "", Verdict(0.5), 0)
OTHER = Simulated((2,), "", "", Verdict(-0.5), 1)


def echoing(name: str = "echoing") -> ScriptedEngine:
    return ScriptedEngine(rollout=lambda request: said(request.prefix[0]), name=name)


def asking(context: Context, *numbers: int) -> Steps[str]:
    """Asks one after the other and returns what was said."""
    said_so_far = []
    for number in numbers:
        reply = yield from ask(roll(number, context))
        said_so_far.append(reply.text)
    return " ".join(said_so_far)


def job_of(engine: Engine, steps: Callable[[Context], Steps[Any]], budget: Budget | None = None) -> Job[Any]:
    context = engine.open("Question", max_tokens=1)
    return Job(steps(context), {context: engine}, budget or Budget())


def ask_numbers(engine: Engine, *numbers: int, budget: Budget | None = None) -> Job[Any]:
    return job_of(engine, lambda context: asking(context, *numbers), budget)


class Clock:
    """Says what it is set to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def freed(engine: ScriptedEngine | Stepping) -> list[Context]:
    """The contexts closed once the owner has done all it was told."""
    settle(engine.channel)
    join_threads_of(engine.name)
    return engine.closed


# All drivers do the same


async def run_async(job: Job[SearchResult]) -> Outcome[SearchResult]:
    return await arun(job)


async def stream_async(job: Job[SearchResult]) -> list[Any]:
    return [event async for event in astream(job)]


@settings(max_examples=12, deadline=None)
@given(games(has_vetoes=True), configs(), st.integers(2, 5))
def test_merged_is_single_is_async_is_streamed(game: RandomGame, config: SearchConfig, num_jobs: int) -> None:
    def jobs() -> list[Job[SearchResult]]:
        engine = game.engine()
        return [begin(engine, config, can_veto=True, seed=seed)[1] for seed in range(num_jobs)]

    async def all_at_once() -> list[Outcome[SearchResult]]:
        return await asyncio.gather(*map(run_async, jobs()))

    singles = [(outcome.result, outcome.cost) for outcome in map(run, jobs())]
    merged = run_batch(jobs(), max_concurrent=3)
    assert [(each.result, each.cost) for each in merged if isinstance(each, Outcome)] == singles
    assert [(each.result, each.cost) for each in asyncio.run(all_at_once())] == singles
    traces = [list(stream(job)) for job in jobs()]
    assert [asyncio.run(stream_async(job))[:-1] for job in jobs()] == [trace[:-1] for trace in traces]
    outcomes = [trace[-1] for trace in traces if isinstance(trace[-1], Outcome)]
    assert [(each.result, each.cost) for each in outcomes] == singles
    for (result, _), trace in zip(singles, traces, strict=True):
        assert sum(isinstance(event, Simulated) for event in trace) == result.num_simulations
        assert sum(isinstance(event, Committed) for event in trace) == result.num_token_sets


@settings(max_examples=10, deadline=None)
@given(games(), configs())
def test_writer_and_judge_may_be_two_engines_in_this_process(game: RandomGame, config: SearchConfig) -> None:
    writer, judge = game.engine("writer"), game.engine("judge")
    assert run(begin(writer, config, judge_engine=judge)[1]).result == run(begin(game.engine(), config)[1]).result
    # How much is asked ahead, and so the cost, depends on which engine is faster.
    config = replace(config, lookahead=0)
    alone = run(begin(game.engine(), config)[1])
    together = run(begin(writer, config, judge_engine=judge)[1])
    assert together.result == alone.result
    assert together.cost.token_positions == alone.cost.token_positions
    assert {type(request) for request in judge.asked} <= {Score}
    assert not any(isinstance(request, Score) for request in writer.asked)
    assert freed(writer) == writer.opened
    assert freed(judge) == judge.opened


@settings(max_examples=10, deadline=None)
@given(games(), configs())
def test_the_judge_may_be_behind_a_network(game: RandomGame, config: SearchConfig) -> None:
    async def answer(request: Any) -> Answered:
        return Answered(game.answer(request), Cost(1, 1))

    judge = Answering(answer, name="remote judge")
    outcome = run(begin(game.engine(), config, judge_engine=judge)[1])
    assert outcome.result == run(begin(game.engine(), config)[1]).result
    assert judge.has_closed.wait(PATIENCE)


def test_a_round_may_ask_two_engines_and_the_replies_keep_their_order() -> None:
    async def answer(request: Any) -> Answered:
        return Answered(said(request.prefix[0] * 10), Cost(1, 7))

    here, there = echoing(), Answering(answer)
    local, remote = here.open("", max_tokens=1), there.open("", max_tokens=1)

    def both() -> Steps[list[str]]:
        replies = yield from ask_all([roll(1, remote), roll(2, local), roll(3, remote), roll(4, local)])
        return [reply.text for reply in replies]

    outcome = run(Job(both(), {local: here, remote: there}))
    assert outcome.result == ["10", "2", "30", "4"]
    assert outcome.cost == Cost(1 + 2, 2 + 14)  # one step here, two answers there


def test_the_outcome_says_how_long_it_took() -> None:
    clock = Clock()

    def answer(request: Any) -> TokenSet:
        clock.now += 2.5
        return said(1)

    outcome = run(ask_numbers(ScriptedEngine(rollout=answer), 1, 1), clock=clock)
    assert (outcome.seconds, outcome.cost) == (5.0, Cost(2, 2))


def test_threads_that_run_searches_at_once_share_an_engine() -> None:
    engine, results = echoing(), {}

    def search(number: int) -> None:
        results[number] = run(ask_numbers(engine, number, number + 1)).result

    threads = [threading.Thread(target=search, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert results == {number: f"{number} {number + 1}" for number in range(8)}


# Rule 1: a search is resumed by the drivers alone, on the owner of an engine, as soon as its own requests are done


def test_rule_1_a_search_is_resumed_on_the_owner_of_its_engine() -> None:
    names: list[str] = []

    def noting(context: Context) -> Steps[None]:
        names.append(threading.current_thread().name)
        yield from ask(roll(1, context))
        names.append(threading.current_thread().name)

    run(job_of(echoing("home"), noting))
    assert names == ["rain-home", "rain-home"]


def test_rule_1_a_search_never_waits_for_the_longer_requests_of_another() -> None:
    ended: list[str] = []

    def noting(name: str, *numbers: int) -> Callable[[Context], Steps[None]]:
        def steps(context: Context) -> Steps[None]:
            yield from asking(context, *numbers)
            ended.append(name)

        return steps

    engine = Stepping()
    run_batch([job_of(engine, noting("ten steps", 10)), job_of(engine, noting("three of one", 1, 1, 1))])
    assert ended == ["three of one", "ten steps"]
    assert engine.num_steps == 10


# Rule 2: an exception in place of a reply reaches the search that asked, and no other


def failing_at(number: int, failure: Exception) -> ScriptedEngine:
    return ScriptedEngine(rollout=lambda request: failure if request.prefix[0] == number else said(request.prefix[0]))


def test_rule_2_a_failed_request_is_thrown_into_the_search_that_asked_alone() -> None:
    failure = EngineError("no seven")
    engine = failing_at(7, failure)
    outcomes = run_batch([ask_numbers(engine, n, n + 1) for n in (1, 7, 3, 6)])
    assert [each.result if isinstance(each, Outcome) else each for each in outcomes] == ["1 2", failure, "3 4", failure]
    assert sorted(map(id, freed(engine))) == sorted(map(id, engine.opened))  # each once, in the order in which they end


def test_rule_2_a_search_may_go_on_after_a_failure() -> None:
    def careful(context: Context) -> Steps[str]:
        try:
            yield from ask_all([roll(1, context), roll(7, context), roll(2, context)])
        except EngineError as error:
            return f"{error}, so " + (yield from asking(context, 3))
        return "nothing failed"

    assert run(job_of(failing_at(7, EngineError("no seven")), careful)).result == "no seven, so 3"


# Rule 3: only `send` and `throw` can end a search by StopIteration


def stray_next(context: Context) -> Steps[str]:
    yield from ask(roll(1, context))
    next(iter([]))
    return "unreachable"


def test_rule_3_a_stray_next_in_a_search_is_an_error_and_not_its_end() -> None:
    engine = echoing()
    failed, fine = run_batch([job_of(engine, stray_next), ask_numbers(engine, 1, 2)])
    assert isinstance(failed, RuntimeError)
    assert isinstance(failed.__cause__, StopIteration)
    assert isinstance(fine, Outcome)
    assert fine.result == "1 2"


@pytest.mark.parametrize("as_reply", [True, False])
def test_rule_3_a_stop_iteration_of_an_engine_is_an_error_and_not_the_end(as_reply: bool) -> None:
    def script(request: Any) -> Any:
        if as_reply:
            return StopIteration("stray")
        raise StopIteration("stray")

    with pytest.raises(RuntimeError if as_reply else EngineError, match="StopIteration"):
        run(ask_numbers(ScriptedEngine(rollout=script), 1))


@pytest.mark.parametrize("error", [ValueError("bug"), SystemExit("bug"), asyncio.CancelledError("bug")])
def test_whatever_a_search_raises_is_raised_to_who_waits_for_it(error: BaseException) -> None:
    def buggy(context: Context) -> Steps[None]:
        yield from ask(roll(1, context))
        raise error

    engine = echoing()
    with pytest.raises(type(error), match="bug"):
        run(job_of(engine, buggy))
    assert freed(engine) == engine.opened
    assert run(ask_numbers(engine, 1)).result == "1"


def test_an_exit_raised_in_a_batch_ends_the_batch_and_frees_all() -> None:
    def exiting(context: Context) -> Steps[None]:
        yield from ask(roll(1, context))
        raise SystemExit("enough")

    engine = Stepping()
    with pytest.raises(SystemExit, match="enough"):
        run_batch([job_of(engine, exiting), ask_numbers(engine, FOREVER)])
    assert len(freed(engine)) == 2
    assert engine.pending == {}


# Rule 4: the replies are as many as the requests, and look as they must


@pytest.mark.parametrize(
    ("kind", "reply"),
    [
        ("expand", [TokenSet((1,), "a"), TokenSet((2,), "b")]),
        ("expand", None),
        ("rollout", [TokenSet((1,), "a")]),
        ("score", []),
        ("embed", np.eye(2)),
        ("embed", np.array(["a"])),
    ],
)
def test_rule_4_replies_of_the_wrong_number_or_shape_are_engine_errors(kind: str, reply: Any) -> None:
    scripts: dict[str, Any] = {kind: lambda request: reply}
    engine = ScriptedEngine(**scripts)
    context = engine.open("", max_tokens=1)
    requests: dict[str, Any] = {
        "expand": Expand(context, (), 1, 1, 1, 1, 1.0, 0),
        "rollout": roll(1, context),
        "score": Score(context, "question", "(", ("A", "B")),
        "embed": Embed(context, (1,), 1),
    }
    with pytest.raises(EngineError) as caught:
        run(Job(ask(requests[kind]), {context: engine}))
    assert (caught.value.engine, caught.value.request.lower()) == ("scripted", kind)


def test_rule_4_a_search_gets_one_reply_for_each_request_in_their_order() -> None:
    def many(context: Context) -> Steps[list[str]]:
        replies = yield from ask_all([roll(number, context) for number in (3, 1, 2)])
        return [reply.text for reply in replies]

    assert run(job_of(Stepping(), many)).result == ["3", "1", "2"]


def test_a_request_about_a_context_of_another_search_is_refused() -> None:
    engine = echoing()
    foreign = engine.open("", max_tokens=1)
    own = engine.open("", max_tokens=1)
    with pytest.raises(EngineError, match="names a context that is not of this search"):
        run(Job(asking(foreign, 1), {own: engine}))
    assert engine.asked == []
    assert freed(engine) == [own]


def test_what_is_no_round_is_the_error_of_the_search_that_yielded_it() -> None:
    def confused(context: Context) -> Generator[Any, Any, None]:
        yield roll(1, context)

    engine = echoing()
    failed, fine = run_batch([job_of(engine, confused), ask_numbers(engine, 1)])
    assert isinstance(failed, AttributeError)
    assert isinstance(fine, Outcome)


def test_rounds_of_mere_events_are_answered_at_once_however_many() -> None:
    def talking(context: Context) -> Steps[int]:
        for _ in range(5000):  # more than the stack is deep
            assert (yield Round((), (EVENT,))) == []
        return len((yield from ask_all([])))

    engine = echoing()
    *events, outcome = stream(job_of(engine, talking))
    assert events == [EVENT] * 5000
    assert isinstance(outcome, Outcome)
    assert (outcome.result, outcome.cost, engine.asked) == (0, Cost(), [])


def test_a_search_that_asks_nothing_ends_at_once() -> None:
    def silent(context: Context) -> Steps[str]:
        yield from ()
        return "done"

    engine = echoing()
    assert run(job_of(engine, silent)).result == "done"
    assert freed(engine) == engine.opened


# Rule 5: whatever ends a search closes it, cancels its requests and frees its contexts


class Endless:
    """A search that says `EVENT`, then asks what is never answered; knows when it was closed."""

    def __init__(self) -> None:
        self.has_asked = threading.Event()
        self.is_closed = threading.Event()
        self.engine = Stepping("endless", before_step=lambda number: self.has_asked.set())

    def job(self) -> Job[None]:
        return job_of(self.engine, self._steps)

    def _steps(self, context: Context) -> Steps[None]:
        try:
            yield from ask_all([], [EVENT])
            yield from ask_all([roll(FOREVER, context), roll(FOREVER + 1, context)])
        finally:
            self.is_closed.set()

    def assert_freed(self, num_searches: int = 1) -> None:
        assert self.is_closed.is_set()
        assert len(freed(self.engine)) == num_searches
        assert self.engine.pending == {}
        assert sorted(self.engine.cancelled) == list(range(2 * num_searches))


@pytest.mark.parametrize("fails", [False, True])
def test_rule_5_contexts_are_freed_once_however_a_search_ends(fails: bool) -> None:
    engine = failing_at(2 if fails else 0, EngineError("no two"))
    with contextlib.suppress(EngineError):
        run(ask_numbers(engine, 1, 2))
    assert freed(engine) == engine.opened


def test_rule_5_a_stream_closed_early_frees_all() -> None:
    endless = Endless()
    events = stream(endless.job())
    assert next(events) == EVENT
    assert endless.has_asked.wait(PATIENCE)
    assert isinstance(events, Generator)
    events.close()
    endless.assert_freed()


async def test_rule_5_an_async_stream_left_early_frees_all() -> None:
    endless = Endless()
    events = astream(endless.job())
    assert isinstance(events, AsyncGenerator)
    async with contextlib.aclosing(events):
        async for event in events:
            assert event == EVENT
            break
    assert endless.is_closed.is_set()
    assert len(freed(endless.engine)) == 1
    assert endless.engine.pending == {}


async def test_rule_5_a_cancelled_task_frees_all_and_leaves_no_thread() -> None:
    endless = Endless()
    task = asyncio.create_task(run_endless(endless))
    await asyncio.to_thread(endless.has_asked.wait, PATIENCE)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    endless.assert_freed()
    assert [thread.name for thread in threading.enumerate() if thread.name == "rain-endless"] == []


async def run_endless(endless: Endless) -> Outcome[None]:
    return await arun(endless.job())


async def test_rule_5_a_cancelled_task_cancels_the_answers_of_an_async_engine() -> None:
    has_asked, was_cancelled = threading.Event(), threading.Event()

    async def answer(request: Any) -> Answered:
        has_asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            was_cancelled.set()
        raise AssertionError("never answered")

    engine = Answering(answer)
    task = asyncio.create_task(run_on(engine))
    await asyncio.to_thread(has_asked.wait, PATIENCE)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert was_cancelled.wait(PATIENCE)
    assert engine.has_closed.wait(PATIENCE)


async def run_on(engine: Answering) -> Outcome[Any]:
    return await arun(ask_numbers(engine, 1))


@contextlib.contextmanager
def interrupting_once() -> Iterator[Callable[[int], None]]:
    """Yields a hook for `Stepping` from whose first call on the main thread is about to be interrupted, once.

    A signal that comes just before the main thread begins to wait is noticed only when it wakes up again, so one alone
    may be noticed never. The kernel repeats it: a thread of Python would not do, because CPython 3.11 lets a thread
    that is traced (coverage) get no further while a signal waits for the main thread.
    """
    has_come = False

    def raise_once(number: int, frame: object) -> None:
        nonlocal has_come
        signal.setitimer(signal.ITIMER_REAL, 0)
        if not has_come:
            has_come = True
            raise KeyboardInterrupt

    def interrupt(number: int) -> None:
        if number == 1:
            signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)

    previous = signal.signal(signal.SIGALRM, raise_once)
    try:
        yield interrupt
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer of the kernel")
@pytest.mark.parametrize("num_searches", [1, 3])
def test_rule_5_an_interrupt_of_the_waiting_caller_frees_all(num_searches: int) -> None:
    endless = Endless()
    jobs = [endless.job() for _ in range(num_searches)]
    with interrupting_once() as interrupt:
        endless.engine.before_step = interrupt
        with pytest.raises(KeyboardInterrupt):
            run(jobs[0]) if num_searches == 1 else run_batch(jobs)
        endless.assert_freed(num_searches)


def test_rule_5_searches_of_a_batch_that_were_never_begun_are_closed_too() -> None:
    def exiting(context: Context) -> Steps[None]:
        yield from ask(roll(1, context))
        raise SystemExit("enough")

    engine = echoing()
    with pytest.raises(SystemExit):
        run_batch([job_of(engine, exiting), *[ask_numbers(engine, 1) for _ in range(3)]], max_concurrent=1)
    assert {id(context) for context in freed(engine)} == {id(context) for context in engine.opened}


def test_rule_5_news_for_a_search_that_has_ended_are_ignored() -> None:
    engine = echoing()
    flight = drivers._InFlight(ask_numbers(engine, 1), clock=Clock())
    flight.abort()
    flight.abort()
    flight.start()
    flight.on_progress(Cost(1, 1), {0: said(1)})
    assert isinstance(flight.future.exception(), Exception)
    assert engine.asked == []
    assert freed(engine) == engine.opened


def test_rule_5_a_search_that_cannot_be_closed_is_logged_and_frees_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    def stubborn(context: Context) -> Steps[None]:
        yield Round((), (EVENT,))
        with contextlib.suppress(GeneratorExit):
            yield Round((roll(FOREVER, context),))
        yield Round(())

    engine = Stepping()
    events = stream(job_of(engine, stubborn))
    assert next(events) == EVENT
    assert isinstance(events, Generator)
    events.close()
    assert len(freed(engine)) == 1
    assert engine.pending == {}
    assert "A search could not let go of what it held." in caplog.messages


def test_an_engine_whose_step_raises_fails_all_that_wait_and_the_next_search_works() -> None:
    def fail_second(number: int) -> None:
        if number == 2:
            raise MemoryError("full")

    engine = Stepping(before_step=fail_second)
    outcomes = run_batch([ask_numbers(engine, 3), ask_numbers(engine, 1, 1), ask_numbers(engine, 1)])
    assert [str(each) for each in outcomes[:2]] == ["stepping failed: MemoryError: full"] * 2
    assert [type(each) for each in outcomes] == [EngineError, EngineError, Outcome]
    assert run(ask_numbers(engine, 2)).result == "2"


# Rule 6: generators cannot be pickled, trees can


def test_rule_6_a_checkpoint_is_a_tree() -> None:
    engine = RandomGame(5).engine()
    search, job = begin(engine, SearchConfig(max_simulations=12, min_visits=12))
    with pytest.raises(TypeError, match="pickle"):
        pickle.dumps(job.steps)
    run(Job(choose(search), {search.context: engine}))

    def content(node: Node) -> Any:
        numbers = (node.prefix, node.text, node.token_set, node.depth, node.prior, node.visit_count, node.value)
        return numbers, node.effective_visits, node.num_expansions, [content(child) for child in node.children]

    restored: Tree = pickle.loads(pickle.dumps(search.tree))
    assert content(restored.root) == content(search.tree.root)
    assert restored.root.children[0].parent is restored.root


# Batches


def test_a_batch_keeps_the_order_of_its_jobs() -> None:
    engine = Stepping()
    outcomes = run_batch([ask_numbers(engine, number) for number in (5, 1, 3)])
    assert [each.result for each in outcomes if isinstance(each, Outcome)] == ["5", "1", "3"]


def test_a_batch_of_nothing_is_nothing() -> None:
    assert run_batch([]) == []


def test_a_batch_shares_the_steps_of_the_engine() -> None:
    engine = Stepping()
    run_batch([ask_numbers(engine, 2, 2) for _ in range(5)])
    assert engine.num_steps == 4


@pytest.mark.parametrize("max_concurrent", [1, 2, 5])
def test_no_more_than_max_concurrent_searches_are_under_way(max_concurrent: int) -> None:
    under_way: list[int] = []
    most = 0

    def noting(number: int) -> Callable[[Context], Steps[int]]:
        def steps(context: Context) -> Steps[int]:
            nonlocal most
            under_way.append(number)
            most = max(most, len(under_way))
            yield from asking(context, 1, 1)
            under_way.remove(number)
            if number == 1:
                raise ValueError("fails")
            return number

        return steps

    engine = echoing()
    outcomes = run_batch([job_of(engine, noting(n)) for n in range(5)], max_concurrent=max_concurrent)
    assert [each.result if isinstance(each, Outcome) else str(each) for each in outcomes] == [0, "fails", 2, 3, 4]
    assert most == max_concurrent


def test_mistakes_in_calling_are_told_at_once() -> None:
    with pytest.raises(AssertionError):
        run_batch([], max_concurrent=0)
    with pytest.raises(AssertionError, match="at least one context"):
        Job(asking(Context("none", 1)), {})


# Budgets


@pytest.mark.parametrize(
    ("budget", "cost", "seconds", "spent"),
    [
        (Budget(), Cost(10**9, 10**9), 1e9, None),
        (Budget(max_seconds=2), Cost(), 1.9, None),
        (Budget(max_seconds=2), Cost(), 2.0, "max_seconds=2 is spent after 2.000 s"),
        (Budget(max_forward_tokens=5), Cost(9, 4), 0.0, None),
        (Budget(max_forward_tokens=5), Cost(1, 6), 0.0, "max_forward_tokens=5 is spent: 6 positions"),
        (Budget(timeout=2, max_seconds=1), Cost(), 2.0, "No answer within timeout=2 s."),
    ],
)
def test_a_budget_is_spent_when_its_limit_is_reached(
    budget: Budget, cost: Cost, seconds: float, spent: str | None
) -> None:
    exceeded = budget.exceeded_by(cost, seconds)
    assert (str(exceeded) if exceeded is not None else None) == spent


def test_what_an_attempt_has_used_is_gone_from_the_budget_of_the_next() -> None:
    left = Budget(max_seconds=5, max_forward_tokens=100, timeout=9).after(Cost(3, 70), 2.0)
    assert left == Budget(max_seconds=3.0, max_forward_tokens=30, timeout=7.0)
    assert Budget(max_forward_tokens=100).after(Cost(3, 170), 2.0) == Budget(max_forward_tokens=0)


def best_so_far(*numbers: int) -> Callable[[Context], Steps[str]]:
    """Asks one after the other; returns what it has when its budget is spent."""

    def steps(context: Context) -> Steps[str]:
        so_far = ""
        with contextlib.suppress(BudgetExceededError):
            for number in numbers:
                so_far += (yield from ask(roll(number, context))).text
        return so_far

    return steps


def test_a_spent_budget_is_thrown_into_the_search_which_returns_the_best_it_has() -> None:
    engine = echoing()
    outcome = run(job_of(engine, best_so_far(1, 2, 3, 4), Budget(max_forward_tokens=3)))
    assert (outcome.result, outcome.cost) == ("12", Cost(3, 3))
    assert len(engine.asked) == 3


def test_seconds_are_counted_from_the_start_by_the_clock_that_was_given() -> None:
    clock = Clock()

    def answer(request: Any) -> TokenSet:
        clock.now += 1.0
        return said(request.prefix[0])

    engine = ScriptedEngine(rollout=answer)
    outcome = run(job_of(engine, best_so_far(1, 2, 3, 4), Budget(max_seconds=2.5)), clock=clock)
    assert (outcome.result, outcome.seconds) == ("12", 3.0)
    whole = run(job_of(engine, best_so_far(1, 2, 3, 4), Budget(max_seconds=4.5)), clock=clock)
    assert whole.result == "1234"


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(1, 40))
def test_a_budget_is_overshot_by_at_most_one_engine_step(numbers: list[int], limit: int) -> None:
    engine = Stepping()
    outcome = run(job_of(engine, best_so_far(*numbers), Budget(max_forward_tokens=limit)))
    assert outcome.cost.token_positions < limit + 3  # a step takes 3 positions
    assert outcome.cost.token_positions == min(3 * sum(numbers), 3 * -(-limit // 3))


def test_a_budget_spent_within_a_round_cancels_what_is_pending() -> None:
    engine = Stepping()

    def waiting(context: Context) -> Steps[str]:
        try:
            yield from ask_all([roll(1, context), roll(FOREVER, context)])
        except BudgetExceededError as error:
            return str(error)
        return "whole"

    outcome = run(job_of(engine, waiting, Budget(max_forward_tokens=10)))
    # 6 positions in the first step, 3 in each of the next two
    assert (outcome.result, outcome.cost) == ("max_forward_tokens=10 is spent: 12 positions", Cost(3, 12))
    assert len(freed(engine)) == 1
    assert (engine.cancelled, engine.pending) == ([1], {})


def test_a_budget_that_the_search_does_not_catch_is_raised() -> None:
    engine = echoing()
    with pytest.raises(BudgetExceededError, match="max_forward_tokens=1 is spent: 1 positions"):
        run(ask_numbers(engine, 1, 2, budget=Budget(max_forward_tokens=1)))
    assert freed(engine) == engine.opened


@pytest.mark.parametrize("asks", [True, False])
def test_a_search_that_asks_on_after_its_budget_is_spent_is_ended_and_not_answered(asks: bool) -> None:
    engine = echoing()

    def greedy(context: Context) -> Steps[None]:
        with contextlib.suppress(BudgetExceededError):
            yield from ask(roll(1, context))
        yield Round((roll(2, context),) if asks else ())

    with pytest.raises(BudgetExceededError, match="is spent: 1 positions, and the search asked on"):
        run(job_of(engine, greedy, Budget(max_forward_tokens=1)))
    assert [request.prefix for request in engine.asked if not isinstance(request, Score)] == [(1,)]
    assert freed(engine) == engine.opened


def test_a_search_that_only_talks_is_held_to_its_seconds() -> None:
    clock = Clock()

    def talking(context: Context) -> Steps[int]:
        num_rounds = 0
        with contextlib.suppress(BudgetExceededError):
            while True:
                clock.now += 1
                yield Round((), (EVENT,))
                num_rounds += 1
        return num_rounds

    assert run(job_of(echoing(), talking, Budget(max_seconds=5)), clock=clock).result == 4


def test_a_failed_request_is_told_even_if_the_budget_is_spent() -> None:
    engine = failing_at(1, EngineError("no one"))
    with pytest.raises(EngineError, match="no one"):
        run(ask_numbers(engine, 1, budget=Budget(max_forward_tokens=1)))


def test_the_budget_of_one_search_is_not_spent_by_another() -> None:
    engine = echoing()
    outcomes = run_batch(
        [
            job_of(engine, best_so_far(1, 2, 3), Budget(max_forward_tokens=2)),
            job_of(engine, best_so_far(1, 2, 3), Budget(max_forward_tokens=9)),
        ]
    )
    assert [each.result for each in outcomes if isinstance(each, Outcome)] == ["1", "123"]


# What is asked ahead


def asked_in(rounds: Sequence[tuple[Sequence[int], Sequence[int] | None]]) -> Callable[[Context], Steps[list[Any]]]:
    """A search that asks these numbers, and these ahead; returns what each round was answered, as text or None."""

    def steps(context: Context) -> Steps[list[Any]]:
        answered = []
        for requests, ahead in rounds:
            replies = yield Round(
                tuple(roll(number, context) for number in requests),
                ahead=None if ahead is None else tuple(roll(number, context) for number in ahead),
            )
            answered.append([getattr(reply, "text", reply) for reply in replies])
        return answered

    return steps


def numbers_submitted(engine: Stepping) -> list[int]:
    return [request.prefix[0] for request in engine.submitted if isinstance(request, Rollout)]


def test_a_round_that_waits_for_nothing_is_answered_at_once_with_none_for_what_is_under_way() -> None:
    def steps(context: Context) -> Steps[list[Any]]:
        answered = []
        for _ in range(1000):
            answered.append((yield Round((), (EVENT,), (roll(2, context), roll(1, context)))))
        return answered

    engine = Stepping()
    *events, outcome = stream(job_of(engine, steps))
    assert events == [EVENT] * 1000
    assert isinstance(outcome, Outcome)
    assert (outcome.result, outcome.cost) == ([[None, None]] * 1000, Cost())
    assert len(freed(engine)) == 1
    assert (numbers_submitted(engine), engine.cancelled, engine.num_steps) == ([2, 1], [0, 1], 0)


def test_replies_to_what_was_asked_ahead_come_after_those_to_the_requests_once_they_are_there() -> None:
    engine = Stepping()
    rounds: list[tuple[list[int], list[int]]] = [([1], [3, 2]), ([1], [3, 2]), ([], [3]), ([1], [3]), ([], [])]
    outcome = run(job_of(engine, asked_in(rounds)))
    # 3 and 2 are begun with the first 1; every 1 takes a step.
    assert outcome.result == [["1", None, None], ["1", None, "2"], [None], ["1", "3"], []]
    assert numbers_submitted(engine) == [1, 3, 2, 1, 1]
    assert outcome.cost == Cost(3, 3 * (3 + 3 + 2))
    assert (freed(engine), engine.cancelled) == (engine.closed, [])


def test_a_round_that_says_nothing_of_what_was_asked_ahead_leaves_it_under_way() -> None:
    engine = Stepping()
    outcome = run(job_of(engine, asked_in([([], [3]), ([1], None), ([], None), ([1], None), ([1], [3])])))
    assert outcome.result == [[None], ["1"], [], ["1"], ["1", "3"]]
    assert (engine.num_steps, engine.cancelled) == (3, [])


@pytest.mark.parametrize(
    ("between", "num_steps"),
    [
        ([], 3),  # nothing is there yet
        ([([1], None)], 3),  # it is under way
        ([([4], None)], 4),  # it is there
    ],
)
def test_what_was_asked_ahead_and_then_asked_for_is_submitted_and_answered_once(
    between: list[tuple[list[int], None]], num_steps: int
) -> None:
    engine = Stepping()
    outcome = run(job_of(engine, asked_in([([], [3]), *between, ([3], []), ([], [])])))
    assert outcome.result == [[None], *[[str(number)] for (number,), _ in between], ["3"], []]
    assert numbers_submitted(engine) == [3, *[number for (number,), _ in between]]
    assert (engine.num_steps, engine.cancelled) == (num_steps, [])


def test_what_was_answered_is_asked_anew_when_it_is_named_again() -> None:
    engine = Stepping()
    outcome = run(job_of(engine, asked_in([([2], [1]), ([2], [1]), ([1], [])])))
    assert outcome.result == [["2", "1"], ["2", "1"], ["1"]]
    assert numbers_submitted(engine) == [2, 1, 2, 1, 1]


def test_what_is_not_named_again_is_dropped() -> None:
    dropped_at: list[tuple[int, int]] = []

    class Noting(Stepping):
        def cancel(self, ticket: int) -> None:
            super().cancel(ticket)
            dropped_at.append((self.num_steps, numbers_submitted(self)[ticket]))

    engine = Noting()
    outcome = run(job_of(engine, asked_in([([1], [7, 5, 6, 3]), ([1], [5, 3]), ([1], [3]), ([1], [])])))
    assert outcome.result == [["1", None, None, None, None], ["1", None, None], ["1", "3"], ["1"]]
    assert dropped_at == [(1, 7), (1, 6), (2, 5)]


def test_a_reply_that_is_dropped_before_it_was_handed_over_is_asked_anew() -> None:
    engine = Stepping()
    # 1 is there when 2 is, but nobody has named it since.
    outcome = run(job_of(engine, asked_in([([], [1]), ([2], None), ([], []), ([1], None)])))
    assert outcome.result == [[None], ["2"], [], ["1"]]
    assert (numbers_submitted(engine), engine.cancelled) == ([1, 2, 1], [])


def test_equal_requests_of_a_round_are_asked_once_and_answered_each() -> None:
    engine = Stepping()
    outcome = run(job_of(engine, asked_in([([2, 1, 2], [1, 3, 3]), ([3, 3], None)])))
    assert outcome.result == [["2", "1", "2", "1", None, None], ["3", "3"]]
    assert numbers_submitted(engine) == [2, 1, 3]


def test_a_request_that_failed_ahead_is_told_in_its_place_and_ends_nothing() -> None:
    failure = EngineError("no seven")
    engine = failing_at(7, failure)
    outcome = run(job_of(engine, asked_in([([1], [7, 2]), ([3], [])])))
    assert outcome.result == [["1", failure, "2"], ["3"]]
    with pytest.raises(EngineError, match="no seven"):
        run(job_of(engine, asked_in([([1], [7]), ([7], [])])))


def test_what_was_asked_ahead_may_be_answered_by_another_engine_than_what_is_waited_for() -> None:
    is_judged = threading.Event()
    writer = Stepping("writer", before_step=lambda number: number < 5 or is_judged.wait(PATIENCE))
    judge = echoing("judge")
    writing, judging = writer.open("", max_tokens=1), judge.open("", max_tokens=1)

    def steps() -> Steps[list[Any]]:
        (nothing,) = yield Round((), ahead=(roll(5, writing),))
        judged = yield Round((roll(1, judging),), ahead=(roll(5, writing), roll(2, judging)))
        is_judged.set()
        (written,) = yield Round((roll(5, writing),), ahead=())
        return [nothing, judged[0].text, judged[2].text, written.text]

    outcome = run(Job(steps(), {writing: writer, judging: judge}))
    assert outcome.result == [None, "1", "2", "5"]
    assert outcome.cost == Cost(5 + 1, 5 * 3 + 2)
    assert (numbers_submitted(writer), writer.cancelled) == ([5], [])


def test_an_async_engine_is_told_what_is_dropped_while_the_search_goes_on() -> None:
    has_asked, was_cancelled = threading.Event(), threading.Event()

    async def answer(request: Any) -> Answered:
        if request.prefix == (FOREVER,):
            has_asked.set()
            try:
                await asyncio.Event().wait()
            finally:
                was_cancelled.set()
        elif request.prefix == (1,):
            assert await asyncio.to_thread(has_asked.wait, PATIENCE)
        else:
            assert await asyncio.to_thread(was_cancelled.wait, PATIENCE)
        return Answered(said(request.prefix[0]), Cost(1, 1))

    engine = Answering(answer)
    outcome = run(job_of(engine, asked_in([([1], [FOREVER]), ([2], []), ([2], None)])))
    assert (outcome.result, outcome.cost) == ([["1", None], ["2"], ["2"]], Cost(3, 3))
    assert engine.has_closed.wait(PATIENCE)


def test_a_budget_spent_by_what_was_asked_ahead_ends_the_search_like_any_other() -> None:
    engine = Stepping()

    def steps(context: Context) -> Steps[str]:
        try:
            yield Round((roll(3, context),), ahead=(roll(FOREVER, context), roll(FOREVER + 1, context)))
        except BudgetExceededError as error:
            return str(error)
        return "whole"

    outcome = run(job_of(engine, steps, Budget(max_forward_tokens=15)))
    # 9 positions a step, of which what is waited for takes 3
    assert (outcome.result, outcome.cost) == ("max_forward_tokens=15 is spent: 18 positions", Cost(2, 18))
    assert len(freed(engine)) == 1
    assert (engine.cancelled, engine.pending) == ([0, 1, 2], {})


def test_a_budget_that_only_what_was_asked_ahead_has_spent_ends_a_search_that_waits_for_another_engine() -> None:
    async def never(request: Any) -> Answered:
        await asyncio.Event().wait()
        raise AssertionError("never answered")

    writer, judge = Stepping("writer"), Answering(never, name="judge")
    writing, judging = writer.open("", max_tokens=1), judge.open("", max_tokens=1)

    def steps() -> Steps[None]:
        yield Round((roll(1, judging),), ahead=(roll(FOREVER, writing),))

    with pytest.raises(BudgetExceededError, match="max_forward_tokens=5 is spent: 6 positions"):
        run(Job(steps(), {writing: writer, judging: judge}, Budget(max_forward_tokens=5)))
    assert freed(writer) == [writing]
    assert (writer.cancelled, writer.num_steps) == ([0], 2)
    assert judge.has_closed.wait(PATIENCE)


@pytest.mark.parametrize("fails", [False, True])
def test_rule_5_what_was_asked_ahead_is_cancelled_however_a_search_ends(fails: bool) -> None:
    def steps(context: Context) -> Steps[str]:
        yield Round((roll(1, context),), ahead=(roll(FOREVER, context), roll(1, context), roll(2, context)))
        yield Round((roll(1, context),))  # 2 is there, and nobody has asked for it
        if fails:
            raise ValueError("fails")
        return "done"

    engine = Stepping()
    (outcome,) = run_batch([job_of(engine, steps)])
    assert (outcome.result if isinstance(outcome, Outcome) else str(outcome)) == ("fails" if fails else "done")
    assert len(freed(engine)) == 1
    assert (engine.cancelled, engine.pending, engine.num_steps) == ([1], {}, 2)


def test_rule_5_what_was_asked_ahead_is_cancelled_when_a_stream_is_closed_early() -> None:
    has_asked, engine = threading.Event(), Stepping()
    engine.before_step = lambda number: has_asked.set()

    def steps(context: Context) -> Steps[None]:
        yield Round((), (EVENT,), ahead=(roll(FOREVER, context),))
        yield Round((roll(FOREVER + 1, context),))

    events = stream(job_of(engine, steps))
    assert next(events) == EVENT
    assert has_asked.wait(PATIENCE)
    assert isinstance(events, Generator)
    events.close()
    assert len(freed(engine)) == 1
    assert (sorted(engine.cancelled), engine.pending) == ([0, 1], {})


def test_what_is_asked_ahead_about_a_context_of_another_search_is_refused() -> None:
    engine = Stepping()
    foreign, own = engine.open("", max_tokens=1), engine.open("", max_tokens=1)

    def steps() -> Steps[None]:
        yield Round((), ahead=(roll(2, own),))
        yield Round((roll(1, own),), ahead=(roll(2, own), roll(1, foreign)))

    with pytest.raises(EngineError, match="names a context that is not of this search"):
        run(Job(steps(), {own: engine}))
    assert freed(engine) == [own]
    assert (numbers_submitted(engine), engine.cancelled) == ([2], [0])


# What else can go wrong ends one search, and hangs nobody


def test_a_clock_that_fails_ends_the_search() -> None:
    times = iter([0.0])
    with pytest.raises(StopIteration):
        run(ask_numbers(echoing(), 1), clock=lambda: next(times))


def test_a_cost_that_cannot_be_added_ends_the_search() -> None:
    async def answer(request: Any) -> Answered:
        cost: Any = "much"
        return Answered(said(1), cost)

    with pytest.raises((TypeError, AttributeError)):
        run(ask_numbers(Answering(answer), 1))


def test_the_last_events_come_with_the_result() -> None:
    class Result:
        events = (OTHER,)

    def steps(context: Context) -> Steps[Result]:
        yield Round((roll(1, context),), (EVENT,))
        return Result()

    first, second, outcome = stream(job_of(echoing(), steps))
    assert (first, second) == (EVENT, OTHER)
    assert isinstance(outcome, Outcome)


def test_a_stream_raises_after_the_events_that_came_before() -> None:
    def failing(context: Context) -> Steps[None]:
        yield Round((roll(1, context),), (EVENT,))
        raise ValueError("fails")

    events = stream(job_of(echoing(), failing))
    assert next(events) == EVENT
    with pytest.raises(ValueError, match="fails"):
        next(events)


async def test_an_async_stream_raises_after_the_events_that_came_before() -> None:
    def failing(context: Context) -> Steps[None]:
        yield Round((roll(1, context),), (EVENT,))
        raise ValueError("fails")

    events = astream(job_of(echoing(), failing))
    assert await anext(events) == EVENT
    with pytest.raises(ValueError, match="fails"):
        await anext(events)


def test_an_async_stream_whose_loop_is_gone_lets_the_search_end() -> None:
    go_on = threading.Event()

    def answer(request: Any) -> TokenSet:
        assert go_on.wait(PATIENCE)
        return said(1)

    def steps(context: Context) -> Steps[None]:
        yield Round((roll(1, context),), (EVENT,))
        yield Round((), (OTHER,))
        has_ended.set()

    has_ended = threading.Event()
    engine = ScriptedEngine(rollout=answer)
    loop = asyncio.new_event_loop()
    events = astream(job_of(engine, steps))
    assert isinstance(events, AsyncGenerator)
    assert loop.run_until_complete(anext(events)) == EVENT
    loop.close()
    go_on.set()
    assert freed(engine) == engine.opened
    assert has_ended.is_set()
    with pytest.raises(StopIteration):  # closed by hand, as there is no loop to do it
        events.aclose().__await__().send(None)


def test_replies_ahead_that_came_with_a_failure_are_not_lost() -> None:
    def careful(context: Context) -> Steps[list[str]]:
        with contextlib.suppress(EngineError):
            yield Round((roll(7, context),), ahead=(roll(2, context),))
        return [reply.text for reply in (yield Round((roll(3, context),), ahead=(roll(2, context),)))]

    engine = failing_at(7, EngineError("no seven"))
    assert run(job_of(engine, careful)).result == ["3", "2"]
    assert [request.prefix[0] for request in engine.asked] == [7, 2, 3]  # type: ignore[union-attr]


def test_a_reply_that_was_given_up_meanwhile_is_not_kept() -> None:
    def steps(context: Context) -> Steps[list[str]]:
        yield Round((roll(1, context),), ahead=(roll(FOREVER, context),))
        replies = yield Round((roll(2, context),), ahead=())
        return [reply.text for reply in replies]

    kept: list[dict[int, Any]] = []

    def deliver(step: int) -> None:
        if step == 2:  # the owner of another engine is faster than the cancellation
            flight.on_progress(Cost(), {1: said(FOREVER)})
            kept.append(dict(flight._replies))

    flight = drivers._InFlight(job_of(Stepping("late", before_step=deliver), steps), clock=Clock())
    flight.launch()
    assert flight.future.result(PATIENCE).result == ["2"]
    assert kept == [{}]


# Who looks on


class Noting:
    """An observer that notes what it hears, and raises if it is told to."""

    def __init__(self, raises: Exception | None = None) -> None:
        self.heard: list[tuple[Any, ...]] = []
        self._raises = raises

    def on_round(self, asked: Round, new: Any, at: float) -> None:
        self._note("round", asked.events, {number: request.prefix[0] for number, request in new.items()}, at)

    def on_replies(self, replies: Any, at: float) -> None:
        self._note("replies", sorted(replies), at)

    def on_end(self, end: Any, cost: Cost, at: float) -> None:
        self._note("end", end.result if isinstance(end, Outcome) else type(end).__name__, cost, at)

    def _note(self, *heard: Any) -> None:
        self.heard.append(heard)
        if self._raises is not None:
            raise self._raises


def test_an_observer_hears_of_rounds_replies_and_the_end_at_the_times_of_the_clock() -> None:
    clock, noting = Clock(), Noting()

    def tick(step: int) -> None:
        clock.now += 2.5

    def steps(context: Context) -> Steps[str]:
        yield Round((roll(1, context),), (EVENT,), ahead=(roll(2, context),))  # the second takes two steps
        yield Round((roll(2, context), roll(1, context)), (OTHER,))
        return "done"

    job = replace(job_of(Stepping(before_step=tick), steps), observer=noting)
    outcome = run(job, clock=clock)
    assert noting.heard == [
        ("round", (EVENT,), {0: 1, 1: 2}, 100.0),
        ("replies", [0], 102.5),
        ("round", (OTHER,), {2: 1}, 102.5),  # what was asked ahead is under way
        ("replies", [1, 2], 105.0),
        ("end", "done", outcome.cost, 105.0),
    ]


@pytest.mark.parametrize("fails", [False, True])
def test_an_observer_that_fails_changes_nothing_and_is_logged(fails: bool, caplog: pytest.LogCaptureFixture) -> None:
    noting = Noting(raises=ValueError("nobody at home"))
    engine = failing_at(2 if fails else 0, EngineError("no two"))
    (outcome,) = run_batch([replace(ask_numbers(engine, 1, 2), observer=noting)])
    assert (str(outcome) if fails else outcome.result if isinstance(outcome, Outcome) else None) == (
        "no two" if fails else "1 2"
    )
    assert [heard[0] for heard in noting.heard] == ["round", "replies", "round", "replies", "end"]
    assert caplog.messages == ["An observer of a search failed."] * 5
    assert freed(engine) == engine.opened


def test_an_observer_hears_how_a_search_failed_and_what_it_had_cost() -> None:
    noting = Noting()
    with pytest.raises(EngineError):
        run(replace(ask_numbers(failing_at(2, EngineError("no two")), 1, 2), observer=noting), clock=Clock())
    assert noting.heard[-1] == ("end", "EngineError", Cost(2, 2), 100.0)


def test_an_observer_hears_of_a_stream_that_is_left() -> None:
    noting, endless = Noting(), Endless()
    events = stream(replace(endless.job(), observer=noting))
    assert next(events) == EVENT
    assert endless.has_asked.wait(PATIENCE)
    assert isinstance(events, Generator)
    events.close()
    assert [heard[0] for heard in noting.heard if heard[0] != "replies"] == ["round", "round", "end"]
    assert noting.heard[-1][1] == "CancelledError"


def test_an_observer_hears_of_a_search_that_was_never_begun() -> None:
    noting = Noting()
    flight = drivers._InFlight(replace(ask_numbers(echoing(), 1), observer=noting), clock=Clock())
    flight.abort()
    assert noting.heard == [("end", "CancelledError", Cost(), 100.0)]
