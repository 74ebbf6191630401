"""From a rubric and an engine to a judge: in which conversations it asks, with whom, and in what form."""

import logging
import threading
import warnings
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from langchain_core.messages import HumanMessage

from langchain_rain import drivers
from langchain_rain.config import RainConfig
from langchain_rain.drivers import Job
from langchain_rain.engines.base import ChatEngine, Engine
from langchain_rain.engines.callables import CallableEngine
from langchain_rain.engines.calling import Calls
from langchain_rain.engines.dialogue import Dialogue
from langchain_rain.engines.loading import load_engine
from langchain_rain.errors import EngineError, JudgeAtChanceWarning, RainConfigError
from langchain_rain.rubrics import CallableCriterion, GuardCriterion, Rubric
from langchain_rain.rubrics.calibration import Priors
from langchain_rain.rubrics.evaluate import RubricJudge, ValueJudge
from langchain_rain.rubrics.rendering import Template
from langchain_rain.rubrics.worked import at_chance, judge_worked_examples
from langchain_rain.search.protocol import Context, Judge

logger = logging.getLogger(__name__)

MAX_PRIORS = 100
"""Rubrics of which is remembered what an engine prefers under them."""

Key: TypeAlias = str | int
"""What an engine was loaded from: a name, or the id of an object, which the engine keeps so that the id stays."""


@dataclass(slots=True)
class Loaded:
    """Engines by what they were loaded from, and what was learnt of them; shared by whoever has the same ones.

    Attributes:
        engines: the engines.
        tried: engines and rubrics whose worked examples they were tried on.
        priors: what they prefer without content, by engine, rubric and template.
    """

    engines: dict[Key, Engine] = field(default_factory=dict)
    tried: set[tuple[int, str]] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    priors: dict[tuple[int, str, str], Priors] = field(default_factory=dict)

    def __reduce__(self) -> tuple[Any, ...]:
        """A pickle holds nothing of it: what was loaded is loaded again."""
        return Loaded, ()

    def engine(self, given: Any, argument: Literal["model", "judge", "guard"]) -> Engine:
        """The engine that was given by name or object."""
        key = given if isinstance(given, str) else id(given)
        with self.lock:  # loaded once, whoever asks at the same time
            if key in self.engines:
                return self.engines[key]
            engine = load_engine(given, argument)
            if not isinstance(engine, CallableEngine):  # it costs nothing, and a call may bring a function of its own
                self.engines[key] = engine
            return engine

    def guards(self, rubric: Rubric) -> dict[str, Engine]:
        """The models of a rubric's guards, by the names of the criteria."""
        return {
            criterion.name: self.engine(criterion.model, "guard")
            for criterion in rubric.criteria
            if isinstance(criterion, GuardCriterion) and criterion.model is not None
        }

    def priors_of(self, engine: Engine, rubric: Rubric, template: Template) -> Priors:
        """What is known of an engine's preferences under a rubric, to be filled by whoever asks first."""
        key = (id(engine), rubric.content_hash, rubric.template or template)
        while len(self.priors) >= MAX_PRIORS and key not in self.priors:
            self.priors.pop(next(iter(self.priors)), None)  # of rubrics made for one call each, with its documents
        return self.priors.setdefault(key, {})


@dataclass(frozen=True, slots=True)
class Judging:
    """A judge, and the conversations that were opened for it: whoever runs it closes them."""

    judge: Judge
    contexts: dict[Context, Engine]


def open_judge(
    rubric: Rubric,
    engine: Engine,
    config: RainConfig,
    *,
    loaded: Loaded,
    context: Context | None = None,
    calls: Calls | None = None,
    max_tokens: int = 1,
) -> Judging:
    """Opens all that is needed to judge by a rubric.

    Args:
        rubric: the criteria; a function that judges goes by its own.
        engine: who judges, but for the criteria that bring their own judge.
        config: how questions are scored.
        loaded: where guards are loaded, and what was learnt of the engine.
        context: a conversation of the engine that is open; None opens one.
        calls: on whose behalf it is.
        max_tokens: of the answers that will be judged, for whoever reserves room.
    """
    if not isinstance(engine, CallableEngine):
        return open_rubric_judge(
            rubric, engine, config, loaded=loaded, context=context, calls=calls, max_tokens=max_tokens
        )
    judging = context if context is not None else _open(engine, calls=calls, max_tokens=max_tokens)
    return Judging(ValueJudge(judging), {} if context is not None else {judging: engine})


def open_rubric_judge(
    rubric: Rubric,
    engine: Engine,
    config: RainConfig,
    *,
    loaded: Loaded,
    context: Context | None = None,
    calls: Calls | None = None,
    max_tokens: int = 1,
) -> Judging:
    """The same, and the rubric decides even where a function judges other things: then nothing else is asked of it."""
    opened: dict[Context, Engine] = {}

    def opening(of: Engine) -> Context:
        new = _open(of, calls=calls, max_tokens=max_tokens)
        opened[new] = of
        return new

    try:
        judging = context if context is not None else opening(engine)
        functions = {
            criterion.name: CallableEngine(criterion.function)
            for criterion in rubric.criteria
            if isinstance(criterion, CallableCriterion)
        }
        contexts = {name: opening(own) for name, own in {**loaded.guards(rubric), **functions}.items()}
    except BaseException:
        drivers.close_contexts(opened)
        raise
    template = template_for(engine)
    judge = RubricJudge(
        rubric,
        judging,
        template=template,
        scoring=config.scoring,
        min_option_mass=config.min_option_mass,
        contexts=contexts,
        priors=loaded.priors_of(engine, rubric, template) if config.calibrates else None,
    )
    return Judging(judge, opened)


def check_all_is_judged(rubric: Rubric, engine: Engine, given: Any) -> None:
    """Checks that no criterion goes missing beside a function that judges, which goes by its own.

    Args:
        rubric: the criteria.
        engine: who judges.
        given: what the engine was made from, for the error.

    Raises:
        RainConfigError: one would not be judged.
    """
    lost = [each.name for each in rubric.criteria if each.kind in ("pattern", "callable", "guard")]
    if lost and isinstance(engine, CallableEngine):
        raise RainConfigError(
            f"judge: a function judges by its own, so the criterion {lost[0]!r} of the rubric would not be judged, "
            f"given {given!r}. Make the function a criterion: CallableCriterion(name=..., function=...)."
        )


def warn_if_at_chance(rubric: Rubric, engine: Engine, config: RainConfig, loaded: Loaded) -> None:
    """Warns if a model of this process judges the rubric's worked examples no better than a coin.

    A guard must not pretend. Each rubric is tried once; a model behind an interface is not: that costs money, and there
    is `rubric check` for it.
    """
    criteria = rubric.asked_criteria
    examples = tuple(each for each in rubric.examples if each.criterion in {criterion.name for criterion in criteria})
    is_here = isinstance(engine, ChatEngine) and not engine.writes_whole_messages
    key = (id(engine), rubric.content_hash)
    if not is_here or not examples or key in loaded.tried:
        return
    loaded.tried.add(key)
    tried = rubric.model_copy(update={"criteria": criteria, "examples": examples})
    judging = open_judge(tried, engine, config, loaded=loaded)
    assert isinstance(judging.judge, RubricJudge)
    try:
        judged = drivers.run(Job(judge_worked_examples(judging.judge), judging.contexts)).result
    except EngineError as error:
        logger.debug("The examples of %s cannot be judged: %s", rubric.name, error)  # so will be the first answer
        return
    for name in at_chance(judged):
        of_criterion = [each.is_right for each in judged if each.example.criterion == name]
        warnings.warn(
            f"{engine.name} judges {sum(of_criterion)} of the {len(of_criterion)} worked examples of {name!r} in the "
            f"rubric {rubric.name!r} rightly, no better than a coin: as a guard it would only pretend. Give another "
            "model as `judge`, or see what is wrong with `langchain-rain rubric check`.",
            JudgeAtChanceWarning,
            stacklevel=4,  # whoever made the `ChatRain` or `RainLLM`
        )


def template_for(engine: Engine) -> Template:
    """How questions are put to an engine where the rubric does not say: fenced, where it has a chat template."""
    return "fenced" if isinstance(engine, ChatEngine) and engine.has_chat_template else "plain"


def _open(engine: Engine, *, calls: Calls | None, max_tokens: int) -> Context:
    """A conversation for judgements, whose questions hold all they need: of the prompt only who asks is told."""
    if isinstance(engine, ChatEngine | CallableEngine):
        return engine.open(Dialogue((HumanMessage("?"),), calls=calls), max_tokens=max_tokens)
    return engine.open("?", max_tokens=max_tokens)
