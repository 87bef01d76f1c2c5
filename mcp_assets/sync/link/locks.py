"""Link locks: one linker works at a time, and one transaction changes edges at a time; and how transactions read.

The advisory lock of a session decides which linker works. The advisory lock of a transaction keeps edges right: the
linker whose session was lost still holds it until its transaction ends, so that its successor waits.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from mcp_assets.platform import Platform
from mcp_assets.stores.postgres import Connection


@contextmanager
def sole_linker(platform: Platform) -> Iterator[int | None]:
    """Hold the linker's lock while the block runs.

    Yields the backend process id of the session that holds it; None if another linker works.
    """
    with platform.postgres.session() as session:
        got = session.execute(
            "SELECT pg_backend_pid() WHERE pg_try_advisory_lock(hashtextextended(%s, 0))", (_linker(platform),)
        ).fetchone()
        yield got[0] if got else None


def is_sole_linker(platform: Platform, connection: Connection, session: int) -> bool:
    """Whether `session` holds the linker's lock still; a session that lost the lock never gets it again."""
    return (
        connection.execute(
            platform.postgres.query("holds_lock"), {"session": session, "lock": _linker(platform)}
        ).fetchone()
        is not None
    )


@contextmanager
def exclusive(platform: Platform) -> Iterator[Connection]:
    """A transaction in which no other transaction changes edges; waits for one that does."""
    with platform.postgres.transaction() as connection:
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (_writing(platform),))
        yield connection


def require_usable_edges(platform: Platform) -> None:
    """Try, once a process, whether the table of edges takes ours.

    Raises:
        StoreRefused: it does not; the message says why, and what to do.
    """
    with platform.postgres.transaction() as connection:
        platform.relationships.require_usable(
            connection, list(platform.settings.entity_types), platform.postgres.relationships_fault
        )


@contextmanager
def reading_edges(platform: Platform) -> Iterator[Connection]:
    """A transaction to read the table of edges in, ours and those of others.

    Raises:
        StoreRefused: the table lacks columns, because it could not be made or adopted; the message says why.
    """
    with platform.postgres.transaction() as connection:
        platform.relationships.require_columns(connection, platform.postgres.relationships_fault)
        yield connection


def by_index(connection: Connection) -> None:
    """Make the planner use indexes in this transaction: the linker reads the rows of some hundred entities at a time.

    Otherwise the planner, whose statistics of a table that has just grown are old, reads the whole table.
    """
    connection.execute("SET LOCAL enable_seqscan = off")


def _linker(platform: Platform) -> str:
    """The name of the linker's lock; PostgreSQL hashes it."""
    return f"{platform.postgres.schema}/linker"


def _writing(platform: Platform) -> str:
    """The name of the lock of a transaction that changes edges."""
    return f"{platform.postgres.schema}/link"
