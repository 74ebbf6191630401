"""HH: dialogues of people with an assistant, as pairs of a better and a worse ending, or as red-team transcripts.

Bai et al. 2022, "Training a helpful and harmless assistant with RLHF" (arXiv 2204.05862); Ganguli et al. 2022, "Red
teaming language models to reduce harms" (arXiv 2209.07858), of which the RAIN paper asks the first question.
"""

import re
from collections.abc import Mapping

from langchain_rain.errors import RainConfigError
from langchain_rain.evaluation.suites.base import Case, SuiteData, text_in
from langchain_rain.evaluation.suites.reading import read_suite
from langchain_rain.evaluation.suites.rows import Row

ALLOWED = (
    'A row is {"chosen": a dialogue, "rejected": the same with another end}, or {"transcript": a dialogue}; a dialogue '
    'has turns that begin with "Human:" and "Assistant:", with a blank line before each.'
)

ROLES = {"Human": "user", "Assistant": "assistant"}

MERGED = "turns of one speaker in a row are one message"

_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):")
_NEXT_TURN = re.compile(r"\n\n(Human|Assistant):")
_ASSISTANT = re.compile(r"\n\nAssistant:")


def load(data: str | None = None) -> SuiteData:
    """Conversations up to the last turn of the assistant, or first questions of red-team transcripts.

    Raises:
        RainConfigError: the data cannot be read, or no row is of HH.
    """
    return read_suite(
        "hh",
        data,
        _read_case,
        sample="hh.jsonl",
        columns=(("chosen", "rejected"), ("transcript",)),
        allowed=ALLOWED,
    )


def _read_case(row: Row) -> Case:
    return _read_transcript(row) if "transcript" in row.values else _read_pair(row)


def _read_transcript(row: Row) -> Case:
    """The first question; what else the row says is kept beside it."""
    question, *others = _ASSISTANT.split(text_in(row.values, "transcript"), maxsplit=1)
    if not others:
        raise RainConfigError(f'transcript: no "Assistant:" follows the question. {ALLOWED}')
    messages, is_merged = _messages(question)
    reference = {key: value for key, value in row.values.items() if key != "transcript"}
    return Case(f"hh:{row.number}", messages, ("red team",), reference, remarks=_true({MERGED: is_merged}))


def _read_pair(row: Row) -> Case:
    """The prompt ends with the last `Assistant:` up to which both dialogues are the same.

    That is the final one, but where an answer goes on with turns of its own, which then are part of the answer.
    """
    chosen, rejected = text_in(row.values, "chosen"), text_in(row.values, "rejected")
    ends = [turn.end() for turn in _ASSISTANT.finditer(chosen) if rejected.startswith(chosen[: turn.end()])]
    if not ends:
        raise RainConfigError(f"chosen, rejected: they have no prompt in common. {ALLOWED}")
    messages, is_merged = _messages(chosen[: ends[-1]].removesuffix("Assistant:"))
    if messages[-1]["role"] != "user":
        raise RainConfigError("chosen, rejected: the turn before the answers is the assistant's.")
    answers = {"chosen": chosen[ends[-1] :].strip(), "rejected": rejected[ends[-1] :].strip()}
    remarks = {
        MERGED: is_merged,
        "an answer goes on with turns of its own": any(_NEXT_TURN.search(answer) for answer in answers.values()),
        "an answer is empty": "" in answers.values(),
    }
    num_turns = sum(message["role"] == "user" for message in messages)
    group = "one turn" if num_turns == 1 else "several turns"
    return Case(f"hh:{row.number}", messages, (group,), {**answers, "num_turns": num_turns}, remarks=_true(remarks))


def _true(remarks: Mapping[str, bool]) -> tuple[str, ...]:
    return tuple(remark for remark, is_so in remarks.items() if is_so)


def _messages(dialogue: str) -> tuple[list[dict[str, str]], bool]:
    """The turns, and whether any stood beside another of the same speaker, which chat templates take for one.

    Raises:
        RainConfigError: the dialogue does not begin with the human, or a turn is empty.
    """
    before, *parts = _TURN.split(dialogue.strip())
    if before or parts[:1] != ["Human"]:
        raise RainConfigError(f'a dialogue that begins with "Human:" is wanted, given {dialogue.strip()!r:.80}.')
    messages: list[dict[str, str]] = []
    is_merged = False
    for speaker, text in zip(parts[::2], parts[1::2], strict=True):
        if not text.strip():
            raise RainConfigError(f"turn {len(messages) + 1} of the dialogue is empty.")
        if messages and messages[-1]["role"] == ROLES[speaker]:
            messages[-1]["content"] += f"\n\n{text.strip()}"
            is_merged = True
        else:
            messages.append({"role": ROLES[speaker], "content": text.strip()})
    return messages, is_merged
