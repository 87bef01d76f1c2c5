"""Partitions: `<type>-<shard>`, static, all shards of a type together."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import dagster as dg

from mcp_assets.entities.refs import partition_key
from mcp_assets.settings import Settings


@dataclass(frozen=True, slots=True)
class ShardRange:
    """Contiguous shards of one entity type."""

    entity_type: str
    shards: tuple[int, ...]


def partitions_of(settings: Settings) -> dg.StaticPartitionsDefinition:
    return dg.StaticPartitionsDefinition(
        [
            partition_key(entity_type, shard, settings.shards)
            for entity_type in settings.entity_types
            for shard in range(settings.shards)
        ]
    )


def whole_type(settings: Settings, entity_type: str) -> tuple[str, str]:
    """First and last partition of a type."""
    return (
        partition_key(entity_type, 0, settings.shards),
        partition_key(entity_type, settings.shards - 1, settings.shards),
    )


def every_partition(settings: Settings) -> dict[str, str]:
    """The tags of a run of all partitions."""
    keys = partitions_of(settings).get_partition_keys()
    return {"dagster/asset_partition_range_start": keys[0], "dagster/asset_partition_range_end": keys[-1]}


def shard_of_key(key: str) -> tuple[str, int]:
    """Entity type and shard of a partition."""
    entity_type, _, shard = key.rpartition("-")
    return entity_type, int(shard)


def ranges_of(keys: Sequence[str]) -> list[ShardRange]:
    """The partitions of a run as one range a type, in the order in which they were given."""
    return [
        ShardRange(entity_type, tuple(shard for _, shard in group))
        for entity_type, group in groupby(map(shard_of_key, keys), key=lambda parts: parts[0])
    ]


def partitions_named(context: dg.AssetExecutionContext) -> Sequence[str] | None:
    """The partitions of a run, in the order of their definition; None if it was launched without any.

    Raises:
        dagster.Failure: it names a range that holds none.
    """
    if not (context.has_partition_key or context.has_partition_key_range):
        return None
    keys: Sequence[str] = context.partition_keys
    if not keys:
        raise dg.Failure(
            "the run names no partition: a range must go from an earlier partition to a later one",
            allow_retries=False,
        )
    return keys
