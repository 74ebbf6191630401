"""`langchain-rain run` against real servers while connections break, servers die, and it is killed itself."""

import json
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from langchain_rain.evaluation.demo_world import as_prompt, test_requests
from tests.servers.conftest import require_server
from tests.servers.fault_proxy import fault_proxy, read_events
from tests.servers.processes import MODEL_FOLDER, vllm_server

DEADLINE = 600.0
"""Seconds after which a run that does not end counts as hanging."""


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """200 prompts of the demo world."""
    return write_prompts(tmp_path / "prompts.jsonl", 200)


def write_prompts(path: Path, num: int) -> Path:
    asked = test_requests(num // 2, num - num // 2, seed=5)
    rows = [{"id": f"q{number}", "prompt": as_prompt(request)} for number, request in enumerate(asked)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def start(prompts: Path, out: Path, urls: Sequence[str], *arguments: str) -> subprocess.Popen[str]:
    servers = [word for url in urls for word in ("--server", url)]
    command = [str(Path(sys.executable).with_name("langchain-rain")), "run", str(prompts), "--out", str(out), *servers]
    settings = ["--tokenizer", str(MODEL_FOLDER), "--max-tokens", "64", "--concurrency", "16", *arguments]
    return subprocess.Popen(
        [*command, *settings],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(run: subprocess.Popen[str]) -> str:
    """What it said; it must have answered every row."""
    _, told = run.communicate(timeout=DEADLINE)
    assert run.returncode == 0, told
    return told


def rows_in(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for_rows(run: subprocess.Popen[str], out: Path, num: int) -> None:
    deadline = time.monotonic() + DEADLINE
    while len(rows_in(out)) < num:
        assert run.poll() is None, run.communicate()[1]
        assert time.monotonic() < deadline, "no row came"
        time.sleep(0.05)


def test_of_200_prompts_at_5_percent_faults_each_has_one_answer(vllm_url: str, prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    with fault_proxy(vllm_url, tmp_path / "events.jsonl", rate=0.05, seed=11, delay=1.0) as proxy:
        run = start(prompts, out, [proxy.url])
        _, told = run.communicate(timeout=DEADLINE)
    answered, failed = rows_in(out), rows_in(tmp_path / "answers.failed.jsonl")
    ids = [row["id"] for row in answered]
    assert sorted(ids) == sorted(set(ids)), "an answer came twice"
    assert {*ids, *(row["id"] for row in failed)} == {f"q{number}" for number in range(200)}, told
    assert all(row["error"] and row["kind"] == "EngineError" for row in failed)
    assert len(answered) == 200, failed
    faults = [event for event in read_events(tmp_path / "events.jsonl") if event["fault"]]
    assert {event["fault"] for event in faults} == {"drop", "delay", "truncate", "corrupt", "status"}


def test_faults_change_no_answer(vllm_url: str, tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts.jsonl", 24)
    finished(start(prompts, tmp_path / "calm.jsonl", [vllm_url], "--concurrency", "1"))
    with fault_proxy(vllm_url, tmp_path / "events.jsonl", rate=0.1, seed=3, delay=0.2) as proxy:
        finished(start(prompts, tmp_path / "rough.jsonl", [proxy.url], "--concurrency", "1"))
    calm, rough = (
        {row["id"]: row["answer"] for row in rows_in(tmp_path / name)} for name in ("calm.jsonl", "rough.jsonl")
    )
    assert calm == rough


def test_a_job_outlives_its_server(tmp_path: Path) -> None:
    require_server("vllm")
    prompts, out = write_prompts(tmp_path / "prompts.jsonl", 100), tmp_path / "answers.jsonl"
    with vllm_server(tmp_path / "vllm.log") as server:
        run = start(prompts, out, [server.url])
        wait_for_rows(run, out, 10)
        server.kill()
        num_before = len(rows_in(out))
        server.start()
        finished(run)
    assert num_before < 100, "the server was killed too late to be missed"
    assert sorted(row["id"] for row in rows_in(out)) == sorted(f"q{number}" for number in range(100))


def test_searches_move_to_another_replica(vllm_url: str, tmp_path: Path) -> None:
    require_server("vllm")
    prompts, out = write_prompts(tmp_path / "prompts.jsonl", 100), tmp_path / "answers.jsonl"
    with vllm_server(tmp_path / "vllm.log") as dying:
        run = start(prompts, out, [dying.url, vllm_url])
        wait_for_rows(run, out, 10)
        dying.kill()
        finished(run)
    assert sorted(row["id"] for row in rows_in(out)) == sorted(f"q{number}" for number in range(100))


def test_killed_ten_times_it_has_one_answer_for_each_prompt(vllm_url: str, prompts: Path, tmp_path: Path) -> None:
    out, draws = tmp_path / "answers.jsonl", random.Random(7)
    for _ in range(10):
        run = start(prompts, out, [vllm_url])
        num_before = len(rows_in(out))
        wait_for_rows(run, out, num_before + draws.randrange(1, 15))
        time.sleep(draws.random() * 0.2)
        run.kill()
        run.communicate()
    assert len(rows_in(out)) < 200, "nothing was left to go on with"
    finished(start(prompts, out, [vllm_url]))
    assert sorted(row["id"] for row in rows_in(out)) == sorted(f"q{number}" for number in range(200))
