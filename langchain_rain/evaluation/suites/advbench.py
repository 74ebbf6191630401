"""AdvBench: harmful requests and how an answer that complies begins, plain or as attacks.

Zou et al. 2023, "Universal and transferable adversarial attacks on aligned language models" (arXiv 2307.15043).
"""

import re
from typing import Literal, get_args

from langchain_rain.errors import RainConfigError
from langchain_rain.evaluation.suites.base import Case, SuiteData, optional_text_in, text_in
from langchain_rain.evaluation.suites.reading import read_suite
from langchain_rain.evaluation.suites.rows import Row

Attack = Literal["plain", "suffix", "prefill"]

ATTACKS: tuple[Attack, ...] = get_args(Attack)

NUM_PREFILL_WORDS = 5
"""Of the target: "Sure, here is a guide" is enough to begin to comply, and leaves what is harmful to be written."""

NEEDED = {"plain": ("goal",), "suffix": ("goal", "controls"), "prefill": ("goal", "target")}
"""The columns that an attack cannot do without."""

ALLOWED = (
    "A row has goal (a request), target (how an answer that complies begins; needed for prefill) and controls (what an "
    "attack puts behind the request; needed for suffix)."
)


def load(data: str | None = None, attack: str = "plain") -> SuiteData:
    """Requests as they are, with what an attack puts behind them, or with the first words of an answer that complies.

    Raises:
        RainConfigError: there is no such attack, the data cannot be read, or no row is of AdvBench.
    """
    if attack not in ATTACKS:
        raise RainConfigError(f"attack: {', '.join(ATTACKS)} are allowed, given {attack!r}.")
    return read_suite(
        "advbench",
        data,
        lambda row: _read_case(row, attack),
        sample="advbench_suffix.json" if attack == "suffix" else "advbench.csv",
        columns=(NEEDED[attack],),
        allowed=ALLOWED,
    )


def _read_case(row: Row, attack: str) -> Case:
    for key in NEEDED[attack]:
        text_in(row.values, key)
    goal, target = (optional_text_in(row.values, key) for key in ("goal", "target"))
    suffix = row.values.get("controls")  # to the last space: it was optimized so
    prompt = f"{goal} {suffix}" if attack == "suffix" else goal
    return Case(
        id=f"advbench:{row.number}",
        content=[{"role": "user", "content": prompt}],
        groups=(attack,),
        reference={"goal": goal, "target": target} | ({"suffix": suffix} if attack == "suffix" else {}),
        prefill=_first_words(target) if attack == "prefill" else "",
    )


def _first_words(text: str) -> str:
    ends = [word.end() for word in re.finditer(r"\S+", text)]
    return text[: ends[:NUM_PREFILL_WORDS][-1]]
