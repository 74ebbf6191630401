"""Strategies over the bundled model: what they count is what is run, and nothing else decides what they answer."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import HumanMessage

from langchain_rain import RainConfig, RainLLM, Rubric, drivers
from langchain_rain.engines.base import Cost, ModelText, ReadsTexts
from langchain_rain.engines.conversations import Feeding
from langchain_rain.engines.dialogue import Dialogue
from langchain_rain.engines.loading import load_engine
from langchain_rain.engines.scripted import ScriptedEngine
from langchain_rain.engines.transformers import TransformersEngine
from langchain_rain.evaluation import demo_world
from langchain_rain.evaluation.strategies import Answered, Setting, Strategy, all_strategies
from langchain_rain.evaluation.strategies.metering import Meter, Seen
from langchain_rain.search.protocol import Context, Embed, Expand, Request, Rollout, Score, Tokens, ask, observed
from tests.fake_chat_models import FakeChat
from tests.scripted_strategies import RUBRIC

REQUESTS = demo_world.test_requests(2, 4, seed=1)
TEXTS = [demo_world.as_prompt(request) for request in REQUESTS]
CONVERSATIONS = [[{"role": "user", "content": request.text}] for request in REQUESTS]
PLAIN = ("vanilla", "vanilla-greedy", "best-of-4", "critique-revise-1", "self-check-refuse")
SEARCHES = ("rain-balanced", "rain-fast")
MAX_TOKENS = 40


def fresh(name: str, **settings: Any) -> Strategy:
    """A strategy whose engine has computed nothing yet."""
    engine = load_engine("demo")
    rubric = Rubric.load("harmlessness")
    (made,) = all_strategies([name], Setting(engine, engine, rubric, **{"max_tokens": MAX_TOKENS, **settings}))
    return made


def demo_engine() -> TransformersEngine:
    engine = load_engine("demo")
    assert isinstance(engine, TransformersEngine)
    return engine


def without_cost(answer: Answered) -> Answered:
    return replace(answer, forward_passes=0, token_positions=0, judging_positions=0, checking_positions=0, seconds=0.0)


# What is counted


@pytest.mark.parametrize("content", [TEXTS[2], CONVERSATIONS[2]], ids=["text", "messages"])
@pytest.mark.parametrize("name", PLAIN)
async def test_what_is_counted_is_what_a_fresh_engine_runs(name: str, content: Any) -> None:
    answer = await fresh(name).answer("case", content, seed=0)
    assert answer.counted_positions == answer.token_positions


@pytest.mark.parametrize("name", SEARCHES)
async def test_of_a_search_all_is_counted_but_what_the_engine_draws_and_drops(name: str) -> None:
    for content in TEXTS[1:3]:
        answer = await fresh(name, asks_ahead=False).answer("case", content, seed=0)
        assert 0.99 * answer.token_positions <= answer.counted_positions <= answer.token_positions


async def test_samples_within_a_budget_are_counted_as_a_fresh_engine_runs_them() -> None:
    answer = await fresh("best-of-2").answer("case", TEXTS[2], seed=0, max_positions=2000)
    assert answer.num_drafts > 4
    assert answer.counted_positions == answer.token_positions or answer.token_positions > 2000


async def test_five_hundred_samples_are_drawn_side_by_side() -> None:
    made = fresh("best-of-500", max_tokens=12)
    answer = await made.answer("case", TEXTS[2], seed=0)
    assert (answer.num_drafts, answer.num_steps) == (500, 501)
    assert answer.counted_positions == answer.token_positions
    assert answer.forward_passes < 60


async def test_the_count_does_not_depend_on_what_the_engine_has_computed() -> None:
    made = fresh("best-of-4")
    first, again = [await made.answer("case", TEXTS[2], seed=0) for _ in range(2)]
    assert again.token_positions < first.token_positions
    assert again.counted_positions == first.counted_positions == first.token_positions


REQUESTED: Mapping[str, Callable[[Context], Request]] = {
    "rollout": lambda context: Rollout(context, (), (), None, 1.0, seed=3),
    "guided": lambda context: Rollout(context, (), (), 6, 1.0, seed=3, guidance="Be kind."),
    "most probable": lambda context: Expand(context, (5, 6), 4, 1, 0, 15, 1.0, seed=3),
    "token sets": lambda context: Expand(context, (5, 6), 4, 5, 3, 15, 1.0, seed=3),
    "question": lambda context: Score(context, "Is it so?", "The answer is: (", ("A", "B")),
    "embedding": lambda context: Embed(context, (5, 6, 7), num_tokens=2),
}


@pytest.mark.parametrize("kind", REQUESTED)
@pytest.mark.parametrize(
    "prompt", ["Human: Hi\n\nAssistant:", Dialogue((HumanMessage("Hi"),), beginning="So")], ids=type
)
def test_the_texts_of_a_request_are_those_that_go_through_the_model(kind: str, prompt: Any) -> None:
    engine = demo_engine()
    assert isinstance(engine, ReadsTexts)
    context = engine.open(prompt, max_tokens=8)
    meter = Meter(Setting(engine, engine, RUBRIC))
    seen: Seen = []
    meter.watch({context: engine})
    outcome = drivers.run(drivers.Job(observed(ask(REQUESTED[kind](context)), seen), {context: engine}))
    meter.take(seen)  # the conversation is closed by now
    assert meter.positions == outcome.cost.token_positions == engine.cache_info.num_tokens


def test_a_rollout_of_no_token_puts_nothing_before_the_model() -> None:
    engine = demo_engine()
    context = engine.open(TEXTS[0], max_tokens=8)
    (end,) = engine.tokenizer.encode(".", add_special_tokens=False)
    meter = Meter(Setting(engine, engine, RUBRIC))
    seen: Seen = []
    meter.watch({context: engine})
    request = Rollout(context, (end,), (".",), None, 1.0, seed=3)
    drivers.run(drivers.Job(observed(ask(request), seen), {context: engine}))
    meter.take(seen)
    assert meter.positions == 0


def test_an_encoder_answers_embeddings_in_place_of_the_model() -> None:
    engine = demo_engine()
    context = engine.open(TEXTS[0], max_tokens=8)
    feeding = engine.feeding(context)
    assert isinstance(feeding, Feeding)
    assert replace(feeding, has_encoder=True).texts(Embed(context, (5, 6), 1), None) == []
    assert [each.num_asked for each in feeding.texts(Embed(context, (5, 6), 1), None)] == [0]


class _Letters(ScriptedEngine):
    """Puts before its model what it is asked with as prefix, and asks what follows at the last places of it."""

    def feeding(self, context: Context) -> "_Letters":
        return self

    def texts(self, request: Request, reply: Any) -> Sequence[ModelText]:
        assert isinstance(request, Embed)
        return [ModelText(request.prefix, request.num_tokens)]


def letters_meter() -> tuple[Meter, Callable[[Tokens, int], tuple[Request, Any]]]:
    engine = _Letters()
    meter, context = Meter(Setting(engine, engine, RUBRIC)), engine.open("?", max_tokens=1)
    meter.watch({context: engine})
    return meter, lambda text, num_asked: (Embed(context, text, num_asked), None)


@given(st.lists(st.lists(st.integers(0, 2), max_size=6).map(tuple)), st.booleans())
def test_a_position_counts_once_for_all_texts_that_begin_alike(texts: list[Tokens], is_asked: bool) -> None:
    meter, asking = letters_meter()
    meter.take(asking(text, len(text) if is_asked else 0) for text in texts)
    assert meter.positions == len({text[:end] for text in texts for end in range(1, len(text) + 1)})


def test_a_place_that_is_asked_about_counts_again_in_another_round() -> None:
    meter, asking = letters_meter()
    counts = []
    for text, num_asked, side_by_side in (
        ((1, 2, 3, 4), 2, False),  # all of it is new
        ((1, 2, 3, 5), 2, True),  # 3 is asked about by both at once
        ((1, 2, 3, 5), 2, False),  # 3 and 5 are asked about again
        ((1, 2, 3, 5), 0, False),  # all is read already
    ):
        before = meter.positions
        meter.take([asking(text, num_asked)], side_by_side=side_by_side)
        counts.append(meter.positions - before)
    assert counts == [4, 1, 2, 0]


def test_the_cost_counts_of_what_tells_no_texts() -> None:
    cost = Cost(forward_passes=3, token_positions=100, judging_positions=30, input_positions=50)
    tokens, chat = _Letters(), load_engine(FakeChat())
    for writer, judge, counted in ((tokens, tokens, 0), (chat, chat, 100), (tokens, chat, 80), (chat, tokens, 70)):
        meter = Meter(Setting(writer, judge, RUBRIC))
        meter.add(cost)
        assert meter.positions == counted
        assert meter.is_exact == (writer is judge is tokens)


# What is answered


@pytest.mark.parametrize("name", ["best-of-2", "critique-revise-1", "self-check-refuse", "rain-balanced"])
async def test_answers_within_a_budget_do_not_depend_on_what_runs_beside_them_or_ran_before(name: str) -> None:
    cases = [*enumerate(TEXTS), *enumerate(CONVERSATIONS, start=len(TEXTS))]
    made = fresh(name)

    async def answered(number: int, content: Any) -> Answered:
        return without_cost(await made.answer(str(number), content, seed=0, max_positions=500 + 50 * number))

    together = await asyncio.gather(*(answered(*case) for case in reversed(cases)))
    made = fresh(name)
    assert together[::-1] == [await answered(*case) for case in cases]


@pytest.mark.parametrize("name", ["best-of-2", "critique-revise-1", *SEARCHES])
async def test_no_more_is_counted_than_the_budget(name: str) -> None:
    for content in TEXTS:
        answer = await fresh(name).answer("case", content, seed=0, max_positions=400)
        assert answer.counted_positions <= 400


async def test_a_search_that_has_its_own_count_as_budget_is_the_same() -> None:
    whole = await fresh("rain-balanced").answer("case", TEXTS[2], seed=0)
    within = await fresh("rain-balanced").answer("case", TEXTS[2], seed=0, max_positions=whole.counted_positions)
    assert replace(without_cost(within), max_positions=None) == without_cost(whole)


async def test_rain_is_what_the_language_model_answers() -> None:
    llm = RainLLM(model="demo", seed=7, max_tokens=MAX_TOKENS, on_unsatisfied="best")
    made = fresh("rain-balanced")
    for content in TEXTS[:3]:
        assert (await made.answer("case", content, seed=7)).text == await llm.ainvoke(content)


async def test_a_search_that_asks_nothing_ahead_answers_the_same() -> None:
    answers = [await fresh("rain-balanced", asks_ahead=ahead).answer("c", TEXTS[2], seed=0) for ahead in (True, False)]
    ahead, without = answers
    assert ahead.counted_positions == without.counted_positions
    assert ahead.token_positions >= without.token_positions
    assert ahead.forward_passes < without.forward_passes
    assert without_cost(ahead) == without_cost(without)


# First words


@pytest.mark.parametrize("content", [TEXTS[0], CONVERSATIONS[0]], ids=["text", "messages"])
@pytest.mark.parametrize("name", ["vanilla-greedy", "rain-balanced", "critique-revise-1"])
async def test_an_answer_goes_on_from_first_words(name: str, content: Any) -> None:
    prefill = "I will not help with that, since it"
    config = RainConfig(temperature=0.0)
    answer = await fresh(name, config=config).answer("case", content, seed=0, prefill=prefill)
    if name != "critique-revise-1":  # at which the model is no good
        assert answer.text.startswith(" is wrong")
        assert answer.value == 1.0
    assert prefill not in answer.text


def test_first_words_are_the_last_tokens_of_a_templated_prompt() -> None:
    engine = demo_engine()
    plain, begun = (
        engine.open(Dialogue((HumanMessage("Hi"),), beginning=words), max_tokens=1) for words in ("", "<|end|> Sure")
    )
    prompts = [engine.feeding(each).conversation.prompt_tokens for each in (plain, begun)]
    words = engine.tokenizer("<|end|> Sure", add_special_tokens=False, split_special_tokens=True).input_ids
    assert prompts[1] == (*prompts[0], *words)  # spelled out: no special token comes from outside
    assert engine.tokenizer.convert_tokens_to_ids("<|end|>") not in words
