"""What each kind of criterion asks about a transcript, and what the replies say."""

import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import Literal

from langchain_rain.quoting import without_invisible
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

Scoring = Literal["binary", "probability"]
"""How the two orders of the options become a value; see `criterion_value`."""


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
    asked = f"Question: {criterion.question}\nAnswer with {yes} or {no}.\n"
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
    return tuple(
        Asked(render(form, transcript, template, examples), form.answer_prefix, form.answers)
        for form in forms_of(criterion)
    )


def _asked_of_guard(criterion: GuardCriterion, transcript: Transcript) -> Asked:
    form = criterion.used_form
    parts = {"transcript": evidence_of(transcript), "categories": "\n".join(criterion.categories)}
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
    highest = max(reply.logprobs)
    if highest == -math.inf:
        return Finding(0.0, reply.mass, is_abstained=True)
    shares = [math.exp(logprob - highest) for logprob in reply.logprobs]
    mean = sum(rating * share for rating, share in enumerate(shares, start=MIN_RATING)) / sum(shares)
    middle = (MIN_RATING + MAX_RATING) / 2
    return Finding((mean - middle) / (MAX_RATING - middle), reply.mass)


@finding.register
def _(
    criterion: PatternCriterion, transcript: Transcript, replies: Sequence[OptionLogprobs], scoring: Scoring
) -> Finding:
    readings = (transcript.answer, unicodedata.normalize("NFKC", without_invisible(transcript.answer)))
    matches = [re.search(criterion.pattern, reading) is not None for reading in readings]
    is_good = matches[0] if criterion.must_match is not None else not any(matches)
    return Finding(1.0 if is_good else -1.0)


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
