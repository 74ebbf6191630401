"""Which pending work takes part in a step, and what must be computed for it. No tensors here.

Work is admitted in the order in which it was asked for. What it asks about stays in the cache from step to step, but
work that is older may take the room of younger work, which then waits and is computed again as far as it has been
forgotten: the oldest goes on always. So what is asked ahead may begin at once: twelve expansions side by side in a
fifth of the cache they would fill take a third of the forward passes that they take one after the other, for half more
positions.

A step is bounded as well: a long text is read over several, in which what misses few tokens goes on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import Any

from langchain_rain.engines.base import Ticket
from langchain_rain.engines.prefix_tree import CachedToken, PrefixTree
from langchain_rain.engines.wants import Place
from langchain_rain.engines.work import Work
from langchain_rain.errors import EngineError, RainConfigError
from langchain_rain.search.protocol import Context, Tokens

CACHE_MARGIN = 200
"""Room, in tokens, for the siblings of a search beside its prompt and answer."""

CACHE_FACTOR = 3
"""How often prompt, answer and margin fit into the cache: written, judged, and tried."""

MIN_CACHE_TOKENS = 8_192
"""How much is kept at least where no limit is given: the next request begins with the same rubric and system prompt."""

MAX_STEP_POSITIONS = 2_048
"""How many new tokens a step computes, but for what is short, and one for each question of what is not: with what they
see, they make the mask of a forward pass, and by a step a budget may be overdrawn."""

MAX_SHORT_READ = 128
"""Work that misses no more tokens is not put off to a later step: the next token of a draft, the end of a question."""


@dataclass(frozen=True, slots=True)
class CacheLimit:
    """What the caller allows.

    Attributes:
        num_tokens: that may be cached.
        said: the argument that says so, for errors.
    """

    num_tokens: int
    said: str


def check_limit(argument: str, value: Any) -> None:
    """Checks what a caller gives as a limit.

    Raises:
        RainConfigError: it is neither None nor a positive whole number.
    """
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise RainConfigError(f"{argument}: a positive whole number or None is allowed, given {value!r}.")


@dataclass(frozen=True, slots=True)
class Admitted:
    """What a step does for one piece of work.

    Attributes:
        ends: the cached token at the place of each of its wants; None if it misses too much for one step.
        new: those of them and before them that are to be computed, as nobody admitted before it needs them.
    """

    ends: list[CachedToken] | None
    new: list[CachedToken]


@dataclass(frozen=True, slots=True)
class _Way:
    """The way to a place: the last token of it that is cached, and those that are missing."""

    node: CachedToken
    missing: Tokens


class Admission:
    """Holds what is under way in a tree of cached tokens, within a limit.

    Args:
        name: of the engine, for errors.
        limit: None allows what the open conversations need.
    """

    def __init__(self, name: str, limit: CacheLimit | None) -> None:
        self.tree = PrefixTree(limit.num_tokens if limit is not None else MIN_CACHE_TOKENS)
        self._name = name
        self._limit = limit
        self._shares: dict[Context, int] = {}
        self._held: dict[Ticket, list[CachedToken]] = {}

    def open(self, context: Context, num_tokens: int) -> None:
        """Makes room for a conversation of so many tokens, prompt and answer; once."""
        if context not in self._shares:
            self._set_share(context, CACHE_FACTOR * (num_tokens + CACHE_MARGIN))

    def close(self, context: Context) -> None:
        """Takes back the room of a conversation; what is then too much is forgotten."""
        if self._shares.pop(context, None) is not None and self._limit is None:
            self.tree.forget(self.tree.num_cached - self._needed_by_all())
            self.tree.max_tokens = max(self._needed_by_all(), self.tree.num_cached)

    def release(self, ticket: Ticket) -> None:
        """Lets go what a piece of work has held."""
        for node in self._held.pop(ticket, ()):
            self.tree.release(node)

    def let_pass(self, ticket: Ticket) -> None:
        """Lets go what a piece of work has held; what it has read last is forgotten before all else."""
        nodes = self._held.get(ticket, ())
        self.release(ticket)
        for node in nodes:
            self.tree.forget_first(node)

    def clear(self) -> None:
        """Forgets everything but the conversations."""
        self._held.clear()
        self.tree.clear()

    def admit(self, works: Mapping[Ticket, Work]) -> tuple[dict[Ticket, Admitted], dict[Ticket, EngineError]]:
        """Begins a step: who takes part in it, and whose question is too long for the limit.

        Args:
            works: everything that is pending, the oldest first.
        """
        self.tree.begin_step()
        self._make_room_for_judgements(works)
        admitted: dict[Ticket, Admitted] = {}
        refused: dict[Ticket, EngineError] = {}
        num_left = MAX_STEP_POSITIONS
        for ticket, work in works.items():
            plan = self._plan(ticket, work, admitted, num_left)
            if isinstance(plan, Admitted):
                admitted[ticket] = plan
                num_left -= len(plan.new)
            elif not admitted:
                assert self._limit is not None
                refused[ticket] = EngineError(
                    f"{self._name} needs {plan} tokens of cache for one request, more than {self._limit.said} allows. "
                    "Raise it, or shorten the prompt, the answer or the rubric.",
                    engine=self._name,
                )
        return admitted, refused

    def _plan(self, ticket: Ticket, work: Work, admitted: Mapping[Ticket, Admitted], num_left: int) -> Admitted | int:
        """What is to be done for a piece of work; the number of tokens it would need if there is no room for them."""
        ways = [self._way(want.place) for want in work.wants]
        num_missing = _num_distinct(ways)
        ends = [way.node for way in ways]
        kept = [self._way(place).node for place in work.keeps]
        if sum(node.position + 1 for node in {*ends, *kept}) + num_missing > self.tree.max_tokens:
            kept = []  # there is no room for all of it in any case
        for node in (*ends, *kept):
            self.tree.hold(node)
        self.release(ticket)  # what it has held until now, after the new ends, so that all before them stays held
        self._held[ticket] = [*ends, *kept]
        while self.tree.num_held + num_missing > self.tree.max_tokens:
            if not self._suspend_youngest(ticket, admitted):
                break
        needed = self.tree.num_held + num_missing
        if needed > self.tree.max_tokens and kept:  # it can do without
            for node in kept:
                self.tree.release(node)
            self._held[ticket], kept = ends, []
            needed = self.tree.num_held + num_missing
        if self._limit is None and not admitted:
            self.tree.max_tokens = max(self.tree.max_tokens, needed)
        if needed > self.tree.max_tokens:
            self.release(ticket)
            return needed
        max_new = num_missing if num_missing <= MAX_SHORT_READ else max(num_left, len(ways))
        new: list[CachedToken] = []
        for index, (way, want) in enumerate(zip(ways, work.wants, strict=True)):
            ends[index] = want.place.reached = self.tree.link(way.node, way.missing, new, max_new)
            self.tree.hold(ends[index])
            self.tree.release(way.node)
        self._held[ticket] = [*ends, *kept]
        self.tree.give_slots(new)
        return Admitted(ends if len(new) == num_missing else None, new)

    def _way(self, place: Place) -> _Way:
        """How far a place is cached; remembered, so that the next look begins there."""
        start, num_before = self.tree.root, place.start.num_tokens if place.start is not None else 0
        if place.reached is not None and place.reached.is_cached:
            start = place.reached
        elif place.start is not None:
            before = self._way(place.start)
            if before.missing:
                return _Way(before.node, before.missing + place.tokens)
            start = before.node
        num_read = start.position + 1
        rest = place.tokens[num_read - num_before :] if num_read >= num_before else place.sequence[num_read:]
        place.reached = self.tree.find(start, rest)
        return _Way(place.reached, rest[place.reached.position - start.position :])

    def _suspend_youngest(self, ticket: Ticket, admitted: Mapping[Ticket, Admitted]) -> bool:
        """Lets go what the youngest piece of work holds that is not in this step yet; False if there is none."""
        youngest = max((each for each in self._held if each not in admitted and each != ticket), default=None)
        if youngest is None:
            return False
        self.release(youngest)
        return True

    def _make_room_for_judgements(self, works: Mapping[Ticket, Work]) -> None:
        """Long questions, with examples or documents in them, come again with every judgement.

        Those of one step share all but their ends: two count in full, so that about half of that is left for the next
        question and the answer, and the others for their ends.
        """
        if self._limit is not None:
            return
        judged: dict[Context, list[int]] = {}
        for work in works.values():
            if work.is_passing:
                judged.setdefault(work.context, []).extend(want.place.num_tokens for want in work.wants)
        for context, lengths in judged.items():
            *others, second, first = sorted([0, *lengths])
            num_tokens = first + second + sum(min(length, CACHE_MARGIN) for length in others)
            if num_tokens > self._shares.get(context, 0):
                self._set_share(context, num_tokens)

    def _set_share(self, context: Context, num_tokens: int) -> None:
        self._shares[context] = num_tokens
        if self._limit is None:
            self.tree.max_tokens = max(self.tree.max_tokens, self._needed_by_all())

    def _needed_by_all(self) -> int:
        return max(MIN_CACHE_TOKENS, sum(self._shares.values()))


def _num_distinct(ways: Sequence[_Way]) -> int:
    """How many tokens are missing on some ways together: those that begin alike share their beginnings."""
    if len(ways) == 1:
        return len(ways[0].missing)
    missing = sorted({(id(way.node), way.missing) for way in ways})
    num_shared = sum(
        _num_common(one, other) for (node, one), (of_other, other) in pairwise(missing) if node == of_other
    )
    return sum(len(tokens) for _, tokens in missing) - num_shared


def _num_common(one: Tokens, other: Tokens) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
