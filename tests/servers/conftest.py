"""Real servers for the tests in this folder, started once each, when the first test asks for them."""

import json
import urllib.request
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.servers.processes import MODEL_FOLDER, MODEL_NAME, ServerProcess, llama_server, servers_folder, vllm_server

RUNNING = pytest.StashKey[dict[str, ServerProcess]]()
FIRST_REQUEST_SECONDS = 90  # vLLM gets ready at its first request, for up to 25 s


@pytest.fixture(scope="session")
def vllm_url(request: pytest.FixtureRequest, server_logs: Path) -> Iterator[str]:
    """The address of a vLLM that serves the bundled model as "demo"."""
    require_server("vllm")
    with _serving(request.config, vllm_server(server_logs / "vllm.log")) as url:
        yield url


@pytest.fixture(scope="session")
def second_vllm_url(request: pytest.FixtureRequest, server_logs: Path) -> Iterator[str]:
    """The address of another one."""
    require_server("vllm")
    with _serving(request.config, vllm_server(server_logs / "second_vllm.log")) as url:
        yield url


@pytest.fixture(scope="session")
def demo_gguf(server_logs: Path) -> Path:
    """The bundled model as llama-server reads it."""
    require_server("llama-server")
    pytest.importorskip("gguf", reason="The package gguf is missing: pip install --group servers")
    from tests.servers.demo_gguf import write_gguf

    path = server_logs / "demo.gguf"
    write_gguf(MODEL_FOLDER, path)
    return path


@pytest.fixture(scope="session")
def llama_url(request: pytest.FixtureRequest, server_logs: Path, demo_gguf: Path) -> Iterator[str]:
    """The address of a llama-server that serves the bundled model as "demo"."""
    with _serving(request.config, llama_server(server_logs / "llama.log", demo_gguf)) as url:
        yield url


@pytest.fixture(scope="session")
def server_logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for logs; pytest keeps those of its last three runs."""
    return tmp_path_factory.mktemp("servers")


def require_server(name: str) -> None:
    """Skips what needs a server that is not installed."""
    if not (servers_folder() / f"{name}.version").exists():  # the stamp of a finished installation
        pytest.skip(f"{name} is not in {servers_folder()}: python scripts/install_servers.py")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds to the report of a failure what the servers logged last."""
    report = yield
    if report.failed:
        for server in item.config.stash.get(RUNNING, {}).values():
            report.sections.append((str(server.log_path), server.log_tail()))
    return report


@contextmanager
def _serving(config: pytest.Config, server: ServerProcess) -> Iterator[str]:
    running = config.stash.setdefault(RUNNING, {})
    with server:
        running[server.url] = server
        _ask_once(server.url)
        yield server.url
        del running[server.url]


def _ask_once(url: str) -> None:
    body = json.dumps({"model": MODEL_NAME, "prompt": [1], "max_tokens": 2}).encode()
    request = urllib.request.Request(f"{url}/v1/completions", body, {"Content-Type": "application/json"})
    urllib.request.urlopen(request, timeout=FIRST_REQUEST_SECONDS).close()
