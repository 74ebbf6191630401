"""A run of an evaluation: each case by each strategy with each seed, and how each answer turned out.

What is found stands in ledgers, each thing written once; what was stopped in whatever way goes on from there, and what
was made by other settings is never mixed in. At equal budget the strategy whose budget the others get comes first.
"""

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langchain_rain.engines.base import Likelihood
from langchain_rain.errors import RainConfigError
from langchain_rain.evaluation.findings import Failure, Findings, Tell, Working, read_findings
from langchain_rain.evaluation.fluency import likelihood_of, measures_fluency
from langchain_rain.evaluation.outcomes.accuracy import Check, Checked
from langchain_rain.evaluation.outcomes.base import Outcome, OutcomeJudge
from langchain_rain.evaluation.outcomes.pairs import JudgeOfPairs, Preference
from langchain_rain.evaluation.strategies import Answered, Setting, Step, Strategy
from langchain_rain.evaluation.suites import Case, SuiteData
from langchain_rain.ledger import fingerprint

ANSWERS, LIKELIHOODS = "answers.jsonl", "likelihoods.jsonl"
OUTCOMES, PREFERENCES, CHECKS = "outcomes-{}.jsonl", "preferences-{}.jsonl", "checks-{}.jsonl"
"""The ledgers, in the folder of a run; those of judges with a hash of who judges."""

OUTCOMES_NAME = re.compile(r"outcomes-[0-9a-f]{16}\.jsonl")
"""How files with outcomes are called; others are somebody's own."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is run.

    Attributes:
        suite: what is answered.
        strategies: by which.
        seeds: with which.
        setting: what all strategies share.
        outcome_judge: who says how answers turned out.
        budget_of: the strategy whose positions every other one may take for the same case and seed; None for no budget.
        pair_judges: who says which of two answers is better, that of `reference` or that of another strategy.
        checks: what the outcome judge is asked though it is known; None if how often it is right is not measured.
        bases: by its name, the strategy that one is compared with in place of `reference`.
    """

    suite: SuiteData
    strategies: Sequence[Strategy]
    seeds: tuple[int, ...]
    setting: Setting
    outcome_judge: OutcomeJudge
    budget_of: str | None = None
    pair_judges: Sequence[JudgeOfPairs] = ()
    checks: Sequence[Check] | None = ()
    bases: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [each.name for each in self.strategies]
        if self.budget_of is not None and self.budget_of not in names:
            raise RainConfigError(f"equal budget: one of {', '.join(names)} is allowed, given {self.budget_of!r}.")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise RainConfigError(f"seeds: at least one, and each once, is allowed, given {list(self.seeds)!r}.")

    @property
    def tasks(self) -> list["Task"]:
        """All there is to answer."""
        return [Task(case, each, seed) for each in self.strategies for seed in self.seeds for case in self.suite.cases]

    @property
    def reference(self) -> str:
        """The strategy that the others are compared with: the one whose budget they get, or the last."""
        return self.budget_of or self.strategies[-1].name

    @property
    def compared(self) -> list[tuple[str, str]]:
        """The pairs that are compared: a strategy that others are compared with, and one of them."""
        bases = [(self.bases.get(each.name, self.reference), each.name) for each in self.strategies]
        return [(base, name) for base, name in bases if base != name]

    @property
    def outcomes_name(self) -> str:
        """The file with what this judge has found; others have files of their own."""
        return OUTCOMES.format(fingerprint(dict(self.outcome_judge.identity)))

    @property
    def answers_hash(self) -> str:
        """Tells the answers of this run from those by other settings; more cases and seeds of the same are the same."""
        return fingerprint([self.suite.name, self.setting.identity, self.budget_of])

    @property
    def config_hash(self) -> str:
        """Tells what answers, and how, from anything else; whatever the cases, the seeds and the outcome judge."""
        return fingerprint([self.answers_hash, [dict(each.identity) for each in self.strategies]])


@dataclass(frozen=True, slots=True)
class Task:
    """A case to be answered by a strategy with a seed."""

    case: Case
    strategy: Strategy
    seed: int

    @property
    def id(self) -> str:
        """Names its row."""
        return json.dumps([self.strategy.name, self.seed, self.case.id], ensure_ascii=False)

    @property
    def input_hash(self) -> str:
        """Tells what is answered, and how, from anything else."""
        return fingerprint([self.case.input_hash, dict(self.strategy.identity), self.seed])


@dataclass(frozen=True, slots=True)
class Written:
    """An answer to a task."""

    task: Task
    answer: Answered

    @property
    def id(self) -> str:
        """That of the task."""
        return self.task.id

    @property
    def input_hash(self) -> str:
        """Tells this answer from any other."""
        return fingerprint([self.task.input_hash, self.answer.text])

    @property
    def text(self) -> str:
        """All that the assistant says."""
        return self.task.case.prefill + self.answer.text


@dataclass(frozen=True, slots=True)
class ToJudge:
    """An answer that is judged, by what is known of the case."""

    written: Written

    @property
    def id(self) -> str:
        """That of the task."""
        return self.written.id

    @property
    def input_hash(self) -> str:
        """Tells this answer to a case of which this is known from any other."""
        case = self.written.task.case
        return fingerprint([self.written.input_hash, case.reference, case.groups])


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to a case with the same seed, and who says which is better."""

    judge: JudgeOfPairs
    first: Written
    second: Written

    @property
    def id(self) -> str:
        """Names its row."""
        return json.dumps([self.judge.by, self.first.id, self.second.task.strategy.name], ensure_ascii=False)

    @property
    def input_hash(self) -> str:
        """Tells what is compared from anything else."""
        return fingerprint([self.first.input_hash, self.second.input_hash])


@dataclass(slots=True)
class Found:
    """What a run has found.

    Attributes:
        answers: by the id of the task.
        outcomes: likewise.
        likelihoods: likewise, where the writer tells how probable a text is.
        preferences: by the id of the pair.
        checks: by the id of the check.
        failures: what models failed at; the next run of the same tries it again.
        others: what other judges have found in runs before, by the names of the ledgers.
        unreadable: for each ledger of another judge that cannot be read, why.
    """

    answers: dict[str, Answered] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    likelihoods: dict[str, Likelihood] = field(default_factory=dict)
    preferences: dict[str, Preference] = field(default_factory=dict)
    checks: dict[str, Checked] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    others: dict[str, dict[str, Outcome]] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)


async def run(plan: Plan, folder: Path, *, concurrency: int, tell: Tell = lambda what, done, num: None) -> Found:
    """Answers what is not answered yet, and has judged what is not.

    Raises:
        RainConfigError: the folder holds answers by other settings, or cannot be written to.
    """
    working = Working(concurrency, tell)
    found = Found(failures=working.failures)
    folder.mkdir(parents=True, exist_ok=True)
    found.answers = await _answers(plan, folder, working)
    written = written_by(plan, found.answers)
    if measures_fluency(plan.setting.writer):
        found.likelihoods = await _likelihoods(plan, written, folder, working)
    found.outcomes = await _outcomes(plan, written, folder, working)
    found.checks = await _checks(plan, folder, working)
    for judge in plan.pair_judges:
        found.preferences |= await _preferences(plan, judge, written, folder, working)
    for path in sorted(folder.glob(OUTCOMES.format("*"))):
        if OUTCOMES_NAME.fullmatch(path.name) and path.name != plan.outcomes_name and path.is_file():
            try:
                found.others[path.name] = read_findings(path, _outcome)
            except RainConfigError as error:  # another process may be writing to it, or was killed
                found.unreadable.append(str(error))
    return found


def written_by(plan: Plan, answers: Mapping[str, Answered]) -> list[Written]:
    """The answers of a plan, in its order."""
    return [Written(task, answers[task.id]) for task in plan.tasks if task.id in answers]


def pairs(plan: Plan, judge: JudgeOfPairs, written: Sequence[Written]) -> list[Pair]:
    """The answers that are compared."""
    answers: dict[str, dict[tuple[str, int], Written]] = {each.name: {} for each in plan.strategies}
    for each in filter(lambda each: plan.suite.is_rated(each.task.case), written):
        answers[each.task.strategy.name][each.task.case.id, each.task.seed] = each
    return [
        Pair(judge, first, answers[other][key])
        for base, other in plan.compared
        for key, first in answers[base].items()
        if key in answers[other]
    ]


# --- What is found, in its order -------------------------------------------------------------------------------------


async def _answers(plan: Plan, folder: Path, working: Working) -> dict[str, Answered]:
    """At equal budget nothing is answered within one that is not known."""
    giver = next((each for each in plan.strategies if each.name == plan.budget_of), None)
    with Findings(folder / ANSWERS, plan.answers_hash, _answered, working) as findings:

        def same_by_giver(task: Task) -> Answered | None:
            return findings.found.get(Task(task.case, giver, task.seed).id) if giver is not None else None

        async def answer(task: Task) -> Answered:
            same = same_by_giver(task) if task.strategy is not giver else None
            return await task.strategy.answer(
                task.case.id,
                task.case.content,
                seed=task.seed,
                prefill=task.case.prefill,
                max_positions=same.counted_positions if same is not None else None,
            )

        given = [task for task in plan.tasks if task.strategy is giver]
        if giver is not None:
            await findings.add(f"answers by {giver.name}", given, answer)
        others = [task for task in plan.tasks if task.strategy is not giver]
        names = ", ".join(dict.fromkeys(task.strategy.name for task in others))
        if giver is not None:
            others = [task for task in others if same_by_giver(task) is not None]
        await findings.add(f"answers by {names}", others, answer)
        return findings.found


async def _likelihoods(plan: Plan, written: Sequence[Written], folder: Path, working: Working) -> dict[str, Likelihood]:
    async def measure(each: Written) -> Likelihood:
        case = each.task.case
        return await likelihood_of(plan.setting.writer, case.content, case.prefill, each.answer.text)

    of_model = [each for each in written if not each.answer.is_refusal_by_policy]
    with Findings(folder / LIKELIHOODS, plan.answers_hash, Likelihood, working) as findings:
        await findings.add("how probable the answers are", of_model, measure)
        return findings.found


async def _outcomes(plan: Plan, written: Sequence[Written], folder: Path, working: Working) -> dict[str, Outcome]:
    judge = plan.outcome_judge

    async def find(each: ToJudge) -> Outcome:
        task, case = each.written.task, each.written.task.case
        labels = await judge.judge(case.content, case.reference, each.written.text, group=case.group)
        return Outcome.of((case.id, task.strategy.name, task.seed), judge, labels)

    settings_hash = fingerprint([plan.answers_hash, dict(judge.identity)])
    with Findings(folder / plan.outcomes_name, settings_hash, Outcome, working) as findings:
        await findings.add(f"judged by {judge.name}", [ToJudge(each) for each in written], find)
        return findings.found


async def _checks(plan: Plan, folder: Path, working: Working) -> dict[str, Checked]:
    if not plan.checks:
        return {}
    judge_hash = fingerprint([plan.suite.name, dict(plan.outcome_judge.identity)])
    with Findings(folder / CHECKS.format(judge_hash), judge_hash, Checked, working) as findings:
        await findings.add(f"{plan.outcome_judge.name} asked what is known", plan.checks, lambda check: check.ask())
        return {check.id: findings.found[check.id] for check in plan.checks if check.id in findings.found}


async def _preferences(
    plan: Plan, judge: JudgeOfPairs, written: Sequence[Written], folder: Path, working: Working
) -> dict[str, Preference]:
    async def compare(pair: Pair) -> Preference:
        return await judge.compare(pair.first.task.case.content, pair.first.text, pair.second.text)

    judge_hash = fingerprint([judge.by, dict(judge.identity)])
    settings_hash = fingerprint([plan.answers_hash, judge_hash])
    with Findings(folder / PREFERENCES.format(judge_hash), settings_hash, Preference, working) as findings:
        await findings.add(f"compared by {judge.name}: {judge.by}", pairs(plan, judge, written), compare)
        return findings.found


def run_to_end(plan: Plan, folder: Path, *, concurrency: int, tell: Tell) -> Found:
    """`run`, for who has no event loop."""
    return asyncio.run(run(plan, folder, concurrency=concurrency, tell=tell))


def _answered(*, steps: Sequence[Mapping[str, Any]], rewinds_at: Sequence[int], **row: Any) -> Answered:
    """An answer from its row in the ledger."""
    return Answered(steps=tuple(Step(**step) for step in steps), rewinds_at=tuple(rewinds_at), **row)


def _outcome(*, case_id: str, labels: Mapping[str, Any], **row: Any) -> Outcome:
    """What another judge has found, from its row in a file that may be anybody's."""
    if not isinstance(case_id, str) or not isinstance(labels, Mapping):
        raise TypeError(f"case_id, a text, and labels, an object, are wanted, given {case_id!r:.40} and {labels!r:.40}")
    return Outcome(case_id=case_id, labels=labels, **row)
