"""The formulas of the search, each with its source."""

import math
from collections.abc import Sequence

from langchain_rain.search.protocol import TokenSet

VALUE_RANGE = 2.0 + 1e-5
"""max - min + 1e-5 of the reference code: its bounds start at -1 and 1, and values never leave them."""


def puct(
    *,
    prior: float,
    value: float,
    effective_visits: float,
    parent_effective_visits: float,
    c_puct: float,
    num_under_way: int = 0,
) -> float:
    """Upper confidence bound by which `select` ranks the children of a node (RAIN, eq. 1 and 2)."""
    exploration = prior * math.sqrt(parent_effective_visits) / (1 + effective_visits + num_under_way)
    return normalised_value(value, effective_visits) + c_puct * exploration


def normalised_value(value: float, effective_visits: float) -> float:
    """`value` moved from [-1, 1] to [0, 1]; 0 while nothing is known of the node (reference code)."""
    return 0.0 if effective_visits == 0 else (value + 1) / VALUE_RANGE


def running_mean(mean: float, weight: float, value: float, value_weight: float) -> float:
    """The mean over `weight + value_weight` after `value` joined with its weight (RAIN, eq. 3 and 4)."""
    return (mean * weight + value * value_weight) / (weight + value_weight)


def child_priors(token_sets: Sequence[TokenSet], *, num_tokens: int, root_mixing: float) -> list[float]:
    """The priors of siblings; they sum to 1.

    Args:
        token_sets: of the siblings, asked for with `num_tokens` tokens each.
        num_tokens: 1 takes the probabilities as they are; longer sets have the greedy one's clamped.
        root_mixing: share of the uniform distribution mixed in; 0 but for the children of the root.
    """
    weights = [math.exp(token_set.logprob) for token_set in token_sets]
    if num_tokens > 1:
        weights = _clamp_greedy(weights, [token_set.is_greedy for token_set in token_sets])
    total = sum(weights)
    uniform = 1 / len(weights)
    priors = [weight / total if total > 0 else uniform for weight in weights]
    return [(1 - root_mixing) * prior + root_mixing * uniform for prior in priors]


def _clamp_greedy(weights: list[float], is_greedy: list[bool]) -> list[float]:
    """Keeps the greedy token set from drowning the sampled ones, and from vanishing among them (reference code)."""
    sampled = [weight for weight, greedy in zip(weights, is_greedy, strict=True) if not greedy]
    if not sampled:
        return weights
    lowest, highest = max(sampled) + min(sampled), sum(sampled)
    return [
        max(min(weight, highest), lowest) if greedy else weight
        for weight, greedy in zip(weights, is_greedy, strict=True)
    ]
