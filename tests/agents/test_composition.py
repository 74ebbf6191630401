"""Other middleware beside the guard, before it and after it: the guard stays on, and each does what it is for."""

from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents.middleware import (
    HumanInTheLoopMiddleware,
    ModelFallbackMiddleware,
    ModelRetryMiddleware,
    PIIMiddleware,
    SummarizationMiddleware,
)
from langchain.agents.middleware.types import AgentMiddleware, ModelResponse, hook_config
from langchain_core.messages import AIMessage, HumanMessage

from langchain_rain import EngineError, PatternCriterion, RainConfigError, Rubric, UnsatisfiedError
from langchain_rain.middleware import MAX_GUARDED
from tests.agents.test_approvals import ONCE, decisions
from tests.agents.test_rewinding import withheld_of
from tests.agents.worlds import (
    BAD,
    DONE,
    GOOD,
    MARK,
    QUICK,
    REFUSAL,
    SHOWN,
    StreamingFakeChat,
    World,
    assert_nothing_rejected_is_in,
    assert_state_is_clean,
    beside,
    calling,
    dislikes_marked_answers,
    dislikes_marks,
    either_side,
    run,
)
from tests.fake_chat_models import FakeChat, in_turn

pytestmark = pytest.mark.filterwarnings("ignore:The v3 streaming protocol:langchain_core._api.LangChainBetaWarning")

# --- LangChain's own ---------------------------------------------------------------------------------------------


@either_side
@pytest.mark.parametrize("way", SHOWN)
def test_what_is_redacted_is_seen_by_neither_model_nor_judge_and_the_guard_stays_on(
    way: str, *, is_first: bool
) -> None:
    judged: list[str] = []

    def judge(text: str) -> float:
        judged.append(text)
        return dislikes_marks(text)

    pii = PIIMiddleware("email", apply_to_input=True, apply_to_tool_results=True)
    world = World(
        BAD,
        calling(("read", "a"), number=1),
        DONE,
        kind="streamed",
        judge=judge,
        says={"a": "From bob@example.org."},
        middleware=beside(pii, is_first=is_first),
        max_rewind_steps=1,
    )
    given = {"messages": [HumanMessage("I am ann@example.org.")]}
    assert_nothing_rejected_is_in(run(way, world.agent, given, world.config))
    assert_state_is_clean(world.state.values, rejected=[MARK, "@example.org"])
    assert "@example.org" not in repr((judged, world.writer.asked))
    assert sum("[REDACTED_EMAIL]" in text for text in judged) == len(judged)
    assert world.done == [("read", "a")]


@either_side
def test_an_answer_is_redacted_after_the_guard_has_judged_it_in_the_state_and_not_in_the_stream(
    *, is_first: bool
) -> None:
    """As without a guard: what is to be redacted from a stream belongs into a rubric, whose drafts are no stream."""
    pii = PIIMiddleware("email", apply_to_input=False, apply_to_output=True)
    world = World(AIMessage("Ask bob@example.org."), middleware=beside(pii, is_first=is_first))
    streamed = world.hear("stream messages")
    assert "bob@example.org" in repr(streamed)
    assert world.messages[-1].text == "Ask [REDACTED_EMAIL]."
    rubric = Rubric(name="pii", criteria=(PatternCriterion(name="pii", must_not_match=r"\S+@\S+"),))
    answers = [AIMessage("Ask bob@example.org."), DONE]
    world = World(*answers, rubric=rubric, judge=None, middleware=beside(pii, is_first=is_first))
    assert "bob@example.org" not in repr(world.hear("stream messages"))


@either_side
@pytest.mark.parametrize("kind", ["approve", "reject"])
def test_a_human_in_the_loop_is_asked_once_about_a_call_that_satisfies(kind: str, *, is_first: bool) -> None:
    human = HumanInTheLoopMiddleware(interrupt_on={"write": True})
    world = World(BAD, GOOD, DONE, middleware=beside(human, is_first=is_first))
    world.ask()
    (interrupt,) = world.state.interrupts
    assert [each["args"] for each in interrupt.value["action_requests"]] == [{"path": "a"}]
    out = world.ask(decisions(kind))
    assert world.state.interrupts == ()
    assert world.done == ([("write", "a")] if kind == "approve" else [])
    assert_state_is_clean(out)
    assert_nothing_rejected_is_in(out)


@pytest.mark.parametrize(("is_first", "num_questions"), [(True, 1), (False, 2)], ids=["guard first", "guard last"])
def test_what_a_human_has_approved_for_the_guard_is_asked_again_only_by_one_before_it(
    num_questions: int, *, is_first: bool
) -> None:
    human = HumanInTheLoopMiddleware(interrupt_on={"write": True})
    world = World(
        calling(("write", MARK), number=1),
        DONE,
        on_unsatisfied="ask",
        config=ONCE,
        judge=dislikes_marked_answers,
        middleware=beside(human, is_first=is_first),
    )
    world.ask()
    asked = 0
    while world.state.interrupts:
        asked += 1
        world.ask(decisions("approve"))
    assert asked == num_questions
    assert world.done == [("write", MARK)]
    assert_state_is_clean(world.state.values, rejected=[])


RETRY: dict[str, Any] = {"max_retries": 2, "initial_delay": 0.0, "jitter": False}


@either_side
@pytest.mark.parametrize("way", SHOWN)
def test_a_retry_after_a_failure_shows_no_draft_and_nothing_twice(way: str, *, is_first: bool) -> None:
    num_failed = 0

    def judge(text: str) -> float:
        nonlocal num_failed
        if "All done" in text and num_failed < 2:
            num_failed += 1
            raise ConnectionError("away")
        return dislikes_marks(text)

    retry = ModelRetryMiddleware(**RETRY, retry_on=(EngineError,))
    world = World(BAD, GOOD, BAD, DONE, kind="streamed", judge=judge, middleware=beside(retry, is_first=is_first))
    out = world.hear(way)
    assert_nothing_rejected_is_in(out)
    assert_state_is_clean(world.state.values)
    assert (num_failed, world.done) == (2, [("write", "a")])
    assert [str(each.text) for each in world.messages if isinstance(each, AIMessage)] == ["", "All done."]
    if way.endswith("messages"):
        assert sum("done" in str(chunk.text) for chunk, _ in out) == 1


@pytest.mark.parametrize("way", SHOWN)
def test_a_retry_of_refused_turns_shows_none_of_them(way: str) -> None:
    retry = ModelRetryMiddleware(**RETRY, retry_on=(UnsatisfiedError,))
    world = World(
        *[BAD] * (2 * QUICK.max_simulations), DONE, on_unsatisfied="raise", middleware=beside(retry, is_first=False)
    )
    assert_nothing_rejected_is_in(world.hear(way))
    assert world.num_drafts == 2 * QUICK.max_simulations + 1
    assert_state_is_clean(world.state.values)


def test_a_retry_that_gives_up_outside_of_the_guard_says_nothing_that_was_rejected() -> None:
    retry = ModelRetryMiddleware(**RETRY)
    world = World(BAD, on_unsatisfied="raise", middleware=beside(retry, is_first=False))
    out = world.ask()
    assert "Model call failed after 3 attempts with UnsatisfiedError" in out["messages"][-1].text
    assert_state_is_clean(out)
    assert world.num_drafts == 3 * QUICK.max_simulations


def summarising(trigger: int, keep: int) -> SummarizationMiddleware:
    summarizer = FakeChat(reply=lambda messages, given: AIMessage("They tidy up."))
    return SummarizationMiddleware(summarizer, trigger=("messages", trigger), keep=("messages", keep))


@either_side
@pytest.mark.parametrize("way", SHOWN)
def test_a_summary_of_the_conversation_leaves_the_guard_on_and_the_state_clean(way: str, *, is_first: bool) -> None:
    script = [message for number in range(4) for message in (BAD, calling(("read", f"f{number}"), number=number))]
    world = World(*script, BAD, DONE, kind="streamed", middleware=beside(summarising(4, 2), is_first=is_first))
    assert_nothing_rejected_is_in(world.hear(way))
    assert_state_is_clean(world.state.values)
    assert world.done == [("read", f"f{number}") for number in range(4)]
    assert "They tidy up." in world.messages[0].text
    assert len(world.messages) < 6


@either_side
@pytest.mark.parametrize("max_steps", [1, 2, 3])
def test_a_budget_is_not_renewed_by_a_summary_that_swallows_the_human_message(
    max_steps: int, *, is_first: bool
) -> None:
    reads = [calling(("read", f"f{number}"), number=number) for number in range(9)]
    world = World(
        *reads,
        DONE,
        says={f"f{number}": MARK for number in range(9)},
        max_rewind_steps=max_steps,
        middleware=beside(summarising(4, 2), is_first=is_first),
    )
    out = world.ask()
    assert out["messages"][-1].text == REFUSAL
    assert len(world.done) == max_steps + 1
    assert_state_is_clean(out, rejected=[])
    second = world.ask("And now?")  # has a budget of its own
    assert len(world.done) == 2 * (max_steps + 1)
    assert second["messages"][-1].text == REFUSAL


@either_side
def test_what_a_tool_said_last_is_judged_before_it_can_be_summarised(*, is_first: bool) -> None:
    world = World(
        *[calling(("read", path), number=number) for number, path in enumerate("abc")],
        DONE,
        says={"c": MARK},
        max_rewind_steps=2,
        middleware=beside(summarising(4, 1), is_first=is_first),
    )
    out = world.ask()
    assert withheld_of(out["messages"]) == ["call_2_0_c"]
    assert_state_is_clean(out)


# --- Of the user's own -------------------------------------------------------------------------------------------


class Another(AgentMiddleware[Any, Any, Any]):
    """Has another model answer, made anew for each turn or not."""

    def __init__(self, make: Callable[[], Any]) -> None:
        super().__init__()
        self.make = make

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        return handler(request.override(model=self.make()).override(tool_choice=None))

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        return await handler(request.override(model=self.make()).override(tool_choice=None))


@either_side
@pytest.mark.parametrize("way", SHOWN)
def test_another_model_is_guarded_like_the_first(way: str, *, is_first: bool) -> None:
    other = StreamingFakeChat(reply=in_turn(BAD, GOOD, BAD, DONE))
    world = World(AIMessage(MARK), middleware=beside(Another(lambda: other), is_first=is_first))
    assert_nothing_rejected_is_in(world.hear(way))
    assert_state_is_clean(world.state.values)
    assert (world.done, world.num_drafts, len(other.asked)) == ([("write", "a")], 0, 4)


@either_side
def test_a_model_made_anew_for_each_turn_is_guarded_and_not_kept_for_ever(*, is_first: bool) -> None:
    reply = in_turn(
        *[message for number in range(20) for message in (BAD, calling(("read", "a"), number=number))], DONE
    )
    world = World(DONE, middleware=beside(Another(lambda: FakeChat(reply=reply)), is_first=is_first))
    assert_state_is_clean(world.ask())
    assert world.done == [("read", "a")] * 20
    assert len(world.guard._guarded) <= MAX_GUARDED


@either_side
def test_a_fallback_is_guarded_too(*, is_first: bool) -> None:
    def fails(messages: Any, given: Any) -> AIMessage:
        raise ConnectionError("away")

    fallback = StreamingFakeChat(reply=in_turn(BAD, GOOD, BAD, DONE))
    world = World(reply=fails, middleware=beside(ModelFallbackMiddleware(fallback), is_first=is_first))
    assert_nothing_rejected_is_in(world.hear("stream messages"))
    assert_state_is_clean(world.state.values)
    assert (world.done, len(fallback.asked)) == ([("write", "a")], 4)


class Varying(AgentMiddleware[Any, Any, Any]):
    """Has the same model answer, but otherwise."""

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        request = request.override(model=request.model)
        return handler(request.override(model=request.model.model_copy(update={"disable_streaming": True})))


@either_side
def test_a_copy_of_the_guarded_model_is_not_guarded_twice(*, is_first: bool) -> None:
    world = World(BAD, middleware=beside(Varying(), is_first=is_first))
    assert world.ask()["messages"][-1].text == REFUSAL
    assert world.num_drafts == QUICK.max_simulations


class Answering(AgentMiddleware[Any, Any, Any]):
    """Answers by itself, or by a model of its own."""

    def __init__(self, answer: Callable[[Any], Any]) -> None:
        super().__init__()
        self.answer = answer

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        return self.answer(request)


@pytest.mark.parametrize(
    "answer",
    [
        lambda request: GOOD,
        lambda request: ModelResponse(result=[BAD]),
        lambda request: ModelResponse(result=[]),
        lambda request: FakeChat(reply=in_turn(BAD)).invoke(request.messages),
    ],
)
def test_an_answer_past_the_guard_is_an_error_that_says_what_to_do(answer: Callable[[Any], Any]) -> None:
    world = World(DONE, middleware=beside(Answering(answer), is_first=True))
    with pytest.raises(RainConfigError, match="put RainMiddleware last in the list of middleware") as raised:
        world.ask()
    assert MARK not in str(raised.value)
    assert world.done == []


class AsksAgain(AgentMiddleware[Any, Any, Any]):
    """Goes back to the model once when it has refused."""

    num_jumps = 0

    @hook_config(can_jump_to=["model"])
    def after_model(self, state: Any, runtime: Any) -> Any:
        if state["messages"][-1].text != REFUSAL or self.num_jumps:
            return None
        self.num_jumps += 1
        return {"jump_to": "model", "messages": [HumanMessage("Please, do it otherwise.")]}


@either_side
@pytest.mark.parametrize("way", SHOWN)
def test_a_jump_back_to_the_model_shows_no_draft(way: str, *, is_first: bool) -> None:
    drafts = [BAD] * QUICK.max_simulations
    world = World(*drafts, BAD, DONE, kind="streamed", middleware=beside(AsksAgain(), is_first=is_first))
    assert_nothing_rejected_is_in(world.hear(way))
    assert_state_is_clean(world.state.values)
    assert [str(each.text).strip() for each in world.messages[1:]] == [REFUSAL, "Please, do it otherwise.", "All done."]
    assert world.done == []
