"""RAIN as published: the two loops of the paper, in the paper's order.

`generate` is the outer loop (RAIN, algorithm 1): `choose` a token set, commit it, until the text ends.
`simulate` is the inner loop: select, roll out, evaluate, back up. Rewinding is no operation of its own: the next
simulation starts from the root again and asks about a shorter prefix.

A leaf's children are asked for when it is visited again, not before: seeds depend on the path alone, so the trace is
that of expanding at once, and a leaf that is never visited again costs no expansion.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from langchain_rain.errors import BudgetExceededError
from langchain_rain.search import similarity
from langchain_rain.search.lookahead import ask_and_foresee
from langchain_rain.search.protocol import (
    Embed,
    Event,
    FinishReason,
    Round,
    Simulated,
    Steps,
    Tokens,
    TokenSet,
    Transcript,
    Verdict,
    together,
)
from langchain_rain.search.state import Search
from langchain_rain.search.tree import Node, backup, best_for_search, ranked_children

StopReason = FinishReason | Literal["dead_end", "budget"]
"""Why a search ended: its text did, no token set could be accepted, or a budget was spent."""

NUM_ADDITION_DRAWS = 5
"""Draws to find one more distinct token set; "a few" in the paper's words."""

NO_ROLLOUT = TokenSet(tokens=(), text="")


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The answer a search ended with.

    Attributes:
        text: all that was committed.
        tokens: the tokens of all that was committed.
        verdict: the last judgement of `text`; None if a budget was spent before it.
        is_satisfied: whether that judgement lets the answer be given to the caller, the text having ended by itself.
        stop_reason: why the search ended.
        events: what has happened since the last round.
    """

    text: str
    tokens: Tokens
    verdict: Verdict | None
    is_satisfied: bool
    stop_reason: StopReason
    num_token_sets: int
    num_simulations: int
    num_rewinds: int
    num_rewound_tokens: int
    events: tuple[Event, ...] = ()


def generate(search: Search) -> Steps[SearchResult]:
    """The outer loop: commits one token set after another until the text ends (RAIN, algorithm 1)."""
    return (yield from grow_until_end(search, extend))


def grow_until_end(search: Search, extend: Callable[[Search], Steps[StopReason | None]]) -> Steps[SearchResult]:
    """Lets `extend` commit more and more of the answer until it tells why that ends; judges the whole."""
    stop_reason: StopReason | None = None
    verdict: Verdict | None = None
    try:
        while stop_reason is None:
            stop_reason = yield from extend(search)
        yield Round((), ahead=())  # nothing that was asked ahead is of use any more
        verdict = yield from evaluate(search, search.tree.root.text, is_finished=True)
    except BudgetExceededError:
        stop_reason = "budget"
    ended_by_itself = stop_reason not in ("dead_end", "budget")
    is_satisfied = verdict is not None and ended_by_itself and verdict.satisfies(search.config.accept_value)
    return result_of(search, search.tree.root, verdict, stop_reason=stop_reason, is_satisfied=is_satisfied)


def result_of(
    search: Search, node: Node, verdict: Verdict | None, *, stop_reason: StopReason, is_satisfied: bool
) -> SearchResult:
    """The result of a search that has ended with the text of `node`."""
    return SearchResult(
        text=node.text,
        tokens=node.prefix,
        verdict=verdict,
        is_satisfied=is_satisfied,
        stop_reason=stop_reason,
        num_token_sets=search.num_token_sets,
        num_simulations=search.num_simulations,
        num_rewinds=search.num_rewinds,
        num_rewound_tokens=search.num_rewound_tokens,
        events=tuple(search.events),
    )


def extend(search: Search) -> Steps[StopReason | None]:
    """Chooses the next token set, commits it and moves the root; returns why the text ends with it, if it does."""
    is_above_threshold = yield from choose(search)
    chosen, is_satisfied = yield from accept(search, is_above_threshold=is_above_threshold)
    if chosen is None:
        return "dead_end"
    search.commit(chosen, chosen.value, is_satisfied=is_satisfied)
    search.tree.move_root(chosen)
    return chosen.finish_reason


def choose(search: Search) -> Steps[bool]:
    """Simulates from the root until its best child is visited and valued enough; returns whether it is.

    The root's visits from before it became the root count towards `max_simulations`.
    """
    config, root = search.config, search.tree.root
    if not root.is_expanded:
        yield from grow(search, [root])
    search.assign_priors(root)
    simulations_before = root.visit_count if search.num_token_sets else 0
    at_least = min(config.min_further_simulations, config.max_simulations)
    num_left = max(config.max_simulations - simulations_before, at_least)
    while num_left > 0:
        num_left -= len((yield from simulate(search, min(config.num_parallel_leaves, num_left))))
        if search.decided(root) is not None:
            return True
    return False


def accept(search: Search, *, is_above_threshold: bool) -> Steps[tuple[Node | None, bool]]:
    """The child of the root to commit, and whether the text up to its end was judged well.

    Children are judged directly, without a rollout, where that decides: under a rubric that may veto, and where the
    search ended below `value_threshold` (or that is below `accept_value`) and `accept_value` asks for more than -1.
    None if no child passes.
    """
    config, ranked = search.config, ranked_children(search.tree.root)
    is_enough = is_above_threshold and config.value_threshold >= config.accept_value
    if not search.judge.can_veto and (is_enough or config.accept_value <= -1):
        return ranked[0], is_enough
    for child in ranked:
        verdict = yield from evaluate(search, child.text, is_finished=child.finish_reason is not None)
        # Of this one only a veto is asked, and that there is a judgement.
        stands = is_enough and child is ranked[0] and not verdict.is_abstained
        if search.allows(verdict) or (stands and not verdict.is_vetoed):
            return child, stands or verdict.satisfies(config.accept_value)
    return None, False


@dataclass(frozen=True, slots=True)
class Simulation:
    """A leaf, how its text goes on for the judge, and what the judge says of it."""

    leaf: Node
    rollout: TokenSet
    verdict: Verdict


def simulate(search: Search, num_leaves: int = 1) -> Steps[list[Simulation]]:
    """The inner loop: simulations from the root to a leaf and back (RAIN, section 3.1), up to `num_leaves` at once."""
    leaves = search.leaves = yield from select(search, num_leaves)
    rollouts = yield from roll_out(search, leaves)
    paths = [search.tree.path_to(leaf) for leaf in leaves]
    *verdicts, embeddings = yield from together(
        *(_evaluate_leaf(search, leaf, rollout) for leaf, rollout in zip(leaves, rollouts, strict=True)),
        embed_paths(search, paths, rollouts),
    )
    simulations = []
    for path, rollout, verdict, of_path in zip(paths, rollouts, verdicts, embeddings, strict=True):
        leaf = path[-1]
        backup(path, verdict.value)
        _learn_similarity(search, path[1:], of_path, verdict.value)
        record_simulation(search, leaf.prefix, leaf.text + rollout.text, rollout.text, verdict)
        simulations.append(Simulation(leaf, rollout, verdict))
    search.leaves = []
    return simulations


def select(search: Search, num_leaves: int) -> Steps[list[Node]]:
    """Goes from the root to leaves that have not been judged yet, or are the end of a text; each of them once.

    A root is never a leaf, even if it was committed without a visit because better known siblings were vetoed.
    """
    walkers = [search.tree.root] * num_leaves
    leaves: list[Node] = []
    passed: list[Node] = []
    while walkers:
        yield from grow(search, list(dict.fromkeys(walkers)))
        arrived: list[Node] = []
        for node in walkers:
            child = best_for_search(node, c_puct=search.config.c_puct)
            child.num_under_way += 1
            passed.append(child)
            is_leaf = child.visit_count == 0 or child.finish_reason is not None
            (leaves if is_leaf else arrived).append(child)
        walkers = arrived
    for node in passed:
        node.num_under_way = 0
    return list(dict.fromkeys(leaves))


def grow(search: Search, nodes: Sequence[Node]) -> Steps[None]:
    """Asks for the children of `nodes` that have none; for another one where all are alike and bad (section 3.3)."""
    lacking = [node for node in nodes if not node.is_expanded or _wants_another_child(search, node)]
    if not lacking:
        return
    requests = [
        search.addition_to(node, num_token_sets=1, num_draws=NUM_ADDITION_DRAWS)
        if node.is_expanded
        else search.expansion_of(node)
        for node in lacking
    ]
    replies = yield from ask_and_foresee(search, requests)
    for node, request, token_sets in zip(lacking, requests, replies, strict=True):
        if not node.children and not token_sets:
            raise search.nothing_offered(request)
        search.grow(node, token_sets)


def _wants_another_child(search: Search, node: Node) -> bool:
    config = search.config
    return config.adds_children and similarity.wants_another_child(
        node,
        max_children=config.max_children,
        num_tokens=config.token_set_length(node.depth),
        spread_threshold=config.spread_threshold,
    )


def roll_out(search: Search, leaves: Sequence[Node]) -> Steps[list[TokenSet]]:
    """Continues leaves to the end of a clause, so that there is something to judge (RAIN, section 3.2)."""
    unknown = [leaf for leaf in leaves if leaf.finish_reason is None and leaf.rollout is None]
    if unknown:
        replies = yield from ask_and_foresee(search, [search.rollout_of(leaf) for leaf in unknown])
        for leaf, rollout in zip(unknown, replies, strict=True):
            leaf.rollout = rollout
    return [leaf.rollout if leaf.rollout is not None else NO_ROLLOUT for leaf in leaves]


def _evaluate_leaf(search: Search, leaf: Node, rollout: TokenSet) -> Steps[Verdict]:
    is_finished = (leaf.finish_reason or rollout.finish_reason) is not None
    return (yield from evaluate(search, leaf.text + rollout.text, is_finished=is_finished))


def evaluate(search: Search, text: str, *, is_finished: bool) -> Steps[Verdict]:
    """Judges an answer that begins with `text`, or is it; the same is judged once (RAIN, section 3.2)."""
    key = (text, is_finished and search.judges_ends)
    if key not in search.verdicts:
        search.verdicts[key] = yield from search.judge(Transcript(search.transcript, text, is_finished))
    return search.verdicts[key]


def embed_paths(
    search: Search, paths: Sequence[Sequence[Node]], rollouts: Sequence[TokenSet]
) -> Steps[list[Sequence[Any]]]:
    """For each path the embedding of every node below the root, from its own first token to the end of the rollout.

    With `similarity_scope="all"` siblings that have none yet get the embedding of their token set as it stands.
    """
    requests: list[list[Embed]] = [[] for _ in paths]
    unknown: list[Node] = []
    if search.config.needs_embeddings:
        for own, path, rollout in zip(requests, paths, rollouts, strict=True):
            whole = path[-1].prefix + rollout.tokens
            own += [Embed(search.context, whole, num_tokens=len(whole) - len(parent.prefix)) for parent in path[:-1]]
    if search.config.similarity_scope == "all":
        parents = dict.fromkeys(parent for path in paths for parent in path[:-1])
        embedded = {node for path in paths for node in path}
        unknown = [child for parent in parents for child in parent.children if child.embedding is None]
        unknown = [child for child in unknown if child not in embedded]
    stand_ins = [
        Embed(search.context, child.prefix, num_tokens=len(child.token_set.tokens))
        for child in unknown
        if child.token_set is not None
    ]
    # Without any of them what is asked ahead goes on beside the judgements.
    replies = iter((yield from ask_and_foresee(search, [*itertools.chain(*requests), *stand_ins])))
    embeddings: list[Sequence[Any]] = [[next(replies) for _ in own] for own in requests]
    for child, embedding in zip(unknown, replies, strict=True):
        child.embedding = embedding
    return embeddings


def _learn_similarity(search: Search, path: Sequence[Node], embeddings: Sequence[Any], value: float) -> None:
    """Backs up embeddings beside values, and shares the value with similar siblings."""
    config = search.config
    for node, embedding in zip(path, embeddings, strict=False):
        similarity.add_path_embedding(node, embedding)
        if config.similarity_scope != "off":
            similarity.share_with_siblings(
                node, value, threshold=config.similarity_threshold, weight=config.similarity_weight
            )


def record_simulation(search: Search, prefix: Tokens, draft: str, rollout: str, verdict: Verdict) -> None:
    """Counts the simulation that arrived at `prefix`, and as a rewind if it left the path of the one before it."""
    search.num_simulations += 1
    num_common = _common_length(search.last_leaf, prefix)
    num_rewound = len(search.last_leaf) - num_common
    search.num_rewinds += num_rewound > 0
    search.num_rewound_tokens += num_rewound
    search.last_leaf = prefix
    search.events.append(Simulated(prefix, draft, rollout, verdict, num_rewound))


def _common_length(first: Tokens, second: Tokens) -> int:
    return next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )
