"""Publisher: publishes the entries of the change feed on NATS, in their order and at least once.

An entry's position is its message id. If a process is killed after a stream has stored entries and before this is
recorded, the next one publishes them again, and the stream drops the copies for as long as it remembers ids.
"""

import json
import logging
from collections.abc import Iterator, Sequence

from mcp_assets.events import feed_subject
from mcp_assets.platform import Platform
from mcp_assets.setting_errors import SettingsError
from mcp_assets.stores.errors import StoreRefused, StoreUnavailable
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.postgres.locks import Lock, lock_name, try_to_hold_in_transaction
from mcp_assets.stores.streams import Announcement
from mcp_assets.sync.feed.entries import ChangeKind, Entry, Position, RestartReason
from mcp_assets.sync.feed.reader import FeedState, entries_after, feed_state

logger = logging.getLogger(__name__)

_AT_ONCE = 500
"""Entries that are published together: some hundred kilobytes."""

_MOST_OF_A_CALL = 5_000
"""Entries that one call publishes, which take about a second: others wait for the caller. The next call goes on."""


def publish_changes(platform: Platform) -> int:
    """Publish entries that are not published yet, the oldest first. Returns how many NATS has confirmed.

    Entries that cannot be published now stay, with a warning: what they tell of is done in any case.
    """
    settings = platform.settings
    if not settings.publish_changes or not settings.changes_kept:
        return 0
    published = 0
    try:
        while published < _MOST_OF_A_CALL and (some := _publish_some(platform)):
            published += some
    except (StoreUnavailable, StoreRefused, SettingsError) as error:
        logger.warning("entries of the change feed wait to be published: %s", error)
    return published


def _publish_some(platform: Platform) -> int:
    """The lock is held until NATS has confirmed the entries. Nothing is written meanwhile, so that no reader waits."""
    postgres = platform.postgres
    with postgres.transaction() as connection:
        if not try_to_hold_in_transaction(connection, lock_name(postgres, Lock.PUBLISH_CHANGES)):
            return 0
        before = feed_state(platform, connection)
        after = _published(platform, connection, before)
        entries = entries_after(platform, connection, before, after or before.begin, limit=_AT_ONCE)
        # What was deleted, or began anew, while the entries were read shows in the state that is read after them.
        state = feed_state(platform, connection)
        if not state.goes_on or state.edition != before.edition or not entries:
            return 0
        lost = after is not None and after < state.begin
        platform.nats.store(list(_announcements(platform, state, entries, lost=lost)))
        last = {"edition": state.edition, "xid": entries[-1].xid, "seq": entries[-1].seq}
        connection.execute(postgres.query("record_published"), last)
    return len(entries)


def _published(platform: Platform, connection: Connection, state: FeedState) -> Position | None:
    row = connection.execute(platform.postgres.query("published_change")).fetchone()
    return Position(state.edition, int(row[0]), row[1]) if row is not None and row[0] is not None else None


def _announcements(
    platform: Platform, state: FeedState, entries: Sequence[Entry], *, lost: bool
) -> Iterator[Announcement]:
    """`lost`: entries before these were deleted before they were published, which a message says first."""
    shards = platform.settings.shards
    if lost:
        told = {"kind": ChangeKind.RESTARTED, "reason": RestartReason.EXPIRED, "position": str(state.begin)}
        subject = feed_subject(ChangeKind.RESTARTED, None)
        yield Announcement(subject, json.dumps(told).encode(), f"{state.begin}-{RestartReason.EXPIRED}")
    for entry in entries:
        body = json.dumps(entry.told(state.edition, shards), ensure_ascii=False).encode(errors="replace")
        position = str(entry.position(state.edition))
        yield Announcement(feed_subject(entry.kind, entry.entity_type), body, position)
