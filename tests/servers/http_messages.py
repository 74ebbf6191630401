"""HTTP/1.1 messages as bytes, as far as the proxy and the stub of this folder need them."""

import asyncio
import json
import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
MAX_HEAD_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Message:
    """A request or a response.

    Attributes:
        head: the first line and the headers, with the empty line that ends them.
        body: what follows, as it was sent: in chunks if the head says so.
    """

    head: bytes
    body: bytes

    @property
    def first_line(self) -> str:
        """Of a request: method, path and version."""
        return self.head[: self.head.index(b"\r\n")].decode("latin-1")


async def read_message(reader: asyncio.StreamReader) -> Message | None:
    """The next message of a connection; None if it was closed before one began.

    Raises:
        asyncio.IncompleteReadError: it was closed within a message.
        asyncio.LimitOverrunError: the head is longer than the reader's limit.
    """
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    if length := _LENGTH.search(head):
        return Message(head, await reader.readexactly(int(length[1])))
    return Message(head, await _read_chunks(reader) if _CHUNKED.search(head) else b"")


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    parts = []
    while True:
        size = await reader.readuntil(b"\r\n")
        chunk = await reader.readexactly(int(size.split(b";")[0], 16) + 2)
        parts += [size, chunk]
        if len(chunk) == 2:
            return b"".join(parts)


def with_body(head: bytes, body: bytes) -> bytes:
    """A message of that head, but for its length, with another body."""
    lines = [line for line in head[:-4].split(b"\r\n") if not _is_about_length(line)]
    return b"\r\n".join([*lines, b"content-length: %d" % len(body), b"", body])


def json_response(status: int, value: Any, headers: str = "") -> bytes:
    """A response with a JSON body; further headers end with a line feed each."""
    return response(status, json.dumps(value, separators=(",", ":")), f"content-type: application/json\n{headers}")


def response(status: int, body: str, headers: str) -> bytes:
    """A response; each header ends with a line feed."""
    content = body.encode()
    head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\n{headers}content-length: {len(content)}\n\n"
    return head.replace("\n", "\r\n").encode("latin-1") + content


def _is_about_length(line: bytes) -> bool:
    return line.lower().startswith((b"content-length:", b"transfer-encoding:"))
