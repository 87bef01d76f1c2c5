"""What the supervisor asks of a server: how to prepare, start, check and recognise it."""

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import psutil

ANSWER_TIMEOUT_S = 10
"""Seconds for one question whether a server answers. It is asked again for as long as its process lives."""


class User(NamedTuple):
    """The operating system user that a server runs as when the supervisor is root."""

    uid: int
    gid: int


@dataclass(frozen=True)
class Command:
    """One child process. `end_signal` ends it in good order; the kernel sends it, too, when the supervisor dies."""

    argv: Sequence[str]
    directory: Path
    """Its working directory."""
    end_signal: signal.Signals
    user: User | None = None
    environment: Mapping[str, str] | None = None
    """None: the supervisor's."""
    descriptors: Sequence[int] = field(default=())
    """Open files that it inherits."""


class PreparationError(RuntimeError):
    """A server cannot be started as things are; the message says why, and what to do."""


class Server(Protocol):
    """One server of the stack; an instance lives as long as its supervisor."""

    stop_signal: signal.Signals
    """Ends it in good order, with clients connected too."""

    @property
    def address(self) -> str:
        """URL for its clients."""

    @property
    def port(self) -> int | None:
        """The loopback port it listens on, if any."""

    @property
    def notice(self) -> str | None:
        """A sentence for the person who starts the stack, such as that the usual port was taken."""

    def preparation(self) -> Command | None:
        """What has to run to its end, successfully, before the server can start; None: nothing (more).

        Called before each start, when no process of this server is left. Raises PreparationError or OSError.
        """

    def prepared(self) -> None:
        """The command of `preparation` ended with 0."""

    def command(self) -> Command:
        """The server itself, as a foreground process."""

    def lost_its_port(self) -> bool:
        """Whether the process that has just ended met another program on its port, so that the next start moves."""

    async def answers(self, pid: int) -> bool:
        """Whether process `pid` serves requests, asked in the server's own protocol."""

    def owns(self, process: psutil.Process) -> bool:
        """Whether `process` is one of this server's, of whatever supervisor. Raises psutil.Error like psutil."""

    def close(self) -> None:
        """The server has stopped: remove what it needs outside the state directory."""
