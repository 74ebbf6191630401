"""Which tokens are cached where: one tree of token ids over the slots of a cache. No tensors here.

A request names a sequence of tokens; the tree says which of them are cached already and links in the others, which get
slots when it is known that there is room. Rewinding is asking about a shorter sequence. What somebody holds stays; of
the rest the least recently used leaves are forgotten when slots run out.
"""

import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

NO_SLOT = -1
"""Of a token that is not cached: not yet, or not any more."""

MAX_LINEAGE_ENTRIES = 2**23
"""How many entries lineages may get together before all are dropped, 64 MiB, or `LINEAGE_ENTRIES_PER_TOKEN` for each
cached token if that is more; those that are needed are then found anew."""

LINEAGE_ENTRIES_PER_TOKEN = 128
"""A KiB; keys and values of a token take from some KiB in a small model to some hundred in a large one."""

SPARE_LINEAGE_ENTRIES = 256
"""How much further a lineage may grow, at most, before it is copied."""

SPARE_ENTRIES = 64
"""How many outdated entries the queue of leaves may hold beside twice the cached tokens, before it is tidied."""


@dataclass(slots=True, eq=False)
class Lineage:
    """The slots of a token and of all before it, by position; tokens on one way share the array."""

    slots: NDArray[np.int64]
    length: int


@dataclass(slots=True, eq=False)
class CachedToken:
    """A token in its context: the tokens on the way from the root to its parent.

    Attributes:
        slot: where its keys and values are.
        position: number of tokens before it.
        num_holds: how many hold it itself, and how many of its children are held.
        used_at: the step in which it was held last.
        created_at: the step in which it was asked for first.
    """

    token: int
    parent: "CachedToken | None"
    position: int
    slot: int = NO_SLOT
    num_holds: int = 0
    used_at: int = 0
    created_at: int = 0
    lineage: Lineage | None = None
    children: dict[int, "CachedToken"] = field(default_factory=dict)

    @property
    def is_cached(self) -> bool:
        """Whether it has a slot."""
        return self.slot != NO_SLOT


class PrefixTree:
    """The cached tokens of an engine, at most `max_tokens`.

    Whoever asks looks for tokens (`find`) and holds what is there (`hold`). If what is missing has room beside all that
    is held, it is linked in (`link`), held, and given slots (`give_slots`).
    """

    def __init__(self, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self.root = CachedToken(token=-1, parent=None, position=-1)
        self.num_cached = 0
        self.num_held = 0
        self.peak_num_cached = 0
        self.num_slots = 0  # one more than the last slot that is in use
        self._free: list[int] = []
        self._leaves: list[tuple[int, int, CachedToken]] = []  # a heap; entries that no longer hold are skipped
        self._order = itertools.count()
        self._step = 0
        self._num_lineage_entries = 0

    def begin_step(self) -> None:
        """What is held or let go from now on counts as used later than all before."""
        self._step += 1

    def find(self, start: CachedToken, tokens: Sequence[int]) -> CachedToken:
        """The last of `tokens` after `start` that is there; `start` itself if none is."""
        node = start
        for token in tokens:
            child = node.children.get(token)
            if child is None:
                break
            node = child
        return node

    def link(
        self, start: CachedToken, tokens: Sequence[int], new: list[CachedToken], max_new: int | None = None
    ) -> CachedToken:
        """The last of `tokens` after `start`; those that are missing are linked in and appended to `new`.

        No more than make `new` as long as `max_new`: then the last token that there is room for.
        """
        node = start
        for token in tokens:
            child = node.children.get(token)
            if child is None:
                if max_new is not None and len(new) >= max_new:
                    break
                child = CachedToken(token, node, node.position + 1, created_at=self._step)
                node.children[token] = child
                new.append(child)
            node = child
        return node

    def hold(self, node: CachedToken) -> None:
        """Keeps `node` and all before it until it is released as often."""
        ancestor = node
        while ancestor.parent is not None:
            ancestor.num_holds += 1
            if ancestor.num_holds > 1:
                return
            self.num_held += 1
            ancestor = ancestor.parent

    def release(self, node: CachedToken) -> None:
        """Lets go what was held."""
        ancestor = node
        while ancestor.parent is not None:
            ancestor.num_holds -= 1
            if ancestor.num_holds:
                return
            self.num_held -= 1
            ancestor.used_at = self._step
            self._offer(ancestor)
            ancestor = ancestor.parent

    def forget_first(self, node: CachedToken) -> None:
        """Lets `node` be forgotten before all others, and of what leads to it alone whatever is new in this step."""
        ancestor = node
        while (
            ancestor.parent is not None
            and ancestor.created_at == self._step
            and not ancestor.num_holds
            and len(ancestor.children) <= 1
        ):
            ancestor.used_at = 0
            self._offer(ancestor)
            ancestor = ancestor.parent

    def give_slots(self, new: Sequence[CachedToken]) -> None:
        """Gives slots to tokens that are linked in and held, for which others are forgotten if need be."""
        assert self.num_held <= self.max_tokens
        self.forget(self.num_cached + len(new) - self.max_tokens)
        for node in new:
            if self._free:
                node.slot = self._free.pop()
            else:
                node.slot = self.num_slots
                self.num_slots += 1
        self.num_cached += len(new)
        self.peak_num_cached = max(self.peak_num_cached, self.num_cached)

    def forget(self, count: int) -> None:
        """Forgets `count` tokens that nobody holds, or all there are: leaves, least recently used first."""
        while count > 0 and self._leaves:
            used_at, _, node = heapq.heappop(self._leaves)
            if not self._can_forget(node) or node.used_at != used_at:
                continue
            assert node.parent is not None
            del node.parent.children[node.token]
            self._free.append(node.slot)
            node.slot, node.lineage = NO_SLOT, None
            self.num_cached -= 1
            self._offer(node.parent)
            count -= 1

    def compact(self) -> list[int]:
        """Moves all tokens to the first slots, in the order of theirs now; returns the slots from which they come."""
        nodes = sorted(self._cached(), key=lambda node: node.slot)
        moved = [node.slot for node in nodes]
        self._drop_lineages()
        for slot, node in enumerate(nodes):
            node.slot = slot
        self.num_slots = len(nodes)
        self._free.clear()
        return moved

    def clear(self) -> None:
        """Forgets everything, whoever holds it."""
        self._drop_lineages()
        for node in self._cached():
            node.slot = NO_SLOT
        self.root.children.clear()
        self.num_cached = self.num_held = self.num_slots = 0
        self._free.clear()
        self._leaves.clear()

    def slots_to(self, node: CachedToken) -> NDArray[np.int64]:
        """The slots of all tokens before `node` and its own, by position; not to be written to."""
        if node.lineage is None:
            node.lineage = self._lineage(node)
        return node.lineage.slots[: node.position + 1]

    def _lineage(self, node: CachedToken) -> Lineage:
        way, ancestor = [], node
        while ancestor.parent is not None and ancestor.lineage is None:
            way.append(ancestor)
            ancestor = ancestor.parent
        known, start = ancestor.lineage, ancestor.position + 1
        end = node.position + 1
        if known is None or known.length != start or len(known.slots) < end:  # grown from elsewhere, or full
            grown = np.empty(end + min(end, SPARE_LINEAGE_ENTRIES), np.int64)
            if known is not None:
                grown[:start] = known.slots[:start]
            self._make_room_for_lineage(len(grown))
            known = Lineage(grown, start)
        known.slots[start:end] = [each.slot for each in reversed(way)]
        known.length = end
        for each in way:
            if len(each.children) > 1:  # others will come by here too
                each.lineage = known
        return known

    def _make_room_for_lineage(self, num_entries: int) -> None:
        """Drops all lineages where they have become too many; those that are in use are found again."""
        self._num_lineage_entries += num_entries
        limit = max(MAX_LINEAGE_ENTRIES, LINEAGE_ENTRIES_PER_TOKEN * self.num_cached)
        if self._num_lineage_entries > limit:
            self._drop_lineages()
            self._num_lineage_entries = num_entries

    def _drop_lineages(self) -> None:
        for node in self._cached():
            node.lineage = None
        self._num_lineage_entries = 0

    def _can_forget(self, node: CachedToken) -> bool:
        return node.is_cached and not node.children and not node.num_holds

    def _offer(self, node: CachedToken) -> None:
        """Queues a token to be forgotten, if it is a leaf that nobody holds."""
        if not self._can_forget(node):
            return
        heapq.heappush(self._leaves, (node.used_at, next(self._order), node))
        if len(self._leaves) > 2 * self.num_cached + SPARE_ENTRIES:
            current = {
                each[2]: each for each in self._leaves if self._can_forget(each[2]) and each[0] == each[2].used_at
            }
            self._leaves = list(current.values())
            heapq.heapify(self._leaves)

    def _cached(self) -> list[CachedToken]:
        cached, stack = [], [self.root]
        while stack:
            node = stack.pop()
            stack.extend(node.children.values())
            if node.is_cached:
                cached.append(node)
        return cached
