"""The report as somebody sees it: opened in Chromium, on a phone and on a desk, by day and by night."""

import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from langchain_rain.evaluation.report import write_report
from langchain_rain.evaluation.results import BesideModel, Malformed, Results
from tests.browser import Browser, chromium
from tests.eval_beside import RATES, beside_results, of_two_labels, one_label_results
from tests.eval_results import FIGURES, rate, results, strategy, worst
from tests.test_eval_report import HOSTILE, hostile_results

EXECUTABLE = chromium()

pytestmark = pytest.mark.skipif(EXECUTABLE is None, reason="there is no Chromium (Debian: apt-get install chromium)")

WIDTHS = (400, 1400)

OVERFLOW = """
Array.from(document.querySelectorAll("body *"))
  .filter(it => !it.closest(".scroll") && !it.closest("svg") && it.getBoundingClientRect().right > innerWidth + 1)
  .map(it => it.outerHTML.slice(0, 120))
"""
"""What reaches beyond the window, but for what stands in a part that scrolls by itself."""

KEYS = "Array.from(document.querySelectorAll('#quality tbody tr')).map(row => row.cells[%d].dataset.key ?? null)"


@dataclass(frozen=True)
class Reports:
    """Where the page of each kind of results is."""

    whole: Path
    hostile: Path
    crowded: Path
    models: Path
    models_of_one_label: Path
    hostile_models: Path


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Reports:
    folder = tmp_path_factory.mktemp("reports")
    many = tuple(Malformed(f"line {number}", "no JSON", "{" * 200) for number in range(300))
    long = replace(worst(1), answer="w" * 3000, prompt="\u202e" + "\u05d0" * 500)
    whole = results(malformed=many, worst=(long, *map(worst, range(9))))
    written = {
        "whole": whole,
        "hostile": hostile_results(),
        "crowded": crowded_results(),
        "models": beside_results(),
        "models_of_one_label": one_label_results(),
        "hostile_models": hostile_models(),
    }
    for name, given in written.items():
        write_report(given, folder / name)
    return Reports(**{name: folder / name / "report.html" for name in written})


def hostile_models() -> Results:
    """Names of models, folders and strategies that are something evil, long, or alike."""
    first, *others = map(of_two_labels, RATES)
    told = []
    for number, each in enumerate(others):
        evil = tuple(replace(it, name=f"{HOSTILE}{it.name}") for it in each.strategies)
        provenance = replace(each.provenance, model={"name": HOSTILE}, settings={HOSTILE: [HOSTILE]})
        folder = f"{HOSTILE}/{number}"
        told.append(BesideModel.of(replace(each, provenance=provenance, strategies=evil), folder))
    return replace(first, beside=tuple(told))


def crowded_results() -> Results:
    """Strategies between which there is next to no difference."""
    alike = []
    for number, name in enumerate(FIGURES):
        given = strategy(name)
        rates = {**given.rates, "harmless": rate(860 + number), "helpful": rate(740 + 2 * number)}
        alike.append(replace(given, rates=rates))
    return results(strategies=tuple(alike))


@pytest.fixture(scope="module")
def started() -> Iterator[Browser]:
    assert EXECUTABLE is not None
    # The browser may still write into its profile while it goes.
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        Browser.started(EXECUTABLE, Path(folder)) as browser,
    ):
        yield browser


@pytest.fixture
def browser(started: Browser) -> Iterator[Browser]:
    """One whose console hears nothing from beginning to end of a test."""
    started.complaints.clear()
    yield started
    assert started.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", ["whole", "hostile", "models", "models_of_one_label", "hostile_models"])
def test_nothing_reaches_beyond_the_window(
    kind: str, width: int, scheme: str, browser: Browser, reports: Reports
) -> None:
    browser.open(getattr(reports, kind), width=width, scheme=scheme)
    assert browser.value("innerWidth") == width
    browser.value("document.querySelectorAll('details').forEach(it => { it.open = true; })")
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value(OVERFLOW) == []
    assert browser.value("window.pwned") is None


@pytest.mark.parametrize("width", WIDTHS)
def test_the_plots_are_there_and_their_words_can_be_read(width: int, browser: Browser, reports: Reports) -> None:
    browser.open(reports.whole, width=width)
    sizes: list[tuple[float, float]] = browser.value(
        "Array.from(document.querySelectorAll('.plot svg')).map(it => it.getBoundingClientRect())"
        ".map(it => [it.width, it.height])"
    )
    assert len(sizes) == 7  # two of costs, the two rates, rewinds, differences by three labels
    assert all(width >= 300 and height >= 150 for width, height in sizes)
    assert smallest_words_of_plots(browser) >= 9.5
    smallest = browser.value(
        "Math.min(...Array.from(document.querySelectorAll('body *')).filter(it => !it.closest('svg'))"
        ".map(it => parseFloat(getComputedStyle(it).fontSize)))"
    )
    assert smallest >= 12


def smallest_words_of_plots(browser: Browser) -> float:
    """Their size in pixels of the window."""
    size: float = browser.value(
        "Math.min(...Array.from(document.querySelectorAll('.plot text'))"
        ".map(it => parseFloat(getComputedStyle(it).fontSize) * Math.hypot(it.getScreenCTM().a, it.getScreenCTM().b)))"
    )
    return size


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", ["models", "models_of_one_label"])
def test_the_plot_of_models_is_there_and_its_words_can_be_read(
    kind: str, width: int, browser: Browser, reports: Reports
) -> None:
    browser.open(getattr(reports, kind), width=width)
    shown, height, texts = browser.value(
        """(() => {
          const plot = document.querySelector('#beside .plot svg');
          const box = plot.getBoundingClientRect();
          return [box.width, box.height, Array.from(plot.querySelectorAll('text')).map(it => it.textContent)];
        })()"""
    )
    assert shown >= 300
    assert height >= 300
    assert {*RATES, "vanilla", "rain-balanced"} <= set(texts)
    assert smallest_words_of_plots(browser) >= 9.5


def test_the_table_of_models_is_sorted(browser: Browser, reports: Reports) -> None:
    browser.open(reports.models, width=1400)
    keys = "Array.from(document.querySelectorAll('#beside tbody tr')).map(row => row.cells[%d].dataset.key)"
    browser.value("document.querySelectorAll('#beside thead button')[0].click()")
    assert browser.value(keys % 0) == [name for name in sorted(RATES, key=natural) for _ in range(2)]
    browser.value("document.querySelectorAll('#beside thead button')[2].click()")
    rates = [float(each) for each in browser.value(keys % 2)]
    assert rates == sorted((num / 500 for both in RATES.values() for num, _ in both), reverse=True)


def natural(name: str) -> list[tuple[int, str]]:
    """Numbers in names as numbers."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)]


@pytest.mark.parametrize("kind", ["whole", "crowded", "models", "models_of_one_label", "hostile_models"])
def test_names_in_plots_lie_beside_each_other(kind: str, browser: Browser, reports: Reports) -> None:
    browser.open(getattr(reports, kind), width=1400)
    overlapping: list[Any] = browser.value(
        """Array.from(document.querySelectorAll('.plot svg')).flatMap(plot => {
          const texts = Array.from(plot.querySelectorAll('text')).map(it => [it.textContent, it.getBBox()]);
          const meets = (a, b) => Math.min(a.x + a.width, b.x + b.width) - Math.max(a.x, b.x) > 1
            && Math.min(a.y + a.height, b.y + b.height) - Math.max(a.y, b.y) > 3;
          return texts.flatMap(([one, a], at) => texts.slice(at + 1)
            .filter(([other, b]) => meets(a, b) && !/of answers/.test(one + other)).map(([other]) => [one, other]));
        })"""
    )
    assert overlapping == []


@pytest.mark.parametrize("width", WIDTHS)
def test_the_first_column_stays_in_sight(width: int, browser: Browser, reports: Reports) -> None:
    browser.open(reports.whole, width=width)
    moved = browser.value(
        """(() => {
          const scroll = document.querySelector('#cost .scroll');
          const before = scroll.querySelector('tbody th').getBoundingClientRect().left;
          scroll.scrollLeft = 200;
          return [scroll.scrollLeft, scroll.querySelector('tbody th').getBoundingClientRect().left - before];
        })()"""
    )
    assert moved == ([200, 0] if width == 400 else [0, 0])  # at a desk there is nothing to scroll


def test_on_a_desk_explanations_stand_beside_what_they_explain(browser: Browser, reports: Reports) -> None:
    for width, is_beside in ((1400, True), (400, False)):
        browser.open(reports.whole, width=width)
        edges = browser.value(
            "['.explained', '.content'].map(it => document.querySelector('#cost ' + it).getBoundingClientRect())"
            ".map(it => [it.left, it.right])"
        )
        assert (edges[0][1] < edges[1][0]) == is_beside


def sorted_by(browser: Browser) -> tuple[str | None, list[str | None]]:
    """How the column "below threshold" says it is sorted, and its keys."""
    order = browser.value("document.querySelectorAll('#quality thead th')[6].getAttribute('aria-sort')")
    return order, browser.value(KEYS % 6)


def test_tables_are_sorted_by_mouse_and_by_keyboard(browser: Browser, reports: Reports) -> None:
    browser.open(reports.whole, width=1400)
    order, as_it_was = sorted_by(browser)
    assert order is None
    assert as_it_was[0] is None  # vanilla has no threshold
    numbers = sorted(float(key) for key in as_it_was if key is not None)

    browser.value("document.querySelectorAll('#quality thead button')[6].click()")
    order, keys = sorted_by(browser)
    assert order == "descending"
    assert keys[-1] is None
    assert [float(key or "nan") for key in keys[:-1]] == numbers[::-1]

    browser.value("document.querySelectorAll('#quality thead button')[6].focus()")
    browser.press("Enter", 13, "\r")
    order, keys = sorted_by(browser)
    assert order == "ascending"
    assert keys[-1] is None  # what is not known goes last either way
    assert [float(key or "nan") for key in keys[:-1]] == numbers

    browser.press(" ", 32, " ")
    assert sorted_by(browser) == (None, as_it_was)


def test_names_are_sorted_by_the_alphabet_with_numbers_as_numbers(browser: Browser, reports: Reports) -> None:
    browser.open(reports.whole, width=1400)
    browser.value("document.querySelectorAll('#quality thead button')[0].click()")
    names = browser.value(KEYS % 0)
    assert names[:3] == ["best-of-4", "best-of-16", "critique-revise"]
    assert names[-1] == "vanilla"
    assert browser.value("document.querySelectorAll('[aria-sort]').length") == 1


def test_the_night_is_dark_and_paper_is_white(browser: Browser, reports: Reports) -> None:
    colors = []
    for scheme, media in (("light", "screen"), ("dark", "screen"), ("dark", "print")):
        browser.open(reports.whole, width=1400, scheme=scheme, media=media)
        colors.append(browser.value("getComputedStyle(document.body).backgroundColor"))
    assert colors == ["rgb(255, 255, 255)", "rgb(20, 23, 27)", "rgb(255, 255, 255)"]
    browser.open(reports.whole, width=720, media="print")
    assert browser.value("getComputedStyle(document.querySelector('nav')).display") == "none"


def test_the_console_would_be_heard(browser: Browser, reports: Reports) -> None:
    """What the other tests find nothing of can be found."""
    browser.open(reports.whole, width=1400)
    browser.value("document.body.setAttribute('style', 'color: red')")
    browser.value("console.error('a complaint')")
    assert any("Content Security Policy" in each for each in browser.complaints)
    assert any("a complaint" in each for each in browser.complaints)
    browser.complaints.clear()
