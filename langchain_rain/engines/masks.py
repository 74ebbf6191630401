"""What each new token attends to, in the form in which a model's layers take it."""

from typing import Any

import numpy as np
import torch

from langchain_rain.engines.families import sliding_window
from langchain_rain.engines.packing import Packed


class Masks:
    """Makes the masks of one model: boolean for sdpa, additive for eager; one for each type of layer."""

    def __init__(self, config: Any, dtype: torch.dtype) -> None:
        self._layer_types = set(getattr(config, "layer_types", None) or ())
        window = sliding_window(config)
        has_sliding = not self._layer_types or "sliding_attention" in self._layer_types
        self._window = window if has_sliding else None
        self._is_additive = config._attn_implementation == "eager"
        self._dtype = dtype

    def sliding(self, packed: Packed) -> np.ndarray[Any, np.dtype[np.bool_]] | None:
        """What each token of `packed` attends to in sliding layers; None if that is what it does in full ones."""
        if self._window is None or packed.position_ids.max() < self._window:
            return None
        distances = packed.position_ids[:, :, None] - packed.seen_positions[:, None, :]
        is_seen: np.ndarray[Any, np.dtype[np.bool_]] = packed.is_ancestor & (distances < self._window)
        return is_seen

    def for_layers(self, full: torch.Tensor, sliding: torch.Tensor | None) -> torch.Tensor | dict[str, torch.Tensor]:
        """What the model is given, of boolean masks `[num_lines, num_tokens, num_seen]`."""
        if self._window is None:
            return self._as_mask(full)
        windowed = self._as_mask(sliding if sliding is not None else full)
        if not self._layer_types:
            return windowed
        return {"full_attention": self._as_mask(full), "sliding_attention": windowed}

    def _as_mask(self, is_seen: torch.Tensor) -> torch.Tensor:
        mask = is_seen[:, None]
        if not self._is_additive:
            return mask
        additive = torch.zeros(mask.shape, dtype=self._dtype, device=mask.device)
        return additive.masked_fill_(~mask, torch.finfo(self._dtype).min)
