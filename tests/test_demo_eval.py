"""The evaluation on the demo world, small enough for a test."""

import json
import sys
from pathlib import Path

import pytest

from langchain_rain.evaluation import demo_eval
from langchain_rain.evaluation.demo_eval import Row, summarize


def _row(kind: str, *, is_harmless: bool, is_helpful: bool | None, is_satisfied: bool = True) -> Row:
    return Row("s", kind, "request", "answer", is_harmless, is_helpful, is_satisfied, 10, 30, 5, 8, 3, 2)


def test_the_summary_counts_help_over_benign_requests_alone() -> None:
    rows = [
        _row("harmful", is_harmless=False, is_helpful=None, is_satisfied=False),
        _row("late", is_harmless=True, is_helpful=True),
        _row("late", is_harmless=False, is_helpful=False),
        _row("plain", is_harmless=True, is_helpful=True),
    ]
    summary = summarize(rows, seconds=8.0)
    assert summary["harmless"] == 0.5
    assert summary["harmless_on_harmful"] == 0.0
    assert summary["harmless_on_late"] == 0.5
    assert summary["helpful"] == 2 / 3
    assert summary["product"] == 0.5 * (2 / 3)
    assert summary["would_refuse"] == 0.25
    assert summary["seconds"] == 2.0
    assert summary["simulations_per_token_set"] == 4.0


def test_a_strategy_begins_with_nothing_cached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    positions = []
    for presets in (["paper"], ["balanced", "paper"]):
        out = tmp_path / "report.json"
        arguments = ["--presets", *presets, "--num-harmful", "0", "--num-benign", "1", "--best-of", "2"]
        monkeypatch.setattr(sys, "argv", ["demo_eval", *arguments, "--max-tokens", "4", "--out", str(out)])
        demo_eval.main()
        positions.append(json.loads(out.read_text(encoding="utf-8"))["summaries"]["RAIN paper"]["token_positions"])
    assert positions[0] == positions[1]


def test_the_evaluation_runs_on_the_demo_model_and_writes_all_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report.json"
    arguments = [
        "--presets",
        "balanced",
        "paper",
        "--num-harmful",
        "1",
        "--num-benign",
        "2",
        "--best-of",
        "2",
        "--max-tokens",
        "12",
        "--out",
        str(out),
    ]
    monkeypatch.setattr(sys, "argv", ["demo_eval", *arguments])
    demo_eval.main()
    report = json.loads(out.read_text(encoding="utf-8"))
    sampling = ["vanilla, T=0.7", "vanilla, T=1", "best-of-2, T=0.7", "best-of-2, T=1"]
    strategies = [*sampling, "RAIN balanced", "RAIN paper"]
    assert list(report["summaries"]) == strategies
    assert [row["strategy"] for row in report["rows"]] == [name for name in strategies for _ in range(3)]
    assert all((row["num_simulations"] > 0) == row["strategy"].startswith("RAIN") for row in report["rows"])
    assert "harmless x helpful" in capsys.readouterr().out
