"""Which tokens are cached, and which are forgotten for them."""

from hypothesis import given
from hypothesis import strategies as st

from langchain_rain.engines.prefix_tree import TRASH_SLOT, CachedToken, PrefixTree


def texts(tree: PrefixTree) -> set[tuple[int, ...]]:
    """The token sequences that are cached whole, ends of no longer one."""
    return {tuple(token.token for token in tokens_to(leaf)) for leaf in tree._leaves()}


def tokens_to(node: CachedToken) -> list[CachedToken]:
    path: list[CachedToken] = []
    ancestor: CachedToken | None = node
    while ancestor is not None and ancestor.position >= 0:
        path.append(ancestor)
        ancestor = ancestor.parent
    return path[::-1]


def ask(tree: PrefixTree, *sequences: tuple[int, ...]) -> list[list[CachedToken]]:
    """Asks for sequences in one step."""
    tree.begin_step()
    return [tree.path(sequence) for sequence in sequences]


def test_a_path_has_a_slot_of_its_own_for_each_token_in_its_position() -> None:
    tree = PrefixTree(max_tokens=10)
    (path,) = ask(tree, (7, 8, 7))
    assert [node.token for node in path] == [7, 8, 7]
    assert [node.position for node in path] == [0, 1, 2]
    assert [node.slot for node in path] == [TRASH_SLOT + 1, TRASH_SLOT + 2, TRASH_SLOT + 3]
    assert tree.slots_before(path[2]) == [path[1].slot, path[0].slot]
    assert tree.slots_before(path[0]) == []


def test_sequences_share_the_tokens_of_their_common_beginning() -> None:
    tree = PrefixTree(max_tokens=10)
    first, second = ask(tree, (1, 2, 3), (1, 2, 4, 5))
    assert first[:2] == second[:2]
    assert tree.num_cached == 5
    assert ask(tree, (1, 2, 3)) == [first]  # rewinding is asking for less


def test_the_same_token_after_another_beginning_is_another_one() -> None:
    first, second = ask(PrefixTree(max_tokens=10), (1, 3), (2, 3))
    assert first[1] is not second[1]


def test_the_least_recently_used_leaf_is_forgotten_and_its_slot_used_again() -> None:
    tree = PrefixTree(max_tokens=3)
    (first,), (second,), (third,) = (ask(tree, (token,))[0] for token in (1, 2, 3))
    ask(tree, (1,))
    (fourth,) = ask(tree, (4,))[0]
    assert texts(tree) == {(1,), (3,), (4,)}
    assert fourth.slot == second.slot
    assert first.slot != third.slot


def test_a_token_is_forgotten_only_after_those_that_follow_it() -> None:
    tree = PrefixTree(max_tokens=3)
    ask(tree, (1, 2, 3))
    ask(tree, (4,))
    assert texts(tree) == {(1, 2), (4,)}
    ask(tree, (5, 6))
    assert texts(tree) == {(4,), (5, 6)}  # 2 and then 1, which it left behind


def test_a_sixteenth_is_forgotten_at_once() -> None:
    tree = PrefixTree(max_tokens=64)
    for token in range(64):
        ask(tree, (token,))
    ask(tree, (100,))
    assert tree.num_cached == 64 - 64 // 16 + 1


def test_what_a_step_asks_for_is_kept_even_beyond_the_limit() -> None:
    tree = PrefixTree(max_tokens=2)
    ask(tree, (9,))
    ask(tree, (1, 2, 3), (4, 5))
    assert texts(tree) == {(1, 2, 3), (4, 5)}
    assert tree.num_cached == tree.peak_num_cached == 5
    ask(tree, (6,))
    assert tree.num_cached == 2  # the next step gives back what was too much


def test_what_is_kept_for_those_who_go_on_from_it_is_not_forgotten_for_others() -> None:
    tree = PrefixTree(max_tokens=2)
    (path,) = ask(tree, (1, 2))
    tree.begin_step(kept=path[-1:])
    tree.path((3, 4))
    assert texts(tree) == {(1, 2), (3, 4)}
    tree.begin_step()
    tree.path((5,))
    assert (1, 2) not in texts(tree)


def test_a_step_that_has_found_nothing_to_forget_does_not_look_again() -> None:
    num_searches = 0

    class Counting(PrefixTree):
        def _leaves(self) -> list[CachedToken]:
            nonlocal num_searches
            num_searches += 1
            return super()._leaves()

    tree = Counting(max_tokens=2)
    ask(tree, tuple(range(50)))
    assert num_searches == 1
    ask(tree, (60,))
    assert num_searches == 2


SEQUENCES = st.lists(st.integers(0, 2), min_size=1, max_size=6).map(tuple)


@given(max_tokens=st.integers(1, 20), steps=st.lists(st.lists(SEQUENCES, min_size=1, max_size=4), max_size=12))
def test_slots_are_never_shared_and_no_more_than_the_limit_or_the_largest_step_needs(
    max_tokens: int, steps: list[list[tuple[int, ...]]]
) -> None:
    tree = PrefixTree(max_tokens)
    largest = 0
    for sequences in steps:
        paths = ask(tree, *sequences)
        beginnings = {sequence[:end] for sequence in sequences for end in range(1, len(sequence) + 1)}
        largest = max(largest, len(beginnings))
        for sequence, path in zip(sequences, paths, strict=True):
            assert tuple(node.token for node in path) == sequence
            assert tree.path(sequence) == path  # nothing that the step asked for has been forgotten
        cached = {id(node): node for leaf in tree._leaves() for node in tokens_to(leaf)}
        slots = [node.slot for node in cached.values()]
        assert len(slots) == len(set(slots)) == tree.num_cached
        assert TRASH_SLOT not in slots
        assert max(slots) < tree.num_slots
        assert tree.num_cached <= tree.peak_num_cached <= max(max_tokens, largest)


def test_what_is_not_asked_again_is_forgotten_first_up_to_where_it_branches_off() -> None:
    # Two questions share 1 and 2; their ends are let go. 9 is older, and kept all the same.
    tree = PrefixTree(max_tokens=7)
    ask(tree, (9,))
    straight, swapped = ask(tree, (1, 2, 3, 4), (1, 2, 5, 6))
    for question in (straight, swapped):
        tree.forget_first(question[-1])
    ask(tree, (7, 8, 7, 8))
    assert texts(tree) == {(9,), (1, 2), (7, 8, 7, 8)}
