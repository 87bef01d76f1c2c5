"""Progress of a census of several partitions: how many entities are compared, in a line for a person."""

import time
from collections.abc import Callable, Iterable

from mcp_assets.platform import Platform
from mcp_assets.sync.pace import Pace, Progress


class CensusProgress:
    """Follows the censuses of `partitions`, given as entity type and shard. It counts the living entities once."""

    def __init__(
        self, platform: Platform, partitions: Iterable[tuple[str, int]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Raises StoreUnavailable."""
        with platform.postgres.transaction() as connection:
            rows = connection.execute(
                platform.postgres.query("partition_counts"), {"shards": platform.settings.shards}
            ).fetchall()
        living = {(entity_type, shard): count for entity_type, shard, count in rows}
        self._sizes = {partition: living.get(partition, 0) for partition in partitions}
        self._clock = clock
        self._pace = Pace(clock())
        self._done = 0

    def add(self, entity_type: str, shard: int) -> None:
        """The census of a partition is complete."""
        self._done += self._sizes[entity_type, shard]

    @property
    def seen(self) -> Progress:
        return self._pace.seen(self._clock(), self._done, sum(self._sizes.values()))

    @property
    def line(self) -> str:
        """`comparing entities: 120,000 of 1,000,000, 400 a second, 37 minutes left`."""
        return f"comparing entities: {self.seen}"
