import math

import pytest

from langchain_rain.search.protocol import TokenSet
from langchain_rain.search.tree import (
    Node,
    Tree,
    assign_priors,
    backup,
    best_for_search,
    ranked_children,
)


def token_set(token: int, probability: float = 0.5) -> TokenSet:
    return TokenSet((token,), f" {token}", math.log(probability))


def tree_of(num_children: int) -> Tree:
    tree = Tree()
    for each in [token_set(token, 1 / num_children) for token in range(num_children)]:
        tree.root.add_child(each)
    assign_priors(tree.root, num_tokens=1, root_mixing=0)
    return tree


def test_the_first_root_counts_as_visited_once() -> None:
    root = Tree().root
    assert (root.visit_count, root.effective_visits, root.value, root.prefix, root.text) == (1, 1.0, 0.0, (), "")


def test_a_child_continues_the_tokens_the_text_and_the_depth_of_its_parent() -> None:
    parent = Node(prefix=(1, 2), text="one two", depth=3)
    three = TokenSet((3, 4), " three", finish_reason="eos")
    for each in [three]:
        parent.add_child(each)
    (child,) = parent.children
    assert (child.prefix, child.text, child.depth) == ((1, 2, 3, 4), "one two three", 4)
    assert (child.token_set, child.parent, child.finish_reason) == (three, parent, "eos")
    assert (child.visit_count, child.effective_visits, child.value, child.embedding) == (0, 0.0, 0.0, None)


def test_a_root_has_not_ended_and_has_no_siblings() -> None:
    root = Tree().root
    assert root.finish_reason is None
    assert list(root.siblings) == []


def test_siblings_are_the_other_children() -> None:
    first, second, third = tree_of(3).root.children
    assert list(second.siblings) == [first, third]


def test_a_path_runs_from_the_root_to_the_node() -> None:
    tree = tree_of(2)
    child = tree.root.children[1]
    for each in [token_set(7)]:
        child.add_child(each)
    assert tree.path_to(child.children[0]) == [tree.root, child, child.children[0]]
    assert tree.path_to(tree.root) == [tree.root]


def test_a_node_outside_the_tree_has_no_path() -> None:
    with pytest.raises(AssertionError, match="outside the tree"):
        Tree().path_to(Node())


def test_backup_averages_values_along_the_path() -> None:
    tree = tree_of(2)
    child = tree.root.children[0]
    backup([tree.root, child], 1.0)
    backup([tree.root, child], -0.5)
    # the root begins with one visit of value 0: (0 + 1 - 0.5) / 3
    assert (tree.root.visit_count, tree.root.effective_visits, tree.root.value) == (3, 3.0, 0.5 / 3)
    assert (child.visit_count, child.effective_visits, child.value) == (2, 2.0, 0.25)
    assert tree.root.children[1].visit_count == 0


def test_backup_weighs_what_came_from_siblings() -> None:
    node = Node(effective_visits=0.2, value=-1.0)
    backup([node], 1.0)
    assert (node.visit_count, node.effective_visits) == (1, 1.2)
    assert node.value == pytest.approx((-0.2 + 1) / 1.2)


def test_moving_the_root_keeps_the_subtree_and_drops_the_siblings() -> None:
    tree = tree_of(2)
    child, sibling = tree.root.children
    for each in [token_set(7)]:
        child.add_child(each)
    backup([tree.root, child], 1.0)
    tree.move_root(child)
    assert tree.root is child
    assert (child.parent, list(child.siblings)) == (None, [])
    assert (child.visit_count, child.value, child.depth, child.prefix) == (1, 1.0, 1, (0,))
    assert tree.path_to(child.children[0]) == [child, child.children[0]]
    with pytest.raises(AssertionError, match="outside the tree"):
        tree.path_to(sibling)


def test_the_root_moves_only_to_its_child() -> None:
    tree = tree_of(1)
    with pytest.raises(AssertionError):
        tree.move_root(tree.root)


def test_the_first_of_equal_children_is_searched() -> None:
    root = tree_of(3).root
    assert best_for_search(root, c_puct=2) is root.children[0]


def test_a_child_with_visits_and_a_bad_value_gives_way() -> None:
    root = tree_of(2).root
    backup([root, root.children[0]], -1.0)
    # sqrt(2) * 0.5 * 2 / 2 == 0.71 against sqrt(2) * 0.5 * 2 == 1.41
    assert best_for_search(root, c_puct=2) is root.children[1]


def test_without_exploration_the_best_value_is_searched() -> None:
    root = tree_of(3).root
    backup([root, root.children[2]], 0.1)
    assert best_for_search(root, c_puct=0) is root.children[2]


def test_the_most_visited_child_is_best_and_ties_go_by_value_then_order() -> None:
    root = tree_of(5).root
    for child, (visits, value) in zip(
        root.children, [(1.0, 0.5), (2.0, -1.0), (1.0, 0.9), (2.2, -1.0), (1.0, 0.5)], strict=True
    ):
        child.effective_visits, child.value = visits, value
    first, second, third, fourth, fifth = root.children
    assert ranked_children(root) == [fourth, second, third, first, fifth]


def test_nodes_along_some_tokens_are_those_of_all_ways_that_lead_along_them() -> None:
    root = Node()
    whole, first = root.add_child(TokenSet((1, 2), "ab")), root.add_child(TokenSet((1,), "a"))
    (
        root.add_child(TokenSet((), "")),
        root.add_child(TokenSet((1, 2, 3, 4), "abcd")),
        root.add_child(TokenSet((2,), "b")),
    )
    second = first.add_child(TokenSet((2,), "b"))
    third = second.add_child(TokenSet((3,), "c"))
    second.add_child(TokenSet((4,), "d"))
    third.add_child(TokenSet((5,), "e"))
    assert root.nodes_along((1, 2, 3)) == [whole, first, second, third]
    assert second.nodes_along((3,)) == [third]
    assert root.nodes_along((9,)) == []
