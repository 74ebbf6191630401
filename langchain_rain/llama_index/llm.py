"""RainLlamaIndexLLM: RAIN as an LLM of LlamaIndex."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
    MessageRole,
    ToolCallBlock,
)
from llama_index.core.constants import DEFAULT_CONTEXT_WINDOW
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.tools.types import BaseTool
from pydantic import ConfigDict, Field, PrivateAttr, SecretStr, ValidationError

from langchain_rain.arguments import RainArguments
from langchain_rain.chat_models import ChatRain
from langchain_rain.engines.loading import completions_engine
from langchain_rain.errors import RainConfigError, describe_mistakes
from langchain_rain.llama_index.answers import Answers
from langchain_rain.llama_index.completions import Continuations, acompletions_of, completion_of, completions_of
from langchain_rain.llama_index.messages import arguments_of
from langchain_rain.llms import RainLLM
from langchain_rain.rubrics import Rubric

UNBOUNDED_CONTEXT = 2**31
"""What an engine says that does not know how many tokens it takes."""


class RainLlamaIndexLLM(FunctionCallingLLM):
    """An LLM of LlamaIndex that rewinds: it judges its own answer while it writes, and gives out only what was good.

    It takes the arguments of `ChatRain`, which answers, and those of every LLM of LlamaIndex (`callback_manager`,
    `system_prompt`, `messages_to_prompt`, `completion_to_prompt`, `output_parser`, `pydantic_program_mode`). A call
    may bring those of a call of `ChatRain`: `llm.chat(messages, rubric=..., max_seconds=5)`. An argument that is not
    known is an error. Instead of arguments it takes a `ChatRain` that is there: `guard=chat`.

    Example:
        ```python
        Settings.llm = RainLlamaIndexLLM(model="path/to/model", rubric="harmlessness", seed=7)
        ```

    Raises:
        RainConfigError: an argument is unknown or out of range.
        RubricError: there is no such rubric.
        EngineError: the model cannot be loaded or searched with.
    """

    model_config = ConfigDict(extra="forbid")

    is_chat_model: bool = Field(
        default=True,
        description="Whether texts are answered as a message of the user; False continues them as they stand, for "
        "models that were not trained to answer.",
    )
    context_window: int | None = Field(
        default=None, gt=0, description="How many tokens prompt and answer may have; None: what the model says."
    )

    _guard: ChatRain = PrivateAttr()
    _continuer: RainLLM | None = PrivateAttr(default=None)
    _bound: dict[str, Any] = PrivateAttr(default_factory=dict)

    def __init__(self, **arguments: Any) -> None:
        own = {name: arguments.pop(name) for name in type(self).model_fields if name in arguments}
        try:
            super().__init__(**own)
        except ValidationError as error:
            raise RainConfigError(describe_mistakes(type(self).__name__, error)) from error
        guard = arguments.pop("guard", None)
        if guard is not None and (arguments or not isinstance(guard, ChatRain)):
            others = f", together with {', '.join(arguments)}" if arguments else ""
            raise RainConfigError(
                f"guard: a ChatRain, which has its own arguments, is allowed, given {guard!r}{others}."
            )
        self._guard = ChatRain(**arguments) if guard is None else guard

    @classmethod
    def from_server(
        cls,
        url: str | Sequence[str],
        *,
        model: str = "",
        api_key: SecretStr | str | None = None,
        tokenizer: Any = None,
        **arguments: Any,
    ) -> Self:
        """One that answers by an inference server; see `ChatRain.from_server`."""
        return cls(model=completions_engine(url, model, api_key=api_key, tokenizer=tokenizer), **arguments)

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex knows the class."""
        return "RainLlamaIndexLLM"

    @property
    def guard(self) -> ChatRain:
        """The chat model that answers."""
        return self._guard

    @property
    def rubric(self) -> Rubric:
        """What its answers are judged by, unless a call says otherwise."""
        return self._guard.for_call({name: value for name, value in self._bound.items() if name != "stop"}).used_rubric

    @property
    def metadata(self) -> LLMMetadata:
        """What LlamaIndex asks of a model; of tools it says what is true of the model that writes."""
        told = getattr(self._guard.writer, "max_context", UNBOUNDED_CONTEXT)
        return LLMMetadata(
            context_window=self.context_window or (told if told < UNBOUNDED_CONTEXT else DEFAULT_CONTEXT_WINDOW),
            num_output=self._guard.answer_limit,
            is_chat_model=self.is_chat_model,
            is_function_calling_model=self._guard.can_call_tools,
            model_name=self._guard.model_name,
        )

    def bind(self, **arguments: Any) -> Self:
        """A copy all of whose calls bring these arguments; it shares the engines.

        Raises:
            RainConfigError: a call takes no such argument, or its value is out of range.
        """
        bound = {**self._bound, **arguments}
        copy = self.model_copy()
        copy._bound = bound
        _ = copy.rubric  # a mistake in them shows at once
        return copy

    # --- Conversations -------------------------------------------------------------------------------------------

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answers a conversation."""
        return self._answers.whole(messages, kwargs)

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Like `chat`, without blocking the event loop."""
        return await self._answers.awhole(messages, kwargs)

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Yields what there is of the answer, as it is committed; nothing shown is taken back."""
        return self._answers.growing(messages, kwargs)

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """Like `stream_chat`, without blocking the event loop."""
        return self._answers.agrowing(messages, kwargs)

    @property
    def _answers(self) -> Answers:
        return Answers(self._guard, self._bound)

    # --- Texts ---------------------------------------------------------------------------------------------------

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answers a text, or continues it as it stands if `is_chat_model` is False."""
        if self.is_chat_model:
            return completion_of(self._answers.whole(_as_messages(prompt), kwargs))
        return self._continuing(formatted).whole(prompt, kwargs)

    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Like `complete`, without blocking the event loop."""
        if self.is_chat_model:
            return completion_of(await self._answers.awhole(_as_messages(prompt), kwargs))
        return await self._continuing(formatted).awhole(prompt, kwargs)

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """Yields what there is of the text, as it is committed."""
        if self.is_chat_model:
            return completions_of(self._answers.growing(_as_messages(prompt), kwargs))
        return self._continuing(formatted).growing(prompt, kwargs)

    @llm_completion_callback()
    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseAsyncGen:
        """Like `stream_complete`, without blocking the event loop."""
        if self.is_chat_model:
            return acompletions_of(self._answers.agrowing(_as_messages(prompt), kwargs))
        return self._continuing(formatted).agrowing(prompt, kwargs)

    def _continuing(self, is_formatted: bool) -> Continuations:
        if self._continuer is None:  # by the arguments of the guard, and with its engines
            self._continuer = RainLLM(**{name: getattr(self._guard, name) for name in RainArguments.model_fields})
        return Continuations(self._continuer, self._bound, None if is_formatted else self.completion_to_prompt)

    # --- Tools ---------------------------------------------------------------------------------------------------

    def _prepare_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The arguments of `chat` by which these tools are offered."""
        messages = list(chat_history or ())
        if user_msg is not None:
            messages += _as_messages(user_msg)
        schemas = [tool.metadata.to_openai_tool(skip_length_check=True) for tool in tools]
        choice = kwargs.pop("tool_choice", None) or ("any" if tool_required and schemas else None)
        return {"messages": messages, "tools": schemas, "tool_choice": choice, **kwargs}

    def _validate_chat_with_tools_response(
        self,
        response: ChatResponse,
        tools: Sequence[BaseTool],
        allow_parallel_tool_calls: bool = False,
        **kwargs: Any,
    ) -> ChatResponse:
        """Keeps the first call alone where several are not wanted."""
        calls = [block for block in response.message.blocks if isinstance(block, ToolCallBlock)]
        if not allow_parallel_tool_calls and len(calls) > 1:
            response.message.blocks = [block for block in response.message.blocks if block not in calls[1:]]
        return response

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """The calls of an answer.

        Raises:
            ValueError: there are none, unless `error_on_no_tool_call` is False.
        """
        calls = [block for block in response.message.blocks if isinstance(block, ToolCallBlock)]
        if not calls and error_on_no_tool_call:
            raise ValueError(f"The answer calls no tool; finish_reason {(response.raw or {}).get('finish_reason')!r}.")
        return [
            ToolSelection(
                tool_id=call.tool_call_id or "", tool_name=call.tool_name, tool_kwargs=arguments_of(call.tool_kwargs)
            )
            for call in calls
        ]

    # --- Copies --------------------------------------------------------------------------------------------------
    # LlamaIndex makes what it reads back from the fields alone, which would be another guard.

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy, of which fields of LlamaIndex may be changed; what one of the guard is, `bind` changes.

        Raises:
            RainConfigError: there is no such field.
        """
        if unknown := sorted((update or {}).keys() - type(self).model_fields.keys()):
            raise RainConfigError(f"model_copy changes no argument {', '.join(unknown)} of the guard; see bind.")
        return super().model_copy(update=update, deep=deep)

    def __reduce__(self) -> tuple[Any, ...]:
        own = {name: getattr(self, name) for name in self.model_fields_set - {"callback_manager", "rate_limiter"}}
        return _made_again, (type(self), own, self._guard, self._bound)

    @classmethod
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> Self:
        """Is not possible: what `to_dict` says does not hold the guard.

        Raises:
            RainConfigError: always.
        """
        raise RainConfigError(
            f"{cls.__name__} cannot be made from a dict, which does not hold the guard; make it anew."
        )


def _made_again(
    cls: type[RainLlamaIndexLLM], own: dict[str, Any], guard: ChatRain, bound: dict[str, Any]
) -> RainLlamaIndexLLM:
    """One that was pickled, without its callbacks."""
    llm = cls(guard=guard, **own)
    llm._bound = bound
    return llm


def _as_messages(text: str | ChatMessage) -> list[ChatMessage]:
    return [ChatMessage(role=MessageRole.USER, content=text) if isinstance(text, str) else text]
