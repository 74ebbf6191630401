"""From what a user names to an engine: the demo model, a Hugging Face model, a chat model, a function, an engine."""

from collections.abc import Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable

from langchain_rain.engines.base import Engine
from langchain_rain.engines.callables import CallableEngine
from langchain_rain.engines.chat_model import ChatModelEngine
from langchain_rain.errors import RainConfigError

if TYPE_CHECKING:
    from langchain_rain.engines.completions import CompletionsEngine

DEMO_MODEL = "demo"
"""The name of the bundled demonstrator model."""


def load_engine(
    model: Any, argument: Literal["model", "judge", "guard"] = "model", *, device_map: str | None = None
) -> Engine:
    """The engine that `model` names (a Hugging Face id or folder, "demo") or is; a judge may be a function too.

    Args:
        model: what was given.
        argument: for what it was given; named in errors.
        device_map: how a model that is named is spread over devices, for example "auto"; by default it is on one.

    Raises:
        RainConfigError: it is none of these, "demo" is to be spread, or torch and transformers are missing.
        EngineError: it cannot be loaded.
    """
    if isinstance(model, str):
        # Here and not above: torch and transformers are an extra, and take seconds to import.
        try:
            from langchain_rain.engines.transformers import TransformersEngine
        except ImportError as error:
            raise RainConfigError(
                f"{argument}={model!r} needs torch and transformers: pip install 'langchain-rain[transformers]'."
            ) from error
        if model == DEMO_MODEL:
            return TransformersEngine.from_pretrained(
                demo_model_path(), dtype="float32", device="cpu", device_map=device_map, name=DEMO_MODEL
            )
        return TransformersEngine.from_pretrained(model, device_map=device_map)
    if isinstance(model, Engine):
        return model
    if isinstance(model, BaseChatModel):
        return ChatModelEngine(model)
    if argument == "judge" and callable(model) and not isinstance(model, type | Runnable):
        return CallableEngine(model)
    allowed = f"a Hugging Face id or folder, {DEMO_MODEL!r}, a chat model or an engine"
    allowed += ", or a function from transcript to value" if argument == "judge" else ""
    raise RainConfigError(f"{argument}: {allowed} is allowed, given {model!r}.")


def completions_engine(base_url: str | Sequence[str], model: str = "", **arguments: Any) -> "CompletionsEngine":
    """A `CompletionsEngine`, whose module needs an extra.

    Raises:
        RainConfigError: the extra is missing, or an argument is not allowed.
        EngineError: the server cannot be reached or searched with.
    """
    try:
        from langchain_rain.engines.completions import CompletionsEngine
    except ImportError as error:
        raise RainConfigError("A server needs httpx: pip install 'langchain-rain[server]'.") from error
    return CompletionsEngine(base_url, model, **arguments)


def demo_model_path() -> str:
    """The folder of the bundled demonstrator model."""
    return str(files("langchain_rain") / "models" / "demo")
