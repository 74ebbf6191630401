"""A served model: what it can be asked, in whatever dialect, at whichever of its replicas."""

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from langchain_rain.engines.dialects import Dialect, Sampled, Sampling, TokensOf
from langchain_rain.engines.http_client import HttpClient, PassingError
from langchain_rain.engines.replicas import Home
from langchain_rain.errors import EngineError
from langchain_rain.search.protocol import Tokens


class _Scored(TypedDict):
    score: float


class _Scores(TypedDict):
    data: list[_Scored]


IMPOSSIBLE = -9000.0
"""vLLM tells a probability of nothing as -9999."""

_SCORES = TypeAdapter(_Scores)
_TEXT = TypeAdapter(dict[str, str])


@dataclass(frozen=True, slots=True)
class Server:
    """A served model.

    Attributes:
        client: asks it.
        dialect: how it is spoken to.
        model: its name there.
        tokens_of: finds the tokens of a text, where they are told as such.
        cache_salt: keeps what is cached of its texts from other tenants of the server; empty for none.
    """

    client: HttpClient
    dialect: Dialect
    model: str
    tokens_of: TokensOf
    cache_salt: str = ""

    async def sampled(self, home: Home, asked: Sampling) -> Sampled:
        """What it writes.

        Raises:
            EngineError: it refuses the request, or has failed too often.
        """

        def read(content: bytes) -> Sampled:
            sampled = self._read(content, asked)
            if is_spoiled(sampled):
                raise PassingError("it told log probabilities of no token", is_of_server=False)
            return sampled

        return await self._ask(home, asked, read)

    async def spoils(self, home: Home, asked: Sampling) -> bool:
        """Whether log probabilities are missing from its reply.

        Raises:
            EngineError: as `sampled`.
        """
        return is_spoiled(await self._ask(home, asked, lambda content: self._read(content, asked)))

    async def _ask(self, home: Home, asked: Sampling, read: Callable[[bytes], Sampled]) -> Sampled:
        asked = replace(asked, seed=asked.seed % self.dialect.max_seed)
        body = self.dialect.body(asked, self.model, self.cache_salt)
        return await self.client.post(home, self.dialect.path, body, read)

    def _read(self, content: bytes, asked: Sampling) -> Sampled:
        sampled = self.dialect.read(content, self.tokens_of)
        if any(not each.tokens and not each.has_ended for each in sampled.continuations):
            raise ValueError("a continuation without tokens")
        if len(sampled.continuations) > asked.num:
            raise ValueError("more continuations than were asked for")
        return replace(sampled, continuations=tuple(each.within(asked.max_tokens) for each in sampled.continuations))

    async def share(self, home: Home, prompt: Tokens, token: int, other: int) -> float:
        """The probability of `token` after `prompt` among it and `other`.

        Raises:
            EngineError: it does not tell, or has failed too often.
        """
        body = {"model": self.model, "query": list(prompt), "items": [[]], "label_token_ids": [token, other]}
        body |= {"cache_salt": self.cache_salt} if self.cache_salt else {}
        return await self.client.post(
            home, "/generative_scoring", body, lambda content: _SCORES.validate_json(content)["data"][0]["score"]
        )

    async def num_cache_hits(self, home: Home) -> float | None:
        """How many tokens it has found in its cache so far, where it counts them (vLLM) and lets everybody see."""
        text = None
        with suppress(EngineError):
            text = await self.client.get_text(home.replica, "/metrics")
        counts = re.findall(r"^vllm:prefix_cache_hits_total(?:\{.*\})? ([-+.\deE]+)$", text or "", re.MULTILINE)
        return sum(map(float, counts)) if counts else None

    async def spelled(self, home: Home, tokens: Tokens) -> str:
        """The text that it makes of tokens.

        Raises:
            EngineError: it does not tell, or has failed too often.
        """
        body = {"model": self.model, "tokens": list(tokens)}
        return await self.client.post(home, "/detokenize", body, _read_text)


def is_spoiled(sampled: Sampled) -> bool:
    """Whether log probabilities of no token stand in it.

    vLLM's V1 sampler fills up with them where a request for those of certain tokens shares a batch with one for those
    of the most probable tokens: https://github.com/vllm-project/vllm/pull/51789.
    """
    return any(logprob < IMPOSSIBLE for each in sampled.continuations for top in each.top for logprob in top.values())


def _read_text(content: bytes) -> str:
    """vLLM, llama-server and SGLang name it differently."""
    told = _TEXT.validate_json(content)
    for key in ("prompt", "content", "text"):
        if key in told:
            return told[key]
    raise LookupError("no text")
