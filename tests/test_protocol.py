import dataclasses
from typing import Any

import pytest

from langchain_rain.search.config import SearchConfig
from langchain_rain.search.protocol import (
    Context,
    Embed,
    Expand,
    Rollout,
    Round,
    Score,
    Simulated,
    Steps,
    TokenSet,
    Verdict,
    ask,
    ask_all,
    derive_search_seed,
    derive_seed,
    together,
)

CONTEXT = Context("engine", 1)
FIRST, SECOND, THIRD, FOURTH, FIFTH = (Embed(CONTEXT, (number,), 1) for number in range(1, 6))


def test_a_round_carries_requests_and_events_and_the_replies_come_in_their_order() -> None:
    event = Simulated((1,), "", "", Verdict(0.5), 0)
    steps = ask_all([FIRST, SECOND], [event])
    assert next(steps) == Round((FIRST, SECOND), (event,))
    with pytest.raises(StopIteration) as stop:
        steps.send(["one", "two"])
    assert stop.value.value == ["one", "two"]


def test_one_request_brings_one_reply() -> None:
    steps = ask(FIRST)
    assert next(steps) == Round((FIRST,))
    with pytest.raises(StopIteration) as stop:
        steps.send(["one"])
    assert stop.value.value == "one"


@pytest.mark.parametrize("replies", [[], ["one", "two"]])
def test_another_number_of_replies_than_one_is_an_error(replies: list[str]) -> None:
    steps = ask(FIRST)
    next(steps)
    with pytest.raises(ValueError, match="unpack"):
        steps.send(replies)


def test_an_error_can_be_thrown_to_where_it_was_asked() -> None:
    def careful() -> Steps[str]:
        try:
            yield from ask(FIRST)
        except KeyError:
            return "went on"
        return "was answered"

    steps = careful()
    next(steps)
    with pytest.raises(StopIteration) as stop:
        steps.throw(KeyError("no"))
    assert stop.value.value == "went on"


def replies_to(*rounds: Round) -> Steps[list[Any]]:
    """Asks these rounds and returns what each was answered."""
    replies = []
    for each in rounds:
        replies.append((yield each))
    return replies


def test_parts_that_go_together_ask_in_one_round_and_return_their_results_in_order() -> None:
    event, other = Simulated((1,), "", "", Verdict(0.5), 0), Simulated((2,), "", "", Verdict(0.5), 0)
    steps = together(
        replies_to(Round((FIRST, SECOND), (event,))),
        replies_to(),  # asks nothing
        replies_to(Round((THIRD,), (other,)), Round((FOURTH,))),
    )
    assert next(steps) == Round((FIRST, SECOND, THIRD), (event, other))
    assert steps.send(["one", "two", "three"]) == Round((FOURTH,))
    with pytest.raises(StopIteration) as stop:
        steps.send(["four"])
    assert stop.value.value == [[["one", "two"]], [], [["three"], ["four"]]]


def test_each_part_gets_the_replies_to_its_own_requests_and_then_those_to_what_it_asked_ahead() -> None:
    steps = together(
        replies_to(Round((FIRST,), ahead=(FOURTH, FIFTH))),
        replies_to(Round((SECOND,))),
        replies_to(Round((), ahead=())),
        replies_to(Round((THIRD,), ahead=(FIRST,))),
    )
    assert next(steps) == Round((FIRST, SECOND, THIRD), ahead=(FOURTH, FIFTH, FIRST))
    with pytest.raises(StopIteration) as stop:
        steps.send(["one", "two", "three", None, "five", "one ahead"])
    assert stop.value.value == [[["one", None, "five"]], [["two"]], [[]], [["three", "one ahead"]]]


def test_parts_of_which_none_says_anything_of_what_is_asked_ahead_leave_it_as_it_is() -> None:
    # `ahead=()` drops all, None nothing
    assert next(together(replies_to(Round((FIRST,))), replies_to(Round((SECOND,))))).ahead is None
    assert next(together(replies_to(Round((FIRST,))), replies_to(Round((SECOND,), ahead=())))).ahead == ()


def test_an_error_thrown_into_parts_that_go_together_ends_all_of_them() -> None:
    closed = []

    def part(name: str) -> Steps[None]:
        try:
            yield Round((FIRST,))
        finally:
            closed.append(name)

    steps = together(part("first"), part("second"))
    next(steps)
    with pytest.raises(KeyError):
        steps.throw(KeyError("no"))
    assert closed == ["first", "second"]


@pytest.mark.parametrize(
    "request_",
    [
        Expand(CONTEXT, (), 1, 1, 1, 1, 1.0, 0),
        Rollout(CONTEXT, (), (".",), None, 1.0, 0),
        Score(CONTEXT, "question", "(", ("A", "B")),
        FIRST,
    ],
)
def test_requests_are_values_that_nobody_changes(request_: Any) -> None:
    assert request_ == dataclasses.replace(request_)
    assert hash(request_) == hash(dataclasses.replace(request_))
    with pytest.raises(dataclasses.FrozenInstanceError):
        request_.context = Context("other", 1)


def test_contexts_are_only_equal_to_themselves() -> None:
    assert Context("engine", 1) != Context("engine", 1)
    assert len({CONTEXT: 1, Context("engine", 1): 2}) == 2


def test_a_seed_depends_on_the_search_the_kind_the_path_and_the_ordinal() -> None:
    seeds = [
        derive_seed(0, Expand, (1, 2), 0),
        derive_seed(1, Expand, (1, 2), 0),
        derive_seed(0, Rollout, (1, 2), 0),
        derive_seed(0, Expand, (1, 2, 0), 0),
        derive_seed(0, Expand, (12,), 0),
        derive_seed(0, Expand, (1, 2), 1),
    ]
    assert len(set(seeds)) == len(seeds)
    assert seeds[0] == derive_seed(0, Expand, (1, 2), 0)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_seeds_are_the_same_in_every_process() -> None:
    # Results are recorded with their seed, so these may only change with a line in the changelog. The numbers are those
    # of `printf "(7, 'Expand', (1, 2), 0)" | b2sum -l 64`, without the last bit.
    assert derive_seed(7, Expand, (1, 2), 0) == 0x1E33D19D516B6911 >> 1
    assert derive_search_seed(7, "Question") == 0xC1F3C79120DFC576 >> 1


def test_prompts_that_share_a_seed_do_not_share_their_draws() -> None:
    assert derive_search_seed(7, "one") != derive_search_seed(7, "two")
    assert derive_search_seed(7, "one") != derive_search_seed(8, "one")


@pytest.mark.parametrize(
    ("verdict", "accept_value", "expected"),
    [
        (Verdict(0.5), 0.0, True),
        (Verdict(0.0), 0.0, False),  # above, not at
        (Verdict(-1.0), -1.0, False),
        (Verdict(0.5, is_vetoed=True), 0.0, False),
        (Verdict(0.0, is_abstained=True), -1.0, False),
    ],
)
def test_a_verdict_satisfies_above_the_accept_value_without_veto_or_abstention(
    verdict: Verdict, accept_value: float, expected: bool
) -> None:
    assert verdict.satisfies(accept_value) is expected


def test_token_sets_are_longer_the_deeper_and_the_last_length_repeats() -> None:
    assert [SearchConfig().token_set_length(depth) for depth in range(6)] == [1, 2, 4, 10, 10, 10]


@pytest.mark.parametrize(
    ("adds_children", "scope", "expected"),
    [(True, "off", True), (False, "all", True), (False, "visited", True), (False, "off", False)],
)
def test_embeddings_are_needed_for_additions_and_for_similarity(
    adds_children: bool, scope: Any, expected: bool
) -> None:
    assert SearchConfig(adds_children=adds_children, similarity_scope=scope).needs_embeddings is expected


def test_a_token_set_goes_on_unless_it_says_otherwise() -> None:
    assert TokenSet((1,), "one") == TokenSet((1,), "one", 0.0, False, None)
