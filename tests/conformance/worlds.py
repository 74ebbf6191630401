"""Worlds in which every rejected draft carries a mark: of token sets, and of whole messages by a chat model."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import tool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import PrivateAttr

from langchain_rain import ChatRain
from langchain_rain.search.protocol import Rollout, TokenSet
from tests.scripted_world import CONFIG, END, RUBRIC, WARM, Kitchen

MARK = "xyzzy"
"""Stands in every draft that is rejected, and in every end of a draft that was only written to be judged."""

BAD = f" the {MARK}!"
ROLLED = f" with {MARK}?"

QUESTION = "What is for supper?"
DISH = "Warm the soup."
REFUSAL = "I cannot help with that."


def is_marked(text: str) -> bool:
    return f"{MARK}!" in text


class MarkedKitchen(Kitchen):
    """A kitchen whose rejected words are marked, and its rollouts; with `is_hopeless` no word is left to accept."""

    def __init__(self, *, is_hopeless: bool = False, name: str = "kitchen") -> None:
        choices = [BAD, f"{BAD}{BAD}"] if is_hopeless else [BAD, " the soup"]
        super().__init__(WARM, choices, END, is_bad=is_marked, name=name)

    def _roll_out(self, request: Rollout) -> TokenSet:
        return TokenSet((len(request.prefix),), ROLLED)


@dataclass
class Log:
    """What a chef was asked for, and what it says it used."""

    asked: list[tuple[list[BaseMessage], dict[str, Any]]] = field(default_factory=list)
    usages: list[UsageMetadata] = field(default_factory=list)
    lock: Any = field(default_factory=threading.Lock)

    @property
    def total(self) -> int:
        return sum(usage["total_tokens"] for usage in self.usages)


def is_judgement(messages: Sequence[BaseMessage]) -> bool:
    return "Answer with one letter alone" in str(messages[-1].text)


def is_guided(messages: Sequence[BaseMessage]) -> bool:
    return isinstance(messages[0], SystemMessage) and any(
        words in str(messages[0].text) for words in ("Write your next reply", "Write a better reply")
    )


class Chef(BaseChatModel):
    """A chat model whose first draft is marked, and whose next one is not unless it is hopeless; it judges itself.

    What it answers depends on what it is asked alone. With tools it first calls the first of them.
    """

    model_name: str = "chef"
    dish: str = DISH
    is_hopeless: bool = False
    tells_usage: bool = True
    _log: Log = PrivateAttr(default_factory=Log)

    @property
    def log(self) -> Log:
        return self._log

    @property
    def _llm_type(self) -> str:
        return "chef"

    def bind_tools(self, tools: Any, *, tool_choice: Any = None, **kwargs: Any) -> Runnable[LanguageModelInput, Any]:
        return self.bind(tools=[convert_to_openai_tool(each) for each in tools], **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self.answer(messages, stop=stop, **kwargs))])

    def answer(self, messages: list[BaseMessage], **kwargs: Any) -> AIMessage:
        message = self.judge(messages) if is_judgement(messages) else self.draft(messages, **kwargs)
        num_asked = sum(len(str(each.text).split()) for each in messages)
        num_written = max(1, len(str(message.text).split()))
        usage = UsageMetadata(input_tokens=num_asked, output_tokens=num_written, total_tokens=num_asked + num_written)
        with self.log.lock:
            self.log.asked.append((messages, kwargs))
            self.log.usages.append(usage)
        told = {"usage_metadata": usage} if self.tells_usage else {}
        return message.model_copy(update={**told, "response_metadata": {"model_name": self.model_name}})

    def judge(self, messages: Sequence[BaseMessage]) -> AIMessage:
        question = str(messages[-1].text)
        is_first_good = "(A) YES" in question
        return AIMessage("A" if is_first_good != is_marked(question) else "B")

    def draft(self, messages: Sequence[BaseMessage], **kwargs: Any) -> AIMessage:
        mark = f" {MARK}!" if self.is_hopeless or not is_guided(messages) else ""
        if kwargs.get("tools") and isinstance(messages[-1], HumanMessage):
            name = kwargs["tools"][0]["function"]["name"]
            return AIMessage(
                f"Let me see.{mark}", tool_calls=[{"name": name, "args": {"dish": f"soup{mark}"}, "id": f"call{mark}"}]
            )
        return AIMessage(f"{self.dish}{mark}", additional_kwargs={"note": f"written{mark}"})


class StreamingChef(Chef):
    """The same with a stream of its own; with `streaming=True` it streams whenever it is invoked."""

    streaming: bool = False

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        message = self.answer(messages, stop=stop, **kwargs)
        for word in str(message.text).split(" "):
            yield self._told(AIMessageChunk(content=f"{word} "), run_manager)
        calls = [
            tool_call_chunk(name=call["name"], args=f'{{"dish": "{call["args"]["dish"]}"}}', id=call["id"], index=0)
            for call in message.tool_calls
        ]
        last = AIMessageChunk(
            content="",
            tool_call_chunks=calls,
            usage_metadata=message.usage_metadata,
            chunk_position="last",
            response_metadata=message.response_metadata,
        )
        yield self._told(last, run_manager)

    def _told(self, chunk: AIMessageChunk, run_manager: CallbackManagerForLLMRun | None) -> ChatGenerationChunk:
        return ChatGenerationChunk(message=chunk)


class TellingChef(StreamingChef):
    """One that tells its handlers each token though it was not asked to stream, as that of Ollama does."""

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        chunks = list(self._stream(messages, stop=stop, run_manager=run_manager, **kwargs))
        whole = chunks[0]
        for chunk in chunks[1:]:
            whole += chunk
        return ChatResult(generations=[ChatGeneration(message=whole.message)])

    def _told(self, chunk: AIMessageChunk, run_manager: CallbackManagerForLLMRun | None) -> ChatGenerationChunk:
        told = ChatGenerationChunk(message=chunk)
        if run_manager is not None:
            run_manager.on_llm_new_token(str(chunk.text), chunk=told)
        return told


@tool
def serve(dish: str) -> str:
    """Serves a dish."""
    return f"{dish} is served."


CHEF_CONFIG = CONFIG.model_copy(update={"max_simulations": 3, "num_children": 3})


def kitchen_chat(engine: Kitchen | None = None, **arguments: Any) -> ChatRain:
    """ChatRain that searches token sets, in a scripted kitchen."""
    settings = {"model": engine or MarkedKitchen(), "rubric": RUBRIC, "config": CONFIG, "seed": 1}
    return ChatRain(**{**settings, **arguments})


def chef_chat(chef: BaseChatModel | None = None, **arguments: Any) -> ChatRain:
    """ChatRain over a chat model."""
    settings = {"model": chef or Chef(), "rubric": RUBRIC, "config": CHEF_CONFIG, "seed": 1}
    return ChatRain(**{**settings, **arguments})
