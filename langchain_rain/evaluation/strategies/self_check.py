"""self-check-refuse: an answer, one judgement of it, and a refusal if that is bad."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from langchain_rain.arguments import RainArguments
from langchain_rain.evaluation.strategies.base import Answered, Content, Setting, Step
from langchain_rain.evaluation.strategies.drawing import seed_of_sample
from langchain_rain.evaluation.strategies.making import Found, Making, Text

REFUSAL_MESSAGE = str(RainArguments.model_fields["refusal_message"].default)


@dataclass(frozen=True, slots=True)
class SelfCheck:
    """Samples one answer, judges it, and gives the refusal message in its place unless it satisfies.

    A budget changes nothing: with more than one answer it would be best-of-N.
    """

    setting: Setting
    refusal_message: str = REFUSAL_MESSAGE
    name: str = "self-check-refuse"

    @property
    def identity(self) -> Mapping[str, Any]:
        """See `Strategy`."""
        return {"strategy": self.name, "refusal_message": self.refusal_message, **self.setting.identity}

    async def answer(
        self, case_id: str, content: Content, *, seed: int, prefill: str = "", max_positions: int | None = None
    ) -> Answered:
        """See `Strategy`."""
        setting = self.setting
        making = Making.of(setting, content, prefill, max_positions, seed=seed)
        written = await making.write(
            Text(making.question, seed_of_sample(making.seed, 0), temperature=setting.config.temperature)
        )
        verdict = await making.judge(written.text)
        making.consider()
        making.steps.append(Step(written.text, verdict.value, "draft", len(written.tokens)))
        is_given = verdict.satisfies(setting.config.accept_value)
        if is_given:
            making.steps.append(Step(written.text, verdict.value, "commit", len(written.tokens)))
        found = Found(
            making.question.shown(written.text, setting.writer) if is_given else self.refusal_message,
            written.finish_reason or "length" if is_given else "refused",
            verdict,
            len(written.tokens),
        )
        return making.answered(found, case_id, self.name, seed)
