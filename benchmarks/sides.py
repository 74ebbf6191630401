"""The sides of the comparisons: answers by RAIN, and a cached `model.generate` of as many tokens."""

import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from benchmarks.measuring import Run, median_seconds, ratios, timed, total
from langchain_rain import RainConfig, RainLLM, Rubric, drivers
from langchain_rain.arguments import Answer
from langchain_rain.engines.calling import Calls
from langchain_rain.engines.transformers import TransformersEngine
from langchain_rain.search.paper import SearchResult
from langchain_rain.search.protocol import AppliesTo, Judge, Steps, Transcript, Verdict

NUM_GENERATIONS = 3
"""How often plain generation of a short answer is timed for each run of RAIN; its median counts."""

LONG_ANSWER = 100
"""From so many tokens on it is generated once: that takes long enough to time well."""

NUM_WARM_UP_TOKENS = 8

UNTRIED = Rubric.load("harmlessness").model_copy(update={"examples": ()})
"""Asks what the rubric of the library asks, whose examples are not shown either; random models would fail on them."""


@dataclass(frozen=True, slots=True)
class NothingWrong:
    """Asks all that `judge` asks, and finds nothing wrong whatever the replies."""

    judge: Judge

    @property
    def can_veto(self) -> bool:
        """As the judge that asks."""
        return self.judge.can_veto

    @property
    def applies_to(self) -> frozenset[AppliesTo]:
        """As the judge that asks."""
        return self.judge.applies_to

    def __call__(self, transcript: Transcript) -> Steps[Verdict]:
        """Asks, and approves."""
        yield from self.judge(transcript)
        return Verdict(1.0)

    def guidance(self, verdict: Verdict) -> str:
        """As the judge that asks."""
        return self.judge.guidance(verdict)


@dataclass(frozen=True, slots=True)
class Guard:
    """How RAIN answers.

    Attributes:
        finds_nothing_wrong: whether the judge approves of everything that it asks about.
    """

    config: RainConfig
    seed: int = 0
    max_tokens: int = 256
    finds_nothing_wrong: bool = False

    def llm(self, engine: TransformersEngine) -> RainLLM:
        """Who answers; made once, and no part of what is timed."""
        return RainLLM(model=engine, rubric=UNTRIED, config=self.config, seed=self.seed, max_tokens=self.max_tokens)

    def begin(self, llm: RainLLM, prompt: str) -> Answer:
        """Begins an answer, just as `llm` does."""
        answer = llm.begin(prompt, prompt, None, calls=Calls())
        if self.finds_nothing_wrong:
            answer.search.judge = NothingWrong(answer.search.judge)
        return answer


def new_engine(engine: TransformersEngine) -> TransformersEngine:
    """One of the same model that has computed nothing yet: what an engine has, it does not compute again."""
    return TransformersEngine(engine.model, engine.tokenizer, name=engine.name)


def run_rain(guard: Guard, engine: TransformersEngine, prompt: str) -> Run:
    """Answers a prompt by RAIN."""
    llm = guard.llm(engine)
    outcome, seconds = timed(lambda: drivers.run(guard.begin(llm, prompt).job), engine.model.device)
    return run_of(outcome, seconds)


def run_rain_on_all(guard: Guard, engine: TransformersEngine, prompts: Sequence[str]) -> Run:
    """Answers prompts by RAIN, all at once."""
    llm = guard.llm(engine)

    def answer_all() -> list[drivers.Outcome[SearchResult] | Exception]:
        jobs = [guard.begin(llm, prompt).job for prompt in prompts]
        return drivers.run_batch(jobs, max_concurrent=len(jobs))

    with counted_passes(engine.model) as shapes:
        outcomes, seconds = timed(answer_all, engine.model.device)
    runs = []
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
        runs.append(run_of(outcome, 0.0))
    return replace(total(runs), seconds=seconds, forward_passes=len(shapes))


@contextmanager
def counted_passes(model: Any) -> Iterator[list[torch.Size]]:
    """The shapes `[num_lines, num_tokens]` of what goes through a model, also where its head is not asked."""
    shapes: list[torch.Size] = []

    def note(_module: Any, _args: Any, output: Any) -> None:
        shapes.append(output[0].shape[:2])

    handle = model.get_decoder().register_forward_hook(note)
    try:
        yield shapes
    finally:
        handle.remove()


def run_of(outcome: drivers.Outcome[SearchResult], seconds: float) -> Run:
    """What a search has run."""
    result, cost = outcome.result, outcome.cost
    return Run(
        seconds,
        len(result.tokens),
        cost.forward_passes,
        cost.token_positions,
        result.num_simulations,
        result.num_rewinds,
    )


def run_generate(engine: TransformersEngine, prompt: str, num_tokens: int, temperature: float) -> Run:
    """Generates exactly so many tokens, with cache."""
    inputs = engine.tokenizer(prompt, return_tensors="pt").to(engine.model.device)
    num_prompt_tokens = inputs.input_ids.shape[1]
    output, seconds = timed(
        partial(generate, engine.model, inputs, num_tokens, temperature=temperature), engine.model.device
    )
    if output.shape[1] != num_prompt_tokens + num_tokens:
        raise SystemExit(f"generate gave {output.shape[1] - num_prompt_tokens} tokens and not {num_tokens}.")
    return Run(seconds, num_tokens, num_tokens, num_prompt_tokens + num_tokens - 1)


@torch.inference_mode()
def generate(model: Any, inputs: Any, num_tokens: int, *, temperature: float, num_answers: int = 1) -> torch.Tensor:
    """Samples from the whole vocabulary, as the drafts of RAIN do."""
    output: torch.Tensor = model.generate(
        **inputs,
        do_sample=True,
        temperature=temperature,
        top_k=0,
        min_new_tokens=num_tokens,
        max_new_tokens=num_tokens,
        num_return_sequences=num_answers,
        use_cache=True,
    )
    return output


@dataclass(frozen=True, slots=True)
class Comparison:
    """Repetitions of the same answers by RAIN and by `generate`, side by side."""

    rain: list[Run]
    plain: list[Run]
    num_prompts: int

    @property
    def figures(self) -> dict[str, float]:
        """Per answer, but for the ratios; the counts are of the first repetition, as all are alike."""
        first, plain, count = self.rain[0], self.plain[0], self.num_prompts
        return {
            "prompts": count,
            "tokens": first.num_tokens / count,
            **ratios(self.rain, self.plain),
            "rain ms": 1000 * median_seconds(self.rain) / count,
            "generate ms": 1000 * median_seconds(self.plain) / count,
            "passes": first.forward_passes / count,
            "generate's": plain.forward_passes / count,
            "positions": first.token_positions / count,
            "generate's positions": plain.token_positions / count,
            "simulations": first.num_simulations / count,
            "rewinds": first.num_rewinds / count,
        }


def compare(guard: Guard, engine: TransformersEngine, prompts: Sequence[str], *, repetitions: int) -> Comparison:
    """Answers each prompt by RAIN, one at a time, and generates as many tokens after it."""
    warm_up = replace(guard, max_tokens=NUM_WARM_UP_TOKENS)
    _repetition(warm_up, engine, prompts[:1])  # the first passes of a process are slow
    pairs = [_repetition(guard, engine, prompts) for _ in range(repetitions)]
    return Comparison([rain for rain, _ in pairs], [plain for _, plain in pairs], len(prompts))


def _repetition(guard: Guard, engine: TransformersEngine, prompts: Sequence[str]) -> tuple[Run, Run]:
    engine = new_engine(engine)
    rain, plain = [], []
    for prompt in prompts:
        rain.append(run_rain(guard, engine, prompt))
        num_tokens, temperature = rain[-1].num_tokens, guard.config.temperature
        num_generations = 1 if num_tokens >= LONG_ANSWER else NUM_GENERATIONS
        runs = [run_generate(engine, prompt, num_tokens, temperature) for _ in range(num_generations)]
        seconds = statistics.median(run.seconds for run in runs)
        plain.append(Run(seconds, num_tokens, runs[0].forward_passes, runs[0].token_positions))
    return total(rain), total(plain)
