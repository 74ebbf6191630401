"""One search worked out by hand: every PUCT number that decides a selection, and the tree it leaves.

The game. Nodes are called by their paths; `*` ends the text, `+` was added by the search (section 6).

    root --+-- a ---- ak ---- aku
           +-- b ---- bl
           +-- c+ -+- cd -+- cdg*
                   |      +- cdh ---- cdhn
                   +- ce ---- cei ---- ceiy
                   +- cf*
                   +- cj

Children of the root have one token, all others two (`token_set_lengths=(1, 2)`), but cdg, which is cut after one.
`max_simulations` (T) is 12. The value of every leaf stands in `SIMULATIONS`.

Similarities (weight 0.2, threshold 0.95). a and b lie at (1, 0) and (0.96, 0.28): cosine 0.96, so b shares 0.192 of
its value with a; before b is visited its stand-in is (1, 0), cosine 1, and a shares 0.2 with it. Simulations through
ak embed a's path at (0, 1), so a's mean moves to (0.5, 0.5), cosine 0.62 / 0.7071 = 0.877 with b, and then to (0.33,
0.67): from there on a and b share nothing. cd and cf lie at (1, 0), ce and cj at (0, 1): these pairs share 0.2 each
time, visited or not. Nothing else is alike.

Priors. Of the first root 0.75 * (0.6, 0.4) + 0.25 / 2. With c added the probabilities are 0.6, 0.4, 0.25 of 1.25, so
0.75 * (0.48, 0.32, 0.2) + 0.25 / 3. cd is greedy and weighs 0.5; the sampled ce, cf, cj weigh 0.2, 0.1, 0.1; so cd is
clamped to max(min(0.5, 0.4), 0.2 + 0.1) = 0.4, and the priors are (0.4, 0.2, 0.1, 0.1) / 0.8. cdg is greedy and
weighs 0.01, cdh is sampled and weighs 0.2; so cdg is raised to max(min(0.01, 0.2), 0.2 + 0.2) = 0.4: priors 2/3 and
1/3. With c the root: 0.75 * (0.5, 0.25, 0.125, 0.125) + 0.25 / 4.

Additions. Before simulation 3 a and b are visited and at -1; their embeddings have the variances 0.0008 and 0.0392,
norm 0.0392, below 0.03 * sqrt(384 / 2) = 0.416: c is added. Before simulation 10 ak, a's only child, is visited and
at -1: one more is asked for, and there is none.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest

from langchain_rain.drivers import Job, Outcome, run, stream
from langchain_rain.engines.scripted import ScriptedEngine
from langchain_rain.search.config import SearchConfig
from langchain_rain.search.paper import choose, extend
from langchain_rain.search.protocol import (
    Committed,
    Embed,
    Expand,
    OptionLogprobs,
    Rollout,
    Score,
    Simulated,
    Steps,
    Tokens,
    TokenSet,
    Verdict,
)
from langchain_rain.search.state import Search
from langchain_rain.search.tree import Node
from tests.scripted_games import ScriptedJudge, Vector, judged

CONFIG = SearchConfig(
    token_set_lengths=(1, 2),
    max_children=4,
    max_simulations=12,
    min_further_simulations=3,
    min_visits=6,
    accept_value=-1.0,
)

MIXED = {"a": 0.75 * 0.6 + 0.25 / 2, "b": 0.75 * 0.4 + 0.25 / 2}
WITH_C = {"a": 0.75 * 0.48 + 0.25 / 3, "b": 0.75 * 0.32 + 0.25 / 3, "c": 0.75 * 0.2 + 0.25 / 3}
BELOW_A_ROOT = {
    **{"cd": 0.4 / 0.8, "ce": 0.2 / 0.8, "cf": 0.1 / 0.8, "cj": 0.1 / 0.8, "cdg": 2 / 3, "cdh": 1 / 3},
    **dict.fromkeys(["ak", "aku", "bl", "cei", "ceiy", "cdhn"], 1.0),
}
C_IS_ROOT = {"cd": 0.375 + 0.0625, "ce": 0.1875 + 0.0625, "cf": 0.09375 + 0.0625, "cj": 0.09375 + 0.0625}


class Known(NamedTuple):
    """Of a child at a selection: its value and effective visits, and the PUCT number these give."""

    value: float
    visits: float
    puct: float


class Simulation(NamedTuple):
    """A leaf, its value, the tokens rewound to get there, and for every selection on the way the parent and its choice.

    The key of a selection is the effective visits of the parent.
    """

    leaf: str
    value: float
    num_rewound: int
    priors: dict[str, float]
    selections: list[tuple[float, dict[str, Known]]]


NEW = (0, 0)
NEG = -1.0  # a and b at first
D5, D6 = 0.25 / 2, -0.5 / 3  # cd after 1, -0.75; and after another -0.75
B8 = (-1.2 - 0.5) / 2.2  # b: 1.2 visits of value -1, then bl
E11, E12 = (0.75 + 0.5) / 2, (0.75 + 0.5 - 0.2) / 2.2  # ce after itself and cei; and with 0.2 of cj's -1
J12, J13 = (0.25 - 1) / 1.4, (0.25 - 1 - 0.05) / 1.6  # cj after 0.2 of ce's 0.75 and 0.5, and itself; with 0.2 of ceiy

SIMULATIONS = [
    Simulation("a", -1, 0, MIXED, [(1, {"a": Known(*NEW, 1.1500), "b": Known(*NEW, 0.8500)})]),
    Simulation("b", -1, 1, MIXED, [(2, {"a": Known(NEG, 1, 0.8132), "b": Known(NEG, 0.2, 1.0017)})]),
    Simulation(
        *("c", 1, 1, WITH_C),
        [(3, {"a": Known(NEG, 1.192, 0.7006), "b": Known(NEG, 1.2, 0.5091), "c": Known(*NEW, 0.8083)})],
    ),
    Simulation(
        *("cd", 1, 0, WITH_C),
        [
            (4, {"a": Known(NEG, 1.192, 0.8090), "b": Known(NEG, 1.2, 0.5879), "c": Known(1, 1, 1.4667)}),
            (1, {"cd": Known(*NEW, 1), "ce": Known(*NEW, 0.5), "cf": Known(*NEW, 0.25), "cj": Known(*NEW, 0.25)}),
        ],
    ),
    Simulation(
        *("cdg", -0.75, 0, WITH_C),
        [
            (5, {"a": Known(NEG, 1.192, 0.9045), "b": Known(NEG, 1.2, 0.6573), "c": Known(1, 2, 1.3478)}),
            (
                2,
                {
                    **{"cd": Known(1, 1, 1.7071), "ce": Known(*NEW, 0.7071)},
                    **{"cf": Known(1, 0.2, 1.2946), "cj": Known(*NEW, 0.3536)},
                },
            ),
            (1, {"cdg": Known(*NEW, 1.3333), "cdh": Known(*NEW, 0.6667)}),
        ],
    ),
    Simulation(
        *("cdg", -0.75, 0, WITH_C),
        [
            (6, {"a": Known(NEG, 1.192, 0.9908), "b": Known(NEG, 1.2, 0.7200), "c": Known(1.25 / 3, 3, 0.9941)}),
            (
                3,
                {
                    **{"cd": Known(D5, 2, 1.1398), "ce": Known(*NEW, 0.8660)},
                    **{"cf": Known(D5, 0.4, 0.8718), "cj": Known(*NEW, 0.4330)},
                },
            ),
            (2, {"cdg": Known(-0.75, 1, 1.0678), "cdh": Known(*NEW, 0.9428)}),
        ],
    ),
    Simulation(
        *("ak", -1, 4, WITH_C),
        [
            (7, {"a": Known(NEG, 1.192, 1.0702), "b": Known(NEG, 1.2, 0.7777), "c": Known(0.5 / 4, 4, 0.8094)}),
            (1.192, {"ak": Known(*NEW, 2.1836)}),
        ],
    ),
    Simulation(
        *("bl", -0.5, 3, WITH_C),
        [
            (8, {"a": Known(NEG, 2.192, 0.7857), "b": Known(NEG, 1.2, 0.8314), "c": Known(0.5 / 4, 4, 0.8265)}),
            (1.2, {"bl": Known(*NEW, 2.1909)}),
        ],
    ),
    Simulation(
        *("ce", 0.75, 3, WITH_C),
        [
            (9, {"a": Known(NEG, 2.192, 0.8333), "b": Known(B8, 2.2, 0.7199), "c": Known(0.5 / 4, 4, 0.8425)}),
            (
                4,
                {
                    **{"cd": Known(D6, 3, 0.9167), "ce": Known(*NEW, 1.0000)},
                    **{"cf": Known(D6, 0.6, 0.7292), "cj": Known(*NEW, 0.5000)},
                },
            ),
        ],
    ),
    Simulation(
        *("aku", -1, 3, WITH_C),
        [
            (10, {"a": Known(NEG, 2.192, 0.8784), "b": Known(B8, 2.2, 0.7527), "c": Known(1.25 / 5, 5, 0.8710)}),
            (2.192, {"ak": Known(-1, 1, 1.4805)}),
            (1, {"aku": Known(*NEW, 2)}),
        ],
    ),
    Simulation(
        *("cei", 0.5, 5, WITH_C),
        [
            (11, {"a": Known(NEG, 3.192, 0.7015), "b": Known(B8, 2.2, 0.7839), "c": Known(1.25 / 5, 5, 0.8830)}),
            (
                5,
                {
                    **{"cd": Known(D6, 3, 0.9757), "ce": Known(0.75, 1, 1.4340)},
                    **{"cf": Known(D6, 0.6, 0.7661), "cj": Known(0.75, 0.2, 1.3408)},
                },
            ),
            (1, {"cei": Known(*NEW, 2)}),
        ],
    ),
    Simulation(
        *("cj", -1, 4, WITH_C),
        [
            (12, {"a": Known(NEG, 3.192, 0.7327), "b": Known(B8, 2.2, 0.8137), "c": Known(1.75 / 6, 6, 0.8768)}),
            (
                6,
                {
                    **{"cd": Known(D6, 3, 1.0290), "ce": Known(E11, 2, 1.2207)},
                    **{"cf": Known(D6, 0.6, 0.7994), "cj": Known(E11, 0.4, 1.2499)},
                },
            ),
        ],
    ),
    # T is reached; c, with 7 of its own visits, becomes the root: 12 - 7 = 5 further simulations.
    Simulation(
        *("ceiy", -0.25, 2, C_IS_ROOT),
        [
            (
                7,
                {
                    **{"cd": Known(D6, 3, 0.9954), "ce": Known(E12, 2.2, 1.1520)},
                    **{"cf": Known(D6, 0.6, 0.9334), "cj": Known(J12, 1.4, 0.5766)},
                },
            ),
            (2.2, {"cei": Known(0.5, 1, 2.2332)}),
            (1, {"ceiy": Known(*NEW, 2)}),
        ],
    ),
    Simulation(
        *("cdh", 0.5, 6, C_IS_ROOT),
        [
            (
                8,
                {
                    **{"cd": Known(D6, 3, 1.0354), "ce": Known(0.8 / 3.2, 3.2, 0.9617)},
                    **{"cf": Known(D6, 0.6, 0.9691), "cj": Known(J13, 1.6, 0.5900)},
                },
            ),
            (3, {"cdg": Known(-0.75, 2, 0.8948), "cdh": Known(*NEW, 1.1547)}),
        ],
    ),
    Simulation(
        *("cdhn", 1, 0, C_IS_ROOT),
        [
            (
                9,
                {
                    **{"cd": Known(0, 4, 1.0250), "ce": Known(0.25, 3.2, 0.9821)},
                    **{"cf": Known(0, 0.8, 1.0208), "cj": Known(J13, 1.6, 0.6106)},
                },
            ),
            (4, {"cdg": Known(-0.75, 2, 1.0139), "cdh": Known(0.5, 1, 1.4167)}),
            (1, {"cdhn": Known(*NEW, 2)}),
        ],
    ),
    Simulation(
        *("cf", 1, 6, C_IS_ROOT),
        [
            (
                10,
                {
                    **{"cd": Known(1 / 5, 5, 1.0612), "ce": Known(0.25, 3.2, 1.0015)},
                    **{"cf": Known(0.2, 1, 1.0941), "cj": Known(J13, 1.6, 0.6301)},
                },
            ),
        ],
    ),
    Simulation(
        *("cf", 1, 0, C_IS_ROOT),
        [
            (
                11,
                {
                    **{"cd": Known(1.2 / 5.2, 5.2, 1.0835), "ce": Known(0.25, 3.2, 1.0198)},
                    **{"cf": Known(0.6, 2, 1.1455), "cj": Known(J13, 1.6, 0.6486)},
                },
            ),
        ],
    ),
]
FIRST, SECOND = SIMULATIONS[:12], SIMULATIONS[12:]


def prefix_of(path: str) -> Tokens:
    """One token for the first letter, two for each further one; cdg is cut after its first."""
    tokens = [ord(letter) + second for letter in path for second in (0, 1000)]
    return tuple(tokens[:1] + tokens[2 : -1 if path == "cdg" else None])


PATHS = {prefix_of(path): path for path in ["", *WITH_C, *BELOW_A_ROOT]}


def token_set(path: str, probability: float, *, is_greedy: bool = False) -> TokenSet:
    tokens = prefix_of(path)[len(prefix_of(path[:-1])) :]
    return TokenSet(tokens, path[-1], math.log(probability), is_greedy, "eos" if path in ("cdg", "cf") else None)


def expand(request: Expand) -> list[TokenSet]:
    path = PATHS[request.prefix]
    if path == "":
        return [token_set("c", 0.25)] if request.exclude else [token_set("a", 0.6), token_set("b", 0.4)]
    if path == "c":
        return [token_set("cd", 0.5, is_greedy=True), *map(token_set, ["ce", "cf", "cj"], [0.2, 0.1, 0.1])]
    if path == "cd":
        return [token_set("cdg", 0.01, is_greedy=True), token_set("cdh", 0.2)]
    only = {"a": "ak", "ak": "aku", "b": "bl", "ce": "cei", "cei": "ceiy", "cdh": "cdhn"}[path]
    return [] if request.exclude else [token_set(only, 0.3, is_greedy=True)]


PERIOD = 46


def score(request: Score) -> OptionLogprobs:
    """The value of the leaf whose text this is; with the period of its rollout unless the text has ended."""
    assert request.question.endswith(".") != (request.question in ("cdg", "cf"))
    return judged({row.leaf: row.value for row in SIMULATIONS}[request.question.removesuffix(".")])


def embed(request: Embed) -> Vector:
    own = chr(request.prefix[-request.num_tokens])  # the letter of the node whose path is embedded
    if own == "b" and PERIOD in request.prefix:
        return np.array([0.96, 0.28])
    if own == "a" and len(request.prefix) > len("a."):
        return np.array([0.0, 1.0])
    return np.array([0.0, 1.0] if own in "cejg" else [1.0, 0.0])


def begin_golden(config: SearchConfig = CONFIG) -> tuple[Search, ScriptedEngine]:
    engine = ScriptedEngine(expand=expand, rollout=lambda request: TokenSet((PERIOD,), "."), score=score, embed=embed)
    context = engine.open("Question", max_tokens=100)
    return Search(context, ScriptedJudge(context), config, seed=0, transcript=""), engine


def finish_golden(search: Search, engine: ScriptedEngine, steps: Callable[[Search], Steps[object]]) -> None:
    run(Job(steps(search), {search.context: engine}))


def extend_twice(search: Search) -> Steps[None]:
    yield from extend(search)
    yield from extend(search)


def nodes_by_path(root: Node) -> dict[str, Node]:
    nodes = [root]
    for node in nodes:
        nodes.extend(node.children)
    return {PATHS[node.prefix]: node for node in nodes}


def priors_and_statistics(root: Node) -> dict[str, tuple[float, int, float, float]]:
    return {
        path: (node.prior, node.visit_count, node.effective_visits, node.value)
        for path, node in nodes_by_path(root).items()
    }


def approximately(expected: dict[str, tuple[float, int, float, float]]) -> dict[str, object]:
    return {path: pytest.approx(numbers, rel=1e-12, abs=1e-12) for path, numbers in expected.items()}


@pytest.mark.parametrize("simulation", SIMULATIONS, ids=lambda row: row.leaf)
def test_the_table_follows_from_the_formulas(simulation: Simulation) -> None:
    priors = {**BELOW_A_ROOT, **simulation.priors}
    for parent_visits, children in simulation.selections:
        for name, known in children.items():
            normalised = 0 if known.visits == 0 else (known.value + 1) / 2.00001
            exploration = priors[name] * math.sqrt(parent_visits) / (1 + known.visits)
            assert normalised + 2 * exploration == pytest.approx(known.puct, abs=5.1e-5)
        best = max(children, key=lambda name: children[name].puct)
        assert simulation.leaf.startswith(best)
    assert simulation.leaf == best


@pytest.mark.parametrize("number", range(1, 13))
def test_the_tree_before_a_simulation_is_that_of_the_table(number: int) -> None:
    search, engine = begin_golden(
        SearchConfig(
            token_set_lengths=(1, 2), max_children=4, max_simulations=number - 1, min_visits=6, accept_value=-1.0
        )
    )
    finish_golden(search, engine, choose)
    nodes = nodes_by_path(search.tree.root)
    for parent_visits, children in SIMULATIONS[number - 1].selections:
        for name, known in children.items():
            if name in nodes:
                assert (nodes[name].value, nodes[name].effective_visits) == pytest.approx(known[:2])
                assert nodes[name[:-1]].effective_visits == pytest.approx(parent_visits)
            else:  # asked for on the way
                assert known[:2] == NEW


def test_the_trace_is_that_of_the_table() -> None:
    search, engine = begin_golden()
    *events, outcome = stream(Job(extend_twice(search), {search.context: engine}))
    assert isinstance(outcome, Outcome)
    rollouts = ["" if row.leaf in ("cdg", "cf") else "." for row in SIMULATIONS]
    simulated = [
        Simulated(prefix_of(row.leaf), row.leaf + rollout, rollout, Verdict(row.value), row.num_rewound)
        for row, rollout in zip(SIMULATIONS, rollouts, strict=True)
    ]
    trace = [*events, *search.events]  # what happened after the last round stays with the search
    assert [event for event in trace if isinstance(event, Simulated)] == simulated
    first, second = trace[12], trace[-1]
    assert len(trace) == 12 + 1 + 5 + 1
    assert isinstance(first, Committed)
    assert (first.token_set, first.num_simulations, first.is_satisfied) == (token_set("c", 0.25), 12, False)
    assert first.value == pytest.approx(0.75 / 7)
    assert isinstance(second, Committed)
    greedy = token_set("cd", 0.5, is_greedy=True)
    assert (second.token_set, second.num_simulations, second.is_satisfied) == (greedy, 5, False)
    assert second.value == pytest.approx(1.4 / 5.4)


def test_the_first_commit_leaves_the_tree_worked_out_by_hand() -> None:
    search, engine = begin_golden()
    finish_golden(search, engine, choose)
    assert priors_and_statistics(search.tree.root) == approximately(
        {
            "": (1, 1 + 12, 1 + 12, sum(row.value for row in FIRST) / 13),
            "a": (WITH_C["a"], 3, 3 + 0.192, -1),
            "b": (WITH_C["b"], 2, 2 + 0.2, (-1 * 1.2 - 0.5) / 2.2),
            "c": (WITH_C["c"], 7, 7, (1 + 1 - 0.75 - 0.75 + 0.75 + 0.5 - 1) / 7),
            "ak": (1, 2, 2, -1),
            "aku": (1, 1, 1, -1),
            "bl": (1, 1, 1, -0.5),
            "cd": (0.5, 3, 3, (1 - 0.75 - 0.75) / 3),
            "ce": (0.25, 2, 2 + 0.2, (0.75 + 0.5 - 0.2) / 2.2),
            "cf": (0.125, 0, 3 * 0.2, (1 - 0.75 - 0.75) / 3),
            "cj": (0.125, 1, 1 + 2 * 0.2, (0.2 * 0.75 + 0.2 * 0.5 - 1) / 1.4),
            "cdg": (2 / 3, 2, 2, -0.75),
            "cdh": (1 / 3, 0, 0, 0),
            "cei": (1, 1, 1, 0.5),
        }
    )


def test_the_second_commit_goes_on_from_the_kept_subtree() -> None:
    search, engine = begin_golden()
    finish_golden(search, engine, extend)
    root = search.tree.root
    assert (PATHS[root.prefix], root.visit_count, search.num_simulations) == ("c", 7, 12)
    finish_golden(search, engine, choose)
    assert search.num_simulations == 12 + (12 - 7)
    assert priors_and_statistics(root) == approximately(
        {
            "c": (WITH_C["c"], 12, 12, (0.75 - 0.25 + 0.5 + 1 + 1 + 1) / 12),
            "cd": (0.4375, 5, 5 + 2 * 0.2, (1 - 0.75 - 0.75 + 0.5 + 1 + 0.2 * (1 + 1)) / 5.4),
            "ce": (0.25, 3, 3 + 0.2, (0.75 + 0.5 - 0.25 - 0.2) / 3.2),
            "cf": (0.15625, 2, 2 + 5 * 0.2, (0.2 * (1 - 0.75 - 0.75 + 0.5 + 1) + 1 + 1) / 3),
            "cj": (0.15625, 1, 1 + 3 * 0.2, (0.2 * (0.75 + 0.5 - 0.25) - 1) / 1.6),
            "cdg": (2 / 3, 2, 2, -0.75),
            "cdh": (1 / 3, 2, 2, (0.5 + 1) / 2),
            "cdhn": (1, 1, 1, 1),
            "cei": (1, 2, 2, (0.5 - 0.25) / 2),
            "ceiy": (1, 1, 1, -0.25),
        }
    )


def test_rewinds_are_counted_across_commits() -> None:
    search, engine = begin_golden()
    finish_golden(search, engine, extend_twice)
    assert PATHS[search.tree.root.prefix] == "cd"  # 5.4 effective visits against 3.2, 3 and 1.6
    assert (search.num_token_sets, search.num_simulations) == (2, 17)
    assert (search.num_rewinds, search.num_rewound_tokens) == (11, 38)


def test_nothing_is_asked_twice_and_nothing_of_a_text_that_has_ended() -> None:
    search, engine = begin_golden()
    finish_golden(search, engine, extend_twice)
    asked = engine.asked
    leaves = list(dict.fromkeys(row.leaf for row in SIMULATIONS))
    ends = ["cdg", "cf"]
    assert [PATHS[request.prefix] for request in asked if isinstance(request, Rollout)] == [
        leaf for leaf in leaves if leaf not in ends
    ]
    assert [request.question for request in asked if isinstance(request, Score)] == [
        leaf if leaf in ends else leaf + "." for leaf in leaves
    ]
    expanded = [(PATHS[request.prefix], len(request.exclude)) for request in asked if isinstance(request, Expand)]
    assert expanded == [
        *[("", 0), ("", 2), ("c", 0), ("cd", 0), ("a", 0), ("b", 0)],
        *[("a", 1), ("ak", 0), ("ce", 0), ("cei", 0), ("cdh", 0)],
    ]


def test_only_siblings_without_an_embedding_get_a_stand_in_and_only_once() -> None:
    search, engine = begin_golden()
    finish_golden(search, engine, extend_twice)
    stand_ins = [
        PATHS[request.prefix]
        for request in engine.asked
        if isinstance(request, Embed) and PATHS.get(request.prefix, "cf") not in ("cf", "cdg")
    ]
    assert stand_ins == ["b", "ce", "cj", "cdh"]
    num_path_embeddings = sum(len(row.selections) for row in SIMULATIONS)
    num_embeds = sum(isinstance(request, Embed) for request in engine.asked)
    assert num_embeds == num_path_embeddings + len(["b", "ce", "cf", "cj", "cdh"])
