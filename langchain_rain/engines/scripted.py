"""An engine that reads its replies from tables or functions: for tests without a model, yours too."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_rain.engines.base import StepReport, Ticket
from langchain_rain.engines.merging import StepperChannel
from langchain_rain.errors import EngineError
from langchain_rain.search.protocol import Context, Embed, Expand, Request, Rollout, Score

Script = Mapping[Any, Any] | Callable[[Any], Any]
"""Replies by the `prefix` of a request (of a `Score`: by its `question`), or a function of the request."""


class ScriptedEngine:
    """A stepper whose every step answers all that is pending, from scripts.

    A reply may be an exception; it reaches the search that asked. A request that the script lacks is an `EngineError`.

    Args:
        expand: replies to `Expand`, lists of `TokenSet`.
        rollout: replies to `Rollout`, each a `TokenSet`.
        score: replies to `Score`, each an `OptionLogprobs`.
        embed: replies to `Embed`, each a numpy vector.
        name: names the engine in errors and results.
    """

    def __init__(
        self,
        *,
        expand: Script | None = None,
        rollout: Script | None = None,
        score: Script | None = None,
        embed: Script | None = None,
        name: str = "scripted",
    ) -> None:
        self.name = name
        self.identity: Mapping[str, Any] = {"engine": "scripted", "name": name}
        self.channel = StepperChannel(self)
        self.asked: list[Request] = []
        self.opened: list[Context] = []
        self.closed: list[Context] = []
        self._scripts: Mapping[type, Script | None] = {Expand: expand, Rollout: rollout, Score: score, Embed: embed}
        self._pending: dict[Ticket, Request] = {}
        self._tickets = itertools.count()

    def open(self, prompt: str, *, max_tokens: int, stop: Sequence[str] = ()) -> Context:
        """Begins a conversation; a token of the prompt is a word here."""
        context = Context(self.name, num_prompt_tokens=len(prompt.split()))
        self.opened.append(context)
        return context

    def close(self, context: Context) -> None:
        """Notes that the conversation is closed."""
        self.closed.append(context)

    def submit(self, request: Request) -> Ticket:
        """Takes a request for the next step."""
        ticket = next(self._tickets)
        self.asked.append(request)
        self._pending[ticket] = request
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Forgets a pending request."""
        self._pending.pop(ticket, None)

    def step(self) -> StepReport:
        """Answers all pending requests; each counts as one token position."""
        pending, self._pending = self._pending, {}
        finished = {ticket: self._reply(request) for ticket, request in pending.items()}
        return StepReport(finished=finished, positions=dict.fromkeys(pending, 1))

    def _reply(self, request: Request) -> Any:
        kind = type(request).__name__
        script = self._scripts[type(request)]
        if callable(script):
            return script(request)
        key = request.question if isinstance(request, Score) else request.prefix
        if script is None or key not in script:
            return EngineError(f"{self.name} has no reply to {kind} of {key!r}.", engine=self.name, request=kind)
        return script[key]
