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
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from mcp_assets.embedded.state import (
    PREPARING,
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

SILENCE_S = 60.0
"""A part that starts, and whose state and log do not change for this long, is given up."""

_POLL_S = 0.05

_SAY_EVERY_S = 5.0


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
    silence_s: float = SILENCE_S,
    on_progress: Callable[[str], None] | None = None,
) -> StackAddresses:
    """Make sure that `parts` run, and answer, in `state_dir`; the addresses of all parts that run there.

    Does nothing if they do already; parts that are missing are added to a stack that runs. Ports and data are those of
    the run before. `on_progress` gets a line each time a part changes its state, and each five seconds what is waited
    for. However long a part takes, it is waited for while it makes its files or writes to its log.
    Raises StackError when a part that does not answer says nothing for `silence_s`, or keeps failing; a stack that this
    call started is ended again first.
    """
    wanted = frozenset(parts)
    if not wanted:
        raise ValueError("no parts to start: name at least one of " + ", ".join(Part))
    state = StateDir(state_dir)
    state.make()
    tell = on_progress or (lambda _: None)
    other = _Reminder(tell, "waiting for another process that starts or stops this stack")
    with state.starting_or_stopping(other.remind):
        if state.supervisor_pid() is not None:
            state.want(wanted | state.wanted())
            found = _wait_until_running(state, wanted, silence_s, tell)
            if found is not None:
                return found
        # No supervisor lives, or it was just ending.
        state.want(wanted)
        key_of(state.path)
        try:
            _launch(state)
            found = _wait_until_running(state, wanted, silence_s, tell)
        except BaseException:
            _end(state, time.monotonic() + 30)
            raise
        if found is None:
            raise StackError(f"the supervisor of {state.path} ended at once: see {state.supervisor_log}")
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


@dataclass
class _Reminder:
    """Reports what is waited for, with the seconds so far: after some seconds, and then from time to time."""

    say: Callable[[str], None]
    what: str
    _began: float = field(default_factory=lambda: time.monotonic())
    _said: int = 0

    def remind(self) -> None:
        waited_s = time.monotonic() - self._began
        if waited_s >= (self._said + 1) * _SAY_EVERY_S:
            self._said = int(waited_s // _SAY_EVERY_S)
            self.say(f"{self.what}, {waited_s:.0f} s so far")


class _Waiting:
    """A part that is waited for: what its state and log say, and since when they have not changed."""

    def __init__(self, part: Part, log: Path, say: Callable[[str], None]) -> None:
        self._part = part
        self._log = log
        self._say = say
        self._line: str | None = None
        self._seen: tuple[PartStatus, tuple[int, int]] | None = None
        self._changed_at = time.monotonic()
        self._reminder: _Reminder | None = None

    def look(self, known: PartStatus) -> None:
        line = _progress(self._part, known)
        if known.state != PartState.DOWN and line != self._line:
            self._line = line
            self._reminder = _Reminder(self._say, line)
            self._say(line)
        elif self._reminder is not None and known.state != PartState.RUNNING:
            self._reminder.remind()
        seen = (known, _size_and_time(self._log))
        # The program that makes the files ends by itself, and is silent while it writes much.
        if seen != self._seen or known.detail == PREPARING:
            self._seen = seen
            self._changed_at = time.monotonic()

    def raise_if_hopeless(self, known: PartStatus, silence_s: float) -> None:
        silent = time.monotonic() - self._changed_at > silence_s
        if silent or (known.address is None and known.restarts >= FAILED_STARTS):
            reason = known.detail or f"it does not answer, and has said nothing for {silence_s:.0f} s"
            raise StackError(f"the embedded {self._part} did not start: {reason} (its log: {self._log})")


def _size_and_time(log: Path) -> tuple[int, int]:
    try:
        found = log.stat()
    except FileNotFoundError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


def _wait_until_running(
    state: StateDir, wanted: frozenset[Part], silence_s: float, on_progress: Callable[[str], None]
) -> StackAddresses | None:
    """None when no supervisor lives any more."""
    waiting = {part: _Waiting(part, state.log_of(part), on_progress) for part in sorted(wanted)}
    while True:
        now = status(state.path)
        if now.supervisor_pid is None:
            return None
        for part, one in waiting.items():
            one.look(now.parts[part])
        if all(now.parts[part].state == PartState.RUNNING for part in wanted):
            return _addresses(now)
        for part, one in waiting.items():
            if now.parts[part].state != PartState.RUNNING:
                one.raise_if_hopeless(now.parts[part], silence_s)
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
