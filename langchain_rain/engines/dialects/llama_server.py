"""llama-server of llama.cpp, in its own form: what it gives in OpenAI's leaves out the ids of tokens."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, NotRequired

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from langchain_rain.engines.dialects.base import Continuation, Dialect, Logprob, Sampled, Sampling, TokensOf


class _LlamaTop(TypedDict):
    id: int
    logprob: Logprob


class _LlamaToken(_LlamaTop):
    top_logprobs: list[_LlamaTop]


class _LlamaTimings(TypedDict):
    cache_n: int
    prompt_n: int
    predicted_n: int


class _LlamaCompletion(TypedDict):
    tokens: list[int]
    stop_type: str
    completion_probabilities: NotRequired[list[_LlamaToken]]
    timings: _LlamaTimings


_LLAMA_COMPLETIONS = TypeAdapter(_LlamaCompletion | Annotated[list[_LlamaCompletion], Field(min_length=1)])


def _llama_body(asked: Sampling, model: str, cache_salt: str) -> dict[str, Any]:
    """Of its samplers all but two are switched off, and its own defaults with them."""
    return {
        "prompt": list(asked.prompt),
        "n_predict": asked.max_tokens,
        "temperature": asked.temperature,
        "samplers": ["top_k", "temperature"],
        "top_k": asked.top_k if asked.top_k is not None else 0,
        "repeat_penalty": 1.0,
        "n": asked.num,
        "seed": asked.seed,
        "stop": list(asked.stop),
        "n_probs": max(1, asked.num_top),
        "logit_bias": [[token, 100.0] for token in asked.allowed],
        "cache_prompt": True,
        "return_tokens": True,
    }


def _read_llama(content: bytes, tokens_of: TokensOf) -> Sampled:
    replies = _LLAMA_COMPLETIONS.validate_json(content)
    replies = replies if isinstance(replies, list) else [replies]
    timings = replies[0]["timings"]
    return Sampled(
        continuations=tuple(map(_llama_continuation, replies)),
        num_prompt=timings["cache_n"] + timings["prompt_n"],
        num_written=sum(each["timings"]["predicted_n"] for each in replies),
        num_cached=timings["cache_n"],
    )


def _llama_continuation(reply: _LlamaCompletion) -> Continuation:
    # Left out are tokens after which a character is incomplete, and those that a stop text lies in.
    left = reply.get("completion_probabilities", [])
    logprobs: list[float] = []
    top: list[Mapping[int, float]] = []
    for token in reply["tokens"]:
        is_told = bool(left) and left[0]["id"] == token
        told, left = (left[0], left[1:]) if is_told else (None, left)
        logprobs.append(told["logprob"] if told else math.nan)
        top.append({each["id"]: each["logprob"] for each in told["top_logprobs"]} if told else {})
    if left:
        raise ValueError("probabilities of other tokens")
    return Continuation(tuple(reply["tokens"]), tuple(logprobs), tuple(top), has_ended=reply["stop_type"] == "eos")


LLAMA_SERVER = Dialect(
    "llama-server", "/completion", _llama_body, _read_llama, max_seed=2**32 - 64
)  # at 2**32 - 1 it draws without a seed
