"""Becomes a server of the embedded stack: drops root, ties itself to its supervisor's life, executes the command.

Run as a script, `child.py SUPERVISOR_PID DEATH_SIGNAL UID GID COMMAND...` (UID -1: same user), between fork and
the server's own exec. A process of its own, because neither step is safe in a forked copy of a threaded Python.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def become(supervisor: int, death_signal: int, uid: int, gid: int, command: list[str]) -> None:
    """Replace this process by `command`, which the kernel sends `death_signal` when `supervisor` dies."""
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        # After the change of user, which clears it; exec keeps it.
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, death_signal) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != supervisor:
        sys.exit("the supervisor died before this server could be tied to it")
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and exec would hand that on
    os.execv(command[0], command)  # noqa: S606 (no shell is wanted)


if __name__ == "__main__":
    become(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:])
