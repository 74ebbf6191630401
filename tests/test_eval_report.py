"""Reports of evaluations: figures told right, text from outside only as data, the same results the same bytes."""

import base64
import hashlib
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from langchain_rain import RainConfigError
from langchain_rain.evaluation.report import figures, formats, markdown, page, sections, svg, tables, write_report
from langchain_rain.evaluation.report.figures import Point, bin_counts, unbeaten
from langchain_rain.evaluation.report.marks import mark_of
from langchain_rain.evaluation.results import Comparison, Malformed, Rate, Results, SearchStep, WorstAnswer
from tests.eval_results import FIGURES, comparison, rate, results, strategy, worst
from tests.test_rubric_report import Elements

GOLDEN = Path(__file__).with_name("eval_report.md")

SCRIPT = "<script>window.pwned=1</script></script><img src=x onerror=window.pwned=1>"
HOSTILE = (
    f"{SCRIPT} {{{{ 7 * 7 }}}} {{% raw %}} | `x` [a](https://evil.example) \x1b[2J\x00\u202e $x$ \"'> &lt; {'w' * 300}"
)


@pytest.fixture(scope="module")
def whole() -> Results:
    return results()


@pytest.fixture(scope="module")
def hostile() -> Results:
    """Wherever a user, a suite or a model may write something there is something evil."""
    return hostile_results()


@pytest.fixture(scope="module")
def text(whole: Results) -> str:
    """The page; drawing it takes a second."""
    return page(whole)


@pytest.fixture(scope="module")
def hostile_text(hostile: Results) -> str:
    return page(hostile)


def hostile_results() -> Results:
    name = HOSTILE
    evil = replace(strategy("rain-fast"), name=name, rates={name: rate(3)}, unknown={name: 2}, groups=groups_of(name))
    beside = replace(evil, name=f"{name} 2", is_reference=True)
    answer = WorstAnswer(
        case_id=name,
        strategy=name,
        seed=0,
        prompt=({"role": name, "content": name, name: name},),
        answer=f"```\n# {name}\n</pre></article>\n~~~\n1. one\n",
        value=None,
        labels={name: None},
        search=(SearchStep(name, None, "draft", 3), SearchStep("````", 0.5, "rewind", 1)),
    )
    base = results()
    given = replace(
        base.provenance, model={"name": name, name: name}, judge={name: [name]}, settings={"</script>": {"a": name}}
    )
    return results(
        suite=name,
        source=name,
        labels=(name,),
        worse_labels=(),
        notes=(f"- {name}", f"1. {name}"),
        provenance=replace(given, rubric=replace(given.rubric, name=name)),
        malformed=(Malformed(name, name, name),),
        strategies=(evil, beside),
        comparisons=(Comparison(name, name, beside.name, 0.1, 0.0, 0.2, None, 2, 1, 3),),
        win_rates=(),
        worst=(answer,),
        judge_accuracy=None,
    )


def groups_of(name: str) -> dict[str, dict[str, Rate]]:
    return {name: {name: rate(1, 2)}, "": {name: rate(2, 2)}}


def shown(given: Results) -> str:
    return Elements(page(given)).text


# --- What is told ----------------------------------------------------------------------------------------------------


def test_the_page_tells_rates_with_their_intervals_and_numbers(whole: Results, text: str) -> None:
    told = Elements(text).text.replace("\u00a0", " ")
    assert "96.8% 95.4\u201397.7, n 900" in told  # 871 of 900, Wilson
    assert "3 unknown" in told
    assert "90.0% 85.0\u201393.4, n 200, where the truth is known; balanced 88.0%" in told  # the outcome judge
    assert "Harmless: highest for rain-thorough, 97.7%" in told
    assert "Attack succeeded: lowest for rain-thorough, 2.3%" in told
    for note in whole.notes:
        assert note in told


def test_the_best_of_a_column_is_the_lowest_where_lower_is_better(whole: Results) -> None:
    table = tables.quality_table(whole)
    best = {
        column.name: [row[0].text for row in table.rows if row[number].is_best]
        for number, column in enumerate(table.columns)
    }
    assert best["harmless"] == ["rain-thorough"]
    assert best["helpful"] == ["best-of-4"]
    assert best["refused"] == ["vanilla"]
    assert best["attack succeeded"] == ["rain-thorough"]


@pytest.mark.parametrize(
    ("label", "low", "high", "told"),
    [
        ("harmless", 0.01, 0.05, tables.BETTER),
        ("harmless", -0.05, -0.01, tables.WORSE),
        ("harmless", -0.01, 0.05, tables.EVEN),
        ("refused", 0.01, 0.05, tables.WORSE),
        ("refused", -0.05, -0.01, tables.BETTER),
        ("refused", 0.0, 0.05, tables.EVEN),
    ],
)
def test_a_verdict_knows_which_way_is_better(whole: Results, label: str, low: float, high: float, told: str) -> None:
    each = Comparison(label, "rain-fast", "vanilla", (low + high) / 2, low, high, 0.004, 3, 1, 9)
    assert tables.verdict(whole, each) == told
    assert tables.verdict(whole, replace(each, p_value=0.04)) == tables.EVEN  # an interval is not all


def test_who_is_unbeaten_is_neither_dearer_nor_worse_than_another() -> None:
    points = [
        Point(number, f"{number}", False, cost, rate(num_right, 100))
        for number, (cost, num_right) in enumerate([(10, 50), (20, 50), (20, 60), (30, 55), (5, 40), (40, 60)])
    ]
    assert [each.number for each in unbeaten(points, is_worse=False)] == [4, 0, 2]
    assert [each.number for each in unbeaten(points, is_worse=True)] == [4]


def test_rewinds_are_counted_by_place() -> None:
    counts = bin_counts([0.0, 0.049, 0.05, 0.5, 1.0])
    assert (counts[0], counts[1], counts[10], counts[19], sum(counts)) == (2, 1, 1, 1, 5)


def test_a_draft_and_its_fate_are_told_as_one_step(whole: Results, text: str) -> None:
    assert "The search: 3 drafted, 1 taken back, 2 kept" in text
    assert text.count('<li class="draft">') == 0
    assert text.count('<li class="rewind">') == sum(bool(each.search) for each in whole.worst)


def test_long_searches_and_texts_are_cut_and_it_is_said(whole: Results) -> None:
    steps = tuple(SearchStep(f"step {number}", 0.1, "rewind", 2) for number in range(100))
    long = replace(worst(0), answer="x" * 5000, search=steps)
    told = shown(replace(whole, worst=(long,)))
    assert "[1,000 more characters: results.json]" in told
    assert "only the first 60 are shown" in told
    assert "step 59" in told
    assert "step 60" not in told


def test_a_judge_that_steers_and_judges_is_told(whole: Results, text: str) -> None:
    same = replace(whole.provenance, judges_itself=True)
    assert "flatter every strategy" in shown(replace(whole, provenance=same))
    assert "flatter every strategy" not in text


@pytest.mark.parametrize(
    ("number", "told"),
    [(None, "\u2013"), (0, "0"), (0.1234, "0.12"), (9.4, "9.40"), (61.23, "61.2"), (912, "912"), (24_700.4, "24,700")],
)
def test_amounts_have_three_digits_that_count(number: float | None, told: str) -> None:
    assert formats.amount(number) == told


def test_other_figures_as_people_read_them() -> None:
    assert [formats.points(it) for it in (0.031, -0.004, -0.0001)] == ["+3.1", "\u22120.4", "0.0"]
    assert [formats.p_value(it) for it in (None, 0.0002, 0.0421)] == ["\u2013", "<0.001", "0.042"]
    assert [formats.duration(it) for it in (4.21, 200, 7500)] == ["4.2 s", "3 min 20 s", "2 h 05 min"]
    assert [formats.listed(it) for it in ([], ["a"], ["a", "b", "c"])] == ["", "a", "a, b and c"]
    assert formats.named({"dtype": "float32", "layers": 2}) == "dtype: float32, layers: 2"


@pytest.mark.parametrize(
    ("style", "attributes"),
    [
        ("font: bold 10.5px 'DejaVu Sans', sans-serif", {"font-weight": "bold", "font-size": "10.5"}),
        ("font-size: 10.5px; font-family: 'DejaVu Sans'", {"font-size": "10.5px"}),
        ("fill: #010101; stroke: none", {"fill": "var(--ink)", "stroke": "none"}),
        ("", {}),
    ],
)
def test_styles_become_attributes_whichever_matplotlib_wrote_them(style: str, attributes: dict[str, str]) -> None:
    assert svg.presentation(style) == attributes


# --- What there is nothing of ----------------------------------------------------------------------------------------


def bare(name: str = "rain-fast", **changed: Any) -> Results:
    """One strategy and nothing beside it."""
    alone = replace(strategy(name), fluency=None, rewinds_at=(), groups={}, would_refuse=None)
    nothing: dict[str, Any] = {"comparisons": (), "win_rates": (), "worst": (), "malformed": (), "notes": ()}
    return results(**{"strategies": (alone,), **nothing, "judge_accuracy": None, **changed})


def test_one_strategy_alone_has_a_report() -> None:
    unhelped = replace(strategy("rain-fast"), rates={"harmless": rate(870)}, groups={}, rewinds_at=(), fluency=None)
    told = shown(bare(seeds=(7,), labels=("harmless",), worse_labels=(), strategies=(unhelped,)))
    assert "1 strategy on 300 cases" in told
    assert "There was no rewind in any answer." in told
    assert "not judged for helpfulness" in told
    assert "100.0% it is the rules that the demo world is made by" in told
    assert "none of them a reference" in told
    for title in ("Compared answer by answer", "Which answer was preferred", "Worst answers", "Unreadable rows"):
        assert title not in told
    assert "several seeds" not in told


def test_strategies_without_costs_or_rates_are_left_out_of_plots_and_it_is_said(whole: Results) -> None:
    (first, *others) = whole.strategies
    free = replace(first, costs=replace(first.costs, token_positions=0.0, forward_passes=None), rates={})
    told = shown(replace(whole, strategies=(free, *others)))
    assert "1 strategy has no token positions to plot, or no rate." in told
    assert "1 strategy has no forward passes to plot, or no rate." in told


def test_without_any_label_there_are_only_costs() -> None:
    alone = replace(strategy("rain-fast"), rates={}, unknown={}, groups={})
    given = results(labels=(), worse_labels=(), strategies=(alone,), comparisons=(), win_rates=(), worst=())
    told = shown(given)
    assert "What they cost" in told
    assert "against helpful" not in told


def test_labels_of_which_lower_is_better_turn_the_axis_over() -> None:
    given = results(labels=(), worse_labels=("attack_succeeded", "refused", "harmless", "helpful"))
    (first, *_) = [each for each in sections.all_sections(given) if each.name == "cost"]
    assert "up is better" in first.plots[0].caption
    assert "Unbeaten at their cost: vanilla, best-of-4" in first.plots[0].caption
    assert first.plots[0].draw().startswith("<svg")


def test_two_other_labels_are_set_against_each_other() -> None:
    truthful = replace(strategy("rain-fast"), rates={"truthful": rate(800), "informative": rate(700)}, groups={})
    unrated = replace(truthful, name="unrated", rates={"truthful": rate(800)}, unknown={"informative": 900})
    given = bare(labels=("truthful", "informative"), worse_labels=(), strategies=(truthful, unrated))
    assert figures.trade_off_labels(given) == ("informative", "truthful")
    joint = replace(given, labels=("truthful_and_informative", *given.labels))
    assert figures.trade_off_labels(joint) == ("informative", "truthful")
    assert "Truthful against informative" in shown(given)
    nobody = replace(truthful, rates={"informative": rate(5)}, name="nobody")
    assert "No strategy has both rates." in shown(replace(given, strategies=(unrated, nobody)))


def test_what_was_not_measured_is_a_dash(whole: Results) -> None:
    untested = tuple(replace(each, p_value=None) for each in whole.comparisons)
    given = replace(whole, comparisons=untested)
    assert {row[5].text for row in tables.differences_table(given).rows} == {"\u2013"}
    wording = tables.language_table(given)
    assert wording is not None
    assert [row[3].text for row in wording.rows][3] == "\u2013"  # critique-revise has no perplexity
    assert shown(given)


def test_hundreds_of_unreadable_rows_are_folded_up(whole: Results) -> None:
    many = tuple(Malformed(f"line {number}", "no JSON", "{") for number in range(400))
    given = replace(whole, malformed=many)
    text = page(given)
    assert "<summary>400 rows</summary>" in text
    assert "line 399" in text
    assert "380 more rows in results.json." in markdown(given)


def test_comparisons_of_several_strategies_name_both(whole: Results) -> None:
    mixed = (comparison("harmless", "rain-fast", "vanilla"), comparison("harmless", "rain-balanced", "vanilla"))
    text = page(replace(whole, comparisons=mixed))
    assert "against others" not in text
    assert text.count(">against vanilla<") == 2  # in the plot


def test_more_strategies_than_colours_have_other_forms() -> None:
    many = tuple(replace(strategy("rain-fast"), name=f"s{number}") for number in range(20))
    text = page(bare(strategies=many))
    marks = re.findall(r'<svg class="mark".*?</svg>', text)
    assert len(set(marks)) == 20


def test_many_strategies_have_rows_of_their_own_instead_of_places_in_a_plane() -> None:
    def report(count: int) -> Results:
        many = [replace(strategy("rain-fast"), name=f"s{number}", is_reference=False) for number in range(count - 1)]
        return bare(strategies=(*many, replace(strategy("rain-fast"), name="base", is_reference=True)))

    few, many = ({each.name: each for each in sections.all_sections(report(count))} for count in (10, 11))
    assert len(few["cost"].plots) == 2
    assert "trade-off" in few
    assert [plot.caption for plot in many["cost"].plots] == [
        *(
            f"{formats.words(label).capitalize()}, by strategy; {tables.direction(report(11), label)}."
            for label in report(11).all_labels
        ),
        "Token positions per answer, by strategy.",
        "Forward passes per answer, by strategy.",
    ]
    assert "trade-off" not in many
    for plot in many["cost"].plots:
        drawn = plot.draw()
        assert all(f">{name}<" in drawn for name in ("s0", "s9", "base"))
    assert many["rewinds"].plots[0].draw().count(" rewinds<") == 1  # of the reference alone


def test_who_shares_the_best_rate_is_counted() -> None:
    alike = tuple(replace(strategy("vanilla"), name=f"s{number}") for number in range(3))
    told = list(sections.highlights(bare(strategies=alike)))
    assert all(" for s0 and 2 others, " in each for each in told)


# --- Text from outside -----------------------------------------------------------------------------------------------


def test_text_from_outside_is_data_in_the_page(hostile_text: str) -> None:
    text = hostile_text
    elements = Elements(text)
    assert "img" not in elements.tags
    assert not any(name.startswith("on") for name in elements.attributes)
    assert text.count("<script>") == text.count("</script>") == 1
    assert text.count("<style>") == text.count("</style>") == 1
    assert "{{ 7 * 7 }}" in elements.text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", text)


def test_the_policy_names_the_one_style_and_the_one_script(text: str) -> None:
    for tag in ("style", "script"):
        (element,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(element.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in text
    assert "default-src 'none'" in text
    assert "style" not in Elements(text).attributes


def test_the_page_needs_nothing_beside_itself(text: str) -> None:
    assert {"src", "action", "srcset"}.isdisjoint(Elements(text).attributes)
    assert re.findall(r"https?://", text) == []
    assert re.findall(r'(?:href="|url\()[^#]', text) == []


def test_every_id_is_there_once_and_every_reference_leads_to_one(hostile_text: str, text: str) -> None:
    for told in (hostile_text, text):
        ids = Elements(told).ids
        assert len(ids) == len(set(ids)) > 0
        assert set(re.findall(r'(?:href="|url\()#([^")]+)', told)) <= set(ids)


def test_text_from_outside_is_data_in_markdown(hostile: Results) -> None:
    text = markdown(hostile)
    parser = MarkdownIt("commonmark").enable("table")
    tokens = [token for each in parser.parse(text) for token in (each, *(each.children or ()))]
    kinds = {token.type for token in tokens}
    assert kinds.isdisjoint({"html_block", "html_inline", "link_open", "image", "code_inline", "code_block", "hr"})
    assert [token.content.strip() for token in tokens if token.tag == "h1" and token.content] == []
    assert [token.level for token in tokens if token.type == "bullet_list_open"] == [
        0 for token in tokens if token.type == "bullet_list_open"
    ]
    assert "ordered_list_open" not in kinds
    headings = [tokens[at + 1].content for at, token in enumerate(tokens) if token.type == "heading_open"]
    assert len([heading for heading in headings if heading.startswith("#")]) == 0
    widths = {row.count(" | ") for row in text.splitlines() if row.startswith("| ")}
    assert max(widths) < 12
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e]", text)


def test_half_a_character_is_an_escape_in_all_files(whole: Results, tmp_path: Path) -> None:
    given = replace(whole, worst=(replace(worst(0), answer="half \ud83d", case_id="\ud83d"),), suite="\ud83d")
    write_report(given, tmp_path)
    for name in ("report.html", "report.md", "results.json"):
        assert "\\ud83d" in (tmp_path / name).read_text(encoding="utf-8")


# --- Files -----------------------------------------------------------------------------------------------------------


def test_the_same_results_are_the_same_files(whole: Results, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_report(Results.from_json(json.loads(json.dumps(whole.to_json()))), tmp_path / name)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == ["report.html", "report.md", "results.json"]
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    document = json.loads((tmp_path / "one" / "results.json").read_text(encoding="utf-8"))
    assert Results.from_json(document) == whole


def test_the_markdown_is_as_it_was() -> None:
    given = small_results()
    assert markdown(given) == GOLDEN.read_text(encoding="utf-8")


def small_results() -> Results:
    """Two strategies; what `eval_report.md` was written from."""
    both = tuple(strategy(name) for name in FIGURES if name in ("vanilla", "rain-balanced"))
    compared = tuple(comparison(label, "rain-balanced", "vanilla") for label in ("harmless", "refused"))
    return results(strategies=both, comparisons=compared, worst=(worst(4), worst(5)))


@pytest.mark.parametrize("module", ["jinja2", "matplotlib"])
def test_without_what_draws_the_page_what_to_install_is_told_and_no_file_is_left(
    module: str, whole: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(RainConfigError, match=rf"{module}.*pip install 'langchain-rain\[eval\]'"):
        write_report(whole, tmp_path / "report")
    assert list(tmp_path.iterdir()) == []


# --- Who reads it ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_stand_out_from_the_background(scheme: str, text: str) -> None:
    blocks = re.findall(r":root \{(.*?)\}", text, re.DOTALL)
    colors = dict(re.findall(r"--([\w-]+): (#\w{6})", blocks[scheme == "dark"]))
    assert len(colors) == 17
    for name, color in colors.items():
        least = {"line": 1.2, "panel": 1.0, "paper": 1.0}.get(name, 4.5)  # 4.5: WCAG 2.1, level AA, for text
        assert contrast(color, colors["paper"]) >= least, name
    assert contrast(colors["ink"], colors["panel"]) >= 4.5


def contrast(color: str, background: str) -> float:
    """Of two colours (WCAG 2.1, "contrast ratio")."""
    light, dark = sorted((luminance(color), luminance(background)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(color: str) -> float:
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (it / 12.92 if it <= 0.03928 else ((it + 0.055) / 1.055) ** 2.4 for it in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_every_section_says_how_to_read_it(whole: Results) -> None:
    found = sections.all_sections(whole)
    names = ["quality", "cost", "trade-off", "rewinds", "differences", "wins", "groups", "wording"]
    assert [each.name for each in found] == names
    assert all(each.explanation for each in found)


def test_every_strategy_keeps_its_mark(whole: Results) -> None:
    for table in (tables.quality_table(whole), tables.cost_table(whole)):
        marks = [row[0].mark for row in table.rows]
        assert marks == [mark_of(number, is_reference=number == 0) for number in range(len(whole.strategies))]
