"""The work of a request, done by asking a server for continuations and log probabilities.

What is written token by token in this process comes in whole texts from a server, and is cut here by the same rules:
texts after which it may stop are told to it only so that it writes little in vain.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from langchain_rain.engines.base import Cost
from langchain_rain.engines.capabilities import Capabilities
from langchain_rain.engines.dialects import Continuation, Sampled, Sampling
from langchain_rain.engines.replicas import Home
from langchain_rain.engines.server import Server
from langchain_rain.engines.text import TextCodec
from langchain_rain.engines.together import together
from langchain_rain.engines.wants import Got, MostProbable, Probability, Want
from langchain_rain.engines.work import ExpandWork, RolloutWork, ScoreWork, Work
from langchain_rain.errors import EngineError
from langchain_rain.search.protocol import Rollout, Tokens, derive_seed

BLIND_TOKENS = 16
"""How many tokens of a clause are written at once by a server that cannot be told where to stop: some are in vain."""

NEGLIGIBLE = 1e-3
"""Probability that may be missing from what is told of a judgement's options."""

GREEDY_TEMPERATURE = 1e-3
"""What temperature 0 stands for, as in this process."""

WHOLE = "A"
"""What one token spells in any vocabulary."""

MAX_RECENT = 4
"""Of how many texts of a conversation it is remembered that a server has read them, where it does not tell."""


@dataclass(slots=True, eq=False)
class Stay:
    """A conversation at a server.

    Attributes:
        home: which replica.
        num_prompt_tokens: of the conversation.
        has_read_prompt: whether the server has.
        recent: what was sent last, where the server does not tell what it had cached.
    """

    home: Home
    num_prompt_tokens: int
    has_read_prompt: bool = False
    recent: list[Tokens] = field(default_factory=list)

    def num_known(self, prompt: Tokens) -> int:
        """How many tokens of `prompt` were sent before; it is remembered as sent."""
        known = max((_num_common(prompt, sent) for sent in self.recent), default=0)
        self.recent = [*self.recent[1 - MAX_RECENT :], prompt]
        return min(known, len(prompt) - 1)


class ServerWork:
    """Does the work of one request.

    Attributes:
        cost: what it has taken so far.
    """

    def __init__(self, server: Server, capabilities: Capabilities, codec: TextCodec, stay: Stay) -> None:
        self.cost = Cost()
        self._server = server
        self._capabilities = capabilities
        self._codec = codec
        self._stay = stay
        self._is_judging = False
        self._options: Sequence[Tokens] = ()

    async def do(self, work: Work) -> None:
        """Asks until the work has its reply.

        Raises:
            EngineError: the server failed.
        """
        self._is_judging = isinstance(work, ScoreWork)
        self._options = work.option_ids if isinstance(work, ScoreWork) else ()
        if isinstance(work, ExpandWork) and work.request.num_tokens > 1:
            await self._expand(work)
        elif isinstance(work, RolloutWork) and work.guided_start is None:
            await self._roll_out(work)
        while work.reply is None:
            work.take(await together(map(self._got, work.wants)))

    # Texts

    async def _roll_out(self, work: RolloutWork) -> None:
        request = work.request
        room = work.conversation.max_tokens - len(request.prefix)
        limit = room if request.max_tokens is None else min(room, request.max_tokens)
        while work.reply is None:
            num_written = work.num_written
            num_tokens = max(1, limit - num_written)
            stop = self._stop(work)  # before `min_tokens` too: mostly none comes there, else it goes on behind
            if not stop:
                num_tokens = min(num_tokens, max(BLIND_TOKENS, request.min_tokens - num_written))
            seed = derive_seed(request.seed, Rollout, (), num_written)
            asked = Sampling(work.sequence, num_tokens, request.temperature, seed=seed, stop=stop)
            sampled = await self._sampled(asked)
            self._write(work, self._ended(sampled.continuations[0]))

    def _stop(self, work: RolloutWork) -> tuple[str, ...]:
        """Texts after which a server may stop: the marks that the conversation uses most, then what ends an answer."""
        prompt = work.conversation.prompt
        asked = prompt if isinstance(prompt, str) else str(prompt.messages[-1].text)
        text = asked + self._codec.read(work.conversation, work.request.prefix).decoded
        marks = sorted(work.request.until, key=lambda mark: -text.count(mark))
        return (*marks, *work.conversation.stop)[: self._capabilities.num_stop]

    def _write(self, work: RolloutWork, written: Continuation) -> None:
        # Of a drawn token the server tells how probable it is at temperature 1.
        is_told = work.request.temperature == 1 and not any(map(math.isnan, written.logprobs))
        for number, token in enumerate(written.tokens):
            work.write(token, written.logprobs[number] if is_told else 0.0)
            if work.reply is not None:
                return

    async def _expand(self, work: ExpandWork) -> None:
        """The greedy text and the samples side by side."""
        request, place = work.request, work.sequence
        num_tokens = max(1, min(request.num_tokens, work.conversation.max_tokens - len(request.prefix)))
        num_top = min(request.top_k, self._capabilities.num_top)
        asked = [Sampling(place, num_tokens, num_top=num_top)]
        for start in range(0, request.num_draws, self._capabilities.max_num):
            num = min(self._capabilities.max_num, request.num_draws - start)
            seed = derive_seed(request.seed, type(request), (), start)
            asked.append(Sampling(place, num_tokens, request.temperature, num, request.top_k, seed, num_top=num_top))
        replies = await together(map(self._sampled, asked))
        texts = []
        for each, reply in zip(asked, replies, strict=True):
            is_tempered = self._capabilities.tells_tempered and each.temperature > 0
            temperature = 1.0 if is_tempered else request.temperature
            written = map(self._ended, reply.continuations)
            texts += [(one.tokens, _filtered(one, temperature, request.top_k)) for one in written]
        work.finish(texts)

    def _ended(self, written: Continuation) -> Continuation:
        """The same with the token that ended it, if one did; servers know of more such tokens than a tokenizer."""
        if not written.has_ended or (written.tokens and written.tokens[-1] in self._codec.end_tokens):
            return written
        if self._server.dialect.shows_stop and written.tokens and self._codec.learn_end(written.tokens[-1]):
            return written
        if not self._codec.end_tokens:
            raise EngineError(
                f"{self._server.model} has ended a text, and its tokenizer has no token for that. Set eos_token on "
                "the tokenizer.",
                engine=self._server.model,
            )
        end = min(self._codec.end_tokens)
        return Continuation((*written.tokens, end), (*written.logprobs, 0.0), (*written.top, {}), has_ended=True)

    # Log probabilities

    async def _got(self, want: Want) -> Got:
        if isinstance(want, MostProbable):
            return await self._most_probable(want)
        assert isinstance(want, Probability), "a server tells tokens and their log probabilities"
        logprobs = await self._logprobs(want.place.sequence, want.token_ids)
        # Up to a constant where the temperature is not 1; who asks at another compares them with one another.
        return np.array(want.token_ids), np.array(logprobs) / max(want.temperature, GREEDY_TEMPERATURE)

    async def _most_probable(self, want: MostProbable) -> Got:
        # At another temperature than 1 all that are told, as the others' share is estimated.
        num_top = self._capabilities.num_top
        num_top = min(want.count, num_top) if want.temperature == 1 else num_top
        top = await self._top(want.place.sequence, num_top)
        ranked = sorted(top.items(), key=lambda each: (-each[1], each[0]))[:num_top]
        logprobs = _tempered([logprob for _, logprob in ranked], want.temperature)
        return np.array([token for token, _ in ranked[: want.count]]), logprobs[: want.count]

    async def _top(self, prompt: Tokens, num_top: int) -> dict[int, float]:
        sampled = await self._sampled(Sampling(prompt, max_tokens=1, num_top=num_top))
        written = sampled.continuations[0]
        if not written.tokens:
            return {self._ended(written).tokens[0]: 0.0}
        if not written.first_top:
            # llama-server tells nothing of a place at which it draws a part of a character, so a whole one is drawn.
            whole = self._codec.tokens_of(WHOLE)[:1]
            sampled = await self._sampled(Sampling(prompt, max_tokens=1, num_top=num_top, allowed=whole))
            (written,) = sampled.continuations
        return dict(written.first_top)

    async def _logprobs(self, prompt: Tokens, tokens: Sequence[int]) -> list[float]:
        """How probable each of `tokens` is after `prompt`; what is negligible, or is not had at all, is impossible."""
        ways = self._capabilities.options
        if "token ids" in ways:
            sampled = await self._sampled(Sampling(prompt, max_tokens=1, told=tuple(tokens)))
            told = sampled.continuations[0].first_top
            if not told.keys() >= set(tokens):
                raise self._not_told()
            return [told[token] for token in tokens]
        top = await self._top(prompt, self._capabilities.num_top) if self._capabilities.num_top else {}
        known = {token: top[token] for token in tokens if token in top}
        rest = [token for token in tokens if token not in known]
        # Of tokens to choose from those that the server does not name are left out; of options none may be.
        is_enough = bool(known) and not self._is_judging
        if not is_enough and 1 - sum(map(math.exp, top.values())) > NEGLIGIBLE:
            if "pairs" in ways and known:
                best = max(known, key=lambda token: known[token])
                shares = await together(self._share(prompt, token, best) for token in rest)
                known |= {token: known[best] + share for token, share in zip(rest, shares, strict=True)}
            elif "single tokens" in ways:
                logprobs = await together(self._only(prompt, token) for token in rest)
                known |= dict(zip(rest, logprobs, strict=True))
            # What is not told of an option may be more than all that is told of another one.
            if any(known.keys().isdisjoint(option) for option in self._options):
                raise self._not_told()
        return [known.get(token, -math.inf) for token in tokens]

    def _not_told(self) -> EngineError:
        return EngineError(
            f"{self._server.model} is on a server that does not tell how probable an option of a judgement is, which "
            "is no reason to believe the other one. Give another judge.",
            engine=self._server.model,
        )

    async def _share(self, prompt: Tokens, token: int, best: int) -> float:
        """How much more probable `token` is than `best`, in logarithms."""
        share = await self._server.share(self._stay.home, prompt, token, best)
        self.cost += Cost(1, 1, int(self._is_judging))  # it has just read the prompt for the most probable tokens
        return math.log(share) - math.log1p(-share) if 0 < share < 1 else -math.inf

    async def _only(self, prompt: Tokens, token: int) -> float:
        """How probable `token` is, by a request that allows no other."""
        sampled = await self._sampled(Sampling(prompt, max_tokens=1, num_top=1, allowed=(token,)))
        written = sampled.continuations[0]
        is_told = written.tokens == (token,) and not math.isnan(written.logprobs[0])
        return written.logprobs[0] if is_told else -math.inf

    async def _sampled(self, asked: Sampling) -> Sampled:
        sampled = await self._server.sampled(self._stay.home, asked)
        cached = self._stay.num_known(asked.prompt) if sampled.num_cached is None else sampled.num_cached
        positions = sampled.num_prompt - cached + sampled.num_written
        of_earlier = 0
        if not self._stay.has_read_prompt and not self._is_judging:
            self._stay.has_read_prompt = True
            of_earlier = min(cached, self._stay.num_prompt_tokens)
        judging = positions if self._is_judging else 0
        self.cost += Cost(1, positions, judging, cached_positions=of_earlier)
        return sampled


def _filtered(written: Continuation, temperature: float, top_k: int) -> list[float]:
    """The log probability of each token among the `top_k` most probable ones at its place, at a temperature.

    A token of which it is not told counts as certain: mostly it is one that goes on a character.
    """
    temperature = max(temperature, GREEDY_TEMPERATURE)
    filtered = []
    for token, logprob, top in zip(written.tokens, written.logprobs, written.top, strict=True):
        if math.isnan(logprob):
            filtered.append(0.0)
            continue
        others = sorted({**top, token: logprob}.values(), reverse=True)[:top_k]
        relative = np.array(others) / temperature
        filtered.append(float(logprob / temperature - np.logaddexp.reduce(relative)))
    return filtered


def _tempered(logprobs: Sequence[float], temperature: float) -> NDArray[np.float64]:
    """Log probabilities of the most probable tokens, largest first, at another temperature than 1.

    What all other tokens have together is known at temperature 1 alone. It is taken as if each were as probable as the
    last one that is told: exact at temperature 1, and below it an upper bound, of little weight.
    """
    temperature = max(temperature, GREEDY_TEMPERATURE)
    told = np.array(logprobs, dtype=np.float64)
    if temperature == 1 or not len(told):
        return told
    rest = max(0.0, 1.0 - float(np.exp(told).sum()))
    exponent = 1 / temperature
    total = float(np.logaddexp.reduce(told * exponent))
    if rest > 0:
        total = float(np.logaddexp(total, math.log(rest) + told[-1] * (exponent - 1)))
    return told * exponent - total


def _num_common(one: Tokens, other: Tokens) -> int:
    """How many tokens two texts begin with alike."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[low:middle] == other[low:middle] else (low, middle - 1)
    return low
