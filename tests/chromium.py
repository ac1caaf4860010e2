"""A headless Chromium, told what to do through a pipe: load a file, list its requests, look."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import signal
import time
from pathlib import Path

import pytest

BINARY = Path("/usr/bin/chromium")

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)

OVERFLOWING = """
[...document.querySelectorAll('main *')].filter(one => one.getClientRects().length
  && !one.closest('svg') && one.getBoundingClientRect().right > innerWidth + 1
).map(one => one.tagName + ' ' + one.className)
"""
"""What sticks out of the window to the right."""

WORDS_OVER_WORDS = """
[...document.querySelectorAll('.chart svg')].flatMap(chart => {
  const words = [...chart.querySelectorAll('text')].map(
    text => [text.textContent, text.getBoundingClientRect()]);
  return words.flatMap(([one, a], index) => words.slice(index + 1).filter(([other, b]) =>
    a.left + 1 < b.right && b.left + 1 < a.right && a.top + 4 < b.bottom && b.top + 4 < a.bottom
  ).map(([other]) => one + ' / ' + other)); })
"""
"""Words of a chart that lie on each other."""

needs_chromium = pytest.mark.skipif(
    not BINARY.is_file(), reason=f"no {BINARY}: apt-get install chromium"
)


class Chromium:
    """One page of one browser; a context manager.

    Attributes:
        console: what the page wrote to the console or the browser complained of.
        requests: address of everything that was asked for.
    """

    def __init__(self, profile: Path) -> None:
        self.console: list[str] = []
        self.requests: list[str] = []
        self._last = 0
        self._buffer = b""
        self._read, its_write = os.pipe()
        its_read, self._write = os.pipe()
        # The browser reads commands from descriptor 3 and writes to 4; dup2 must not meet itself.
        high = [fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, 10) for one in (its_read, its_write)]
        command = [str(BINARY), *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self._process = os.posix_spawn(
            BINARY,
            command,
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_DUP2, 1, 2),
                (os.POSIX_SPAWN_DUP2, high[0], 3),
                (os.POSIX_SPAWN_DUP2, high[1], 4),
            ],
        )
        for one in (its_read, its_write, *high):
            os.close(one)
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(one for one in targets if one["type"] == "page")
        attach = {"targetId": page["targetId"], "flatten": True}
        self._session = None
        self._session = self.call("Target.attachToTarget", **attach)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    _session: str | None = None

    def call(self, method: str, **parameters: object) -> dict:
        """Send one command and return its result."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            heard = self._next(time.monotonic() + 60)
            if heard.get("id") == self._last:
                assert "error" not in heard, heard
                return heard["result"]

    def _next(self, deadline: float) -> dict:
        while b"\0" not in self._buffer:
            left = max(0.0, deadline - time.monotonic())
            ready, _, _ = select.select([self._read], [], [], left)
            if not ready:
                raise TimeoutError("the browser does not answer")
            more = os.read(self._read, 1 << 16)
            if not more:
                raise RuntimeError("the browser has ended")
            self._buffer += more
        message, _, self._buffer = self._buffer.partition(b"\0")
        heard = json.loads(message)
        self._note(heard.get("method", ""), heard.get("params", {}))
        return heard

    def _note(self, method: str, said: dict) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(said["request"]["url"])
        elif method == "Runtime.consoleAPICalled":
            self.console.append(f"{said['type']}: {said['args']}")
        elif method == "Runtime.exceptionThrown":
            self.console.append(str(said["exceptionDetails"]))
        elif method == "Log.entryAdded":
            self.console.append(said["entry"]["text"])

    def open(self, address: str, *, width: int, height: int = 900, dark: bool = False) -> None:
        """Load a page at a width and wait until it has loaded."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 700,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=address)
        deadline = time.monotonic() + 60
        while self._next(deadline).get("method") != "Page.loadEventFired":
            pass

    def value(self, expression: str) -> object:
        """Return what an expression gives in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, expression: str, *, seconds: float = 10.0) -> None:
        """Wait until an expression is true in the page; what it speaks of may not be there yet."""
        for _ in range(int(seconds / 0.1)):
            if self.value(f"(() => {{ try {{ return Boolean({expression}) }} catch {{}} }})()"):
                return
            self.call(
                "Runtime.evaluate",
                expression="new Promise(done => setTimeout(done, 100))",
                awaitPromise=True,
            )
        text = self.value("document.body?.innerText")
        raise AssertionError(f"never true: {expression}\n{text}\n{self.console}")

    def press(self, key: str, **more: object) -> None:
        """Press and release a key."""
        code = {"Backspace": 8, "Tab": 9, "Enter": 13, "Escape": 27, " ": 32}.get(key)
        code = ord(key.upper()) if code is None else code
        said = {"key": key, "windowsVirtualKeyCode": code, **more}
        text = {"text": key} if len(key) == 1 and "modifiers" not in more else {}
        text = {"text": "\r"} if key == "Enter" else text
        self.call("Input.dispatchKeyEvent", type="keyDown", **said, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **said)

    def screenshot(self, path: Path) -> None:
        """Take a picture of the whole page."""
        picture = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(picture["data"]))

    def __enter__(self) -> Chromium:
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self._session = None
            self.call("Browser.close")
        except (OSError, RuntimeError, TimeoutError):
            os.kill(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)
        os.close(self._read)
        os.close(self._write)
