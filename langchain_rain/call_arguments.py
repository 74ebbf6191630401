"""The arguments that one call of a chat model may bring of its own."""

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig
from pydantic import Field, PrivateAttr, SkipValidation

from langchain_rain.arguments import RainArguments
from langchain_rain.config import RainConfig
from langchain_rain.drivers import close_contexts
from langchain_rain.engines.calling import Calls
from langchain_rain.engines.chat_model import ChatModelEngine
from langchain_rain.engines.reading import AnswerReader
from langchain_rain.errors import RainConfigError
from langchain_rain.judging import Judging, open_rubric_judge
from langchain_rain.rubrics import Rubric
from langchain_rain.tool_calls import CallsJudge, RejectedCall, before_call, check_calls_are_judged

CALL_ARGUMENTS = frozenset(RainArguments.model_fields) - {"model", "judge", "stop", "config", "loaded", "telemetry"} | {
    "rain_config",
    "max_judged_turns",
    "tool_rubric",
    "unjudged_tools",
}
"""Arguments that a call may bring of its own. `config` is LangChain's there, so beside it RAIN's is `rain_config`."""

TOOL_ARGUMENTS = frozenset({"tools", "tool_choice"})
"""What `bind_tools` makes of tools for a local model."""


NOT_OF_A_CALL = (
    frozenset({*RainArguments.model_fields, *RainConfig.model_fields, "max_retries", "api_key"})
    - CALL_ARGUMENTS
    - {"model", "stop"}
)
"""Parts of the guard that hold for every call."""


class CallArguments(RainArguments):
    """The arguments that hold for one call."""

    max_judged_turns: int | None = Field(
        default=None,
        ge=1,
        description="How many of the last turns of the conversation the judge sees; None: all.",
    )
    tool_rubric: SkipValidation[str | Rubric | None] = Field(
        default=None,
        description="What tool calls are judged by, given like `rubric`; one that fails rules its message out.",
    )
    unjudged_tools: frozenset[str] = Field(
        default=frozenset(), description="Names of tools that stand for structured output: nothing runs when called."
    )

    _rejected: list[RejectedCall] | None = PrivateAttr(default=None)  # where an agent wants to know of them

    @property
    def used_tool_rubric(self) -> Rubric | None:
        """What tool calls are judged by; None for nothing."""
        return self.rubric_of(self.tool_rubric) if self.tool_rubric is not None else None

    def load(self) -> None:
        """Loads what is given by name, and checks that all of it can be judged."""
        super().load()
        self._check_calls_are_judged()

    def _check_calls_are_judged(self) -> None:
        rubric = self.used_tool_rubric
        if rubric is not None:
            check_calls_are_judged(rubric, self.judging_engine, self.judge)
            self.loaded.guards(rubric)

    def judging_calls(
        self, judging: Judging, reader_of: Callable[[], AnswerReader], messages: Sequence[BaseMessage], calls: Calls
    ) -> Judging:
        """The judge of an answer that judges the tool calls in it too, if there is a rubric for them.

        Args:
            judging: the judge of the answer, and what was opened for it.
            reader_of: makes a reader of the answer.
            messages: the conversation before it.
            calls: on whose behalf it is.
        """
        rubric = self.used_tool_rubric
        if rubric is None:
            return judging
        config = self.searching_config
        try:
            of_calls = open_rubric_judge(rubric, self.judging_engine, config, loaded=self.loaded, calls=calls)
        except BaseException:
            close_contexts(judging.contexts)
            raise
        judge = CallsJudge(
            judging.judge,
            of_calls.judge,
            rubric,
            lambda text: reader_of().calls(text),
            partial(before_call, messages),
            config.accept_value,
            self.unjudged_tools,
            self._rejected if self._rejected is not None else [],
        )
        return Judging(judge, {**judging.contexts, **of_calls.contexts})

    def for_call(self, given: Mapping[str, Any]) -> "CallArguments":
        """The arguments that hold for a call that brings `given` of its own.

        Raises:
            RainConfigError: a call takes no such argument, or its value is out of range.
        """
        allowed = CALL_ARGUMENTS | TOOL_ARGUMENTS
        unknown = [name for name in given if name not in allowed]
        if not isinstance(self.writer, ChatModelEngine) and unknown:
            raise RainConfigError(f"A call takes {', '.join(sorted(allowed))}; given {', '.join(sorted(unknown))}.")
        for name in unknown:
            self._check_is_for_the_model(name)
        own = {name.replace("rain_config", "config"): given[name] for name in CALL_ARGUMENTS & given.keys()}
        if not own:
            return self
        kept = {name: getattr(self, name) for name in CallArguments.model_fields if name in self.model_fields_set}
        arguments = CallArguments(**{**kept, **own, "loaded": self.loaded})
        arguments._rubrics, arguments._nonce = self._rubrics, self._nonce
        arguments._rejected = self._rejected
        arguments._check_calls_are_judged()
        return arguments

    def _check_is_for_the_model(self, name: str) -> None:
        """Checks an argument that is passed on to the chat model: no part of the guard must go missing in it."""
        if isinstance(self.model, BaseChatModel) and name in type(self.model).model_fields:
            return
        if name in NOT_OF_A_CALL:
            raise RainConfigError(f"{name} cannot be given to a call; give it to ChatRain, or in `rain_config`.")
        if meant := get_close_matches(name, CALL_ARGUMENTS | NOT_OF_A_CALL, n=1, cutoff=0.75):
            raise RainConfigError(f"A call takes no argument {name!r}; is {meant[0]!r} meant?")


def told_apart(
    config: RunnableConfig | RainConfig | None, arguments: dict[str, Any]
) -> tuple[RunnableConfig | None, dict[str, Any]]:
    """LangChain's config and the arguments of a call; RAIN's, which goes by the same name, is one of the arguments.

    Raises:
        RainConfigError: `config` is neither of the two.
    """
    if isinstance(config, RainConfig):
        return None, {**arguments, "rain_config": config}
    if config is not None and not isinstance(config, dict):
        raise RainConfigError(f"config: a RainConfig or LangChain's RunnableConfig is allowed, given {config!r}.")
    return config, arguments


def checked_choice(choice: Any, schemas: Sequence[Mapping[str, Any]]) -> str | None:
    """The choice as one of three things: "any", the name of a tool, or None.

    Raises:
        RainConfigError: no such tool is offered.
    """
    names = [schema["function"]["name"] for schema in schemas]
    if isinstance(choice, Mapping):  # OpenAI's form, or Anthropic's
        choice = choice.get("function", choice).get("name", choice)
    if choice in (None, False, "auto"):
        return None
    if names and choice in (True, "any", "required"):
        return names[0] if len(names) == 1 else "any"
    if choice not in names:
        allowed = (
            f"'any', 'auto', None or one of {', '.join(map(repr, names))}" if names else "without tools 'auto' or None"
        )
        raise RainConfigError(f"tool_choice: {allowed} is allowed, given {choice!r}.")
    return str(choice)
