"""What the guides to measuring show is what parses, and what needs no model but the bundled one runs."""

import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from langchain_rain import cli
from langchain_rain.engines.loading import demo_model_path
from langchain_rain.evaluation.ablations import CHANGES
from langchain_rain.evaluation.strategies import Setting, all_strategies
from langchain_rain.evaluation.suites import ATTACKS, SUITES
from tests.scripted_world import RUBRIC, Kitchen

DOCS = Path(__file__).parents[1] / "docs"
GUIDE = (DOCS / "evaluation.md").read_text(encoding="utf-8")
REPRODUCE = (DOCS / "reproduce.md").read_text(encoding="utf-8")

SMALL = ("--limit", "2", "--max-tokens", "12")
"""The last one given counts."""


def commands(text: str) -> list[list[str]]:
    """The arguments of each command that is shown."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    lines = "".join(block for language, block in blocks if not language).replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("langchain-rain ")]


def is_small(arguments: list[str]) -> bool:
    return "--model" not in arguments and not any(each.startswith("hf://") for each in arguments)


SHOWN = [*commands(GUIDE), *commands(REPRODUCE)]


def parsed(arguments: list[str]) -> dict[str, object]:
    command = typer.main.get_command(cli.app)
    while hasattr(command, "commands"):
        command, arguments = command.commands[arguments[0]], arguments[1:]
    return dict(command.make_context("langchain-rain", list(arguments)).params)


def test_the_commands_of_both_guides_are_found() -> None:
    assert len(SHOWN) >= 19
    assert len([each for each in commands(GUIDE) if each[0] == "eval" and is_small(each)]) == 8


@pytest.mark.parametrize("arguments", SHOWN, ids=" ".join)
def test_every_command_of_the_guides_parses(arguments: list[str]) -> None:
    given = parsed(arguments)
    if arguments[0] == "eval":
        assert given["suite"] in SUITES
        assert given["attack"] in ATTACKS
        names = given["strategies"]
        assert isinstance(names, list | tuple | None)
        engine = Kitchen()
        assert len(all_strategies(names or ["vanilla"], Setting(engine, engine, RUBRIC))) == len(names or ["vanilla"])
        assert not given["ablate"] or given["preset"] in CHANGES


def run_all(small: list[list[str]]) -> None:
    (rows,) = re.findall(r"```json\n(.*?)```", GUIDE, re.DOTALL)
    Path("mine.jsonl").write_text(rows, encoding="utf-8")
    for arguments in small:
        assert cli.run([*arguments, *SMALL]) == 0, arguments
        assert (Path(arguments[arguments.index("--out") + 1]) / "report.html").is_file()


def test_the_prompts_of_the_guide_are_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_all([arguments for arguments in commands(GUIDE) if arguments[:2] == ["eval", "jsonl"]])
    assert len(Path("runs/mine/answers.jsonl").read_text(encoding="utf-8").splitlines()) == 2 * 5


@pytest.mark.slow
def test_the_small_commands_of_the_guide_run_one_after_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_all([arguments for arguments in commands(GUIDE) if arguments[0] == "eval" and is_small(arguments)])


async def test_the_python_of_the_page_about_judges_runs() -> None:
    page = (DOCS / "outcome_judges.md").read_text(encoding="utf-8")
    (code,) = [each for each in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "checks_of" in each]
    shown: dict[str, Any] = {}
    exec(compile(code, "outcome_judges.md", "exec"), shown)
    accuracy = await shown["accuracy"]()
    assert accuracy.num_judged == len(shown["checks"]) > 4
    assert accuracy.num_true > 0 < accuracy.num_false


def test_the_python_of_the_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", REPRODUCE, re.DOTALL)
    on_demo = f'{os.fspath(demo_model_path())!r}, dtype="float32"'
    code = code.replace('"models/llama-2-70b", device_map="auto"', on_demo).replace("128", "12")
    code = code.replace('attack="suffix")', 'attack="suffix", limit=1)')
    exec(compile(code, "guide", "exec"), {})
    assert Path("runs/advbench-70b/report.html").is_file()


def test_every_attack_and_suite_has_its_place_in_the_guide() -> None:
    assert [name for name in SUITES if f"| `{name}` |" not in GUIDE] == []
    assert [attack for attack in ATTACKS if f"--attack {attack}" not in GUIDE] == []
