"""Totals: how many entities, points and edges there are, over all partitions."""

from collections.abc import Mapping
from dataclasses import dataclass

from mcp_assets.platform import Platform
from mcp_assets.sync.collections.serving import serving_and_foreign


@dataclass(frozen=True, slots=True)
class CollectionTotal:
    """A physical collection in service, and all its points, whatever type they are of."""

    name: str
    model: str
    dimension: int
    points: int


@dataclass(frozen=True, slots=True)
class _PartitionCount:
    """The living entities of one partition."""

    entity_type: str
    shard: int
    living: int


def living_entities(platform: Platform) -> dict[tuple[str, int], int]:
    """By entity type and shard, the living entities in the ledger; a partition without any is left out."""
    with platform.postgres.transaction() as connection:
        rows = platform.postgres.rows(
            connection, "partition_counts", _PartitionCount, {"shards": platform.settings.shards}
        )
    return {
        (row.entity_type, row.shard): row.living for row in rows if row.entity_type in platform.settings.entity_types
    }


def collection_totals(platform: Platform) -> Mapping[str, CollectionTotal]:
    """By alias, the collection in service; an alias without one is left out.

    Raises:
        StoreRefused, StoreUnavailable, CollectionMismatch: Qdrant does not answer, or a collection is unusable.
    """
    served, _ = serving_and_foreign(platform)
    return {
        alias: CollectionTotal(
            target.collection.name,
            target.profile.name,
            target.profile.dimension,
            platform.qdrant.count(target.collection.name),
        )
        for alias, target in served.items()
    }


def edges_about(platform: Platform) -> int:
    """How many edges there are: counted if they are few, otherwise as PostgreSQL estimates."""
    with platform.postgres.transaction() as connection:
        return platform.relationships.count_about(connection)
