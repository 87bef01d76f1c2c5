"""Link locks: one linker works at a time, and one transaction changes edges at a time; and how transactions read.

The advisory lock of a session decides which linker works. The advisory lock of a transaction keeps edges right: the
linker whose session was lost still holds it until its transaction ends, so that its successor waits.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from mcp_assets.platform import Platform
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.postgres.locks import Lock, hold_in_transaction, lock_name, try_to_hold


@contextmanager
def sole_linker(platform: Platform) -> Iterator[int | None]:
    """Hold the linker's lock while the block runs.

    Yields the backend process id of the session that holds it; None if another linker works.
    """
    with platform.postgres.session() as session:
        if not try_to_hold(session, lock_name(platform.postgres, Lock.LINKER)):
            yield None
            return
        row = session.execute("SELECT pg_backend_pid()").fetchone()
        yield row[0] if row is not None else None


def is_sole_linker(platform: Platform, connection: Connection, session: int) -> bool:
    """Whether `session` holds the linker's lock still; a session that lost the lock never gets it again."""
    names = {"session": session, "lock": lock_name(platform.postgres, Lock.LINKER)}
    return connection.execute(platform.postgres.query("holds_lock"), names).fetchone() is not None


@contextmanager
def exclusive(platform: Platform) -> Iterator[Connection]:
    """A transaction in which no other transaction changes edges; waits for one that does."""
    with platform.postgres.transaction() as connection:
        hold_in_transaction(connection, lock_name(platform.postgres, Lock.LINK))
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
