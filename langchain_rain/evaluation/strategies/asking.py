"""What is asked, as a writer takes it and as a judge reads it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, convert_to_messages

from langchain_rain.arguments import check_text
from langchain_rain.engines.base import ChatEngine, Engine
from langchain_rain.engines.calling import Calls
from langchain_rain.engines.dialogue import NEXT_TURNS, Dialogue
from langchain_rain.evaluation.strategies.base import Content, Setting
from langchain_rain.quoting import quoted
from langchain_rain.search.protocol import Context

NOTHING = "(no reply)"
"""Stands for an empty reply in a conversation: some chat models take no empty message."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked.

    Attributes:
        content: a text, or messages.
        prefill: first words of the answer that are given.
    """

    content: str | tuple[BaseMessage, ...]
    prefill: str = ""

    @classmethod
    def of(cls, content: Content, prefill: str) -> "Question":
        """The question of a case.

        Raises:
            RainConfigError: there is no message, or a text is not valid Unicode.
        """
        if isinstance(content, str):
            question = cls(content, prefill)
        else:
            question = cls(tuple(convert_to_messages([dict(each) for each in content])), prefill)
        check_text("text that is asked about", question.transcript)
        return question

    @property
    def beginning(self) -> str:
        """A text up to where the answer goes on."""
        assert isinstance(self.content, str), "a conversation goes on in a turn of its own"
        return self.content + self._after_space(self.prefill)

    @property
    def transcript(self) -> str:
        """What stands before the answer when it is judged; the prefill is said by the assistant."""
        if not isinstance(self.content, str):
            return self._dialogue().as_lines
        return self.content + self._after_space(quoted(self.prefill))

    def transcript_for(self, writer: Engine) -> str:
        """The same before the answer of a certain writer: behind a chat template one begins without a space."""
        has_template = isinstance(writer, ChatEngine) and writer.has_chat_template
        is_bare = not isinstance(self.content, str) and not self.prefill
        return self.transcript + (" " if is_bare and has_template else "")

    def prompt(
        self, writer: Engine, *, temperature: float | None = None, max_tokens: int | None = None
    ) -> str | Dialogue:
        """What a writer is given.

        Args:
            writer: who it is.
            temperature: that a chat model is called with; None for its own.
            max_tokens: likewise.
        """
        writes_whole = isinstance(writer, ChatEngine) and writer.writes_whole_messages
        if isinstance(self.content, str) and not writes_whole:
            return self.beginning
        given = {"temperature": temperature, "max_tokens": max_tokens} if writes_whole else {}
        call_arguments = {name: value for name, value in given.items() if value is not None}
        return replace(self._dialogue(), call_arguments=call_arguments, calls=Calls(loop=asyncio.get_running_loop()))

    def followed_by(self, answer: str, *turns: str) -> tuple[BaseMessage, ...]:
        """The conversation with an answer and what is said after it, in turn by the user and the assistant."""
        said = [self.prefill + answer or NOTHING, *turns]
        speakers = (AIMessage, HumanMessage)
        return (*self._messages, *(speakers[number % 2](text or NOTHING) for number, text in enumerate(said)))

    def shown(self, text: str, writer: Engine) -> str:
        """An answer as it is given to the caller: one that goes on a line of ours, without the space before it."""
        return text.lstrip() if self._goes_on_line(writer) else text

    def written(self, shown: str, writer: Engine) -> str:
        """An answer that was shown, as a writer would have written it."""
        return f" {shown}" if self._goes_on_line(writer) else shown

    def _goes_on_line(self, writer: Engine) -> bool:
        has_template = isinstance(writer, ChatEngine) and writer.has_chat_template
        return not isinstance(self.content, str) and not has_template and not self.prefill

    @property
    def _messages(self) -> tuple[BaseMessage, ...]:
        return (HumanMessage(self.content),) if isinstance(self.content, str) else self.content

    def _dialogue(self) -> Dialogue:
        return Dialogue(self._messages, beginning=self.prefill)

    def _after_space(self, prefill: str) -> str:
        is_apart = not prefill or not self.content or str(self.content)[-1].isspace() or prefill[0].isspace()
        return prefill if is_apart else f" {prefill}"


def open_writing(setting: Setting, prompt: str | Dialogue, *, stop: Sequence[str], max_tokens: int) -> Context:
    """Begins a conversation with the writer; one that takes no conversations gets it in lines."""
    writer = setting.writer
    if isinstance(prompt, str):
        return writer.open(prompt, max_tokens=max_tokens, stop=stop)
    if isinstance(writer, ChatEngine):
        return writer.open(prompt, max_tokens=max_tokens, stop=stop)
    return writer.open(prompt.as_lines, max_tokens=max_tokens, stop=(*stop, *NEXT_TURNS))
