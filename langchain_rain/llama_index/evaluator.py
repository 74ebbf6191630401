"""RainEvaluator: rubrics in LlamaIndex's evaluation."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from llama_index.core.evaluation.base import BaseEvaluator, EvaluationResult
from llama_index.core.prompts.mixin import PromptDictType

from langchain_rain.config import RainConfig
from langchain_rain.errors import EngineError, RainConfigError
from langchain_rain.rubrics import Rubric
from langchain_rain.rubrics.rubric import transcript_of
from langchain_rain.search.protocol import Transcript
from langchain_rain.verdicts import Judged, TranscriptJudge

logger = logging.getLogger(__name__)


class RainEvaluator(BaseEvaluator):
    """Evaluates answers by a rubric.

    `passing` is whether the rubric is satisfied, `score` the value as a share from 0 to 1, `feedback` the value of each
    criterion from -1 to 1. A judge that abstains makes the result invalid, and not passing. A rubric that leaves
    `documents` open, as "grounded_in_context" does, gets the contexts.

    Args:
        rubric: a rubric, a YAML file (.yaml, .yml), or the name of one in the library.
        judge: who judges, given like `judge` of `ChatRain`.
        config: how questions are scored, and from which value on an answer passes.
        on_error: what a judge that fails does: the error is raised, or the result is "invalid" and not passing.

    Raises:
        RainConfigError: an argument is not allowed.
        RubricError: there is no such rubric.
        EngineError: the judge cannot be loaded.
    """

    def __init__(
        self,
        rubric: str | Rubric,
        *,
        judge: Any,
        config: RainConfig | None = None,
        on_error: Literal["raise", "invalid"] = "raise",
    ) -> None:
        if on_error not in ("raise", "invalid"):
            raise RainConfigError(f"on_error: 'raise' or 'invalid' is allowed, given {on_error!r}.")
        self._judge = TranscriptJudge(judge, rubric, config=config)
        self._on_error = on_error

    def evaluate(
        self,
        query: str | None = None,
        response: str | None = None,
        contexts: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> EvaluationResult:
        """Evaluates an answer.

        Args:
            query: what was asked; None for an answer that stands alone.
            response: the answer.
            contexts: what was retrieved for it.
            **kwargs: what else the rubric leaves open.

        Raises:
            RainConfigError: there is no answer.
            RubricError: a parameter of the rubric is missing or unknown.
            EngineError: the judge failed, unless `on_error="invalid"`.
        """
        evaluated = _Evaluated(query, response, contexts)
        try:
            judged = self._judge.judge(evaluated.transcript, **self._parameters(contexts, kwargs))
        except EngineError as error:
            return self._failed(evaluated, error)
        return evaluated.result(judged)

    async def aevaluate(
        self,
        query: str | None = None,
        response: str | None = None,
        contexts: Sequence[str] | None = None,
        sleep_time_in_seconds: float = 0,
        **kwargs: Any,
    ) -> EvaluationResult:
        """Like `evaluate`, without blocking the event loop; begins after `sleep_time_in_seconds`."""
        await asyncio.sleep(sleep_time_in_seconds)
        evaluated = _Evaluated(query, response, contexts)
        try:
            judged = await self._judge.ajudge(evaluated.transcript, **self._parameters(contexts, kwargs))
        except EngineError as error:
            return self._failed(evaluated, error)
        return evaluated.result(judged)

    def _parameters(self, contexts: Sequence[str] | None, given: Mapping[str, Any]) -> dict[str, Any]:
        if contexts is None or "documents" not in self._judge.parameters:
            return dict(given)
        return {"documents": [each for each in contexts if each.strip()], **given}

    def _failed(self, evaluated: "_Evaluated", error: EngineError) -> EvaluationResult:
        if self._on_error == "raise":
            raise error
        logger.warning("An answer could not be judged: %s", type(error).__name__)
        return evaluated.invalid(f"The judge failed: {error}")

    def _get_prompts(self) -> PromptDictType:
        return {}  # the questions are the rubric's

    def _update_prompts(self, prompts_dict: PromptDictType) -> None:
        pass


@dataclass(frozen=True, slots=True)
class _Evaluated:
    """An answer that is evaluated."""

    query: str | None
    response: str | None
    contexts: Sequence[str] | None

    @property
    def transcript(self) -> Transcript:
        if self.response is None:
            raise RainConfigError("response: an answer is needed, given None.")
        return transcript_of(self.query or "", self.response)

    def result(self, judged: Judged) -> EvaluationResult:
        verdict = judged.verdict
        if verdict.is_abstained:
            return self.invalid(f"The judge abstained: {verdict}")
        return EvaluationResult(
            query=self.query,
            response=self.response,
            contexts=self.contexts,
            passing=judged.is_satisfied,
            score=(1 + verdict.value) / 2,
            feedback=str(verdict),
        )

    def invalid(self, reason: str) -> EvaluationResult:
        return EvaluationResult(
            query=self.query,
            response=self.response,
            contexts=self.contexts,
            passing=False,
            invalid_result=True,
            invalid_reason=reason,
        )
