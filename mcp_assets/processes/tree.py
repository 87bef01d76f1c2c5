"""The process tree of a command: every process below it ends with it, and a process of it that dies is started again.

Linux delivers both ends of that promise: a direct child is sent a signal when its parent dies (`tied`), and a process
whose parent died becomes a child of the nearest ancestor that adopts orphans (`adopt_orphans`), so that no process
leaves the tree. On other systems a process that is killed may leave orphans; `end_marked` ends those at the next start.
"""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

from mcp_assets.processes import child

_PR_SET_CHILD_SUBREAPER = 36

_POLL_S = 0.05

_KILL_PATIENCE_S = 10.0
"""How long a killed process may take to be gone: one in an uninterruptible system call takes its time."""


@dataclass
class Backoff:
    """Delays before the restarts of one process: the first, doubled each time up to the longest."""

    first_s: float = 0.1
    longest_s: float = 30.0
    steady_s: float = 10.0
    """A process that ran this long is not failing repeatedly: its next restart is quick again."""
    failures: int = 0
    """Starts in a row that did not become steady."""
    was_steady: bool = False
    _next_s: float = field(default=0.0, repr=False)

    def after(self, ran_s: float) -> float:
        """Seconds to wait before the next start of a process that has ended after `ran_s`."""
        if ran_s >= self.steady_s:
            self.was_steady = True
            self.failures = 0
            self._next_s = 0.0
        self.failures += 1
        delay = self._next_s or self.first_s
        self._next_s = min(delay * 2, self.longest_s)
        return delay


def tied(command: Sequence[str], end_signal: signal.Signals) -> list[str]:
    """`command`, which the kernel sends `end_signal` when this process dies. To be started from the main thread."""
    return [
        *(sys.executable, "-I", "-S", child.__file__),
        *(str(number) for number in (os.getpid(), int(end_signal), -1, -1)),
        *command,
    ]


def adopt_orphans(wanted: bool = True) -> None:
    """Have processes below this one whose parent dies become children of this process, rather than of init."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, int(wanted), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


def living_below(pid: int | None = None) -> list[psutil.Process]:
    """Descendants of process `pid` (default: this one) that have not ended."""
    try:
        below = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [found for found in below if _lives(found)]


def reap_adopted(own: Iterable[int]) -> None:
    """Reap adopted children that have ended. `own`: children that other code waits for."""
    known = set(own)
    for found in psutil.Process().children():
        if found.pid not in known and not _lives(found):
            with suppress(ChildProcessError):
                os.waitpid(found.pid, os.WNOHANG)


def end_below(patience_s: float) -> None:
    """End every process below this one: asked by SIGTERM, and killed after `patience_s`. Returns when none lives."""
    _end(living_below, patience_s)


def end_marked(variable: str, value: str) -> None:
    """Kill the processes that have `variable` set to `value` in their environment, this one apart."""

    def marked() -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):  # gone meanwhile, or of another user
                if process.pid != os.getpid() and _lives(process) and process.environ().get(variable) == value:
                    found.append(process)
        return found

    _end(marked, 0.0)


def _end(look: Callable[[], list[psutil.Process]], patience_s: float) -> None:
    """End the processes that `look` returns; it is called repeatedly, because an ending process may start another."""
    for number, wait_s in ((signal.SIGTERM, patience_s), (signal.SIGKILL, _KILL_PATIENCE_S)):
        if not wait_s:
            continue
        deadline = time.monotonic() + wait_s
        signalled: set[psutil.Process] = set()
        while found := look():
            for process in found:
                if process not in signalled:
                    signalled.add(process)
                    with suppress(psutil.NoSuchProcess):
                        process.send_signal(number)
            if time.monotonic() > deadline:
                break
            time.sleep(_POLL_S)


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD))
    except psutil.NoSuchProcess:
        return False
