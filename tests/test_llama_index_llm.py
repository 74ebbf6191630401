"""RainLlamaIndexLLM: what LlamaIndex expects of an LLM, and the defects seen in comparable products."""

import asyncio
import copy
import inspect
import json
import pickle
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from llama_index.core import Settings
from llama_index.core.base.llms.base import BaseLLM
from llama_index.core.callbacks import CallbackManager, EventPayload, TokenCountingHandler
from llama_index.core.constants import DEFAULT_CONTEXT_WINDOW
from llama_index.core.llms import LLM, ChatMessage, ChatResponse, CompletionResponse, MessageRole
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.prompts import PromptTemplate
from llama_index.core.types import BaseOutputParser

from langchain_rain import ChatRain, EngineError, RainConfigError, Rubric, RubricError, UnsatisfiedError
from langchain_rain.llama_index import RainLlamaIndexLLM
from langchain_rain.rubrics import PatternCriterion
from tests.conformance.worlds import (
    CHEF_CONFIG,
    DISH,
    MARK,
    QUESTION,
    REFUSAL,
    Chef,
    MarkedKitchen,
    StreamingChef,
    chef_chat,
    kitchen_chat,
)
from tests.fake_chat_models import FakeChat, FakeChatWithoutTools
from tests.llama_index_listening import debugging, llm_events, noted
from tests.scripted_world import CONFIG, PROMPT, RUBRIC, WARM_SOUP, Kitchen

ASKED = [ChatMessage(role=MessageRole.USER, content=QUESTION)]


def kitchen_llm(engine: Kitchen | None = None, **arguments: Any) -> RainLlamaIndexLLM:
    settings = {"model": engine or MarkedKitchen(), "rubric": RUBRIC, "config": CONFIG, "seed": 1}
    return RainLlamaIndexLLM(**{**settings, **arguments})


def chef_llm(chef: Any = None, **arguments: Any) -> RainLlamaIndexLLM:
    settings = {"model": chef or Chef(), "rubric": RUBRIC, "config": CHEF_CONFIG, "seed": 1}
    return RainLlamaIndexLLM(**{**settings, **arguments})


MAKERS: list[Callable[..., RainLlamaIndexLLM]] = [kitchen_llm, chef_llm, lambda **own: chef_llm(StreamingChef(), **own)]


@pytest.fixture(params=MAKERS, ids=["token sets", "messages", "streaming messages"])
def make(request: pytest.FixtureRequest) -> Callable[..., RainLlamaIndexLLM]:
    made: Callable[..., RainLlamaIndexLLM] = request.param
    return made


async def all_texts(llm: RainLlamaIndexLLM) -> dict[str, str]:
    """The answer to the question by each of the eight ways of asking."""
    return {
        "chat": str(llm.chat(ASKED).message.content),
        "achat": str((await llm.achat(ASKED)).message.content),
        "stream_chat": str([*llm.stream_chat(ASKED)][-1].message.content),
        "astream_chat": str([each async for each in await llm.astream_chat(ASKED)][-1].message.content),
        "complete": llm.complete(QUESTION).text,
        "acomplete": (await llm.acomplete(QUESTION)).text,
        "stream_complete": [*llm.stream_complete(QUESTION)][-1].text,
        "astream_complete": [each async for each in await llm.astream_complete(QUESTION)][-1].text,
    }


# --- What LlamaIndex asks of every integration -------------------------------------------------------------------


def test_class() -> None:
    names_of_bases = [base.__name__ for base in RainLlamaIndexLLM.__mro__]
    assert {BaseLLM.__name__, LLM.__name__, FunctionCallingLLM.__name__} <= set(names_of_bases)
    assert "CustomLLM" not in names_of_bases
    assert RainLlamaIndexLLM.class_name() == "RainLlamaIndexLLM"


async def test_all_ways_of_asking_give_the_same_answer(make: Callable[..., RainLlamaIndexLLM]) -> None:
    assert {text.strip() for text in (await all_texts(make())).values()} == {DISH}


async def test_all_ways_of_asking_refuse_alike(make: Callable[..., RainLlamaIndexLLM]) -> None:
    hopeless = make(model=MarkedKitchen(is_hopeless=True) if make is kitchen_llm else Chef(is_hopeless=True))
    texts = await all_texts(hopeless)
    assert all(text.endswith(REFUSAL) for text in texts.values())
    assert MARK not in "".join(texts.values())


def test_responses_have_the_types_of_llama_index(make: Callable[..., RainLlamaIndexLLM]) -> None:
    llm = make()
    answer = llm.chat(ASKED)
    assert isinstance(answer, ChatResponse)
    assert answer.message.role == MessageRole.ASSISTANT
    assert answer.delta is None
    assert isinstance(llm.complete(QUESTION), CompletionResponse)
    assert isinstance(llm.stream_chat(ASKED), Iterator)
    assert asyncio.iscoroutine(coroutine := llm.astream_chat(ASKED))
    assert isinstance(asyncio.run(coroutine), AsyncIterator)


async def test_streams_bring_text_that_only_grows(make: Callable[..., RainLlamaIndexLLM]) -> None:
    for parts in ([*make().stream_chat(ASKED)], [each async for each in await make().astream_chat(ASKED)]):
        texts = [part.message.content or "" for part in parts]
        deltas = [part.delta for part in parts]
        assert texts == ["".join(deltas[: number + 1]) for number in range(len(deltas))]
        assert MARK not in "".join(texts)


def test_settings_take_it() -> None:
    llm, before = kitchen_llm(), Settings._llm
    try:
        Settings.llm = llm
        assert Settings.llm is llm
    finally:
        Settings._llm = before


@pytest.mark.parametrize("is_chat_model", [True, False])
async def test_predict_and_stream_take_templates(is_chat_model: bool) -> None:
    llm = kitchen_llm(is_chat_model=is_chat_model)
    template = PromptTemplate("What is for {meal}?" if is_chat_model else "Human: What is for {meal}?\n\nAssistant:")
    wanted = llm.predict(template, meal="supper")
    assert wanted.strip() == DISH
    assert await llm.apredict(template, meal="supper") == wanted
    assert "".join(llm.stream(template, meal="supper")) == wanted
    assert "".join([piece async for piece in await llm.astream(template, meal="supper")]) == wanted


def test_the_system_prompt_of_llama_index_reaches_the_model() -> None:
    chef = Chef()
    chef_llm(chef, system_prompt="Be brief.").predict(PromptTemplate(QUESTION))
    first, *_ = (messages for messages, _ in chef.log.asked)
    assert [str(message.text) for message in first] == ["Be brief.", QUESTION]


def test_the_output_parser_of_llama_index_is_used() -> None:
    class Shouting(BaseOutputParser):
        def parse(self, output: str) -> str:
            return output.upper()

        def format(self, query: str) -> str:
            return query

    assert kitchen_llm(output_parser=Shouting()).predict(PromptTemplate(QUESTION)) == DISH.upper()


# --- Texts that are continued as they stand --------------------------------------------------------------------------


async def test_a_text_is_continued_as_it_stands_if_it_is_no_chat_model() -> None:
    kitchen = Kitchen()
    llm = kitchen_llm(kitchen, is_chat_model=False)
    whole = llm.complete(PROMPT)
    assert whole.text == WARM_SOUP
    assert (await llm.acomplete(PROMPT)).model_dump() == whole.model_dump()
    parts = [*llm.stream_complete(PROMPT)]
    assert [part.model_dump() for part in parts] == [
        part.model_dump() async for part in await llm.astream_complete(PROMPT)
    ]
    assert "".join(part.delta or "" for part in parts) == parts[-1].text == WARM_SOUP
    assert whole.raw is not None
    assert parts[-1].raw is not None
    assert whole.raw["rain"] == parts[-1].raw["rain"]
    assert whole.additional_kwargs["total_tokens"] > 0
    assert kitchen.is_idle


def test_a_text_that_is_not_formatted_yet_gets_its_form_once() -> None:
    asked: list[str] = []
    llm = kitchen_llm(is_chat_model=False, completion_to_prompt=lambda text: asked.append(text) or PROMPT)  # type: ignore[func-returns-value]
    assert llm.complete("supper?").text == WARM_SOUP
    assert llm.complete(PROMPT, formatted=True).text == WARM_SOUP
    assert asked == ["supper?"]


def test_a_continuation_takes_stop_and_no_other_argument() -> None:
    llm = kitchen_llm(is_chat_model=False)
    assert llm.complete(PROMPT, stop=["never said"]).text == WARM_SOUP
    with pytest.raises(RainConfigError, match="takes no argument rubirc"):
        llm.complete(PROMPT, rubirc="politeness")


# --- Arguments (defects 4 and 12) ------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["rubirc", "is_chat_modle", "calback_manager", "temprature"])
def test_a_misspelt_argument_is_an_error_that_names_it(wrong: str) -> None:
    with pytest.raises(RainConfigError, match=wrong):
        kitchen_llm(**{wrong: None})
    with pytest.raises(RainConfigError, match="rubirc"):
        kitchen_llm().chat(ASKED, rubirc="politeness")
    with pytest.raises(RainConfigError, match="rubirc"):
        kitchen_llm().bind(rubirc="politeness")


def test_mistakes_of_both_sides_are_named() -> None:
    with pytest.raises(RainConfigError, match="context_window"):
        kitchen_llm(context_window=0)
    with pytest.raises(RainConfigError, match="temperature"):
        kitchen_llm(temperature=-1)
    with pytest.raises(RubricError, match="no rubric 'harmlesness'"):
        kitchen_llm(rubric="harmlesness")


def test_a_guard_that_is_there_is_taken_and_none_beside_it() -> None:
    chat = kitchen_chat()
    assert RainLlamaIndexLLM(guard=chat).guard is chat
    for wrong in ({"guard": chat, "rubric": RUBRIC}, {"guard": chat.writer}):
        with pytest.raises(RainConfigError, match="guard: a ChatRain, which has its own arguments, is allowed"):
            RainLlamaIndexLLM(**wrong)


def test_it_answers_by_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []

    def connected(url: str, model: str, **others: Any) -> Kitchen:
        told.append((url, model, others))
        return MarkedKitchen()

    monkeypatch.setattr("langchain_rain.llama_index.llm.completions_engine", connected)
    llm = RainLlamaIndexLLM.from_server("http://there", model="big", api_key="key", rubric=RUBRIC, config=CONFIG)
    assert llm.complete(QUESTION).text == DISH
    assert told == [("http://there", "big", {"api_key": "key", "tokenizer": None})]


def test_a_call_may_bring_arguments_of_its_own_and_a_copy_may_hold_them() -> None:
    strict = Rubric(name="no_dish", criteria=(PatternCriterion(name="no_dish", must_not_match="the", veto=True),))
    llm = kitchen_llm()
    assert str(llm.chat(ASKED, rubric=strict).message.content).endswith(REFUSAL)
    bound = llm.bind(rubric=strict, stop=["never said"])
    assert bound.complete(QUESTION).text.endswith(REFUSAL)
    assert (bound.rubric, llm.rubric) == (strict, RUBRIC)
    assert llm.complete(QUESTION).text == DISH
    assert bound.bind(rubric=RUBRIC).complete(QUESTION).text == DISH


def test_stop_reaches_the_model() -> None:
    chef = Chef()
    chef_llm(chef).chat(ASKED, stop=["never said"])
    assert any(arguments.get("stop") == ["never said"] for _, arguments in chef.log.asked)


def test_no_copy_is_another_guard() -> None:
    llm = chef_llm(system_prompt="Be brief.").bind(max_judged_turns=2)
    for other in (llm.model_copy(), copy.copy(llm), copy.deepcopy(llm)):
        assert isinstance(other, RainLlamaIndexLLM)
        assert other.system_prompt == "Be brief."
        assert other.guard.identity["rubric"] == llm.guard.identity["rubric"]
        assert (other.guard.seed, other._bound) == (1, {"max_judged_turns": 2})
    assert copy.deepcopy(llm).guard.writer is llm.guard.writer
    named = RainLlamaIndexLLM(rubric=RUBRIC, seed=1, config=CONFIG, system_prompt="Be brief.").bind(max_judged_turns=2)
    read = pickle.loads(pickle.dumps(named))
    assert read.guard.identity == named.guard.identity
    assert (read.system_prompt, read._bound) == ("Be brief.", {"max_judged_turns": 2})
    with pytest.raises(RainConfigError, match="changes no argument rubric of the guard"):
        llm.model_copy(update={"rubric": "politeness"})
    with pytest.raises(RainConfigError, match="does not hold the guard"):
        RainLlamaIndexLLM.from_dict(llm.to_dict())


# --- What it tells of itself -----------------------------------------------------------------------------------------


def test_what_happened_and_what_it_cost_is_told(make: Callable[..., RainLlamaIndexLLM]) -> None:
    llm = make()
    chat = ChatRain(**{name: getattr(llm.guard, name) for name in ("model", "rubric", "config", "seed")})
    message = chat.invoke(QUESTION)
    usage = message.usage_metadata
    assert usage is not None
    answer = llm.chat(ASKED)
    *_, last = llm.stream_chat(ASKED)
    for response in (answer, last, llm.complete(QUESTION)):
        assert isinstance(response.raw, dict)
        assert response.raw["usage"] == usage
        assert response.raw["rain"] == message.response_metadata["rain"]
        assert response.raw["finish_reason"] == message.response_metadata["finish_reason"]
        assert response.additional_kwargs == {
            "prompt_tokens": usage["input_tokens"],
            "completion_tokens": usage["output_tokens"],
            "total_tokens": usage["total_tokens"],
        }
        json.dumps(response.raw)
    assert answer.message.additional_kwargs == {}  # what goes on into the conversation tells nothing of it


def test_the_token_counter_of_llama_index_finds_the_counts() -> None:
    counter = TokenCountingHandler(tokenizer=str.split)
    answer = kitchen_llm(callback_manager=CallbackManager([counter])).chat(ASKED)
    assert counter.prompt_llm_token_count == answer.additional_kwargs["prompt_tokens"]
    assert counter.completion_llm_token_count == answer.additional_kwargs["completion_tokens"]


def test_its_metadata_are_honest() -> None:
    told = kitchen_llm(max_tokens=99).metadata
    assert (told.model_name, told.num_output, told.is_chat_model) == ("kitchen", 99, True)
    assert told.context_window == DEFAULT_CONTEXT_WINDOW  # a script does not say
    assert not told.is_function_calling_model
    assert kitchen_llm(is_chat_model=False, context_window=77).metadata.context_window == 77
    assert chef_llm().metadata.is_function_calling_model
    assert not chef_llm(FakeChatWithoutTools(inner=FakeChat())).metadata.is_function_calling_model
    assert "api_key" not in kitchen_llm(api_key="secret").to_payload()
    assert "secret" not in json.dumps(kitchen_llm(api_key="secret").to_payload())


# --- Callbacks and events (defect 13) --------------------------------------------------------------------------------


async def test_every_call_is_told_once(make: Callable[..., RainLlamaIndexLLM]) -> None:
    chats: list[Callable[[RainLlamaIndexLLM], Any]] = [
        lambda llm: llm.chat(ASKED),
        lambda llm: [*llm.stream_chat(ASKED)],
    ]
    completions: list[Callable[[RainLlamaIndexLLM], Any]] = [
        lambda llm: llm.complete(QUESTION),
        lambda llm: [*llm.stream_complete(QUESTION)],
    ]
    for kind, calls in (("Chat", chats), ("Completion", completions)):
        for call, is_stream in zip(calls, (False, True), strict=True):
            manager, handler = debugging()
            with noted() as notes:
                call(make(callback_manager=manager))
            progress = [f"LLM{kind}InProgressEvent"] if is_stream else []
            assert notes.names == [f"LLM{kind}StartEvent", *progress, f"LLM{kind}EndEvent"]
            assert len(llm_events(handler)) == 1


async def test_every_async_call_is_told_once(make: Callable[..., RainLlamaIndexLLM]) -> None:
    manager, handler = debugging()
    llm = make(callback_manager=manager)
    with noted() as notes:
        await llm.achat(ASKED)
        [each async for each in await llm.astream_chat(ASKED)]
        await llm.acomplete(QUESTION)
        [each async for each in await llm.astream_complete(QUESTION)]
    assert notes.names == [
        "LLMChatStartEvent",
        "LLMChatEndEvent",
        "LLMChatStartEvent",
        "LLMChatInProgressEvent",
        "LLMChatEndEvent",
        "LLMCompletionStartEvent",
        "LLMCompletionEndEvent",
        "LLMCompletionStartEvent",
        "LLMCompletionInProgressEvent",
        "LLMCompletionEndEvent",
    ]
    assert len(llm_events(handler)) == 4


async def test_no_event_holds_what_was_rejected(make: Callable[..., RainLlamaIndexLLM]) -> None:
    manager, handler = debugging()
    llm = make(callback_manager=manager)
    with noted() as notes:
        await all_texts(llm)
    told = [event.model_dump(mode="json", fallback=str) for event in notes.events]
    payloads = [event.payload for pair in llm_events(handler) for event in pair]
    assert DISH in str(told)
    assert DISH in str(payloads)
    assert MARK not in str(told)
    assert MARK not in str(payloads)


async def ended(result: Any) -> None:
    """Runs a call of any kind to its end."""
    if inspect.isawaitable(result):
        result = await result
    if isinstance(result, AsyncIterator):
        assert [each async for each in result]
    else:
        assert list(result)


@pytest.mark.parametrize("call", ["chat", "achat", "stream_chat", "astream_chat"])
async def test_an_error_is_told_once_and_raised(call: str) -> None:
    manager, handler = debugging()
    llm = kitchen_llm(callback_manager=manager)

    async def asked() -> None:
        await ended(getattr(llm, call)([ChatMessage(content="Make it crash.")]))

    with pytest.raises(EngineError, match="The judge left"):
        await asked()
    ((_, end),) = llm_events(handler)
    assert isinstance(end.payload[EventPayload.EXCEPTION], EngineError)


# --- Ends ------------------------------------------------------------------------------------------------------------


def test_policies_hold_as_of_chat_rain() -> None:
    hopeless = MarkedKitchen(is_hopeless=True)
    with pytest.raises(UnsatisfiedError):
        kitchen_llm(hopeless, on_unsatisfied="raise").chat(ASKED)
    refused = kitchen_llm(hopeless, refusal_message="No.").chat(ASKED)
    assert isinstance(refused.raw, dict)
    assert (str(refused.message.content).endswith("No."), refused.raw["finish_reason"]) == (True, "unsatisfied")
    answer = kitchen_llm(on_error="refuse").chat([ChatMessage(content="Make it crash.")])
    assert str(answer.message.content) == REFUSAL


async def test_an_empty_conversation_is_an_error() -> None:
    with pytest.raises(RainConfigError, match="at least one message"):
        kitchen_llm().chat([])
    with pytest.raises(RainConfigError, match="at least one message"):
        await kitchen_llm().achat([])


async def test_a_stream_that_is_left_leaves_nothing_open() -> None:
    kitchen = Kitchen()
    llm = kitchen_llm(kitchen)
    next(stream := llm.stream_chat(ASKED))
    stream.close()
    del stream
    growing = await llm.astream_chat(ASKED)
    async for _ in growing:
        break
    await growing.aclose()
    del growing
    await asyncio.sleep(0.05)  # what it was made of is closed by the loop
    task = asyncio.create_task(llm.achat(ASKED))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert kitchen.is_idle


async def test_sync_calls_work_inside_a_running_loop() -> None:
    assert str(chef_llm().chat(ASKED).message.content) == DISH
    assert kitchen_llm().complete(QUESTION).text == DISH


async def test_async_calls_run_on_the_callers_loop_and_in_no_thread_of_their_own() -> None:
    threads: list[int] = []

    async def judge(text: str) -> float:
        threads.append(threading.get_ident())
        return 1.0

    llm = kitchen_llm(judge=judge)
    async for _ in await llm.astream_chat(ASKED):
        pass
    await llm.acomplete(QUESTION)
    assert set(threads) == {threading.get_ident()}


def test_it_is_the_same_guard_as_chat_rain() -> None:
    assert chef_llm().guard.identity["rubric"] == chef_chat().identity["rubric"]
