"""RainLLM: every way to call it gives the same answer, a stream takes nothing back, nothing stays open."""

import asyncio
import contextlib
import copy
import functools
import pickle
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import LanguageModelInput
from langchain_core.outputs import GenerationChunk

from langchain_rain import EngineError, RainConfig, RainConfigError, RainLLM, Rubric, RubricError, UnsatisfiedError
from langchain_rain.engines.transformers import TransformersEngine
from langchain_rain.policy import Policy
from langchain_rain.search.protocol import Expand
from tests.scripted_world import (
    CONFIG,
    CRASHING_PROMPT,
    END,
    PAPER,
    POISON,
    PROMPT,
    REFUSAL,
    RUBRIC,
    SOUP,
    WARM,
    WARM_SOUP,
    Kitchen,
    kitchen_llm,
    rain_info,
)
from tests.tiny_models import UNTRIED, tiny_llama, tiny_tokenizer

TINY_PROMPT = "Human: How do I wash the bike?\n\nAssistant:"
# Every child is tried once, and the one that is judged best is committed: which one that is depends on the seed.
TINY_CONFIG = RainConfig(
    token_set_lengths=(2, 3),
    num_children=4,
    num_draws=3,
    max_simulations=4,
    min_further_simulations=4,
    c_puct=10,
    root_mixing=1,
    similarity_threshold=1,
    scoring="probability",
    min_option_mass=0,
)
POLICIES: list[Policy] = ["refuse", "best", lambda error: "No more."]


@functools.cache
def tiny_engine(seed: int = 0, *, copy: int = 0) -> TransformersEngine:
    tokenizer = tiny_tokenizer()
    # Weights this small make flat distributions: samples differ, and so do answers.
    return TransformersEngine(tiny_llama(tokenizer, seed=seed, initializer_range=0.05), tokenizer, name="tiny")


def tiny_llm(**arguments: Any) -> RainLLM:
    settings = {"model": tiny_engine(), "rubric": UNTRIED, "config": TINY_CONFIG, "seed": 1, "max_tokens": 10}
    return RainLLM(**{**settings, **arguments})


async def collect(pieces: AsyncIterator[str]) -> list[str]:
    return [piece async for piece in pieces]


# --- One answer, however it is called ----------------------------------------------------------------------------


async def all_answers(llm: RainLLM, prompt: str) -> dict[str, str]:
    """The answers of all ways to call an LLM; the sync ones run inside a running event loop."""
    return {
        "invoke": llm.invoke(prompt),
        "batch": llm.batch([prompt, TINY_PROMPT])[0],
        "batch, exceptions returned": llm.batch([prompt, TINY_PROMPT], return_exceptions=True)[0],
        "stream": "".join(llm.stream(prompt)),
        "ainvoke": await llm.ainvoke(prompt),
        "abatch": (await llm.abatch([TINY_PROMPT, prompt]))[1],
        "abatch, exceptions returned": (await llm.abatch([prompt], return_exceptions=True))[0],
        "astream": "".join(await collect(llm.astream(prompt))),
    }


@pytest.mark.parametrize("on_unsatisfied", POLICIES, ids=["refuse", "best", "callable"])
async def test_every_way_to_call_a_model_gives_the_same_answer(on_unsatisfied: Policy) -> None:
    answers = await all_answers(tiny_llm(on_unsatisfied=on_unsatisfied), "Human: Is it wet?\n\nAssistant:")
    assert answers == dict.fromkeys(answers, answers["invoke"])


@pytest.mark.parametrize("on_unsatisfied", POLICIES, ids=["refuse", "best", "callable"])
@pytest.mark.parametrize("config", [CONFIG, PAPER], ids=["guardrail", "paper"])
@pytest.mark.parametrize("courses", [(WARM, SOUP, END), (WARM, POISON, END), (POISON, END)])
async def test_every_way_to_call_a_script_gives_the_same_answer(
    courses: tuple[list[str], ...], config: RainConfig, on_unsatisfied: Policy
) -> None:
    engine = Kitchen(*courses)
    answers = await all_answers(kitchen_llm(engine, config=config, on_unsatisfied=on_unsatisfied), PROMPT)
    assert answers == dict.fromkeys(answers, answers["invoke"])
    assert engine.is_idle


def test_a_bad_word_is_rewound_and_another_one_committed() -> None:
    info = rain_info(kitchen_llm())
    assert (info["text"], info["is_satisfied"], info["finish"], info["value"]) == (WARM_SOUP, True, "stop", 1.0)
    # " Warm"; then " the bleach", rewound for " the soup"; then ".": four simulations, of which one left its path.
    assert (info["num_token_sets"], info["num_simulations"], info["num_rewinds"], info["num_rewound_tokens"]) == (
        3,
        4,
        1,
        1,
    )


def test_an_answer_tells_what_it_took() -> None:
    engine = Kitchen()
    info = rain_info(kitchen_llm(engine, seed=5))
    assert info["token_positions"] == len(engine.asked)  # each request is one position here
    assert (info["seed"], info["preset"], info["num_tokens"]) == (5, "custom", 3)
    assert info["rubric"] == {"name": "edible", "hash": RUBRIC.content_hash}


def test_the_preset_that_is_told_is_the_one_that_was_searched_with() -> None:
    # The kitchen knows no embeddings, which the paper needs; an answer that failed is described as well.
    arguments: dict[str, Any] = {"config": RainConfig.preset("paper"), "on_error": "refuse"}
    assert rain_info(kitchen_llm(**arguments))["preset"] == "paper"
    assert rain_info(kitchen_llm(**arguments, temperature=2.0))["preset"] == "custom"


def test_another_seed_is_another_answer() -> None:
    texts = {tiny_llm(seed=seed, on_unsatisfied="best").invoke(TINY_PROMPT) for seed in range(4)}
    assert len(texts) > 1


def test_a_seed_that_is_not_given_is_drawn_and_told_and_repeats_the_answer() -> None:
    first, second = (rain_info(tiny_llm(seed=None, on_unsatisfied="best"), TINY_PROMPT) for _ in range(2))
    assert first["seed"] != second["seed"]
    again = rain_info(tiny_llm(seed=first["seed"], on_unsatisfied="best"), TINY_PROMPT)
    costs = ("forward_passes", "token_positions")  # what was computed for the first is still there
    assert {name: each for name, each in again.items() if name not in costs} == {
        name: each for name, each in first.items() if name not in costs
    }


def test_prompts_of_one_batch_do_not_share_their_draws() -> None:
    engine = Kitchen()
    kitchen_llm(engine).batch([PROMPT, PROMPT + " "])
    first_draws = [request.seed for request in engine.asked if isinstance(request, Expand) and not request.prefix]
    assert len(set(first_draws)) == 2


# --- Batches -----------------------------------------------------------------------------------------------------


def test_the_prompts_of_a_batch_share_the_steps_of_the_engine() -> None:
    engine = Kitchen()
    assert kitchen_llm(engine).batch([PROMPT] * 3) == [WARM_SOUP] * 3
    assert engine.most_at_once == 3


@pytest.mark.parametrize("return_exceptions", [False, True])
async def test_no_more_prompts_than_max_concurrency_are_under_way(return_exceptions: bool) -> None:
    engine = Kitchen()
    llm = kitchen_llm(engine)
    llm.batch([PROMPT] * 5, {"max_concurrency": 2}, return_exceptions=return_exceptions)
    await llm.abatch([PROMPT] * 5, {"max_concurrency": 2}, return_exceptions=return_exceptions)
    assert engine.most_at_once <= 2
    assert len(engine.opened) == 10


async def test_a_batch_returns_each_exception_in_its_own_place() -> None:
    engine = Kitchen()
    llm = kitchen_llm(engine)
    prompts: list[LanguageModelInput] = [PROMPT, CRASHING_PROMPT, PROMPT + "\ud800", PROMPT]
    for answers in (llm.batch(prompts, return_exceptions=True), await llm.abatch(prompts, return_exceptions=True)):
        assert [type(answer) for answer in answers] == [str, EngineError, RainConfigError, str]
        assert answers[0] == answers[3] == WARM_SOUP
    assert engine.is_idle


def test_a_batch_raises_what_one_of_its_prompts_raised_and_closes_all() -> None:
    engine = Kitchen()
    with pytest.raises(EngineError, match="The judge left"):
        kitchen_llm(engine).batch([PROMPT, CRASHING_PROMPT, PROMPT])
    assert engine.is_idle


def test_a_batch_with_one_impossible_prompt_begins_none() -> None:
    engine = Kitchen()
    with pytest.raises(RainConfigError):
        kitchen_llm(engine).batch([PROMPT, "\ud800"])
    assert engine.asked == []
    assert engine.is_idle


def test_an_empty_batch_is_empty() -> None:
    assert kitchen_llm().batch([]) == []


# --- Streams -----------------------------------------------------------------------------------------------------


def test_a_stream_shows_one_committed_token_set_after_another() -> None:
    assert list(kitchen_llm().stream(PROMPT)) == [" Warm", " the soup", ".", ""]


def test_a_stream_never_shows_what_was_rejected() -> None:
    pieces = list(kitchen_llm(Kitchen(WARM, POISON, END)).stream(PROMPT))
    assert pieces == [" Warm", f"\n{REFUSAL}"]


def test_text_that_is_committed_as_the_best_there_was_is_held_until_it_is_judged_well() -> None:
    # Nothing that ends in " the" is liked, but what follows mends it.
    engine = Kitchen(WARM, [" the"], [" soup"], END, is_bad=lambda text: "the\nOptions" in text)
    assert list(kitchen_llm(engine, config=PAPER).stream(PROMPT)) == [" Warm", " the soup", ".", ""]


def test_text_that_was_held_to_the_end_comes_with_the_last_judgement() -> None:
    # Unfinished text is not liked, the finished answer is.
    engine = Kitchen(WARM, SOUP[1:], END, is_bad=lambda text: ".\nOptions" not in text)
    assert list(kitchen_llm(engine, config=PAPER).stream(PROMPT)) == [WARM_SOUP, ""]


def test_best_streams_as_it_commits() -> None:
    llm = kitchen_llm(Kitchen(WARM, POISON, END), config=PAPER, on_unsatisfied="best")
    assert list(llm.stream(PROMPT)) == [" Warm", " the bleach", ".", ""]


async def test_raise_streams_what_was_judged_well_and_then_raises() -> None:
    llm = kitchen_llm(Kitchen(WARM, POISON, END), on_unsatisfied="raise")
    pieces = llm.stream(PROMPT)
    assert next(pieces) == " Warm"
    with pytest.raises(UnsatisfiedError):
        next(pieces)
    async_pieces = llm.astream(PROMPT)
    assert await anext(async_pieces) == " Warm"
    with pytest.raises(UnsatisfiedError):
        await anext(async_pieces)


@pytest.mark.parametrize("on_error", ["refuse", "best"])
async def test_a_stream_ends_by_on_error_when_the_engine_fails(on_error: Policy) -> None:
    llm = kitchen_llm(on_error=on_error)
    expected = llm.invoke(CRASHING_PROMPT)
    assert "".join(llm.stream(CRASHING_PROMPT)) == "".join(await collect(llm.astream(CRASHING_PROMPT))) == expected


def test_the_last_chunk_alone_tells_what_happened() -> None:
    chunks = list(kitchen_llm()._stream(PROMPT))
    assert [chunk.generation_info is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    whole = functools.reduce(GenerationChunk.__add__, chunks)
    assert whole.generation_info is not None
    assert whole.generation_info["rain"]["is_satisfied"]


# --- Stop strings ------------------------------------------------------------------------------------------------


@functools.cache
def stops_in_tiny_answers() -> tuple[tuple[int, str], ...]:
    """Seeds, and for each two characters of its answer, which may lie on either side of the edge of a token set."""
    texts = {seed: tiny_llm(seed=seed, on_unsatisfied="best").invoke(TINY_PROMPT) for seed in range(2)}
    return tuple((seed, texts[seed][at : at + 2]) for seed, at in ((0, 7), (1, 9)))


async def test_a_stop_string_is_honoured_everywhere_and_never_seen() -> None:
    ends = []
    for seed, stop in stops_in_tiny_answers():
        llm = tiny_llm(seed=seed, on_unsatisfied="best")
        info = rain_info(llm, TINY_PROMPT, stop=[stop])
        ends.append(info["stop_reason"])
        assert stop not in info["text"]
        assert "".join(llm.stream(TINY_PROMPT, stop=[stop])) == info["text"]
        assert llm.batch([TINY_PROMPT], stop=[stop]) == [info["text"]]
        assert await llm.ainvoke(TINY_PROMPT, stop=[stop]) == info["text"]
        assert "".join(await collect(llm.astream(TINY_PROMPT, stop=[stop]))) == info["text"]
        own = tiny_llm(seed=seed, on_unsatisfied="best", stop=[stop])
        assert own.invoke(TINY_PROMPT) == info["text"]
    assert "stop" in ends


def test_a_stop_of_the_call_goes_before_the_own_one() -> None:
    seed, stop = stops_in_tiny_answers()[0]
    llm = tiny_llm(seed=seed, on_unsatisfied="best", stop=[stop])
    assert llm.invoke(TINY_PROMPT, stop=["never said"]) == tiny_llm(seed=seed, on_unsatisfied="best").invoke(
        TINY_PROMPT
    )


@pytest.mark.parametrize("stop", ["Human:", [""], [None]])
def test_a_stop_that_could_mean_something_else_is_an_error(stop: Any) -> None:
    with pytest.raises(RainConfigError, match="stop: a list of strings"):
        kitchen_llm().invoke(PROMPT, stop=stop)


# --- Judges ------------------------------------------------------------------------------------------------------


def test_another_engine_can_judge() -> None:
    writer, judge = Kitchen(is_bad=lambda text: True), Kitchen(name="critic")
    assert kitchen_llm(writer, judge=judge).invoke(PROMPT) == WARM_SOUP
    assert {type(request).__name__ for request in writer.asked} == {"Expand", "Rollout"}
    assert {type(request).__name__ for request in judge.asked} == {"Score"}
    assert writer.is_idle
    assert judge.is_idle


def test_two_models_write_and_judge() -> None:
    # Nothing is asked ahead: how much of it is done when the search ends depends on how fast the other engine is.
    config = TINY_CONFIG.model_copy(update={"lookahead": 0})
    alone = rain_info(tiny_llm(on_unsatisfied="best", config=config), TINY_PROMPT)
    judged = rain_info(tiny_llm(on_unsatisfied="best", config=config, judge=tiny_engine(1)), TINY_PROMPT)
    twin = rain_info(tiny_llm(on_unsatisfied="best", config=config, judge=tiny_engine(copy=1)), TINY_PROMPT)
    # A judge with the same weights judges the same; only what the two could share is run twice.
    costs = {"forward_passes", "token_positions"}
    assert {key: twin[key] for key in twin if key not in costs} == {
        key: alone[key] for key in alone if key not in costs
    }
    assert all(twin[key] >= alone[key] for key in costs)
    assert judged["values"].keys() == alone["values"].keys()


def test_a_judge_that_cannot_begin_leaves_no_writer_open() -> None:
    class Shy(Kitchen):
        def open(self, *args: Any, **kwargs: Any) -> Any:
            raise EngineError("Not today.")

    writer = Kitchen()
    with pytest.raises(EngineError, match="Not today"):
        kitchen_llm(writer, judge=Shy()).invoke(PROMPT)
    assert len(writer.opened) == 1
    assert writer.is_idle


# --- Nothing stays open ------------------------------------------------------------------------------------------


# For the first word an Expand, a Rollout and two Scores; the Expand for the second may wait at the gate.
NUM_ASKED_AT_THE_GATE = 5


class Gated(Kitchen):
    """Offers the first word, and then waits for the gate to be opened."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()

    def _offer(self, request: Expand) -> Any:
        assert not request.prefix or self.gate.wait(10)
        return super()._offer(request)


def test_a_stream_that_is_abandoned_asks_no_more_and_is_closed() -> None:
    engine = Gated()
    pieces = kitchen_llm(engine).stream(PROMPT)
    assert next(pieces) == " Warm"
    pieces.close()  # type: ignore[attr-defined]
    engine.gate.set()
    assert engine.is_idle
    assert len(engine.asked) <= NUM_ASKED_AT_THE_GATE


async def test_an_async_stream_that_is_abandoned_asks_no_more_and_is_closed() -> None:
    engine = Gated()
    pieces = kitchen_llm(engine)._astream(PROMPT)
    assert (await anext(pieces)).text == " Warm"
    await pieces.aclose()  # type: ignore[attr-defined]
    engine.gate.set()
    assert engine.is_idle
    assert len(engine.asked) <= NUM_ASKED_AT_THE_GATE


async def test_a_call_that_is_cancelled_at_any_moment_leaves_nothing_open() -> None:
    for turns in range(40):
        engine = Kitchen()
        call = asyncio.create_task(kitchen_llm(engine).ainvoke(PROMPT))
        for _ in range(turns):
            await asyncio.sleep(0)
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call
        assert engine.is_idle, f"after {turns} turns of the loop"


def test_threads_share_an_llm() -> None:
    engine = Kitchen()
    llm = kitchen_llm(engine)
    assert llm.batch([PROMPT] * 8, {"max_concurrency": 8}, return_exceptions=True) == [WARM_SOUP] * 8
    assert engine.is_idle


# --- Copies ------------------------------------------------------------------------------------------------------


def test_copies_share_the_engine_and_answer_alike() -> None:
    engine = Kitchen()
    llm = kitchen_llm(engine)
    for twin in (copy.copy(llm), copy.deepcopy(llm), llm.model_copy(), llm.model_copy(deep=True)):
        assert twin.model is engine
        assert twin.invoke(PROMPT) == WARM_SOUP


def test_a_copy_with_another_rubric_is_judged_by_that_rubric() -> None:
    llm = kitchen_llm()
    llm.rubric = "politeness"
    assert rain_info(llm)["rubric"]["name"] == "politeness"
    assert rain_info(llm.model_copy(update={"rubric": "harmlessness"}))["rubric"]["name"] == "harmlessness"


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("tiny"))
    tiny_engine().tokenizer.save_pretrained(folder)
    tiny_engine().model.save_pretrained(folder)
    return folder


def test_a_model_given_by_its_folder_is_loaded_and_loaded_again_from_a_pickle(tiny_folder: str) -> None:
    llm = tiny_llm(model=tiny_folder, on_unsatisfied="best")
    expected = tiny_llm(on_unsatisfied="best").invoke(TINY_PROMPT)
    assert llm.invoke(TINY_PROMPT) == expected
    again = pickle.loads(pickle.dumps(llm))
    assert again.asdict() == llm.asdict()
    assert again.invoke(TINY_PROMPT) == expected


def test_one_model_given_twice_by_name_is_loaded_once(tiny_folder: str) -> None:
    llm = tiny_llm(model=tiny_folder, judge=tiny_folder)
    assert llm.judging_engine is llm.writer


def test_an_llm_on_an_engine_that_cannot_be_pickled_says_so() -> None:
    with pytest.raises(TypeError, match="pickle"):
        pickle.dumps(kitchen_llm())


# --- What is given by name ---------------------------------------------------------------------------------------


def test_an_unknown_rubric_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(RubricError, match=r"'harmlesness'.*harmlessness"):
        kitchen_llm(rubric="harmlesness")


def test_a_folder_that_is_no_model_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=str(tmp_path)):
        RainLLM(model=str(tmp_path))


def test_without_torch_a_model_given_by_name_is_an_error_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "langchain_rain.engines.transformers", None)
    with pytest.raises(RainConfigError, match=r"judge='gpt2' needs.*pip install 'langchain-rain\[transformers\]'"):
        kitchen_llm(judge="gpt2")


def test_a_rubric_may_be_given_by_name_or_as_an_object() -> None:
    assert rain_info(kitchen_llm(rubric="politeness"))["rubric"] == {
        "name": "politeness",
        "hash": Rubric.load("politeness").content_hash,
    }
