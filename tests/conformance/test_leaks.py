"""Nothing that was rejected is ever seen: not in any stream, state, event, cache or log (defects 1, 2 and 3).

Every rejected draft carries a mark. It may be found in the custom events `rain_*` and in the runs below one of ChatRain
that tracers and other handlers are told of, and nowhere else.
"""

import logging
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler, CallbackManager, StreamingStdOutCallbackHandler
from langchain_core.globals import set_llm_cache
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.runnables import RunnableConfig

from langchain_rain import ChatRain, EngineError, UnsatisfiedError
from tests.conformance.listening import (
    CHAT,
    GRAPH,
    RUNNABLE,
    AsyncEar,
    Ear,
    Entry,
    StreamingEar,
    StreamingV2Ear,
    agent_of,
    cached_by,
    chain_of,
    entered,
    graph_of,
    kept_by,
    loud,
    parsing_chain_of,
    streaming_graph_of,
)
from tests.conformance.worlds import (
    MARK,
    QUESTION,
    Chef,
    MarkedKitchen,
    StreamingChef,
    TellingChef,
    chef_chat,
    is_marked,
    kitchen_chat,
)

# v3 streams are a beta of LangChain's, and so is `astream_log` something it would rather not see used.
pytestmark = [
    pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning"),
    pytest.mark.filterwarnings("ignore::langchain_core._api.deprecation.LangChainDeprecationWarning"),
]


def dislikes_marks(transcript: str) -> float:
    return -1.0 if is_marked(transcript) else 1.0


def asks_a_chef(transcript: str) -> float:
    """Calls a chat model as a user would, inside the run of whoever calls it; its prompt holds the draft."""
    text = Chef(is_hopeless=True, cache=False).invoke(transcript).text  # which is no verdict, and marked
    assert text
    return dislikes_marks(transcript)


async def awaits_a_chef(transcript: str) -> float:
    await Chef(is_hopeless=True, cache=False).ainvoke(transcript)
    return dislikes_marks(transcript)


class Restaurant(Chef):
    """A chat model that asks another without a word of the run that it is asked in."""

    def answer(self, messages: list[BaseMessage], **kwargs: Any) -> AIMessage:
        return Chef(cache=False).invoke(messages, **kwargs)


def a_refusal(error: Any) -> str:
    return "Sorry."


WORLDS: dict[str, Callable[[], ChatRain]] = {
    "token sets": kitchen_chat,
    "token sets asked ahead": lambda: kitchen_chat(config=kitchen_chat().config.model_copy(update={"lookahead": 8})),
    "token sets, judged by a chat model": lambda: kitchen_chat(judge=Chef()),
    "token sets, judged by a function": lambda: kitchen_chat(judge=dislikes_marks),
    "token sets, judged by a function that asks a chat model": lambda: kitchen_chat(judge=asks_a_chef),
    "messages, judged by a function that asks a chat model": lambda: chef_chat(judge=asks_a_chef),
    "messages of a model that asks another": lambda: chef_chat(Restaurant()),
    "messages": chef_chat,
    "messages, judged by another": lambda: chef_chat(judge=Chef(model_name="critic")),
    "messages, judged by a function": lambda: chef_chat(judge=dislikes_marks),
    "messages of a model that can stream": lambda: chef_chat(StreamingChef()),
    "messages of a model that always streams": lambda: chef_chat(StreamingChef(streaming=True)),
    "messages of a model that tells its tokens": lambda: chef_chat(TellingChef()),
    "messages, streamed by invoke": lambda: chef_chat(StreamingChef(), streaming=True),
}

UNSATISFIED: dict[str, Callable[..., ChatRain]] = {
    "token sets": lambda **given: kitchen_chat(MarkedKitchen(is_hopeless=True), **given),
    "messages": lambda **given: chef_chat(Chef(is_hopeless=True), **given),
    "messages that are streamed": lambda **given: chef_chat(TellingChef(is_hopeless=True, streaming=True), **given),
}

Made = Callable[[ChatRain], Any]

KINDS: dict[str, tuple[Made, Any, dict[str, Entry]]] = {
    "chat": (lambda chat: chat, QUESTION, CHAT),
    "chain": (chain_of, {"question": QUESTION}, RUNNABLE),
    "parsing chain": (parsing_chain_of, {"question": QUESTION}, RUNNABLE),
    "graph": (graph_of, {"messages": [("human", QUESTION)]}, GRAPH),
    "streaming graph": (streaming_graph_of, {"messages": [("human", QUESTION)]}, GRAPH),
    "agent": (agent_of, {"messages": [("human", QUESTION)]}, GRAPH),
}

Way = tuple[str, str]
"""Something to call, and how."""

WAYS: list[Way] = [(kind, name) for kind in ("chat", "chain", "graph", "agent") for name in KINDS[kind][2]]
SHORTER_WAYS: list[Way] = [
    *(("parsing chain", name) for name in ("invoke", "astream", "astream_log", "astream_events v1")),
    *(("streaming graph", name) for name in ("stream all modes", "astream_events v2", "stream_events v3 projections")),
]
MAIN_WAYS: list[Way] = [
    *(("chat", name) for name in ("invoke", "astream", "astream_events v2", "stream_events v3")),
    *(("agent", name) for name in ("stream all modes v2", "astream messages", "astream_events v3 messages")),
]
WORLDS_AND_WAYS = [
    *(("token sets", way) for way in [*WAYS, *SHORTER_WAYS] if way[0] != "agent" or way in MAIN_WAYS),
    *(("messages", way) for way in [*WAYS, *SHORTER_WAYS] if way[0] != "graph" or "modes" in way[1]),
    *((world, way) for world in WORLDS if world not in ("token sets", "messages") for way in MAIN_WAYS),
]
UNSATISFIED_WAYS = [*WAYS[: len(CHAT)], *SHORTER_WAYS, *MAIN_WAYS[-3:], ("graph", "stream all modes")]


@pytest.fixture
def cache() -> Iterator[InMemoryCache]:
    cache = InMemoryCache()
    set_llm_cache(cache)
    yield cache
    set_llm_cache(None)


class Listener:
    """Calls a model in some way and looks through all that comes out."""

    def __init__(
        self, cache: InMemoryCache, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.cache, self.caplog, self.capsys = cache, caplog, capsys
        caplog.set_level(logging.DEBUG)
        self.ears: list[Any] = [Ear(), AsyncEar()]

    def call(self, way: Way, chat: ChatRain, *more_ears: Any) -> Any:
        """What comes out, with whatever is raised in its place."""
        kind, name = way
        make, given, entries = KINDS[kind]
        runnable = make(chat)
        self.ears += more_ears
        config: RunnableConfig = {"callbacks": self.ears, "configurable": {"thread_id": "table 4"}}
        try:
            out = entered(entries[name], runnable, given, config)
        except UnsatisfiedError as error:
            out = error
        told = [] if not isinstance(out, Exception) else traceback.format_exception(out)
        kept = kept_by(runnable, config) if hasattr(runnable, "get_state") else []
        self.all_seen = {
            "output": (out, str(out), told),
            "kept": kept,
            "heard": [ear.heard for ear in self.ears],
            "cached": cached_by(self.cache),
            "logged": loud(self.caplog.records),
            "printed": self.capsys.readouterr(),
        }
        return out

    @property
    def places(self) -> list[str]:
        """Where the mark was found."""
        return [place for place, seen in self.all_seen.items() if MARK in repr(seen)]

    @property
    def was_drafted(self) -> bool:
        """Whether there was something to hide, and the events tell of it."""
        return any(MARK in repr(data) for name, data, _ in self.ears[0].custom if name == "rain_draft")


@pytest.fixture
def listener(cache: InMemoryCache, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> Listener:
    return Listener(cache, caplog, capsys)


@pytest.mark.parametrize(("world", "way"), WORLDS_AND_WAYS, ids=str)
def test_what_was_rejected_is_nowhere(listener: Listener, world: str, way: Way) -> None:
    out = listener.call(way, WORLDS[world]())
    assert listener.places == []
    assert listener.was_drafted
    assert "soup" in repr(out) or "custom" in way[1]


@pytest.mark.parametrize("policy", ["refuse", "raise"])
@pytest.mark.parametrize("way", UNSATISFIED_WAYS, ids=str)
@pytest.mark.parametrize("world", ["token sets", "messages"])
def test_an_answer_that_nothing_satisfies_is_nowhere(listener: Listener, way: Way, world: str, policy: Any) -> None:
    out = listener.call(way, UNSATISFIED[world](on_unsatisfied=policy))
    assert listener.places == []
    assert listener.was_drafted
    assert isinstance(out, UnsatisfiedError) == (policy == "raise")


@pytest.mark.parametrize("policy", ["refuse", "raise", a_refusal], ids=["refuse", "raise", "callable"])
@pytest.mark.parametrize("way", MAIN_WAYS, ids=str)
def test_drafts_of_a_model_that_tells_its_tokens_are_nowhere(listener: Listener, way: Way, policy: Any) -> None:
    world = "messages that are streamed"
    out = listener.call(way, UNSATISFIED[world](on_unsatisfied=policy))
    assert listener.places == []
    assert listener.was_drafted
    assert isinstance(out, UnsatisfiedError) == (policy == "raise")


@pytest.mark.parametrize("ear", [StreamingEar, StreamingV2Ear])
@pytest.mark.parametrize("way", [("chat", "invoke"), ("chat", "abatch"), ("agent", "ainvoke")], ids=str)
@pytest.mark.parametrize("world", WORLDS)
def test_handlers_that_make_it_stream_hear_nothing_rejected(
    listener: Listener, way: Way, world: str, ear: Callable[[], Ear]
) -> None:
    streaming_ear = ear()
    listener.call(way, WORLDS[world](), streaming_ear)
    assert listener.places == []
    assert listener.was_drafted
    assert streaming_ear.trace == []


@pytest.mark.parametrize("name", [name for kind, name in WAYS if kind == "chat" and name.startswith("a")])
def test_a_coroutine_that_judges_and_asks_a_chat_model_shows_nothing(listener: Listener, name: str) -> None:
    listener.call(("chat", name), kitchen_chat(judge=awaits_a_chef))
    assert listener.places == []
    assert listener.was_drafted


@pytest.mark.parametrize("world", UNSATISFIED)
def test_an_error_carries_the_answer_and_does_not_say_it(world: str) -> None:
    with pytest.raises(UnsatisfiedError) as raised:
        UNSATISFIED[world](on_unsatisfied="raise").invoke(QUESTION)
    told = [str(raised.value), repr(raised.value), *traceback.format_exception(raised.value)]
    assert [text for text in told if MARK in text] == []


def test_a_handler_that_the_inner_model_has_of_its_own_too_hears_no_tokens_and_nothing_twice() -> None:
    ear = Ear()
    answer = chef_chat(TellingChef(callbacks=[ear])).invoke(QUESTION, {"callbacks": [ear]})
    assert ear.tokens == []
    names = [name for name, *_ in ear.trace]
    assert names == ["rain_draft", "rain_judgement", "rain_judgement"] * 2
    assert answer.text == "Warm the soup. "


@pytest.mark.parametrize("as_manager", [False, True])
@pytest.mark.parametrize("way", MAIN_WAYS, ids=str)
def test_a_handler_of_the_inner_model_alone_prints_no_tokens_of_drafts(
    listener: Listener, way: Way, *, as_manager: bool
) -> None:
    handlers: list[BaseCallbackHandler] = [StreamingStdOutCallbackHandler()]
    chef = TellingChef(streaming=True, callbacks=CallbackManager(handlers) if as_manager else handlers)
    listener.call(way, chef_chat(chef))
    assert listener.places == []
    assert listener.was_drafted


def test_a_handler_of_the_inner_model_alone_hears_of_its_runs() -> None:
    ear = Ear()
    chef_chat(TellingChef(callbacks=[ear])).invoke(QUESTION)
    assert (len(ear.trace), len(ear.ended), ear.tokens) == (6, 6, [])


def test_a_message_of_the_wrong_kind_is_named_and_not_shown() -> None:
    class Waiter(Chef):
        def invoke(self, *args: Any, **kwargs: Any) -> Any:
            return HumanMessage(f"Warm the {MARK}!")

    with pytest.raises(EngineError, match="an AIMessage is wanted") as raised:
        chef_chat(Waiter()).invoke(QUESTION)
    assert MARK not in repr(raised.value)
