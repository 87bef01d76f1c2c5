"""Reader: gives the entries of the change feed after a position or a time. It writes nothing, and takes no lock."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from mcp_assets.platform import Platform
from mcp_assets.stores.errors import StoreRefused
from mcp_assets.stores.postgres import Connection
from mcp_assets.sync.feed.entries import Entry, Position

_START_AGAIN = (
    "keep the position that `mcp-assets changes --limit 1` ends with, read all entities and edges, and go on from that "
    "position"
)


class PositionLost(StoreRefused):
    """The feed cannot tell all that was changed since a position or a time; the message says what a reader does."""


@dataclass(frozen=True, slots=True)
class FeedState:
    """The row of `change_feed`, and how far it can be read now."""

    edition: str
    goes_on: bool
    """Changes are written to this edition, as far as a reader can tell."""
    is_on: bool
    is_primary: bool
    began_at: datetime | None
    forgotten_xid: str | None
    forgotten_seq: int | None
    forgotten_at: datetime | None
    complete_before: str
    """The first transaction that may still run. Entries of those before it are all there."""

    @property
    def begin(self) -> Position:
        """Behind the last entry that is deleted."""
        return Position(self.edition, int(self.forgotten_xid or 0), self.forgotten_seq or 0)

    @property
    def end(self) -> Position:
        """Behind all entries of the transactions before `complete_before`, and before all others."""
        return Position(self.edition, int(self.complete_before), 0)


@dataclass(frozen=True, slots=True)
class Page:
    """Entries in the order of the feed, and where to go on."""

    edition: str
    entries: Sequence[Entry]
    position: Position
    more: bool
    """There may be more entries after `position` now."""


def entries_after(
    platform: Platform,
    connection: Connection,
    state: FeedState,
    after: Position,
    *,
    made_from: datetime | None = None,
    types: Sequence[str] | None = None,
    limit: int,
) -> list[Entry]:
    """Entries after a position, of the transactions that were over when `state` was read."""
    wanted = {"made_from": made_from, "types": types, "complete_before": state.complete_before, "limit": limit}
    place = {"xid": str(after.xid), "seq": after.seq}
    return platform.postgres.rows(connection, "read_changes", Entry, wanted | place)


def feed_state(platform: Platform, connection: Connection) -> FeedState:
    """How far the feed can be read."""
    state = platform.postgres.row(connection, "feed_state", FeedState)
    assert state is not None  # noqa: S101  (the table has one row)
    return state


def read_changes(
    platform: Platform, since: Position | datetime, *, types: Sequence[str] | None = None, limit: int
) -> Page:
    """At most `limit` entries after `since`, the oldest first. `types`: of the entities, or of the sources of edges.

    A time is compared with when a change was written. Its commit may be later, so that a reader who goes from time to
    time, and not from position to position, may miss a slow transaction.

    Raises:
        PositionLost: entries after `since` are deleted, or were never written.
    """
    with platform.postgres.transaction() as connection:
        # Otherwise entries might be deleted after the state is read, and before they are.
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        state = _readable(platform, connection)
        _require_kept(platform, state, since)
        after = state.begin if isinstance(since, datetime) else since
        made_from = since if isinstance(since, datetime) else None
        entries = entries_after(platform, connection, state, after, made_from=made_from, types=types, limit=limit)
    # Entries of other types are behind the reader, too. A fail-over to a standby may bring the end back.
    position = entries[-1].position(state.edition) if len(entries) == limit else max(after, state.end)
    return Page(state.edition, entries, position, more=len(entries) == limit)


def newest_changes(platform: Platform, *, types: Sequence[str] | None = None, limit: int) -> Page:
    """The newest entries, at most `limit`, the oldest first; the position is behind all.

    Raises:
        PositionLost: the feed is off.
    """
    with platform.postgres.transaction() as connection:
        state = _readable(platform, connection)
        wanted = {"types": types, "complete_before": state.complete_before, "limit": limit}
        entries = platform.postgres.rows(connection, "newest_changes", Entry, wanted)
    return Page(state.edition, entries[::-1], state.end, more=False)


def _readable(platform: Platform, connection: Connection) -> FeedState:
    state = feed_state(platform, connection)
    if not platform.settings.changes_kept or not state.is_on:
        raise PositionLost(
            "the change feed is off: set MCP_ASSETS_CHANGES_KEPT to the days for which it is to keep changes; it "
            "begins with the next change of the index"
        )
    if not state.goes_on:
        raise PositionLost(
            "the database was restored or has failed over, so that positions of the change feed mean nothing now; it "
            f"begins anew with the next change of the index: then {_START_AGAIN}"
        )
    return state


def _require_kept(platform: Platform, state: FeedState, since: Position | datetime) -> None:
    kept = f"{platform.settings.changes_kept:g} days, MCP_ASSETS_CHANGES_KEPT"
    if isinstance(since, datetime):
        if state.forgotten_at is not None and since <= state.forgotten_at:
            raise PositionLost(
                f"changes before {state.forgotten_at:%Y-%m-%dT%H:%M:%SZ} are deleted ({kept}): give a later time, or "
                f"{_START_AGAIN}"
            )
        return
    if since.edition != state.edition:
        raise PositionLost(
            f"the position {since} is of another edition of the change feed: it was off since, or the database was "
            f"restored; {_START_AGAIN}"
        )
    if state.is_primary and since.xid > state.end.xid:
        raise PositionLost(
            f"the position {since} is beyond all that the database holds: it was set back to an earlier time; "
            f"{_START_AGAIN}"
        )
    if since < state.begin:
        raise PositionLost(f"changes after the position {since} are deleted ({kept}): {_START_AGAIN}")
