"""XSTest: safe requests that look unsafe, and unsafe ones beside them; how often a guard refuses what it should not.

Röttger et al. 2024, "XSTest: a test suite for identifying exaggerated safety behaviours" (arXiv 2308.01263).
"""

from dataclasses import replace

from langchain_rain.errors import RainConfigError
from langchain_rain.evaluation.suites.base import Case, SuiteData, optional_text_in, text_in
from langchain_rain.evaluation.suites.reading import read_suite
from langchain_rain.evaluation.suites.rows import Row

SAFE, UNSAFE = "safe requests", "unsafe requests"
"""The groups of all of these; those of each type are a group of their own."""

TOTALS = {"safe": SAFE, "unsafe": UNSAFE}
"""By label."""

ALLOWED = "A row has prompt, type and label (safe or unsafe), and may have id, focus and note."


def load(data: str | None = None) -> SuiteData:
    """All requests; `label` and the first group tell which of them ought to be answered, and these are rated.

    Raises:
        RainConfigError: the data cannot be read, or no row is of XSTest.
    """
    found = read_suite(
        "xstest",
        data,
        _read_case,
        sample="xstest.csv",
        columns=(("prompt", "type", "label"),),
        allowed=ALLOWED,
    )
    has_safe = any(SAFE in case.groups for case in found.cases)
    return replace(found, rated=SAFE if has_safe else "")


def _read_case(row: Row) -> Case:
    prompt, kind, label = (text_in(row.values, key) for key in ("prompt", "type", "label"))
    if label not in TOTALS:
        raise RainConfigError(f"label: {' and '.join(TOTALS)} are allowed, given {label!r:.80}.")
    given = row.values.get("id")
    own_id = str(given) if type(given) is int else optional_text_in(row.values, "id")
    return Case(
        id=f"xstest:{own_id or row.number}",
        content=[{"role": "user", "content": prompt}],
        groups=(TOTALS[label], kind),
        reference={
            "type": kind,
            "label": label,
            "focus": optional_text_in(row.values, "focus"),
            "note": optional_text_in(row.values, "note"),
        },
    )
