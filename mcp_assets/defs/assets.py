"""Assets: `entities`, `embeddings`, `relationship_edges` are one multi-asset, so that one step makes all three."""

from collections.abc import Iterator, Mapping

import dagster as dg
from pydantic import Field

from mcp_assets.defs.asset_specs import census_spec, index_specs
from mcp_assets.defs.event_log import EventLog, made
from mcp_assets.defs.index_run import created_s_ago, run_drain, run_full_sync
from mcp_assets.defs.keys import CENSUS, DRAIN_TAG, EDGES, EMBEDDINGS, ENTITIES
from mcp_assets.defs.metadata import census_metadata
from mcp_assets.defs.partitions import partitions_named, partitions_of, ranges_of
from mcp_assets.defs.progress_lines import ProgressLines
from mcp_assets.defs.resources import PlatformResource, embedding_until_interrupted
from mcp_assets.defs.shards import check_shards, tags_of
from mcp_assets.defs.totals import census_totals
from mcp_assets.entities.refs import partition_key
from mcp_assets.settings import Settings
from mcp_assets.sync.consistency.census import several_censuses, take_censuses
from mcp_assets.sync.consistency.progress import CensusProgress

NO_PARTITION = (
    "the run names no partition, so that there is nothing to do: choose some. On the page of the asset entities, "
    "Materialize asks for partitions; choose all of them for a full sync. On the page of a job, so does its launchpad, "
    "above the configuration. On the command line: mcp-assets sync --full"
)


class IndexConfig(dg.Config):
    """Launched without any config, a run is a full sync of its partitions.

    Whether a run is a drain is no config: the sensors say it by the tag DRAIN_TAG, because a drain ranges over all
    shards of its type, whatever partitions a person would choose.
    """

    force: bool = Field(
        default=False,
        description="Embed and link every entity of the partitions again, also those that have not changed. "
        "With a paid provider this costs as much as the first time; the job `plan` says how much.",
    )
    allow_mass_delete: bool = Field(
        default=False,
        description="Delete what is gone from the source tables however much it is. Otherwise a run leaves it and "
        "fails if it is more than MCP_ASSETS_MASS_DELETE_SHARE of an entity type.",
    )


def backfill_policy(settings: Settings) -> dg.BackfillPolicy:
    """One run for a backfill, or runs of some partitions each, which several workers share."""
    if settings.partitions_a_run:
        return dg.BackfillPolicy.multi_run(settings.partitions_a_run)
    return dg.BackfillPolicy.single_run()


def build_index_assets(settings: Settings) -> dg.AssetsDefinition:
    """The multi-asset over all entity types and shards."""

    @dg.multi_asset(
        name="index_entities",
        specs=index_specs(settings),
        partitions_def=partitions_of(settings),
        backfill_policy=backfill_policy(settings),
        op_tags=tags_of(settings),
        can_subset=True,
    )
    def index_entities(
        context: dg.AssetExecutionContext, config: IndexConfig, platform: PlatformResource
    ) -> Iterator[dg.MaterializeResult[None]]:
        drained_type = context.run.tags.get(DRAIN_TAG)
        if drained_type is not None:
            # Not by its partitions: a drain covers its type, by whatever number of shards it was asked for.
            with embedding_until_interrupted(platform.get()) as opened:
                log = EventLog(context, opened)
                run_drain(opened, [drained_type], context.run.run_id, log, asked_s_ago=created_s_ago(context))
            return
        check_shards(context, settings)
        named = partitions_named(context)
        if named is None:
            raise dg.Failure(NO_PARTITION, allow_retries=False)
        ranges = ranges_of(named)
        with embedding_until_interrupted(platform.get()) as opened:
            log = EventLog(context, opened)
            run_full_sync(opened, ranges, log, force=config.force, allow_mass_delete=config.allow_mass_delete)
        for asset in (ENTITIES, EMBEDDINGS, EDGES):
            if log.selects(asset):
                yield made(asset)

    return index_entities


class CensusConfig(dg.Config):
    """A census that is launched without a partition covers all of them."""

    deep: bool = Field(
        default=False,
        description="Prepare every text again and recompute every edge, not only those of a sample. It takes longer.",
    )


def build_census_asset(settings: Settings) -> dg.AssetsDefinition:
    every_partition = partitions_of(settings)

    @dg.multi_asset(
        name="take_census",
        specs=[census_spec(settings)],
        partitions_def=every_partition,
        backfill_policy=dg.BackfillPolicy.single_run(),
        op_tags=tags_of(settings),
    )
    def consistency_census(
        context: dg.AssetExecutionContext, config: CensusConfig, platform: PlatformResource
    ) -> Iterator[dg.MaterializeResult[None]]:
        check_shards(context, settings)
        opened = platform.get()
        named = partitions_named(context)
        taken: dict[str, Mapping[str, dg.MetadataValue]] = {}
        ranges = ranges_of(named if named is not None else every_partition.get_partition_keys())
        partitions = [(one.entity_type, shard) for one in ranges for shard in one.shards]
        progress, lines = CensusProgress(opened, partitions), ProgressLines(context.log, opened)
        with several_censuses(opened) as shared:
            for one_pass in progress.passes:
                for census in take_censuses(opened, one_pass, deep=config.deep, shared=shared):
                    taken[partition_key(census.entity_type, census.shard, settings.shards)] = census_metadata(census)
                progress.add(one_pass)
                lines.say(progress)
        totals = census_totals(opened)
        for key, metadata in taken.items():
            context.log_event(dg.AssetMaterialization(CENSUS, partition=key, metadata={**totals, **metadata}))
        yield made(CENSUS)

    return consistency_census
