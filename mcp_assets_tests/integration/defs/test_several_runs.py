"""A full sync that several runs share, in Dagster: its two backfills, the night's, the one after lost events."""

import logging
from collections.abc import Callable, Iterator

import dagster as dg
import pytest
from dagster._core.definitions.sensor_definition import SensorExecutionData
from dagster._core.execution.backfill import BulkActionStatus
from dagster._daemon.backfill import execute_backfill_iteration

from mcp_assets.defs.backfills import edges_backfill
from mcp_assets.events import MessageKind
from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.sync.inbox.drain_requests import wanted_full_syncs
from mcp_assets.sync.requests import full_sync_requests
from mcp_assets.sync.requests.sync_requests import answer_requests
from mcp_assets_tests.integration.defs.conftest import Backfills, told_by
from mcp_assets_tests.listening import Listener
from mcp_assets_tests.observing import put_tasks, rows, send, take_in

Tick = Callable[[str], SensorExecutionData]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """A run covers five of the twelve partitions; ticks end soon."""
    return settings.model_copy(update={"partitions_a_run": 5, "sensor_tick_s": 0.3})


@pytest.fixture
def tick(definitions: dg.Definitions, instance: dg.DagsterInstance) -> Tick:
    repository = definitions.get_repository_def()
    platform = (definitions.resources or {})["platform"]

    def evaluate(sensor: str) -> SensorExecutionData:
        with dg.build_sensor_context(
            instance=instance, repository_def=repository, resources={"platform": platform}
        ) as context:
            return repository.get_sensor_def(sensor).evaluate_tick(context)

    return evaluate


@pytest.fixture
def listener(platform: Platform) -> Iterator[Listener]:
    with Listener(platform.settings.require_nats_url()) as listening:
        yield listening


def ask(platform: Platform) -> full_sync_requests.FullSync:
    send(platform, ("data.sync.request", {"message_id": "f", "data": {"sync_type": "full_sync", "entity_ids": []}}))
    take_in(platform)
    list(answer_requests(platform, MessageKind.SYNC, "test"))
    (sync,) = full_sync_requests.unfinished(platform)
    return sync


def carry_out(backfills: Backfills) -> None:
    """One iteration of the daemon's loop: it submits runs, which are executed here, or notices that they have ended."""
    assert list(execute_backfill_iteration(backfills.workspace, logging.getLogger("backfill"))) == []


def test_a_full_sync_is_two_backfills_of_several_runs_and_is_answered_when_the_last_partition_is_linked(
    platform: Platform, instance: dg.DagsterInstance, tick: Tick, backfills: Backfills, listener: Listener
) -> None:
    put_tasks(platform, {f"t{number}": f"Task {number}" for number in range(40)})
    with platform.postgres.transaction() as connection:
        wanted = {"entity_types": ["task"], "reason": "a gap"}
        connection.execute(platform.postgres.query("want_full_syncs"), wanted)
    sync = ask(platform)
    tick("sync_sensor")
    assert [one.backfill_id for one in instance.get_backfills()] == [sync.id]
    tick("sync_sensor")
    assert len(instance.get_backfills()) == 1, "no edges before all is embedded"

    carry_out(backfills)
    tick("sync_sensor")
    assert {one.backfill_id for one in instance.get_backfills()} == {sync.id, edges_backfill(sync.id)}
    assert not listener.heard()
    carry_out(backfills)
    tick("sync_sensor")

    assert listener.one("data.sync.completed")["data"]["counts"]["embedded"] == 40
    assert wanted_full_syncs(platform) == {}
    assert rows(platform, "SELECT count(*) FROM {schema}.relink_marks") == [(0,)]
    for backfill_id, assets in (
        (sync.id, {"entities", "embeddings"}),
        (edges_backfill(sync.id), {"relationship_edges"}),
    ):
        runs = instance.get_runs(dg.RunsFilter.for_backfill(backfill_id))
        done = [told_by(instance, run.run_id).materialized for run in runs]
        assert sorted(len({partition for _, partition in one}) for one in done) == [2, 5, 5]
        assert {asset for one in done for asset, _ in one} == assets
        assert sum(map(len, done)) == 12 * len(assets), "each partition once"


def test_a_full_sync_goes_on_to_its_edges_though_a_run_of_the_first_backfill_failed_and_was_made_good(
    platform: Platform, instance: dg.DagsterInstance, tick: Tick, backfills: Backfills
) -> None:
    sync = ask(platform)
    tick("sync_sensor")
    backfill = instance.get_backfill(sync.id)
    assert backfill is not None
    carry_out(backfills)
    instance.update_backfill(backfill.with_status(BulkActionStatus.COMPLETED_FAILED))  # type: ignore[no-untyped-call]
    tick("sync_sensor")
    assert instance.get_backfill(edges_backfill(sync.id)) is not None


def test_each_night_one_full_sync_is_asked_for_and_nobody_is_told_of_its_end(
    platform: Platform, instance: dg.DagsterInstance, definitions: dg.Definitions, listener: Listener
) -> None:
    repository = definitions.get_repository_def()
    resources = {"platform": (definitions.resources or {})["platform"]}

    def night() -> str:
        with dg.build_schedule_context(instance=instance, repository_def=repository, resources=resources) as context:
            told = repository.get_schedule_def("nightly_reconcile").evaluate_tick(context)
        assert not told.run_requests
        return told.skip_message or ""

    assert "is asked for: sync_sensor launches its backfills" in night()
    (sync,) = full_sync_requests.unfinished(platform)
    assert list(sync.entity_types) == list(platform.settings.entity_types)
    assert "one of all types is under way" in night()
    assert len(full_sync_requests.unfinished(platform)) == 1

    full_sync_requests.finish(platform, sync, None)
    assert rows(platform, "SELECT count(*) FROM {schema}.outbox") == [(0,)]
    assert not listener.heard()


def test_a_full_sync_after_lost_events_is_asked_for_once_and_not_at_once_after_it_has_failed(
    platform: Platform, tick: Tick
) -> None:
    with platform.postgres.transaction() as connection:
        wanted = {"entity_types": ["task", "page"], "reason": "a gap"}
        connection.execute(platform.postgres.query("want_full_syncs"), wanted)
    for _ in range(2):
        assert tick("vector_index_sensor").run_requests == []
    asked = full_sync_requests.unfinished(platform)
    assert sorted(tuple(sync.entity_types) for sync in asked) == [("page",), ("task",)]

    for sync in asked:
        full_sync_requests.finish(platform, sync, "the provider refuses")
    tick("vector_index_sensor")
    assert full_sync_requests.unfinished(platform) == []
