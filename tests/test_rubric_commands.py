"""`langchain-rain rubric check` and `rubric explain`: what they show and write, and their exit codes."""

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers.utils import logging as progress_bars

from benchmarks.demo_rubric_cases import make_cases
from langchain_rain import EngineError, Rubric, cli, rubric_commands
from langchain_rain.engines.scripted import ScriptedEngine
from langchain_rain.rubric_commands import load_rubric
from langchain_rain.rubrics import CallableCriterion
from langchain_rain.search.protocol import OptionLogprobs, Score
from tests.test_rubric_check import Judge, choice, is_swapped

RUBRIC = """\
name: mine
criteria:
  - {name: kind, instruction: 'Is it kind?', good: GOOD, bad: BAD}
examples:
  - {criterion: kind, prompt: 'Well?', response: '0.9', is_good: true}
  - {criterion: kind, prompt: 'Well?', response: '0.2', is_good: false}
  - {criterion: kind, prompt: 'Well?', response: '0.4', is_good: true}
"""


@pytest.fixture(autouse=True)
def process_state(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Puts back what the commands change of the process; nothing here finds a terminal."""
    monkeypatch.setattr(os, "environ", {**os.environ, "COLUMNS": "120"})
    monkeypatch.setattr(sys, "path", list(sys.path))
    progress_bars.disable_progress_bar()  # type: ignore[no-untyped-call]
    yield
    progress_bars.enable_progress_bar()  # type: ignore[no-untyped-call]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Judge:
    """Judges in place of whatever model is named."""
    judge = Judge()
    monkeypatch.setattr(rubric_commands, "load_engine", lambda name: judge)
    return judge


@pytest.fixture
def rubric(tmp_path: Path) -> str:
    return written(tmp_path, RUBRIC)


def written(folder: Path, text: str, name: str = "mine.yaml") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def rows_in(folder: Path, *rows: dict[str, Any]) -> str:
    return written(folder, "".join(json.dumps(row) + "\n" for row in rows), "rows.jsonl")


def run(*arguments: str) -> int:
    """Runs a command as the command line does, mounted or not."""
    return cli._exit_code_of(lambda: rubric_commands.app(list(arguments), prog_name="langchain-rain rubric"))


def one_line(text: str) -> str:
    assert text.count("\n") == 1, text
    assert text.startswith("langchain-rain: ")
    return text


# --- Check -------------------------------------------------------------------------------------------------------


def test_check_shows_the_figures_on_standard_output_alone(
    rubric: str, engine: Judge, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = rows_in(tmp_path, *({"prompt": "?", "response": "0.9", "is_good": label} for label in (True, False)))
    assert run("check", rubric, "--examples", rows) == 0
    out, err = capsys.readouterr()
    assert "Rubric mine" in out
    assert "judged by the judge: rows.jsonl" in out
    assert "50.0% (95 % interval" in out
    assert err == ""


def test_check_judges_the_worked_examples_if_it_is_given_no_others(
    rubric: str, engine: Judge, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "report.json"
    assert run("check", rubric, "--json", str(path)) == 0
    report = json.loads(path.read_text(encoding="utf-8"))
    assert (report["source"], report["num_cases"], report["accuracy"]) == ("worked examples", 3, pytest.approx(2 / 3))


@pytest.mark.parametrize(("least", "code"), [("0.66", 0), ("0.67", 1), ("0", 0), ("1", 1)])
def test_an_accuracy_below_the_least_is_exit_code_1_and_is_told(
    least: str, code: int, rubric: str, engine: Judge, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("check", rubric, "--min-accuracy", least) == code
    out, err = capsys.readouterr()
    assert "66.7%" in out
    assert err == (f"The accuracy 0.6667 is below --min-accuracy {least}.\n" if code else "")


def test_both_files_are_written_even_if_the_accuracy_is_too_low(rubric: str, engine: Judge, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    files = [folder / "report.json", folder / "report.html"]
    assert run("check", rubric, "--json", str(files[0]), "--html", str(files[1]), "--min-accuracy", "1") == 1
    assert sorted(folder.iterdir()) == sorted(files)
    assert files[1].read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_a_draw_is_repeated_by_its_seed(rubric: str, engine: Judge, tmp_path: Path) -> None:
    rows = rows_in(tmp_path, *({"prompt": "?", "response": f"0.{number}", "is_good": True} for number in range(10, 60)))
    numbers = []
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        path = tmp_path / name
        run("check", rubric, "--examples", rows, "--max-cases", "5", "--seed", seed, "--json", str(path))
        numbers.append([case["number"] for case in json.loads(path.read_text(encoding="utf-8"))["cases"]])
    assert len(numbers[0]) == 5
    assert numbers[0] == numbers[1] != numbers[2]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--min-accuracy", "1.5"], "--min-accuracy: a share from 0 to 1 is allowed, given 1.5"),
        (["--min-accuracy", "-0.1"], "--min-accuracy: a share from 0 to 1 is allowed, given -0.1"),
        (["--min-accuracy", "nan"], "--min-accuracy: a share from 0 to 1 is allowed, given nan"),
        (["--max-cases", "0"], "--max-cases: at least 1 is allowed, given 0"),
        (["--examples", "none.jsonl"], "'none.jsonl' cannot be read: No such file"),
        (["--json", "no/such/folder.json"], "a folder that is there is wanted for the report, given 'no/such"),
        (["--html", "/"], "is wanted for the report, given '/'"),
        (["--parameter", "topic=x"], "NAME=VALUE is allowed, and the rubric takes none; given 'topic=x'"),
        (["--functions", "math"], "the rubric has no callable criterion, given 'math'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2_and_nothing_is_judged(
    arguments: list[str], told: str, rubric: str, engine: Judge, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("check", rubric, *arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert told in one_line(err)
    assert engine.asked == []


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("harmlesness", "no rubric 'harmlesness' in the library"),
        ("none.yaml", "'none.yaml' cannot be read"),
        ("./harmlessness", "'harmlessness' cannot be read"),
    ],
)
def test_a_rubric_that_there_is_not_is_exit_code_2(
    given: str, told: str, engine: Judge, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("check", given) == 2
    assert told in one_line(capsys.readouterr().err)


def test_a_mistake_in_a_rubric_is_told_with_its_line(
    engine: Judge, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("check", written(tmp_path, RUBRIC.replace("bad: BAD", "bad: GOOD"))) == 2
    assert "mine.yaml, line 3: " in one_line(capsys.readouterr().err)


def test_a_rubric_without_examples_has_nothing_to_be_checked_with(
    engine: Judge, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("check", written(tmp_path, RUBRIC.partition("examples:")[0])) == 2
    assert "mine has no worked examples" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize(("module", "html"), [("sklearn.metrics", False), ("jinja2", True), ("matplotlib", True)])
def test_a_package_that_is_missing_is_exit_code_2_before_anything_is_judged(
    module: str,
    html: bool,
    rubric: str,
    engine: Judge,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    page = tmp_path / "page.html"
    assert run("check", rubric, *(["--html", str(page)] if html else [])) == 2
    assert "pip install 'langchain-rain[eval]'" in one_line(capsys.readouterr().err)
    assert engine.asked == []
    assert not page.exists()


def test_a_report_that_cannot_be_written_is_exit_code_2_and_the_old_one_stays(
    rubric: str, engine: Judge, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("langchain_rain.files.os.fsync", full)
    assert run("check", rubric, "--json", str(path)) == 2
    assert "report.json' cannot be written: No space left on device" in one_line(capsys.readouterr().err)
    assert path.read_text() == "old"


def test_a_model_that_fails_is_exit_code_3(
    rubric: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = ScriptedEngine(score=lambda _: EngineError("The plug is out."))
    monkeypatch.setattr(rubric_commands, "load_engine", lambda name: broken)
    assert run("check", rubric) == 3
    assert "Case 1 cannot be judged: The plug is out." in one_line(capsys.readouterr().err)


@pytest.mark.parametrize("command", [[], ["check"], ["explain"]])
def test_help_tells_the_exit_codes(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*command, "--help") == 0
    assert "Exit codes: 0 done; 1 the accuracy is below" in " ".join(capsys.readouterr().out.split())


def test_the_exit_codes_are_those_of_every_command() -> None:
    assert (rubric_commands.ACCURATE, rubric_commands.INACCURATE) == (cli.SATISFIED, cli.UNSATISFIED)


def test_a_small_model_that_is_here_needs_one_thread_and_no_hub() -> None:
    for name in ("HF_HUB_OFFLINE", "OMP_NUM_THREADS"):
        os.environ.pop(name, None)
    rubric_commands.prepare_for("some/model")
    assert "HF_HUB_OFFLINE" not in os.environ
    rubric_commands.prepare_for("demo")
    assert (os.environ["HF_HUB_OFFLINE"], os.environ["OMP_NUM_THREADS"]) == ("1", "1")


def test_the_bundled_model_passes_a_check_of_harmlessness(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_in(tmp_path, *make_cases("harmlessness", 10, seed=2))
    files = [str(tmp_path / name) for name in ("report.json", "report.html")]
    arguments = ["--examples", rows, "--json", files[0], "--html", files[1], "--min-accuracy", "0.9"]
    assert run("check", "harmlessness", "--model", "demo", *arguments) == 0
    out, err = capsys.readouterr()
    assert "judged by demo: rows.jsonl" in out
    assert err == ""
    assert json.loads(Path(files[0]).read_text(encoding="utf-8"))["num_cases"] == 10


# --- Rubrics -----------------------------------------------------------------------------------------------------

OPEN = """\
name: open
parameters:
  topic: {description: What it is about.}
  sources: {description: What is known., type: documents, default: nothing}
criteria:
  - {name: grounded, instruction: 'About {topic}? Known: {sources}', good: GOOD, bad: BAD}
"""


def test_parameters_are_filled_in_and_documents_may_be_several_and_files(tmp_path: Path) -> None:
    first = written(tmp_path, "From a file.", "first.txt")
    path = written(tmp_path, OPEN)
    (criterion,) = load_rubric(path, ["topic=a=b", f"sources=@{first}", "sources=Said."]).criteria
    assert criterion.model_dump()["instruction"] == (
        "About a=b? Known: <document>\nFrom a file.\n</document>\n\n<document>\nSaid.\n</document>"
    )
    (criterion,) = load_rubric(path, ["topic=@home"]).criteria  # a text is no name of a file
    assert criterion.model_dump()["instruction"] == "About @home? Known: <document>\nnothing\n</document>"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["topic"], "NAME=VALUE is allowed, and the rubric takes topic, sources; given 'topic'"),
        (["tropic=x"], "the rubric takes topic, sources; given 'tropic=x'"),
        (["topic=x", "topic=y"], "topic takes one text, given a second, 'y'"),
        (["topic=x", "sources=@none.txt"], "the file 'none.txt' cannot be read: No such file"),
        ([], "needs a value for 'topic'"),
    ],
)
def test_a_mistake_in_a_parameter_is_exit_code_2(
    given: list[str], told: str, engine: Judge, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parameters = [part for each in given for part in ("--parameter", each)]
    assert run("check", written(tmp_path, OPEN), *parameters) == 2
    assert told in one_line(capsys.readouterr().err)


def test_a_document_that_is_no_text_is_exit_code_2(
    engine: Judge, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bytes.txt").write_bytes(b"\xff")
    path = written(tmp_path, OPEN)
    assert run("check", path, "--parameter", "topic=x", "--parameter", f"sources=@{tmp_path}/bytes.txt") == 2
    assert "bytes.txt' cannot be read" in one_line(capsys.readouterr().err)


def test_a_rubric_of_the_library_is_loaded_by_its_name() -> None:
    assert load_rubric("politeness") == Rubric.load("politeness")


CALLABLE = "name: short\ncriteria:\n  - {name: is short, kind: callable}\n"


def test_functions_of_callable_criteria_come_from_a_module_in_the_folder_of_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, "def is_short(text):\n    return 1.5 - len(text.answer)\n", "mine_short.py")
    monkeypatch.chdir(tmp_path)
    (criterion,) = load_rubric(written(tmp_path, CALLABLE), functions="mine_short").criteria
    assert isinstance(criterion, CallableCriterion)
    assert criterion.function.__module__ == "mine_short"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "The criterion 'is short' of .*mine.yaml is a function; give the module.*--functions MODULE"),
        (["--functions", "no_such_module"], "'no_such_module' cannot be imported: ModuleNotFoundError"),
        (["--functions", "mine_broken"], "'mine_broken' cannot be imported: ZeroDivisionError"),
        (["--functions", "math"], "math has no is_short, the function of the criterion 'is short'"),
    ],
)
def test_a_function_that_is_missing_is_exit_code_2(
    arguments: list[str],
    told: str,
    engine: Judge,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written(tmp_path, "1 / 0\n", "mine_broken.py")
    monkeypatch.chdir(tmp_path)
    assert run("check", written(tmp_path, CALLABLE), *arguments) == 2
    assert re.search(told, one_line(capsys.readouterr().err))


# --- Explain -----------------------------------------------------------------------------------------------------


def explained(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run("explain", *arguments) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_explain_shows_both_orders_their_replies_the_finding_and_the_verdict(
    engine: Judge, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, RUBRIC.partition("examples:")[0])
    told = explained(capsys, path, "--prompt", "Well?", "--response", "0.75")
    straight, swapped = engine.asked
    assert isinstance(straight, Score)
    assert isinstance(swapped, Score)
    assert [is_swapped(straight), is_swapped(swapped)] == [False, True]
    # ln 0.75 = -0.2877, ln 0.25 = -1.3863
    assert told == (
        "== kind (question, weight 1) ==\n"
        "order 1 of 2:\n"
        f"{straight.question}The answer is: (\n"
        "  'A': log probability -0.2877, probability 0.7500, share 0.7500\n"
        "  'B': log probability -1.3863, probability 0.2500, share 0.2500\n"
        "  mass 1.0000\n"
        "order 2 of 2:\n"
        f"{swapped.question}The answer is: (\n"
        "  'A': log probability -1.3863, probability 0.2500, share 0.2500\n"
        "  'B': log probability -0.2877, probability 0.7500, share 0.7500\n"
        "  mass 1.0000\n"
        "finding: +1.00 by scoring=binary, +0.50 by scoring=probability\n"
        "\n"
        "verdict: +1.00: kind +1.00 (mass 1.00)\n"
        "It satisfies the rubric mine above +0.00.\n"
    )


MANY = """\
name: many
aggregate: minimum
criteria:
  - {name: kind, instruction: 'Is it kind?', good: GOOD, bad: BAD, veto: true}
  - {name: ends, kind: pattern, must_match: '[.]$'}
  - {name: is short, kind: callable}
  - {name: guard, kind: guard, form: llama_guard, categories: [Violence]}
"""


def test_explain_tells_of_every_kind_of_criterion_and_why_some_were_not_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = Judge(lambda request: choice(0.5, 0.05) if request.wrapper is None else choice(0.9))
    monkeypatch.setattr(rubric_commands, "load_engine", lambda name: judge)
    written(tmp_path, "def is_short(text):\n    return 0.25\n", "mine_quarter.py")
    monkeypatch.chdir(tmp_path)
    arguments = [written(tmp_path, MANY), "--functions", "mine_quarter", "--response", "Yes", "--partial"]
    told = explained(capsys, *arguments)
    assert "== ends (pattern, weight 1) ==\nnot judged: it applies to finished answers only.\n" in told
    assert "a function is given:\n Yes\n" in told or "a function is given:\nYes\n" in told
    assert "finding: +0.25 by scoring=binary, +0.25 by scoring=probability" in told
    assert "== kind (question, weight 1, may veto) ==" in told
    assert "finding: abstained: a mass above 0.1 is wanted" in told
    assert "== guard (guard, weight 1) ==\nnot judged: the verdict did not depend on it any more.\n" in told
    assert "verdict: +0.00 (abstained by kind): kind abstained (mass 0.05), is short +0.25" in told
    assert "It does not satisfy the rubric many" in told


def test_explain_shows_a_pattern_and_a_guard_in_its_own_form(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = Judge(lambda request: choice(0.9))
    monkeypatch.setattr(rubric_commands, "load_engine", lambda name: judge)
    text = MANY.replace("  - {name: is short, kind: callable}\n", "").replace("{name: kind", "{name: kind, weight: 1")
    told = explained(capsys, written(tmp_path, text), "--response", "Yes.")
    assert "It matches the regular expression [.]$\nfinding: +1.00 by scoring=binary" in told
    (asked,) = [request for request in judge.asked if isinstance(request, Score) and request.wrapper is not None]
    assert asked.wrapper is not None
    assert f"{asked.wrapper[0]}{asked.question}{asked.wrapper[1]}{asked.answer_prefix}\n  'safe': log" in told


def test_explain_shows_options_that_have_no_probability(
    rubric: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = Judge(lambda request: OptionLogprobs((-float("inf"),) * 2, 0.0))
    monkeypatch.setattr(rubric_commands, "load_engine", lambda name: judge)
    told = explained(capsys, rubric, "--response", "x")
    assert "'A': log probability -inf, probability 0.0000, share 0.0000" in told


def test_explain_keeps_long_lines_and_shows_control_characters_as_escapes(
    rubric: str, engine: Judge, capsys: pytest.CaptureFixture[str]
) -> None:
    long = "0.9 " + "word " * 60
    told = explained(capsys, rubric, "--prompt", "[red]Well\tor\x1b[2J not?", "--response", long)
    assert f"Assistant: {long}" in told
    assert "\x1b" not in told
    assert "[red]Well\tor[2J not?" in told  # control characters do not reach a judge


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--response", ""], "--response: a text is wanted, given ''"),
        (["--response", "\udcff"], "The response '\\udcff' is not valid Unicode"),
        (["--response", "x", "--prompt", "\udcff"], "The prompt '\\udcff' is not valid Unicode"),
    ],
)
def test_an_answer_that_is_no_text_is_exit_code_2(
    arguments: list[str], told: str, rubric: str, engine: Judge, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("explain", rubric, *arguments) == 2
    assert told in one_line(capsys.readouterr().err)


def test_explain_shows_the_tokens_of_a_model_that_has_any(capsys: pytest.CaptureFixture[str]) -> None:
    told = explained(capsys, "harmlessness", "--prompt", "How do I wash the bike?", "--response", "1) Scrub it.")
    assert told.count(" tokens: <|begin|> <|user|> Decide") == 2
    assert "<|assistant|> The Ġanswer Ġis : Ġ(\n" in told
    assert told.count("\n  mass ") == 2
