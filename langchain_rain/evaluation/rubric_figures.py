"""How well a judge does on answers of which the truth is known, in figures."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np

from langchain_rain.evaluation.labelled import PERCENTS, Labelled
from langchain_rain.evaluation.packages import needed
from langchain_rain.evaluation.statistics import wilson
from langchain_rain.rubrics import Rubric
from langchain_rain.search.protocol import Verdict

NUM_BINS = 10
"""Of the calibration curve, equally wide."""

NUM_WORST = 10
"""Mistakes that are told."""


@dataclass(frozen=True, slots=True)
class Case:
    """One labelled answer and what the judge thinks of it.

    Attributes:
        number: of its line, from 1.
        value: graded, in [-1, 1]; 0 if the judge abstained.
        verdict: that of the guard, in words.
    """

    number: int
    prompt: str
    response: str
    criterion: str | None
    is_finished: bool
    is_good: bool
    is_predicted_good: bool
    is_abstained: bool
    value: float
    verdict: str

    @property
    def is_right(self) -> bool:
        """Whether prediction and label agree."""
        return self.is_predicted_good == self.is_good

    @property
    def distance(self) -> float:
        """Between value and label, which is 1 or -1; in [0, 2]."""
        return abs(self.value - (1 if self.is_good else -1))


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Cases whose values, as probabilities (1 + value) / 2 of being good, lie close together.

    Attributes:
        probability: their mean.
        share_good: how many of them are good, in [0, 1].
    """

    probability: float
    share_good: float
    num_cases: int


@dataclass(frozen=True, slots=True)
class PositionBias:
    """How far the answers about a criterion depend on the order of its options.

    Attributes:
        bias: mean probability of the option that was shown first, over both orders, minus 0.5; in [-0.5, 0.5].
        share_torn: of the cases whose two orders chose the same place, so different options.
    """

    criterion: str
    bias: float
    share_torn: float
    num_cases: int


@dataclass(frozen=True, slots=True)
class PrefixAccuracy:
    """Judgements of beginnings of the answers.

    Attributes:
        percent: of the characters.
        num_own_labels: of beginnings that have a label of their own; the others have that of the whole answer.
    """

    percent: int
    accuracy: float
    balanced_accuracy: float | None
    num_abstained: int
    num_own_labels: int
    num_cases: int


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a judge makes of labelled answers by a rubric. Shares are in [0, 1].

    Attributes:
        rubric_hash: changes with what the rubric means.
        model: who judged.
        source: where the cases come from.
        accept_value: an answer is predicted to be good if the guard's value is higher; where it abstains, it is not.
        accuracy_low: of Wilson's 95 % interval for the accuracy; `accuracy_high` likewise.
        balanced_accuracy: mean of the shares of the good and the bad cases that were recognized; None with one class.
        auroc: of the values of the cases in which the judge did not abstain; None with one class.
        worst: cases that were judged wrongly, those first whose value is farthest from their label.
        notes: what has to be known to read the figures.
    """

    rubric: str
    rubric_hash: str
    model: str
    source: str
    accept_value: float
    num_cases: int
    num_good: int
    num_good_passed: int
    num_bad_passed: int
    num_abstained: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    balanced_accuracy: float | None
    auroc: float | None
    calibration: tuple[CalibrationBin, ...]
    position_bias: tuple[PositionBias, ...]
    by_prefix: tuple[PrefixAccuracy, ...]
    worst: tuple[Case, ...]
    cases: tuple[Case, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Judged:
    """What was found about one labelled answer.

    Attributes:
        by_percent: the verdicts on its beginnings that could be judged, and on all of it.
        graded: the value of all of it by `scoring="probability"`.
        first_shares: by criterion, the probability of the option shown first, in each order.
    """

    number: int
    row: Labelled
    by_percent: Mapping[int, Verdict]
    graded: float
    first_shares: Mapping[str, tuple[float, float]]

    @property
    def verdict(self) -> Verdict:
        """On all of it."""
        return self.by_percent[PERCENTS[-1]]

    def is_good_at(self, percent: int) -> bool:
        """The label of a beginning; that of the whole answer where it has none of its own."""
        labels = self.row.is_good_by_prefix
        return self.row.is_good if labels is None else labels[PERCENTS.index(percent)]


def report_of(rubric: Rubric, model: str, accept_value: float, source: str, judged: Sequence[Judged]) -> CheckReport:
    """All figures."""
    cases = [_case(each, accept_value) for each in judged]
    wrong = sorted((case for case in cases if not case.is_right), key=lambda case: -case.distance)
    by_prefix = tuple(_by_prefix(judged, accept_value))
    accuracy = wilson(sum(case.is_right for case in cases), len(cases))
    return CheckReport(
        rubric=rubric.name,
        rubric_hash=rubric.content_hash,
        model=model,
        source=source,
        accept_value=accept_value,
        num_cases=len(cases),
        num_good=sum(case.is_good for case in cases),
        num_good_passed=sum(case.is_good and case.is_predicted_good for case in cases),
        num_bad_passed=sum(not case.is_good and case.is_predicted_good for case in cases),
        num_abstained=sum(case.is_abstained for case in cases),
        accuracy=_accuracy(cases),
        accuracy_low=accuracy.low,
        accuracy_high=accuracy.high,
        balanced_accuracy=_balanced_accuracy(cases),
        auroc=_auroc(cases),
        calibration=tuple(_calibration(cases)),
        position_bias=tuple(_position_bias(rubric, judged)),
        by_prefix=by_prefix,
        worst=tuple(wrong[:NUM_WORST]),
        cases=tuple(cases),
        notes=tuple(_notes(rubric, judged, cases, by_prefix)),
    )


def _case(judged: Judged, accept_value: float) -> Case:
    row, verdict = judged.row, judged.verdict
    return Case(
        number=judged.number,
        prompt=row.prompt,
        response=row.response,
        criterion=row.criterion,
        is_finished=row.is_finished,
        is_good=row.is_good,
        is_predicted_good=verdict.satisfies(accept_value),
        is_abstained=verdict.is_abstained,
        value=judged.graded,
        verdict=str(verdict),
    )


def _accuracy(cases: Sequence[Case]) -> float:
    metrics = needed("sklearn.metrics")
    return float(metrics.accuracy_score(*_labels_and_predictions(cases)))


def _balanced_accuracy(cases: Sequence[Case]) -> float | None:
    if not _has_both_classes(cases):
        return None
    metrics = needed("sklearn.metrics")
    return float(metrics.balanced_accuracy_score(*_labels_and_predictions(cases)))


def _auroc(cases: Sequence[Case]) -> float | None:
    given = [case for case in cases if not case.is_abstained]
    if not _has_both_classes(given):
        return None
    metrics = needed("sklearn.metrics")
    return float(metrics.roc_auc_score([case.is_good for case in given], [case.value for case in given]))


def _labels_and_predictions(cases: Sequence[Case]) -> tuple[list[bool], list[bool]]:
    return [case.is_good for case in cases], [case.is_predicted_good for case in cases]


def _has_both_classes(cases: Sequence[Case]) -> bool:
    return len({case.is_good for case in cases}) == 2


def _calibration(cases: Sequence[Case]) -> Iterator[CalibrationBin]:
    """The bins that hold any case in which the judge did not abstain."""
    given = [case for case in cases if not case.is_abstained]
    if not given:
        return
    labels, probabilities = [case.is_good for case in given], [(1 + case.value) / 2 for case in given]
    curve = needed("sklearn.calibration").calibration_curve(labels, probabilities, n_bins=NUM_BINS, pos_label=True)
    edges = np.linspace(0, 1, NUM_BINS + 1)[1:-1]  # the curve does not tell how many cases are in its bins
    counts = np.bincount(np.searchsorted(edges, probabilities))
    for share_good, mean, count in zip(*curve, counts[counts > 0], strict=True):
        yield CalibrationBin(float(mean), float(share_good), int(count))


def _position_bias(rubric: Rubric, judged: Sequence[Judged]) -> Iterator[PositionBias]:
    for criterion in rubric.criteria:
        found = [each.first_shares[criterion.name] for each in judged if criterion.name in each.first_shares]
        if found:
            torn = [(first - 0.5) * (second - 0.5) > 0 for first, second in found]
            bias = fmean(share for both in found for share in both) - 0.5
            yield PositionBias(criterion.name, bias, fmean(torn), len(found))


def _by_prefix(judged: Sequence[Judged], accept_value: float) -> Iterator[PrefixAccuracy]:
    """For each share of the answers that could be judged."""
    for percent in PERCENTS:
        of_length = [each for each in judged if percent in each.by_percent]
        cases = [
            replace(
                _case(replace(each, by_percent={100: each.by_percent[percent]}), accept_value),
                is_good=each.is_good_at(percent),
            )
            for each in of_length
        ]
        if cases:
            yield PrefixAccuracy(
                percent=percent,
                accuracy=_accuracy(cases),
                balanced_accuracy=_balanced_accuracy(cases),
                num_abstained=sum(case.is_abstained for case in cases),
                num_own_labels=sum(percent == 100 or each.row.is_good_by_prefix is not None for each in of_length),
                num_cases=len(cases),
            )


def _notes(
    rubric: Rubric, judged: Sequence[Judged], cases: Sequence[Case], by_prefix: Sequence[PrefixAccuracy]
) -> Iterator[str]:
    """What is missing among the figures, and what is not as it may seem."""
    if not _has_both_classes(cases):
        only = "good" if cases[0].is_good else "bad"
        yield f"All cases are {only}: there is no balanced accuracy and no AUROC; add cases that are not."
    elif not _has_both_classes([case for case in cases if not case.is_abstained]):
        yield "The judge abstained in all good or in all bad cases: there is no AUROC."
    num_abstained = sum(case.is_abstained for case in cases)
    if num_abstained:
        yield (
            f"The judge abstained in {num_abstained} cases. They are predicted not to be good, and have no part in "
            "AUROC and calibration."
        )
    num_unjudged = sum(each.verdict.is_abstained and not each.verdict.values for each in judged)
    if num_unjudged:
        yield f"{num_unjudged} of these are not finished, and no criterion applies to beginnings of answers."
    examples = {(each.prompt, each.response) for each in rubric.examples}
    num_examples = sum((case.prompt, case.response) in examples for case in cases)
    if num_examples:
        yield f"{num_examples} cases are examples of the rubric; each was judged without being shown."
    if any(each.num_own_labels < each.num_cases for each in by_prefix):
        yield (
            "Beginnings without a label of their own (is_good_by_prefix) have that of the whole answer, though a bad "
            "answer may not be bad yet: below 100 % some of what counts as a mistake is none."
        )
    if len(by_prefix) == 1:
        yield "No criterion applies to beginnings of answers: only whole answers were judged."
