"""Requests in Dagster: the job that works them off, their sensor, and the backfills that full syncs are."""

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetGraph
from dagster._core.execution.backfill import (
    BULK_ACTION_TERMINAL_STATUSES,
    BulkActionStatus,
    PartitionBackfill,
)

from dagster_warm_launcher import PROMPT_TAG
from mcp_assets.defs.assets import EDGES, EMBEDDINGS, ENTITIES, IndexConfig
from mcp_assets.defs.partitions import partition_key
from mcp_assets.defs.resources import PlatformResource, embedding_until_interrupted
from mcp_assets.defs.sensors import tick, unfinished_runs
from mcp_assets.events import MessageKind
from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.sync.consistency.conflicts import Difference
from mcp_assets.sync.inbox.announce import answer_relinked
from mcp_assets.sync.inbox.drain_lock import heartbeats
from mcp_assets.sync.inbox.drain_requests import undrained
from mcp_assets.sync.requests import full_sync_requests
from mcp_assets.sync.requests.dead_letters import announce_dead_letters
from mcp_assets.sync.requests.full_sync_requests import FullSync
from mcp_assets.sync.requests.sync_requests import Answer, answer_requests, drain_name, pending_requests

REQUESTS_JOB = "requests"
REQUESTS_TAG = "mcp_assets/requests"
BACKFILL_TAG = "dagster/backfill"

RETRIES = 3
"""Runs of a full sync that die are started again so often: each goes on where the last one ended."""

_ROWS_SHOWN = 1_000

_REASON = 1_000
"""Characters of an error that are told."""


class RequestsConfig(dg.Config):
    """Which requests a run works off."""

    kind: MessageKind = MessageKind.SYNC


def build_requests_job() -> dg.JobDefinition:
    """Answers what waits; `sync_sensor` asks for it."""

    @dg.op(name="answer")
    def work(context: dg.OpExecutionContext, config: RequestsConfig, platform: PlatformResource) -> None:
        told = _Told()
        with (
            embedding_until_interrupted(platform.get()) as opened,
            closing(answer_requests(opened, config.kind, context.run_id)) as answers,
        ):
            for answer in answers:
                context.log.info(_line(answer))
                told.add(answer)
        if told.first_error is not None:
            raise dg.Failure(
                f"{told.failed} of {told.answered} requests failed; the first: {told.first_error}",
                metadata=told.metadata(),
                allow_retries=False,
            )
        context.add_output_metadata(told.metadata())

    @dg.job(
        name=REQUESTS_JOB,
        executor_def=dg.in_process_executor,
        description="Answer the sync or validate requests that wait in the inbox.",
    )
    def job() -> None:
        work()

    return job


def build_sync_sensor() -> dg.SensorDefinition:
    """The sensor that has sync and validate requests answered. It runs unless somebody switches it off."""

    @dg.sensor(
        name="sync_sensor",
        job_name=REQUESTS_JOB,
        minimum_interval_seconds=1,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Takes in messages from NATS, has requests answered, and starts and follows full syncs.",
    )
    def sync_sensor(context: dg.SensorEvaluationContext, platform: PlatformResource) -> dg.SensorResult | dg.SkipReason:
        repository = context.repository_def
        if repository is None:
            raise dg.DagsterInvariantViolationError("sync_sensor needs the repository that it stands in")
        graph = repository.asset_graph

        def look(opened: Platform, instance: dg.DagsterInstance) -> list[dg.RunRequest]:
            full_sync_requests.sensor_lives(opened)
            follow_full_syncs(opened, instance, graph)
            answer_relinked(opened)
            announce_dead_letters(opened)
            return _requests(opened, instance)

        return tick(platform.get(), context.instance, look)

    return sync_sensor


def follow_full_syncs(platform: Platform, instance: dg.DagsterInstance, graph: BaseAssetGraph[Any]) -> None:
    """Start the backfills of full syncs that were asked for, and have those answered that have come to their end.

    One that was asked for while another of the same types compares is started once that one is through.
    """
    started: set[str] = set()
    for sync in full_sync_requests.unfinished(platform):
        backfill = instance.get_backfill(sync.id)
        if backfill is None and sync.started:
            full_sync_requests.finish(platform, sync, "its backfill is gone from Dagster's storage: ask for it again")
            continue
        if backfill is None and started.intersection(sync.entity_types):
            continue
        if backfill is None:
            instance.add_backfill(_backfill(platform.settings, instance, graph, sync))
            full_sync_requests.started(platform, sync.id)
        elif not sync.started:
            full_sync_requests.started(platform, sync.id)
        elif backfill.status in BULK_ACTION_TERMINAL_STATUSES:
            full_sync_requests.finish(platform, sync, _failure(instance, backfill))
            continue
        started.update(sync.entity_types)


def _requests(platform: Platform, instance: dg.DagsterInstance) -> list[dg.RunRequest]:
    """One run for each kind of request that is due and that nobody works off."""
    kinds = {drain_name(kind): kind for kind in pending_requests(platform)}
    if not kinds:
        return []
    lanes = undrained(kinds, unfinished_runs(instance, REQUESTS_TAG), heartbeats(platform))
    return [
        dg.RunRequest(
            run_config=dg.RunConfig(ops={"answer": RequestsConfig(kind=kinds[name])}),
            tags={REQUESTS_TAG: name, PROMPT_TAG: "true"},
        )
        for name in lanes
    ]


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
    """Why a backfill at its end is no success; None if it is one."""
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


@dataclass
class _Told:
    """What a run tells of its requests, bounded: how many there were, and tables of the first."""

    answered: int = 0
    failed: int = 0
    first_error: str | None = None
    differences: int = 0
    answers: list[dg.TableRecord] = field(default_factory=list)
    decisions: list[dg.TableRecord] = field(default_factory=list)

    def add(self, answer: Answer) -> None:
        self.answered += 1
        self.differences += len(answer.differences)
        if answer.error is not None:
            self.failed += 1
            self.first_error = self.first_error or answer.error
        if len(self.answers) < _ROWS_SHOWN:
            self.answers.append(
                dg.TableRecord(
                    {
                        "sync_type": answer.request.request.sync_type.value,
                        "message_id": answer.request.message.message_id or "",
                        "counts": ", ".join(f"{k} {v}" for k, v in answer.result.get("counts", {}).items() if v),
                        "outcome": _outcome(answer),
                    }
                )
            )
        room = _ROWS_SHOWN - len(self.decisions)
        self.decisions += [dg.TableRecord(_row(one)) for one in answer.differences[:room]]

    def metadata(self) -> dict[str, dg.MetadataValue]:
        told: dict[str, dg.MetadataValue] = {
            "requests": dg.MetadataValue.int(self.answered),
            "failed": dg.MetadataValue.int(self.failed),
            "answers": _table(self.answers, ["sync_type", "message_id", "counts", "outcome"]),
        }
        if self.decisions:
            told["differences"] = dg.MetadataValue.int(self.differences)
            told["decisions"] = _table(self.decisions, list(self.decisions[0].data))
        return told


def _line(answer: Answer) -> str:
    request = answer.request
    return f"{request.request.sync_type}, message {request.message.message_id or request.message.seq}: " + _outcome(
        answer
    )


def _outcome(answer: Answer) -> str:
    if answer.error is not None:
        return answer.error if answer.is_final else f"put off: {answer.error}"
    return "done" if answer.is_final else f"served by the full sync {answer.result['backfill_id']}"


def _row(one: Difference) -> dict[str, str | bool]:
    return {name: value if isinstance(value, bool) else value or "" for name, value in one.as_dict().items()}


def _table(records: Sequence[dg.TableRecord], columns: Sequence[str]) -> dg.TableMetadataValue:
    schema = dg.TableSchema(
        columns=[dg.TableColumn(name, "bool" if name == "settled" else "string") for name in columns]
    )
    return dg.MetadataValue.table(records, schema=schema)
