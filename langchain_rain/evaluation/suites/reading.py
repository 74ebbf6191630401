"""From a file, a name on the Hugging Face Hub, or the samples to the cases of a suite."""

from collections.abc import Callable, Iterable
from importlib.resources import as_file, files
from pathlib import Path

from langchain_rain.errors import RainConfigError
from langchain_rain.evaluation.suites import hub
from langchain_rain.evaluation.suites.base import Case, Malformed, SuiteData, shortened
from langchain_rain.evaluation.suites.rows import Found, Row, read_rows, reason_of

SAMPLES = "small samples"
"""The source of what is read when no data are given."""


def read_suite(
    name: str,
    data: str | None,
    read_case: Callable[[Row], Case],
    *,
    sample: str,
    columns: tuple[tuple[str, ...], ...],
    allowed: str,
) -> SuiteData:
    """Reads all rows; those that are no case are kept apart.

    Args:
        name: of the suite.
        data: a file, a name that begins with `hf://`, or None for the samples.
        read_case: makes a case of a row, or raises `RainConfigError`.
        sample: the file of the samples.
        columns: those that a csv file needs; all of one tuple.
        allowed: says in errors what a row is.

    Raises:
        RainConfigError: it cannot be read, or no row of it is a case.
    """
    if data is None:
        with as_file(files(__package__) / "samples" / sample) as path:
            return _collect(name, SAMPLES, read_rows(path, *columns), read_case, allowed)
    found = hub.read_rows(data) if data.startswith(hub.SCHEME) else read_rows(Path(data), *columns)
    return _collect(name, data, found, read_case, allowed)


def _collect(
    name: str, source: str, found: Iterable[Found], read_case: Callable[[Row], Case], allowed: str
) -> SuiteData:
    cases: dict[str, Case] = {}
    places: dict[str, str] = {}
    malformed: list[Malformed] = []
    for row in found:
        case = row if isinstance(row, Malformed) else _case(row, read_case)
        if isinstance(case, Malformed):
            malformed.append(case)
        elif case.id in cases:
            assert isinstance(row, Row)
            told = f"the id {case.id!r} is that of {places[case.id]} too."
            malformed.append(Malformed(row.where, told, shortened(row.values)))
        else:
            assert isinstance(row, Row)
            cases[case.id], places[case.id] = case, row.where
    if not cases:
        told = f"The first: {malformed[0].where}: {malformed[0].reason}" if malformed else "It is empty."
        raise RainConfigError(f"{source}: none of its {len(malformed)} rows is one of {name}. {told} {allowed}")
    return SuiteData(name, source, tuple(cases.values()), tuple(malformed), len(cases) + len(malformed))


def _case(row: Row, read_case: Callable[[Row], Case]) -> Case | Malformed:
    try:
        return read_case(row)
    except RainConfigError as error:
        return Malformed(row.where, reason_of(error, row.where), shortened(row.values))
