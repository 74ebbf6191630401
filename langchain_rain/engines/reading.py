"""From the text of an answer, as it is released, to what a message shows of it and to its tool calls."""

import contextlib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from langchain_core.messages import AIMessage, InvalidToolCall, ToolCall
from langchain_core.messages.tool import invalid_tool_call, tool_call

from langchain_rain.search.protocol import Tokens


class AnswerReader(Protocol):
    """Reads one answer from its beginning to its end."""

    @property
    def beginning(self) -> str:
        """How the answer begins though nobody wrote it: forced, and judged with the rest."""

    def feed(self, text: str) -> str:
        """What `text`, the next piece that is released, adds to what is shown; markup is not."""

    def message(self, tokens: Tokens) -> AIMessage:
        """The whole message, once all of it, `tokens`, has been fed."""

    def calls(self, text: str) -> Sequence[ToolCall]:
        """The tool calls in a text that may become the answer, for a reader that was fed nothing."""


@dataclass(slots=True)
class PlainReader:
    """Shows the text as it is, or without the space that follows `Assistant:`."""

    skips_space: bool = False
    beginning: str = ""
    _shown: str = ""

    def feed(self, text: str) -> str:
        """The text."""
        piece = text.lstrip() if self.skips_space and not self._shown else text
        self._shown += piece
        return piece

    def message(self, tokens: Tokens) -> AIMessage:
        """The text as a message."""
        return AIMessage(self._shown)

    def calls(self, text: str) -> Sequence[ToolCall]:
        """None: all of it is text."""
        return ()


@dataclass(slots=True)
class ToolReader:
    """Tells content from tool calls by the incremental parser of a Hugging Face tokenizer.

    Attributes:
        parser: made by `tokenizer.get_response_parser`.
        names: of the tools that may be called; a call of another is invalid.
        salt: makes the ids of calls differ from those of other turns.
        beginning: the text that the answer was made to begin with.
    """

    parser: Any
    names: frozenset[str]
    salt: str
    beginning: str = ""
    _shown: str = ""
    _raw: str = ""
    _problem: str | None = None
    _has_begun: bool = field(default=False)

    def feed(self, text: str) -> str:
        """The content that `text` adds; nothing while it lies in markup, or may turn out to begin some."""
        if not self._has_begun:
            self._has_begun = True
            text = self.beginning + text
        self._raw += text
        # One by one: with what it fails on, a parser loses all it was fed at once, and pieces must make no difference.
        return "".join(self._show(lambda character=character: self.parser.feed(character)) for character in text)

    def message(self, tokens: Tokens) -> AIMessage:
        """Content and tool calls; what could not be parsed is an invalid call, never dropped."""
        fields: dict[str, Any] = {}
        self.feed("")  # the beginning, if nothing else came

        def finish() -> Sequence[dict[str, Any]]:
            parsed, events = self.parser.finalize()
            fields.update(parsed)
            return list(events)

        self._show(finish)
        calls: list[ToolCall] = []
        invalid: list[InvalidToolCall] = []
        for number, call in enumerate(fields.get("tool_calls") or []):
            self._sort_call(number, call, calls, invalid)
        if self._problem is not None:
            invalid.append(invalid_tool_call(args=self._raw, id=self._call_id(len(calls)), error=self._problem))
        return AIMessage(self._shown, tool_calls=calls, invalid_tool_calls=invalid)

    def calls(self, text: str) -> Sequence[ToolCall]:
        """Those that are complete."""
        self.feed(text)
        return self.message(()).tool_calls

    def _sort_call(self, number: int, call: Any, calls: list[ToolCall], invalid: list[InvalidToolCall]) -> None:
        function = call.get("function", call) if isinstance(call, dict) else {}
        name, arguments = function.get("name"), function.get("arguments", {})
        if isinstance(arguments, str):
            with contextlib.suppress(ValueError):  # not a dictionary, so it is reported below
                arguments = json.loads(arguments)
        if isinstance(name, str) and name in self.names and isinstance(arguments, dict):
            calls.append(tool_call(name=name, args=arguments, id=self._call_id(number)))
        else:
            error = f"Calls of {sorted(self.names)} with a dictionary of arguments are allowed."
            invalid.append(
                invalid_tool_call(
                    name=str(name), args=json.dumps(arguments, default=str), id=self._call_id(number), error=error
                )
            )

    def _show(self, parse: Any) -> str:
        if self._problem is not None:
            return ""
        try:
            events = parse()
        except (ValueError, KeyError, TypeError) as error:
            self._problem = f"{type(error).__name__}: {error}"
            return ""
        chunks = (each for each in events if each["type"] == "region_chunk" and each["field"] == "content")
        piece = "".join(each["text"] for each in chunks)
        self._shown += piece
        return piece

    def _call_id(self, number: int) -> str:
        digest = hashlib.blake2b(f"{self.salt}\0{self._raw}\0{number}".encode(), digest_size=12)
        return f"call_{digest.hexdigest()}"
