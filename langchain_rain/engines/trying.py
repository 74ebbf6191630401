"""What is tried of a model before it is searched with: whether it reads trees, and how much memory a token takes."""

from typing import Any

import numpy as np
import torch

from langchain_rain.engines.admission import CacheLimit
from langchain_rain.engines.runner import ForwardPass, input_device
from langchain_rain.engines.transfer import to_device
from langchain_rain.engines.tree_runner import TreeRunner

MAX_DISTANCE = 0.005
"""How far what a model says in a tree may be from what it says of a text alone: total variation, in [0, 1]. Rounding
makes less than a millionth of it in float32."""

MAX_HALF_DISTANCE = 0.1
"""The same in half precision."""

BEGINNING = (5, 6, 7, 8)
ENDS = ((9, 10), (11, 12))
"""Tokens of two texts that begin alike; which ones does not matter, and any vocabulary has them."""


@torch.inference_mode()
def reads_trees(model: Any) -> bool:
    """Whether a model says of texts that share a cached beginning what it says of each of them alone, tried on two.

    Some that take positions and masks do something else with them, and what is wrong then looks like an answer.
    """
    runner = TreeRunner(model, "", CacheLimit(len(BEGINNING) + sum(map(len, ENDS)), "a trial"))
    runner.read(BEGINNING)
    in_tree = torch.stack(runner.read(*((*BEGINNING, *end) for end in ENDS)))
    (texts,) = to_device(input_device(model), np.array([[*BEGINNING, *end] for end in ENDS]))
    alone = ForwardPass(model)(num_logits=1, input_ids=texts)[0][:, -1]
    distances = (in_tree.float().softmax(-1) - alone.float().softmax(-1)).abs().sum(-1) / 2
    is_full = model.dtype in (torch.float32, torch.float64)  # the logits may be so where nothing else is
    return not bool((distances > (MAX_DISTANCE if is_full else MAX_HALF_DISTANCE)).any())


@torch.inference_mode()
def bytes_per_token(model: Any) -> int:
    """What a token takes in the cache."""
    runner = TreeRunner(model, "", CacheLimit(1, "a trial"))
    runner.read(BEGINNING[:1])
    return runner.cache_info.num_bytes
