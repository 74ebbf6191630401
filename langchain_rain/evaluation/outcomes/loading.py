"""From what a user names to a judge of outcomes."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from langchain_rain.engines.loading import DEMO_MODEL
from langchain_rain.errors import EngineError, RainConfigError
from langchain_rain.evaluation.outcomes.base import OutcomeJudge
from langchain_rain.evaluation.outcomes.grading import GradingJudge, grading
from langchain_rain.evaluation.outcomes.guard import guard_judge
from langchain_rain.evaluation.outcomes.oracle import OracleJudge, OraclePairs
from langchain_rain.evaluation.outcomes.pairs import JudgeOfPairs, PairJudge
from langchain_rain.evaluation.outcomes.people import PeopleJudge
from langchain_rain.evaluation.outcomes.phrases import PhraseJudge
from langchain_rain.judging import Loaded
from langchain_rain.rubrics.files import names_in_library

GRADINGS: Mapping[str, tuple[str, ...]] = {
    "demo": ("harmlessness", "helpfulness"),
    "hh": ("harmlessness", "helpfulness"),
    "advbench": ("attack",),
    "truthfulqa": ("truthfulness",),
    "xstest": ("refusal",),
}
"""By what a model judges the answers to a suite."""

GRADINGS_OF_OTHERS = ("harmlessness", "helpfulness")
"""By what it judges those to prompts of the user's."""

WITHOUT_MODEL = ("oracle", "phrases", "people")
"""Who asks no model, by what its name begins with."""

PAIRINGS: Mapping[str, tuple[str, ...]] = {
    "advbench": ("harmlessness",),
    "truthfulqa": ("helpfulness",),
    "xstest": ("helpfulness",),
}
"""By what a model tells the better one of two answers to a suite; to others by both."""

PHRASE_LABELS: Mapping[str, tuple[str, ...]] = {"advbench": ("attack_succeeded", "refused")}
"""What phrases tell of a suite; of others only who refuses."""


def outcome_judge(given: Any, suite: str, *, model: Any = None, loaded: Loaded | None = None) -> OutcomeJudge:
    """The judge that is meant.

    Args:
        given: its name, a model, or a judge as such.
        suite: what was answered; tells by what a model judges and what phrases tell.
        model: who is asked where a rubric asks a model.
        loaded: engines that were loaded, to be shared; None for new ones.

    Raises:
        RainConfigError: there is no such judge, or it cannot judge this suite.
        RubricError: the rubric is malformed.
        EngineError: a model of this name cannot be loaded.
    """
    if not isinstance(given, str | os.PathLike):
        return given if isinstance(given, OutcomeJudge) else _model_judge(given, suite, loaded)
    name = os.fspath(given)
    if name.endswith((".yaml", ".yml")):
        return GradingJudge(model, [name], name=Path(name).stem, loaded=loaded)
    if model is not None:
        raise RainConfigError(f"model: it is asked where the judge is a rubric, given {model!r} beside {name!r}.")
    kind, _, rest = name.partition(":")
    if kind in names_in_library("guards") and rest:
        return guard_judge(rest, kind, loaded=loaded)
    return _without_model(kind, rest, suite) or _model_judge(name, suite, loaded)


def judges_of_pairs(judge: OutcomeJudge, suite: str, *, loaded: Loaded | None = None) -> list[JudgeOfPairs]:
    """Who says which of two answers is better where this one judges outcomes: the same model; nobody if it asks none.

    Args:
        judge: who judges outcomes.
        suite: what was answered; tells by what.
        loaded: engines that were loaded, to be shared; None for new ones.
    """
    if isinstance(judge, OracleJudge):
        return [OraclePairs()]
    if not isinstance(judge, GradingJudge) or judge.engine is None:
        return []
    return [PairJudge(judge.engine, by, loaded=loaded) for by in PAIRINGS.get(suite, ("harmlessness", "helpfulness"))]


def _without_model(kind: str, rest: str, suite: str) -> OutcomeJudge | None:
    """The judge of this name that asks no model, if there is one."""
    if kind == "people":
        return _people(rest)
    if rest or kind not in ("oracle", "phrases"):
        return None
    return _oracle(suite) if kind == "oracle" else PhraseJudge(PHRASE_LABELS.get(suite, ("refused",)))


def _oracle(suite: str) -> OracleJudge:
    if suite != "demo":
        raise RainConfigError(f"judge: the oracle knows the suite demo alone, given {suite!r}.")
    return OracleJudge()


def _people(path: str) -> PeopleJudge:
    if not path:
        raise RainConfigError('judge: "people:FILE" is wanted, a file of labels that was exported and filled in.')
    return PeopleJudge.from_file(Path(path))


def _model_judge(model: Any, suite: str, loaded: Loaded | None) -> GradingJudge:
    rubrics = [grading(name) for name in GRADINGS.get(suite, GRADINGS_OF_OTHERS)]
    loaded = loaded or Loaded()
    try:
        loaded.engine(model, "judge")
    except EngineError as error:
        raise EngineError(
            f"judge: {_allowed()} is allowed; as a model {model!r} cannot be had: {error}",
            engine=error.engine,
            is_retryable=error.is_retryable,
        ) from error
    except RainConfigError as error:
        raise RainConfigError(f"judge: {_allowed()} is allowed: {error}") from error
    return GradingJudge(model, rubrics, loaded=loaded)


def _allowed() -> str:
    return (
        '"oracle" (of the suite demo), "phrases", "people:FILE" (labels that people gave), a rubric (a file ending in '
        f'.yaml or .yml), "FORM:MODEL" for a guard model ({", ".join(names_in_library("guards"))}), or a model as for '
        f'`judge` of ChatRain ("{DEMO_MODEL}", a Hugging Face id or folder, a chat model, an engine)'
    )
