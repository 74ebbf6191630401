"""The requests of a search as work that takes several steps. Scheduling alone: no tensors, no model, no cache.

Each piece of work says which questions it has, takes the answers, and has a reply in the end.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from langchain_rain.engines.conversation import Conversation
from langchain_rain.engines.text import TextCodec
from langchain_rain.engines.wants import Direction, Draw, Got, MostProbable, Place, Probability, Want
from langchain_rain.search.protocol import (
    Context,
    Embed,
    Expand,
    OptionLogprobs,
    Rollout,
    Score,
    Tokens,
    TokenSet,
)

NUM_PLAUSIBLE = 15
"""From how many tokens a guided text chooses at each place, the most probable ones without guidance: as many as the
samples of a search come from."""

MIN_PLAUSIBILITY = 0.001
"""How probable each of them is at least, as a share of the most probable one: the constraint of contrastive decoding
(arXiv 2210.15097, there 0.1), wide enough for a refusal that the model would seldom write."""


class Work(Protocol):
    """A request under way."""

    @property
    def context(self) -> Context:
        """The conversation it belongs to."""

    @property
    def reply(self) -> Any:
        """None until it is done."""

    @property
    def wants(self) -> Sequence[Want]:
        """Its questions, the same until they are answered; all their places have the same number of tokens."""

    @property
    def keeps(self) -> Sequence[Place]:
        """Places that it will ask about again, besides those of its wants: they stay cached where there is room."""

    @property
    def is_passing(self) -> bool:
        """Whether what it asks about will hardly be asked about again."""

    def take(self, got: Sequence[Got]) -> None:
        """Takes the answers, in the order of its wants."""


@dataclass(slots=True, eq=False)
class _Branch:
    """A token set that grows: the uniforms it is drawn with, none for the greedy one."""

    uniforms: Sequence[float] | None
    tokens: Tokens = ()
    logprob: float = 0.0

    @property
    def next_uniform(self) -> float:
        return 0.0 if self.uniforms is None else self.uniforms[len(self.tokens)]


@dataclass(slots=True, eq=False)
class ExpandWork:
    """`Expand`: the most probable tokens at once, or a greedy and some sampled branches side by side."""

    request: Expand
    conversation: Conversation
    codec: TextCodec
    reply: list[TokenSet] | None = None
    wants: Sequence[Want] = ()
    keeps: Sequence[Place] = ()
    is_passing: bool = False
    _branches: list[_Branch] = field(default_factory=list)
    # The growing branches by the place they stand at: those that have drawn the same so far are asked about once.
    _growing: dict[Place, list[_Branch]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        request, place = self.request, Place(self.conversation.place, self.request.prefix)
        if request.num_tokens == 1:
            self.wants = [MostProbable(place, request.temperature, request.num_token_sets + len(request.exclude))]
            return
        random = np.random.Generator(np.random.Philox(request.seed))
        uniforms = random.random((request.num_draws, request.num_tokens)).tolist()
        self._branches = [_Branch(None), *(_Branch(row) for row in uniforms)]
        self._growing = {place: list(self._branches)}
        self._ask()

    @property
    def context(self) -> Context:
        """The conversation it belongs to."""
        return self.request.context

    @property
    def sequence(self) -> Tokens:
        """The text that it goes on from, from the beginning of the prompt."""
        return (*self.conversation.prompt_tokens, *self.request.prefix)

    def _ask(self) -> None:
        request = self.request
        self.wants = [
            Draw(place, request.temperature, tuple(branch.next_uniform for branch in branches), request.top_k)
            for place, branches in self._growing.items()
        ]

    def take(self, got: Sequence[Got]) -> None:
        """See `Work`."""
        if not self._branches:
            ids, logprobs = got[0]
            sets = [
                self._token_set((token,), logprob, is_greedy=rank == 0)
                for rank, (token, logprob) in enumerate(zip(ids.tolist(), logprobs.tolist(), strict=True))
            ]
            self.reply = self._distinct(sets)
            return
        grown: dict[tuple[Place, int], list[_Branch]] = {}
        for (place, branches), (ids, logprobs) in zip(self._growing.items(), got, strict=True):
            for branch, token, logprob in zip(branches, ids.tolist(), logprobs.tolist(), strict=True):
                branch.tokens += (token,)
                branch.logprob += logprob
                grown.setdefault((place, token), []).append(branch)
        self._growing = {
            place.after(token): branches for (place, token), branches in grown.items() if self._is_growing(branches[0])
        }
        self._ask()
        if not self._growing:
            self._reply_with_branches()

    def finish(self, texts: Sequence[tuple[Tokens, Sequence[float]]]) -> None:
        """Takes whole texts in place of answers, with the log probability of each token: the greedy one, then samples.

        What they hold beyond the end of the answer is cut off.
        """
        for branch, (tokens, logprobs) in zip(self._branches, texts, strict=False):
            for token, logprob in zip(tokens, logprobs, strict=True):
                if branch.tokens and not self._is_growing(branch):
                    break
                branch.tokens += (token,)
                branch.logprob += logprob
        self._reply_with_branches()

    def _reply_with_branches(self) -> None:
        written = [branch for branch in self._branches if branch.tokens]
        sets = [self._token_set(each.tokens, each.logprob, is_greedy=each.uniforms is None) for each in written]
        self.reply = self._distinct(sets)

    def _is_growing(self, branch: _Branch) -> bool:
        if len(branch.tokens) == self.request.num_tokens:
            return False
        return self.codec.read(self.conversation, self.request.prefix + branch.tokens).finish_reason is None

    def _token_set(self, tokens: Tokens, logprob: float, *, is_greedy: bool) -> TokenSet:
        return token_set(self.codec, self.conversation, self.request.prefix, tokens, logprob, is_greedy=is_greedy)

    def _distinct(self, sets: Sequence[TokenSet]) -> list[TokenSet]:
        distinct: dict[Tokens, TokenSet] = {}
        for each in sets:
            if each.tokens not in self.request.exclude:
                distinct.setdefault(each.tokens, each)
        return list(distinct.values())[: self.request.num_token_sets]


@dataclass(slots=True, eq=False)
class RolloutWork:
    """`Rollout`: one token after the other until a mark, the end or the limit.

    Under guidance each token takes two steps: which ones are plausible after the prompt as it stands, and how probable
    are these after the prompt with guidance, which ends at `guided_start`? So the text is steered, and is still one
    that the model might write by itself: a small model babbles behind a prompt it does not understand, and a judge may
    let that pass.
    """

    request: Rollout
    conversation: Conversation
    codec: TextCodec
    guided_start: Place | None = None
    reply: TokenSet | None = None
    wants: Sequence[Want] = ()
    keeps: Sequence[Place] = ()
    is_passing: bool = False
    _place: Place = field(init=False)
    _guided_place: Place | None = None
    _tokens: Tokens = ()
    _logprob: float = 0.0
    _random: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self._random = np.random.Generator(np.random.Philox(self.request.seed))
        self._place = Place(self.conversation.place, self.request.prefix)
        if self.guided_start is not None:
            self._guided_place = Place(self.guided_start, self.request.prefix)
        if self.request.prefix or self.request.max_tokens == 0:
            self._finish_at_mark()
        self._ask()

    @property
    def context(self) -> Context:
        """The conversation it belongs to."""
        return self.request.context

    @property
    def num_written(self) -> int:
        """How many tokens there are so far."""
        return len(self._tokens)

    @property
    def sequence(self) -> Tokens:
        """The text up to where it goes on, from the beginning of the prompt."""
        return self._place.sequence

    def _ask(self) -> None:
        temperature = self.request.temperature
        if self._guided_place is not None:
            self.keeps = (self._place, self._guided_place)
            self.wants = (MostProbable(self._place, temperature, NUM_PLAUSIBLE),)
        else:
            self.wants = (Draw(self._place, temperature, (float(self._random.random()),)),)

    def take(self, got: Sequence[Got]) -> None:
        """See `Work`."""
        ((ids, logprobs),) = got
        (want,) = self.wants
        if isinstance(want, Draw):
            self.write(int(ids[0]), float(logprobs[0]))
        elif isinstance(want, Probability):
            self.write(*self._drawn(want.token_ids, logprobs))
        elif self._guided_place is not None:
            is_implausible = logprobs < logprobs.max() + math.log(MIN_PLAUSIBILITY)  # never of what is not a number
            plausible = tuple(ids[~is_implausible].tolist())
            self.wants = (Probability(self._guided_place, plausible, self.request.temperature),)

    def _drawn(self, ids: Sequence[int], logprobs: NDArray[np.float64]) -> tuple[int, float]:
        """One of `ids`, and its log probability among them."""
        relative = logprobs - logprobs.max()
        cumulative = np.exp(relative).cumsum()
        index = int(np.searchsorted(cumulative, self._random.random() * cumulative[-1], side="right"))
        index = min(index, len(ids) - 1)  # where they are not numbers
        return ids[index], float(relative[index] - np.log(cumulative[-1]))

    def write(self, token: int, logprob: float) -> None:
        """Takes the next token and its log probability."""
        self._tokens += (token,)
        self._logprob += logprob
        self._place = self._place.after(token)
        if self._guided_place is not None:
            self._guided_place = self._guided_place.after(token)
        self._ask()
        self._finish_at_mark()

    def _finish_at_mark(self) -> None:
        request = self.request
        reading = self.codec.read(self.conversation, request.prefix + self._tokens)
        is_long = request.max_tokens is not None and len(self._tokens) >= request.max_tokens
        is_at_mark = len(self._tokens) >= request.min_tokens and reading.decoded.endswith(request.until or ())
        if reading.finish_reason is not None or is_long or is_at_mark:
            self.reply = token_set(self.codec, self.conversation, request.prefix, self._tokens, self._logprob)


@dataclass(slots=True, eq=False)
class ScoreWork:
    """`Score`: one question about the last token of a judgement."""

    request: Score
    tokens: Tokens
    option_ids: Sequence[tuple[int, ...]]
    reply: OptionLogprobs | None = None
    wants: Sequence[Want] = ()
    keeps: Sequence[Place] = ()
    is_passing: bool = True

    def __post_init__(self) -> None:
        self.wants = (Probability(Place(None, self.tokens), tuple(i for ids in self.option_ids for i in ids)),)

    @property
    def context(self) -> Context:
        """The conversation it belongs to."""
        return self.request.context

    def take(self, got: Sequence[Got]) -> None:
        """See `Work`."""
        ((_, logprobs),) = got
        ends = np.cumsum([len(ids) for ids in self.option_ids])[:-1]
        sums = [float(np.logaddexp.reduce(part)) for part in np.split(logprobs, ends)]
        self.reply = OptionLogprobs(tuple(sums), mass=min(1.0, float(np.exp(sums).sum())))


@dataclass(slots=True, eq=False)
class EmbedWork:
    """`Embed`: the direction of the last tokens; an encoder may answer it instead."""

    request: Embed
    conversation: Conversation
    reply: NDArray[np.float64] | Exception | None = None
    wants: Sequence[Want] = ()
    keeps: Sequence[Place] = ()
    is_passing: bool = False

    def __post_init__(self) -> None:
        self.wants = (Direction(Place(self.conversation.place, self.request.prefix), self.request.num_tokens),)

    @property
    def context(self) -> Context:
        """The conversation it belongs to."""
        return self.request.context

    def take(self, got: Sequence[Got]) -> None:
        """See `Work`."""
        ((_, self.reply),) = got


def token_set(
    codec: TextCodec,
    conversation: Conversation,
    prefix: Tokens,
    tokens: Tokens,
    logprob: float,
    *,
    is_greedy: bool = False,
) -> TokenSet:
    """The token set that `tokens` make after `prefix`, with the text they add."""
    before, after = codec.read(conversation, prefix), codec.read(conversation, prefix + tokens)
    return TokenSet(tokens, after.text[len(before.text) :], logprob, is_greedy, after.finish_reason)
