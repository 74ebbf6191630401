"""What is asked of an inference server and what it replies, in whatever dialect."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

from pydantic import Field

from langchain_rain.search.protocol import Tokens

Logprob = Annotated[float, Field(le=0.01)]
"""Not above 0 but for rounding; JSON has no infinity, so what is impossible is told as a large negative number."""


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
