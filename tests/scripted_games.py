"""Games for the search: engines whose every reply is a pure function of the request, and searches to play them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
from hypothesis import strategies as st

from langchain_rain.budget import Budget
from langchain_rain.drivers import Job
from langchain_rain.engines.base import Engine
from langchain_rain.engines.scripted import ScriptedEngine
from langchain_rain.search import adaptive, paper
from langchain_rain.search.config import SearchConfig
from langchain_rain.search.paper import SearchResult
from langchain_rain.search.protocol import (
    AppliesTo,
    Context,
    Embed,
    Expand,
    FinishReason,
    OptionLogprobs,
    Request,
    Rollout,
    Score,
    Steps,
    Tokens,
    TokenSet,
    Transcript,
    Verdict,
    ask,
)
from langchain_rain.search.state import Search

Vector = np.ndarray[Any, np.dtype[np.float64]]

OPTIONS = ("value - 1", "0 for a veto")


def judged(value: float, *, is_vetoed: bool = False, is_abstained: bool = False) -> OptionLogprobs:
    """The reply to a `Score` that `ScriptedJudge` makes this verdict of; `value` a multiple of a power of 2."""
    return OptionLogprobs((value - 1, 0.0 if is_vetoed else -1.0), mass=0.0 if is_abstained else 1.0)


@dataclass(frozen=True, slots=True)
class ScriptedJudge:
    """Judges a transcript by one `Score`, which the script answers with `judged`."""

    context: Context
    can_veto: bool = False
    applies_to: frozenset[AppliesTo] = frozenset({"prefix"})

    def __call__(self, transcript: Transcript) -> Steps[Verdict]:
        reply = yield from ask(Score(self.context, transcript.prompt + transcript.answer, "", OPTIONS))
        value, veto = reply.logprobs
        if veto == 0:
            return Verdict(-1.0, is_vetoed=True)
        return Verdict(0.0, is_abstained=True) if reply.mass == 0 else Verdict(value + 1)

    def guidance(self, verdict: Verdict) -> str:
        return f"Not {verdict.value}."


def begin(
    engine: Engine,
    config: SearchConfig,
    *,
    judge_engine: Engine | None = None,
    can_veto: bool = False,
    seed: int = 0,
    budget: Budget | None = None,
) -> tuple[Search, Job[SearchResult]]:
    """A search on `engine` and the job that does all of it; what is judged is the answer alone."""
    writing = engine.open("Question", max_tokens=100)
    contexts = {writing: engine}
    judging = writing
    if judge_engine is not None:
        judging = judge_engine.open("Question", max_tokens=100)
        contexts[judging] = judge_engine
    search = Search(writing, ScriptedJudge(judging, can_veto), config, seed, transcript="")
    generate = adaptive.generate if config.adaptive else paper.generate
    return search, Job(generate(search), contexts, budget or Budget())


END = 0
"""The token that ends a text of a random game."""

DIRECTIONS = np.eye(3)


@dataclass(frozen=True, slots=True)
class RandomGame:
    """A random language of four letters, with a random judge and random directions."""

    seed: int
    num_letters: int = 4
    max_length: int = 6
    has_vetoes: bool = False

    def engine(self, name: str = "scripted") -> ScriptedEngine:
        return ScriptedEngine(expand=self.answer, rollout=self.answer, score=self.answer, embed=self.answer, name=name)

    def answer(self, request: Request) -> Any:
        """The reply to any request; the context does not matter."""
        match request:
            case Expand():
                return self._expand(request)
            case Rollout():
                return self._rollout(request)
            case Score():
                return self._score(request)
            case Embed():
                return self._embed(request)

    def _random(self, *key: object) -> Random:
        return Random(repr((self.seed, *key)))

    def _weights(self, prefix: Tokens) -> list[float]:
        random = self._random("next", prefix)
        return [random.random() + 0.01 for _ in range(self.num_letters + 1)]

    def _token_set(self, prefix: Tokens, tokens: Sequence[int], *, is_greedy: bool) -> TokenSet:
        """Cuts `tokens` where the text ends."""
        kept: list[int] = []
        logprob, finish_reason = 0.0, None
        for token in tokens:
            weights = self._weights(prefix + tuple(kept))
            logprob += math.log(weights[token] / sum(weights))
            kept.append(token)
            finish_reason = self._finish_reason(prefix + tuple(kept))
            if finish_reason is not None:
                break
        text = "".join(" abcdefgh"[token] for token in kept if token != END)
        return TokenSet(tuple(kept), text, logprob, is_greedy, finish_reason)

    def _finish_reason(self, prefix: Tokens) -> FinishReason | None:
        if prefix[-1:] == (END,):
            return "eos"
        return "length" if len(prefix) >= self.max_length else None

    def _expand(self, request: Expand) -> list[TokenSet]:
        tokens = range(self.num_letters + 1)
        weights = self._weights(request.prefix)
        by_weight = sorted(tokens, key=lambda token: -weights[token])
        if request.num_tokens == 1:
            drawn = [[token] for token in by_weight]
        else:
            random = self._random("draw", request.seed)
            drawn = [by_weight[:1] * request.num_tokens]
            drawn += [random.choices(tokens, k=request.num_tokens) for _ in range(request.num_draws)]
        distinct: dict[Tokens, TokenSet] = {}
        for number, each in enumerate(drawn):
            token_set = self._token_set(request.prefix, each, is_greedy=number == 0)
            if token_set.tokens not in request.exclude:
                distinct.setdefault(token_set.tokens, token_set)
        return list(distinct.values())[: request.num_token_sets]

    def _rollout(self, request: Rollout) -> TokenSet:
        random = self._random("roll out", request.seed)
        room = min(max(random.randrange(3), request.min_tokens), self.max_length - len(request.prefix))
        if request.max_tokens is not None:
            room = min(room, request.max_tokens)
        return self._token_set(
            request.prefix, [random.randint(1, self.num_letters) for _ in range(room)], is_greedy=False
        )

    def _score(self, request: Score) -> OptionLogprobs:
        random = self._random("judge", request.question)
        is_vetoed = self.has_vetoes and random.random() < 0.3
        value = random.choice([-1, -0.75, -0.5, 0, 0.5, 1])
        return judged(value, is_vetoed=is_vetoed, is_abstained=random.random() < 0.1)

    def _embed(self, request: Embed) -> Vector:
        random = self._random("embed", request.prefix, request.num_tokens)
        vector = DIRECTIONS[random.randrange(2)] + 0.2 * random.random() * DIRECTIONS[2]
        return np.asarray(vector / np.linalg.norm(vector))


def games(*, has_vetoes: bool = False) -> st.SearchStrategy[RandomGame]:
    return st.builds(RandomGame, seed=st.integers(0, 10**6), has_vetoes=st.just(has_vetoes))


def configs() -> st.SearchStrategy[SearchConfig]:
    """Small searches of every kind."""
    return st.builds(
        SearchConfig,
        token_set_lengths=st.sampled_from([(1,), (1, 2), (2,), (1, 2, 3)]),
        num_children=st.integers(1, 3),
        max_children=st.integers(3, 5),
        num_draws=st.integers(1, 3),
        max_simulations=st.integers(1, 12),
        min_further_simulations=st.integers(0, 6),
        min_visits=st.integers(0, 3),
        value_threshold=st.sampled_from([-1.0, -0.25, 0.0, 0.5]),
        accept_value=st.sampled_from([-1.0, -0.5, 0.0, 0.5]),
        max_rollout_tokens=st.sampled_from([None, 0, 1]),
        similarity_scope=st.sampled_from(["all", "visited", "off"]),
        adds_children=st.booleans(),
        spread_threshold=st.sampled_from([0.001, 0.03, 1.0]),
        lookahead=st.sampled_from([0, 3, 20]),
    )
