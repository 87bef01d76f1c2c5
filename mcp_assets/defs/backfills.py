"""Backfills: full syncs that were asked for, as the backfills that the UI would make."""

import time
from collections.abc import Sequence
from typing import Any

import dagster as dg
from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetGraph
from dagster._core.execution.backfill import (
    BULK_ACTION_TERMINAL_STATUSES,
    BulkActionStatus,
    PartitionBackfill,
)

from mcp_assets.defs.assets import IndexConfig
from mcp_assets.defs.keys import BACKFILL_TAG, EDGES, EMBEDDINGS, ENTITIES, FULL_SYNC_ID_TAG
from mcp_assets.entities.refs import partition_key
from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.sync.requests import full_sync_requests
from mcp_assets.sync.requests.full_sync_requests import FullSync, UnfinishedPartition

RETRIES = 3
"""How often a run of a full sync that dies is started again. Each run continues where the last one ended."""

_NAMED = 5
"""Partitions that an answer names, of those that are not complete."""

_REASON = 1_000
"""Characters of an error that an answer shows: enough for its sentence, without a long traceback."""


def follow_full_syncs(platform: Platform, instance: dg.DagsterInstance, graph: BaseAssetGraph[Any]) -> list[str]:
    """Start the backfills of full syncs that were asked for, and have those answered that have come to their end.

    A full sync is done once all of its partitions are indexed and linked. How many runs did that does not matter. It is
    one backfill of all three assets, or if several runs share it (MCP_ASSETS_PARTITIONS_A_RUN), one of the entities and
    their embeddings, and then one of the edges: linked before all is embedded, an entity would be linked again.

    A full sync that was asked for while another of the same types compares is started once the other one has ended.
    Returns what was done, in words.
    """
    done: list[str] = []
    started: set[str] = set()
    for sync in full_sync_requests.unfinished(platform):
        if sync.started or not started.intersection(sync.entity_types):
            done += _follow(platform, instance, graph, sync)
        started.update(sync.entity_types)
    return done


def _follow(platform: Platform, instance: dg.DagsterInstance, graph: BaseAssetGraph[Any], sync: FullSync) -> list[str]:
    """Bring one full sync a step further, if it is time for one. Returns what was done, in words."""
    indexing = instance.get_backfill(sync.id)
    if indexing is None and sync.started:
        full_sync_requests.finish(platform, sync, "its backfill is gone from Dagster's storage: ask for it again")
        return [f"full sync {sync.id}: its backfill is gone"]
    if indexing is None:
        assets = [ENTITIES, EMBEDDINGS] if platform.settings.partitions_a_run else [ENTITIES, EMBEDDINGS, EDGES]
        instance.add_backfill(_backfill(platform.settings, instance, graph, sync, sync.id, assets))
        full_sync_requests.started(platform, sync.id)
        return [f"full sync {sync.id} of {', '.join(sync.entity_types)} started"]
    if not sync.started:
        full_sync_requests.started(platform, sync.id)
    left = full_sync_requests.unfinished_partitions(platform, sync)
    if not left:
        full_sync_requests.finish(platform, sync, None)
        return [f"full sync {sync.id} is done"]
    under_way = indexing
    if EDGES not in (indexing.asset_selection or ()) and all(partition.indexed for partition in left):
        linking = instance.get_backfill(edges_backfill(sync.id))
        if linking is None:
            instance.add_backfill(_backfill(platform.settings, instance, graph, sync, edges_backfill(sync.id), [EDGES]))
            return [f"full sync {sync.id}: all is embedded, its edges are linked now"]
        under_way = linking
    if under_way.status not in BULK_ACTION_TERMINAL_STATUSES:
        return []
    # Read again: a run may have completed the last partition between the first reading and its backfill's end.
    left = full_sync_requests.unfinished_partitions(platform, sync)
    failure = _failure(instance, under_way, left, platform.settings.shards) if left else None
    full_sync_requests.finish(platform, sync, failure)
    return [f"full sync {sync.id} {'is done' if failure is None else 'failed'}"]


def edges_backfill(sync_id: str) -> str:
    """The id of the backfill that links what the backfill `sync_id` has embedded."""
    return f"{sync_id}-edges"


def _backfill(
    settings: Settings,
    instance: dg.DagsterInstance,
    graph: BaseAssetGraph[Any],
    sync: FullSync,
    backfill_id: str,
    assets: Sequence[dg.AssetKey],
) -> PartitionBackfill:
    """The backfill that the UI would make of these partitions, of some of the three assets."""
    return PartitionBackfill.from_asset_partitions(
        backfill_id=backfill_id,
        asset_graph=graph,
        partition_names=[
            partition_key(entity_type, shard, settings.shards)
            for entity_type in settings.entity_types
            if entity_type in sync.entity_types
            for shard in range(settings.shards)
        ],
        asset_selection=list(assets),
        backfill_timestamp=time.time(),
        tags={
            FULL_SYNC_ID_TAG: sync.id,
            "mcp_assets/requested_by": sync.requested_by,
            "dagster/max_retries": str(RETRIES),
        },
        dynamic_partitions_store=instance,
        all_partitions=False,
        title=f"Full sync {sync.id}" + (": edges" if list(assets) == [EDGES] else ""),
        description=f"Asked for by {sync.requested_by}",
        run_config=dg.RunConfig(ops={"index_entities": IndexConfig(force=sync.force)}).to_config_dict(),  # type: ignore[no-untyped-call]
    )


def _failure(
    instance: dg.DagsterInstance, backfill: PartitionBackfill, left: Sequence[UnfinishedPartition], shards: int
) -> str:
    """Why an ended backfill did not bring the partitions `left` to their end."""
    named = f"the backfill {backfill.backfill_id}"
    if backfill.status in (BulkActionStatus.COMPLETED, BulkActionStatus.COMPLETED_SUCCESS):
        names = ", ".join(partition_key(one.entity_type, one.shard, shards) for one in left[:_NAMED])
        more = f" and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
        return f"{named} has ended, but no run of it has completed {names}{more}: ask for the full sync again"
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
