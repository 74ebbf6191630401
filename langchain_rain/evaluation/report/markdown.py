"""The report as Markdown, for where no page can be shown: a pull request, a terminal, a mail."""

import re
from collections.abc import Iterator, Sequence

from langchain_rain.evaluation.report import formats, sections, tables, worst
from langchain_rain.evaluation.report import words as texts
from langchain_rain.evaluation.report.formats import printable
from langchain_rain.evaluation.report.page import lead, title
from langchain_rain.evaluation.report.tables import Cell, Column, Table
from langchain_rain.evaluation.results import Results, WorstAnswer

MAX_MALFORMED = 20
"""Rows that could not be read, that are told."""

_MARKED = re.compile(r"([\\`*_\[\]|~#$])")
_LIST_START = re.compile(r"^(\d+(?=\.(?:\s|$))|(?=[-+=]))(.)")
_BARE_LINK = re.compile(r"(www|:(?=//))(\.|/)", re.IGNORECASE)


def markdown(results: Results) -> str:
    """The report; the same results, the same text. Text from outside is escaped or stands in fences it cannot close."""
    parts = [
        f"# {escaped(title(results))}",
        escaped(lead(results)),
        *_summary(results),
        "**What RAIN is.** " + texts.RAIN[0],
        texts.RAIN[1],
    ]
    for section in sections.all_sections(results):
        parts += [f"## {escaped(section.title)}", *section.explanation]
        parts += [_list([f"Plot in report.html: {plot.caption}" for plot in section.plots])] if section.plots else []
        parts += [_table(table) for table in section.tables]
        parts += [_list(section.remarks)] if section.remarks else []
    parts += [*_worst(results), *_malformed(results), "## How this was run", *_provenance(results)]
    return "\n\n".join(parts) + "\n"


def escaped(text: str) -> str:
    """A text within a line that Markdown takes for nothing else than text."""
    plain = printable(text).strip().replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _BARE_LINK.sub(r"\1\\\2", _MARKED.sub(r"\\\1", plain))


def line(text: str) -> str:
    """The same at the beginning of a line, where it begins no list either."""
    return _LIST_START.sub(r"\1\\\2", escaped(text))


def fenced(text: str) -> str:
    """A text of several lines in a fence longer than any in it."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def _summary(results: Results) -> Iterator[str]:
    if results.notes:
        yield _list(results.notes)
    facts = [f"{name}: {figure} ({detail})" for name, figure, detail in sections.facts(results)]
    yield _list([*facts, *sections.highlights(results)])


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line(each)}" for each in lines)


def _table(table: Table) -> str:
    rule = ["--:" if column.is_number else ":--" for column in table.columns]
    rows = [[_head(column) for column in table.columns], rule]
    rows += [[_cell(cell) for cell in row] for row in table.rows]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([f"*{escaped(table.caption)}*", "", *lines])


def _head(column: Column) -> str:
    return escaped(f"{column.name} ({column.detail})" if column.detail else column.name)


def _cell(cell: Cell) -> str:
    beside = ", ".join(filter(None, [cell.tag, cell.detail]))
    text = f"**{escaped(cell.text)}**" if cell.is_best else escaped(cell.text)
    return f"{text} {escaped(f'({beside})')}" if beside else text


def _worst(results: Results) -> Iterator[str]:
    if results.worst:
        yield "## Worst answers"
        yield from texts.WORST
    for number, answer in enumerate(results.worst, 1):
        name = tables.strategy_cell(results, answer.strategy).text
        yield f"### {number}. {escaped(name)}, case {escaped(formats.name_of(answer.case_id))}, seed {answer.seed}"
        found = [f"{label}: {it}" for label, it in worst.findings(answer)]
        yield line("; ".join([*found, f"value: {formats.value(answer.value)}"]))
        yield from _texts(answer)


def _texts(answer: WorstAnswer) -> Iterator[str]:
    for who, text in (*worst.turns(answer), ("answer", worst.cut(answer.answer, worst.MAX_TEXT))):
        yield f"{line(who)}:"
        yield fenced(text)
    yield line(worst.search_summary(answer))
    if answer.search:
        told = [f"[{it.told}, value {it.value}, {it.length}]\n{it.text}" for it in worst.steps(answer)]
        yield fenced("\n".join(told))


def _malformed(results: Results) -> Iterator[str]:
    if results.malformed:
        yield "## Unreadable rows"
        yield from texts.MALFORMED
        table = tables.malformed_table(results)
        yield _table(Table(table.caption, table.columns, table.rows[:MAX_MALFORMED]))
        left_out = len(results.malformed) - MAX_MALFORMED
        if left_out > 0:
            yield f"{formats.counted(left_out, 'more row')} in results.json."


def _provenance(results: Results) -> Iterator[str]:
    yield _list([f"{name}: {'; '.join(lines)}" for name, lines in sections.provenance(results)])
