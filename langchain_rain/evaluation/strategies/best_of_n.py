"""best-of-N: the one of several samples that the steering judge thinks best."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from langchain_rain.evaluation.strategies.base import Answered, Content, Setting, Step
from langchain_rain.evaluation.strategies.drawing import Sampled, best, judged_sample, seed_of_sample
from langchain_rain.evaluation.strategies.making import Found, Making
from langchain_rain.evaluation.strategies.metering import Seen
from langchain_rain.search.protocol import Context, Judge, Steps, observed, together

MAX_GROWTH = 4
"""How many samples are drawn at once for each that there is: few do not tell for sure what others take."""

MAX_SAMPLES = 512
"""Of one answer, whatever a budget allows; the RAIN paper compares with 500."""


@dataclass(frozen=True, slots=True)
class BestOf:
    """Samples `num_answers` answers and gives the one judged best, the first of equals.

    Within a budget it draws as many as fit, `num_answers` or not: one, another one, which tells what one more takes,
    and then some at once that will fit if none takes more than the dearest so far. One that ends past the budget, and
    all after it, are not considered.
    """

    setting: Setting
    num_answers: int

    @property
    def name(self) -> str:
        """See `Strategy`."""
        return f"best-of-{self.num_answers}"

    @property
    def identity(self) -> Mapping[str, Any]:
        """See `Strategy`."""
        return {"strategy": self.name, **self.setting.identity}

    async def answer(
        self, case_id: str, content: Content, *, seed: int, prefill: str = "", max_positions: int | None = None
    ) -> Answered:
        """See `Strategy`."""
        making = Making.of(self.setting, content, prefill, max_positions, seed=seed)
        if max_positions is None:
            sampled, seen = await _draw(making, range(self.num_answers))
            making.meter.take(chain(*seen))
            making.consider()
        else:
            sampled = await _draw_within(making, max_positions)
        chosen = best(sampled)
        making.steps += [_step(each) for each in sampled]
        making.steps.append(Step(chosen.answer.text, chosen.verdict.value, "commit", len(chosen.answer.tokens)))
        found = Found(
            making.question.shown(chosen.answer.text, self.setting.writer),
            chosen.answer.finish_reason or "length",
            chosen.verdict,
            len(chosen.answer.tokens),
            num_drafts=len(sampled),
        )
        return making.answered(found, case_id, self.name, seed)


async def _draw_within(making: Making, max_positions: int) -> list[Sampled]:
    """The samples that are considered, at least one."""
    considered: list[Sampled] = []
    dearest = 0
    while (count := _num_next(making, len(considered), dearest, max_positions)) > 0:
        first = len(considered)
        sampled, seen = await _draw(making, range(first, first + count))
        for number, (each, asked) in enumerate(zip(sampled, seen, strict=True)):
            before = making.counted_positions
            making.meter.take(asked, side_by_side=number > 0)
            if considered and making.has_exceeded:
                return considered
            making.consider()
            dearest = max(dearest, making.counted_positions - before) if considered else 0
            considered.append(each)
    return considered


def _num_next(making: Making, num_so_far: int, dearest: int, max_positions: int) -> int:
    """How many samples are drawn next: the first one takes the prompt too, so that it tells nothing of the others."""
    num_left = max_positions - making.counted_positions
    if num_so_far < 2:
        return int(num_so_far == 0 or num_left > 0)
    num_fitting = num_left // dearest if dearest else MAX_SAMPLES
    # Of what calls have cost together nobody tells what each of them did.
    at_once = MAX_GROWTH * num_so_far if making.meter.is_exact else 1
    return min(num_fitting, at_once, MAX_SAMPLES - num_so_far)


async def _draw(making: Making, numbers: Sequence[int]) -> tuple[list[Sampled], list[Seen]]:
    """Samples of these numbers, drawn side by side, and what was asked for each."""
    setting = making.setting
    seen: list[Seen] = [[] for _ in numbers]

    def draw(context: Context, judge: Judge) -> Steps[list[Sampled]]:
        return together(
            *(
                observed(
                    judged_sample(
                        context,
                        judge,
                        making.transcript,
                        temperature=setting.config.temperature,
                        seed=seed_of_sample(making.seed, number),
                        is_message=setting.writes_whole_messages,
                    ),
                    asked,
                )
                for number, asked in zip(numbers, seen, strict=True)
            )
        )

    return await making.draw(draw), seen


def _step(sampled: Sampled) -> Step:
    return Step(sampled.answer.text, sampled.verdict.value, "draft", len(sampled.answer.tokens))
