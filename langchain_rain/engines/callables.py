"""A function of the user's as judge: transcript -> value in [-1, 1]."""

import asyncio
import inspect
import math
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from numbers import Real
from typing import Any, TypeAlias

from langchain_rain.engines.base import Answered, Cost
from langchain_rain.engines.calling import CallingChannel, Calls
from langchain_rain.engines.dialogue import Dialogue
from langchain_rain.errors import EngineError
from langchain_rain.functions import name_of_function
from langchain_rain.quoting import ends_in_empty_line, quoted
from langchain_rain.search.protocol import Context, OptionLogprobs, Request, Score


class JudgedText(str):
    """What a function judges: prompt and answer, in which no line of the answer begins another turn.

    Attributes:
        prompt: what stands before the answer.
        answer: the answer alone, verbatim.
    """

    prompt: str
    answer: str

    @classmethod
    def of(cls, prompt: str, answer: str) -> "JudgedText":
        """The text of both."""
        text = cls(prompt + quoted(answer, is_line_start=ends_in_empty_line(prompt)))
        text.prompt, text.answer = prompt, answer
        return text


JudgeFunction: TypeAlias = Callable[[JudgedText], float | Awaitable[float | None] | None]
"""Takes a text, returns how good the answer is, from -1 to 1; None to abstain. It may be a coroutine function, which is
awaited on the caller's event loop; it is then for the async methods alone."""


class CallableEngine:
    """Answers the `Score` of a `ValueJudge` by a function; it writes nothing.

    Args:
        function: judges a transcript.
    """

    tells_cost = False  # a chat model that the function asks is counted by whoever counts

    def __init__(self, function: JudgeFunction) -> None:
        self._function = function
        self.name = getattr(function, "__qualname__", None) or type(function).__name__
        self.channel = CallingChannel(self)
        self._calls: dict[Context, Calls] = {}
        # An object may have an async __call__.
        self.is_async = any(map(inspect.iscoroutinefunction, (function, getattr(function, "__call__", None))))  # noqa: B004
        self._nonce = secrets.token_hex(8)  # addresses come again, in other processes and after an object is gone

    @property
    def identity(self) -> Mapping[str, Any]:
        """The function by its name if it has one of its own; else by who holds it, which nothing else shares."""
        name = name_of_function(self._function) or f"{self._function!r} of {self._nonce}"
        return {"engine": "callable", "name": name}

    def open(self, prompt: str | Dialogue, *, max_tokens: int, stop: Sequence[str] = ()) -> Context:
        """Begins a conversation."""
        context = Context(self.name, num_prompt_tokens=0)
        self._calls[context] = (prompt.calls if isinstance(prompt, Dialogue) else None) or Calls()
        return context

    def calls_of(self, context: Context) -> Calls:
        """On whose behalf a conversation is."""
        return self._calls[context]

    def forget(self, context: Context) -> None:
        """Frees what a conversation holds."""
        self._calls.pop(context, None)

    def call(self, request: Request) -> Answered:
        """Judges in this thread."""
        value = self._function(_transcript(request, self.name))
        loop = self._calls[request.context].loop
        if inspect.isawaitable(value) and loop is not None:  # nothing told beforehand that it would have to be awaited
            value = asyncio.run_coroutine_threadsafe(_awaited(value), loop).result()
        if inspect.isawaitable(value):
            if inspect.iscoroutine(value):
                value.close()
            raise EngineError(
                f"{self.name} is a coroutine function; a judge like it is for ainvoke, astream and abatch.",
                engine=self.name,
            )
        return Answered(self._reply(value), Cost())

    async def acall(self, request: Request) -> Answered:
        """Judges on this event loop."""
        value: Any = self._function(_transcript(request, self.name))
        return Answered(self._reply(await value), Cost())

    def _reply(self, value: Any) -> OptionLogprobs:
        if value is None:
            return OptionLogprobs((-math.inf, -math.inf), mass=0.0)
        number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
        if not -1 <= number <= 1:
            raise EngineError(
                f"{self.name} judged a transcript to be {value!r}; a number from -1 to 1 or None is allowed.",
                engine=self.name,
                request="Score",
            )
        shares = ((1 + number) / 2, (1 - number) / 2)
        return OptionLogprobs(tuple(math.log(share) if share > 0 else -math.inf for share in shares), mass=1.0)


async def _awaited(value: Awaitable[Any]) -> Any:
    return await value


def _transcript(request: Request, name: str) -> JudgedText:
    if not isinstance(request, Score):
        raise EngineError(f"{name} judges and does not write.", engine=name, request=type(request).__name__)
    return JudgedText.of(request.question, request.answer_prefix)
