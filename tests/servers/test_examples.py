"""What the documentation shows of servers is what runs."""

import subprocess
import sys

import pytest

from tests.servers.processes import MODEL_FOLDER, REPOSITORY


@pytest.mark.parametrize("server", ["vllm_url", "llama_url"])
def test_the_example_answers(server: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue(server)
    example = REPOSITORY / "examples" / "inference_server.py"
    run = subprocess.run(
        [sys.executable, str(example), url, str(MODEL_FOLDER)], capture_output=True, text=True, timeout=120, check=True
    )
    assert "bike" in run.stdout


def test_a_server_is_checked_by_the_command(vllm_url: str) -> None:
    command = [sys.executable, "-c", "from langchain_rain.cli import main; main()", "server", "check", vllm_url]
    run = subprocess.run(
        [*command, "--tokenizer", str(MODEL_FOLDER)], capture_output=True, text=True, timeout=120, check=True
    )
    assert "vLLM 0.32.0" in run.stdout
