"""Edition: begins a new one where positions from before mean nothing, and deletes entries because of their age."""

import threading

from mcp_assets.platform import Platform
from mcp_assets.sync.feed.entries import ChangeKind, RestartReason

_FORGOTTEN_AT_ONCE = 50_000
"""Entries that one transaction deletes: it takes a second, for which readers wait for it."""


class ChangeFeed:
    """Whether this process writes to the feed. Thread-safe."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._lock = threading.Lock()
        self._opened = False

    @property
    def is_on(self) -> bool:
        return self._platform.settings.changes_kept > 0

    def open(self) -> bool:
        """To be called before a transaction that may write entries, and not in one. Returns whether the feed is on.

        The first call of a process begins an edition, if the feed was off or the database was restored. With the feed
        off, it has readers told so.
        """
        with self._lock:
            if not self._opened:
                with self._platform.postgres.transaction() as connection:
                    if self.is_on:
                        first = {"kind": ChangeKind.RESTARTED, "reason": RestartReason.BEGUN}
                        connection.execute(self._platform.postgres.query("open_feed"), first)
                    else:
                        connection.execute(self._platform.postgres.query("close_feed"))
                self._opened = True
        return self.is_on

    def close(self) -> None:
        """Nothing is open; a companion of a platform has this."""


def forget_old_changes(platform: Platform) -> int:
    """Delete the entries that are older than MCP_ASSETS_CHANGES_KEPT. Returns how many.

    All entries before the newest old one are deleted, too, so that a position says whether something after it is gone.
    """
    postgres = platform.postgres
    days = {"days": platform.settings.changes_kept}
    with postgres.transaction() as connection:
        last = connection.execute(postgres.query("newest_old_change"), days).fetchone()
    forgotten = 0
    while last is not None:
        page = {"xid": last[0], "seq": last[1], "limit": _FORGOTTEN_AT_ONCE}
        with postgres.transaction() as connection:
            row = connection.execute(postgres.query("forget_changes"), page).fetchone()
        deleted = row[0] if row else 0
        forgotten += deleted
        if deleted < _FORGOTTEN_AT_ONCE:
            break
    return forgotten
