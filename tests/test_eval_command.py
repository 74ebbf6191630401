"""`langchain-rain eval` as a user meets it: on the bundled model, with little, and with what is wrong."""

import csv
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from langchain_rain import RainConfigError, cli
from langchain_rain.engines.loading import demo_model_path
from langchain_rain.engines.transformers import TransformersEngine
from langchain_rain.evaluation.ablations import CHANGES, ablations, bases
from langchain_rain.evaluation.strategies import Setting
from langchain_rain.evaluation.suites import load_suite
from tests.scripted_world import RUBRIC, Kitchen

FEW = ("--limit", "4", "--max-tokens", "24", "--strategy", "vanilla", "--strategy", "rain-balanced")


def evaluated(out: Path, *options: str) -> tuple[int, dict[str, Any]]:
    code = cli.run(["eval", "demo", "--out", str(out), *FEW, *options])
    results: dict[str, Any] = json.loads((out / "results.json").read_text())
    return code, results


def test_the_demo_is_measured_reported_and_not_answered_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, labels = tmp_path / "out", tmp_path / "labels.csv"
    code, results = evaluated(out, "--export", str(labels))
    assert code == 0
    assert (results["num_cases"], results["labels"]) == (4, ["harmless", "helpful"])
    assert {path.suffix for path in out.iterdir()} == {".jsonl", ".html", ".md", ".json"}
    err = capsys.readouterr().err
    assert "Every strategy may take the token positions that rain-balanced took" in err
    assert str(out / "report.html") in err
    with open(labels, newline="") as file:
        rows = list(csv.DictReader(file))
    assert 1 <= len(rows) <= 8
    assert {"harmless", "helpful"} <= rows[0].keys()
    before = (out / "answers.jsonl").read_bytes()
    code, again = evaluated(out)
    assert code == 0
    assert (out / "answers.jsonl").read_bytes() == before
    for each in (results, again):
        each.pop("provenance")
    assert again == results


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nosuch"], "suite: demo, hh, advbench, truthfulqa, xstest, jsonl are allowed, given 'nosuch'"),
        (["demo", "--strategy", "magic"], "strategies: vanilla, .* are allowed, .* given 'magic'"),
        (["demo", "--ablate", "--strategy", "vanilla"], "--strategy or --ablate is allowed, given both, 'vanilla' too"),
        (["xstest", "--outcome-judge", "oracle"], "the oracle knows the suite demo alone, given 'xstest'"),
        (["demo", "--outcome-judge", "demo"], "asks the model 'demo', which steered the answers"),
        (["demo", "--limit", "0"], "limit"),
        (["demo", "--seed", "1", "--seed", "1"], r"seeds: at least one, and each once, is allowed, given \[1, 1\]"),
        (["demo", "--model", "demo", "--server", "http://h"], "--model or --server is allowed, given both"),
        (["hh", "--judge", "demo", "--judge-server", "http://h"], "--judge or --judge-server is allowed, given both"),
        (
            ["hh", "--judge-server-model", "m"],
            "--judge-server-model 'm' belongs to a --judge-server, and",
        ),
        (["hh", "--server", "http://h", "--judge-tokenizer", "t"], "--judge-tokenizer 't' belongs to a --judge-server"),
        (
            ["hh", "--outcome-judge", "phrases", "--outcome-server", "http://h"],
            "--outcome-judge or --outcome-server is allowed, given both, 'phrases' and 'http://h'",
        ),
        (["hh", "--outcome-server-model", "m"], "--outcome-server-model 'm' belongs to a --outcome-server"),
        (["hh", "--outcome-tokenizer", "t"], "--outcome-tokenizer 't' belongs to a --outcome-server"),
        (["hh", "--outcome-server", "nowhere"], "base_url: the address of a server, .* given 'nowhere'"),
        (["hh", "--judge-server", "http://h", "--api-key-env", "NOT_SET"], "variable 'NOT_SET' is not set"),
        (
            ["hh", "--device-map", "auto"],
            "--device-map 'auto' belongs to a --model other than the bundled",
        ),
        (["hh", "--model", "demo", "--device-map", "auto"], "--device-map 'auto' belongs to a --model"),
        (["hh", "--server", "http://h", "--device-map", "auto"], "--device-map 'auto' belongs to a --model"),
        (["hh", "--data", "no/such/file"], "no/such/file"),
        (["demo", "--attack", "suffix"], "attack"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    arguments: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["eval", *arguments, "--out", str(tmp_path / "out")]) == 2
    last_line = capsys.readouterr().err.strip().splitlines()[-1]  # above it there may be a bar of transformers
    assert last_line.startswith("langchain-rain: ")
    assert re.search(told, last_line)
    assert not (tmp_path / "out").exists()


def test_a_file_is_no_folder_to_write_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").write_text("mine")
    assert cli.run(["eval", "demo", "--out", str(tmp_path / "out")]) == 2
    assert "--out: a folder is wanted" in capsys.readouterr().err
    assert (tmp_path / "out").read_text() == "mine"


def test_a_model_may_be_spread_over_devices_and_its_judge_is_the_same_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps: list[Any] = []
    load = TransformersEngine.from_pretrained

    def loading(id_or_path: str, **given: Any) -> TransformersEngine:
        maps.append(given.get("device_map"))
        return load(id_or_path, **given)

    monkeypatch.setattr(TransformersEngine, "from_pretrained", loading)
    options = ("--model", demo_model_path(), "--judge", demo_model_path(), "--device-map", "auto")
    code, results = evaluated(tmp_path / "out", *options)
    assert (code, maps) == (0, ["auto"])
    assert results["provenance"]["settings"]["device_map"] == "auto"


@pytest.mark.parametrize(
    ("options", "is_offline"),
    [
        ((), True),
        (("--outcome-judge", "oracle"), True),
        (("--outcome-judge", "people:no/such/file"), True),
        (("--outcome-judge", "./no/such/folder"), False),
        (("--judge", "./no/such/folder"), False),
        (("--outcome-server", "nowhere"), False),
    ],
)
def test_the_hub_is_asked_if_another_model_than_the_bundled_one_may_be_there(
    options: tuple[str, ...], is_offline: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[str] = []
    monkeypatch.setattr("langchain_rain.eval_commands.prepare_for", prepared.append)
    cli.run(["eval", "demo", "--strategy", "magic", *options, "--out", str(tmp_path / "out")])
    assert prepared == (["demo"] if is_offline else [])


def test_each_ablation_changes_one_thing_and_the_preset_stands_beside_it() -> None:
    engine = Kitchen()
    strategies = ablations(Setting(engine, engine, RUBRIC))
    names = [each.name for each in strategies]
    assert len(set(names)) == len(names) == sum(len(changes) + 2 for changes in CHANGES.values())
    assert names[-1] == "balanced"
    assert "paper" in names
    by_name = {each.name: each.identity["search"] for each in strategies}
    for preset, changes in CHANGES.items():
        for name, changed in changes.items():
            search = by_name[f"{preset}, {name}"]
            differs = {key for key in search if search[key] != by_name[preset][key]}
            assert differs <= changed.keys()
            assert differs
    compared = bases(strategies)
    assert compared.keys() == set(names) - set(CHANGES)
    assert all(name.startswith(f"{base}, ") for name, base in compared.items())


def test_the_ablations_of_one_preset_are_compared_with_it() -> None:
    engine = Kitchen()
    names = [each.name for each in ablations(Setting(engine, engine, RUBRIC), "paper")]
    assert names[-1] == "paper"
    assert all(name.startswith("paper, ") for name in names[:-1])
    with pytest.raises(RainConfigError, match="ablations: those of paper, balanced are allowed, given 'fast'"):
        ablations(Setting(engine, engine, RUBRIC), "fast")


def test_ablations_ask_ahead_but_for_the_one_that_does_not(tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ("--ablate", "--preset", "paper", "--limit", "1", "--max-tokens", "12")
    assert cli.run(["eval", "demo", "--out", str(out), *options]) == 0
    told = json.loads((out / "results.json").read_text())["strategies"]
    passes = {each["name"]: each["costs"]["forward_passes"] for each in told}
    assert passes["paper, nothing asked ahead"] > passes["paper"]


def test_it_is_said_how_attacks_went_and_not_how_often_was_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["eval", "advbench", "--out", str(tmp_path / "out"), *FEW]) == 0
    err = capsys.readouterr().err
    assert "more or less often attacked with success than vanilla" in err
    assert "refused" not in err


def test_refusals_of_safe_requests_are_told_apart_from_those_of_unsafe_ones(tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ("--max-tokens", "4", "--strategy", "vanilla", "--strategy", "vanilla-greedy")
    assert cli.run(["eval", "xstest", "--out", str(out), *options]) == 0
    rows = [case.reference for case in load_suite("xstest").cases]
    told = json.loads((out / "results.json").read_text())
    for strategy in told["strategies"]:
        num = {group: rates["refused"]["num"] for group, rates in strategy["groups"].items()}
        assert list(num)[:2] == ["safe requests", "unsafe requests"]
        for label in ("safe", "unsafe"):
            assert num[f"{label} requests"] == sum(row["label"] == label for row in rows)
        types = Counter(row["type"] for row in rows)
        assert {group: num[group] for group in list(num)[2:]} == types
        assert strategy["rates"]["refused"] == strategy["groups"]["safe requests"]["refused"]
    assert {each["num"] for each in told["comparisons"]} == {num["safe requests"]}
    assert any("Rates and comparisons are of the" in note for note in told["notes"])
    by_group = (out / "report.md").read_text().partition("## By group")[2]
    assert "| refused (see below) |" in by_group
    assert "Of safe requests a refusal is a mistake, so how often they are refused is over-refusal" in by_group


def test_people_label_what_the_assistant_said_from_its_first_words_on(tmp_path: Path) -> None:
    out, sheet = tmp_path / "out", tmp_path / "labels.csv"
    common = ["eval", "advbench", "--attack", "prefill", "--limit", "2", "--max-tokens", "4", "--strategy", "vanilla"]
    assert cli.run([*common, "--out", str(out), "--export", str(sheet)]) == 0
    with open(sheet, encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    with open(sheet, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({**row, "attack_succeeded": "yes", "refused": "no"} for row in rows)
    assert cli.run([*common, "--out", str(out), "--outcome-judge", f"people:{sheet}"]) == 0
    (strategy,) = json.loads((out / "results.json").read_text())["strategies"]
    assert strategy["rates"]["attack_succeeded"]["value"] == 1.0
    assert strategy["unknown"] == {"attack_succeeded": 0, "refused": 0}


def test_a_suite_that_does_not_know_what_is_safe_says_nothing_of_over_refusal(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert cli.run(["eval", "hh", "--out", str(out), "--max-tokens", "4", "--strategy", "vanilla"]) == 0
    report = (out / "report.md").read_text()
    assert "| refused (neither is better) |" in report
    assert "over-refusal" not in report
