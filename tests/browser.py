"""A headless Chromium, spoken to over a pipe by its DevTools protocol: no socket, no driver, nothing to install."""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

SECONDS = 60
"""That an answer of the browser may take."""

# Chromium reads its file 3 and writes its file 4.
_WITH_PIPES = (
    "import os, sys; read, write = (os.dup2(int(it), at) for it, at in zip(sys.argv[1:3], (13, 14)));"
    "os.dup2(read, 3); os.dup2(write, 4); os.execv(sys.argv[3], sys.argv[3:])"
)


def chromium() -> str | None:
    """Where it is; None where there is none."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Browser:
    """A browser with one page; `complaints` is all that its console got to hear, errors of the security policy too."""

    def __init__(self, read: int, write: int) -> None:
        self.complaints: list[str] = []
        self._read, self._write = read, write
        self._number = 0
        self._received = b""
        self._session: str | None = None
        pages = self.ask("Target.getTargets")["targetInfos"]
        target = next(each["targetId"] for each in pages if each["type"] == "page")
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    @classmethod
    @contextlib.contextmanager
    def started(cls, executable: str, folder: Path) -> Iterator[Self]:
        """One with a profile of its own in `folder`; it ends with the block."""
        (to_read, to_write), (from_read, from_write) = os.pipe(), os.pipe()
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe"]
        command = [sys.executable, "-c", _WITH_PIPES, str(to_read), str(from_write), executable, *options]
        process = subprocess.Popen(
            [*command, "--hide-scrollbars", f"--user-data-dir={folder}", "about:blank"],
            pass_fds=(to_read, from_write),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(from_write)
        try:
            browser = cls(from_read, to_write)
            yield browser
            browser._session = None
            browser.ask("Browser.close")
            process.wait(SECONDS)
        finally:
            process.kill()
            process.wait(SECONDS)
            os.close(from_read)
            os.close(to_write)

    def ask(self, method: str, **parameters: Any) -> Any:
        """The result of a command."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        message |= {} if self._session is None else {"sessionId": self._session}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            told = self._next()
            if told.get("id") == self._number:
                assert "error" not in told, f"{method}: {told['error']}"
                return told["result"]

    def open(self, path: Path, *, width: int, height: int = 900, scheme: str = "light", media: str = "screen") -> None:
        """Shows a file in a window of this size; returns when it is drawn."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.ask("Emulation.setEmulatedMedia", media=media, features=features)
        self.ask("Page.navigate", url=path.as_uri())
        deadline = time.monotonic() + SECONDS
        while self.value("document.readyState") != "complete" or self.value("location.href") != path.as_uri():
            assert time.monotonic() < deadline

    def value(self, expression: str) -> Any:
        """What a JavaScript expression is in the page, as JSON."""
        told = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def press(self, key: str, code: int, text: str = "") -> None:
        """A key goes down and up again."""
        for kind in ("keyDown", "keyUp"):
            pressed = {"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code}
            self.ask("Input.dispatchKeyEvent", **pressed, **({"text": text} if text and kind == "keyDown" else {}))

    def screenshot(self, path: Path, *, top: float = 0, height: float | None = None) -> None:
        """The page as a PNG, all of it or a part."""
        width, whole = self.value("[innerWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": top, "width": width, "height": height or whole - top, "scale": 1}
        told = self.ask("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(told["data"]))

    def _next(self) -> Any:
        """The next message; what it complains of is noted."""
        while b"\0" not in self._received:
            ready, _, _ = select.select([self._read], [], [], SECONDS)
            assert ready, "the browser says nothing"
            chunk = os.read(self._read, 1 << 20)
            assert chunk, "the browser has ended"
            self._received += chunk
        line, _, self._received = self._received.partition(b"\0")
        told = json.loads(line)
        if told.get("method") in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            self.complaints.append(json.dumps(told["params"]))
        return told
