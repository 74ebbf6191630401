"""Runs of other models to be told beside a run: read from their results, and refused where rates do not compare."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from langchain_rain.errors import RainConfigError
from langchain_rain.evaluation.results import BesideModel, BesideStrategy, Results
from langchain_rain.evaluation.runs import Plan
from langchain_rain.evaluation.suites import SuiteData
from langchain_rain.ledger import fingerprint

RESULTS = "results.json"
"""The file of a run with all of its figures."""

PEOPLE = "people"
"""The outcome judge whose labels are of one run alone, so that they do not tell it from those of another."""


@dataclass(frozen=True, slots=True)
class OtherRun:
    """What another run has found; `given` is its folder, or its file of results, as the user named it."""

    given: str
    results: Results


def read_others(given: Sequence[str], suite: SuiteData, out: Path) -> list[OtherRun]:
    """The results of other runs of the same cases.

    Args:
        given: the folder of each, or its file of results.
        suite: what is answered here.
        out: the folder of this run.

    Raises:
        RainConfigError: there are none, they cannot be read, they are of other cases, or one of them is given twice or
            is this run.
    """
    known = {_file_in(out): "as the folder of this run"}
    others = []
    for each in given:
        path = _file_in(Path(each))
        if path in known:
            raise RainConfigError(f"beside: each run is told once, given {each!r}, {known[path]} already.")
        known[path] = f"as {each!r}"
        results = _read(each, path)
        _check_cases(each, results, suite)
        others.append(OtherRun(each, results))
    return others


def beside_models(others: Sequence[OtherRun], plan: Plan) -> tuple[BesideModel, ...]:
    """What is told of other runs beside that of a plan, in their order.

    Raises:
        RainConfigError: their outcomes were judged by another judge, or two of all runs are the same.
    """
    known = {(plan.config_hash, plan.seeds): "this run"}
    for other in others:
        _check_judge(other, plan)
        key = (other.results.provenance.config_hash, other.results.seeds)
        if key in known:
            raise RainConfigError(
                f"beside: each run is told once, given {other.given!r}, which has the model, the settings, the "
                f"strategies and the seeds of {known[key]}."
            )
        known[key] = repr(other.given)
    return tuple(_told(other, plan.outcome_judge.labels) for other in others)


def _file_in(path: Path) -> Path:
    """The file of results that a folder holds, or that is given itself."""
    return (path if path.is_file() else path / RESULTS).resolve()


def _read(given: str, path: Path) -> Results:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RainConfigError(f"beside: {given!r}: {RESULTS} is not UTF-8 text: {error.reason}.") from error
    except OSError as error:
        raise RainConfigError(
            f"beside: the folder of a run, with its {RESULTS}, or that file is wanted, given {given!r}: "
            f"{error.strerror or error}."
        ) from error
    try:
        return Results.from_json(json.loads(text))
    except RainConfigError as error:
        raise RainConfigError(f"beside: {given!r}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise RainConfigError(f"beside: {given!r}: {RESULTS} is no JSON: {error}.") from error


def _check_cases(given: str, results: Results, suite: SuiteData) -> None:
    if results.suite != suite.name:
        raise RainConfigError(
            f"beside: a run of the suite {suite.name!r} is wanted, given {given!r}, of {results.suite!r:.80}."
        )
    if results.cases_hash is None:
        raise RainConfigError(
            f"beside: {given!r} does not tell which cases it answered, as it was written by an older version. The same "
            "command, run there again, writes it anew and answers nothing again."
        )
    if results.cases_hash != suite.cases_hash:
        raise RainConfigError(
            f"beside: a run of the same cases is wanted, {_cases(len(suite.cases), suite.source)}; given {given!r}, "
            f"{_cases(results.num_cases, results.source)}. The same --data, --limit and --attack bring the same cases."
        )


def _cases(num: int, source: str) -> str:
    return f"{num} of {source:.200}"


def _check_judge(other: OtherRun, plan: Plan) -> None:
    there = other.results.provenance.outcome_judge
    here = {"name": plan.outcome_judge.name, **plan.outcome_judge.identity}
    one, two = _what_judges(there), _what_judges(here)
    key = next((key for key in [*two, *one] if _differs(one.get(key), two.get(key))), None)
    if key is not None:
        raise RainConfigError(
            f"beside: outcomes judged by {here['name']!r} are wanted, as here; given {other.given!r}, judged by "
            f"{there.get('name')!r:.80}, of which {key!r} is {one.get(key)!r:.200} and not {two.get(key)!r:.200}. "
            "Rates of different judges do not compare: have the answers there judged again with --outcome-judge."
        )


def _differs(one: Any, two: Any) -> bool:
    return fingerprint(one) != fingerprint(two)


def _what_judges(judge: Mapping[str, Any]) -> dict[str, Any]:
    """What findings depend on: not what the judge is called, nor how the path to the same weights is spelled."""
    found = {key: value for key, value in judge.items() if key != "name"}
    if found.get("judge") == PEOPLE:
        found.pop("labels", None)
    if isinstance(models := found.get("models"), list):
        found["models"] = [_without_name(model) for model in models]
    return found


def _without_name(model: Any) -> Any:
    if isinstance(model, Mapping) and "weights" in model:
        return {key: value for key, value in model.items() if key != "name"}
    return model


def _told(other: OtherRun, labels: Sequence[str]) -> BesideModel:
    """All but labels that nobody gives here, which people may have given there."""
    model = BesideModel.of(other.results, other.given)
    return replace(model, strategies=tuple(_of_labels(each, labels) for each in model.strategies))


def _of_labels(strategy: BesideStrategy, labels: Sequence[str]) -> BesideStrategy:
    rates = {label: rate for label, rate in strategy.rates.items() if label in labels}
    unknown = {label: num for label, num in strategy.unknown.items() if label in labels}
    return replace(strategy, rates=rates, unknown=unknown)
