"""A `dagster dev` of our own: started on a free port, watched, and ended with all its processes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import psutil

_PATIENCE_S = 3.0

_CODE_LOCATION = """{ workspaceOrError {
  __typename
  ... on PythonError { message }
  ... on Workspace { locationEntries { locationOrLoadError { __typename ... on PythonError { message } } } }
} }"""


class DagsterEnded(Exception):
    """`dagster dev` ended by itself; the message holds the end of its log."""


@dataclass(frozen=True, slots=True)
class DagsterDev:
    """A running `dagster dev`."""

    url: str
    log: Path | None
    process: subprocess.Popen[bytes]

    def check(self) -> None:
        """Raise DagsterEnded if it has ended."""
        if self.process.poll() is not None:
            tail = ""
            if self.log is not None:
                lines = self.log.read_text(errors="replace").splitlines()[-15:]
                tail = "\n".join([f"; the end of {self.log}:", *lines])
            raise DagsterEnded(f"dagster dev ended with code {self.process.returncode}{tail}")

    def stay(self) -> None:
        """Return at Ctrl-C. Raises DagsterEnded if it ends before."""
        try:
            while True:
                self.check()
                time.sleep(0.5)
        except KeyboardInterrupt:
            return

    def wait_until_up(self, timeout_s: float) -> None:
        """Wait until the UI answers and has loaded the definitions.

        Raises:
            DagsterEnded: it ended, could not load them, or did not answer in time.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            self.check()
            try:
                loaded = self._code_location()
            except (urllib.error.URLError, TimeoutError, ConnectionError):
                loaded = None
            if loaded is not None:
                if loaded["__typename"] == "PythonError":
                    raise DagsterEnded(f"Dagster could not load mcp_assets.definitions: {loaded['message']}")
                return
            time.sleep(0.3)
        raise DagsterEnded(f"the Dagster UI did not answer at {self.url} within {timeout_s:.0f} s; see {self.log}")

    def _code_location(self) -> dict[str, str] | None:
        """What the UI says of the code location; None while it is loading."""
        request = urllib.request.Request(  # noqa: S310  (loopback, http)
            f"{self.url}/graphql",
            data=json.dumps({"query": _CODE_LOCATION}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=5) as response:  # noqa: S310
            workspace = json.load(response)["data"]["workspaceOrError"]
        if workspace["__typename"] == "PythonError":
            return dict(workspace)
        entries = [entry["locationOrLoadError"] for entry in workspace["locationEntries"]]
        return dict(entries[0]) if entries and entries[0] else None


@contextmanager
def dagster_dev(
    environment: Mapping[str, str], *, port: int = 3000, host: str = "127.0.0.1", log: Path | None = None
) -> Iterator[DagsterDev]:
    """`dagster dev` in this folder, on `port` or the next free one; its whole process tree ends with the block.

    It writes to `log`, or to this process's own output.
    """
    port = _free_port(port)
    with _output(log) as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "dagster", "dev", "--host", host, "--port", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT if output is not None else None,
            env=dict(environment),
            # Ctrl-C is ours: Dagster is ended in its turn, not at the same moment.
            start_new_session=True,
        )
    try:
        yield DagsterDev(f"http://127.0.0.1:{port}", log, process)
    finally:
        _end(process)


@contextmanager
def _output(log: Path | None) -> Iterator[BinaryIO | None]:
    if log is None:
        yield None
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        yield output


def _end(process: subprocess.Popen[bytes]) -> None:
    """End `dagster dev` and all below it, whatever is under way: it is done again at the next start.

    Asked once, Dagster waits for the sensors' ticks, which themselves wait for messages for most of a minute; asked
    twice, it ends at once.
    """
    try:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        family = []
    lingering = family
    for _ in range(2):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
        _, lingering = psutil.wait_procs(lingering, timeout=_PATIENCE_S)
    for survivor in lingering:
        try:
            survivor.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(lingering, timeout=_PATIENCE_S)
    process.wait(timeout=_PATIENCE_S)


def _free_port(preferred: int) -> int:
    for port in (*range(preferred, preferred + 50), 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise DagsterEnded("no free port for the Dagster UI")
