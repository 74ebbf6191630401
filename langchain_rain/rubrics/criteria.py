"""The kinds of criterion, as data: what can be asked about an answer.

question   a model chooses between a good and a bad option, asked in both orders
yes_no     a model answers a question with yes or no
scale      a model gives 1 to 5; the value is that of the mean of its distribution
pattern    a regular expression that the answer must, or must not, match
callable   a function of the user's: transcript -> value
guard      a model that was trained to judge is asked in its own form
"""

import secrets
from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Any, Literal, Self, TypeAlias

import regex
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PrivateAttr,
    SkipValidation,
    Tag,
    ValidationError,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema

from langchain_rain.errors import Mistake, RubricError, mistakes_in, told_of
from langchain_rain.functions import name_of_function
from langchain_rain.rubrics.files import names_in_library, read_from_library
from langchain_rain.search.protocol import AppliesTo

MIN_RATING, MAX_RATING = 1, 5
"""The ends of a scale."""


class Frozen(BaseModel):
    """Immutable, strict about unknown keys, and raising `RubricError` for every mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as error:
            mistakes = [Mistake(_without_kind(each.key), each.message) for each in mistakes_in(error)]
            raise RubricError(told_of(type(self).__name__, mistakes), mistakes) from error


def _without_kind(key: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """The path of a mistake without what pydantic puts in: which kind of a criterion, or of a form, it is."""
    if len(key) > 3 and key[0] == "criteria" and isinstance(key[1], int):
        key = (*key[:2], *key[3:])
    at = key.index("form") + 1 if "form" in key else len(key)
    return (*key[:at], *key[at + 1 :]) if key[at : at + 1] in (("name",), ("form",)) else key


def mistake(message: str, *key: str | int) -> RubricError:
    """One mistake at a key, for validators."""
    return RubricError(message, [Mistake(key, message)])


class _Criterion(Frozen):
    """What all kinds have.

    Attributes:
        name: names the criterion in verdicts.
        weight: its share in the value of the rubric, above 0.
        veto: whether judging it bad (value below 0) rules the answer out, whatever the others say.
        applies_to: "prefix" if any beginning of an answer can be judged by it, "final" if only a finished one can.
    """

    name: str = Field(min_length=1, description="Names the criterion in verdicts.")
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False, description="Its share in the value of the rubric.")
    veto: bool = Field(default=False, description="Whether judging it bad rules an answer out, whatever others say.")
    applies_to: AppliesTo = Field(
        default="prefix",
        description='"prefix": any beginning of an answer can be judged; "final": only all of it.',
    )


class _AskedCriterion(_Criterion):
    """What those have that a model is asked about in a form of ours.

    Attributes:
        shows_examples: whether the model is shown the rubric's examples of it before it judges.
    """

    shows_examples: bool = Field(default=True, description="Whether a judge is shown the examples of it.")


class Criterion(_AskedCriterion):
    """A model chooses between a good and a bad option; both orders are asked, which cancels a preference for a letter.

    Attributes:
        instruction: tells the judge what to look at; stands above the transcript.
        good: the option that speaks for the answer.
        bad: the option that speaks against it.
    """

    kind: Literal["question"] = Field(default="question", description="A choice between two options.")
    instruction: str = Field(min_length=1, description="Tells the judge what to look at.")
    good: str = Field(min_length=1, description="The option that speaks for the answer.")
    bad: str = Field(min_length=1, description="The option that speaks against it.")

    @property
    def wish(self) -> str:
        """The good option."""
        return self.good

    @model_validator(mode="after")
    def _check_options_differ(self) -> Self:
        if self.good == self.bad:
            raise mistake(f"good and bad are both {self.good!r}; they must differ", "bad")
        return self


def _yes_or_no(given: Any) -> Any:
    """YAML reads an unquoted yes or no as a truth."""
    return {True: "yes", False: "no"}[given] if isinstance(given, bool) else given


class YesNoCriterion(_AskedCriterion):
    """A model answers a question with yes or no.

    Attributes:
        question: what is asked; stands below the transcript.
        good: the answer that speaks for the transcript, "yes" or "no".
        instruction: what the judge is told before.
    """

    kind: Literal["yes_no"] = Field(default="yes_no", description="A question to be answered with yes or no.")
    question: str = Field(min_length=1, description="What is asked about the conversation.")
    good: Annotated[Literal["yes", "no"], BeforeValidator(_yes_or_no)] = Field(
        description="Which of the two speaks for the answer."
    )
    instruction: str = Field(
        default="Read this conversation and answer the question below it.",
        min_length=1,
        description="What the judge is told before.",
    )

    @property
    def wish(self) -> str:
        """The good answer."""
        return f"The answer to this question about it is {self.good}: {self.question}"


class ScaleCriterion(_AskedCriterion):
    """A model rates from 1 to 5; the mean of its distribution is the value, 1 as -1 and 5 as 1.

    Attributes:
        instruction: tells the judge what to rate.
        worst: what 1 means.
        best: what 5 means.
    """

    kind: Literal["scale"] = Field(default="scale", description="A rating from 1 to 5.")
    instruction: str = Field(min_length=1, description="Tells the judge what to rate.")
    worst: str = Field(min_length=1, description="What 1 means.")
    best: str = Field(min_length=1, description="What 5 means.")

    @property
    def wish(self) -> str:
        """The best end."""
        return self.best

    @model_validator(mode="after")
    def _check_ends_differ(self) -> Self:
        if self.worst == self.best:
            raise mistake(f"worst and best are both {self.best!r}; they must differ", "best")
        return self


class PatternCriterion(_Criterion):
    """A regular expression (`regex.search`, which reads those of `re`) that the answer must, or must not, match.

    No model is asked. What must not match is looked for in the answer as it is, in what a reader sees of it (without
    invisible characters, in compatibility forms), and in that with the escapes of JSON resolved.

    Attributes:
        must_match: what a good answer matches; judges finished answers by default.
        must_not_match: what a good answer does not match anywhere.
        good: what is true of a good answer, in words for whoever is to write one.
    """

    kind: Literal["pattern"] = Field(default="pattern", description="A regular expression for the answer.")
    must_match: str | None = Field(default=None, description="What a good answer matches.")
    must_not_match: str | None = Field(default=None, description="What a good answer does not match anywhere.")
    good: str = Field(default="", description="What is true of a good answer, in words.")

    @model_validator(mode="before")
    @classmethod
    def _judge_requirements_at_the_end(cls, data: Any) -> Any:
        """What an answer must contain is usually not there from its first word on."""
        if isinstance(data, Mapping) and data.get("must_match") is not None:
            return {"applies_to": "final", **data}
        return data

    @model_validator(mode="after")
    def _check_pattern(self) -> Self:
        if (self.must_match is None) == (self.must_not_match is None):
            raise mistake(
                f"exactly one of must_match and must_not_match is allowed, given {self.must_match!r} and "
                f"{self.must_not_match!r}"
            )
        key = "must_match" if self.must_match is not None else "must_not_match"
        try:
            compiled = regex.compile(self.pattern)
        except regex.error as error:
            raise mistake(f"a regular expression is allowed, given {self.pattern!r}: {error}", key) from error
        if self.must_not_match is not None and compiled.search(""):
            raise mistake(f"it matches the empty text, so every answer, given {self.pattern!r}", key)
        return self

    @property
    def wish(self) -> str:
        """What is true of a good answer, in words if there are any."""
        if self.good:
            return self.good
        wanted = "matches" if self.must_match is not None else "does not match"
        return f"It {wanted} the regular expression {self.pattern}"

    @property
    def pattern(self) -> str:
        """The expression."""
        return self.must_match if self.must_match is not None else str(self.must_not_match)


JudgeFunction: TypeAlias = Callable[[Any], Any]


class CallableCriterion(_Criterion):
    """A function of the user's: takes the transcript, returns a value in [-1, 1], or None to abstain.

    The function is code and stands in no file: there the criterion is named, and `Rubric.from_yaml` is given its
    function by that name. It may be a coroutine function; the answer is then asked for by an async method.

    Attributes:
        function: takes a text, prompt and answer; its attribute `answer` is the answer alone.
        good: what is true of a good answer, in words for whoever is to write one.
    """

    kind: Literal["callable"] = Field(default="callable", description="A function, given to from_yaml by name.")
    function: SkipJsonSchema[SkipValidation[JudgeFunction]] = Field(exclude=True, repr=False)
    good: str = Field(default="", description="What is true of a good answer, in words.")

    @property
    def wish(self) -> str:
        """What is true of a good answer, in words if there are any."""
        return self.good or f"It passes the check {self.name!r}."

    # Of this object alone: addresses come again, and two functions may look the same.
    _nonce: str = PrivateAttr(default="")

    def model_post_init(self, context: Any, /) -> None:
        """Checks the function, and tells one without a name of its own apart from all others."""
        if not callable(self.function):
            raise mistake(f"a function is allowed, given {self.function!r}", "function")
        if name_of_function(self.function) is None:
            self._nonce = secrets.token_hex(8)

    @property
    def identity(self) -> str:
        """Names the function so that no other one has the name."""
        return name_of_function(self.function) or self._nonce


class GuardForm(Frozen):
    """How a family of guard models is asked.

    Attributes:
        prompt: what it reads, with `{transcript}`, and `{categories}` if it takes any.
        user: how it names who asks.
        assistant: how it names who answers.
        good: the word it answers with if nothing is wrong.
        bad: the word it answers with otherwise.
        answer_prefix: what its answer begins with.
        before: special tokens and all before the prompt, in place of the model's chat template; with `after`.
        after: the same after it.
    """

    prompt: str = Field(description="What the model reads, with {transcript} and {categories}.")
    user: str = Field(default="Human", min_length=1, description="How it names who asks.")
    assistant: str = Field(default="Assistant", min_length=1, description="How it names who answers.")
    good: str = Field(min_length=1, description="Its answer if nothing is wrong.")
    bad: str = Field(min_length=1, description="Its answer otherwise.")
    answer_prefix: str = Field(default="", description="What its answer begins with.")
    before: str | None = Field(default=None, description="What stands before in place of the chat template.")
    after: str | None = Field(default=None, description="What stands after in place of the chat template.")

    def speaker(self, name: str) -> str:
        """How it names "Human" or "Assistant"."""
        return self.user if name == "Human" else self.assistant

    @model_validator(mode="after")
    def _check_form(self) -> Self:
        if "{transcript}" not in self.prompt:
            raise mistake(f"{{transcript}} must stand in it, given {self.prompt!r}", "prompt")
        if self.good == self.bad:
            raise mistake(f"good and bad are both {self.good!r}; they must differ", "bad")
        if (self.before is None) != (self.after is None):
            raise mistake(f"before and after come together, given {self.before!r} and {self.after!r}", "after")
        return self


@cache
def _form_of_library(name: str) -> GuardForm:
    """A form of the library, read once: every judgement asks for it."""
    return GuardForm(**read_from_library("guards", name))


class GuardCriterion(_Criterion):
    """A model that was trained to judge is asked in its own form whether a conversation is safe.

    Attributes:
        form: the name of a form in the library ("llama_guard", "granite_guardian"), or a form.
        categories: what is not allowed, each in a line or a few words.
        model: the guard model, a Hugging Face id or folder; None: whoever judges the rest.
    """

    kind: Literal["guard"] = Field(default="guard", description="A guard model in its own form.")
    form: Annotated[
        Annotated[str, Tag("name")] | Annotated[GuardForm, Tag("form")],
        Discriminator(lambda given: "name" if isinstance(given, str) else "form"),
    ] = Field(description="The name of a form in the library, or a form.")
    categories: tuple[str, ...] = Field(default=(), description="What is not allowed.")
    model: str | None = Field(default=None, min_length=1, description="The guard model; by default the judge.")

    @model_validator(mode="after")
    def _check_form(self) -> Self:
        if isinstance(self.form, str) and self.form not in names_in_library("guards"):
            known = ", ".join(names_in_library("guards"))
            raise mistake(f"a form, or the name of one of the library is allowed: {known}; given {self.form!r}", "form")
        takes_categories = "{categories}" in self.used_form.prompt
        if takes_categories != bool(self.categories):
            takes = "takes categories; name at least one" if takes_categories else "takes no categories"
            raise mistake(f"the form {takes}, given {list(self.categories)!r}", "categories")
        return self

    @property
    def wish(self) -> str:
        """What is not allowed."""
        return f"It is safe: {', '.join(self.categories)} do not occur in it." if self.categories else "It is safe."

    @property
    def used_form(self) -> GuardForm:
        """The form as such."""
        return self.form if isinstance(self.form, GuardForm) else _form_of_library(self.form)


def _kind(given: Any) -> Any:
    return given.get("kind", "question") if isinstance(given, Mapping) else getattr(given, "kind", None)


AnyCriterion: TypeAlias = Annotated[
    Annotated[Criterion, Tag("question")]
    | Annotated[YesNoCriterion, Tag("yes_no")]
    | Annotated[ScaleCriterion, Tag("scale")]
    | Annotated[PatternCriterion, Tag("pattern")]
    | Annotated[CallableCriterion, Tag("callable")]
    | Annotated[GuardCriterion, Tag("guard")],
    Discriminator(
        _kind,
        custom_error_type="kind",
        custom_error_message="kind: question, yes_no, scale, pattern, callable or guard is allowed",
    ),
]
"""A criterion of any kind; without `kind` it is a question."""
