"""The rules of the search, each with its test; `test_search_golden` has the arithmetic of a whole one."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from langchain_rain.budget import Budget
from langchain_rain.drivers import Job, Outcome, run, stream
from langchain_rain.engines.base import StepReport, Ticket
from langchain_rain.engines.merging import StepperChannel
from langchain_rain.engines.scripted import ScriptedEngine
from langchain_rain.errors import EngineError
from langchain_rain.search.config import SearchConfig
from langchain_rain.search.paper import SearchResult, choose, extend
from langchain_rain.search.protocol import (
    Committed,
    Context,
    Embed,
    Expand,
    FinishReason,
    OptionLogprobs,
    Request,
    Rollout,
    Score,
    Simulated,
    Tokens,
    TokenSet,
    Verdict,
)
from langchain_rain.search.tree import Node
from tests.naive_search import NaiveNode, NaiveSearch
from tests.scripted_games import RandomGame, begin, configs, games, judged

PLAIN = SearchConfig(
    token_set_lengths=(1,), max_simulations=4, min_visits=6, similarity_scope="off", adds_children=False
)
"""One token at a time, no similarity; T = 4 is reached before T_m, so nothing but T ends a search."""


def letters(
    children: Mapping[str, str],
    values: Mapping[str, float | OptionLogprobs],
    *,
    ends: Mapping[str, FinishReason] | None = None,
    texts: Mapping[str, str] | None = None,
) -> ScriptedEngine:
    """A game of equally probable letters: the children of each path; judgements by text, else 0.

    What is rolled out is a period. Paths of `ends` end the text; `texts` overrides the text of a letter.
    """
    ends, texts = ends or {}, texts or {}

    def expand(request: Expand) -> list[TokenSet]:
        path = "".join(map(chr, request.prefix))
        follow = children.get(path, "")
        return [
            TokenSet((ord(each),), texts.get(each, each), math.log(1 / len(follow)), False, ends.get(path + each))
            for each in follow
            if (ord(each),) not in request.exclude
        ]

    def score(request: Score) -> OptionLogprobs:
        value = values.get(request.question, 0)
        return value if isinstance(value, OptionLogprobs) else judged(value)

    return ScriptedEngine(
        expand=expand,
        rollout=lambda request: TokenSet((ord("."),), "."),
        score=score,
        embed=lambda request: np.array([1.0, 0.0]),
    )


def play(
    engine: ScriptedEngine, config: SearchConfig, **settings: Any
) -> tuple[SearchResult, list[Simulated], list[Committed]]:
    """The result of a whole search, its simulations and its commits."""
    _, job = begin(engine, config, **settings)
    *events, outcome = stream(job)
    assert isinstance(outcome, Outcome)
    simulated = [event for event in events if isinstance(event, Simulated)]
    return outcome.result, simulated, [event for event in events if isinstance(event, Committed)]


def asked(engine: ScriptedEngine, kind: type) -> list[Any]:
    return [request for request in engine.asked if isinstance(request, kind)]


def nodes_below(root: Node) -> list[Node]:
    nodes = [root]
    for node in nodes:
        nodes.extend(node.children)
    return nodes


# Of whole searches


def statistics(node: Node | NaiveNode) -> Any:
    visits = node.visit_count if isinstance(node, Node) else node.visits
    embedding = None if node.embedding is None else tuple(node.embedding)
    numbers = (node.prefix, node.prior, visits, node.effective_visits, node.value, embedding)
    return numbers if visits == 0 else (numbers, [statistics(child) for child in node.children])


def pruned(node: Any) -> Any:
    """Without children of which none was visited: only an eager search has asked for them."""
    if len(node) != 2:
        return node
    numbers, children = node
    return (numbers, [pruned(child) for child in children] if any(len(child) == 2 for child in children) else [])


@settings(max_examples=50, deadline=None)
@given(games(), configs())
def test_lazy_expansion_and_the_tree_are_those_of_the_eager_oracle(game: RandomGame, config: SearchConfig) -> None:
    engine = game.engine()
    search, job = begin(engine, config, seed=3)
    *events, outcome = stream(job)
    naive = NaiveSearch(game.answer, search.context, config, seed=3, can_veto=False).play()
    assert isinstance(outcome, Outcome)
    assert events == naive.events
    assert (outcome.result.stop_reason, outcome.result.text) == (naive.stop_reason, naive.root.text)
    assert pruned(statistics(search.tree.root)) == pruned(statistics(naive.root))


@settings(max_examples=50, deadline=None)
@given(games(has_vetoes=True), configs())
def test_searches_under_vetoes_are_those_of_the_eager_oracle(game: RandomGame, config: SearchConfig) -> None:
    search, job = begin(game.engine(), config, can_veto=True)
    *events, outcome = stream(job)
    naive = NaiveSearch(game.answer, search.context, config, seed=0, can_veto=True).play()
    assert isinstance(outcome, Outcome)
    assert events == naive.events
    assert (outcome.result.stop_reason, outcome.result.text) == (naive.stop_reason, naive.root.text)


class NewestFirst:
    """A stepper that answers one request per step, the newest first."""

    name = "newest first"
    identity: Mapping[str, Any] = {}

    def __init__(self, game: RandomGame) -> None:
        self.channel = StepperChannel(self)
        self.game = game
        self.pending: dict[Ticket, Request] = {}
        self.num_submitted = 0

    def open(self, prompt: str, *, max_tokens: int, stop: Sequence[str] = ()) -> Context:
        return Context(self.name, 1)

    def close(self, context: Context) -> None:
        pass

    def submit(self, request: Request) -> Ticket:
        self.num_submitted += 1
        self.pending[self.num_submitted] = request
        return self.num_submitted

    def cancel(self, ticket: Ticket) -> None:
        self.pending.pop(ticket, None)

    def step(self) -> StepReport:
        ticket, request = self.pending.popitem()
        return StepReport({ticket: self.game.answer(request)}, {ticket: 1})


@settings(max_examples=15, deadline=None)
@given(games(), configs())
def test_the_order_in_which_requests_are_answered_does_not_matter(game: RandomGame, config: SearchConfig) -> None:
    traces = [list(stream(begin(engine, config)[1])) for engine in (game.engine(), NewestFirst(game))]
    assert traces[0][:-1] == traces[1][:-1]
    results = [trace[-1] for trace in traces]
    assert isinstance(results[0], Outcome)
    assert isinstance(results[1], Outcome)
    assert results[0].result == results[1].result


@settings(max_examples=25, deadline=None)
@given(games(), configs())
def test_before_the_first_move_the_root_counts_itself_and_all_simulations(
    game: RandomGame, config: SearchConfig
) -> None:
    engine = game.engine()
    search, _ = begin(engine, config)
    run(Job(choose(search), {search.context: engine}))
    root = search.tree.root
    assert root.visit_count == 1 + search.num_simulations
    assert sum(child.visit_count for child in root.children) == search.num_simulations
    for node in nodes_below(root):
        assert -1 <= node.value <= 1
        assert node.effective_visits >= node.visit_count
        if node.children:
            assert math.isclose(sum(child.prior for child in node.children), 1, abs_tol=1e-12)


@settings(max_examples=15, deadline=None)
@given(games(), configs())
def test_the_answer_is_what_was_committed(game: RandomGame, config: SearchConfig) -> None:
    result, simulated, committed = play(game.engine(), config)
    assert result.text == "".join(event.token_set.text for event in committed)
    assert result.tokens == tuple(token for event in committed for token in event.token_set.tokens)
    assert (result.num_token_sets, result.num_simulations) == (len(committed), len(simulated))
    assert result.num_rewound_tokens == sum(event.num_rewound_tokens for event in simulated)
    assert result.num_rewinds == sum(event.num_rewound_tokens > 0 for event in simulated)
    rewound = [
        len(before.prefix) - len(common_prefix(before.prefix, after.prefix)) for before, after in pairwise(simulated)
    ]
    assert [event.num_rewound_tokens for event in simulated[1:]] == rewound


def common_prefix(first: Tokens, second: Tokens) -> Tokens:
    length = max(n for n in range(len(first) + 1) if first[:n] == second[:n])
    return first[:length]


# When to stop searching (section 2)


@pytest.mark.parametrize("min_visits", [0, 3])
def test_the_best_child_must_be_visited_more_than_min_visits(min_visits: int) -> None:
    engine = letters({"": "a"}, {"a": 1}, ends={"a": "eos"})
    _, simulated, _ = play(engine, replace(PLAIN, min_visits=min_visits, max_simulations=20))
    assert len(simulated) == min_visits + 1


@pytest.mark.parametrize(("threshold", "num_simulations"), [(0.5, 20), (0.4375, 3)])
def test_the_best_child_must_be_valued_above_the_threshold(threshold: float, num_simulations: int) -> None:
    engine = letters({"": "a"}, {"a": 0.5}, ends={"a": "eos"})
    config = replace(PLAIN, min_visits=2, value_threshold=threshold, max_simulations=20)
    result, simulated, (committed,) = play(engine, config)
    assert len(simulated) == num_simulations
    assert committed.is_satisfied  # 0.5 is above accept_value, though it may not be above value_threshold
    assert result.is_satisfied


def test_only_the_best_child_stops_a_search() -> None:
    # While a alone is visited, N = its visits + 1: 0.375 + 2 * 0.9 / sqrt(N) against 2 * 0.1 * sqrt(N), so b's turn
    # comes with N = 17 (0.812 against 0.825; N = 16: 0.825 against 0.8). From then on b, at 1, has visits above T_m and
    # a value above V, but a has more visits.
    children = [TokenSet((1,), "a", math.log(0.9), False, "eos"), TokenSet((2,), "b", math.log(0.1), False, "eos")]
    engine = ScriptedEngine(expand={(): children}, score={"a": judged(-0.25), "b": judged(1)})
    search, _ = begin(engine, replace(PLAIN, root_mixing=0.0, min_visits=0, max_simulations=20))
    run(Job(choose(search), {search.context: engine}))
    assert [(child.visit_count, child.value) for child in search.tree.root.children] == [(16, -0.25), (4, 1.0)]
    assert search.num_simulations == 20


def test_a_child_with_the_better_value_wins_a_tie_of_visits() -> None:
    # Simulation 1 goes to a, the first; a is at -1 (0 + 2 * 0.5 * 1.41 / 2), so 2 goes to b (2 * 0.5 * 1.41)
    engine = letters({"": "ab"}, {"a": -1, "b": -0.5}, ends={"a": "eos", "b": "eos"})
    result, simulated, _ = play(engine, replace(PLAIN, max_simulations=2, accept_value=-1.0))
    assert [event.prefix for event in simulated] == [(ord("a"),), (ord("b"),)]
    assert result.text == "b"


def test_the_first_child_wins_a_tie_of_visits_and_value() -> None:
    engine = letters({"": "ab"}, {"a": -1, "b": -1}, ends={"a": "eos", "b": "eos"})
    result, _, _ = play(engine, replace(PLAIN, max_simulations=2, accept_value=-1.0))
    assert result.text == "a"


CHAIN = {"": "a", "a": "b", "ab": "c"}


def committed_after(config: SearchConfig) -> list[int]:
    _, _, committed = play(letters(CHAIN, {}, ends={"abc": "eos"}), config)
    return [event.num_simulations for event in committed]


def test_at_least_15_further_simulations_are_allowed_after_a_move() -> None:
    # All 50 simulations go through a, so nothing of T is left; then 49 + 15 through b
    config = SearchConfig(
        token_set_lengths=(1,), similarity_scope="off", adds_children=False, value_threshold=1.0, accept_value=-1.0
    )
    assert (config.max_simulations, config.min_further_simulations) == (50, 15)
    assert committed_after(config) == [50, 15, 15]


def test_max_simulations_below_15_bounds_the_further_ones_too() -> None:
    assert committed_after(replace(PLAIN, max_simulations=3)) == [3, 3, 3]


def test_the_visits_of_the_new_root_count_towards_max_simulations() -> None:
    # a has all 4 visits: max(4 - 4, 1) == 1 further; b then has 3 + 1: again 1
    assert committed_after(replace(PLAIN, min_further_simulations=1)) == [4, 1, 1]


def test_visits_of_a_root_that_shared_them_do_not_all_count() -> None:
    # a and b take turns, 2 visits each of T = 4: 4 - 2 further, though at least 1
    engine = letters({"": "ab", "a": "c", "b": "c"}, {}, ends={"ac": "eos", "bc": "eos"})
    _, _, committed = play(engine, replace(PLAIN, min_further_simulations=1))
    assert [event.num_simulations for event in committed] == [4, 2]


def test_one_simulation_is_enough_where_only_one_is_allowed() -> None:
    result, simulated, _ = play(letters({"": "ab"}, {"a": 1}, ends={"a": "eos"}), replace(PLAIN, max_simulations=1))
    assert (result.text, len(simulated)) == ("a", 1)


# How a text ends


@pytest.mark.parametrize("reason", ["eos", "stop", "length"])
def test_the_text_ends_where_a_committed_token_set_does(reason: FinishReason) -> None:
    result, _, committed = play(letters({"": "a", "a": "b"}, {"ab": 1}, ends={"ab": reason}), PLAIN)
    assert (result.text, result.stop_reason, result.is_satisfied) == ("ab", reason, True)
    assert (result.tokens, result.verdict) == ((ord("a"), ord("b")), Verdict(1.0))
    assert [event.token_set.finish_reason for event in committed] == [None, reason]


def test_an_end_is_neither_rolled_out_nor_expanded() -> None:
    engine = letters({"": "a"}, {"a": 0.5}, ends={"a": "stop"})
    _, simulated, _ = play(engine, PLAIN)
    assert simulated == [Simulated((ord("a"),), "a", "", Verdict(0.5), 0)] * 4
    assert asked(engine, Rollout) == []
    assert len(asked(engine, Expand)) == 1


def test_the_same_text_is_judged_once() -> None:
    # a and b are spelled alike; the last judgement of the answer is known as well
    engine = letters({"": "ab"}, {"x": 0.5}, ends={"a": "eos", "b": "eos"}, texts={"a": "x", "b": "x"})
    play(engine, PLAIN)
    assert [request.question for request in asked(engine, Score)] == ["x"]


def test_what_is_judged_is_the_answer_with_its_rollout_after_the_transcript() -> None:
    engine = letters({"": "a"}, {}, ends={"a": "eos"})
    search, job = begin(engine, replace(PLAIN, max_simulations=1))
    search.transcript = "Question "
    run(job)
    assert [request.question for request in asked(engine, Score)] == ["Question a"]


def test_the_rollout_never_enters_the_text() -> None:
    engine = letters({"": "a", "a": "b"}, {"a.": 1, "ab": 1}, ends={"ab": "eos"})
    result, simulated, _ = play(engine, PLAIN)
    assert simulated[0].rollout == "."
    assert result.text == "ab"


def test_rollouts_are_asked_for_as_configured() -> None:
    engine = letters({"": "a", "a": "b"}, {}, ends={"ab": "eos"})
    play(engine, replace(PLAIN, rollout_until=("!",), max_rollout_tokens=3, temperature=2.0))
    (request,) = asked(engine, Rollout)
    assert (request.prefix, request.until, request.max_tokens, request.temperature) == ((ord("a"),), ("!",), 3, 2.0)


def test_token_sets_are_asked_for_as_configured() -> None:
    engine = letters({"": "a", "a": "b"}, {}, ends={"ab": "eos"})
    config = replace(PLAIN, token_set_lengths=(1, 4), num_children=7, num_draws=5, top_k=3, temperature=2.0)
    play(engine, config)
    first, second = asked(engine, Expand)
    assert (first.num_token_sets, first.num_tokens, first.num_draws, first.top_k, first.temperature) == (7, 1, 5, 3, 2)
    assert (second.num_token_sets, second.num_tokens, second.prefix) == (7, 4, (ord("a"),))


@pytest.mark.parametrize(("children", "depth"), [({}, 0), ({"": "a", "a": "b"}, 2)])
def test_no_token_set_where_the_text_goes_on_is_the_engines_error(children: dict[str, str], depth: int) -> None:
    with pytest.raises(EngineError, match=f"no token set after {depth} tokens, though the text has not") as caught:
        play(letters(children, {}), PLAIN)
    assert (caught.value.engine, caught.value.request) == ("scripted", "Expand")


# What may be committed (section 2, three thresholds)

ENDS: Mapping[str, FinishReason] = {"a": "eos", "b": "eos"}


def test_without_a_demand_whatever_is_best_is_committed() -> None:
    engine = letters({"": "ab"}, {"a": -1, "b": -1}, ends=ENDS)
    result, _, (committed,) = play(engine, replace(PLAIN, accept_value=-1.0))
    assert (committed.token_set.text, committed.is_satisfied) == ("a", False)
    assert (result.stop_reason, result.verdict, result.is_satisfied) == ("eos", Verdict(-1.0), False)


def test_without_a_demand_token_sets_are_not_judged_directly() -> None:
    engine = letters({"": "a", "a": "b"}, {}, ends={"ab": "eos"})
    play(engine, replace(PLAIN, accept_value=-1.0))
    assert [request.question for request in asked(engine, Score)] == ["a.", "ab"]


def test_below_the_threshold_the_best_child_judged_well_enough_without_rollout_is_committed() -> None:
    # the only simulation goes to a; but a by itself is judged badly
    engine = letters({"": "ab", "b": "c"}, {"a.": 0.5, "a": -0.5, "b.": 0.25, "b": 0, "bc": 0.25}, ends={"bc": "eos"})
    _, _, committed = play(engine, replace(PLAIN, max_simulations=1))
    assert (committed[0].token_set.text, committed[0].is_satisfied) == ("b", False)  # 0 may be committed, not released


def test_accept_value_is_the_lowest_that_is_committed_and_is_not_satisfied() -> None:
    engine = letters({"": "a"}, {"a": 0.25}, ends={"a": "eos"})
    result, _, (committed,) = play(engine, replace(PLAIN, accept_value=0.25))
    assert (committed.token_set.text, committed.is_satisfied, result.is_satisfied) == ("a", False, False)
    above, _, (committed,) = play(engine, replace(PLAIN, accept_value=0.125))
    assert (committed.is_satisfied, above.is_satisfied) == (True, True)


def test_no_child_judged_well_enough_is_a_dead_end() -> None:
    engine = letters({"": "a", "a": "bc"}, {"a": 1, "ab": -0.5, "ac": -1}, ends={"ab": "eos", "ac": "eos"})
    search, job = begin(engine, PLAIN)
    result = run(job).result
    assert (result.text, result.stop_reason, result.num_token_sets) == ("a", "dead_end", 1)
    assert (result.verdict, result.is_satisfied) == (Verdict(1.0), False)  # judged well, but it has not ended
    assert search.satisfied_text == "a"


def test_above_the_threshold_the_best_child_is_not_judged_again() -> None:
    engine = letters({"": "a", "a": "b"}, {"a.": 1, "a": -1, "ab": 1}, ends={"ab": "eos"})
    _, _, committed = play(engine, replace(PLAIN, min_visits=0))
    assert [(event.token_set.text, event.is_satisfied) for event in committed] == [("a", True), ("b", True)]
    assert "a" not in [request.question for request in asked(engine, Score)]


def test_above_the_threshold_under_vetoes_the_best_child_needs_no_more_than_no_veto() -> None:
    # accept_value is a demand on searches that ended below V: the direct judgement of a, -1, is no veto
    engine = letters({"": "ab", "a": "c"}, {"a.": 1, "a": -1, "ac": 1, "b": 1}, ends={"ac": "eos"})
    result, _, committed = play(engine, replace(PLAIN, min_visits=0), can_veto=True)
    assert [(event.token_set.text, event.is_satisfied) for event in committed] == [("a", True), ("c", True)]
    assert result.text == "ac"


def test_a_vetoed_best_child_gives_way_to_one_that_is_judged_well_enough() -> None:
    # a is above V with its rollout and vetoed without; b is below accept_value; c is taken
    veto = judged(-1, is_vetoed=True)
    engine = letters({"": "abc"}, {"a.": 1, "a": veto, "b": -0.5, "c": 0.25}, ends={"b": "eos", "c": "eos"})
    result, _, committed = play(engine, replace(PLAIN, min_visits=0), can_veto=True)
    assert [(event.token_set.text, event.is_satisfied) for event in committed] == [("c", True)]
    assert result.is_satisfied


@pytest.mark.parametrize("accept_value", [-1.0, 0.0])
def test_a_veto_counts_whatever_is_accepted(accept_value: float) -> None:
    engine = letters({"": "ab"}, {"a": judged(-1, is_vetoed=True), "b": 0.5}, ends=ENDS)
    result, _, _ = play(engine, replace(PLAIN, accept_value=accept_value), can_veto=True)
    assert (result.text, result.is_satisfied) == ("b", True)


@pytest.mark.parametrize("accept_value", [-1.0, 0.0])
def test_vetoes_all_around_are_a_dead_end(accept_value: float) -> None:
    veto = judged(-1, is_vetoed=True)
    engine = letters({"": "ab"}, {"a": veto, "b": veto}, ends=ENDS)
    result, _, committed = play(engine, replace(PLAIN, accept_value=accept_value), can_veto=True)
    assert (result.text, result.stop_reason, result.is_satisfied, committed) == ("", "dead_end", False, [])


def test_a_judgement_that_abstains_satisfies_nothing() -> None:
    engine = letters({"": "a"}, {"a": judged(0, is_abstained=True)}, ends={"a": "eos"})
    result, simulated, (committed,) = play(engine, replace(PLAIN, accept_value=-1.0))
    assert {event.verdict.value for event in simulated} == {0.0}
    assert (committed.is_satisfied, result.is_satisfied) == (False, False)
    assert result.verdict == Verdict(0.0, is_abstained=True)


def test_an_abstention_may_be_committed_at_0_and_not_above() -> None:
    engine = letters({"": "a"}, {"a": judged(0, is_abstained=True)}, ends={"a": "eos"})
    committed, _, _ = play(engine, PLAIN)
    assert (committed.text, committed.stop_reason, committed.is_satisfied) == ("a", "eos", False)
    refused, _, _ = play(engine, replace(PLAIN, accept_value=0.125))
    assert (refused.text, refused.stop_reason) == ("", "dead_end")


def test_a_root_committed_without_a_visit_is_searched_and_not_judged_again() -> None:
    # The only simulation goes to a; a is vetoed, so b is committed unvisited. Its first simulation goes to bc.
    engine = letters(
        {"": "ab", "b": "cd"},
        {"a": judged(-1, is_vetoed=True), "b": 0.5, "bc": 0.5},
        ends={"a": "eos", "bc": "eos", "bd": "eos"},
    )
    result, simulated, committed = play(engine, replace(PLAIN, max_simulations=1), can_veto=True)
    assert [event.prefix for event in simulated] == [(ord("a"),), (ord("b"), ord("c"))]
    assert [event.num_simulations for event in committed] == [1, 1]
    assert result.text == "bc"


# Children of a new root, additions, embeddings


def test_the_priors_of_a_new_root_are_mixed() -> None:
    skewed = [TokenSet((ord(each),), each, math.log(p), False, "eos") for each, p in (("b", 0.9), ("c", 0.1))]
    engine = ScriptedEngine(
        expand={(): [TokenSet((ord("a"),), "a")], (ord("a"),): skewed},
        rollout=lambda request: TokenSet((), ""),
        score=lambda request: judged(0),
    )
    search, _ = begin(engine, PLAIN)
    run(Job(extend(search), {search.context: engine}))
    assert [child.prior for child in search.tree.root.children] == pytest.approx([0.9, 0.1])
    run(Job(choose(search), {search.context: engine}))
    # 0.75 * 0.9 + 0.25 / 2
    assert [child.prior for child in search.tree.root.children] == pytest.approx([0.8, 0.2])


def test_a_new_root_that_is_not_expanded_yet_is_expanded_first() -> None:
    engine = letters({"": "ab", "a": "c", "b": "c"}, {}, ends={"ac": "eos", "bc": "eos"})
    search, _ = begin(engine, replace(PLAIN, max_simulations=1))
    run(Job(extend(search), {search.context: engine}))
    assert search.tree.root.children == []
    run(Job(choose(search), {search.context: engine}))
    assert [child.text for child in search.tree.root.children] == ["ac"]


def test_an_addition_asks_for_one_more_distinct_token_set() -> None:
    # a alone is bad: every further pass through the root, all visited, adds one, up to three
    def next_letter(request: Expand) -> list[TokenSet]:
        return [next(each for each in letters_in_order if each.tokens not in request.exclude)]

    letters_in_order = [TokenSet((ord(each),), each, 0.0, False, "eos") for each in "abcd"]
    engine = ScriptedEngine(
        expand=next_letter, score=lambda request: judged(-1), embed=lambda request: np.array([1.0, 0.0])
    )
    config = replace(PLAIN, num_children=1, max_children=3, adds_children=True, accept_value=-1.0, max_simulations=6)
    search, _ = begin(engine, config)
    run(Job(choose(search), {search.context: engine}))
    first, *additions = asked(engine, Expand)
    assert (first.num_token_sets, first.num_draws, first.exclude) == (1, 9, frozenset())
    assert [(each.num_token_sets, each.num_draws, sorted(each.exclude)) for each in additions] == [
        (1, 5, [(ord("a"),)]),
        (1, 5, [(ord("a"),), (ord("b"),)]),
    ]
    assert len({first.seed, *(each.seed for each in additions)}) == 3
    assert [child.text for child in search.tree.root.children] == ["a", "b", "c"]
    assert [child.prior for child in search.tree.root.children] == pytest.approx([1 / 3] * 3)


def test_an_addition_that_finds_nothing_changes_nothing() -> None:
    engine = letters({"": "a"}, {"a": -1}, ends={"a": "eos"})
    search, _ = begin(engine, replace(PLAIN, adds_children=True))
    run(Job(choose(search), {search.context: engine}))
    (only,) = search.tree.root.children
    assert (only.prior, only.visit_count) == (1.0, 4)


@pytest.mark.parametrize(
    ("settings", "prefixes"),
    [
        ({}, []),
        ({"adds_children": True}, ["a.", "b."]),  # what was visited
        ({"similarity_scope": "visited"}, ["a.", "b."]),
        ({"similarity_scope": "all"}, ["a.", "b", "b."]),  # b stands in when a is visited
    ],
)
def test_only_needed_embeddings_are_asked_for(settings: dict[str, Any], prefixes: list[str]) -> None:
    engine = letters({"": "ab"}, {"a.": -0.5})
    search, _ = begin(engine, replace(PLAIN, max_simulations=2, **settings))
    run(Job(choose(search), {search.context: engine}))
    assert ["".join(map(chr, request.prefix)) for request in asked(engine, Embed)] == prefixes


@pytest.mark.parametrize(("scope", "effective_visits"), [("all", 0.2), ("visited", 0.0), ("off", 0.0)])
def test_an_unvisited_sibling_learns_only_under_scope_all(scope: Any, effective_visits: float) -> None:
    engine = letters({"": "ab"}, {"a.": -1})
    search, _ = begin(engine, replace(PLAIN, max_simulations=1, similarity_scope=scope))
    run(Job(choose(search), {search.context: engine}))
    unvisited = search.tree.root.children[1]
    assert (unvisited.visit_count, unvisited.effective_visits) == (0, effective_visits)


# Budgets


def cost_of(engine: ScriptedEngine, config: SearchConfig) -> int:
    return run(begin(engine, config)[1]).cost.token_positions


TWO = {"": "a", "a": "b"}


def test_a_budget_spent_in_the_middle_returns_the_best_so_far() -> None:
    engine = letters(TWO, {}, ends={"ab": "eos"})
    # Expand "", Rollout a, Score a., Expand a, Score ab, Score a: a is committed; Score ab is known
    assert cost_of(engine, PLAIN) == 6
    config = replace(PLAIN, max_simulations=1)
    # Expand "", Rollout a, Score a., Score a: a is committed; Expand a is the fifth
    search, job = begin(engine, config, budget=Budget(max_forward_tokens=5))
    outcome = run(job)
    assert outcome.cost.token_positions == 5
    assert (outcome.result.text, outcome.result.stop_reason) == ("a", "budget")
    assert (outcome.result.verdict, outcome.result.is_satisfied) == (None, False)
    assert outcome.result.num_simulations == search.num_simulations == 1


def test_a_budget_spent_at_once_returns_nothing() -> None:
    engine = letters(TWO, {}, ends={"ab": "eos"})
    result, simulated, committed = play(engine, PLAIN, budget=Budget(max_forward_tokens=1))
    assert (result.text, result.stop_reason, simulated, committed) == ("", "budget", [], [])


def test_a_budget_spent_in_the_last_judgement_leaves_the_answer_unjudged() -> None:
    # Expand "", Rollout a, Score "a." above V: a is committed. Expand a, Score "ab" below accept_value: a dead end.
    # The sixth request is the judgement of the answer, "a".
    engine = letters(TWO, {"a.": 1, "ab": -1, "a": 1}, ends={"ab": "eos"})
    config = replace(PLAIN, min_visits=0)
    whole, _, _ = play(engine, config)
    assert (whole.text, whole.stop_reason, whole.verdict) == ("a", "dead_end", Verdict(1.0))
    cut, _, _ = play(engine, config, budget=Budget(max_forward_tokens=6))
    assert (cut.text, cut.stop_reason, cut.verdict, cut.is_satisfied) == ("a", "budget", None, False)
