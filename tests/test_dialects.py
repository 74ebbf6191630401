"""What each kind of server is asked, and what is read from its reply.

SGLang's by its documentation: https://docs.sglang.io/basic_usage/sampling_params.html and native_api.html, with the
names in `GenerateReqInput`, `SamplingParams` and the `meta_info` of its replies.
"""

import json
import math
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from langchain_rain.engines.dialects import (
    DIALECTS,
    LLAMA_SERVER,
    OPENAI,
    SGLANG,
    VLLM,
    Continuation,
    Dialect,
    Sampled,
    Sampling,
)
from langchain_rain.engines.http_client import HttpClient
from langchain_rain.engines.replicas import Replica, Replicas
from langchain_rain.engines.server import Server
from langchain_rain.errors import EngineError
from langchain_rain.search.protocol import Tokens

PLAIN = Sampling((1, 2, 3), max_tokens=8)
FULL = Sampling((1, 2), 8, 0.7, num=4, top_k=15, seed=5, stop=("\n", "."), num_top=10, told=(7, 9), allowed=(7,))


def tokens_of(text: str) -> Tokens:
    """A token for each character."""
    if not text:
        raise LookupError(text)
    return tuple(map(ord, text))


def read(dialect: Dialect, reply: Any) -> Sampled:
    return dialect.read(json.dumps(reply).encode(), tokens_of)


# --- OpenAI and vLLM ---------------------------------------------------------------------------------------------


def test_openai_is_asked_for_nothing_that_it_does_not_document() -> None:
    assert OPENAI.body(PLAIN, "demo", "salt") == {
        "model": "demo",
        "prompt": [1, 2, 3],
        "max_tokens": 8,
        "temperature": 0.0,
        "top_p": 1.0,
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
        "n": 1,
        "seed": 0,
        "logprobs": 0,
    }
    more = OPENAI.body(FULL, "demo", "")
    documented = {"temperature": 0.7, "n": 4, "seed": 5, "logprobs": 10, "stop": ["\n", "."], "logit_bias": {"7": 100}}
    assert {name: more[name] for name in documented} == documented
    assert set(more) == set(OPENAI.body(PLAIN, "demo", "")) | {"stop", "logit_bias"}


def test_vllm_is_asked_for_ids_and_not_to_cut_off_stop_texts() -> None:
    plain, full = VLLM.body(PLAIN, "demo", ""), VLLM.body(FULL, "demo", "salt")
    assert plain == OPENAI.body(PLAIN, "demo", "") | {
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "return_tokens_as_token_ids": True,
    }
    more = {
        "top_k": 15,
        "stop": ["\n", "."],
        "include_stop_str_in_output": True,
        "logprob_token_ids": [7, 9],
        "logprobs": 10,
        "allowed_token_ids": [7],
        "cache_salt": "salt",
    }
    assert {name: full[name] for name in more} == more
    assert "logit_bias" not in full
    assert VLLM.body(Sampling((1,), 1, told=(7,)), "demo", "")["logprobs"] == 1  # with 0 it tells no others


def completion(*choices: Any, **usage: Any) -> Any:
    return {"choices": choices, "usage": {"prompt_tokens": 3, "completion_tokens": 2, **usage}}


def choice(finish_reason: str = "length", *, names: Callable[[int], str] = "token_id:{}".format, **told: Any) -> Any:
    top = [{names(65): -0.1, names(66): -3.0}, None]
    logprobs = {"tokens": [names(65), names(67)], "token_logprobs": [-0.1, -1.5], "top_logprobs": top}
    return {"finish_reason": finish_reason, "logprobs": logprobs, **told}


WRITTEN = Continuation((65, 67), (-0.1, -1.5), ({65: -0.1, 66: -3.0}, {}), has_ended=False)


@pytest.mark.parametrize(("dialect", "names"), [(VLLM, "token_id:{}".format), (OPENAI, chr)])
def test_openais_form_is_read_by_ids_or_by_texts(dialect: Dialect, names: Callable[[int], str]) -> None:
    details = {"prompt_tokens_details": {"cached_tokens": 2}}
    two = [choice(names=names), choice(names=names)]
    assert read(dialect, completion(*two, **details)) == Sampled((WRITTEN, WRITTEN), 3, 2, num_cached=2)
    untold: list[Any] = [{}, {"prompt_tokens_details": None}, {"prompt_tokens_details": {}}]
    for usage in untold:
        assert read(dialect, completion(*two, **usage)).num_cached is None


@pytest.mark.parametrize(
    ("finish_reason", "told", "has_ended"),
    [
        ("length", {}, False),
        ("length", {"stop_reason": None}, False),
        ("stop", {}, True),
        ("stop", {"stop_reason": None}, True),
        ("stop", {"stop_reason": 2}, True),  # another token that ends texts
        ("stop", {"stop_reason": "."}, False),  # a stop text
    ],
)
def test_an_end_is_told_from_a_limit_and_a_stop_text(finish_reason: str, told: Any, has_ended: bool) -> None:
    (written,) = read(VLLM, completion(choice(finish_reason, **told))).continuations
    assert written.has_ended == has_ended


def test_a_text_that_is_no_token_is_several_of_which_the_first_has_its_probability_if_it_was_drawn() -> None:
    logprobs = {"tokens": ["ab", "c"], "token_logprobs": [-1.0, -2.0], "top_logprobs": [{"xy": -0.5}, {"c": -2.0}]}
    (written,) = read(OPENAI, completion({"finish_reason": "length", "logprobs": logprobs})).continuations
    assert written.tokens == tuple(map(ord, "abc"))
    assert written.logprobs == (-1.0, 0.0, -2.0)
    assert written.top == ({}, {}, {ord("c"): -2.0})  # "xy" says nothing of "x"


def test_without_the_most_probable_tokens_there_are_places_without() -> None:
    logprobs = {"tokens": ["a"], "token_logprobs": [-1.0], "top_logprobs": None}
    (written,) = read(OPENAI, completion({"finish_reason": "length", "logprobs": logprobs})).continuations
    assert (written.top, written.first_top) == (({},), {})
    ended = {"finish_reason": "stop", "logprobs": {"tokens": [], "token_logprobs": []}}
    (written,) = read(OPENAI, completion(ended)).continuations
    assert (written, written.first_top) == (Continuation((), (), (), has_ended=True), {})


# --- llama-server ------------------------------------------------------------------------------------------------


def test_llama_server_is_asked_with_all_samplers_off_but_two() -> None:
    body = LLAMA_SERVER.body(PLAIN, "demo", "salt")
    assert body == {
        "prompt": [1, 2, 3],
        "n_predict": 8,
        "temperature": 0.0,
        "samplers": ["top_k", "temperature"],
        "top_k": 0,
        "repeat_penalty": 1.0,
        "n": 1,
        "seed": 0,
        "stop": [],
        "n_probs": 1,
        "logit_bias": [],
        "cache_prompt": True,
        "return_tokens": True,
    }
    more = {"top_k": 15, "n": 4, "n_probs": 10, "logit_bias": [[7, 100.0]], "stop": ["\n", "."], "seed": 5}
    full = LLAMA_SERVER.body(FULL, "demo", "")
    assert {name: full[name] for name in more} == more


def llama(tokens: Tokens, told: Tokens, stop_type: str = "limit") -> Any:
    places = [{"id": each, "logprob": -0.5, "top_logprobs": [{"id": each, "logprob": -0.5}]} for each in told]
    timings = {"cache_n": 4, "prompt_n": 6, "predicted_n": len(tokens)}
    reply = {"tokens": tokens, "stop_type": stop_type, "timings": timings}
    return reply | ({"completion_probabilities": places} if told else {})


def test_llama_server_is_read_alone_or_as_a_list() -> None:
    one = read(LLAMA_SERVER, llama((7, 8), (7, 8)))
    written = Continuation((7, 8), (-0.5, -0.5), ({7: -0.5}, {8: -0.5}), has_ended=False)
    assert one == Sampled((written,), 10, 2, num_cached=4)
    two = read(LLAMA_SERVER, [llama((7, 8), (7, 8)), llama((7, 8, 9), (7, 8, 9))])
    assert (len(two.continuations), two.num_prompt, two.num_written) == (2, 10, 5)


@pytest.mark.parametrize(("stop_type", "has_ended"), [("eos", True), ("limit", False), ("word", False)])
def test_llama_server_says_why_it_stopped(stop_type: str, has_ended: bool) -> None:
    assert read(LLAMA_SERVER, llama((7,), (7,), stop_type)).continuations[0].has_ended == has_ended


@pytest.mark.parametrize("told", [(), (5,), (6,), (5, 6), (5, 7), (5, 6, 7), (8,), (6, 8)])
def test_llama_server_leaves_probabilities_out_anywhere(told: Tokens) -> None:
    # Of tokens after which a character is incomplete, and of those of a stop text.
    tokens = (5, 6, 7, 8)
    (written,) = read(LLAMA_SERVER, llama(tokens, told)).continuations
    assert written.tokens == tokens
    assert [token for token, each in zip(tokens, written.logprobs, strict=True) if not math.isnan(each)] == list(told)
    assert written.top == tuple({token: -0.5} if token in told else {} for token in tokens)


@pytest.mark.parametrize("told", [(9,), (6, 5), (5, 5), (5, 6, 7, 8, 9)])
def test_probabilities_of_other_tokens_are_no_reply(told: Tokens) -> None:
    with pytest.raises(ValueError, match="other tokens"):
        read(LLAMA_SERVER, llama((5, 6, 7, 8), told))


# --- SGLang ------------------------------------------------------------------------------------------------------


def test_sglang_is_asked_in_its_own_form() -> None:
    assert SGLANG.body(PLAIN, "demo", "") == {
        "input_ids": [1, 2, 3],
        "sampling_params": {
            "max_new_tokens": 8,
            "temperature": 0.0,
            "top_p": 1.0,
            "top_k": -1,
            "min_p": 0.0,
            "n": 1,
            "sampling_seed": 0,
            "stop": [],
            "no_stop_trim": True,
        },
        "return_logprob": True,
        "top_logprobs_num": 0,
        "logprob_start_len": -1,
    }
    full = SGLANG.body(FULL, "demo", "salt")
    assert (full["token_ids_logprob"], full["extra_key"], full["top_logprobs_num"]) == ([7, 9], "salt", 10)
    more = {"logit_bias": {"7": 100}, "n": 4, "top_k": 15, "sampling_seed": 5, "stop": ["\n", "."]}
    assert {name: full["sampling_params"][name] for name in more} == more


def sglang(finish: Any, **told: Any) -> Any:
    written = [[-0.1, 65, None], [-1.5, 67, " text"]]
    counts = {"prompt_tokens": 3, "completion_tokens": 2}
    return {"text": "?", "meta_info": {"finish_reason": finish, **counts, "output_token_logprobs": written, **told}}


def test_sglang_tells_most_probable_tokens_and_those_asked_for() -> None:
    top = [[[-0.1, 65, None], [-3.0, 66, None]], None]
    given = [[[-4.0, 70, None], [-5.0, 71, None]], [[-6.0, 70, None]]]
    reply = sglang({"type": "length", "length": 2}, output_top_logprobs=top, output_token_ids_logprobs=given)
    (written,) = read(SGLANG, reply).continuations
    places = ({65: -0.1, 66: -3.0, 70: -4.0, 71: -5.0}, {70: -6.0})
    assert written == Continuation((65, 67), (-0.1, -1.5), places, has_ended=False)
    (written,) = read(SGLANG, sglang({"type": "length"}, output_top_logprobs=None)).continuations
    assert written.top == ({}, {})


def test_sglang_is_read_alone_or_as_a_list() -> None:
    one = sglang({"type": "length", "length": 2}, cached_tokens=1)
    assert read(SGLANG, one).num_cached == 1
    two = read(SGLANG, [one, one])
    assert (len(two.continuations), two.num_prompt, two.num_written, two.num_cached) == (2, 3, 4, 1)
    assert read(SGLANG, sglang({"type": "length"})).num_cached is None


@pytest.mark.parametrize(
    ("finish", "has_ended"),
    [
        ({"type": "length", "length": 2}, False),
        ({"type": "stop", "matched": 2}, True),
        ({"type": "stop"}, True),
        ({"type": "stop", "matched": "."}, False),
        ({"type": "abort", "message": "no"}, False),
    ],
)
def test_sglang_says_why_it_stopped(finish: Any, has_ended: bool) -> None:
    assert read(SGLANG, sglang(finish)).continuations[0].has_ended == has_ended


# --- What is no reply --------------------------------------------------------------------------------------------

REPLIES: dict[str, Any] = {
    "vllm": completion(choice()),
    "openai": completion(choice(names=chr)),
    "llama-server": llama((7, 8), (7, 8)),
    "sglang": sglang({"type": "length", "length": 2}, output_top_logprobs=[[[-0.1, 65, None]], None]),
}
SPOILT: tuple[Any, ...] = (
    *(None, True, -3, 0, 2**70, 0.5, -1e400, math.nan, "", "a", "token_id:", "token_id:x"),
    *([], [None], [-0.5], [[-0.5, 65, None]], {}, {"": -0.5}, {"a": None}, {"a": -0.5}),
)


def places_in(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of everything inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    return [path, *[deeper for key, inside in items for deeper in places_in(inside, (*path, key))]]


def replaced(value: Any, path: tuple[Any, ...], by: Any) -> Any:
    if not path:
        return by
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], by)
    return copy


@pytest.mark.parametrize("name", DIALECTS)
def test_what_is_malformed_is_a_value_or_lookup_error_and_nothing_else(name: str) -> None:
    num_read = 0
    for path in places_in(REPLIES[name]):
        for value in SPOILT:
            try:
                sampled = read(DIALECTS[name], replaced(REPLIES[name], path, value))
            except (ValueError, LookupError):
                continue
            num_read += 1
            for each in sampled.continuations:
                assert len(each.tokens) == len(each.logprobs) == len(each.top)
    assert num_read > 0


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("content", [b"", b"null", b"[]", b"{}", b"\xff", b'"text"'])
def test_what_is_no_reply_at_all_is_a_value_error(name: str, content: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        DIALECTS[name].read(content, tokens_of)


@pytest.mark.parametrize("logprob", ["NaN", "1e400", "0.5", "null"])
def test_what_is_no_log_probability_is_no_reply(logprob: str) -> None:
    content = json.dumps(completion(choice())).replace("-1.5", logprob).encode()
    with pytest.raises(ValueError, match="token_logprobs"):
        VLLM.read(content, tokens_of)


def test_vllm_must_tell_tokens_as_ids() -> None:
    with pytest.raises(ValueError, match="as ids"):
        read(VLLM, completion(choice(names=chr)))


# --- A server ----------------------------------------------------------------------------------------------------


async def served(dialect: Dialect, asked: Sampling, reply: Any) -> tuple[Any, Any]:
    """What a server was asked, and what it replied; it is asked once."""

    def handler(request: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(request.content))
        return httpx.Response(200, json=reply)

    bodies: list[Any] = []
    client = HttpClient(
        Replicas([Replica("http://server")]), name="it", max_retries=0, transport=httpx.MockTransport(handler)
    )
    try:
        sampled = await Server(client, dialect, "demo", tokens_of).sampled(client.replicas.settle(), asked)
    finally:
        await client.aclose()
    return bodies[0], sampled


@pytest.mark.parametrize(
    ("name", "path"), [("llama-server", ["seed"]), ("sglang", ["sampling_params", "sampling_seed"])]
)
async def test_seeds_are_taken_modulo_what_a_server_takes(name: str, path: list[str]) -> None:
    dialect = DIALECTS[name]
    body, _ = await served(dialect, Sampling((1,), 2, seed=dialect.max_seed + 5), REPLIES[name])
    for key in path:
        body = body[key]
    assert body == 5


@pytest.mark.parametrize("dialect", DIALECTS.values())
def test_a_seed_and_those_of_further_continuations_stay_in_range(dialect: Dialect) -> None:
    bits = {"vllm": 63, "openai": 63, "llama-server": 32, "sglang": 31}
    (name,) = [name for name, each in DIALECTS.items() if each is dialect]
    assert dialect.max_seed - 1 + 16 < 2 ** bits[name] - 1


@pytest.mark.parametrize(
    ("asked", "reply"),
    [
        (Sampling((1,), 2), completion(choice(), choice())),
        (Sampling((1,), 2), completion(replaced(choice(), ("logprobs",), {"tokens": [], "token_logprobs": []}))),
    ],
)
async def test_more_than_was_asked_for_and_nothing_at_all_are_no_reply(asked: Sampling, reply: Any) -> None:
    with pytest.raises(EngineError, match=r"its reply cannot be read \(ValueError\)") as caught:
        await served(VLLM, asked, reply)
    assert caught.value.is_retryable


async def test_what_goes_beyond_the_tokens_asked_for_is_cut() -> None:
    _, sampled = await served(VLLM, Sampling((1,), 1), completion(choice()))
    (cut,) = sampled.continuations
    assert (cut.tokens, cut.logprobs) == (WRITTEN.tokens[:1], WRITTEN.logprobs[:1])
    assert not cut.has_ended


async def test_fewer_continuations_than_asked_are_a_reply() -> None:
    _, sampled = await served(VLLM, Sampling((1,), 2, num=4), completion(choice()))
    assert sampled.continuations == (WRITTEN,)


@pytest.mark.parametrize("key", ["prompt", "content", "text"])
async def test_a_server_spells_tokens_under_one_of_three_names(key: str) -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json={key: "a text", "more": "?"}))
    client = HttpClient(Replicas([Replica("http://server")]), name="it", transport=transport)
    assert await Server(client, VLLM, "demo", tokens_of).spelled(client.replicas.settle(), (1,)) == "a text"
    await client.aclose()


async def test_a_server_that_spells_tokens_under_no_known_name_cannot_be_read() -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json={"more": "?"}))
    client = HttpClient(Replicas([Replica("http://server")]), name="it", max_retries=0, transport=transport)
    with pytest.raises(EngineError, match=r"cannot be read \(LookupError\)"):
        await Server(client, VLLM, "demo", tokens_of).spelled(client.replicas.settle(), (1,))
    await client.aclose()
