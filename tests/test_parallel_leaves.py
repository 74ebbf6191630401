"""Several leaves at once: each simulation knows where the others went, and nothing else changes."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_rain.drivers import Job, Outcome, run, stream
from langchain_rain.search.config import SearchConfig
from langchain_rain.search.paper import choose
from langchain_rain.search.protocol import Expand, Rollout, Score, TokenSet
from langchain_rain.search.tree import best_for_search
from tests.scripted_games import RandomGame, begin, configs, games
from tests.test_lookahead import Paced, answer_of, pace_by_kind
from tests.test_paper import PLAIN, NewestFirst, asked, letters, nodes_below, play


def test_simulations_under_way_count_as_visits_whose_value_is_not_known() -> None:
    # Priors 0.5, 0.3 and 0.2, nothing visited but the root, c = 2. With k under way in all and n in the child the score
    # is 2 * prior * sqrt(1 + k) / (1 + n): 1.00 for a; 0.71, 0.85 for b; 0.87 for a, 0.52, 0.69; 0.67, 0.60, 0.80 for c
    search, _ = begin(letters({}, {}), replace(PLAIN, root_mixing=0.0))
    root = search.tree.root
    search.grow(
        root, [TokenSet((n,), text, math.log(p)) for n, (text, p) in enumerate([("a", 0.5), ("b", 0.3), ("c", 0.2)])]
    )
    chosen = []
    for _ in range(4):
        chosen.append(best_for_search(root, c_puct=2.0))
        chosen[-1].num_under_way += 1
    assert [child.text for child in chosen] == ["a", "b", "a", "c"]


def test_leaves_are_rolled_out_together_and_judged_together() -> None:
    # 1 step for the root's children, 3 for all rollouts, 1 for all judgements; one after another it is 1 + 4 * (3 + 1).
    num_steps = {}
    for num_leaves in (1, 4):
        story = letters({"": "abcd"}, dict.fromkeys(["a.", "b.", "c.", "d."], -1))
        engine = Paced(answer_of(story), pace_by_kind(expand=1, rollout=3))
        search, _ = begin(engine, replace(PLAIN, num_parallel_leaves=num_leaves))
        run(Job(choose(search), {search.context: engine}))
        assert search.num_simulations == 4
        num_steps[num_leaves] = engine.num_steps
    assert num_steps == {1: 1 + 4 * (3 + 1), 4: 1 + 3 + 1}


def test_a_leaf_that_two_arrive_at_is_simulated_once() -> None:
    engine = letters({"": "a"}, {"a": 1}, ends={"a": "eos"})
    _, simulated, _ = play(engine, replace(PLAIN, num_parallel_leaves=4, max_simulations=3))
    assert len(simulated) == 3
    assert len(asked(engine, Score)) == 1


def test_the_children_of_all_nodes_on_the_way_are_asked_for_at_once() -> None:
    engine = letters({"": "ab", "a": "c", "b": "c"}, {})
    search, _ = begin(engine, replace(PLAIN, num_parallel_leaves=2))
    run(Job(choose(search), {search.context: engine}))
    # a and b first, then what follows each of them, in one round: 3 expansions in 1 + 1 steps, rollouts 2 + 2
    assert [request.prefix for request in asked(engine, Expand)] == [(), (ord("a"),), (ord("b"),)]
    assert [len(request.prefix) for request in asked(engine, Rollout)] == [1, 1, 2, 2]


@settings(max_examples=40, deadline=None)
@given(games(), configs(), st.integers(2, 5))
def test_statistics_hold_with_several_leaves(game: RandomGame, config: SearchConfig, num_leaves: int) -> None:
    engine = game.engine()
    search, _ = begin(engine, replace(config, num_parallel_leaves=num_leaves))
    run(Job(choose(search), {search.context: engine}))
    root = search.tree.root
    assert root.visit_count == 1 + search.num_simulations
    assert sum(child.visit_count for child in root.children) == search.num_simulations <= config.max_simulations
    for node in nodes_below(root):
        assert -1 <= node.value <= 1
        assert node.num_under_way == 0
        if node.children:
            assert math.isclose(sum(child.prior for child in node.children), 1, abs_tol=1e-12)


@pytest.mark.parametrize("num_leaves", [2, 5])
@settings(max_examples=25, deadline=None)
@given(game=games(has_vetoes=True), config=configs(), lookahead=st.sampled_from([0, 1, 20]))
def test_neither_the_order_of_replies_nor_asking_ahead_matters(
    num_leaves: int, game: RandomGame, config: SearchConfig, lookahead: int
) -> None:
    config = replace(config, num_parallel_leaves=num_leaves)
    outcomes = []
    for engine, each in ((game.engine(), config), (NewestFirst(game), replace(config, lookahead=lookahead))):
        *events, outcome = stream(begin(engine, each, can_veto=True)[1])
        assert isinstance(outcome, Outcome)
        outcomes.append((events, replace(outcome.result, events=())))
    assert outcomes[0] == outcomes[1]
