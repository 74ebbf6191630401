"""Spans of OpenTelemetry: one tree for each answer, however it was asked for and however it ended; never a draft."""

import asyncio
import copy
import json
import pickle
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from typing import Any

import opentelemetry.semconv._incubating.attributes.gen_ai_attributes as conventions
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.trace import StatusCode

from langchain_rain import ChatRain, Criterion, RainConfig, RainConfigError, RainLLM, Rubric
from langchain_rain.drivers import run
from langchain_rain.engines.calling import Calls
from langchain_rain.errors import EngineError, UnsatisfiedError
from langchain_rain.search.protocol import Expand, Rollout, Score, TokenSet
from langchain_rain.telemetry import Telemetry
from langchain_rain.telemetry.reporting import CONTENT_VARIABLE
from tests.fake_chat_models import FakeChat, in_turn, letter_judge
from tests.recorded_telemetry import Recorded, attributes_of, texts_of
from tests.scripted_world import (
    CONFIG,
    CRASHING_PROMPT,
    END,
    POISON,
    PROMPT,
    REFUSAL,
    RUBRIC,
    WARM,
    WARM_SOUP,
    Kitchen,
    is_poison,
    kitchen_llm,
)

GOOD: Any = ("rain.judgement", 1.0, [])
BAD: Any = ("rain.judgement", -1.0, [])
SIMULATED: Any = ("rain.simulation", 1.0, [GOOD])
COMMITTED: Any = ("rain.commit", 1.0, [])

# Of " Warm" and " Boil" the first is good at once, of " the bleach" and " the soup" the second.
SOUP_TREE = (
    "rain.search",
    1.0,
    [SIMULATED, COMMITTED, ("rain.simulation", -1.0, [BAD]), SIMULATED, COMMITTED, SIMULATED, COMMITTED],
)


def values(recorded: Recorded) -> list[Any]:
    """Trees of names and values."""
    return recorded.trees("rain.value")


# One search


class SlowKitchen(Kitchen):
    """Takes a second for each word and a quarter for each question, by a clock of its own."""

    def __init__(self, *courses: Sequence[str], **arguments: Any) -> None:
        super().__init__(*courses, **arguments)
        self.now = 100.0

    def _offer(self, request: Expand) -> Any:
        self.now += 1
        return super()._offer(request)

    def _judge(self, request: Score) -> Any:
        self.now += 0.25
        return super()._judge(request)


def test_one_search_is_one_tree_of_spans_with_the_times_of_the_drivers_clock() -> None:
    recorded, engine = Recorded(), SlowKitchen()
    answer = kitchen_llm(engine, telemetry=recorded.telemetry).begin(PROMPT, PROMPT, None, calls=Calls())
    run(answer.job, clock=lambda: engine.now)

    def simulated(value: float, began: float, judged: float, ended: float) -> Any:
        return ("rain.simulation", value, (began, ended), [("rain.judgement", value, (judged, ended), [])])

    # A word is offered in one step of the engine, both orders of a question are answered in another. After a bad soup
    # the next one is there already; the end was judged when it was simulated.
    (tree,) = recorded.trees("rain.value", has_times=True)
    assert tree == (
        "rain.search",
        1.0,
        (0.0, 5.0),
        [
            simulated(1.0, 0.0, 1.0, 1.5),
            ("rain.commit", 1.0, (1.5, 1.5), []),
            simulated(-1.0, 1.5, 2.5, 3.0),
            simulated(1.0, 3.0, 3.0, 3.5),
            ("rain.commit", 1.0, (3.5, 3.5), []),
            simulated(1.0, 3.5, 4.5, 5.0),
            ("rain.commit", 1.0, (5.0, 5.0), []),
        ],
    )


def test_the_span_of_a_search_says_what_the_answer_says_of_itself() -> None:
    recorded = Recorded()
    llm = kitchen_llm(telemetry=recorded.telemetry)
    ((generation,),) = llm.generate([PROMPT]).generations
    info = generation.generation_info
    assert info is not None
    attributes = dict(attributes_of(recorded.search))
    told = {name: value for name, value in info["rain"].items() if name not in ("rubric", "seed", "values", "bypass")}
    assert {name: attributes.pop(f"rain.{name}") for name in told if name != "num_tokens"} == {
        name: value for name, value in told.items() if name != "num_tokens"
    }
    assert attributes == {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "rain",
        "gen_ai.request.model": "kitchen",
        "gen_ai.request.max_tokens": 256,
        "gen_ai.request.seed": 1,
        "gen_ai.request.temperature": 1.0,
        "gen_ai.response.finish_reasons": (info["finish_reason"],),
        "gen_ai.usage.input_tokens": 6,
        "gen_ai.usage.output_tokens": 11,
        "rain.action": "give",
        "rain.judge.model": "kitchen",
        "rain.rubric.hash": RUBRIC.content_hash,
        "rain.rubric.name": "edible",
        "rain.values.edible": 1.0,
    }
    assert recorded.search.status.status_code is StatusCode.UNSET


def test_names_are_those_of_the_semantic_conventions() -> None:
    recorded = Recorded(captures_content=True)
    kitchen_llm(telemetry=recorded.telemetry).invoke(PROMPT)
    used = {name for span in recorded.spans for name in attributes_of(span)}
    known = {value for name, value in vars(conventions).items() if name.startswith("GEN_AI_")}
    assert {name for name in used if not name.startswith("rain.")} <= known
    assert conventions.GEN_AI_SYSTEM not in used


def test_what_is_accepted_by_a_judgement_of_its_own_is_judged_within_the_commit() -> None:
    may_veto = Criterion(name="edible", instruction="Is it?", good="YES", bad="NO", veto=True)
    recorded = Recorded()
    llm = kitchen_llm(
        Kitchen(WARM, END), rubric=Rubric(name="edible", criteria=(may_veto,)), telemetry=recorded.telemetry
    )
    llm.invoke(PROMPT)
    # Without a rollout what is accepted is what was simulated, so nothing is judged twice.
    assert values(recorded) == [("rain.search", 1.0, [SIMULATED, COMMITTED, SIMULATED, COMMITTED])]


class ChattyKitchen(Kitchen):
    """Writes on behind each word, so that what is accepted was not judged as it stands."""

    def _roll_out(self, request: Rollout) -> TokenSet:
        return TokenSet((9,), f" and so on {len(request.prefix)}")


def test_what_nothing_came_of_is_judged_within_the_search() -> None:
    may_veto = Criterion(name="edible", instruction="Is it?", good="YES", bad="NO", veto=True)
    recorded = Recorded()
    engine = ChattyKitchen([" soup", " stew"], END, is_bad=lambda question: " soup\n" in question)
    config = CONFIG.model_copy(update={"max_simulations": 1, "min_further_simulations": 1})
    rubric = Rubric(name="edible", criteria=(may_veto,))
    kitchen_llm(engine, rubric=rubric, config=config, telemetry=recorded.telemetry).invoke(PROMPT)
    (tree,) = values(recorded)
    # " soup and so on" was good, " soup" is vetoed, " stew" is accepted as it stands.
    assert tree == ("rain.search", 1.0, [SIMULATED, ("rain.commit", 0.0, [GOOD]), BAD, SIMULATED, COMMITTED])


def test_simulations_at_several_leaves_at_once_have_each_its_own_judgement() -> None:
    recorded = Recorded()
    config = CONFIG.model_copy(update={"num_parallel_leaves": 2})
    kitchen_llm(Kitchen([" the bleach", " the soup"], END), config=config, telemetry=recorded.telemetry).invoke(PROMPT)
    bad = ("rain.simulation", -1.0, [BAD])
    assert values(recorded) == [("rain.search", 1.0, [bad, SIMULATED, COMMITTED, SIMULATED, COMMITTED])]


# However it is asked for


def answered_by_invoke(llm: RainLLM) -> None:
    assert llm.invoke(PROMPT) == WARM_SOUP


def answered_by_batch(llm: RainLLM) -> None:
    assert llm.batch([PROMPT]) == [WARM_SOUP]


def answered_by_stream(llm: RainLLM) -> None:
    assert "".join(llm.stream(PROMPT)) == WARM_SOUP


def answered_by_ainvoke(llm: RainLLM) -> None:
    assert asyncio.run(llm.ainvoke(PROMPT)) == WARM_SOUP


def answered_by_abatch(llm: RainLLM) -> None:
    assert asyncio.run(llm.abatch([PROMPT], return_exceptions=True)) == [WARM_SOUP]


def answered_by_astream(llm: RainLLM) -> None:
    async def whole() -> str:
        return "".join([chunk async for chunk in llm.astream(PROMPT)])

    assert asyncio.run(whole()) == WARM_SOUP


@pytest.mark.parametrize(
    "answered",
    [
        answered_by_invoke,
        answered_by_batch,
        answered_by_stream,
        answered_by_ainvoke,
        answered_by_abatch,
        answered_by_astream,
    ],
)
def test_the_tree_is_the_same_however_an_answer_is_asked_for(answered: Callable[[RainLLM], None]) -> None:
    recorded = Recorded()
    with recorded.tracer_provider.get_tracer("user").start_as_current_span("request") as request:
        answered(kitchen_llm(telemetry=recorded.telemetry))
    assert values(recorded) == [("request", [SOUP_TREE])]
    assert {span.context.trace_id for span in recorded.spans if span.context} == {request.get_span_context().trace_id}


NUM_AT_ONCE = 6


class Restaurant(Kitchen):
    """Offers as many bad soups before the good one as the prompt has words."""

    def _offer(self, request: Expand) -> Any:
        bad = [f" lye {number}" for number in range(request.context.num_prompt_tokens)]
        self._courses = ([*bad, " soup"], END)
        return super()._offer(request)


RESTAURANT_CONFIG = CONFIG.model_copy(update={"max_simulations": 20, "min_further_simulations": 20, "num_children": 10})


def restaurant(recorded: Recorded) -> RainLLM:
    return kitchen_llm(Restaurant(), config=RESTAURANT_CONFIG, telemetry=recorded.telemetry)


def ordered_alone(number: int) -> Any:
    """The tree of one request, with nobody else in the restaurant."""
    recorded = Recorded()
    restaurant(recorded).invoke("word " * number)
    (tree,) = values(recorded)
    return (f"request {number}", [tree])


def assert_not_mixed(recorded: Recorded) -> None:
    trees = [ordered_alone(number) for number in range(1, NUM_AT_ONCE)]
    assert sorted(map(repr, values(recorded))) == sorted(map(repr, trees))
    assert len({repr(tree[1]) for tree in trees}) == len(trees)  # else a mix could not be told


def test_searches_of_threads_never_mix_their_spans() -> None:
    recorded = Recorded()
    llm = restaurant(recorded)

    def ask(number: int) -> None:
        with recorded.tracer_provider.get_tracer("user").start_as_current_span(f"request {number}"):
            llm.invoke("word " * number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(1, NUM_AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert_not_mixed(recorded)


async def test_searches_of_tasks_never_mix_their_spans() -> None:
    recorded = Recorded()
    llm = restaurant(recorded)

    async def ask(number: int) -> None:
        with recorded.tracer_provider.get_tracer("user").start_as_current_span(f"request {number}"):
            await llm.ainvoke("word " * number)

    await asyncio.gather(*map(ask, range(1, NUM_AT_ONCE)))
    assert_not_mixed(recorded)


def test_a_batch_has_a_tree_for_each_answer() -> None:
    recorded = Recorded()
    kitchen_llm(telemetry=recorded.telemetry).batch([PROMPT, PROMPT, PROMPT])
    assert values(recorded) == [SOUP_TREE] * 3


class InnerChat(BaseChatModel):
    """A chat model that reports spans of its own, as instrumented ones do."""

    tracer: Any

    @property
    def _llm_type(self) -> str:
        return "inner"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with self.tracer.start_as_current_span("chat inner"):
            return ChatResult(generations=[ChatGeneration(message=AIMessage("Soup."))])


@pytest.mark.parametrize("is_async", [False, True])
def test_what_a_chat_model_inside_reports_is_below_the_search(is_async: bool) -> None:
    recorded = Recorded()
    model = InnerChat(tracer=recorded.tracer_provider.get_tracer("inner"))
    chat = ChatRain(model=model, judge=lambda transcript: 1.0, rubric=RUBRIC, telemetry=recorded.telemetry)
    assert (asyncio.run(chat.ainvoke("Supper?")) if is_async else chat.invoke("Supper?")).text == "Soup."
    assert recorded.trees() == [
        (
            "rain.search",
            [("chat inner", []), ("rain.simulation", [("rain.judgement", [])]), ("rain.commit", [])],
        )
    ]
    assert trace.get_current_span() is trace.INVALID_SPAN


@pytest.mark.parametrize("over_a_chat_model", [False, True])
def test_usage_is_that_of_the_message(over_a_chat_model: bool) -> None:
    recorded = Recorded()
    writer: Any = (
        FakeChat(reply=in_turn(AIMessage("Bleach."), AIMessage("The soup."))) if over_a_chat_model else Kitchen()
    )
    judge = letter_judge(lambda question: is_poison(question.lower())) if over_a_chat_model else None
    config = CONFIG.model_copy(update={"max_simulations": 5})
    chat = ChatRain(model=writer, judge=judge, rubric=RUBRIC, config=config, telemetry=recorded.telemetry)
    usage = chat.invoke("Supper?").usage_metadata
    assert usage is not None
    attributes = attributes_of(recorded.search)
    assert attributes["gen_ai.operation.name"] == "chat"
    told = (attributes["gen_ai.usage.input_tokens"], attributes["gen_ai.usage.output_tokens"])
    assert told == (usage["input_tokens"], usage["output_tokens"])
    assert ("gen_ai.request.max_tokens" in attributes) is not over_a_chat_model


# However it ends


def test_an_answer_that_is_refused_says_so_and_not_what_it_was() -> None:
    recorded = Recorded(captures_content=True)
    assert kitchen_llm(Kitchen(WARM, POISON, END), telemetry=recorded.telemetry).invoke(PROMPT).endswith(REFUSAL)
    attributes = attributes_of(recorded.search)
    assert attributes["rain.action"] == "refuse"
    assert attributes["rain.is_satisfied"] is False
    assert attributes["gen_ai.response.finish_reasons"] == ("unsatisfied",)
    (given,) = json.loads(str(attributes["gen_ai.output.messages"]))
    assert given == {
        "role": "assistant",
        "parts": [{"type": "text", "content": f" Warm\n{REFUSAL}"}],
        "finish_reason": "unsatisfied",
    }
    assert not any(poison.strip() in texts_of(recorded) for poison in POISON)


@pytest.mark.parametrize(("policy", "action"), [("best", "best"), (lambda error: "Ask a cook.", "callable")])
def test_an_answer_that_a_policy_lets_out_is_marked(policy: Any, action: str) -> None:
    recorded = Recorded()
    kitchen_llm(Kitchen(WARM, POISON, END), on_unsatisfied=policy, telemetry=recorded.telemetry).invoke(PROMPT)
    attributes = attributes_of(recorded.search)
    assert (attributes["rain.action"], attributes["rain.bypass"]) == (action, f"on_unsatisfied={action}")


def test_an_answer_that_is_raised_shows_nothing_of_it() -> None:
    recorded = Recorded(captures_content=True)
    llm = kitchen_llm(Kitchen(WARM, POISON, END), on_unsatisfied="raise", telemetry=recorded.telemetry)
    with pytest.raises(UnsatisfiedError):
        llm.invoke(PROMPT)
    attributes = attributes_of(recorded.search)
    assert (attributes["rain.action"], attributes["gen_ai.output.messages"]) == ("raise", "[]")
    assert recorded.search.status.status_code is StatusCode.UNSET  # the search did what it is for


def test_a_spent_budget_is_why_a_search_ended() -> None:
    recorded = Recorded()
    kitchen_llm(max_forward_tokens=5, telemetry=recorded.telemetry).invoke(PROMPT)
    assert attributes_of(recorded.search)["rain.stop_reason"] == "budget"


@pytest.mark.parametrize("answered", [answered_by_invoke, answered_by_astream])
def test_an_engine_that_fails_is_an_error_without_its_words(answered: Callable[[RainLLM], None]) -> None:
    recorded = Recorded()
    with pytest.raises(EngineError, match="The stove is cold"):
        answered(kitchen_llm(Kitchen(num_failures=1), telemetry=recorded.telemetry))
    status, attributes = recorded.search.status, attributes_of(recorded.search)
    assert (status.status_code, status.description) == (StatusCode.ERROR, "EngineError of kitchen, Expand request")
    assert (attributes["error.type"], attributes["rain.stop_reason"]) == ("EngineError", "error")
    assert attributes["rain.action"] == "raise"
    assert "stove" not in texts_of(recorded)


def test_a_judge_that_fails_leaves_a_judgement_without_a_verdict() -> None:
    recorded = Recorded()
    with pytest.raises(EngineError):
        kitchen_llm(telemetry=recorded.telemetry).invoke(CRASHING_PROMPT)
    assert values(recorded) == [("rain.search", [("rain.judgement", [])])]


def test_a_bug_is_an_error_by_its_type_alone() -> None:
    recorded = Recorded()
    answer = kitchen_llm(telemetry=recorded.telemetry).begin(PROMPT, PROMPT, None, calls=Calls())
    answer.search.config = None  # type: ignore[assignment]
    with pytest.raises(AttributeError):
        run(answer.job)
    assert recorded.search.status.description == "AttributeError"
    assert "rain.action" not in attributes_of(recorded.search)


def test_each_attempt_at_an_answer_has_a_span_and_only_the_last_says_what_is_given() -> None:
    recorded = Recorded()
    chat = ChatRain(
        model=Kitchen(num_failures=1),
        rubric=RUBRIC,
        config=CONFIG,
        max_retries=1,
        on_error="refuse",
        telemetry=recorded.telemetry,
    )
    assert chat.invoke("Supper?").text == "Warm the soup."
    failed, good = (attributes_of(span) for span in recorded.spans if span.name == "rain.search")
    assert (failed["error.type"], "rain.action" in failed) == ("EngineError", False)
    assert good["rain.action"] == "give"
    assert recorded.total("rain.refusals") == 0


def test_an_engine_that_fails_at_the_last_attempt_too_is_refused() -> None:
    recorded = Recorded()
    chat = ChatRain(
        model=Kitchen(num_failures=2),
        rubric=RUBRIC,
        config=CONFIG,
        max_retries=1,
        on_error="refuse",
        telemetry=recorded.telemetry,
    )
    assert chat.invoke("Supper?").text == REFUSAL
    first, last = (attributes_of(span) for span in recorded.spans if span.name == "rain.search")
    assert ("rain.action" in first, last["rain.action"]) == (False, "refuse")
    assert recorded.total("rain.refusals") == 1


def test_a_stream_that_is_left_ends_its_spans() -> None:
    recorded, engine = Recorded(), Kitchen()
    chunks = kitchen_llm(engine, telemetry=recorded.telemetry).stream(PROMPT)
    assert isinstance(chunks, Generator)
    next(chunks)
    chunks.close()
    assert engine.is_idle
    assert_cancelled_or_done(recorded)


async def test_an_async_stream_that_is_left_ends_its_spans() -> None:
    recorded, engine = Recorded(), Kitchen()
    chunks = kitchen_llm(engine, telemetry=recorded.telemetry).astream(PROMPT)
    assert isinstance(chunks, AsyncGenerator)
    await anext(chunks)
    await chunks.aclose()
    assert engine.is_idle
    assert_cancelled_or_done(recorded)


def assert_cancelled_or_done(recorded: Recorded) -> None:
    """The search may have been faster than who leaves it; it has ended, and is no error."""
    assert attributes_of(recorded.search)["rain.stop_reason"] in ("cancelled", "eos")
    assert recorded.search.status.status_code is StatusCode.UNSET
    assert [tree[0] for tree in recorded.trees()] == ["rain.search"]


class WaitingKitchen(Kitchen):
    """Judges only when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.is_asked, self.may_answer = threading.Event(), threading.Event()

    def _judge(self, request: Score) -> Any:
        self.is_asked.set()
        assert self.may_answer.wait(10)
        return super()._judge(request)


async def test_a_task_that_is_cancelled_ends_its_spans_and_the_judgement_under_way() -> None:
    recorded, engine = Recorded(), WaitingKitchen()
    task = asyncio.create_task(kitchen_llm(engine, telemetry=recorded.telemetry).ainvoke(PROMPT))
    assert await asyncio.to_thread(engine.is_asked.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert values(recorded) == [("rain.search", [("rain.judgement", [])])]
    assert attributes_of(recorded.search)["rain.stop_reason"] == "cancelled"
    assert "rain.action" not in attributes_of(recorded.search)
    engine.may_answer.set()
    assert engine.is_idle


class Breaking(SpanProcessor):
    """Fails wherever it is called."""

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        raise OSError("no collector")

    def on_end(self, span: ReadableSpan) -> None:
        raise OSError("no collector")


@pytest.mark.parametrize("answered", [answered_by_invoke, answered_by_astream])
def test_what_fails_in_opentelemetry_is_logged_and_changes_no_answer(
    answered: Callable[[RainLLM], None], caplog: pytest.LogCaptureFixture
) -> None:
    recorded = Recorded(processor=Breaking())
    answered(kitchen_llm(telemetry=recorded.telemetry))
    assert "An observer of a search failed." in caplog.messages
    assert recorded.total("rain.searches") == 1


# What is never told


def menu_of(courses: list[list[bool]]) -> list[list[str]]:
    """A word for each choice of each course, by whether it is bad."""
    return [
        [f" word{course}x{number}{'bad' if is_bad else 'good'}" for number, is_bad in enumerate(each)]
        for course, each in enumerate(courses)
    ]


@settings(max_examples=40)
@given(
    st.lists(st.lists(st.booleans(), min_size=1, max_size=4), min_size=1, max_size=4),
    st.sampled_from(["refuse", "best", "raise"]),
    st.booleans(),
    st.sampled_from(["paper", "balanced", "small"]),
)
def test_no_text_that_was_not_given_is_in_any_span_or_metric(
    courses: list[list[bool]], policy: str, captures_content: bool, preset: str
) -> None:
    recorded = Recorded(captures_content=captures_content)
    words = [word.strip() for course in menu_of(courses) for word in course]
    engine = MenuKitchen(courses)
    config = CONFIG
    if preset != "small":
        config = RainConfig.preset(preset).model_copy(update={"similarity_scope": "off", "adds_children": False})
    try:
        given_text = kitchen_llm(engine, config=config, on_unsatisfied=policy, telemetry=recorded.telemetry).invoke(
            "Secret question?"
        )
    except UnsatisfiedError:
        given_text = ""
    told = texts_of(recorded)
    assert [word for word in words if word in told and not (captures_content and word in given_text)] == []
    assert ("Secret question" in told) is captures_content
    assert len([span for span in recorded.spans if span.name == "rain.simulation"]) > 0


class MenuKitchen(Kitchen):
    """Offers words of which each says whether it is bad."""

    def __init__(self, courses: list[list[bool]]) -> None:
        super().__init__(*menu_of(courses), is_bad=lambda question: "bad" in question)

    def _offer(self, request: Expand) -> Any:
        return [each for each in super()._offer(request) if each.tokens not in request.exclude]

    def _roll_out(self, request: Rollout) -> TokenSet:
        """Goes on with the first word that there is, as drafts do."""
        course = len(request.prefix)
        if course >= len(self._courses):
            return TokenSet((), "")
        number = request.seed % len(self._courses[course])
        finish: Any = "eos" if course == len(self._courses) - 1 else None
        return TokenSet((number,), self._courses[course][number], finish_reason=finish)


@pytest.mark.parametrize(
    ("value", "is_captured"),
    [(None, False), ("", False), ("false", False), ("EVENT_ONLY", False), ("true", True), ("SPAN_ONLY", True)],
)
def test_content_is_captured_as_the_variable_of_the_conventions_says(
    value: str | None, is_captured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(CONTENT_VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(CONTENT_VARIABLE, value)
    recorded = Recorded()
    kitchen_llm(telemetry=recorded.telemetry).invoke(PROMPT)
    assert ("gen_ai.input.messages" in attributes_of(recorded.search)) is is_captured
    assert Recorded(captures_content=False).telemetry.captures_content is False


def test_a_captured_conversation_has_the_roles_of_the_conventions() -> None:
    recorded = Recorded(captures_content=True)
    chat = ChatRain(model=Kitchen(), rubric=RUBRIC, config=CONFIG, telemetry=recorded.telemetry)
    chat.invoke([SystemMessage("Be brief."), HumanMessage("Hello"), AIMessage("Yes?"), HumanMessage("Supper?")])
    attributes = attributes_of(recorded.search)
    messages = json.loads(str(attributes["gen_ai.input.messages"]))
    assert [(each["role"], each["parts"][0]["content"]) for each in messages] == [
        ("system", "Be brief."),
        ("user", "Hello"),
        ("assistant", "Yes?"),
        ("user", "Supper?"),
    ]
    assert json.loads(str(attributes["gen_ai.output.messages"]))[0]["parts"][0]["content"] == WARM_SOUP


# The argument


def test_without_it_nobody_looks_on() -> None:
    assert kitchen_llm().begin(PROMPT, PROMPT, None, calls=Calls()).job.observer is None


def test_something_else_is_a_mistake() -> None:
    with pytest.raises(RainConfigError, match="telemetry: Input should be an instance of Telemetry"):
        kitchen_llm(telemetry=True)


def test_a_call_brings_none_of_its_own() -> None:
    chat = ChatRain(model=Kitchen(), rubric=RUBRIC, config=CONFIG)
    with pytest.raises(RainConfigError, match="telemetry"):
        chat.invoke("Supper?", telemetry=Recorded().telemetry)


def test_a_call_with_arguments_of_its_own_is_reported_too() -> None:
    recorded = Recorded()
    chat = ChatRain(model=Kitchen(), rubric=RUBRIC, config=CONFIG, telemetry=recorded.telemetry)
    chat.invoke("Supper?", max_seconds=60)
    assert recorded.search.name == "rain.search"


def test_copies_report_to_the_same_and_it_is_no_part_of_what_an_answer_depends_on() -> None:
    recorded = Recorded()
    llm = kitchen_llm(telemetry=recorded.telemetry)
    assert copy.deepcopy(llm).telemetry is recorded.telemetry
    assert llm.model_copy().telemetry is recorded.telemetry
    assert llm.identity == kitchen_llm(llm.model).identity  # type: ignore[arg-type]
    assert "telemetry" not in repr(llm)


def test_a_pickle_reports_to_the_providers_of_its_process() -> None:
    read = pickle.loads(pickle.dumps(Recorded(captures_content=True).telemetry))
    assert isinstance(read, Telemetry)
    assert read.captures_content is True


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(RainConfigError, match="pip install 'langchain-rain\\[otel\\]'"):
        Telemetry()


def test_without_opentelemetry_all_works_but_this() -> None:
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "import langchain_rain\n"
        "from langchain_rain.telemetry import Telemetry\n"
        "from tests.scripted_world import PROMPT, kitchen_llm\n"
        "print(kitchen_llm().invoke(PROMPT))\n"
        "try: Telemetry()\n"
        "except langchain_rain.RainConfigError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    answer, mistake = done.stdout.splitlines()
    assert answer == WARM_SOUP
    assert mistake == "telemetry: opentelemetry-api is needed: pip install 'langchain-rain[otel]'"
