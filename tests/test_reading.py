"""From the text of an answer to what is shown of it, and to its tool calls."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage
from transformers import AutoTokenizer

from langchain_rain.engines.reading import PlainReader, ToolReader

TOKENIZER: Any = AutoTokenizer.from_pretrained(Path(__file__).resolve().parent / "tool_model")
STOVE = {
    "type": "function",
    "function": {"name": "stove", "description": "Heats.", "parameters": {"type": "object", "properties": {}}},
}
PROMPT = TOKENIZER.apply_chat_template(
    [{"role": "user", "content": "Cook."}], tools=[STOVE], add_generation_prompt=True, tokenize=False
)


def tool_reader(*, beginning: str = "", salt: str = PROMPT) -> ToolReader:
    parser = TOKENIZER.get_response_parser(prefix=PROMPT, tools=[STOVE])
    return ToolReader(parser, frozenset({"stove"}), salt, beginning=beginning)


def called(name: Any = "stove", arguments: Any = None) -> str:
    content = json.dumps({"name": name, "arguments": {"on": True} if arguments is None else arguments})
    return f"<tool_call>\n{content}\n</tool_call>"


def read(*pieces: str, beginning: str = "") -> tuple[list[str], AIMessage]:
    """What each piece adds to what is shown, and the whole message."""
    reader = tool_reader(beginning=beginning)
    shown = [reader.feed(piece) for piece in pieces]
    return shown, reader.message(())


def calls_of(message: AIMessage) -> list[tuple[str, dict[str, Any]]]:
    return [(call["name"], call["args"]) for call in message.tool_calls]


# --- Plain text --------------------------------------------------------------------------------------------------


def test_text_is_shown_as_it_is() -> None:
    reader = PlainReader()
    assert [reader.feed(piece) for piece in (" Warm", "", " the soup", ".\n")] == [" Warm", "", " the soup", ".\n"]
    assert reader.message((1, 2)) == AIMessage(" Warm the soup.\n")
    assert reader.beginning == ""


def test_the_space_after_the_name_of_the_speaker_is_not_shown() -> None:
    reader = PlainReader(skips_space=True)
    assert [reader.feed(piece) for piece in (" ", "  Warm", " the soup ")] == ["", "Warm", " the soup "]
    assert reader.message(()) == AIMessage("Warm the soup ")


def test_an_answer_of_nothing_is_an_empty_message() -> None:
    assert PlainReader(skips_space=True).message(()) == AIMessage("")
    assert read()[1] == AIMessage("")


# --- Calls -------------------------------------------------------------------------------------------------------


def test_content_is_shown_and_a_call_is_not() -> None:
    shown, message = read("At once", ".", "\n<tool", "_call>\n", called().removeprefix("<tool_call>\n"))
    assert shown == ["At once", ".", "\n", "", ""]
    assert (message.content, calls_of(message)) == ("At once.\n", [("stove", {"on": True})])
    assert message.invalid_tool_calls == []


def test_what_may_begin_a_call_is_held_back_until_it_is_decided() -> None:
    shown, message = read("3 <", "to", "ol", " 4")
    assert shown == ["3 ", "", "", "<tool 4"]
    assert (message.content, message.tool_calls) == ("3 <tool 4", [])


def test_several_calls_keep_their_order_and_have_ids_of_their_own() -> None:
    _, message = read(called(arguments={"dish": "soup"}) + called(arguments={"dish": "stew"}))
    assert calls_of(message) == [("stove", {"dish": "soup"}), ("stove", {"dish": "stew"})]
    assert len({call["id"] for call in message.tool_calls}) == 2


def test_the_ids_are_those_of_the_answer_and_the_turn() -> None:
    def id_of(text: str, salt: str) -> Any:
        reader = tool_reader(salt=salt)
        reader.feed(text)
        return reader.message(()).tool_calls[0]["id"]

    assert id_of(called(), "turn 1") == id_of(called(), "turn 1")
    assert len({id_of(called(), "turn 1"), id_of(called(), "turn 2"), id_of(f"Now. {called()}", "turn 1")}) == 3


def test_what_an_answer_was_made_to_begin_with_is_read_with_it() -> None:
    whole = called()
    beginning = '<tool_call>\n{"name": "stove'
    assert whole.startswith(beginning)
    shown, message = read(whole.removeprefix(beginning), beginning=beginning)
    assert (shown, message.content, calls_of(message)) == ([""], "", [("stove", {"on": True})])


def test_arguments_may_be_json_in_a_string() -> None:
    assert calls_of(read(called(arguments='{"on": false}'))[1]) == [("stove", {"on": False})]


# --- What cannot be a call ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments", "told_name", "told_arguments"),
    [
        ("oven", {"on": True}, "oven", '{"on": true}'),  # nobody offered one
        ("stove", [1], "stove", "[1]"),
        ("stove", "high", "stove", '"high"'),
        ("stove", "[1]", "stove", "[1]"),
        ("stove", 5, "stove", "5"),
        (None, {}, "None", "{}"),
        (7, {}, "7", "{}"),
    ],
)
def test_a_call_that_was_not_offered_is_invalid_and_not_dropped(
    name: Any, arguments: Any, told_name: str, told_arguments: str
) -> None:
    _, message = read("At once." + called(name, arguments) + called())
    assert (message.content, calls_of(message)) == ("At once.", [("stove", {"on": True})])
    (invalid,) = message.invalid_tool_calls
    assert (invalid["name"], invalid["args"]) == (told_name, told_arguments)
    assert invalid["error"] == "Calls of ['stove'] with a dictionary of arguments are allowed."
    assert invalid["id"] != message.tool_calls[0]["id"]


@pytest.mark.parametrize(
    "call",
    [
        "<tool_call>\nno json\n</tool_call> and more",
        '<tool_call>\n{"name": "sto',  # cut short
        '<tool_call>\n{"name": "stove"}\n</tool_call>',  # without arguments
        "<tool_call>",
        f'{called()}<tool_call>{{"name": </tool_call>',
    ],
)
def test_what_is_no_call_at_all_is_invalid_with_all_that_was_written(call: str) -> None:
    _, message = read("At once.\n" + call)
    assert (message.content, message.tool_calls) == ("At once.\n", [])
    (invalid,) = message.invalid_tool_calls
    assert (invalid["name"], invalid["args"]) == (None, "At once.\n" + call)
    assert (invalid["error"] or "").startswith("ValueError: ")


def test_nothing_is_shown_after_what_could_not_be_read() -> None:
    assert read("At once.", "<tool_call>no</tool_call>", " And", " more.")[0] == ["At once.", "", "", ""]


ANSWERS = [
    "Warm the soup.",
    "3 < 4 and <b>",
    f"At once.\n{called()}",
    called() + called("oven"),
    f"{called()} Done. {called()}",
    "At once.<tool_call>no</tool_call> x",
    '<tool_call>\n{"name": "sto',
]


@settings(deadline=None)
@given(st.sampled_from(ANSWERS), st.lists(st.integers(0, 80), max_size=5))
def test_a_message_is_what_was_shown_and_the_same_however_it_was_cut(answer: str, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(answer)) for cut in cuts), len(answer)]
    pieces = [answer[start:end] for start, end in pairwise(edges)]
    shown, message = read(*pieces)
    (at_once,), whole = read(answer)
    assert "".join(shown) == at_once
    assert message == whole
    assert str(message.content).startswith(at_once)
