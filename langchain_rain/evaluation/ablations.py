"""RAIN with one part changed at a time: what each is for, and what it costs."""

from collections.abc import Mapping
from typing import Any

from langchain_rain.config import RainConfig
from langchain_rain.evaluation.strategies.base import Setting, Strategy
from langchain_rain.evaluation.strategies.rain import Rain

CHANGES: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "paper": {
        "without similarity": {"similarity_scope": "off"},
        "without dynamic addition": {"adds_children": False},
        "without both": {"similarity_scope": "off", "adds_children": False},
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
        "nothing held back": {"hold_back": 0},
        "two segments held back": {"hold_back": 2},
        "resampled proposals": {"proposals": "resampled"},
        "one simulation": {"max_simulations": 1},
        "nothing asked ahead": {"lookahead": 0},
    },
}
"""By preset, what is changed of it."""

OTHER_SCORING = {"binary": "probability", "probability": "binary"}


def ablations(setting: Setting) -> list[Strategy]:
    """Each preset with each of its changes; `balanced` as it is comes last, as what the others are compared with."""
    strategies: list[Strategy] = []
    for preset, changes in CHANGES.items():
        config = RainConfig.preset(preset)
        scored = {"scoring": OTHER_SCORING[config.scoring]}
        for name, changed in {**changes, f"scoring by {scored['scoring']}": scored}.items():
            strategies.append(Rain(setting, f"{preset}, {name}", _changed(config, changed)))
        strategies.append(Rain(setting, preset, config))
    return strategies


def _changed(config: RainConfig, changed: Mapping[str, Any]) -> RainConfig:
    """Checked anew, as a change may not go with the rest."""
    return RainConfig(**{**config.model_dump(), **changed})
