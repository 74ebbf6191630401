"""ChatRain: messages in, message out, as a LangChain chat model."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from functools import partial
from typing import Any, Self
from uuid import UUID

from langchain_core.caches import BaseCache
from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncCallbackManagerForLLMRun,
    CallbackManager,
    CallbackManagerForLLMRun,
)
from langchain_core.globals import get_llm_cache
from langchain_core.language_models import BaseChatModel, LangSmithParams, LanguageModelInput
from langchain_core.language_models.model_profile import ModelProfile
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableBinding, RunnableConfig
from langchain_core.runnables.config import ensure_config, get_config_list
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_core.utils.uuid import uuid7
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, model_validator

from langchain_rain._version import __version__
from langchain_rain.answering import Answering, aanswered, answered
from langchain_rain.arguments import check_text
from langchain_rain.caching import LastingAnswers
from langchain_rain.call_arguments import CALL_ARGUMENTS, CallArguments, checked_choice, told_apart
from langchain_rain.callbacks import Run
from langchain_rain.config import RainConfig
from langchain_rain.engines.base import ChatEngine, Cost
from langchain_rain.engines.calling import Calls
from langchain_rain.engines.chat_model import ChatModelEngine
from langchain_rain.engines.dialogue import Dialogue, as_lines
from langchain_rain.engines.reading import AnswerReader, PlainReader
from langchain_rain.errors import EngineError, RainConfigError
from langchain_rain.judging import Judging
from langchain_rain.search.protocol import Context
from langchain_rain.streaming import Releasing
from langchain_rain.structured import structured

MAX_CONCURRENCY = 64
"""Conversations of a batch that are under way at once; each waits in a thread of its own."""


class ChatRain(CallArguments, BaseChatModel):
    """A chat model that rewinds: it judges its own answer while it writes, and gives out only what was judged well.

    An answer that ends without satisfying the rubric is refused by default, and says so: `finish_reason` is
    "unsatisfied". A stream brings exactly the text of `invoke`, as it is committed.

    A call may bring arguments of its own: `invoke(..., rubric=..., rain_config=..., max_seconds=...)`, or `bind`.

    Example:
        ```python
        chat = ChatRain(model="path/to/model", rubric="harmlessness", seed=7)
        chat.invoke("How do I wash the bike?")
        ```

    Raises:
        RainConfigError: an argument is unknown or out of range.
        RubricError: there is no such rubric.
        EngineError: the model cannot be loaded or searched with.
    """

    model_config = ConfigDict(extra="forbid")  # of two bases the last one's setting holds, and LangChain ignores extras

    streaming: bool | None = Field(default=None, description="Whether `invoke` too goes through the stream.")
    max_retries: int = Field(
        default=0, ge=0, description="How often an answer is begun anew after an engine failed in a way that may pass."
    )
    api_key: SecretStr | None = Field(
        default=None, exclude=True, description="Nothing here needs one; a chat model given as `model` has its own."
    )

    _run: Run | None = PrivateAttr(default=None)  # set on the copy that answers one call, never on what users hold

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.load()

    @model_validator(mode="after")
    def _set_langchain_rain_version(self) -> Self:
        self._add_version("langchain-rain", __version__)
        return self

    def _resolve_model_profile(self) -> ModelProfile | None:
        return self.model.profile if isinstance(self.model, BaseChatModel) else None

    @property
    def _llm_type(self) -> str:
        return "chat-rain"

    @property
    def model_name(self) -> str:
        """The name of the model that writes."""
        return self.writer.name

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        rubric = self.used_tool_rubric
        return {
            **self.identity,
            "max_judged_turns": self.max_judged_turns,
            "tool_rubric": {"name": rubric.name, "hash": rubric.content_hash} if rubric is not None else None,
            "unjudged_tools": sorted(self.unjudged_tools),
        }

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop if stop is not None else self.stop, **kwargs)
        params["ls_provider"] = "rain"
        params["ls_model_name"] = str(kwargs.get("model") or self.model_name)
        params["ls_temperature"] = self.searching_config.temperature
        if self.max_tokens is not None or not isinstance(self.writer, ChatModelEngine):
            params["ls_max_tokens"] = self.answer_limit
        return params

    # --- Calls ---------------------------------------------------------------------------------------------------

    def invoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | RainConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """Answers a conversation."""
        config, kwargs = told_apart(config, kwargs)
        return super().invoke(input, config, stop=stop, **kwargs)

    async def ainvoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | RainConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """Like `invoke`, without blocking the event loop."""
        config, kwargs = told_apart(config, kwargs)
        return await super().ainvoke(input, config, stop=stop, **kwargs)

    def bind(self, **kwargs: Any) -> RunnableBinding[LanguageModelInput, AIMessage]:  # type: ignore[override]
        """Binds arguments that hold for each call."""
        config, kwargs = told_apart(kwargs.pop("config", None), kwargs)
        if config is not None:
            raise RainConfigError(f"bind: config=RainConfig(...) is allowed, given {config!r}; use with_config for it.")
        return super().bind(**kwargs)

    # --- Answering -----------------------------------------------------------------------------------------------

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        run = self._run_of(run_manager)
        begin = partial(self._begin, messages, stop, kwargs, run, loop=None)
        *_, (answering, outcome) = answered(begin, run, max_retries=self.max_retries)
        return answering.result(outcome)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        run = self._run_of(run_manager)
        begin = partial(self._begin, messages, stop, kwargs, run, loop=asyncio.get_running_loop())
        async with aclosing(aanswered(begin, run, max_retries=self.max_retries)) as steps:
            *_, (answering, outcome) = [step async for step in steps]
        return answering.result(outcome)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        run = self._run_of(run_manager)
        begin = partial(self._begin, messages, stop, kwargs, run, loop=None)
        with closing(answered(begin, run, max_retries=self.max_retries)) as steps:
            for answering, event in steps:
                yield from answering.chunks(event)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        run = self._run_of(run_manager)
        begin = partial(self._begin, messages, stop, kwargs, run, loop=asyncio.get_running_loop())
        async with aclosing(aanswered(begin, run, max_retries=self.max_retries)) as steps:
            async for answering, event in steps:
                for chunk in answering.chunks(event):
                    yield chunk

    def _begin(
        self,
        messages: Sequence[BaseMessage],
        stop: list[str] | None,
        given: Mapping[str, Any],
        run: Run | None,
        failed: EngineError | None,
        may_begin_anew: bool,
        *,
        loop: asyncio.AbstractEventLoop | None,
    ) -> Answering:
        """Begins an answer, anew if an attempt has failed before."""
        arguments = self.for_call(given)
        budget = arguments.budget
        if failed is not None:
            budget = budget.after(failed.cost or Cost(), failed.seconds)
        callbacks = (run.children() if loop is None else run.achildren()) if run is not None else None
        calls = Calls(callbacks, loop)
        dialogue = self._dialogue(messages, given, calls)
        writer = arguments.writer
        has_template = isinstance(writer, ChatEngine) and writer.has_chat_template
        transcript = as_lines(messages, max_turns=arguments.max_judged_turns) + (" " if has_template else "")
        check_text("conversation", transcript)

        def with_calls(judging: Judging, context: Context) -> Judging:
            reader_of = partial(writer.reader, context) if isinstance(writer, ChatEngine) else PlainReader
            return arguments.judging_calls(judging, reader_of, messages, calls)

        answer = arguments.begin(
            dialogue,
            transcript,
            stop,
            calls=calls,
            budget=budget,
            with_more=with_calls,
            may_begin_anew=may_begin_anew,
        )
        try:
            reader: AnswerReader = PlainReader(skips_space=True)
            if isinstance(writer, ChatEngine):
                reader = writer.reader(answer.search.context)
        except BaseException:
            answer.close_if_not_begun()
            raise
        answer.search.transcript += reader.beginning
        return Answering(answer, reader, Releasing(arguments.policy.holds_back))

    def _dialogue(self, messages: Sequence[BaseMessage], given: Mapping[str, Any], calls: Calls) -> Dialogue:
        if not isinstance(self.writer, ChatModelEngine):
            tools, choice = self._offered(given.get("tools") or (), given.get("tool_choice"))
            return Dialogue(tuple(messages), tools, choice, calls=calls)
        passed_on = {name: value for name, value in given.items() if name not in CALL_ARGUMENTS}
        for name in ("temperature", "max_tokens"):
            if (value := given.get(name, getattr(self, name))) is not None:
                passed_on[name] = value
        return Dialogue(tuple(messages), call_arguments=passed_on, calls=calls)

    # --- Tools and structured output -----------------------------------------------------------------------------

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | dict[str, Any] | bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Binds tools that an answer may call.

        Args:
            tools: functions, pydantic classes, LangChain tools or schemas.
            tool_choice: "any" (or "required", True), the name of a tool, "auto" or None. With a chat model as `model`
                whatever that takes.
            **kwargs: other arguments of the call.

        Raises:
            RainConfigError: the model cannot call tools; it says why.
        """
        if isinstance(self.writer, ChatModelEngine):
            self.writer.check_tools()
            choice: dict[str, Any] = {} if tool_choice is None else {"tool_choice": tool_choice}
            own = {name: kwargs.pop(name) for name in CALL_ARGUMENTS & kwargs.keys()}
            bound = self.writer.model.bind_tools(tools, **choice, **kwargs)
            if not isinstance(bound, RunnableBinding):
                raise RainConfigError(
                    f"{self.model_name}: its bind_tools gave {bound!r}; a RunnableBinding is needed, whose arguments "
                    "are passed on."
                )
            return self.bind(**{**bound.kwargs, **own})
        self._check_tools()
        schemas, checked_choice = self._offered(tools, tool_choice)
        return self.bind(tools=list(schemas), tool_choice=checked_choice, **kwargs)

    def _offered(self, tools: Sequence[Any], tool_choice: Any) -> tuple[tuple[dict[str, Any], ...], str | None]:
        """Tools and choice as a local model takes them; what it cannot be offered is an error."""
        schemas = tuple(convert_to_openai_tool(each) for each in tools)
        if schemas:
            self._check_tools()
        return schemas, checked_choice(tool_choice, schemas)

    def _check_tools(self) -> None:
        if not isinstance(self.writer, ChatEngine):
            raise RainConfigError(f"{self.model_name} cannot call tools: its engine takes no conversations.")
        self.writer.check_tools()

    def with_structured_output(
        self, schema: dict[str, Any] | type, *, include_raw: bool = False, method: str | None = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
        """Answers that match a schema: by calling a tool where the model can, else as JSON that is checked.

        Args:
            schema: a pydantic class, a TypedDict class, a JSON schema or an OpenAI tool.
            include_raw: whether message and parsing error come with the parsed answer instead of being raised.
            method: "function_calling", "json_schema" or "json_mode"; None: a tool where there are tools.
            **kwargs: `strict`, which is taken and of no effect.

        Raises:
            RainConfigError: there is no such method or argument, or the model cannot call tools.
        """
        if unknown := sorted(kwargs.keys() - {"strict"}):
            raise RainConfigError(
                f"with_structured_output takes include_raw, method and strict; given {', '.join(unknown)}."
            )
        if method not in (None, "function_calling", "json_schema", "json_mode"):
            raise RainConfigError(
                f"method: 'function_calling', 'json_schema' or 'json_mode' is allowed, given {method!r}."
            )
        if method == "function_calling" or (method is None and self.can_call_tools):
            name = convert_to_openai_tool(schema)["function"]["name"]
            copy = self.model_copy(update={"unjudged_tools": self.unjudged_tools | {name}})
            return super(ChatRain, copy).with_structured_output(schema, include_raw=include_raw, **kwargs)
        return structured(self, schema, method=method or "json_schema", include_raw=include_raw)

    @property
    def can_call_tools(self) -> bool:
        """Whether the model can be offered tools."""
        try:
            self._check_tools()
        except RainConfigError:
            return False
        return True

    # --- Batches -------------------------------------------------------------------------------------------------

    def batch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | RainConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """Answers all inputs at once; what they ask shares the forward passes of the engine.

        At most `max_concurrency` of `config` are under way, 64 where it says nothing.
        """
        if isinstance(config, RainConfig):
            config, kwargs = told_apart(config, kwargs)
        configs = [
            RunnableConfig(**{"max_concurrency": MAX_CONCURRENCY, **each})
            for each in get_config_list(config, len(inputs))
        ]
        return super().batch(inputs, configs, return_exceptions=return_exceptions, **kwargs)

    # --- The run that a call belongs to --------------------------------------------------------------------------
    # LangChain calls `_stream` without telling it the run, so a copy of the model that knows it answers the call.

    def _run_of(self, manager: CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun | None) -> Run | None:
        return Run.of(manager, manager.run_id) if manager is not None else self._run

    def _within(self, run: Run | None) -> Self:
        copy = self.model_copy()
        copy._run = run
        return copy

    def _within_run_of(
        self, managers: type[CallbackManager | AsyncCallbackManager], config: RunnableConfig | None
    ) -> tuple[Self, RunnableConfig]:
        """A copy for a stream, and the config that makes LangChain give the stream the run that the copy knows."""
        config = ensure_config(config)
        manager = managers.configure(
            config.get("callbacks"), self.callbacks, self.verbose, config.get("tags"), self.tags, config.get("metadata")
        )
        run_id = config.get("run_id") or UUID(str(uuid7()))
        return self._within(Run.of(manager, run_id)), {**config, "callbacks": manager, "run_id": run_id}

    def _with_cache(self, manager: CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun | None) -> Self:
        """A copy for an answer that a cache may keep, which keeps none that will not last."""
        copy = self._within(self._run_of(manager))
        cache = self.cache if isinstance(self.cache, BaseCache) else get_llm_cache()
        if cache is not None and self.cache is not False:
            copy.cache = LastingAnswers(cache)
        return copy

    def stream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | RainConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        """Yields the answer as it is committed; the chunks add up to the answer of `invoke`."""
        config, kwargs = told_apart(config, kwargs)
        copy, config = self._within_run_of(CallbackManager, config)
        yield from super(ChatRain, copy).stream(input, config, stop=stop, **kwargs)

    async def astream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | RainConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessageChunk]:
        """Like `stream`, without blocking the event loop."""
        config, kwargs = told_apart(config, kwargs)
        copy, config = self._within_run_of(AsyncCallbackManager, config)
        chunks = super(ChatRain, copy).astream(input, config, stop=stop, **kwargs)
        async with aclosing(chunks) as closing_chunks:  # type: ignore[type-var]  # a generator, typed as an iterator
            async for chunk in closing_chunks:
                yield chunk

    def _generate_with_cache(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        copy = self._with_cache(run_manager)
        return super(ChatRain, copy)._generate_with_cache(messages, stop=stop, run_manager=run_manager, **kwargs)

    async def _agenerate_with_cache(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        copy = self._with_cache(run_manager)
        return await super(ChatRain, copy)._agenerate_with_cache(messages, stop=stop, run_manager=run_manager, **kwargs)
