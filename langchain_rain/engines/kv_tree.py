"""One forward pass over new tokens of any conversations, each attending to its own ancestors alone.

Every conversation has a row of the cache, every cached token a slot in it (`prefix_tree`). A forward pass takes new
tokens of several rows; siblings stand side by side in one row, and the mask is "my ancestors and myself".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.cache_utils import Cache, CacheLayerMixin

from langchain_rain.engines.prefix_tree import TRASH_SLOT, CachedToken, PrefixTree


@dataclass(frozen=True, slots=True)
class Packed:
    """The new tokens of a forward pass, rows padded at their beginning.

    Attributes:
        rows: the rows of the cache that take part, without gaps.
        input_ids: `[num_rows, num_tokens]`.
        position_ids: `[num_rows, num_tokens]`.
        slots: `[num_rows, num_tokens]`.
        num_slots: of each row of the cache.
        seen: `[num_seen]`, the slots that any token attends to; the others take no part.
        is_ancestor: `[num_rows, num_tokens, num_seen]`, what each token attends to.
        slot_positions: `[num_rows, num_seen]`, the position of each slot that is attended to.
        where: row and column of each token, relative to the arrays.
        num_logits: the last columns of which logits are wanted.
    """

    rows: slice
    input_ids: NDArray[np.int64]
    position_ids: NDArray[np.int64]
    slots: NDArray[np.int64]
    num_slots: int
    seen: NDArray[np.int64]
    is_ancestor: NDArray[np.bool_]
    slot_positions: NDArray[np.int64]
    where: Mapping[CachedToken, tuple[int, int]]
    num_logits: int


@dataclass(frozen=True, slots=True)
class RowFeed:
    """New tokens of one row: those of which logits are wanted come last."""

    tree: PrefixTree
    without_logits: Sequence[CachedToken]
    with_logits: Sequence[CachedToken]


def pack(feeds: Mapping[int, RowFeed]) -> Packed:
    """Lays out the new tokens of the rows in `feeds`."""
    first, end = min(feeds), max(feeds) + 1
    num_tokens = max(len(feed.without_logits) + len(feed.with_logits) for feed in feeds.values())
    num_slots = max(feed.tree.num_slots for feed in feeds.values())
    shape = (end - first, num_tokens)
    input_ids, position_ids = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    slots = np.full(shape, TRASH_SLOT, np.int64)
    is_ancestor = np.zeros((*shape, num_slots), np.bool_)
    is_ancestor[:, :, TRASH_SLOT] = True  # padding attends to something, or its softmax would be undefined
    slot_positions = np.zeros((shape[0], num_slots), np.int64)
    where: dict[CachedToken, tuple[int, int]] = {}
    for row_number, feed in feeds.items():
        row = row_number - first
        nodes = [*feed.without_logits, *feed.with_logits]
        for column, node in enumerate(nodes, start=num_tokens - len(nodes)):
            where[node] = (row, column)
            input_ids[row, column], position_ids[row, column] = node.token, node.position
            slots[row, column] = node.slot
        _mark_ancestors(is_ancestor[row], slot_positions[row], feed.tree, nodes, where)
    seen = np.flatnonzero(is_ancestor.any(axis=(0, 1)))
    return Packed(
        rows=slice(first, end),
        input_ids=input_ids,
        position_ids=position_ids,
        slots=slots,
        num_slots=num_slots,
        seen=seen,
        is_ancestor=is_ancestor[:, :, seen],
        slot_positions=slot_positions[:, seen],
        where=where,
        num_logits=max(len(feed.with_logits) for feed in feeds.values()),
    )


def _mark_ancestors(
    is_ancestor: NDArray[np.bool_],
    slot_positions: NDArray[np.int64],
    tree: PrefixTree,
    nodes: Sequence[CachedToken],
    where: Mapping[CachedToken, tuple[int, int]],
) -> None:
    """Fills in the mask of one row: a token sees what its parent sees, its parent, and itself."""
    seen_by: dict[CachedToken, NDArray[np.bool_]] = {}
    for node in sorted(nodes, key=lambda node: node.position):
        _, column = where[node]
        mask = is_ancestor[column]
        parent = node.parent
        assert parent is not None
        if parent not in seen_by:
            before = tree.slots_before(node)
            seen_by[parent] = np.zeros_like(mask)
            seen_by[parent][before] = True
            slot_positions[before] = np.arange(node.position - 1, -1, -1)
        mask[:] = seen_by[parent]
        mask[node.slot] = True
        slot_positions[node.slot] = node.position
        seen_by[node] = mask


class TreeCache(Cache):
    """Keys and values of all rows, in the form in which transformers' models ask for them.

    `begin` comes before each forward pass. Rows and slots are added as they are needed.
    """

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.layer_class_to_replicate = lambda: TreeLayer(self)  # type: ignore[assignment]  # called like a class
        self.plan: Packed | None = None
        self.hidden: torch.Tensor | None = None
        self._places: dict[torch.device, tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = {}

    def begin(self, plan: Packed) -> None:
        """Says what the next forward pass is about."""
        self.plan = plan
        self._places.clear()

    def places(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Rows `[num_rows, 1]` and slots `[num_rows, num_tokens]` of the new tokens, and the slots that are seen."""
        assert self.plan is not None
        if device not in self._places:
            rows = torch.arange(len(self.plan.slots), device=device)[:, None]
            slots, seen = torch.from_numpy(self.plan.slots), torch.from_numpy(self.plan.seen)
            self._places[device] = (rows, slots.to(device), seen.to(device))
        return self._places[device]

    def store_hidden(self, hidden: torch.Tensor) -> None:
        """Keeps the last hidden states `[num_rows, num_tokens, dimension]` of the tokens of the plan."""
        assert self.plan is not None
        shape = (self.plan.rows.stop, self.plan.num_slots, hidden.shape[-1])
        self.hidden = fitting(self.hidden, shape, hidden)
        rows, slots, _ = self.places(hidden.device)
        self.hidden[self.plan.rows][rows, slots] = hidden

    def wipe(self, row: int) -> None:
        """Zeroes a row for a new conversation: the mask weighs the old one 0, but 0 times infinity is not a number."""
        for layer in self.layers:
            assert isinstance(layer, TreeLayer)
            assert layer.keys is not None
            assert layer.values is not None
            layer.keys[row : row + 1] = 0
            layer.values[row : row + 1] = 0

    def clear(self) -> None:
        """Frees all memory."""
        self.layers.clear()
        self.hidden = None


class TreeLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]  # transformers' hook is not annotated
    """Keys and values of one layer, `[num_rows, num_slots, num_heads, head_size]`: a slot lies in one piece."""

    is_sliding = False

    def __init__(self, cache: TreeCache) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._cache = cache

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing to do: memory is taken by the first `update`."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes the new tokens `[num_rows, num_heads, num_tokens, head_size]`; returns the slots that are seen."""
        plan = self._cache.plan
        assert plan is not None
        rows, slots, seen = self._cache.places(key_states.device)
        self.keys = self._written(self.keys, key_states, plan, rows, slots)
        self.values = self._written(self.values, value_states, plan, rows, slots)
        # Copying the slots that are seen costs less than attending to all there are.
        keys, values = self.keys[plan.rows].index_select(1, seen), self.values[plan.rows].index_select(1, seen)
        return keys.transpose(1, 2), values.transpose(1, 2)

    @staticmethod
    def _written(
        tensor: torch.Tensor | None, states: torch.Tensor, plan: Packed, rows: torch.Tensor, slots: torch.Tensor
    ) -> torch.Tensor:
        num_heads, head_size = states.shape[1], states.shape[3]
        tensor = fitting(tensor, (plan.rows.stop, plan.num_slots, num_heads, head_size), states)
        tensor[plan.rows][rows, slots] = states.transpose(1, 2)
        return tensor

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Unused by transformers where the mask is given: the slots there are, and no offset."""
        return self.get_seq_length(), 0

    def get_seq_length(self) -> int:
        """The number of slots that are seen; positions are given, so nothing is counted by it."""
        plan = self._cache.plan
        return len(plan.seen) if plan is not None else 0

    def get_max_length(self) -> int:
        """Unbounded."""
        return -1


def fitting(tensor: torch.Tensor | None, shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    """`tensor`, or a larger copy of it, so that it holds `shape`, rows and slots first; slots grow by doubling."""
    if tensor is not None and tensor.shape[0] >= shape[0] and tensor.shape[1] >= shape[1]:
        return tensor
    num_rows, num_slots = tensor.shape[:2] if tensor is not None else (0, 0)
    more_slots = num_slots if num_slots >= shape[1] else max(shape[1], 2 * num_slots)
    larger = torch.zeros((max(shape[0], num_rows), more_slots, *shape[2:]), dtype=like.dtype, device=like.device)
    if tensor is not None:
        larger[:num_rows, :num_slots] = tensor
    return larger
