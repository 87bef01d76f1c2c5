"""Jobs: what can be launched by name."""

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from mcp_assets.defs.assets import EDGES, EMBEDDINGS, ENTITIES
from mcp_assets.defs.resources import PlatformResource
from mcp_assets.sync.link.counts import LinkCounts
from mcp_assets.sync.link.linker import link_until_done
from mcp_assets.sync.link.tag_weights import refresh_tag_weights

INDEX_JOB = "index"
RELATE_JOB = "relate"
TAG_WEIGHTS_JOB = "refresh_tag_weights"


def build_index_job() -> UnresolvedAssetJobDefinition:
    """All three assets over a range of partitions: what the sensor asks for and a person may launch."""
    return dg.define_asset_job(
        INDEX_JOB,
        selection=dg.AssetSelection.assets(ENTITIES, EMBEDDINGS, EDGES),
        executor_def=dg.in_process_executor,
        description="Bring ledger, embeddings and edges of the chosen partitions to what the source of truth says.",
    )


def build_relate_job() -> UnresolvedAssetJobDefinition:
    """The same assets, for requests to re-link: `relationship_sensor` asks for it."""
    return dg.define_asset_job(
        RELATE_JOB,
        selection=dg.AssetSelection.assets(ENTITIES, EMBEDDINGS, EDGES),
        executor_def=dg.in_process_executor,
        description="Re-link the entities that relationship requests name, and whatever else waits for it.",
    )


def build_tag_weights_job() -> dg.JobDefinition:
    """Tag weights counted anew, and the holders of tags whose weight changed re-linked."""

    @dg.op(name="count_tags")
    def refresh(context: dg.OpExecutionContext, platform: PlatformResource) -> None:
        opened = platform.get()
        refreshed = refresh_tag_weights(opened)
        total = LinkCounts()
        for report in link_until_done(opened):
            total.add(report.total())
        context.add_output_metadata(
            {
                "tags": refreshed.tags,
                "tags_changed": refreshed.changed,
                "entities_marked": refreshed.marked,
                "edges_added": total.added.total(),
                "edges_changed": total.changed.total(),
                "edges_removed": total.removed.total(),
            }
        )

    @dg.job(
        name=TAG_WEIGHTS_JOB,
        executor_def=dg.in_process_executor,
        description="Count the holders of each tag anew and re-link those whose tags weigh differently now.",
    )
    def job() -> None:
        refresh()

    return job


def build_tag_weights_schedule(job: dg.JobDefinition) -> dg.ScheduleDefinition:
    """Nightly, for a weight moves with the logarithm of a tag's holders."""
    return dg.ScheduleDefinition(
        name="nightly_tag_weights",
        job=job,
        cron_schedule="17 3 * * *",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
