"""Structured output: by a tool where there are tools, else as JSON that is checked; never an answer that was not."""

import functools
import json
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from langchain_rain import ChatRain, RainConfigError
from tests.fake_chat_models import FakeChat, FakeChatWithoutTools, in_turn, letter_judge
from tests.scripted_world import CONFIG, REFUSAL
from tests.test_chat_standard import CHEAP, tool_engine
from tests.tiny_models import UNTRIED


class Dish(BaseModel):
    """What is for supper."""

    name: str
    minutes: int = Field(gt=0)


class DishDict(TypedDict):
    """What is for supper."""

    name: str
    minutes: int


class Joke(BaseModel):
    """Joke to tell user."""

    setup: str = Field(description="question to set up a joke")
    punchline: str = Field(description="answer to resolve the joke")


DISH_SCHEMA = Dish.model_json_schema()
SOUP = {"name": "soup", "minutes": 20}
ASKED = "What is for supper?"
SCHEMAS = pytest.mark.parametrize(
    ("schema", "expected"),
    [
        pytest.param(Dish, Dish(name="soup", minutes=20), id="pydantic"),
        pytest.param(DishDict, SOUP, id="typeddict"),
        pytest.param(DISH_SCHEMA, SOUP, id="json_schema"),
    ],
)


def likes_all(transcript: str) -> float:
    return 1.0


def writer(*answers: Any) -> FakeChat:
    """A chat model that gives these answers one after another, as JSON if they are no text."""
    texts = [answer if isinstance(answer, str) else json.dumps(answer) for answer in answers]
    return FakeChat(reply=in_turn(*map(AIMessage, texts)))


def toolless(inner: FakeChat, **arguments: Any) -> ChatRain:
    """ChatRain over a model that has no tools."""
    settings = {"model": FakeChatWithoutTools(inner=inner), "judge": likes_all, "config": CONFIG, "seed": 1}
    return ChatRain(**{**settings, **arguments})


def instruction(schema: Any) -> str:
    shown = json.dumps(convert_to_json_schema(schema), ensure_ascii=False)
    return f"Answer with one JSON object alone that matches this JSON schema:\n{shown}"


# --- Without tools -----------------------------------------------------------------------------------------------


@SCHEMAS
async def test_without_tools_the_schema_is_put_into_the_conversation_and_the_answer_is_read(
    schema: Any, expected: Any
) -> None:
    inner = writer(SOUP)
    chat = toolless(inner).with_structured_output(schema)
    assert chat.invoke(ASKED) == expected
    assert await chat.ainvoke(ASKED) == expected
    assert chat.batch([ASKED]) == [expected]
    assert inner.asked == [([SystemMessage(instruction(schema)), HumanMessage(ASKED)], {})] * 3


def test_the_schema_follows_the_system_message_of_the_user() -> None:
    inner = writer(SOUP)
    toolless(inner).with_structured_output(Dish).invoke([SystemMessage("Be brief."), HumanMessage(ASKED)])
    ((messages, _),) = inner.asked
    assert messages == [SystemMessage(f"Be brief.\n\n{instruction(Dish)}"), HumanMessage(ASKED)]


@SCHEMAS
async def test_a_stream_gives_the_whole_answer_once_it_is_checked(schema: Any, expected: Any) -> None:
    chat = toolless(writer(SOUP)).with_structured_output(schema)
    assert list(chat.stream(ASKED)) == [expected]
    assert [piece async for piece in chat.astream(ASKED)] == [expected]


def test_json_in_a_fence_is_read() -> None:
    assert toolless(writer(f"```json\n{json.dumps(SOUP)}\n```")).with_structured_output(DishDict).invoke(ASKED) == SOUP


MISTAKES = pytest.mark.parametrize(
    ("schema", "answer"),
    [
        pytest.param(Dish, "Soup, I think.", id="no JSON"),
        pytest.param(Dish, {"name": "soup", "minutes": 0}, id="value out of range"),
        pytest.param(Dish, {"name": "soup"}, id="field missing"),
        pytest.param(Dish, [SOUP], id="no object"),
        pytest.param(DishDict, {"name": "soup"}, id="typeddict, field missing"),
        pytest.param(DISH_SCHEMA, {"name": "soup"}, id="json schema, field missing"),
        pytest.param(DISH_SCHEMA, [SOUP], id="json schema, no object"),
        pytest.param(DISH_SCHEMA, "Soup, I think.", id="json schema, no JSON"),
        pytest.param(DISH_SCHEMA, "", id="json schema, nothing"),
    ],
)


@MISTAKES
def test_an_answer_that_does_not_match_raises(schema: Any, answer: Any) -> None:
    chat = toolless(writer(answer)).with_structured_output(schema)
    with pytest.raises(OutputParserException):
        chat.invoke(ASKED)
    with pytest.raises(OutputParserException):
        list(chat.stream(ASKED))


@MISTAKES
async def test_async_it_raises_too(schema: Any, answer: Any) -> None:
    chat = toolless(writer(answer)).with_structured_output(schema)
    with pytest.raises(OutputParserException):
        await chat.ainvoke(ASKED)
    with pytest.raises(OutputParserException):
        _ = [piece async for piece in chat.astream(ASKED)]


@MISTAKES
@pytest.mark.parametrize("method", ["json_schema", "json_mode"])
def test_include_raw_gives_the_message_and_the_error_instead(schema: Any, answer: Any, method: str) -> None:
    chat = toolless(writer(answer)).with_structured_output(schema, include_raw=True, method=method)
    result: Any = chat.invoke(ASKED)
    assert result.keys() == {"raw", "parsed", "parsing_error"}
    assert isinstance(result["raw"], AIMessage)
    assert result["raw"].content == (answer if isinstance(answer, str) else json.dumps(answer))
    assert result["parsed"] is None
    assert isinstance(result["parsing_error"], OutputParserException)


@SCHEMAS
def test_include_raw_gives_the_message_beside_what_was_read(schema: Any, expected: Any) -> None:
    chat: Any = toolless(writer(SOUP)).with_structured_output(schema, include_raw=True)
    for result in (chat.invoke(ASKED), functools.reduce(operator.add, chat.stream(ASKED))):
        assert (result["raw"].content, result["parsed"], result["parsing_error"]) == (json.dumps(SOUP), expected, None)


def test_an_answer_that_was_refused_is_no_structured_output() -> None:
    chat = toolless(writer(SOUP), judge=lambda transcript: -1.0)
    with pytest.raises(OutputParserException):
        chat.with_structured_output(Dish).invoke(ASKED)
    result: Any = chat.with_structured_output(Dish, include_raw=True).invoke(ASKED)
    assert (result["raw"].content, result["parsed"]) == (REFUSAL, None)


# --- Methods -----------------------------------------------------------------------------------------------------


@SCHEMAS
def test_json_mode_leaves_the_instruction_to_the_user(schema: Any, expected: Any) -> None:
    inner = writer(SOUP)
    assert toolless(inner).with_structured_output(schema, method="json_mode").invoke(ASKED) == expected
    assert inner.asked == [([HumanMessage(ASKED)], {})]


def test_a_model_with_tools_goes_by_json_where_that_is_asked_for() -> None:
    inner = writer(SOUP)
    chat = ChatRain(model=inner, judge=likes_all, seed=1).with_structured_output(Dish, method="json_schema")
    assert chat.invoke(ASKED) == Dish(name="soup", minutes=20)
    assert inner.asked == [([SystemMessage(instruction(Dish)), HumanMessage(ASKED)], {})]


def test_a_method_that_is_not_there_is_an_error() -> None:
    with pytest.raises(
        RainConfigError,
        match=r"^method: 'function_calling', 'json_schema' or 'json_mode' is allowed, given 'json-mode'\.$",
    ):
        toolless(writer(SOUP)).with_structured_output(Dish, method="json-mode")


@pytest.mark.parametrize("method", [None, "function_calling", "json_schema", "json_mode"])
def test_an_argument_that_is_not_there_is_an_error(method: str | None) -> None:
    chat = ChatRain(model=writer(SOUP), judge=likes_all)
    with pytest.raises(RainConfigError, match=r"takes include_raw, method and strict; given includeraw\.$"):
        chat.with_structured_output(Dish, method=method, includeraw=True)


def test_calling_a_tool_of_a_model_without_tools_is_an_error() -> None:
    with pytest.raises(RainConfigError, match="cannot call tools"):
        toolless(writer(SOUP)).with_structured_output(Dish, method="function_calling")


# --- With tools --------------------------------------------------------------------------------------------------


def serving(messages: Sequence[BaseMessage], arguments: Mapping[str, Any]) -> AIMessage:
    """Calls the tool it is given with soup."""
    (schema,) = arguments["tools"]
    return AIMessage("", tool_calls=[{"name": schema["function"]["name"], "args": SOUP, "id": "call_1"}])


@SCHEMAS
@pytest.mark.parametrize("method", [None, "function_calling"])
async def test_with_tools_the_schema_is_a_tool_that_must_be_called(
    schema: Any, expected: Any, method: str | None
) -> None:
    inner = FakeChat(reply=serving)
    chat = ChatRain(model=inner, judge=likes_all, seed=1).with_structured_output(schema, method=method, strict=True)
    assert chat.invoke(ASKED) == expected
    assert await chat.ainvoke(ASKED) == expected
    assert [*chat.stream(ASKED)][-1] == expected
    asked = ([HumanMessage(ASKED)], {"tools": [convert_to_openai_tool(schema)], "tool_choice": "any"})
    assert inner.asked == [asked] * 3


async def test_a_local_model_with_tools_calls_one() -> None:
    chat = ChatRain(model=tool_engine(), rubric=UNTRIED, config=CHEAP, seed=1).with_structured_output(
        Joke, include_raw=True
    )
    question = "Tell me a joke about cats."
    joke = Joke(setup="Why did the cat sit on the computer?", punchline="To keep an eye on the mouse!")
    for result in (chat.invoke(question), await chat.ainvoke(question)):
        assert isinstance(result, dict)
        assert (result["parsed"], result["parsing_error"]) == (joke, None)
        assert [(call["name"], call["args"]) for call in result["raw"].tool_calls] == [("Joke", joke.model_dump())]


class Starts(BaseCallbackHandler):
    """Remembers the options and the parent of every chat model that starts."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, Any, Any]] = []

    def on_chat_model_start(self, serialized: Any, messages: Any, *, options: Any = None, **kwargs: Any) -> None:
        self.seen.append((kwargs["run_id"], kwargs.get("parent_run_id"), options.get("ls_structured_output_format")))


@pytest.mark.parametrize("method", ["function_calling", "json_schema", "json_mode"])
@pytest.mark.parametrize("schema", [Dish, DishDict, DISH_SCHEMA])
def test_the_format_is_told_to_tracers_by_the_answer_and_not_by_its_drafts_and_judgements(
    schema: Any, method: str
) -> None:
    inner = FakeChat(reply=serving) if method == "function_calling" else writer(SOUP)
    chat = ChatRain(model=inner, judge=letter_judge(), seed=1).with_structured_output(schema, method=method)
    for call in (chat.invoke, lambda *given: list(chat.stream(*given))):
        starts = Starts()
        call(ASKED, {"callbacks": [starts]})
        (run_id, _, told), *others = starts.seen
        assert told == {"kwargs": {"method": method}, "schema": convert_to_json_schema(schema)}
        assert [(parent, format_told) for _, parent, format_told in others] == [(run_id, None)] * 3
