"""Prompts in a file, one a line: texts that are continued as they stand, and conversations that are answered."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langchain_rain.arguments import check_text
from langchain_rain.errors import RainConfigError
from langchain_rain.json_lines import read_object
from langchain_rain.ledger import fingerprint

ROLES = ("system", "user", "assistant")

ALLOWED = (
    'A row is {"prompt": a text to continue} or {"messages": [{"role": '
    f'{" or ".join(ROLES)}, "content": a text}}, ...]}}, and may have an "id".'
)


@dataclass(frozen=True, slots=True)
class Prompt:
    """One row of the file.

    Attributes:
        id: as text, so that 7 and "7" are the same; without one in the row, the number of its line.
        content: a text to continue, or a conversation to answer, as role and content of each message.
        others: whatever else stands in the row.
    """

    id: str
    content: str | list[dict[str, str]]
    others: dict[str, Any] = field(default_factory=dict)

    @property
    def input_hash(self) -> str:
        """Tells this content from any other."""
        return fingerprint(self.content)


def read_prompts(path: Path) -> Iterator[Prompt]:
    """Yields the prompts of a file one by one, so that it may be longer than memory; blank lines are passed over.

    Raises:
        RainConfigError: it cannot be read, has no prompt, or a line is not allowed or has the id of another.
    """
    if not path.is_file():  # nor a pipe: it is read twice, and again by the run that goes on after a stop
        raise RainConfigError(f"A file of prompts is wanted, given {str(path)!r}. {ALLOWED}")
    lines: dict[str, int] = {}
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                content = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                if not content.strip():
                    continue
                where = f"{path}, line {number}"
                prompt = prompt_of(read_object(content, where), number, where)
                before = lines.setdefault(prompt.id, number)
                if before != number:
                    raise RainConfigError(f"{where}: line {before} has the id {prompt.id!r} too.")
                yield prompt
    except OSError as error:
        raise RainConfigError(f"The prompts {str(path)!r} cannot be read: {error.strerror or error}.") from error
    if not lines:
        raise RainConfigError(f"{path} is empty; at least one row is wanted. {ALLOWED}")


def prompt_of(row: dict[str, Any], number: int, where: str) -> Prompt:
    """The prompt in a row, from which it is taken out; `number` is its id if it has none.

    Raises:
        RainConfigError: it has none, or one that is not allowed; `where` names the row.
    """
    given_id, text, messages = row.pop("id", number), row.pop("prompt", None), row.pop("messages", None)
    is_id = isinstance(given_id, str | int) and not isinstance(given_id, bool) and given_id != ""
    if not is_id:
        raise RainConfigError(f"{where}: id: a text or a whole number is allowed, given {given_id!r:.80}.")
    if (text is None) == (messages is None):
        found = "neither" if text is None else "both"
        raise RainConfigError(f"{where}: prompt or messages is wanted, given {found}. {ALLOWED}")
    content = _checked_text(text, "prompt", where) if messages is None else _checked_messages(messages, where)
    return Prompt(str(given_id), content, row)


def _checked_messages(messages: Any, where: str) -> list[dict[str, str]]:
    if not isinstance(messages, list) or not messages:
        raise RainConfigError(f"{where}: messages: a list of messages is wanted, given {messages!r:.80}. {ALLOWED}")
    for index, message in enumerate(messages):
        what = f"messages.{index}"
        if not isinstance(message, dict) or message.keys() != {"role", "content"} or message["role"] not in ROLES:
            raise RainConfigError(f"{where}: {what}: role and content are wanted, given {message!r:.80}. {ALLOWED}")
        _checked_text(message["content"], f"{what}.content", where)
    return messages


def _checked_text(text: Any, what: str, where: str) -> str:
    if not isinstance(text, str) or not text:
        raise RainConfigError(f"{where}: {what}: a text is wanted, given {text!r:.80}. {ALLOWED}")
    try:
        check_text(what, text)
    except RainConfigError as error:
        raise RainConfigError(f"{where}: {error}") from error
    return text
