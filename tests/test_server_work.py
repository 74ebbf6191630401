"""Requests answered by a server's continuations and log probabilities come to what they come to in this process.

The server is scripted: what it finds probable depends on the last tokens alone, and so does what it draws, so that
every reply can be derived.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from langchain_rain.engines.base import Cost
from langchain_rain.engines.capabilities import Capabilities, OptionsBy
from langchain_rain.engines.conversations import Conversations
from langchain_rain.engines.dialects import LLAMA_SERVER, OPENAI, VLLM, Continuation, Dialect, Sampled, Sampling
from langchain_rain.engines.replicas import Home, Replica
from langchain_rain.engines.sampling import answer_wants
from langchain_rain.engines.server_work import (
    BLIND_TOKENS,
    MAX_RECENT,
    ServerWork,
    Stay,
    _filtered,
    _num_common,
    _tempered,
)
from langchain_rain.engines.text import TextCodec
from langchain_rain.engines.wants import Draw, MostProbable, Place, Probability
from langchain_rain.engines.work import RolloutWork
from langchain_rain.errors import EngineError
from langchain_rain.search.protocol import Context, Expand, OptionLogprobs, Rollout, Score, Tokens, TokenSet
from tests.tiny_models import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
SIZE = len(TOKENIZER)
END, OTHER_END = TOKENIZER.eos_token_id, TOKENIZER.convert_tokens_to_ids("<|user|>")
WORDS = tuple(sorted({*TOKENIZER("a. b,\n\nE N D . é (A) yes", add_special_tokens=False).input_ids}))
"""Tokens that the server likes: letters, marks, parts of a character."""

PROMPT = "Human: How do I wash the bike?\n\nAssistant:"
CAPABILITIES = Capabilities(
    max_num=4,
    has_seed=True,
    num_top=SIZE,
    num_stop=4,
    options=("token ids",),
    tells_cached=True,
    has_prefix_cache=True,
    spells_alike=True,
    tells_tempered=False,
)


@dataclass(slots=True)
class ScriptedServer:
    """What `Server` is to `ServerWork`.

    Attributes:
        dialect: of which it counts whether stop texts are shown.
        ends: tokens that end a text.
        likes: what it writes mostly, besides `ends`.
        tells_end: whether a token that ended a text is told.
        cached: tokens of each prompt that it had read before; None if it does not tell.
        hidden: tokens of which it tells no log probabilities where they are drawn, nor of their places.
        asked: what it was asked for.
    """

    dialect: Dialect = VLLM
    ends: Tokens = (END,)
    likes: Tokens = WORDS
    tells_end: bool = True
    cached: int | None = 0
    hidden: Tokens = ()
    model: str = "scripted"
    asked: list[Sampling] = field(default_factory=list)
    shared: list[tuple[int, int]] = field(default_factory=list)

    def logprobs(self, prompt: Tokens) -> NDArray[np.float64]:
        """Of each token of the vocabulary after `prompt`."""
        random = np.random.Generator(np.random.Philox(key=[hash(prompt[-3:]) % 2**63, len(prompt)]))
        logits = random.normal(size=SIZE) - 6
        logits[list(self.likes)] += 6
        logits[list(self.ends)] += 4
        return np.asarray(logits - np.logaddexp.reduce(logits))

    def draw(self, prompt: Tokens, asked: Sampling, index: int = 0) -> int:
        """The next token: by the prompt and the number of the continuation, not by the seed."""
        if asked.allowed:
            return asked.allowed[0]
        logprobs = self.logprobs(prompt)
        if asked.temperature == 0:
            return int(logprobs.argmax())
        random = np.random.Generator(np.random.Philox(key=[hash(prompt) % 2**63, index]))
        best = np.argsort(-logprobs, kind="stable")[: asked.top_k]
        cumulative = np.exp(logprobs[best] / asked.temperature).cumsum()
        return int(best[np.searchsorted(cumulative, random.random() * cumulative[-1], side="right")])

    async def sampled(self, home: Home, asked: Sampling) -> Sampled:
        self.asked.append(asked)
        texts = tuple(self._continuation(asked, index) for index in range(asked.num))
        num_written = sum(len(each.tokens) for each in texts)
        return Sampled(texts, len(asked.prompt), num_written, self.cached)

    def _continuation(self, asked: Sampling, index: int) -> Continuation:
        tokens: Tokens = ()
        logprobs: list[float] = []
        top: list[dict[int, float]] = []
        while len(tokens) < asked.max_tokens:
            prompt = asked.prompt + tokens
            told = self.logprobs(prompt)
            token = self.draw(prompt, asked, index)
            if token in self.ends and not self.tells_end:
                return Continuation(tokens, tuple(logprobs), tuple(top), has_ended=True)
            is_hidden = token in self.hidden
            tokens += (token,)
            logprobs.append(math.nan if is_hidden else float(told[token]))
            best = np.argsort(-told, kind="stable")[: asked.num_top].tolist()
            top.append({} if is_hidden else {each: float(told[each]) for each in (*best, *asked.told, token)})
            if token in self.ends:
                return Continuation(tokens, tuple(logprobs), tuple(top), has_ended=True)
            text = TOKENIZER.decode(list(tokens))
            if any(stop in text for stop in asked.stop):
                break
        return Continuation(tokens, tuple(logprobs), tuple(top), has_ended=False)

    async def share(self, home: Home, prompt: Tokens, token: int, other: int) -> float:
        self.shared.append((token, other))
        logprobs = self.logprobs(prompt)
        return float(1 / (1 + np.exp(logprobs[other] - logprobs[token])))


class Asking:
    """A conversation with a scripted server."""

    def __init__(
        self,
        server: ScriptedServer | None = None,
        *,
        ends: Sequence[int] = (END,),
        max_tokens: int = 60,
        stop: Sequence[str] = (),
        **capabilities: Any,
    ) -> None:
        self.server = server or ScriptedServer()
        self.capabilities = replace(CAPABILITIES, **capabilities)
        self.codec = TextCodec(TOKENIZER, eos_token_ids=ends, name="scripted")
        self.conversations = Conversations(self.codec, max_context=10_000, name="scripted")
        self.context = self.conversations.open(PROMPT, max_tokens=max_tokens, stop=stop)
        self.prompt = self.codec.prompt_tokens(PROMPT)
        self.stay = Stay(Home(Replica("http://server")), self.context.num_prompt_tokens)

    def __call__(self, request: Any) -> Any:
        """The reply."""
        return self.with_cost(request)[0]

    def with_cost(self, request: Any) -> tuple[Any, Cost]:
        work = self.conversations.work(request)
        asked = ServerWork(self.server, self.capabilities, self.codec, self.stay)  # type: ignore[arg-type]
        asyncio.run(asked.do(work))
        return work.reply, asked.cost

    def local(self, request: Rollout) -> TokenSet:
        """The reply of an engine in this process that draws the same tokens."""
        work = self.conversations.work(request)
        assert isinstance(work, RolloutWork)
        asked = Sampling((), 1, request.temperature)
        while work.reply is None:
            token = self.server.draw(work.sequence, asked)
            logprob = float(self.server.logprobs(work.sequence)[token]) if request.temperature == 1 else 0.0
            work.write(token, logprob)
        return work.reply


def rollout(context: Context, prefix: Tokens = (), **settings: Any) -> Rollout:
    return Rollout(
        context, prefix, **{"until": (".", "\n"), "max_tokens": None, "temperature": 1.0, "seed": 3, **settings}
    )


def expand(context: Context, **settings: Any) -> Expand:
    asked = {
        "num_token_sets": 5,
        "num_tokens": 3,
        "num_draws": 6,
        "top_k": 8,
        "temperature": 0.7,
        "seed": 3,
        **settings,
    }
    return Expand(context, asked.pop("prefix", ()), **asked)


# --- Numbers -----------------------------------------------------------------------------------------------------

LOGITS = st.lists(st.floats(-8, 8), min_size=2, max_size=12)


@given(LOGITS, st.data())
def test_at_temperature_1_what_is_told_stands(logits: list[float], data: st.DataObject) -> None:
    logprobs = np.sort(np.array(logits) - np.logaddexp.reduce(logits))[::-1]
    count = data.draw(st.integers(0, len(logits)))
    assert _tempered(logprobs[:count].tolist(), 1.0).tolist() == logprobs[:count].tolist()


@given(LOGITS, st.sampled_from([0.7, 0.3, 1e-3]), st.data())
def test_below_temperature_1_what_is_told_gets_no_more_than_it_has_and_hardly_less(
    logits: list[float], temperature: float, data: st.DataObject
) -> None:
    logprobs = np.sort(np.array(logits) - np.logaddexp.reduce(logits))[::-1]
    count = data.draw(st.integers(1, len(logits)))
    exact = logprobs / temperature - np.logaddexp.reduce(logprobs / temperature)
    found = _tempered(logprobs[:count].tolist(), temperature)
    # p ** (1/t) <= p * last ** (1/t - 1) for each p that is not told, as p <= last: their sum is no more than this.
    rest = 1 - np.exp(logprobs[:count]).sum()
    most = math.log(max(rest, 1e-300)) + logprobs[count - 1] * (1 / temperature - 1)
    told = float(np.logaddexp.reduce(logprobs[:count] / temperature))
    assert (found <= exact[:count] + 1e-6).all()
    assert (found >= exact[:count] - (np.logaddexp(told, most) - told) - 1e-6).all()


def test_what_is_told_in_full_is_exact_at_any_temperature() -> None:
    logprobs = np.log([0.5, 0.3, 0.2])
    for temperature in (0.7, 1.5):
        powers = np.array([0.5, 0.3, 0.2]) ** (1 / temperature)
        assert np.exp(_tempered(logprobs.tolist(), temperature)) == pytest.approx(powers / powers.sum())
    assert _tempered([], 0.7).tolist() == []


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0, 1.3])
@pytest.mark.parametrize("top_k", [1, 5, 8])
def test_a_filtered_log_probability_is_that_of_the_engine_in_this_process(temperature: float, top_k: int) -> None:
    logits = torch.randn(3, 20, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    wants = [Draw(Place(None, (1,)), temperature, (uniform,), top_k) for uniform in (0.0, 0.4, 0.9)]
    drawn = answer_wants(wants, logits)
    logprobs = logits.log_softmax(-1)
    best = logprobs.topk(8)
    written = Continuation(
        tuple(int(ids[0]) for ids, _ in drawn),
        tuple(float(row[ids[0]]) for row, (ids, _) in zip(logprobs, drawn, strict=True)),
        tuple(dict(zip(*each, strict=True)) for each in zip(best.indices.tolist(), best.values.tolist(), strict=True)),
        has_ended=False,
    )
    assert _filtered(written, temperature, top_k) == pytest.approx([float(each[0]) for _, each in drawn])


def test_a_token_whose_probability_is_not_told_counts_as_certain() -> None:
    written = Continuation((1, 2), (math.nan, -1.0), ({}, {2: -1.0, 3: -1.0}), has_ended=False)
    assert _filtered(written, 1.0, 8) == pytest.approx([0.0, math.log(0.5)])


TOKENS = st.lists(st.integers(0, 2), max_size=9).map(tuple)


@given(TOKENS, TOKENS, TOKENS)
def test_how_much_two_texts_have_in_common(begin: Tokens, one: Tokens, other: Tokens) -> None:
    num = _num_common(begin + one, begin + other)
    expected = 0
    for left, right in zip(begin + one, begin + other, strict=False):
        if left != right:
            break
        expected += 1
    assert num == expected >= len(begin)


# --- Rollouts ----------------------------------------------------------------------------------------------------


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60)
@given(
    st.lists(st.sampled_from(WORDS), max_size=3).map(tuple),
    st.sampled_from([(), (".",), ("\n", ".", ","), (" b", "N D", "é"), tuple("ab.,\nEN")]),
    st.sampled_from([(), ("E",), (". b", "D .", "\n\n"), ("é",)]),
    st.sampled_from([None, 1, 5, 30]),
    st.sampled_from([0, 4, 20]),
    st.sampled_from([1.0, 0.7, 0.0]),
)
def test_where_a_server_is_told_to_stop_does_not_change_what_is_written(
    prefix: Tokens,
    until: tuple[str, ...],
    stop: tuple[str, ...],
    max_tokens: int | None,
    min_tokens: int,
    temperature: float,
) -> None:
    replies = []
    for num_stop in (0, 1, 4, 32):
        asking = Asking(stop=stop, max_tokens=40, num_stop=num_stop)
        request = rollout(
            asking.context, prefix, until=until, max_tokens=max_tokens, min_tokens=min_tokens, temperature=temperature
        )
        replies.append(asking(request))
        assert replies[-1] == asking.local(request)
        assert all(len(each.stop) <= num_stop for each in asking.server.asked)
    assert replies == [replies[0]] * 4


def test_a_server_that_cannot_be_told_where_to_stop_writes_a_few_tokens_at_a_time() -> None:
    asking = Asking(ScriptedServer(ends=()), num_stop=0, max_tokens=2 * BLIND_TOKENS + 3)
    reply = asking(rollout(asking.context, until=("never",)))
    assert [each.max_tokens for each in asking.server.asked] == [BLIND_TOKENS, BLIND_TOKENS, 3]
    assert [len(each.prompt) - len(asking.prompt) for each in asking.server.asked] == [
        0,
        BLIND_TOKENS,
        2 * BLIND_TOKENS,
    ]
    assert len({each.seed for each in asking.server.asked}) == 3
    assert (len(reply.tokens), reply.finish_reason) == (2 * BLIND_TOKENS + 3, "length")


def test_marks_that_the_prompt_uses_most_come_first_and_then_what_ends_an_answer() -> None:
    asking = Asking(stop=("END",), num_stop=4)
    asking(rollout(asking.context, until=(",", "?", "\n", "!"), prefix=(*WORDS[:1],)))
    assert asking.server.asked[0].stop == ("\n", "?", ",", "!")  # twice, once, never, never
    asking(rollout(asking.context, until=("\n",)))
    assert asking.server.asked[-1].stop == ("\n", "END")


def test_a_server_that_stops_before_the_least_number_of_tokens_goes_on_behind() -> None:
    asking = Asking(ScriptedServer(ends=()))
    reply = asking(rollout(asking.context, min_tokens=7, until=("a", ".", "b", ",", "\n")))
    _, *others = asking.server.asked
    assert others
    assert all(set(each.stop) < {"a", ".", "b", ",", "\n"} for each in asking.server.asked)
    assert all(len(each.stop) == 4 for each in asking.server.asked)
    assert [each.prompt for each in others] == [
        asking.prompt + reply.tokens[: len(each.prompt) - len(asking.prompt)] for each in others
    ]
    assert len(reply.tokens) >= 7


def test_a_server_that_cannot_be_told_where_to_stop_writes_the_least_number_at_once() -> None:
    asking = Asking(ScriptedServer(ends=()), num_stop=0)
    asking(rollout(asking.context, min_tokens=BLIND_TOKENS + 3, until=(".",)))
    assert asking.server.asked[0].max_tokens == BLIND_TOKENS + 3


def test_a_rollout_that_is_over_asks_nothing() -> None:
    asking = Asking()
    (dot,) = asking.codec.encoded(".")
    reply = asking(rollout(asking.context, (dot,)))
    assert (reply.tokens, asking.server.asked) == ((), [])


@pytest.mark.parametrize(("temperature", "is_told"), [(1.0, True), (0.7, False)])
def test_the_probability_of_a_rollout_is_told_at_temperature_1(temperature: float, is_told: bool) -> None:
    asking = Asking()
    request = rollout(asking.context, until=(), max_tokens=3, temperature=temperature)
    reply = asking(request)
    places = [(asking.prompt + reply.tokens[:number], token) for number, token in enumerate(reply.tokens)]
    expected = sum(float(asking.server.logprobs(prompt)[token]) for prompt, token in places)
    assert reply.logprob == (pytest.approx(expected) if is_told else 0.0)


def test_a_rollout_of_parts_of_characters_is_written_without_their_probabilities() -> None:
    parts = TOKENIZER("é", add_special_tokens=False).input_ids
    asking = Asking(ScriptedServer(dialect=LLAMA_SERVER, likes=tuple(parts), ends=(), hidden=tuple(parts)))
    request = rollout(asking.context, until=(), max_tokens=8, temperature=0.0)
    reply = asking(request)
    assert reply == asking.local(request)
    assert reply.logprob == 0.0


# --- Ends --------------------------------------------------------------------------------------------------------


def test_a_token_that_ends_a_text_unknown_to_the_tokenizer_is_learnt() -> None:
    asking = Asking(ScriptedServer(ends=(OTHER_END,), likes=()))
    reply = asking(rollout(asking.context, until=(), temperature=0.0))
    assert (reply.tokens[-1], reply.finish_reason) == (OTHER_END, "eos")
    assert asking.codec.end_tokens == {END, OTHER_END}


def test_a_token_that_is_text_is_no_end_though_a_server_stopped_there() -> None:
    (letter,) = TOKENIZER("a", add_special_tokens=False).input_ids
    asking = Asking(ScriptedServer(ends=(letter,), likes=()))
    reply = asking(rollout(asking.context, until=(), temperature=0.0))
    assert (reply.tokens, reply.text, reply.finish_reason) == ((letter, END), "a", "eos")
    assert asking.codec.end_tokens == {END}


def test_an_end_that_is_not_told_is_the_tokenizers() -> None:
    asking = Asking(ScriptedServer(dialect=OPENAI, likes=(), tells_end=False), num_stop=0)
    reply = asking(rollout(asking.context, until=(), temperature=0.0))
    assert (reply.tokens, reply.text, reply.finish_reason) == ((END,), "", "eos")
    sets = asking(expand(asking.context, temperature=0.0))
    assert [(each.tokens, each.logprob, each.is_greedy) for each in sets] == [((END,), 0.0, True)]
    (only,) = asking(expand(asking.context, num_tokens=1))
    assert (only.tokens, only.logprob, only.finish_reason) == ((END,), 0.0, "eos")


def test_a_server_that_hides_the_end_of_a_text_needs_a_tokenizer_that_has_one() -> None:
    asking = Asking(ScriptedServer(dialect=OPENAI, likes=(), tells_end=False), ends=(), num_stop=0)
    with pytest.raises(EngineError, match="scripted has ended a text, and its tokenizer has no token for that"):
        asking(rollout(asking.context, until=(), temperature=0.0))


# --- Token sets --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_token_sets_of_one_token_are_the_most_probable_ones(temperature: float) -> None:
    asking = Asking()
    excluded = int(asking.server.logprobs(asking.prompt).argmax())
    sets = asking(expand(asking.context, num_tokens=1, temperature=temperature, exclude=frozenset({(excluded,)})))
    logits = asking.server.logprobs(asking.prompt) / max(temperature, 1e-3)
    logprobs = logits - np.logaddexp.reduce(logits)
    best = np.argsort(-logprobs, kind="stable")[1:6].tolist()
    assert [each.tokens for each in sets] == [(token,) for token in best]
    exact = np.array([logprobs[token] for token in best])
    found = np.array([each.logprob for each in sets])
    # Between the two what all other tokens have together is estimated, and not too low.
    assert found == (pytest.approx(exact) if temperature != 0.7 else pytest.approx(exact, abs=0.15))
    assert (found <= exact + 1e-9).all()


def test_a_place_of_which_nothing_is_told_is_asked_about_with_a_whole_character() -> None:
    parts = tuple(TOKENIZER("é", add_special_tokens=False).input_ids)
    server = ScriptedServer(dialect=LLAMA_SERVER, likes=parts, hidden=parts, ends=())
    asking = Asking(server)
    sets = asking(expand(asking.context, num_tokens=1, temperature=1.0))
    best = np.argsort(-server.logprobs(asking.prompt), kind="stable")[:5].tolist()
    assert best[0] in parts
    assert [each.tokens for each in sets] == [(token,) for token in best]
    assert [each.allowed for each in server.asked] == [(), asking.codec.tokens_of("A")]


@pytest.mark.parametrize("max_num", [1, 4, 16])
def test_longer_token_sets_are_the_greedy_one_and_distinct_samples(max_num: int) -> None:
    asking = Asking(max_num=max_num)
    sets = asking(expand(asking.context))
    greedy, *samples = asking.server.asked
    assert (greedy.temperature, greedy.num) == (0.0, 1)
    assert [each.num for each in samples] == {1: [1] * 6, 4: [4, 2], 16: [6]}[max_num]
    assert {(each.temperature, each.top_k, each.max_tokens) for each in samples} == {(0.7, 8, 3)}
    assert sets[0].is_greedy
    assert Counter(each.tokens for each in sets).most_common(1)[0][1] == 1
    for each in sets:
        expected = 0.0
        for number, token in enumerate(each.tokens):
            logprobs = asking.server.logprobs(asking.prompt + each.tokens[:number])
            best = np.sort(logprobs)[::-1][:8] / 0.7
            expected += float(logprobs[token] / 0.7 - np.logaddexp.reduce(best))
        assert each.logprob == pytest.approx(expected)


def test_what_a_server_tells_at_the_temperature_of_a_request_is_not_tempered_again() -> None:
    class Tempering(ScriptedServer):
        def _continuation(self, asked: Sampling, index: int) -> Continuation:
            told = ScriptedServer._continuation(self, asked, index)
            exponent = 1 / (asked.temperature or 1.0)
            top = tuple({token: logprob * exponent for token, logprob in each.items()} for each in told.top)
            return replace(told, logprobs=tuple(each * exponent for each in told.logprobs), top=top)

    asking, tempering = Asking(), Asking(Tempering(), tells_tempered=True)
    plain, tempered = asking(expand(asking.context)), tempering(expand(tempering.context))
    assert [each.tokens for each in tempered] == [each.tokens for each in plain]
    assert [each.logprob for each in tempered] == pytest.approx([each.logprob for each in plain])


def test_token_sets_do_not_go_beyond_the_end_of_the_answer() -> None:
    asking = Asking(max_tokens=4)
    prefix = WORDS[:2]
    assert {len(each.tokens) for each in asking(expand(asking.context, prefix=prefix))} <= {1, 2}
    assert {each.max_tokens for each in asking.server.asked} == {2}


# --- Judgements --------------------------------------------------------------------------------------------------

QUESTION = "Is it edible?\n(A) yes\n(B) no\n"


def scored(asking: Asking) -> tuple[OptionLogprobs, OptionLogprobs]:
    """What is replied, and what is true."""
    request = Score(asking.context, QUESTION, "Answer: (", ("A", "B"))
    reply = asking(request)
    place = asking.codec.question_tokens(QUESTION, "Answer: (")
    logprobs = asking.server.logprobs(place)
    sums = [float(np.logaddexp.reduce(logprobs[list(ids)])) for ids in asking.codec.options_token_ids(("A", "B"))]
    return reply, OptionLogprobs(tuple(sums), float(np.exp(sums).sum()))


OPTION_TOKENS = TextCodec(TOKENIZER, eos_token_ids=(END,), name="").options_token_ids(("A", "B"))


@pytest.mark.parametrize(
    ("ways", "num_top"),
    [
        (("token ids",), 1),
        (("pairs",), SIZE),
        (("pairs", "top"), 5),
        (("top",), SIZE),
        (("single tokens",), 0),
        (("top", "single tokens"), 5),
        (("pairs", "single tokens"), 0),
    ],
)
def test_each_way_finds_the_log_probabilities_of_the_options(ways: tuple[OptionsBy, ...], num_top: int) -> None:
    likes = (OPTION_TOKENS[0][0], *WORDS)  # one of them is among the most probable
    found, true = scored(Asking(ScriptedServer(likes=likes), options=ways, num_top=num_top))
    assert found.logprobs == pytest.approx(true.logprobs)
    assert found.mass == pytest.approx(true.mass)


def test_an_option_that_is_not_told_is_no_reason_to_believe_the_other() -> None:
    with pytest.raises(EngineError, match="does not tell how probable an option of a judgement is"):
        scored(Asking(ScriptedServer(likes=()), options=("top",), num_top=1))


def test_nothing_more_is_asked_where_the_most_probable_tokens_leave_nothing() -> None:
    server = ScriptedServer()
    scored(Asking(server, options=("pairs", "single tokens"), num_top=SIZE))
    assert (len(server.asked), server.shared) == (1, [])


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_of_nothing_or_all_is_impossible(share: float) -> None:
    class Sharing(ScriptedServer):
        async def share(self, home: Home, prompt: Tokens, token: int, other: int) -> float:
            return share

    server = Sharing(likes=(OPTION_TOKENS[0][0],), ends=())
    found, _ = scored(Asking(server, options=("pairs",), num_top=1))
    best = max(sum(OPTION_TOKENS, ()), key=lambda token: server.logprobs(server.asked[0].prompt)[token])
    assert found.logprobs == pytest.approx((server.logprobs(server.asked[0].prompt)[best], -math.inf))


def test_a_token_that_cannot_be_drawn_alone_is_impossible() -> None:
    class Ignoring(ScriptedServer):
        def draw(self, prompt: Tokens, asked: Sampling, index: int = 0) -> int:
            return super().draw(prompt, replace(asked, allowed=()), index)

    found, _ = scored(Asking(Ignoring(), options=("single tokens",), num_top=0))
    assert found == OptionLogprobs((-math.inf, -math.inf), 0.0)


# --- Guidance ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_a_guided_rollout_is_that_of_an_engine_in_this_process(temperature: float) -> None:
    asking = Asking()
    request = rollout(asking.context, guidance="Be kind.", max_tokens=6, until=(), temperature=temperature)
    reply = asking(request)
    work = asking.conversations.work(request)
    while work.reply is None:
        (want,) = work.wants
        assert isinstance(want, MostProbable | Probability)
        (got,) = answer_wants([want], torch.from_numpy(asking.server.logprobs(want.place.sequence))[None])
        work.take([got])
    assert reply.tokens == work.reply.tokens
    assert reply.logprob == pytest.approx(work.reply.logprob)
    guided = asking.codec.prompt_tokens(f"Be kind.\n\n{PROMPT}")
    assert {each.prompt[: len(guided)] == guided for each in asking.server.asked} == {True, False}


def test_what_a_server_does_not_name_under_guidance_is_left_out_and_not_asked_for() -> None:
    asking = Asking(options=("top", "single tokens"), num_top=10)
    request = rollout(asking.context, guidance="Be kind.", max_tokens=6, until=())
    assert len(asking(request).tokens) == 6
    assert [each.num_top for each in asking.server.asked] == [10] * 12
    assert not any(each.allowed for each in asking.server.asked)


# --- Cost --------------------------------------------------------------------------------------------------------


def test_positions_are_those_of_the_prompt_that_were_not_cached_and_what_was_written() -> None:
    asking = Asking(ScriptedServer(cached=4))
    num_prompt = len(asking.prompt)
    _, cost = asking.with_cost(expand(asking.context, num_tokens=1))
    assert cost == Cost(1, num_prompt - 4 + 1, cached_positions=4)
    _, cost = asking.with_cost(expand(asking.context, num_tokens=1))
    assert cost == Cost(1, num_prompt - 4 + 1)  # what a prompt found is counted once


def test_judging_positions_are_counted_as_such_and_find_no_prompt() -> None:
    asking = Asking(ScriptedServer(cached=4))
    num_question = len(asking.codec.question_tokens(QUESTION, "Answer: ("))
    _, cost = asking.with_cost(Score(asking.context, QUESTION, "Answer: (", ("A", "B")))
    assert cost == Cost(1, num_question - 3, judging_positions=num_question - 3)


def test_pairs_cost_a_position_each() -> None:
    asking = Asking(ScriptedServer(likes=(OPTION_TOKENS[0][0],), ends=()), options=("pairs",), num_top=1)
    num_question = len(asking.codec.question_tokens(QUESTION, "Answer: ("))
    _, cost = asking.with_cost(Score(asking.context, QUESTION, "Answer: (", ("A", "B")))
    num_pairs = len(sum(OPTION_TOKENS, ())) - 1
    assert len(asking.server.shared) == num_pairs
    assert cost == Cost(1 + num_pairs, num_question + 1 + num_pairs, num_question + 1 + num_pairs)


def test_where_a_server_does_not_tell_what_it_had_read_is_what_was_sent_before() -> None:
    asking = Asking(ScriptedServer(cached=None))
    num_prompt = len(asking.prompt)
    costs = [
        asking.with_cost(expand(asking.context, num_tokens=1, prefix=prefix))[1]
        for prefix in ((), WORDS[:3], WORDS[:2], (*WORDS[:2], *WORDS[4:6]))
    ]
    # New of each: all; three; the last, as something is read in any case; what differs. And one is written each time.
    assert [each.token_positions for each in costs] == [num_prompt + 1, 3 + 1, 1 + 1, 2 + 1]
    assert all(each.cached_positions == 0 for each in costs)


def test_a_few_texts_are_remembered_as_sent() -> None:
    stay = Stay(Home(Replica("http://server")), 2)
    texts = [(number, 1, 2, 3) for number in range(MAX_RECENT + 1)]
    assert [stay.num_known(text) for text in texts] == [0] * (MAX_RECENT + 1)
    assert stay.recent == texts[1:]
    assert stay.num_known((*texts[1], 4)) == 4
    assert stay.num_known(texts[0]) == 0
