"""vanilla: the model's own answer, whatever it is worth."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from langchain_rain.evaluation.strategies.base import Answered, Content, Setting, Step
from langchain_rain.evaluation.strategies.drawing import seed_of_sample
from langchain_rain.evaluation.strategies.making import Found, Making, Text


@dataclass(frozen=True, slots=True)
class Vanilla:
    """Samples one answer at the temperature of the setting, or takes the most probable tokens.

    A chat model writes at its own temperature; greedily it is called with temperature 0. The judge is asked for the
    record alone. A budget changes nothing: one answer cannot use more.
    """

    setting: Setting
    is_greedy: bool = False

    @property
    def name(self) -> str:
        """See `Strategy`."""
        return "vanilla-greedy" if self.is_greedy else "vanilla"

    @property
    def identity(self) -> Mapping[str, Any]:
        """See `Strategy`."""
        return {"strategy": self.name, **self.setting.identity}

    async def answer(
        self, case_id: str, content: Content, *, seed: int, prefill: str = "", max_positions: int | None = None
    ) -> Answered:
        """See `Strategy`."""
        making = Making.of(self.setting, content, prefill, max_positions, seed=seed)
        written = await making.write(
            Text(
                making.question,
                seed_of_sample(making.seed, 0),
                temperature=0.0 if self.is_greedy else self.setting.config.temperature,
                asks_temperature=self.is_greedy,
            )
        )
        making.consider()
        verdict, checking_positions = await making.check(written.text)
        making.steps.append(Step(written.text, verdict.value, "commit", len(written.tokens)))
        found = Found(
            making.question.shown(written.text, self.setting.writer),
            written.finish_reason or "length",
            verdict,
            len(written.tokens),
            checking_positions=checking_positions,
        )
        return making.answered(found, case_id, self.name, seed)
