"""Models beside each other: what is read of other runs, what is refused, and how the report tells it."""

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_rain import RainConfigError, cli
from langchain_rain.evaluation.beside import RESULTS, OtherRun, beside_models, read_others
from langchain_rain.evaluation.report import figures, markdown, model_figures, page, sections
from langchain_rain.evaluation.report.models import all_models, differing_settings
from langchain_rain.evaluation.results import BesideModel, Results
from langchain_rain.evaluation.runs import Found, Plan, run_to_end
from langchain_rain.evaluation.summaries import summarised
from tests.eval_beside import RATES, beside, beside_results, measured, of_two_labels, one_label_results, run_of
from tests.eval_results import results, with_value
from tests.eval_world import Ruled, WordJudge, plan, suite
from tests.test_rubric_report import Elements

SCRIPT = "<script>alert(1)</script>"


def measured_in(folder: Path, planned: Plan) -> Results:
    """Runs a plan and writes what it has found."""
    found = run_to_end(planned, folder, concurrency=4, tell=lambda what, done, num: None)
    told = summarised(planned, found, started=datetime(2026, 1, 1, tzinfo=UTC), seconds=1.0, settings={"max_tokens": 9})
    (folder / RESULTS).write_text(json.dumps(told.to_json()), encoding="utf-8")
    return told


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that may stand beside `here()`."""
    folder = tmp_path_factory.mktemp("other")
    measured_in(folder, plan(Ruled("weak", 0.3), Ruled("strong", 0.8)))
    return folder


def here() -> Plan:
    return plan(Ruled("weak", 0.4), Ruled("strong", 0.9))


def read(planned: Plan, *folders: Path) -> tuple[BesideModel, ...]:
    others = read_others([str(each) for each in folders], planned.suite, Path("of/this/run"))
    return beside_models(others, planned)


def copied(other: Path, folder: Path, change: Callable[[Any], None] = lambda document: None) -> Path:
    """The results of a run in another folder, with something changed."""
    document = json.loads((other / RESULTS).read_text(encoding="utf-8"))
    change(document)
    folder.mkdir()
    (folder / RESULTS).write_text(json.dumps(document), encoding="utf-8")
    return folder


# --- What is read ----------------------------------------------------------------------------------------------------


def test_of_another_run_its_names_rates_and_costs_are_told(other: Path) -> None:
    (told,) = read(here(), other)
    document = json.loads((other / RESULTS).read_text(encoding="utf-8"))
    assert told.folder == str(other)
    assert told.model == document["provenance"]["model"]
    assert [each.name for each in told.strategies] == ["weak", "strong"]
    for each, written in zip(told.strategies, document["strategies"], strict=True):
        assert each.rates["good"].value == written["rates"]["good"]["value"]
        assert each.costs.token_positions == written["costs"]["token_positions"]


def test_the_file_itself_may_be_named(other: Path, tmp_path: Path) -> None:
    moved = tmp_path / "llama.json"
    moved.write_bytes((other / RESULTS).read_bytes())
    assert [each.folder for each in read(here(), moved)] == [str(moved)]


def test_other_seeds_of_the_same_are_another_run(tmp_path: Path) -> None:
    measured_in(tmp_path / "a", plan(Ruled("weak", 0.4), Ruled("strong", 0.9), seeds=(1,)))
    (told,) = read(here(), tmp_path / "a")
    assert told.seeds == (1,)


def test_what_a_judge_is_called_does_not_matter_where_its_weights_are_the_same() -> None:
    def judged(name: str) -> WordJudge:
        identity = {"judge": "grading", "models": [{"name": name, "weights": "ab12"}], "rubrics": ["c"]}
        return judge_of(identity, name)

    planned = plan(Ruled("weak", 0.4), outcome_judge=judged("models/judge"))
    assert beside_models([OtherRun("b", made_by(judged("./models/judge")))], planned)


def test_people_who_labelled_other_answers_may_be_the_same_people() -> None:
    planned = plan(Ruled("weak", 0.4), outcome_judge=judge_of({"judge": "people", "labels": "1"}))
    two = replace(judge_of({"judge": "people", "labels": "2"}), labels=("good", "kind"))
    found = made_by(two)
    rates = {"good": of_two_labels("llama-7b").strategies[0].rates["harmless"]}
    (first,) = found.strategies
    found = replace(found, strategies=(replace(first, rates=rates | {"kind": rates["good"]}, unknown={"kind": 3}),))
    (told,) = beside_models([OtherRun("b", found)], planned)
    assert (told.strategies[0].rates, told.strategies[0].unknown) == (rates, {})


class _Judge(WordJudge):
    """One of any identity."""

    given: Mapping[str, Any] = {}

    @property
    def identity(self) -> Mapping[str, Any]:
        return self.given


def judge_of(identity: Mapping[str, Any], name: str = "reader") -> WordJudge:
    judge = type("Judge", (_Judge,), {"given": identity})(name=name)
    assert isinstance(judge, WordJudge)
    return judge


def made_by(judge: WordJudge) -> Results:
    """What a run of the same cases found, without any answer."""
    planned = plan(Ruled("other", 0.4), outcome_judge=judge)
    return summarised(planned, Found(), started=datetime(2026, 1, 1, tzinfo=UTC), seconds=1.0, settings={})


# --- What is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (with_value(1, "format"), "format 2 is what this version reads, given 1. Run the command there again"),
        (with_value("1", "num_cases"), "num_cases: "),
        (with_value("xstest", "suite"), "a run of the suite 'world' is wanted, given '.*', of 'xstest'"),
        (with_value(None, "cases_hash"), "does not tell which cases it answered.* older version.* run there again"),
        (
            with_value("0" * 16, "cases_hash"),
            "the same cases is wanted, 8 of a world of rules; given '.*', 8 of a world",
        ),
        (
            with_value("people", "provenance", "outcome_judge", "judge"),
            "judged by 'reader'.*'judge' is 'people' and not",
        ),
        (with_value(["r"], "provenance", "outcome_judge", "rubrics"), r"of which 'rubrics' is \['r'\] and not None"),
    ],
)
def test_what_does_not_compare_is_refused(
    other: Path, tmp_path: Path, change: Callable[[Any], None], told: str
) -> None:
    folder = copied(other, tmp_path / "b", change)
    with pytest.raises(RainConfigError, match=f"^beside: .*{told}") as caught:
        read(here(), folder)
    assert repr(str(folder)) in str(caught.value)


def test_other_cases_have_another_hash(tmp_path: Path) -> None:
    measured_in(tmp_path / "a", plan(Ruled("weak", 0.3), num_cases=9))
    with pytest.raises(RainConfigError, match=r"8 of a world of rules; given '.*', 9 of a world of rules"):
        read(here(), tmp_path / "a")


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b"\xff", b"nan", b'{"format": 1e999}', b"[]", b"null"])
def test_what_is_no_document_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / RESULTS).write_bytes(content)
    with pytest.raises(RainConfigError, match=r"^beside: "):
        read(here(), tmp_path)


@given(st.binary(max_size=40) | st.text(max_size=40).map(lambda text: json.dumps({"format": 2, text: text}).encode()))
def test_whatever_a_file_holds_the_mistake_is_told(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_bytes(content)
    with pytest.raises(RainConfigError, match=r"^beside: "):
        read_others([str(path)], suite(8), Path("out"))


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    for given_path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(
            RainConfigError, match=r"^beside: the folder of a run, with its results\.json, .* is wanted"
        ):
            read(here(), given_path)


def test_each_run_is_told_once(other: Path, tmp_path: Path) -> None:
    again = copied(other, tmp_path / "again")
    linked = tmp_path / "linked"
    linked.symlink_to(other)
    for second, told in ((other, "as '.*' already"), (linked, "as '.*' already"), (again, "the seeds of '.*'")):
        with pytest.raises(RainConfigError, match=f"^beside: each run is told once, given {str(second)!r}, .*{told}"):
            read(here(), other, second)
    with pytest.raises(RainConfigError, match="as the folder of this run already"):
        read_others([os.path.relpath(other)], here().suite, other)
    measured_in(tmp_path / "here", here())
    with pytest.raises(RainConfigError, match="the strategies and the seeds of this run"):
        read(here(), tmp_path / "here")


# --- How it is told --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def six() -> Results:
    return beside_results()


def section_of(given: Results) -> sections.Section:
    (found,) = [each for each in sections.all_sections(given) if each.name == "beside"]
    return found


def test_the_table_has_a_row_for_each_model_and_strategy_with_this_run_first(six: Results) -> None:
    (table,) = section_of(six).tables
    assert [column.name for column in table.columns] == [
        "model", "strategy", "harmless", "helpful", "token positions", "cases"
    ]  # fmt: skip
    rows = [[cell.text for cell in row] for row in table.rows]
    assert [row[0] for row in rows] == [model for model in RATES for _ in range(2)]
    assert [row[0].tag for row in table.rows] == ["this run"] * 2 + [""] * 10
    assert rows[3] == ["llama-7b", "rain-balanced", "69.4%", "69.4%", "1,512", "500"]
    assert table.rows[3][2].detail == "65.2\u201373.3, n\u00a0500"


def test_a_model_keeps_its_colour_and_a_strategy_its_form(six: Results) -> None:
    marks = [row[1].mark for row in section_of(six).tables[0].rows]
    assert len(set(marks)) == 12
    assert len({each.color for each in marks if each}) == 6
    assert {each.form for each in marks[::2] if each}.isdisjoint({each.form for each in marks[1::2] if each})


def test_it_is_said_that_models_are_not_tested_against_each_other(six: Results) -> None:
    for told in (Elements(page(six)).text, markdown(six)):
        assert "there is no paired test, and the 95% intervals are all there is" in told


def test_the_markdown_has_the_table(six: Results) -> None:
    told = markdown(six)
    assert "## Models beside each other" in told
    assert "| llama-7b | rain-balanced | 69.4% (65.2\u201373.3, n 500) |" in told.replace("\u00a0", " ")
    assert "A line leads from vanilla to rain-balanced. The upper right corner is best." in told


def test_the_report_is_drawn_from_the_document_alone(six: Results) -> None:
    read_again = Results.from_json(json.loads(json.dumps(six.to_json())))
    assert read_again == six
    assert section_of(read_again).plots[0].draw() == section_of(six).plots[0].draw()


def test_without_other_models_there_is_no_such_part() -> None:
    assert "beside" not in [each.name for each in sections.all_sections(results())]
    assert "beside each other" not in markdown(results())


def test_one_label_is_a_row_for_each_model() -> None:
    given_results = one_label_results()
    section = section_of(given_results)
    assert section.plots[0].caption.endswith("A line leads from vanilla to rain-balanced. Lower is better.")
    drawn = section.plots[0].draw()
    assert all(f">{model}<" in drawn for model in RATES)
    assert "better" in drawn


def test_models_of_one_name_are_told_apart_by_their_folders() -> None:
    first, second, third = (of_two_labels(model) for model in ("llama-7b", "llama-13b", "llama-30b"))
    same = [replace(each, provenance=replace(each.provenance, model={"name": "demo"})) for each in (first, second)]
    told = [BesideModel.of(each, folder) for each, folder in ((same[1], "runs/fast"), (third, "runs/30"))]
    models = all_models(replace(same[0], beside=tuple(told)))
    assert [each.full_name for each in models] == ["demo", "demo (runs/fast)", "llama-30b"]
    long = replace(told[0], folder=f"{'runs/' * 50}fast")
    assert all_models(replace(same[0], beside=(long,)))[1].full_name == f"demo (\u2026{'runs/' * 7}fast)"


def test_other_settings_are_told() -> None:
    first, second = of_two_labels("llama-7b"), of_two_labels("llama-13b")
    settings = {"max_tokens": 64, "model": "llama-13b", "preset": "fast"}
    changed = replace(second, provenance=replace(second.provenance, settings=settings), seeds=(0, 1))
    (told,) = differing_settings(all_models(beside(first, changed)))
    assert told == (
        "llama-13b was run with other settings: seeds [0, 1] (here [0]), max tokens 64 (here 128) and preset fast "
        "(here not given)."
    )
    rubric = replace(second.provenance.rubric, hash="0" * 12)
    other_rubric = replace(second, provenance=replace(second.provenance, rubric=rubric))
    (told,) = differing_settings(all_models(beside(first, other_rubric)))
    assert told == (
        "llama-13b was run with other settings: rubric harmlessness 000000000000 (here harmlessness 9f2c1a77d0e4)."
    )
    assert list(differing_settings(all_models(beside(first, second)))) == []


@pytest.mark.parametrize(
    ("names", "reference", "ends"),
    [
        (["vanilla", "rain"], "rain", ("vanilla", "rain")),
        (["best-of-4", "vanilla", "rain", "rain-fast"], "rain", ("vanilla", "rain")),
        (["best-of-4", "rain"], "rain", ("best-of-4", "rain")),
        (["vanilla", "best-of-4", "rain"], None, ("vanilla", "rain")),
        (["vanilla", "rain"], "vanilla", ("vanilla", "rain")),
        (["rain", "vanilla"], None, ("vanilla", "rain")),
        (["vanilla"], None, ("vanilla", "vanilla")),
    ],
)
def test_a_line_leads_from_vanilla_or_the_first_to_the_reference(
    names: list[str], reference: str | None, ends: tuple[str, str]
) -> None:
    pattern = measured("vanilla", harmless=400, helpful=400)
    strategies = tuple(replace(pattern, name=name, is_reference=name == reference) for name in names)
    (model, _) = all_models(beside(run_of("a", strategies), of_two_labels("llama-7b")))
    assert tuple(each.name for each in model.ends) == ends


def test_a_model_without_the_rates_is_left_out_of_the_plot_and_it_is_said() -> None:
    unhelped = run_of("silent", (measured("vanilla", harmless=400),))
    section = section_of(beside(of_two_labels("llama-7b"), unhelped))
    assert section.remarks == ["1 model has no such rate to plot."]
    assert "silent" not in section.plots[0].draw()
    alone = run_of("a", (measured("vanilla"),))
    section = section_of(beside(alone, replace(alone, provenance=replace(alone.provenance, model={"name": "b"}))))
    assert section.plots == []
    assert section.remarks == ["2 models have no such rate to plot."]


def test_of_more_strategies_than_there_are_forms_only_the_ends_of_lines_are_drawn() -> None:
    pattern = measured("vanilla", harmless=400, helpful=400)
    many = tuple(replace(pattern, name=f"s{number}") for number in range(9))
    models = all_models(beside(run_of("a", many), run_of("b", many[:2])))
    assert [len(each.points) for each in model_figures.model_points(models, ("helpful", "harmless"))] == [2, 2]
    assert section_of(beside(run_of("a", many), run_of("b", many[:2]))).plots[0].draw().startswith("<svg")


def test_points_at_one_place_are_drawn() -> None:
    same = measured("vanilla", harmless=500, helpful=500)
    strategies = (same, replace(same, name="rain-balanced"))
    drawn = section_of(beside(run_of("a", strategies), run_of("b", strategies))).plots[0].draw()
    assert ">a<" in drawn
    assert ">b<" in drawn


PAIR = of_two_labels("llama-7b")


@given(st.lists(st.text(max_size=60), min_size=2, max_size=4), st.lists(st.text(max_size=60), min_size=3, max_size=3))
def test_names_in_the_plot_are_short_and_no_two_alike(names: list[str], folders: list[str]) -> None:
    pattern = BesideModel.of(PAIR, "")
    told = [
        replace(pattern, folder=f"{folder}{number}", model={"name": name})
        for number, (name, folder) in enumerate(zip(names[1:], folders, strict=False))
    ]
    first = replace(PAIR, provenance=replace(PAIR.provenance, model={"name": names[0]}), beside=tuple(told))
    points = model_figures.model_points(all_models(first), ("helpful", "harmless"))
    short = [each.name for each in points]
    assert len(set(short)) == len(short)
    assert max(map(len, short)) <= figures.MAX_NAME


def test_people_as_judges_are_told_of(six: Results) -> None:
    by_people = replace(six, provenance=replace(six.provenance, outcome_judge={"name": "people", "judge": "people"}))
    assert any("People have judged" in remark for remark in section_of(by_people).remarks)


def test_names_from_other_runs_are_data() -> None:
    first, second = of_two_labels("llama-7b"), of_two_labels("llama-13b")
    evil = tuple(replace(each, name=f"{SCRIPT}{each.name}") for each in second.strategies)
    given_model = {"name": f"{SCRIPT} | `x` [a](https://evil.example)"}
    provenance = replace(second.provenance, model=given_model, settings={SCRIPT: SCRIPT})
    told = BesideModel.of(replace(second, provenance=provenance, strategies=evil), SCRIPT)
    again = replace(told, folder=f"{SCRIPT}/2")
    text = page(replace(first, beside=(told, again)))
    assert text.count("<script>") == text.count("</script>") == 1
    assert f"{SCRIPT} | `x`" in Elements(text).text
    written = markdown(replace(first, beside=(told, again)))
    assert "<script>" not in written
    assert "https://evil" not in written
    (row, *_) = [line for line in written.splitlines() if line.startswith("| &lt;script")]
    assert len(re.findall(r"(?<!\\)\|", row)) == 7


# --- The command -----------------------------------------------------------------------------------------------------

FEW = ("--limit", "2", "--max-tokens", "12", "--strategy", "vanilla", "--strategy", "rain-balanced")


def test_the_command_tells_runs_beside_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run(["eval", "demo", "--out", "one", "--seed", "1", *FEW]) == 0
    assert cli.run(["eval", "demo", "--out", "two", "--beside", "one", *FEW]) == 0
    document = json.loads(Path("two/results.json").read_text(encoding="utf-8"))
    (told,) = document["beside"]
    assert (told["folder"], told["seeds"]) == ("one", [1])
    assert document["provenance"]["settings"]["beside"] == ["one"]
    report = Path("two/report.md").read_text(encoding="utf-8")
    assert "| demo (one) | rain-balanced |" in report
    for arguments in (["--out", "two", "--beside", "two"], ["--out", "three", "--beside", "none"]):
        assert cli.run(["eval", "demo", *arguments, *FEW]) == 2
        assert "langchain-rain: beside: " in capsys.readouterr().err
    assert cli.run(["eval", "demo", "--out", "three", "--beside", "two", *FEW]) == 2  # the same again
    assert "each run is told once" in capsys.readouterr().err
    assert not Path("three").exists()
