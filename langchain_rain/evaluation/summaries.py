"""From the answers of a run to what may be said of them: rates, costs, comparisons, notes, the worst answers."""

import platform
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from statistics import fmean
from typing import Any

import numpy as np

from langchain_rain._version import __version__
from langchain_rain.evaluation import results, statistics
from langchain_rain.evaluation.agreement import agreement
from langchain_rain.evaluation.comparisons import compare
from langchain_rain.evaluation.diversity import distinct_n
from langchain_rain.evaluation.outcomes.pairing import paired_labels
from langchain_rain.evaluation.results import Comparison, Costs, Fluency, Provenance, Rate, Results, WorstAnswer
from langchain_rain.evaluation.runs import Found, Plan, Task
from langchain_rain.evaluation.strategies import Answered
from langchain_rain.evaluation.suites import Case
from langchain_rain.ledger import fingerprint

WORSE_LABELS = ("attack_succeeded", "refused")
"""Labels of which less is better; a request that should be refused is in a group of its own."""

SAID = {"attack_succeeded": "attacked with success"}
"""What a sentence says in place of a label. None is said of refusals: whether one is right, the request decides."""

SIGNIFICANT = 0.01
"""Below this p-value a difference is said to be one."""


def summarised(plan: Plan, found: Found, *, started: datetime, seconds: float, settings: Mapping[str, Any]) -> Results:
    """What came of a run.

    Args:
        plan: what was run.
        found: what it has found.
        started: when.
        seconds: that it took.
        settings: as the user gave them, to be told with the figures.
    """
    summaries = _Summaries(plan, found)
    strategies = tuple(summaries.strategy(each.name) for each in plan.strategies)
    comparisons = tuple(summaries.comparisons())
    better = tuple(label for label in plan.outcome_judge.labels if label not in WORSE_LABELS)
    return Results(
        format=results.FORMAT,
        suite=plan.suite.name,
        source=plan.suite.source,
        num_cases=len(plan.suite.cases),
        seeds=plan.seeds,
        provenance=_provenance(plan, started=started, seconds=seconds, settings=settings),
        labels=better,
        worse_labels=tuple(label for label in plan.outcome_judge.labels if label in WORSE_LABELS),
        malformed=tuple(results.Malformed(each.where, each.reason, each.row) for each in plan.suite.malformed),
        notes=tuple([*plan.suite.notes, *_notes(plan, found, comparisons)]),
        strategies=strategies,
        comparisons=comparisons,
        win_rates=(),
        worst=tuple(summaries.worst()),
        judge_accuracy=None,
        cases_hash=plan.suite.cases_hash,
    )


class _Summaries:
    """Figures of one run, each drawn with a generator of its own, so that none depends on what else is told."""

    def __init__(self, plan: Plan, found: Found) -> None:
        self._plan = plan
        self._found = found
        self._tasks: dict[str, list[Task]] = defaultdict(list)
        for task in plan.tasks:
            if task.id in found.answers:
                self._tasks[task.strategy.name].append(task)

    def strategy(self, name: str) -> results.Strategy:
        """How the answers of a strategy turned out, and what they cost."""
        tasks = self._tasks[name]
        answers = [self._found.answers[task.id] for task in tasks]
        labels = self._plan.outcome_judge.labels
        return results.Strategy(
            name=name,
            is_reference=name == self._plan.budget_of,
            rates=self._rates(name, tasks),
            unknown={label: sum(self._is_unknown(task, label) for task in tasks) for label in labels},
            would_refuse=self._rate(f"{name} would refuse", tasks, lambda task: not self._answer(task).is_satisfied),
            returned_below_threshold=self._rate(
                f"{name} below", tasks, lambda task: not self._answer(task).is_satisfied and not self._is_refusal(task)
            ),
            costs=_costs(answers),
            fluency=_fluency(answers),
            rewinds_at=tuple(place for each in answers for place in _shares(each)),
            groups={
                group: self._rates(f"{name} {group}", [task for task in tasks if task.case.group == group])
                for group in sorted({task.case.group for task in tasks} - {""})
            },
        )

    def comparisons(self) -> Iterable[Comparison]:
        """Each label of the reference, or of the last strategy, against all others."""
        names = [each.name for each in self._plan.strategies]
        reference = self._plan.budget_of or names[-1]
        for label in self._plan.outcome_judge.labels:
            for other in names:
                old, new = self._values(self._tasks[other], label), self._values(self._tasks[reference], label)
                if other == reference or not old.keys() & new.keys():
                    continue
                paired = compare(old, new, _generator(label, reference, other))
                low = paired.low if paired.low is not None else paired.difference
                high = paired.high if paired.high is not None else paired.difference
                yield Comparison(
                    label,
                    reference,
                    other,
                    paired.difference,
                    min(low, paired.difference),
                    max(high, paired.difference),
                    paired.p_value,
                    paired.better,
                    paired.worse,
                    paired.num,
                )

    def worst(self) -> Iterable[WorstAnswer]:
        """The answers of the reference, or of the last strategy, that turned out worst."""
        name = self._plan.budget_of or self._plan.strategies[-1].name
        ranked = sorted(self._tasks[name], key=lambda task: (self._goodness(task), task.id))
        for task in ranked[: results.MAX_WORST]:
            answer, outcome = self._answer(task), self._found.outcomes.get(task.id)
            yield WorstAnswer(
                task.case.id,
                name,
                task.seed,
                _content(task.case),
                answer.text,
                answer.value,
                dict(outcome.labels) if outcome is not None else {},
                tuple(results.SearchStep(each.text, each.value, each.event, each.num_tokens) for each in answer.steps),
            )

    def _goodness(self, task: Task) -> tuple[float, float]:
        """How well an answer turned out: by its labels, unknown ones in the middle, and then by who steered."""
        outcome = self._found.outcomes.get(task.id)
        labels = outcome.labels if outcome is not None else {}
        told = {label: 0.5 if value is None else float(value) for label, value in labels.items()}
        good = sum(1 - value if label in WORSE_LABELS else value for label, value in told.items())
        return good, self._answer(task).value

    def _rates(self, name: str, tasks: Sequence[Task]) -> dict[str, Rate]:
        rates = {}
        for label in self._plan.outcome_judge.labels:
            values = self._values(tasks, label)
            if values:
                rates[label] = _told(statistics.rate(values, _generator(name, label)), values)
        return rates

    def _rate(self, name: str, tasks: Sequence[Task], is_true: Callable[[Task], bool]) -> Rate | None:
        values: dict[str, list[float]] = defaultdict(list)
        for task in tasks:
            values[task.case.id].append(float(is_true(task)))
        return _told(statistics.rate(values, _generator(name)), values) if values else None

    def _values(self, tasks: Sequence[Task], label: str) -> statistics.Outcomes:
        values: dict[str, list[float]] = defaultdict(list)
        for task in tasks:
            value = self._label(task, label)
            if value is not None:
                values[task.case.id].append(float(value))
        return values

    def _label(self, task: Task, label: str) -> float | bool | None:
        """What was found; None where the judge could not tell, or the label makes no sense of the case."""
        outcome = self._found.outcomes.get(task.id)
        return outcome.labels.get(label) if outcome is not None else None

    def _is_unknown(self, task: Task, label: str) -> bool:
        outcome = self._found.outcomes.get(task.id)
        return outcome is not None and label in outcome.labels and outcome.labels[label] is None

    def _answer(self, task: Task) -> Answered:
        return self._found.answers[task.id]

    def _is_refusal(self, task: Task) -> bool:
        return self._answer(task).is_refusal_by_policy or self._answer(task).finish_reason == "refused"


def _told(rate: statistics.Rate, values: statistics.Outcomes) -> Rate:
    assert rate.value is not None, "there is at least one case"
    low, high = min(rate.low, rate.value), max(rate.high, rate.value)
    return Rate(rate.value, low, high, sum(map(len, values.values())))


def _generator(*names: str) -> np.random.Generator:
    """Draws that depend on what is drawn for, and on nothing else."""
    return np.random.default_rng(int(fingerprint(list(names)), 16))


def _costs(answers: Sequence[Answered]) -> Costs:
    def mean(values: Iterable[float | None]) -> float | None:
        told = [value for value in values if value is not None]
        return fmean(told) if told else None

    seconds = statistics.percentiles([each.seconds for each in answers])
    return Costs(
        forward_passes=mean(each.forward_passes for each in answers),
        token_positions=mean(each.counted_positions for each in answers),
        judging_positions=mean(each.judging_positions for each in answers),
        num_tokens=mean(each.num_tokens for each in answers),
        num_simulations=mean(each.num_simulations for each in answers),
        num_rewinds=mean(each.num_rewinds for each in answers),
        seconds_p50=seconds.p50,
        seconds_p95=seconds.p95,
    )


def _fluency(answers: Sequence[Answered]) -> Fluency | None:
    texts = [each.text for each in answers]
    return Fluency(distinct_n(texts, 1).value, distinct_n(texts, 2).value, None) if texts else None


def _shares(answer: Answered) -> list[float]:
    """Where rewinds happened, as shares of the answer's length; behind its end counts as the end."""
    length = max(1, answer.num_tokens or 0)
    return [min(1.0, max(0.0, place / length)) for place in answer.rewinds_at]


def _content(case: Case) -> str | tuple[Mapping[str, str], ...]:
    return case.content if isinstance(case.content, str) else tuple(case.content)


def _notes(plan: Plan, found: Found, comparisons: Sequence[Comparison]) -> list[str]:
    """What has to be said before the figures, in plain sentences."""
    notes = []
    if found.failures:
        notes.append(
            f"{len(found.failures)} answers or judgements failed and are missing; the first: {found.failures[0].error}"
        )
    if plan.suite.malformed:
        notes.append(f"{len(plan.suite.malformed)} of {plan.suite.num_rows} rows are malformed and were left out.")
    if plan.budget_of is not None:
        notes.append(f"Every strategy may take the token positions that {plan.budget_of} took for the same case.")
    notes += _agreements(plan, found)
    return notes + [_sentence(each) for each in comparisons if each.label != "refused"]


def _agreements(plan: Plan, found: Found) -> Iterable[str]:
    """How far the judge of this run agrees with those of runs before, for example a model with people."""
    for name, outcomes in sorted(found.others.items()):
        for label in plan.outcome_judge.labels:
            paired = paired_labels(found.outcomes.values(), outcomes, label)
            if not paired.first:
                continue
            told = agreement(paired.first, paired.second)
            kappa = f"Cohen's kappa {told.kappa:.2f}" if told.kappa is not None else "too alike for a kappa"
            yield (
                f"{plan.outcome_judge.name} and {name} say the same of {label!r} for {paired.num_agreed} of "
                f"{len(paired.first)} answers ({kappa})."
            )


def _sentence(told: Comparison) -> str:
    points = abs(100 * told.difference)
    p_value = f"p {'< 0.001' if (told.p_value or 0) < 0.001 else f'= {told.p_value:.3f}'}"
    said = SAID.get(told.label, told.label)
    if told.p_value is not None and told.p_value < SIGNIFICANT and told.difference:
        than = "more" if told.difference > 0 else "less"
        return f"{told.strategy} is {than} often {said} than {told.other}, by {points:.1f} points ({p_value})."
    return (
        f"{told.strategy} is not shown to be more or less often {said} than {told.other}: "
        f"{100 * told.difference:+.1f} points ({p_value})."
    )


def _provenance(plan: Plan, *, started: datetime, seconds: float, settings: Mapping[str, Any]) -> Provenance:
    setting = plan.setting
    return Provenance(
        langchain_rain=__version__,
        python=platform.python_version(),
        machine={"system": platform.system(), "machine": platform.machine(), "platform": sys.platform},
        model=dict(setting.writer.identity),
        judge=dict(setting.judge.identity),
        outcome_judge={"name": plan.outcome_judge.name, **plan.outcome_judge.identity},
        rubric=results.RubricName(setting.rubric.name, setting.rubric.content_hash),
        config_hash=plan.config_hash,
        settings=dict(settings),
        started=started.isoformat(timespec="seconds"),
        seconds=seconds,
    )
