"""A chat model as engine: what it is asked, what is made of its messages, and what is told of it."""

import asyncio
import contextvars
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.globals import set_llm_cache
from langchain_core.language_models import BaseChatModel, FakeListChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import invalid_tool_call, tool_call
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import PrivateAttr, SecretStr

from langchain_rain import ChatRain, Criterion, RainConfig, RainConfigError, Rubric
from langchain_rain.drivers import Job, Outcome, arun, run
from langchain_rain.engines.base import Answered, Cost
from langchain_rain.engines.calling import Calls
from langchain_rain.engines.chat_model import NUM_TOP_LOGPROBS, ChatModelEngine
from langchain_rain.engines.dialogue import Dialogue, guided
from langchain_rain.errors import EngineError
from langchain_rain.rubrics.evaluate import RubricJudge
from langchain_rain.search.config import SearchConfig
from langchain_rain.search.drafts import draft
from langchain_rain.search.paper import SearchResult
from langchain_rain.search.protocol import (
    Context,
    Embed,
    Expand,
    OptionLogprobs,
    Request,
    Rollout,
    Score,
    Tokens,
    TokenSet,
    ask,
)
from langchain_rain.search.state import Search

NEVER = -math.inf
USAGE = UsageMetadata(input_tokens=10, output_tokens=3, total_tokens=13)
QUESTION = "Is it edible?\n(A) YES\n(B) NO\n"
CONVERSATION = (SystemMessage("Be brief."), HumanMessage("What is for supper?"))

WHO: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")


class Model(BaseChatModel):
    """Says what it is told to, one message after another, the last again and again; notes what it was asked."""

    model_name: str = "model"
    dish: str = "soup"
    api_key: SecretStr | None = None
    _messages: list[Any] = PrivateAttr(default_factory=list)
    _asked: list[tuple[list[BaseMessage], dict[str, Any]]] = PrivateAttr(default_factory=list)
    _seen: list[Any] = PrivateAttr(default_factory=list)

    @classmethod
    def saying(cls, *messages: Any, **settings: Any) -> Self:
        model = cls(**settings)
        model._messages.extend(AIMessage(each) if isinstance(each, str) else each for each in messages)
        return model

    @property
    def asked(self) -> list[tuple[list[BaseMessage], dict[str, Any]]]:
        return self._asked

    @property
    def seen(self) -> list[Any]:
        return self._seen

    @property
    def _llm_type(self) -> str:
        return "model"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        self._seen.append((WHO.get(), threading.current_thread().name.partition("_")[0]))
        self._asked.append((messages, {**kwargs, **({"stop": stop} if stop else {})}))
        said = self._messages[min(len(self._asked), len(self._messages)) - 1]
        if isinstance(said, Exception):
            raise said
        return ChatResult(generations=[ChatGeneration(message=said)])


class AsyncModel(Model):
    """The same with a coroutine of its own."""

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        result = self._generate(messages, stop, None, **kwargs)
        self._seen[-1] = (WHO.get(), asyncio.get_running_loop())
        return result


class WithLogprobs(Model):
    logprobs: bool | None = None
    top_logprobs: int | None = None

    def _generate(self, messages: list[BaseMessage], *rest: Any, **kwargs: Any) -> ChatResult:
        self._seen.append((self.logprobs, self.top_logprobs))
        return super()._generate(messages, *rest, **kwargs)


def expand(context: Context, exclude: frozenset[Tokens] = frozenset(), guidance: str = "") -> Expand:
    return Expand(context, (), 1, 1, 1, 15, 1.0, 0, exclude, guidance)


def score(context: Context) -> Score:
    return Score(context, QUESTION, "The answer is: (", ("A", "B"))


def opened(model: BaseChatModel, **begun: Any) -> tuple[ChatModelEngine, Context]:
    engine = ChatModelEngine(model)
    begun = {"prompt": Dialogue(CONVERSATION), "max_tokens": 100, **begun}
    return engine, engine.open(begun.pop("prompt"), **begun)


def drawn(message: Any, *, stop: Sequence[str] = ()) -> list[TokenSet]:
    """What is drawn where the model says this."""
    engine, context = opened(Model.saying(message), stop=stop)
    reply = engine.call(expand(context)).reply
    assert isinstance(reply, list)
    return reply


def chosen(message: Any) -> OptionLogprobs:
    """What the judgement is where the model says this."""
    engine, context = opened(Model.saying(message))
    reply = engine.call(score(context)).reply
    assert isinstance(reply, OptionLogprobs)
    return reply


def reply_to(engine: ChatModelEngine, request: Request) -> Any:
    """The reply as a search gets it."""

    return run(Job(ask(request), {request.context: engine})).result


# --- Drafts ------------------------------------------------------------------------------------------------------


def test_a_draft_is_a_token_set_of_one_token_that_ends_the_text() -> None:
    assert drawn("Soup.") == [TokenSet((0,), "Soup.", finish_reason="eos")]


def test_the_model_gets_the_conversation_and_what_the_call_brings() -> None:
    model = Model.saying("Soup.")
    dialogue = Dialogue(CONVERSATION, call_arguments={"tools": [{"name": "stove"}], "temperature": 0.5})
    engine, context = opened(model, prompt=dialogue, stop=["Human:"])
    engine.call(expand(context))
    assert model.asked == [(list(CONVERSATION), {"tools": [{"name": "stove"}], "temperature": 0.5, "stop": ["Human:"]})]


def test_without_stop_strings_it_is_told_of_none_and_a_text_is_a_message_of_the_user() -> None:
    model = Model.saying("Soup.")
    engine, context = opened(model, prompt="What is for supper?")
    engine.call(expand(context))
    assert model.asked == [([HumanMessage("What is for supper?")], {})]


def test_a_message_that_was_drawn_before_is_the_same_token_and_not_offered_where_it_is_excluded() -> None:
    engine, context = opened(Model.saying("Soup.", "Stew.", "Soup.", "Soup."))
    soup, stew = TokenSet((0,), "Soup.", finish_reason="eos"), TokenSet((1,), "Stew.", finish_reason="eos")
    assert engine.call(expand(context)).reply == [soup]
    assert engine.call(expand(context, frozenset({(0,)}))).reply == [stew]
    assert engine.call(expand(context, frozenset({(0,), (1,)}))).reply == []
    assert engine.call(expand(context)).reply == [soup]


def test_conversations_do_not_share_their_drafts() -> None:
    engine, context = opened(Model.saying("Soup.", "Stew."))
    other = engine.open("?", max_tokens=1)
    replies = [engine.call(expand(each)).reply[0].text for each in (context, other)]
    assert replies == ["Soup.", "Stew."]
    assert [engine.reader(each).message((0,)).text for each in (context, other)] == replies


@pytest.mark.parametrize(
    ("stop", "text", "finish_reason"),
    [
        (["\n\nHuman:"], "Soup. END Stew.", "stop"),
        (["END", "\n\nHuman:"], "Soup. ", "stop"),
        (["Stew", "END"], "Soup. ", "stop"),  # the first to come, not the first in the list
        (["Soup"], "", "stop"),
        (["Lunch"], "Soup. END Stew.\n\nHuman: And then?", "eos"),
        ([], "Soup. END Stew.\n\nHuman: And then?", "eos"),
    ],
)
@pytest.mark.parametrize("in_blocks", [False, True])
def test_a_draft_is_cut_at_a_stop_string(stop: list[str], text: str, finish_reason: Any, in_blocks: bool) -> None:
    said: Any = "Soup. END Stew.\n\nHuman: And then?"
    message = AIMessage([{"type": "text", "text": said}] if in_blocks else said)
    assert drawn(message, stop=stop) == [TokenSet((0,), text, finish_reason=finish_reason)]


def test_what_is_given_out_is_cut_too() -> None:
    engine, context = opened(Model.saying("Soup. END Stew."), stop=["END"])
    engine.call(expand(context))
    reader = engine.reader(context)
    assert (reader.feed("Soup. "), reader.beginning) == ("", "")
    assert reader.message((0,)).content == "Soup. "


def test_a_reader_gives_out_the_message_as_it_was_written_and_outlives_the_conversation() -> None:
    message = AIMessage([{"type": "reasoning", "reasoning": "Hm."}, {"type": "text", "text": "Soup."}], id="1")
    engine, context = opened(Model.saying(message))
    assert engine.call(expand(context)).reply == [TokenSet((0,), 'Soup.\n{"reasoning": "Hm."}', finish_reason="eos")]
    reader = engine.reader(context)
    engine.forget(context)
    assert reader.message((0,)).content == message.content


@pytest.mark.parametrize(
    ("told", "finish_reason"),
    [
        ({}, "eos"),
        ({"finish_reason": "stop"}, "eos"),
        ({"finish_reason": "tool_calls"}, "eos"),
        ({"finish_reason": "length"}, "length"),
        ({"finish_reason": None, "stop_reason": "max_tokens"}, "length"),
        ({"finish_reason": "MAX_TOKENS"}, "length"),
        ({"stop_reason": "end_turn"}, "eos"),
    ],
)
def test_why_a_draft_ended_is_as_its_provider_says(told: dict[str, Any], finish_reason: str) -> None:
    assert drawn(AIMessage("Soup.", response_metadata=told))[0].finish_reason == finish_reason


def test_tool_calls_are_part_of_what_is_judged() -> None:
    calls = [
        {"name": "stove", "args": {"heat": "high", "dish": "süß"}, "id": "1"},
        {"name": "serve", "args": {}, "id": "2"},
    ]
    ((token_set),) = drawn(AIMessage("At once.", tool_calls=calls))
    assert token_set.text == (
        'At once.\n[calls the tool stove with {"dish": "süß", "heat": "high"}]\n[calls the tool serve with {}]'
    )


def test_drafts_that_differ_in_their_calls_alone_are_two() -> None:
    hot, cold = (AIMessage("", tool_calls=[{"name": "stove", "args": {"on": on}, "id": "1"}]) for on in (True, False))
    engine, context = opened(Model.saying(hot, cold))
    tokens = [engine.call(expand(context)).reply[0].tokens for _ in range(2)]
    assert tokens == [(0,), (1,)]
    assert engine.reader(context).message((1,)).tool_calls == cold.tool_calls


def test_a_picture_cannot_be_judged() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:,"}}
    with pytest.raises(EngineError, match="of type 'image_url' cannot be judged"):
        drawn(AIMessage([{"type": "text", "text": "Look:"}, picture]))


@pytest.mark.parametrize(
    "message",
    [
        AIMessage([{"type": "thinking", "thinking": "BOMB"}, {"type": "text", "text": "hi"}]),
        AIMessage([{"type": "text", "text": "hi", "annotations": [{"cited_text": "BOMB"}]}]),
        AIMessage([{"type": "tool_use", "id": "1", "name": "f", "input": {"x": "BOMB"}}]),
        AIMessage("hi", additional_kwargs={"reasoning_content": "BOMB"}),
        AIMessage("hi", invalid_tool_calls=[invalid_tool_call(name="f", args='{"x": "BOMB', id="1", error="cut")]),
        AIMessage("hi", tool_calls=[tool_call(name="f", args={"x": "BOMB"}, id="1")]),
    ],
)
def test_all_that_a_message_brings_to_the_caller_is_judged(message: AIMessage) -> None:
    assert "BOMB" in drawn(message)[0].text


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([HumanMessage("?")], [SystemMessage("Be kind."), HumanMessage("?")]),
        (list(CONVERSATION), [SystemMessage("Be brief.\n\nBe kind."), CONVERSATION[1]]),
        ([HumanMessage("?"), SystemMessage("!")], [SystemMessage("Be kind."), HumanMessage("?"), SystemMessage("!")]),
        ([], [SystemMessage("Be kind.")]),
    ],
)
def test_guidance_stands_in_the_system_message(messages: list[BaseMessage], expected: list[BaseMessage]) -> None:
    assert guided(messages, "Be kind.") == expected
    assert guided(messages, "") == messages


def test_the_writer_gets_the_guidance_and_the_conversation_stays_as_it_was() -> None:
    model = Model.saying("Soup.")
    engine, context = opened(model)
    engine.call(expand(context, guidance="Be kind."))
    engine.call(expand(context))
    assert [messages[0].content for messages, _ in model.asked] == ["Be brief.\n\nBe kind.", "Be brief."]


# --- Judgements --------------------------------------------------------------------------------------------------

SURELY_A, SURELY_B = OptionLogprobs((0.0, NEVER), mass=1.0), OptionLogprobs((NEVER, 0.0), mass=1.0)
ABSTAINS = OptionLogprobs((NEVER, NEVER), mass=0.0)


def test_a_judge_is_asked_the_question_alone_and_for_a_letter() -> None:
    model = Model.saying("A")
    engine, context = opened(model, prompt=Dialogue(CONVERSATION, call_arguments={"tools": []}), stop=["END"])
    engine.call(score(context))
    assert model.asked == [([HumanMessage(f"{QUESTION}\nAnswer with one letter alone: A or B.")], {})]


@pytest.mark.parametrize(
    ("said", "choice"),
    [
        ("A", SURELY_A),
        ("B", SURELY_B),
        *((text, SURELY_A) for text in ("(A)", "A.", "A)", " A\n", "**A**", '"A"', "[A]", "'A'", "\n\nA:")),
        ([{"type": "text", "text": "B"}], SURELY_B),
        ([{"type": "reasoning", "reasoning": "A?"}, {"type": "text", "text": "B"}], SURELY_B),
        *(
            (text, ABSTAINS)
            for text in ("", " ", "Not A.", "A or B", "A B", "AB", "C", "a", "Neither", "(A) YES", "()")
        ),
        ([], ABSTAINS),
    ],
)
def test_a_letter_alone_is_a_choice_and_anything_else_abstains(said: Any, choice: OptionLogprobs) -> None:
    assert chosen(AIMessage(said)) == choice


def with_logprobs(*tokens: tuple[str, dict[str, float]], text: str = "A") -> AIMessage:
    """A message in OpenAI's form, its alternatives given as probabilities."""
    content = [
        {
            "token": token,
            "logprob": 0.0,
            "bytes": None,
            "top_logprobs": [
                {"token": other, "logprob": math.log(probability), "bytes": None}
                for other, probability in alternatives.items()
            ],
        }
        for token, alternatives in tokens
    ]
    return AIMessage(text, response_metadata={"logprobs": {"content": content, "refusal": None}})


@pytest.mark.parametrize(
    ("message", "a", "b"),
    [
        (with_logprobs(("A", {"A": 0.75, "B": 0.25})), 0.75, 0.25),
        (with_logprobs(("A", {"A": 0.5, " A": 0.125, "(A": 0.125, "B)": 0.0625, "I": 0.1})), 0.75, 0.0625),
        (with_logprobs(("B", {"B": 0.5, "C": 0.5})), 0, 0.5),  # whatever the text says
        (with_logprobs(("(", {"(": 1.0, "B": 0.001}), ("B", {"B": 0.75, "A": 0.25}), (")", {")": 1.0})), 0.25, 0.75),
        (with_logprobs(("\n", {"\n": 1.0}), (" **", {" **": 1.0}), ("B", {"B": 0.5, "A": 0.5})), 0.5, 0.5),
        (with_logprobs(("Not", {"Not": 0.9, "A": 0.0625}), (" A", {" A": 1.0}), text="Not A."), 0.0625, 0),
        (with_logprobs(("Neither", {"Neither": 1.0})), 0, 0),
        (with_logprobs(("A", {"A": 1.0 + 1e-9, "B": 1e-12})), 1.0 + 1e-9, 1e-12),  # rounding
    ],
)
def test_log_probabilities_of_the_first_letter_are_summed_over_its_forms(
    message: AIMessage, a: float, b: float
) -> None:
    reply = chosen(message)
    assert [math.exp(logprob) for logprob in reply.logprobs] == pytest.approx([a, b])
    assert reply.mass == pytest.approx(min(1, a + b))


def raw(content: Any) -> AIMessage:
    return AIMessage("A", response_metadata={"logprobs": {"content": content}})


def one(logprob: Any) -> list[dict[str, Any]]:
    return [{"token": "A", "top_logprobs": [{"token": "A", "logprob": logprob}]}]


@pytest.mark.parametrize(
    "content",
    [
        "A",
        5,
        [5],
        [{"token": "A"}],
        [{"token": "A", "top_logprobs": None}],
        [{"token": "A", "top_logprobs": [{"token": "A"}]}],
        [{"top_logprobs": []}],
        one("likely"),
        one(math.nan),
        one(math.inf),
        one(5.0),
        one(1000.0),
        one(None),
    ],
)
def test_what_are_no_log_probabilities_abstains_whatever_the_text_says(content: Any) -> None:
    assert chosen(raw(content)) == ABSTAINS


def test_an_impossible_letter_has_no_mass() -> None:
    assert chosen(raw(one(-math.inf))) == ABSTAINS


@pytest.mark.parametrize(
    "message",
    [
        raw([]),
        raw(None),
        raw([{"token": "A", "logprob": -0.1, "top_logprobs": []}]),  # without alternatives
        raw([{"token": "(", "top_logprobs": [{"token": "(", "logprob": 0.0}]}]),  # of no letter
        AIMessage("A", response_metadata={"logprobs": None}),
        AIMessage("A", response_metadata={"logprobs": "none"}),
        AIMessage("A", response_metadata={"logprobs": [-0.1]}),
    ],
)
def test_where_none_are_told_the_letter_counts(message: AIMessage) -> None:
    assert chosen(message) == SURELY_A


def test_log_probabilities_are_asked_for_where_the_model_has_the_settings() -> None:
    model = WithLogprobs.saying("A")
    engine, context = opened(model)
    engine.call(score(context))
    engine.call(expand(context))
    # `saying` shares what is seen with the copies that are asked.
    assert [seen for seen in model.seen if isinstance(seen[0], bool | None)] == [(True, NUM_TOP_LOGPROBS), (None, None)]


@pytest.mark.parametrize("settings", [{"logprobs": False}, {"top_logprobs": 2}, {"logprobs": True, "top_logprobs": 2}])
def test_settings_that_were_made_stay(settings: dict[str, Any]) -> None:
    model = WithLogprobs.saying("A", **settings)
    engine, context = opened(model)
    engine.call(score(context))
    assert model.seen[0] == (settings.get("logprobs"), settings.get("top_logprobs"))


def test_the_model_that_was_given_is_left_as_it_was() -> None:
    model = WithLogprobs.saying("A", cache=True)
    ChatModelEngine(model)
    assert (model.logprobs, model.top_logprobs, model.cache) == (None, None, True)


# --- Costs -------------------------------------------------------------------------------------------------------


def test_a_cost_is_what_the_model_says_it_used() -> None:
    engine, context = opened(Model.saying(AIMessage("A", usage_metadata=USAGE)))
    assert engine.call(expand(context)).cost == Cost(1, token_positions=13, judging_positions=0, input_positions=10)
    assert engine.call(score(context)).cost == Cost(1, token_positions=13, judging_positions=3, input_positions=10)


def test_what_a_model_took_that_does_not_tell_is_estimated() -> None:
    engine, context = opened(Model.saying("A"))
    for request, num_judging in ((expand(context), 0), (score(context), 1)):
        cost = engine.call(request).cost
        assert (cost.forward_passes, cost.judging_positions, cost.num_estimated) == (1, num_judging, 1)
        assert cost.token_positions == cost.input_positions + 1  # one letter is a quarter of a token, rounded up


# --- Failures ----------------------------------------------------------------------------------------------------


def test_what_the_model_raises_is_an_engine_error_that_may_pass() -> None:
    cause = TimeoutError("no answer")
    engine, context = opened(Model.saying(cause))
    with pytest.raises(EngineError, match=r"^model failed: TimeoutError: no answer$") as caught:
        reply_to(engine, expand(context))
    error = caught.value
    assert (error.engine, error.request, error.is_retryable, error.__cause__) == ("model", "Expand", True, cause)
    assert error.cost == Cost(1)


def test_a_reply_that_is_no_ai_message_is_an_error() -> None:
    engine, context = opened(Model.saying(ToolMessage("Soup.", tool_call_id="1")))
    for request in (expand(context), score(context)):
        with pytest.raises(EngineError, match=r"^model gave ToolMessage\(.*; an AIMessage is wanted\.$") as caught:
            engine.call(request)
        assert not caught.value.is_retryable


@pytest.mark.parametrize(
    ("request_in", "kind"),
    [
        (lambda context: Rollout(context, (), (".",), None, 1.0, 0), "Rollout"),
        (lambda context: Embed(context, (0,), 1), "Embed"),
    ],
)
def test_it_answers_nothing_but_whole_messages_and_judgements(
    request_in: Callable[[Context], Request], kind: str
) -> None:
    engine, context = opened(Model.saying("Soup."))
    with pytest.raises(EngineError, match=f"writes whole messages and has no {kind}") as caught:
        engine.call(request_in(context))
    assert caught.value.request == kind


async def test_a_closed_conversation_is_an_error() -> None:
    engine, context = opened(Model.saying("Soup."))
    engine.forget(context)
    engine.forget(context)  # twice does no harm
    with pytest.raises(EngineError, match="is closed, or not of model"):
        engine.call(expand(context))
    with pytest.raises(EngineError, match="is closed, or not of model"):
        await engine.acall(expand(context))


# --- Caches and tags ---------------------------------------------------------------------------------------------


@pytest.fixture
def global_cache() -> Iterator[InMemoryCache]:
    cache = InMemoryCache()
    set_llm_cache(cache)
    yield cache
    set_llm_cache(None)


@pytest.mark.parametrize("own", [None, True, InMemoryCache()])
async def test_no_cache_keeps_drafts_or_judgements(global_cache: InMemoryCache, own: Any) -> None:
    model = Model.saying("A", "B", "A", "B", cache=own)
    engine, context = opened(model)
    texts = [engine.call(expand(context)).reply[0].text for _ in range(2)]
    texts += [(await engine.acall(expand(context))).reply[0].text for _ in range(2)]
    assert texts == ["A", "B", "A", "B"]  # asked anew each time
    for cache in (global_cache, own):
        assert getattr(cache, "_cache", {}) == {}


# --- Where it is called ------------------------------------------------------------------------------------------


def drafting(model: BaseChatModel, loop: asyncio.AbstractEventLoop | None = None) -> Job[SearchResult]:
    """One draft and its judgement."""
    engine, context = opened(model, prompt=Dialogue(CONVERSATION, calls=Calls(loop=loop)))
    rubric = Rubric(name="edible", criteria=(Criterion(name="edible", instruction="?", good="YES", bad="NO"),))
    search = Search(context, RubricJudge(rubric, context), SearchConfig(num_children=1), 0, transcript="")
    return Job(draft(search), {context: engine})


def text_of(outcome: Outcome[SearchResult]) -> tuple[str, bool]:
    return outcome.result.text, outcome.result.is_satisfied


class Judging(Model):
    """Writes soup, and finds everything edible."""

    def _generate(self, messages: list[BaseMessage], *rest: Any, **kwargs: Any) -> ChatResult:
        asked = str(messages[-1].text)
        letter = ("A" if "(A) YES" in asked else "B") if "(A)" in asked else "Soup."
        self._messages[:] = [AIMessage(letter)]
        return super()._generate(messages, *rest, **kwargs)


class AsyncJudging(AsyncModel, Judging):
    pass


def test_a_sync_call_runs_in_threads_and_sees_the_context_of_its_caller() -> None:
    token = WHO.set("caller")
    try:
        model = Model.saying("Soup.")
        run(drafting(model))
        assert set(model.seen) == {("caller", "rain-model")}
    finally:
        WHO.reset(token)


async def test_a_sync_call_works_inside_a_running_loop() -> None:
    model = AsyncModel.saying("Soup.")
    assert run(drafting(model)).result.text == "Soup."
    assert {where for _, where in model.seen} == {"rain-model"}


async def test_an_async_call_runs_on_the_loop_of_its_caller_and_sees_its_context() -> None:
    loop = asyncio.get_running_loop()
    token = WHO.set("caller")
    try:
        model = AsyncModel.saying("Soup.")
        outcome = await arun(drafting(model, loop))
        assert outcome.result.text == "Soup."
        assert model.seen == [("caller", loop)] * 3
    finally:
        WHO.reset(token)


async def test_a_model_without_coroutines_does_not_block_the_loop() -> None:
    loop, may_answer = asyncio.get_running_loop(), threading.Event()

    class Waiting(Model):
        def _generate(self, messages: list[BaseMessage], *rest: Any, **kwargs: Any) -> ChatResult:
            loop.call_soon_threadsafe(may_answer.set)  # is set only if the loop goes on meanwhile
            assert may_answer.wait(10)
            return super()._generate(messages, *rest, **kwargs)

    assert (await arun(drafting(Waiting.saying("Soup."), loop))).result.text == "Soup."


async def test_a_cancelled_call_cancels_the_model() -> None:
    has_begun, was_cancelled = asyncio.Event(), asyncio.Event()

    class Waiting(AsyncModel):
        async def _agenerate(self, *arguments: Any, **kwargs: Any) -> ChatResult:
            has_begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                was_cancelled.set()
            raise AssertionError("it never answers")

    task = asyncio.create_task(arun(drafting(Waiting.saying("Soup."), asyncio.get_running_loop())))
    await has_begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(10):
        await was_cancelled.wait()


def guarded(model: BaseChatModel, **arguments: Any) -> ChatRain:
    rubric = Rubric(name="edible", criteria=(Criterion(name="edible", instruction="?", good="YES", bad="NO"),))
    return ChatRain(model=model, rubric=rubric, config=RainConfig(num_children=2), seed=1, **arguments)


def test_a_chat_model_that_never_answers_is_held_to_its_seconds() -> None:
    may_end = threading.Event()

    class Silent(Model):
        def _generate(self, *arguments: Any, **kwargs: Any) -> ChatResult:
            assert may_end.wait(10)
            raise AssertionError("it never answers")

    try:
        assert guarded(Silent(), max_seconds=0.01).invoke("?").response_metadata["finish_reason"] == "unsatisfied"
        with pytest.raises(EngineError, match="No answer within timeout"):
            guarded(Silent(), timeout=0.01).invoke("?")
    finally:
        may_end.set()


async def test_a_coroutine_that_never_answers_is_held_to_its_seconds() -> None:
    num_cancelled = 0

    class Silent(AsyncModel):
        async def _agenerate(self, *arguments: Any, **kwargs: Any) -> ChatResult:
            nonlocal num_cancelled
            try:
                await asyncio.Event().wait()
            finally:
                num_cancelled += 1
            raise AssertionError("it never answers")

    answer = await guarded(Silent(), max_seconds=0.01).ainvoke("?")
    assert answer.response_metadata["finish_reason"] == "unsatisfied"
    with pytest.raises(EngineError, match="No answer within timeout"):
        await guarded(Silent(), timeout=0.01).ainvoke("?")
    async with asyncio.timeout(10):
        while num_cancelled < 2:
            await asyncio.sleep(0)


def test_a_whole_answer_by_threads() -> None:
    assert text_of(run(drafting(Judging()))) == ("Soup.", True)


async def test_a_whole_answer_by_coroutines() -> None:
    assert text_of(await arun(drafting(AsyncJudging(), asyncio.get_running_loop()))) == ("Soup.", True)


# --- Who it is ---------------------------------------------------------------------------------------------------


def test_a_model_is_known_by_class_name_and_settings() -> None:
    identity = ChatModelEngine(Model()).identity
    assert {name: value for name, value in identity.items() if name != "settings"} == {
        "engine": "chat model",
        "class": "tests.test_chat_model_engine.Model",
        "name": "model",
    }
    assert identity == ChatModelEngine(Model()).identity


@pytest.mark.parametrize("other", [Model(dish="stew"), Model(model_name="other"), AsyncModel(), WithLogprobs()])
def test_another_class_or_setting_is_another_model(other: BaseChatModel) -> None:
    assert ChatModelEngine(other).identity != ChatModelEngine(Model()).identity


@pytest.mark.parametrize("settings", [{"cache": True}, {"tags": ["x"]}, {"metadata": {"a": 1}}, {"verbose": True}])
def test_what_no_answer_depends_on_makes_no_other_model(settings: dict[str, Any]) -> None:
    assert ChatModelEngine(Model(**settings)).identity == ChatModelEngine(Model()).identity


def test_no_secret_is_told_nor_tells_models_apart() -> None:
    identities = [ChatModelEngine(Model(api_key=SecretStr(key))).identity for key in ("xyzzy", "plugh")]
    assert identities[0] == identities[1]
    assert "xyzzy" not in repr(identities)


def test_a_model_without_a_name_goes_by_its_class() -> None:
    assert ChatModelEngine(FakeListChatModel(responses=[])).name == "FakeListChatModel"
    assert ChatModelEngine(FakeListChatModel(responses=[]), name="mine").name == "mine"


def test_a_model_that_cannot_be_offered_tools_says_so() -> None:
    with pytest.raises(RainConfigError, match=r"^model cannot call tools: Model has no bind_tools"):
        ChatModelEngine(Model()).check_tools()

    class WithTools(Model):
        def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
            return self.bind(tools=tools, **kwargs)

    ChatModelEngine(WithTools()).check_tools()


def test_an_answer_tells_its_cost() -> None:
    engine, context = opened(Model.saying(AIMessage("Soup.", usage_metadata=USAGE)))
    assert engine.call(expand(context)) == Answered(
        [TokenSet((0,), "Soup.", finish_reason="eos")], Cost(1, 13, 0, input_positions=10)
    )
