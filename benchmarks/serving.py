"""Real servers for the benchmarks, and what they and the requests to them tell."""

import os
import re
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from langchain_rain.engines.completions import CompletionsEngine
from langchain_rain.engines.dialects import Sampling
from tests.servers.demo_gguf import write_gguf
from tests.servers.processes import MODEL_FOLDER, MODEL_NAME, ServerProcess, llama_server, vllm_server

BLOCK_SIZE = 32
"""Tokens of a block of vLLM's cache; its attention on a CPU takes multiples of 32 alone."""

START_SECONDS = 600.0
"""A server of vLLM may take minutes to start where others compute."""

CACHED = {
    "vLLM": ("vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total"),
    "llama-server": ("llamacpp:prompt_tokens_total", "llamacpp:prompt_tokens_cached_total"),
}
"""What a server counts: tokens of prompts and, of them, found ones; llama-server counts those not found and found."""


@contextmanager
def running(*kinds: str) -> Iterator[list[ServerProcess]]:
    """Servers of the demo model, a process for each of `kinds`; several of vLLM have a core of their own each."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        servers = []
        for number, kind in enumerate(kinds):
            log_path = Path(folder) / f"{number}.log"
            if kind == "vLLM":
                server = vllm_server(log_path)
                server = on_core(server, str(number)) if len(kinds) > 1 else server
            else:
                gguf = Path(folder) / "demo.gguf"
                write_gguf(MODEL_FOLDER, gguf)
                server = llama_server(log_path, gguf)
            server._start_seconds = START_SECONDS
            servers.append(stack.enter_context(server))
        yield servers


def on_core(server: ServerProcess, cores: str) -> ServerProcess:
    """The same server of vLLM, whose threads compute on these cores ("0", or "0|1" for a core a rank)."""
    environment = {**server._environment, "VLLM_CPU_OMP_THREADS_BIND": cores}
    return ServerProcess(server.command, server.port, server.log_path, environment=environment)


def connected(*urls: str, **arguments: Any) -> CompletionsEngine:
    """An engine at servers of the demo model."""
    return CompletionsEngine(urls, MODEL_NAME, tokenizer=str(MODEL_FOLDER), name="demo", **arguments)


def metrics(url: str) -> dict[str, float]:
    """What a server counts, over all labels."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as response:
        text = response.read().decode()
    counts: dict[str, float] = {}
    for name, value in re.findall(r"^([\w:]+)(?:\{.*\})? ([-+.\deE]+)$", text, re.MULTILINE):
        counts[name] = counts.get(name, 0.0) + float(value)
    return counts


def counted(kind: str, before: dict[str, float], after: dict[str, float]) -> tuple[float, float]:
    """The tokens of prompts between two readings of `metrics`, and how many of them a server found in its cache."""
    asked, found = (after.get(name, 0.0) - before.get(name, 0.0) for name in CACHED[kind])
    return (asked + found if kind == "llama-server" else asked), found


@dataclass(slots=True)
class Traffic:
    """What an engine has asked for.

    Attributes:
        asked: requests, but for those that were tried again.
        places: the server (and rank) that each conversation's requests went to, with how many.
    """

    asked: list[Sampling] = field(default_factory=list)
    places: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def share_in_blocks(self) -> float:
        """The share of all tokens of prompts that stand in whole blocks, and could be found in a cache of blocks."""
        whole = sum((len(each.prompt) - 1) // BLOCK_SIZE * BLOCK_SIZE * each.num for each in self.asked)
        return whole / sum(len(each.prompt) * each.num for each in self.asked)

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all prompts; siblings read the same one."""
        return sum(len(each.prompt) * each.num for each in self.asked)


def observed(engine: CompletionsEngine, *, session_header: str = "", rank_header: str = "") -> Traffic:
    """What the engine asks for from now on."""
    traffic = Traffic()
    dialect = engine._server.dialect

    def body(asked: Sampling, model: str, cache_salt: str) -> dict[str, Any]:
        traffic.asked.append(asked)
        return dialect.body(asked, model, cache_salt)

    async def note(request: Any) -> None:
        place = f"{request.url.port} {request.headers.get(rank_header, '')}" if rank_header else str(request.url.port)
        places = traffic.places.setdefault(request.headers.get(session_header, ""), {})
        places[place] = places.get(place, 0) + 1

    engine._server = replace(engine._server, dialect=replace(dialect, body=body))
    if session_header:
        for pool in engine._client._pools:
            pool.event_hooks["request"].append(note)
    return traffic


def cpu_seconds(server: ServerProcess) -> float:
    """What a server, and all processes of it, have computed so far."""
    assert server._process is not None
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            fields = path.read_text(encoding="utf-8").rpartition(")")[2].split()
            is_of_server = int(fields[2]) == server._process.pid  # its process group
            ticks += int(fields[11]) + int(fields[12]) if is_of_server else 0
    return ticks / os.sysconf("SC_CLK_TCK")
