"""Servers that speak OpenAI's completions, and vLLM, which adds fields of its own to them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, NotRequired

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from langchain_rain.engines.dialects.base import Continuation, Dialect, Logprob, Sampled, Sampling, TokensOf
from langchain_rain.search.protocol import Tokens

TOKEN_ID = "token_id:"
"""What vLLM writes before a token's id where it is asked to tell tokens so."""


class _OpenAILogprobs(TypedDict):
    tokens: list[str]
    token_logprobs: list[Logprob]
    top_logprobs: NotRequired[list[dict[str, Logprob] | None] | None]


class _OpenAIChoice(TypedDict):
    finish_reason: str
    stop_reason: NotRequired[int | str | None]
    logprobs: _OpenAILogprobs


class _PromptDetails(TypedDict):
    cached_tokens: NotRequired[int | None]


class _Usage(TypedDict):
    prompt_tokens: int
    completion_tokens: int
    prompt_tokens_details: NotRequired[_PromptDetails | None]


class _OpenAICompletion(TypedDict):
    choices: Annotated[list[_OpenAIChoice], Field(min_length=1)]
    usage: _Usage


_OPENAI_COMPLETION = TypeAdapter(_OpenAICompletion)


def _openai_body(asked: Sampling, model: str, cache_salt: str) -> dict[str, Any]:
    """Nothing but what OpenAI documents, as others refuse what they do not know."""
    body: dict[str, Any] = {
        "model": model,
        "prompt": list(asked.prompt),
        "max_tokens": asked.max_tokens,
        "temperature": asked.temperature,
        "top_p": 1.0,
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
        "n": asked.num,
        "seed": asked.seed,
        "logprobs": asked.num_top,
    }
    if asked.stop:
        body["stop"] = list(asked.stop)
    if asked.allowed:
        body["logit_bias"] = dict.fromkeys(map(str, asked.allowed), 100)
    return body


def _vllm_body(asked: Sampling, model: str, cache_salt: str) -> dict[str, Any]:
    body = _openai_body(replace(asked, allowed=()), model, cache_salt)
    body |= {
        "top_k": asked.top_k if asked.top_k is not None else -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "return_tokens_as_token_ids": True,
    }
    if asked.stop:
        body["include_stop_str_in_output"] = True
    if asked.told:
        body |= {"logprob_token_ids": list(asked.told), "logprobs": max(1, asked.num_top)}
    if asked.allowed:
        body["allowed_token_ids"] = list(asked.allowed)
    if cache_salt:
        body["cache_salt"] = cache_salt
    return body


def _read_vllm(content: bytes, tokens_of: TokensOf) -> Sampled:
    return _read_openai(content, lambda told: (_token_id(told),))


def _token_id(told: str) -> int:
    if not told.startswith(TOKEN_ID):
        raise ValueError("tokens are not told as ids")
    return int(told.removeprefix(TOKEN_ID))


def _read_openai(content: bytes, tokens_of: TokensOf) -> Sampled:
    reply = _OPENAI_COMPLETION.validate_json(content)
    usage = reply["usage"]
    details = usage.get("prompt_tokens_details") or {}
    return Sampled(
        continuations=tuple(_openai_continuation(choice, tokens_of) for choice in reply["choices"]),
        num_prompt=usage["prompt_tokens"],
        num_written=usage["completion_tokens"],
        num_cached=details.get("cached_tokens"),
    )


def _openai_continuation(choice: _OpenAIChoice, tokens_of: TokensOf) -> Continuation:
    told = choice["logprobs"]
    tokens: Tokens = ()
    logprobs: list[float] = []
    top: list[Mapping[int, float]] = []
    places = told.get("top_logprobs") or [None] * len(told["tokens"])
    for text, logprob, place in zip(told["tokens"], told["token_logprobs"], places, strict=True):
        first, *others = tokens_of(text)
        tokens += (first, *others)
        logprobs += [logprob, *(0.0 for _ in others)]
        # What is several tokens here, as the text of a control token is, says nothing of the first of them.
        spelled = ((tokens_of(key), value) for key, value in (place or {}).items())
        top += [{tokens[0]: value for tokens, value in spelled if len(tokens) == 1}, *({} for _ in others)]
    # Of a stop text its words are the reason; of the token that ends texts nothing, or its id.
    has_ended = choice["finish_reason"] == "stop" and not isinstance(choice.get("stop_reason"), str)
    return Continuation(tokens, tuple(logprobs), tuple(top), has_ended)


VLLM = Dialect("vLLM", "/v1/completions", _vllm_body, _read_vllm, has_cache_salt=True)

OPENAI = Dialect("OpenAI-compatible", "/v1/completions", _openai_body, _read_openai, shows_stop=False)
