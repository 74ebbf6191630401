"""Data sets on the Hugging Face Hub: `hf://owner/name?split=test&name=configuration&data_dir=folder`."""

import importlib
import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl

from langchain_rain.errors import RainConfigError
from langchain_rain.evaluation.suites.rows import Found, row_of

SCHEME = "hf://"

ALLOWED = "Allowed is hf://owner/name, and after a ? split, name, data_dir and revision: hf://owner/name?split=test."


def read_rows(address: str) -> Iterator[Found]:
    """Yields the rows of a data set; of one with several splits, `split` says of which.

    Raises:
        RainConfigError: datasets is missing, the address is none, or it cannot be loaded.
    """
    path, _, query = address.removeprefix(SCHEME).partition("?")
    try:
        options = dict(parse_qsl(query, strict_parsing=True) if query else ())
    except ValueError as error:
        raise RainConfigError(f"{address!r} cannot be read: {error}. {ALLOWED}") from error
    unknown = sorted(options.keys() - {"split", "name", "data_dir", "revision"})
    if not path or unknown:
        raise RainConfigError(f"{address!r} is no address of a data set. {ALLOWED}")
    try:
        datasets: Any = importlib.import_module("datasets")
    except ImportError as error:
        told = f"Data sets of the Hub are read with datasets, which is missing or broken ({error})"
        raise RainConfigError(f"{told}: pip install 'langchain-rain[datasets]'.") from error
    try:
        data = datasets.load_dataset(path, **options)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise RainConfigError(f"{address!r} cannot be loaded: {error}") from error
    for number, values in enumerate(_one_split(data, address), start=1):
        line = json.dumps(values, default=str)  # as from a file: times become texts, and NaN is refused
        yield row_of(line.encode(), number, f"{address}, row {number}")


def _one_split(data: Any, address: str) -> Any:
    if not isinstance(data, Mapping):
        return data
    if len(data) != 1:
        raise RainConfigError(f"{address!r} has the splits {', '.join(data)}: say which. {ALLOWED}")
    return next(iter(data.values()))
