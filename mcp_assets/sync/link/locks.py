"""Link lock: one linker at a time works off the marks, alone in each of its changes; and how it looks things up.

The linker's lock is that of a session, and decides who works. The lock of a transaction is what keeps edges right: it
holds even when a session is lost and another linker has begun.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from mcp_assets.platform import Platform
from mcp_assets.stores.postgres import Connection


@contextmanager
def sole_linker(platform: Platform) -> Iterator[int | None]:
    """Be the one who works off the marks while the block runs: the session that holds the lock; None if another is."""
    with platform.postgres.session() as session:
        got = session.execute(
            "SELECT pg_backend_pid() WHERE pg_try_advisory_lock(hashtextextended(%s, 0))", (_linker(platform),)
        ).fetchone()
        yield got[0] if got else None


def is_sole_linker(platform: Platform, connection: Connection, session: int) -> bool:
    """Whether `session` has been the linker since it began: a lock that is lost does not come back to it."""
    return (
        connection.execute(
            platform.postgres.query("holds_lock"), {"session": session, "lock": _linker(platform)}
        ).fetchone()
        is not None
    )


@contextmanager
def exclusive(platform: Platform) -> Iterator[Connection]:
    """A transaction in which no linker writes; waits for those that do."""
    with platform.postgres.transaction() as connection:
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (_writing(platform),))
        yield connection


def require_usable_edges(platform: Platform) -> None:
    """Try, once a process, whether the table of edges takes ours.

    Raises:
        StoreRefused: it does not, with what is in the way and what to do.
    """
    with platform.postgres.transaction() as connection:
        platform.relationships.require_usable(
            connection, list(platform.settings.entity_types), platform.postgres.relationships_fault
        )


@contextmanager
def reading_edges(platform: Platform) -> Iterator[Connection]:
    """A transaction to read the table of edges in, ours and those of others.

    Raises:
        StoreRefused: the table lacks columns, because it could not be made or adopted: what is in the way.
    """
    with platform.postgres.transaction() as connection:
        platform.relationships.require_columns(connection, platform.postgres.relationships_fault)
        yield connection


def by_index(connection: Connection) -> None:
    """Have everything in this transaction looked up by index: the linker asks about some hundred entities at a time.

    Without it the planner, which knows little of a table that has just grown, or thinks it small, reads all of it.
    """
    connection.execute("SET LOCAL enable_seqscan = off")


def _linker(platform: Platform) -> str:
    """Names of advisory locks are hashed by PostgreSQL."""
    return f"{platform.postgres.schema}/linker"


def _writing(platform: Platform) -> str:
    return f"{platform.postgres.schema}/link"
