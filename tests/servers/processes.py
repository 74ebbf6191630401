"""Servers of the tests as processes of their own, on loopback: vLLM and llama-server with the bundled demo model.

`scripts/install_servers.py` puts both into `servers_folder()`.
"""

import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

HOST = "127.0.0.1"
MODEL_NAME = "demo"
REPOSITORY = Path(__file__).resolve().parents[2]
MODEL_FOLDER = REPOSITORY / "langchain_rain" / "models" / "demo"
START_SECONDS = 180.0  # vLLM takes 20 to 60 on two cores, more if others compute there
STOP_SECONDS = 15.0
LOG_TAIL_CHARACTERS = 6000


def servers_folder() -> Path:
    """Where the servers are installed: `$RAIN_SERVERS`, or a folder of the user's cache."""
    return Path(os.environ.get("RAIN_SERVERS") or "~/.cache/langchain-rain-servers").expanduser()


def free_port() -> int:
    """A port of loopback that nothing listens on now."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        port: int = listener.getsockname()[1]
        return port


class ServerProcess:
    """A process that serves HTTP on loopback, together with all its children.

    Used as a context manager it is healthy inside, and no process of it is left outside.

    Args:
        command: its words; they name `port`.
        port: where it listens; the same after a restart.
        log_path: gets its standard output and error, one run after the other.
        environment: what is added to this process's own.
        health_path: answers 200 once it serves; None if a server that accepts connections is ready.
        start_seconds: how long a start may take.
    """

    def __init__(
        self,
        command: Sequence[str],
        port: int,
        log_path: Path,
        *,
        environment: Mapping[str, str] | None = None,
        health_path: str | None = "/health",
        start_seconds: float = START_SECONDS,
    ) -> None:
        self.command = tuple(command)
        self.port = port
        self.log_path = log_path
        self._environment = {**os.environ, **(environment or {})}
        self._health_path = health_path
        self._start_seconds = start_seconds
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The address, without a path."""
        return f"http://{HOST}:{self.port}"

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Starts it and returns once it is healthy.

        Raises:
            RuntimeError: it ended instead, or was not healthy in time; the message has the end of its log.
        """
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,  # a process group of its own, which ends as a whole
            )
        deadline = time.monotonic() + self._start_seconds
        try:
            while not self._is_healthy():
                if not self.is_running:
                    raise RuntimeError(f"{self.command} ended with {self._process.poll()}:\n{self.log_tail()}")
                if time.monotonic() > deadline:
                    raise RuntimeError(
                        f"{self.command} was not healthy after {self._start_seconds:g} s:\n{self.log_tail()}"
                    )
                time.sleep(0.05)
        except BaseException:  # an interrupt, too, must leave no process
            self.kill()
            raise

    def stop(self) -> None:
        """Asks it to end, and ends it after `STOP_SECONDS`. Does nothing if it does not run."""
        if self._process is None:
            return
        self._signal(signal.SIGTERM)
        try:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
        finally:
            self.kill()  # children may outlive it

    def kill(self) -> None:
        """Ends it at once, in the middle of whatever it answers. Does nothing if it does not run."""
        if self._process is None:
            return
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._process = None

    def restart(self) -> None:
        """Stops it if it runs, and starts it on the same port."""
        self.stop()
        self.start()

    def log_tail(self) -> str:
        """The end of its log."""
        return self.log_path.read_text(errors="replace")[-LOG_TAIL_CHARACTERS:]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        with suppress(ProcessLookupError):  # nothing of the group is left
            os.killpg(self._process.pid, number)

    def _is_healthy(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=5)
        try:
            connection.connect()
            if self._health_path is None:
                return True
            connection.request("GET", self._health_path)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def vllm_server(
    log_path: Path, *arguments: str, port: int | None = None, model_folder: Path = MODEL_FOLDER
) -> ServerProcess:
    """vLLM on the CPU, not yet started; it computes in float32.

    Args:
        log_path: see `ServerProcess`.
        arguments: further ones for vLLM; of those given twice, the last counts.
        port: where it listens; None for a free one.
        model_folder: the model it serves as `MODEL_NAME`.
    """
    port = port or free_port()
    command = (
        str(servers_folder() / "vllm" / "bin" / "python"),
        *("-m", "vllm.entrypoints.openai.api_server"),
        *("--host", HOST, "--port", str(port)),
        *("--model", str(model_folder), "--served-model-name", MODEL_NAME),
        *("--dtype", "float32", "--enforce-eager", "--block-size", "32"),
        # On a CPU it dies where a request with a seed is read in two parts, "CPU Generator does not use offset".
        *("--max-num-batched-tokens", "32768"),
        *arguments,
    )
    environment = {
        "VLLM_TARGET_DEVICE": "cpu",
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    return ServerProcess(command, port, log_path, environment=environment)


def llama_server(log_path: Path, gguf_path: Path, *arguments: str, port: int | None = None) -> ServerProcess:
    """llama-server, not yet started; its keys and values are float32, as those of the other engines.

    Args:
        log_path: see `ServerProcess`.
        gguf_path: what `demo_gguf.write_gguf` wrote.
        arguments: further ones for llama-server; of those given twice, the last counts.
        port: where it listens; None for a free one.
    """
    port = port or free_port()
    command = (
        str(servers_folder() / "llama-server"),
        *("--host", HOST, "--port", str(port)),
        *("--model", str(gguf_path), "--alias", MODEL_NAME, "--offline"),
        *("--cache-type-k", "f32", "--cache-type-v", "f32", "--flash-attn", "off"),
        # A text is read again if another took its slot or its part of the context, which all slots share.
        *("--parallel", "8", "--ctx-size", "8192"),
        *("--threads", "1", "--metrics"),
        *arguments,
    )
    return ServerProcess(command, port, log_path)
