"""Rubrics are tested like code: what a judge makes of answers of which the truth is known."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from langchain_rain import drivers
from langchain_rain.config import RainConfig
from langchain_rain.engines.base import Engine
from langchain_rain.engines.callables import CallableEngine
from langchain_rain.errors import EngineError, RainConfigError
from langchain_rain.evaluation.labelled import PERCENTS, Labelled, beginning_of, check_criterion
from langchain_rain.evaluation.packages import needed
from langchain_rain.evaluation.rubric_figures import CheckReport, Judged, report_of
from langchain_rain.judging import Loaded, open_judge
from langchain_rain.rubrics import Rubric
from langchain_rain.rubrics.asking import shares_of
from langchain_rain.rubrics.evaluate import RubricJudge
from langchain_rain.rubrics.rubric import transcript_of
from langchain_rain.rubrics.worked import rubric_for
from langchain_rain.search.protocol import OptionLogprobs, Steps, Transcript, observed, together

WORKED_EXAMPLES = "worked examples"


def check(
    rubric: Rubric,
    engine: Engine,
    config: RainConfig | None = None,
    labelled: Sequence[Labelled] | None = None,
    *,
    source: str = "",
    max_cases: int | None = None,
    seed: int = 0,
    on_judged: Callable[[], None] = lambda: None,
) -> CheckReport:
    """Judges labelled answers by a rubric as a guard does, and tells how well; curves are of graded values.

    An example of the rubric is judged without being shown.

    Args:
        rubric: what they are judged by.
        engine: who judges.
        config: that of the guard: how questions are scored, and from which value on an answer satisfies.
        labelled: the answers; None for the worked examples of the rubric, each by its criterion.
        source: where they come from, for the report.
        max_cases: judge so many of them, drawn at random; None for all.
        seed: of that draw.
        on_judged: called after each case, by the thread that judges.

    Raises:
        RainConfigError: there is nothing to judge, a criterion does not exist, or scikit-learn is missing.
        EngineError: a case could not be judged.
    """
    needed("sklearn.metrics")  # told before anything is judged
    config = config or RainConfig()
    if labelled is None:
        labelled = [
            Labelled(prompt=each.prompt, response=each.response, is_good=each.is_good, criterion=each.criterion)
            for each in rubric.examples
        ]
        source = source or WORKED_EXAMPLES
    rows = list(enumerate(labelled, start=1))
    if not rows:
        raise RainConfigError(f"There is nothing to judge: {rubric.name} has no {WORKED_EXAMPLES}. Give labelled ones.")
    drawn = rows
    if max_cases is not None and max_cases < len(rows):
        drawn = sorted(random.Random(seed).sample(rows, max_cases), key=lambda row: row[0])
        source = f"{source}; {max_cases} of {len(rows)} cases, drawn at random with seed {seed}".removeprefix("; ")
    judged = _judge_all(drawn, rubric, engine, config, on_judged)
    return report_of(rubric, engine.name, config.accept_value, source, judged)


def _judge_all(
    rows: Sequence[tuple[int, Labelled]],
    rubric: Rubric,
    engine: Engine,
    config: RainConfig,
    on_judged: Callable[[], None],
) -> list[Judged]:
    """Judges all rows, with merged requests."""
    for number, row in rows:
        check_criterion(row, rubric, f"row {number}")
    if isinstance(engine, CallableEngine):
        raise RainConfigError(f"A model is allowed as judge; {engine.name} judges by no rubric.")
    loaded = Loaded()
    jobs: list[drivers.Job[Judged]] = []
    try:
        for number, row in rows:
            judging = open_judge(_rubric_of(row, rubric), engine, config, loaded=loaded)
            assert isinstance(judging.judge, RubricJudge)
            steps = _judge_row(number, row, judging.judge, on_judged)
            jobs.append(drivers.Job(steps, judging.contexts))
    except BaseException:
        for job in jobs:
            drivers.close_contexts(job.contexts)
        raise
    outcomes = drivers.run_batch(jobs)
    for (number, _), outcome in zip(rows, outcomes, strict=True):
        if isinstance(outcome, EngineError):
            raise EngineError(
                f"Case {number} cannot be judged: {outcome}",
                engine=outcome.engine,
                request=outcome.request,
                is_retryable=outcome.is_retryable,
            ) from outcome
        if isinstance(outcome, Exception):
            raise outcome
    return [outcome.result for outcome in outcomes if not isinstance(outcome, Exception)]


def _rubric_of(row: Labelled, rubric: Rubric) -> Rubric:
    return rubric_for(rubric, transcript_of(row.prompt, row.response), row.criterion)


def _judge_row(number: int, row: Labelled, judge: RubricJudge, on_judged: Callable[[], None]) -> Steps[Judged]:
    """Judges an answer and its beginnings, which share most of what is asked, at once."""
    whole = replace(transcript_of(row.prompt, row.response), is_finished=row.is_finished)
    percents = PERCENTS[:-1] if "prefix" in judge.applies_to else ()
    texts = [transcript_of(row.prompt, beginning_of(row.response, percent)) for percent in percents]
    seen: list[tuple[Any, Any]] = []
    *of_beginnings, verdict, graded = yield from together(
        *(judge(replace(text, is_finished=False)) for text in texts),
        observed(judge(whole), seen),
        replace(judge, scoring="probability")(whole),  # the same questions, so they are asked once
    )
    on_judged()
    by_percent = dict(zip((*percents, PERCENTS[-1]), (*of_beginnings, verdict), strict=True))
    return Judged(number, row, by_percent, graded.value, dict(_first_shares(judge, whole, dict(seen))))


def _first_shares(
    judge: RubricJudge, transcript: Transcript, replies: Mapping[Any, OptionLogprobs]
) -> Iterator[tuple[str, tuple[float, float]]]:
    """Of the criteria that were asked about in two orders, the probability of the option shown first in each."""
    for criterion in judge.rubric.criteria:
        requests = judge.requests_about(criterion, transcript) if criterion.kind == "question" else []
        found = [shares_of(replies[request]) for request in requests if request in replies]
        if len(found) == 2 and all(found):
            yield criterion.name, (found[0][0], found[1][0])
