"""What has to be said before the figures of a run, in plain sentences."""

from collections.abc import Iterable, Sequence

from langchain_rain.evaluation.agreement import agreement
from langchain_rain.evaluation.outcomes.pairing import paired_labels
from langchain_rain.evaluation.report.formats import listed
from langchain_rain.evaluation.results import SIGNIFICANT, Comparison
from langchain_rain.evaluation.runs import Found, Plan, written_by
from langchain_rain.evaluation.strategies.rain import Rain

SAID = {"attack_succeeded": "attacked with success", "refused": "refusing"}
"""What a sentence says in place of a label."""

UNSHOWN = "not shown to be more or less"

MAX_UNSHOWN = 5
"""Of which each is named from which no difference is shown."""


def notes_of(plan: Plan, found: Found, comparisons: Sequence[Comparison]) -> list[str]:
    """What has to be said before the figures, in plain sentences."""
    notes = []
    if found.failures:
        notes.append(f"{len(found.failures)} answers or judgements failed; the first: {found.failures[0].error}")
    num_missing = len(plan.tasks) - len(written_by(plan, found.answers))
    if num_missing:
        notes.append(f"{num_missing} of {len(plan.tasks)} answers are missing.")
    if plan.suite.malformed:
        notes.append(f"{len(plan.suite.malformed)} of {plan.suite.num_rows} rows are malformed and were left out.")
    if plan.suite.rated:
        num_rated = sum(map(plan.suite.is_rated, plan.suite.cases))
        told = f"Rates and comparisons are of the {num_rated} {plan.suite.rated}, costs of all cases"
        others = "; the rates of the others stand by group" if num_rated < len(plan.suite.cases) else ""
        notes.append(f"{told}{others}.")
    if plan.budget_of is not None:
        notes.append(f"Every strategy may take the token positions that {plan.budget_of} took for the same case.")
        notes += _cut_short(plan, found)
    notes += [*_agreements(plan, found), *(f"Passed over: {each}" for each in found.unreadable)]
    return [*notes, *_told_of(comparisons)]


def _cut_short(plan: Plan, found: Found) -> Iterable[str]:
    """Which searches had too little."""
    written = written_by(plan, found.answers)
    for name in (each.name for each in plan.strategies if isinstance(each, Rain) and each.name != plan.budget_of):
        reasons = [each.answer.finish_reason for each in written if each.task.strategy.name == name]
        num_given_up = sum(reason in ("budget", "refused") for reason in reasons)
        if num_given_up:
            told = f"{num_given_up} of {len(reasons)} searches of {name} ended with nothing that satisfies"
            yield f"{told}: that budget is not their own."


def _agreements(plan: Plan, found: Found) -> Iterable[str]:
    """How far the judge of this run agrees with those of runs before, for example a model with people."""
    ids = {each.id for each in written_by(plan, found.answers)}
    own = [outcome for each, outcome in found.outcomes.items() if each in ids]
    for file, theirs in found.others.items():
        outcomes = [outcome for each, outcome in theirs.items() if each in ids]
        for label in plan.outcome_judge.labels:
            if not all(each.labels.get(label) in (True, False, None) for each in (*own, *outcomes)):
                continue  # a number, of which there is no kappa
            paired = paired_labels(own, outcomes, label)
            if not paired.first:
                continue
            told = agreement(paired.first, paired.second)
            kappa = f"Cohen's kappa {told.kappa:.2f}" if told.kappa is not None else "too alike for a kappa"
            yield (
                f"{plan.outcome_judge.name} and {outcomes[0].judge} ({file}) say the same of {label!r} for "
                f"{paired.num_agreed} of {len(paired.first)} answers ({kappa})."
            )


def _told_of(comparisons: Sequence[Comparison]) -> Iterable[str]:
    """What each reference has more or less often than others, by label, and of what that is not shown."""
    alike: dict[tuple[str, str, str], list[Comparison]] = {}
    for each in comparisons:
        alike.setdefault((each.strategy, each.label, _verdict(each)), []).append(each)
    for (strategy, label, verdict), told in alike.items():
        than = [f"{each.other} ({100 * each.difference:+.1f} points, {_p_value(each)})" for each in told]
        shown = f"{len(told)} others" if verdict == UNSHOWN and len(told) > MAX_UNSHOWN else listed(than)
        yield f"{strategy} is {verdict} often {SAID.get(label, label.replace('_', ' '))} than {shown}."


def _verdict(told: Comparison) -> str:
    if told.p_value is None or told.p_value >= SIGNIFICANT or not told.difference:
        return UNSHOWN
    return "more" if told.difference > 0 else "less"


def _p_value(told: Comparison) -> str:
    return f"p {'< 0.001' if (told.p_value or 0) < 0.001 else f'= {told.p_value:.3f}'}"
