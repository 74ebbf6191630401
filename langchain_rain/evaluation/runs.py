"""A run of an evaluation: each case by each strategy with each seed, and how each answer turned out.

Answers and findings stand in ledgers, each written once; what was stopped in whatever way goes on from there, and what
was made by other settings is never mixed in. At equal budget the strategy whose budget the others get comes first.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from langchain_rain.concurrency import as_they_come
from langchain_rain.errors import EngineError, RainConfigError
from langchain_rain.evaluation.outcomes.base import Outcome, OutcomeJudge
from langchain_rain.evaluation.strategies import Answered, Setting, Step, Strategy
from langchain_rain.evaluation.suites import Case, SuiteData
from langchain_rain.json_lines import read_object
from langchain_rain.ledger import Ledger, fingerprint

ANSWERS, OUTCOMES = "answers.jsonl", "outcomes-{}.jsonl"
"""The ledgers, in the folder of a run; that of outcomes with a hash of who judges."""


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
    """

    suite: SuiteData
    strategies: Sequence[Strategy]
    seeds: tuple[int, ...]
    setting: Setting
    outcome_judge: OutcomeJudge
    budget_of: str | None = None

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
class Failure:
    """What a model failed at."""

    id: str
    error: str


@dataclass(slots=True)
class Found:
    """What a run has found.

    Attributes:
        answers: by the id of the task.
        outcomes: likewise.
        failures: answers and findings that a model failed at; the next run of the same tries them again.
        others: what other judges have found in runs before, by their names.
    """

    answers: dict[str, Answered] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    others: dict[str, list[Outcome]] = field(default_factory=dict)


Tell = Callable[[str, int, int], None]
"""Is told what is under way, how much of it is done, and how much there is."""


async def run(plan: Plan, folder: Path, *, concurrency: int, tell: Tell = lambda what, done, num: None) -> Found:
    """Answers what is not answered yet, and has judged what is not.

    Raises:
        RainConfigError: the folder holds answers by other settings, or cannot be written to.
    """
    found, tasks = Found(), plan.tasks
    folder.mkdir(parents=True, exist_ok=True)
    with Ledger(folder / ANSWERS) as ledger:
        ledger.check_settings(plan.answers_hash)
        found.answers = {each: _answered(row) for each, row in _rows(folder / ANSWERS).items()}
        giver = next((each for each in plan.strategies if each.name == plan.budget_of), None)
        given = [task for task in tasks if task.strategy is giver]
        await _answer(plan, given, None, ledger, found, concurrency=concurrency, tell=tell)
        others = [task for task in tasks if task.strategy is not giver]
        await _answer(plan, others, giver, ledger, found, concurrency=concurrency, tell=tell)
    judged_hash = fingerprint([plan.answers_hash, dict(plan.outcome_judge.identity)])
    path_of_own = folder / plan.outcomes_name
    with Ledger(path_of_own) as ledger:
        ledger.check_settings(judged_hash)
        found.outcomes = {each: _outcome(row) for each, row in _rows(path_of_own).items()}
        await _judge(plan, tasks, ledger, judged_hash, found, concurrency=concurrency, tell=tell)
    for path in sorted(set(folder.glob(OUTCOMES.format("*"))) - {path_of_own}):
        outcomes = [_outcome(row) for row in _rows(path).values()]
        found.others |= {outcomes[0].judge: outcomes} if outcomes else {}
    return found


async def _answer(
    plan: Plan,
    tasks: Sequence[Task],
    giver: Strategy | None,
    ledger: Ledger,
    found: Found,
    *,
    concurrency: int,
    tell: Tell,
) -> None:
    """Answers what is not answered yet, each within what `giver` took for the same, if there is one."""

    def same_by_giver(task: Task) -> Answered | None:
        return found.answers.get(Task(task.case, giver, task.seed).id) if giver is not None else None

    async def answer(task: Task) -> tuple[Task, Answered]:
        same = same_by_giver(task)
        answered = await task.strategy.answer(
            task.case.id,
            task.case.content,
            seed=task.seed,
            prefill=task.case.prefill,
            max_positions=same.counted_positions if same is not None else None,
        )
        return task, answered

    open_tasks = [task for task in tasks if not ledger.holds(task.id, task.input_hash)]
    if giver is not None:  # without its answer there is no budget to keep to
        open_tasks = [task for task in open_tasks if same_by_giver(task) is not None]
    names = ", ".join(dict.fromkeys(task.strategy.name for task in tasks))
    num_done = len(tasks) - len(open_tasks)
    async for task, answered in _tried(open_tasks, answer, found, concurrency):
        row = {"id": task.id, **asdict(answered)}
        ledger.append({**row, "settings_hash": plan.answers_hash, "input_hash": task.input_hash})
        found.answers[task.id] = answered
        num_done += 1
        tell(f"answers by {names}", num_done, len(tasks))


async def _judge(
    plan: Plan,
    tasks: Sequence[Task],
    ledger: Ledger,
    settings_hash: str,
    found: Found,
    *,
    concurrency: int,
    tell: Tell,
) -> None:
    answered = [task for task in tasks if task.id in found.answers]
    hashes = {task.id: fingerprint([task.input_hash, found.answers[task.id].text]) for task in answered}
    open_tasks = [task for task in answered if not ledger.holds(task.id, hashes[task.id])]

    async def judge(task: Task) -> tuple[Task, Outcome]:
        text = task.case.prefill + found.answers[task.id].text
        labels = await plan.outcome_judge.judge(task.case.content, task.case.reference, text, group=task.case.group)
        return task, Outcome.of((task.case.id, task.strategy.name, task.seed), plan.outcome_judge, labels)

    num_done = len(answered) - len(open_tasks)
    async for task, outcome in _tried(open_tasks, judge, found, concurrency):
        row = {"id": task.id, **asdict(outcome), "settings_hash": settings_hash, "input_hash": hashes[task.id]}
        ledger.append(row)
        found.outcomes[task.id] = outcome
        num_done += 1
        tell(f"judged by {plan.outcome_judge.name}", num_done, len(answered))


async def _tried(
    tasks: Iterable[Task], do: Callable[[Task], Awaitable[tuple[Task, Any]]], found: Found, concurrency: int
) -> AsyncIterator[tuple[Task, Any]]:
    """What came of each task, as it comes; what a model failed at is noted and passed over."""

    async def attempt(task: Task) -> tuple[Task, Any] | Failure:
        try:
            return await do(task)
        except EngineError as error:
            return Failure(task.id, str(error))

    async with aclosing(as_they_come(tasks, attempt, concurrency=concurrency)) as all_tried:
        async for tried in all_tried:
            if isinstance(tried, Failure):
                found.failures.append(tried)
            else:
                yield tried


def run_to_end(plan: Plan, folder: Path, *, concurrency: int, tell: Tell) -> Found:
    """`run`, for who has no event loop."""
    return asyncio.run(run(plan, folder, concurrency=concurrency, tell=tell))


# --- Rows ------------------------------------------------------------------------------------------------------------


def _rows(path: Path) -> dict[str, Mapping[str, Any]]:
    """The rows of a ledger by their ids, without what the ledger itself needs."""
    rows: dict[str, Mapping[str, Any]] = {}
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            row = read_object(line, f"{path}, line {number}")
            row_id = row.pop("id")
            rows[row_id] = {key: value for key, value in row.items() if not key.endswith("_hash")}
    return rows


def _answered(row: Mapping[str, Any]) -> Answered:
    steps = tuple(Step(**step) for step in row["steps"])
    return Answered(**{**row, "steps": steps, "rewinds_at": tuple(row["rewinds_at"])})


def _outcome(row: Mapping[str, Any]) -> Outcome:
    return Outcome(**row)
