"""RAIN with one part changed at a time: what each is for, and what it costs."""

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_rain.config import RainConfig
from langchain_rain.errors import RainConfigError
from langchain_rain.evaluation.strategies.base import Setting, Strategy
from langchain_rain.evaluation.strategies.rain import Rain

CHANGES: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "paper": {
        "without similarity": {"similarity_scope": "off"},
        "without dynamic addition": {"adds_children": False},
        "without both": {"similarity_scope": "off", "adds_children": False},
        "without both, c = 0": {"similarity_scope": "off", "adds_children": False, "c_puct": 0.0},
        "rollouts of one token": {"max_rollout_tokens": 1},
        "without exploration, c = 0": {"c_puct": 0.0},
        "c = 8": {"c_puct": 8.0},
        "V = 0.4": {"value_threshold": 0.4},
        "T_m = 2": {"min_visits": 2},
        "T_m = 16": {"min_visits": 16},
        "5 children": {"num_children": 5},
        "20 children": {"num_children": 20, "max_children": 40},
        "token sets of 1": {"token_set_lengths": (1,)},
        "token sets of 10": {"token_set_lengths": (10,)},
        "four leaves at once": {"num_parallel_leaves": 4},
        "nothing asked ahead": {"lookahead": 0},
    },
    "balanced": {
        "every token set searched": {"adaptive": False},
        "nothing held back": {"hold_back": 0},
        "two segments held back": {"hold_back": 2},
        "resampled proposals": {"proposals": "resampled"},
        "one simulation": {"max_simulations": 1},
        "nothing asked ahead": {"lookahead": 0},
    },
}
"""By preset, what is changed of it."""

SEPARATOR = ", "
"""Between the name of the preset and of the change."""

OTHER_SCORING = {"binary": "probability", "probability": "binary"}


def ablations(setting: Setting, preset: str | None = None) -> list[Strategy]:
    """Each preset with each of its changes; a preset as it is comes after them, `balanced` last of all.

    Each is compared with its preset (`bases`).

    Args:
        setting: what all of them share.
        preset: this one alone, which the others are compared with as it comes last; None for all of `CHANGES`.

    Raises:
        RainConfigError: nothing is changed of this preset.
    """
    if preset is not None and preset not in CHANGES:
        raise RainConfigError(f"ablations: those of {', '.join(CHANGES)} are allowed, given {preset!r}.")
    strategies: list[Strategy] = []
    for base in CHANGES if preset is None else [preset]:
        config = RainConfig.preset(base)
        scored = {"scoring": OTHER_SCORING[config.scoring]}
        for name, changed in {**CHANGES[base], f"scoring by {scored['scoring']}": scored}.items():
            strategies.append(Rain(setting, f"{base}{SEPARATOR}{name}", _changed(config, changed)))
        strategies.append(Rain(setting, base, config))
    return strategies


def bases(strategies: Sequence[Strategy]) -> dict[str, str]:
    """By the name of an ablation, the preset of which one part is changed."""
    pairs = ((each.name, each.name.partition(SEPARATOR)) for each in strategies)
    return {name: base for name, (base, separator, _) in pairs if separator}


def _changed(config: RainConfig, changed: Mapping[str, Any]) -> RainConfig:
    """Checked anew, as a change may not go with the rest."""
    return RainConfig(**{**config.model_dump(), **changed})
