"""What an inference server can do, found out by asking: fields that it does not know it ignores, and says 200."""

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, TypeAlias

from langchain_rain.engines.addresses import named
from langchain_rain.engines.dialects import Continuation, Sampled, Sampling
from langchain_rain.engines.replicas import Home, Replica
from langchain_rain.engines.server import Server
from langchain_rain.engines.together import together
from langchain_rain.errors import EngineError
from langchain_rain.search.protocol import Tokens

OptionsBy: TypeAlias = Literal["token ids", "pairs", "top", "single tokens"]
"""How log probabilities of a judgement's options are had: told for any token; as p(a) / (p(a) + p(b)); those that are
among the most probable tokens; or by a request for each token, that allows no other."""

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

NUM_ROUNDS = 3
"""How often they are sent."""

NOTICEABLE = 0.01
"""Difference of log probabilities that is not by rounding."""

UNLIKELY = "\u2603\u2604"
"""Begins stop texts that do not come."""


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
        tells_tempered: whether the log probabilities that it tells are those at the temperature of the request, as in
            vLLM's mode `processed_logprobs` and in SGLang by default; else they are those at temperature 1.
    """

    max_num: int
    has_seed: bool
    num_top: int
    num_stop: int
    options: tuple[OptionsBy, ...]
    tells_cached: bool
    has_prefix_cache: bool | None
    spells_alike: bool | None
    tells_tempered: bool


def common(all_found: Sequence[Capabilities]) -> Capabilities:
    """What each of some servers can do; of what one does not tell it is not known."""
    first, *others = all_found
    return Capabilities(
        max_num=min(each.max_num for each in all_found),
        has_seed=all(each.has_seed for each in all_found),
        num_top=min(each.num_top for each in all_found),
        num_stop=min(each.num_stop for each in all_found),
        options=tuple(way for way in first.options if all(way in each.options for each in others)),
        tells_cached=all(each.tells_cached for each in all_found),
        has_prefix_cache=_all_or_unknown(each.has_prefix_cache for each in all_found),
        spells_alike=_all_or_unknown(each.spells_alike for each in all_found),
        tells_tempered=any(each.tells_tempered for each in all_found),
    )


def _all_or_unknown(told: Iterable[bool | None]) -> bool | None:
    values = set(told)
    return False if False in values else None if None in values else True


async def probe_all(
    server: Server, replicas: Sequence[Replica], *, prompt: Tokens, sample: str, sample_tokens: Tokens, name: str
) -> Capabilities:
    """What each of some servers can do; see `probe`."""

    async def probe_one(replica: Replica) -> Capabilities:
        home = server.client.replicas.settle(replica)
        try:
            return await probe(server, home, prompt=prompt, sample=sample, sample_tokens=sample_tokens, name=name)
        finally:
            server.client.replicas.leave(home)

    return common(await together(map(probe_one, replicas)))


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
        EngineError: it fails, cannot be searched with, or has another tokenizer.
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
    spells_alike = await _spells_alike(server, home, sample, sample_tokens)
    if spells_alike is False:
        raise EngineError(
            f"{url} reads tokens otherwise than the tokenizer given; give that of the model {server.model!r} as "
            "tokenizer=, a folder or an id on the Hugging Face hub.",
            engine=name,
        )
    return Capabilities(
        max_num=await _max_num(server, home, prompt),
        has_seed=[each.tokens for each in first.continuations] == [each.tokens for each in again.continuations],
        num_top=num_top,
        num_stop=await _num_stop(server, home, prompt) if server.dialect.shows_stop else 0,
        options=options,
        tells_cached=again.num_cached is not None,
        has_prefix_cache=await _has_prefix_cache(server, home, (prompt + sample_tokens * 20)[:NUM_CACHED]),
        spells_alike=spells_alike,
        tells_tempered=await _tells_tempered(server, home, prompt),
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


async def _tells_tempered(server: Server, home: Home, prompt: Tokens) -> bool:
    """Whether the most probable token becomes more probable at a lower temperature."""

    async def best(temperature: float) -> float:
        asked = Sampling(prompt, 1, temperature=temperature, seed=PROBE_SEED, num_top=1)
        return max((await server.sampled(home, asked)).continuations[0].first_top.values(), default=0.0)

    return await best(0.5) - await best(1.0) > NOTICEABLE


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
    for _ in range(NUM_ROUNDS):
        if any(await together(server.spoils(home, asked) for _ in range(NUM_TOGETHER) for asked in (told, top))):
            return True
    return False


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
