"""How each kind of inference server is asked for continuations of a text, and what it replies.

A dialect is data and two small functions: from a `Sampling` to the body of a request, and from the body of the reply to
`Sampled`. All of them take the prompt as token ids, so that no text of a user's becomes a control token; and all but
OpenAI's tell what was written as ids too, so that nothing is lost between tokens and text.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, NotRequired, TypeAlias

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from langchain_rain.search.protocol import Tokens


@dataclass(frozen=True, slots=True)
class Sampling:
    """What a server is asked to write.

    Attributes:
        prompt: what stands before.
        max_tokens: that are written at most.
        temperature: 0 is greedy.
        num: how many continuations, drawn side by side.
        top_k: how many of the most probable tokens they are drawn from; None for all.
        seed: of the draws, in [0, 2**63); the second continuation is drawn with the next one, and so on.
        stop: texts after which nothing more needs to be written.
        num_top: the most probable tokens that are told at each place, besides the one that was drawn.
        told: tokens whose log probability is told at the first place.
        allowed: the tokens that may be drawn; empty for all.
    """

    prompt: Tokens
    max_tokens: int
    temperature: float = 0.0
    num: int = 1
    top_k: int | None = None
    seed: int = 0
    stop: tuple[str, ...] = ()
    num_top: int = 0
    told: Tokens = ()
    allowed: Tokens = ()


@dataclass(frozen=True, slots=True)
class Continuation:
    """What a server wrote.

    Attributes:
        tokens: what was drawn, with the one that ended the text.
        logprobs: natural, of each, at temperature 1 over the whole vocabulary; not a number where it is not told.
        top: those of the most probable tokens at each place, by token; empty where they are not told.
        has_ended: whether the model ended the text, and not a limit or a stop text.
    """

    tokens: Tokens
    logprobs: tuple[float, ...]
    top: tuple[Mapping[int, float], ...]
    has_ended: bool

    @property
    def first_top(self) -> Mapping[int, float]:
        """Those of the most probable tokens at the first place; none where the text ended there without a token."""
        return self.top[0] if self.top else {}

    def within(self, max_tokens: int) -> "Continuation":
        """The same without what is beyond `max_tokens`: what a server counts as one token may be several here."""
        if len(self.tokens) <= max_tokens:
            return self
        return Continuation(
            self.tokens[:max_tokens], self.logprobs[:max_tokens], self.top[:max_tokens], has_ended=False
        )


@dataclass(frozen=True, slots=True)
class Sampled:
    """A server's reply.

    Attributes:
        continuations: as many as were asked for.
        num_prompt: tokens of the prompt.
        num_written: tokens of all continuations.
        num_cached: tokens of the prompt that it had read before; None if it does not tell.
    """

    continuations: tuple[Continuation, ...]
    num_prompt: int
    num_written: int
    num_cached: int | None


TokensOf: TypeAlias = Callable[[str], Tokens]


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one kind of server is spoken to.

    Attributes:
        name: of the kind.
        path: where continuations are asked for.
        body: makes the body of a request, from what is asked, the model's name and the tenant's salt of the cache.
        read: reads the body of a reply, with what finds the tokens of a text where they are told as such; a
            `ValueError` (pydantic's too) or `LookupError` if it is none.
        max_seed: seeds are taken modulo it.
        shows_stop: whether a stop text is written too; else an answer that ends by one cannot be gone on with.
        has_cache_salt: whether it keeps what it caches for one tenant from the others.
        is_tested: whether it was run against a real server; else it is by the documentation.
    """

    name: str
    path: str
    body: Callable[[Sampling, str, str], dict[str, Any]]
    read: Callable[[bytes, TokensOf], Sampled]
    max_seed: int = 2**62  # below 2**63, so that those of further continuations are too
    shows_stop: bool = True
    has_cache_salt: bool = False
    is_tested: bool = True


# vLLM and others that speak OpenAI's completions

TOKEN_ID = "token_id:"
"""What vLLM writes before a token's id where it is asked to tell tokens so."""

Logprob = Annotated[float, Field(le=0.01)]
"""Not above 0 but for rounding; JSON has no infinity, so what is impossible is told as a large negative number."""


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


# llama-server of llama.cpp, in its own form: what it gives in OpenAI's leaves out the ids of tokens


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


# SGLang, in its own form: https://docs.sglang.io/basic_usage/sampling_params.html

_SGLangLogprob = tuple[Logprob, int, str | None]


class _SGLangFinish(TypedDict):
    type: str
    matched: NotRequired[int | str | None]


class _SGLangMeta(TypedDict):
    finish_reason: _SGLangFinish
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: NotRequired[int | None]
    output_token_logprobs: list[_SGLangLogprob]
    output_top_logprobs: NotRequired[list[list[_SGLangLogprob] | None] | None]
    output_token_ids_logprobs: NotRequired[list[list[_SGLangLogprob] | None] | None]


class _SGLangGenerated(TypedDict):
    meta_info: _SGLangMeta


_SGLANG_GENERATED = TypeAdapter(_SGLangGenerated | Annotated[list[_SGLangGenerated], Field(min_length=1)])


def _sglang_body(asked: Sampling, model: str, cache_salt: str) -> dict[str, Any]:
    sampling = {
        "max_new_tokens": asked.max_tokens,
        "temperature": asked.temperature,
        "top_p": 1.0,
        "top_k": asked.top_k if asked.top_k is not None else -1,
        "min_p": 0.0,
        "n": asked.num,
        "sampling_seed": asked.seed,
        "stop": list(asked.stop),
        "no_stop_trim": True,
    }
    if asked.allowed:
        sampling["logit_bias"] = dict.fromkeys(map(str, asked.allowed), 100)
    body: dict[str, Any] = {
        "input_ids": list(asked.prompt),
        "sampling_params": sampling,
        "return_logprob": True,
        "top_logprobs_num": asked.num_top,
        "logprob_start_len": -1,
    }
    if asked.told:
        body["token_ids_logprob"] = list(asked.told)
    if cache_salt:
        body["extra_key"] = cache_salt
    return body


def _read_sglang(content: bytes, tokens_of: TokensOf) -> Sampled:
    replies = _SGLANG_GENERATED.validate_json(content)
    metas = [each["meta_info"] for each in (replies if isinstance(replies, list) else [replies])]
    return Sampled(
        continuations=tuple(map(_sglang_continuation, metas)),
        num_prompt=metas[0]["prompt_tokens"],
        num_written=sum(meta["completion_tokens"] for meta in metas),
        num_cached=metas[0].get("cached_tokens"),
    )


def _sglang_continuation(meta: _SGLangMeta) -> Continuation:
    written = meta["output_token_logprobs"]
    top: list[dict[int, float]] = [{} for _ in written]
    for told in (meta.get("output_top_logprobs"), meta.get("output_token_ids_logprobs")):
        for at_place, logprobs in zip(top, told or (), strict=False):
            at_place.update({token: logprob for logprob, token, _ in logprobs or ()})
    finish = meta["finish_reason"]
    return Continuation(
        tokens=tuple(token for _, token, _ in written),
        logprobs=tuple(logprob for logprob, _, _ in written),
        top=tuple(top),
        has_ended=finish["type"] == "stop" and not isinstance(finish.get("matched"), str),
    )


SGLANG = Dialect(
    "SGLang", "/generate", _sglang_body, _read_sglang, max_seed=2**31 - 64, has_cache_salt=True, is_tested=False
)

DIALECTS: Mapping[str, Dialect] = {"vllm": VLLM, "llama-server": LLAMA_SERVER, "sglang": SGLANG, "openai": OPENAI}
"""Every dialect, by the name that users give it."""
