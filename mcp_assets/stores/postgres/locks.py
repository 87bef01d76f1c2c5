"""The platform's advisory locks: their names, their order, and how each is taken.

PostgreSQL knows an advisory lock by a number. The number is a hash of the lock's name, which begins with the schema, so
that two platforms in one database do not meet. docs/explanation/architecture.md lists the locks and their holders.
"""

from collections.abc import Sequence
from enum import Enum

from mcp_assets.stores.postgres.connection import Connection, Postgres


class Lock(Enum):
    """All advisory locks, in the order in which a process that holds several has taken them."""

    DRAIN = "drain"
    """One for each entity type: of the session of the drain that applies its messages."""
    SWEEP = "sweep"
    """Of the session of the process that sweeps."""
    LINKER = "linker"
    """Of the session of the run that links."""
    CENSUS = "census"
    """One for each partition and collection: of the session that takes its census. A session that takes the censuses of
    several partitions holds all of their locks, taken in the order of their slots."""
    FINISH_COLLECTIONS = "finish-collections"
    """Of the session that ends a change of model."""
    COLLECTION = "collection"
    """One for each collection: of the session that makes it."""
    COLLECTIONS = "collections"
    """Shared by each transaction that writes points; alone for the session that moves the aliases."""
    PROVIDER = "provider"
    """One for each request that all processes together may have in flight at a provider: of the session of a process
    that sends requests, which takes no other lock."""
    FULL_SYNCS = "full_syncs"
    """Of the transaction in which a request joins or begins a full sync."""
    LINK = "link"
    """Of the transaction that changes edges."""
    PUBLISH_CHANGES = "publish-changes"
    """Of the transaction that publishes entries of the change feed, which takes no other lock."""


def lock_name(postgres: Postgres, lock: Lock, *parts: str) -> str:
    """The name of `lock`; `parts` say which one, where there are several, such as an entity type."""
    return "/".join((postgres.schema, lock.value, *parts))


def hold(session: Connection, name: str) -> None:
    """Wait for the lock, and hold it until the session ends."""
    session.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", (name,))


def hold_all(session: Connection, names: Sequence[str]) -> None:
    """As `hold`, of several locks, one after the other in their order; sessions that meet take them in one order."""
    session.execute(
        "SELECT pg_advisory_lock(hashtextextended(name, 0)) FROM unnest(%s::text[]) AS wanted (name)", (list(names),)
    )


def try_to_hold(session: Connection, name: str) -> bool:
    """Take the lock until the session ends. False: another session holds it."""
    row = session.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", (name,)).fetchone()
    return row is not None and bool(row[0])


def release(session: Connection, name: str) -> None:
    """Release the lock at once. When a session is closed, the server releases its locks only some time later."""
    session.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", (name,))


def release_all(session: Connection, names: Sequence[str]) -> None:
    """As `release`, of several locks."""
    session.execute(
        "SELECT pg_advisory_unlock(hashtextextended(name, 0)) FROM unnest(%s::text[]) AS held (name)", (list(names),)
    )


def hold_in_transaction(connection: Connection, name: str) -> None:
    """Wait for the lock, and hold it until the transaction ends."""
    connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (name,))


def try_to_hold_in_transaction(connection: Connection, name: str) -> bool:
    """Take the lock until the transaction ends. False: another session holds it."""
    row = connection.execute("SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 0))", (name,)).fetchone()
    return row is not None and bool(row[0])


def share_in_transaction(connection: Connection, name: str) -> None:
    """Wait until no session holds the lock alone, and share it until the transaction ends."""
    connection.execute("SELECT pg_advisory_xact_lock_shared(hashtextextended(%s, 0))", (name,))
