"""Rubrics: what an answer is judged by, as data."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeAlias

import yaml
from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from langchain_rain.errors import Mistake, RubricError
from langchain_rain.quoting import quoted
from langchain_rain.rubrics.criteria import (
    AnyCriterion,
    CallableCriterion,
    Frozen,
    GuardCriterion,
    PatternCriterion,
    mistake,
)
from langchain_rain.rubrics.files import Source, names_in_library, read_from_library
from langchain_rain.rubrics.parameters import Parameter, filled
from langchain_rain.rubrics.rendering import check_template
from langchain_rain.search.protocol import Transcript

Aggregate = Literal["mean", "minimum", "product"]

Version: TypeAlias = Annotated[
    str,
    BeforeValidator(lambda given: str(given) if isinstance(given, int | float) else given),
    WithJsonSchema({"type": ["string", "number"]}),
]
"""A text, or a number as YAML reads 1.2."""

Functions: TypeAlias = Mapping[str, Any]
"""The functions of callable criteria, by the names of the criteria."""


class Example(Frozen):
    """A judged answer: shown to the judge before the one it has to judge, and a test of whoever judges.

    Attributes:
        criterion: the one that it is an example of.
        prompt: what was asked; without it the response stands alone.
        response: the answer that was judged.
        is_good: the judgement.
    """

    criterion: str = Field(description="The name of the criterion that it is an example of.")
    prompt: str = Field(default="", description="What was asked.")
    response: str = Field(min_length=1, description="The answer that was judged.")
    is_good: bool = Field(description="Whether the answer is good by this criterion.")

    @property
    def transcript(self) -> Transcript:
        """What is judged."""
        return transcript_of(self.prompt, self.response)


def transcript_of(prompt: str, response: str) -> Transcript:
    """The transcript of one turn as `ChatRain` puts it in lines; without a prompt the response alone."""
    if not prompt:
        return Transcript("", response)
    return Transcript(f"Human: {quoted(prompt)}\n\nAssistant:", f" {response}")


class Rubric(Frozen):
    """Criteria, examples, and how the values of the criteria become one value.

    Attributes:
        name: names the rubric in results.
        version: of its text; for whoever keeps it.
        description: what it is for; for whoever reads it.
        criteria: at least one, of distinct names.
        examples: of what the criteria mean.
        aggregate: "mean" by weight; "minimum", the worst of all; or "product", of the values as shares from 0 to 1,
            each to the power of its weight.
        template: how a question is put: "plain", "fenced", or a text with {instruction}, {transcript}, {options} and,
            if examples are shown, {examples}. None: "fenced" where the judge has a chat template, else "plain".
    """

    name: str = Field(min_length=1, description="Names the rubric in results.")
    version: Version = Field(default="1", description="Of its text; for whoever keeps it.")
    description: str = Field(default="", description="What it is for; for whoever reads it.")
    criteria: tuple[AnyCriterion, ...] = Field(min_length=1, description="What is judged; names must differ.")
    examples: tuple[Example, ...] = Field(default=(), description="Judged answers, of what the criteria mean.")
    aggregate: Aggregate = Field(default="mean", description="How the values of the criteria become one.")
    template: str | None = Field(default=None, description='"plain", "fenced", or a text with the places of the parts.')

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        names = [criterion.name for criterion in self.criteria]
        for number, name in enumerate(names):
            if name in names[:number]:
                raise mistake(f"two criteria have the name {name!r}; names must differ", "criteria", number, "name")
        for number, example in enumerate(self.examples):
            where = ("examples", number, "criterion")
            if example.criterion not in names:
                raise mistake(f"there is no criterion {example.criterion!r}; there are {', '.join(names)}", *where)
        for number, criterion in enumerate(self.criteria):
            if self.aggregate == "minimum" and criterion.weight != 1:
                told = f"a weight has no effect where the minimum counts, given {criterion.weight:g}"
                raise mistake(told, "criteria", number, "weight")
        if self.template is not None:
            check_template(self.template, needs_examples=any(self.shown_examples(each) for each in self.criteria))
        return self

    def __and__(self, other: "Rubric") -> "Rubric":
        """All criteria of both, of which the worst counts; what they share is judged once.

        Raises:
            RubricError: two criteria of one name differ, or the rubrics want different templates.
        """
        templates = {rubric.template for rubric in (self, other)} - {None}
        if len(templates) > 1:
            raise RubricError(f"{self.name} and {other.name} cannot be joined: their templates differ.")
        together = list(self.criteria)
        for criterion in other.criteria:
            same = next((each for each in self.criteria if each.name == criterion.name), None)
            if same is not None and same != criterion:
                told = f"each has a criterion {criterion.name!r} of its own; give one of them another name"
                raise RubricError(f"{self.name} and {other.name} cannot be joined: {told}.")
            together += [criterion] if same is None else []
        return Rubric(
            name=f"{self.name} & {other.name}",
            description="\n".join(text for text in (self.description, other.description) if text),
            criteria=tuple(each.model_copy(update={"weight": 1.0}) for each in together),
            examples=tuple(dict.fromkeys((*self.examples, *other.examples))),
            aggregate="minimum",
            template=next(iter(templates), None),
        )

    @classmethod
    def load(cls, name: str, /, **parameters: Any) -> "Rubric":
        """Returns a rubric of the library by its name, for example "harmlessness".

        Args:
            name: of the rubric.
            **parameters: what it leaves open, for example `topic="banking"` of "on_topic".

        Raises:
            RubricError: there is no such rubric, or a parameter is missing, unknown or not allowed.
        """
        return RubricFile.in_library(name).rubric(parameters)

    @classmethod
    def from_yaml(
        cls, path_or_text: str | os.PathLike[str], /, *, functions: Functions | None = None, **parameters: Any
    ) -> "Rubric":
        """Reads a rubric from a YAML file, or from a text of more than one line.

        Args:
            path_or_text: the file, or the text.
            functions: of its callable criteria, by their names.
            **parameters: what the rubric leaves open.

        Raises:
            RubricError: it cannot be read, or something in it is not allowed: file, line and key are named.
        """
        source = Source.read(path_or_text)
        try:
            return RubricFile(**_with_functions(source.data, functions or {})).rubric(parameters)
        except RubricError as error:
            raise (source.error(error.mistakes) if error.mistakes else error) from error

    def to_yaml(self) -> str:
        """The rubric as YAML; `from_yaml` reads the same rubric from it. Parameters are filled in."""
        data = self.model_dump(mode="json", exclude_defaults=True)
        for criterion, dumped in zip(self.criteria, data["criteria"], strict=True):
            if criterion.kind != "question":
                dumped["kind"] = criterion.kind
            if isinstance(criterion, PatternCriterion):  # by default it depends on what is matched
                dumped["applies_to"] = criterion.applies_to
        return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)

    @staticmethod
    def names_in_library() -> list[str]:
        """The names that `load` knows, sorted."""
        return names_in_library()

    @property
    def content_hash(self) -> str:
        """16 hexadecimal digits that change with what the rubric means, and with nothing else.

        Name, version and description do not change it, nor does the order of criteria, nor what is spelled out and
        would be the same by default.
        """
        criteria = [_meaning_of(each) for each in sorted(self.criteria, key=lambda each: each.name)]
        content: dict[str, Any] = {"criteria": criteria, "aggregate": self.aggregate, "template": self.template}
        if self.aggregate == "mean":
            total = sum(each.weight for each in self.criteria)
            for each in criteria:
                each["weight"] = round(each["weight"] / total, 12)
        if self.aggregate == "minimum" and len(criteria) == 1:
            content["aggregate"] = "mean"
        shown = [self.shown_examples(each) for each in sorted(self.criteria, key=lambda each: each.name)]
        content["examples"] = [[example.model_dump(mode="json") for example in each] for each in shown]
        canonical = json.dumps(content, sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def shown_examples(self, criterion: AnyCriterion) -> list[Example]:
        """The examples that a model is shown before it judges by a criterion."""
        if not getattr(criterion, "shows_examples", False):
            return []
        return [example for example in self.examples if example.criterion == criterion.name]

    @property
    def asked_criteria(self) -> tuple[AnyCriterion, ...]:
        """The criteria that a model is asked about; the others are patterns and functions."""
        return tuple(each for each in self.criteria if each.kind not in ("pattern", "callable"))


def as_rubric(rubric: Rubric | str | os.PathLike[str], **parameters: Any) -> Rubric:
    """The rubric that is meant: itself, a file (by its ending), or one of the library.

    Args:
        rubric: what is meant.
        **parameters: what it leaves open; a `Rubric` leaves nothing open.

    Raises:
        RubricError: there is none, or it is malformed, or a parameter is missing, unknown or not allowed.
    """
    if isinstance(rubric, Rubric):
        if parameters:
            told = "it is filled in already; give its name or file instead"
            raise RubricError(f"{rubric.name} takes no parameter {sorted(parameters)[0]!r}: {told}.")
        return rubric
    return Rubric.from_yaml(rubric, **parameters) if _is_file(rubric) else Rubric.load(str(rubric), **parameters)


def parameters_of(rubric: Rubric | str | os.PathLike[str]) -> Mapping[str, Parameter]:
    """What a rubric leaves open, by name; nothing, if it is a `Rubric` already.

    Raises:
        RubricError: there is none, or it is malformed.
    """
    if isinstance(rubric, Rubric):
        return {}
    if not _is_file(rubric):
        return RubricFile.in_library(str(rubric)).parameters
    source = Source.read(rubric)
    try:
        return RubricFile(**_with_functions(source.data, {})).parameters
    except RubricError as error:
        raise (source.error(error.mistakes) if error.mistakes else error) from error


def _is_file(rubric: str | os.PathLike[str]) -> bool:
    return not isinstance(rubric, str) or rubric.endswith((".yaml", ".yml"))


class RubricFile(Rubric):
    """What a YAML file holds: a rubric, and the parameters that its texts leave open.

    Attributes:
        parameters: by name; `{name}` in a text of a criterion or an example stands for the value.
    """

    parameters: dict[str, Parameter] = Field(
        default_factory=dict, description="What the texts leave open: {name} in a text stands for the value."
    )

    @model_validator(mode="after")
    def _check_names_of_parameters(self) -> Self:
        for name in self.parameters:
            if not name.isidentifier() or name == "functions":
                told = f"a name of letters, digits and _, other than functions, is allowed, given {name!r}"
                raise mistake(told, "parameters", name)
        return self

    @classmethod
    def in_library(cls, name: str) -> Self:
        """The file of this name.

        Raises:
            RubricError: there is none.
        """
        known = names_in_library()
        if name not in known:
            raise RubricError(f"There is no rubric {name!r} in the library; it holds {', '.join(known)}.")
        return cls(**dict(read_from_library("library", name)))

    def rubric(self, values: Mapping[str, Any]) -> Rubric:
        """The rubric with these values filled in.

        Raises:
            RubricError: a value is missing, unknown or not allowed; a place in the texts has no parameter.
        """
        data = {name: getattr(self, name) for name in Rubric.model_fields}
        texts = {key: [each.model_dump() for each in data[key]] for key in ("criteria", "examples")}
        done = filled(texts, self.parameters, values)
        for criterion, dumped in zip(self.criteria, done["criteria"], strict=True):
            if isinstance(criterion, CallableCriterion):
                dumped["function"] = criterion.function
        return Rubric(**{**data, **done})


def _with_functions(data: Mapping[Any, Any], functions: Functions) -> dict[Any, Any]:
    """The data with a function in each callable criterion.

    Raises:
        RubricError: a function is missing, or nothing asks for it.
    """
    criteria = data.get("criteria")
    if not isinstance(criteria, list):
        return dict(data)
    done, used = [], set()
    for number, criterion in enumerate(criteria):
        if not isinstance(criterion, dict) or criterion.get("kind") != "callable":
            done.append(criterion)
            continue
        name = str(criterion.get("name"))
        if name not in functions:
            told = f"no function was given for {name!r}; give it as functions={{{name!r}: ...}}"
            raise RubricError(told, [Mistake(("criteria", number, "name"), told)])
        used.add(name)
        done.append({**criterion, "function": functions[name]})
    if functions.keys() - used:
        told = f"no callable criterion has the name {sorted(functions.keys() - used)[0]!r}"
        raise RubricError(told, [Mistake(("criteria",), told)])
    return {**data, "criteria": done}


def _meaning_of(criterion: AnyCriterion) -> dict[str, Any]:
    """All that a judgement by a criterion depends on, but for the examples that are shown."""
    content = criterion.model_dump(mode="json", exclude={"shows_examples"})
    if isinstance(criterion, CallableCriterion):
        content["function"] = criterion.identity
    if isinstance(criterion, GuardCriterion):
        content["form"] = criterion.used_form.model_dump(mode="json")
    return content


class _Dumper(yaml.SafeDumper):
    """Writes texts so that they are read as they were."""


def _write_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    # Some line ends are read as others unless they are escaped, as they are between double quotes.
    style = '"' if _UNUSUAL_LINE_END.search(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_UNUSUAL_LINE_END = re.compile("[\r\x85\u2028\u2029\ufeff]")
_Dumper.add_representer(str, _write_text)
