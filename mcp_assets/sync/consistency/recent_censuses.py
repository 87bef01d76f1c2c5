"""Recent censuses: the last census of each partition, taken anew where it is too old to judge by."""

from collections.abc import Iterator, Mapping

from mcp_assets.entities.refs import slot_range
from mcp_assets.platform import Platform
from mcp_assets.sync.collections.serving import serving_collections
from mcp_assets.sync.consistency.census import several_censuses, take_censuses
from mcp_assets.sync.consistency.progress import CensusProgress
from mcp_assets.sync.consistency.stored_censuses import LastCensus, last_censuses

RECENT_S = 3_900.0
"""Age in seconds from which a census no longer counts as the present state: censuses are hourly, and this is a little
more than an hour."""

_Slots = tuple[int, int]


def recent_censuses(platform: Platform) -> list[LastCensus]:
    """The last census of every partition. If it is old, or of another collection than the one in use, one is taken."""
    last = _by_slots(platform)
    outdated = list(_outdated(platform, last))
    if outdated:
        passes = CensusProgress(platform, outdated).passes
        with several_censuses(platform) as shared:
            for partitions in passes:
                take_censuses(platform, partitions, shared=shared)
        last = _by_slots(platform)
    shards = platform.settings.shards
    return [
        last[entity_type, slot_range(shard, shards)]
        for entity_type in platform.settings.entity_types
        for shard in range(shards)
    ]


def _outdated(platform: Platform, last: Mapping[tuple[str, _Slots], LastCensus]) -> Iterator[tuple[str, int]]:
    """The partitions, as entity type and shard, whose last census is no longer one to judge by."""
    serving = serving_collections(platform)
    shards = platform.settings.shards
    for name, entity_type in platform.settings.entity_types.items():
        target = serving.get(entity_type.collection_name)
        for shard in range(shards):
            known = last.get((name, slot_range(shard, shards)))
            is_current = known is not None and (target is None or target.collection.name == known.collection)
            if known is None or not is_current or known.age_s > RECENT_S:
                yield name, shard


def _by_slots(platform: Platform) -> dict[tuple[str, _Slots], LastCensus]:
    return {(last.entity_type, last.slots): last for last in last_censuses(platform)}
