"""The search over whole messages: drawn one after another, judged, the first good one committed."""

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_rain.budget import Budget
from langchain_rain.drivers import Job, Outcome, arun, run, run_batch, stream
from langchain_rain.engines.scripted import ScriptedEngine
from langchain_rain.errors import EngineError
from langchain_rain.rubrics import Criterion, Rubric
from langchain_rain.rubrics.evaluate import RubricJudge, ValueJudge
from langchain_rain.search.config import SearchConfig
from langchain_rain.search.drafts import draft
from langchain_rain.search.paper import SearchResult
from langchain_rain.search.protocol import (
    Committed,
    Event,
    Expand,
    OptionLogprobs,
    Score,
    Simulated,
    TokenSet,
    Verdict,
    derive_seed,
)
from langchain_rain.search.state import Search
from tests.scripted_games import ScriptedJudge, judged

CONFIG = SearchConfig(num_children=3, max_simulations=50, proposals="principled")

VETOED = judged(0, is_vetoed=True)
ABSTAINED = judged(0.5, is_abstained=True)


def writer(drawn: Sequence[str], values: Mapping[str, float | OptionLogprobs]) -> ScriptedEngine:
    """Draws these messages one after another, each known by its first place among them, and judges them."""
    draws = iter(drawn)

    def expand(request: Expand) -> list[TokenSet]:
        text = next(draws)
        token = (drawn.index(text),)
        return [] if token in request.exclude else [message(token[0], text)]

    def score(request: Score) -> OptionLogprobs:
        value = values[request.question]
        return value if isinstance(value, OptionLogprobs) else judged(value)

    return ScriptedEngine(expand=expand, score=score)


def message(token: int, text: str) -> TokenSet:
    return TokenSet((token,), text, finish_reason="eos")


def begin(
    engine: ScriptedEngine, config: SearchConfig = CONFIG, *, seed: int = 0, budget: Budget | None = None
) -> tuple[Search, Job[SearchResult]]:
    context = engine.open("Question", max_tokens=100)
    search = Search(context, ScriptedJudge(context), config, seed, transcript="")
    return search, Job(draft(search), {context: engine}, budget or Budget())


def play(engine: ScriptedEngine, config: SearchConfig = CONFIG, **begun: Any) -> tuple[SearchResult, list[Event]]:
    """The result of a whole search without its events, and all that happened in it."""
    _, job = begin(engine, config, **begun)
    *events, outcome = stream(job)
    assert isinstance(outcome, Outcome)
    assert not any(isinstance(event, Outcome) for event in events)
    return without_events(outcome.result), events  # type: ignore[return-value]  # as asserted


def without_events(result: SearchResult) -> SearchResult:
    """The last events come with the result."""
    return SearchResult(
        result.text,
        result.tokens,
        result.verdict,
        is_satisfied=result.is_satisfied,
        stop_reason=result.stop_reason,
        num_token_sets=result.num_token_sets,
        num_simulations=result.num_simulations,
        num_rewinds=result.num_rewinds,
        num_rewound_tokens=result.num_rewound_tokens,
    )


def asked(engine: ScriptedEngine, kind: type) -> list[Any]:
    return [request for request in engine.asked if isinstance(request, kind)]


def unsatisfied(
    text: str, number: int | None, verdict: Verdict | None, num_simulations: int, **counts: Any
) -> SearchResult:
    """Nothing was committed: the best draft by its number, None if there is none that may be presented."""
    num_rewinds = counts.get("num_rewinds", max(0, num_simulations - 1))
    return SearchResult(
        text=text,
        tokens=() if number is None else (number,),
        verdict=verdict,
        is_satisfied=False,
        stop_reason=counts.get("stop_reason", "dead_end"),
        num_token_sets=0,
        num_simulations=num_simulations,
        num_rewinds=num_rewinds,
        num_rewound_tokens=num_rewinds,
    )


# --- What is committed -------------------------------------------------------------------------------------------


def test_the_first_draft_that_satisfies_is_committed_and_the_events_come_in_order() -> None:
    engine = writer(["bad", "good", "better"], {"bad": -0.5, "good": 0.5})
    result, events = play(engine)
    assert result == SearchResult(
        text="good",
        tokens=(1,),
        verdict=Verdict(0.5),
        is_satisfied=True,
        stop_reason="eos",
        num_token_sets=1,
        num_simulations=2,
        num_rewinds=1,
        num_rewound_tokens=1,
    )
    assert events == [
        Simulated((0,), "bad", "", Verdict(-0.5), num_rewound_tokens=0),
        Simulated((1,), "good", "", Verdict(0.5), num_rewound_tokens=1),
        Committed(message(1, "good"), 0.5, num_simulations=2, is_satisfied=True),
    ]
    assert [type(request) for request in engine.asked] == [Expand, Score, Expand, Score]


def test_what_was_committed_is_the_root_and_satisfied() -> None:
    engine = writer(["good"], {"good": 0.5})
    search, job = begin(engine)
    run(job)
    root = search.tree.root
    assert (root.text, root.visit_count, root.value, search.satisfied_text, search.num_satisfied_tokens) == (
        "good",
        1,
        0.5,
        "good",
        1,
    )


def test_a_draft_says_itself_why_it_ended() -> None:
    engine = ScriptedEngine(
        expand={(): [TokenSet((0,), "cut", finish_reason="length")]}, score=lambda request: judged(1)
    )
    assert play(engine)[0].stop_reason == "length"


@pytest.mark.parametrize(
    ("accept_value", "num_draws"),
    [
        (-1.0, 1),  # -0.5 > -1
        (-0.5, 2),  # -0.5 is not above it
        (0.0, 3),
        (0.5, 3),  # 1 is
    ],
)
def test_a_draft_satisfies_above_accept_value(accept_value: float, num_draws: int) -> None:
    engine = writer(["a", "b", "c"], {"a": -0.5, "b": 0.0, "c": 1.0})
    result, _ = play(engine, SearchConfig(num_children=3, accept_value=accept_value))
    assert (result.is_satisfied, result.num_simulations) == (True, num_draws)


@pytest.mark.parametrize("refused", [ABSTAINED, VETOED])
def test_neither_an_abstention_nor_a_veto_satisfies_even_where_anything_is_accepted(refused: OptionLogprobs) -> None:
    engine = writer(["a", "b"], {"a": refused, "b": -0.5})
    result, _ = play(engine, SearchConfig(num_children=2, accept_value=-1.0))
    assert (result.text, result.is_satisfied) == ("b", True)


# --- How much is drawn -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("num_children", "max_simulations"), [(2, 9), (9, 2), (2, 2)])
def test_no_more_is_drawn_than_children_or_simulations_are_allowed(num_children: int, max_simulations: int) -> None:
    engine = writer("abcd", dict.fromkeys("abcd", -1.0))
    play(engine, SearchConfig(num_children=num_children, max_simulations=max_simulations))
    assert len(asked(engine, Expand)) == 2


def test_each_draw_asks_for_one_message_of_a_seed_of_its_own_and_none_that_is_known() -> None:
    engine = writer("abc", dict.fromkeys("abc", -1.0))
    play(engine, SearchConfig(num_children=3, top_k=7, temperature=0.5, proposals="resampled"), seed=5)
    context = engine.opened[0]
    assert asked(engine, Expand) == [
        Expand(
            context,
            (),
            num_token_sets=1,
            num_tokens=1,
            num_draws=1,
            top_k=7,
            temperature=0.5,
            seed=derive_seed(5, Expand, (), ordinal),
            exclude=frozenset((token,) for token in range(ordinal)),
        )
        for ordinal in range(3)
    ]


def test_a_message_drawn_again_counts_as_a_draw_and_is_not_judged_again() -> None:
    engine = writer(["a", "a", "b", "c"], {"a": -0.5, "b": -0.25})
    result, events = play(engine)
    assert result == unsatisfied("b", 2, Verdict(-0.25), 3, num_rewinds=1)
    assert [request.question for request in asked(engine, Score)] == ["a", "b"]
    assert [event.draft for event in events if isinstance(event, Simulated)] == ["a", "b"]


def test_a_writer_that_offers_nothing_at_all_is_a_dead_end() -> None:
    result, events = play(ScriptedEngine(expand=lambda request: []))
    assert (result, events) == (unsatisfied("", None, None, 3, num_rewinds=0), [])


# --- Guidance ----------------------------------------------------------------------------------------------------


def test_principled_proposals_are_guided_by_the_verdict_on_the_draft_before() -> None:
    engine = writer(["a", "b", "b", "c"], {"a": -0.5, "b": -0.25, "c": 1.0})
    play(engine, SearchConfig(num_children=4, proposals="principled"))
    assert [request.guidance for request in asked(engine, Expand)] == ["", "Not -0.5.", "Not -0.25.", "Not -0.25."]


def test_resampled_proposals_are_not_guided() -> None:
    engine = writer("abc", {"a": -0.5, "b": -0.25, "c": 1.0})
    play(engine, SearchConfig(num_children=3, proposals="resampled"))
    assert [request.guidance for request in asked(engine, Expand)] == ["", "", ""]


def test_a_rubric_guides_to_the_good_options_of_the_criteria_that_were_not_met() -> None:
    rubric = Rubric(
        name="table",
        criteria=(
            Criterion(name="edible", instruction="?", good="It can be eaten.", bad="It cannot."),
            Criterion(name="warm", instruction="?", good="It is warm.", bad="It is cold."),
            Criterion(name="sweet", instruction="?", good="It is sweet.", bad="It is not."),
        ),
    )
    judge = RubricJudge(rubric, ScriptedEngine().open("", max_tokens=1))
    first = "Write your next reply so that all of this is true:\n"
    failed = Verdict(-0.5, {"edible": 1.0, "warm": 0.0, "sweet": -1.0})
    assert judge.guidance(failed) == first + "- It is warm.\n- It is sweet."
    blameless = Verdict(0.5, {"edible": 1.0, "warm": 1.0, "sweet": 0.5})  # but not enough to be accepted
    assert judge.guidance(blameless) == first + "- It can be eaten.\n- It is warm.\n- It is sweet."


def test_a_value_guides_by_itself_and_can_not_veto() -> None:
    judge = ValueJudge(ScriptedEngine().open("", max_tokens=1))
    assert judge.guidance(Verdict(-0.456)) == "Write a better reply than the one that was rejected."
    assert not judge.can_veto


# --- Where none satisfies ----------------------------------------------------------------------------------------


def test_the_best_draft_without_a_veto_is_what_is_left() -> None:
    engine = writer("abc", {"a": -0.75, "b": -0.5, "c": VETOED})
    search, job = begin(engine)
    assert without_events(run(job).result) == unsatisfied("b", 1, Verdict(-0.5), 3)
    assert (search.tree.root.text, search.satisfied_text, search.num_satisfied_tokens) == ("", "", 0)


def test_the_first_of_equals_is_the_best() -> None:
    assert play(writer("abc", dict.fromkeys("abc", -0.5)))[0] == unsatisfied("a", 0, Verdict(-0.5), 3)


def test_an_abstention_is_worth_more_than_a_bad_judgement() -> None:
    engine = writer("abc", {"a": -0.5, "b": ABSTAINED, "c": -0.25})
    assert play(engine)[0] == unsatisfied("b", 1, Verdict(0.0, is_abstained=True), 3)


def test_where_every_draft_was_vetoed_nothing_is_left_but_the_last_verdict() -> None:
    result, events = play(writer("abc", dict.fromkeys("abc", VETOED)))
    assert result == unsatisfied("", None, Verdict(-1.0, is_vetoed=True), 3)
    assert [type(event) for event in events] == [Simulated] * 3


# --- Ends from outside -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("max_forward_tokens", "text", "number", "verdict", "num_simulations"),
    [
        # Each request is one position here, and the reply that spends the budget is not handed over.
        (1, "", None, None, 0),  # the first draft
        (2, "", None, None, 0),  # its judgement
        (3, "a", 0, Verdict(-0.75), 1),  # the second draft
        (4, "a", 0, Verdict(-0.75), 1),  # its judgement
        (5, "b", 1, Verdict(-0.5), 2),
    ],
)
def test_a_spent_budget_leaves_the_best_that_was_judged_by_then(
    max_forward_tokens: int, text: str, number: int | None, verdict: Verdict | None, num_simulations: int
) -> None:
    engine = writer("abc", {"a": -0.75, "b": -0.5, "c": 1.0})
    result, _ = play(engine, budget=Budget(max_forward_tokens=max_forward_tokens))
    assert result == unsatisfied(text, number, verdict, num_simulations, stop_reason="budget")
    assert len(engine.asked) == max_forward_tokens


def test_a_budget_that_is_enough_to_the_last_token_changes_nothing() -> None:
    plain = play(writer("ab", {"a": -0.75, "b": 0.5}))
    assert play(writer("ab", {"a": -0.75, "b": 0.5}), budget=Budget(max_forward_tokens=5)) == plain


def test_a_writer_that_fails_is_an_error() -> None:
    failing = ScriptedEngine(expand=lambda request: EngineError("The ink is dry."))
    with pytest.raises(EngineError, match="The ink is dry"):
        play(failing)


# --- Whole searches ----------------------------------------------------------------------------------------------

MESSAGES = "abcde"


def random_writer(game: int) -> ScriptedEngine:
    """Draws by the seed of the request, judges by the text."""

    def expand(request: Expand) -> list[TokenSet]:
        token = Random(f"{game} draws {request.seed}").randrange(len(MESSAGES))
        return [] if (token,) in request.exclude else [message(token, MESSAGES[token])]

    def score(request: Score) -> OptionLogprobs:
        random = Random(f"{game} judges {request.question}")
        value = random.choice([-1, -0.5, 0, 0.25, 0.5])
        return judged(value, is_vetoed=random.random() < 0.2, is_abstained=random.random() < 0.2)

    return ScriptedEngine(expand=expand, score=score)


def naive_draft(game: int, config: SearchConfig, seed: int) -> tuple[str, bool, int]:
    """The text of the answer, whether it satisfies, and how many draws it took; in as few words as can be."""
    verdicts: dict[str, tuple[float, bool, bool]] = {}
    for ordinal in range(min(config.num_children, config.max_simulations)):
        drawn = Random(f"{game} draws {derive_seed(seed, Expand, (), ordinal)}").randrange(len(MESSAGES))
        text = MESSAGES[drawn]
        if text in verdicts:
            continue
        random = Random(f"{game} judges {text}")
        value = random.choice([-1, -0.5, 0, 0.25, 0.5])
        is_vetoed, is_abstained = random.random() < 0.2, random.random() < 0.2
        verdicts[text] = (0 if is_abstained and not is_vetoed else value, is_vetoed, is_abstained)
        if value > config.accept_value and not is_vetoed and not is_abstained:
            return text, True, ordinal + 1
    values = {text: value for text, (value, is_vetoed, _) in verdicts.items() if not is_vetoed}
    best = max(values, key=values.__getitem__, default="")
    return best, False, min(config.num_children, config.max_simulations)


def configs() -> st.SearchStrategy[SearchConfig]:
    return st.builds(
        SearchConfig,
        num_children=st.integers(1, 6),
        max_simulations=st.integers(1, 6),
        accept_value=st.sampled_from([-1.0, -0.5, 0.0, 0.25]),
        proposals=st.sampled_from(["resampled", "principled"]),
    )


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), configs(), st.integers(0, 10**6))
def test_it_is_the_naive_search(game: int, config: SearchConfig, seed: int) -> None:
    result, _ = play(random_writer(game), config, seed=seed)
    assert (result.text, result.is_satisfied, result.num_simulations) == naive_draft(game, config, seed)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), configs(), st.lists(st.integers(0, 10**6), min_size=1, max_size=4))
def test_the_same_seed_gives_the_same_answer_alone_and_merged(
    game: int, config: SearchConfig, seeds: list[int]
) -> None:
    alone = [play(random_writer(game), config, seed=seed)[0] for seed in seeds]
    engine = random_writer(game)
    outcomes = run_batch([begin(engine, config, seed=seed)[1] for seed in seeds])
    assert [without_events(outcome.result) for outcome in outcomes if isinstance(outcome, Outcome)] == alone


async def test_the_same_seed_gives_the_same_answer_without_blocking() -> None:
    for seed in range(5):
        outcome = await arun(begin(random_writer(1), seed=seed)[1])
        assert without_events(outcome.result) == play(random_writer(1), seed=seed)[0]
