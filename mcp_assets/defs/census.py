"""The asset `consistency_census`: what each partition's stores say, compared."""

from collections.abc import Iterator

import dagster as dg

from mcp_assets.defs.assets import EDGES, EMBEDDINGS, ENTITIES, OWNERS
from mcp_assets.defs.metadata import census_metadata
from mcp_assets.defs.partitions import partition_key, partitions_named, partitions_of, ranges_of
from mcp_assets.defs.resources import PlatformResource
from mcp_assets.settings import Settings
from mcp_assets.sync.consistency.census import take_census

CENSUS = dg.AssetKey("consistency_census")


class CensusConfig(dg.Config):
    """Launched without a partition, a census is one of all.

    `deep`: every text is prepared anew and every edge recomputed, not a sample."""

    deep: bool = False


def build_census_asset(settings: Settings) -> dg.AssetsDefinition:
    every_partition = partitions_of(settings)

    @dg.multi_asset(
        name="take_census",
        specs=[
            dg.AssetSpec(
                CENSUS,
                deps=[ENTITIES, EMBEDDINGS, EDGES],
                description="Source tables, ledger, Qdrant and edges, compared as they are now; what differs is drift.",
                kinds={"postgres", "qdrant"},
                owners=OWNERS,
                group_name="mcp",
            )
        ],
        partitions_def=every_partition,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def consistency_census(
        context: dg.AssetExecutionContext, config: CensusConfig, platform: PlatformResource
    ) -> Iterator[dg.MaterializeResult[None]]:
        opened = platform.get()
        named = partitions_named(context)
        for shard_range in ranges_of(named if named is not None else every_partition.get_partition_keys()):
            for shard in shard_range.shards:
                census = take_census(opened, shard_range.entity_type, shard, deep=config.deep)
                key = partition_key(shard_range.entity_type, shard, settings.shards)
                if named is None:
                    # Without a partition, Dagster would give the run's result to none.
                    context.log_event(dg.AssetMaterialization(CENSUS, partition=key, metadata=census_metadata(census)))
                else:
                    context.add_asset_metadata(census_metadata(census), asset_key=CENSUS, partition_key=key)
        yield dg.MaterializeResult(asset_key=CENSUS)

    return consistency_census
