"""From what a user names to an engine: the bundled demo model, a Hugging Face model, or an engine as it is."""

from importlib.resources import files
from typing import Any

from langchain_rain.engines.base import Engine
from langchain_rain.errors import RainConfigError

DEMO_MODEL = "demo"
"""The name of the bundled demonstrator model."""


def load_engine(model: Any, argument: str = "model") -> Engine:
    """The engine that `model` names (a Hugging Face id or folder, "demo") or is.

    Args:
        model: what was given.
        argument: for what it was given; named in errors.

    Raises:
        RainConfigError: it is none of these, or torch and transformers are missing.
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
            return TransformersEngine.from_pretrained(demo_model_path(), dtype="float32", device="cpu", name=DEMO_MODEL)
        return TransformersEngine.from_pretrained(model)
    if isinstance(model, Engine):
        return model
    raise RainConfigError(
        f"{argument}: a Hugging Face id or folder, {DEMO_MODEL!r} or an engine is allowed, given {model!r}."
    )


def demo_model_path() -> str:
    """The folder of the bundled demonstrator model."""
    return str(files("langchain_rain") / "models" / "demo")
