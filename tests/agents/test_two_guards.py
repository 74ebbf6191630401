"""Two guards in one agent, or one around a model that is guarded already: none takes the place of another."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.messages import AIMessage

from langchain_rain import ChatRain, PatternCriterion, RainConfigError, Rubric
from tests.agents.worlds import (
    BAD,
    DONE,
    GOOD,
    MARK,
    QUICK,
    REFUSAL,
    SHOWN,
    World,
    assert_nothing_rejected_is_in,
    assert_state_is_clean,
    beside,
    calling,
    dislikes_marks,
    either_side,
    rain,
)
from tests.conformance.worlds import is_judgement
from tests.fake_chat_models import FakeChat, in_turn, letter_judge
from tests.tiny_models import UNTRIED

pytestmark = pytest.mark.filterwarnings("ignore:The v3 streaming protocol:langchain_core._api.LangChainBetaWarning")


def without(path: str) -> Rubric:
    name = path.strip("/")
    return Rubric(name=name, criteria=(PatternCriterion(name=name, must_not_match=path),))


@either_side
@pytest.mark.parametrize("way", SHOWN)
def test_of_two_guards_both_judge_text_and_calls(way: str, *, is_first: bool) -> None:
    def judge(text: str) -> float:
        return -1.0 if "grumble" in text else 1.0

    other = rain(name="other", judge=judge, tool_rubric=without("/usr/"))
    rejected = [("write", "/etc/"), ("write", "/usr/")]
    calls = [calling(each, number=number) for number, each in enumerate(rejected)]
    world = World(
        *calls,
        GOOD,
        AIMessage("I grumble."),
        AIMessage(MARK),
        DONE,
        kind="streamed",
        tool_rubric=without("/etc/"),
        middleware=beside(other, is_first=is_first),
    )
    assert_nothing_rejected_is_in(world.hear(way), ["/etc/", "/usr/", "grumble", MARK])
    assert_state_is_clean(world.state.values)
    assert world.done == [("write", "a")]
    assert world.num_drafts == 6
    assert world.state.values.keys() >= {"messages"}


@either_side
def test_the_second_guard_loads_its_judge_once(*, is_first: bool) -> None:
    judge = FakeChat(reply=lambda messages, given: AIMessage("A"))
    other = rain(name="other", judge=judge, tool_rubric=None)
    reads = [calling(("read", "a"), number=number) for number in range(12)]
    world = World(*reads, DONE, middleware=beside(other, is_first=is_first))
    world.ask()
    (_, guarded, _), *more = other._guarded
    assert more == []
    assert len({id(each) for each in guarded.loaded.engines.values()}) == 2  # a writer and the judge


@pytest.mark.parametrize("judge", [letter_judge, lambda: dislikes_marks], ids=["model", "function"])
def test_a_second_guard_without_a_judge_of_its_own_has_the_judge_of_the_first(judge: Callable[[], Any]) -> None:
    other = rain(name="other", judge=None, tool_rubric=without("/usr/"))
    world = World(
        calling(("write", "/usr/"), number=2), GOOD, DONE, judge=judge(), middleware=beside(other, is_first=True)
    )
    world.ask()
    assert world.done == [("write", "a")]
    assert_state_is_clean(world.state.values)
    assert not any(is_judgement(messages) for messages, _ in world.writer.asked)


@either_side
def test_two_guards_that_both_go_back_leave_a_state_to_go_on_from(*, is_first: bool) -> None:
    def judge(text: str) -> float:
        return -1.0 if "other-poison" in text else 1.0

    other = rain(name="other", judge=judge, tool_rubric=None, max_rewind_steps=2, is_reversible={"read": True})
    world = World(
        calling(("read", "a"), ("read", "b"), number=1),
        DONE,
        says={"a": MARK, "b": "other-poison"},
        max_rewind_steps=2,
        is_reversible={"read": True},
        middleware=beside(other, is_first=is_first),
    )
    out = world.ask()
    assert_state_is_clean(out, rejected=[])
    assert out["messages"][-1].text == REFUSAL  # of two in one turn the second may not go back


def test_a_chat_rain_with_a_tool_rubric_of_its_own_keeps_it() -> None:
    writer = FakeChat(reply=in_turn(calling(("write", "/etc/"), number=1), GOOD, DONE))
    chat = ChatRain(model=writer, judge=lambda text: 1.0, rubric=UNTRIED, tool_rubric=without("/etc/"), config=QUICK)
    world = World(agent={"model": chat}, tool_rubric=None)
    world.ask()
    assert world.done == [("write", "a")]
    with pytest.raises(RainConfigError, match="tool_rubric: the agent's ChatRain has one of its own"):
        World(agent={"model": chat}, tool_rubric=without("/usr/")).ask()


def test_one_guard_serves_agents_in_many_threads() -> None:
    guard = rain()
    worlds = [World(BAD, GOOD, BAD, DONE, middleware=lambda own: [guard]) for _ in range(8)]
    threads = [threading.Thread(target=world.ask) for world in worlds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for world in worlds:
        assert_state_is_clean(world.state.values)
        assert (world.done, world.num_drafts) == ([("write", "a")], 4)
