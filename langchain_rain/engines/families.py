"""What a Hugging Face model says of itself: how it can be searched with, how far it sees, what ends its texts."""

import inspect
from typing import Any

from langchain_rain.errors import EngineError

KNOWN_LAYER_TYPES = frozenset({"full_attention", "sliding_attention"})
"""Of layers that keep nothing but keys and values, which the mask alone decides about."""


def check_model(model: Any, name: str) -> None:
    """Checks that a model can be searched with.

    Raises:
        EngineError: it cannot; names `name` and the reason.
    """
    attention = model.config.get_text_config(decoder=True)._attn_implementation
    problem = None
    if getattr(model.config, "is_encoder_decoder", False):
        problem = "it is an encoder-decoder; a decoder-only model is needed"
    elif why_not_cached(model) is None and attention not in ("sdpa", "eager"):
        problem = f"its attention is {attention!r}; load it with attn_implementation='sdpa' or 'eager'"
    if problem is not None:
        raise EngineError(f"{name} cannot be searched with: {problem}.", engine=name)


def why_not_cached(model: Any) -> str | None:
    """Why a model's forward pass cannot take tokens of a tree, each with its position and ancestors; None if it can."""
    config = model.config.get_text_config(decoder=True)
    unknown = set(getattr(config, "layer_types", None) or ()) - KNOWN_LAYER_TYPES
    missing = {"position_ids", "past_key_values"} - set(inspect.signature(model.forward).parameters)
    if unknown or getattr(model, "_is_stateful", False):
        return f"its layers keep a state that cannot be rewound ({', '.join(sorted(unknown)) or 'recurrent'})"
    if missing:
        return f"its forward pass takes no {' and no '.join(sorted(missing))}"
    if getattr(config, "alibi", False) or "local" in (getattr(config, "attention_layers", None) or ()):
        return "its attention (ALiBi, or GPT-Neo's local layers) counts cached tokens and takes no positions"
    return None


def sliding_window(config: Any) -> int | None:
    """How far sliding layers see; None if there are none, though config.json may hold a number nobody reads."""
    is_known = "sliding_window" in inspect.signature(type(config)).parameters
    return config.sliding_window if is_known else None


def eos_token_ids(model: Any, tokenizer: Any) -> set[int]:
    """All tokens that end a text, by the generation settings and the tokenizer; may be empty."""
    ids = getattr(model.generation_config, "eos_token_id", None)
    listed = ids if isinstance(ids, list) else [ids]
    return {int(each) for each in [*listed, tokenizer.eos_token_id] if each is not None}
