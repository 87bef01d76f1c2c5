"""Schedules: jobs that run at a time of day. All are on from the start; their times are settings."""

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from mcp_assets.defs.keys import EDGES, EMBEDDINGS, ENTITIES, RECONCILE_JOB
from mcp_assets.defs.partitions import every_partition
from mcp_assets.settings import Settings


def build_tag_weights_schedule(settings: Settings, job: dg.JobDefinition) -> dg.ScheduleDefinition:
    """Nightly is often enough, because a weight changes with the logarithm of a tag's holders."""
    return dg.ScheduleDefinition(
        name="nightly_tag_weights",
        job=job,
        cron_schedule=settings.tag_weights_cron,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Counts the holders of each tag, by which topical edges are weighed, and has entities linked again "
        "whose tags have another weight. MCP_ASSETS_TAG_WEIGHTS_CRON sets the time.",
    )


def build_census_schedule(settings: Settings, job: UnresolvedAssetJobDefinition) -> dg.ScheduleDefinition:
    @dg.schedule(
        name="hourly_census",
        job=job,
        cron_schedule=settings.census_cron,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Takes the census of all partitions, and evaluates the checks of all assets by it. "
        "MCP_ASSETS_CENSUS_CRON sets the time.",
    )
    def hourly_census() -> dg.RunRequest:
        return dg.RunRequest(tags=every_partition(settings))

    return hourly_census


def build_reconcile_schedule(settings: Settings) -> dg.ScheduleDefinition:
    """Nightly. It is cheap where nothing has changed, and finds each row that was written without an event."""

    @dg.schedule(
        name="nightly_reconcile",
        job_name=RECONCILE_JOB,
        cron_schedule=settings.reconcile_cron,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="A full sync of all partitions, which finds each row that was written without an event. Where "
        "nothing has changed it is cheap. MCP_ASSETS_RECONCILE_CRON sets the time.",
    )
    def nightly_reconcile() -> dg.RunRequest:
        return dg.RunRequest(
            tags={**every_partition(settings), "dagster/max_retries": "2"},
            asset_selection=[ENTITIES, EMBEDDINGS, EDGES],
            asset_check_keys=[],
        )

    return nightly_reconcile


def build_clean_up_schedule(settings: Settings, job: dg.JobDefinition) -> dg.ScheduleDefinition:
    return dg.ScheduleDefinition(
        name="daily_clean_up",
        job=job,
        cron_schedule=settings.clean_up_cron,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Deletes runs and observations older than {settings.keep_runs_days:g} days "
        "(MCP_ASSETS_KEEP_RUNS_DAYS). MCP_ASSETS_CLEAN_UP_CRON sets the time.",
    )
