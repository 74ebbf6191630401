"""The servers start, end as a whole, and come back on the same port."""

from pathlib import Path

from tests.servers.processes import llama_server


def test_a_killed_server_comes_back_on_its_port(demo_gguf: Path, tmp_path: Path) -> None:
    with llama_server(tmp_path / "log", demo_gguf) as server:
        url = server.url
        server.kill()
        assert not server.is_running
        server.restart()
        assert server.is_running
        assert server.url == url
    assert not server.is_running
