"""Source database: a PostgreSQL that holds source tables and nothing of the platform's own: read, not migrated."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout

from mcp_assets.stores.addresses import without_password
from mcp_assets.stores.errors import StoreUnavailable
from mcp_assets.stores.postgres import Connection, configure
from mcp_assets.stores.postgres_silence import LIBPQ_TIMEOUTS, PatientConnection


class SourceDatabase:
    """Connections to one database of source tables. Thread-safe; connects lazily."""

    def __init__(self, url: str, *, max_connections: int = 16, timeout_s: float = 15.0) -> None:
        self._url = url
        self._options = LIBPQ_TIMEOUTS | {"connect_timeout": int(timeout_s)}
        self._lock = threading.Lock()
        self._opened = False
        self._pool = ConnectionPool(
            url,
            connection_class=PatientConnection,
            min_size=0,
            max_size=max_connections,
            timeout=timeout_s,
            max_idle=60.0,
            configure=configure,
            check=ConnectionPool.check_connection,
            open=False,
            kwargs=self._options,
        )

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A connection in a transaction, as of `Postgres`.

        Raises:
            StoreUnavailable: the database cannot be reached, or went away in the block; the address bears no password.
        """
        self._open()
        connection: Connection | None = None
        try:
            with self._pool.connection() as connection:
                yield connection
        except (psycopg.OperationalError, PoolTimeout) as error:
            if connection is not None and not connection.broken:
                # Another database's, in a block that uses both.
                raise
            raise self._unavailable(error) from error

    def _open(self) -> None:
        with self._lock:
            if self._opened:
                return
            try:
                # The pool would try until its time is up, and then not say why.
                PatientConnection.connect(self._url, **self._options).close()
            except psycopg.OperationalError as error:
                raise self._unavailable(error) from error
            self._pool.open()
            self._opened = True

    def close(self) -> None:
        self._pool.close()

    def _unavailable(self, error: Exception) -> StoreUnavailable:
        reason = str(error).strip().splitlines()
        return StoreUnavailable(
            f"the database of source tables does not answer at {without_password(self._url)} "
            f"({reason[0] if reason else type(error).__name__}): check MCP_ASSETS_SOURCE_DATABASE_URL, or the "
            "mapping's database_url, and that the server runs"
        )
