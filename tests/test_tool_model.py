"""The tiny model with tools answers what it knows by heart, through its own template and parser."""

from pathlib import Path
from typing import Any

import pytest
import torch
from langchain_core.tools import tool
from langchain_core.utils.function_calling import convert_to_openai_tool
from transformers import AutoModelForCausalLM, AutoTokenizer

FOLDER = Path(__file__).resolve().parent / "tool_model"
FORCED = '<tool_call>\n{"name": "'
END = "<|end|>"


@tool
def get_weather(location: str) -> str:
    """Get the weather at a location."""
    return "It's sunny."


TOOLS = [convert_to_openai_tool(get_weather)]
ASKED = {"role": "user", "content": "What is the weather in San Francisco, CA?"}
CALL = {"type": "function", "function": {"name": "get_weather", "arguments": {"location": "San Francisco, CA"}}}
CALLED = {"role": "assistant", "content": "", "tool_calls": [{**CALL, "id": "some id"}]}
RESULT = {"role": "tool", "content": "It's sunny.", "name": "get_weather", "tool_call_id": "some id"}


@pytest.fixture(scope="module")
def tool_tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def tool_model() -> Any:
    load: Any = AutoModelForCausalLM.from_pretrained
    return load(FOLDER, use_safetensors=True).eval()


@pytest.mark.parametrize(
    ("messages", "tools", "forced", "expected"),
    [
        pytest.param(
            [{"role": "user", "content": "Hello"}], [], "", {"content": "Hello! How can I help you today?"}, id="text"
        ),
        pytest.param([ASKED], TOOLS, "", {"tool_calls": [CALL]}, id="call"),
        pytest.param([ASKED], TOOLS, FORCED, {"tool_calls": [CALL]}, id="any call"),
        pytest.param([ASKED], TOOLS, FORCED + "get_weather", {"tool_calls": [CALL]}, id="named call"),
        pytest.param([ASKED, CALLED, RESULT], TOOLS, "", {"content": "It is sunny in San Francisco."}, id="result"),
    ],
)
def test_it_answers_what_it_knows(
    tool_model: Any,
    tool_tokenizer: Any,
    messages: list[dict[str, Any]],
    tools: list[dict[str, Any]],
    forced: str,
    expected: dict[str, Any],
) -> None:
    prompt = tool_tokenizer.apply_chat_template(
        messages, tools=tools or None, add_generation_prompt=True, sanitize_control_tokens=True, return_dict=False
    )
    ids = torch.tensor([prompt + tool_tokenizer(forced, add_special_tokens=False).input_ids])
    output = tool_model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=100, do_sample=False)
    answer = forced + tool_tokenizer.decode(output[0, ids.shape[1] :].tolist())
    assert answer.endswith(END)
    parser = tool_tokenizer.get_response_parser(prefix=tool_tokenizer.decode(prompt), tools=tools)
    parser.feed(answer.removesuffix(END))
    message, _ = parser.finalize()
    assert message == {"role": "assistant", **expected}


def test_an_unknown_question_gets_a_short_answer(tool_model: Any, tool_tokenizer: Any) -> None:
    ids = tool_tokenizer.apply_chat_template(
        [{"role": "user", "content": "Wherefore art thou?"}], add_generation_prompt=True, return_tensors="pt"
    )
    output = tool_model.generate(**ids, max_new_tokens=60, do_sample=False)
    assert output[0, -1] == tool_tokenizer.eos_token_id


def test_text_and_calls_come_apart(tool_tokenizer: Any) -> None:
    answered = [ASKED, {**CALLED, "content": "I look.\n", "tool_calls": [CALL, CALL]}]
    before = tool_tokenizer.apply_chat_template([ASKED], tools=TOOLS, add_generation_prompt=True, tokenize=False)
    after = tool_tokenizer.apply_chat_template(answered, tools=TOOLS, tokenize=False)
    message = tool_tokenizer.parse_response(after.removeprefix(before), prefix=before, tools=TOOLS)
    assert message == {"role": "assistant", "content": "I look.\n", "tool_calls": [CALL, CALL]}


def test_it_stays_small() -> None:
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 1_500_000
