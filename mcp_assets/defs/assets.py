"""Assets: `entities`, `embeddings`, `relationship_edges` are one multi-asset, so that one step makes all three."""

from collections.abc import Iterator
from enum import Enum

import dagster as dg

from mcp_assets.defs.event_log import EventLog
from mcp_assets.defs.index_run import created_s_ago, run_drain, run_full_sync
from mcp_assets.defs.keys import CENSUS, EDGES, EMBEDDINGS, ENTITIES, OWNERS
from mcp_assets.defs.metadata import census_metadata
from mcp_assets.defs.partitions import partition_key, partitions_named, partitions_of, ranges_of
from mcp_assets.defs.resources import PlatformResource, embedding_until_interrupted
from mcp_assets.defs.sources import source_table_key, stream_key
from mcp_assets.entities.text import prepared_by
from mcp_assets.settings import Settings
from mcp_assets.sync.consistency.census import take_census
from mcp_assets.sync.link.link_rules import RULES_VERSION


class Mode(Enum):
    """Which entities a run brings up to date."""

    FULL = "full"
    """Entities that differ between source, ledger and Qdrant in the partitions of the run."""
    DRAIN = "drain"
    """Entities that messages in the inbox name, of the run's entity type, until the inbox stays empty."""


class IndexConfig(dg.Config):
    """Launched without any config, a run is a full sync of its partitions."""

    mode: Mode = Mode.FULL
    force: bool = False
    allow_mass_delete: bool = False


def build_index_assets(settings: Settings) -> dg.AssetsDefinition:
    """The multi-asset over all entity types and shards."""

    @dg.multi_asset(
        name="index_entities",
        specs=_index_specs(settings),
        partitions_def=partitions_of(settings),
        backfill_policy=dg.BackfillPolicy.single_run(),
        can_subset=True,
    )
    def index_entities(
        context: dg.AssetExecutionContext, config: IndexConfig, platform: PlatformResource
    ) -> Iterator[None]:
        named = partitions_named(context)
        if named is None:
            raise dg.Failure(
                "the run names no partition: choose some in the launchpad, or launch a backfill of all of them "
                "(`mcp-assets sync --full`)",
                allow_retries=False,
            )
        ranges = ranges_of(named)
        with embedding_until_interrupted(platform.get()) as opened:
            log = EventLog(context, opened)
            if config.mode is Mode.DRAIN:
                run_drain(opened, ranges, context.run.run_id, log, asked_s_ago=created_s_ago(context))
            else:
                run_full_sync(opened, ranges, log, force=config.force, allow_mass_delete=config.allow_mass_delete)
        # Each partition's materialization is logged when it is complete. An output would materialize the whole range.
        yield from ()

    return index_entities


def _index_specs(settings: Settings) -> list[dg.AssetSpec]:
    tables = [entity_type.source.table for entity_type in settings.entity_types.values() if entity_type.source]
    builder, profile = prepared_by(settings.chunks), settings.profile
    return [
        dg.AssetSpec(
            ENTITIES,
            deps=[*map(source_table_key, tables), *map(stream_key, settings.streams)],
            skippable=True,
            description="The ledger: each entity's newest state and its hashes.",
            kinds={"postgres"},
            owners=OWNERS,
            group_name="mcp",
            code_version=builder,
        ),
        dg.AssetSpec(
            EMBEDDINGS,
            deps=[ENTITIES],
            skippable=True,
            description="Every entity as a point in Qdrant, a long one with points for its chunks.",
            kinds={"qdrant", settings.provider},
            owners=OWNERS,
            group_name="mcp",
            code_version=f"{profile.name}-{profile.dimension}/{builder}",
        ),
        dg.AssetSpec(
            EDGES,
            deps=[ENTITIES, EMBEDDINGS],
            skippable=True,
            description="Typed, weighted links from each entity of the partition to others, of any type.",
            kinds={"postgres"},
            owners=OWNERS,
            group_name="mcp",
            code_version=f"{profile.name}-{profile.similarity_threshold}/rules-{RULES_VERSION}",
        ),
    ]


class CensusConfig(dg.Config):
    """A census that is launched without a partition covers all of them.

    `deep`: every text is prepared again and every edge recomputed, not only a sample."""

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
                    # For a run without a partition, Dagster would add the result to no partition.
                    context.log_event(dg.AssetMaterialization(CENSUS, partition=key, metadata=census_metadata(census)))
                else:
                    context.add_asset_metadata(census_metadata(census), asset_key=CENSUS, partition_key=key)
        yield dg.MaterializeResult(asset_key=CENSUS)

    return consistency_census
