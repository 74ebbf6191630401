"""The rules of the adaptive search, each with its test."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_rain.budget import Budget
from langchain_rain.drivers import Job, Outcome, run, stream
from langchain_rain.engines.base import Engine
from langchain_rain.engines.scripted import ScriptedEngine
from langchain_rain.errors import EngineError
from langchain_rain.search.adaptive import generate, joined
from langchain_rain.search.config import SearchConfig
from langchain_rain.search.paper import SearchResult
from langchain_rain.search.protocol import (
    AppliesTo,
    Committed,
    Event,
    Expand,
    FinishReason,
    OptionLogprobs,
    Rollout,
    Score,
    Simulated,
    Steps,
    TokenSet,
    Transcript,
    Verdict,
)
from langchain_rain.search.state import MIN_CLAUSE_TOKENS, MIN_REPAIR_TEMPERATURE, Search
from tests.scripted_games import RandomGame, ScriptedJudge, begin, games, judged
from tests.test_lookahead import Paced, answer_of, pace_by_kind
from tests.test_paper import NewestFirst, asked

DRAFTING = SearchConfig(
    adaptive=True,
    segment_lengths=(1,),
    token_set_lengths=(1,),
    max_simulations=2,
    similarity_scope="off",
    adds_children=False,
)
"""Every clause is judged; one token at a time is searched, two simulations at most."""


class Story(ScriptedEngine):
    """Every text is given by what stands before it; a token is a letter.

    Args:
        drafts: the clause that is drafted after a text.
        values: judgements by text, else 1.
        ends: texts that are finished.
        children: the letters that may follow a text, equally probable, each of them more than a longer draft.
        rolled_out: how the search's rollouts go on from a text, else not at all.
        guided: the clauses that are drafted after a text under guidance, one after another.
    """

    def __init__(
        self,
        drafts: Mapping[str, str],
        values: Mapping[str, float | OptionLogprobs] | None = None,
        *,
        ends: Mapping[str, FinishReason] | None = None,
        children: Mapping[str, str] | None = None,
        rolled_out: Mapping[str, str] | None = None,
        guided: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        super().__init__(expand=self._expand, rollout=self._go_on, score=self._score)
        self._drafts, self._values, self._ends = drafts, values or {}, ends or {}
        self._children, self._rolled_out = children or {}, rolled_out or {}
        self._guided = {text: iter(clauses) for text, clauses in (guided or {}).items()}

    def _expand(self, request: Expand) -> list[TokenSet]:
        before = text_of(request.prefix)
        return [self._token_set(before, each) for each in self._children.get(before, "")]

    def _go_on(self, request: Rollout) -> TokenSet:
        before = text_of(request.prefix)
        if request.guidance:
            return self._token_set(before, next(self._guided[before]))
        is_draft = request.min_tokens == MIN_CLAUSE_TOKENS
        return self._token_set(before, self._drafts[before] if is_draft else self._rolled_out.get(before, ""))

    def _score(self, request: Score) -> OptionLogprobs:
        value = self._values.get(request.question, 1)
        return value if isinstance(value, OptionLogprobs) else judged(value)

    def _token_set(self, before: str, text: str) -> TokenSet:
        return TokenSet(tuple(map(ord, text)), text, -5.0 * len(text), finish_reason=self._ends.get(before + text))


def text_of(tokens: Sequence[int]) -> str:
    return "".join(map(chr, tokens))


def play(engine: ScriptedEngine, config: SearchConfig = DRAFTING, **settings: Any) -> tuple[SearchResult, list[Event]]:
    """The result of a whole search and all that has happened."""
    *events, outcome = stream(begin(engine, config, **settings)[1])
    assert isinstance(outcome, Outcome)
    return outcome.result, [event for event in events if isinstance(event, Simulated | Committed)]


def told(events: Sequence[Event]) -> list[str]:
    """What has happened, in words: the text that was judged, or the text that was committed."""
    return [
        f"judged {event.draft}" if isinstance(event, Simulated) else f"committed {event.token_set.text}"
        for event in events
    ]


def questions(engine: ScriptedEngine) -> list[str]:
    return [request.question for request in asked(engine, Score)]


# Drafting

TWO_CLAUSES = {"": "ab.", "ab.": "cd."}


def test_an_answer_that_passes_is_drafted_and_never_searched() -> None:
    engine = Story(TWO_CLAUSES, ends={"ab.cd.": "eos"})
    result, events = play(engine)
    assert told(events) == ["judged ab.", "committed ab.", "judged ab.cd.", "committed cd."]
    assert asked(engine, Expand) == []
    assert (result.text, result.is_satisfied, result.stop_reason) == ("ab.cd.", True, "eos")
    assert (result.num_token_sets, result.num_simulations, result.num_rewinds) == (2, 2, 0)
    assert [event.num_simulations for event in events if isinstance(event, Committed)] == [1, 1]
    assert all(event.is_satisfied for event in events if isinstance(event, Committed))


def test_a_clause_ends_at_a_mark_that_is_not_at_its_beginning() -> None:
    engine = Story(TWO_CLAUSES, ends={"ab.cd.": "eos"})
    config = replace(DRAFTING, rollout_until=(";",), max_rollout_tokens=9, temperature=0.5)
    play(engine, config)
    first, _ = asked(engine, Rollout)
    assert (first.until, first.max_tokens, first.min_tokens) == ((";",), 9, MIN_CLAUSE_TOKENS)
    assert (first.temperature, first.guidance) == (0.5, "")


def test_segments_grow_while_they_pass() -> None:
    # Clauses of two letters: the first is enough for 2, two more for 3, and three for 6, which repeats.
    text = "abcdefghijklmnopqrst"
    engine = Story({text[:n]: text[n : n + 2] for n in range(0, 20, 2)}, ends={text: "eos"})
    play(engine, replace(DRAFTING, segment_lengths=(2, 3, 6)))
    assert [len(each) for each in questions(engine)] == [2, 6, 12, 18, 20]


def test_segments_start_small_where_one_has_failed() -> None:
    drafts = {"": "ab", "ab": "cd", "abcd": "ef", "abx": "cd", "abxcd": "ef", "abxcdef": "gh"}
    engine = Story(drafts, {"abcdef": -1, "abcd": -1}, ends={"abxcdefgh": "eos"}, children={"ab": "x"})
    play(engine, replace(DRAFTING, segment_lengths=(2, 4)))
    assert questions(engine) == ["ab", "abcdef", "abcd", "abx", "abxcd", "abxcdefgh"]


def test_the_next_clause_is_drafted_while_one_is_judged_and_goes_on_when_it_has_passed() -> None:
    # A draft takes 3 steps, a judgement 1. The second draft runs beside the first judgement.
    num_steps = {}
    for lookahead in (0, 1):
        engine = Paced(answer_of(Story(TWO_CLAUSES, ends={"ab.cd.": "eos"})), pace_by_kind(expand=1, rollout=3))
        run(begin(engine, replace(DRAFTING, lookahead=lookahead))[1])
        assert [type(request) for request in engine.submitted].count(Rollout) == 2
        num_steps[lookahead] = engine.num_steps
    assert num_steps == {0: 3 + 1 + 3 + 1, 1: 3 + 3 + 1}


def test_a_draft_that_is_done_before_the_judgement_is_kept() -> None:
    engine = Paced(
        answer_of(Story(TWO_CLAUSES, ends={"ab.cd.": "eos"})), lambda request: 5 if isinstance(request, Score) else 1
    )
    run(begin(engine, replace(DRAFTING, lookahead=1))[1])
    assert [type(request) for request in engine.submitted] == [Rollout, Score, Rollout, Score]


def test_what_is_drafted_behind_a_segment_that_fails_is_dropped() -> None:
    story = Story(TWO_CLAUSES, {"ab.": -1}, ends={"x": "eos"}, children={"": "x"})
    engine = Paced(answer_of(story), lambda request: 9 if isinstance(request, Rollout) and request.prefix else 1)
    assert run(begin(engine, replace(DRAFTING, lookahead=1))[1]).result.text == "x"
    assert [text_of(request.prefix) for _, request in engine.cancelled if isinstance(request, Rollout)] == ["ab."]


def test_an_engine_that_drafts_nothing_is_an_error() -> None:
    with pytest.raises(EngineError, match="no token after 3 tokens, though the text has not ended"):
        play(Story({"": "ab.", "ab.": ""}))


# Where a draft fails


def test_a_segment_is_kept_up_to_its_first_clause_that_fails() -> None:
    engine = Story(
        {"": "ab.", "ab.": "cd.", "ab.cd.": "ef."},
        {"ab.cd.ef.": -1, "ab.cd.": -1},
        ends={"ab.x": "eos"},
        children={"ab.": "x"},
    )
    result, events = play(engine, replace(DRAFTING, segment_lengths=(9,)))
    judged_at_first = ["judged ab.cd.ef.", "judged ab.", "judged ab.cd."]
    assert told(events) == [*judged_at_first, "committed ab.", "judged ab.x", "committed x"]
    assert result.text == "ab.x"
    assert questions(engine) == ["ab.cd.ef.", "ab.", "ab.cd.", "ab.x"]
    assert (result.num_rewinds, result.num_rewound_tokens) == (2, 6 + 3)


def test_the_trace_tells_which_clauses_decided_where_a_segment_is_cut() -> None:
    drafts = {"": "a.", "a.": "b.", "a.b.": "c.", "a.b.c.": "d."}
    engine = Story(drafts, {"a.b.c.d.": -1, "a.b.c.": -1}, ends={"a.b.x": "eos"}, children={"a.b.": "x"})
    _, events = play(engine, replace(DRAFTING, segment_lengths=(8,)))
    assert told(events)[:3] == ["judged a.b.c.d.", "judged a.b.", "judged a.b.c."]
    assert questions(engine) == ["a.b.c.d.", "a.", "a.b.", "a.b.c.", "a.b.x"]


def test_a_draft_that_fails_enters_the_tree_with_its_value() -> None:
    engine = Story({"": "ab."}, {"ab.": -1, "x": -1, "y": -1}, children={"": "xy"})
    search, job = begin(engine, DRAFTING)
    result = run(job).result
    assert result.stop_reason == "dead_end"
    children = [(child.text, child.visit_count, child.value) for child in search.tree.root.children]
    assert children == [("ab.", 1, -1.0), ("x", 1, -1.0), ("y", 1, -1.0)]


@pytest.mark.parametrize(("temperature", "of_search"), [(0.0, MIN_REPAIR_TEMPERATURE), (1.5, 1.5)])
def test_where_a_draft_has_failed_nothing_is_sampled_too_cold_to_differ(temperature: float, of_search: float) -> None:
    engine = Story({"": "ab."}, {"ab.": -1, "x": -1, "no": -1}, children={"": "x"}, guided={"": ["no"]})
    config = replace(DRAFTING, temperature=temperature, max_simulations=1, num_children=1, proposals="principled")
    play(engine, config)
    assert [request.temperature for request in asked(engine, Rollout)] == [temperature, of_search, of_search]
    assert [request.temperature for request in asked(engine, Expand)] == [of_search]


def test_what_is_found_is_committed_with_what_was_rolled_out_to_judge_it() -> None:
    engine = Story(
        {"": "ab.", "xyz.": "cd."}, {"ab.": -1}, ends={"xyz.cd.": "eos"}, children={"": "x"}, rolled_out={"x": "yz."}
    )
    result, events = play(engine)
    assert told(events) == ["judged ab.", "judged xyz.", "committed xyz.", "judged xyz.cd.", "committed cd."]
    assert result.tokens == tuple(map(ord, "xyz.cd."))
    assert result.is_satisfied


def test_a_text_that_may_be_committed_is_as_long_as_a_clause() -> None:
    engine = Story({"": "ab."}, {"ab.": -1, "x": -1}, children={"": "x", "x": "y"}, ends={"xy": "eos"})
    play(engine, DRAFTING)
    rollouts = [(text_of(request.prefix), request.min_tokens) for request in asked(engine, Rollout)]
    assert rollouts == [("", MIN_CLAUSE_TOKENS), ("x", MIN_CLAUSE_TOKENS - 1)]


def test_the_best_text_of_a_round_is_found_and_of_equals_the_first() -> None:
    values = {"ab.": -1, "x": 0.875, "y": 1, "z": 1}
    engine = Story({"": "ab."}, values, children={"": "xyz"}, ends=dict.fromkeys("xyz", "eos"))
    result, events = play(engine, replace(DRAFTING, max_simulations=3, num_parallel_leaves=3))
    assert told(events) == ["judged ab.", "judged x", "judged y", "judged z", "committed y"]
    assert result.text == "y"


def test_the_search_goes_below_what_it_has_rolled_out() -> None:
    # x is visited first and fails, and so does y; then x is expanded (2 * 0.33 * 2 / 2 each, the first of equals)
    engine = Story({"": "ab."}, {"ab.": -1, "x": -1}, ends={"xy": "eos"}, children={"": "x", "x": "y"})
    result, events = play(engine)
    assert told(events) == ["judged ab.", "judged x", "judged xy", "committed xy"]
    assert result.text == "xy"


# The letter that a draft took is not judged again: 3 simulations see x, y and z, 4 at once as many
@pytest.mark.parametrize("num_parallel_leaves", [1, 2, 4])
def test_leaves_are_simulated_side_by_side_up_to_the_limit(num_parallel_leaves: int) -> None:
    engine = Story({"": "a"}, {"a": -1, "x": -1, "y": -1, "z": -1}, children={"": "xyz"})
    config = replace(DRAFTING, max_simulations=3, num_parallel_leaves=num_parallel_leaves)
    result, events = play(engine, config)
    assert told(events) == ["judged a", "judged x", "judged y", "judged z"]
    assert (result.text, result.stop_reason, result.is_satisfied) == ("", "dead_end", False)


# Where nothing passes


@pytest.mark.parametrize(
    ("values", "accept_value", "expected"),
    [
        ({"x": 0.25, "y": 0.5}, 0.0, "y"),
        ({"x": 0.5, "y": 0.5}, 0.0, "x"),
        ({"x": 0.25, "y": -1}, 0.5, ""),
        ({"x": -0.5, "y": -1}, -1.0, "x"),
        ({"x": judged(-1, is_vetoed=True), "y": -1}, -1.0, "ab."),
    ],
)
def test_the_best_that_may_be_accepted_is_committed(
    values: Mapping[str, float], accept_value: float, expected: str
) -> None:
    ends: dict[str, FinishReason] = {"x": "eos", "y": "eos", "ab.": "eos"}
    engine = Story({"": "ab."}, {"ab.": -1, **values}, children={"": "xy"}, ends=ends)
    result, events = play(engine, replace(DRAFTING, accept_value=accept_value), can_veto=True)
    assert result.text == expected
    assert result.stop_reason == ("eos" if expected else "dead_end")
    is_good = expected in ("x", "y")
    assert result.is_satisfied == is_good
    assert [event.is_satisfied for event in events if isinstance(event, Committed)] == [is_good] * bool(expected)


@pytest.mark.parametrize("bad", [judged(-1, is_vetoed=True), judged(0, is_abstained=True), 0.75, 0.8125])
def test_nothing_passes_but_a_clear_judgement_above_both_thresholds(bad: float | OptionLogprobs) -> None:
    engine = Story({"": "ab."}, {"ab.": bad}, ends={"x": "eos"}, children={"": "x"})
    config = replace(DRAFTING, accept_value=0.875, value_threshold=0.75)
    assert play(engine, config, can_veto=True)[0].text == "x"


def test_a_writer_that_is_stuck_is_told_what_the_rubric_wants() -> None:
    engine = Story(
        {"": "ab.", "cd.": "ef."},
        {"ab.": -1.0, "x": -0.5, "no": -1},
        ends={"cd.ef.": "eos"},
        children={"": "x"},
        guided={"": ["no", "no", "cd."]},
    )
    config = replace(DRAFTING, max_simulations=1, num_children=3, proposals="principled")
    result, events = play(engine, config)
    assert [request.guidance for request in asked(engine, Rollout)] == ["", "", *["Not -1.0."] * 3, ""]
    assert len({request.seed for request in asked(engine, Rollout) if request.guidance}) == 3
    assert told(events)[:4] == ["judged ab.", "judged x", "judged no", "judged cd."]
    assert (result.text, result.is_satisfied) == ("cd.ef.", True)


def test_where_guidance_does_not_help_the_best_is_taken_of_all() -> None:
    engine = Story({"": "ab."}, {"ab.": -1, "x": -1, "y": 0.5}, children={"": "x"}, ends={"y": "eos"}, guided={"": "y"})
    config = replace(DRAFTING, max_simulations=1, num_children=1, proposals="principled")
    assert play(engine, config)[0].text == "y"


def test_of_guided_clauses_the_best_is_taken_and_they_are_as_long_as_others() -> None:
    ends: dict[str, FinishReason] = {"y": "eos", "z": "eos"}
    engine = Story({"": "ab."}, {"ab.": -1, "x": -1, "y": 0.875}, children={"": "x"}, ends=ends, guided={"": "yz"})
    config = replace(DRAFTING, max_simulations=1, num_children=2, proposals="principled")
    assert play(engine, config)[0].text == "z"
    guided = [request for request in asked(engine, Rollout) if request.guidance]
    assert [request.min_tokens for request in guided] == [MIN_CLAUSE_TOKENS] * 2


# What is held back


def test_segments_are_committed_when_enough_have_passed_behind_them() -> None:
    drafts = {"": "a", "a": "b", "ab": "c", "abc": "d"}
    _, events = play(Story(drafts, ends={"abcd": "eos"}), replace(DRAFTING, hold_back=2))
    assert told(events) == [
        *["judged a", "judged ab", "judged abc", "committed a"],
        *["judged abcd", "committed b", "committed c", "committed d"],
    ]


DEAD_END = {"ab": -1, "abx": -1, "ax": -1}


def test_a_segment_is_taken_back_where_nothing_that_follows_it_passes() -> None:
    # After a all is bad: b is drafted, x is searched. a is taken back, and y is found in its place.
    engine = Story({"": "a", "a": "b", "y": "c"}, DEAD_END, children={"": "y", "a": "x"}, ends={"yc": "eos"})
    result, events = play(engine, replace(DRAFTING, max_simulations=1, hold_back=1))
    assert told(events) == ["judged a", "judged ab", "judged ax", "judged y", "judged yc", "committed y", "committed c"]
    assert (result.text, result.is_satisfied) == ("yc", True)
    assert result.num_rewound_tokens == 1 + 2  # from "ab" to "ax", from "ax" to "y"


def test_what_was_taken_back_is_not_found_again() -> None:
    ends: dict[str, FinishReason] = {"ab": "eos", "ax": "eos", "yc": "eos"}
    engine = Story({"": "a", "a": "b", "y": "c"}, DEAD_END, children={"": "ay", "a": "x"}, ends=ends)
    result, events = play(engine, replace(DRAFTING, max_simulations=6, hold_back=1))
    assert told(events).count("judged a") == 2  # as a draft, and where it was taken back
    assert (result.text, result.is_satisfied) == ("yc", True)


@pytest.mark.parametrize("num_positions", range(3, 12))
def test_a_budget_that_ends_a_taking_back_leaves_what_had_passed(num_positions: int) -> None:
    engine = Story({"": "a", "a": "b"}, DEAD_END | {"y": -1}, children={"": "y", "a": "x"})
    budget = Budget(max_forward_tokens=num_positions)
    result, _ = play(engine, replace(DRAFTING, max_simulations=1, hold_back=1), budget=budget)
    assert result.text == "a"


def test_a_mark_alone_is_no_repair_and_an_end_only_where_nothing_else_is_found() -> None:
    drafts = {"": "ab.", "ab.": "cd.", "ab.x": "y"}
    ends: dict[str, FinishReason] = {"ab.xy": "eos", "ab.,z": "eos"}
    children = {"ab.": ",x", "ab.,": "z"}
    engine = Story(drafts, {"ab.cd.": -1, "ab.,z": -1}, children=children, ends=ends)
    assert play(engine, replace(DRAFTING, max_simulations=6))[0].text == "ab.xy"
    engine = Story({"": "ab.", "ab.": "cd."}, {"ab.cd.": -1}, children={"ab.": "!"}, ends={"ab.!": "eos"})
    result, _ = play(engine)
    assert (result.text, result.stop_reason, result.is_satisfied) == ("ab.!", "eos", True)


def test_guided_clauses_without_a_token_are_no_answer() -> None:
    engine = Story({"": "ab."}, {"ab.": -1, "x": -1}, children={"": "x"}, guided={"": ["", ""]})
    config = replace(DRAFTING, max_simulations=1, num_children=2, proposals="principled")
    assert play(engine, config)[0].stop_reason == "dead_end"


def test_what_was_taken_back_has_learnt_that_it_is_a_dead_end() -> None:
    # "xp" is found in place of "a.", and passes; all that follows it is bad, and the search has it from there.
    values = {"a.": -1, "xpb": -1, "xpq": -1, "y": -1}
    engine = Story({"": "a.", "xp": "b"}, values, children={"": "xy", "x": "p", "xp": "q"}, rolled_out={"x": "p"})
    play(engine, replace(DRAFTING, max_simulations=1, hold_back=1))
    # Not again by way of x, which is known to pass
    assert questions(engine)[:5] == ["a.", "xp", "xpb", "xpq", "y"]


def test_segments_may_be_taken_back_again_once_others_are_committed() -> None:
    # Twice all is bad behind a segment that is held back, and twice something else is found in its place.
    drafts = {"": "a", "a": "b", "y": "c", "yc": "d", "ycd": "e", "ycx": "f", "yz": "g"}
    values = {"ab": -1, "ax": -1, "ycde": -1, "ycdx": -1}
    children = {"": "y", "a": "x", "ycd": "x", "yc": "z"}
    engine = Story(drafts, values, children=children, ends={"ycz": "eos"})
    result, _ = play(engine, replace(DRAFTING, max_simulations=1, hold_back=1))
    assert (result.text, result.is_satisfied) == ("ycz", True)


def test_a_segment_may_be_taken_back_twice() -> None:
    # First in vain, so that something below the threshold is committed behind it; then something is found before it.
    drafts = {"": "a", "a": "b", "ab": "c", "abx": "d"}
    values = {"abc": -1, "abx": 0.5, "ay": -1, "z": -1, "abxd": -1, "abxw": -1}
    children = {"": "z", "a": "y", "ab": "x", "abx": "w", "aby": "w", "ay": "w", "z": "w", "abxw": "v"}
    values |= dict.fromkeys(("ayw", "zw", "abxwv"), -1)
    engine = Story(drafts, values, children=children)
    result, _ = play(engine, replace(DRAFTING, max_simulations=1, hold_back=2))
    assert (result.text, result.stop_reason, result.is_satisfied) == ("abx", "dead_end", False)


def test_a_segment_is_committed_with_the_value_it_was_judged_by() -> None:
    drafts = {"": "a", "a": "b", "ax": "c"}
    engine = Story(drafts, {"a": 0.875, "ab": -1}, children={"a": "x"}, ends={"axc": "eos"})
    _, events = play(engine, replace(DRAFTING, hold_back=1))
    assert [event.value for event in events if isinstance(event, Committed)] == [0.875, 1, 1]


def test_without_holding_back_nothing_is_taken_back() -> None:
    engine = Story({"": "a", "a": "b"}, DEAD_END, children={"": "y", "a": "x"})
    result, events = play(engine, replace(DRAFTING, max_simulations=1))
    assert told(events) == ["judged a", "committed a", "judged ab", "judged ax"]
    assert (result.text, result.stop_reason) == ("a", "dead_end")


def test_if_taking_back_does_not_help_what_had_passed_stays() -> None:
    engine = Story({"": "a", "a": "b"}, DEAD_END | {"y": -1}, children={"": "y", "a": "x"})
    result, events = play(engine, replace(DRAFTING, max_simulations=1, hold_back=1))
    assert told(events) == ["judged a", "judged ab", "judged ax", "judged y", "committed a"]
    assert (result.text, result.stop_reason, result.is_satisfied) == ("a", "dead_end", False)


def test_no_more_segments_are_taken_back_than_are_held_until_one_is_committed() -> None:
    # Behind y all is bad again, which is held back as well; nothing was committed in between.
    values = DEAD_END | {"yc": -1, "yx": -1}
    engine = Story({"": "a", "a": "b", "y": "c"}, values, children={"": "yz", "a": "x", "y": "x"})
    result, events = play(engine, replace(DRAFTING, max_simulations=1, hold_back=1))
    assert told(events)[-3:] == ["judged yc", "judged yx", "committed y"]
    assert result.stop_reason == "dead_end"


# Ends


@pytest.mark.parametrize("hold_back", [0, 3])
def test_a_budget_that_is_spent_leaves_all_that_has_passed(hold_back: int) -> None:
    engine = Story({"": "a", "a": "b", "ab": "c"}, {"abc": -1}, children={"ab": "x"})
    # Six positions: three drafts and three judgements. Then the search would begin.
    budget = Budget(max_forward_tokens=6)
    result, events = play(engine, replace(DRAFTING, hold_back=hold_back), budget=budget)
    assert (result.text, result.stop_reason, result.is_satisfied) == ("ab", "budget", False)
    assert [event.token_set.text for event in events if isinstance(event, Committed)] == ["a", "b"]


@pytest.mark.parametrize("applies_to", [{"final"}, {"final", "prefix"}])
def test_a_rubric_for_finished_answers_satisfies_nothing_before(applies_to: set[AppliesTo]) -> None:
    engine = Story({"": "ab.", "ab.": "cd."}, ends={"ab.cd.": "eos"})
    search, job = begin(engine, DRAFTING)
    search.judge = ScriptedJudge(search.context, applies_to=frozenset(applies_to))
    *events, _ = stream(job)
    assert [event.is_satisfied for event in events if isinstance(event, Committed)] == [False, True]
    whole = applies_to == {"final"}
    assert [request.until == () for request in asked(engine, Rollout)] == [whole, whole]
    assert [request.max_tokens for request in asked(engine, Rollout)] == [None, None]


class JudgeOfEnds(ScriptedJudge):
    """Judges a finished answer by another question than the beginning of one."""

    def __call__(self, transcript: Transcript) -> Steps[Verdict]:
        end = "|" if transcript.is_finished else ""
        return (yield from super().__call__(replace(transcript, answer=transcript.answer + end)))


def test_where_an_end_has_failed_other_ends_are_tried() -> None:
    # What goes on passes as long as it does not end: to look for a clause would go on to the length limit
    engine = Story(
        {"": "ab.", "ab.": "cd."},
        {"ab.cd.|": -1, "ab.xx|": -1},
        ends={"ab.cd.": "eos", "ab.xx": "eos", "ab.yy": "eos"},
        children={"ab.": "xy"},
        rolled_out={"ab.x": "x", "ab.y": "y"},
    )
    config = replace(DRAFTING, max_rollout_tokens=9)
    search, job = begin(engine, config)
    search.judge = JudgeOfEnds(search.context, applies_to=frozenset({"prefix", "final"}))
    result = run(job).result
    assert (result.text, result.is_satisfied, result.num_simulations) == ("ab.yy", True, 4)
    assert questions(engine) == ["ab.", "ab.cd.|", "ab.cd.", "ab.xx|", "ab.yy|"]
    *drafted, _, _ = [(request.until, request.max_tokens) for request in asked(engine, Rollout)]
    clause = (config.rollout_until, 9)
    assert drafted == [clause] * len(drafted)
    assert [(each.until, each.max_tokens) for each in asked(engine, Rollout)][-2:] == 2 * [((), None)]
    assert not search.seeks_end


def begin_with_ends(engine: Story, **settings: Any) -> tuple[Search, Job[SearchResult]]:
    search, job = begin(engine, replace(DRAFTING, **settings))
    search.judge = JudgeOfEnds(search.context, applies_to=frozenset({"prefix", "final"}))
    return search, job


def test_an_end_that_is_bad_as_a_beginning_too_is_repaired_by_a_clause() -> None:
    engine = Story({"": "ab.", "x": "c"}, {"ab.|": -1, "ab.": -1}, ends={"ab.": "eos", "xc": "eos"}, children={"": "x"})
    assert run(begin_with_ends(engine)[1]).result.text == "xc"
    assert {request.until for request in asked(engine, Rollout)} == {DRAFTING.rollout_until}


def test_a_rubric_for_finished_answers_alone_is_asked_about_nothing_else() -> None:
    engine = Story({"": "ab."}, {"ab.|": -1}, ends={"ab.": "eos", "x": "eos"}, children={"": "x"})
    search, job = begin(engine, DRAFTING)
    search.judge = JudgeOfEnds(search.context, applies_to=frozenset({"final"}))
    assert run(job).result.text == "x"
    assert questions(engine) == ["ab.|", "x|"]


def test_an_end_that_fails_a_rubric_for_beginnings_alone_is_repaired_by_a_clause() -> None:
    engine = Story({"": "ab."}, {"ab.": -1}, ends={"ab.": "eos", "x": "eos"}, children={"": "x"})
    play(engine)
    assert questions(engine) == ["ab.", "x"]
    assert {request.until for request in asked(engine, Rollout)} == {DRAFTING.rollout_until}


def test_where_a_segment_is_taken_back_for_its_end_other_ends_are_tried_there_too() -> None:
    ends: dict[str, FinishReason] = dict.fromkeys(("ab", "ax", "yz"), "eos")
    values = {"ab|": -1, "ax|": -1}
    engine = Story({"": "a", "a": "b"}, values, ends=ends, children={"": "y", "a": "x"}, rolled_out={"y": "z"})
    search, job = begin_with_ends(engine, max_simulations=1, hold_back=1)
    assert run(job).result.text == "yz"
    assert [request.until for request in asked(engine, Rollout)][-1] == ()
    assert not search.seeks_end


def test_where_no_end_passes_the_search_gives_up() -> None:
    ends: dict[str, FinishReason] = dict.fromkeys(("ab.", "xx", "yy", "zz"), "eos")
    engine = Story(
        {"": "ab."},
        {"ab.|": -1, "xx|": -1, "yy|": -1, "zz|": -1},
        ends=ends,
        children={"": "xyz"},
        rolled_out={"x": "x", "y": "y", "z": "z"},
        guided={"": ["zz", "zz", "zz"]},
    )
    search, job = begin_with_ends(engine, proposals="principled", num_children=3)
    result = run(job).result
    assert (result.text, result.stop_reason, result.is_satisfied) == ("", "dead_end", False)
    assert questions(engine) == ["ab.|", "ab.", "xx|", "yy|", "zz|", "|"]
    assert not search.seeks_end
    assert [request.until for request in asked(engine, Rollout)] == [DRAFTING.rollout_until, *[()] * 5]


def test_joined_token_sets_are_one() -> None:
    parts = [TokenSet((1, 2), "ab", -1.0, True), TokenSet((3,), "c", -0.5, False, "stop")]
    assert joined(parts) == TokenSet((1, 2, 3), "abc", -1.5, False, "stop")


# Of whole searches


def adaptive_configs() -> st.SearchStrategy[SearchConfig]:
    return st.builds(
        SearchConfig,
        adaptive=st.just(True),
        segment_lengths=st.sampled_from([(1,), (1, 2), (2, 3)]),
        token_set_lengths=st.sampled_from([(1,), (1, 2)]),
        num_children=st.integers(1, 4),
        num_draws=st.integers(1, 3),
        max_simulations=st.integers(1, 6),
        num_parallel_leaves=st.integers(1, 3),
        value_threshold=st.sampled_from([-1.0, 0.25, 0.8]),
        accept_value=st.sampled_from([-1.0, 0.0, 0.5]),
        hold_back=st.integers(0, 2),
        lookahead=st.sampled_from([0, 1, 8]),
        similarity_scope=st.sampled_from(["off", "all"]),
        adds_children=st.booleans(),
        proposals=st.sampled_from(["resampled", "principled"]),
    )


def with_result(engine: Any, config: SearchConfig, **settings: Any) -> tuple[list[Any], SearchResult]:
    *events, outcome = stream(begin(engine, config, can_veto=True, **settings)[1])
    assert isinstance(outcome, Outcome)
    return events, replace(outcome.result, events=())


APPLIES_TO: st.SearchStrategy[frozenset[AppliesTo]] = st.sampled_from(
    [frozenset({"prefix"}), frozenset({"prefix", "final"}), frozenset({"final"})]
)


@settings(max_examples=60, deadline=None)
@given(games(has_vetoes=True), adaptive_configs(), APPLIES_TO)
def test_with_any_rubric_no_state_of_a_repair_is_left_and_the_order_of_replies_does_not_matter(
    game: RandomGame, config: SearchConfig, applies_to: frozenset[AppliesTo]
) -> None:
    def play_with(engine: Engine) -> tuple[str, bool, int]:
        search, job = begin(engine, config)
        search.judge = JudgeOfEnds(search.context, applies_to=applies_to)
        result = run(job).result
        assert not search.seeks_end
        assert search.held == []
        assert result.verdict is not None
        assert result.is_satisfied <= result.verdict.satisfies(config.accept_value)
        return result.text, result.is_satisfied, result.num_simulations

    assert play_with(game.engine()) == play_with(NewestFirst(game))


@settings(max_examples=60, deadline=None)
@given(games(has_vetoes=True), adaptive_configs())
def test_neither_the_order_of_replies_nor_asking_ahead_matters(game: RandomGame, config: SearchConfig) -> None:
    expected = with_result(game.engine(), config)
    assert with_result(NewestFirst(game), config) == expected
    assert with_result(game.engine(), replace(config, lookahead=8 - config.lookahead)) == expected


@settings(max_examples=60, deadline=None)
@given(games(has_vetoes=True), adaptive_configs())
def test_the_answer_is_what_was_committed_and_nothing_satisfied_was_not_judged_so(
    game: RandomGame, config: SearchConfig
) -> None:
    events, result = with_result(game.engine(), config)
    committed = [event for event in events if isinstance(event, Committed)]
    simulated = [event for event in events if isinstance(event, Simulated)]
    assert result.text == "".join(event.token_set.text for event in committed)
    assert result.tokens == tuple(token for event in committed for token in event.token_set.tokens)
    assert (result.num_token_sets, result.num_simulations) == (len(committed), len(simulated))
    verdicts = {event.draft: event.verdict for event in simulated}
    text = ""
    for event in committed:
        text += event.token_set.text
        assert event.is_satisfied == verdicts[text].satisfies(config.accept_value)
        assert not verdicts[text].is_vetoed
        assert verdicts[text].value >= min(config.accept_value, config.value_threshold)
    ended = result.stop_reason in ("eos", "length")
    assert result.is_satisfied == (ended and verdicts[text].satisfies(config.accept_value))


def test_the_verdict_of_the_result_is_that_of_the_whole_answer() -> None:
    engine = Story(TWO_CLAUSES, {"ab.cd.": 0.875}, ends={"ab.cd.": "eos"})
    search, job = begin(engine, DRAFTING)
    result = run(Job(generate(search), job.contexts)).result
    assert result.verdict == Verdict(0.875)
