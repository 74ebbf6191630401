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


def test_the_evaluation_runs_on_the_demo_model_and_writes_all_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report.json"
    arguments = ["--num-harmful", "1", "--num-benign", "2", "--best-of", "2", "--max-tokens", "12", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["demo_eval", *arguments])
    demo_eval.main()
    report = json.loads(out.read_text(encoding="utf-8"))
    assert list(report["summaries"]) == ["vanilla", "best-of-2", "RAIN paper"]
    assert [row["strategy"] for row in report["rows"]] == ["vanilla"] * 3 + ["best-of-2"] * 3 + ["RAIN paper"] * 3
    assert all(row["num_simulations"] > 0 for row in report["rows"][6:])
    assert "harmless x helpful" in capsys.readouterr().out
