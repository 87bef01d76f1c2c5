"""Silence of PostgreSQL: how a statement ends when the server, say a stopped process, accepts connections and is mute.

The kernel of such a server's machine goes on acknowledging, so that neither keepalives nor `tcp_user_timeout` notice
it, and a UNIX socket has neither. A time-out of statements would end long ones of a healthy server, too. So while a
statement sends nothing, the server is asked for another connection from time to time: a healthy one gives an answer.
"""

from collections.abc import Generator
from dataclasses import dataclass
from time import monotonic
from typing import Any, Self, TypeVar, cast

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.rows import TupleRow

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SilenceLimits:
    """How long a server may be silent."""

    silent_s: float = 15.0
    """Seconds without a byte from the server after which it is asked whether it answers at all."""

    answer_s: int = 10
    """Seconds that its answer may take; libpq waits for at least two."""


SILENCE_LIMITS = SilenceLimits()

LIBPQ_TIMEOUTS = {
    "connect_timeout": 15,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
"""Of each connection: how long to wait for a server, and how soon a machine that is away is noticed."""


class PatientConnection(psycopg.Connection[TupleRow]):
    """A connection whose statements have no time limit while their server answers new connections.

    A statement raises OperationalError, and the connection is closed, at most `silent_s` + `answer_s` after the server
    has fallen silent.
    """

    _address = ""
    _limits = SILENCE_LIMITS

    @classmethod
    def connect(cls, conninfo: str = "", **options: Any) -> Self:
        """As psycopg's; the option `limits`, of SilenceLimits, is for this class."""
        limits = options.pop("limits", SILENCE_LIMITS)
        connection = super().connect(conninfo, **options)
        connection._address = conninfo
        connection._limits = limits
        return connection

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        return super().wait(self._watched(gen), interval, timeout)

    def _watched(self, work: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
        ask_at = monotonic() + self._limits.silent_s
        try:
            wanted = next(work)
            while True:
                ready = yield wanted
                if ready:
                    ask_at = monotonic() + self._limits.silent_s
                elif monotonic() > ask_at:
                    self._ask()
                    ask_at = monotonic() + self._limits.silent_s
                wanted = work.send(ready)
        except StopIteration as done:
            return cast(T, done.value)

    def _ask(self) -> None:
        info = self.info
        if is_silent(self._address, self._limits, host=info.host, hostaddr=info.hostaddr, port=info.port):
            self.pgconn.finish()
            raise psycopg.OperationalError(silence(self._limits))


def is_silent(conninfo: str, limits: SilenceLimits, **server: Any) -> bool:
    """Whether the server lets a new connection wait in vain. A refusal is an answer."""
    try:
        psycopg.connect(make_conninfo(conninfo, **server), connect_timeout=limits.answer_s).close()
    except psycopg.errors.ConnectionTimeout:
        return True
    except psycopg.OperationalError:
        return False
    return False


def silence(limits: SilenceLimits) -> str:
    """The reason in the error about such a server."""
    return f"it has sent nothing for {limits.silent_s:.0f} s, nor does it take a new connection"
