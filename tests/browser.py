"""Chromium without a window, told what to do through a pipe: pages of any width, in light and in dark, with what they fetch and complain of."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# The browser itself looks for updates and a camera otherwise; what a page asks for is not among this.
QUIET = [
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--disable-sync",
    "--mute-audio",
]
PATIENCE, SETTLED = 60.0, 0.3  # seconds to wait for an answer, and without a request until a page counts as loaded


@dataclass
class Browser:
    """What `open_browser` gives. `fetched` and `complaints` are of the page that was opened last."""

    writes: int
    reads: int
    fetched: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    _page: str = ""
    _width: int = 1200
    _sent: int = 0
    _rest: bytes = b""
    _loaded: bool = False

    def open(self, address: str, width: int = 1200, scheme: Literal["light", "dark"] = "light") -> None:
        """Shows a page, and waits until it fetches nothing more."""
        self.fetched, self.complaints, self._loaded = [], [], False
        self._size(width, 900)
        self._width = width
        self.tell("Emulation.setScrollbarsHidden", hidden=True)
        self.tell("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.tell("Page.navigate", url=address)
        begun = quiet = time.monotonic()
        while time.monotonic() - quiet < SETTLED or not self._loaded:
            assert time.monotonic() - begun < PATIENCE, f"{address} does not end to load"
            before = len(self.fetched)
            self._heed(0.05)
            quiet = time.monotonic() if len(self.fetched) > before else quiet

    def ask(self, script: str) -> Any:
        """What an expression of JavaScript is on the page; of a promise what it comes to."""
        answer = self.tell("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, script: str) -> Any:
        """The same, asked again until it is something."""
        begun = time.monotonic()
        while not (value := self.ask(script)):
            assert time.monotonic() - begun < PATIENCE, f"still not: {script}"
            self._heed(0.1)
        return value

    def picture(self, path: Path, height: int = 900) -> None:
        """A screenshot of the page's first so many pixels."""
        self._size(self._width, height)
        path.write_bytes(base64.b64decode(self.tell("Page.captureScreenshot")["data"]))

    def _size(self, width: int, height: int) -> None:
        self.tell("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)

    def tell(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Sends a command, and gives its answer."""
        self._sent += 1
        page = {"sessionId": self._page} if self._page else {}
        os.write(self.writes, json.dumps({"id": self._sent, "method": method, "params": parameters, **page}).encode() + b"\0")
        begun = time.monotonic()
        while time.monotonic() - begun < PATIENCE:
            for answer in self._heed(0.5):
                if answer["id"] == self._sent:
                    assert "error" not in answer, (method, answer["error"])
                    return dict(answer["result"])
        raise AssertionError(f"no answer to {method}")

    def _heed(self, seconds: float) -> list[dict[str, Any]]:
        """Reads what the browser says within so many seconds: notes what happens, and gives the answers."""
        answers = []
        if select.select([self.reads], [], [], seconds)[0]:
            *messages, self._rest = (self._rest + os.read(self.reads, 1 << 20)).split(b"\0")
            for message in map(json.loads, messages):
                if "id" in message:
                    answers.append(message)
                else:
                    self._note(message["method"], message["params"])
        return answers

    def _note(self, method: str, told: dict[str, Any]) -> None:
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method in ("Network.requestWillBeSent", "Network.webSocketCreated"):
            self.fetched.append(told["request"]["url"] if "request" in told else told["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(told["exceptionDetails"].get("exception", told["exceptionDetails"])))
        elif method == "Runtime.consoleAPICalled" and told["type"] in ("error", "assert"):
            self.complaints.append(" ".join(str(each.get("value", each.get("description"))) for each in told["args"]))
        elif method == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.complaints.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")


@contextmanager
def open_browser() -> Iterator[Browser]:
    """A browser with one empty page, closed at the end of the block.

    Raises:
        ValueError: there is no browser here.
    """
    if CHROMIUM is None:
        raise ValueError(
            "PATH: no browser: got none; accepted: chromium, chromium-browser, google-chrome. Install one (apt install chromium)."
        )
    (reads, its_write), (its_read, writes) = os.pipe(), os.pipe()
    # It reads from 3 and writes to 4, whatever these were; numbers above them are in nobody's way.
    high = [fcntl.fcntl(end, fcntl.F_DUPFD, 50) for end in (its_read, its_write)]
    with tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True) as profile:
        command = [
            str(CHROMIUM),
            "--headless",
            "--no-sandbox",
            "--remote-debugging-pipe",
            f"--user-data-dir={profile}",
            *QUIET,
            "about:blank",
        ]
        process = subprocess.Popen(
            ["bash", "-c", f'exec 3<&{high[0]} 4>&{high[1]}; exec "$@"', "browser", *command],
            pass_fds=high, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for end in (its_read, its_write, *high):
            os.close(end)
        try:
            browser = Browser(writes, reads)
            target = browser.tell("Target.createTarget", url="about:blank")["targetId"]
            browser._page = browser.tell("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Network", "Runtime", "Log"):
                browser.tell(f"{domain}.enable")
            yield browser
            browser._page = ""
            browser.tell("Browser.close")
            process.wait(10)
        finally:
            process.kill()
            process.wait()
            os.close(writes)
            os.close(reads)
