"""The report as a page in HTML that needs nothing beside itself, and lets nothing in."""

import base64
import hashlib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from langchain_rain.evaluation.packages import needed
from langchain_rain.evaluation.report import formats, sections, tables, worst
from langchain_rain.evaluation.report import words as texts
from langchain_rain.evaluation.report.formats import counted, name_of, named, printable, shortened
from langchain_rain.evaluation.report.marks import glyph
from langchain_rain.evaluation.results import Results, WorstAnswer

MAX_SOURCE = 300
"""Characters of the words that say where the cases come from, at the top."""


def page(results: Results) -> str:
    """The page; the same results, the same page. Its security policy allows its one style and its one script.

    Raises:
        RainConfigError: jinja2 or matplotlib is missing.
    """
    jinja2 = needed("jinja2")
    markup = jinja2.utils.markupsafe.Markup
    style, script = _file("page.css"), _file("page.js")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["printable"] = lambda key: printable(f"{key}")
    environment.filters["glyph"] = lambda mark: markup(glyph(mark))
    rendered: str = environment.from_string(_file("page.html.jinja")).render(
        **_contents(results),
        style=markup(style),
        style_hash=_hash(style),
        script=markup(script),
        script_hash=_hash(script),
    )
    return rendered


def _contents(results: Results) -> Mapping[str, Any]:
    """All that the page says."""
    answers = [_answer(results, each) for each in results.worst]
    return {
        "title": title(results),
        "lead": lead(results),
        "facts": list(sections.facts(results)),
        "notes": [printable(note) for note in results.notes],
        "highlights": list(sections.highlights(results)),
        "rain": texts.RAIN,
        "sections": sections.all_sections(results),
        "worst": answers,
        "opened": next((number for number, each in enumerate(answers) if each["steps"]), None),
        "worst_words": texts.WORST,
        "malformed": tables.malformed_table(results) if results.malformed else None,
        "malformed_words": texts.MALFORMED,
        "provenance": list(sections.provenance(results)),
    }


def title(results: Results) -> str:
    """Of the report."""
    return f"Evaluation: {name_of(results.suite)}"


def lead(results: Results) -> str:
    """Who wrote, who steered, who judged, and on what."""
    given = results.provenance
    source = shortened(printable(results.source), MAX_SOURCE)
    told = f"{counted(len(results.strategies), 'strategy', 'strategies')} on {counted(results.num_cases, 'case')} "
    told += f"({source}). Written by {named(given.model)}; searches steered by {named(given.judge)} "
    told += f"with the rubric {name_of(given.rubric.name)}; outcomes judged by {named(given.outcome_judge)}. "
    return f"{told}{formats.moment(given.started)}."


def _answer(results: Results, answer: WorstAnswer) -> Mapping[str, Any]:
    return {
        "cell": tables.strategy_cell(results, answer.strategy),
        "case": name_of(answer.case_id),
        "seed": answer.seed,
        "value": formats.value(answer.value),
        "findings": list(worst.findings(answer)),
        "turns": list(worst.turns(answer)),
        "text": worst.cut(answer.answer, worst.MAX_TEXT),
        "steps": worst.steps(answer),
        "summary": worst.search_summary(answer),
    }


def _file(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """As a content security policy names an element by what stands in it."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
