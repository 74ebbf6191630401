"""A model judges outcomes by rubrics (gradings/*.yaml): a criterion is a label, its `good` option what makes it true.

Questions are put as those of every rubric: in both orders of the options, by their probabilities where the model gives
them, and with the answer as evidence that begins no part of the question.
"""

import os
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, TypeAlias

from langchain_rain.config import RainConfig
from langchain_rain.engines.base import Engine
from langchain_rain.engines.callables import CallableEngine
from langchain_rain.errors import RainConfigError
from langchain_rain.evaluation.outcomes.base import Content, Label, transcript_for, value_name
from langchain_rain.evaluation.outcomes.joint import joint_labels, with_joint
from langchain_rain.judging import Loaded
from langchain_rain.ledger import fingerprint
from langchain_rain.rubrics import GuardCriterion, Rubric
from langchain_rain.rubrics.files import Source
from langchain_rain.rubrics.rubric import RubricFile, parameters_of
from langchain_rain.search.protocol import Verdict
from langchain_rain.verdicts import TranscriptJudge

RubricLike: TypeAlias = "str | os.PathLike[str] | Rubric"
"""A rubric, or a YAML file."""

CONFIG = RainConfig(scoring="probability")
"""Graded, as a tie of votes is all that two orders could say of a model that is nearly sure."""

MAX_ROUNDING = 1e-9
"""Of a value, a sum of a few probabilities."""

_FOLDER = files("langchain_rain.evaluation.outcomes") / "gradings"


def grading(name: str) -> str:
    """The file of a grading rubric of the package, by name.

    Raises:
        RainConfigError: there is none.
    """
    if name not in names_of_gradings():
        raise RainConfigError(f"grading: {', '.join(names_of_gradings())} are allowed, given {name!r}.")
    return str(_FOLDER / f"{name}.yaml")


def names_of_gradings() -> list[str]:
    """The names of the grading rubrics, sorted."""
    return sorted(each.name.removesuffix(".yaml") for each in _FOLDER.iterdir() if each.name.endswith(".yaml"))


class GradingJudge:
    """Asks a model about each criterion of one or more rubrics, each of which is a label.

    What a rubric leaves open is filled in from the reference of a case, by the same names. A label is None where the
    model does not choose between the options, or chooses the same letter in both orders and equally so.

    Args:
        model: who is asked, given like `judge` of `ChatRain`; None if no criterion asks a model.
        rubrics: YAML files or rubrics; the names of their criteria differ.
        name: names the judge in reports; None for the name of the model.
        config: how questions are scored.
        loaded: engines that were loaded; None for new ones.

    Raises:
        RainConfigError: the model is a function, which judges by no rubric, or two criteria have one name.
        RubricError: a rubric is malformed.
        EngineError: the model cannot be loaded.
    """

    def __init__(
        self,
        model: Any,
        rubrics: Sequence[RubricLike],
        *,
        name: str | None = None,
        config: RainConfig = CONFIG,
        loaded: Loaded | None = None,
    ) -> None:
        self._loaded = loaded or Loaded()
        self._config = config
        self._rubrics = [_as_rubric(rubric) for rubric in rubrics]
        model = _asked(model, self._rubrics)
        asked = [criterion.name for rubric in self._rubrics for criterion in rubric.criteria]
        _check_labels(asked)
        self.labels = with_joint(asked)
        self._judges = [
            TranscriptJudge(model, _named(rubric), config=config, loaded=self._loaded) for rubric in rubrics
        ]
        self._engine = self._judges[0].engine if model is not None else None
        if isinstance(self._engine, CallableEngine):
            raise RainConfigError(f"judge: a function judges by no rubric; a model is allowed, given {model!r}.")
        self.name = name or (self._engine.name if self._engine is not None else self._rubrics[0].name)

    @property
    def engine(self) -> Engine | None:
        """The model, which may be asked other questions too; None if no criterion asks one, or it is a guard."""
        asked = [each for rubric in self._rubrics for each in rubric.asked_criteria]
        return None if all(isinstance(each, GuardCriterion) for each in asked) else self._engine

    @property
    def identity(self) -> Mapping[str, Any]:
        """The labels, the models, the rubrics by a hash, and how questions are scored."""
        return {
            "judge": "grading",
            "labels": list(self.labels),
            "models": [dict(engine.identity) for engine in self.engines],
            "rubrics": [_hash_of(rubric) for rubric in self._rubrics],
            "config": self._config.model_dump(mode="json", include={"scoring", "min_option_mass", "calibrates"}),
        }

    @property
    def engines(self) -> tuple[Engine, ...]:
        """The model, and those of guards that the rubrics name."""
        guards = [engine for rubric in self._rubrics for engine in self._loaded.guards(rubric).values()]
        asks = any(getattr(each, "model", None) is None for rubric in self._rubrics for each in rubric.asked_criteria)
        own = [self._engine] if self._engine is not None and asks else []
        return tuple({id(engine): engine for engine in [*own, *guards]}.values())

    async def judge(
        self, case_content: Content, reference: Mapping[str, Any], answer_text: str, /, *, group: str
    ) -> Mapping[str, Label]:
        """The labels that the rubrics ask about, each with its value, and what these say together (`joint.JOINT`).

        Args:
            case_content: what was asked.
            reference: fills in what the rubrics leave open.
            answer_text: the answer.
            group: of no effect.

        Raises:
            RubricError: the reference lacks something that a rubric needs.
            EngineError: the model failed.
        """
        transcript = transcript_for(case_content, answer_text)
        found: dict[str, Label] = {}
        for rubric, judge in zip(self._rubrics, self._judges, strict=True):
            parameters = {name: reference[name] for name in judge.parameters if reference.get(name)}
            judged = await judge.ajudge(transcript, **parameters)
            for criterion in rubric.criteria:
                found |= _found(criterion.name, judged.verdict)
        return joint_labels(found, self.labels) | found


def _found(label: str, verdict: Verdict) -> dict[str, Label]:
    if label in verdict.abstained or label not in verdict.values:
        return {label: None}
    value = without_rounding(verdict.values[label])
    return {label: None if value == 0 else value > 0, value_name(label): value}


def without_rounding(value: float) -> float:
    """A value, or 0 where no more than rounding is left of two orders that cancel each other."""
    return 0.0 if abs(value) <= MAX_ROUNDING else value


def _asked(model: Any, rubrics: Sequence[Rubric]) -> Any:
    """Who is asked: the model, or where there is none that of the guards, if nothing but guards is asked."""
    asked = [criterion for rubric in rubrics for criterion in rubric.asked_criteria]
    guards = [each.model for each in asked if isinstance(each, GuardCriterion) and each.model is not None]
    return guards[0] if model is None and guards and len(guards) == len(asked) else model


def _named(rubric: RubricLike) -> str | Rubric:
    return rubric if isinstance(rubric, Rubric) else os.fspath(rubric)


def _as_rubric(rubric: RubricLike) -> Rubric:
    """The rubric with its parameters open; only its criteria are looked at."""
    if isinstance(rubric, Rubric):
        return rubric
    parameters_of(rubric)  # names file and line of every mistake
    is_file = not isinstance(rubric, str) or rubric.endswith((".yaml", ".yml"))
    return RubricFile(**dict(Source.read(rubric).data)) if is_file else RubricFile.in_library(str(rubric))


def _hash_of(rubric: Rubric) -> str:
    parameters = rubric.model_dump(mode="json", include={"parameters"})
    return fingerprint([rubric.content_hash, parameters])


def _check_labels(labels: Sequence[str]) -> None:
    if not labels:
        raise RainConfigError("rubrics: at least one is wanted, given none.")
    for label in labels:
        if labels.count(label) > 1:
            raise RainConfigError(
                f"rubrics: their criteria are labels, whose names must differ; {label!r} is there twice."
            )
