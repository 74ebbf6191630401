"""A world for runs of an evaluation without a model: strategies that answer by a rule, a judge that reads a word.

python -m tests.eval_world FOLDER     answers its suite slowly, and writes the report
"""

import asyncio
import hashlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from langchain_rain.evaluation.outcomes.accuracy import Check, Checked
from langchain_rain.evaluation.outcomes.pairs import Preference
from langchain_rain.evaluation.report import write_report
from langchain_rain.evaluation.runs import Plan, run_to_end
from langchain_rain.evaluation.strategies import Answered, Setting
from langchain_rain.evaluation.suites import Case, SuiteData
from langchain_rain.evaluation.summaries import summarised
from langchain_rain.ledger import fingerprint
from tests.scripted_world import RUBRIC, Kitchen


def case(number: int, group: str = "") -> Case:
    return Case(
        f"world:{number}", f"Human: question {number}\n\nAssistant:", (group or ("odd" if number % 2 else "even"),)
    )


def suite(num_cases: int) -> SuiteData:
    return SuiteData("world", "a world of rules", tuple(case(number) for number in range(num_cases)), (), num_cases)


def share_of(*names: Any) -> float:
    """A number in [0, 1) by what it is for."""
    return int(hashlib.sha256(repr(names).encode()).hexdigest()[:8], 16) / 2**32


@dataclass
class Ruled:
    """Answers " good" with probability `quality`, else " bad", by a hash.

    Attributes:
        asked: the case, seed and budget of all calls.
        fails: whether a call fails.
    """

    name: str
    quality: float
    positions: int = 10
    seconds: float = 0.0
    fails: Callable[[str, int], Exception | None] = lambda case_id, seed: None
    asked: list[tuple[str, int, int | None]] = field(default_factory=list)

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"name": self.name, "quality": self.quality}

    async def answer(
        self, case_id: str, content: Any, *, seed: int, prefill: str = "", max_positions: int | None = None
    ) -> Answered:
        self.asked.append((case_id, seed, max_positions))
        await asyncio.sleep(self.seconds)
        if (error := self.fails(case_id, seed)) is not None:
            raise error
        is_good = share_of(self.name, case_id, seed) < self.quality
        return Answered(
            case_id=case_id,
            strategy=self.name,
            seed=seed,
            text=" good" if is_good else " bad",
            finish_reason="eos",
            value=1.0 if is_good else -1.0,
            values={},
            is_satisfied=is_good,
            is_refusal_by_policy=False,
            forward_passes=2,
            token_positions=12,
            judging_positions=3,
            counted_positions=self.positions + len(case_id),
            checking_positions=0,
            num_estimated=0,
            max_positions=max_positions,
            num_tokens=4,
            num_drafts=1,
            num_simulations=0,
            num_rewinds=1,
            rewinds_at=(2,),
            seconds=0.5,
            num_steps=0,
            steps=(),
        )


@dataclass
class WordJudge:
    """Finds an answer good that says so, whatever that is called; of `unsure` cases it cannot tell."""

    unsure: tuple[str, ...] = ()
    name: str = "reader"
    labels: tuple[str, ...] = ("good",)
    engines: tuple[Any, ...] = ()
    judged: list[str] = field(default_factory=list)

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"judge": self.name, "unsure": list(self.unsure)}

    async def judge(self, case_content: Any, reference: Any, answer_text: str, /, *, group: str) -> Mapping[str, Any]:
        self.judged.append(answer_text)
        return {
            self.labels[0]: None if any(each in str(case_content) for each in self.unsure) else "good" in answer_text
        }


@dataclass
class WordPairs:
    """Prefers the answer that says it is good; of `unsure` cases it cannot tell, and a tie falls to the first place."""

    unsure: tuple[str, ...] = ()
    name: str = "reader"
    by: str = "goodness"
    seconds: float = 0.0
    compared: list[tuple[str, str]] = field(default_factory=list)

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"judge": f"{self.name} of pairs"}

    async def compare(self, case_content: Any, first: str, second: str, /) -> Preference:
        self.compared.append((first, second))
        await asyncio.sleep(self.seconds)
        if any(each in case_content for each in self.unsure):
            return Preference(None)
        if first == second:
            return Preference("tie", 1.0, 0.0)
        return Preference("first", 1.0, 1.0) if "good" in first else Preference("second", 0.0, 0.0)


def check(number: int, seconds: float = 0.0) -> Check:
    """What is known of a case; every third answer of the judge is wrong, every fifth none."""

    async def ask() -> Checked:
        await asyncio.sleep(seconds)
        is_right = None if number % 5 == 4 else number % 3 != 2
        return Checked(f"world:{number}", True, is_right)

    return Check(f"known {number}", fingerprint(number), ask)


def plan(*strategies: Any, num_cases: int = 8, seeds: tuple[int, ...] = (0,), **given: Any) -> Plan:
    judge = given.pop("outcome_judge", WordJudge())
    engine = Kitchen()
    return Plan(suite(num_cases), strategies, seeds, Setting(engine, engine, RUBRIC), judge, **given)


def run_slowly(folder: Path) -> None:
    """Runs slowly enough to be stopped in the middle."""
    slow = [Ruled("weak", 0.4, seconds=0.01), Ruled("strong", 0.9, seconds=0.01)]
    also = {"pair_judges": [WordPairs(seconds=0.02)], "checks": [check(number, 0.02) for number in range(60)]}
    planned = plan(*slow, num_cases=60, seeds=(0, 1), budget_of="strong", **also)
    found = run_to_end(planned, folder, concurrency=2, tell=lambda what, done, num: None)
    started = datetime(2026, 1, 1, tzinfo=UTC)
    write_report(summarised(planned, found, started=started, seconds=0.0, settings={}), folder / "report")


if __name__ == "__main__":
    run_slowly(Path(sys.argv[1]))
