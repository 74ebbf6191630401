"""The key of a file of labels: what its rows are, which whoever labels does not know."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from langchain_rain.errors import RainConfigError, describe_mistakes
from langchain_rain.evaluation.outcomes.base import Content, Key, shown_content
from langchain_rain.evaluation.outcomes.sheets import MAX_CELL
from langchain_rain.files import write_whole
from langchain_rain.json_lines import read_object
from langchain_rain.ledger import fingerprint

MAX_COMPARED = 1000
"""Characters of a text by which it is known again, without what spreadsheets do to spaces."""


class KeyRow(BaseModel):
    """What a row of the file is.

    Attributes:
        answer_hash: of what is to be judged.
        text_hash: of what the row shows.
        answers: the answers that it stands for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    answer_hash: str
    text_hash: str
    answers: list[Key]


class LabelKey(BaseModel):
    """All of it.

    Attributes:
        version: of this format.
        seed: of the order of the rows.
        labels: that were asked for.
        rows: by their ids.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1]
    seed: int
    labels: tuple[str, ...]
    rows: dict[str, KeyRow]


def answer_hash(content: Content, answer: str) -> str:
    """Tells an answer to what was asked from any other."""
    return fingerprint([shown_content(content), answer])


def key_path(path: Path) -> Path:
    """Where the key of a file of labels is."""
    return path.with_suffix(".key.json")


def write_key(path: Path, key: LabelKey) -> None:
    """Writes a key.

    Raises:
        RainConfigError: it cannot be written.
    """
    try:
        write_whole(path, f"{key.model_dump_json()}\n")
    except OSError as error:
        raise RainConfigError(f"{str(path)!r} cannot be written: {error.strerror or error}.") from error


def read_key(path: Path) -> LabelKey:
    """Reads a key.

    Raises:
        RainConfigError: it cannot be read, or is none.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RainConfigError(
            f"{str(path)!r}, the key that was written beside the labels, cannot be read: {error.strerror or error}."
        ) from error
    try:
        return LabelKey(**read_object(content, str(path)))
    except ValidationError as error:
        raise RainConfigError(describe_mistakes(f"{path}, the key of labels,", error)) from error


def text_hash(prompt: str, text: str) -> str:
    """By which a row is known again after a spreadsheet has had it."""
    shown = (" ".join(each[:MAX_CELL].split()).lstrip("'")[:MAX_COMPARED] for each in (prompt, text))
    return fingerprint(list(shown))
