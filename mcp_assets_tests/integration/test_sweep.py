"""The sweep: rows of which no event tells are found, few are acted on, and what is much is only reported."""

import threading
from collections.abc import Callable

import psycopg
import pytest
from pydantic import SecretStr

from mcp_assets.entities.registry import SourceTable
from mcp_assets.platform import Platform
from mcp_assets.setting_fields.values import TypeMapping
from mcp_assets.settings import Settings
from mcp_assets.stores.errors import StoreRefused, StoreUnavailable
from mcp_assets.sync.consistency.checks import evaluate
from mcp_assets.sync.inbox.drain import drain
from mcp_assets.sync.index.sweep import Sweeper, last_passes, sweep_slice
from mcp_assets.sync.views.pending import pending
from mcp_assets.tuning import IndexTuning, Tuning
from mcp_assets_tests.observing import (
    assert_points_are,
    dead_letters,
    drain_all,
    inbox,
    ledger,
    put,
    put_tasks,
    remove,
    rows,
    send,
    send_looks,
    sync_all,
    take_in,
)
from mcp_assets_tests.openai_stub import OpenAIStub
from mcp_assets_tests.waiting import until


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"sweep": True})


def one_pass(platform: Platform, entity_type: str = "task") -> list[str]:
    """Compare the whole table; the ids that are asked to be looked at, sorted. The very first pass only counts."""
    with platform.postgres.session() as session:
        if not last_passes(platform):
            while not sweep_slice(platform, session, entity_type):
                pass
        while not sweep_slice(platform, session, entity_type):
            pass
    return sorted(inbox(platform))


def test_new_and_changed_rows_are_looked_at_after_one_pass_and_vanished_ones_after_two(platform: Platform) -> None:
    put_tasks(platform, {f"t{n}": f"Task {n}" for n in range(30)})
    sync_all(platform)
    put_tasks(platform, {"new": "New", "t1": "Changed"})
    remove(platform, "tasks", "t2", "t3")

    assert one_pass(platform) == ["new", "t1"]
    assert one_pass(platform) == ["new", "t1", "t2", "t3"]
    drain_all(platform)
    assert_points_are(
        platform, {f"t{n}": f"Task {n}" for n in range(4, 30)} | {"t0": "Task 0", "t1": "Changed", "new": "New"}
    )
    assert one_pass(platform) == []
    assert rows(platform, "SELECT * FROM {schema}.sweep_findings") == []


def test_a_row_that_is_back_before_the_second_pass_is_not_removed(platform: Platform) -> None:
    put_tasks(platform, {"t1": "One", "t2": "Two"})
    sync_all(platform)
    remove(platform, "tasks", "t1")
    assert one_pass(platform) == []
    put_tasks(platform, {"t1": "One"})
    assert one_pass(platform) == []
    remove(platform, "tasks", "t1")
    assert one_pass(platform) == []
    assert one_pass(platform) == ["t1"]


def test_what_is_more_than_little_is_only_reported_and_left_to_a_full_sync(
    platform: Platform, make_platform: Callable[..., Platform]
) -> None:
    own = make_platform(sweep_rows=5)
    put_tasks(own, {f"t{n}": f"Task {n}" for n in range(6)})

    assert one_pass(own) == []
    found = pending(own)
    assert any("6 rows are new or changed" in line for line in found.lines())
    assert found.as_dict()["sweep"]["task"]["behind"] == 6
    assert "6 rows are new or changed" in evaluate(own, "ledger_matches_source").summary
    sync_all(own)
    put_tasks(own, {f"t{n}": f"Changed {n}" for n in range(5)})
    assert one_pass(own) == [f"t{n}" for n in range(5)]
    assert not any("new or changed" in line for line in pending(own).lines())


def test_an_emptied_table_is_never_removed_however_many_passes_miss_its_rows(platform: Platform) -> None:
    put_tasks(platform, {f"t{n}": f"Task {n}" for n in range(50)})
    sync_all(platform)
    remove(platform, "tasks", *(f"t{n}" for n in range(50)))

    assert [one_pass(platform) for _ in range(3)] == [[], [], []]
    assert any("50 of 50 rows are gone" in line for line in pending(platform).lines())


def test_what_differs_by_text_builder_or_mapping_and_not_by_its_row_is_only_reported(
    platform: Platform, make_platform: Callable[..., Platform]
) -> None:
    put_tasks(platform, {"t1": "One", "t2": "Two"})
    sync_all(platform)
    own = make_platform(chunk_size=1000)

    assert one_pass(own) == []
    assert any("2 entities were prepared by another" in line for line in pending(own).lines())


def test_a_row_that_cannot_be_indexed_is_looked_at_once_and_again_only_when_it_changes(platform: Platform) -> None:
    put(platform, "tasks", id="bad", title="Bad", metadata={"n": 1})
    with platform.postgres.transaction() as connection:
        connection.execute("UPDATE tasks SET metadata = ('{\"n\": 1e999}')::jsonb")
    assert one_pass(platform) == ["bad"]
    drain_all(platform)
    assert dead_letters(platform) == {"bad": "unfit_metadata"}
    assert [one_pass(platform) for _ in range(2)] == [[], []]
    put(platform, "tasks", id="bad", title="Still bad")
    assert one_pass(platform) == ["bad"]


def test_a_row_that_changes_back_and_forth_without_any_event_is_followed_each_time(platform: Platform) -> None:
    put_tasks(platform, {"t": "First"})
    sync_all(platform)
    for title in ("Second", "First", "Second"):
        put_tasks(platform, {"t": title})
        assert one_pass(platform) == ["t"]
        drain_all(platform)
        assert_points_are(platform, {"t": title})


def test_what_waits_in_the_inbox_already_is_not_asked_for_twice(platform: Platform) -> None:
    put_tasks(platform, {"told": "Told", "untold": "Untold"})
    send_looks(platform, "told")
    take_in(platform)

    assert one_pass(platform) == ["told", "untold"]
    assert one_pass(platform) == ["told", "untold"]
    assert len(inbox(platform)) == 2


def test_entities_that_live_by_their_events_are_left_alone(platform: Platform) -> None:
    send(platform, ("mcp.task.created", {"taskId": "by event", "title": "No row"}))
    drain_all(platform)

    assert [one_pass(platform) for _ in range(2)] == [[], []]
    assert ledger(platform)["by event"]["origin"] == "event"


def test_a_row_that_came_and_went_before_its_look_leaves_no_dead_letter(platform: Platform) -> None:
    put_tasks(platform, {"brief": "Here for a moment"})
    assert one_pass(platform) == ["brief"]
    remove(platform, "tasks", "brief")
    drain_all(platform)

    assert (inbox(platform), dead_letters(platform), ledger(platform)) == ([], {}, {})
    assert rows(platform, "SELECT * FROM {schema}.rechecks") == []


@pytest.mark.tuning(Tuning(index=IndexTuning(sweep_rows_a_slice=50)))
def test_a_large_table_is_compared_in_slices_that_come_to_the_same(platform: Platform) -> None:
    put_tasks(platform, {f"t{n}": f"Task {n}" for n in range(200)})
    sync_all(platform)
    assert one_pass(platform) == []
    put_tasks(platform, {f"t{n}": "Changed" for n in range(20)})
    with platform.postgres.session() as session:
        ends = [sweep_slice(platform, session, "task") for _ in range(4)]
    assert ends == [False, False, False, True]
    assert sorted(inbox(platform)) == sorted(f"t{n}" for n in range(20))
    (swept,) = last_passes(platform)
    assert (swept.counts.rows, swept.counts.behind, swept.counts.asked) == (200, 20, 20)


def test_a_table_in_another_database_is_compared_too(
    platform: Platform, make_platform: Callable[..., Platform], settings: Settings
) -> None:
    url = settings.require_database_url()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS elsewhere WITH (FORCE)")
        connection.execute("CREATE DATABASE elsewhere")
    other = url.replace("/test?", "/elsewhere?")
    with psycopg.connect(other) as connection:
        connection.execute("CREATE TABLE notes (id text, title text, content text)")
        connection.execute("INSERT INTO notes SELECT n::text, 'Note ' || n, '' FROM generate_series(1, 40) AS n")
    types = {"note": TypeMapping(source=SourceTable(table="notes"), collection="notes")}
    own = make_platform(types=types, source_database_url=SecretStr(other))
    sync_all(own, "note")
    with psycopg.connect(other) as connection:
        connection.execute("UPDATE notes SET title = 'Changed' WHERE id = '1'")
        connection.execute("DELETE FROM notes WHERE id = '2'")
        connection.execute("INSERT INTO notes VALUES ('new', 'New', '')")

    assert one_pass(own, "note") == ["1", "new"]
    assert one_pass(own, "note") == ["1", "2", "new"]
    (swept,) = last_passes(own)
    assert (swept.counts.rows, swept.counts.living, swept.counts.behind, swept.counts.vanished) == (40, 40, 2, 1)


def test_a_table_that_cannot_be_read_or_is_locked_says_so_and_changes_nothing(platform: Platform) -> None:
    put_tasks(platform, {"t": "A task"})
    sync_all(platform)
    with platform.postgres.session() as other, other.transaction():
        other.execute("LOCK TABLE tasks IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(StoreUnavailable, match="tasks is locked"):
            one_pass(platform)
    with platform.postgres.transaction() as connection:
        connection.execute("ALTER TABLE tasks RENAME TO elsewhere")
    with pytest.raises(StoreRefused, match="tasks cannot be read"):
        one_pass(platform)
    assert inbox(platform) == []


@pytest.mark.tuning(Tuning(index=IndexTuning(sweep_locked_s=0.1, sweep_least_pause_s=0.05)))
def test_of_two_sweepers_one_sweeps_and_the_other_takes_over_when_it_ends(
    platform: Platform, make_platform: Callable[..., Platform]
) -> None:
    lock = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"
    sweepers = [make_platform().companion(Sweeper) for _ in range(2)]
    for sweeper in sweepers:
        sweeper.keep()
    until(lambda: len(last_passes(platform)) == 3, "each table is compared")
    assert rows(platform, lock) == [(1,)]
    put_tasks(platform, {"t": "No event tells of it"})
    until(lambda: inbox(platform) == ["t"], "t has a look")
    sweepers[0].close()
    put_tasks(platform, {"u": "Nor of this"})
    until(lambda: sorted(inbox(platform)) == ["t", "u"], "u has a look")
    sweepers[1].close()
    until(lambda: rows(platform, lock) == [(0,)], "no lock is held")


def test_a_setting_turns_it_off_and_status_says_so(make_platform: Callable[..., Platform]) -> None:
    off = make_platform(sweep=False)
    before = threading.active_count()
    off.companion(Sweeper).keep()

    assert threading.active_count() == before
    assert pending(off).as_dict()["sweep"] is None
    assert any("sweep: off" in line for line in pending(off).lines())


@pytest.mark.tuning(Tuning(index=IndexTuning(sweep_least_pause_s=0.05)))
def test_changes_of_which_no_event_is_ever_sent_are_indexed_and_status_reports_within_which_time(
    platform: Platform, stub: OpenAIStub
) -> None:
    put_tasks(platform, {"t1": "One", "t2": "Two"})
    sync_all(platform)
    sweeper = platform.companion(Sweeper)
    sweeper.keep()
    put_tasks(platform, {"t1": "Changed", "t3": "Inserted"})
    remove(platform, "tasks", "t2")
    until(lambda: sorted(inbox(platform)) == ["t1", "t2", "t3"], "all three have a look")
    for _ in drain(platform, "task", "test"):
        pass

    assert_points_are(platform, {"t1": "Changed", "t3": "Inserted"})
    lines = [line for line in pending(platform).lines() if line.startswith("sweep of task: ")]
    assert len(lines) == 1
    assert "2 rows compared" in lines[0]
    assert "a change without any event is indexed within" in lines[0]
