"""Reports of checked rubrics: text from outside is data in them, and the same report is the same page."""

import io
import json
import re
import sys
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.cells import cell_len
from rich.console import Console

from langchain_rain import RainConfigError
from langchain_rain.evaluation.labelled import Labelled
from langchain_rain.evaluation.rubric_figures import CheckReport
from langchain_rain.evaluation.rubric_report import page, tables, write_html, write_json
from tests.test_rubric_check import FIVE, KIND, RUBRIC, checked, said

HOSTILE = "<script>alert(1)</script> [red]{{ 7 * 7 }}[/red] & \"'> \x1b[2J\x00 \u202e"


@pytest.fixture(scope="module")
def report() -> CheckReport:
    return checked(FIVE, source="five.jsonl")


@pytest.fixture(scope="module")
def hostile() -> CheckReport:
    """Wherever a user or a model may write something there is something evil."""
    rubric = RUBRIC.model_copy(
        update={"name": HOSTILE, "criteria": (KIND.model_copy(update={"name": HOSTILE, "instruction": HOSTILE}),)}
    )
    row = Labelled(prompt=HOSTILE, response=f"0.9 {HOSTILE}", is_good=False, criterion=HOSTILE)
    report = checked([row, said(0.9, True)], rubric, source=HOSTILE)
    return replace(report, model=HOSTILE)


class Elements(HTMLParser):
    """The elements of a page with their attributes, the ids and the visible text; every element is closed."""

    VOID = frozenset({"meta"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.ids: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self._open += [] if tag in self.VOID else [tag]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if self._open[-1:] == [tag]:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def shown(report: CheckReport, width: int = 100) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(tables(report))
    return out.getvalue()


def test_json_holds_all_figures_and_cases(report: CheckReport, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_json(path, report)
    told = json.loads(path.read_text(encoding="utf-8"))
    assert told == json.loads(json.dumps(asdict(report)))
    assert told["accuracy"] == 0.6
    assert [case["number"] for case in told["worst"]] == [5, 3]


def test_the_terminal_shows_the_figures(report: CheckReport) -> None:
    told = " ".join(re.sub("[│┃]", " ", shown(report)).split())
    for figure in (
        "judged by the judge: five.jsonl",
        "cases 5: 3 good, 2 bad",
        "accuracy 60.0% (95 % interval 23.1% to 88.2%)",
        "balanced accuracy 58.3%",
        "AUROC 0.833",
        "good cases passed 2 of 3",
        "bad cases passed 1 of 2",
        "abstentions 0",
        "25 % 60.0% 58.3% 0 5 0",
        "kind +0.0 points 0.0% 5",
        "0.95 100.0% 1",
        "5 bad +0.30 Well? 0.65",
    ):
        assert figure in told


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_terminal_is_not_overrun(hostile: CheckReport, width: int) -> None:
    assert max(map(cell_len, shown(hostile, width).splitlines())) <= width


def test_the_terminal_shows_text_from_outside_as_data(hostile: CheckReport) -> None:
    told = shown(hostile, 400)
    assert (
        told.count("[red]{{ 7 * 7 }}[/red] & \"'> \\x1b[2J\\x00") == 6
    )  # name, model, source; criterion; prompt, answer
    assert "\x1b" not in told
    assert "\x00" not in told


def test_long_answers_are_shortened_in_the_terminal(report: CheckReport) -> None:
    (worst, *_) = report.worst
    told = shown(replace(report, worst=(replace(worst, prompt="", response="x" * 301),)), 400)
    assert "x" * 297 + "..." in told
    assert "x" * 298 not in told


def test_text_from_outside_is_data_in_the_page(hostile: CheckReport) -> None:
    text = page(hostile)
    elements = Elements(text)
    assert "script" not in elements.tags
    assert not any(name.startswith("on") for name in elements.attributes)
    assert elements.text.count("<script>alert(1)</script> [red]{{ 7 * 7 }}[/red] & \"'> \\x1b[2J\\x00") >= 6
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", text)


def test_the_page_needs_nothing_beside_itself(report: CheckReport) -> None:
    text = page(report)
    assert {"src", "action", "srcset"}.isdisjoint(Elements(text).attributes)
    namespaces = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert set(re.findall(r"https?://[^\"'\s<)]+", text)) <= namespaces
    assert re.findall(r'(?:href="|url\()[^#]', text) == []
    assert "default-src 'none'" in text


def test_the_page_is_the_same_for_the_same_report_and_has_every_id_once(report: CheckReport) -> None:
    text = page(report)
    assert page(report) == text
    ids = Elements(text).ids
    assert len(ids) == len(set(ids)) > 0
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', text)) <= set(ids)


def test_the_page_has_three_plots_and_all_sections(report: CheckReport) -> None:
    text = page(report)
    plots = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(plots) == 3
    for plot in plots:
        assert ElementTree.fromstring(plot).tag.endswith("svg")
    told = Elements(text).text
    assert "predicted probability of being good" in told
    for title in ("By length of the answer", "Position bias", "Calibration", "Worst mistakes", "Case 5: truth bad"):
        assert title in told


def test_what_there_is_nothing_of_is_left_out(report: CheckReport) -> None:
    bare = replace(report, calibration=(), position_bias=(), worst=(), notes=(), auroc=None, balanced_accuracy=None)
    bare = replace(bare, by_prefix=tuple(replace(each, balanced_accuracy=None) for each in bare.by_prefix))
    text = page(bare)
    assert text.count("<svg") == 1
    told = Elements(text).text
    assert not any(title in told for title in ("Position bias", "Calibration", "Worst mistakes"))
    assert "Worst mistakes" not in shown(bare)
    assert "AUROC" in told


def test_unfinished_and_abstained_mistakes_say_so(report: CheckReport) -> None:
    (worst, *_) = report.worst
    text = page(replace(report, worst=(replace(worst, is_finished=False, is_abstained=True),)))
    assert "truth bad, value abstained" in text
    assert "; not finished" in text


@pytest.mark.parametrize("module", ["jinja2", "matplotlib"])
def test_without_what_draws_the_page_what_to_install_is_told_and_no_file_is_left(
    module: str, report: CheckReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(RainConfigError, match=rf"with {module}.*pip install 'langchain-rain\[eval\]'"):
        write_html(tmp_path / "page.html", report)
    assert list(tmp_path.iterdir()) == []
