"""One answer, however it is called: text and metadata, first chunks, many callers at once, stop strings (defect 14)."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from langchain_rain import ChatRain
from langchain_rain.search.protocol import Context, Expand
from tests.conformance.listening import graph_of
from tests.conformance.worlds import (
    BAD,
    DISH,
    QUESTION,
    REFUSAL,
    Chef,
    MarkedKitchen,
    StreamingChef,
    chef_chat,
    kitchen_chat,
    serve,
)
from tests.scripted_world import CRASHING_PROMPT, END, WARM, Kitchen
from tests.test_llms import tiny_engine

pytestmark = pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")

CRASHING = CRASHING_PROMPT.removeprefix("Human: ").removesuffix("\n\nAssistant:")


def hopeless_kitchen(**arguments: Any) -> ChatRain:
    return kitchen_chat(MarkedKitchen(is_hopeless=True), **arguments)


def hopeless_chef(**arguments: Any) -> ChatRain:
    return chef_chat(Chef(is_hopeless=True), **arguments)


def a_refusal(error: Any) -> str:
    return "Sorry."


ANSWERS: dict[str, tuple[Callable[[], ChatRain], str, str]] = {
    "token sets": (kitchen_chat, QUESTION, DISH),
    "messages": (chef_chat, QUESTION, DISH),
    "messages of a model that streams": (lambda: chef_chat(StreamingChef(streaming=True)), QUESTION, f"{DISH} "),
    "token sets, refused": (hopeless_kitchen, QUESTION, f"Warm\n{REFUSAL}"),
    "messages, refused": (hopeless_chef, QUESTION, REFUSAL),
    "token sets, the best": (lambda: hopeless_kitchen(on_unsatisfied="best"), QUESTION, "Warm"),
    "messages, the best": (lambda: hopeless_chef(on_unsatisfied="best"), QUESTION, f"{DISH} xyzzy!"),
    "token sets, by a function": (lambda: hopeless_kitchen(on_unsatisfied=a_refusal), QUESTION, "Warm\nSorry."),
    "token sets, an error refused": (lambda: kitchen_chat(Kitchen(), on_error="refuse"), CRASHING, REFUSAL),
    "token sets, out of budget": (lambda: kitchen_chat(max_forward_tokens=5), QUESTION, f"Warm\n{REFUSAL}"),
    "token sets up to a stop string": (lambda: kitchen_chat(stop=["never said"]), QUESTION, DISH),
    "messages up to a stop string": (lambda: chef_chat(stop=["soup"]), QUESTION, "Warm the "),
}


def told(message: BaseMessage) -> dict[str, Any]:
    """All that a message says, but for the id of its run."""
    assert isinstance(message, AIMessage)
    return {
        "content": message.content,
        "calls": message.tool_calls,
        "invalid": message.invalid_tool_calls,
        "more": message.additional_kwargs,
        "usage": message.usage_metadata,
        "metadata": message.response_metadata,
    }


def without_cost(said: dict[str, Any]) -> dict[str, Any]:
    """The same without what it took, which depends on what a model in this process has read before."""
    costs = ("forward_passes", "token_positions")
    rain = {name: each for name, each in said["metadata"]["rain"].items() if name not in costs}
    return {**said, "metadata": {**said["metadata"], "rain": rain}, "usage": None}


def joined(chunks: list[Any]) -> BaseMessage:
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    assert isinstance(whole, BaseMessage)
    return whole


async def all_answers(chat: Any, given: Any) -> dict[str, BaseMessage]:
    """By every way; the sync ones run inside a running event loop (defect 6)."""
    generated, agenerated = chat.generate([[HumanMessage(given)]]), await chat.agenerate([[HumanMessage(given)]])
    return {
        "invoke": chat.invoke(given),
        "ainvoke": await chat.ainvoke(given),
        "stream": joined(list(chat.stream(given))),
        "astream": joined([chunk async for chunk in chat.astream(given)]),
        "batch": chat.batch([given, given])[1],
        "abatch": (await chat.abatch([given, given]))[1],
        "batch, exceptions returned": chat.batch([given, given], return_exceptions=True)[0],
        "abatch, exceptions returned": (await chat.abatch([given], return_exceptions=True))[0],
        "batch_as_completed": dict(chat.batch_as_completed([given, given]))[1],
        "generate": generated.generations[0][0].message,
        "agenerate": agenerated.generations[0][0].message,
    }


@pytest.mark.parametrize("name", ANSWERS)
async def test_all_ways_give_the_same_answer(name: str) -> None:
    """Defects 6 and 14: text, usage and metadata; unsatisfied answers, budgets and stop strings included."""
    make, given, text = ANSWERS[name]
    answers = await all_answers(make(), given)
    first = told(answers["invoke"])
    assert first["content"] == text
    assert {way: told(answer) for way, answer in answers.items()} == dict.fromkeys(answers, first)


@pytest.mark.parametrize("name", ANSWERS)
async def test_streams_of_v3_give_the_same_text_and_usage(name: str) -> None:
    make, given, text = ANSWERS[name]
    sync, coroutine = make().stream_events(given, version="v3"), await make().astream_events(given, version="v3")
    outputs = [sync.output, await coroutine.output]
    assert [str(output.text) for output in outputs] == [text, text]
    usage = make().invoke(given).usage_metadata
    assert usage is not None
    filled = {name: value for name, value in usage.items() if value != {}}  # v3 leaves out what is empty
    assert [output.usage_metadata for output in outputs] == [filled, filled]


async def test_tool_calls_are_the_same_by_all_ways() -> None:
    bound = chef_chat().bind_tools([serve])
    chunks = list(bound.stream(QUESTION))
    answers = [
        bound.invoke(QUESTION),
        await bound.ainvoke(QUESTION),
        bound.batch([QUESTION])[0],
        joined(chunks),
        joined([chunk async for chunk in bound.astream(QUESTION)]),
    ]
    assert [told(answer) for answer in answers] == [told(answers[0])] * 5
    assert told(answers[0])["calls"] == [{"name": "serve", "args": {"dish": "soup"}, "id": "call", "type": "tool_call"}]


# --- Stop strings (defect 14) ------------------------------------------------------------------------------------


def tiny_chat(**arguments: Any) -> ChatRain:
    return kitchen_chat(**{"model": tiny_engine(), "on_unsatisfied": "best", "max_tokens": 12, **arguments})


@pytest.mark.parametrize("make", [tiny_chat, chef_chat])
async def test_an_answer_ends_before_a_stop_string(make: Callable[..., ChatRain]) -> None:
    """Defect 14: given to the model, to a call or bound, by every way, for both kinds of model."""
    whole = str(make().invoke(QUESTION).text)
    # With a model the beginning is the first token set of the same search; of a later one its rollouts may differ.
    stop = [whole[2]]
    chat = make(stop=stop)
    expected = told(chat.invoke(QUESTION))
    answers = {
        **await all_answers(chat, QUESTION),
        "of the call": make().invoke(QUESTION, stop=stop),
        "of the call, streamed": joined(list(make().stream(QUESTION, stop=stop))),
        "of the call, streamed by a coroutine": joined([each async for each in make().astream(QUESTION, stop=stop)]),
        "of the call, in a batch": make().batch([QUESTION], stop=stop)[0],
        "bound": make().bind(stop=stop).invoke(QUESTION),
    }
    assert stop[0] not in expected["content"]
    assert len(expected["content"]) < len(whole)
    said = {way: without_cost(told(answer)) for way, answer in answers.items()}
    assert said == dict.fromkeys(answers, without_cost(expected))


def test_a_chat_model_is_told_the_stop_strings() -> None:
    """Defect 14."""
    chef = Chef()
    chef_chat(chef, stop=["soup"]).invoke(QUESTION)
    assert {tuple(given["stop"] or ()) for messages, given in chef.log.asked} == {("soup",), ()}


# --- The first chunk ---------------------------------------------------------------------------------------------


class GatedKitchen(MarkedKitchen):
    """Opens its second course when somebody has the first."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()

    def _offer(self, request: Expand) -> Any:
        if request.prefix:
            assert self.gate.wait(10), "nobody got the first course"
        return super()._offer(request)


def test_the_first_chunk_comes_before_the_search_goes_on() -> None:
    engine = GatedKitchen()
    chunks = kitchen_chat(engine).stream(QUESTION)
    first = next(chunks)
    engine.gate.set()
    assert (first.content, joined([first, *chunks]).content) == ("Warm", DISH)


async def test_the_first_chunk_of_a_coroutine_comes_before_the_search_goes_on() -> None:
    engine = GatedKitchen()
    chunks = kitchen_chat(engine).astream(QUESTION)
    first = await anext(chunks)
    engine.gate.set()
    assert (first.content, joined([first, *[chunk async for chunk in chunks]]).content) == ("Warm", DISH)


def test_the_first_chunk_passes_through_a_graph_before_the_search_goes_on() -> None:
    engine = GatedKitchen()
    config: Any = {"configurable": {"thread_id": "table 4"}}
    pieces = graph_of(kitchen_chat(engine)).stream({"messages": [("human", QUESTION)]}, config, stream_mode="messages")
    first, _ = next(pieces)
    engine.gate.set()
    assert (first.content, [piece.content for piece, _ in pieces]) == ("Warm", [" the soup", ".", ""])


async def test_the_first_event_passes_before_the_search_goes_on() -> None:
    engine = GatedKitchen()
    pieces = []
    async for event in kitchen_chat(engine).astream_events(QUESTION, version="v2"):
        if event["event"] == "on_chat_model_stream":
            pieces.append(event["data"]["chunk"].content)
            engine.gate.set()
    assert pieces == ["Warm", " the soup", ".", ""]


# --- Threads and tasks -------------------------------------------------------------------------------------------


class OrderKitchen(MarkedKitchen):
    """Cooks what was asked for, so that no two conversations have the same answer."""

    def __init__(self) -> None:
        super().__init__()
        self._orders: dict[Context, str] = {}

    def open(self, prompt: str, *, max_tokens: int, stop: Any = ()) -> Context:
        context = super().open(prompt, max_tokens=max_tokens, stop=stop)
        self._orders[context] = prompt.removeprefix("Human: ").removesuffix("\n\nAssistant:")
        return context

    def _offer(self, request: Expand) -> Any:
        dish = f" the {self._orders[request.context]}"
        token_sets = super()._offer(request)
        return [_renamed(each, dish) for each in token_sets]


def _renamed(token_set: Any, dish: str) -> Any:
    from dataclasses import replace

    return replace(token_set, text=dish) if token_set.text == " the soup" else token_set


class OrderChef(Chef):
    def draft(self, messages: Any, **kwargs: Any) -> AIMessage:
        drafted = super().draft(messages, **kwargs)
        return drafted.model_copy(update={"content": str(drafted.content).replace("soup", str(messages[-1].text))})


ORDERS: list[LanguageModelInput] = [f"dish {number}" for number in range(64)]
INNER: list[Callable[[], Any]] = [
    lambda: kitchen_chat(OrderKitchen()),
    lambda: chef_chat(OrderChef()),
]


@pytest.mark.parametrize("make", INNER, ids=["token sets", "messages"])
async def test_64_tasks_and_64_threads_get_each_its_own_answer(make: Callable[[], ChatRain]) -> None:
    chat = make()
    singles = [told(chat.invoke(order)) for order in ORDERS]
    assert [single["content"] for single in singles] == [f"Warm the {order}." for order in ORDERS]
    barrier = threading.Barrier(len(ORDERS))

    def streamed(order: LanguageModelInput) -> BaseMessage:
        barrier.wait(10)
        return joined(list(chat.stream(order)))

    def invoked(order: LanguageModelInput) -> BaseMessage:
        barrier.wait(10)
        return chat.invoke(order)

    async def astreamed(order: LanguageModelInput) -> BaseMessage:
        return joined([chunk async for chunk in chat.astream(order)])

    with ThreadPoolExecutor(len(ORDERS)) as pool:
        by_threads = [list(pool.map(call, ORDERS)) for call in (streamed, invoked)]
    by_tasks: list[list[Any]] = [
        await asyncio.gather(*map(chat.ainvoke, ORDERS)),
        await asyncio.gather(*map(astreamed, ORDERS)),
        await chat.abatch(ORDERS),
    ]
    for answers in [*by_threads, *by_tasks, chat.batch(ORDERS)]:
        assert [told(answer) for answer in answers] == singles


def test_no_call_leaves_anything_on_the_instance() -> None:
    chat = kitchen_chat()
    chat.invoke(QUESTION)  # LangChain remembers how a model is serialized
    before = repr((chat.__dict__, chat._run))
    chat.invoke(QUESTION)
    list(chat.stream(QUESTION))
    assert repr((chat.__dict__, chat._run)) == before


def test_the_courses_are_those_of_the_script() -> None:
    """Guards the tests above against a script that rejects nothing."""
    chat: BaseChatModel = kitchen_chat(Kitchen(WARM, [BAD, " the soup"], END))
    assert chat.invoke(QUESTION).text == f"Warm{BAD}."
