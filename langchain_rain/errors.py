"""The errors of langchain-rain, named by whose move it is.

RainError
├── RainConfigError      the caller's mistake: the field, the value given, what is allowed
├── RubricError          the same, for a rubric
├── UnsatisfiedError     no answer satisfied the rubric and `on_unsatisfied="raise"`
│   └── BudgetExceededError   ... because a budget was spent first
└── EngineError          the model's side: engine, request, whether trying again may help
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.exceptions import LangChainException
from pydantic import ValidationError


class RainError(LangChainException):
    """The root of every error this package raises."""


class RainConfigError(RainError, ValueError):
    """A setting or an input is out of range; names the field, the value and what is allowed."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong with what was given.

    Attributes:
        key: where, as a path of keys and indices.
        message: what, with the value given and what is allowed.
    """

    key: tuple[str | int, ...]
    message: str

    def __str__(self) -> str:
        path = ".".join(map(str, self.key))
        return f"{path}: {self.message}" if path else self.message


class RubricError(RainError, ValueError):
    """A rubric is malformed; names the file and line where there are any, the key, the value and what is allowed.

    Attributes:
        mistakes: all that is wrong with it, as far as it was found.
    """

    def __init__(self, message: str, mistakes: Sequence[Mistake] = ()) -> None:
        super().__init__(message)
        self.mistakes = tuple(mistakes)


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


class JudgeAtChanceWarning(UserWarning):
    """The model that judges does no better than a coin on the rubric's own examples: what it lets through is luck."""


def describe_mistakes(what: str, error: ValidationError) -> str:
    """Says in one line what is wrong with `what`: each key, what is allowed there, and the value given."""
    return told_of(what, mistakes_in(error))


def told_of(what: str, mistakes: Sequence[Mistake]) -> str:
    """Says in one line what is wrong with `what`."""
    return f"{what} is not valid: {'; '.join(map(str, mistakes))}."


def mistakes_in(error: ValidationError) -> list[Mistake]:
    """All that is wrong, one by one; mistakes in a part are told with the path to the part."""
    mistakes = []
    for item in error.errors(include_url=False):
        cause = item.get("ctx", {}).get("error")
        if isinstance(cause, RubricError) and cause.mistakes:
            mistakes += [Mistake((*item["loc"], *each.key), each.message) for each in cause.mistakes]
            continue
        message = item["msg"].removeprefix("Value error, ").removesuffix(".")
        given = "" if item["type"] in ("value_error", "missing") else f", given {item['input']!r}"
        mistakes.append(Mistake(item["loc"], message + given))
    inside = {each.key[:length] for each in mistakes for length in range(len(each.key))}
    return [each for each in mistakes if each.key not in inside or each.key == ()]  # a part that is wrong counts once
