"""The report of an evaluation: a page, the same as Markdown, and the figures as JSON.

The page is drawn from the results alone, so it can be drawn again from the JSON; the same results are the same files,
to the byte, with the same version of matplotlib.
"""

import json
from pathlib import Path

from langchain_rain.evaluation.report.markdown import markdown
from langchain_rain.evaluation.report.page import page
from langchain_rain.evaluation.results import Results
from langchain_rain.files import write_whole

__all__ = ["markdown", "page", "write_report"]


def write_report(results: Results, folder: Path) -> None:
    """Writes report.html, report.md and results.json into a folder, which is made if it is missing; each file whole.

    Raises:
        RainConfigError: jinja2 or matplotlib is missing; nothing is written then.
        OSError: a file cannot be written.
    """
    told = {"report.html": page(results), "report.md": markdown(results), "results.json": _json(results)}
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in told.items():
        write_whole(folder / name, _encodable(text))


def _json(results: Results) -> str:
    return json.dumps(results.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _encodable(text: str) -> str:
    """Half a character, as a text from outside may hold, as the escape that JSON has for it."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
