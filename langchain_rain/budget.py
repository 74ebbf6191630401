"""The limits of an answer."""

from dataclasses import dataclass
from typing import Any

from langchain_rain.engines.base import Cost
from langchain_rain.errors import BudgetExceededError, EngineError


@dataclass(frozen=True, slots=True)
class Budget:
    """Hard limits of one search, None for no limit; overshot by at most one engine step.

    What is asked ahead counts; what is cancelled while it is under way at a server does not.

    Attributes:
        max_seconds: wall-clock time from its start.
        max_forward_tokens: token positions that go through a model, writing and judging.
        timeout: wall-clock time after which the model counts as failed. A search whose budget is spent ends with the
            best it has, one that is timed out with an error.
    """

    max_seconds: float | None = None
    max_forward_tokens: int | None = None
    timeout: float | None = None

    def exceeded_by(self, cost: Cost, seconds: float) -> BudgetExceededError | EngineError | None:
        """What a search is told whose limit is spent; None if none is."""
        if self.timeout is not None and seconds >= self.timeout:
            return EngineError(f"No answer within timeout={self.timeout} s.", is_retryable=True)
        if self.max_seconds is not None and seconds >= self.max_seconds:
            return BudgetExceededError(f"max_seconds={self.max_seconds} is spent after {seconds:.3f} s")
        if self.max_forward_tokens is not None and cost.token_positions >= self.max_forward_tokens:
            spent = f"max_forward_tokens={self.max_forward_tokens} is spent: {cost.token_positions} positions"
            return BudgetExceededError(spent)
        return None

    def after(self, cost: Cost, seconds: float) -> "Budget":
        """What is left of it."""

        def left(limit: Any, used: float) -> Any:
            return None if limit is None else max(0, limit - used)

        return Budget(
            left(self.max_seconds, seconds),
            left(self.max_forward_tokens, cost.token_positions),
            left(self.timeout, seconds),
        )

    @property
    def deadline(self) -> float | None:
        """Seconds after which the first limit of time is spent."""
        return min((limit for limit in (self.max_seconds, self.timeout) if limit is not None), default=None)
