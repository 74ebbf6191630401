"""The errors of langchain-rain, named by whose move it is.

RainError
├── RainConfigError      the caller's mistake: the field, the value given, what is allowed
├── RubricError          the same, for a rubric
├── UnsatisfiedError     no answer satisfied the rubric and `on_unsatisfied="raise"`
│   └── BudgetExceededError   ... because a budget was spent first
└── EngineError          the model's side: engine, request, whether trying again may help
"""

from typing import Any

from langchain_core.exceptions import LangChainException
from pydantic import ValidationError


class RainError(LangChainException):
    """The root of every error this package raises."""


class RainConfigError(RainError, ValueError):
    """A setting or an input is out of range; names the field, the value and what is allowed."""


class RubricError(RainError, ValueError):
    """A rubric is malformed; names the key, the value and what is allowed."""


class UnsatisfiedError(RainError):
    """The search ended without an answer that satisfies the rubric.

    Attributes:
        answer: the text committed so far; it did not satisfy the rubric, so do not show it.
        verdict: the last judgement of that text, None if there was none.
    """

    def __init__(self, message: str, *, answer: str = "", verdict: Any = None) -> None:
        super().__init__(message)
        self.answer = answer
        self.verdict = verdict


class BudgetExceededError(UnsatisfiedError):
    """A budget was spent before the answer was finished."""


class EngineError(RainError):
    """A model could not answer a request.

    Attributes:
        engine: the name of the engine.
        request: the kind of request that failed, for example "Expand".
        is_retryable: whether the same request may succeed later.
        cost: what the search that failed had cost by then (`engines.base.Cost`); None if there was no search.
        seconds: how long that search had run.
    """

    def __init__(self, message: str, *, engine: str = "", request: str = "", is_retryable: bool = False) -> None:
        super().__init__(message)
        self.engine = engine
        self.request = request
        self.is_retryable = is_retryable
        self.cost: Any = None
        self.seconds = 0.0


def describe_mistakes(what: str, error: ValidationError) -> str:
    """Says in one line what is wrong with `what`: each key, what is allowed there, and the value given."""
    mistakes = []
    for item in error.errors(include_url=False):
        key = ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ").removesuffix(".")
        given = "" if item["type"] in ("value_error", "missing") else f", given {item['input']!r}"
        mistakes.append(f"{key + ': ' if key else ''}{message}{given}")
    return f"{what} is not valid: {'; '.join(mistakes)}."
