"""Progress of a full sync of one entity type: how much of what differs is indexed, in a line for a person."""

import time
from collections.abc import Callable

from mcp_assets.sync.index.full_sync import Progress as ShardProgress
from mcp_assets.sync.pace import Pace, Progress


class IndexProgress:
    """Follows the reports of one call of `full_sync`."""

    def __init__(self, entity_type: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._type = entity_type
        self._clock = clock
        self._pace = Pace(clock())
        self._done = self._total = 0

    def add(self, news: ShardProgress) -> None:
        """A batch is committed, or a partition is complete."""
        self._total = news.differing_in_all
        if not news.complete:
            # The counts of a partition that is complete are the sum of its batches.
            self._done += news.counts.scanned

    @property
    def seen(self) -> Progress:
        return self._pace.seen(self._clock(), self._done, self._total)

    @property
    def name(self) -> str:
        return f"indexing {self._type}"

    @property
    def line(self) -> str:
        """`indexing task: 12,000 of 40,000, 900 a second, 31 seconds left`."""
        return f"{self.name}: {self.seen}"
