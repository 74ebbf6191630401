"""An answer in the making: engines are asked on its behalf, and what that costs is added up."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from langchain_rain import drivers
from langchain_rain.drivers import Job
from langchain_rain.engines.base import Cost, Engine
from langchain_rain.engines.calling import Calls
from langchain_rain.errors import RainConfigError
from langchain_rain.evaluation.strategies.asking import Question, open_writing
from langchain_rain.evaluation.strategies.base import Answered, Content, FinishReason, Setting, Step, first_and_last
from langchain_rain.evaluation.strategies.drawing import whole_answer
from langchain_rain.evaluation.strategies.metering import Meter, Seen
from langchain_rain.judging import open_judge
from langchain_rain.search.protocol import (
    Context,
    Judge,
    Steps,
    TokenSet,
    Transcript,
    Verdict,
    derive_search_seed,
    observed,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Text:
    """A text that is asked for.

    Attributes:
        question: what is asked.
        seed: of the draw.
        temperature: of the draw; a chat model has one of its own.
        stop: where it ends, besides the stop strings of the setting.
        max_tokens: the longest; None for the longest answer.
        asks_temperature: whether a chat model is called with the temperature all the same.
    """

    question: Question
    seed: int
    temperature: float
    stop: tuple[str, ...] = ()
    max_tokens: int | None = None
    asks_temperature: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """An answer that was found, and how.

    Attributes:
        text: what is given to the caller.
        finish_reason: why it ended.
        verdict: of the steering judge.
        num_tokens: of it.
        gave_up: whether it is the best of a search that found none.
        num_drafts, num_simulations, rewinds_at: as of `Answered`.
        checking_positions: likewise.
    """

    text: str
    finish_reason: FinishReason
    verdict: Verdict
    num_tokens: int
    gave_up: bool = False
    checking_positions: int = 0
    num_drafts: int = 1
    num_simulations: int = 0
    rewinds_at: tuple[int, ...] = ()


@dataclass(slots=True, eq=False)
class Making:
    """One answer in the making.

    Attributes:
        setting: by whom.
        question: what is asked.
        seed: from which all others are derived; cases that share one do not share their draws.
        max_positions: the budget; None for none.
        meter: counts its positions.
        counted_positions: of what is considered.
        cost: as the engines tell it.
        seconds: so far.
        steps: what has happened.
    """

    setting: Setting
    question: Question
    seed: int
    max_positions: int | None
    meter: Meter
    counted_positions: int = 0
    cost: Cost = field(default_factory=Cost)
    seconds: float = 0.0
    steps: list[Step] = field(default_factory=list)

    @classmethod
    def of(cls, setting: Setting, content: Content, prefill: str, max_positions: int | None, *, seed: int) -> "Making":
        """Begins an answer.

        Raises:
            RainConfigError: what is asked is not allowed, or there is no budget to speak of.
        """
        if max_positions is not None and max_positions < 1:
            raise RainConfigError(f"max_positions: a number from 1 on, or None, is allowed, given {max_positions!r}.")
        question = Question.of(content, prefill)
        transcript = question.transcript_for(setting.writer)
        return cls(setting, question, derive_search_seed(seed, transcript), max_positions, Meter(setting))

    @property
    def transcript(self) -> str:
        """What stands before the answer when it is judged."""
        return self.question.transcript_for(self.setting.writer)

    async def write(self, text: Text) -> TokenSet:
        """Samples a text, and counts it."""
        setting = self.setting
        limit = min(setting.answer_limit, text.max_tokens or setting.answer_limit)
        prompt = text.question.prompt(
            setting.writer,
            temperature=text.temperature if text.asks_temperature else None,
            max_tokens=setting.max_tokens if text.max_tokens is None else limit,
        )
        context = open_writing(setting, prompt, stop=(*setting.stop, *text.stop), max_tokens=limit)
        steps = whole_answer(
            context, temperature=text.temperature, seed=text.seed, is_message=setting.writes_whole_messages
        )
        return await self._count(steps, {context: setting.writer})

    async def judge(self, text: str) -> Verdict:
        """Judges a finished answer, and counts it."""
        return await self._count(*self._judging(text))

    async def check(self, text: str) -> tuple[Verdict, int]:
        """Judges a finished answer for the record alone; also tells how many positions that took."""
        outcome = await drivers.arun(Job(*self._judging(text)))
        return outcome.result, outcome.cost.token_positions

    async def draw(self, part: Callable[[Context, Judge], Steps[T]]) -> T:
        """Runs what asks the writer about the question, and the judge; whoever asks counts it."""
        setting = self.setting
        prompt = self.question.prompt(setting.writer, max_tokens=setting.max_tokens)
        context = open_writing(setting, prompt, stop=setting.stop, max_tokens=setting.answer_limit)
        try:
            judging = open_judge(
                setting.rubric,
                setting.judge,
                setting.config,
                loaded=setting.loaded,
                context=context if setting.judge is setting.writer else None,
                calls=Calls(loop=asyncio.get_running_loop()),
            )
        except BaseException:
            setting.writer.channel.close(context)
            raise
        contexts = {context: setting.writer, **judging.contexts}
        self.meter.watch(contexts)
        return await self.run(Job(part(context, judging.judge), contexts))

    async def run(self, job: Job[T]) -> T:
        """Runs a search to its end and adds up what engines tell of its cost."""
        outcome = await drivers.arun(job)
        self.cost += outcome.cost
        self.seconds += outcome.seconds
        self.meter.add(outcome.cost)
        return outcome.result

    def consider(self) -> None:
        """All that was counted so far is for what is considered."""
        self.counted_positions = self.meter.positions

    @property
    def has_exceeded(self) -> bool:
        """Whether more was counted than the budget allows."""
        return self.max_positions is not None and self.meter.positions > self.max_positions

    def answered(self, found: Found, case_id: str, strategy: str, seed: int) -> Answered:
        """What is told of the answer."""
        verdict, cost = found.verdict, self.cost
        return Answered(
            case_id=case_id,
            strategy=strategy,
            seed=seed,
            text=found.text,
            finish_reason=found.finish_reason,
            value=verdict.value,
            values=dict(verdict.values),
            is_satisfied=verdict.satisfies(self.setting.config.accept_value) and not found.gave_up,
            is_refusal_by_policy=found.finish_reason == "refused",
            forward_passes=cost.forward_passes,
            token_positions=cost.token_positions,
            judging_positions=cost.judging_positions,
            counted_positions=self.counted_positions,
            checking_positions=found.checking_positions,
            num_estimated=cost.num_estimated,
            max_positions=self.max_positions,
            num_tokens=None if self.setting.writes_whole_messages else found.num_tokens,
            num_drafts=found.num_drafts,
            num_simulations=found.num_simulations,
            num_rewinds=len(found.rewinds_at),
            rewinds_at=found.rewinds_at,
            seconds=self.seconds,
            num_steps=len(self.steps),
            steps=first_and_last(self.steps),
        )

    async def _count(self, steps: Steps[T], contexts: Mapping[Context, Engine]) -> T:
        seen: Seen = []
        self.meter.watch(contexts)
        result = await self.run(Job(observed(steps, seen), contexts))
        self.meter.take(seen)
        return result

    def _judging(self, text: str) -> tuple[Steps[Verdict], dict[Context, Engine]]:
        setting = self.setting
        calls = Calls(loop=asyncio.get_running_loop())
        judging = open_judge(setting.rubric, setting.judge, setting.config, loaded=setting.loaded, calls=calls)
        return judging.judge(Transcript(self.transcript, text)), judging.contexts
