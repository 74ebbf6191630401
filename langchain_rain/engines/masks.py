"""What each new token attends to, in the form in which a model's layers take it."""

from typing import Any

import numpy as np
import torch

from langchain_rain.engines.families import sliding_window
from langchain_rain.engines.kv_tree import Packed


def attention_mask(packed: Packed, config: Any, *, like: Any) -> torch.Tensor | dict[str, torch.Tensor]:
    """Boolean for sdpa, additive for eager; one for each type of layer.

    Args:
        packed: the new tokens.
        config: of the decoder.
        like: the model, for its device and number type.
    """
    full = packed.is_ancestor
    window = sliding_window(config)
    layer_types = set(getattr(config, "layer_types", None) or ())
    if window is None or (layer_types and "sliding_attention" not in layer_types):
        return _as_mask(full, config, like)
    distances = packed.position_ids[:, :, None] - packed.seen_positions[:, None, :]
    sliding = full & (distances < window)
    if not layer_types:
        return _as_mask(sliding, config, like)
    return {"full_attention": _as_mask(full, config, like), "sliding_attention": _as_mask(sliding, config, like)}


def _as_mask(is_seen: np.ndarray[Any, np.dtype[np.bool_]], config: Any, like: Any) -> torch.Tensor:
    mask = torch.from_numpy(is_seen).to(like.device)[:, None]
    if config._attn_implementation != "eager":
        return mask
    additive = torch.zeros(mask.shape, dtype=like.dtype, device=like.device)
    return additive.masked_fill_(~mask, torch.finfo(like.dtype).min)
