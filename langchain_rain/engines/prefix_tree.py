"""Which tokens are cached where: a tree of token ids over the slots of a cache. No tensors here.

A request names a sequence of tokens; the tree says which of them are cached already and gives the others a slot.
Rewinding is asking about a shorter sequence. When the slots are used up, the least recently used leaves are forgotten.
"""

import heapq
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

TRASH_SLOT = 0
"""A slot that padding writes to and nobody reads."""


@dataclass(slots=True, eq=False)
class CachedToken:
    """A token in its context: the tokens on the way from the root to its parent.

    Attributes:
        slot: where its keys and values are.
        position: number of tokens before it.
        is_filled: whether they have been computed.
        used_at: the step in which it was asked for last.
        created_at: the step in which it was asked for first.
    """

    token: int
    parent: "CachedToken | None"
    slot: int
    position: int
    is_filled: bool = False
    used_at: int = 0
    created_at: int = 0
    children: dict[int, "CachedToken"] = field(default_factory=dict)


class PrefixTree:
    """The cached tokens of one conversation, at most `max_tokens` unless one step needs more at once."""

    def __init__(self, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self.num_slots = TRASH_SLOT + 1
        self.num_cached = 0
        self.peak_num_cached = 0
        self._root = CachedToken(token=-1, parent=None, slot=TRASH_SLOT, position=-1)
        self._free: list[int] = []
        self._step = 0
        self._exhausted_in = 0  # the step in which nothing was left to forget, so as not to look for it again

    def begin_step(self, kept: Iterable[CachedToken] = ()) -> None:
        """What is asked for from now on is kept until the next step begins, and so is `kept` with all before it."""
        self._step += 1
        for node in kept:
            node.used_at = self._step

    def path(self, tokens: Sequence[int]) -> list[CachedToken]:
        """The cached tokens of a sequence; those that are missing get a slot and are to be filled in this step."""
        node, path, step = self._root, [], self._step
        for token in tokens:
            known = node.children.get(token)
            if known is None:
                node = self.child(node, token)
            else:
                node = known
                node.used_at = step
            path.append(node)
        return path

    def child(self, parent: CachedToken, token: int) -> CachedToken:
        """The cached token that follows `parent`; gets a slot if it is missing."""
        node = parent.children.get(token)
        if node is None:
            # The parent is kept first, so that making room for its child cannot forget it.
            parent.used_at = self._step
            node = CachedToken(token, parent, self._take_slot(), parent.position + 1, created_at=self._step)
            parent.children[token] = node
        node.used_at = self._step
        return node

    def forget_first(self, node: CachedToken) -> None:
        """Lets `node` be forgotten before all others, and of what leads to it alone whatever is new in this step.

        Called at the end of a step: whoever stands at one of them says so when the next one begins.
        """
        ancestor: CachedToken | None = node
        while ancestor is not None and ancestor.created_at == self._step and len(ancestor.children) <= 1:
            ancestor.used_at = 0
            ancestor = ancestor.parent

    def slots_before(self, node: CachedToken) -> list[int]:
        """The slots of all tokens before `node`, nearest first."""
        slots = []
        ancestor = node.parent
        while ancestor is not None and ancestor is not self._root:
            slots.append(ancestor.slot)
            ancestor = ancestor.parent
        return slots

    def _take_slot(self) -> int:
        if self.num_cached >= self.max_tokens and self._exhausted_in < self._step:
            self._forget(self.num_cached - self.max_tokens + max(1, self.max_tokens // 16))
        self.num_cached += 1
        self.peak_num_cached = max(self.peak_num_cached, self.num_cached)
        if self._free:
            return self._free.pop()
        self.num_slots += 1
        return self.num_slots - 1

    def _forget(self, count: int) -> None:
        """Forgets up to `count` leaves, least recently used first; none that this step has asked for."""
        order = itertools.count()
        leaves = [(node.used_at, next(order), node) for node in self._leaves() if node.used_at < self._step]
        heapq.heapify(leaves)
        for _ in range(count):
            if not leaves:
                self._exhausted_in = self._step
                return
            _, _, node = heapq.heappop(leaves)
            parent = node.parent
            assert parent is not None
            del parent.children[node.token]
            self._free.append(node.slot)
            self.num_cached -= 1
            if not parent.children and parent is not self._root and parent.used_at < self._step:
                heapq.heappush(leaves, (parent.used_at, next(order), parent))

    def _leaves(self) -> list[CachedToken]:
        leaves, stack = [], list(self._root.children.values())
        while stack:
            node = stack.pop()
            if node.children:
                stack.extend(node.children.values())
            else:
                leaves.append(node)
        return leaves
