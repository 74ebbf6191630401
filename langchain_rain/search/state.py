"""What one search knows, and the requests that follow from it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from langchain_rain.errors import EngineError
from langchain_rain.search.config import SearchConfig
from langchain_rain.search.protocol import (
    Committed,
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
from langchain_rain.search.tree import Node, Tree, assign_priors, ranked_children

MIN_CLAUSE_TOKENS = 4
"""Tokens that a clause has at least before a mark ends it: the number of an item and a line end are none."""

MIN_REPAIR_TEMPERATURE = 0.7
"""Where a draft has failed nothing is sampled colder: the next best text would be the one that failed."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of the answer that was moved past and is not committed yet.

    Attributes:
        before: the root it was written after.
        node: its end.
        verdict: what the judge says of all up to there.
    """

    before: Node
    node: Node
    verdict: Verdict


@dataclass(slots=True, eq=False)
class Search:
    """What one search knows. Made by the caller, advanced by `adaptive.generate` or `paper.generate`.

    Attributes:
        context: the conversation of the engine that writes.
        judge: what answers are judged by.
        config: the numbers.
        seed: from which the seeds of all requests are derived.
        transcript: what stands before the answer when it is judged, verbatim.
        verdicts: judgements so far, by the text of the answer, and whether it was judged as a finished one.
        satisfied_text: what is committed up to the last commit that was judged well.
        num_satisfied_tokens: how many tokens that is.
        leaves: where the simulations under way have arrived; none between two rounds of them.
        last_leaf: the leaf of the simulation before.
        ahead: what is asked ahead, by the node and the kind of the request; None where that brought nothing.
        held: segments up to the root that are not committed yet, oldest first.
        drafted_ahead: the clause after the root, if it was written while what is before it was judged.
        num_passed: segments that passed since the last one that failed.
        num_taken_back: segments that were taken back since the last commit.
        seeks_end: whether a rollout goes on to the end of the answer, as that is what has failed.
        num_simulations_committed: simulations up to the last commit.
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
    leaves: list[Node] = field(default_factory=list)
    last_leaf: Tokens = ()
    ahead: dict[tuple[Node, type], Request | None] = field(default_factory=dict)
    held: list[Segment] = field(default_factory=list)
    drafted_ahead: TokenSet | None = None
    num_passed: int = 0
    num_taken_back: int = 0
    seeks_end: bool = False
    num_simulations_committed: int = 0
    num_simulations: int = 0
    num_rewinds: int = 0
    num_rewound_tokens: int = 0
    num_token_sets: int = 0

    @property
    def judges_ends(self) -> bool:
        """Whether there is a criterion for finished answers, so that no beginning of one is known to satisfy."""
        return "final" in self.judge.applies_to

    @property
    def search_temperature(self) -> float:
        """Of what is sampled to be searched."""
        config = self.config
        return max(config.temperature, MIN_REPAIR_TEMPERATURE) if config.adaptive else config.temperature

    def passes(self, verdict: Verdict) -> bool:
        """Whether a text stands that was judged so, without further simulations."""
        return verdict.value > self.config.value_threshold and verdict.satisfies(self.config.accept_value)

    def allows(self, verdict: Verdict) -> bool:
        """Whether a text may be committed that was judged so, where nothing passes."""
        return verdict.value >= self.config.accept_value and not verdict.is_vetoed

    def take_events(self) -> tuple[Event, ...]:
        """What has happened since it was asked last."""
        events, self.events = tuple(self.events), []
        return events

    def commit(self, node: Node, value: float, *, is_satisfied: bool) -> None:
        """Commits the token set of `node`, for its `value`; whether the text up to its end was judged well."""
        assert node.token_set is not None
        is_satisfied &= node.finish_reason is not None or not self.judges_ends
        num_simulations = self.num_simulations - self.num_simulations_committed
        self.events.append(Committed(node.token_set, value, num_simulations, is_satisfied))
        self.num_simulations_committed = self.num_simulations
        self.num_token_sets += 1
        if is_satisfied:
            self.satisfied_text, self.num_satisfied_tokens = node.text, len(node.prefix)

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
            temperature=self.search_temperature,
            seed=derive_seed(self.seed, Expand, node.prefix, node.num_expansions),
            exclude=frozenset(child.token_set.tokens for child in node.children if child.token_set is not None),
        )

    def rollout_of(self, leaf: Node) -> Rollout:
        """Asks how the text of `leaf` goes on to the end of a clause; of the answer, if no less can be judged.

        With `adaptive` both may be committed together, so they are as long as a clause that is drafted.
        """
        num_written = len(leaf.prefix) - len(self.tree.root.prefix)
        min_tokens = max(0, MIN_CLAUSE_TOKENS - num_written) if self.config.adaptive else 0
        return replace(self._rollout(leaf.prefix, ordinal=0), min_tokens=min_tokens)

    def clause_after(self, tokens: Tokens) -> Rollout:
        """Asks for the clause that follows the root and `tokens`."""
        draft = self._rollout(self.tree.root.prefix + tokens, ordinal=1)
        return replace(draft, min_tokens=MIN_CLAUSE_TOKENS, temperature=self.config.temperature)

    def guided_clause(self, guidance: str, ordinal: int) -> Rollout:
        """Asks for the `ordinal`-th clause after the root that is written under `guidance`."""
        request = self._rollout(self.tree.root.prefix, ordinal=2 + ordinal)
        return replace(request, min_tokens=MIN_CLAUSE_TOKENS, guidance=guidance)

    def _rollout(self, prefix: Tokens, *, ordinal: int) -> Rollout:
        stops_early = "prefix" in self.judge.applies_to and not self.seeks_end
        return Rollout(
            self.context,
            prefix,
            until=self.config.rollout_until if stops_early else (),
            max_tokens=self.config.max_rollout_tokens if stops_early else None,
            temperature=self.search_temperature,
            seed=derive_seed(self.seed, Rollout, prefix, ordinal),
        )

    def nothing_offered(self, request: Expand | Rollout) -> EngineError:
        """What is raised where an engine says nothing though the text has not ended."""
        what = "token set" if isinstance(request, Expand) else "token"
        return EngineError(
            f"The engine offered no {what} after {len(request.prefix)} tokens, though the text has not ended.",
            engine=self.context.engine_name,
            request=type(request).__name__,
        )

    def grow(self, node: Node, token_sets: Sequence[TokenSet]) -> None:
        """Gives `node` the children that it was asked for."""
        node.num_expansions += 1
        for token_set in token_sets:
            node.add_child(token_set)
        self.assign_priors(node)

    def assign_priors(self, node: Node) -> None:
        """Sets the priors of all children of `node`; those of the root are mixed."""
        assign_priors(
            node,
            num_tokens=self.config.token_set_length(node.depth),
            root_mixing=self.config.root_mixing if node is self.tree.root else 0.0,
        )
