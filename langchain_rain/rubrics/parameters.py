"""What a rubric leaves open: declared, checked, and filled in as data."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from langchain_rain.errors import Mistake, RubricError
from langchain_rain.quoting import as_evidence
from langchain_rain.rubrics.criteria import Frozen, mistake
from langchain_rain.rubrics.rendering import free_boundary

_PLACE = re.compile(r"\{(?!transcript\}|categories\})([A-Za-z_]\w*)\}")  # but for the places of a guard's form
_GUARD_PLACE = re.compile(r"\{(transcript|categories)\}")
_PATTERNS = ("must_match", "must_not_match")


class Parameter(Frozen):
    """Something that a rubric leaves open.

    Attributes:
        description: what it is.
        type: "text"; or "documents", a list of texts, put one below the other, each between boundaries of its own.
        default: the value where none is given; without a default one must be given.
        allowed: the only values there are; empty for any.
    """

    description: str = Field(min_length=1, description="What it is.")
    type: Literal["text", "documents"] = Field(default="text", description="One text, or a list of texts.")
    default: str | None = Field(default=None, description="The value where none is given.")
    allowed: tuple[str, ...] = Field(default=(), description="The only values there are; empty for any.")

    @model_validator(mode="after")
    def _check_default(self) -> Self:
        if self.allowed and self.default is not None and self.default not in self.allowed:
            raise mistake(f"one of {', '.join(self.allowed)} is allowed, given {self.default!r}", "default")
        return self


def filled(data: Any, parameters: Mapping[str, Parameter], given: Mapping[str, Any]) -> Any:
    """`data` with the values in their places. A value is data: what looks like a place in it is none.

    Raises:
        RubricError: a value is missing, unknown or not allowed; a place has no parameter, a parameter no place.
    """
    unknown = sorted(given.keys() - parameters.keys())
    if unknown:
        known = f"it takes {', '.join(parameters)}" if parameters else "it takes none"
        raise RubricError(f"The rubric has no parameter {unknown[0]!r}; {known}.")
    if not parameters:
        return data
    values = {name: _value(parameter, _texts(name, parameter, given)) for name, parameter in parameters.items()}
    places: set[str] = set()
    done = _fill(data, values, places)
    for name in sorted(places - parameters.keys()):
        raise _mistake(name, f"a text has the place {{{name}}}, for which no parameter is declared")
    for name in sorted(parameters.keys() - places):
        raise _mistake(name, f"no text has the place {{{name}}}")
    return done


def _texts(name: str, parameter: Parameter, given: Mapping[str, Any]) -> list[str]:
    value = given.get(name, parameter.default)
    if value is None:
        raise RubricError(f"The rubric needs a value for {name!r}: {parameter.description}")
    texts = list(value) if isinstance(value, list | tuple) and parameter.type == "documents" else [value]
    if not all(isinstance(text, str) for text in texts):
        wanted = "a text" if parameter.type == "text" else "a text or a list of texts"
        raise RubricError(f"{name}: {wanted} is allowed, given {value!r}.")
    if not texts or not all(text.strip() for text in texts):
        raise RubricError(f"{name}: it must say something, given {value!r}.")
    if parameter.allowed and not set(texts) <= set(parameter.allowed):
        raise RubricError(f"{name}: {', '.join(parameter.allowed)} is allowed, given {value!r}.")
    return texts


@dataclass(frozen=True, slots=True)
class _Value:
    """What stands in the places of a parameter, in texts and in patterns."""

    text: str
    pattern: str


def _value(parameter: Parameter, texts: Sequence[str]) -> _Value:
    shown = [as_evidence(text, labels="AB", is_turn=True, is_line_start=True) for text in texts]
    shown = [_GUARD_PLACE.sub(r"{ \1 }", text) for text in shown]
    return _Value(
        text=fenced(shown) if parameter.type == "documents" else shown[0],
        pattern=f"(?:{'|'.join(map(re.escape, texts))})",
    )


def _fill(data: Any, values: Mapping[str, _Value], places: set[str], *, is_pattern: bool = False) -> Any:
    def put(place: re.Match[str]) -> str:
        value = values.get(place[1])
        if value is None:
            return place[0]
        return value.pattern if is_pattern else value.text

    if isinstance(data, str):
        places.update(_PLACE.findall(data))
        return _PLACE.sub(put, data)
    if isinstance(data, Mapping):
        return {key: _fill(value, values, places, is_pattern=key in _PATTERNS) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_fill(each, values, places) for each in data]
    return data


def fenced(documents: Sequence[str]) -> str:
    """Documents one below the other, between boundaries that occur in none of them."""
    boundary = free_boundary("document", documents)
    return "\n\n".join(f"<{boundary}>\n{document}\n</{boundary}>" for document in documents)


def _mistake(name: str, message: str) -> RubricError:
    return RubricError(message, [Mistake(("parameters", name), message)])
