"""What one search knows, and the requests that follow from it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from langchain_rain.search.config import SearchConfig
from langchain_rain.search.protocol import (
    Context,
    Event,
    Expand,
    Judge,
    Request,
    Rollout,
    Tokens,
    TokenSet,
    Verdict,
    derive_seed,
)
from langchain_rain.search.tree import Node, Tree, add_children, assign_priors, ranked_children


@dataclass(slots=True, eq=False)
class Search:
    """What one search knows. Made by the caller, advanced by `paper.generate`.

    Attributes:
        context: the conversation of the engine that writes.
        judge: what answers are judged by.
        config: the numbers.
        seed: from which the seeds of all requests are derived.
        transcript: what stands before the answer when it is judged, verbatim.
        verdicts: judgements so far, by the text of the answer, and whether it was judged as a finished one.
        satisfied_text: what is committed up to the last commit that was judged well.
        num_satisfied_tokens: how many tokens that is.
        leaf: where the simulation under way has arrived; None between two simulations.
        last_leaf: the leaf of the simulation before.
        ahead: what is asked ahead, by the node and the kind of the request; None where that brought nothing.
    """

    context: Context
    judge: Judge
    config: SearchConfig
    seed: int
    transcript: str
    tree: Tree = field(default_factory=Tree)
    verdicts: dict[tuple[str, bool], Verdict] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    satisfied_text: str = ""
    num_satisfied_tokens: int = 0
    leaf: Node | None = None
    last_leaf: Tokens = ()
    ahead: dict[tuple[Node, type], Request | None] = field(default_factory=dict)
    num_simulations: int = 0
    num_rewinds: int = 0
    num_rewound_tokens: int = 0
    num_token_sets: int = 0

    @property
    def judges_ends(self) -> bool:
        """Whether there is a criterion for finished answers, so that no beginning of one is known to satisfy."""
        return "final" in self.judge.applies_to

    def decided(self, root: Node) -> Node | None:
        """The best child of `root` if it is visited and valued enough to be committed without further simulations."""
        if not root.children:
            return None
        best = ranked_children(root)[0]
        is_enough = best.visit_count > self.config.min_visits and best.value > self.config.value_threshold
        return best if is_enough else None

    def expansion_of(self, node: Node) -> Expand:
        """Asks for the children of `node`."""
        return self.addition_to(node, num_token_sets=self.config.num_children, num_draws=self.config.num_draws)

    def addition_to(self, node: Node, *, num_token_sets: int, num_draws: int) -> Expand:
        """Asks for children that `node` does not have yet."""
        return Expand(
            self.context,
            node.prefix,
            num_token_sets=num_token_sets,
            num_tokens=self.config.token_set_length(node.depth),
            num_draws=num_draws,
            top_k=self.config.top_k,
            temperature=self.config.temperature,
            seed=derive_seed(self.seed, Expand, node.prefix, node.num_expansions),
            exclude=frozenset(child.token_set.tokens for child in node.children if child.token_set is not None),
        )

    def rollout_of(self, leaf: Node) -> Rollout:
        """Asks how the text of `leaf` goes on to the end of a clause; of the answer, if no less can be judged."""
        stops_early = "prefix" in self.judge.applies_to
        return Rollout(
            self.context,
            leaf.prefix,
            until=self.config.rollout_until if stops_early else (),
            max_tokens=self.config.max_rollout_tokens if stops_early else None,
            temperature=self.config.temperature,
            seed=derive_seed(self.seed, Rollout, leaf.prefix, 0),
        )

    def grow(self, node: Node, token_sets: Sequence[TokenSet]) -> None:
        """Gives `node` the children that it was asked for."""
        node.num_expansions += 1
        add_children(node, token_sets)
        self.assign_priors(node)

    def assign_priors(self, node: Node) -> None:
        """Sets the priors of all children of `node`; those of the root are mixed."""
        assign_priors(
            node,
            num_tokens=self.config.token_set_length(node.depth),
            root_mixing=self.config.root_mixing if node is self.tree.root else 0.0,
        )
