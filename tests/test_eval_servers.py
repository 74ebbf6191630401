"""`langchain-rain eval` with models on servers: one writes, one steers, one says how answers turned out."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from langchain_rain import cli
from tests.servers.processes import HOST, MODEL_FOLDER, ServerProcess
from tests.servers.stub_server import stub_server

pytestmark = [
    pytest.mark.allow_hosts([HOST]),
    pytest.mark.filterwarnings("ignore::langchain_rain.errors.JudgeAtChanceWarning"),  # the stub likes what is first
]

FEW = ("--limit", "2", "--max-tokens", "8", "--strategy", "vanilla", "--strategy", "rain-balanced")
TOKENIZER = str(MODEL_FOLDER)


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with stub_server(tmp_path_factory.mktemp("stub") / "log") as server:
        yield server


def served(who: str, url: str) -> tuple[str, ...]:
    return (f"--{who}server", url, f"--{who}tokenizer", TOKENIZER)


def evaluated(out: Path, *options: str) -> Any:
    assert cli.run(["eval", *options, *FEW, "--out", str(out)]) == 0
    return json.loads((out / "results.json").read_text())


def test_servers_write_steer_and_judge_and_no_secret_is_told(
    stub: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAIN_SERVER_API_KEY", "sk-secret")
    url = stub.url.replace("://", "://ann:secret@") + "/v1"
    out = tmp_path / "out"
    servers = [option for who in ("", "judge-", "outcome-") for option in served(who, url)]
    told = evaluated(out, "truthfulqa", *servers, "--outcome-server-model", "demo", "--allow-same-judge")
    assert told["labels"] == ["truthful_and_informative", "truthful", "informative"]
    given = told["provenance"]
    engines = [given["model"], given["judge"], *given["outcome_judge"]["models"]]
    assert [(each["engine"], each["model"]) for each in engines] == [("completions", "demo")] * 3
    for name in ("server", "judge_server", "outcome_server"):
        assert given["settings"][name] == [stub.url]
    assert given["settings"]["outcome_server_model"] == "demo"
    for path in out.iterdir():
        assert b"secret" not in path.read_bytes()
    assert "it asks the model that steered" in (out / "report.md").read_text()


def test_a_server_steers_a_model_of_this_process(stub: ServerProcess, tmp_path: Path) -> None:
    told = evaluated(tmp_path / "out", "demo", *served("judge-", stub.url))
    given = told["provenance"]
    assert (given["model"]["engine"], given["judge"]["engine"]) == ("transformers", "completions")
    assert given["outcome_judge"]["judge"] == "oracle"


@pytest.mark.parametrize("steering", [(), ("judge-",)])
def test_the_model_that_steers_is_known_again_on_a_server(
    stub: ServerProcess, steering: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    servers = [option for who in (*(steering or ("",)), "outcome-") for option in served(who, stub.url)]
    assert cli.run(["eval", "hh", *servers, *FEW, "--out", str(tmp_path / "out")]) == 2
    assert "judge: demo asks the model 'demo', which steered the answers" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_model_that_a_server_does_not_have_is_no_judge(
    stub: ServerProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = (*served("outcome-", stub.url), "--outcome-server-model", "other")
    assert cli.run(["eval", "hh", *options, *FEW, "--out", str(tmp_path / "out")]) == 3
    assert "'other'" in capsys.readouterr().err
