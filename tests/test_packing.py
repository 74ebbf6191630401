"""Layout and mask of a forward pass."""

import numpy as np
import pytest

from langchain_rain.engines import packing
from langchain_rain.engines.packing import Feed, in_passes, pack
from langchain_rain.engines.prefix_tree import NO_SLOT, CachedToken, PrefixTree
from tests.test_prefix_tree import hold, tokens_to


def grown(*sequences: tuple[int, ...]) -> tuple[PrefixTree, list[list[CachedToken]]]:
    tree = PrefixTree(max_tokens=9999)
    return tree, [tokens_to(end) for end in hold(tree, *sequences)]


def test_siblings_stand_side_by_side_and_see_their_common_beginning_but_not_each_other() -> None:
    tree, ((root, first), (_, second)) = grown((7, 8), (7, 9))  # slots 0, 1 and 2
    packed = pack(tree, [Feed(without_logits=[root], with_logits=[first, second])])
    assert packed.input_ids.tolist() == [[7, 8, 9]]
    assert packed.position_ids.tolist() == [[0, 1, 1]]
    assert packed.slots.tolist() == [[0, 1, 2]]
    assert packed.seen_slots.tolist() == [[0, 1, 2]]
    assert packed.is_ancestor.astype(int).tolist() == [
        [
            [1, 0, 0],
            [1, 1, 0],
            [1, 0, 1],
        ]
    ]
    assert packed.seen_positions.tolist() == [[0, 1, 1]]
    assert packed.where == {first: (0, 1), second: (0, 2)}
    assert packed.num_logits == 2


def test_slots_that_no_new_token_sees_take_no_part() -> None:
    tree, ((root, first), (_, second)) = grown((7, 8), (7, 9))
    packed = pack(tree, [Feed(without_logits=[], with_logits=[second])])
    assert packed.seen_slots.tolist() == [[0, 2]]
    assert packed.seen_positions.tolist() == [[0, 1]]
    assert (root.slot, first.slot, second.slot) == (0, 1, 2)


def test_new_tokens_see_cached_ones_in_any_order_of_columns() -> None:
    tree, ((root, middle, leaf),) = grown((7, 8, 9))
    # The middle one is asked about, so it stands behind its own child.
    packed = pack(tree, [Feed(without_logits=[leaf], with_logits=[middle])])
    assert packed.slots.tolist() == [[2, 1]]
    assert packed.where == {middle: (0, 1)}
    assert packed.seen_slots.tolist() == [[0, 1, 2]]
    assert packed.is_ancestor.astype(int).tolist() == [[[1, 1, 1], [1, 1, 0]]]
    assert packed.seen_positions.tolist() == [[root.position, 1, 2]]


def test_conversations_share_lines_of_the_same_length_and_see_nothing_of_each_other() -> None:
    tree, ((*before, last), (only,)) = grown((7, 8, 9, 6), (5,))
    packed = pack(tree, [Feed(before, [last]), Feed([], [only])])
    # Five tokens in two lines: the short one's and two of the long one's, then the rest, padded at its beginning.
    assert packed.input_ids.tolist() == [[7, 8, 5], [0, 9, 6]]
    assert packed.position_ids.tolist() == [[0, 1, 0], [0, 2, 3]]
    assert packed.slots.tolist() == [[0, 1, 4], [NO_SLOT, 2, 3]]
    # The first line sees fewer slots, so it names its first one again, and nothing attends to that.
    assert packed.seen_slots.tolist() == [[4, 0, 1, 4], [0, 1, 2, 3]]
    assert packed.seen_positions.tolist() == [[0, 0, 1, 0], [0, 1, 2, 3]]
    assert packed.is_ancestor.astype(int).tolist() == [
        [[0, 1, 0, 0], [0, 1, 1, 0], [1, 0, 0, 0]],
        [[1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]],  # padding attends to the first slot, whatever it is
    ]
    assert packed.where == {only: (0, 2), last: (1, 2)}
    assert packed.num_logits == 1


def test_conversations_have_a_line_each_if_they_are_of_the_same_length_or_when_asked_to() -> None:
    tree, (first, second) = grown((7, 8), (5, 6, 4))
    assert pack(tree, [Feed(first, []), Feed(second[:2], [])]).slots.tolist() == [[0, 1], [2, 3]]
    unlike = [Feed(first[:1], []), Feed(second, [])]
    assert pack(tree, unlike).slots.tolist() == [[0, 2], [3, 4]]
    packed = pack(tree, unlike, in_shared_lines=False)
    assert packed.input_ids.tolist() == [[0, 0, 7], [5, 6, 4]]
    assert packed.seen_slots.tolist() == [[0, 0, 0], [2, 3, 4]]


@pytest.mark.parametrize("seed", range(30))
def test_lines_hold_every_token_once_with_its_ancestors_and_no_line_holds_more_than_two_conversations(
    seed: int,
) -> None:
    random = np.random.default_rng(seed)
    num_feeds = int(random.integers(1, 9))
    # Each begins with a token of its own.
    tree, paths = grown(
        *(
            (100 + number, *random.integers(3, size=random.integers(0, 30)).tolist())
            for number in range(num_feeds)
            for _ in range(3)
        )
    )
    on_path = {node: path[: index + 1] for path in paths for index, node in enumerate(path)}
    feeds, ancestors = [], {}
    for number in range(num_feeds):
        own = [node for node in on_path if on_path[node][0].token == 100 + number]
        nodes = [node for node in own if random.random() < 0.5] or own[-1:]
        num_asked = int(random.integers(len(nodes) + 1))
        feeds.append(Feed(nodes[num_asked:], nodes[:num_asked]))
        ancestors.update({node: {(each.slot, each.position) for each in on_path[node]} for node in nodes})
    packed = pack(tree, feeds)
    num_lines, num_tokens = packed.input_ids.shape
    node_in = {node.slot: node for node in ancestors}
    places = {
        node_in[slot]: (line, column)
        for line, slots in enumerate(packed.slots.tolist())
        for column, slot in enumerate(slots)
        if slot != NO_SLOT
    }
    assert places.keys() == ancestors.keys()
    assert (packed.slots != NO_SLOT).sum() == len(ancestors)
    assert num_lines * (num_tokens - 1) < len(ancestors)  # less than a token of padding in a line
    assert packed.where == {node: places[node] for feed in feeds for node in feed.with_logits}
    for node, place in places.items():
        line, _ = place
        sees = packed.is_ancestor[place]
        seen = np.stack([packed.seen_slots[line], packed.seen_positions[line]], axis=1)[sees]
        assert sorted(map(tuple, seen.tolist())) == sorted(ancestors[node])
        assert (packed.input_ids[place], packed.position_ids[place]) == (node.token, node.position)
    assert all(column >= num_tokens - packed.num_logits for _, column in packed.where.values())
    assert packed.is_ancestor.any(axis=2).all()
    first_of = {node.slot: path[0].token for node, path in on_path.items()}
    assert all(len({first_of[slot] for slot in line}) <= 2 for line in packed.seen_slots.tolist())


def test_all_conversations_go_through_in_one_pass_unless_that_reads_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    _, paths = grown((1, *range(39)), (2, *range(39)), (3, *range(29)), (4,), (5,))
    feeds = [Feed([], path[-1:]) for path in paths]
    long, as_long, shorter, one, other = feeds
    assert in_passes(feeds) == [feeds]
    assert in_passes([]) == []
    monkeypatch.setattr(packing, "MAX_SLOTS_READ", 120)
    assert in_passes(feeds) == [[long, as_long, shorter], [one, other]]  # 3 * 40, and what is far shorter apart
    monkeypatch.setattr(packing, "MAX_SLOTS_READ", 80)
    assert in_passes([one, shorter, long, as_long]) == [[long, as_long], [shorter], [one]]
    monkeypatch.setattr(packing, "MAX_SLOTS_READ", 1)
    assert in_passes(feeds[:2]) == [[long], [as_long]]


def test_what_follows_new_tokens_of_others_goes_through_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "MAX_SLOTS_READ", 1)
    _, ((*trunk, first), (*_, second), alone) = grown((1, 2, 3, 4), (1, 2, 5), (6,))
    on_trunk, beside, apart = Feed(trunk, [first]), Feed([], [second]), Feed([], alone)
    assert in_passes([beside, apart, on_trunk]) == [[beside, on_trunk], [apart]]
