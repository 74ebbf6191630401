"""Between the host and a device: what is brought together crosses in one copy, and all answers of a step in one."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

ALIGNMENT = 8
"""Bytes: every number starts at a multiple of its size."""


def to_device(device: torch.device, *arrays: NDArray[Any]) -> list[torch.Tensor]:
    """The arrays as tensors on `device`, in one copy; on the CPU they share the memory of the arrays."""
    if device.type == "cpu":
        return [torch.from_numpy(array) for array in arrays]
    # The host goes on at once: what lies in memory that is not pinned was read when the call returns.
    return unpacked(torch.from_numpy(packed_bytes(arrays)).to(device, non_blocking=True), arrays)


def packed_bytes(arrays: Sequence[NDArray[Any]]) -> NDArray[np.uint8]:
    """All arrays one after the other, each padded to a multiple of `ALIGNMENT`."""
    parts = [np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in arrays]
    return np.concatenate([np.pad(part, (0, -len(part) % ALIGNMENT)) for part in parts])


def unpacked(buffer: torch.Tensor, like: Sequence[NDArray[Any]]) -> list[torch.Tensor]:
    """What `packed_bytes` has put into `buffer`, as tensors of the types and shapes of `like`."""
    tensors, first = [], 0
    for array in like:
        dtype = torch.from_numpy(np.empty(0, array.dtype)).dtype
        tensors.append(buffer[first : first + array.nbytes].view(dtype).view(array.shape))
        first += array.nbytes + -array.nbytes % ALIGNMENT
    return tensors


class ToHost:
    """Collects numbers on a device and brings them to the host in one copy."""

    def __init__(self) -> None:
        self._parts: list[torch.Tensor] = []
        self._arrays: list[NDArray[Any]] = []

    def add(self, tensor: torch.Tensor) -> int:
        """Takes numbers that float64 holds exactly; returns the index at which they come."""
        self._parts.append(tensor)
        return len(self._parts) - 1

    def copy(self) -> None:
        """Brings everything to the host; on the CPU it is there."""
        if all(part.device.type == "cpu" for part in self._parts):
            self._arrays = [part.numpy() for part in self._parts]
            return
        device = self._parts[0].device
        flat = torch.cat([part.reshape(-1).to(device, torch.float64) for part in self._parts]).cpu().numpy()
        self._arrays = split_like(flat, [part.shape for part in self._parts])

    def __getitem__(self, index: int) -> NDArray[Any]:
        return self._arrays[index]


def split_like(flat: NDArray[np.float64], shapes: Sequence[Sequence[int]]) -> list[NDArray[Any]]:
    """The numbers of `flat` as arrays of these shapes, one after the other."""
    ends = np.cumsum([math.prod(shape) for shape in shapes])[:-1]
    return [part.reshape(shape) for part, shape in zip(np.split(flat, ends), shapes, strict=True)]
