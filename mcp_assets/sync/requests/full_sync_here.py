"""Full sync here: a full sync of some entity types in this process, for a command where no Dagster daemon runs."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

from mcp_assets.platform import Platform
from mcp_assets.sync.index.full_sync import full_sync
from mcp_assets.sync.index.mass_delete import MassDeletion
from mcp_assets.sync.index.progress import IndexProgress
from mcp_assets.sync.index.synced_partitions import LinkingPartitions
from mcp_assets.sync.link.linker import link_until_done
from mcp_assets.sync.link.marks import mark_shards
from mcp_assets.sync.link.progress import LinkProgress
from mcp_assets.sync.requests.full_sync_requests import PartitionProgress, progress_of


def run_here(
    platform: Platform,
    entity_types: Sequence[str],
    *,
    force: bool,
    allow_mass_delete: bool = False,
    on_progress: Callable[[IndexProgress | LinkProgress], object] = lambda _: None,
) -> Iterator[PartitionProgress]:
    """Do a full sync in this process; yields the progress of a partition since its last item, not the sum.

    `on_progress` is called after each batch, of indexing and then of linking.

    Raises:
        StoreUnavailable, StoreRefused, CollectionMismatch, EmbedderUnavailable: what was committed stays.
        MassDeletion: deletions of one or several types are held back; everything else is done.
    """
    shards = range(platform.settings.shards)
    held: dict[str, MassDeletion] = {}
    for entity_type in entity_types:
        begun: set[int] = set()
        indexing = IndexProgress(entity_type)
        try:
            with closing(
                full_sync(platform, entity_type, shards, force=force, allow_mass_delete=allow_mass_delete)
            ) as progress:
                for news in progress:
                    yield progress_of(entity_type, news, first=news.shard not in begun)
                    begun.add(news.shard)
                    indexing.add(news)
                    if not news.complete:
                        on_progress(indexing)
        except MassDeletion as refusal:
            held[entity_type] = refusal
    linking = LinkingPartitions(platform, ((entity_type, shard) for entity_type in entity_types for shard in shards))
    for entity_type in entity_types:
        mark_shards(platform, entity_type, shards, force=force)
    links = LinkProgress(platform)
    for report in link_until_done(platform):
        links.add(report)
        on_progress(links)
    linking.record_linked()
    for entity_type in entity_types:
        for shard in shards:
            if entity_type not in held or shard not in held[entity_type].shards:
                yield PartitionProgress(entity_type, shard, linked=True)
    if held:
        raise MassDeletion("; ".join(map(str, held.values())))
