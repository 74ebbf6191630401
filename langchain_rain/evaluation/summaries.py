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
from langchain_rain.evaluation import demo_world, results, statistics
from langchain_rain.evaluation.comparisons import compare, win_rate
from langchain_rain.evaluation.diversity import distinct_n
from langchain_rain.evaluation.fluency import perplexity
from langchain_rain.evaluation.notes import notes_of
from langchain_rain.evaluation.outcomes.accuracy import Accuracy, Checked
from langchain_rain.evaluation.outcomes.base import is_same_judge
from langchain_rain.evaluation.outcomes.oracle import OracleJudge
from langchain_rain.evaluation.outcomes.people import PeopleJudge
from langchain_rain.evaluation.results import (
    Comparison,
    Costs,
    Fluency,
    JudgeAccuracy,
    Provenance,
    Rate,
    Results,
    WinRate,
    WorstAnswer,
)
from langchain_rain.evaluation.runs import Found, Pair, Plan, Task, pairs, written_by
from langchain_rain.evaluation.strategies import Answered
from langchain_rain.evaluation.suites import Case, demo
from langchain_rain.ledger import fingerprint

WORSE_LABELS = ("attack_succeeded",)
"""Labels of which less is better."""

REFUSED = "refused"
"""Of which less is better where all requests that are rated are safe, and neither is elsewhere."""


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
    return Results(
        format=results.FORMAT,
        suite=plan.suite.name,
        source=plan.suite.source,
        num_cases=len(plan.suite.cases),
        seeds=plan.seeds,
        provenance=_provenance(plan, started=started, seconds=seconds, settings=settings),
        labels=summaries.better_labels,
        worse_labels=summaries.worse_labels,
        neutral_labels=summaries.neutral_labels,
        rated=plan.suite.rated,
        malformed=tuple(results.Malformed(each.where, each.reason, each.row) for each in plan.suite.malformed),
        notes=tuple([*plan.suite.notes, *notes_of(plan, found, comparisons)]),
        strategies=strategies,
        comparisons=comparisons,
        win_rates=tuple(summaries.win_rates()),
        worst=tuple(summaries.worst()),
        judge_accuracy=_judge_accuracy(plan, found),
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
        known, of_refusals = plan.outcome_judge.labels, (REFUSED,)
        worse, neutral = (WORSE_LABELS + of_refusals, ()) if plan.suite.rated else (WORSE_LABELS, of_refusals)
        self.worse_labels = tuple(label for label in known if label in worse)
        self.neutral_labels = tuple(label for label in known if label in neutral)
        self.better_labels = tuple(label for label in known if label not in (*worse, *neutral))

    def strategy(self, name: str) -> results.Strategy:
        """How the answers of a strategy turned out, and what they cost."""
        tasks, rated = self._tasks[name], self._rated(name)
        answers = [self._found.answers[task.id] for task in tasks]
        labels = self._plan.outcome_judge.labels
        return results.Strategy(
            name=name,
            is_reference=name in {base for base, _ in self._plan.compared},
            num_answers=len(tasks),
            rates=self._rates(name, rated),
            unknown={label: sum(self._is_unknown(task, label) for task in rated) for label in labels},
            would_refuse=self._rate(f"{name} would refuse", rated, lambda task: not self._answer(task).is_satisfied),
            returned_below_threshold=self._rate(
                f"{name} below", rated, lambda task: not self._answer(task).is_satisfied and not self._is_refusal(task)
            ),
            costs=_costs(answers),
            fluency=self._fluency(tasks),
            rewinds_at=tuple(place for each in answers for place in _shares(each)),
            groups={
                group: self._rates(f"{name} {group}", [task for task in tasks if group in task.case.groups])
                for group in _groups(tasks)
            },
        )

    def comparisons(self) -> Iterable[Comparison]:
        """Each label of each pair that is compared."""
        for label in self._plan.outcome_judge.labels:
            for base, other in self._plan.compared:
                old, new = self._paired_values(other, base, label)
                if not old:
                    continue
                paired = compare(old, new, _generator(label, base, other))
                ends = _around(paired.difference, paired.low, paired.high)
                won, lost = paired.better, paired.worse
                if label in self.worse_labels:
                    won, lost = lost, won
                yield Comparison(label, base, other, paired.difference, *ends, paired.p_value, won, lost, paired.num)

    def _paired_values(self, one: str, other: str, label: str) -> tuple[statistics.Outcomes, statistics.Outcomes]:
        """The values of two strategies by case, of the seeds with which both are known, in their order."""
        values = [
            {(task.case.id, task.seed): self._label(task, label) for task in self._rated(name)} for name in (one, other)
        ]
        paired: list[dict[str, list[float]]] = [defaultdict(list), defaultdict(list)]
        for key, first in values[0].items():
            second = values[1].get(key)
            if first is not None and second is not None:
                paired[0][key[0]].append(float(first))
                paired[1][key[0]].append(float(second))
        return paired[0], paired[1]

    def win_rates(self) -> Iterable[WinRate]:
        """How often the answers of one of each pair are preferred to those of the other."""
        written = written_by(self._plan, self._found.answers)
        for judge in self._plan.pair_judges:
            compared: dict[tuple[str, str], list[Pair]] = defaultdict(list)
            for pair in pairs(self._plan, judge, written):
                if pair.id in self._found.preferences:
                    compared[pair.first.task.strategy.name, pair.second.task.strategy.name].append(pair)
            for (strategy, other), of_both in compared.items():
                yield self._win_rate(judge.by, strategy, other, of_both)

    def _win_rate(self, by: str, strategy: str, other: str, compared: Sequence[Pair]) -> WinRate:
        shown: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for pair in compared:
            preference = self._found.preferences[pair.id]
            if preference.winner is not None:
                shown[pair.first.task.case.id].append((preference.shown_first, preference.shown_second))
        num_unknown = len(compared) - sum(map(len, shown.values()))
        if not shown:
            return WinRate(by, strategy, other, None, None, 0, 0, 0, None, num_unknown)
        told = win_rate(shown, _generator("win rate", by, strategy, other))
        rate = Rate(told.value, *_around(told.value, told.low, told.high), told.num)
        counts = (told.wins, told.ties, told.losses)
        return WinRate(by, strategy, other, rate, told.p_value, *counts, told.position_bias, num_unknown)

    def worst(self) -> Iterable[WorstAnswer]:
        """The answers of the reference that turned out worst."""
        name = self._plan.reference
        ranked = sorted(self._rated(name), key=lambda task: (self._goodness(task), task.id))
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

    def _rated(self, name: str) -> list[Task]:
        """What counts for rates and comparisons."""
        return [task for task in self._tasks[name] if self._plan.suite.is_rated(task.case)]

    def _goodness(self, task: Task) -> tuple[float, float]:
        """How well an answer turned out: by its labels, unknown ones in the middle, and then by who steered."""
        outcome = self._found.outcomes.get(task.id)
        labels = outcome.labels if outcome is not None else {}
        told = {label: 0.5 if value is None else float(value) for label, value in labels.items()}
        good = [value for label, value in told.items() if label in self.better_labels]
        good += [1 - value for label, value in told.items() if label in self.worse_labels]
        return sum(good), self._answer(task).value

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

    def _fluency(self, tasks: Sequence[Task]) -> Fluency | None:
        texts = [self._answer(task).text for task in tasks]
        likelihoods = [self._found.likelihoods[task.id] for task in tasks if task.id in self._found.likelihoods]
        if not texts:
            return None
        return Fluency(distinct_n(texts, 1).value, distinct_n(texts, 2).value, perplexity(likelihoods))

    def _is_unknown(self, task: Task, label: str) -> bool:
        outcome = self._found.outcomes.get(task.id)
        return outcome is not None and label in outcome.labels and outcome.labels[label] is None

    def _answer(self, task: Task) -> Answered:
        return self._found.answers[task.id]

    def _is_refusal(self, task: Task) -> bool:
        return self._answer(task).is_refusal_by_policy


def _told(rate: statistics.Rate, values: statistics.Outcomes) -> Rate:
    assert rate.value is not None, "there is at least one case"
    return Rate(rate.value, *_around(rate.value, rate.low, rate.high), sum(map(len, values.values())))


def _around(value: float, low: float, high: float) -> tuple[float, float]:
    """The ends of an interval, which rounding may have put beside its value."""
    return min(value, low), max(value, high)


def _generator(*names: str) -> np.random.Generator:
    """Draws that depend on what is drawn for, and on nothing else."""
    return np.random.default_rng(int(fingerprint(list(names)), 16))


def _groups(tasks: Sequence[Task]) -> Sequence[str]:
    """All groups of cases, the widest first."""
    placed = {(place, group) for task in tasks for place, group in enumerate(task.case.groups)}
    return list(dict.fromkeys(group for _, group in sorted(placed)))


def _costs(answers: Sequence[Answered]) -> Costs:
    def mean(values: Iterable[float | None]) -> float | None:
        told = [value for value in values if value is not None]
        return fmean(told) if told else None

    seconds = statistics.percentiles([each.seconds for each in answers])
    return Costs(
        forward_passes=mean(each.forward_passes for each in answers),
        token_positions=mean(each.counted_positions for each in answers),
        num_tokens=mean(each.num_tokens for each in answers),
        num_simulations=mean(each.num_simulations for each in answers),
        num_rewinds=mean(each.num_rewinds for each in answers),
        seconds_p50=seconds.p50,
        seconds_p95=seconds.p95,
    )


def _judge_accuracy(plan: Plan, found: Found) -> JudgeAccuracy | None:
    """How often the outcome judge was right where the truth is known."""
    if plan.checks is None:
        return None
    checked = [*found.checks.values(), *_known_by_oracle(plan, found)]
    if not checked:
        return None
    right: dict[str, list[float]] = defaultdict(list)
    for each in checked:
        right[each.case_id].append(float(each.found == each.truth))
    told = Accuracy.of(checked)
    rate = _told(statistics.rate(right, _generator("judge accuracy")), right)
    return JudgeAccuracy(rate, told.balanced_accuracy, told.num_undecided)


def _known_by_oracle(plan: Plan, found: Found) -> Iterable[Checked]:
    """What was said of the harm of answers in the demo world, of which all is known, and is true."""
    if plan.suite.name != "demo" or isinstance(plan.outcome_judge, OracleJudge):
        return
    counts_unknown = not isinstance(plan.outcome_judge, PeopleJudge)  # who may not be done yet
    for each in written_by(plan, found.answers):
        labels = found.outcomes[each.id].labels if each.id in found.outcomes else {}
        if "harmless" in labels and (counts_unknown or labels["harmless"] is not None):
            said, case = labels["harmless"], each.task.case
            truth = demo_world.is_harmless(demo.request_of(case), each.text)
            yield Checked(case.id, truth, None if said is None else bool(said))


def _shares(answer: Answered) -> list[float]:
    """Where rewinds happened, as shares of the answer's length; behind its end counts as the end."""
    length = max(1, answer.num_tokens or 0)
    return [min(1.0, max(0.0, place / length)) for place in answer.rewinds_at]


def _content(case: Case) -> str | tuple[Mapping[str, str], ...]:
    return case.content if isinstance(case.content, str) else tuple(case.content)


def _provenance(plan: Plan, *, started: datetime, seconds: float, settings: Mapping[str, Any]) -> Provenance:
    setting = plan.setting
    return Provenance(
        langchain_rain=__version__,
        python=platform.python_version(),
        machine={"system": platform.system(), "machine": platform.machine(), "platform": sys.platform},
        model=dict(setting.writer.identity),
        judge=dict(setting.judge.identity),
        outcome_judge={"name": plan.outcome_judge.name, **plan.outcome_judge.identity},
        judges_itself=is_same_judge(plan.outcome_judge, [setting.judge]),
        rubric=results.RubricName(setting.rubric.name, setting.rubric.content_hash),
        config_hash=plan.config_hash,
        settings=dict(settings),
        started=started.isoformat(timespec="seconds"),
        seconds=seconds,
    )
