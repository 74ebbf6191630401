"""Ways to answer a prompt with the same writer, judge and rubric: what RAIN is compared with."""

from dataclasses import dataclass

from langchain_rain.search.protocol import (
    Context,
    Judge,
    Rollout,
    Steps,
    TokenSet,
    Transcript,
    Verdict,
    ask,
    ask_all,
    derive_seed,
)


@dataclass(frozen=True, slots=True)
class Sampled:
    """A sampled answer and what the judge thinks of it."""

    answer: TokenSet
    verdict: Verdict


def best_of(
    context: Context, judge: Judge, prompt: str, *, num_answers: int, temperature: float, seed: int
) -> Steps[Sampled]:
    """Samples `num_answers` side by side and returns the one judged best, the first of equals; of 1 it is vanilla."""
    requests = [
        _whole_answer(context, temperature=temperature, seed=derive_seed(seed, Rollout, (), number))
        for number in range(num_answers)
    ]
    answers: list[TokenSet] = list((yield from ask_all(requests)))
    sampled = []
    for answer in answers:
        verdict = yield from judge(Transcript(prompt, answer.text))
        sampled.append(Sampled(answer, verdict))
    return max(sampled, key=lambda each: each.verdict.value)


def sample(context: Context, *, temperature: float, seed: int) -> Steps[TokenSet]:
    """Samples one answer without judging it."""
    answer = yield from ask(_whole_answer(context, temperature=temperature, seed=seed))
    assert isinstance(answer, TokenSet)
    return answer


def _whole_answer(context: Context, *, temperature: float, seed: int) -> Rollout:
    return Rollout(context, (), until=(), max_tokens=None, temperature=temperature, seed=seed)
