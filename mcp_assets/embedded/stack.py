"""Start, stop and inspect the embedded stack of one state directory. The servers outlive the process that starts them.

All functions are safe to call at once from several processes: one of them acts, the others wait for its outcome.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from mcp_assets.embedded.state import (
    SUPERVISOR_MODULE,
    Part,
    PartState,
    PartStatus,
    StackError,
    StackStatus,
    StateDir,
    key_of,
    known_secret,
    shown_address,
)
from mcp_assets.embedded.supervisor import end_leftovers, server_of

__all__ = [
    "Part",
    "PartState",
    "PartStatus",
    "StackAddresses",
    "StackError",
    "StackStatus",
    "addresses",
    "running",
    "start",
    "status",
    "stop",
]

FAILED_STARTS = 4
"""A part that never answered and was started this often is reported at once: waiting longer does not help it."""

OnLook = Callable[[str, str, bool], None]
"""Called at each look at a part that is waited for: with its name, what it does, and whether it is up."""

_POLL_S = 0.05

_LINES_OF_LOG = 5
"""How many lines of the supervisor's log an error shows: its last words, which one screen holds."""


@dataclass(frozen=True)
class StackAddresses:
    """URLs of the embedded servers that run; None for a part that was not started."""

    database_url: str | None
    """`postgresql://` URL of a unix socket, for libpq, psycopg, psycopg2 and SQLAlchemy; no password in it."""
    nats_url: str | None
    """With user and password, which is the stack's secret."""
    qdrant_url: str | None
    qdrant_api_key: str | None = None
    """What Qdrant asks for; None if it runs since a version that asked for nothing."""


def start(
    state_dir: Path, parts: Collection[Part], *, on_look: OnLook = lambda _name, _does, _up: None
) -> StackAddresses:
    """Make sure that `parts` run, and answer, in `state_dir`; the addresses of all parts that run there.

    Does nothing if they do already; parts that are missing are added to a stack that runs. Ports and data are those of
    the run before. A part is waited for as long as its process lives, because a busy machine is slow, and no bound on
    the time could tell that from a fault. `on_look` is called many times a second meanwhile.
    Raises StackError when the process of a part ends at each start; a stack that this call started is ended first.
    """
    wanted = frozenset(parts)
    if not wanted:
        raise ValueError("no parts to start: name at least one of " + ", ".join(Part))
    state = StateDir(state_dir)
    state.make()
    with state.starting_or_stopping(lambda: on_look("stack", "another process starts or stops it", False)):
        if state.supervisor_pid() is not None:
            state.want(wanted | state.wanted())
            found = _wait_until_running(state, wanted, on_look)
            if found is not None:
                return found
        # No supervisor lives, or it was just ending.
        state.want(wanted)
        key_of(state.path)
        try:
            _launch(state)
            found = _wait_until_running(state, wanted, on_look)
        except BaseException:
            _end(state, time.monotonic() + 30)
            raise
        if found is None:
            raise StackError(f"the supervisor of {state.path} ended at once{_end_of(state.supervisor_log)}")
        return found


def stop(state_dir: Path, *, timeout_s: float = 30) -> bool:
    """End the stack of `state_dir` and wait until every process of it is gone; False if there was none.

    What has not ended in good order after `timeout_s` is killed. The data stays. Raises StackError if another process
    is starting or stopping the stack all that time.
    """
    state = StateDir(state_dir)
    if not state.path.exists():
        return False
    deadline = time.monotonic() + timeout_s

    def give_up_late() -> None:
        if time.monotonic() > deadline:
            raise StackError(f"another process is still starting or stopping the stack in {state.path}: try again")

    with state.starting_or_stopping(give_up_late):
        return _end(state, deadline)


def status(state_dir: Path) -> StackStatus:
    """What every part does now."""
    state = StateDir(state_dir)
    pid = state.supervisor_pid()
    published = state.published()
    if pid is not None and published.supervisor_pid == pid:
        return published
    return StackStatus(
        supervisor_pid=pid, parts={part: PartStatus(port=old.port) for part, old in published.parts.items()}
    )


def addresses(state_dir: Path) -> StackAddresses | None:
    """The addresses of the parts that run, or are being restarted; None when no supervisor lives."""
    now = status(state_dir)
    return None if now.supervisor_pid is None else _addresses(StateDir(state_dir), now)


@contextmanager
def running(parts: Collection[Part], state_dir: Path) -> Iterator[StackAddresses]:
    """A stack that ends with the with-block, its data left in `state_dir`."""
    started = start(state_dir, parts)
    try:
        yield started
    finally:
        stop(state_dir)


def _addresses(state: StateDir, now: StackStatus) -> StackAddresses:
    return StackAddresses(
        database_url=now.parts[Part.POSTGRES].address,
        nats_url=now.parts[Part.NATS].address,
        qdrant_url=now.parts[Part.QDRANT].address,
        qdrant_api_key=known_secret(state.path),
    )


def _launch(state: StateDir) -> None:
    """Start the supervisor; it has the lock, and is in the background, when this returns."""
    project = str(Path(__file__).parents[2])
    paths = (project, os.environ.get("PYTHONPATH"))
    launch = subprocess.run(
        [sys.executable, "-m", SUPERVISOR_MODULE, str(state.path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )
    if launch.returncode != 0:
        raise StackError(f"the supervisor of {state.path} did not start: {launch.stderr.strip()}")


def _wait_until_running(state: StateDir, wanted: frozenset[Part], on_look: OnLook) -> StackAddresses | None:
    """None when no supervisor lives any more."""
    in_order = [part for part in Part if part in wanted]
    while True:
        now = status(state.path)
        if now.supervisor_pid is None:
            return None
        for part in in_order:
            known = now.parts[part]
            on_look(part, _does(known), known.state == PartState.RUNNING)
            _raise_if_failing(part, known, state.log_of(part))
        if all(now.parts[part].state == PartState.RUNNING for part in wanted):
            return _addresses(state, now)
        time.sleep(_POLL_S)


def _does(known: PartStatus) -> str:
    """Such as `starting (making its files, at the first start)`. The supervisor has not come to a part that is down."""
    state = PartState.STARTING if known.state == PartState.DOWN else known.state
    address = shown_address(known.address) if state == PartState.RUNNING else None
    told = [text for text in (address, known.detail) if text]
    return f"{state} ({'; '.join(told)})" if told else str(state)


def _raise_if_failing(part: Part, known: PartStatus, log: Path) -> None:
    if known.state != PartState.RUNNING and known.address is None and known.restarts >= FAILED_STARTS:
        raise StackError(f"the embedded {part} did not start: {known.detail} (its log: {log})")


def _end_of(log: Path) -> str:
    """The last lines of `log`, to be put behind a sentence."""
    try:
        lines = log.read_text(errors="replace").splitlines()[-_LINES_OF_LOG:]
    except FileNotFoundError:
        lines = []
    return "\n".join([f"; the end of {log}:", *lines]) if lines else f"; its log {log} is empty"


def _end(state: StateDir, deadline: float) -> bool:
    pid = state.supervisor_pid()
    if pid is not None:
        with suppress(psutil.NoSuchProcess):
            supervisor = psutil.Process(pid)
            supervisor.send_signal(signal.SIGTERM)
            while supervisor.status() != psutil.STATUS_ZOMBIE:
                if time.monotonic() > deadline:
                    supervisor.kill()
                time.sleep(_POLL_S)
    # Nothing, unless a supervisor was killed: its servers may still be on their way out.
    found = False
    for part in Part:
        server = server_of(part, state.directory_of(part), None)
        found |= end_leftovers(server)
        server.close()
    return found or pid is not None
