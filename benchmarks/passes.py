"""Forward passes of a model alone, without an engine: what the host takes to launch them, and a GPU to compute them."""

import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.measuring import Row, wait_for

NUM_CACHED = 128
"""Tokens before the new ones of a forward pass."""

NUM_PROFILED = 3
"""Passes whose kernels are timed."""

ATTENTION = {"cudnn": "cuDNN", "flash": "flash", "fmha": "memory-efficient", "attention": "other"}
"""What the name of a kernel that attends has in it, and whose it is; the first that fits."""


@dataclass(frozen=True, slots=True)
class _Passes:
    """Forward passes of a model over `num_new` positions after cached ones.

    Attributes:
        cache: of a text that is long enough; each pass cuts it to the length that it is given, the longest first.
        has_mask: whether a mask says what a position sees, as in a tree; here all before it.
    """

    model: Any
    cache: Any
    num_new: int
    has_mask: bool

    @torch.inference_mode()
    def run(self, num_cached: int = NUM_CACHED) -> tuple[float, float]:
        """One pass: the seconds until it is launched, and until it is done."""
        device = self.model.device
        self.cache.crop(num_cached - self.cache.get_seq_length())
        inputs = {"input_ids": torch.full((1, self.num_new), 5, device=device)}
        if self.has_mask:
            is_seen = torch.ones((self.num_new, num_cached + self.num_new), dtype=torch.bool, device=device)
            inputs["attention_mask"] = is_seen.tril(num_cached)[None, None]
        wait_for(device)
        started = time.perf_counter()
        self.model(**inputs, past_key_values=self.cache, use_cache=True, logits_to_keep=1)
        launched = time.perf_counter() - started
        wait_for(device)
        return launched, time.perf_counter() - started

    def milliseconds(self, all_num_cached: Iterable[int]) -> tuple[float, float]:
        """The medians over passes, one for each of these lengths, until launched and until done."""
        launched, done = zip(*(self.run(each) for each in all_num_cached), strict=True)
        return 1000 * statistics.median(launched), 1000 * statistics.median(done)

    def on_gpu(self) -> tuple[float | None, str | None]:
        """The milliseconds that the GPU computes for a pass, and whose kernel attends."""
        if self.model.device.type != "cuda":
            return None, None
        with profile(activities=[ProfilerActivity.CUDA]) as profiled:
            for _ in range(NUM_PROFILED):
                self.run()
        kernels = {each.key: each.self_device_time_total for each in profiled.key_averages()}
        attending = {name: kind for name in kernels if (kind := attention_of(name)) is not None}
        longest = max(attending, key=lambda each: kernels[each], default="")
        return sum(kernels.values()) / 1000 / NUM_PROFILED, attending.get(longest)


def attention_of(kernel: str) -> str | None:
    """Whose attention a kernel is; None if it is none."""
    return next((kind for part, kind in ATTENTION.items() if part in kernel.lower()), None)


def forward_passes(model: Any, positions: Sequence[int], num_passes: int) -> Iterator[Row]:
    """How long passes over so many new positions take, without a mask and with one."""
    longest = NUM_CACHED + num_passes
    for num_new in positions:
        for has_mask in (False, True):
            passes = _Passes(model, _cache(model, longest + 1), num_new, has_mask)
            passes.run(longest + 1)  # the first one is slow
            _, changing = passes.milliseconds(range(longest, NUM_CACHED, -1))
            launched, done = passes.milliseconds([NUM_CACHED] * num_passes)
            on_gpu, kernel = passes.on_gpu()
            yield {
                "new positions": f"{num_new}, {'a mask' if has_mask else 'no mask'}",
                "ms": done,
                "ms until launched": launched,
                "GPU ms": on_gpu,
                "ms, each at another length": changing,
                "positions a second": 1000 * num_new / done,
                "attention": kernel,
            }


@torch.inference_mode()
def _cache(model: Any, num_tokens: int) -> Any:
    """Of so many tokens."""
    return model(torch.full((1, num_tokens), 5, device=model.device), use_cache=True).past_key_values
