"""Dagster's services for `mcp-assets dev` and the demo: started on a free port, watched, ended with all processes.

They are children of a keeper (`mcp_assets.processes.dagster_services`), which restarts each service that dies. This
module restarts the keeper. The kernel ends the keeper when this process dies in any way.
"""

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from mcp_assets.processes.tree import Backoff, adopt_orphans, end_below, end_marked, reap_adopted, tied

_PATIENCE_S = 15.0
"""How long the keeper may take to end all services; it kills them after a fifth of that."""

_MARK = "MCP_ASSETS_DEV"
"""Variable in the environment of each child process: its state folder, by which the next start finds leftovers."""

_LOCK = "dev.lock"
"""File in the state folder, locked for as long as the services run."""

_ADDRESS = "dev.url"
"""File in the state folder with the address of the UI."""

_CODE_LOCATION = """{ workspaceOrError {
  __typename
  ... on PythonError { message }
  ... on Workspace { locationEntries { locationOrLoadError { __typename ... on PythonError { message } } } }
} }"""


class DagsterEnded(Exception):
    """Dagster's services do not run; the message says why, and holds the end of their log."""


@dataclass
class DagsterDev:
    """Dagster's services, running."""

    url: str
    log: Path | None
    command: Sequence[str]
    environment: Mapping[str, str]
    _backoff: Backoff = field(default_factory=Backoff)
    _process: subprocess.Popen[bytes] | None = None
    _began: float = 0.0

    def start(self) -> None:
        with _output(self.log) as output:
            self._process = subprocess.Popen(
                tied(self.command, signal.SIGTERM),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT if output is not None else None,
                env=dict(self.environment),
                # Ctrl-C is ours: the services are ended in their turn, not at the same moment.
                start_new_session=True,
            )
        self._began = time.monotonic()

    def check(self) -> None:
        """Start the keeper again if it was killed. To be called each second or so, from the main thread.

        Raises:
            DagsterEnded: the services cannot be run.
        """
        process = self._process
        if process is None or process.poll() is None:
            return
        delay = self._backoff.after(time.monotonic() - self._began)
        if process.returncode > 0 and not self._backoff.was_steady:
            raise DagsterEnded(f"Dagster's services could not be started{self._end_of_log()}")
        end_below(0)
        reap_adopted(())
        time.sleep(delay)
        self.start()

    def end(self) -> None:
        """End all services. Interrupted work is done again at the next start."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=_PATIENCE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        # This ends no process, unless the keeper was killed.
        end_below(0)

    def _end_of_log(self) -> str:
        if self.log is None:
            return ""
        lines = self.log.read_text(errors="replace").splitlines()[-15:]
        return "\n".join([f"; the end of {self.log}:", *lines])

    def stay(self) -> None:
        """Keep them running until Ctrl-C. Raises DagsterEnded if they cannot be run."""
        try:
            while True:
                self.check()
                time.sleep(0.5)
        except KeyboardInterrupt:
            return

    def wait_until_up(self, silence_s: float, *, on_wait: Callable[[float], None] = lambda _: None) -> None:
        """Wait until the UI answers and has loaded the definitions; for as long as the services write to their log.

        `on_wait` is called again and again with the seconds so far.

        Raises:
            DagsterEnded: the services cannot be run, could not load them, or said nothing for `silence_s`.
        """
        began = changed_at = time.monotonic()
        written = self._log_size()
        while (now := time.monotonic()) - changed_at < silence_s:
            on_wait(now - began)
            self.check()
            if (size := self._log_size()) != written:
                written, changed_at = size, now
            try:
                loaded = self._code_location()
            except (urllib.error.URLError, TimeoutError, ConnectionError):
                loaded = None
            if loaded is not None:
                if loaded["__typename"] == "PythonError":
                    raise DagsterEnded(f"Dagster could not load mcp_assets.definitions: {loaded['message']}")
                return
            time.sleep(0.3)
        raise DagsterEnded(
            f"the Dagster UI does not answer at {self.url}, and its log has not grown for {silence_s:.0f} s; "
            f"see {self.log}"
        )

    def _log_size(self) -> int:
        try:
            return self.log.stat().st_size if self.log is not None else 0
        except FileNotFoundError:
            return 0

    def _code_location(self) -> dict[str, str] | None:
        """What the UI says of the code location; None while it is loading."""
        request = urllib.request.Request(  # noqa: S310  (loopback, http)
            f"{self.url}/graphql",
            data=json.dumps({"query": _CODE_LOCATION}).encode(),
            headers={"Content-Type": "application/json"},
        )
        # The UI is on this machine, which no proxy reaches.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=5) as response:
            workspace = json.load(response)["data"]["workspaceOrError"]
        if workspace["__typename"] == "PythonError":
            return dict(workspace)
        entries = [entry["locationOrLoadError"] for entry in workspace["locationEntries"]]
        return dict(entries[0]) if entries and entries[0] else None


@contextmanager
def dagster_dev(
    environment: Mapping[str, str],
    state_dir: Path,
    *,
    port: int = 3000,
    host: str = "127.0.0.1",
    log: Path | None = None,
) -> Iterator[DagsterDev]:
    """Dagster's services for this folder, the UI on `port` or the next free one; they end with the block, all of them.

    They write to `log`, or to this process's own output. Without DAGSTER_HOME, Dagster's home is in `state_dir`.

    Raises:
        DagsterEnded: services of this `state_dir` run already. Two daemons would launch each run twice.
    """
    state_dir = state_dir.resolve()
    # If all stores are named in the settings, no other step has made the folder.
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    port = _free_port(port)
    with _only_one(state_dir / _LOCK), tempfile.TemporaryDirectory(prefix="mcp-assets-dev") as folder:
        end_marked(_MARK, str(state_dir))
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            log.unlink(missing_ok=True)
        adopt_orphans()
        dev = DagsterDev(
            f"http://127.0.0.1:{port}",
            log,
            [sys.executable, "-m", "mcp_assets.processes.dagster_services", folder, host, str(port)],
            _with_dagster_home(environment, state_dir) | {_MARK: str(state_dir)},
        )
        try:
            (state_dir / _ADDRESS).write_text(dev.url)
            dev.start()
            yield dev
        finally:
            dev.end()
            (state_dir / _ADDRESS).unlink(missing_ok=True)
            adopt_orphans(False)


def address_of_ui(state_dir: Path) -> str | None:
    """Where the UI is whose services run for `state_dir`; None if none run."""
    try:
        with (state_dir / _LOCK).open() as held:
            fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        with suppress(FileNotFoundError):
            return (state_dir / _ADDRESS).read_text()
    return None


@contextmanager
def _only_one(lock: Path) -> Iterator[None]:
    with lock.open("a+") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            held.seek(0)
            raise DagsterEnded(
                f"Dagster's services for {lock.parent} run already, below process {held.read().strip()}: "
                "end that one, or choose another MCP_ASSETS_STATE_DIR"
            ) from error
        held.truncate(0)
        held.write(str(os.getpid()))
        held.flush()
        yield


def _with_dagster_home(environment: Mapping[str, str], state_dir: Path) -> dict[str, str]:
    """`environment` with a DAGSTER_HOME that has this folder's dagster.yaml, as it is now."""
    if environment.get("DAGSTER_HOME"):
        return dict(environment)
    home = state_dir / "dagster_home"
    home.mkdir(mode=0o700, exist_ok=True)
    configuration = Path("dagster.yaml")
    if not configuration.exists():
        raise DagsterEnded(
            f"there is no dagster.yaml in {Path.cwd()}: start this in the project's folder, or set DAGSTER_HOME to the "
            "folder that holds it"
        )
    shutil.copyfile(configuration, home / configuration.name)
    return {**environment, "DAGSTER_HOME": str(home)}


@contextmanager
def _output(log: Path | None) -> Iterator[BinaryIO | None]:
    if log is None:
        yield None
        return
    with log.open("ab") as output:
        yield output


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
