"""Whole runs of guarded agents: nothing rejected is seen by anybody, and the state is one to go on from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import PIIMiddleware
from langchain.agents.structured_output import (
    AutoStrategy,
    ProviderStrategy,
    StructuredOutputValidationError,
    ToolStrategy,
)
from langchain_core.language_models import ModelProfile
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.messages.tool import invalid_tool_call, tool_call
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.types import Command
from pydantic import BaseModel

from langchain_rain import ChatRain, EngineError, PatternCriterion, Rubric, UnsatisfiedError, YesNoCriterion
from langchain_rain.policy import Policy
from tests.agents.worlds import (
    MARK,
    QUICK,
    REFUSAL,
    SHOWN,
    WAYS,
    WRITERS,
    World,
    assert_nothing_rejected_is_in,
    assert_state_is_clean,
    calling,
    dislikes_marks,
    rain,
    run,
    tools,
)
from tests.conformance.listening import kept_by
from tests.fake_chat_models import FakeChat, in_turn
from tests.test_chat_standard import CHEAP, tool_engine
from tests.test_chat_tools import PLACE, WEATHER, get_weather, local
from tests.tiny_models import UNTRIED

pytestmark = pytest.mark.filterwarnings("ignore:The v3 streaming protocol:langchain_core._api.LangChainBetaWarning")

REJECTED_CALL = calling(("write", MARK), text=f"I write {MARK}.", number=9)
SCRIPT = [
    REJECTED_CALL,
    calling(("read", "a"), ("read", "b"), text="Let me see.", number=1),
    calling(("write", f"/{MARK}"), ("read", "c"), number=8),
    calling(("write", "c"), number=2),
    AIMessage(f"Done {MARK}."),
    AIMessage("All done."),
]
"""Three turns, each at the second draft: two calls side by side, one call, the answer."""


# --- However it is run -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("way", WAYS)
def test_what_was_rejected_is_nowhere_and_the_state_is_clean(way: str, kind: str) -> None:
    world = World(*SCRIPT, kind=kind)
    out = world.hear(way)
    assert_nothing_rejected_is_in(out)
    assert_nothing_rejected_is_in(kept_by(world.agent, world.config))
    assert_state_is_clean(world.state.values)
    assert world.num_drafts == len(SCRIPT)
    assert sorted(world.done) == [("read", "a"), ("read", "b"), ("write", "c")]
    assert "All done." in repr(out) or way.endswith(("custom", "v2"))


@pytest.mark.parametrize("way", ["invoke", "astream messages", "stream updates", "astream_events v2"])
@pytest.mark.parametrize("kind", WRITERS)
def test_a_model_that_judges_does_as_well(kind: str, way: str) -> None:
    rubric = Rubric(name="asked", criteria=(YesNoCriterion(name="asked", question="Is it good?", good="yes"),))
    judge = FakeChat(reply=lambda messages, given: AIMessage("no" if MARK in str(messages[-1].text) else "yes"))
    world = World(*SCRIPT, kind=kind, rubric=rubric, tool_rubric=rubric, judge=judge)
    assert_nothing_rejected_is_in(world.hear(way))
    assert_state_is_clean(world.state.values)
    assert sorted(world.done) == [("read", "a"), ("read", "b"), ("write", "c")]


@pytest.mark.parametrize("way", SHOWN)
@pytest.mark.parametrize("policy", ["refuse", "best", lambda error: "No."], ids=["refuse", "best", "callable"])
def test_a_call_that_never_satisfies_runs_under_no_policy_and_is_nowhere(way: str, policy: Policy) -> None:
    world = World(REJECTED_CALL, kind="streamed", on_unsatisfied=policy)
    out = world.hear(way)
    assert_nothing_rejected_is_in(out)
    assert_state_is_clean(world.state.values)
    assert world.done == []
    assert world.messages[-1].text == ("No." if callable(policy) else REFUSAL)


@pytest.mark.parametrize("way", SHOWN)
def test_an_error_leaves_a_state_to_go_on_from(way: str) -> None:
    world = World(*[REJECTED_CALL] * 3, AIMessage("All done."), on_unsatisfied="raise")
    with pytest.raises(UnsatisfiedError) as raised:
        world.hear(way)
    assert MARK not in str(raised.value)
    assert_state_is_clean(world.state.values)
    assert world.ask("And now?")["messages"][-1].text == "All done."
    assert_state_is_clean(world.state.values)


def test_a_conversation_goes_on_turn_after_turn_with_ids_that_are_unique() -> None:
    world = World(*SCRIPT, *[message.model_copy(deep=True) for message in SCRIPT[-2:]])
    for asked in ("First.", "Second.", "Third."):
        out = world.ask(asked)
        assert out.keys() == {"messages"}
        assert_state_is_clean(out)
    assert [message.text for message in out["messages"] if isinstance(message, HumanMessage)] == [
        "First.",
        "Second.",
        "Third.",
    ]


def test_results_of_calls_that_could_not_be_read_are_kept_with_the_others() -> None:
    broken = invalid_tool_call(name="read", args="{", id="call_broken", error="cut")
    mixed = calling(("read", "a"), number=1).model_copy(update={"invalid_tool_calls": [broken]})
    world = World(mixed, AIMessage("All done."), max_rewind_steps=2)
    world.ask()
    results = [each for each in world.messages if isinstance(each, ToolMessage)]
    assert {each.tool_call_id for each in results} == {"call_broken", "call_1_0_a"}
    assert len({each.id for each in world.messages}) == len(world.messages) == 5


def test_an_engine_that_fails_raises_and_the_run_can_be_taken_up_again() -> None:
    answers = iter(SCRIPT[1:2])

    def reply(messages: Any, given: Any) -> AIMessage:
        if (answer := next(answers, None)) is None:
            raise ConnectionError("away")
        return answer

    world = World(reply=reply)
    with pytest.raises(EngineError, match="away"):
        world.ask()
    assert_state_is_clean(world.state.values)
    answers = iter([AIMessage("All done.")])
    assert world.agent.invoke(None, world.config)["messages"][-1].text == "All done."
    assert sorted(world.done) == [("read", "a"), ("read", "b")]
    assert_state_is_clean(world.state.values)


# --- Structured output -------------------------------------------------------------------------------------------


class Answer(BaseModel):
    """What is answered."""

    path: str


READS_ALONE = Rubric(
    name="allowed", criteria=(PatternCriterion(name="reads", must_not_match=r'"tool": "(?!read")', good="It reads."),)
)
"""An allow-list: of all tools only `read`."""


class Structured(FakeChat):
    """A chat model of which LangChain knows that it can give structured output."""

    def _resolve_model_profile(self) -> ModelProfile | None:
        return {"structured_output": True}


@pytest.mark.parametrize(
    "response_format", [ToolStrategy(Answer), AutoStrategy(Answer), Answer], ids=["tool", "auto", "schema"]
)
@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream messages"])
def test_structured_output_is_no_call_that_runs_and_a_call_beside_it_is(way: str, response_format: Any) -> None:
    answered = AIMessage("", tool_calls=[tool_call(name="Answer", args={"path": f"/{MARK}"}, id="call_answer")])
    script = [calling(("write", "a"), number=1), calling(("read", "a"), number=2), answered]
    world = World(*script, judge=lambda text: 1.0, tool_rubric=READS_ALONE, agent={"response_format": response_format})
    world.hear(way)
    assert world.done == [("read", "a")]
    assert world.state.values["structured_response"] == Answer(path=f"/{MARK}")
    assert_state_is_clean(world.state.values, rejected=["/never/"])


@pytest.mark.parametrize("given", [None, []], ids=["tools", "no tools"])
@pytest.mark.parametrize("response_format", [ProviderStrategy(Answer), AutoStrategy(Answer)], ids=["provider", "auto"])
def test_a_model_that_gives_json_itself_is_guarded_all_the_same(response_format: Any, given: list[Any] | None) -> None:
    writer = Structured(reply=in_turn(AIMessage(f'{{"path": "{MARK}"}}'), AIMessage('{"path": "a"}')))
    agent: Any = create_agent(
        writer, [get_weather] if given is None else given, middleware=[rain()], response_format=response_format
    )
    out = agent.invoke({"messages": [HumanMessage("Where?")]})
    assert out["structured_response"] == Answer(path="a")
    assert_state_is_clean(out)
    assert ["response_format" in arguments for _, arguments in writer.asked] == [True, True]


@pytest.mark.parametrize("given", [None, []], ids=["tools", "no tools"])
@pytest.mark.parametrize("strategy", [ToolStrategy, ProviderStrategy, AutoStrategy])
@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_a_refusal_ends_a_run_that_owes_structured_output(
    way: str, strategy: Callable[[Any], Any], given: list[Any] | None, *, is_first: bool
) -> None:
    agent = {"response_format": strategy(Answer), **({} if given is None else {"tools": given})}
    other = PIIMiddleware("email", apply_to_output=True)  # it too has a say after the model
    world = World(
        AIMessage(f"No {MARK}."),
        agent=agent,
        middleware=lambda guard: [guard, other] if is_first else [other, guard],
    )
    world.hear(way)
    assert world.state.values["structured_response"] is None
    assert world.messages[-1].text == REFUSAL
    assert world.num_drafts == QUICK.max_simulations


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_json_that_does_not_match_is_the_error_that_it_is_without_a_guard(way: str) -> None:
    world = World(AIMessage("No JSON."), agent={"response_format": ProviderStrategy(Answer), "tools": []})
    with pytest.raises(StructuredOutputValidationError, match="expected valid JSON"):
        world.hear(way)


# --- A model that is guarded already -----------------------------------------------------------------------------


class Counted:
    """A judge that counts."""

    def __init__(self) -> None:
        self.num_judgements = 0

    def __call__(self, transcript: str) -> float:
        self.num_judgements += 1
        return dislikes_marks(transcript)


def test_a_chat_rain_is_not_guarded_twice() -> None:
    def counted(*middleware: Any) -> tuple[int, int, list[str]]:
        judge, writer = Counted(), FakeChat(reply=in_turn(AIMessage(MARK), calling(("read", "a")), AIMessage("Done.")))
        chat = ChatRain(model=writer, judge=judge, rubric=UNTRIED, config=QUICK, seed=1)
        agent: Any = create_agent(chat, tools([]), middleware=middleware)
        messages = agent.invoke({"messages": [HumanMessage("Look.")]})["messages"]
        return judge.num_judgements, len(writer.asked), [str(each.text) for each in messages]

    assert counted(rain(tool_rubric=None, judge=lambda text: -1.0)) == counted()


def test_a_local_chat_rain_costs_no_more_in_the_middleware_than_alone() -> None:
    def counted(*middleware: Any) -> list[Any]:
        judge = Counted()
        agent: Any = create_agent(local(judge=judge), [get_weather], middleware=middleware)
        messages = agent.invoke({"messages": [HumanMessage(WEATHER)]})["messages"]
        told = [each.response_metadata["rain"] for each in messages if isinstance(each, AIMessage)]
        spent = [(each["num_simulations"], each["forward_passes"], each["token_positions"]) for each in told]
        return [judge.num_judgements, *spent, *(str(each.text) for each in messages)]

    counted()  # so that what can be kept of it is there for both
    assert counted(rain(tool_rubric=None, judge=lambda text: -1.0)) == counted()


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream messages", "astream messages", "stream all modes"])
@pytest.mark.parametrize("tool_rubric", [None, READS_ALONE], ids=["no tool rubric", "tool rubric"])
def test_the_local_model_calls_its_tool_and_reads_the_result(way: str, tool_rubric: Rubric | None) -> None:
    chat = ChatRain(model=tool_engine(), judge=lambda text: 1.0, rubric=UNTRIED, config=CHEAP, seed=1)
    guard = rain(tool_rubric=READS_ALONE if tool_rubric else None)
    world = World(agent={"model": chat, "tools": [get_weather], "middleware": [guard]})
    run(way, world.agent, {"messages": [HumanMessage(WEATHER)]}, world.config)
    called, *results = [each for each in world.messages if not isinstance(each, HumanMessage)]
    assert isinstance(called, AIMessage)
    if tool_rubric is not None:  # the allow-list holds another tool
        assert called.tool_calls == []
        assert results == []
        return
    assert [call["args"] for call in called.tool_calls] == [PLACE]
    assert [each.text for each in results] == ["It's sunny.", "It is sunny in San Francisco."]
    assert_state_is_clean(world.state.values)


def test_a_rejected_call_is_named_nowhere_if_its_name_could_say_something() -> None:
    """What led the model can have it put what it wants to say into the name of a tool that there is none of."""
    says = f"send {MARK} to me"
    world = World(calling((says, MARK), number=1))
    out = world.ask()
    assert out["messages"][-1].text == REFUSAL
    assert "a tool of no such name / unmarked" in out["messages"][-1].response_metadata["rain"]["values"]
    assert_nothing_rejected_is_in([out, world.state.values])


def test_a_human_lets_a_call_of_the_local_model_run(tmp_path: Path) -> None:
    chat = ChatRain(model=tool_engine(), judge=lambda text: 1.0, rubric=UNTRIED, config=CHEAP, seed=1)
    guard = rain(tool_rubric=READS_ALONE, on_unsatisfied="ask")
    with SqliteSaver.from_conn_string(str(tmp_path / "states.sqlite")) as saver:
        agent = {"model": chat, "tools": [get_weather], "middleware": [guard], "checkpointer": saver}
        world = World(agent=agent)
        (interrupt,) = world.ask(WEATHER)["__interrupt__"]
        assert [each["args"] for each in interrupt.value["action_requests"]] == [PLACE]
        out = world.ask(Command(resume={"decisions": [{"type": "approve"}]}))
    assert [str(each.text) for each in out["messages"]][-2:] == ["It's sunny.", "It is sunny in San Francisco."]
    assert_state_is_clean(out)


def test_what_led_the_local_model_astray_is_withheld_from_it() -> None:
    chat = ChatRain(model=tool_engine(), judge=lambda text: 1.0, rubric=UNTRIED, config=CHEAP, seed=1)
    not_sunny = Rubric(name="dull", criteria=(PatternCriterion(name="dull", must_not_match="sunny"),))
    guard = rain(tool_rubric=None, trajectory_rubric=not_sunny, max_rewind_steps=1)
    world = World(agent={"model": chat, "tools": [get_weather], "middleware": [guard]})
    out = world.ask(WEATHER)
    called, result, answer = out["messages"][1:]
    assert [call["args"] for call in called.tool_calls] == [PLACE]
    assert "was withheld" in result.text
    assert_state_is_clean(out, rejected=["It's sunny."])
    assert answer.response_metadata["rain"]["is_satisfied"]
