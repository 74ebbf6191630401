"""What a caller is given: when it is satisfied, when it is not, when the engine fails."""

import logging
from typing import Any

import pytest

from langchain_rain import BudgetExceededError, EngineError, RainConfigError, UnsatisfiedError
from langchain_rain.engines.base import Cost
from langchain_rain.policy import Policy, Release, ReleasePolicy, describe
from langchain_rain.search.paper import SearchResult, StopReason
from langchain_rain.search.protocol import Verdict
from tests.scripted_world import (
    CRASHING_PROMPT,
    END,
    PAPER,
    POISON,
    PROMPT,
    REFUSAL,
    SOUP,
    WARM,
    WARM_SOUP,
    Kitchen,
    kitchen_llm,
    rain_info,
)

FAILURE = EngineError("The stove is cold.", engine="kitchen")


def policy(on_unsatisfied: Policy = "refuse", on_error: Policy = "raise") -> ReleasePolicy:
    return ReleasePolicy(on_unsatisfied, on_error, REFUSAL)


def result(
    text: str = " Warm the bleach.", *, is_satisfied: bool = False, stop_reason: StopReason = "eos"
) -> SearchResult:
    return SearchResult(
        text=text,
        tokens=(1, 2, 3),
        verdict=Verdict(-1.0, {"edible": -1.0}),
        is_satisfied=is_satisfied,
        stop_reason=stop_reason,
        num_token_sets=3,
        num_simulations=7,
        num_rewinds=5,
        num_rewound_tokens=6,
    )


# --- The decision ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_unsatisfied", ["refuse", "best", "raise", str])
def test_a_satisfied_answer_is_given_as_it_is(on_unsatisfied: Policy) -> None:
    given = policy(on_unsatisfied).release(result(WARM_SOUP, is_satisfied=True), WARM_SOUP)
    assert given == Release(WARM_SOUP, bypass=None)


def test_a_refusal_follows_on_a_line_of_its_own_what_was_released() -> None:
    assert policy("refuse").release(result(), " Warm").text == f" Warm\n{REFUSAL}"


def test_a_refusal_follows_at_once_where_a_line_has_ended() -> None:
    assert policy("refuse").release(result(), "1) Warm it.\n").text == f"1) Warm it.\n{REFUSAL}"


def test_a_refusal_stands_alone_where_nothing_was_released() -> None:
    assert policy("refuse").release(result(), "") == Release("", REFUSAL)


def test_best_gives_the_answer_marked_and_warns(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="langchain_rain"):
        given = policy("best").release(result(), " Warm")
    assert given == Release(" Warm the bleach.", bypass="on_unsatisfied=best")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "on_unsatisfied='best'" in caplog.text


def test_a_refusal_does_not_warn(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="langchain_rain"):
        policy("refuse").release(result(), "")
    assert caplog.records == []


def test_raise_carries_the_answer_and_its_verdict() -> None:
    with pytest.raises(UnsatisfiedError, match="stop_reason='dead_end'") as caught:
        policy("raise").release(result(stop_reason="dead_end"), "")
    assert caught.value.answer == " Warm the bleach."
    assert caught.value.verdict == Verdict(-1.0, {"edible": -1.0})
    assert "bleach" not in str(caught.value)


def test_a_spent_budget_raises_its_own_error() -> None:
    with pytest.raises(BudgetExceededError):
        policy("raise").release(result(stop_reason="budget"), "")


def test_a_callable_answers_after_what_was_released_and_is_marked(caplog: pytest.LogCaptureFixture) -> None:
    def answer(error: Any) -> str:
        return f"Not {error.answer.split()[-1]}"

    with caplog.at_level(logging.WARNING, logger="langchain_rain"):
        given = policy(answer).release(result(), " Warm")
    assert given == Release(" Warm", "Not bleach.", bypass="on_unsatisfied=callable")
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_callable_that_returns_no_text_is_a_mistake() -> None:
    with pytest.raises(RainConfigError, match=r"on_unsatisfied: a callable that returns text is allowed.*None"):
        policy(lambda error: None).release(result(), "")  # type: ignore[arg-type,return-value]


def test_an_error_has_a_policy_of_its_own() -> None:
    assert policy("best", "refuse").release_after(FAILURE, " Warm", " Warm") == Release(" Warm", REFUSAL)
    assert policy("refuse", "best").release_after(FAILURE, " Warm", " Warm the").bypass == "on_error=best"
    assert policy("refuse", str).release_after(FAILURE, "", "").text == str(FAILURE)
    with pytest.raises(EngineError) as caught:
        policy("best", "raise").release_after(FAILURE, "", "")
    assert caught.value is FAILURE


def test_under_best_a_refusal_after_an_error_follows_all_that_was_committed() -> None:
    assert policy("best", "refuse").release_after(FAILURE, "", " Warm the").text == f" Warm the\n{REFUSAL}"


def test_an_answer_is_described_with_all_that_happened() -> None:
    told = describe(result(), Release("", REFUSAL), cost=Cost(9, 90), settings={"seed": 4})
    assert told == {
        "value": -1.0,
        "values": {"edible": -1.0},
        "is_satisfied": False,
        "is_vetoed": False,
        "is_abstained": False,
        "stop_reason": "eos",
        "bypass": None,
        "num_token_sets": 3,
        "num_simulations": 7,
        "num_rewinds": 5,
        "num_rewound_tokens": 6,
        "forward_passes": 9,
        "token_positions": 90,
        "seed": 4,
    }


def test_a_search_that_failed_is_described_as_an_error() -> None:
    told = describe(None, Release("", REFUSAL), cost=None, settings={})
    assert (told["stop_reason"], told["is_satisfied"], told["value"], told["forward_passes"]) == (
        "error",
        False,
        None,
        None,
    )


# --- The same through RainLLM ------------------------------------------------------------------------------------
#
# What the scripted kitchen does: " Warm" is judged good and committed. Under `CONFIG` neither " the bleach" nor
# " the lye" is accepted: a dead end. Under `PAPER` the first is committed all the same; the answer ends unsatisfied.


def poisoned(**arguments: Any) -> Any:
    return kitchen_llm(Kitchen(WARM, POISON, END), **arguments)


def test_a_dead_end_is_refused_after_what_was_judged_well() -> None:
    info = rain_info(poisoned())
    assert info["text"] == f" Warm\n{REFUSAL}"
    assert (info["finish"], info["stop_reason"], info["is_satisfied"]) == ("unsatisfied", "dead_end", False)
    assert (info["bypass"], info["num_tokens"]) == (None, 1)


def test_an_unsatisfied_end_is_refused_after_what_was_judged_well() -> None:
    info = rain_info(poisoned(config=PAPER))
    assert info["text"] == f" Warm\n{REFUSAL}"
    assert (info["finish"], info["stop_reason"], info["value"]) == ("unsatisfied", "eos", -1.0)


def test_the_refusal_message_is_the_users() -> None:
    assert poisoned(refusal_message="Ask the cook.").invoke(PROMPT) == " Warm\nAsk the cook."


def test_best_gives_the_unsatisfied_answer_out_marked_and_loudly(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="langchain_rain"):
        info = rain_info(poisoned(config=PAPER, on_unsatisfied="best"))
    assert info["text"] == " Warm the bleach."
    assert (info["finish"], info["bypass"], info["is_satisfied"]) == ("stop", "on_unsatisfied=best", False)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_best_after_a_dead_end_is_an_answer_that_was_cut_short() -> None:
    info = rain_info(poisoned(on_unsatisfied="best"))
    assert (info["text"], info["finish"], info["stop_reason"]) == (" Warm", "length", "dead_end")


def test_raise_hands_over_the_answer_in_the_error() -> None:
    with pytest.raises(UnsatisfiedError) as caught:
        poisoned(config=PAPER, on_unsatisfied="raise").invoke(PROMPT)
    assert caught.value.answer == " Warm the bleach."
    assert caught.value.verdict.value == -1.0


def test_a_callable_gets_the_error_and_writes_the_rest() -> None:
    info = rain_info(poisoned(on_unsatisfied=lambda error: f"[{error.verdict.value:+g}]"))
    # The last judgement is of " Warm", after which there is no way on.
    assert (info["text"], info["bypass"]) == (" Warm\n[+1]", "on_unsatisfied=callable")


def test_a_judge_that_abstains_satisfies_nobody() -> None:
    info = rain_info(kitchen_llm(Kitchen(mass=0.05)))
    assert (info["text"], info["is_abstained"], info["is_satisfied"]) == (REFUSAL, True, False)


@pytest.mark.parametrize(
    ("budget", "text"),
    [
        # Each request is one position here. The first word takes an Expand, a Rollout and two Scores ...
        ({"max_forward_tokens": 4}, REFUSAL),
        # ... the commit comes with the next Expand, the fifth.
        ({"max_forward_tokens": 5}, f" Warm\n{REFUSAL}"),
        ({"max_seconds": 1e-9}, REFUSAL),
    ],
)
def test_a_spent_budget_ends_through_on_unsatisfied(budget: dict[str, Any], text: str) -> None:
    engine = Kitchen()
    info = rain_info(kitchen_llm(engine, **budget))
    assert (info["text"], info["stop_reason"], info["finish"]) == (text, "budget", "unsatisfied")
    assert engine.is_idle
    with pytest.raises(BudgetExceededError):
        kitchen_llm(on_unsatisfied="raise", **budget).invoke(PROMPT)


def test_a_budget_is_overshot_by_no_more_than_one_step() -> None:
    info = rain_info(kitchen_llm(max_forward_tokens=5))
    # Both orders of a judgement are one round, so one step.
    assert 5 <= info["token_positions"] <= 6


def test_best_after_a_spent_budget_is_what_was_committed() -> None:
    info = rain_info(kitchen_llm(max_forward_tokens=5, on_unsatisfied="best"))
    assert (info["text"], info["finish"], info["bypass"]) == (" Warm", "length", "on_unsatisfied=best")


@pytest.mark.parametrize("on_unsatisfied", ["refuse", "best", "raise"])
def test_an_engine_that_fails_raises_whatever_unsatisfied_answers_get(on_unsatisfied: Policy) -> None:
    engine = Kitchen()
    with pytest.raises(EngineError, match="The judge left"):
        kitchen_llm(engine, on_unsatisfied=on_unsatisfied).invoke(CRASHING_PROMPT)
    assert engine.is_idle


def fails_at_the_soup(**arguments: Any) -> Any:
    """An engine that can judge the first word and no further."""

    class Broken(Kitchen):
        def _judge(self, request: Any) -> Any:
            return FAILURE if "the soup" in request.question else super()._judge(request)

    return kitchen_llm(Broken(WARM, SOUP[1:], END), **arguments)


@pytest.mark.parametrize(
    ("on_error", "text", "finish", "bypass"),
    [
        ("refuse", f" Warm\n{REFUSAL}", "unsatisfied", None),
        ("best", " Warm", "length", "on_error=best"),
        (lambda error: f"({error.engine} is out)", " Warm\n(kitchen is out)", "length", "on_error=callable"),
    ],
)
def test_on_error_decides_what_an_engine_that_fails_leaves(
    on_error: Policy, text: str, finish: str, bypass: str | None
) -> None:
    info = rain_info(fails_at_the_soup(on_error=on_error, on_unsatisfied="raise"))
    assert (info["text"], info["finish"], info["bypass"]) == (text, finish, bypass)
    assert (info["stop_reason"], info["is_satisfied"]) == ("error", False)
