"""One forward pass over new tokens of any conversations, each attending to its own ancestors alone.

Every conversation has a row of the cache, every cached token a slot in it (`prefix_tree`). A forward pass takes new
tokens of several rows and lays them out in lines of about the same length, so that little is padding: siblings stand
side by side, and conversations may share a line. The mask is "my ancestors and myself".
"""

import itertools
import math
from bisect import insort
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
    """The new tokens of a forward pass in lines, padded at their beginning.

    Attributes:
        num_rows: that the cache must have.
        num_slots: that each row of the cache must have.
        input_ids: `[num_lines, num_tokens]`.
        position_ids: `[num_lines, num_tokens]`.
        rows: `[num_lines, num_tokens]`, the row of each token.
        slots: `[num_lines, num_tokens]`, its slot there.
        seen_rows: `[num_lines, num_seen]`, the rows of the slots that any token of a line attends to.
        seen_slots: `[num_lines, num_seen]`, these slots; a line that sees fewer names its first one again.
        seen_positions: `[num_lines, num_seen]`, the position of the token in each of these slots.
        is_ancestor: `[num_lines, num_tokens, num_seen]`, what each token attends to.
        where: line and column of each token.
        num_logits: the last columns of which logits are wanted.
    """

    num_rows: int
    num_slots: int
    input_ids: NDArray[np.int64]
    position_ids: NDArray[np.int64]
    rows: NDArray[np.int64]
    slots: NDArray[np.int64]
    seen_rows: NDArray[np.int64]
    seen_slots: NDArray[np.int64]
    seen_positions: NDArray[np.int64]
    is_ancestor: NDArray[np.bool_]
    where: Mapping[CachedToken, tuple[int, int]]
    num_logits: int


@dataclass(frozen=True, slots=True)
class RowFeed:
    """New tokens of one row: those of which logits are wanted come last."""

    tree: PrefixTree
    without_logits: Sequence[CachedToken]
    with_logits: Sequence[CachedToken]


@dataclass(frozen=True, slots=True)
class _Run:
    """Some of the new tokens of one row.

    Attributes:
        row: of the cache.
        nodes: the tokens.
        wants_logits: `[num_tokens]`.
        is_ancestor: `[num_tokens, num_slots]`.
        slot_positions: `[num_slots]`, of the slots that any of them sees.
    """

    row: int
    nodes: Sequence[CachedToken]
    wants_logits: NDArray[np.bool_]
    is_ancestor: NDArray[np.bool_]
    slot_positions: NDArray[np.int64]

    def part(self, first: int, end: int | None = None) -> "_Run":
        """The tokens from `first` up to `end`."""
        part = slice(first, end)
        nodes, wants_logits, is_ancestor = self.nodes[part], self.wants_logits[part], self.is_ancestor[part]
        return _Run(self.row, nodes, wants_logits, is_ancestor, self.slot_positions)


def pack(feeds: Mapping[int, RowFeed], *, in_shared_lines: bool = True) -> Packed:
    """Lays out the new tokens of the rows in `feeds`.

    The mask weighs the other row of a line 0, but 0 times what is not a number is none: a row that overflows spoils
    those it shares a line with. With `in_shared_lines` off every row has a line of its own, however much is padding.
    """
    runs = [_run(row, feed) for row, feed in feeds.items()]
    lines = _dealt(runs) if in_shared_lines else [[run] for run in runs]
    seen = [[np.flatnonzero(run.is_ancestor.any(axis=0)) for run in line] for line in lines]
    num_tokens = max(sum(len(run.nodes) for run in line) for line in lines)
    num_seen = max(sum(len(slots) for slots in line) for line in seen)
    tokens, attended = (len(lines), num_tokens), (len(lines), num_seen)
    packed = Packed(
        num_rows=max(feeds) + 1,
        num_slots=max(feed.tree.num_slots for feed in feeds.values()),
        input_ids=np.zeros(tokens, np.int64),
        position_ids=np.zeros(tokens, np.int64),
        rows=np.full(tokens, min(feeds), np.int64),
        slots=np.full(tokens, TRASH_SLOT, np.int64),
        seen_rows=np.zeros(attended, np.int64),
        seen_slots=np.zeros(attended, np.int64),
        seen_positions=np.zeros(attended, np.int64),
        is_ancestor=np.zeros((*tokens, num_seen), np.bool_),
        where={},
        num_logits=max(sum(int(run.wants_logits.sum()) for run in line) for line in lines),
    )
    for number, (line, slots) in enumerate(zip(lines, seen, strict=True)):
        _fill_in(packed, number, line, slots)
    return packed


def _dealt(runs: Sequence[_Run]) -> list[list[_Run]]:
    """Deals `runs` to as many lines of the same width at most, to each parts of one or two of them.

    The shortest run that is left begins a line, the longest fills it up: Walker's alias method (1977). So padding is
    less than a token a line, and no line sees much more of the cache than one run does. What remains of a run that is
    cut goes on in other lines: keys are written before any is read, so its tokens need not stand together.
    """
    width = math.ceil(sum(len(run.nodes) for run in runs) / len(runs))
    left = sorted(runs, key=_length)
    lines = []
    while left:
        shortest = left.pop(0)  # fits, as it has no more tokens than what is left has on average
        line, room = [shortest], width - len(shortest.nodes)
        if room and left:
            longest = left.pop()
            line.append(longest.part(0, room))
            if len(longest.nodes) > room:
                insort(left, longest.part(room), key=_length)
        lines.append(line)
    return lines


def _length(run: _Run) -> int:
    return len(run.nodes)


def _run(row: int, feed: RowFeed) -> _Run:
    """The new tokens of a row, and the mask over its slots: a token sees what its parent sees, and itself."""
    nodes = [*feed.without_logits, *feed.with_logits]
    is_ancestor = np.zeros((len(nodes), feed.tree.num_slots), np.bool_)
    slot_positions = np.zeros(feed.tree.num_slots, np.int64)
    seen_by: dict[CachedToken, NDArray[np.bool_]] = {}
    for index, node in sorted(enumerate(nodes), key=lambda each: each[1].position):
        mask, parent = is_ancestor[index], node.parent
        assert parent is not None
        if parent not in seen_by:
            before = feed.tree.slots_before(node)
            seen_by[parent] = np.zeros_like(mask)
            seen_by[parent][before] = True
            slot_positions[before] = np.arange(node.position - 1, -1, -1)
        mask[:] = seen_by[parent]
        mask[node.slot] = True
        slot_positions[node.slot] = node.position
        seen_by[node] = mask
    wants_logits = np.arange(len(nodes)) >= len(feed.without_logits)
    return _Run(row, nodes, wants_logits, is_ancestor, slot_positions)


def _fill_in(packed: Packed, line: int, runs: Sequence[_Run], seen: Sequence[NDArray[np.int64]]) -> None:
    """Fills in a line of `packed`: all tokens of which no logits are wanted, then the others; and what each sees."""
    nodes = [node for run in runs for node in run.nodes]
    order = np.argsort(np.concatenate([run.wants_logits for run in runs]), kind="stable")
    num_padding = packed.input_ids.shape[1] - len(nodes)
    columns = np.empty(len(nodes), np.int64)
    columns[order] = np.arange(num_padding, packed.input_ids.shape[1])
    packed.input_ids[line, columns] = [node.token for node in nodes]
    packed.position_ids[line, columns] = [node.position for node in nodes]
    packed.slots[line, columns] = [node.slot for node in nodes]
    assert isinstance(packed.where, dict)
    packed.where.update(zip(nodes, zip(itertools.repeat(line), columns.tolist()), strict=False))
    packed.seen_rows[line], packed.seen_slots[line] = runs[0].row, seen[0][0]
    packed.is_ancestor[line, :num_padding, 0] = True  # it attends to something, or its softmax would be undefined
    first_token = first_seen = 0
    for run, slots in zip(runs, seen, strict=True):
        of_run, end_seen = columns[first_token : first_token + len(run.nodes)], first_seen + len(slots)
        packed.rows[line, of_run] = run.row
        packed.seen_rows[line, first_seen:end_seen] = run.row
        packed.seen_slots[line, first_seen:end_seen] = slots
        packed.seen_positions[line, first_seen:end_seen] = run.slot_positions[slots]
        packed.is_ancestor[line, of_run, first_seen:end_seen] = run.is_ancestor[:, slots]
        first_token, first_seen = first_token + len(run.nodes), end_seen


class TreeCache(Cache):
    """Keys and values of all rows, in the form in which transformers' models ask for them.

    `begin` comes before each forward pass. Rows and slots are added as they are needed.
    """

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.layer_class_to_replicate = lambda: TreeLayer(self)  # type: ignore[assignment]  # called like a class
        self.plan: Packed | None = None
        self.hidden: torch.Tensor | None = None
        self._capacity = (0, 0)
        self._places: dict[torch.device, tuple[torch.Tensor, torch.Tensor]] = {}

    def begin(self, plan: Packed) -> None:
        """Says what the next forward pass is about."""
        self.plan = plan
        self._capacity = roomier(self._capacity, (plan.num_rows, plan.num_slots))
        self._places.clear()

    def places(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Where all new tokens go and where all slots are that are seen, line by line, counted through all rows."""
        assert self.plan is not None
        if device not in self._places:
            num_slots = self._capacity[1]
            new = self.plan.rows * num_slots + self.plan.slots
            seen = self.plan.seen_rows * num_slots + self.plan.seen_slots
            self._places[device] = (
                torch.from_numpy(new.ravel()).to(device),
                torch.from_numpy(seen.ravel()).to(device),
            )
        return self._places[device]

    def written(self, tensor: torch.Tensor | None, states: torch.Tensor) -> torch.Tensor:
        """`tensor`, enlarged if it has to be, with the `states` `[num_lines, num_tokens, ...]` of the new tokens."""
        tensor = fitting(tensor, self._capacity, states)
        tensor.flatten(0, 1).index_copy_(0, self.places(states.device)[0], states.flatten(0, 1))
        return tensor

    def seen(self, tensor: torch.Tensor) -> torch.Tensor:
        """The slots that are seen, `[num_lines, num_seen, ...]`: copying them costs less than attending to all."""
        assert self.plan is not None
        _, seen = self.places(tensor.device)
        return tensor.flatten(0, 1).index_select(0, seen).view(*self.plan.seen_slots.shape, *tensor.shape[2:])

    def store_hidden(self, hidden: torch.Tensor) -> None:
        """Keeps the last hidden states `[num_lines, num_tokens, dimension]` of the tokens of the plan."""
        self.hidden = self.written(self.hidden, hidden)

    def clear(self) -> None:
        """Frees all memory."""
        self.layers.clear()
        self.hidden = None
        self._capacity = (0, 0)


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
        """Writes the new tokens `[num_lines, num_heads, num_tokens, head_size]`; returns the slots that are seen."""
        self.keys = self._cache.written(self.keys, key_states.transpose(1, 2))
        self.values = self._cache.written(self.values, value_states.transpose(1, 2))
        return self._cache.seen(self.keys).transpose(1, 2), self._cache.seen(self.values).transpose(1, 2)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Unused by transformers where the mask is given: the slots there are, and no offset."""
        return self.get_seq_length(), 0

    def get_seq_length(self) -> int:
        """The number of slots that are seen; positions are given, so nothing is counted by it."""
        plan = self._cache.plan
        return plan.seen_slots.shape[1] if plan is not None else 0

    def get_max_length(self) -> int:
        """Unbounded."""
        return -1


def roomier(capacity: tuple[int, int], needed: tuple[int, int]) -> tuple[int, int]:
    """Rows and slots that hold both; slots grow by doubling at least."""
    (num_rows, num_slots), (needed_rows, needed_slots) = capacity, needed
    more_slots = num_slots if needed_slots <= num_slots else max(needed_slots, 2 * num_slots)
    return max(num_rows, needed_rows), more_slots


def fitting(tensor: torch.Tensor | None, capacity: tuple[int, int], like: torch.Tensor) -> torch.Tensor:
    """`tensor`, or a larger copy of it, so that it has as many rows and slots; further dimensions as in `like`."""
    if tensor is not None and tensor.shape[:2] == capacity:
        return tensor
    larger = torch.zeros((*capacity, *like.shape[2:]), dtype=like.dtype, device=like.device)
    if tensor is not None:
        larger[: tensor.shape[0], : tensor.shape[1]] = tensor
    return larger
