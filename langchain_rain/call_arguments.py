"""The arguments that one call of a chat model may bring of its own."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import RunnableConfig
from pydantic import Field

from langchain_rain.arguments import RainArguments
from langchain_rain.config import RainConfig
from langchain_rain.engines.chat_model import ChatModelEngine
from langchain_rain.errors import RainConfigError

CALL_ARGUMENTS = frozenset(RainArguments.model_fields) - {"model", "judge", "stop", "config", "loaded", "telemetry"} | {
    "rain_config",
    "max_judged_turns",
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
