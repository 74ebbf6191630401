"""Rubrics as YAML: read so that every mistake is told with its file and line, and the library they come from."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

import yaml

from langchain_rain.errors import Mistake, RubricError

Shelf = Literal["library", "guards"]
"""Of the library: rubrics, and the forms of guard models."""


@dataclass(frozen=True, slots=True)
class Source:
    """A YAML text, and where in it things stand.

    Attributes:
        name: of the file, or "<text>".
        data: what it says.
    """

    name: str
    data: Mapping[Any, Any]
    _root: yaml.Node

    @classmethod
    def read(cls, path_or_text: str | os.PathLike[str]) -> "Source":
        """Reads a file, or a text; a text has more than one line.

        Raises:
            RubricError: there is no such file, or it is no YAML, or names a key twice.
        """
        is_text = isinstance(path_or_text, str) and "\n" in path_or_text
        name = "<text>" if is_text else os.fspath(path_or_text)
        text = str(path_or_text) if is_text else _text_of(name)
        try:
            _refuse_aliases(text, name)
            root = yaml.compose(text, Loader=yaml.SafeLoader)
            data = yaml.safe_load(text)
        except yaml.MarkedYAMLError as error:
            line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
            raise RubricError(f"{name}{line}: this is no YAML: {error.problem or error.context}.") from error
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise RubricError(f"{name}: this is no YAML: {' '.join(str(error).split())}.") from error
        if root is None or not isinstance(data, dict):
            raise RubricError(f"{name}: a mapping of keys to values is wanted, given {data!r:.80}.")
        _check_keys(root, name)
        return cls(name, data, root)

    def error(self, mistakes: Sequence[Mistake]) -> RubricError:
        """The mistakes, each with the line where it stands."""
        told = "; ".join(f"line {self._line_of(each.key)}: {_with_hint(each)}" for each in mistakes)
        return RubricError(f"{self.name}, {told}.", mistakes)

    def _line_of(self, key: Sequence[str | int]) -> int:
        """The line, from 1, of the last part of a key that stands in the text."""
        node, line = self._root, self._root.start_mark.line
        for part in key:
            line, node = _children(node).get(str(part), (line, node))
        return line + 1


def _children(node: yaml.Node) -> dict[str, tuple[int, yaml.Node]]:
    """What a node holds, by key or index, with the line where it begins."""
    if isinstance(node, yaml.MappingNode):
        return {key.value: (key.start_mark.line, value) for key, value in node.value}
    held = node.value if isinstance(node, yaml.SequenceNode) else []
    return {str(index): (each.start_mark.line, each) for index, each in enumerate(held)}


def _with_hint(mistake: Mistake) -> str:
    is_truth = mistake.message.endswith(("string, given True", "string, given False"))
    return f"{mistake} (YAML reads yes, no, on and off as truths: quote the text)" if is_truth else str(mistake)


def _text_of(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise RubricError(f"The rubric {path!r} cannot be read: {reason}.") from error


def _refuse_aliases(text: str, name: str) -> None:
    """Aliases can repeat a part within itself, or a billion times; a rubric has no need of them."""
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            line = f", line {event.start_mark.line + 1}" if event.start_mark else ""
            raise RubricError(f"{name}{line}: an alias, *{event.anchor}, is not allowed.")


def _check_keys(root: yaml.Node, name: str) -> None:
    """YAML takes the last of two equal keys and forgets the first, which would switch off what it said."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                if key.value in seen:
                    raise RubricError(f"{name}, line {key.start_mark.line + 1}: {key.value!r} is given twice.")
                seen.add(str(key.value))
                waiting.append(value)


def names_in_library(shelf: Shelf = "library") -> list[str]:
    """The names of what is there, sorted."""
    folder = files("langchain_rain.rubrics") / shelf
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def read_from_library(shelf: Shelf, name: str) -> Mapping[str, Any]:
    """What a file of the library says."""
    text = (files("langchain_rain.rubrics") / shelf / f"{name}.yaml").read_text(encoding="utf-8")
    data: Mapping[str, Any] = yaml.safe_load(text)
    return data
