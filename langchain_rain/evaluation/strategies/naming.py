"""From the names of strategies to strategies."""

import re
from collections.abc import Sequence

from langchain_rain.config import PRESETS, RainConfig
from langchain_rain.errors import RainConfigError
from langchain_rain.evaluation.strategies.base import Setting, Strategy
from langchain_rain.evaluation.strategies.best_of_n import MAX_SAMPLES, BestOf
from langchain_rain.evaluation.strategies.critique_revise import MAX_ROUNDS, CritiqueRevise
from langchain_rain.evaluation.strategies.rain import Rain
from langchain_rain.evaluation.strategies.sampling import Vanilla
from langchain_rain.evaluation.strategies.self_check import SelfCheck

ALLOWED_NAMES = (
    "vanilla",
    "vanilla-greedy",
    "best-of-N",
    "critique-revise-N",
    "self-check-refuse",
    "rain",
    *(f"rain-{preset}" for preset in PRESETS),
)
"""N is a number; "rain" searches by the configuration of the setting."""

_NUMBERED = re.compile(r"(best-of|critique-revise)-([1-9][0-9]{0,3})")


def all_strategies(names: Sequence[str], setting: Setting) -> list[Strategy]:
    """The strategies of these names, in their order.

    Raises:
        RainConfigError: there is no such strategy, or one is named twice.
    """
    twice = next((name for number, name in enumerate(names) if name in names[:number]), None)
    if twice is not None:
        raise RainConfigError(f"strategies: each is named once, given {twice!r} twice.")
    return [_strategy(name, setting) for name in names]


def _strategy(name: str, setting: Setting) -> Strategy:
    if name in ("vanilla", "vanilla-greedy"):
        return Vanilla(setting, is_greedy=name == "vanilla-greedy")
    if name == "self-check-refuse":
        return SelfCheck(setting)
    if name == "rain":
        return Rain(setting, name, setting.config)
    if name.removeprefix("rain-") in PRESETS and name.startswith("rain-"):
        return Rain(setting, name, RainConfig.preset(name.removeprefix("rain-")))
    numbered = _NUMBERED.fullmatch(name)
    if numbered is not None:
        kind, number = numbered[1], int(numbered[2])
        if kind == "best-of" and number <= MAX_SAMPLES:
            return BestOf(setting, number)
        if kind == "critique-revise" and number <= MAX_ROUNDS:
            return CritiqueRevise(setting, number)
    raise RainConfigError(
        f"strategies: {', '.join(ALLOWED_NAMES)} are allowed, with N up to {MAX_SAMPLES} samples and {MAX_ROUNDS} "
        f"rounds; given {name!r}."
    )
