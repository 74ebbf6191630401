"""Answers of which the truth is known, as JSON lines."""

import os
import re
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError, model_validator

from langchain_rain.errors import RainConfigError, describe_mistakes
from langchain_rain.json_lines import read_object
from langchain_rain.rubrics import Rubric

PERCENTS = (25, 50, 75, 100)
"""Of the characters of an answer, after which it is judged; the last is the answer as it was given."""

ALLOWED = (
    "Allowed are response (a text) and is_good (true or false), which are needed, and prompt (a text), criterion (a "
    "name), is_finished (true or false) and is_good_by_prefix (true or false for 25, 50, 75 and 100 %)."
)

_WORD = re.compile(r"[\u2e80-\ua4cf\uf900-\ufaff]|[^\s\u2e80-\ua4cf\uf900-\ufaff]+")
"""A word; scripts without spaces between words may be cut at any character."""


class Labelled(BaseModel):
    """An answer of which the truth is known. A mistake is a `RainConfigError`.

    Attributes:
        prompt: what was asked; without it the response stands alone.
        response: the answer.
        is_good: whether it is good by the rubric.
        criterion: the one to judge it by; None for all.
        is_finished: whether it has ended.
        is_good_by_prefix: whether its beginnings (`beginning_of` 25, 50 and 75 %) and all of it are good.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: str = Field(default="", description="What was asked.")
    response: str = Field(min_length=1, description="The answer.")
    is_good: StrictBool = Field(description="Whether it is good.")
    criterion: str | None = Field(default=None, description="The criterion to judge it by; by default all.")
    is_finished: StrictBool = Field(default=True, description="Whether it has ended.")
    is_good_by_prefix: tuple[StrictBool, StrictBool, StrictBool, StrictBool] | None = Field(
        default=None, description="Whether 25, 50, 75 and 100 % of it are good."
    )

    def __init__(self, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as error:
            raise RainConfigError(f"{describe_mistakes('A labelled answer', error)} {ALLOWED}") from error

    @model_validator(mode="after")
    def _check_labels_agree(self) -> "Labelled":
        if self.is_good_by_prefix is not None and self.is_good_by_prefix[-1] != self.is_good:
            raise ValueError(
                f"is_good_by_prefix: its last label is that of the whole answer, is_good={self.is_good}, "
                f"given {list(self.is_good_by_prefix)}"
            )
        return self


def beginning_of(response: str, percent: int) -> str:
    """The first `percent` of the characters of an answer, without the word that would be cut; at least one word."""
    if percent == 100:
        return response
    ends = [word.end() for word in _WORD.finditer(response)] or [len(response)]
    return response[: max((end for end in ends if 100 * end <= percent * len(response)), default=ends[0])]


def read_labelled(path: str | os.PathLike[str], rubric: Rubric) -> list[Labelled]:
    """Reads labelled answers, one JSON object (`Labelled`) a line.

    Raises:
        RainConfigError: it cannot be read, or something in it is not allowed: file and line are named.
    """
    try:
        with open(path, "rb") as file:
            content = file.read()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        told = f"The labelled answers {os.fspath(path)!r} cannot be read: {reason}"
        raise RainConfigError(f"{told}. A file of JSON lines is wanted.") from error
    lines = content.removeprefix(b"\xef\xbb\xbf").rstrip().split(b"\n")
    if lines == [b""]:
        raise RainConfigError(f"{os.fspath(path)!r} is empty; at least one line is wanted. {ALLOWED}")
    return [_read_line(line, rubric, f"{os.fspath(path)}, line {number}") for number, line in enumerate(lines, start=1)]


def _read_line(line: bytes, rubric: Rubric, where: str) -> Labelled:
    data = read_object(line, where)
    try:
        row = Labelled(**data)
    except RainConfigError as error:
        raise RainConfigError(f"{where}: {error}") from error
    check_criterion(row, rubric, where)
    return row


def check_criterion(row: Labelled, rubric: Rubric, where: str) -> None:
    """Checks that the criterion that a row names exists.

    Raises:
        RainConfigError: it does not.
    """
    names = [criterion.name for criterion in rubric.criteria]
    if row.criterion is not None and row.criterion not in names:
        told = f"{where}: {rubric.name} has no criterion {row.criterion!r}"
        raise RainConfigError(f"{told}; allowed are {', '.join(names)}, or none to judge by all.")
