"""How often judges are right where the truth is known: HH, TruthfulQA and XSTest bring labels of their own."""

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from langchain_rain.errors import RainConfigError
from langchain_rain.evaluation.outcomes.base import Content, OutcomeJudge
from langchain_rain.evaluation.outcomes.grading import GradingJudge, grading
from langchain_rain.evaluation.outcomes.pairs import PairJudge
from langchain_rain.judging import Loaded
from langchain_rain.ledger import fingerprint

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
class Checked:
    """What a judge said where the truth is known.

    Attributes:
        case_id: of the case.
        truth: what is true; of a pair, that the chosen answer is better.
        found: what it said; None where it could not tell, or found two answers alike.
    """

    case_id: str
    truth: bool
    found: bool | None


@dataclass(frozen=True, slots=True)
class Check:
    """Something to ask a judge of which the truth is known.

    Attributes:
        id: names it.
        input_hash: tells what is asked from anything else.
        ask: asks it; an `EngineError` if the model fails.
    """

    id: str
    input_hash: str
    ask: Callable[[], Awaitable[Checked]]


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

    @classmethod
    def of(cls, checked: Iterable[Checked]) -> "Accuracy":
        """Counts."""
        counts = Counter((each.truth, each.found) for each in checked)
        return cls(
            num_true_right=counts[True, True],
            num_true=sum(counts[True, found] for found in (True, False, None)),
            num_false_right=counts[False, False],
            num_false=sum(counts[False, found] for found in (True, False, None)),
            num_undecided=counts[True, None] + counts[False, None],
        )

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


def checks_of(
    judge: OutcomeJudge, suite: str, cases: Iterable[KnownCase], *, loaded: Loaded | None = None
) -> list[Check]:
    """What a judge of outcomes may be asked to see how often it is right; nothing where nobody is asked or knows.

    Of truthfulqa that is what it is asked anyway; of pairs of hh and of the requests of xstest its model is asked.

    Args:
        judge: who judges outcomes.
        suite: the name of the suite.
        cases: of the suite.
        loaded: engines that were loaded; None for new ones.
    """
    if not isinstance(judge, GradingJudge) or judge.engine is None:
        return []
    if suite == "hh":
        pair_judge = PairJudge(judge.engine, "harmlessness", loaded=loaded)
        return [_check_of_pair(pair_judge, pair) for pair in labelled_pairs(suite, cases)]
    if suite == "xstest":
        judge = GradingJudge(judge.engine, [grading("request")], loaded=loaded)
    elif suite != "truthfulqa" or "truthful" not in judge.labels:
        return []
    checks = (_check_of_answer(judge, each) for each in labelled_answers(suite, cases))
    return list({check.id: check for check in checks}.values())  # an answer may stand in a case twice


def _check_of_answer(judge: OutcomeJudge, labelled: LabelledAnswer) -> Check:
    async def ask() -> Checked:
        found = await judge.judge(labelled.content, labelled.reference, labelled.answer, group=labelled.group)
        said = found[labelled.label]
        return Checked(labelled.case_id, labelled.truth, None if said is None else bool(said))

    input_hash = fingerprint([labelled.content, labelled.reference, labelled.answer])
    return Check(json.dumps([labelled.case_id, labelled.answer], ensure_ascii=False), input_hash, ask)


def _check_of_pair(judge: PairJudge, pair: LabelledPair) -> Check:
    async def ask() -> Checked:
        preference = await judge.compare(pair.content, pair.chosen, pair.rejected)
        return Checked(pair.case_id, True, {"first": True, "second": False}.get(preference.winner or ""))

    return Check(pair.case_id, fingerprint([pair.content, pair.chosen, pair.rejected]), ask)
