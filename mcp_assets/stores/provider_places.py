"""Provider places: how many requests the processes of all machines have in flight at one embedding provider.

A place is an advisory lock of PostgreSQL, which a session holds while its request is in flight. So a process that is
killed gives its places back at once, and no clock decides about it.
"""

import logging
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import psycopg

from mcp_assets.stores.errors import StoreRefused, StoreUnavailable
from mcp_assets.stores.postgres import Connection, Postgres
from mcp_assets.stores.postgres.locks import Lock, lock_name, release

logger = logging.getLogger("mcp_assets.notices")

_LOOK_EVERY_S = 0.05
"""Seconds between two looks for a free place: so long, at most, a free place is not used."""


class ProviderPlaces:
    """The places at one provider, as this process takes them. Thread-safe. Implements `embedding.SharedLimit`.

    While PostgreSQL does not answer, no place can be counted: the limit of the process is the only one until it answers
    again. A run soon waits for PostgreSQL in any case, because it has to commit.
    """

    def __init__(self, postgres: Callable[[], Postgres], provider: str, places: int) -> None:
        """`provider`: host and port. `places`: requests in flight over all processes."""
        self._postgres = postgres
        self._provider = provider
        self._places = places
        self._lock = threading.Lock()
        self._opened = ExitStack()
        self._session: Connection | None = None
        self._held: set[str] = set()

    @contextmanager
    def place(self, closed: threading.Event) -> Iterator[None]:
        session, name = self._wait(closed)
        try:
            yield
        finally:
            if name is not None:
                self._give_back(session, name)

    def asked_to_wait(self, seconds: float) -> None:
        with self._lock:
            try:
                session = self._open()
                session.execute(
                    self._postgres().query("pause_provider"), {"provider": self._provider, "seconds": seconds}
                )
            except (StoreUnavailable, StoreRefused, psycopg.Error) as error:
                self._lost(error)

    def close(self) -> None:
        """Give all places back."""
        with self._lock:
            self._drop()

    def _wait(self, closed: threading.Event) -> tuple[Connection | None, str | None]:
        """The session and the name of a place; no name if the request goes out without one."""
        while not closed.is_set():
            with self._lock:
                try:
                    session = self._open()
                    row = session.execute(
                        self._postgres().query("take_provider_place"),
                        {"provider": self._provider, "places": self._free()},
                    ).fetchone()
                except (StoreUnavailable, StoreRefused, psycopg.Error) as error:
                    self._lost(error)
                    return None, None
                if row is not None:
                    self._held.add(row[0])
                    return session, row[0]
            closed.wait(_LOOK_EVERY_S)
        return None, None

    def _free(self) -> list[str]:
        """The places that this process does not hold: its session would get one that it holds a second time.

        In any order, so that processes seldom ask for the same one.
        """
        postgres = self._postgres()
        names = [lock_name(postgres, Lock.PROVIDER, self._provider, str(number)) for number in range(self._places)]
        free = [name for name in names if name not in self._held]
        random.shuffle(free)
        return free

    def _give_back(self, session: Connection | None, name: str) -> None:
        with self._lock:
            if session is None or session is not self._session:
                # The session that held it was lost, and with it the place.
                return
            self._held.discard(name)
            try:
                release(session, name)
            except psycopg.Error as error:
                self._lost(error)

    def _open(self) -> Connection:
        if self._session is None:
            self._session = self._opened.enter_context(self._postgres().session())
        return self._session

    def _lost(self, error: Exception) -> None:
        logger.warning(
            "the requests to %s of all processes cannot be counted, because PostgreSQL does not answer (%s): until it "
            "does, EMBEDDING_CONCURRENCY of each process is the only limit",
            self._provider,
            error,
        )
        self._drop()

    def _drop(self) -> None:
        self._session = None
        self._held.clear()
        # The connection may be broken: its end is not for the caller to hear of.
        with suppress(StoreUnavailable, psycopg.Error):
            self._opened.close()
