"""Asking ahead: what is foreseen, what becomes of it, and that it changes nothing but the number of steps."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_rain.budget import Budget
from langchain_rain.drivers import Job, Outcome, run, run_batch, stream
from langchain_rain.engines.base import Engine, StepReport, Ticket
from langchain_rain.engines.merging import StepperChannel
from langchain_rain.engines.scripted import ScriptedEngine
from langchain_rain.errors import EngineError
from langchain_rain.search.config import SearchConfig
from langchain_rain.search.lookahead import foresee
from langchain_rain.search.paper import SearchResult, choose, generate
from langchain_rain.search.protocol import (
    Committed,
    Context,
    Embed,
    Event,
    Expand,
    FinishReason,
    Request,
    Rollout,
    Round,
    Score,
    Steps,
    TokenSet,
)
from langchain_rain.search.state import Search
from langchain_rain.search.tree import Node, assign_priors, backup
from tests.naive_search import NaiveSearch
from tests.scripted_games import RandomGame, begin, configs, games, judged
from tests.test_merging import settle
from tests.test_paper import PLAIN, letters, nodes_below

T = TypeVar("T")

FOREVER = 10**9
LOOKAHEADS = (0, 1, 5, 40)
NOTHING_SAID = TokenSet((), "")
FREE = replace(PLAIN, accept_value=-1.0)
"""Commits whatever is best, without a direct judgement."""


class Paced:
    """A stepper whose requests take as many steps as `pace` says; it notes what it is told, and after which step."""

    name = "paced"
    identity: Mapping[str, Any] = {}

    def __init__(self, answer: Callable[[Request], Any], pace: Callable[[Request], int]) -> None:
        self.channel = StepperChannel(self)
        self.num_steps = 0
        self.submitted: list[Request] = []
        self.cancelled: list[tuple[int, Request]] = []
        self.opened: list[Context] = []
        self.closed: list[Context] = []
        self._answer, self._pace = answer, pace
        self._pending: dict[Ticket, tuple[Request, int]] = {}

    def open(self, prompt: str, *, max_tokens: int, stop: Sequence[str] = ()) -> Context:
        self.opened.append(Context(self.name, 1))
        return self.opened[-1]

    def close(self, context: Context) -> None:
        self.closed.append(context)

    def submit(self, request: Request) -> Ticket:
        ticket = len(self.submitted)
        self.submitted.append(request)
        self._pending[ticket] = (request, self.num_steps + self._pace(request))
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        request, _ = self._pending.pop(ticket)
        self.cancelled.append((self.num_steps, request))

    def step(self) -> StepReport:
        self.num_steps += 1
        positions = dict.fromkeys(self._pending, 1)
        done = [ticket for ticket, (_, last_step) in self._pending.items() if last_step <= self.num_steps]
        return StepReport({ticket: self._answer(self._pending.pop(ticket)[0]) for ticket in done}, positions)


def answer_of(engine: ScriptedEngine) -> Callable[[Request], Any]:
    """What a scripted engine replies to a request."""

    def answer(request: Request) -> Any:
        ticket = engine.submit(request)
        return engine.step().finished[ticket]

    return answer


def pace_by_kind(*, expand: int, rollout: int) -> Callable[[Request], int]:
    paces: dict[type, int] = {Expand: expand, Rollout: rollout}
    return lambda request: paces.get(type(request), 1)


def noting(steps: Steps[T], rounds: list[Round]) -> Steps[T]:
    """The same search; notes its rounds."""
    replies: Sequence[Any] | None = None
    while True:
        try:
            asked = steps.send(replies)  # type: ignore[arg-type]
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        rounds.append(asked)
        replies = yield asked


def foreseen_in(steps: Steps[object], job: Job[Any]) -> list[tuple[list[str], list[str] | None]]:
    """What each round of a search asked, and asked ahead."""
    rounds: list[Round] = []
    run(Job(noting(steps, rounds), job.contexts))
    return [(names_of(each.requests), None if each.ahead is None else names_of(each.ahead)) for each in rounds]


def trace(engine: Engine, config: SearchConfig, **settings: Any) -> tuple[list[Event], SearchResult]:
    """All events, and the result without those that came with it."""
    _, job = begin(engine, config, **settings)
    *events, outcome = stream(job)
    assert isinstance(outcome, Outcome)
    return [event for event in events if not isinstance(event, Outcome)], replace(outcome.result, events=())


def name_of(request: Request) -> str:
    """Its kind and path: "Expand ab"."""
    path = request.question if isinstance(request, Score) else "".join(map(chr, request.prefix))
    return f"{type(request).__name__} {path}"


def names_of(requests: Sequence[Request]) -> list[str]:
    return [name_of(request) for request in requests]


def count(engine: ScriptedEngine | Paced) -> Counter[str]:
    return Counter(names_of(engine.asked if isinstance(engine, ScriptedEngine) else engine.submitted))


# It changes nothing


@settings(max_examples=40, deadline=None)
@given(st.booleans().flatmap(lambda has_vetoes: games(has_vetoes=has_vetoes)), configs(), st.booleans())
def test_events_and_result_are_the_same_however_far_a_search_looks_ahead(
    game: RandomGame, config: SearchConfig, has_judge_of_its_own: bool
) -> None:
    traces = [
        trace(
            game.engine(),
            replace(config, lookahead=lookahead),
            judge_engine=game.engine("judge") if has_judge_of_its_own else None,
            can_veto=game.has_vetoes,
        )
        for lookahead in LOOKAHEADS
    ]
    assert traces == [traces[0]] * len(traces)
    naive = NaiveSearch(
        game.answer, Context("naive", 1), replace(config, lookahead=0), seed=0, can_veto=game.has_vetoes
    ).play()
    events, result = traces[0]
    assert events == naive.events
    assert (result.stop_reason, result.text) == (naive.stop_reason, naive.root.text)


@settings(max_examples=40, deadline=None)
@given(games(has_vetoes=True), configs(), st.integers(0, 10**6), st.booleans())
def test_requests_that_take_longer_than_others_change_nothing_and_never_take_more_steps(
    game: RandomGame, config: SearchConfig, seed: int, has_judge_of_its_own: bool
) -> None:
    def pace(request: Request) -> int:
        path = request.question if isinstance(request, Score) else request.prefix
        return Random(repr((seed, type(request), path))).randint(1, 6)

    traces, num_steps = [], []
    for lookahead in LOOKAHEADS:
        engine = Paced(game.answer, pace)
        judge = Paced(game.answer, pace) if has_judge_of_its_own else None
        config = replace(config, lookahead=lookahead)
        traces.append(trace(engine, config, judge_engine=judge, can_veto=True))
        settle(engine.channel)
        writing = [request for request in engine.submitted if isinstance(request, Expand | Rollout)]
        assert len(set(writing)) == len(writing)  # what is named again is not submitted again
        assert engine.closed == engine.opened
        num_steps.append(engine.num_steps)
    assert traces == [traces[0]] * len(traces)
    if not has_judge_of_its_own:  # else steps go by while the judge takes its time
        assert max(num_steps) == num_steps[0]


@settings(max_examples=25, deadline=None)
@given(games(), configs())
def test_what_is_judged_and_embedded_is_the_same_and_what_is_written_is_there_too(
    game: RandomGame, config: SearchConfig
) -> None:
    engine = game.engine()
    context = engine.open("Question", max_tokens=100)
    requests = []
    for lookahead in LOOKAHEADS:
        search, _ = begin(engine, replace(config, lookahead=lookahead))
        engine.asked.clear()
        run(Job(generate(search), {search.context: engine}))
        requests.append([replace(request, context=context) for request in engine.asked])
    known = [[request for request in each if isinstance(request, Score | Embed)] for each in requests]
    written = [[request for request in each if isinstance(request, Expand | Rollout)] for each in requests]
    assert known == [known[0]] * len(LOOKAHEADS)  # children that nobody has been to get no stand-in
    for each in written:
        assert len(set(each)) == len(each)
        assert set(each) >= set(written[0])


# No more than it may


class Watched(Paced):
    """Notes in every step how many of the requests under way are not waited for."""

    def __init__(self, answer: Callable[[Request], Any], pace: Callable[[Request], int]) -> None:
        super().__init__(answer, pace)
        self.rounds: list[Round] = []
        self.num_ahead: list[int] = []

    def step(self) -> StepReport:
        waited_for = self.rounds[-1].requests
        self.num_ahead.append(sum(request not in waited_for for request, _ in self._pending.values()))
        return super().step()


@settings(max_examples=40, deadline=None)
@given(games(has_vetoes=True), configs(), st.integers(0, 6), st.integers(0, 10**6))
def test_never_more_than_the_lookahead_is_under_way_ahead(
    game: RandomGame, config: SearchConfig, lookahead: int, seed: int
) -> None:
    engine = Watched(game.answer, lambda request: Random(repr((seed, name_of(request)))).randint(1, 6))
    _, job = begin(engine, replace(config, lookahead=lookahead), can_veto=True)
    run(Job(noting(job.steps, engine.rounds), job.contexts))
    assert len(engine.num_ahead) == engine.num_steps > 0
    assert max(engine.num_ahead) <= lookahead
    assert max(len(each.ahead or ()) for each in engine.rounds) <= lookahead


# Fewer steps

CHAIN = {"": "a", "a": "b", "ab": "c"}


@pytest.mark.parametrize("lookahead", [1, 2, 40])
@pytest.mark.parametrize("expand", [2, 3, 5])
def test_what_is_asked_ahead_shares_the_steps_of_what_is_waited_for(expand: int, lookahead: int) -> None:
    # Three expansions, two rollouts of 2 steps (c is an end), three judgements of 1; T = 3, the other simulations know
    # all. Asked ahead, the expansions of a and ab begin with the rollouts of a and ab, and go on beside the judgements;
    # one that is done when the rollout of a is lets that of ab begin a step earlier, beside the judgement of a. Where
    # only one request may be noted, that rollout is the one until it is there: the expansion of ab begins beside the
    # judgement of ab, and is waited for in the step that was won.
    is_earlier = expand <= 2 and lookahead > 1
    num_steps = {0: 3 * expand + 2 * 2 + 3, lookahead: expand + 2 * max(expand, 2 + 1) + 1 - is_earlier}
    events = []
    for each, expected in num_steps.items():
        engine = Paced(answer_of(letters(CHAIN, {}, ends={"abc": "eos"})), pace_by_kind(expand=expand, rollout=2))
        events.append(trace(engine, replace(FREE, max_simulations=3, lookahead=each)))
        assert engine.num_steps == expected
        assert count(engine) == dict.fromkeys(
            ["Expand ", "Rollout a", "Expand a", "Score a.", "Rollout ab", "Expand ab", "Score ab.", "Score abc"], 1
        )
        assert engine.cancelled == []
    assert events[0] == events[1]


# What is foreseen


def tree_of(
    config: SearchConfig, children: Mapping[str, str], ends: Mapping[str, FinishReason] | None = None
) -> Search:
    """A search whose tree has these children, equally probable and not yet visited."""
    search, _ = begin(ScriptedEngine(), config)
    nodes = {"": search.tree.root}
    for path, follow in children.items():
        reasons = [(ends or {}).get(path + each) for each in follow]
        token_sets = [
            TokenSet((ord(each),), each, 0.0, False, reason) for each, reason in zip(follow, reasons, strict=True)
        ]
        for each in token_sets:
            nodes[path].add_child(each)
        nodes[path].num_expansions = 1
        assign_priors(nodes[path], num_tokens=1, root_mixing=0.0)
        nodes.update({child.text: child for child in nodes[path].children})
    return search


def node_at(search: Search, path: str) -> Node:
    return next(node for node in nodes_below(search.tree.root) if node.text == path)


def visit(search: Search, path: str, value: float, times: int = 1) -> None:
    node = node_at(search, path)
    node.rollout = NOTHING_SAID
    for _ in range(times):
        backup(search.tree.path_to(node), value)


def foreseen(search: Search) -> list[str]:
    foresee(search)
    return names_of([request for request in search.ahead.values() if request is not None])


@pytest.mark.parametrize(
    ("lookahead", "expected"),
    [
        (0, []),
        # Each of the first four asks something. The root has 1 visit: 2 * 0.5 * sqrt(1) = 1 for both, the first of
        # equals.
        (1, ["Rollout a"]),
        # 2 visits: a is supposed at 1, so 1 + sqrt(2) / 2 = 1.71 against sqrt(2) = 1.41.
        (2, ["Rollout a", "Expand a"]),
        # 3 visits, 2 of them a's: 1 + sqrt(3) / 3 = 1.58 against sqrt(3) = 1.73.
        (3, ["Rollout a", "Expand a", "Rollout b"]),
        # 4 visits: 1 + 2 / 3 against 1 + 2 / 2.
        (4, ["Rollout a", "Expand a", "Rollout b", "Expand b"]),
        # Then both are alike; a. Neither has children to go on to, so however many follow, they ask nothing new.
        (9, ["Rollout a", "Expand a", "Rollout b", "Expand b"]),
    ],
)
def test_the_next_simulations_are_played_as_if_all_judgements_were_good(lookahead: int, expected: list[str]) -> None:
    assert foreseen(tree_of(replace(PLAIN, lookahead=lookahead), {"": "ab"})) == expected


def test_what_is_noted_is_what_the_search_will_ask() -> None:
    search = tree_of(SearchConfig(token_set_lengths=(1, 4), lookahead=2), {"": "a"})
    (child,) = search.tree.root.children
    foresee(search)
    assert search.ahead == {(child, Rollout): search.rollout_of(child), (child, Expand): search.expansion_of(child)}
    assert search.expansion_of(child).num_tokens == 4


def test_the_simulation_under_way_is_supposed_to_end_well() -> None:
    # As above, but the rollout of a is what is waited for.
    search = tree_of(replace(PLAIN, lookahead=2), {"": "ab"})
    search.leaves = [node_at(search, "a")]
    assert foreseen(search) == ["Expand a", "Rollout b"]
    assert search.leaves[0].visit_count == 0


@pytest.mark.parametrize(
    ("lookahead", "expected"),
    [(0, []), (1, ["Rollout b"]), (2, ["Rollout b", "Expand b"]), (9, ["Rollout b", "Expand b"])],
)
def test_of_the_end_of_a_text_nothing_is_asked(lookahead: int, expected: list[str]) -> None:
    # a, a, b, b, as above; but a is an end
    search = tree_of(replace(PLAIN, lookahead=lookahead), {"": "ab"}, ends={"a": "eos"})
    assert foreseen(search) == expected


@pytest.mark.parametrize(
    ("lookahead", "num_visits", "expected"),
    [
        # From 5 visits of the root: a with 5, 6, 7 and 8, which are the 4 simulations of 1 request.
        (1, 4, []),
        # a with 6, 7 and 8, and the fourth goes to b.
        (1, 5, ["Rollout b"]),
        # a with 1, 2, ... 8, which are the 8 simulations of 2 requests.
        (2, 0, []),
        # a with 2, 3, ... 8, and the eighth goes to b.
        (2, 1, ["Rollout b"]),
    ],
)
def test_simulations_that_ask_nothing_are_four_times_the_requests_and_no_more(
    lookahead: int, num_visits: int, expected: list[str]
) -> None:
    # a, an end, is one of five: 2 / 5 * sqrt(N) / (1 + n), where the root has N visits. All but the first of them are
    # a's, n = N - 1. At N = 8 a still leads, 1 + 0.4 * sqrt(8) / 8 = 1.14 against b's 0.4 * sqrt(8) = 1.13; at N = 9 b
    # does, 0.4 * 3 = 1.2 against 1 + 0.4 * 3 / 9 = 1.13. By then a has 8 visits, which are not enough to commit it.
    search = tree_of(replace(PLAIN, min_visits=8, lookahead=lookahead), {"": "abcde"}, ends={"a": "eos"})
    visit(search, "a", 1.0, times=num_visits)
    assert foreseen(search) == expected


def test_where_all_texts_have_ended_nothing_is_foreseen() -> None:
    search = tree_of(replace(PLAIN, lookahead=100), {"": "ab", "a": "cd"}, ends=dict.fromkeys(["ac", "ad", "b"], "eos"))
    visit(search, "a", 0.0)
    assert foreseen(search) == []
    assert [node.visit_count for node in nodes_below(search.tree.root)] == [2, 1, 0, 0, 0]


def test_known_rollouts_are_not_asked_for_and_known_children_are_gone_on_to_once_their_parent_is_visited() -> None:
    # Both rollouts and the children of a, c, became known ahead. First a, and no farther: it is not visited yet. With 2
    # visits a (1.71 against 1.41) and on to c; with 3 and with 4 b, of which the children are asked, as above; with 5
    # both are alike: a, and c again. Had the first gone on to c, its children would have been asked before those of b.
    search = tree_of(replace(PLAIN, lookahead=1), {"": "ab", "a": "c"})
    for path in "ab":
        node_at(search, path).rollout = NOTHING_SAID
    assert foreseen(search) == ["Rollout ac"]
    search.config = replace(search.config, lookahead=2)
    assert foreseen(search) == ["Rollout ac", "Expand b"]
    search.config = replace(search.config, lookahead=4)
    assert foreseen(search) == ["Rollout ac", "Expand b", "Expand ac"]


@pytest.mark.parametrize(
    ("min_visits", "lookahead", "expected"),
    [
        # a has 2 visits, the root 3: b, sqrt(3) against 1 + sqrt(3) / 3. Unless a is committed by then, and c follows.
        (2, 1, ["Rollout b"]),
        (1, 1, ["Rollout ac"]),
        # b, and on to d (4 visits: 2 against 1.67), a and on to c (5 visits: 1 + sqrt(5) / 3 both): now a has 3 and the
        # root 6. The next goes to b (1 + sqrt(6) / 3 against 1 + sqrt(6) / 4) and d, the one after that (7 visits, 3
        # each: alike) to a and c. Unless a is committed, so that c is visited again, and d never.
        (6, 4, ["Rollout b", "Rollout bd", "Rollout ac", "Expand bd"]),
        (6, 9, ["Rollout b", "Rollout bd", "Rollout ac", "Expand bd", "Expand ac"]),
        (2, 9, ["Rollout b", "Rollout bd", "Rollout ac", "Expand ac"]),
    ],
)
def test_past_a_child_that_is_good_enough_it_goes_on_from_there(
    min_visits: int, lookahead: int, expected: list[str]
) -> None:
    search = tree_of(replace(PLAIN, min_visits=min_visits, lookahead=lookahead), {"": "ab", "a": "c", "b": "d"})
    visit(search, "a", 1.0, times=2)
    assert foreseen(search) == expected


def test_a_child_that_is_good_enough_and_the_end_is_the_end() -> None:
    search = tree_of(replace(PLAIN, min_visits=0, lookahead=5), {"": "ab"}, ends={"a": "eos"})
    visit(search, "a", 1.0)
    assert foreseen(search) == []


def test_a_root_whose_children_are_being_asked_for_is_all_that_is_foreseen() -> None:
    search = tree_of(replace(PLAIN, lookahead=5), {})
    assert foreseen(search) == ["Expand "]


def test_from_a_root_committed_without_a_visit_it_goes_on_to_the_children_that_are_known() -> None:
    search = tree_of(replace(PLAIN, lookahead=9), {"": "ab", "b": "c"})
    search.tree.move_root(node_at(search, "b"))
    assert search.tree.root.visit_count == 0
    assert foreseen(search) == ["Rollout bc", "Expand bc"]


def test_nothing_is_noted_twice_nor_what_brought_nothing() -> None:
    search = tree_of(replace(PLAIN, lookahead=9), {"": "ab"})
    foresee(search)
    noted = dict(search.ahead)
    foresee(search)  # there is room for more, so all of it is foreseen again
    assert search.ahead == noted
    assert len(noted) == 4
    failed = (node_at(search, "b"), Rollout)
    search.ahead[failed] = None
    foresee(search)
    assert search.ahead == {**noted, failed: None}


def test_what_is_noted_leaves_room_for_fewer_and_what_brought_nothing_for_one_more() -> None:
    # a, a, b, b, as above.
    search = tree_of(replace(PLAIN, lookahead=3), {"": "ab"})
    assert foreseen(search) == ["Rollout a", "Expand a", "Rollout b"]
    assert foreseen(search) == ["Rollout a", "Expand a", "Rollout b"]
    search.ahead[node_at(search, "a"), Expand] = None
    assert foreseen(search) == ["Rollout a", "Rollout b", "Expand b"]


def test_what_is_known_and_what_lies_outside_the_new_root_is_forgotten() -> None:
    search = tree_of(replace(PLAIN, lookahead=9), {"": "ab"})
    assert foreseen(search) == ["Rollout a", "Expand a", "Rollout b", "Expand b"]
    search.config = replace(search.config, lookahead=0)
    node_at(search, "b").rollout = NOTHING_SAID
    assert foreseen(search) == ["Rollout a", "Expand a", "Expand b"]
    search.grow(node_at(search, "b"), [TokenSet((ord("c"),), "c")])
    assert foreseen(search) == ["Rollout a", "Expand a"]
    search.tree.move_root(node_at(search, "b"))
    assert foreseen(search) == []


@settings(max_examples=40, deadline=None)
@given(games(), configs(), st.booleans())
def test_foreseeing_leaves_the_tree_as_it_was(game: RandomGame, config: SearchConfig, is_under_way: bool) -> None:
    engine = game.engine()
    search, _ = begin(engine, replace(config, lookahead=20))
    run(Job(choose(search), {search.context: engine}))

    def statistics() -> list[Any]:
        return [
            (node.prefix, node.prior, node.visit_count, node.effective_visits, node.value, node.num_expansions)
            for node in nodes_below(search.tree.root)
        ]

    before = statistics()
    search.leaves = nodes_below(search.tree.root)[-1:] if is_under_way else []
    foresee(search)
    assert statistics() == before


# What becomes of it


AB = {"": "ab", "a": "c", "b": "d"}


def ends_of_ab(values: Mapping[str, float]) -> ScriptedEngine:
    return letters(AB, values, ends={"bd": "eos"})


GOOD_A = {"a.": 1.0, "ac.": 1.0}
"""The first simulation goes to a, the second to ac (1.71 against 1.41), the third to b (1.58 against 1.73)."""


def test_what_lies_outside_the_new_root_is_not_named_again_and_cancelled() -> None:
    # a is rolled out in step 2 and judged in 3, beside the rollout of ac, then committed. The rollout of b never ends;
    # when ac is to be judged, before step 4, it is of no use any more. acd, an end, is judged in 5.
    engine = Paced(
        answer_of(letters({"": "ab", "a": "c", "ac": "d"}, {}, ends={"acd": "eos"})),
        lambda request: FOREVER if name_of(request) == "Rollout b" else 1,
    )
    search, job = begin(engine, replace(FREE, max_simulations=1, lookahead=2))
    assert foreseen_in(job.steps, job) == [
        (["Expand "], []),
        (["Rollout a"], ["Expand a", "Rollout b"]),
        (["Score a."], ["Rollout b", "Rollout ac"]),
        (["Score ac."], ["Expand ac"]),
        (["Score acd"], []),
        ([], []),
    ]
    assert (search.tree.root.text, engine.num_steps) == ("acd", 5)
    settle(engine.channel)
    assert [(step, name_of(request)) for step, request in engine.cancelled] == [(3, "Rollout b")]


def test_what_is_under_way_is_named_until_its_reply_is_there_and_submitted_once() -> None:
    # Steps: 1 expands the root, 2, 3 roll out a, 4 judges it and rolls out ac, 5 judges that. The rollout of b, begun
    # with that of a, takes 6 steps and is needed after 5: 7 brings it, 8 judges b. Alone it would take 14.
    paces = {"Rollout a": 2, "Rollout b": 6}
    engine = Paced(answer_of(ends_of_ab(GOOD_A)), lambda request: paces.get(name_of(request), 1))
    search, job = begin(engine, replace(FREE, max_simulations=3, lookahead=2))
    assert foreseen_in(choose(search), job) == [
        (["Expand "], []),
        (["Rollout a"], ["Expand a", "Rollout b"]),
        (["Score a."], ["Rollout b", "Rollout ac"]),
        (["Score ac."], ["Rollout b", "Expand b"]),
        (["Rollout b"], ["Expand ac"]),
        (["Score b."], []),
    ]
    assert count(engine)["Rollout b"] == 1
    assert (engine.num_steps, engine.cancelled) == (8, [])


FAILURE = EngineError("not now")


def once_failing(engine: ScriptedEngine, name: str, failures: Sequence[Any]) -> ScriptedEngine:
    """The same engine, but its first replies to the request of that name are these."""
    answer, left = answer_of(engine), iter(failures)

    def script(request: Request) -> Any:
        return next(left, answer(request)) if name_of(request) == name else answer(request)

    return ScriptedEngine(expand=script, rollout=script, score=script)


def test_a_request_that_failed_ahead_is_asked_once_more_when_it_is_needed() -> None:
    engine = once_failing(ends_of_ab(GOOD_A), "Rollout b", [FAILURE])
    search, job = begin(engine, replace(FREE, max_simulations=3, lookahead=2))
    assert foreseen_in(choose(search), job) == [
        (["Expand "], []),
        (["Rollout a"], ["Expand a", "Rollout b"]),
        (["Score a."], ["Rollout ac", "Expand b"]),  # 2 visits: ac; 3: b, whose rollout has failed; 4: b again
        (["Score ac."], ["Expand ac"]),  # 3 and 4 visits: b and its child, an end; 5, 2 each for a and b: ac
        (["Rollout b"], []),  # neither a nor b nor what follows has anything left to ask: ac has no children
        (["Score b."], []),
    ]
    assert count(engine)["Rollout b"] == 2
    assert [child.visit_count for child in search.tree.root.children] == [2, 1]


def test_its_failure_when_it_is_needed_ends_the_search() -> None:
    engine = once_failing(ends_of_ab(GOOD_A), "Rollout b", [EngineError("ahead"), FAILURE])
    events: list[Any] = []
    with pytest.raises(EngineError, match="not now"):
        events.extend(stream(begin(engine, replace(FREE, max_simulations=3, lookahead=2))[1]))
    assert count(engine)["Rollout b"] == 2


@pytest.mark.parametrize("reply", [FAILURE, []])
def test_what_failed_ahead_and_is_never_needed_harms_nobody(reply: Any) -> None:
    # a is at -1 and b is not, so the second simulation goes to b, and b is committed. a's children are never needed.
    def engine() -> ScriptedEngine:
        return once_failing(ends_of_ab({"a.": -1.0}), "Expand a", [reply] * 2)

    config = replace(FREE, max_simulations=2)
    ahead = engine()
    assert trace(ahead, replace(config, lookahead=2)) == trace(engine(), config)
    assert count(ahead)["Expand a"] == 1


def test_an_expansion_that_was_empty_ahead_is_asked_once_more() -> None:
    engine = once_failing(ends_of_ab(GOOD_A), "Expand a", [[]])
    search, job = begin(engine, replace(FREE, max_simulations=2, lookahead=2))
    run(Job(choose(search), job.contexts))
    assert node_at(search, "ac").visit_count == 1
    assert count(engine)["Expand a"] == 2


@pytest.mark.parametrize("lookahead", LOOKAHEADS)
def test_an_expansion_that_is_empty_when_it_is_needed_is_the_engines_error(lookahead: int) -> None:
    engine = once_failing(ends_of_ab(GOOD_A), "Expand a", [[], []])
    with pytest.raises(EngineError, match="no token set after 1 tokens, though the text has not ended"):
        run(begin(engine, replace(FREE, max_simulations=2, lookahead=lookahead))[1])
    assert count(engine)["Expand a"] == 1 + (lookahead > 0)
    assert count(engine)["Score a."] == 1


def test_children_known_ahead_change_nothing_until_their_parent_is_visited() -> None:
    # T = 1: a is visited; its children were asked ahead, and so were (there is room for 9) b's rollout and children
    engine = letters(AB, {"a.": -1})
    engine_config = replace(FREE, max_simulations=1, adds_children=True, similarity_scope="all", lookahead=9)
    search, _ = begin(engine, engine_config)
    run(Job(choose(search), {search.context: engine}))
    a, b = search.tree.root.children
    for node, text in ((a, "ac"), (b, "bd")):
        (child,) = node.children
        assert (child.text, child.prior, child.visit_count, child.effective_visits) == (text, 1.0, 0, 0.0)
        assert (child.value, child.embedding, node.num_expansions) == (0.0, None, 1)
    assert (a.visit_count, a.value, b.visit_count, b.value) == (1, -1.0, 0, -1.0)
    assert b.effective_visits == 0.2  # shared by a, which lies where b does
    embeds = [request for request in engine.asked if isinstance(request, Embed)]
    assert names_of(embeds) == ["Embed a.", "Embed b"]


@pytest.mark.parametrize(("lookahead", "num_simulations"), [(0, 1), (2, 0)])
def test_what_is_asked_ahead_counts_towards_the_budget(lookahead: int, num_simulations: int) -> None:
    # Expand "", Rollout a, Score a. and then Expand a, which is one position too many. Expand a and Rollout b beside
    # Rollout a spend the budget before a is judged.
    config = replace(FREE, max_simulations=1, lookahead=lookahead)
    outcome = run(begin(letters(AB, {}), config, budget=Budget(max_forward_tokens=4))[1])
    assert (outcome.result.stop_reason, outcome.cost.token_positions) == ("budget", 4)
    assert outcome.result.num_simulations == num_simulations


def test_a_search_that_looks_ahead_shares_an_engine_with_one_that_does_not() -> None:
    # The steps of CHAIN with expansions of 4, as above: the longer search is the one that waits for all it asks.
    engine = Paced(answer_of(letters(CHAIN, {}, ends={"abc": "eos"})), pace_by_kind(expand=4, rollout=2))
    jobs = [begin(engine, replace(FREE, max_simulations=3, lookahead=each))[1] for each in (0, 20)]
    outcomes = [each for each in run_batch(jobs) if isinstance(each, Outcome)]
    assert [each.result.text for each in outcomes] == ["abc", "abc"]
    assert [each.cost.forward_passes for each in outcomes] == [3 * 4 + 2 * 2 + 3, 4 + 2 * 4 + 1]
    assert engine.num_steps == 19
    settle(engine.channel)
    assert engine.cancelled == []


VETOED_A: dict[str, Any] = {"a": judged(-1, is_vetoed=True), "b": 0.5, "bc": 0.5}
"""With T = 1, a is visited, an end and vetoed; b is judged as it stands, and committed without a visit."""


def with_veto_of_a() -> ScriptedEngine:
    return letters({"": "ab", "b": "c"}, VETOED_A, ends={"a": "eos", "bc": "eos"})


def test_a_failure_that_came_while_nothing_was_named_ahead_is_not_that_of_the_request_when_it_is_needed() -> None:
    # Expand b, begun beside the first judgement, fails in its second step, while b is judged; then b is the root.
    inner = answer_of(with_veto_of_a())
    failures = iter([EngineError("ahead")])
    engine = Paced(
        lambda request: next(failures, inner(request)) if name_of(request) == "Expand b" else inner(request),
        lambda request: 2 if name_of(request) == "Expand b" else 1,
    )
    _, job = begin(engine, replace(PLAIN, max_simulations=1, lookahead=2), can_veto=True)
    assert foreseen_in(job.steps, job) == [
        (["Expand "], []),
        (["Score a"], ["Rollout b", "Expand b"]),  # 2 visits: a; 3: b; 4: b again
        (["Score b"], None),
        (["Expand b"], []),
        (["Score bc"], []),
        ([], []),
    ]
    assert count(engine)["Expand b"] == 2


@pytest.mark.parametrize("lookahead", [1, 2, 9])
def test_a_root_committed_without_a_visit_is_not_rolled_out(lookahead: int) -> None:
    # While a is judged, b's turn to be visited is foreseen, and its rollout is begun: step 2. It goes on while b is
    # judged, in step 3, and is dropped when b is the root.
    engine = Paced(answer_of(with_veto_of_a()), lambda request: FOREVER if name_of(request) == "Rollout b" else 1)
    _, job = begin(engine, replace(PLAIN, max_simulations=1, lookahead=lookahead), can_veto=True)
    rounds: list[Round] = []
    outcome = run(Job(noting(job.steps, rounds), job.contexts))
    (commit,) = [number for number, each in enumerate(rounds) if any(isinstance(e, Committed) for e in each.events)]
    named = [names_of([*each.requests, *(each.ahead or ())]) for each in rounds]
    assert "Rollout b" in named[1]
    assert commit == 3
    assert not any("Rollout b" in names for names in named[commit:])
    assert outcome.result.text == "bc"
    settle(engine.channel)
    assert [(step, name_of(request)) for step, request in engine.cancelled] == [(3, "Rollout b")]
