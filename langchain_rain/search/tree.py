"""The search tree: nodes are texts, edges are token sets. Plain arithmetic; nothing here asks or waits."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from langchain_rain.search.protocol import FinishReason, Tokens, TokenSet
from langchain_rain.search.puct import child_priors, puct, running_mean

if TYPE_CHECKING:
    from langchain_rain.search.protocol import Vector


@dataclass(slots=True, eq=False)
class Node:
    """A text that could be the answer so far.

    Attributes:
        prefix: all its tokens after the prompt.
        text: all its text after the prompt.
        token_set: the edge that leads to it; None at the first root.
        depth: number of token sets from the first root; keeps counting when the root moves.
        prior: probability among its siblings.
        visit_count: simulations that went through it.
        effective_visits: `visit_count` and the fractions received from similar siblings.
        value: running mean of the values backed up, in [-1, 1].
        embedding: running mean of its path embeddings; before the first visit that of its token set, or None.
        num_embeddings: number of path embeddings in `embedding`.
        rollout: how the text goes on from here to the end of a clause, once that is known.
        num_expansions: how often it was given children, or none when it was asked for more.
        num_under_way: simulations that have gone through it and are not backed up.
    """

    prefix: Tokens = ()
    text: str = ""
    token_set: TokenSet | None = None
    parent: "Node | None" = None
    depth: int = 0
    prior: float = 1.0
    visit_count: int = 0
    effective_visits: float = 0.0
    value: float = 0.0
    embedding: "Vector | None" = None
    num_embeddings: int = 0
    rollout: TokenSet | None = None
    num_expansions: int = 0
    num_under_way: int = 0
    children: list["Node"] = field(default_factory=list)

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the text ends here; None if it does not."""
        return self.token_set.finish_reason if self.token_set is not None else None

    def add_child(self, token_set: TokenSet) -> "Node":
        """Appends a child; priors are the business of `assign_priors`."""
        child = Node(
            prefix=self.prefix + token_set.tokens,
            text=self.text + token_set.text,
            token_set=token_set,
            parent=self,
            depth=self.depth + 1,
        )
        self.children.append(child)
        return child

    def nodes_along(self, tokens: Tokens) -> list["Node"]:
        """All nodes below this one of which the tokens from here on are a beginning of `tokens`."""
        start, nodes, reached = len(self.prefix), [], [self]
        while reached:
            children = [child for node in reached for child in node.children if len(child.prefix) > len(node.prefix)]
            reached = [child for child in children if child.prefix[start:] == tokens[: len(child.prefix) - start]]
            nodes += reached
        return nodes

    @property
    def is_expanded(self) -> bool:
        """Whether it was asked for children; what was drafted in it may be there before."""
        return self.num_expansions > 0

    @property
    def siblings(self) -> Iterator["Node"]:
        """The other children of its parent."""
        return (node for node in (self.parent.children if self.parent else ()) if node is not self)


@dataclass(slots=True, eq=False)
class Tree:
    """A search tree and its root. The first root counts as visited once: it is expanded without a judgement."""

    root: Node = field(default_factory=lambda: Node(visit_count=1, effective_visits=1.0))

    def path_to(self, node: Node) -> list[Node]:
        """The nodes from the root to `node`, both included."""
        path = [node]
        while path[-1] is not self.root:
            parent = path[-1].parent
            assert parent is not None, "a node outside the tree"
            path.append(parent)
        return path[::-1]

    def move_root(self, child: Node) -> None:
        """Makes `child` the root; its subtree is kept, its siblings are dropped."""
        assert child.parent is self.root
        child.parent = None
        self.root = child

    def take_back_root(self, before: Node) -> None:
        """Makes the node the root again from which it was moved to where it is, and drops that as a dead end."""
        before.children.remove(self.root)
        self.root = before


def assign_priors(node: Node, *, num_tokens: int, root_mixing: float) -> None:
    """Sets the priors of all children of `node`; arguments as for `puct.child_priors`."""
    token_sets = [child.token_set for child in node.children if child.token_set is not None]
    priors = child_priors(token_sets, num_tokens=num_tokens, root_mixing=root_mixing)
    for child, prior in zip(node.children, priors, strict=True):
        child.prior = prior


def best_for_search(node: Node, *, c_puct: float) -> Node:
    """The child that a simulation goes to next: highest PUCT, the first of equals.

    Simulations that are under way side by side count as visits whose value is not known yet (WU-UCT, arXiv 1810.11755).
    """
    num_under_way = sum(child.num_under_way for child in node.children)
    return max(
        node.children,
        key=lambda child: puct(
            prior=child.prior,
            value=child.value,
            effective_visits=child.effective_visits,
            num_under_way=child.num_under_way,
            parent_effective_visits=node.effective_visits + num_under_way,
            c_puct=c_puct,
        ),
    )


def ranked_children(node: Node) -> list[Node]:
    """The children in the order in which they would be committed: most effective visits, ties by value."""
    return sorted(node.children, key=lambda child: (child.effective_visits, child.value), reverse=True)


def backup(path: Sequence[Node], value: float) -> None:
    """Lets every node on the path of a simulation learn its value (RAIN, eq. 3)."""
    for node in path:
        node.value = running_mean(node.value, node.effective_visits, value, 1.0)
        node.effective_visits += 1
        node.visit_count += 1
