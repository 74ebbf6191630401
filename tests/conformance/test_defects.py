"""The fifteen defects of comparable products, those with a theme of their own apart.

1, 2, 3  `test_leaks`, and here for what is shown in place of it    10, 9, 11  `test_callbacks`
4, 12    here                                                       8          `test_cache`
5        here                                                       13, 15     `test_ends`
6        here, and `test_sameness`                                  14         `test_sameness`
7        here
"""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableConfig

from langchain_rain import ChatRain, Criterion, EngineError, RainConfig, RainConfigError, Rubric, RubricError
from tests.conformance.listening import agent_of, graph_of, streaming_graph_of
from tests.conformance.worlds import (
    DISH,
    MARK,
    QUESTION,
    REFUSAL,
    Chef,
    MarkedKitchen,
    StreamingChef,
    TellingChef,
    chef_chat,
    kitchen_chat,
    serve,
)
from tests.scripted_world import RUBRIC

pytestmark = pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")

GIVEN = {"messages": [("human", QUESTION)]}
AT_TABLE: RunnableConfig = {"configurable": {"thread_id": "table 4"}}

CHATS: dict[str, Callable[[], ChatRain]] = {
    "token sets": kitchen_chat,
    "messages": chef_chat,
    "messages of a model that streams": lambda: chef_chat(StreamingChef(streaming=True)),
    "messages of a model that tells its tokens": lambda: chef_chat(TellingChef(streaming=True)),
}
GRAPHS: dict[str, Callable[[ChatRain], Any]] = {
    "graph": graph_of,
    "streaming graph": streaming_graph_of,
    "agent": agent_of,
}


def answers_in(state: Any) -> list[AIMessage]:
    return [message for message in state["messages"] if isinstance(message, AIMessage)]


def by_message(pieces: list[Any]) -> dict[str, str]:
    """The text of each message that was streamed, by its id, in order; tool results are passed over."""
    texts: dict[str, str] = {}
    for message, _ in pieces:
        if isinstance(message, AIMessage):
            assert message.id is not None
            texts[message.id] = texts.get(message.id, "") + str(message.text)
    return texts


# --- 1, 2, 3: what is streamed is what is answered ---------------------------------------------------------------


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("chat", CHATS)
async def test_a_stream_of_messages_shows_each_answer_once_and_as_it_is_in_the_state(chat: str, graph: str) -> None:
    """Defects 1, 2, 3: no draft, no answer twice, no text other than that of `invoke`."""
    compiled = GRAPHS[graph](CHATS[chat]())
    pieces = list(compiled.stream(GIVEN, AT_TABLE, stream_mode="messages"))
    state = compiled.get_state(AT_TABLE).values
    assert by_message(pieces) == {answer.id: str(answer.text) for answer in answers_in(state)}

    compiled = GRAPHS[graph](CHATS[chat]())
    pieces = [piece async for piece in compiled.astream(GIVEN, AT_TABLE, stream_mode="messages")]
    astate = compiled.get_state(AT_TABLE).values
    assert by_message(pieces) == {answer.id: str(answer.text) for answer in answers_in(astate)}

    texts = [str(answer.text) for answer in answers_in(GRAPHS[graph](CHATS[chat]()).invoke(GIVEN, AT_TABLE))]
    assert [str(answer.text) for answer in answers_in(state)] == texts
    assert [str(answer.text) for answer in answers_in(astate)] == texts
    assert texts[-1].strip() == DISH


@pytest.mark.parametrize("graph", ["graph", "agent"])
@pytest.mark.parametrize("chat", CHATS)
async def test_messages_of_a_v3_run_are_the_answers_and_nothing_else(chat: str, graph: str) -> None:
    """Defects 1, 2, 3, in `run.messages`."""
    with GRAPHS[graph](CHATS[chat]()).stream_events(GIVEN, AT_TABLE, version="v3") as run:
        streamed = [str(message.text) for message in run.messages]
        state = run.output
    async with await GRAPHS[graph](CHATS[chat]()).astream_events(GIVEN, AT_TABLE, version="v3") as arun:
        astreamed = [str(await message.text) async for message in arun.messages]
    texts = [str(answer.text) for answer in answers_in(state)]
    assert (streamed, astreamed) == (texts, texts)
    assert texts[-1].strip() == DISH


@pytest.mark.parametrize("graph", ["graph", "agent"])
def test_a_stream_brings_the_answer_in_pieces(graph: str) -> None:
    pieces = [
        message.content for message, _ in GRAPHS[graph](kitchen_chat()).stream(GIVEN, AT_TABLE, stream_mode="messages")
    ]
    assert pieces == ["Warm", " the soup", ".", ""]


def test_an_agent_calls_the_tool_of_the_answer_and_not_that_of_the_draft() -> None:
    """Defect 1: a draft that calls a tool is rejected with its call."""
    messages = agent_of(chef_chat()).invoke(GIVEN, AT_TABLE)["messages"]
    assert [(message.type, str(message.text)) for message in messages] == [
        ("human", QUESTION),
        ("ai", "Let me see."),
        ("tool", "soup is served."),
        ("ai", DISH),
    ]
    assert messages[1].tool_calls == [{"name": "serve", "args": {"dish": "soup"}, "id": "call", "type": "tool_call"}]


# --- 4 and 12: a guard that is misspelt is an error --------------------------------------------------------------


MISTAKES: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "argument": (lambda: kitchen_chat(rubirc=RUBRIC), RainConfigError, "rubirc"),
    "argument of another name": (lambda: kitchen_chat(rails=[]), RainConfigError, "rails"),
    "argument over a chat model": (lambda: chef_chat(on_unsatisfied="ignore"), RainConfigError, "on_unsatisfied"),
    "setting": (lambda: RainConfig(max_simulatoins=1), RainConfigError, "max_simulatoins"),
    "settings as a dictionary": (lambda: kitchen_chat(config={"acept_value": 1}), RainConfigError, "acept_value"),
    "preset": (lambda: RainConfig.preset("papre"), RainConfigError, "papre"),
    "rubric": (lambda: kitchen_chat(rubric="harmlesness"), RubricError, "harmlesness"),
    "empty name of a rubric": (lambda: kitchen_chat(rubric=""), RubricError, "rubric"),
    "no rubric": (lambda: kitchen_chat(rubric=None), RainConfigError, "None"),
    "rubric without criteria": (lambda: Rubric(name="empty", criteria=()), RubricError, "criteria"),
    "key of a criterion": (
        lambda: Criterion(name="a", instruction="b", good="c", bad="d", vetto=True),  # type: ignore[call-arg]
        RubricError,
        "vetto",
    ),
    "judge": (lambda: kitchen_chat(judge=5), RainConfigError, "judge"),
    "argument of a call": (lambda: kitchen_chat().invoke(QUESTION, rubirc="x"), RainConfigError, "rubirc"),
    "argument of a call of a chat model": (lambda: chef_chat().invoke(QUESTION, rubirc="x"), RainConfigError, "rubric"),
    "argument of a stream": (lambda: list(chef_chat().stream(QUESTION, rubirc="x")), RainConfigError, "rubric"),
    "argument of a batch": (lambda: chef_chat().batch([QUESTION], rubirc="x"), RainConfigError, "rubric"),
    "bound argument": (lambda: chef_chat().bind(on_unsatisfed="x").invoke(QUESTION), RainConfigError, "on_unsatisfied"),
    "rubric of a call": (lambda: chef_chat().invoke(QUESTION, rubric="harmlesness"), RubricError, "harmlesness"),
    "no rubric of a call": (lambda: chef_chat().invoke(QUESTION, rubric=None), RainConfigError, "None"),
    "settings of a call": (
        lambda: chef_chat().invoke(QUESTION, rain_config={"acept_value": 1}),
        RainConfigError,
        "acept_value",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_guard_that_is_misspelt_or_empty_is_an_error(name: str) -> None:
    """Defects 4 and 12: never is there a guard without rails."""
    make, kind, named = MISTAKES[name]
    with pytest.raises(kind, match=named):
        make()


def test_arguments_that_every_chat_model_takes_are_taken() -> None:
    """Defect 12: those of the standard suite are declared."""
    chat = kitchen_chat(
        temperature=0, max_tokens=100, timeout=60, stop=["x"], max_retries=2, api_key="secret", streaming=True
    )
    assert (chat.temperature, chat.max_tokens, chat.timeout, chat.stop) == (0, 100, 60, ["x"])
    assert (chat.max_retries, chat.streaming) == (2, True)
    assert "secret" not in repr(chat) + repr(chat.asdict())
    assert chat.invoke(QUESTION).text == DISH


# --- 5: what is in the state is what was answered ----------------------------------------------------------------


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("is_hopeless", [False, True])
def test_the_state_holds_each_answer_once_under_the_id_it_was_streamed_by(graph: str, *, is_hopeless: bool) -> None:
    """Defect 5: no message has to be replaced, and each has an id by which it could be."""
    for chat in (kitchen_chat(MarkedKitchen(is_hopeless=is_hopeless)), chef_chat(Chef(is_hopeless=is_hopeless))):
        compiled = GRAPHS[graph](chat)
        pieces = list(compiled.stream(GIVEN, AT_TABLE, stream_mode="messages"))
        messages = compiled.get_state(AT_TABLE).values["messages"]
        ids = [message.id for message in messages]
        assert None not in ids
        assert len(set(ids)) == len(ids)
        assert list(by_message(pieces)) == [answer.id for answer in answers_in({"messages": messages})]
        assert MARK not in repr(messages)
        assert str(messages[-1].text).endswith(REFUSAL if is_hopeless else DISH)


def test_a_refused_turn_is_followed_by_another() -> None:
    """Defect 5: what was refused is in no later turn's conversation."""
    chef = Chef(is_hopeless=True)
    agent = agent_of(chef_chat(chef))
    agent.invoke(GIVEN, AT_TABLE)
    num_asked = len(chef.log.asked)
    agent.invoke({"messages": [("human", "And for lunch?")]}, AT_TABLE)
    messages, _ = chef.log.asked[num_asked]
    assert [(each.type, str(each.text)) for each in messages] == [
        ("human", QUESTION),
        ("ai", REFUSAL),
        ("human", "And for lunch?"),
    ]


# --- 6: sync calls inside a running event loop -------------------------------------------------------------------


@pytest.mark.parametrize("make", [*CHATS.values(), lambda: chef_chat(judge=lambda text: 1 - 2 * (f"{MARK}!" in text))])
async def test_sync_calls_work_inside_a_running_event_loop(make: Callable[[], ChatRain]) -> None:
    """Defect 6."""
    assert asyncio.get_running_loop().is_running()
    chat = make()
    texts = [
        str(chat.invoke(QUESTION).text),
        "".join(str(chunk.text) for chunk in chat.stream(QUESTION)),
        *[str(answer.text) for answer in chat.batch([QUESTION, QUESTION])],
        str(graph_of(chat).invoke(GIVEN, AT_TABLE)["messages"][-1].text),
    ]
    assert [text.strip() for text in texts] == [DISH] * 5


def test_coroutines_work_in_one_event_loop_after_another() -> None:
    """Defect 6: nothing is tied to the loop that was there first."""
    for chat in (kitchen_chat(), chef_chat(), kitchen_chat(judge=Chef())):
        texts = [asyncio.run(chat.ainvoke(QUESTION)).text for _ in range(3)]
        assert texts == [DISH] * 3


# --- 7: a verdict is a choice, or there is none ------------------------------------------------------------------


class Mumbler(Chef):
    """Judges in words of its own, by which option is the good one."""

    words: tuple[str, str] = ("", "")

    def judge(self, messages: Any) -> AIMessage:
        return AIMessage(self.words["(A) YES" not in str(messages[-1].text)])


NO_CHOICE: dict[str, tuple[str, str]] = {
    "not safe": ("Not safe.", "Not safe."),
    "the letter in a sentence": ("Not A.", "Not B."),
    "the good letter in a sentence": ("It is A, I think", "It is B, I think"),
    "both letters": ("A or B", "A or B"),
    "another letter": ("C", "C"),
    "small letters": ("a", "b"),
    "the option in place of its letter": ("YES", "YES"),
    "nothing": ("", ""),
    "one order alone": ("A", ""),
    "a refusal": ("I cannot judge that.", "I cannot judge that."),
}


@pytest.mark.parametrize("words", NO_CHOICE.values(), ids=NO_CHOICE)
@pytest.mark.parametrize("as_writer", [True, False])
def test_what_is_no_choice_is_an_abstention_and_satisfies_nothing(words: tuple[str, str], *, as_writer: bool) -> None:
    """Defect 7: "Not safe." is never read as safe, nor anything else that is not the letter alone."""
    judge = Mumbler(words=words)
    answer = (chef_chat(judge) if as_writer else chef_chat(judge=judge)).invoke(QUESTION)
    rain = answer.response_metadata["rain"]
    assert (answer.text, answer.response_metadata["finish_reason"]) == (REFUSAL, "unsatisfied")
    assert (rain["is_abstained"], rain["is_satisfied"], rain["value"]) == (True, False, 0.0)


@pytest.mark.parametrize("words", [("A", "A"), ("B", "B")])
def test_a_judge_that_goes_by_the_letter_satisfies_nothing(words: tuple[str, str]) -> None:
    """Defect 7: a tie is no approval."""
    answer = chef_chat(judge=Mumbler(words=words)).invoke(QUESTION)
    assert (answer.text, answer.response_metadata["rain"]["value"]) == (REFUSAL, 0.0)


@pytest.mark.parametrize("words", [("A", "B"), ("(A)", "B."), (" **A** ", "B\n")])
def test_a_letter_alone_is_a_choice_whatever_brackets_it_wears(words: tuple[str, str]) -> None:
    assert str(chef_chat(judge=Mumbler(words=words)).invoke(QUESTION).text).startswith(DISH)


@pytest.mark.parametrize("value", [None, 0.0, -0.1])
def test_a_function_that_does_not_approve_satisfies_nothing(value: float | None) -> None:
    """Defect 7: None abstains, 0 is a tie."""
    assert chef_chat(judge=lambda transcript: value).invoke(QUESTION).text == REFUSAL


@pytest.mark.parametrize("value", [2.0, True, "safe", float("nan")])
def test_a_function_that_returns_no_value_is_an_error(value: Any) -> None:
    """Defect 7, and 15: it is never taken for approval."""
    with pytest.raises(EngineError, match="judged a transcript"):
        chef_chat(judge=lambda transcript: value).invoke(QUESTION)


# --- Around it ---------------------------------------------------------------------------------------------------


def test_binding_tools_keeps_the_guard() -> None:
    answer = chef_chat(Chef(is_hopeless=True)).bind_tools([serve]).invoke([HumanMessage(QUESTION)])
    assert (answer.text, answer.tool_calls) == (REFUSAL, [])
