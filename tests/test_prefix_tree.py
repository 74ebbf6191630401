"""Which tokens are cached, and which are forgotten for them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_rain.engines import prefix_tree
from langchain_rain.engines.prefix_tree import SPARE_ENTRIES, CachedToken, PrefixTree


def texts(tree: PrefixTree) -> set[tuple[int, ...]]:
    """The token sequences that are cached whole, ends of no longer one."""
    return {tuple(token.token for token in tokens_to(node)) for node in tree._cached() if not node.children}


def tokens_to(node: CachedToken) -> list[CachedToken]:
    path: list[CachedToken] = []
    ancestor = node
    while ancestor.parent is not None:
        path.append(ancestor)
        ancestor = ancestor.parent
    return path[::-1]


def hold(tree: PrefixTree, *sequences: tuple[int, ...]) -> list[CachedToken]:
    """Asks for sequences in a step of their own; returns their ends, which are held."""
    tree.begin_step()
    new: list[CachedToken] = []
    ends = [tree.link(tree.root, sequence, new) for sequence in sequences]
    for end in ends:
        tree.hold(end)
    tree.give_slots(new)
    return ends


def ask(tree: PrefixTree, *sequences: tuple[int, ...]) -> list[CachedToken]:
    """The same, and lets them go."""
    ends = hold(tree, *sequences)
    for end in ends:
        tree.release(end)
    return ends


def test_a_path_has_a_slot_of_its_own_for_each_token_in_its_position() -> None:
    tree = PrefixTree(max_tokens=10)
    (end,) = ask(tree, (7, 8, 7))
    path = tokens_to(end)
    assert [node.token for node in path] == [7, 8, 7]
    assert [node.position for node in path] == [0, 1, 2]
    assert [node.slot for node in path] == [0, 1, 2]
    assert tree.slots_to(end).tolist() == [0, 1, 2]
    assert tree.slots_to(tree.root).tolist() == []


def test_sequences_share_the_tokens_of_their_common_beginning() -> None:
    tree = PrefixTree(max_tokens=10)
    first, second = ask(tree, (1, 2, 3), (1, 2, 4, 5))
    assert tokens_to(first)[:2] == tokens_to(second)[:2]
    assert tree.num_cached == 5
    assert ask(tree, (1, 2, 3)) == [first]  # rewinding is asking for less


def test_the_same_token_after_another_beginning_is_another_one() -> None:
    first, second = ask(PrefixTree(max_tokens=10), (1, 3), (2, 3))
    assert first is not second


def test_the_least_recently_used_leaf_is_forgotten_and_its_slot_used_again() -> None:
    tree = PrefixTree(max_tokens=3)
    (first,), (second,), (third,) = (ask(tree, (token,)) for token in (1, 2, 3))
    slot = second.slot
    ask(tree, (1,))
    (fourth,) = ask(tree, (4,))
    assert texts(tree) == {(1,), (3,), (4,)}
    assert fourth.slot == slot
    assert (first.is_cached, second.is_cached, third.is_cached) == (True, False, True)


def test_a_token_is_forgotten_only_after_those_that_follow_it() -> None:
    tree = PrefixTree(max_tokens=3)
    ask(tree, (1, 2, 3))
    ask(tree, (4,))
    assert texts(tree) == {(1, 2), (4,)}
    ask(tree, (5, 6))
    assert texts(tree) == {(4,), (5, 6)}  # 2 and then 1, which it left behind


def test_what_is_held_is_not_forgotten_though_it_is_older() -> None:
    tree = PrefixTree(max_tokens=4)
    (end,) = hold(tree, (1, 2))
    ask(tree, (3, 4))
    ask(tree, (5,))
    assert texts(tree) == {(1, 2), (3,), (5,)}
    assert tree.num_held == 2
    tree.release(end)
    assert tree.num_held == 0
    ask(tree, (6, 7, 8, 9))
    assert texts(tree) == {(6, 7, 8, 9)}


def test_what_is_held_twice_is_held_until_it_is_released_twice() -> None:
    tree = PrefixTree(max_tokens=9)
    first, second = hold(tree, (1, 2), (1, 2, 3))
    assert tree.num_held == 3
    tree.release(second)
    assert tree.num_held == 2
    tree.release(first)
    assert tree.num_held == 0


def test_the_last_token_that_is_there_is_found_and_nothing_is_linked_in() -> None:
    tree = PrefixTree(max_tokens=3)
    ask(tree, (1, 2))
    assert [each.token for each in tokens_to(tree.find(tree.root, (1, 2, 3)))] == [1, 2]
    assert tree.find(tree.root, (4, 5)) is tree.root
    assert texts(tree) == {(1, 2)}


def test_no_more_tokens_are_linked_in_than_are_allowed() -> None:
    tree = PrefixTree(max_tokens=9)
    ask(tree, (1, 2))
    tree.begin_step()
    new: list[CachedToken] = []
    ends = [tree.link(tree.root, sequence, new, 3) for sequence in ((1, 2, 3, 4), (1, 2, 3, 5, 6), (1, 2, 3, 4))]
    for end in ends:
        tree.hold(end)
    tree.give_slots(new)
    assert [[each.token for each in tokens_to(end)] for end in ends] == [[1, 2, 3, 4], [1, 2, 3, 5], [1, 2, 3, 4]]
    assert texts(tree) == {(1, 2, 3, 4), (1, 2, 3, 5)}


def test_what_is_not_asked_again_is_forgotten_first_up_to_where_it_branches_off() -> None:
    # Two questions share 1 and 2; their ends are let go. 9 is older, and kept all the same.
    tree = PrefixTree(max_tokens=7)
    ask(tree, (9,))
    for question in ask(tree, (1, 2, 3, 4), (1, 2, 5, 6)):
        tree.forget_first(question)
    ask(tree, (7, 8, 7, 8))
    assert texts(tree) == {(9,), (1, 2), (7, 8, 7, 8)}


def test_what_somebody_else_holds_is_not_forgotten_first() -> None:
    tree = PrefixTree(max_tokens=4)
    (longer,) = hold(tree, (1, 2, 3))
    (shorter,) = ask(tree, (1, 2))
    tree.forget_first(shorter)
    tree.release(longer)
    ask(tree, (4, 5))
    assert texts(tree) == {(1, 2), (4, 5)}


def test_lineages_that_part_do_not_share_what_follows() -> None:
    tree = PrefixTree(max_tokens=99)
    (trunk,) = hold(tree, (1, 2))
    tree.slots_to(trunk)
    first, second = hold(tree, (1, 2, 3), (1, 2, 4))
    assert tree.slots_to(first).tolist() == [0, 1, 2]
    assert tree.slots_to(second).tolist() == [0, 1, 3]
    (longer,) = hold(tree, (1, 2, 3, 5, 6, 7, 8))
    assert tree.slots_to(longer).tolist() == [0, 1, 2, 4, 5, 6, 7]
    assert tree.slots_to(first).tolist() == [0, 1, 2]


def test_lineages_of_many_branches_take_no_more_than_their_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefix_tree, "MAX_LINEAGE_ENTRIES", 100)
    monkeypatch.setattr(prefix_tree, "LINEAGE_ENTRIES_PER_TOKEN", 0)
    tree = PrefixTree(max_tokens=99)
    branches = hold(tree, *((1, 2, 3, 4, number) for number in range(40)))
    most = 0
    for number, branch in enumerate(branches):
        assert tree.slots_to(branch).tolist() == [0, 1, 2, 3, 4 + number]
        arrays = {id(each.lineage): len(each.lineage.slots) for each in branches if each.lineage is not None}
        most = max(most, sum(arrays.values()))
    assert 80 < most <= 100  # nearly ten branches of five tokens, with room for as many again


def test_a_way_is_found_again_from_where_others_part_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefix_tree, "MAX_LINEAGE_ENTRIES", 0)
    monkeypatch.setattr(prefix_tree, "LINEAGE_ENTRIES_PER_TOKEN", 0)  # each new one drops the others
    tree = PrefixTree(max_tokens=9999)
    trunk = tuple(range(2000))
    first, second, third = hold(tree, *((*trunk, number) for number in (1, 2, 3)))
    assert tree.slots_to(first).tolist() == [*range(2000), 2000]
    fork = first.parent
    assert fork is not None
    assert fork.lineage is first.lineage
    assert tree.slots_to(second).tolist() == [*range(2000), 2001]
    assert (first.lineage, second.lineage is not None) == (None, True)
    assert tree.slots_to(third).tolist() == [*range(2000), 2002]


def test_compaction_moves_what_is_left_to_the_front_in_order() -> None:
    tree = PrefixTree(max_tokens=6)
    ask(tree, (1,))
    ask(tree, (2, 3))
    ask(tree, (4, 5))
    (kept,) = ask(tree, (2, 3))
    assert tree.slots_to(kept).tolist() == [1, 2]
    tree.forget(2)  # 1 and 5
    assert tree.compact() == [1, 2, 3]
    assert tree.slots_to(kept).tolist() == [0, 1]
    assert tree.num_slots == tree.num_cached == 3
    (more,) = ask(tree, (2, 3, 6))
    assert tree.slots_to(more).tolist() == [0, 1, 3]


def test_nothing_is_cached_any_more_after_all_is_cleared() -> None:
    tree = PrefixTree(max_tokens=6)
    ends = [*hold(tree, (1, 2)), *ask(tree, (3,))]
    tree.clear()
    assert not any(end.is_cached for end in ends)
    assert (tree.num_cached, tree.num_held, tree.num_slots, texts(tree)) == (0, 0, 0, set())
    ask(tree, (1, 2))
    assert texts(tree) == {(1, 2)}


def test_the_queue_of_what_may_be_forgotten_stays_short_though_nothing_is() -> None:
    tree = PrefixTree(max_tokens=99)
    for _ in range(1000):
        ask(tree, (1, 2), (3,))
    assert len(tree._leaves) <= 2 * 3 + SPARE_ENTRIES + 1
    tree.max_tokens = 3
    ask(tree, (4,))
    assert texts(tree) == {(4,), (3,), (1,)}


SEQUENCES = st.lists(st.integers(0, 2), min_size=1, max_size=6).map(tuple)


@given(
    max_tokens=st.integers(8, 20),
    steps=st.lists(
        st.tuples(st.lists(SEQUENCES, min_size=1, max_size=4), st.booleans(), st.integers(0, 5)), max_size=15
    ),
)
def test_slots_are_never_shared_and_held_tokens_stay(
    max_tokens: int, steps: list[tuple[list[tuple[int, ...]], bool, int]]
) -> None:
    tree = PrefixTree(max_tokens)
    held: list[tuple[CachedToken, tuple[int, ...]]] = []
    for sequences, is_passing, num_released in steps:
        tree.begin_step()
        for sequence in sequences:
            new: list[CachedToken] = []
            found = tree.find(tree.root, sequence)
            tree.hold(found)
            missing = sequence[found.position + 1 :]
            if tree.num_held + len(missing) <= max_tokens:
                end = tree.link(found, missing, new)
                tree.hold(end)
                tree.give_slots(new)
                held.append((end, sequence))
            tree.release(found)
        for _ in range(min(num_released, len(held))):
            end, _ = held.pop(0)
            tree.release(end)
            if is_passing:
                tree.forget_first(end)
        cached = tree._cached()
        slots = [node.slot for node in cached]
        assert len(slots) == len(set(slots)) == tree.num_cached <= tree.peak_num_cached <= max_tokens
        assert max(slots, default=-1) < tree.num_slots <= max_tokens
        for end, sequence in held:
            path = tokens_to(end)
            assert tuple(node.token for node in path) == sequence
            assert tree.slots_to(end).tolist() == [node.slot for node in path]
            assert set(path) <= set(cached)
        assert tree.num_held == len({node for end, _ in held for node in tokens_to(end)})
    for end, _ in held:
        tree.release(end)
    tree.forget(max_tokens)
    assert tree.num_cached == 0  # so every leaf that nobody held was in the queue


@pytest.mark.parametrize("length", [1, 40])
def test_slots_of_a_chain_are_those_of_its_tokens_however_it_grows(length: int) -> None:
    tree = PrefixTree(max_tokens=1000)
    sequence: tuple[int, ...] = ()
    for _ in range(5):
        sequence += tuple(range(length))
        (end,) = hold(tree, sequence)
        assert np.array_equal(tree.slots_to(end), [node.slot for node in tokens_to(end)])
