"""Packages that only evaluation needs, imported when they are."""

import importlib
from typing import Any

from langchain_rain.errors import RainConfigError


def needed(module: str) -> Any:
    """A module of a package that only evaluation needs.

    Raises:
        RainConfigError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = {"sklearn": "scikit-learn"}.get(module.partition(".")[0], module.partition(".")[0])
        told = f"Evaluation is done with {package}, which is missing or broken ({error})"
        raise RainConfigError(f"{told}: pip install 'langchain-rain[eval]'.") from error
