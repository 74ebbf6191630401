"""The requests of a search as work that takes several steps. Scheduling alone: no tensors, no model.

Each piece of work says which cached tokens it wants computed, which next-token questions it has at them, takes the
answers, and has a reply in the end.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from langchain_rain.engines.prefix_tree import CachedToken, PrefixTree
from langchain_rain.engines.text import Conversation, TextCodec
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


@dataclass(frozen=True, slots=True)
class MostProbable:
    """Which `count` tokens are the most probable after `node`? Answered by ids and log probabilities, in order."""

    node: CachedToken
    temperature: float
    count: int


@dataclass(frozen=True, slots=True)
class Draw:
    """Which token does `uniform` in [0, 1) pick from the full distribution after `node`?"""

    node: CachedToken
    temperature: float
    uniform: float


@dataclass(frozen=True, slots=True)
class Probability:
    """How probable are these tokens after `node`? Answered by log probabilities at temperature 1."""

    node: CachedToken
    token_ids: tuple[int, ...]
    temperature: float = 1.0


Want = MostProbable | Draw | Probability
Got = tuple[NDArray[np.int64], NDArray[np.float64]]
"""Token ids and their natural log probabilities."""


class Work(Protocol):
    """A request under way."""

    @property
    def context(self) -> Context:
        """The conversation it belongs to."""

    @property
    def reply(self) -> Any:
        """None until it is done."""

    @property
    def stands_at(self) -> Sequence[CachedToken]:
        """The tokens that it goes on from; they must stay cached until it is done."""

    def plan(self, tree: PrefixTree) -> tuple[Sequence[CachedToken], Sequence[Want]]:
        """The tokens it needs computed in this step, and what it asks at some of them."""

    def take(self, got: Sequence[Got]) -> None:
        """Takes the answers, in the order of its wants."""


@dataclass(slots=True, eq=False)
class _Branch:
    """A token set that grows: the uniforms it is drawn with, none for the greedy one."""

    uniforms: Sequence[float] | None
    tokens: Tokens = ()
    logprob: float = 0.0


@dataclass(slots=True, eq=False)
class ExpandWork:
    """`Expand`: the most probable tokens at once, or a greedy and some sampled branches side by side."""

    request: Expand
    conversation: Conversation
    codec: TextCodec
    reply: list[TokenSet] | None = None
    _branches: list[_Branch] = field(default_factory=list)
    # The growing branches by the token they stand at: those that have drawn the same so far are asked about once.
    _growing: dict[CachedToken, list[_Branch]] = field(default_factory=dict)
    _num_held: int = 0

    def __post_init__(self) -> None:
        if self.request.num_tokens > 1:
            random = np.random.Generator(np.random.Philox(self.request.seed))
            uniforms = random.random((self.request.num_draws, self.request.num_tokens)).tolist()
            self._branches = [_Branch(None), *(_Branch(row) for row in uniforms)]

    @property
    def context(self) -> Context:
        """The conversation it belongs to."""
        return self.request.context

    @property
    def stands_at(self) -> Sequence[CachedToken]:
        """See `Work`."""
        return list(self._growing)

    @property
    def has_begun(self) -> bool:
        """Whether it has planned a step."""
        return bool(self._growing)

    @property
    def expected_held(self) -> int:
        """How many tokens its branches will keep in the cache: before it begins at most, then if they part no more."""
        num_branches = len(self._growing) if self.has_begun else len(self._branches)
        num_grown = max((len(branch.tokens) for branch in self._branches), default=0)
        return self._num_held + num_branches * (self.request.num_tokens - num_grown)

    def plan(self, tree: PrefixTree) -> tuple[Sequence[CachedToken], Sequence[Want]]:
        """See `Work`."""
        request = self.request
        if self._growing:
            grown: dict[CachedToken, list[_Branch]] = {}
            for node, branches in self._growing.items():
                for branch in branches:
                    grown.setdefault(tree.child(node, branch.tokens[-1]), []).append(branch)
            self._growing, needed = grown, list(grown)
            self._num_held += len(grown)
        else:
            needed = tree.path(self.conversation.prompt_tokens + request.prefix)
            self._growing = {needed[-1]: list(self._branches)}
        count = request.top_k if self._branches else request.num_token_sets + len(request.exclude)
        return needed, [MostProbable(node, request.temperature, count) for node in self._growing]

    def take(self, got: Sequence[Got]) -> None:
        """See `Work`."""
        if not self._branches:
            ids, logprobs = got[0]
            sets = [
                self._token_set((int(token),), float(logprob), is_greedy=rank == 0)
                for rank, (token, logprob) in enumerate(zip(ids, logprobs, strict=True))
            ]
            self.reply = self._distinct(sets)
            return
        for branches, (ids, logprobs) in zip(self._growing.values(), got, strict=True):
            self._draw(branches, ids, logprobs)
        self._growing = {
            node: growing
            for node, branches in self._growing.items()
            if (growing := [branch for branch in branches if self._is_growing(branch)])
        }
        if not self._growing:
            self.reply = self._distinct(
                [
                    self._token_set(branch.tokens, branch.logprob, is_greedy=branch.uniforms is None)
                    for branch in self._branches
                ]
            )

    def _draw(self, branches: Sequence[_Branch], ids: NDArray[np.int64], logprobs: NDArray[np.float64]) -> None:
        """Each of the branches grows by one token; the greedy one takes the first: a uniform of 0 falls into it."""
        uniforms = [branch.uniforms[len(branch.tokens)] if branch.uniforms is not None else 0.0 for branch in branches]
        for branch, (token, logprob) in zip(branches, draw_from_top(ids, logprobs, uniforms), strict=True):
            branch.tokens += (token,)
            branch.logprob += logprob

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
    """`Rollout`: one token a step until a mark, the end or the limit."""

    request: Rollout
    conversation: Conversation
    codec: TextCodec
    reply: TokenSet | None = None
    _tokens: Tokens = ()
    _logprob: float = 0.0
    _node: CachedToken | None = None
    _random: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self._random = np.random.Generator(np.random.Philox(self.request.seed))
        if self.request.prefix or self.request.max_tokens == 0:
            self._finish_at_mark()

    @property
    def context(self) -> Context:
        """The conversation it belongs to."""
        return self.request.context

    @property
    def stands_at(self) -> Sequence[CachedToken]:
        """See `Work`."""
        return () if self._node is None else (self._node,)

    def plan(self, tree: PrefixTree) -> tuple[Sequence[CachedToken], Sequence[Want]]:
        """See `Work`."""
        if self._node is None:
            needed = tree.path(self.conversation.prompt_tokens + self.request.prefix)
        else:
            needed = [tree.child(self._node, self._tokens[-1])]
        self._node = needed[-1]
        return needed, [Draw(self._node, self.request.temperature, float(self._random.random()))]

    def take(self, got: Sequence[Got]) -> None:
        """See `Work`."""
        ((ids, logprobs),) = got
        self._tokens += (int(ids[0]),)
        self._logprob += float(logprobs[0])
        self._finish_at_mark()

    def _finish_at_mark(self) -> None:
        request = self.request
        reading = self.codec.read(self.conversation, request.prefix + self._tokens)
        is_long = request.max_tokens is not None and len(self._tokens) >= request.max_tokens
        if reading.finish_reason is not None or is_long or reading.decoded.endswith(request.until or ()):
            self.reply = token_set(self.codec, self.conversation, request.prefix, self._tokens, self._logprob)


@dataclass(slots=True, eq=False)
class ScoreWork:
    """`Score`: one question about the last token of a judgement."""

    request: Score
    tokens: Tokens
    option_ids: Sequence[tuple[int, ...]]
    reply: OptionLogprobs | None = None
    end: CachedToken | None = None

    @property
    def context(self) -> Context:
        """The conversation it belongs to."""
        return self.request.context

    @property
    def stands_at(self) -> Sequence[CachedToken]:
        """See `Work`."""
        return ()

    def plan(self, tree: PrefixTree) -> tuple[Sequence[CachedToken], Sequence[Want]]:
        """See `Work`."""
        path = tree.path(self.tokens)
        self.end = path[-1]
        return path, [Probability(path[-1], tuple(i for ids in self.option_ids for i in ids))]

    def take(self, got: Sequence[Got]) -> None:
        """See `Work`."""
        ((_, logprobs),) = got
        ends = np.cumsum([len(ids) for ids in self.option_ids])[:-1]
        sums = [float(np.logaddexp.reduce(part)) for part in np.split(logprobs, ends)]
        self.reply = OptionLogprobs(tuple(sums), mass=min(1.0, float(np.exp(sums).sum())))


@dataclass(slots=True, eq=False)
class EmbedWork:
    """`Embed`: the tokens whose hidden states are wanted; the engine takes their mean once they are computed."""

    request: Embed
    conversation: Conversation
    reply: Any = None
    slots: list[int] = field(default_factory=list)

    @property
    def context(self) -> Context:
        """The conversation it belongs to."""
        return self.request.context

    @property
    def stands_at(self) -> Sequence[CachedToken]:
        """See `Work`."""
        return ()

    def plan(self, tree: PrefixTree) -> tuple[Sequence[CachedToken], Sequence[Want]]:
        """See `Work`."""
        path = tree.path(self.conversation.prompt_tokens + self.request.prefix)
        self.slots = [node.slot for node in path[-self.request.num_tokens :]]
        return path, ()

    def take(self, got: Sequence[Got]) -> None:
        """Nothing to take: no next-token question was asked."""


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


def draw_from_top(
    ids: NDArray[np.int64], logprobs: NDArray[np.float64], uniforms: Sequence[float]
) -> list[tuple[int, float]]:
    """The token that each of `uniforms` in [0, 1) picks among `ids`, and its log probability renormalised over them."""
    probabilities = np.exp(logprobs - logprobs.max())
    cumulative = np.cumsum(probabilities)
    picked = cumulative.searchsorted(np.array(uniforms) * cumulative[-1], side="right")
    picked = np.minimum(picked, len(ids) - 1)
    tokens, drawn = ids[picked].tolist(), np.log(probabilities[picked] / cumulative[-1]).tolist()
    return list(zip(tokens, drawn, strict=True))
