"""Any LangChain chat model as an engine: it writes whole messages, and judges by choosing a letter.

A message is a token set of one token: an opaque number under which the engine keeps it. Judgements are option log
probabilities where the model gives them; else the letter it writes, where anything but a letter alone abstains.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolCall
from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from langchain_rain.engines.base import Answered, Cost
from langchain_rain.engines.calling import NO_STREAM_TAG, CallingChannel, Calls, without_tokens
from langchain_rain.engines.dialogue import Dialogue, guided, said_in_full
from langchain_rain.engines.reading import AnswerReader
from langchain_rain.errors import EngineError, RainConfigError
from langchain_rain.search.protocol import (
    Context,
    Expand,
    FinishReason,
    OptionLogprobs,
    Request,
    Score,
    Tokens,
    TokenSet,
)

NUM_TOP_LOGPROBS = 5
"""Alternatives asked for with each token; every provider that gives any gives as many."""

MAX_LOGPROB = 0.01
"""0 but for rounding; what is more, or no number, is no log probability."""

CHARACTERS_PER_TOKEN = 4
"""Of English text, as a rule of thumb."""

BRACKETS = "()[]*.:\"' \n\t"
"""What may stand around a letter that is chosen."""

LENGTH_REASONS = frozenset({"length", "max_tokens", "MAX_TOKENS", "model_length"})
"""How providers say that a message was cut."""

NOT_OF_THE_MODEL = frozenset({"cache", "callbacks", "verbose", "tags", "metadata", "rate_limiter", "profile", "name"})
"""Fields of a chat model that no answer depends on."""


class _TopLogprob(TypedDict):
    token: str
    logprob: Annotated[float, Field(le=MAX_LOGPROB)]


class _TokenLogprob(TypedDict):
    token: str
    top_logprobs: list[_TopLogprob]


_TOKEN_LOGPROBS = TypeAdapter(list[_TokenLogprob])


@dataclass(slots=True, eq=False)
class _Conversation:
    dialogue: Dialogue
    max_tokens: int
    stop: tuple[str, ...]
    calls: Calls
    messages: list[AIMessage] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class MessageReader:
    """Gives out a message as it was written."""

    messages: Sequence[AIMessage]
    beginning: str = ""

    def feed(self, text: str) -> str:
        """Nothing: what a message shows is not told by its text alone."""
        return ""

    def message(self, tokens: Tokens) -> AIMessage:
        """The message of this token."""
        (number,) = tokens
        return self.messages[number]

    def calls(self, text: str) -> Sequence[ToolCall]:
        """Those of the message that says this in full."""
        return next((each.tool_calls for each in self.messages if said_in_full(each) == text), ())


class ChatModelEngine:
    """Asks a chat model for whole messages and for judgements.

    Args:
        model: the chat model; it is called with a cache of its own switched off, so that a draft can be drawn again
            and none is kept.
        name: names the engine in errors and results; by default the model's own name.
    """

    has_chat_template = True
    writes_whole_messages = True
    tells_cost = True
    is_async = True

    def __init__(self, model: BaseChatModel, *, name: str = "") -> None:
        self.model = model
        self.name = name or _name_of(model)
        self.channel = CallingChannel(self)
        self._writer = model.model_copy(update={"cache": False, "callbacks": without_tokens(model.callbacks)})
        self._judge = _with_logprobs(self._writer)
        self._conversations: dict[Context, _Conversation] = {}

    @property
    def identity(self) -> Mapping[str, Any]:
        """Class and name of the model, and a hash over its settings. No secrets: pydantic masks them."""
        settings = {
            name: repr(getattr(self.model, name))
            for name, info in type(self.model).model_fields.items()
            if not info.exclude and name not in NOT_OF_THE_MODEL
        }
        text = repr((sorted(settings.items()), sorted(self.model._identifying_params.items(), key=repr)))
        kind = type(self.model)
        return {
            "engine": "chat model",
            "class": f"{kind.__module__}.{kind.__qualname__}",
            "name": self.name,
            "settings": hashlib.sha256(text.encode()).hexdigest()[:16],
        }

    def check_tools(self) -> None:
        """Checks that the model can be offered tools.

        Raises:
            RainConfigError: it has no `bind_tools` of its own.
        """
        if type(self.model).bind_tools is BaseChatModel.bind_tools:
            raise RainConfigError(f"{self.name} cannot call tools: {type(self.model).__name__} has no bind_tools.")

    def open(self, prompt: str | Dialogue, *, max_tokens: int, stop: Sequence[str] = ()) -> Context:
        """Begins a conversation."""
        dialogue = prompt if isinstance(prompt, Dialogue) else Dialogue((HumanMessage(prompt),))
        context = Context(self.name, num_prompt_tokens=0)
        self._conversations[context] = _Conversation(dialogue, max_tokens, tuple(stop), dialogue.calls or Calls())
        return context

    def reader(self, context: Context) -> AnswerReader:
        """Reads the answer of an open conversation."""
        return MessageReader(self._conversations[context].messages)

    def calls_of(self, context: Context) -> Calls:
        """On whose behalf a conversation is."""
        return self._conversations[context].calls

    def forget(self, context: Context) -> None:
        """Frees what a conversation holds; a reader keeps the messages it may be asked for."""
        self._conversations.pop(context, None)

    def call(self, request: Request) -> Answered:
        """Calls the model in this thread."""
        model, messages, arguments, config = self._prepared(request)
        return self._answered(request, model.invoke(messages, config, **arguments))

    async def acall(self, request: Request) -> Answered:
        """Calls the model on this event loop."""
        model, messages, arguments, config = self._prepared(request)
        return self._answered(request, await model.ainvoke(messages, config, **arguments))

    def _prepared(self, request: Request) -> tuple[BaseChatModel, list[BaseMessage], dict[str, Any], Any]:
        conversation = self._conversations.get(request.context)
        if conversation is None:
            raise EngineError(f"{request.context!r} is closed, or not of {self.name}.", engine=self.name)
        config = {
            "callbacks": conversation.calls.callbacks or [],
            "tags": [NO_STREAM_TAG],
            "run_name": "rain_judgement" if isinstance(request, Score) else "rain_draft",
        }
        if isinstance(request, Score):
            asked = (
                f"{request.question}\nAnswer with one {_kind(request.options)} alone: {' or '.join(request.options)}."
            )
            return self._judge, [HumanMessage(asked)], {}, config
        if isinstance(request, Expand):
            stop = {"stop": list(conversation.stop)} if conversation.stop else {}
            messages = guided(_all_messages(conversation.dialogue), request.guidance)
            return self._writer, messages, {**conversation.dialogue.call_arguments, **stop}, config
        kind = type(request).__name__
        raise EngineError(f"{self.name} writes whole messages and has no {kind}.", engine=self.name, request=kind)

    def _answered(self, request: Request, message: Any) -> Answered:
        if not isinstance(message, AIMessage):
            raise EngineError(
                f"{self.name} gave {type(message).__name__}(...); an AIMessage is wanted.", engine=self.name
            )
        cost = self._cost(request, message)
        if isinstance(request, Score):
            return Answered(_choice(message, request.options), cost)
        assert isinstance(request, Expand)
        if message.response_metadata.get("finish_reason") == "unsatisfied":  # the model is a guard, which refused
            return Answered([], cost)
        token_set = self._token_set(self._conversations[request.context], message)
        return Answered([token_set] if token_set.tokens not in request.exclude else [], cost)

    def _cost(self, request: Request, message: AIMessage) -> Cost:
        """What a call took; estimated where the model does not tell, or no budget of positions would ever be spent."""
        usage = message.usage_metadata
        if usage is not None:
            num_input, num_output = usage["input_tokens"], usage["output_tokens"]
        else:
            num_input, num_output = (
                1 + len(text) // CHARACTERS_PER_TOKEN for text in (self._asked(request), said_in_full(message))
            )
        num_judging = num_output if isinstance(request, Score) else 0
        return Cost(1, num_input + num_output, num_judging, num_input, num_estimated=int(usage is None))

    def _asked(self, request: Request) -> str:
        if isinstance(request, Score):
            return request.question
        guidance = request.guidance if isinstance(request, Expand) else ""
        return self._conversations[request.context].dialogue.as_lines + guidance

    def _token_set(self, conversation: _Conversation, message: AIMessage) -> TokenSet:
        message, finish_reason = _cut(message, conversation.stop)
        text = said_in_full(message)
        known = [said_in_full(each) for each in conversation.messages]
        if text not in known:
            conversation.messages.append(message)
            known.append(text)
        return TokenSet((known.index(text),), text, finish_reason=finish_reason)


def _all_messages(dialogue: Dialogue) -> list[BaseMessage]:
    """The conversation, and as its last message, which is to be gone on with, what the answer begins with."""
    return [*dialogue.messages, *([AIMessage(dialogue.beginning)] if dialogue.beginning else [])]


def _cut(message: AIMessage, stop: Sequence[str]) -> tuple[AIMessage, FinishReason]:
    """The message up to a stop string, which not every model keeps to, and why it ends."""
    text = str(message.text)
    at = min((at for at in map(text.find, stop) if at >= 0), default=None)
    if at is not None:
        return message.model_copy(update={"content": text[:at]}), "stop"
    told = message.response_metadata
    was_cut = (told.get("finish_reason") or told.get("stop_reason")) in LENGTH_REASONS
    return message, "length" if was_cut else "eos"


def _choice(message: AIMessage, options: Sequence[str]) -> OptionLogprobs:
    """How probable the options are by the log probabilities of the message; without any, the one it writes is sure."""
    told = (message.response_metadata.get("logprobs") or {}) if message.response_metadata else {}
    content = told.get("content") if isinstance(told, dict) else None
    alternatives = _alternatives(content) if content else []
    if alternatives is None:
        return OptionLogprobs((-math.inf,) * len(options), mass=0.0)
    if alternatives:
        return _choice_among(alternatives, options)
    is_chosen = [_says(str(message.text), option) for option in options]
    if not any(is_chosen):
        return OptionLogprobs((-math.inf,) * len(options), mass=0.0)
    return OptionLogprobs(tuple(0.0 if chosen else -math.inf for chosen in is_chosen), mass=1.0)


def _alternatives(content: Any) -> list[_TopLogprob] | None:
    """What could stand where the first letter stands; nothing if that is not told, None if it cannot be read."""
    try:
        tokens = _TOKEN_LOGPROBS.validate_python(content)
    except ValidationError:
        return None
    return next((each["top_logprobs"] for each in tokens if each["token"].strip(BRACKETS)), [])


def _choice_among(alternatives: Sequence[_TopLogprob], options: Sequence[str]) -> OptionLogprobs:
    masses = [
        sum(math.exp(each["logprob"]) for each in alternatives if _begins(each["token"], option, options))
        for option in options
    ]
    logprobs = tuple(math.log(mass) if mass > 0 else -math.inf for mass in masses)
    return OptionLogprobs(logprobs, mass=min(1.0, sum(masses)))


def _kind(options: Sequence[str]) -> str:
    """What the options are."""
    if all(option.isdigit() for option in options):
        return "number"
    return "letter" if all(len(option) == 1 for option in options) else "word"


def _says(text: str, option: str) -> bool:
    """Whether a text is an option; words may be written in any case."""
    said = text.strip(BRACKETS)
    return said.casefold() == option.casefold() if len(option) > 1 else said == option


def _begins(token: str, option: str, options: Sequence[str]) -> bool:
    """Whether a token is an option or begins it, and no other one."""
    said = token.strip(BRACKETS).casefold()
    begun = [each for each in options if len(each) > 1 and said and each.casefold().startswith(said)]
    return begun == [option] or _says(token, option)


def _with_logprobs(model: BaseChatModel) -> BaseChatModel:
    """A copy that also gives log probabilities, if the model has settings for it that were left alone."""
    settings = {"logprobs": True, "top_logprobs": NUM_TOP_LOGPROBS}
    has_them = settings.keys() <= type(model).model_fields.keys()
    if not has_them or any(getattr(model, name) is not None for name in settings):
        return model
    return model.model_copy(update=settings)


def _name_of(model: BaseChatModel) -> str:
    named = (getattr(model, attribute, None) for attribute in ("model_name", "model", "model_id"))
    return next((name for name in named if isinstance(name, str) and name), type(model).__name__)
