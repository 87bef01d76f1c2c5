"""A `dagster dev` of our own: started on a free port, watched, and ended with all its processes."""

import json
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

import psutil

_STOP_S = 20.0

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
    log: Path
    process: subprocess.Popen[bytes]

    def check(self) -> None:
        """Raise DagsterEnded if it has ended."""
        if self.process.poll() is not None:
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
            raise DagsterEnded(f"dagster dev ended with code {self.process.returncode}; the end of {self.log}:\n{tail}")

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
def dagster_dev(environment: Mapping[str, str], log: Path, port: int = 3000) -> Iterator[DagsterDev]:
    """`dagster dev` in this folder, on `port` or the next free one; its whole process tree ends with the block."""
    port = _free_port(port)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "dagster", "dev", "--host", "127.0.0.1", "--port", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            # Ctrl-C is ours: Dagster is ended in its turn, not at the same moment.
            start_new_session=True,
        )
    try:
        yield DagsterDev(f"http://127.0.0.1:{port}", log, process)
    finally:
        end_tree(process)


def end_tree(process: subprocess.Popen[bytes]) -> None:
    """End a process and all below it: asked first, killed if they linger."""
    try:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        family = []
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    _, lingering = psutil.wait_procs(family, timeout=_STOP_S)
    for survivor in lingering:
        try:
            survivor.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(lingering, timeout=5)
    process.wait(timeout=5)


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
