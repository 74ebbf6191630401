"""What an inference server can do, found out by asking: fields that it does not know it ignores, and says 200."""

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from langchain_rain.engines.dialects import DIALECTS, Continuation, Dialect, Sampled, Sampling
from langchain_rain.engines.http_client import HttpClient, named
from langchain_rain.engines.replicas import Home
from langchain_rain.engines.server import Server
from langchain_rain.errors import EngineError
from langchain_rain.search.protocol import Tokens

OptionsBy: TypeAlias = Literal["token ids", "pairs", "top", "single tokens"]
"""How log probabilities of a judgement's options are had: told for any token; as p(a) / (p(a) + p(b)); those that are
among the most probable tokens; or by a request for each token, that allows no other."""

OPTIONS: Mapping[OptionsBy, str] = {
    "token ids": "told for any token",
    "pairs": "two at a time",
    "top": "where they are among the most probable",
    "single tokens": "a request for each",
}
"""The same for people."""

NUMS_TOP = (100, 20, 5, 1)
"""How many of the most probable tokens a server is asked to tell, until it does: what llama-server tells without
effort, what vLLM allows by default, what OpenAI allows, the least."""

NUMS_STOP = (32, 4, 1)
"""How many stop texts; OpenAI and vLLM allow 4."""

NUMS = (16, 8, 4, 2)
"""How many continuations at once; llama-server draws as many as it has slots."""

PROBE_SEED = 7

NUM_CACHED = 200
"""Tokens of a text that is read twice: some blocks of any server's cache."""

NUM_TOGETHER = 8
"""How many requests of a kind are sent at once, so that some share a batch of the server."""

UNLIKELY = "\u2603\u2604"
"""Begins stop texts that do not come."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What serves.

    Attributes:
        dialect: how it is spoken to.
        version: of the server, as far as it tells.
        model: the name of the model there.
        source: where the server has it from, a folder of its own or an id; empty if it does not tell.
        max_context: how many tokens a text may have; None if it does not tell.
    """

    dialect: Dialect
    version: str
    model: str
    source: str
    max_context: int | None


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a server can do.

    Attributes:
        max_num: how many continuations it draws at once, of those that are asked for.
        has_seed: whether the same seed gives the same draws.
        num_top: how many of the most probable tokens it tells; 0 for none.
        num_stop: how many stop texts it takes.
        options: the ways in which log probabilities of options are had, the best one first.
        tells_cached: whether it tells how much of a prompt it had read before.
        has_prefix_cache: whether it keeps what it has read; None if it does not tell.
        spells_alike: whether tokens are the same text there as here; None if it does not tell.
    """

    max_num: int
    has_seed: bool
    num_top: int
    num_stop: int
    options: tuple[OptionsBy, ...]
    tells_cached: bool
    has_prefix_cache: bool | None
    spells_alike: bool | None


async def identify_first(client: HttpClient, *, model: str, dialect: str | None, name: str) -> tuple[Home, Identity]:
    """Who serves, and what, at the first server that can be reached; see `identify`. The caller leaves the home."""
    failures = []
    for replica in client.replicas.all:
        home = client.replicas.settle(replica)
        try:
            return home, await identify(client, home, model=model, dialect=dialect, name=name)
        except EngineError as error:
            client.replicas.leave(home)
            if not error.is_retryable:
                raise
            failures.append(error)
    raise failures[0]


async def identify(client: HttpClient, home: Home, *, model: str, dialect: str | None, name: str) -> Identity:
    """Who serves, and what.

    Args:
        client: asks it.
        home: where.
        model: its name there; empty for the only one.
        dialect: which one it speaks; None to find out.
        name: of the engine, for errors.

    Raises:
        EngineError: it cannot be reached, or has no such model.
    """
    url = named(home.replica.url)

    async def get(path: str) -> dict[str, Any]:
        told = await client.get(home.replica, path)
        return told if isinstance(told, dict) else {}

    models = await get("/v1/models") or await get("/v1/models")  # once more, as a reply may be damaged on its way
    told = models.get("data")
    entries = told if isinstance(told, list) else []
    listed = [each for each in entries if isinstance(each, dict) and isinstance(each.get("id"), str)]
    if not listed:
        raise EngineError(
            f"{url} lists no models at /v1/models; is it an inference server, and has it loaded its model?", engine=name
        )
    chosen = next((each for each in listed if model in (each["id"], "")), None)
    if chosen is None or (not model and len(listed) > 1):
        names = ", ".join(repr(each["id"]) for each in listed)
        raise EngineError(f"{url} serves {names}; one of these is allowed as model, given {model!r}.", engine=name)
    version, properties = await get("/version"), await get("/props")
    if dialect is None:
        dialect = await _dialect(chosen, version, properties, get)
    source = chosen.get("root") or properties.get("model_path") or ""
    settings = properties.get("default_generation_settings")
    n_ctx = settings.get("n_ctx") if isinstance(settings, dict) else None
    max_context = chosen.get("max_model_len") or n_ctx
    return Identity(
        DIALECTS[dialect],
        str(version.get("version") or properties.get("build_info") or ""),
        chosen["id"],
        str(source),
        max_context if isinstance(max_context, int) and max_context > 0 else None,
    )


async def _dialect(listed: dict[str, Any], version: dict[str, Any], properties: dict[str, Any], get: Any) -> str:
    if listed.get("owned_by") == "llamacpp" or "default_generation_settings" in properties:
        return "llama-server"
    if listed.get("owned_by") == "vllm" and "version" in version:
        return "vllm"
    if listed.get("owned_by") == "sglang" or "model_path" in await get("/get_model_info"):
        return "sglang"
    return "openai"


async def probe(
    server: Server, home: Home, *, prompt: Tokens, sample: str, sample_tokens: Tokens, name: str
) -> Capabilities:
    """Asks a server for a few tokens in all the ways that matter.

    Args:
        server: the server.
        home: which of its replicas.
        prompt: tokens that begin a text.
        sample: a text.
        sample_tokens: what the tokenizer here makes of it.
        name: of the engine, for errors.

    Raises:
        EngineError: it fails, or cannot be searched with.
    """
    asked = Sampling(prompt, max_tokens=4, temperature=1.0, seed=PROBE_SEED, num_top=1)
    url = named(home.replica.url)
    try:
        first, again = await server.sampled(home, asked), await server.sampled(home, asked)
    except EngineError as error:
        raise EngineError(f"{_refusal(url)} It does not go on from token ids as asked: {error}", engine=name) from error
    num_top = await _most(server, home, NUMS_TOP, lambda num: Sampling(prompt, 1, num_top=num))
    options = await _options(server, home, prompt, num_top)
    if not num_top or not options:
        missing = "a judgement's options" if num_top else "the most probable tokens"
        raise EngineError(f"{_refusal(url)} It tells no log probabilities of {missing}.", engine=name)
    return Capabilities(
        max_num=await _max_num(server, home, prompt),
        has_seed=[each.tokens for each in first.continuations] == [each.tokens for each in again.continuations],
        num_top=num_top,
        num_stop=await _num_stop(server, home, prompt) if server.dialect.shows_stop else 0,
        options=options,
        tells_cached=again.num_cached is not None,
        has_prefix_cache=await _has_prefix_cache(server, home, (prompt + sample_tokens * 20)[:NUM_CACHED]),
        spells_alike=await _spells_alike(server, home, sample, sample_tokens),
    )


def _refusal(url: str) -> str:
    return (
        f"{url} cannot be searched with. As a chat model, for example ChatOpenAI(base_url={url + '/v1'!r}), it can be "
        "given as `model` all the same: whole messages are drafted and judged then."
    )


async def _most(server: Server, home: Home, nums: Sequence[int], asked: Callable[[int], Sampling]) -> int:
    """The first of `nums` of which as many log probabilities are told at a place; 0 if none is."""
    for num in nums:
        sampled = await _allowed(server, home, asked(num))
        if sampled is not None and len(sampled.continuations[0].first_top) >= num:
            return num
    return 0


async def _max_num(server: Server, home: Home, prompt: Tokens) -> int:
    for num in NUMS:
        sampled = await _allowed(server, home, Sampling(prompt, 1, temperature=1.0, num=num, num_top=1))
        if sampled is not None and len(sampled.continuations) == num:
            return num
    return 1


async def _num_stop(server: Server, home: Home, prompt: Tokens) -> int:
    for num in NUMS_STOP:
        stop = tuple(f"{UNLIKELY} {number}" for number in range(num))
        if await _allowed(server, home, Sampling(prompt, 1, num_top=1, stop=stop)) is not None:
            return num
    return 0


async def _allowed(server: Server, home: Home, asked: Sampling) -> Sampled | None:
    try:
        return await server.sampled(home, asked)
    except EngineError as error:
        if error.is_retryable:
            raise
        return None


async def _options(server: Server, home: Home, prompt: Tokens, num_top: int) -> tuple[OptionsBy, ...]:
    """Asks for tokens that are among the most probable ones only by chance."""
    tokens = tuple(sorted({*range(5, 8), prompt[-1]}))
    ways: list[OptionsBy] = []
    told = await _allowed(server, home, Sampling(prompt, 1, num_top=1, told=tokens))
    if told is not None and set(tokens) <= told.continuations[0].first_top.keys():
        ways.append("token ids")
    with suppress(EngineError):
        await server.share(home, prompt, *tokens[:2])
        ways.append("pairs")
    if ways and await _spoil_each_other(server, home, prompt, tokens, num_top):
        ways.clear()
    if num_top > 1:
        ways.append("top")
    constrained = await _allowed(server, home, Sampling(prompt, 1, num_top=1, allowed=tokens[:1]))
    # What is told under the constraint must be what the model says without it, which of this token is not much.
    if constrained is not None and _is_only(constrained.continuations[0], tokens[0]):
        ways.append("single tokens")
    return tuple(ways)


async def _spoil_each_other(server: Server, home: Home, prompt: Tokens, tokens: Tokens, num_top: int) -> bool:
    """Whether requests for certain tokens spoil those for the most probable ones that share a batch with them."""
    told, top = Sampling(prompt, 4, num_top=1, told=tokens), Sampling(prompt, 4, num_top=num_top)
    return any(
        await asyncio.gather(*(server.spoils(home, asked) for _ in range(NUM_TOGETHER) for asked in (told, top)))
    )


def _is_only(continuation: Continuation, token: int) -> bool:
    return continuation.tokens == (token,) and continuation.logprobs[0] < math.log(0.99)


async def _has_prefix_cache(server: Server, home: Home, text: Tokens) -> bool | None:
    """Whether a text that was read is not read again."""
    asked = Sampling(text, 1, num_top=1)
    await server.sampled(home, asked)
    before = await server.num_cache_hits(home)
    again = await server.sampled(home, asked)
    if again.num_cached is not None:
        return again.num_cached > 0
    after = await server.num_cache_hits(home)
    return None if before is None or after is None else after > before


async def _spells_alike(server: Server, home: Home, sample: str, tokens: Tokens) -> bool | None:
    with suppress(EngineError):
        return (await server.spelled(home, tokens)).strip() == sample.strip()  # some begin every text with a space
    return None


@dataclass(frozen=True, slots=True)
class ReportRow:
    """A line of what is told of a server: what, how it is there (None where it does not tell), and what that is for."""

    name: str
    value: object
    purpose: str


def report(identity: Identity, capabilities: Capabilities) -> list[ReportRow]:
    """What a server is and can do, for people."""
    dialect = identity.dialect
    kind = f"{dialect.name} {identity.version}".strip() + (
        "" if dialect.is_tested else ", untested: by its documentation"
    )
    return [
        ReportRow("server", kind, "how it is spoken to"),
        ReportRow("model", identity.model, "what it serves" + (f", from {identity.source}" if identity.source else "")),
        ReportRow("context", identity.max_context, "the longest prompt with its answer, in tokens"),
        ReportRow("prompts as token ids", True, "no text of a user's becomes a control token"),
        ReportRow("same tokenizer", capabilities.spells_alike, "tokens are the same text there as here"),
        ReportRow("continuations at once", capabilities.max_num, "siblings that share the reading of a prompt"),
        ReportRow("seed", capabilities.has_seed, "same seed, same answer"),
        ReportRow("most probable tokens", capabilities.num_top, "token sets of one token; at least 10 are wanted"),
        ReportRow("stop texts", capabilities.num_stop, "clauses end where they should, with little written in vain"),
        ReportRow(
            "options of a judgement",
            ", then ".join(OPTIONS[way] for way in capabilities.options),
            "how their log probabilities are had",
        ),
        ReportRow("prefix cache", capabilities.has_prefix_cache, "a conversation is not read anew for each request"),
        ReportRow("cached tokens told", capabilities.tells_cached, "what an answer cost is known and not estimated"),
        ReportRow("hidden states", False, "similarity needs embeddings= (presets paper and thorough)"),
    ]
