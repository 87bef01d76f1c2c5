"""The forkserver: loads the code location once, then forks a process for each run that the launcher asks for.

It is single-threaded and holds no connection: Dagster's instance is opened in the forks only. It ends when the launcher
has closed its socket (as the kernel does when the daemon dies) and the last run has ended: till then it reaps its runs
and reports those that die. Runs are in sessions of their own and do not depend on it.
"""

import contextlib
import gc
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

from dagster_warm_launcher import preload, run
from dagster_warm_launcher.frames import FrameError, receive_frame, receive_frame_and_socket, send_frame
from dagster_warm_launcher.preload import Preload


def main(control_fd: int) -> int:
    """The life of a forkserver, and of each process it forks. Returns the process's exit code."""
    with socket.socket(fileno=control_fd) as inherited:
        # Not for what runs execute; and of a low number, which select wants, however high the daemon's was.
        control = inherited.dup()
    message = receive_frame(control)
    if message is None:
        return 0
    edited = message.pop("edited")
    wanted = Preload.from_message(message)
    try:
        files = preload.load(wanted, edited)
    except (Exception, SystemExit):  # noqa: BLE001  (whatever the location's code does; the launcher raises it)
        send_frame(control, {"error": traceback.format_exc()})
        return 1
    sys.stdout.flush()
    sys.stderr.flush()
    # Everything loaded is never garbage: the collector would write into these pages, and so copy them in each run.
    gc.collect()
    gc.freeze()
    send_frame(control, {"files": files})
    return _ForkServer(control, wanted.instance_ref).serve()


class ForkFailed(Exception):
    """There is no room for another process now."""


@dataclass(frozen=True, slots=True)
class _Child:
    run_id: str
    executes: bool
    """Whether it executes the run; otherwise it reports the death of the process that did."""


class _ForkServer:
    def __init__(self, control: socket.socket, instance_ref: str) -> None:
        self._control = control
        self._instance_ref = instance_ref
        self._children: dict[int, _Child] = {}
        self._child_ended, self._wake = socket.socketpair()

    def serve(self) -> int:
        self._wake.setblocking(False)
        self._child_ended.setblocking(False)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _signal, _frame: None)
        listening = True
        while listening or self._children:
            channels = [self._child_ended, self._control] if listening else [self._child_ended]
            ready, _, _ = select.select(channels, [], [])
            if self._child_ended in ready:
                self._child_ended.recv(4096)
                self._reap()
            if self._control in ready:
                listening = self._handle_request()
        return 0

    def _handle_request(self) -> bool:
        """Fork the run that the launcher asks for; False if there is no launcher any more."""
        try:
            message, answer = receive_frame_and_socket(self._control)
        except (FrameError, ConnectionError):
            return False
        if message is None:
            return False
        if answer is None:
            raise FrameError("a request came without a socket for the answer")
        run_id = str(message["run_id"])
        with answer:
            try:
                self._fork(_Child(run_id, executes=True), partial(run.execute, self._instance_ref, run_id, answer))
            except ForkFailed as error:
                send_frame(answer, {"error": str(error)})
        return True

    def _reap(self) -> None:
        for pid, child in list(self._children.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if not ended:
                continue
            del self._children[pid]
            # What the run started and left behind ends with it: the group exists as long as one of them does.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGTERM)
            exit_code = os.waitstatus_to_exitcode(status)
            if exit_code != 0 and child.executes:
                report = partial(run.report_death, self._instance_ref, child.run_id, exit_code)
                try:
                    self._fork(_Child(child.run_id, executes=False), report)
                except ForkFailed:
                    traceback.print_exc()  # Dagster's run monitoring will find the run dead

    def _fork(self, child: _Child, work: Callable[[], int]) -> None:
        try:
            pid = os.fork()
        except OSError as error:
            raise ForkFailed(f"the system refuses another process: {error}") from error
        if pid:
            self._children[pid] = child
        else:
            self._become(work)

    def _become(self, work: Callable[[], int]) -> NoReturn:
        """In the fork: let go of all that is the forkserver's, do the work, and end like any Python process."""
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for channel in (self._control, self._child_ended, self._wake):
            channel.close()
        preload.reseed()
        sys.exit(work())
