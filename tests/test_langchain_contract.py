"""What LangChain expects of an LLM: the spirit of its standard suite, and the defects seen in comparable products."""

import json
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.language_models import BaseLLM, LanguageModelInput
from langchain_core.load import dumps
from langchain_core.messages import HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import LLMResult
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_core.runnables import ConfigurableField, RunnableLambda

from langchain_rain import ChatRain, EngineError, RainConfig, RainConfigError, RainLLM, Rubric
from langchain_rain._version import __version__
from tests.scripted_world import (
    CONFIG,
    CRASHING_PROMPT,
    END,
    POISON,
    PROMPT,
    REFUSAL,
    RUBRIC,
    WARM,
    WARM_SOUP,
    Kitchen,
    kitchen_llm,
)
from tests.test_llms import tiny_engine, tiny_llm

MODELS: list[Callable[[], RainLLM]] = [kitchen_llm, lambda: tiny_llm(on_unsatisfied="best")]


@pytest.fixture(params=MODELS, ids=["script", "model"])
def llm(request: pytest.FixtureRequest) -> RainLLM:
    made = request.param()
    assert isinstance(made, RainLLM)
    return made


# --- The standard suite for chat models, as far as it is about LLMs ----------------------------------------------


def test_it_is_an_llm_of_langchain(llm: RainLLM) -> None:
    assert isinstance(llm, BaseLLM)
    assert llm._llm_type == "rain"


def test_invoke_returns_text(llm: RainLLM) -> None:
    assert isinstance(llm.invoke(PROMPT), str)


async def test_streams_yield_text_one_or_more_times(llm: RainLLM) -> None:
    assert all(isinstance(piece, str) for piece in llm.stream(PROMPT))
    assert [piece async for piece in llm.astream(PROMPT)] == list(llm.stream(PROMPT))


async def test_batches_answer_each_prompt_in_order(llm: RainLLM) -> None:
    prompts: list[LanguageModelInput] = [PROMPT, "Human: Hello.\n\nAssistant:"]
    answers = [llm.invoke(prompt) for prompt in prompts]
    assert llm.batch(prompts) == answers
    assert await llm.abatch(prompts) == answers
    assert dict(llm.batch_as_completed(prompts)) == dict(enumerate(answers))


def test_messages_are_taken_as_their_text(llm: RainLLM) -> None:
    assert llm.invoke([HumanMessage("What is for supper?")]) == llm.invoke("Human: What is for supper?")


def test_stop_is_taken_by_every_call_and_may_be_bound(llm: RainLLM) -> None:
    bound = llm.bind(stop=["never said"])
    assert bound.invoke(PROMPT) == llm.invoke(PROMPT, stop=["never said"]) == llm.invoke(PROMPT)


def test_usage_adds_up(llm: RainLLM) -> None:
    one, both = (llm.generate([PROMPT] * number).llm_output for number in (1, 2))
    assert one is not None
    assert both is not None
    usage = one["token_usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    # Whatever two answers share goes through a model once.
    assert both["token_usage"].pop("forward_tokens") <= 2 * usage.pop("forward_tokens")
    assert both["token_usage"] == {name: 2 * number for name, number in usage.items()}
    assert one["model_name"] == llm.writer.name


def test_usage_counts_all_that_was_run(llm: RainLLM) -> None:
    result = llm.generate([PROMPT])
    assert result.llm_output is not None
    info = result.generations[0][0].generation_info
    assert info is not None
    usage = result.llm_output["token_usage"]
    assert usage["forward_tokens"] == info["rain"]["token_positions"] > usage["completion_tokens"]


def test_tracing_is_told_provider_model_and_limits(llm: RainLLM) -> None:
    assert llm._get_ls_params(stop=["x"]) == {
        "ls_provider": "rain",
        "ls_model_name": llm.writer.name,
        "ls_model_type": "llm",
        "ls_temperature": llm.config.temperature,
        "ls_max_tokens": llm.answer_limit,
        "ls_stop": ["x"],
    }


def test_tracing_is_told_the_own_stop_strings_and_temperature() -> None:
    params = kitchen_llm(stop=["Human:"], temperature=0.5)._get_ls_params()
    assert (params["ls_stop"], params["ls_temperature"]) == (["Human:"], 0.5)


@pytest.mark.parametrize("kind", [RainLLM, ChatRain])
def test_the_versions_are_in_the_metadata(kind: type[RainLLM | ChatRain]) -> None:
    metadata = kind(model=Kitchen(), metadata={"team": "kitchen"}).metadata
    assert metadata is not None
    assert metadata["team"] == "kitchen"
    versions = metadata["lc_versions"]
    assert {name: versions[name] for name in ("langchain-core", "langchain-rain")} == {
        "langchain-core": version("langchain-core"),
        "langchain-rain": __version__,
    }


def test_it_is_not_serialized_and_what_stands_for_it_is_json(llm: RainLLM) -> None:
    assert not RainLLM.is_lc_serializable()
    assert json.loads(dumps(llm))["type"] == "not_implemented"
    json.dumps(llm.asdict())


def test_its_schemas_can_be_asked_for(llm: RainLLM) -> None:
    assert llm.get_output_jsonschema()["type"] == "string"
    assert llm.get_input_jsonschema()


def test_an_unknown_argument_of_a_call_is_an_error(llm: RainLLM) -> None:
    for call in (
        llm.invoke,
        llm.bind(rubirc="politeness").invoke,
        lambda prompt, **kwargs: list(llm.stream(prompt, **kwargs)),
    ):
        with pytest.raises(RainConfigError, match=r"takes no argument.*a call takes only `stop`"):
            call(PROMPT, temperature=0)


# --- Callbacks ---------------------------------------------------------------------------------------------------


class Diary(BaseCallbackHandler):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.started: list[dict[str, Any]] = []
        self.tokens: list[str] = []
        self.results: list[LLMResult] = []
        self.errors: list[BaseException] = []

    def on_llm_start(self, serialized: Any, prompts: list[str], **told: Any) -> None:
        self.started.append({"prompts": prompts, **told})

    def on_llm_new_token(self, token: Any, **told: Any) -> None:
        assert told["chunk"].text == token
        self.tokens.append(token)

    def on_llm_end(self, response: LLMResult, **told: Any) -> None:
        self.results.append(response)

    def on_llm_error(self, error: BaseException, **told: Any) -> None:
        self.errors.append(error)


class AsyncDiary(AsyncCallbackHandler):
    def __init__(self) -> None:
        self.tokens: list[str] = []

    async def on_llm_new_token(self, token: Any, **told: Any) -> None:
        self.tokens.append(token)


def test_a_stream_tells_its_handlers_every_piece(llm: RainLLM) -> None:
    diary = Diary()
    pieces = list(llm.stream(PROMPT, {"callbacks": [diary]}))
    assert diary.tokens == pieces
    ((generation,),) = diary.results[0].generations
    assert generation.text == "".join(pieces)
    assert generation.generation_info is not None
    assert "rain" in generation.generation_info


async def test_an_async_stream_tells_its_handlers_every_piece(llm: RainLLM) -> None:
    diary = AsyncDiary()
    pieces = [piece async for piece in llm.astream(PROMPT, {"callbacks": [diary]})]
    assert diary.tokens == pieces


async def test_the_piece_that_follows_an_error_is_told_too() -> None:
    diary, async_diary = Diary(), AsyncDiary()
    failing = kitchen_llm(on_error="refuse")
    assert list(failing.stream(CRASHING_PROMPT, {"callbacks": [diary]})) == [REFUSAL]
    assert [piece async for piece in failing.astream(CRASHING_PROMPT, {"callbacks": [async_diary]})] == [REFUSAL]
    assert diary.tokens == async_diary.tokens == [REFUSAL]


def test_invoke_tells_no_pieces(llm: RainLLM) -> None:
    diary = Diary()
    llm.invoke(PROMPT, {"callbacks": [diary]})
    assert diary.tokens == []
    assert len(diary.results) == 1


def test_tags_metadata_and_names_reach_the_handlers() -> None:
    diary = Diary()
    config: Any = {"callbacks": [diary], "tags": ["supper"], "metadata": {"table": 4}, "run_name": "cook"}
    kitchen_llm(tags=["kitchen"]).invoke(PROMPT, config)
    (started,) = diary.started
    assert started["prompts"] == [PROMPT]
    assert set(started["tags"]) == {"supper", "kitchen"}
    assert started["metadata"]["table"] == 4
    assert started["metadata"]["ls_provider"] == "rain"
    assert started["name"] == "cook"


def test_each_prompt_of_a_batch_has_a_run_of_its_own() -> None:
    diaries = [Diary(), Diary()]
    kitchen_llm().batch([PROMPT, PROMPT + " "], [{"callbacks": [diary]} for diary in diaries])
    assert [diary.started[0]["prompts"] for diary in diaries] == [[PROMPT], [PROMPT + " "]]
    assert [len(diary.results) for diary in diaries] == [1, 1]


def test_an_error_is_told_once() -> None:
    diary = Diary()
    failing = kitchen_llm()
    for call in (failing.invoke, lambda *args: list(failing.stream(*args))):
        with pytest.raises(EngineError):
            call(CRASHING_PROMPT, {"callbacks": [diary]})
    assert [type(error) for error in diary.errors] == [EngineError, EngineError]


def test_a_handler_that_raises_ends_the_stream_and_leaves_nothing_open() -> None:
    class Strict(BaseCallbackHandler):
        raise_error = True

        def on_llm_new_token(self, token: Any, **told: Any) -> None:
            raise EngineError("I do not like soup.")

    engine = Kitchen()
    with pytest.raises(EngineError, match="do not like soup"):
        list(kitchen_llm(engine, on_error="best").stream(PROMPT, {"callbacks": [Strict()]}))
    assert engine.is_idle


async def test_events_of_a_chain_hold_the_pieces() -> None:
    chain = PromptTemplate.from_template("Human: {question}\n\nAssistant:") | kitchen_llm()
    events = [event async for event in chain.astream_events({"question": "What is for supper?"}, version="v2")]
    streamed = [event["data"]["chunk"] for event in events if event["event"] == "on_llm_stream"]
    assert "".join(chunk.text for chunk in streamed) == WARM_SOUP


# --- The cache: two guards never share an answer (defect 8) ------------------------------------------------------


def refuse_kindly(error: Any) -> str:
    return "Sorry."


BUTTER = Rubric(name="edible", criteria=(*RUBRIC.criteria, RUBRIC.criteria[0].model_copy(update={"name": "buttery"})))

OTHERS: list[dict[str, Any]] = [
    {"rubric": BUTTER},
    {"config": CONFIG.model_copy(update={"value_threshold": 0.9})},
    {"config": CONFIG.model_copy(update={"min_option_mass": 0.2})},
    {"seed": 2},
    {"seed": None},
    {"max_tokens": 99},
    {"temperature": 0.5},
    {"stop": ["Human:"]},
    {"on_unsatisfied": "best"},
    {"on_unsatisfied": refuse_kindly},
    {"on_error": "refuse"},
    {"refusal_message": "No."},
    {"max_seconds": 60.0},
    {"max_forward_tokens": 10_000},
    {"model": "another kitchen"},
    {"judge": "a critic"},
]


@pytest.mark.parametrize("other", OTHERS, ids="-".join)
def test_guards_that_differ_do_not_share_an_answer(other: dict[str, Any]) -> None:
    cache = InMemoryCache()
    kitchen_llm(cache=cache).invoke(PROMPT)
    engine = Kitchen(name=other.get("model", "kitchen"))
    named = {"judge": Kitchen(name=other["judge"])} if "judge" in other else {}
    kitchen_llm(cache=cache, **{**other, "model": engine, **named}).invoke(PROMPT)
    assert engine.asked


def test_the_same_guard_answers_the_same_prompt_from_the_cache() -> None:
    cache = InMemoryCache()
    first = kitchen_llm(cache=cache, on_unsatisfied=refuse_kindly).invoke(PROMPT)
    engine = Kitchen()
    again = kitchen_llm(engine, cache=cache, on_unsatisfied=refuse_kindly)
    assert again.invoke(PROMPT) == first
    assert engine.asked == []
    again.invoke(PROMPT, stop=["Human:"])
    assert engine.asked


def test_policies_without_a_name_of_their_own_do_not_share_an_answer() -> None:
    cache = InMemoryCache()

    def answer_with(text: str) -> Callable[[Any], str]:
        return lambda error: text

    texts = [
        kitchen_llm(Kitchen(POISON, END), cache=cache, on_unsatisfied=answer_with(text)).invoke(PROMPT)
        for text in ("soup", "bread", "tea")
    ]
    assert texts == ["soup", "bread", "tea"]


def test_models_of_one_name_and_other_weights_do_not_share_an_answer() -> None:
    first, second = (tiny_llm(model=tiny_engine(seed)) for seed in (0, 1))
    assert first.writer.name == second.writer.name
    assert first.asdict() != second.asdict()


# --- In chains ---------------------------------------------------------------------------------------------------

QUESTION = {"question": "What is for supper?"}


async def test_it_works_between_a_prompt_and_a_parser() -> None:
    chain = PromptTemplate.from_template("Human: {question}\n\nAssistant:") | kitchen_llm() | StrOutputParser()
    assert chain.invoke(QUESTION) == await chain.ainvoke(QUESTION) == WARM_SOUP
    assert chain.batch([QUESTION, QUESTION]) == [WARM_SOUP, WARM_SOUP]
    assert list(chain.stream(QUESTION)) == [" Warm", " the soup", ".", ""]


def test_a_batch_through_a_chain_shares_the_steps_of_the_engine() -> None:
    engine = Kitchen()
    chain = PromptTemplate.from_template("Human: {question}\n\nAssistant:") | kitchen_llm(engine) | StrOutputParser()
    chain.batch([QUESTION] * 4)
    assert engine.most_at_once == 4


def test_it_works_behind_a_chat_prompt() -> None:
    chain = ChatPromptTemplate.from_messages([("human", "{question}")]) | kitchen_llm()
    assert chain.invoke(QUESTION) == WARM_SOUP


def test_a_retry_helps_against_an_engine_that_failed_once() -> None:
    engine = Kitchen(num_failures=1)
    retrying = kitchen_llm(engine).with_retry(
        retry_if_exception_type=(EngineError,), wait_exponential_jitter=False, stop_after_attempt=2
    )
    assert retrying.invoke(PROMPT) == WARM_SOUP
    assert len(engine.opened) == 2
    assert engine.is_idle


async def test_a_fallback_helps_against_an_engine_that_fails() -> None:
    fallback: RunnableLambda[Any, str] = RunnableLambda(lambda _: "Order a pizza.")
    chain = kitchen_llm().with_fallbacks([fallback], exceptions_to_handle=(EngineError,))
    assert chain.invoke(CRASHING_PROMPT) == await chain.ainvoke(CRASHING_PROMPT) == "Order a pizza."
    assert chain.invoke(PROMPT) == WARM_SOUP


def test_a_fallback_for_engines_does_not_hide_the_callers_mistake() -> None:
    chain = kitchen_llm().with_fallbacks([RunnableLambda(str)], exceptions_to_handle=(EngineError,))
    with pytest.raises(RainConfigError):
        chain.invoke("\ud800")


def test_rubric_seed_and_settings_can_be_chosen_for_each_run() -> None:
    chosen: list[Any] = []

    class Asked(BaseCallbackHandler):
        def on_llm_end(self, response: LLMResult, **told: Any) -> None:
            info = response.generations[0][0].generation_info
            assert info is not None
            chosen.append((info["rain"]["rubric"]["name"], info["rain"]["seed"], info["rain"]["preset"]))

    llm = kitchen_llm(on_error="refuse").configurable_fields(
        rubric=ConfigurableField(id="rubric"), seed=ConfigurableField(id="seed"), config=ConfigurableField(id="search")
    )
    llm.invoke(PROMPT, {"callbacks": [Asked()]})
    other = {"rubric": "politeness", "seed": 9, "search": RainConfig.preset("paper")}
    llm.invoke(PROMPT, {"callbacks": [Asked()], "configurable": other})
    assert chosen == [("edible", 1, "custom"), ("politeness", 9, "paper")]
    with pytest.raises(RainConfigError, match="seed"):
        llm.invoke(PROMPT, {"configurable": {"seed": "lucky"}})


def test_alternatives_can_be_chosen_for_each_run() -> None:
    poisoned = kitchen_llm(Kitchen(WARM, POISON, END))
    llm = kitchen_llm().configurable_alternatives(ConfigurableField(id="kitchen"), poisoned=poisoned)
    assert llm.invoke(PROMPT) == WARM_SOUP
    assert llm.invoke(PROMPT, {"configurable": {"kitchen": "poisoned"}}) == f" Warm\n{REFUSAL}"
