"""A human decides on calls that did not satisfy: on what was shown, from what was kept, whoever goes on with it."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from langchain.agents.middleware import wrap_model_call
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.types import Command

from langchain_rain import RainConfigError
from tests.agents.worlds import (
    ASKED,
    DONE,
    MARK,
    QUICK,
    REFUSAL,
    SHOWN,
    World,
    assert_nothing_rejected_is_in,
    assert_state_is_clean,
    calling,
    dislikes_marked_answers,
    run,
)

pytestmark = pytest.mark.filterwarnings("ignore:The v3 streaming protocol:langchain_core._api.LangChainBetaWarning")

ONCE = QUICK.model_copy(update={"max_simulations": 1})
OTHER = f"{MARK}-other"
MIXED = calling(("write", MARK), ("read", "a"), ("write", OTHER), text="I tidy up.", number=1)
GO_ON = None
"""Goes on with a run that was stopped between two steps."""


def asking(*answers: AIMessage, **arguments: Any) -> World:
    return World(*answers, **{"on_unsatisfied": "ask", "config": ONCE, "judge": dislikes_marked_answers, **arguments})


def decisions(*kinds: str) -> Command[Any]:
    return Command(resume={"decisions": [{"type": kind} for kind in kinds]})


def shown(world: World) -> list[tuple[str, Any]]:
    """The calls that the open interrupt asks about."""
    (interrupt,) = world.state.interrupts
    return [(each["name"], each["args"]) for each in interrupt.value["action_requests"]]


# --- Deciding ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", SHOWN)
@pytest.mark.parametrize(
    ("kinds", "done"),
    [
        (["approve", "approve"], [("read", "a"), ("write", MARK), ("write", OTHER)]),
        (["approve", "reject"], [("read", "a"), ("write", MARK)]),
        (["reject", "approve"], [("read", "a"), ("write", OTHER)]),
        (["reject", "reject"], []),
    ],
)
def test_what_runs_is_what_was_approved_and_what_satisfied_beside_it(
    way: str, kinds: list[str], done: list[tuple[str, str]]
) -> None:
    world = asking(MIXED, DONE)
    world.hear(way)
    assert shown(world) == [("write", {"path": MARK}), ("write", {"path": OTHER})]
    assert_state_is_clean(world.state.values)
    assert (world.num_drafts, world.done) == (1, [])
    run(way, world.agent, decisions(*kinds), world.config)
    assert sorted(world.done) == done
    assert world.state.next == ()
    assert_state_is_clean(world.state.values, rejected=[])
    assert world.messages[-1].text == (DONE.text if done else REFUSAL)
    assert world.num_drafts == (2 if done else 1)  # nothing is drawn again
    assert world.state.values["rain"]["RainMiddleware"]["pending"] is None


@pytest.mark.parametrize("way", SHOWN)
def test_until_somebody_approves_a_call_only_the_interrupt_shows_it(way: str) -> None:
    world = asking(MIXED, DONE, kind="streamed")
    heard = world.hear(way)
    if way.endswith(("messages", "custom")):
        assert_nothing_rejected_is_in(heard)
    assert_nothing_rejected_is_in(world.messages)
    run(way, world.agent, decisions("reject", "reject"), world.config)
    assert MARK not in repr(world.state.values)


def test_the_approved_call_is_the_one_that_was_shown_though_the_model_would_now_make_another() -> None:
    world = asking(calling(("write", MARK), number=1), DONE)
    world.ask()
    world.answers = [calling(("write", OTHER), number=2), DONE]
    world.ask(decisions("approve"))
    assert world.done == [("write", MARK)]


@pytest.mark.parametrize(
    "answer",
    [
        "approve",
        3,
        [],
        {"decisions": []},
        {"decisions": "approve"},
        {"decisions": [{"type": "approve"}]},
        {"decisions": [{"type": "approve"}] * 3},
        {"decisions": [{"type": "approve"}, {"type": "edit"}]},
        {"decisions": [{"type": "approve"}, {"type": ["approve"]}]},
        {"decisions": [{"type": "approve"}, "reject"]},
        {"decisions": {"type": "approve"}},
    ],
    ids=str,
)
@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_an_answer_that_is_no_decision_is_named_and_the_interrupt_can_be_answered_again(
    way: str, answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    world = asking(MIXED, DONE)
    world.ask()
    (before,) = world.state.interrupts
    for num_errors in (1, 2):
        run(way, world.agent, Command(resume=answer), world.config)
        (after,) = world.state.interrupts
        description = after.value["action_requests"][0]["description"]
        assert 'Not understood: decisions: 2 of {"type": "approve"} or {"type": "reject"} are wanted' in description
        assert repr(answer)[:200] in description
        assert after.id != before.id
        assert sum("The interrupt is open again" in each for each in caplog.messages) >= num_errors
    assert world.done == []
    run(way, world.agent, decisions("reject", "approve"), world.config)
    assert sorted(world.done) == [("read", "a"), ("write", OTHER)]
    assert_state_is_clean(world.state.values, rejected=[])


def test_a_run_that_is_resumed_twice_runs_its_calls_once() -> None:
    world = asking(calling(("write", MARK), number=1), DONE)
    world.ask()
    first = world.ask(decisions("approve"))
    assert world.ask(decisions("approve")) == first
    assert world.done == [("write", MARK)]


def test_whoever_asks_something_else_instead_of_deciding_has_dropped_the_calls() -> None:
    world = asking(calling(("write", MARK), number=1), DONE)
    world.ask()
    out = world.ask("Never mind. What else?")
    assert (out["messages"][-1].text, world.state.next, world.done) == (DONE.text, (), [])
    assert_state_is_clean(out)
    assert MARK not in repr(world.state.values)


def test_calls_that_were_dropped_are_not_asked_about_though_other_middleware_answers_the_next_question() -> None:
    is_away: list[bool] = []

    @wrap_model_call
    def answers_itself(request: Any, handler: Any) -> Any:
        return AIMessage("Come back later.") if is_away else handler(request)

    bad = calling(("write", MARK), number=1)
    world = asking(bad, middleware=lambda guard: [answers_itself, guard])
    assert "__interrupt__" in world.ask()
    is_away.append(True)
    out = world.ask("What else?")
    assert "__interrupt__" not in out
    assert [str(each.text) for each in out["messages"]][1:] == [REFUSAL, "What else?", "Come back later."]
    assert_state_is_clean(out)


def test_a_branch_of_an_earlier_checkpoint_is_asked_about_anew_and_draws_nothing_again() -> None:
    world = asking(calling(("write", MARK), number=1), DONE)
    world.ask()
    waiting = world.state.config
    world.ask(decisions("reject"))
    assert world.done == []
    branch = world.agent.update_state(waiting, {"messages": []}, as_node="model")
    world.agent.invoke(GO_ON, branch)
    assert shown(world) == [("write", {"path": MARK})]
    assert world.num_drafts == 1
    out = world.ask(decisions("approve"))
    assert world.done == [("write", MARK)]
    assert_state_is_clean(out, rejected=[])


def test_each_run_is_asked_about_its_own_calls() -> None:
    world = asking(calling(("write", MARK), number=1), DONE, calling(("write", OTHER), number=2), DONE)
    for path in (MARK, OTHER):
        world.ask(f"Please, {path == MARK}.")
        assert shown(world) == [("write", {"path": path})]
        world.ask(decisions("approve"))
    assert world.done == [("write", MARK), ("write", OTHER)]
    assert_state_is_clean(world.state.values, rejected=[])


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_without_a_checkpointer_nobody_can_be_asked(way: str) -> None:
    world = asking(DONE, agent={"checkpointer": None})
    with pytest.raises(RainConfigError, match=r"on_unsatisfied='ask' .*give create_agent\(checkpointer=...\)"):
        world.hear(way)


# --- In a file ---------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints.sqlite"


@contextmanager
def kept_in(file: Path | str, *answers: AIMessage) -> Iterator[World]:
    """An agent made anew, on a connection of its own."""
    with SqliteSaver.from_conn_string(str(file)) as saver:
        yield asking(*answers, agent={"checkpointer": saver})


def test_another_agent_on_another_connection_goes_on_with_what_was_shown(file: Path) -> None:
    with kept_in(file, MIXED, DONE) as world:
        world.ask()
        before = shown(world)
    with kept_in(file, DONE) as world:
        assert shown(world) == before
        out = world.ask(decisions("approve", "reject"))
        assert sorted(world.done) == [("read", "a"), ("write", MARK)]
        assert world.num_drafts == 1  # that after the results
        assert_state_is_clean(out, rejected=[])


async def test_it_goes_on_asynchronously_too(file: Path) -> None:
    def agent(saver: AsyncSqliteSaver, *answers: AIMessage) -> World:
        return asking(*answers, agent={"checkpointer": saver})

    async with AsyncSqliteSaver.from_conn_string(str(file)) as saver:
        world = agent(saver, MIXED, DONE)
        await world.agent.ainvoke({"messages": [HumanMessage(ASKED)]}, world.config)
    async with AsyncSqliteSaver.from_conn_string(str(file)) as saver:
        world = agent(saver, DONE)
        out = await world.agent.ainvoke(decisions("reject", "approve"), world.config)
        assert sorted(world.done) == [("read", "a"), ("write", OTHER)]
        assert_state_is_clean(out, rejected=[])


RESUMING = """
import sys
from langgraph.types import Command
from tests.agents.test_approvals import decisions, kept_in
from tests.agents.worlds import DONE, assert_state_is_clean
with kept_in(sys.argv[1], DONE) as world:
    out = world.ask(decisions("approve", "reject"))
    assert_state_is_clean(out, rejected=[])
    print(sorted(world.done), world.num_drafts, out["messages"][-1].text)
"""


def test_another_process_goes_on_with_what_was_shown(file: Path) -> None:
    with kept_in(file, MIXED, DONE) as world:
        world.ask()
    command = [sys.executable, "-W", "error", "-c", RESUMING, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert done.stdout == f"[('read', 'a'), ('write', '{MARK}')] 1 All done.\n"


def test_rewinding_is_kept_in_a_file_and_its_budget_holds_after_a_restart(file: Path) -> None:
    poison = {"says": {"a": MARK, "b": MARK}, "max_rewind_steps": 1, "on_unsatisfied": "refuse"}
    first, second = calling(("read", "a"), number=1), calling(("read", "b"), number=2)
    with SqliteSaver.from_conn_string(str(file)) as saver:
        kept: dict[str, Any] = {**poison, "agent": {"checkpointer": saver, "interrupt_before": ["tools"]}}
        world = World(first, second, DONE, **kept)
        world.ask()
        world.ask(GO_ON)
        assert world.state.values["rain"]["RainMiddleware"]["num_steps"] == 1
        assert_state_is_clean(world.state.values, is_open=True)
        world = World(DONE, **kept)
        out = world.ask(GO_ON)
        assert out["messages"][-1].text == REFUSAL  # the budget was spent before
        assert world.done == [("read", "b")]
        assert_state_is_clean(out, rejected=[])
