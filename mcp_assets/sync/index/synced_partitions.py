"""Synced partitions: up to when each partition is indexed and linked, so that several runs together end a full sync.

A full sync that lost events made necessary is done when all partitions of the type are. Which runs did it does not
matter. Each completion carries the moment at which its run began to look at the source table, so that work that began
before the events were lost does not count.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime

from mcp_assets.platform import Platform


def record_indexed(platform: Platform, entity_type: str, shard: int, since: datetime) -> None:
    """Record that all is indexed that the source table held at `since`, when its comparison began."""
    with platform.postgres.transaction() as connection:
        connection.execute(
            platform.postgres.query("partition_indexed"),
            {"entity_type": entity_type, "shard": shard, "shards": platform.settings.shards, "since": since},
        )


class LinkingPartitions:
    """The partitions that a run is about to link, as they were indexed when this was made.

    To be made before the run marks them: what is indexed later is not covered by its linking.
    """

    def __init__(self, platform: Platform, partitions: Iterable[tuple[str, int]]) -> None:
        """`partitions`: pairs of entity type and shard."""
        wanted = list(partitions)
        self._platform = platform
        self._shards = {"shards": platform.settings.shards}
        with platform.postgres.transaction() as connection:
            self._indexed: Sequence[tuple[str, int, datetime]] = connection.execute(
                platform.postgres.query("indexed_since"),
                {
                    "entity_type": [entity_type for entity_type, _ in wanted],
                    "shard": [shard for _, shard in wanted],
                    **self._shards,
                },
            ).fetchall()

    def record_linked(self) -> None:
        """Record that they are linked, and end the wanted full syncs that are done by that."""
        if not self._indexed:
            return
        types, shards, since = map(list, zip(*self._indexed, strict=True))
        query = self._platform.postgres.query
        with self._platform.postgres.transaction() as connection:
            connection.execute(
                query("partitions_linked"), {"entity_type": types, "shard": shards, "since": since, **self._shards}
            )
            connection.execute(query("full_syncs_done"), {"entity_types": sorted(set(types)), **self._shards})
