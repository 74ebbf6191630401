"""Chat models without weights, which answer by a rule: as writers and as judges behind ChatRain."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import tool_call
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import PrivateAttr, SkipValidation

PACKAGE = Path(__file__).parents[1] / "langchain_rain"

Reply: TypeAlias = Callable[[Sequence[BaseMessage], Mapping[str, Any]], AIMessage]
"""What a model answers to a conversation, given the arguments of the call."""


def obliging(messages: Sequence[BaseMessage], arguments: Mapping[str, Any]) -> AIMessage:
    """Calls the tool it must call, or the first there is when it is asked something; else it says thank you, in JSON
    where the conversation wants that."""
    asked = str(messages[-1].text)
    tools, choice = arguments.get("tools") or [], arguments.get("tool_choice")
    if tools and (choice is not None or isinstance(messages[-1], HumanMessage)):
        functions = [each["function"] for each in tools]
        called = next((each for each in functions if each["name"] == choice), functions[0])
        fields = filled(called.get("parameters", {}), asked)
        return AIMessage("", tool_calls=[tool_call(name=called["name"], args=fields, id=f"call_{len(messages)}")])
    if "JSON" in "".join(str(message.text) for message in messages):
        return AIMessage(json.dumps(_json_answer(messages)))
    return AIMessage(f"Thank you: {asked}")


def filled(schema: Mapping[str, Any], text: str) -> dict[str, Any]:
    """The required fields of a JSON schema: numbers as they come in a text, of words those it quotes, else all."""
    numbers = iter(re.findall(r"\d+", text))
    quotes = iter(re.findall(r"'([^']+)'", text))
    fields = {name: schema["properties"][name] for name in schema.get("required", [])}
    return {
        name: int(next(numbers, "1")) if field.get("type") == "integer" else next(quotes, text)
        for name, field in fields.items()
    }


def _json_answer(messages: Sequence[BaseMessage]) -> dict[str, Any]:
    asked = str(messages[-1].text)
    *_, last_line = str(messages[0].text).splitlines()
    if last_line.startswith("{"):
        return filled(json.loads(last_line), asked)
    return {name: asked for name in re.findall(r"'(\w+)' ", asked)}


@cache
def known_good_options() -> frozenset[str]:
    """Of all rubrics of the package."""
    rubrics = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.yaml")]
    criteria = [criterion for rubric in rubrics if isinstance(rubric, dict) for criterion in rubric.get("criteria", [])]
    return frozenset(str(criterion["good"]) for criterion in criteria if "good" in criterion)


def letter_judge(is_bad: Callable[[str], bool] = lambda question: False) -> "FakeChat":
    """A model that judges: it writes the letter of the good option unless `is_bad` says otherwise of the question.

    Rubrics name the good option first in one question and second in the other. Of those of the package it is known
    which one is good; of others it is the first one in the first question that comes, of some asked side by side.
    """
    good_options: list[str] = []

    def reply(messages: Sequence[BaseMessage], arguments: Mapping[str, Any]) -> AIMessage:
        question = str(messages[-1].text)
        options = {option: letter for letter, option in re.findall(r"^\(([AB])\) (.*)$", question, re.MULTILINE)[-2:]}
        if not good_options or good_options[0] not in options:
            good_options[:] = [
                next((option for option in options if option in known_good_options()), next(iter(options)))
            ]
        good = options.pop(good_options[0])
        return AIMessage(options.popitem()[1] if is_bad(question) else good)

    return FakeChat(reply=reply, model_name="fake-judge")


def in_turn(*answers: AIMessage) -> Reply:
    """Gives these answers, one a call; the last again and again."""
    remaining: Iterator[AIMessage] = iter(answers[:-1])
    return lambda messages, arguments: next(remaining, answers[-1])


class FakeChat(BaseChatModel):
    """A chat model that answers by `reply`, tells its usage in words, and remembers what it was asked.

    Attributes:
        model_name: as results name it.
        reply: the rule.
    """

    model_name: str = "fake-chat"
    reply: SkipValidation[Reply] = obliging

    _asked: list[tuple[list[BaseMessage], dict[str, Any]]] = PrivateAttr(default_factory=list)

    @property
    def asked(self) -> list[tuple[list[BaseMessage], dict[str, Any]]]:
        """The conversations and the arguments of all calls so far, of copies too."""
        return self._asked

    @property
    def _llm_type(self) -> str:
        return "fake-chat"

    def bind_tools(
        self, tools: Sequence[Any], *, tool_choice: str | None = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        choice = {} if tool_choice is None else {"tool_choice": tool_choice}
        return self.bind(tools=[convert_to_openai_tool(each) for each in tools], **choice, **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        arguments = {**kwargs, **({"stop": stop} if stop is not None else {})}
        self._asked.append((messages, arguments))
        answer = self.reply(messages, arguments)
        num_input = sum(_num_words(message) for message in messages)
        num_output = _num_words(answer)
        usage = UsageMetadata(input_tokens=num_input, output_tokens=num_output, total_tokens=num_input + num_output)
        told = {"model_name": self.model_name, **answer.response_metadata}
        message = answer.model_copy(update={"usage_metadata": usage, "response_metadata": told})
        return ChatResult(generations=[ChatGeneration(message=message)])


class FakeChatWithoutTools(BaseChatModel):
    """A chat model that offers no `bind_tools`, as any that leaves LangChain's own in place."""

    inner: FakeChat

    @property
    def _llm_type(self) -> str:
        return "fake-chat-without-tools"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return self.inner._generate(messages, stop, run_manager, **kwargs)


def _num_words(message: BaseMessage) -> int:
    """Words of the text, and one for each call."""
    num_calls = len(message.tool_calls) if isinstance(message, AIMessage) else 0
    return len(str(message.text).split()) + num_calls
