"""Rubrics: what an answer is judged by, as data."""

import hashlib
import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from langchain_rain.errors import RubricError, describe_mistakes

LABELS = ("A", "B")
ANSWER_PREFIX = "The answer is: ("


class _Frozen(BaseModel):
    """Immutable, strict about unknown keys, and raising `RubricError` for every mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as error:
            raise RubricError(describe_mistakes(type(self).__name__, error)) from error


class Criterion(_Frozen):
    """One question about a transcript, with a good and a bad answer to choose from.

    Attributes:
        name: names the criterion in verdicts.
        instruction: tells the judge what to look at; stands above the transcript.
        good: the option that speaks for the answer.
        bad: the option that speaks against it.
        weight: its share in the value of the rubric, above 0.
        veto: whether judging it bad (value below 0) rules the answer out, whatever the others say.
    """

    name: str = Field(min_length=1)
    instruction: str = Field(min_length=1)
    good: str = Field(min_length=1)
    bad: str = Field(min_length=1)
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    veto: bool = False

    @model_validator(mode="after")
    def _check_options_differ(self) -> Self:
        if self.good == self.bad:
            raise ValueError(f"good and bad are both {self.good!r}; they must differ")
        return self


class Example(_Frozen):
    """A judged transcript that is shown to the judge before the one it has to judge."""

    criterion: str
    transcript: str = Field(min_length=1)
    is_good: bool


class Rubric(_Frozen):
    """Criteria, examples, and how the values of the criteria become one value.

    Attributes:
        name: names the rubric in results.
        criteria: at least one, of distinct names.
        examples: shown to the judge of the criterion they name.
        aggregate: "mean" is the mean of the criteria's values by weight.
    """

    name: str = Field(min_length=1)
    criteria: tuple[Criterion, ...] = Field(min_length=1)
    examples: tuple[Example, ...] = ()
    aggregate: Literal["mean"] = "mean"

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        names = [criterion.name for criterion in self.criteria]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"criteria have the same name {repeated[0]!r}; names must differ")
        for example in self.examples:
            if example.criterion not in names:
                raise ValueError(f"an example names the criterion {example.criterion!r}; there are only {names}")
        return self

    @classmethod
    def load(cls, name: str) -> "Rubric":
        """Returns a rubric of the library by its name, for example "harmlessness"."""
        known = cls.names_in_library()
        if name not in known:
            raise RubricError(f"There is no rubric {name!r} in the library; it holds {', '.join(known)}.")
        text = (files("langchain_rain.rubrics") / "library" / f"{name}.yaml").read_text(encoding="utf-8")
        return cls(**yaml.safe_load(text))

    @staticmethod
    def names_in_library() -> list[str]:
        """The names that `load` knows, sorted."""
        folder = files("langchain_rain.rubrics") / "library"
        return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))

    @property
    def content_hash(self) -> str:
        """16 hexadecimal digits that change with anything in the rubric."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def render_question(
    criterion: Criterion, transcript: str, *, is_swapped: bool, examples: Sequence[Example] = ()
) -> str:
    """The question put to the judge, up to and with the options; `is_swapped` puts the bad option first.

    The transcript stands in it verbatim. The answer is to be continued from `ANSWER_PREFIX` with one of `LABELS`.
    """
    shown = "".join(
        _render_case(criterion, example.transcript, is_swapped=is_swapped)
        + f"{ANSWER_PREFIX}{LABELS[int(example.is_good == is_swapped)]})\n\n"
        for example in examples
    )
    return f"{criterion.instruction}\n\n{shown}{_render_case(criterion, transcript, is_swapped=is_swapped)}"


def _render_case(criterion: Criterion, transcript: str, *, is_swapped: bool) -> str:
    first, second = (criterion.bad, criterion.good) if is_swapped else (criterion.good, criterion.bad)
    return f"{transcript}\nOptions:\n({LABELS[0]}) {first}\n({LABELS[1]}) {second}\n"
