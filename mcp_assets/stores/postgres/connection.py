"""The pool of connections to PostgreSQL, and the session settings that make row hashes comparable."""

import hashlib
import secrets
import select
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import NoneType
from typing import Any, TypeVar

import psycopg
from psycopg import sql
from psycopg.abc import Buffer, Params
from psycopg.rows import TupleRow
from psycopg.types.array import ListDumper
from psycopg_pool import ConnectionPool, PoolTimeout

from mcp_assets.stores.errors import StoreRefused, StoreUnavailable, Stranger, first_line
from mcp_assets.stores.postgres.privileges import missing_privileges
from mcp_assets.stores.postgres.queries import load_queries
from mcp_assets.stores.postgres.relationships_shape import IdColumn, read_shape
from mcp_assets.stores.postgres.rows import fetch_row, fetch_rows
from mcp_assets.stores.postgres.schema_version import Database, SchemaState, Step, is_newest
from mcp_assets.stores.postgres.silence import LIBPQ_TIMEOUTS, SILENCE_LIMITS, PatientConnection, SilenceLimits

Connection = psycopg.Connection[TupleRow]
Cursor = psycopg.Cursor[TupleRow]
Row = TypeVar("Row")


class MarkedConnection(PatientConnection):
    """A connection that knows which database it leads to."""

    mark: str | None = None
    answered_at: float = 0.0
    """Monotonic seconds of the last time that the server was asked whether it is there."""


_MARK = """
SELECT CASE WHEN has_function_privilege('pg_control_system()', 'execute')
            THEN (SELECT system_identifier FROM pg_control_system()) END || '/' || oid
FROM pg_database WHERE datname = current_database()
"""
"""Server and database. Copies by streaming replication have the same mark; a dump restored elsewhere has another."""

# md5(ROW(...)::text) depends on how values are written as text, which the first three settings decide.
_SESSION = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "extra_float_digits": "1",
    "application_name": "mcp_assets",
}

# A server that became a standby, or was set to read only because its disk is full, is retried as one that is down.
_AWAY = (psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction)

_REASON_S = 5
"""Seconds for one connection attempt whose error says why the pool has none."""

_IDLE_S = 60.0
"""Seconds after which a connection that is not used is closed: the pool shrinks between bursts of work."""

_ASKED_EVERY_S = 5.0
"""Seconds for which a connection that has answered, and whose socket is silent, is taken for a living one."""

_NO_WRITES = (
    "PostgreSQL takes no writes: check whether DATABASE_URL leads to a standby, whether its disk is full, and "
    "default_transaction_read_only"
)


class Postgres:
    """One database with the platform's schema, migrated at first use. Thread-safe; connects lazily."""

    def __init__(
        self,
        url: str,
        schema: str,
        relationships: str,
        ids: Mapping[str, IdColumn],
        *,
        max_connections: int = 16,
        timeout_s: float = 15.0,
        silence: SilenceLimits = SILENCE_LIMITS,
    ) -> None:
        self.url = url
        self.schema = schema
        self.max_connections = max_connections
        self._relationships = relationships
        self._ids = ids
        self._options: dict[str, Any] = {**LIBPQ_TIMEOUTS, "connect_timeout": int(timeout_s), "limits": silence}
        self._lock = threading.Lock()
        self._migrated = False
        self._mark: str | None = None
        self.relationships_fault: str | None = None
        """Why the table of edges could not be made or adopted; known after the first use."""
        self._queries = load_queries(schema)
        self._pool = marked_pool(url, configure_marked, max_connections, timeout_s, self._options)

    def query(self, name: str) -> sql.SQL:
        """The query `name` of stores/postgres/sql, with the platform's schema filled in."""
        return self._queries[name]

    def rows(
        self, connection: Connection, name: str, make: Callable[..., Row], parameters: Params | None = None
    ) -> list[Row]:
        """The rows of the query `name`, each made by `make`: a class with a field for each column, or a function."""
        return fetch_rows(connection, self._queries[name], make, parameters)

    def row(
        self, connection: Connection, name: str, make: Callable[..., Row], parameters: Params | None = None
    ) -> Row | None:
        """The first row of the query `name`, made by `make`; None: there is none."""
        return fetch_row(connection, self._queries[name], make, parameters)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A connection in a transaction: committed at the end of the block, rolled back if the block raises.

        Raises:
            StoreUnavailable: PostgreSQL cannot be reached, or went away in the block.
        """
        self._prepare()
        try:
            with self._pool.connection() as connection:
                if connection.mark != self._mark:
                    connection.close()
                    raise self._stranger(connection.mark, self._mark)
                yield connection
        except PoolTimeout as error:
            raise self._unavailable(self._why(error)) from error
        except _AWAY as error:
            raise self._unavailable(error) from error
        except psycopg.errors.InsufficientPrivilege as error:
            raise self._forbidden(error) from error

    @contextmanager
    def session(self) -> Iterator[Connection]:
        """A connection of its own, outside the pool, in autocommit: for session locks and temporary tables."""
        self._prepare()
        try:
            with PatientConnection.connect(self.url, autocommit=True, **self._options) as connection:
                configure(connection)
                if (mark := mark_of(connection)) != self._mark:
                    raise self._stranger(mark, self._mark)
                yield connection
        except _AWAY as error:
            raise self._unavailable(error) from error
        except psycopg.errors.InsufficientPrivilege as error:
            raise self._forbidden(error) from error

    def accept(self) -> str | None:
        """Record the mark of the database at this address as the platform's, and return it."""
        self._prepare(accept=True)
        return self._mark

    def close(self) -> None:
        self._pool.close()

    def schema_state(self) -> SchemaState:
        """Where the platform's schema is, compared with this version's migrations. Changes nothing."""
        from mcp_assets.stores.postgres.migrations import schema_state

        with self._explained():
            return schema_state(self._database)

    def move_schema(self, revision: str) -> tuple[Step, ...]:
        """Bring the schema up or down to `revision`; the migrations that were done or undone.

        Raises:
            UnknownRevision: no migration has that name.
            StoreRefused: a newer version has migrated the schema, or the platform works on it and it is to go down.
        """
        from mcp_assets.stores.postgres.migrations import move

        with self._explained():
            return move(self._database, revision)

    @property
    def _database(self) -> Database:
        return Database(self.url, self.schema, int(self._options["connect_timeout"]))

    def _prepare(self, *, accept: bool = False) -> None:
        with self._lock:
            if self._migrated:
                return
            with self._explained(), PatientConnection.connect(self.url, **self._options) as connection:
                if not self._has_nothing_to_migrate(connection):
                    # Not at the top, because Alembic and SQLAlchemy take longer to load than most commands work.
                    from mcp_assets.stores.postgres.migrations import migrate

                    self.relationships_fault = migrate(self._database, self._relationships, self._ids)
                self._mark = self._recognise(connection, accept=accept)
            self._pool.open()
            self._migrated = True

    def _has_nothing_to_migrate(self, connection: Connection) -> bool:
        """The tables are of the newest revision, and `relationships` is as it has to be."""
        # No transaction is left open, because a migration would wait for it.
        with connection.transaction():
            return is_newest(connection, self.schema) and read_shape(connection, self._relationships).is_right

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Errors of migrations as the stores' own errors."""
        try:
            yield
        except _AWAY as error:
            raise self._unavailable(error) from error
        except Exception as error:
            refused = getattr(error, "orig", error)
            if isinstance(refused, psycopg.errors.InsufficientPrivilege):
                raise StoreRefused(
                    f"the schema {self.schema} cannot be made or migrated ({refused.diag.message_primary}): grant "
                    "CREATE on the database to the role of DATABASE_URL, or make the schema and let it own that"
                ) from error
            if isinstance(refused, _AWAY):
                raise self._unavailable(refused) from error
            raise

    def _recognise(self, connection: Connection, *, accept: bool) -> str | None:
        """The database's mark, recorded in it at the first start. Raises Stranger if another one is recorded."""
        with connection.transaction():
            mark = mark_of(connection)
            known: dict[str, str] = dict(connection.execute(self.query("store_marks")).fetchall())
            # Written only where it is missing, because a database that takes no writes can be read.
            if "platform" not in known:
                # All schemas of a database are one platform: they share its collections.
                key = hashlib.sha256((mark or secrets.token_hex(16)).encode()).hexdigest()[:16]
                connection.execute(self.query("record_store_mark"), {"store": "platform", "mark": key})
            if mark is None or known.get("postgres") == mark:
                return mark
            if accept or "postgres" not in known:
                name = "accept_store_mark" if accept else "record_store_mark"
                connection.execute(self.query(name), {"store": "postgres", "mark": mark})
                known = dict(connection.execute(self.query("store_marks")).fetchall())
        if known["postgres"] != mark:
            raise self._stranger(mark, known["postgres"])
        return mark

    def _stranger(self, mark: str | None, expected: str | None) -> Stranger:
        return Stranger(
            f"the database at DATABASE_URL is another one: it is {mark or 'without a mark'}, expected is {expected} "
            "(system identifier/oid). Nothing is written to it. A copy must not work with the Qdrant and NATS of the "
            "original; if this is the platform's database now (restored, upgraded, moved), `mcp-assets accept postgres`"
        )

    def _forbidden(self, error: psycopg.errors.InsufficientPrivilege) -> StoreRefused:
        """The refusal, with the privileges that the role lacks, which PostgreSQL's message does not name."""
        said = error.diag.message_primary or first_line(error)
        try:
            with PatientConnection.connect(self.url, **self._options) as connection:
                missing = missing_privileges(connection, said)
        except psycopg.OperationalError:
            missing = None
        lacks = f": {missing}" if missing else ""
        return StoreRefused(
            f"PostgreSQL forbids the role of DATABASE_URL a statement ({said}){lacks}; deploy/postgres has the grants "
            "that the platform needs"
        )

    def _why(self, timeout: PoolTimeout) -> Exception:
        """The reason why the server takes no connection now, which the pool's timeout does not give."""
        try:
            PatientConnection.connect(self.url, **self._options | {"connect_timeout": _REASON_S}).close()
        except psycopg.OperationalError as error:
            return error
        return timeout

    def _unavailable(self, error: Exception) -> StoreUnavailable:
        if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
            return StoreUnavailable(_NO_WRITES)
        return StoreUnavailable(
            f"PostgreSQL does not answer ({first_line(error)}): check DATABASE_URL and that the server runs"
        )


def no_writes(connection: Connection) -> str | None:
    """Why nothing can be written over `connection`, and what to do; None if it can be."""
    row = connection.execute("SELECT current_setting('transaction_read_only')").fetchone()
    return _NO_WRITES if row is not None and row[0] == "on" else None


class _ArrayDumper(ListDumper):
    """Writes a list of texts, numbers or booleans at once, as most parameters are; psycopg writes each by itself."""

    def dump(self, obj: list[Any]) -> Buffer | None:
        kinds = {*map(type, obj)}
        if kinds == {NoneType}:
            return f"{{{','.join(['NULL'] * len(obj))}}}".encode()
        if kinds == {int}:
            return f"{{{','.join(map(str, obj))}}}".encode()
        if kinds == {str}:
            array = '{"' + '","'.join(obj) + '"}'
            # All quotes were added here, so that no element has to be escaped or refused.
            if array.count('"') == 2 * len(obj) and "\\" not in array and "\0" not in array:
                return array.encode()
        elif kinds == {float} or kinds == {float, NoneType}:
            return f"{{{','.join('NULL' if number is None else repr(number) for number in obj)}}}".encode()
        elif kinds == {str, NoneType}:
            given = [text for text in obj if text is not None]
            array = "{" + ",".join("NULL" if text is None else f'"{text}"' for text in obj) + "}"
            if array.count('"') == 2 * len(given) and "\\" not in array and "\0" not in array:
                return array.encode()
        elif kinds == {bool}:
            return f"{{{','.join('t' if truth else 'f' for truth in obj)}}}".encode()
        return super().dump(obj)


def configure(connection: Connection) -> None:
    """Set, for the life of the connection, what row hashes depend on, and how lists are written."""
    connection.adapters.register_dumper(list, _ArrayDumper)
    connection.execute(
        "SELECT " + ", ".join("set_config(%s, %s, false)" for _ in _SESSION),
        [part for setting in _SESSION.items() for part in setting],
    )
    if not connection.autocommit:
        connection.commit()


def configure_marked(connection: MarkedConnection, read_mark: Callable[[Connection], str | None] | None = None) -> None:
    """As `configure`; the connection remembers the mark that `read_mark` (by default `mark_of`) reads."""
    configure(connection)
    connection.mark = (read_mark or mark_of)(connection)
    connection.commit()


def check_connection(connection: MarkedConnection) -> None:
    """Raise OperationalError if the connection is dead: a server that was restarted leaves such ones in the pool.

    The end of a connection can be read at once from its socket, so that a living one is asked only now and then, which
    notices also a machine that went away without a word. To ask each time doubled the statements of short transactions.
    """
    waiting = select.poll()
    waiting.register(connection.fileno(), select.POLLIN)
    if waiting.poll(0) or time.monotonic() - connection.answered_at > _ASKED_EVERY_S:
        ConnectionPool.check_connection(connection)
        connection.answered_at = time.monotonic()


def marked_pool(
    url: str,
    configure: Callable[[MarkedConnection], None],
    max_connections: int,
    timeout_s: float,
    options: Mapping[str, Any],
) -> ConnectionPool[MarkedConnection]:
    """A pool that is not open yet. `timeout_s`: how long to wait for a connection; `options`: of each connection."""
    return ConnectionPool(
        url,
        connection_class=MarkedConnection,
        min_size=0,
        max_size=max_connections,
        timeout=timeout_s,
        max_idle=_IDLE_S,
        configure=configure,
        check=check_connection,
        open=False,
        kwargs=dict(options),
    )


def mark_of(connection: Connection) -> str | None:
    """System identifier and database; None if the role may not read the first."""
    row = connection.execute(_MARK).fetchone()
    return row[0] if row is not None else None
