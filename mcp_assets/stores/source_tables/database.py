"""Source database: a PostgreSQL that holds source tables and nothing of the platform's own; it is not migrated.

Its mark, which distinguishes it from another database at the same address, is recorded in the platform's own database,
and compared at each new connection.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import psycopg
from psycopg_pool import PoolTimeout

from mcp_assets.stores.addresses import without_password
from mcp_assets.stores.errors import StoreUnavailable, first_line
from mcp_assets.stores.postgres import Connection, MarkedConnection, mark_of
from mcp_assets.stores.postgres.connection import configure_marked, marked_pool
from mcp_assets.stores.postgres.silence import LIBPQ_TIMEOUTS, PatientConnection
from mcp_assets.tuning import StoreTuning


class SourceDatabase:
    """Connections to one database of source tables. Thread-safe; connects lazily.

    `verify` is called at the first connection, and when a new connection leads to another database. Its arguments are
    the address without its password, and the mark of the database that answers there (None: it has none). It raises
    StoreUnavailable if the mark is not the one that was recorded.
    """

    def __init__(
        self,
        url: str,
        *,
        max_connections: int = 16,
        timeout_s: float = 15.0,
        verify: Callable[[str, str | None], None] | None = None,
        tuning: StoreTuning = StoreTuning(),
    ) -> None:
        self.tuning = tuning
        self._url = url
        self._verify = verify
        self._mark: str | None = None
        self._options = LIBPQ_TIMEOUTS | {"connect_timeout": int(timeout_s)}
        self._lock = threading.Lock()
        self._opened = False
        configured = partial(configure_marked, read_mark=_mark)
        self._pool = marked_pool(url, configured, max_connections, timeout_s, self._options)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A connection in a transaction, as of `Postgres`.

        Raises:
            StoreUnavailable: the database cannot be reached, or went away in the block; the address bears no password.
        """
        self._open()
        connection: MarkedConnection | None = None
        try:
            with self._pool.connection() as connection:
                if connection.mark != self._mark:
                    try:
                        self._recognise(connection.mark)
                    except StoreUnavailable:
                        connection.close()
                        raise
                yield connection
        except (psycopg.OperationalError, PoolTimeout) as error:
            if connection is not None and not connection.broken:
                # The error came from another database, in a block that uses both.
                raise
            raise self._unavailable(error) from error

    def _open(self) -> None:
        with self._lock:
            if self._opened:
                return
            try:
                # The pool would retry until its timeout, and then raise without the reason.
                with PatientConnection.connect(self._url, **self._options) as connection:
                    mark = _mark(connection)
            except psycopg.OperationalError as error:
                raise self._unavailable(error) from error
            self._recognise(mark)
            self._pool.open()
            self._opened = True

    def _recognise(self, mark: str | None) -> None:
        if self._verify is not None:
            self._verify(without_password(self._url), mark)
        self._mark = mark

    def close(self) -> None:
        self._pool.close()

    def _unavailable(self, error: Exception) -> StoreUnavailable:
        return StoreUnavailable(
            f"the database of source tables does not answer at {without_password(self._url)} "
            f"({first_line(error)}): check MCP_ASSETS_SOURCE_DATABASE_URL, or the "
            "mapping's database_url, and that the server runs"
        )


def _mark(connection: Connection) -> str | None:
    """The mark of the database; None for a server that speaks PostgreSQL's protocol and lacks the functions for it."""
    try:
        return mark_of(connection)
    except (psycopg.errors.UndefinedFunction, psycopg.errors.FeatureNotSupported):
        connection.rollback()
        return None
