"""Observations: what they say of source tables and streams, how often, and that they are deleted one day."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from mcp_assets.definitions import build_defs
from mcp_assets.defs import observations
from mcp_assets.defs.keys import key_of, source_table_key, stream_key
from mcp_assets.defs.observations import LastObservations, observe
from mcp_assets.defs.old_runs import delete_observations
from mcp_assets.platform import Platform
from mcp_assets.stores.source_tables import figures
from mcp_assets.sync.views.sources import sources_of
from mcp_assets_tests.integration.defs.conftest import resource_of
from mcp_assets_tests.observing import take_in

TASKS, STREAM = source_table_key("tasks"), stream_key("MCP_ASSETS")

Write = Callable[..., None]


def told_by(result: dg.SensorResult) -> dict[dg.AssetKey, dict[str, Any]]:
    """By asset, the metadata of its observation."""
    return {
        event.asset_key: {name: value.value for name, value in event.metadata.items()}
        for event in result.asset_events
        if isinstance(event, dg.AssetObservation)
    }


def rested(platform: Platform) -> None:
    """All sources have rested since they were read last."""
    known = platform.companion(LastObservations).of
    known.update({key: replace(last, rests_until=0.0) for key, last in known.items()})


def test_a_source_table_is_observed_with_its_rows_columns_and_newest_update(platform: Platform, write: Write) -> None:
    write("task", {"t1": "one", "t2": "two", "t3": "three"})
    with platform.postgres.transaction() as connection:
        connection.execute("UPDATE tasks SET archived_at = now() WHERE id = 't3'")
        connection.execute("UPDATE tasks SET updated_at = '2031-01-01 00:00+00' WHERE id = 't2'")
        connection.execute("COMMENT ON COLUMN tasks.title IS 'its heading'")
    told = told_by(observe(platform))[TASKS]
    assert (told["dagster/row_count"], told["living_rows"]) == (3, 2)
    assert told["newest_update"] == datetime(2031, 1, 1, tzinfo=UTC).timestamp()
    columns = {column.name: column for column in told["dagster/column_schema"].columns}
    assert columns["id"].constraints.nullable is False
    assert columns["updated_at"].type == "timestamp with time zone"
    assert columns["title"].description == "its heading"


def test_of_a_table_that_is_too_large_to_count_the_estimate_is_told(
    platform: Platform, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("task", {f"t{n}": "text" for n in range(30)})
    with platform.postgres.transaction() as connection:
        connection.execute("ANALYZE tasks")
    monkeypatch.setattr(figures, "COUNTED_ROWS", 10)
    told = told_by(observe(platform))[TASKS]
    assert told["dagster/row_count"] == 30
    assert "living_rows" not in told


def test_a_stream_is_observed_with_what_is_unread_and_not_applied_and_for_how_long(platform: Platform) -> None:
    platform.nats.publish([("mcp.task.updated", b'{"entity_id": "t1"}'), ("mcp.task.updated", b'{"entity_id": "t2"}')])
    told = told_by(observe(platform))[STREAM]
    assert (told["dagster/row_count"], told["last_sequence"], told["unread"], told["not_applied"]) == (2, 2, 2, 0)
    assert told["lag_s"] >= 0
    take_in(platform)
    rested(platform)
    told = told_by(observe(platform))[STREAM]
    assert (told["unread"], told["not_applied"]) == (0, 2)


def test_what_has_not_changed_is_observed_again_only_after_an_hour(
    platform: Platform, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = set(map(key_of, sources_of(platform.settings)))
    assert set(told_by(observe(platform))) == everything
    rested(platform)
    assert told_by(observe(platform)) == {}
    write("task", {"t1": "one"})
    rested(platform)
    second = observe(platform)
    assert set(told_by(second)) == {TASKS}
    assert second.cursor == "observed source/tasks"
    rested(platform)
    monkeypatch.setattr(observations, "_UNCHANGED_FOR_S", 0.0)
    assert set(told_by(observe(platform))) == everything


def test_a_source_whose_figures_took_long_rests(platform: Platform, write: Write) -> None:
    observe(platform)
    rested(platform)
    known = platform.companion(LastObservations).of
    known[TASKS] = replace(known[TASKS], rests_until=known[TASKS].at + 3_600)
    write("task", {"t1": "one"})
    assert TASKS not in told_by(observe(platform))


def test_a_source_that_cannot_be_read_does_not_keep_the_others_from_being_observed(platform: Platform) -> None:
    with platform.postgres.transaction() as connection:
        connection.execute("DROP TABLE tasks")
    result = observe(platform)
    assert set(told_by(result)) == set(map(key_of, sources_of(platform.settings))) - {TASKS}
    assert result.skip_reason is not None
    reason = result.skip_reason.skip_message or ""
    assert "source/tasks could not be read: the source table tasks cannot be read" in reason


def test_a_view_that_takes_too_long_to_count_is_given_up_and_rests(
    platform: Platform, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("task", {"t1": "one"})
    with platform.postgres.transaction() as connection:
        connection.execute("ALTER TABLE tasks RENAME TO quick_tasks")
        connection.execute("CREATE VIEW tasks AS SELECT * FROM quick_tasks WHERE pg_sleep(5) IS NOT NULL")
    monkeypatch.setattr(figures, "LONGEST_S", 1)
    result = observe(platform)
    assert set(told_by(result)) == set(map(key_of, sources_of(platform.settings))) - {TASKS}
    assert "counting the rows of tasks takes longer than 1 s" in (result.cursor or "")
    assert "tasks" not in (observe(platform).cursor or ""), "it rests"


def test_observing_by_hand_says_the_same(platform: Platform, write: Write, instance: dg.DagsterInstance) -> None:
    write("task", {"t1": "one"})
    definitions = build_defs(platform.settings, {"platform": resource_of(platform)})
    keys = set(map(key_of, sources_of(platform.settings)))
    job = definitions.resolve_implicit_global_asset_job_def().get_subset(asset_selection=keys)
    result = job.execute_in_process(instance=instance)
    events = result.get_asset_observation_events()
    assert {event.asset_key for event in events} == keys


def test_old_observations_of_sources_are_deleted_and_new_ones_stay(
    platform: Platform, instance: dg.DagsterInstance
) -> None:
    for event in observe(platform).asset_events:
        instance.report_runless_asset_event(event)
    keys = list(map(key_of, sources_of(platform.settings)))
    now = datetime.now(UTC)
    assert delete_observations(instance, keys, now - timedelta(hours=1)) == 0
    assert instance.fetch_observations(TASKS, limit=5).records
    assert delete_observations(instance, keys, now + timedelta(hours=1)) == len(keys)
    assert instance.fetch_observations(TASKS, limit=5).records == []
