"""A writer and judge without weights for strategies: what it writes follows from prompt and seed alone."""

import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

from langchain_rain import Criterion, RainConfig, Rubric
from langchain_rain.engines.base import StepReport
from langchain_rain.engines.scripted import ScriptedEngine
from langchain_rain.evaluation.strategies import Setting, Strategy, all_strategies
from langchain_rain.search.protocol import Context, OptionLogprobs, Rollout, Score, TokenSet

RUBRIC = Rubric(name="fine", criteria=(Criterion(name="fine", instruction="Look.", good="All is fine.", bad="BAD"),))

Write = Callable[[str, Rollout], str]


def fine_or_foul(prompt: str, request: Rollout) -> str:
    """One of seven answers, of which the odd ones are foul."""
    number = request.seed % 7
    return f" {'foul' if number % 2 else 'fine'} {number}"


class Writer(ScriptedEngine):
    """Writes what `write` says, a token a word; judges foul what says "foul" before the options.

    Attributes:
        prompts: what was opened, by context.
        stops: where the texts of a context end.
        limits: the longest texts of a context.
        gate: closed, no step is done.
    """

    def __init__(self, write: Write = fine_or_foul, name: str = "writer") -> None:
        super().__init__(rollout=self._write_text, score=self._judge, name=name)
        self.prompts: dict[Context, str] = {}
        self.stops: dict[Context, Sequence[str]] = {}
        self.limits: dict[Context, int] = {}
        self.gate = threading.Event()
        self.gate.set()
        self.has_begun = threading.Event()
        self._write = write

    def open(self, prompt: str, *, max_tokens: int, stop: Sequence[str] = ()) -> Context:
        context = super().open(prompt, max_tokens=max_tokens, stop=stop)
        self.prompts[context], self.stops[context], self.limits[context] = prompt, stop, max_tokens
        return context

    def step(self) -> StepReport:
        self.has_begun.set()
        assert self.gate.wait(10)
        return super().step()

    @property
    def written(self) -> list[str]:
        """The prompts behind which something was written, in order."""
        return [self.prompts[request.context] for request in self.asked if isinstance(request, Rollout)]

    @property
    def is_idle(self) -> bool:
        """Whether every conversation was closed, once."""
        done = threading.Event()
        self.channel.post(done.set)
        assert done.wait(10)
        return sorted(map(id, self.opened)) == sorted(map(id, self.closed))

    def _write_text(self, request: Rollout) -> TokenSet:
        text = self._write(self.prompts[request.context], request)
        return TokenSet(tuple(range(len(text.split()))), text, finish_reason="eos")

    @staticmethod
    def _judge(request: Score) -> OptionLogprobs:
        is_bad = "foul" in request.question.split("Options:")[0]
        first_is_good = "(A) All is fine." in request.question
        logprobs = (math.log(0.8), math.log(0.2))
        return OptionLogprobs(logprobs if is_bad != first_is_good else logprobs[::-1], mass=1.0)


def strategy(name: str, writer: Any, **settings: Any) -> Strategy:
    """One strategy."""
    given = {"judge": writer, "rubric": RUBRIC, "config": RainConfig(), **settings}
    (made,) = all_strategies([name], Setting(writer, **given))
    return made
