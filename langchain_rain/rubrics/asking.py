"""What each kind of criterion asks about a transcript, and what the replies say."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import singledispatch
from typing import Literal

import regex

from langchain_rain.errors import EngineError
from langchain_rain.quoting import as_seen
from langchain_rain.rubrics.criteria import (
    MAX_RATING,
    MIN_RATING,
    AnyCriterion,
    CallableCriterion,
    Criterion,
    GuardCriterion,
    PatternCriterion,
    ScaleCriterion,
    YesNoCriterion,
)
from langchain_rain.rubrics.rendering import Form, Template, evidence_of, render
from langchain_rain.search.protocol import OptionLogprobs, Transcript

LABELS = ("A", "B")
ANSWER_PREFIX = "The answer is: ("
VALUE_OPTIONS = ("good", "bad")
"""What a function is asked about."""

MAX_PATTERN_SECONDS = 1.0
"""After which a pattern is given up: others wait for the same thread."""

Scoring = Literal["binary", "probability"]
"""How the two orders of the options become a value; see `criterion_value`."""


_SPEAKER = re.compile(r"^(Human|Assistant):", re.MULTILINE)
_ESCAPED = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a `Score` asks, but for the conversation it is asked in."""

    question: str
    answer_prefix: str
    options: tuple[str, ...]
    wrapper: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """What is found about one criterion.

    Attributes:
        value: in [-1, 1]; 0 if it abstains.
        mass: the least probability that the options had together; None if no model was asked.
        is_abstained: whether there is no finding.
    """

    value: float
    mass: float | None = None
    is_abstained: bool = False


# --- What is asked ---------------------------------------------------------------------------------------------------


@singledispatch
def forms_of(criterion: AnyCriterion) -> tuple[Form, ...]:
    """The forms in which a model is asked about a criterion; none if none is, or a guard in its own form."""
    return ()


@forms_of.register
def _(criterion: Criterion) -> tuple[Form, ...]:
    return _choice(criterion, is_swapped=False), _choice(criterion, is_swapped=True)


def _choice(criterion: Criterion, *, is_swapped: bool) -> Form:
    first, second = (criterion.bad, criterion.good) if is_swapped else (criterion.good, criterion.bad)
    options = f"Options:\n({LABELS[0]}) {first}\n({LABELS[1]}) {second}\n"
    good, bad = reversed(LABELS) if is_swapped else LABELS
    return Form(criterion.instruction, options, ANSWER_PREFIX, LABELS, LABELS, (f"{good})", f"{bad})"))


@forms_of.register
def _(criterion: YesNoCriterion) -> tuple[Form, ...]:
    yes, no = answers = ("Yes", "No")
    shown = (f" {yes}", f" {no}") if criterion.good == "yes" else (f" {no}", f" {yes}")
    asked = f"Question about the conversation: {criterion.question}\nAnswer with {yes} or {no}.\n"
    return (Form(criterion.instruction, asked, "The answer is:", answers, (), shown),)


@forms_of.register
def _(criterion: ScaleCriterion) -> tuple[Form, ...]:
    ratings = tuple(str(rating) for rating in range(MIN_RATING, MAX_RATING + 1))
    lowest, highest = ratings[0], ratings[-1]
    options = f"Options, from ({lowest}) to ({highest}):\n({lowest}) {criterion.worst}\n({highest}) {criterion.best}\n"
    return (Form(criterion.instruction, options, ANSWER_PREFIX, ratings, ratings, (f"{highest})", f"{lowest})")),)


def asked_about(
    criterion: AnyCriterion,
    transcript: Transcript,
    template: Template,
    examples: Sequence[tuple[Transcript, bool]] = (),
) -> tuple[Asked, ...]:
    """All that is asked about a criterion."""
    if isinstance(criterion, CallableCriterion):
        return (Asked(transcript.prompt, transcript.answer, VALUE_OPTIONS),)
    if isinstance(criterion, GuardCriterion):
        return (_asked_of_guard(criterion, transcript),)
    forms = forms_of(criterion)
    questions = render(forms, transcript, template, examples) if forms else []
    return tuple(
        Asked(question, form.answer_prefix, form.answers) for form, question in zip(forms, questions, strict=True)
    )


def _asked_of_guard(criterion: GuardCriterion, transcript: Transcript) -> Asked:
    form = criterion.used_form
    # Turns of the conversation are real in a prompt; what imitates one there, or in the answer, is quoted.
    prompt = _SPEAKER.sub(lambda turn: f"{form.speaker(turn[1])}:", transcript.prompt)
    evidence = evidence_of(replace(transcript, prompt=prompt), form=form.prompt, is_whole_form=True)
    parts = {"transcript": evidence, "categories": "\n".join(criterion.categories)}
    question = re.sub(r"\{(transcript|categories)\}", lambda place: parts[place[1]], form.prompt)
    wrapper = (form.before, form.after) if form.before is not None and form.after is not None else None
    return Asked(question, form.answer_prefix, (form.good, form.bad), wrapper)


# --- What the replies say --------------------------------------------------------------------------------------------


@singledispatch
def finding(
    criterion: AnyCriterion, transcript: Transcript, replies: Sequence[OptionLogprobs], scoring: Scoring
) -> Finding:
    """What the replies to all that was asked about a criterion say about it."""
    raise AssertionError(f"no kind of criterion: {criterion!r}")


@finding.register
def _(criterion: Criterion, transcript: Transcript, replies: Sequence[OptionLogprobs], scoring: Scoring) -> Finding:
    straight, swapped = replies
    return Finding(criterion_value(straight, swapped, scoring), min(straight.mass, swapped.mass))


@finding.register
def _(
    criterion: YesNoCriterion, transcript: Transcript, replies: Sequence[OptionLogprobs], scoring: Scoring
) -> Finding:
    (reply,) = replies
    good, bad = reply.logprobs if criterion.good == "yes" else reply.logprobs[::-1]
    return Finding(2 * _vote(good, bad, scoring) - 1, reply.mass)


@finding.register
def _(
    criterion: ScaleCriterion, transcript: Transcript, replies: Sequence[OptionLogprobs], scoring: Scoring
) -> Finding:
    (reply,) = replies
    shares = shares_of(reply)
    if not shares:
        return Finding(0.0, reply.mass, is_abstained=True)
    mean = sum(rating * share for rating, share in enumerate(shares, start=MIN_RATING))
    middle = (MIN_RATING + MAX_RATING) / 2
    return Finding((mean - middle) / (MAX_RATING - middle), reply.mass)


@finding.register
def _(
    criterion: PatternCriterion, transcript: Transcript, replies: Sequence[OptionLogprobs], scoring: Scoring
) -> Finding:
    matches = (_matches(criterion, reading) for reading in _readings(criterion, transcript.answer))
    return Finding(1.0 if any(matches) == (criterion.must_match is not None) else -1.0)


def _readings(criterion: PatternCriterion, answer: str) -> Iterator[str]:
    """The answer as it is; what must not match, is looked for in whatever else it may be to a reader, too."""
    yield answer
    if criterion.must_not_match is not None:
        yield as_seen(answer)
        if "\\" in answer:  # in the arguments of a tool call, as JSON writes them
            yield as_seen(_ESCAPED.sub(_unescaped, answer))


def _unescaped(escape: re.Match[str]) -> str:
    return chr(int(escape[1], 16)) if escape[1] else {"n": "\n", "r": "\r", "t": "\t"}.get(escape[2], escape[2])


def _matches(criterion: PatternCriterion, text: str) -> bool:
    try:
        return regex.search(criterion.pattern, text, timeout=MAX_PATTERN_SECONDS) is not None
    except TimeoutError as error:
        raise EngineError(
            f"The pattern of {criterion.name!r} was not done with an answer of {len(text)} characters after "
            f"{MAX_PATTERN_SECONDS:g} s, so nothing is known about it; write one that backtracks less."
        ) from error


@finding.register
def _(
    criterion: CallableCriterion, transcript: Transcript, replies: Sequence[OptionLogprobs], scoring: Scoring
) -> Finding:
    (reply,) = replies
    return value_of(reply)


@finding.register
def _(
    criterion: GuardCriterion, transcript: Transcript, replies: Sequence[OptionLogprobs], scoring: Scoring
) -> Finding:
    (reply,) = replies
    good, bad = reply.logprobs
    return Finding(2 * _vote(good, bad, scoring) - 1, reply.mass)


def shares_of(reply: OptionLogprobs) -> list[float]:
    """The probabilities of options among themselves; none if no option has any."""
    highest = max(reply.logprobs)
    if highest == -math.inf:
        return []
    weights = [math.exp(logprob - highest) for logprob in reply.logprobs]
    return [weight / sum(weights) for weight in weights]


def value_of(reply: OptionLogprobs) -> Finding:
    """What a function found, told as the probability of `VALUE_OPTIONS`: p(good) - p(bad)."""
    if reply.mass == 0:
        return Finding(0.0, is_abstained=True)
    good, bad = (math.exp(logprob) for logprob in reply.logprobs)
    return Finding(good - bad)


def criterion_value(straight: OptionLogprobs, swapped: OptionLogprobs, scoring: Scoring) -> float:
    """The value of a criterion in [-1, 1] (RAIN, section 3.2, self-evaluation).

    Args:
        straight: log probabilities of the labels with the good option first.
        swapped: the same with the bad option first, which cancels a preference for a label.
        scoring: "binary" gives an order one vote if the good option is the more probable one, half of one if neither
            is, so -1, 0 or 1 in all but for ties; "probability" takes p(good) / (p(good) + p(bad)) of each order.
    """
    (good_first, bad_second), (bad_first, good_second) = straight.logprobs, swapped.logprobs
    return _vote(good_first, bad_second, scoring) + _vote(good_second, bad_first, scoring) - 1


def _vote(good: float, bad: float, scoring: Scoring) -> float:
    """How much speaks for the good option, in [0, 1]."""
    margin = 0.0 if good == bad else good - bad  # infinite or not
    if scoring == "binary":
        return 0.5 if margin == 0 else float(margin > 0)
    return 1 / (1 + math.exp(-margin)) if margin >= 0 else math.exp(margin) / (1 + math.exp(margin))
