"""The answers that turned out worst, as texts that cannot be taken for parts of the report."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import zip_longest

from langchain_rain.evaluation.report import formats
from langchain_rain.evaluation.report.formats import counted, printable, words
from langchain_rain.evaluation.results import Label, SearchStep, WorstAnswer
from langchain_rain.quoting import visible

MAX_TEXT = 4000
"""Characters of a prompt or an answer that are shown."""

MAX_STEP = 600
"""Of a step of a search."""

MAX_STEPS = 60
"""Of a search, that are shown; a search at a dead end has hundreds that are alike."""

EVENTS = {"draft": "drafted", "rewind": "taken back", "commit": "kept"}
"""What happened to a piece of text, in words."""

MARKS = {"draft": "…", "rewind": "↶", "commit": "✓"}


@dataclass(frozen=True, slots=True)
class ShownStep:
    """A step of a search as it is shown."""

    event: str
    told: str
    mark: str
    value: str
    length: str
    text: str


def cut(text: str, most: int) -> str:
    """What is shown of a text from outside: control characters as escapes, of a long one the beginning."""
    if len(text) <= most:
        return visible(text)
    return f"{visible(text[:most])}… [{len(text) - most:,} more characters: results.json]"


def turns(answer: WorstAnswer) -> Iterator[tuple[str, str]]:
    """Who said what before the answer; a prompt that is a text to continue is said by nobody else than "prompt"."""
    if isinstance(answer.prompt, str):
        yield "prompt", cut(answer.prompt, MAX_TEXT)
        return
    for message in answer.prompt:
        beside = [f"[{printable(key)}: {each}]" for key, each in message.items() if key not in ("role", "content")]
        said = [message["content"]] if "content" in message else []
        yield printable(message.get("role", "prompt")), cut("\n".join([*said, *beside]), MAX_TEXT)


def findings(answer: WorstAnswer) -> Iterator[tuple[str, str]]:
    """Each label in words with what was found."""
    for label, found in answer.labels.items():
        yield words(label), _found(found)


def _found(found: Label) -> str:
    if isinstance(found, bool):
        return "yes" if found else "no"
    return "unknown" if found is None else f"{found:.3g}"


def steps(answer: WorstAnswer) -> list[ShownStep]:
    """The search, of a long one the beginning; a draft whose fate is the next step is told with it."""
    pairs = zip_longest(answer.search, answer.search[1:])
    told = [step for step, after in pairs if not _is_told_by(after, step)]
    return [_shown(step) for step in told[:MAX_STEPS]]


def _is_told_by(after: SearchStep | None, step: SearchStep) -> bool:
    return after is not None and step.event == "draft" and after == replace(step, event=after.event)


def _shown(step: SearchStep) -> ShownStep:
    return ShownStep(
        event=step.event,
        told=EVENTS[step.event],
        mark=MARKS[step.event],
        value=formats.value(step.value),
        length=counted(step.num_tokens, "token"),
        text=cut(step.text, MAX_STEP),
    )


def search_summary(answer: WorstAnswer) -> str:
    """What the search did, in one line."""
    events = [step.event for step in answer.search]
    told = [f"{events.count(event):,} {EVENTS[event]}" for event in EVENTS if event in events]
    if not told:
        return "There was no search."
    more = f"; only the first {MAX_STEPS} are shown" if len(steps(answer)) == MAX_STEPS < len(events) else ""
    return f"{', '.join(told)}{more}"
