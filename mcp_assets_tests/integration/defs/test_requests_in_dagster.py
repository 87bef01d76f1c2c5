"""Requests in Dagster: the sensor that has them answered, the backfills of full syncs, housekeeping."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.sensor_definition import SensorExecutionData
from dagster._core.events import DagsterEvent
from dagster._core.execution.backfill import BulkActionStatus
from dagster._core.test_utils import create_run_for_test

from mcp_assets.defs.keys import REQUESTS_TAG
from mcp_assets.defs.old_runs import delete_runs
from mcp_assets.events import MessageKind
from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.sync.index.batch_report import Counts
from mcp_assets.sync.requests import full_sync_requests
from mcp_assets.sync.requests.sync_requests import answer_requests, drain_name
from mcp_assets_tests.integration.defs.conftest import told_by
from mcp_assets_tests.listening import Listener
from mcp_assets_tests.observing import dead_letters, points, put_tasks, rows, send, take_in

pytestmark = [
    # What Dagster 1.13 does inside itself.
    pytest.mark.filterwarnings("ignore:Property `ScheduleDefinition.environment_vars` is deprecated"),
]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Ticks that end soon."""
    return settings.model_copy(update={"sensor_tick_s": 0.6})


@pytest.fixture
def listener(platform: Platform) -> Iterator[Listener]:
    with Listener(platform.settings.require_nats_url()) as listening:
        yield listening


@pytest.fixture
def tick(definitions: dg.Definitions, instance: dg.DagsterInstance) -> Callable[[], SensorExecutionData]:
    repository = definitions.get_repository_def()
    platform = (definitions.resources or {})["platform"]

    def evaluate() -> SensorExecutionData:
        with dg.build_sensor_context(
            instance=instance, repository_def=repository, resources={"platform": platform}
        ) as context:
            return repository.get_sensor_def("sync_sensor").evaluate_tick(context)

    return evaluate


@pytest.fixture
def execute(definitions: dg.Definitions, instance: dg.DagsterInstance) -> Callable[..., dg.ExecuteInProcessResult]:
    def executed(job: str, op: str = "", **config: Any) -> dg.ExecuteInProcessResult:
        return definitions.resolve_job_def(job).execute_in_process(
            instance=instance,
            run_config={"ops": {op: {"config": config}}} if config else {},
            raise_on_error=False,
        )

    return executed


def ask(platform: Platform, sync_type: str, *ids: str, message_id: str = "m", **context: Any) -> None:
    data = {"sync_type": sync_type, "entity_ids": list(ids), "context": context}
    send(platform, ("data.sync.request", {"message_id": message_id, "data": data}))


def lanes(told: SensorExecutionData) -> list[str]:
    return [request.tags[REQUESTS_TAG] for request in told.run_requests or ()]


def metadata(result: dg.ExecuteInProcessResult, op: str) -> dict[str, Any]:
    (output,) = [
        event.step_output_data
        for event in result.all_events
        if event.event_type is dg.DagsterEventType.STEP_OUTPUT and event.step_key == op
    ]
    return {
        name: value.records if isinstance(value, dg.TableMetadataValue) else value.value
        for name, value in output.metadata.items()
    }


def ask_for_full_sync(platform: Platform) -> None:
    ask(platform, "full_sync", message_id="f", entity_types=["task", "page"])
    take_in(platform)
    list(answer_requests(platform, MessageKind.SYNC, "test"))


def complete_partitions(platform: Platform, sync_id: str, **done: bool) -> None:
    """What the runs of a full sync of tasks and pages record, once all of its partitions are so far."""
    writer = full_sync_requests.ProgressWriter(platform, sync_id)
    for entity_type in ("task", "page"):
        for shard in range(platform.settings.shards):
            if done.get("indexed"):
                writer.indexed(entity_type, shard, Counts())
            if done.get("linked"):
                writer.linked(entity_type, shard)


def test_a_tick_asks_for_one_run_of_each_kind_of_request_and_for_none_while_one_is_at_it(
    platform: Platform, tick: Callable[[], SensorExecutionData]
) -> None:
    assert tick().run_requests == []
    for number in range(3):
        ask(platform, "incremental_sync", f"t{number}")
    send(platform, ("data.validate.request", {}))

    told = tick()

    assert sorted(lanes(told)) == [drain_name(MessageKind.SYNC), drain_name(MessageKind.VALIDATE)]
    assert {request.run_config["ops"]["answer"]["config"]["kind"] for request in told.run_requests or ()} == {
        "SYNC",
        "VALIDATE",
    }
    working = answer_requests(platform, MessageKind.SYNC, "some run")
    next(working)
    assert lanes(tick()) == [drain_name(MessageKind.VALIDATE)]


def test_a_run_reports_every_difference_and_decision_as_a_table(
    platform: Platform, execute: Callable[..., dg.ExecuteInProcessResult]
) -> None:
    put_tasks(platform, {"t1": "one", "t2": "two"})
    ask(platform, "conflict_resolution", "t1", "t2")
    take_in(platform)

    result = execute("requests", "answer", kind="SYNC")

    assert result.success
    told = metadata(result, "answer")
    assert told["requests"] == 1
    assert [record.data["outcome"] for record in told["answers"]] == ["done"]
    decided = {(record.data["entity"], record.data["place"], record.data["settled"]) for record in told["decisions"]}
    assert decided == {(f"task:{name}", place, True) for name in ("t1", "t2") for place in ("ledger", "qdrant")}


def test_a_run_fails_for_a_request_that_failed_and_answers_the_others(
    platform: Platform, execute: Callable[..., dg.ExecuteInProcessResult], listener: Listener
) -> None:
    put_tasks(platform, {"t1": "one"})
    ask(platform, "incremental_sync", "nobody", message_id="bad")
    ask(platform, "incremental_sync", "t1", message_id="good")
    take_in(platform)
    assert not execute("requests", "answer", kind="SYNC").success
    assert listener.answer("bad")[0] == "data.sync.failed"
    assert listener.answer("good")[0] == "data.sync.completed"


def test_a_full_sync_is_one_backfill_of_all_three_assets_in_the_ui(
    platform: Platform, instance: dg.DagsterInstance, tick: Callable[[], SensorExecutionData], listener: Listener
) -> None:
    ask_for_full_sync(platform)
    for _ in range(2):
        tick()
    (backfill,) = instance.get_backfills()
    assert backfill.tags["mcp_assets/requested_by"] == "data.sync.request"
    assert {key.to_user_string() for key in backfill.asset_selection or ()} == {
        "entities",
        "embeddings",
        "relationship_edges",
    }
    data = backfill.asset_backfill_data
    assert data is not None
    target = data.target_subset.get_partitions_subset(dg.AssetKey("entities"))
    assert sorted(target.get_partition_keys()) == sorted(f"{n}-0{s}" for n in ("task", "page") for s in range(4))

    complete_partitions(platform, backfill.backfill_id, indexed=True, linked=True)
    tick()
    assert listener.one("data.sync.completed")["correlation_id"] == "f"
    assert full_sync_requests.unfinished(platform) == []


def test_a_backfill_that_ends_well_is_no_full_sync_while_a_partition_lacks(
    platform: Platform, instance: dg.DagsterInstance, tick: Callable[[], SensorExecutionData], listener: Listener
) -> None:
    ask_for_full_sync(platform)
    tick()
    (backfill,) = instance.get_backfills()
    complete_partitions(platform, backfill.backfill_id, indexed=True)
    instance.update_backfill(backfill.with_status(BulkActionStatus.COMPLETED_SUCCESS))  # type: ignore[no-untyped-call]
    tick()
    error = listener.one("data.sync.failed")["data"]["error"]
    assert "no run of it has completed task-00, task-01, task-02, task-03, page-00 and 3 more" in error


@pytest.mark.parametrize("status", [BulkActionStatus.CANCELED, BulkActionStatus.COMPLETED_FAILED])
def test_a_backfill_that_did_not_succeed_is_answered_with_the_reason_and_can_be_asked_for_again(
    platform: Platform,
    instance: dg.DagsterInstance,
    tick: Callable[[], SensorExecutionData],
    listener: Listener,
    status: BulkActionStatus,
) -> None:
    ask_for_full_sync(platform)
    tick()
    (backfill,) = instance.get_backfills()
    run = create_run_for_test(instance, job_name="index", tags={"dagster/backfill": backfill.backfill_id})
    instance.report_run_failed(run)
    instance.update_backfill(backfill.with_status(status))  # type: ignore[no-untyped-call]
    tick()
    failed = listener.one("data.sync.failed")
    assert failed["correlation_id"] == "f"
    assert backfill.backfill_id in failed["data"]["error"]

    ask(platform, "full_sync", message_id="once more")
    take_in(platform)
    list(answer_requests(platform, MessageKind.SYNC, "test"))
    tick()
    assert len(instance.get_backfills()) == 2


def test_a_backfill_that_was_added_before_the_tick_was_killed_is_not_added_again(
    platform: Platform, instance: dg.DagsterInstance, tick: Callable[[], SensorExecutionData]
) -> None:
    ask_for_full_sync(platform)
    tick()
    rows(platform, "UPDATE {schema}.full_syncs SET started_at = NULL RETURNING 1")
    tick()
    assert len(instance.get_backfills()) == 1
    (sync,) = full_sync_requests.unfinished(platform)
    assert sync.started


def test_dead_letters_are_announced_by_a_tick(
    platform: Platform, tick: Callable[[], SensorExecutionData], listener: Listener
) -> None:
    send(platform, ("mcp.task.created", b"not json"))
    take_in(platform)
    tick()
    assert listener.one("mcp_assets.dead_letter")["data"]["error_kind"] == "bad_json"


def test_dead_letters_are_replayed_and_purged_by_a_job(
    platform: Platform, execute: Callable[..., dg.ExecuteInProcessResult]
) -> None:
    send(platform, ("mcp.task.created", b"not json"))
    take_in(platform)
    result = execute("dead_letters", "replay_or_purge", action="REPLAY")
    assert metadata(result, "replay_or_purge") == {"accepted": 0, "done": 0, "failed": 1}
    assert not execute("dead_letters", "replay_or_purge", action="PURGE").success
    assert dead_letters(platform) == {"1": "bad_json"}
    assert execute("dead_letters", "replay_or_purge", action="PURGE", kind="bad_json").success
    assert dead_letters(platform) == {}


def test_old_runs_are_deleted_with_their_events_and_unfinished_ones_never(
    platform: Platform, instance: dg.DagsterInstance, execute: Callable[..., dg.ExecuteInProcessResult]
) -> None:
    finished = execute("dead_letters", "replay_or_purge", action="REPLAY").run_id
    waiting = create_run_for_test(instance, job_name="index").run_id
    started = create_run_for_test(instance, job_name="index").run_id
    instance.run_storage.handle_run_event(started, DagsterEvent(dg.DagsterEventType.PIPELINE_START.value, "index"))
    now = datetime.now(UTC)
    assert delete_runs(instance, now - timedelta(days=1)) == 0
    assert delete_runs(instance, now + timedelta(minutes=1)) == 1
    assert instance.get_run_by_id(finished) is None
    assert instance.all_logs(finished) == []
    assert {run.run_id for run in instance.get_runs()} == {waiting, started}
    assert execute("clean_up").success


def test_each_night_everything_is_compared_with_the_source_tables(
    platform: Platform, instance: dg.DagsterInstance, definitions: dg.Definitions
) -> None:
    put_tasks(platform, {"t1": "written without an event"})
    repository = definitions.get_repository_def()
    with dg.build_schedule_context(instance=instance, repository_def=repository) as context:
        (request,) = repository.get_schedule_def("nightly_reconcile").evaluate_tick(context).run_requests or ()

    result = definitions.resolve_job_def("reconcile").execute_in_process(instance=instance, tags=dict(request.tags))

    ran = told_by(instance, result.run_id)
    assert len({partition for _, partition in ran.materialized}) == 12
    assert len(points(platform)) == 1


def test_all_schedules_run_by_default_at_the_times_of_the_settings(settings: Settings) -> None:
    from mcp_assets.definitions import build_defs

    changed = settings.model_copy(update={"reconcile_cron": "1 1 * * *", "clean_up_cron": "2 2 * * 0"})
    defs = build_defs(changed)
    schedules = {schedule.name: defs.resolve_schedule_def(schedule.name) for schedule in defs.schedules or ()}
    assert schedules["nightly_reconcile"].cron_schedule == "1 1 * * *"
    assert schedules["daily_clean_up"].cron_schedule == "2 2 * * 0"
    assert all(one.default_status is dg.DefaultScheduleStatus.RUNNING for one in schedules.values())
