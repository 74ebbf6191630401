"""People as judges: answers go out as a file without a word of who wrote them, and come back with labels.

What belongs to what stands in a second file, the key, which whoever labels is not given.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from langchain_rain.arguments import check_text
from langchain_rain.engines.base import Engine
from langchain_rain.errors import RainConfigError
from langchain_rain.evaluation.outcomes.base import Content, Key, Label, Outcome, shown_content
from langchain_rain.evaluation.outcomes.joint import joint_labels, with_joint, without_joint
from langchain_rain.evaluation.outcomes.label_key import (
    KeyRow,
    LabelKey,
    answer_hash,
    key_path,
    read_key,
    text_hash,
    write_key,
)
from langchain_rain.evaluation.outcomes.sheets import SheetRow, read_sheet, write_sheet
from langchain_rain.ledger import fingerprint

COLUMNS = ("id", "prompt", "answer")
"""What stands before the labels."""

TRUE, FALSE, UNKNOWN = ("yes", "y", "true", "1"), ("no", "n", "false", "0"), ("?",)
"""What a label may be, in any case; an empty cell is no label yet."""

ALLOWED = f"{', '.join((*TRUE, *FALSE))}, ? (cannot tell) or nothing is allowed"

MAX_TOLD = 20
"""Mistakes that are told of one file."""


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer that people are to judge.

    Attributes:
        key: names it.
        content: what was asked.
        text: the answer.
    """

    key: Key
    content: Content
    text: str

    @property
    def answer_hash(self) -> str:
        """Tells this answer to this from any other."""
        return answer_hash(self.content, self.text)


# --- Out -------------------------------------------------------------------------------------------------------------


def export_answers(path: Path, answers: Sequence[Answered], labels: Sequence[str], *, seed: int = 0) -> None:
    """Writes answers for people to label, in an order that tells nothing, and the key beside it.

    Answers that are alike are one row. A text longer than `sheets.MAX_CELL` is cut.

    Args:
        path: the file; there is none yet, as one might hold what people have done.
        answers: what is to be labelled.
        labels: what is asked about each, a column for each; joint ones (`joint.JOINT`) are made of what comes back.
        seed: of the order.

    Raises:
        RainConfigError: there is such a file, it cannot be written, or an answer or a label is not allowed.
    """
    labels = without_joint(labels)
    _check_export(path, answers, labels)
    alike: dict[str, list[Answered]] = {}
    for answer in answers:
        alike.setdefault(answer.answer_hash, []).append(answer)
    hashes = sorted(alike)
    random.Random(seed).shuffle(hashes)
    rows: list[list[str]] = []
    known: dict[str, KeyRow] = {}
    for number, each in enumerate(hashes, start=1):
        prompt, text = shown_content(alike[each][0].content), alike[each][0].text
        rows.append([f"a{number}", prompt, text, *("" for _ in labels)])
        names = [answer.key for answer in alike[each]]
        known[f"a{number}"] = KeyRow(answer_hash=each, text_hash=text_hash(prompt, text), answers=names)
    write_key(key_path(path), LabelKey(version=1, seed=seed, labels=labels, rows=known))
    try:
        write_sheet(path, [*COLUMNS, *labels], rows)
    except RainConfigError:
        key_path(path).unlink(missing_ok=True)
        raise


def _check_export(path: Path, answers: Sequence[Answered], labels: Sequence[str]) -> None:
    for file in (path, key_path(path)):
        if file.exists():
            raise RainConfigError(
                f"{str(file)!r} is there already, and may hold what people have done; name another file."
            )
    if not answers or not labels:
        raise RainConfigError(f"Answers and labels are wanted, given {len(answers)} answers and {len(labels)} labels.")
    for label in labels:
        if not label.isidentifier() or label in COLUMNS or labels.count(label) > 1:
            raise RainConfigError(
                f"labels: different names of letters, digits and _ are allowed, given {list(labels)!r}."
            )
    for answer in answers:
        check_text(f"prompt of {answer.key}", shown_content(answer.content))
        check_text(f"answer of {answer.key}", answer.text)


# --- In --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Imported:
    """What people said.

    Attributes:
        outcomes: of the answers that have a label, by the judge "people"; an empty cell is no label.
        num_answers: that were exported.
        num_empty: cells without a label, those of rows that are missing too.
        labels: that were asked for.
        by_hash: the labels by `answer_hash`.
    """

    outcomes: tuple[Outcome, ...]
    num_answers: int
    num_empty: int
    labels: tuple[str, ...]
    by_hash: Mapping[str, Mapping[str, Label]]


def import_labels(path: Path, key: Path | None = None) -> Imported:
    """Reads what people filled in. Rows may be missing, be it because others have them.

    Args:
        path: the file.
        key: its key; None for the one beside it.

    Raises:
        RainConfigError: it or its key cannot be read, or something in it is not allowed: every mistake is named with
            its line, the value given and what is allowed.
    """
    told = read_key(key or key_path(path))
    labels, known = told.labels, told.rows
    rows, mistakes = read_sheet(path, [*COLUMNS, *labels])
    found: dict[str, dict[str, Label]] = {}
    for row in rows:
        own = list(_mistakes_in(row, known, found))
        mistakes += [f"line {row.line}: {each}" for each in own]
        if not own:
            found[row.cells["id"]], wrong = _labels_in(row, labels)
            mistakes += [f"line {row.line}: {each}" for each in wrong]
    if mistakes:
        more = f"; and {len(mistakes) - MAX_TOLD} more" if len(mistakes) > MAX_TOLD else ""
        raise RainConfigError(f"{path}, {'; '.join(mistakes[:MAX_TOLD])}{more}.")
    outcomes = [
        Outcome(case_id, strategy, seed, PeopleJudge.name, given)
        for name, given in found.items()
        for case_id, strategy, seed in known[name].answers
        if given
    ]
    by_hash = {known[name].answer_hash: given for name, given in found.items()}
    num_empty = len(known) * len(labels) - sum(map(len, found.values()))
    return Imported(tuple(outcomes), sum(len(each.answers) for each in known.values()), num_empty, labels, by_hash)


def _mistakes_in(row: SheetRow, known: Mapping[str, KeyRow], found: Mapping[str, Any]) -> Sequence[str]:
    name = row.cells["id"]
    if name not in known:
        return [f"id: one of the {len(known)} that were exported is allowed, given {name!r:.80}"]
    if name in found:
        return [f"id: {name!r} is there twice"]
    if text_hash(row.cells["prompt"], row.cells["answer"]) != known[name].text_hash:
        return [f"prompt, answer: those of {name!r} are others; columns may have been sorted one by one"]
    return []


def _labels_in(row: SheetRow, labels: Sequence[str]) -> tuple[dict[str, Label], list[str]]:
    given: dict[str, Label] = {}
    mistakes = []
    for label in labels:
        cell = row.cells[label].strip().casefold()
        if cell in (*TRUE, *FALSE, *UNKNOWN):
            given[label] = None if cell in UNKNOWN else cell in TRUE
        elif cell:
            mistakes.append(f"{label}: {ALLOWED}, given {row.cells[label]!r:.80}")
    return given, mistakes


class PeopleJudge:
    """Gives the labels that people gave to an answer; of one that has none yet it cannot tell."""

    name = "people"
    engines: tuple[Engine, ...] = ()

    def __init__(self, imported: Imported) -> None:
        self.labels = with_joint(imported.labels)
        self._by_hash = imported.by_hash

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """The judge of a file of labels.

        Raises:
            RainConfigError: as of `import_labels`.
        """
        return cls(import_labels(path))

    @property
    def identity(self) -> Mapping[str, Any]:
        """All labels by a hash."""
        given = {each: dict(labels) for each, labels in self._by_hash.items()}
        return {"judge": "people", "labels": fingerprint([self.labels, given])}

    async def judge(
        self, case_content: Content, reference: Mapping[str, Any], answer_text: str, /, *, group: str
    ) -> Mapping[str, Label]:
        """What people said of this answer to this."""
        given = self._by_hash.get(answer_hash(case_content, answer_text), {})
        return {label: given.get(label) for label in without_joint(self.labels)} | joint_labels(given, self.labels)
