"""A guarded agent that another one calls as a tool: nothing of its drafts gets into the outer run."""

from typing import Any
from uuid import UUID

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.types import Command

from tests.agents.test_approvals import ONCE, decisions
from tests.agents.worlds import (
    ASKED,
    MARK,
    WAYS,
    WRITERS,
    Done,
    World,
    assert_nothing_rejected_is_in,
    assert_state_is_clean,
    calling,
    dislikes_marked_answers,
    rain,
    run,
    tools,
)
from tests.conformance.listening import CHILDREN, Ear, kept_by
from tests.fake_chat_models import in_turn

pytestmark = pytest.mark.filterwarnings("ignore:The v3 streaming protocol:langchain_core._api.LangChainBetaWarning")

BAD = calling(("write", MARK), text=f"I write {MARK}.", number=9)
DELEGATES = AIMessage("", tool_calls=[{"name": "delegate", "args": {"task": "Tidy."}, "id": "call_delegate"}])
INNER = [BAD, calling(("read", "a"), ("write", "b"), number=1), AIMessage(f"Inner {MARK}."), AIMessage("Tidied up.")]
OUTER = [AIMessage(f"Outer {MARK}."), DELEGATES, AIMessage(f"Outer {MARK}."), AIMessage("All done.")]


def nested(done: Done, kind: str, *answers: AIMessage, **arguments: Any) -> Any:
    """A tool that has a guarded agent do its work."""
    agent: Any = create_agent(WRITERS[kind](reply=in_turn(*answers)), tools(done), middleware=[rain(**arguments)])

    @tool
    def delegate(task: str) -> str:
        """Have somebody else do it."""
        given = {"messages": [HumanMessage(task)]}
        return str(agent.invoke(given)["messages"][-1].text)

    async def adelegate(task: str) -> str:
        given = {"messages": [HumanMessage(task)]}
        return str((await agent.ainvoke(given))["messages"][-1].text)

    delegate.coroutine = adelegate
    return delegate


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("way", WAYS)
def test_no_draft_of_either_agent_is_in_the_outer_run(way: str, kind: str) -> None:
    done: Done = []
    world = World(*OUTER, kind=kind, agent={"tools": [nested(done, kind, *INNER)]})
    out = world.hear(way)
    assert_nothing_rejected_is_in(out)
    assert_nothing_rejected_is_in(kept_by(world.agent, world.config))
    assert_state_is_clean(world.state.values)
    assert sorted(done) == [("read", "a"), ("write", "b")]
    assert [str(each.text) for each in world.messages[1:]] == ["", "Tidied up.", "All done."]


@pytest.mark.parametrize("mode", ["messages", "updates", "values", "custom"])
def test_a_stream_with_the_graphs_inside_shows_no_draft(mode: str) -> None:
    done: Done = []
    world = World(*OUTER, kind="streamed", agent={"tools": [nested(done, "streamed", *INNER)]})
    given = {"messages": [HumanMessage(ASKED)]}
    heard = list(world.agent.stream(given, world.config, stream_mode=mode, subgraphs=True))
    assert_nothing_rejected_is_in(heard)
    assert mode == "custom" or any(namespace for namespace, _ in heard)


class Tree(Ear):
    """Hears which run is below which."""

    def __init__(self) -> None:
        super().__init__()
        self.parents: dict[UUID, UUID | None] = {}

    def on_chain_start(self, serialized: Any, inputs: Any, **told: Any) -> None:
        self.parents[told["run_id"]] = told["parent_run_id"]
        super().on_chain_start(serialized, inputs, **told)

    def on_tool_start(self, serialized: Any, input_str: str, **told: Any) -> None:
        self.parents[told["run_id"]] = told["parent_run_id"]
        super().on_tool_start(serialized, input_str, **told)

    def on_chat_model_start(self, serialized: Any, messages: Any, **told: Any) -> None:
        self.parents[told["run_id"]] = told["parent_run_id"]
        super().on_chat_model_start(serialized, messages, **told)


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream messages"])
def test_all_runs_are_below_the_outer_one_and_drafts_below_their_model(way: str) -> None:
    done: Done = []
    heard = Tree()
    world = World(*OUTER, kind="streamed", agent={"tools": [nested(done, "streamed", *INNER)]})
    config: RunnableConfig = {**world.config, "callbacks": [heard]}
    run(way, world.agent, {"messages": [HumanMessage(ASKED)]}, config)
    roots = {run_id for run_id, parent in heard.parents.items() if parent is None}
    assert len(roots) == 1
    assert {name for name, *_ in heard.trace} <= CHILDREN
    assert len(heard.tops) == 4  # two turns of each
    assert {parent for _, _, parent, _ in heard.trace} <= set(heard.tops)
    assert_nothing_rejected_is_in(heard.heard)


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_a_human_is_asked_from_inside_and_the_outer_run_goes_on(way: str) -> None:
    done: Done = []
    inner = [calling(("write", MARK), number=1), AIMessage("Tidied up.")]
    asks: dict[str, Any] = {"on_unsatisfied": "ask", "config": ONCE, "judge": dislikes_marked_answers}
    world = World(*OUTER[1:2], OUTER[3], agent={"tools": [nested(done, "whole", *inner, **asks)]})
    world.hear(way)
    (interrupt,) = world.state.interrupts
    assert [each["args"] for each in interrupt.value["action_requests"]] == [{"path": MARK}]
    run(way, world.agent, Command(resume={interrupt.id: decisions("approve").resume}), world.config)
    assert done == [("write", MARK)]
    assert world.messages[-1].text == "All done."
    assert_state_is_clean(world.state.values)
