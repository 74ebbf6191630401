"""What is answered when answers are measured, by name: `load_suite("xstest", "xstest_prompts.csv")`."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

from langchain_rain.errors import RainConfigError
from langchain_rain.evaluation.suites import advbench, demo, hh, jsonl, truthfulqa, xstest
from langchain_rain.evaluation.suites.advbench import ATTACKS
from langchain_rain.evaluation.suites.base import Case, Malformed, SuiteData

__all__ = ["ATTACKS", "SUITES", "Case", "Loader", "Malformed", "SuiteData", "load_suite"]

Loader: TypeAlias = Callable[[str | None], SuiteData]
"""Reads a file or what a name that begins with `hf://` stands for; given None, the samples of the package."""

SUITES: Mapping[str, Loader] = {
    "demo": demo.load,
    "hh": hh.load,
    "advbench": advbench.load,
    "truthfulqa": truthfulqa.load,
    "xstest": xstest.load,
    "jsonl": jsonl.load,
}


def load_suite(
    name: str, data: str | None = None, *, attack: str = "plain", limit: int | None = None, seed: int = 0
) -> SuiteData:
    """The cases of a suite, and its malformed rows.

    Args:
        name: one of `SUITES`.
        data: a file, or a name that begins with `hf://`; None for the samples of the package.
        attack: of advbench: one of `ATTACKS`.
        limit: take so many cases, drawn at random; None for all. Of demo: make so many, by default a hundred.
        seed: of that draw.

    Raises:
        RainConfigError: there is no such suite, attack or limit, or the data are none of this suite.
    """
    if name not in SUITES:
        raise RainConfigError(f"suite: {', '.join(SUITES)} are allowed, given {name!r}.")
    if name == "advbench":
        return advbench.load(data, attack).sampled(limit, seed)
    if attack != "plain":
        raise RainConfigError(f"attack: {name} has none but plain, given {attack!r}; advbench has others.")
    return demo.load(data, limit) if name == "demo" else SUITES[name](data).sampled(limit, seed)
