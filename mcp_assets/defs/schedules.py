"""Schedules: jobs that run at a time of day. All are on from the start; their times are settings."""

from collections.abc import Sequence

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from mcp_assets.defs.keys import EDGES, EMBEDDINGS, ENTITIES, RECONCILE_JOB
from mcp_assets.defs.partitions import partitions_of, whole_type
from mcp_assets.settings import Settings


def build_tag_weights_schedule(job: dg.JobDefinition) -> dg.ScheduleDefinition:
    """Nightly is often enough, because a weight changes with the logarithm of a tag's holders."""
    return dg.ScheduleDefinition(
        name="nightly_tag_weights",
        job=job,
        cron_schedule="17 3 * * *",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )


def build_census_schedule(settings: Settings, job: UnresolvedAssetJobDefinition) -> dg.ScheduleDefinition:
    keys: Sequence[str] = partitions_of(settings).get_partition_keys()

    @dg.schedule(
        name="hourly_census",
        job=job,
        cron_schedule=settings.census_cron,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="The census of everything, and the checks.",
    )
    def hourly_census() -> dg.RunRequest:
        return dg.RunRequest(
            tags={
                "dagster/asset_partition_range_start": keys[0],
                "dagster/asset_partition_range_end": keys[-1],
            }
        )

    return hourly_census


def build_reconcile_schedule(settings: Settings) -> dg.ScheduleDefinition:
    """Nightly. It is cheap where nothing has changed, and finds each row that was written without an event."""

    @dg.schedule(
        name="nightly_reconcile",
        job_name=RECONCILE_JOB,
        cron_schedule=settings.reconcile_cron,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="A full sync of everything each night.",
    )
    def nightly_reconcile() -> dg.RunRequest:
        types = list(settings.entity_types)
        return dg.RunRequest(
            tags={
                "dagster/asset_partition_range_start": whole_type(settings, types[0])[0],
                "dagster/asset_partition_range_end": whole_type(settings, types[-1])[1],
                "dagster/max_retries": "2",
            },
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
    )
