"""What goes from an agent to its guarded model and back, past other middleware that must not get around the guard."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from langchain.agents.middleware.types import ModelRequest, ModelResponse
from langchain.agents.structured_output import (
    AutoStrategy,
    ProviderStrategy,
    StructuredOutputValidationError,
    ToolStrategy,
)
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage

from langchain_rain.errors import RainConfigError


class GuardedRequest(ModelRequest[Any]):
    """A request whose model stays guarded when a middleware further in overrides it.

    Attributes:
        guard: makes of a model one that is guarded for this turn.
        is_rewound: whether steps were gone back in this turn.
    """

    guard: Callable[[BaseChatModel], BaseChatModel]
    is_rewound: bool = False

    @classmethod
    def of(cls, request: ModelRequest[Any], guard: Callable[[BaseChatModel], BaseChatModel]) -> "GuardedRequest":
        """The same request with a guard."""
        return cls(**{each.name: getattr(request, each.name) for each in fields(request)})._with(guard)

    def override(self, **overrides: Any) -> "GuardedRequest":
        """A request with other attributes; another model is guarded like the first."""
        if "model" in overrides:
            overrides["model"] = self.guard(overrides["model"])
        changed = super().override(**overrides)
        assert isinstance(changed, GuardedRequest)
        return changed._with(self.guard, is_rewound=self.is_rewound)

    def rewound(self, messages: list[BaseMessage], *, is_rewound: bool) -> "GuardedRequest":
        """A request that goes on from these messages."""
        return self.override(messages=messages)._with(self.guard, is_rewound=self.is_rewound or is_rewound)

    def _with(self, guard: Callable[[BaseChatModel], BaseChatModel], *, is_rewound: bool = False) -> "GuardedRequest":
        object.__setattr__(self, "guard", guard)  # as LangChain warns of any attribute that is set
        object.__setattr__(self, "is_rewound", is_rewound)
        return self


def check_is_guarded(response: ModelResponse[Any]) -> None:
    """Checks that nobody has answered past the guard.

    Raises:
        RainConfigError: a message of the model is not of a guarded one.
    """
    written = [each for each in response.result if isinstance(each, AIMessage)]
    if not written or any("rain" not in each.response_metadata for each in written):
        raise RainConfigError(
            "A middleware that comes after RainMiddleware has answered in place of the guarded model, so nobody has "
            "judged what it says: put RainMiddleware last in the list of middleware."
        )


def refusal_in(error: StructuredOutputValidationError) -> ModelResponse[Any]:
    """A refusal that was taken for structured output and is none.

    Raises:
        StructuredOutputValidationError: the same, if it is no refusal.
    """
    if not is_refusal(error.ai_message):
        raise error
    return ModelResponse(result=[error.ai_message])


def is_refusal(message: BaseMessage) -> bool:
    """Whether a guard says so of a message."""
    return "rain" in message.response_metadata and message.response_metadata.get("finish_reason") == "unsatisfied"


def structured(request: ModelRequest[Any]) -> frozenset[str]:
    """Names of tools that stand for structured output: nothing runs when they are called."""
    wanted: Any = request.response_format
    if wanted is None or isinstance(wanted, ProviderStrategy):
        return frozenset()
    schema = wanted.schema if isinstance(wanted, AutoStrategy) else wanted
    strategy = wanted if isinstance(wanted, ToolStrategy) else ToolStrategy(schema)
    tools = {getattr(each, "name", None) for each in request.tools}
    return frozenset(spec.name for spec in strategy.schema_specs) - tools
