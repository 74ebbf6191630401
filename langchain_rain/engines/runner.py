"""What runs a model: the seam between requests under way and forward passes."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from inspect import signature
from typing import Any, Protocol

import torch

from langchain_rain.engines.base import Ticket
from langchain_rain.engines.wants import Got
from langchain_rain.engines.work import Work
from langchain_rain.errors import EngineError
from langchain_rain.search.protocol import Context


@dataclass(frozen=True, slots=True)
class CacheInfo:
    """What an engine keeps of what it has computed.

    Attributes:
        num_tokens: cached now.
        max_tokens: that may be cached now.
        num_bytes: of all tensors of the cache now.
        peak_num_tokens: the most that have been cached at once.
    """

    num_tokens: int = 0
    max_tokens: int = 0
    num_bytes: int = 0
    peak_num_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Ran:
    """What a step did.

    Attributes:
        answers: to all wants of those that were asked, or an error in their place; who is not here has to wait.
        positions: new token positions of each that took part in the forward pass; one that serves several counts for
            the first.
        cached: of each with which its conversation's prompt is read to its end, how much of that was there already.
    """

    answers: Mapping[Ticket, Sequence[Got] | EngineError] = field(default_factory=dict)
    positions: Mapping[Ticket, int] = field(default_factory=dict)
    cached: Mapping[Ticket, int] = field(default_factory=dict)


class Runner(Protocol):
    """Answers questions about places in texts by forward passes of a model."""

    @property
    def cache_info(self) -> CacheInfo:
        """What it keeps."""

    def open(self, context: Context, num_tokens: int) -> None:
        """Makes room for a conversation of so many tokens, prompt and answer."""

    def close(self, context: Context) -> None:
        """Takes back that room."""

    def run(self, works: Mapping[Ticket, Work]) -> Ran:
        """One step, seldom more than one forward pass, for what is pending, at least one, the oldest first."""

    def release(self, ticket: Ticket) -> None:
        """Lets go what is kept for work that is done or not wanted any more."""


class WithoutPlans:
    """Keeps cuDNN's attention away while a model runs: it plans anew for each length of text, which is new each time.

    On an H100 with torch 2.11 a pass of a 1B Llama took 14 to 20 ms at one length and 52 to 84 ms where each had its
    own (benchmarks/on_gpu.py). The switch is the whole process's: who comes first turns it off, who goes last puts it
    back.
    """

    _lock = threading.Lock()
    _num_running = 0
    _was_enabled = True

    def __enter__(self) -> None:
        cuda: Any = torch.backends.cuda
        with self._lock:
            if WithoutPlans._num_running == 0:
                WithoutPlans._was_enabled = cuda.cudnn_sdp_enabled()
                cuda.enable_cudnn_sdp(
                    WithoutPlans._was_enabled and not cuda.math_sdp_enabled()
                )  # if it is all there is
            WithoutPlans._num_running += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            WithoutPlans._num_running -= 1
            if WithoutPlans._num_running == 0:
                torch.backends.cuda.enable_cudnn_sdp(WithoutPlans._was_enabled)


class ForwardPass:
    """Calls a model and catches its last hidden states on the way."""

    def __init__(self, model: Any) -> None:
        self._model = model
        decoder = model.get_decoder()
        self._decoder = decoder if decoder is not model else model.model  # Llama 4 takes itself for its decoder
        self._takes_logits_to_keep = "logits_to_keep" in signature(model.forward).parameters

    def __call__(self, *, num_logits: int, **inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits `[num_lines, num_logits or more, vocabulary]`, hidden states `[num_lines, num_tokens, dimension]`."""
        keep = {"logits_to_keep": max(1, num_logits)} if self._takes_logits_to_keep else {}
        hidden: list[torch.Tensor] = []
        owner = threading.get_ident()

        def keep_hidden(_module: Any, _args: Any, output: Any) -> None:
            if threading.get_ident() == owner:  # another engine may use the same model at the same time
                hidden.append(output[0])

        handle = self._decoder.register_forward_hook(keep_hidden)
        try:
            with WithoutPlans():
                logits = self._model(**inputs, **keep).logits
        finally:
            handle.remove()
        assert isinstance(logits, torch.Tensor)
        return logits, hidden[0]


def input_device(model: Any) -> torch.device:
    """Where a model takes its tokens: with its embeddings, which `accelerate` may have put elsewhere than the rest."""
    device = model.get_input_embeddings().weight.device
    if device.type == "meta":  # its weights are brought in when they are needed
        device = torch.device(getattr(getattr(model, "_hf_hook", None), "execution_device", None) or "cpu")
    assert isinstance(device, torch.device)
    return device


def direction(hidden: torch.Tensor) -> torch.Tensor:
    """The unit vector along the mean of hidden states `[num_tokens, dimension]`."""
    return torch.nn.functional.normalize(hidden.double().mean(dim=0), dim=0)
