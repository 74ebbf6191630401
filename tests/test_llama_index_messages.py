"""Messages between LlamaIndex and LangChain: roles, tool calls, results, ids, images, thoughts."""

from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.messages.tool import invalid_tool_call, tool_call
from llama_index.core.base.llms.types import (
    AudioBlock,
    CacheControl,
    CachePoint,
    ChatMessage,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)

from langchain_rain import RainConfigError
from langchain_rain.llama_index.messages import arguments_of, to_langchain, to_llama_index, to_response

CALL = tool_call(name="add", args={"a": 1, "b": 2}, id="call_1")
CALL_BLOCK = ToolCallBlock(tool_call_id="call_1", tool_name="add", tool_kwargs={"a": 1, "b": 2})


@pytest.mark.parametrize(
    ("role", "kind"),
    [
        (MessageRole.SYSTEM, SystemMessage),
        (MessageRole.DEVELOPER, SystemMessage),
        (MessageRole.USER, HumanMessage),
        (MessageRole.ASSISTANT, AIMessage),
        (MessageRole.CHATBOT, AIMessage),
        (MessageRole.MODEL, AIMessage),
    ],
)
def test_every_role_has_its_message(role: MessageRole, kind: type[BaseMessage]) -> None:
    (message,) = to_langchain([ChatMessage(role=role, content="Hello.")])
    assert (type(message), message.content) == (kind, "Hello.")


@pytest.mark.parametrize("role", [MessageRole.TOOL, MessageRole.FUNCTION])
def test_results_of_tools_keep_the_id_of_their_call(role: MessageRole) -> None:
    told = {"tool_call_id": "call_1", "name": "add"}
    (message,) = to_langchain([ChatMessage(role=role, content="3", additional_kwargs=told)])
    assert message == ToolMessage("3", tool_call_id="call_1", name="add")
    with pytest.raises(RainConfigError, match="needs the id of the call"):
        to_langchain([ChatMessage(role=role, content="3")])


def test_calls_keep_names_arguments_and_ids_both_ways() -> None:
    message = ChatMessage(role=MessageRole.ASSISTANT, blocks=[TextBlock(text="Let me see."), CALL_BLOCK])
    (sent,) = to_langchain([message])
    assert sent == AIMessage("Let me see.", tool_calls=[CALL])
    assert isinstance(sent, AIMessage)
    assert to_llama_index(sent) == message


@pytest.mark.parametrize("is_object", [False, True])
def test_calls_that_another_integration_noted_are_read(is_object: bool) -> None:
    class Noted:
        def model_dump(self) -> dict[str, Any]:
            return {"id": "call_1", "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}}

    noted: Any = Noted() if is_object else Noted().model_dump()
    message = ChatMessage(role=MessageRole.ASSISTANT, content="", additional_kwargs={"tool_calls": [noted]})
    assert to_langchain([message]) == [AIMessage("", tool_calls=[CALL])]


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({"a": 1}, {"a": 1}),
        ('{"a": 1}', {"a": 1}),
        ("[1]", {"arguments": "[1]"}),
        ('{"a": ', {"arguments": '{"a": '}),
    ],
)
def test_arguments_are_read_or_kept_as_they_are(given: Any, read: dict[str, Any]) -> None:
    assert arguments_of(given) == read


def test_texts_and_images_are_passed_on() -> None:
    image = ImageBlock(image=b"\x89PNG\r\n\x1a\n", image_mimetype="image/png")
    here = ImageBlock(url="https://example.org/soup.png")
    blocks = [TextBlock(text="What is this?"), image, here, CachePoint(cache_control=CacheControl(type="ephemeral"))]
    (message,) = to_langchain([ChatMessage(role=MessageRole.USER, blocks=blocks)])
    assert message.content == [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": image.inline_url()}},
        {"type": "image_url", "image_url": {"url": "https://example.org/soup.png"}},
    ]
    several = ChatMessage(role=MessageRole.USER, blocks=[TextBlock(text="One."), TextBlock(text="Two.")])
    assert to_langchain([several]) == [HumanMessage("One.\nTwo.")]


def test_what_cannot_be_passed_on_is_an_error_that_names_it() -> None:
    audio = ChatMessage(role=MessageRole.USER, blocks=[AudioBlock(audio=b"la la", format="wav")])
    with pytest.raises(RainConfigError, match="a block of type 'audio'"):
        to_langchain([audio])


def test_thoughts_are_told_apart_from_what_is_said() -> None:
    thought = AIMessage([{"type": "reasoning", "reasoning": "Hm."}, {"type": "text", "text": "Soup."}])
    message = to_llama_index(thought)
    assert message.blocks == [ThinkingBlock(content="Hm."), TextBlock(text="Soup.")]
    assert to_langchain([message]) == [AIMessage("Soup.")]


def test_a_call_that_cannot_be_made_is_told_of_and_not_offered() -> None:
    wrong = invalid_tool_call(name="add", args="invalid: {", id="call_1", error=None)
    response = to_response(AIMessage("Let me see.", invalid_tool_calls=[wrong]))
    assert response.message.blocks == [TextBlock(text="Let me see.")]
    assert response.raw == {"invalid_tool_calls": [wrong]}


def test_an_answer_that_says_nothing_is_an_empty_text() -> None:
    assert to_llama_index(AIMessage("")).content == ""
    assert to_llama_index(AIMessage("", tool_calls=[CALL])).blocks == [CALL_BLOCK]
