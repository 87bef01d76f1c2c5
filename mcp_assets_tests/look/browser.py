"""A headless Chromium, driven by its DevTools protocol: one page that goes to addresses, clicks, and is drawn."""

import base64
import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
"""Debian's package is `chromium`."""

WIDTH = 1500
"""Pixels: of a laptop's window."""

_STARTS_WITHIN_S = 60.0
_SETTLES_S = 2.5
"""How long a page is left alone before it is drawn: figures and plots come after the frame around them."""

_LARGEST_ANSWER = 64 << 20
"""Bytes: a picture is an answer of a few megabytes."""


class PageFailed(Exception):
    """The page does not show what it should."""


class Page:
    """The one page of a browser."""

    def __init__(self, connection: ClientConnection, base_url: str) -> None:
        self._connection = connection
        self._base_url = base_url
        self._numbers = itertools.count(1)
        target = self._call("Target.createTarget", {"url": "about:blank"})["targetId"]
        self._session: str = self._call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        self._call("Page.enable")

    def go(self, path: str) -> None:
        """Open a path of the UI. Returns before anything of it is loaded."""
        # A page that is left with a dialog open would ask whether to leave it.
        self._call("Page.navigate", {"url": "about:blank"})
        self._call("Page.navigate", {"url": self._base_url + path})

    def wait_for(self, text: str, within_s: float = 60.0) -> None:
        """Wait until the page shows `text`.

        Raises:
            PageFailed: it does not within that time.
        """
        deadline = time.monotonic() + within_s
        wanted = json.dumps(text)
        while not self.evaluate(f"!!document.body && document.body.innerText.includes({wanted})"):
            if time.monotonic() > deadline:
                raise PageFailed(f"it has not shown “{text}” within {within_s:.0f} s")
            time.sleep(0.2)

    def click(self, text: str, within_s: float = 20.0) -> None:
        """Click the last button, link or tab that has exactly this text.

        Raises:
            PageFailed: there is none within that time.
        """
        deadline = time.monotonic() + within_s
        script = (
            "(() => { const found = [...document.querySelectorAll('button, a, [role=tab], [role=button]')]"
            f".filter(each => each.innerText.trim() === {json.dumps(text)}).pop();"
            " if (found) found.click(); return !!found; })()"
        )
        while not self.evaluate(script):
            if time.monotonic() > deadline:
                raise PageFailed(f"there is nothing to click that reads “{text}”")
            time.sleep(0.2)

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self._call("Runtime.evaluate", {"expression": script, "returnByValue": True})
        return answer["result"].get("value")

    def draw(self, path: Path, height: int) -> None:
        """Draw the page, `height` pixels of it, when it has settled."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            {"width": WIDTH, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )
        time.sleep(_SETTLES_S)
        path.write_bytes(base64.b64decode(self._call("Page.captureScreenshot", {"format": "png"})["data"]))

    def _call(self, method: str, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters or {}}
        if hasattr(self, "_session"):
            message["sessionId"] = self._session
        self._connection.send(json.dumps(message))
        while True:
            answer: dict[str, Any] = json.loads(self._connection.recv(timeout=_STARTS_WITHIN_S))
            # What has no number is an event, which tells nothing that is waited for.
            if answer.get("id") == number:
                if "error" in answer:
                    raise PageFailed(f"{method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result


@contextmanager
def opened(base_url: str, folder: Path) -> Iterator[Page]:
    """A browser of its own, with its profile in `folder`; it ends with the block.

    Raises:
        PageFailed: Chromium is not installed, or does not start.
    """
    if CHROMIUM is None:
        raise PageFailed("Chromium is not on the path: install Debian's package chromium, or its like")
    profile = folder / "profile"
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
        "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars", "--no-proxy-server",
        "--remote-debugging-port=0", f"--user-data-dir={profile}", f"--window-size={WIDTH},1000", "about:blank",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with connect(_address(process, profile / "DevToolsActivePort"), max_size=_LARGEST_ANSWER, proxy=None) as opened:
            yield Page(opened, base_url)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _address(process: "subprocess.Popen[bytes]", port_file: Path) -> str:
    """Chromium writes its port, and the path of its endpoint, into a file in its profile."""
    deadline = time.monotonic() + _STARTS_WITHIN_S
    while time.monotonic() < deadline and process.poll() is None:
        if port_file.exists() and len(lines := port_file.read_text().split()) == 2:
            return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
        time.sleep(0.1)
    raise PageFailed(f"Chromium did not start (exit status {process.poll()})")
