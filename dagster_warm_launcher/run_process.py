"""Which process a run has: written into the run's tags, so that any process can look after it or end it."""

import json
import os
import signal
import socket
import sys
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Self

import psutil
from dagster import DagsterRun

from dagster_warm_launcher.dagster_internals import (
    HIDDEN_TAG_PREFIX,
)

PROCESS_TAG = f"{HIDDEN_TAG_PREFIX}warm_launcher/process"


class ProcessState(Enum):
    """What this process can see of a run's process."""

    ALIVE = "alive"
    GONE = "gone"
    """Ended, whether or not its number belongs to another process by now."""
    ELSEWHERE = "elsewhere"
    """On another host or in another container, where nothing can be seen from here."""


@dataclass(frozen=True, slots=True)
class RunProcess:
    """A run's process: its id and its start, because ids are used again."""

    run_id: str
    host: str
    pid: int
    started: str

    @classmethod
    def this(cls, run_id: str) -> Self:
        """This process, as the one that executes `run_id`."""
        started = _start_of(os.getpid())
        if started is None:
            raise RuntimeError("this process cannot read its own start time")
        return cls(run_id, this_host(), os.getpid(), started)

    @classmethod
    def of(cls, run: DagsterRun) -> Self | None:
        """The process in the tags of `run`; None if it has none (yet)."""
        if PROCESS_TAG not in run.tags:
            return None
        process = cls(**json.loads(run.tags[PROCESS_TAG]))
        # A re-execution begins with its parent's tags.
        return process if process.run_id == run.run_id else None

    def as_tags(self) -> dict[str, str]:
        return {PROCESS_TAG: json.dumps(asdict(self))}

    def state(self) -> ProcessState:
        if self.host != this_host():
            return ProcessState.ELSEWHERE
        return ProcessState.ALIVE if _start_of(self.pid) == self.started else ProcessState.GONE

    def interrupt(self) -> None:
        """Ask it to end. Raises ProcessLookupError or PermissionError. Only if its state is ALIVE."""
        os.kill(self.pid, signal.SIGTERM)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def this_host() -> str:
    """Where process numbers mean the same as here: containers that share a host's name do not share its processes."""
    if sys.platform != "linux":
        return socket.gethostname()
    return f"{socket.gethostname()} {Path('/proc/self/ns/pid').readlink()}"


def _start_of(pid: int) -> str | None:
    """When process `pid` started: exact, and the same in each process that asks; None if it is gone or a zombie."""
    if sys.platform != "linux":
        try:
            process = psutil.Process(pid)
            return None if process.status() == psutil.STATUS_ZOMBIE else str(process.create_time())
        except psutil.NoSuchProcess:
            return None
    try:
        # The name in parentheses may hold anything; of what follows it, the state is first, the start twentieth.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if fields[0] in "ZX":
        return None
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {fields[19]}"
