"""The asset `consistency_census`: what each partition's stores say, compared."""

from collections.abc import Iterator

import dagster as dg

from mcp_assets.defs.assets import EDGES, EMBEDDINGS, ENTITIES, OWNERS
from mcp_assets.defs.metadata import census_metadata
from mcp_assets.defs.partitions import partition_key, partitions_of, ranges_of
from mcp_assets.defs.resources import PlatformResource
from mcp_assets.settings import Settings
from mcp_assets.sync.census import take_census

CENSUS = dg.AssetKey("consistency_census")


class CensusConfig(dg.Config):
    """`deep`: every text is prepared anew and every edge recomputed, not a sample."""

    deep: bool = False


def build_census_asset(settings: Settings) -> dg.AssetsDefinition:
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
        partitions_def=partitions_of(settings),
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def consistency_census(
        context: dg.AssetExecutionContext, config: CensusConfig, platform: PlatformResource
    ) -> Iterator[dg.MaterializeResult[None]]:
        opened = platform.get()
        ranges = ranges_of(context.partition_keys)
        if not ranges:
            raise dg.Failure("the run names no partition: a range must go from an earlier partition to a later one")
        for shard_range in ranges:
            for shard in shard_range.shards:
                census = take_census(opened, shard_range.entity_type, shard, deep=config.deep)
                key = partition_key(shard_range.entity_type, shard, settings.shards)
                context.add_asset_metadata(census_metadata(census), asset_key=CENSUS, partition_key=key)
        yield dg.MaterializeResult(asset_key=CENSUS)

    return consistency_census
