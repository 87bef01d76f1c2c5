"""Dagster's services for `mcp-assets dev` and the demo: started on a free port, watched, ended with all processes.

They are children of a keeper (`mcp_assets.processes.dagster_services`), which restarts each service that dies. This
module restarts the keeper. The kernel ends the keeper when this process dies in any way.
"""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from mcp_assets.cli.dagster_ui import DagsterUi, UiRun, UiSilent, UiState
from mcp_assets.cli.project import with_dagster_home, workspace_file
from mcp_assets.processes.tree import Backoff, adopt_orphans, end_below, end_marked, reap_adopted, tied

_PATIENCE_S = 15.0
"""How long the keeper may take to end all services; it kills them after a fifth of that."""

_MARK = "MCP_ASSETS_DEV"
"""Variable in the environment of each child process: its state folder, by which the next start finds leftovers."""

_LOCK = "dev.lock"
"""File in the state folder, locked for as long as the services run."""

_ADDRESS = "dev.url"
"""File in the state folder with the address of the UI."""

_BOARD = "services.json"
"""File of the keeper with what each service does; its name is that of `processes.dagster_services.BOARD`."""

_LINES_OF_LOG = 15
"""How many lines of the log an error shows: a Python error with its cause, on one screen."""

USUAL_PORT = 3000
"""Of the Dagster UI, as `dagster dev` has it."""

_POLL_S = 0.3

_POLL_RUNS_S = 1.0
"""How often the UI is asked for the runs that are under way; each answer reads the storage of runs."""

OnLook = Callable[[str, str, bool], None]
"""As `embedded.stack.OnLook`: the name of a part, what it does, whether it is up."""


class DagsterEnded(Exception):
    """Dagster's services do not run; the message says why, and holds the end of their log."""


class NotLoaded(DagsterEnded):
    """They run, and could not load the definitions; the message says why."""


@dataclass
class DagsterDev:
    """Dagster's services, running."""

    url: str
    log: Path | None
    command: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    """Where the keeper writes what each service does."""
    _backoff: Backoff = field(default_factory=Backoff)
    _process: subprocess.Popen[bytes] | None = None
    _began: float = 0.0
    _was_up: bool = False

    @property
    def ui(self) -> DagsterUi:
        return DagsterUi(self.url)

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
        if process.returncode > 0 and not self._was_up:
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
        lines = self.log.read_text(errors="replace").splitlines()[-_LINES_OF_LOG:]
        return "\n".join([f"; the end of {self.log}:", *lines])

    def stay(self) -> None:
        """Keep them running until Ctrl-C. Raises DagsterEnded if they cannot be run."""
        try:
            while True:
                self.check()
                time.sleep(0.5)
        except KeyboardInterrupt:
            return

    def wait_until_up(self, on_look: OnLook = lambda _name, _does, _up: None) -> UiState:
        """Wait until the UI answers, the definitions are loaded and the daemon works; for as long as the keeper lives.

        `on_look` is called again and again, for each service.

        Raises:
            DagsterEnded: the services cannot be run.
            NotLoaded: they run, and could not load the definitions.
        """
        began = time.time()
        while True:
            self.check()
            try:
                state = self.ui.state()
            except UiSilent:
                state = None
            works = state is not None and state.heartbeat is not None and state.heartbeat > began
            for name, does, is_serving in self._services():
                if name == "webserver" and state is not None:
                    on_look(name, f"answers at {self.url}", True)
                elif name == "daemon" and works:
                    on_look(name, "runs the sensors", True)
                else:
                    on_look(name, does, is_serving)
            if state is not None and state.loaded and state.error is not None:
                self._was_up = True
                raise NotLoaded(f"Dagster could not load the definitions: {state.error.strip()}")
            if state is not None and state.loaded and works:
                self._was_up = True
                return state
            time.sleep(_POLL_S)

    def wait_for_runs(self, on_look: OnLook = lambda _name, _does, _up: None) -> None:
        """Wait until no run is under way, so that none is killed in the midst of its work.

        Raises:
            DagsterEnded: the services cannot be run.
        """
        waited: dict[str, UiRun] = {}
        while True:
            self.check()
            try:
                left = {run.run_id: run for run in self.ui.unfinished_runs()}
            except UiSilent as error:
                on_look("webserver", f"does not answer: {error}", False)
                time.sleep(_POLL_RUNS_S)
                continue
            for run_id in waited.keys() - left.keys():
                on_look(waited.pop(run_id).name, "has ended", True)
            for run in left.values():
                waits = run.status in ("queued", "not_started")
                on_look(run.name, "waits for its start" if waits else "ends some seconds after its last work", False)
            waited |= left
            if not left:
                return
            time.sleep(_POLL_RUNS_S)

    def _services(self) -> list[tuple[str, str, bool]]:
        """What each service does, by the keeper: its name, a sentence, and whether it serves."""
        try:
            found = json.loads((self.folder / _BOARD).read_text())
        except FileNotFoundError:
            return [("Dagster", "reads its configuration", False)]
        return [("Dagster", "has read its configuration", True), *((name, does, up) for name, does, up in found)]


@contextmanager
def dagster_dev(
    environment: Mapping[str, str],
    state_dir: Path,
    *,
    port: int,
    host: str = "127.0.0.1",
    log: Path | None = None,
) -> Iterator[DagsterDev]:
    """Dagster's services for this folder, the UI on `port`; they end with the block, all of them.

    They write to `log`, or to this process's own output. DAGSTER_HOME and the workspace are those of `cli.project`.

    Raises:
        DagsterEnded: services of this `state_dir` run already. Two daemons would launch each run twice.
    """
    state_dir = state_dir.resolve()
    # If all stores are named in the settings, no other step has made the folder.
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    state_dir.chmod(0o700)
    environment = with_dagster_home(environment, state_dir)
    given = workspace_file()
    with _only_one(state_dir / _LOCK), tempfile.TemporaryDirectory(prefix="mcp-assets-dev") as folder:
        end_marked(_MARK, str(state_dir))
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            log.unlink(missing_ok=True)
        adopt_orphans()
        dev = DagsterDev(
            f"http://{_reached_at(host)}:{port}",
            log,
            [
                *(sys.executable, "-m", "mcp_assets.processes.dagster_services", folder, host, str(port)),
                *([] if given is None else [str(given)]),
            ],
            {**environment, _MARK: str(state_dir)},
            Path(folder),
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


@contextmanager
def _output(log: Path | None) -> Iterator[BinaryIO | None]:
    if log is None:
        yield None
        return
    with log.open("ab") as output:
        yield output


def port_of_ui(wanted: int | None, host: str) -> tuple[int, str | None]:
    """The port for the UI, and a sentence if it is not the usual one: `wanted`, or the usual one or the next free one.

    Raises:
        DagsterEnded: `wanted` is taken, or no port is free.
    """
    if wanted is not None:
        reason = _why_taken(wanted, host)
        if reason is not None:
            raise DagsterEnded(
                f"port {wanted} cannot be used for the Dagster UI ({reason}): give another one to --port, or leave "
                "--port out to take the next free one"
            )
        return wanted, None
    for port in range(USUAL_PORT, USUAL_PORT + 50):
        if _why_taken(port, host) is None:
            usual = port == USUAL_PORT
            return port, None if usual else f"port {USUAL_PORT} is taken: the Dagster UI has {port}; --port chooses one"
    raise DagsterEnded(f"no port from {USUAL_PORT} to {USUAL_PORT + 49} is free for the Dagster UI: give one to --port")


def _reached_at(host: str) -> str:
    """The name in the UI's address, for this machine, when it listens at `host`."""
    if host in ("0.0.0.0", "::"):  # noqa: S104  (compared, not bound)
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _why_taken(port: int, host: str) -> str | None:
    """Why nothing can listen at this port now; None: something can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return (error.strerror or str(error)).lower()
    return None
