"""The LLM cache: two guards never share an answer, the same guard does (defect 8)."""

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache

from langchain_rain import ChatRain, RainConfig, Rubric
from tests.conformance.worlds import DISH, QUESTION, Chef, MarkedKitchen, StreamingChef, chef_chat, kitchen_chat
from tests.scripted_world import CONFIG, PAPER, RUBRIC

BUTTER = Rubric(name="edible", criteria=(*RUBRIC.criteria, RUBRIC.criteria[0].model_copy(update={"name": "buttery"})))


@pytest.fixture(autouse=True)
def cache() -> Iterator[InMemoryCache]:
    cache = InMemoryCache()
    set_llm_cache(cache)
    yield cache
    set_llm_cache(None)


def refuse_kindly(error: Any) -> str:
    return "Sorry."


def likes_all(transcript: str) -> float:
    return 1.0


def likes_most(transcript: str) -> float:
    return 0.9


OTHERS: dict[str, dict[str, Any]] = {
    "rubric": {"rubric": BUTTER},
    "threshold": {"config": CONFIG.model_copy(update={"value_threshold": 0.9})},
    "accepted value": {"config": CONFIG.model_copy(update={"accept_value": 0.5})},
    "mass of options": {"config": CONFIG.model_copy(update={"min_option_mass": 0.2})},
    "numbers of the paper": {"config": PAPER},
    "seed": {"seed": 2},
    "no seed": {"seed": None},
    "max_tokens": {"max_tokens": 99},
    "temperature": {"temperature": 0.5},
    "stop": {"stop": ["Human:"]},
    "on_unsatisfied": {"on_unsatisfied": "best"},
    "on_unsatisfied by a function": {"on_unsatisfied": refuse_kindly},
    "on_error": {"on_error": "refuse"},
    "refusal": {"refusal_message": "No."},
    "max_seconds": {"max_seconds": 60.0},
    "max_forward_tokens": {"max_forward_tokens": 10_000},
    "timeout": {"timeout": 60.0},
    "judged turns": {"max_judged_turns": 1},
    "judge": {"judge": Chef()},
    "judge of another name": {"judge": MarkedKitchen(name="critic")},
    "function as judge": {"judge": likes_all},
    "another function as judge": {"judge": likes_most},
}


@pytest.mark.parametrize("name", OTHERS)
def test_guards_that_differ_do_not_share_an_answer(name: str) -> None:
    """Defect 8."""
    for other, arguments in OTHERS.items():
        if other != name:
            kitchen_chat(**arguments).invoke(QUESTION)
    kitchen_chat().invoke(QUESTION)
    engine = MarkedKitchen()
    kitchen_chat(engine, **OTHERS[name]).invoke(QUESTION)
    assert engine.asked


CHEFS: dict[str, dict[str, Any]] = {
    "model": {"chef": Chef(model_name="souschef")},
    "class of the model": {"chef": StreamingChef()},
    "setting of the model": {"chef": Chef(dish="Bake the soup.")},
    "preset": {"config": RainConfig.preset("paper")},
    "name of the judge": {"judge": Chef(model_name="critic")},
    "setting of the judge": {"judge": Chef(dish="Nothing.")},
    "function as judge": {"judge": likes_all},
    "rubric": {"rubric": BUTTER},
    "seed": {"seed": 2},
}


@pytest.mark.parametrize("name", CHEFS)
def test_guards_of_chat_models_that_differ_do_not_share_an_answer(name: str, cache: InMemoryCache) -> None:
    """Defect 8: class, name and settings of the models that write and judge are told apart."""
    for other, arguments in CHEFS.items():
        if other != name:
            chef_chat(**arguments).invoke(QUESTION)
    chef_chat().invoke(QUESTION)
    num_before = len(cache._cache)
    chef_chat(**CHEFS[name]).invoke(QUESTION)
    assert num_before == len(CHEFS)
    assert len(cache._cache) == num_before + 1


@pytest.mark.parametrize("arguments", OTHERS.values(), ids=OTHERS)
def test_the_same_guard_answers_from_the_cache(arguments: dict[str, Any]) -> None:
    """Defect 8, the other way round."""
    first = kitchen_chat(**arguments).invoke(QUESTION)
    engine = MarkedKitchen()
    again = kitchen_chat(engine, **arguments).invoke(QUESTION)
    assert (again.content, engine.asked) == (first.content, [])


async def test_all_that_do_not_stream_answer_from_the_cache() -> None:
    first = kitchen_chat().invoke(QUESTION)
    engine = MarkedKitchen()
    chat = kitchen_chat(engine)
    answers = [
        chat.invoke(QUESTION),
        await chat.ainvoke(QUESTION),
        *chat.batch([QUESTION]),
        *await chat.abatch([QUESTION]),
    ]
    assert [answer.content for answer in answers] == [first.content] * 4
    assert [answer.response_metadata for answer in answers] == [first.response_metadata] * 4
    assert engine.asked == []


def test_what_a_call_brings_of_its_own_is_part_of_the_key() -> None:
    """Defect 8, per request."""
    calls: list[dict[str, Any]] = [
        {},
        {"rubric": BUTTER},
        {"rain_config": CONFIG.model_copy(update={"value_threshold": 0.9})},
        {"seed": 2},
        {"stop": ["Human:"]},
        {"max_seconds": 60.0},
        {"max_judged_turns": 1},
        {"on_unsatisfied": "best"},
    ]
    engine = MarkedKitchen()
    chat = kitchen_chat(engine)
    counts = []
    for call in [*calls, *calls]:
        chat.invoke(QUESTION, **call)
        counts.append(len(engine.opened))
    assert counts == [*range(1, len(calls) + 1), *[len(calls)] * len(calls)]


def test_drafts_and_judgements_are_not_kept_in_the_cache(cache: InMemoryCache) -> None:
    chef = Chef()
    chef_chat(chef).invoke(QUESTION)
    ((generation,),) = cache._cache.values()
    assert generation.text == DISH
    num_asked = len(chef.log.asked)
    chef_chat(chef, seed=2).invoke(QUESTION)
    assert len(chef.log.asked) == 2 * num_asked


def test_a_cache_of_the_models_own_is_used_in_place_of_the_global_one(cache: InMemoryCache) -> None:
    own = InMemoryCache()
    kitchen_chat(cache=own).invoke(QUESTION)
    assert (len(own._cache), len(cache._cache)) == (1, 0)
    engine = MarkedKitchen()
    ChatRain(model=engine, rubric=RUBRIC, config=CONFIG, seed=1, cache=False).invoke(QUESTION)
    assert engine.asked
    assert len(cache._cache) == 0
