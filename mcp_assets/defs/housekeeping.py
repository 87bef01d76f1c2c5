"""Housekeeping: dead letters as a job, the nightly full sync, and the daily clean-up of old runs."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from enum import Enum

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.storage.dagster_run import FINISHED_STATUSES
from pydantic import Field

from mcp_assets.defs.assets import EDGES, EMBEDDINGS, ENTITIES
from mcp_assets.defs.partitions import whole_type
from mcp_assets.defs.resources import PlatformResource
from mcp_assets.settings import Settings
from mcp_assets.sync.inbox import outbox
from mcp_assets.sync.requests import full_sync_requests
from mcp_assets.sync.requests.dead_letters import Selection, purge, replay

DEAD_LETTERS_JOB = "dead_letters"
RECONCILE_JOB = "reconcile"
CLEAN_UP_JOB = "clean_up"

_RUNS_AT_ONCE = 100


class Action(Enum):
    """What the job `dead_letters` does."""

    REPLAY = "replay"
    PURGE = "purge"


class DeadLettersConfig(dg.Config):
    """Which letters; an empty text, or no ids, leaves that filter out. To purge everything takes `everything`."""

    action: Action = Action.REPLAY
    ids: list[int] = Field(default_factory=list)
    entity_type: str = ""
    stage: str = ""
    kind: str = ""
    everything: bool = False


def build_dead_letters_job() -> dg.JobDefinition:
    """What `mcp-assets dlq replay` and `purge` do."""

    @dg.op(name="replay_or_purge")
    def work(context: dg.OpExecutionContext, config: DeadLettersConfig, platform: PlatformResource) -> None:
        selection = Selection(config.ids or None, config.entity_type or None, config.stage or None, config.kind or None)
        if selection.everything and config.action is Action.PURGE and not config.everything:
            raise dg.Failure("the run names no dead letters: give a filter, or everything: true", allow_retries=False)
        if config.action is Action.PURGE:
            context.add_output_metadata({"purged": purge(platform.get(), selection)})
            return
        done = replay(platform.get(), selection)
        context.add_output_metadata({"accepted": done.accepted, "done": done.done, "failed": done.failed})

    @dg.job(
        name=DEAD_LETTERS_JOB,
        executor_def=dg.in_process_executor,
        description="Replay dead letters whose cause is mended, or purge them.",
    )
    def job() -> None:
        work()

    return job


def build_reconcile_job() -> UnresolvedAssetJobDefinition:
    """All three assets of all partitions: what `nightly_reconcile` launches."""
    return dg.define_asset_job(
        RECONCILE_JOB,
        selection=dg.AssetSelection.assets(ENTITIES, EMBEDDINGS, EDGES),
        executor_def=dg.in_process_executor,
        description="A full sync of everything: what differs from the source tables is brought up to date.",
    )


def build_reconcile_schedule(settings: Settings) -> dg.ScheduleDefinition:
    """Nightly: cheap where nothing has changed, and the last resort for what was written without an event."""

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


def build_clean_up_job(settings: Settings) -> dg.JobDefinition:
    """Dagster keeps runs and their events for ever; ticks have a retention of their own in dagster.yaml."""

    @dg.op(name="delete_old_runs")
    def work(context: dg.OpExecutionContext, platform: PlatformResource) -> None:
        before = datetime.now(UTC) - timedelta(days=settings.keep_runs_days)
        deleted = delete_runs(context.instance, before)
        opened = platform.get()
        forgotten = full_sync_requests.forget_old(opened, settings.keep_runs_days)
        unpublished = outbox.forget_old(opened, settings.results_days)
        if unpublished:
            context.log.warning(
                f"{unpublished} results could not be published for {settings.results_days:g} days "
                "(MCP_ASSETS_RESULTS_DAYS) and are forgotten: the senders of their requests were not told"
            )
        context.add_output_metadata(
            {"runs_deleted": deleted, "full_syncs_forgotten": forgotten, "results_forgotten": unpublished}
        )

    @dg.job(
        name=CLEAN_UP_JOB,
        executor_def=dg.in_process_executor,
        description=f"Delete finished runs older than {settings.keep_runs_days:g} days, with their events.",
    )
    def job() -> None:
        work()

    return job


def build_clean_up_schedule(settings: Settings, job: dg.JobDefinition) -> dg.ScheduleDefinition:
    return dg.ScheduleDefinition(
        name="daily_clean_up",
        job=job,
        cron_schedule=settings.clean_up_cron,
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )


def delete_runs(instance: dg.DagsterInstance, before: datetime) -> int:
    """Delete the finished runs that were made before `before`, some at a time; unfinished ones stay, however old."""
    deleted = 0
    while runs := _old_runs(instance, before):
        for run in runs:
            instance.delete_run(run.run_id)
        deleted += len(runs)
    return deleted


def _old_runs(instance: dg.DagsterInstance, before: datetime) -> Sequence[dg.DagsterRun]:
    wanted = dg.RunsFilter(statuses=FINISHED_STATUSES, created_before=before)
    return [record.dagster_run for record in instance.get_run_records(wanted, limit=_RUNS_AT_ONCE, ascending=True)]
