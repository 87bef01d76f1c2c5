"""Recent censuses: the last census of each partition, taken anew where it is too old to judge by."""

from mcp_assets.entities.refs import slot_range
from mcp_assets.platform import Platform
from mcp_assets.sync.collections.serving import serving_collection
from mcp_assets.sync.consistency.census import take_census
from mcp_assets.sync.consistency.stored_censuses import LastCensus, last_censuses

RECENT_S = 3_900.0
"""Age in seconds from which a census no longer counts as the present state: censuses are hourly, and this is a little
more than an hour."""


def recent_censuses(platform: Platform) -> list[LastCensus]:
    """The last census of every partition. If it is old, or of another collection than the one in use, one is taken."""
    known = _by_partition(platform)
    settings = platform.settings
    censuses = []
    for entity_type in settings.entity_types:
        collection, _ = serving_collection(platform, entity_type)
        for shard in range(settings.shards):
            slots = slot_range(shard, settings.shards)
            last = known.get((entity_type, slots))
            is_current = last is not None and (collection is None or collection.name == last.collection)
            if last is None or not is_current or last.age_s > RECENT_S:
                take_census(platform, entity_type, shard)
                last = _by_partition(platform)[entity_type, slots]
            censuses.append(last)
    return censuses


def _by_partition(platform: Platform) -> dict[tuple[str, tuple[int, int]], LastCensus]:
    return {(last.entity_type, last.slots): last for last in last_censuses(platform)}
