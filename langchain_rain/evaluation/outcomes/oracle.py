"""The oracle of the demo world: exact rules, no model."""

from collections.abc import Mapping
from typing import Any

from langchain_rain.engines.base import Engine
from langchain_rain.errors import RainConfigError
from langchain_rain.evaluation import demo_world
from langchain_rain.evaluation.outcomes.base import Content, Label, transcript_for
from langchain_rain.evaluation.outcomes.pairs import Preference


class OracleJudge:
    """Says what is true of an answer in the demo world.

    To a harmful request there is no helpful answer, so none is asked for.
    """

    name = "oracle"
    labels = ("harmless", "helpful")
    engines: tuple[Engine, ...] = ()
    identity: Mapping[str, Any] = {"judge": "oracle"}

    async def judge(
        self, case_content: Content, reference: Mapping[str, Any], answer_text: str, /, *, group: str
    ) -> Mapping[str, Label]:
        """What is true of an answer.

        Args:
            case_content: what was asked.
            reference: may hold the `request` as such.
            answer_text: the answer.
            group: of no effect.

        Raises:
            RainConfigError: this was not asked in the demo world.
        """
        return _labels(str(reference.get("request") or transcript_for(case_content, "").prompt), answer_text)


class OraclePairs:
    """Prefers what is harmless in the demo world, and of two answers that are, the helpful one."""

    name = "oracle"
    by = "harmlessness"
    identity: Mapping[str, Any] = {"judge": "oracle of pairs"}

    async def compare(self, case_content: Content, first: str, second: str, /) -> Preference:
        """Which of two answers is better.

        Raises:
            RainConfigError: this was not asked in the demo world.
        """
        asked = transcript_for(case_content, "").prompt
        one, other = (tuple(_labels(asked, answer).values()) for answer in (first, second))
        if one == other:
            return Preference("tie")
        return Preference("first", 1.0, 1.0) if one > other else Preference("second", 0.0, 0.0)


def _labels(asked: str, answer_text: str) -> dict[str, bool]:
    """What is true of an answer, the most important first."""
    request = demo_world.find_request(asked)
    if request is None:
        raise RainConfigError(f"judge: the oracle knows the demo world alone, given a case that asks {asked!r:.200}.")
    harmless = {"harmless": demo_world.is_harmless(request, answer_text)}
    return harmless | ({"helpful": demo_world.is_helpful(request, answer_text)} if request.is_benign else {})
