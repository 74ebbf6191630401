"""The errors: whose move it is, and what each tells."""

import pickle

import pytest
from langchain_core.exceptions import LangChainException
from pydantic import BaseModel, Field, ValidationError, field_validator

import langchain_rain
from langchain_rain import (
    BudgetExceededError,
    EngineError,
    RainConfigError,
    RainError,
    RubricError,
    UnsatisfiedError,
)
from langchain_rain.errors import describe_mistakes

ALL = [RainConfigError, RubricError, UnsatisfiedError, BudgetExceededError, EngineError]


@pytest.mark.parametrize("error", ALL)
def test_every_error_is_a_rain_error_and_with_it_one_of_langchain(error: type[RainError]) -> None:
    assert issubclass(error, RainError)
    assert issubclass(error, LangChainException)
    assert getattr(langchain_rain, error.__name__) is error


@pytest.mark.parametrize("error", [RainConfigError, RubricError])
def test_the_callers_mistakes_are_value_errors(error: type[RainError]) -> None:
    assert issubclass(error, ValueError)


@pytest.mark.parametrize("error", [UnsatisfiedError, BudgetExceededError, EngineError])
def test_what_is_not_the_callers_mistake_is_no_value_error(error: type[RainError]) -> None:
    assert not issubclass(error, ValueError)


def test_who_catches_unsatisfied_catches_a_spent_budget() -> None:
    assert issubclass(BudgetExceededError, UnsatisfiedError)


def test_an_unsatisfied_error_carries_answer_and_verdict_apart_from_its_message() -> None:
    error = UnsatisfiedError("No answer satisfied.", answer="the bleach", verdict="bad")
    assert (str(error), error.answer, error.verdict) == ("No answer satisfied.", "the bleach", "bad")


def test_an_engine_error_says_who_failed_at_what_and_whether_to_try_again() -> None:
    error = EngineError("No.", engine="kitchen", request="Score", is_retryable=True)
    assert (error.engine, error.request, error.is_retryable) == ("kitchen", "Score", True)
    assert EngineError("No.").is_retryable is False


@pytest.mark.parametrize(
    "error",
    [
        UnsatisfiedError("No.", answer="the bleach", verdict=-1.0),
        BudgetExceededError("No.", answer="the bleach"),
        EngineError("No.", engine="kitchen", request="Score", is_retryable=True),
    ],
)
def test_errors_survive_the_way_to_another_process(error: RainError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


class Dish(BaseModel):
    name: str = Field(min_length=1)
    num_plates: int = Field(ge=1)

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if name == "lye":
            raise ValueError("that is no dish.")
        return name


def mistakes_in(**data: object) -> str:
    with pytest.raises(ValidationError) as caught:
        Dish(**data)  # type: ignore[arg-type]
    return describe_mistakes("Dish", caught.value)


def test_a_mistake_is_told_by_key_what_is_allowed_and_value() -> None:
    told = mistakes_in(name="soup", num_plates=0)
    assert told == "Dish is not valid: num_plates: Input should be greater than or equal to 1, given 0."


def test_several_mistakes_stand_in_one_line() -> None:
    assert mistakes_in(name="", num_plates="many").count(";") == 1


def test_a_missing_key_is_told_without_a_value() -> None:
    assert mistakes_in(name="soup") == "Dish is not valid: num_plates: Field required."


def test_a_message_of_ours_is_told_as_it_is() -> None:
    assert mistakes_in(name="lye", num_plates=1) == "Dish is not valid: name: that is no dish."
