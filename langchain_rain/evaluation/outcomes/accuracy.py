"""How often judges are right where the truth is known: HH, TruthfulQA and XSTest bring labels of their own."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from langchain_rain.errors import RainConfigError
from langchain_rain.evaluation.outcomes.base import Content, OutcomeJudge
from langchain_rain.evaluation.outcomes.pairs import PairJudge

T = TypeVar("T")

MAX_CONCURRENT = 16
"""Answers that are judged at once."""

NO_ANSWER = "(no answer yet)"
"""Stands for the answer where a request is judged by itself."""


class KnownCase(Protocol):
    """A case of a suite."""

    @property
    def id(self) -> str:
        """Names it."""

    @property
    def content(self) -> Content:
        """What is asked."""

    @property
    def group(self) -> str:
        """What it belongs to."""

    @property
    def reference(self) -> Mapping[str, Any]:
        """What is known of it."""


@dataclass(frozen=True, slots=True)
class LabelledAnswer:
    """An answer of which a label is known.

    Attributes:
        case_id: of the case.
        content: what was asked.
        reference: what a judge is told of the case.
        answer: the answer.
        group: of the case.
        label: the name of the label.
        truth: what is true.
    """

    case_id: str
    content: Content
    reference: Mapping[str, Any]
    answer: str
    group: str
    label: str
    truth: bool


@dataclass(frozen=True, slots=True)
class LabelledPair:
    """Two answers of which people preferred one."""

    case_id: str
    content: Content
    chosen: str
    rejected: str


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How often a judge is right.

    Attributes:
        num_true_right, num_true: of what is true, how much it found, and how much there is; of pairs, all of them.
        num_false_right, num_false: the same of what is false.
        num_undecided: where it could not tell, or found two answers alike; these are not right.
    """

    num_true_right: int = 0
    num_true: int = 0
    num_false_right: int = 0
    num_false: int = 0
    num_undecided: int = 0

    @property
    def num_right(self) -> int:
        """All that are right."""
        return self.num_true_right + self.num_false_right

    @property
    def num_judged(self) -> int:
        """All there are."""
        return self.num_true + self.num_false

    @property
    def accuracy(self) -> float | None:
        """The share that is right; None of nothing."""
        return self.num_right / self.num_judged if self.num_judged else None

    @property
    def balanced_accuracy(self) -> float | None:
        """The mean of the shares of what is true and of what is false; None without both."""
        if not self.num_true or not self.num_false:
            return None
        return (self.num_true_right / self.num_true + self.num_false_right / self.num_false) / 2


# --- What is known ---------------------------------------------------------------------------------------------------


def labelled_answers(suite: str, cases: Iterable[KnownCase]) -> Iterator[LabelledAnswer]:
    """Yields answers of which the suite says what is true.

    Of truthfulqa its correct and incorrect answers (label `truthful`), none of which is among the known answers that
    the judge is shown. Of xstest the requests themselves (label `safe_request`, for which there is the grading rubric
    `request`).

    Raises:
        RainConfigError: the suite has no labels of answers, or a case lacks them.
    """
    known = {"truthfulqa": _of_truthfulqa, "xstest": _of_xstest}
    if suite not in known:
        raise RainConfigError(f"suite: {' and '.join(known)} have labels of answers, given {suite!r}.")
    for case in cases:
        yield from known[suite](case)


def labelled_pairs(suite: str, cases: Iterable[KnownCase]) -> Iterator[LabelledPair]:
    """Yields the pairs of hh, of which people chose one; cases without a pair, or with equal answers, are passed over.

    Raises:
        RainConfigError: the suite has none.
    """
    if suite != "hh":
        raise RainConfigError(f"suite: hh has pairs, given {suite!r}.")
    for case in cases:
        chosen, rejected = (case.reference.get(key) for key in ("chosen", "rejected"))
        if isinstance(chosen, str) and isinstance(rejected, str) and chosen != rejected:
            yield LabelledPair(case.id, case.content, chosen, rejected)


def _of_truthfulqa(case: KnownCase) -> Iterator[LabelledAnswer]:
    for key, truth in (("correct_answers", True), ("incorrect_answers", False)):
        answers: Sequence[str] = _known(case, key)
        for answer in answers:
            reference = {**case.reference, key: [each for each in answers if each != answer]}
            yield LabelledAnswer(case.id, case.content, reference, answer, case.group, "truthful", truth)


def _of_xstest(case: KnownCase) -> Iterator[LabelledAnswer]:
    truth = _known(case, "label") == "safe"
    yield LabelledAnswer(case.id, case.content, {}, NO_ANSWER, case.group, "safe_request", truth)


def _known(case: KnownCase, key: str) -> Any:
    if key not in case.reference:
        raise RainConfigError(f"{case.id}: {key} is wanted in its reference, given {', '.join(case.reference)!r}.")
    return case.reference[key]


# --- What is judged --------------------------------------------------------------------------------------------------


async def judge_accuracy(
    judge: OutcomeJudge, labelled: Iterable[LabelledAnswer], *, max_concurrent: int = MAX_CONCURRENT
) -> Accuracy:
    """How often a judge of outcomes is right about labelled answers.

    Raises:
        RainConfigError: it does not give a label.
        EngineError: its model failed.
    """

    async def of_one(each: LabelledAnswer) -> Accuracy:
        if each.label not in judge.labels:
            told = f"{judge.name} tells {', '.join(judge.labels)}"
            raise RainConfigError(f"judge: one that tells {each.label} is wanted; {told}.")
        found = await judge.judge(each.content, each.reference, each.answer, group=each.group)
        return _counted(each.truth, found.get(each.label))

    return await _sum(of_one, labelled, max_concurrent)


async def preference_accuracy(
    judge: PairJudge, pairs: Iterable[LabelledPair], *, max_concurrent: int = MAX_CONCURRENT
) -> Accuracy:
    """How often a judge of pairs prefers what people chose; a tie is undecided.

    Raises:
        EngineError: its model failed.
    """

    async def of_one(pair: LabelledPair) -> Accuracy:
        preference = await judge.compare(pair.content, pair.chosen, pair.rejected)
        return _counted(True, {"first": True, "second": False}.get(preference.winner or ""))

    return await _sum(of_one, pairs, max_concurrent)


def _counted(truth: bool, found: Any) -> Accuracy:
    is_right = found is not None and bool(found) == truth
    num_undecided = int(found is None)
    if truth:
        return Accuracy(num_true_right=int(is_right), num_true=1, num_undecided=num_undecided)
    return Accuracy(num_false_right=int(is_right), num_false=1, num_undecided=num_undecided)


async def _sum(count: Callable[[T], Awaitable[Accuracy]], given: Iterable[T], max_concurrent: int) -> Accuracy:
    """The sum over all, some at a time; the first that fails ends it."""
    waiting = iter(given)
    total = Counter[str]()

    async def work() -> None:
        for each in waiting:
            one = await count(each)
            total.update({name: getattr(one, name) for name in Accuracy.__dataclass_fields__})

    workers = [asyncio.ensure_future(work()) for _ in range(max_concurrent)]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return Accuracy(**total)
