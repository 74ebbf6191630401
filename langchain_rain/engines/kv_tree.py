"""The memory of a tree of cached tokens: keys, values and hidden states by slot.

A forward pass writes what is new (`packing`) and reads the slots that any of it attends to.
"""

from typing import Any

import numpy as np
import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from langchain_rain.engines.packing import Packed
from langchain_rain.engines.prefix_tree import NO_SLOT
from langchain_rain.engines.transfer import to_device


class _Places:
    """Where the new tokens of a forward pass go, and where what they see is, on one device."""

    def __init__(self, packed: Packed, device: torch.device) -> None:
        self._shape = packed.seen_slots.shape
        new, seen = packed.slots.ravel(), packed.seen_slots.ravel()
        self._first_seen = int(seen[0]) if len(packed.seen_slots) == 1 and is_contiguous(seen) else None
        is_token = new != NO_SLOT
        arrays = [new] if is_token.all() else [new[is_token], np.flatnonzero(is_token)]
        self._new, *rest = to_device(device, *arrays, *([] if self._first_seen is not None else [seen]))
        self._seen = rest.pop() if self._first_seen is None else None
        self._tokens = rest.pop() if rest else None

    def write(self, tensor: torch.Tensor, states: torch.Tensor) -> None:
        """Writes the `states` `[num_lines, num_tokens, ...]` of the new tokens, but for padding, to their slots."""
        flat = states.flatten(0, 1)
        tensor.index_copy_(0, self._new, flat if self._tokens is None else flat.index_select(0, self._tokens))

    def read(self, tensor: torch.Tensor) -> torch.Tensor:
        """The slots that are seen, `[num_lines, num_seen, ...]`: a view if they stand in a row, else a copy."""
        if self._seen is None:
            assert self._first_seen is not None
            return tensor.narrow(0, self._first_seen, self._shape[1]).unsqueeze(0)
        return tensor.index_select(0, self._seen).view(*self._shape, *tensor.shape[1:])


class TreeCache(Cache):
    """Keys and values of all slots, in the form in which transformers' models ask for them.

    `begin` comes before each forward pass. Slots are added as they are needed. While a tensor grows, there is its old
    copy beside it, of one tensor at a time.
    """

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.layer_class_to_replicate = lambda: TreeLayer(self)  # type: ignore[assignment]  # called like a class
        self.hidden: torch.Tensor | None = None
        self.capacity = 0
        self._packed: Packed | None = None
        self._places: dict[torch.device, _Places] = {}

    @property
    def num_seen(self) -> int:
        """The slots that the forward pass under way reads in each line."""
        return self._packed.seen_slots.shape[1] if self._packed is not None else 0

    @property
    def tensors(self) -> list[torch.Tensor]:
        """All that it keeps, by slot."""
        layers = [tensor for layer in self.layers if isinstance(layer, TreeLayer) for tensor in layer.tensors]
        return layers if self.hidden is None else [*layers, self.hidden]

    @property
    def num_bytes(self) -> int:
        """The memory it takes."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors)

    def begin(self, packed: Packed, *, num_slots: int, max_slots: int) -> None:
        """Says what the next forward pass is about, and how many slots there must and may be."""
        self._packed = packed
        self._places.clear()
        if num_slots > self.capacity:
            self.capacity = min(max(num_slots, 2 * self.capacity), max(num_slots, max_slots))

    def places(self, device: torch.device) -> _Places:
        """Where what is new goes and what is seen is."""
        if device not in self._places:
            assert self._packed is not None
            self._places[device] = _Places(self._packed, device)
        return self._places[device]

    def written(self, tensor: torch.Tensor | None, states: torch.Tensor) -> torch.Tensor:
        """`tensor`, enlarged if it has to be, with the `states` `[num_lines, num_tokens, ...]` of the new tokens."""
        if tensor is None or len(tensor) != self.capacity:
            tensor = resized(tensor, self.capacity, states)
        self.places(states.device).write(tensor, states)
        return tensor

    def store_hidden(self, hidden: torch.Tensor) -> None:
        """Keeps the last hidden states `[num_lines, num_tokens, dimension]` of the new tokens."""
        self.hidden = self.written(self.hidden, hidden)

    def compact(self, slots: list[int], capacity: int) -> None:
        """Moves what is in `slots` to the first ones and gives back what is beyond `capacity`."""
        self.capacity = capacity
        for layer in self.layers:
            assert isinstance(layer, TreeLayer)
            layer.keys = compacted(layer.keys, slots, capacity)
            layer.values = compacted(layer.values, slots, capacity)
        self.hidden = compacted(self.hidden, slots, capacity)

    def clear(self) -> None:
        """Frees all memory."""
        self.layers.clear()
        self.hidden = None
        self.capacity = 0


class TreeLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]  # transformers' hook is not annotated
    """Keys and values of one layer, `[num_slots, num_heads, head_size]`: a slot lies in one piece."""

    is_sliding = False

    def __init__(self, cache: TreeCache) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._cache = cache

    @property
    def tensors(self) -> list[torch.Tensor]:
        """Keys and values, once there are any."""
        return [tensor for tensor in (self.keys, self.values) if tensor is not None]

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing to do: memory is taken by the first `update`."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes the new tokens `[num_lines, num_heads, num_tokens, head_size]`; returns the slots that are seen."""
        self.keys = self._cache.written(self.keys, key_states.transpose(1, 2))
        self.values = self._cache.written(self.values, value_states.transpose(1, 2))
        places = self._cache.places(key_states.device)
        return places.read(self.keys).transpose(1, 2), places.read(self.values).transpose(1, 2)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Unused by transformers where the mask is given: the slots there are, and no offset."""
        return self.get_seq_length(), 0

    def get_seq_length(self) -> int:
        """The number of slots that are seen; positions are given, so nothing is counted by it."""
        return self._cache.num_seen

    def get_max_length(self) -> int:
        """Unbounded."""
        return -1


def is_contiguous(slots: np.ndarray[Any, np.dtype[np.int64]]) -> bool:
    """Whether each of `slots`, of which none comes twice, is one more than that before it."""
    return bool(slots[-1] - slots[0] == len(slots) - 1 and (np.diff(slots) == 1).all())


def resized(tensor: torch.Tensor | None, capacity: int, like: torch.Tensor) -> torch.Tensor:
    """A copy of `tensor` with so many slots; further dimensions as those of `like` after its first two."""
    larger = torch.zeros((capacity, *like.shape[2:]), dtype=like.dtype, device=like.device)
    if tensor is not None:
        larger[: len(tensor)] = tensor
    return larger


def compacted(tensor: torch.Tensor | None, slots: list[int], capacity: int) -> torch.Tensor | None:
    """A copy of `tensor` with `slots` as its first ones; None of none."""
    if tensor is None:
        return None
    smaller = torch.zeros((capacity, *tensor.shape[1:]), dtype=tensor.dtype, device=tensor.device)
    smaller[: len(slots)] = tensor[slots]
    return smaller
