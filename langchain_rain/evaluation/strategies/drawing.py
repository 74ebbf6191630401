"""Whole answers as steps of a search: sampled, judged, the best of several."""

from collections.abc import Sequence
from dataclasses import dataclass

from langchain_rain.search.protocol import (
    Context,
    Expand,
    Judge,
    Rollout,
    Steps,
    TokenSet,
    Transcript,
    Verdict,
    ask,
    derive_seed,
    together,
)

NO_ANSWER = TokenSet((), "", finish_reason="eos")
"""Of a model that gives none: itself a guardrail, which refused."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """A sampled answer and what the judge thinks of it."""

    answer: TokenSet
    verdict: Verdict


def best_of(
    context: Context,
    judge: Judge,
    prompt: str,
    *,
    num_answers: int,
    temperature: float,
    seed: int,
    is_message: bool = False,
) -> Steps[Sampled]:
    """Samples `num_answers` side by side and returns the one judged best, the first of equals; of 1 it is vanilla."""
    sampled = yield from together(
        *(
            judged_sample(
                context,
                judge,
                prompt,
                temperature=temperature,
                seed=seed_of_sample(seed, number),
                is_message=is_message,
            )
            for number in range(num_answers)
        )
    )
    return best(sampled)


def best(sampled: Sequence[Sampled]) -> Sampled:
    """The one judged best, the first of equals."""
    return max(sampled, key=lambda each: each.verdict.value)


def seed_of_sample(seed: int, number: int) -> int:
    """The seed of one of the samples of an answer."""
    return derive_seed(seed, Rollout, (), number)


def judged_sample(
    context: Context, judge: Judge, prompt: str, *, temperature: float, seed: int, is_message: bool = False
) -> Steps[Sampled]:
    """Samples one answer and judges it."""
    answer = yield from whole_answer(context, temperature=temperature, seed=seed, is_message=is_message)
    verdict = yield from judge(Transcript(prompt, answer.text))
    return Sampled(answer, verdict)


def sample(context: Context, *, temperature: float, seed: int) -> Steps[TokenSet]:
    """Samples one answer without judging it."""
    return (yield from whole_answer(context, temperature=temperature, seed=seed))


def whole_answer(context: Context, *, temperature: float, seed: int, is_message: bool = False) -> Steps[TokenSet]:
    """Samples one answer; `is_message` of an engine that writes whole messages and shows no tokens."""
    if not is_message:
        rollout = Rollout(context, (), until=(), max_tokens=None, temperature=temperature, seed=seed)
        answer: TokenSet = yield from ask(rollout)
        return answer
    message = Expand(
        context, (), num_token_sets=1, num_tokens=1, num_draws=1, top_k=1, temperature=temperature, seed=seed
    )
    answers: list[TokenSet] = yield from ask(message)
    return answers[0] if answers else NO_ANSWER
