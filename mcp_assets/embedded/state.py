"""The state directory of an embedded stack (`.mcp/`): its layout, its locks, and `stack.json`, the published status.

parts.json         which parts are wanted; written by `stack`, read by the supervisor
key                a number that the servers show, so that a client notices another server on their address
secret             what NATS and Qdrant ask their clients for, so that no other user of the machine reaches them
stack.json         what runs where; written by the supervisor, read by every process
supervisor.lock    held by the living supervisor for all its life, and released by the kernel; holds its pid
start.lock         held by the process that starts or stops the stack
log/               supervisor.log and one file a server, each bounded
postgres/ nats/ qdrant/   the servers' data
"""

import fcntl
import os
import re
import secrets
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import datetime
from enum import StrEnum
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

SUPERVISOR_MODULE = "mcp_assets.embedded.supervisor"


class Part(StrEnum):
    """One server of the embedded stack. They start together and stop in reverse order."""

    POSTGRES = "postgres"
    NATS = "nats"
    QDRANT = "qdrant"


class PartState(StrEnum):
    STARTING = "starting"
    RUNNING = "running"
    RESTARTING = "restarting"
    DOWN = "down"


PREPARING = "making its files, at the first start"
"""The detail of a part while a program runs that makes its files, which may say nothing for long."""


class PartStatus(BaseModel):
    """What one part does. `since` is when it came to `state`; `detail` says why it does not run, or runs elsewhere."""

    model_config = ConfigDict(frozen=True)

    state: PartState = PartState.DOWN
    pid: int | None = None
    address: str | None = None
    """URL for its clients; None until it has answered once."""
    port: int | None = None
    """The loopback port it took last, asked for again at the next start; None for PostgreSQL, which has a socket."""
    restarts: int = 0
    since: datetime | None = None
    detail: str | None = None


class StackStatus(BaseModel):
    """All parts of a stack; `supervisor_pid` is None when nothing runs."""

    model_config = ConfigDict(frozen=True)

    supervisor_pid: int | None = None
    parts: dict[Part, PartStatus] = {part: PartStatus() for part in Part}


class StackError(RuntimeError):
    """The embedded stack could not be started or stopped; the message names the part and its log."""


SECRET_FILE = "secret"  # noqa: S105  (a name, no secret)
"""Name of the file with the secret, in the state directory; mode 0600."""

_PARTS = TypeAdapter(frozenset[Part])


def key_of(path: Path) -> str:
    """The key of the state directory `path`, made at its first use: 16 hexadecimal digits."""
    file = path / "key"
    try:
        return file.read_text().strip()
    except FileNotFoundError:
        fresh = path / "key.new"
        fresh.write_text(secrets.token_hex(8))
        fresh.chmod(0o600)
        fresh.replace(file)
        return file.read_text().strip()


def secret_of(path: Path) -> str:
    """The secret of the state directory `path`, made at its first use: 64 hexadecimal digits, which servers ask for."""
    file = path / SECRET_FILE
    found = known_secret(path)
    if found is not None:
        return found
    fresh = path / f"secret.{secrets.token_hex(4)}"
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as opened:
        opened.write(secrets.token_hex(32))
    try:
        # Unlike a rename it never replaces a secret that another process has made at the same time.
        os.link(fresh, file)
    except FileExistsError:
        pass
    finally:
        fresh.unlink()
    return file.read_text().strip()


def known_secret(path: Path) -> str | None:
    """The same; None if a version that had no secrets has made the directory, and no server has started in it since."""
    try:
        return (path / SECRET_FILE).read_text().strip() or None
    except FileNotFoundError:
        return None


def shown_address(address: str | None) -> str | None:
    """The address of a part without its secret, for people and logs."""
    return None if address is None else re.sub(r":[0-9a-f]{64}@", ":***@", address)


class StateDir:
    """The files of one state directory. Nothing is created before `make`."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()

    @property
    def logs(self) -> Path:
        return self.path / "log"

    def directory_of(self, part: Part) -> Path:
        return self.path / part

    def log_of(self, part: Part) -> Path:
        return self.logs / f"{part}.log"

    @property
    def supervisor_log(self) -> Path:
        return self.logs / "supervisor.log"

    def make(self) -> None:
        """Create the directories, readable by this user only.

        Raises StackError when the directory belongs to another user, or cannot be made.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            owner = self.path.stat().st_uid
        except OSError as error:
            raise StackError(f"state directory {self.path} cannot be made: {error.strerror}; choose another") from error
        if owner != os.geteuid():
            raise StackError(
                f"state directory {self.path} belongs to user id {owner}, not to {os.geteuid()}: "
                "run as that user, or choose another state directory"
            )
        self.path.chmod(0o700)
        self.logs.mkdir(mode=0o700, exist_ok=True)

    @contextmanager
    def starting_or_stopping(self, while_waiting: Callable[[], None]) -> Iterator[None]:
        """One caller at a time, of whatever process.

        `while_waiting` is called repeatedly until it is this caller's turn. The kernel ends the turn of a process that
        dies.
        """
        descriptor = os.open(self.path / "start.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while not _flock(descriptor):
                while_waiting()
                time.sleep(0.05)
            yield
        finally:
            os.close(descriptor)

    def become_supervisor(self) -> int | None:
        """Take the supervisor's lock: its open descriptor, to be kept for life, or None when a supervisor lives."""
        descriptor = os.open(self._supervisor_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # `supervisor_pid` holds the lock for an instant to see whether it is free: that must not count as a rival.
        for _ in range(20):
            if _flock(descriptor):
                return descriptor
            time.sleep(0.01)
        os.close(descriptor)
        return None

    def sign_supervisor_lock(self, descriptor: int) -> None:
        """Write this process's pid where `supervisor_pid` finds it."""
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)

    def is_still_locked_by(self, descriptor: int) -> bool:
        """False once the state directory was removed or replaced while its supervisor runs."""
        try:
            return os.path.samestat(os.fstat(descriptor), self._supervisor_lock.stat())
        except FileNotFoundError:
            return False

    def supervisor_pid(self) -> int | None:
        """Pid of the living supervisor, or None. The lock decides, not the pid, which may have been used again.

        Raises StackError when the lock is held by a process that is not to be seen from here.
        """
        try:
            descriptor = os.open(self._supervisor_lock, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            # A supervisor takes the lock just before it signs it, and lets it go just after its pid is gone.
            for _ in range(500):
                if _flock(descriptor, fcntl.LOCK_SH):
                    return None
                written = os.pread(descriptor, 32, 0)
                if written and self._is_supervisor(int(written)):
                    return int(written)
                time.sleep(0.01)
        finally:
            os.close(descriptor)
        raise StackError(
            f"{self._supervisor_lock} is held by a supervisor that is not among the processes here, as in another "
            "container: stop the stack there, or use another state directory here"
        )

    def _is_supervisor(self, pid: int) -> bool:
        try:
            command = psutil.Process(pid).cmdline()
        except psutil.NoSuchProcess:
            return False
        return SUPERVISOR_MODULE in command and str(self.path) in command

    @property
    def _supervisor_lock(self) -> Path:
        return self.path / "supervisor.lock"

    def want(self, parts: Collection[Part]) -> None:
        self._replace("parts.json", _PARTS.dump_json(frozenset(parts)))

    def wanted(self) -> frozenset[Part]:
        """The parts that the supervisor has to run; FileNotFoundError before the first `want`."""
        return _PARTS.validate_json((self.path / "parts.json").read_bytes())

    def publish(self, status: StackStatus) -> None:
        self._replace("stack.json", status.model_dump_json(indent=1).encode())

    def published(self) -> StackStatus:
        """What the last supervisor published, whether it still lives or not."""
        path = self.path / "stack.json"
        try:
            return StackStatus.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return StackStatus()
        except ValidationError as error:
            raise StackError(
                f"{path} is not what a supervisor writes; stop the stack and remove it: {error}"
            ) from error

    def _replace(self, name: str, content: bytes) -> None:
        fresh = self.path / f"{name}.new"
        fresh.write_bytes(content)
        fresh.chmod(0o600)
        fresh.replace(self.path / name)


def _flock(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
