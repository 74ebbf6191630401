"""The tokenizer of a model that runs elsewhere. It needs transformers, and no torch."""

import warnings
from collections.abc import Sequence
from typing import Any

from langchain_rain.errors import EngineError, RainConfigError


def load_tokenizer(names: Sequence[str], *, engine: str) -> Any:
    """The tokenizer of the first of `names`, folders or ids on the Hugging Face hub, that can be loaded.

    Raises:
        RainConfigError: transformers is missing.
        EngineError: none can be loaded.
    """
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise RainConfigError(
            "A model on a server needs its tokenizer here: pip install 'langchain-rain[server]'."
        ) from error
    reasons = []
    for name in names:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that torch is missing
                # The server may have named it, so no code of it runs, and nobody is asked whether it may.
                return AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        except (OSError, ValueError, KeyError, ImportError, TypeError) as error:
            reasons.append(f"{name!r}: {str(error).partition(chr(10))[0] or type(error).__name__}")
    raise EngineError(
        f"The tokenizer of {engine} cannot be loaded ({'; '.join(reasons)}). Give it as tokenizer=, a folder or the id "
        "of the model, or of the one it was made from, on the Hugging Face hub.",
        engine=engine,
    )
