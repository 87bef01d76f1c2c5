"""Start, stop and look at the embedded stack of one state directory. The servers outlive the process that starts them.

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

_POLL_S = 0.05


@dataclass(frozen=True)
class StackAddresses:
    """URLs of the embedded servers that run; None for a part that was not started."""

    database_url: str | None
    """`postgresql://` URL of a unix socket, for libpq, psycopg, psycopg2 and SQLAlchemy; no password in it."""
    nats_url: str | None
    qdrant_url: str | None


def start(
    state_dir: Path,
    parts: Collection[Part],
    *,
    timeout_s: float = 60,
    on_progress: Callable[[str], None] | None = None,
) -> StackAddresses:
    """Make sure that `parts` run, and answer, in `state_dir`; the addresses of all parts that run there.

    Does nothing if they do already; parts that are missing are added to a stack that runs. Ports and data are those of
    the run before. `on_progress` gets a line each time a part changes its state.
    Raises StackError when a part does not answer within `timeout_s`, or keeps failing; a stack that this call started
    is ended again first.
    """
    wanted = frozenset(parts)
    if not wanted:
        raise ValueError("no parts to start: name at least one of " + ", ".join(Part))
    state = StateDir(state_dir)
    state.make()
    deadline = time.monotonic() + timeout_s
    tell = on_progress or (lambda _: None)
    with state.starting_or_stopping(deadline):
        if state.supervisor_pid() is not None:
            state.want(wanted | state.wanted())
            found = _wait_until_running(state, wanted, deadline, tell)
            if found is not None:
                return found
        # None lives, or the one that did was just dying.
        state.want(wanted)
        key_of(state.path)
        try:
            _launch(state)
            found = _wait_until_running(state, wanted, deadline, tell)
        except BaseException:
            _end(state, time.monotonic() + 30)
            raise
        if found is None:
            raise StackError(f"the supervisor of {state.path} ended at once: see {state.supervisor_log}")
        return found


def stop(state_dir: Path, *, timeout_s: float = 30) -> bool:
    """End the stack of `state_dir` and wait until every process of it is gone; False if there was none.

    What has not ended in good order after `timeout_s` is killed. The data stays. Raises StackError if somebody else is
    starting or stopping the stack all that time.
    """
    state = StateDir(state_dir)
    if not state.path.exists():
        return False
    deadline = time.monotonic() + timeout_s
    with state.starting_or_stopping(deadline):
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
    return None if now.supervisor_pid is None else _addresses(now)


@contextmanager
def running(parts: Collection[Part], state_dir: Path) -> Iterator[StackAddresses]:
    """A stack that ends with the with-block, its data left in `state_dir`."""
    started = start(state_dir, parts)
    try:
        yield started
    finally:
        stop(state_dir)


def _addresses(now: StackStatus) -> StackAddresses:
    return StackAddresses(
        database_url=now.parts[Part.POSTGRES].address,
        nats_url=now.parts[Part.NATS].address,
        qdrant_url=now.parts[Part.QDRANT].address,
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


def _wait_until_running(
    state: StateDir, wanted: frozenset[Part], deadline: float, on_progress: Callable[[str], None]
) -> StackAddresses | None:
    """None when no supervisor lives any more."""
    told: dict[Part, str] = {}
    while True:
        now = status(state.path)
        if now.supervisor_pid is None:
            return None
        for part in sorted(wanted):
            line = _progress(part, now.parts[part])
            if now.parts[part].state != PartState.DOWN and told.get(part) != line:
                told[part] = line
                on_progress(line)
        waiting = [part for part in sorted(wanted) if now.parts[part].state != PartState.RUNNING]
        if not waiting:
            return _addresses(now)
        late = time.monotonic() > deadline
        for part in waiting:
            known = now.parts[part]
            if late or (known.address is None and known.restarts >= FAILED_STARTS):
                reason = known.detail or "it does not answer"
                raise StackError(f"the embedded {part} did not start: {reason} (its log: {state.log_of(part)})")
        time.sleep(_POLL_S)


def _progress(part: Part, known: PartStatus) -> str:
    extra = known.address if known.state == PartState.RUNNING else known.detail
    return f"{part}: {known.state}" + (f" ({extra})" if extra else "")


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
