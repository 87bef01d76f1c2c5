"""Link lock: one transaction at a time works in changes; and how the linker's transactions look things up."""

from collections.abc import Iterator
from contextlib import contextmanager

from mcp_assets.stores.postgres import Connection
from mcp_assets.sync.platform import Platform


@contextmanager
def exclusive(platform: Platform, *, wait: bool) -> Iterator[Connection | None]:
    """A transaction in which no linker writes; None, with nothing done, if one does and `wait` is false."""
    name = lock_name(platform)
    with platform.postgres.transaction() as connection:
        if wait:
            connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (name,))
            yield connection
            return
        got = connection.execute("SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 0))", (name,)).fetchone()
        yield connection if got and got[0] else None


def by_index(connection: Connection) -> None:
    """Have everything in this transaction looked up by index: the linker asks about some hundred entities at a time.

    Without it the planner, which knows little of a table that has just grown, or thinks it small, reads all of it.
    """
    connection.execute("SET LOCAL enable_seqscan = off")


def lock_name(platform: Platform) -> str:
    """Name of the advisory lock; hashed by PostgreSQL."""
    return f"{platform.postgres.schema}/link"
