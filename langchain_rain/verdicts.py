"""Verdicts on texts that are there already: answers of any model, documents, what somebody is about to send.

Nothing is written or rewound here. Many texts that are judged at once share the forward passes of the engine.
"""

import asyncio
import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.callbacks import BaseCallbackManager

from langchain_rain import drivers
from langchain_rain.arguments import check_text
from langchain_rain.budget import Budget
from langchain_rain.config import RainConfig
from langchain_rain.drivers import Job, Outcome
from langchain_rain.engines.base import Cost
from langchain_rain.engines.callables import CallableEngine, JudgedText
from langchain_rain.engines.calling import Calls
from langchain_rain.errors import RainConfigError, RainError
from langchain_rain.judging import Loaded, check_all_is_judged, open_judge, open_rubric_judge, warn_if_at_chance
from langchain_rain.rubrics import Rubric
from langchain_rain.rubrics.rubric import as_rubric, parameters_of
from langchain_rain.search.protocol import Transcript, Verdict

MAX_CONCURRENT = 16
"""Texts of one call that are judged at once; more would only make each wait longer for its engine."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A text that was judged.

    Attributes:
        verdict: what the judge thinks of it.
        is_satisfied: whether that lets it be given to somebody.
        cost: what was run for it.
        seconds: how long it took.
    """

    verdict: Verdict
    is_satisfied: bool
    cost: Cost
    seconds: float

    @property
    def record(self) -> dict[str, Any]:
        """All of it as plain data, under the names that answers use for it."""
        return {
            "value": self.verdict.value,
            "values": dict(self.verdict.values),
            "is_satisfied": self.is_satisfied,
            "is_vetoed": self.verdict.is_vetoed,
            "is_abstained": self.verdict.is_abstained,
            "forward_passes": self.cost.forward_passes,
            "token_positions": self.cost.token_positions,
        }


class TranscriptJudge:
    """Judges transcripts by a rubric, one or many at once.

    A rubric that is given by name or file may leave parameters open, for example the `documents` of
    "grounded_in_context"; each call brings them then.

    Example:
        ```python
        judge = TranscriptJudge("path/to/model", "grounded_in_context")
        judged = judge.judge(transcript_of("Who came?", "Ada."), documents=["Ada came at noon."])
        judged.is_satisfied, judged.verdict.values
        ```

    Args:
        judge: who judges, given like `judge` of `ChatRain`: a Hugging Face id or folder, "demo", a chat model, an
            engine, or a function from the transcript to a value in [-1, 1]; None if no criterion is asked of a model.
        rubric: what is judged by: a rubric, a YAML file (.yaml, .yml), or the name of one in the library. A function
            goes by its own.
        config: how questions are scored, and from which value on a text satisfies.
        budget: the limits of one judgement that is given none of its own; what exceeds them is an error.
        loaded: engines that were loaded; None for new ones.

    Attributes:
        config: as given, or the defaults.
        loaded: the engines, for others to share.
        engine: who judges.
        parameters: what the rubric leaves open, by name.

    Raises:
        RainConfigError: this judge is not allowed, or would leave a criterion out.
        RubricError: there is no such rubric.
        EngineError: the judge cannot be loaded.
    """

    def __init__(
        self,
        judge: Any,
        rubric: str | Rubric,
        *,
        config: RainConfig | None = None,
        budget: Budget | None = None,
        loaded: Loaded | None = None,
    ) -> None:
        self.config = config or RainConfig()
        self.loaded = loaded or Loaded()
        self.engine = self.loaded.engine(judge, "judge") if judge is not None else CallableEngine(_nobody)
        self.parameters = frozenset(parameters_of(rubric))
        self._given, self._rubric = judge, rubric
        self._budget = budget or Budget()
        if self.parameters and judge is not None and isinstance(self.engine, CallableEngine):
            raise RainConfigError(
                f"judge: a function judges by its own and would not be told {', '.join(sorted(self.parameters))}, "
                f"which the rubric leaves open, given {judge!r}."
            )
        self._filled = None if self.parameters else self._checked(as_rubric(rubric))
        if self._filled is not None:
            warn_if_at_chance(self._filled, self.engine, self.config, self.loaded)

    def rubric(self, **parameters: Any) -> Rubric:
        """What is judged by, with these parameters.

        Raises:
            RubricError: a parameter is missing, unknown or not allowed.
        """
        if self._filled is not None and not parameters:
            return self._filled
        return self._checked(as_rubric(self._rubric, **parameters))

    def filled(self, **parameters: Any) -> "TranscriptJudge":
        """The same judge with what the rubric leaves open, which is then read once for many texts.

        Raises:
            RubricError: a parameter is missing, unknown or not allowed.
        """
        rubric = self.rubric(**parameters)
        judge = copy.copy(self)
        judge._rubric, judge._filled, judge.parameters = rubric, rubric, frozenset()
        return judge

    def judge(
        self,
        transcript: Transcript,
        *,
        callbacks: BaseCallbackManager | None = None,
        budget: Budget | None = None,
        **parameters: Any,
    ) -> Judged:
        """Judges one transcript.

        Args:
            transcript: what is judged; criteria for finished answers pass over one that is not finished.
            callbacks: that calls of a chat model are child runs under.
            budget: the limits of this judgement.
            **parameters: what the rubric leaves open.

        Raises:
            RainConfigError: the transcript is not valid Unicode.
            RubricError: a parameter is missing, unknown or not allowed.
            BudgetExceededError: a limit of the budget was spent.
            EngineError: the judge failed.
        """
        job = self._job(transcript, self.rubric(**parameters), Calls(callbacks), budget)
        return self._of(drivers.run(job))

    async def ajudge(
        self,
        transcript: Transcript,
        *,
        callbacks: BaseCallbackManager | None = None,
        budget: Budget | None = None,
        **parameters: Any,
    ) -> Judged:
        """Like `judge`, without blocking the event loop."""
        return await self._ajudge(transcript, self.rubric(**parameters), callbacks, budget)

    def judge_all(
        self, transcripts: Sequence[Transcript], *, callbacks: BaseCallbackManager | None = None, **parameters: Any
    ) -> list[Judged | RainError]:
        """Judges transcripts, merging what is asked about them; in their order, the error in place of one that failed.

        Raises:
            RubricError: a parameter is missing, unknown or not allowed.
        """
        rubric, calls = self.rubric(**parameters), Calls(callbacks)
        begun: list[Job[Verdict] | RainError] = []
        try:
            for transcript in transcripts:
                begun.append(self._begun(transcript, rubric, calls))
        except BaseException:
            for job in begun:
                if isinstance(job, Job):
                    drivers.close_contexts(job.contexts)
            raise
        jobs = [job for job in begun if isinstance(job, Job)]
        outcomes = iter(drivers.run_batch(jobs, max_concurrent=MAX_CONCURRENT))
        return [self._judged(next(outcomes) if isinstance(each, Job) else each) for each in begun]

    async def ajudge_all(
        self, transcripts: Sequence[Transcript], *, callbacks: BaseCallbackManager | None = None, **parameters: Any
    ) -> list[Judged | RainError]:
        """Like `judge_all`, without blocking the event loop."""
        rubric, places = self.rubric(**parameters), asyncio.Semaphore(MAX_CONCURRENT)

        async def judged(transcript: Transcript) -> Judged | RainError:
            async with places:
                try:
                    return await self._ajudge(transcript, rubric, callbacks)
                except RainError as error:
                    return error

        async with asyncio.TaskGroup() as group:  # which ends the others, should one be no error of ours
            tasks = [group.create_task(judged(transcript)) for transcript in transcripts]
        return [task.result() for task in tasks]

    async def _ajudge(
        self,
        transcript: Transcript,
        rubric: Rubric,
        callbacks: BaseCallbackManager | None,
        budget: Budget | None = None,
    ) -> Judged:
        calls = Calls(callbacks, asyncio.get_running_loop())
        return self._of(await drivers.arun(self._job(transcript, rubric, calls, budget)))

    def _begun(self, transcript: Transcript, rubric: Rubric, calls: Calls) -> Job[Verdict] | RainError:
        try:
            return self._job(transcript, rubric, calls)
        except RainError as error:
            return error

    def _job(self, transcript: Transcript, rubric: Rubric, calls: Calls, budget: Budget | None = None) -> Job[Verdict]:
        _check(transcript)
        opening = open_judge if self._given is not None else open_rubric_judge
        judging = opening(rubric, self.engine, self.config, loaded=self.loaded, calls=calls)
        return Job(judging.judge(transcript), judging.contexts, budget or self._budget)

    def _judged(self, outcome: Outcome[Verdict] | Exception) -> Judged | RainError:
        if isinstance(outcome, RainError):
            return outcome
        if isinstance(outcome, Exception):
            raise outcome
        return self._of(outcome)

    def _of(self, outcome: Outcome[Verdict]) -> Judged:
        verdict = outcome.result
        return Judged(verdict, verdict.satisfies(self.config.accept_value), outcome.cost, outcome.seconds)

    def _checked(self, rubric: Rubric) -> Rubric:
        if self._given is not None:
            check_all_is_judged(rubric, self.engine, self._given)
        elif rubric.asked_criteria:
            raise RainConfigError(
                f"judge: who is asked about the criterion {rubric.asked_criteria[0].name!r} is wanted, given None."
            )
        self.loaded.guards(rubric)  # a guard that cannot be loaded shows at once
        return rubric


def _nobody(text: JudgedText) -> None:
    raise AssertionError("no criterion asks a model")


def _check(transcript: Transcript) -> None:
    check_text("text before what is judged", transcript.prompt)
    check_text("text that is judged", transcript.answer)
