"""The tokenizer of a model that runs elsewhere, and the tokens that end its texts. It needs transformers, no torch."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from langchain_rain.errors import EngineError, RainConfigError

T = TypeVar("T")

_CANNOT_BE_LOADED = (OSError, ValueError, KeyError, ImportError, TypeError)


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
            # The server may have named it, so no code of it runs, and nobody is asked whether it may.
            return _quietly(lambda name=name: AutoTokenizer.from_pretrained(name, trust_remote_code=False))  # type: ignore[misc]
        except _CANNOT_BE_LOADED as error:
            reasons.append(f"{name!r}: {str(error).partition(chr(10))[0] or type(error).__name__}")
    raise EngineError(
        f"The tokenizer of {engine} cannot be loaded ({'; '.join(reasons)}). Give it as tokenizer=, a folder or the id "
        "of the model, or of the one it was made from, on the Hugging Face hub.",
        engine=engine,
    )


def end_token_ids(tokenizer: Any) -> set[int]:
    """The tokens that end a text: that of the tokenizer, and those of the generation settings that lie beside it.

    A server goes by these too. They are looked for in the folder or the cache that the tokenizer came from.
    """
    ends = {tokenizer.eos_token_id}
    name = getattr(tokenizer, "name_or_path", "")
    if name:
        from transformers import GenerationConfig

        try:
            told = _quietly(lambda: GenerationConfig.from_pretrained(name, local_files_only=True)).eos_token_id
        except _CANNOT_BE_LOADED:
            told = None  # many models have none
        ends |= set(told) if isinstance(told, list) else {told}
    return ends - {None}


def _quietly(load: Callable[[], T]) -> T:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that torch is missing
        return load()
