"""RAIN in what people build with LlamaIndex: query engines, chat engines, agents, structured answers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.messages.tool import tool_call
from llama_index.core.agent.workflow import AgentStream, FunctionAgent, ReActAgent, ToolCallResult
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.llms import ChatMessage
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel

from langchain_rain import RainConfigError
from langchain_rain.llama_index import RainLlamaIndexLLM
from tests.conformance.worlds import DISH, MARK, QUESTION, Chef, is_marked
from tests.fake_chat_models import FakeChat, letter_judge
from tests.llama_index_listening import noted
from tests.llama_index_worlds import SUPPER, index_of, settings
from tests.scripted_world import Kitchen
from tests.test_llama_index_llm import ASKED, chef_llm, kitchen_llm

TOOL_MODEL = str(Path(__file__).resolve().parent / "tool_model")

# Workflows look at each attribute of themselves, those too that pydantic would rather not see used.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20"),
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince211"),
    pytest.mark.filterwarnings("ignore:is_running called from within a step:DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def without_downloads() -> Iterator[None]:
    with settings():
        yield


def memory() -> ChatMemoryBuffer:
    """A memory that is no data base, which nobody would close."""
    return ChatMemoryBuffer.from_defaults(token_limit=1000, tokenizer_fn=str.split)


def get_weather(location: str) -> str:
    """Get the weather at a location."""
    return "It's sunny."


WEATHER = FunctionTool.from_defaults(get_weather, description="Get the weather at a location.")
IN_SAN_FRANCISCO = "What is the weather in San Francisco, CA?"


@pytest.fixture(scope="module")
def tool_llm() -> RainLlamaIndexLLM:
    """A real model that calls tools; of judging it knows nothing."""
    return RainLlamaIndexLLM(model=TOOL_MODEL, judge=letter_judge(), seed=1, temperature=0)


# --- Query engines ---------------------------------------------------------------------------------------------------


async def test_a_query_engine_answers_by_the_llm_of_the_settings() -> None:
    with settings(kitchen_llm()):
        engine = index_of().as_query_engine()
        assert str(engine.query(QUESTION)) == DISH
        assert str(await engine.aquery(QUESTION)) == DISH
        streamed = index_of().as_query_engine(streaming=True).query(QUESTION)
        assert "".join(streamed.response_gen) == DISH  # type: ignore[union-attr, arg-type]


async def test_an_async_query_engine_streams() -> None:
    with settings(chef_llm()):
        answer: Any = await index_of().as_query_engine(streaming=True, use_async=True).aquery(QUESTION)
        assert "".join([piece async for piece in answer.async_response_gen()]) == DISH


def test_what_was_retrieved_reaches_the_model() -> None:
    chef = Chef()
    with settings(chef_llm(chef)):
        index_of().as_query_engine().query(QUESTION)
    assert any(SUPPER in str(messages[-1].text) for messages, _ in chef.log.asked)


# --- Chat engines ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["simple", "context", "condense_plus_context"])
async def test_chat_engines_stream_nothing_that_was_rejected(mode: Any) -> None:
    chef = Chef()
    with settings(chef_llm(chef)):
        engine = index_of().as_chat_engine(chat_mode=mode, memory=memory())
        assert "".join(engine.stream_chat(QUESTION).response_gen) == DISH
        streamed = await engine.astream_chat(QUESTION)
        assert "".join([piece async for piece in streamed.async_response_gen()]) == DISH
        assert str(await engine.achat(QUESTION)) == DISH
        assert MARK not in str(engine.chat_history)
        assert [message.content for message in engine.chat_history] == [QUESTION, DISH] * 3


def test_a_conversation_goes_on_with_what_was_said() -> None:
    chef = Chef()
    engine = SimpleChatEngine.from_defaults(llm=chef_llm(chef), system_prompt="Be brief.", memory=memory())
    engine.chat(QUESTION)
    engine.chat("And then?")
    assert any(
        [str(message.text) for message in messages] == ["Be brief.", QUESTION, DISH, "And then?"]
        for messages, _ in chef.log.asked
    )


# --- Tools and agents ------------------------------------------------------------------------------------------------


async def test_a_function_agent_calls_a_tool_and_answers(tool_llm: RainLlamaIndexLLM) -> None:
    assert tool_llm.metadata.is_function_calling_model
    for streaming in (True, False):
        handler = FunctionAgent(tools=[WEATHER], llm=tool_llm, streaming=streaming).run(
            IN_SAN_FRANCISCO, memory=memory()
        )
        events = [event async for event in handler.stream_events()]
        (result,) = (event for event in events if isinstance(event, ToolCallResult))
        assert (result.tool_name, result.tool_kwargs) == ("get_weather", {"location": "San Francisco, CA"})
        output = await handler
        assert str(output) == "It is sunny in San Francisco."
        deltas = [event.delta for event in events if isinstance(event, AgentStream)]
        assert "".join(deltas) == ("It is sunny in San Francisco." if streaming else "")


async def test_an_agent_shows_no_draft_that_was_rejected() -> None:
    def serve(dish: str) -> str:
        return f"{dish} is served."

    agent = FunctionAgent(tools=[FunctionTool.from_defaults(serve)], llm=chef_llm())
    with noted() as notes:
        handler = agent.run(QUESTION, memory=memory())
        events = [event async for event in handler.stream_events()]
        output = await handler
    assert str(output) == DISH
    (result,) = (event for event in events if isinstance(event, ToolCallResult))
    assert (result.tool_kwargs, result.tool_id) == ({"dish": "soup"}, "call")
    assert MARK not in str(events)
    assert MARK not in str(notes.events)


async def test_a_model_without_tools_is_for_other_agents() -> None:
    with pytest.raises(ValueError, match="must be a FunctionCallingLLM"):
        await FunctionAgent(tools=[WEATHER], llm=kitchen_llm()).run(QUESTION, memory=memory())
    with pytest.raises(RainConfigError, match="cannot call tools"):
        kitchen_llm().chat_with_tools([WEATHER], user_msg=QUESTION)


async def test_a_react_agent_thinks_in_text() -> None:
    thought = FakeChat(reply=lambda messages, arguments: _says("Thought: I know it.\nAnswer: Soup."))
    llm = RainLlamaIndexLLM(model=thought, judge=lambda text: 1.0)
    assert str(await ReActAgent(tools=[WEATHER], llm=llm).run(QUESTION, memory=memory())) == "Soup."


def _says(text: str) -> Any:
    return AIMessage(text)


async def test_tools_are_offered_by_every_way_of_asking(tool_llm: RainLlamaIndexLLM) -> None:
    asked: dict[str, Any] = {"tools": [WEATHER], "user_msg": IN_SAN_FRANCISCO}
    responses = [
        tool_llm.chat_with_tools(**asked),
        await tool_llm.achat_with_tools(**asked, tool_required=True),
        tool_llm.chat_with_tools(**asked, tool_choice="get_weather"),
        [*tool_llm.stream_chat_with_tools(**asked)][-1],
        [each async for each in await tool_llm.astream_chat_with_tools(**asked)][-1],
    ]
    for response in responses:
        (call,) = tool_llm.get_tool_calls_from_response(response)
        assert (call.tool_name, call.tool_kwargs) == ("get_weather", {"location": "San Francisco, CA"})
        assert call.tool_id


async def test_predict_and_call_runs_the_tool(tool_llm: RainLlamaIndexLLM) -> None:
    assert tool_llm.predict_and_call([WEATHER], IN_SAN_FRANCISCO).response == "It's sunny."
    assert (await tool_llm.apredict_and_call([WEATHER], IN_SAN_FRANCISCO)).response == "It's sunny."


def test_an_answer_without_a_call_has_none_or_is_an_error() -> None:
    response = chef_llm().chat(ASKED)
    assert chef_llm().get_tool_calls_from_response(response, error_on_no_tool_call=False) == []
    with pytest.raises(ValueError, match="calls no tool"):
        chef_llm().get_tool_calls_from_response(response)


def test_of_several_calls_the_first_is_kept_where_one_is_wanted() -> None:
    calls = [tool_call(name="get_weather", args={"location": each}, id=each) for each in ("Rome", "Oslo")]
    chat = FakeChat(reply=lambda messages, arguments: AIMessage("", tool_calls=calls))
    llm = RainLlamaIndexLLM(model=chat, judge=lambda text: 1.0)
    for is_parallel, wanted in ((False, ["Rome"]), (True, ["Rome", "Oslo"])):
        response = llm.chat_with_tools([WEATHER], user_msg=QUESTION, allow_parallel_tool_calls=is_parallel)
        assert [call.tool_id for call in llm.get_tool_calls_from_response(response)] == wanted


def test_a_choice_without_tools_is_an_error() -> None:
    for none in ("none", "auto", None):
        assert str(chef_llm().chat(ASKED, tool_choice=none).message.content) == DISH
    with pytest.raises(RainConfigError, match="tool_choice: without tools"):
        chef_llm().chat(ASKED, tool_choice="get_weather")


# --- Structured answers ----------------------------------------------------------------------------------------------


class Dish(BaseModel):
    """A dish."""

    dish: str


@pytest.mark.parametrize("has_tools", [True, False])
async def test_structured_answers_come_by_a_tool_or_as_json(has_tools: bool) -> None:
    llm = chef_llm() if has_tools else kitchen_llm(judge=lambda text: 1.0, model=_json_writer())
    wanted = Dish(dish="soup")
    template = PromptTemplate("What is for {meal}?")
    assert llm.structured_predict(Dish, template, meal="supper") == wanted
    assert await llm.astructured_predict(Dish, template, meal="supper") == wanted
    assert llm.as_structured_llm(Dish).chat([ChatMessage(content=QUESTION)]).raw == wanted


def _json_writer() -> Any:
    return Kitchen(['{"dish": "soup"}'], is_bad=lambda question: False)


async def test_a_judge_of_its_own_judges() -> None:
    llm = chef_llm(judge=letter_judge(is_marked))
    assert str((await llm.achat(ASKED)).message.content) == DISH
