"""How the new tokens of a forward pass are laid out, each attending to its own ancestors alone. No tensors here.

New tokens of several conversations stand in lines of about the same length, so that little is padding: siblings stand
side by side, and conversations may share a line. The mask is "my ancestors and myself".
"""

import math
from bisect import insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from langchain_rain.engines.prefix_tree import NO_SLOT, CachedToken, PrefixTree

MAX_SLOTS_READ = 2**17
"""How many slots of the cache a forward pass may read in all its lines together, before a step takes several."""

MAX_DEPTH_RATIO = 4
"""How much deeper than others a conversation in the same pass then may be: each line reads as much as the deepest."""


@dataclass(frozen=True, slots=True)
class Packed:
    """The new tokens of a forward pass in lines, padded at their beginning.

    Attributes:
        input_ids: `[num_lines, num_tokens]`.
        position_ids: `[num_lines, num_tokens]`.
        slots: `[num_lines, num_tokens]`, where each goes; of padding `NO_SLOT`.
        seen_slots: `[num_lines, num_seen]`, those that any token of a line attends to; a line that sees fewer names
            its first one again.
        seen_positions: `[num_lines, num_seen]`, the position of the token in each of these slots.
        is_ancestor: `[num_lines, num_tokens, num_seen]`, what each token attends to.
        where: line and column of each token of which logits are wanted.
        num_logits: the last columns of which logits are wanted.
    """

    input_ids: NDArray[np.int64]
    position_ids: NDArray[np.int64]
    slots: NDArray[np.int64]
    seen_slots: NDArray[np.int64]
    seen_positions: NDArray[np.int64]
    is_ancestor: NDArray[np.bool_]
    where: Mapping[CachedToken, tuple[int, int]]
    num_logits: int


@dataclass(frozen=True, slots=True)
class Feed:
    """New tokens of one conversation: those of which logits are wanted come last."""

    without_logits: Sequence[CachedToken]
    with_logits: Sequence[CachedToken]

    @property
    def nodes(self) -> list[CachedToken]:
        """All of them, in this order."""
        return [*self.without_logits, *self.with_logits]


@dataclass(frozen=True, slots=True)
class _Run:
    """Some of the new tokens of one conversation.

    Attributes:
        nodes: the tokens.
        wants_logits: `[num_tokens]`.
        is_ancestor: `[num_tokens, num_seen]`.
        seen_slots: `[num_seen]`, those that any of them attends to, ascending.
        seen_positions: `[num_seen]`.
    """

    nodes: Sequence[CachedToken]
    wants_logits: NDArray[np.bool_]
    is_ancestor: NDArray[np.bool_]
    seen_slots: NDArray[np.int64]
    seen_positions: NDArray[np.int64]

    def part(self, first: int, end: int | None = None) -> "_Run":
        """The tokens from `first` up to `end`."""
        part = slice(first, end)
        is_ancestor = self.is_ancestor[part]
        seen = np.flatnonzero(is_ancestor.any(axis=0))
        return _Run(
            self.nodes[part],
            self.wants_logits[part],
            is_ancestor[:, seen],
            self.seen_slots[seen],
            self.seen_positions[seen],
        )


def in_passes(feeds: Sequence[Feed]) -> list[list[Feed]]:
    """The feeds of a step by the forward pass in which they go: all in one, unless that would read too much.

    What depends on new tokens of another feed stays with it.
    """
    if len(feeds) < 2 or len(feeds) * max(map(_depth, feeds)) <= MAX_SLOTS_READ:
        return [list(feeds)] if feeds else []
    passes: list[list[Feed]] = []
    deepest = 0
    for cluster in sorted(_clusters(feeds), key=lambda each: max(map(_depth, each)), reverse=True):
        depth = max(map(_depth, cluster))
        has_room = passes and (len(passes[-1]) + len(cluster)) * deepest <= MAX_SLOTS_READ
        if has_room and depth * MAX_DEPTH_RATIO >= deepest:
            passes[-1] += cluster
        else:
            passes.append(list(cluster))
            deepest = depth
    return passes


def _depth(feed: Feed) -> int:
    return 1 + max(node.position for node in feed.nodes)


def _clusters(feeds: Sequence[Feed]) -> list[list[Feed]]:
    """Feeds of which none has new tokens that follow new tokens of another cluster."""
    number_of = {node: number for number, feed in enumerate(feeds) for node in feed.nodes}
    cluster_of = [[number] for number in range(len(feeds))]
    for node, number in number_of.items():
        assert node.parent is not None
        own, other = cluster_of[number], cluster_of[number_of.get(node.parent, number)]
        if own is not other:
            own += other
            for each in other:
                cluster_of[each] = own
    distinct = {id(each): each for each in cluster_of}
    return [[feeds[number] for number in each] for each in distinct.values()]


def pack(tree: PrefixTree, feeds: Sequence[Feed], *, in_shared_lines: bool = True) -> Packed:
    """Lays out the new tokens of `feeds`.

    With `in_shared_lines` off each has a line of its own, however much is padding.
    """
    if len(feeds) == 1 and not feeds[0].without_logits and len(feeds[0].with_logits) == 1:
        return _one(tree, feeds[0].with_logits[0])
    runs = [_run(tree, feed) for feed in feeds]
    lines = _dealt(runs) if in_shared_lines else [[run] for run in runs]
    num_tokens = max(sum(len(run.nodes) for run in line) for line in lines)
    num_seen = max(sum(len(run.seen_slots) for run in line) for line in lines)
    tokens, seen = (len(lines), num_tokens), (len(lines), num_seen)
    where: dict[CachedToken, tuple[int, int]] = {}
    packed = Packed(
        input_ids=np.zeros(tokens, np.int64),
        position_ids=np.zeros(tokens, np.int64),
        slots=np.full(tokens, NO_SLOT, np.int64),
        seen_slots=np.zeros(seen, np.int64),
        seen_positions=np.zeros(seen, np.int64),
        is_ancestor=np.zeros((*tokens, num_seen), np.bool_),
        where=where,
        num_logits=max(sum(int(run.wants_logits.sum()) for run in line) for line in lines),
    )
    for number, line in enumerate(lines):
        where.update(_fill_in(packed, number, line))
    return packed


def _one(tree: PrefixTree, node: CachedToken) -> Packed:
    """The same for a single token of which logits are wanted, the most frequent case: it sees all there is to see."""
    slots = tree.slots_to(node)[None]
    return Packed(
        input_ids=np.array([[node.token]]),
        position_ids=np.array([[node.position]]),
        slots=slots[:, -1:],
        seen_slots=slots,
        seen_positions=np.arange(slots.shape[1])[None],
        is_ancestor=np.ones((1, *slots.shape), np.bool_),
        where={node: (0, 0)},
        num_logits=1,
    )


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
            if len(longest.nodes) > room:
                line.append(longest.part(0, room))
                insort(left, longest.part(room), key=_length)
            else:
                line.append(longest)
        lines.append(line)
    return lines


def _length(run: _Run) -> int:
    return len(run.nodes)


def _run(tree: PrefixTree, feed: Feed) -> _Run:
    """The new tokens of a conversation, and the mask over what they see: what their parents see, and themselves."""
    nodes = feed.nodes
    row_of = {node: row for row, node in enumerate(nodes)}
    before = {
        parent: tree.slots_to(parent)
        for parent in dict.fromkeys(node.parent for node in nodes)
        if parent is not None and parent not in row_of
    }
    slots = np.array([node.slot for node in nodes])
    is_seen = np.zeros(tree.num_slots, np.bool_)
    is_seen[slots] = True
    for parent_slots in before.values():
        is_seen[parent_slots] = True
    seen_slots = np.flatnonzero(is_seen)
    column_of = np.empty(tree.num_slots, np.int64)
    column_of[seen_slots] = np.arange(len(seen_slots))
    columns_before = {parent: column_of[parent_slots] for parent, parent_slots in before.items()}
    positions = np.empty(len(seen_slots), np.int64)
    for columns in columns_before.values():
        positions[columns] = np.arange(len(columns))
    own = column_of[slots]
    positions[own] = [node.position for node in nodes]
    is_ancestor = np.zeros((len(nodes), len(seen_slots)), np.bool_)
    for row, node in sorted(enumerate(nodes), key=lambda each: each[1].position):
        assert node.parent is not None
        if node.parent in row_of:
            is_ancestor[row] = is_ancestor[row_of[node.parent]]
        else:
            is_ancestor[row, columns_before[node.parent]] = True
        is_ancestor[row, own[row]] = True
    wants_logits = np.arange(len(nodes)) >= len(feed.without_logits)
    return _Run(nodes, wants_logits, is_ancestor, seen_slots, positions)


def _fill_in(packed: Packed, line: int, runs: Sequence[_Run]) -> dict[CachedToken, tuple[int, int]]:
    """Fills in a line of `packed`: first the tokens of which no logits are wanted; returns where the others are."""
    nodes = [node for run in runs for node in run.nodes]
    wants_logits = np.concatenate([run.wants_logits for run in runs])
    num_padding = packed.input_ids.shape[1] - len(nodes)
    columns = np.empty(len(nodes), np.int64)
    columns[np.argsort(wants_logits, kind="stable")] = np.arange(num_padding, packed.input_ids.shape[1])
    packed.input_ids[line, columns] = [node.token for node in nodes]
    packed.position_ids[line, columns] = [node.position for node in nodes]
    packed.slots[line, columns] = [node.slot for node in nodes]
    packed.seen_slots[line] = runs[0].seen_slots[0]
    packed.is_ancestor[line, :num_padding, 0] = True  # it attends to something, or its softmax would be undefined
    first_token = first_seen = 0
    for run in runs:
        of_run, end_seen = columns[first_token : first_token + len(run.nodes)], first_seen + len(run.seen_slots)
        packed.seen_slots[line, first_seen:end_seen] = run.seen_slots
        packed.seen_positions[line, first_seen:end_seen] = run.seen_positions
        packed.is_ancestor[line, of_run, first_seen:end_seen] = run.is_ancestor
        first_token, first_seen = first_token + len(run.nodes), end_seen
    asked = np.flatnonzero(wants_logits).tolist()
    return {nodes[index]: (line, column) for index, column in zip(asked, columns[asked].tolist(), strict=True)}
