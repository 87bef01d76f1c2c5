"""Progress of the censuses of several partitions: how many entities are compared, in a line for a person; and passes.

A pass takes the censuses of contiguous partitions of one type together.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from mcp_assets.platform import Platform
from mcp_assets.sync.pace import Pace, Progress


class Partitions(NamedTuple):
    """Contiguous partitions of one entity type, whose censuses one pass takes."""

    entity_type: str
    shards: range


class CensusProgress:
    """Follows the censuses of `partitions`, given as entity type and shard. It counts the living entities once."""

    def __init__(
        self, platform: Platform, partitions: Iterable[tuple[str, int]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Raises StoreUnavailable."""
        wanted = list(partitions)
        living: dict[tuple[str, int], int] = {}
        if wanted:
            with platform.postgres.transaction() as connection:
                rows = connection.execute(
                    platform.postgres.query("partition_counts"), {"shards": platform.settings.shards}
                ).fetchall()
            living = {(entity_type, shard): count for entity_type, shard, count in rows}
        self._sizes = {partition: living.get(partition, 0) for partition in wanted}
        self._most = platform.tuning.consistency.entities_a_pass
        self._clock = clock
        self._pace = Pace(clock())
        self._done = 0

    @property
    def passes(self) -> list[Partitions]:
        """The passes that take all the censuses, in the order of the partitions."""
        return list(split_into_passes(self._sizes, self._most))

    def add(self, done: Partitions) -> None:
        """The pass over these partitions is complete."""
        self._done += sum(self._sizes[done.entity_type, shard] for shard in done.shards)

    @property
    def seen(self) -> Progress:
        return self._pace.seen(self._clock(), self._done, sum(self._sizes.values()))

    @property
    def line(self) -> str:
        """`comparing entities: 120,000 of 1,000,000, 400 a second, 37 minutes left`."""
        return f"comparing entities: {self.seen}"


def split_into_passes(sizes: Mapping[tuple[str, int], int], most: int) -> Iterator[Partitions]:
    """Passes over the partitions of `sizes`, in their order, each over at most `most` entities or one partition.

    `sizes`: the entities of each partition, given as entity type and shard. Only neighbours, in rising order, go
    together.
    """
    entity_type, shards, entities = "", range(0), 0
    for (next_type, shard), size in sizes.items():
        if shards and (next_type, shard) == (entity_type, shards.stop) and entities + size <= most:
            shards, entities = range(shards.start, shard + 1), entities + size
            continue
        if shards:
            yield Partitions(entity_type, shards)
        entity_type, shards, entities = next_type, range(shard, shard + 1), size
    if shards:
        yield Partitions(entity_type, shards)
