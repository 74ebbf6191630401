"""What of an input is judged, and the same input with something else in its place."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.prompt_values import ChatPromptValue, StringPromptValue

from langchain_rain.answering import TOLD_BY_MODELS
from langchain_rain.engines.dialogue import as_lines, said, said_in_full, speaker_of
from langchain_rain.errors import EngineError, RainConfigError
from langchain_rain.search.protocol import Transcript

Which: TypeAlias = Literal["last", "user"]
"""The message of a conversation that is judged: the last one, or the last one of the user."""

Record: TypeAlias = Mapping[str, Any]
"""What is told of a message that was changed or let pass: `response_metadata["rain"]`."""


@dataclass(frozen=True, slots=True)
class Passage:
    """The part of an input that is judged.

    Attributes:
        value: the input.
        before: the conversation before it.
        judged: the part itself.
        speaker: who says it: "ai", "human", "system" or "tool".
        keeps_speaker: whether what is put in its place is said by the same speaker, and not by the assistant.
        rebuilt: the input with something else as this part.
    """

    value: Any
    before: tuple[BaseMessage, ...]
    judged: str | BaseMessage
    speaker: str
    keeps_speaker: bool
    rebuilt: Callable[[Any], Any]

    @property
    def text(self) -> str:
        """What it says, for whoever asks why it was rejected."""
        return self.judged if isinstance(self.judged, str) else said(self.judged)

    def transcript(self, *, max_turns: int | None = None) -> Transcript:
        """What a judge reads.

        Raises:
            EngineError: it holds something that cannot be judged.
        """
        text = self.judged if isinstance(self.judged, str) else said_in_full(self.judged)
        lines = as_lines(self.before, max_turns=max_turns, next_speaker=self.speaker)
        return Transcript(f"{lines} ", _checked(text))

    def marked(self, record: Record) -> Any:
        """The input as it is, but that a message tells it was let pass. A text cannot tell anything."""
        if isinstance(self.judged, str):
            return self.value
        return self.rebuilt(_telling(self.judged, record))

    def replaced(self, text: str, record: Record) -> Any:
        """The input with a text in the place of what was judged."""
        if isinstance(self.judged, str):
            return self.rebuilt(text)
        return self.rebuilt(replacement(self.judged, text, record, keeps_speaker=self.keeps_speaker))


def passage_of(value: Any, which: Which = "last") -> Passage:
    """What of an input is judged.

    Raises:
        RainConfigError: it is no text, message, list of messages or prompt value, or none of the user's is in it.
    """
    if isinstance(value, str):
        return Passage(value, (), value, "human" if which == "user" else "ai", which == "user", _itself)
    if isinstance(value, StringPromptValue):
        return Passage(
            value, (), value.text, "human", which == "user", lambda text: value.model_copy(update={"text": text})
        )
    if isinstance(value, BaseMessage):
        return _among([value], which, value, lambda messages: messages[0])
    if isinstance(value, ChatPromptValue):
        messages = list(value.messages)
        return _among(messages, which, value, lambda changed: value.model_copy(update={"messages": changed}))
    if isinstance(value, list) and all(isinstance(each, BaseMessage) for each in value):
        return _among(value, which, value, _itself)
    raise RainConfigError(
        f"input: a text, a message, a list of messages or a prompt value is allowed, given {_kind(value)}; take out of "
        "it what is to be judged, for example with operator.itemgetter."
    )


def _among(messages: list[BaseMessage], which: Which, value: Any, rebuilt: Callable[[Any], Any]) -> Passage:
    speakers = [speaker_of(message) for message in messages]
    candidates = [index for index, speaker in enumerate(speakers) if which == "last" or speaker == "human"]
    if not candidates:
        wanted = "one message" if which == "last" else "one message of the user's"
        raise RainConfigError(f"input: at least {wanted} is needed, given {_kind(value)} of {len(messages)} messages.")
    index = candidates[-1]
    judged = messages[index]
    return Passage(
        value,
        tuple(messages[:index]),
        judged,
        speakers[index],
        which == "user" or isinstance(judged, ToolMessage),
        lambda changed: rebuilt([*messages[:index], changed, *messages[index + 1 :]]),
    )


def replacement(message: BaseMessage, text: str, record: Record, *, keeps_speaker: bool) -> BaseMessage:
    """A message of the same id that says `text`, calls no tools, and tells why.

    Of the message it takes the place of it keeps what that cost and who wrote it: all else may quote what was said. The
    result of a tool stays one, since a call that nothing answers is an error to most models.
    """
    if keeps_speaker:
        changed: dict[str, Any] = {"content": text, "additional_kwargs": {}, "response_metadata": {"rain": record}}
        if isinstance(message, ToolMessage):
            changed |= {"artifact": None, "status": "error"}
        return message.model_copy(update=changed)
    told = {name: each for name, each in message.response_metadata.items() if name in TOLD_BY_MODELS - {"stop_reason"}}
    metadata = {**told, "finish_reason": "unsatisfied" if record["bypass"] is None else "stop", "rain": record}
    usage = message.usage_metadata if isinstance(message, AIMessage) else None
    given: dict[str, Any] = {
        "content": text,
        "id": message.id,
        "name": message.name,
        "usage_metadata": usage,
        "response_metadata": metadata,
    }
    return AIMessageChunk(**given, chunk_position="last") if isinstance(message, AIMessageChunk) else AIMessage(**given)


def _telling(message: BaseMessage, record: Record) -> BaseMessage:
    return message.model_copy(update={"response_metadata": {**message.response_metadata, "rain": record}})


def _checked(text: str) -> str:
    """The text, which a judge can read.

    Raises:
        EngineError: it is not valid Unicode; the error does not quote it, as nobody has judged it.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise EngineError(
            f"A text that is not valid Unicode cannot be judged; position {error.start}: {error.reason}."
        ) from None
    return text


def _itself(value: Any) -> Any:
    return value


def _kind(value: Any) -> str:
    """What an input is, without quoting it."""
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return f"{type(value).__name__}({', '.join(sorted({type(each).__name__ for each in value}))})"
    return type(value).__name__
