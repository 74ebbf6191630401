"""What is told of an answer as a whole: how it begins, how it ends."""

from asyncio import CancelledError
from collections.abc import Mapping
from concurrent import futures
from contextvars import Context as ContextVariables
from dataclasses import dataclass
from typing import Any, Literal

from langchain_rain.drivers import Outcome
from langchain_rain.engines.base import Cost
from langchain_rain.engines.dialogue import Dialogue
from langchain_rain.errors import EngineError
from langchain_rain.policy import Decision, ReleasePolicy
from langchain_rain.search.paper import SearchResult
from langchain_rain.search.state import Search


@dataclass(frozen=True, slots=True)
class Beginning:
    """What is known of an answer when it is begun.

    Attributes:
        operation: whether messages or a text are answered.
        prompt: what is answered.
        model: the name of the model that writes.
        judge_model: of the one that judges.
        rubric: its name and hash.
        preset: of the configuration.
        seed: that it was begun with.
        temperature: of sampling.
        max_tokens: of the answer; None if that is left to the model.
        policy: what is done with it when the search has ended.
        may_begin_anew: whether an engine that fails in a way that may pass is tried again, so that this answer is not
            what the caller is given.
        calls: the context variables of whatever is called for it.
    """

    operation: Literal["chat", "text_completion"]
    prompt: str | Dialogue
    model: str
    judge_model: str
    rubric: Mapping[str, Any]
    preset: str
    seed: int
    temperature: float
    max_tokens: int | None
    policy: ReleasePolicy
    may_begin_anew: bool
    calls: ContextVariables


@dataclass(frozen=True, slots=True)
class Ending:
    """What is known of an answer when its search has ended.

    Attributes:
        result: what the search returned; None if it did not come to that.
        error: what ended it instead; None for that, or if it was cancelled.
        stop_reason: that of the result, "error" or "cancelled".
        decision: what is done with the answer; None if nobody waits for it, or another attempt may follow.
        cost: of the search.
        usage: "input" and "output" tokens as `usage.usage_of` counts them; nothing if a model did not tell its own.
    """

    result: SearchResult | None
    error: BaseException | None
    stop_reason: str
    decision: Decision | None
    cost: Cost
    usage: Mapping[str, int]

    @classmethod
    def of(cls, end: Outcome[Any] | BaseException, cost: Cost, search: Search, beginning: Beginning) -> "Ending":
        """What is known when the search of this answer has ended in this way."""
        result: SearchResult | None = end.result if isinstance(end, Outcome) else None
        is_cancelled = isinstance(end, futures.CancelledError | CancelledError)
        error = end if isinstance(end, BaseException) and not is_cancelled else None
        stop_reason = result.stop_reason if result is not None else "cancelled" if is_cancelled else "error"
        decision = _decided(result, error, search, beginning)
        usage = {} if cost.num_estimated else _usage(cost, search, decision)
        return cls(result, error, stop_reason, decision, cost, usage)

    @property
    def error_type(self) -> dict[str, str]:
        """The kind of the error, as an attribute; its words may quote what was rejected."""
        return {"error.type": type(self.error).__name__} if self.error is not None else {}


def _decided(
    result: SearchResult | None, error: BaseException | None, search: Search, beginning: Beginning
) -> Decision | None:
    if result is not None:
        return beginning.policy.decide(result, search.satisfied_text, result.text)
    if not isinstance(error, EngineError) or (beginning.may_begin_anew and error.is_retryable):
        return None
    return beginning.policy.decide(None, search.satisfied_text, search.tree.root.text)


def _usage(cost: Cost, search: Search, decision: Decision | None) -> dict[str, int]:
    is_whole = decision is not None and decision.action in ("give", "best")
    num_kept = len(search.tree.root.prefix) if is_whole else search.num_satisfied_tokens
    num_input = search.context.num_prompt_tokens + cost.input_positions
    num_read = cost.token_positions + cost.cached_positions
    return {"input": num_input, "output": max(num_read - num_input, cost.judging_positions + num_kept)}
