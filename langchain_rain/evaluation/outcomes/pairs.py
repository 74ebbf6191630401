"""Which of two answers is the better one, for win rates: asked in both orders; who contradicts itself says a tie."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from langchain_rain.config import RainConfig
from langchain_rain.engines.base import Engine
from langchain_rain.engines.callables import CallableEngine
from langchain_rain.errors import RainConfigError
from langchain_rain.evaluation.outcomes.base import Content, transcript_for
from langchain_rain.evaluation.outcomes.grading import CONFIG, grading, without_rounding
from langchain_rain.judging import Loaded
from langchain_rain.rubrics import Rubric
from langchain_rain.rubrics.rendering import free_boundary
from langchain_rain.rubrics.rubric import as_rubric
from langchain_rain.search.protocol import Transcript
from langchain_rain.verdicts import TranscriptJudge

PAIRINGS = ("harmlessness", "helpfulness")
"""By what the better answer can be told, by the names of gradings/pair_*.yaml."""


@dataclass(frozen=True, slots=True)
class Preference:
    """Which of two answers is better.

    Attributes:
        winner: "tie" if the judge prefers the answer that stands first, or second, in both orders, or neither; None if
            it did not choose between its options.
        shown_first: how far the first answer is preferred where it is shown first, in [0, 1]; 0.5 is no preference.
        shown_second: the same where it is shown second.
    """

    winner: Literal["first", "second", "tie"] | None
    shown_first: float = 0.5
    shown_second: float = 0.5

    @property
    def value(self) -> float:
        """How much speaks for the first answer, in [-1, 1]."""
        return self.shown_first + self.shown_second - 1


class JudgeOfPairs(Protocol):
    """Says which of two answers is the better one."""

    @property
    def name(self) -> str:
        """Names the judge in reports."""

    @property
    def by(self) -> str:
        """Names what the better one is told by."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What tells its findings from those of another judge, as JSON values. No secrets."""

    async def compare(self, case_content: Content, first: str, second: str, /) -> Preference:
        """Which of two answers to what was asked is better.

        Raises:
            RainConfigError: it cannot judge cases like this one.
            EngineError: its model failed.
        """


class PairJudge:
    """Asks a model which of two answers is the better one.

    Each pair is asked about with either answer first, and each of these in both orders of the options: four questions.

    Args:
        model: who is asked, given like `judge` of `ChatRain`.
        by: one of `PAIRINGS`, or a rubric whose only criterion has as `good` that the first reply is better.
        config: how questions are scored.
        loaded: engines that were loaded; None for new ones.

    Attributes:
        name: of the model.
        by: what the better one is told by, as given, or the name of the rubric.

    Raises:
        RainConfigError: the model is a function, or `by` is not allowed.
        EngineError: the model cannot be loaded.
    """

    def __init__(
        self,
        model: Any,
        by: str | Rubric = "helpfulness",
        *,
        config: RainConfig = CONFIG,
        loaded: Loaded | None = None,
    ) -> None:
        if isinstance(by, str) and by not in PAIRINGS:
            raise RainConfigError(f"by: {' and '.join(PAIRINGS)} or a rubric is allowed, given {by!r}.")
        self.by = by if isinstance(by, str) else by.name
        self.rubric = by if isinstance(by, Rubric) else as_rubric(grading(f"pair_{by}"))
        if len(self.rubric.criteria) != 1:
            raise RainConfigError(f"by: a rubric of one criterion is allowed, given {len(self.rubric.criteria)}.")
        self._config = config
        self._judge = TranscriptJudge(model, self.rubric, config=config, loaded=loaded)
        if isinstance(self._judge.engine, CallableEngine):
            raise RainConfigError(f"judge: a function judges by no rubric; a model is allowed, given {model!r}.")
        self.name = self._judge.engine.name

    @property
    def identity(self) -> Mapping[str, Any]:
        """The model, the rubric by its hash, and how questions are scored."""
        return {
            "judge": "pairs",
            "models": [dict(self._judge.engine.identity)],
            "rubrics": [self.rubric.content_hash],
            "config": self._config.model_dump(mode="json", include={"scoring", "min_option_mass", "calibrates"}),
        }

    @property
    def engines(self) -> tuple[Engine, ...]:
        """The model."""
        return (self._judge.engine,)

    async def compare(self, case_content: Content, first: str, second: str, /) -> Preference:
        """Which of two answers to what was asked is better; equal ones are a tie without being asked about.

        Raises:
            EngineError: the model failed.
        """
        if first == second:
            return Preference("tie")
        values = []
        for one, other in ((first, second), (second, first)):
            verdict = (await self._judge.ajudge(pair_transcript(case_content, one, other))).verdict
            if verdict.is_abstained:
                return Preference(None)
            values.append(without_rounding(verdict.value))
        straight, swapped = values
        shown = (1 + straight) / 2, (1 - swapped) / 2
        if straight * swapped >= 0:  # the same place both times
            return Preference("tie", *shown)
        return Preference("first" if straight > 0 else "second", *shown)


def pair_transcript(content: Content, first: str, second: str) -> Transcript:
    """Two answers in the place of one, each between boundaries that stand neither in them nor in what was asked."""
    prompt = transcript_for(content, "").prompt
    boundary = free_boundary("reply", [prompt, first, second])
    replies = "\n\n".join(f"<{boundary}>\n{reply}\n</{boundary}>" for reply in (first, second))
    return Transcript(prompt, f"\n{replies}")
