"""Schedules: jobs that run at a time of day. All here are on from the start; their times are settings."""

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from mcp_assets.defs.keys import EDGES, EMBEDDINGS, ENTITIES, RECONCILE_JOB
from mcp_assets.defs.partitions import every_partition
from mcp_assets.defs.resources import PlatformResource
from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.sync.requests import full_sync_requests


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
    """Nightly. It is cheap where nothing has changed, and finds each row that was written without an event.

    Where several runs share a full sync, it asks for one, which `sync_sensor` starts and follows to its end.
    """

    schedule = dg.schedule(
        name="nightly_reconcile",
        job_name=RECONCILE_JOB,
        cron_schedule=settings.reconcile_cron,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="A full sync of all partitions, which finds each row that was written without an event. Where "
        "nothing has changed it is cheap. MCP_ASSETS_RECONCILE_CRON sets the time.",
    )

    def launch() -> dg.RunRequest:
        return dg.RunRequest(
            tags={**every_partition(settings), "dagster/max_retries": "2"},
            asset_selection=[ENTITIES, EMBEDDINGS, EDGES],
            asset_check_keys=[],
        )

    def ask(platform: PlatformResource) -> dg.SkipReason:
        return dg.SkipReason(_ask_for_full_sync(platform.get()))

    return schedule(ask) if settings.partitions_a_run else schedule(launch)


def _ask_for_full_sync(platform: Platform) -> str:
    """Ask for a full sync of all types, for `sync_sensor` to start; returns what the tick shows of it."""
    asked = full_sync_requests.ask_unless_under_way(
        platform, list(platform.settings.entity_types), full_sync_requests.NIGHTLY
    )
    if asked is None:
        return "no full sync is asked for, because one of all types is under way"
    return f"the full sync {asked.id} is asked for: sync_sensor launches its backfills"


def build_clean_up_schedule(settings: Settings, job: dg.JobDefinition) -> dg.ScheduleDefinition:
    return dg.ScheduleDefinition(
        name="daily_clean_up",
        job=job,
        cron_schedule=settings.clean_up_cron,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Deletes runs and observations older than {settings.keep_runs_days:g} days "
        "(MCP_ASSETS_KEEP_RUNS_DAYS). MCP_ASSETS_CLEAN_UP_CRON sets the time.",
    )
