"""Text from outside as it may stand among lines of ours: it is data, and nothing in it begins a part of the form.

Ordinary text stays as it is. What is changed here is only what a model reads, never what a caller is given.
Characters count as what they look like by their compatibility forms (NFKC), so that a wide bracket is a bracket.
"""

import re
import unicodedata
from collections.abc import Collection, Sequence

TURN_MARKERS = ("System", "Human", "Assistant", "Tool", "AI", "User", "Agent")
"""What begins a turn, with a colon."""

ONE_OF = ("letter", "word", "number")
"""What a chat model is asked for, alone."""

QUESTION_MARKERS = ("Options", "The answer is", "Question about the conversation")
"""What begins a part of a question that follows a transcript, with a colon."""

QUESTION_LINES = ("Options, from", "Answer with Yes or No", *(f"Answer with one {it} alone" for it in ONE_OF))
"""What begins such a part without one."""

_FILLING = r"[\s*_#>\-\u2800]"
_LINE_BREAK = re.compile("[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")  # begins a line to one reader or another
_EMPTY_LINE = re.compile(rf"{_FILLING}*+")


def _before(markers: Collection[str], lines: Collection[str]) -> re.Pattern[str]:
    """What stands between a word and a marker; in linear time, as it only matches a run from its first character."""
    gap = rf"{_FILLING}++"
    marker = rf"(?:{'|'.join(markers)}){_FILLING}*+:|(?:{'|'.join(lines)})".replace(" ", gap)
    return re.compile(rf"(?<!{_FILLING}){_FILLING}*+(?={marker})", re.IGNORECASE)


_BEFORE_ANY = _before((*TURN_MARKERS, *QUESTION_MARKERS), QUESTION_LINES)
_BEFORE_QUESTION = _before(QUESTION_MARKERS, QUESTION_LINES)
_ANSWER_BEGINNING = re.compile(rf"the{_FILLING}++answer{_FILLING}++is{_FILLING}*+(?::{_FILLING}*+)?\(", re.IGNORECASE)
_UNUSUAL = re.compile(r"[^\x20-\x7e\n\t]")
_JOINERS = "\u200c\u200d"
_HANGING = re.compile(f"[{_JOINERS}\ufe00-\ufe0f\u180b-\u180d\u180f]+")  # joiners, and selectors of a form
# What Unicode calls default ignorable, but for format characters and `_HANGING`: marks, fillers and reserved ones.
_IGNORABLE = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u2065\u3164\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]")


_DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def quoted(text: str, *, is_line_start: bool = False) -> str:
    """`text` with every line that would begin a turn, or a part of a question, marked as a quotation.

    If there is any, it is also without what is invisible, which could hide a line from whoever looks for one.

    Args:
        text: what somebody said.
        is_line_start: whether it stands at the beginning of a line.
    """
    shown = without_invisible(text)
    marked = _quote(_BEFORE_ANY, shown, is_line_start=is_line_start)
    return text if marked == shown else marked


def as_evidence(text: str, *, labels: Collection[str], is_turn: bool, is_line_start: bool) -> str:
    """`text` as it may stand in a question: nothing in it can be taken for a part of the question or for an answer.

    Args:
        text: a transcript or a part of one.
        labels: of the options; one in round brackets is put into square ones.
        is_turn: whether it is what one speaker says, so that a line of it begins no turn; else its turns are real.
        is_line_start: whether it stands at the beginning of a line.
    """
    shown = without_invisible(text)
    shown = _quote(_BEFORE_ANY if is_turn else _BEFORE_QUESTION, shown, is_line_start=is_line_start)
    return _square_answers(_square_labels(labels, shown) if labels else shown)


def ends_in_empty_line(text: str) -> bool:
    """Whether what follows `text` begins a line, but for what may stand before a marker."""
    spelled, _ = spelled_out(_LINE_BREAK.split(text)[-1])
    return _EMPTY_LINE.fullmatch(spelled) is not None


def without_forms(text: str, *, tags: Collection[str], lines: Collection[str]) -> str:
    """`text` without what the form around it is made of.

    Args:
        text: a transcript or a part of one.
        tags: names that stand in angle brackets in the form; before one of them the bracket becomes a square one.
        lines: of the form; one of them is marked as a quotation wherever it stands.
    """
    spelled, origins = spelled_out(text)
    edits = []
    if tags:
        names = "|".join(_loosely(tag) for tag in tags)
        for match in re.finditer(rf"<(?=\s*+/?\s*+(?:{names}))", spelled, re.IGNORECASE):
            edits.append((origins[match.start()], origins[match.start()] + 1, "["))
    if lines:
        for match in re.finditer("|".join(_loosely(line) for line in lines), spelled, re.IGNORECASE):
            edits.append((origins[match.start()], origins[match.start()], "> "))
    return _edited(text, sorted(edits))


def _loosely(text: str) -> str:
    """A pattern for a text with any space between its words."""
    return r"\s++".join(re.escape(word) for word in text.split())


def as_seen(text: str) -> str:
    """What a text says to whoever looks at it: in compatibility forms, without anything that is not seen."""
    return spelled_out(_HANGING.sub("", without_invisible(text)))[0]


def without_invisible(text: str) -> str:
    """`text` without control characters, and without what is there and not seen, or turns the direction of writing.

    Joiners and selectors of a form stay where they belong: by characters that do not look like ASCII.
    """
    if not _UNUSUAL.search(text):
        return text
    shown = "".join(character for character in _IGNORABLE.sub("", text) if not _is_control(character))
    return _HANGING.sub(_hanging, shown)


def spelled_out(text: str) -> tuple[str, Sequence[int]]:
    """`text` in compatibility forms, each character by itself, and where in `text` each of these comes from.

    Normalised as a whole, a text of combining marks would take quadratic time.
    """
    if text.isascii():
        return text, range(len(text))
    forms = [unicodedata.normalize("NFKC", character) for character in text]
    return "".join(forms), [index for index, form in enumerate(forms) for _ in form]


def _is_control(character: str) -> bool:
    is_one = unicodedata.category(character) in ("Cf", "Cc")
    return is_one and character not in _JOINERS and not character.isspace()


def _hanging(run: re.Match[str]) -> str:
    """Of a run of joiners and selectors, the selector of what stands before it, and one joiner to what follows."""
    before, after = run.string[run.start() - 1 : run.start()], run.string[run.end() : run.end() + 1]
    if _looks_ascii(before):
        return ""
    selector = "" if run[0][0] in _JOINERS else run[0][0]
    joiner = next((character for character in run[0] if character in _JOINERS), "")
    return selector if _looks_ascii(after) else selector + joiner


def _looks_ascii(character: str) -> bool:
    return unicodedata.normalize("NFKC", character).isascii()


def _quote(before_marker: re.Pattern[str], text: str, *, is_line_start: bool) -> str:
    spelled, origins = spelled_out(text)
    edits = []
    for gap in before_marker.finditer(spelled):
        line = _LINE_BREAK.split(gap[0])[-1]
        begins_line = line != gap[0] or (gap.start() == 0 and is_line_start)
        if begins_line and ">" not in line:
            edits.append((origins[gap.end()], origins[gap.end()], "> "))
    return _edited(text, edits)


def _square_labels(labels: Collection[str], text: str) -> str:
    """`text` with every label that stands in round brackets in square ones."""
    spelled, origins = spelled_out(text)
    edits = []
    for match in re.finditer(rf"\([\s*_]*+({'|'.join(map(re.escape, labels))})[\s*_]*+\)", spelled):
        start, end = origins[match.start()], origins[match.end() - 1] + 1
        is_one_character = end - start == 1
        label = match[1] if is_one_character else text[origins[match.start(1)] : origins[match.end(1) - 1] + 1]
        edits.append((start, end, f"[{label}]"))
    return _edited(text, edits)


def _square_answers(text: str) -> str:
    """`text` with a square bracket wherever what an answer begins with would open a round one."""
    spelled, origins = spelled_out(text)
    starts = [origins[match.end() - 1] for match in _ANSWER_BEGINNING.finditer(spelled)]
    return _edited(text, [(start, start + 1, spelled_out(text[start])[0].replace("(", "[")) for start in starts])


def _edited(text: str, edits: Sequence[tuple[int, int, str]]) -> str:
    """`text` with new text from a start to an end."""
    parts: list[str] = []
    done = 0
    for start, end, new in edits:
        parts += [text[done:start], new]
        done = end
    return "".join([*parts, text[done:]])


def visible(text: str) -> str:
    """`text` with what could drive a terminal as escapes: control characters, and those that turn the direction."""
    return "".join(_escape(character) if _drives(character) else character for character in text)


def _drives(character: str) -> bool:
    is_control = unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t"
    return is_control or character in _DIRECTIONS


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()
