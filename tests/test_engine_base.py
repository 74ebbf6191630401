"""What replies must look like, and costs that add up."""

from typing import Any

import numpy as np
import pytest

from langchain_rain.engines.base import Cost, checked_reply
from langchain_rain.errors import EngineError
from langchain_rain.search.protocol import Context, Embed, Expand, OptionLogprobs, Request, Rollout, Score, TokenSet

CONTEXT = Context("mine", num_prompt_tokens=3)
EXPAND = Expand(
    CONTEXT,
    (),
    num_token_sets=2,
    num_tokens=3,
    num_draws=4,
    top_k=5,
    temperature=1.0,
    seed=0,
    exclude=frozenset({(9, 9, 9)}),
)
ROLLOUT = Rollout(CONTEXT, (), until=(".",), max_tokens=2, temperature=1.0, seed=0)
SCORE = Score(CONTEXT, "Good?", "(", ("A", "B"))
EMBED = Embed(CONTEXT, (1,), num_tokens=1)
NAN = float("nan")


def token_set(*tokens: int, logprob: float = -1.0) -> TokenSet:
    return TokenSet(tokens, "", logprob)


@pytest.mark.parametrize(
    ("request_", "reply"),
    [
        (EXPAND, []),
        (EXPAND, [token_set(1), token_set(1, 2, 3)]),
        (EXPAND, [token_set(1, logprob=-np.inf)]),
        (ROLLOUT, token_set()),
        (ROLLOUT, token_set(1, 2)),
        (Rollout(CONTEXT, (), (), None, 1.0, 0), token_set(*range(99))),
        (SCORE, OptionLogprobs((-0.1, -np.inf), mass=1.0)),
        (EMBED, np.array([0.6, 0.8])),
    ],
)
def test_a_reply_in_order_is_passed_on(request_: Request, reply: Any) -> None:
    assert checked_reply(request_, reply, engine="mine") is reply


@pytest.mark.parametrize("request_", [EXPAND, ROLLOUT, SCORE, EMBED])
def test_an_exception_is_passed_on_whatever_was_asked(request_: Request) -> None:
    error = ConnectionError("gone")
    assert checked_reply(request_, error, engine="mine") is error


@pytest.mark.parametrize(
    ("request_", "reply", "problem"),
    [
        (EXPAND, None, "a list of TokenSet is wanted, given None"),
        (EXPAND, [(1, 2)], "a list of TokenSet is wanted"),
        (EXPAND, (token_set(1),), "a list of TokenSet is wanted"),
        (EXPAND, [token_set(1), token_set(2), token_set(3)], "at most 2 token sets are wanted, given 3"),
        (EXPAND, [token_set(1), token_set(1)], "not distinct"),
        (EXPAND, [token_set(9, 9, 9)], "one of them was excluded"),
        (EXPAND, [token_set()], r"1 to 3 tokens are wanted, given \[0\]"),
        (EXPAND, [token_set(1, 2, 3, 4)], r"1 to 3 tokens are wanted, given \[4\]"),
        (EXPAND, [token_set(1), token_set(2, logprob=NAN)], r"log probabilities are wanted, given \[-1.0, nan\]"),
        (ROLLOUT, [token_set(1)], "a TokenSet is wanted"),
        (ROLLOUT, token_set(1, 2, 3), "at most 2 tokens are wanted, given 3"),
        (ROLLOUT, token_set(1, logprob=NAN), "log probabilities are wanted"),
        (SCORE, (-0.1, -0.2), "OptionLogprobs of 2 options are wanted"),
        (SCORE, OptionLogprobs((-0.1,), mass=0.9), "OptionLogprobs of 2 options are wanted"),
        (SCORE, OptionLogprobs((-0.1, NAN), mass=0.9), "log probabilities and a mass"),
        (SCORE, OptionLogprobs((-0.1, -2.0), mass=1.1), "log probabilities and a mass"),
        (SCORE, OptionLogprobs((-0.1, -2.0), mass=NAN), "log probabilities and a mass"),
        (EMBED, [0.6, 0.8], "one finite vector is wanted, given list of shape None"),
        (EMBED, np.zeros((1, 2)), r"one finite vector is wanted, given ndarray of shape \(1, 2\)"),
        (EMBED, np.array([NAN, 1.0]), "one finite vector is wanted"),
        (EMBED, np.array([np.inf, 1.0]), "one finite vector is wanted"),
    ],
)
def test_a_reply_that_does_not_answer_becomes_an_error_that_says_why(
    request_: Request, reply: Any, problem: str
) -> None:
    error = checked_reply(request_, reply, engine="mine")
    kind = type(request_).__name__
    assert isinstance(error, EngineError)
    assert (error.engine, error.request) == ("mine", kind)
    with pytest.raises(EngineError, match=rf"mine gave a wrong reply to {kind}: .*{problem}"):
        raise error


def test_costs_add_up() -> None:
    assert Cost(1, 20) + Cost(2, 3) + Cost() == Cost(forward_passes=3, token_positions=23)
