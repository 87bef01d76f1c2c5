"""Backfills: full syncs that were asked for, as the backfills that the UI would make."""

import time
from typing import Any

import dagster as dg
from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetGraph
from dagster._core.execution.backfill import (
    BULK_ACTION_TERMINAL_STATUSES,
    BulkActionStatus,
    PartitionBackfill,
)

from mcp_assets.defs.assets import IndexConfig
from mcp_assets.defs.keys import BACKFILL_TAG, EDGES, EMBEDDINGS, ENTITIES
from mcp_assets.entities.refs import partition_key
from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.sync.requests import full_sync_requests
from mcp_assets.sync.requests.full_sync_requests import FullSync

RETRIES = 3
"""How often a run of a full sync that dies is started again. Each run continues where the last one ended."""

_REASON = 1_000
"""Characters of an error that an answer shows: enough for its sentence, without a long traceback."""


def follow_full_syncs(platform: Platform, instance: dg.DagsterInstance, graph: BaseAssetGraph[Any]) -> list[str]:
    """Start the backfills of full syncs that were asked for, and have those answered that have come to their end.

    A full sync that was asked for while another of the same types compares is started once the other one has ended.
    Returns what was done, in words.
    """
    done: list[str] = []
    started: set[str] = set()
    for sync in full_sync_requests.unfinished(platform):
        backfill = instance.get_backfill(sync.id)
        if backfill is None and sync.started:
            full_sync_requests.finish(platform, sync, "its backfill is gone from Dagster's storage: ask for it again")
            done.append(f"full sync {sync.id}: its backfill is gone")
            continue
        if backfill is None and started.intersection(sync.entity_types):
            continue
        if backfill is None:
            instance.add_backfill(_backfill(platform.settings, instance, graph, sync))
            full_sync_requests.started(platform, sync.id)
            done.append(f"full sync {sync.id} of {', '.join(sync.entity_types)} started")
        elif not sync.started:
            full_sync_requests.started(platform, sync.id)
        elif backfill.status in BULK_ACTION_TERMINAL_STATUSES:
            failure = _failure(instance, backfill)
            full_sync_requests.finish(platform, sync, failure)
            done.append(f"full sync {sync.id} {'is done' if failure is None else 'failed'}")
            continue
        started.update(sync.entity_types)
    return done


def _backfill(
    settings: Settings, instance: dg.DagsterInstance, graph: BaseAssetGraph[Any], sync: FullSync
) -> PartitionBackfill:
    """The backfill that the UI would make of these partitions, of all three assets."""
    return PartitionBackfill.from_asset_partitions(
        backfill_id=sync.id,
        asset_graph=graph,
        partition_names=[
            partition_key(entity_type, shard, settings.shards)
            for entity_type in settings.entity_types
            if entity_type in sync.entity_types
            for shard in range(settings.shards)
        ],
        asset_selection=[ENTITIES, EMBEDDINGS, EDGES],
        backfill_timestamp=time.time(),
        tags={"mcp_assets/requested_by": sync.requested_by, "dagster/max_retries": str(RETRIES)},
        dynamic_partitions_store=instance,
        all_partitions=False,
        title=f"Full sync {sync.id}",
        description=f"Asked for by {sync.requested_by}",
        run_config=dg.RunConfig(ops={"index_entities": IndexConfig(force=sync.force)}).to_config_dict(),  # type: ignore[no-untyped-call]
    )


def _failure(instance: dg.DagsterInstance, backfill: PartitionBackfill) -> str | None:
    """Why an ended backfill did not succeed; None if it succeeded."""
    named = f"the backfill {backfill.backfill_id}"
    if backfill.status in (BulkActionStatus.COMPLETED, BulkActionStatus.COMPLETED_SUCCESS):
        return None
    if backfill.status is BulkActionStatus.CANCELED:
        return f"{named} was canceled; what was done stands"
    if backfill.error is not None:
        return f"{named} failed: {backfill.error.message.strip()[:_REASON]}"
    failed = dg.RunsFilter(
        tags={BACKFILL_TAG: backfill.backfill_id},
        statuses=[dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED],
    )
    reasons = [_reason(instance, run.run_id) for run in instance.get_runs(failed, limit=1)]
    return f"{named} failed ({reasons[0] if reasons else 'it has no run'}); what was done stands"


def _reason(instance: dg.DagsterInstance, run_id: str) -> str:
    """Why a run failed: the error of its step where there is one, not Dagster's words around it."""
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
        error = entry.dagster_event.step_failure_data.error if entry.dagster_event is not None else None
        while error is not None and error.cause is not None:
            error = error.cause
        if error is not None:
            return error.message.strip()[:_REASON]
    return f"run {run_id} ended before its step did"
