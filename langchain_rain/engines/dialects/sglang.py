"""SGLang, in its own form: https://docs.sglang.io/basic_usage/sampling_params.html."""

from typing import Annotated, Any, NotRequired

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from langchain_rain.engines.dialects.base import Continuation, Dialect, Logprob, Sampled, Sampling, TokensOf

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
