"""A proxy that breaks some of the requests it forwards, as networks and servers do, for tests of retries.

    python -m tests.servers.fault_proxy --listen 8200 --to 127.0.0.1:8101 --rate 0.05 --seed 7 --faults drop,status

What happens to a request depends only on the seed and its number, counted over all connections from 0.

drop      the connection is closed, before or after the request was forwarded
delay     the response is held back
truncate  half of the response's body is sent, then the connection is closed
corrupt   the response's body is no JSON, or JSON without the field that holds most
status    500, 502, 503 or 429 is answered, with Retry-After; nothing is forwarded
"""

import argparse
import asyncio
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.servers.http_messages import MAX_HEAD_BYTES, Message, json_response, read_message, with_body
from tests.servers.processes import HOST, REPOSITORY, ServerProcess, free_port

FAULTS = ("drop", "delay", "truncate", "corrupt", "status")
STATUSES = (500, 502, 503, 429)


def fault_proxy(
    target_url: str,
    events_path: Path,
    *,
    rate: float,
    seed: int = 0,
    faults: Sequence[str] = FAULTS,
    delay: float = 2.0,
    retry_after: int = 0,
) -> ServerProcess:
    """A proxy as a process of its own, not yet started, on a free port.

    `Proxy` tells what the arguments mean; the target's URL has no path.
    """
    port = free_port()
    command = (
        *(sys.executable, "-m", "tests.servers.fault_proxy"),
        *("--listen", str(port), "--to", target_url.removeprefix("http://")),
        *("--rate", str(rate), "--seed", str(seed), "--faults", ",".join(faults)),
        *("--delay", str(delay), "--retry-after", str(retry_after), "--log", str(events_path)),
    )
    log_path = events_path.with_suffix(".log")
    return ServerProcess(command, port, log_path, environment={"PYTHONPATH": str(REPOSITORY)}, health_path=None)


def read_events(events_path: Path) -> list[dict[str, Any]]:
    """What a proxy did: the number of each request, its first line, its fault ("" for none) and the fault's detail."""
    return [json.loads(line) for line in events_path.read_text().splitlines()]


@dataclass(slots=True)
class Proxy:
    """What the process runs.

    Attributes:
        target: host and port.
        rate: how probable a fault is, in [0, 1].
        seed: which requests are broken, and how.
        faults: what may happen, some of `FAULTS`, with equal probability.
        delay: seconds for which `delay` holds a response back.
        retry_after: seconds that `status` asks to wait.
        events_path: gets a line of JSON per request.
        num_requests: how many came so far.
    """

    target: tuple[str, int]
    rate: float
    seed: int
    faults: tuple[str, ...]
    delay: float
    retry_after: int
    events_path: Path
    num_requests: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Handles the requests of one connection, one after the other."""
        try:
            while (request := await read_message(reader)) is not None:
                if not await self._handle(request, writer):
                    break
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client or the target went away, in the middle of something
        finally:
            writer.close()

    async def _handle(self, request: Message, writer: asyncio.StreamWriter) -> bool:
        """Answers one request; whether the connection goes on."""
        number = self.num_requests
        self.num_requests += 1
        rng = random.Random(f"{self.seed}:{number}")
        fault = rng.choice(self.faults) if rng.random() < self.rate else ""
        detail = _detail(fault, rng)
        event = {"number": number, "request": request.first_line, "fault": fault, "detail": detail}
        with self.events_path.open("a") as events:
            events.write(json.dumps(event) + "\n")
        if fault == "status":
            writer.write(json_response(int(detail), {"error": "a fault"}, f"retry-after: {self.retry_after}\n"))
            return True
        if detail == "before":
            return False
        response = await self._forward(request)
        if detail == "after":
            return False
        if fault == "delay":
            await asyncio.sleep(self.delay)
        writer.write(_spoilt(response, fault, detail))
        await writer.drain()
        return fault != "truncate"

    async def _forward(self, request: Message) -> Message:
        # A connection per request: one kept open, the target may have closed, which is no fault of the seed's.
        reader, writer = await asyncio.open_connection(*self.target, limit=MAX_HEAD_BYTES)
        try:
            writer.write(request.head + request.body)
            response = await read_message(reader)
        finally:
            writer.close()
        if response is None:
            raise ConnectionResetError(f"{self.target} closed the connection without an answer.")
        return response


def _detail(fault: str, rng: random.Random) -> str:
    details = {
        "drop": ("before", "after"),
        "corrupt": ("no JSON", "a field is missing"),
        "status": tuple(map(str, STATUSES)),
    }
    return rng.choice(details.get(fault, ("",)))


def _spoilt(response: Message, fault: str, detail: str) -> bytes:
    body = response.body
    if fault == "truncate":
        return response.head + body[: len(body) // 2]
    if detail == "no JSON":
        return response.head + b"\xff" * (len(body) // 2) + body[len(body) // 2 :]
    if detail == "a field is missing":
        return with_body(response.head, _without_longest_field(body))
    return response.head + body


def _without_longest_field(body: bytes) -> bytes:
    try:
        value = json.loads(body)
    except ValueError:
        return b"{}"  # metrics, a stream: no field to leave out
    if isinstance(value, dict) and value:
        del value[max(value, key=lambda name: len(json.dumps(value[name])))]
    return json.dumps(value).encode()


async def _run(proxy: Proxy, port: int) -> None:
    server = await asyncio.start_server(proxy.serve, HOST, port, limit=MAX_HEAD_BYTES)
    await server.serve_forever()


def main() -> None:
    """Runs a proxy until it is ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listen", type=int, required=True, metavar="PORT")
    parser.add_argument("--to", required=True, metavar="HOST:PORT")
    parser.add_argument("--rate", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", default=",".join(FAULTS), help="by commas")
    parser.add_argument("--delay", type=float, default=2.0, help="seconds")
    parser.add_argument("--retry-after", type=int, default=0, help="seconds")
    parser.add_argument("--log", type=Path, default=Path("fault_proxy.jsonl"))
    arguments = parser.parse_args()
    host, _, port = arguments.to.rpartition(":")
    faults = tuple(arguments.faults.split(","))
    if unknown := set(faults) - set(FAULTS):
        parser.error(f"unknown faults {sorted(unknown)}; there are {', '.join(FAULTS)}")
    target = (host, int(port))
    proxy = Proxy(target, arguments.rate, arguments.seed, faults, arguments.delay, arguments.retry_after, arguments.log)
    asyncio.run(_run(proxy, arguments.listen))


if __name__ == "__main__":
    main()
