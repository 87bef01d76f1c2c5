"""Rechecks: an event that came before the commit of its row is not lost, and costs no run while it waits."""

import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import psycopg
import pytest
from psycopg import sql

from mcp_assets.entities.registry import SourceTable
from mcp_assets.events import MessageKind
from mcp_assets.platform import Platform
from mcp_assets.setting_fields.values import TypeMapping
from mcp_assets.sync.inbox.drain import drain
from mcp_assets.sync.inbox.drain_requests import pending_types
from mcp_assets.sync.index.event_rechecks import Rechecks
from mcp_assets.sync.views.pending import pending
from mcp_assets.tuning import IndexTuning, Tuning
from mcp_assets_tests.observing import (
    assert_points_are,
    dead_letters,
    drain_all,
    entity_points,
    inbox,
    ledger,
    look_again,
    put,
    put_tasks,
    remove,
    rows,
    send,
    send_looks,
    sync_all,
    take_in,
    without_linger,
)


def waiting(platform: Platform) -> list[str]:
    """The ids that are to be looked at again."""
    return [row[0] for row in rows(platform, "SELECT entity_id FROM {schema}.rechecks ORDER BY entity_id")]


def test_an_update_insert_or_delete_that_is_committed_after_its_event_is_found_by_a_later_look(
    platform: Platform,
) -> None:
    put_tasks(platform, {"changes": "Old", "goes": "Here for now"})
    sync_all(platform)
    with psycopg.connect(platform.settings.require_database_url()) as server:
        server.execute("UPDATE tasks SET title = 'New' WHERE id = 'changes'")
        server.execute("DELETE FROM tasks WHERE id = 'goes'")
        server.execute("INSERT INTO tasks (id, title) VALUES ('comes', 'Inserted'), ('carried', 'Inserted too')")
        send(
            platform,
            ("mcp.task.updated", {"taskId": "changes"}),
            ("mcp.task.deleted", {"taskId": "goes"}),
            ("mcp.task.created", {"taskId": "comes"}),
            ("mcp.task.created", {"taskId": "carried", "title": "As the event says"}),
        )
        drain_all(platform)
        assert waiting(platform) == ["carried", "changes", "comes", "goes"]
        assert look_again(platform) == 0
        assert inbox(platform) == []
    assert look_again(platform) == 4
    drain_all(platform)

    assert waiting(platform) == []
    assert_points_are(platform, {"changes": "New", "comes": "Inserted", "carried": "Inserted too"})
    assert ledger(platform)["carried"]["origin"] == "source"
    assert dead_letters(platform) == {}


def test_what_waits_for_a_later_look_is_not_in_the_inbox_asks_for_no_run_and_counts_as_nothing_pending(
    platform: Platform,
) -> None:
    put_tasks(platform, {"t": "A task"})
    sync_all(platform)
    with platform.postgres.transaction() as connection:
        connection.execute("DELETE FROM mcp_assets.relink_marks")
    send_looks(platform, "t", "nobody")
    drain_all(platform)

    assert waiting(platform) == ["nobody", "t"]
    assert inbox(platform) == []
    assert pending_types(platform, MessageKind.ENTITY) == {}
    found = pending(platform)
    assert (found.idle, found.rechecks, found.as_dict()["rechecks"]) == (True, 2, 2)
    assert any("rechecks: 2 entities" in line for line in found.lines())


def test_an_event_whose_change_was_found_is_not_looked_at_again_unless_it_carries_another_or_others_came_with_it(
    platform: Platform,
) -> None:
    put_tasks(platform, {"sound": "Same", "differs": "In the row", "twice": "Twice"})
    send(
        platform,
        ("mcp.task.created", {"taskId": "sound", "title": "Same"}),
        ("mcp.task.created", {"taskId": "differs", "title": "Not in the row yet"}),
        ("mcp.task.created", {"taskId": "twice"}),
        ("mcp.task.updated", {"taskId": "twice"}),
        ("mcp.task.deleted", {"taskId": "of which there never was a row"}),
    )
    drain_all(platform)

    assert waiting(platform) == ["differs", "twice"]


def test_an_entity_of_which_nothing_is_known_becomes_a_dead_letter_only_after_the_last_look(
    platform: Platform,
) -> None:
    send_looks(platform, "nobody", "nobody")
    drain_all(platform)
    for _ in platform.tuning.index.rechecks_after_s[:-1]:
        assert look_again(platform) == 0
        assert (inbox(platform), dead_letters(platform)) == ([], {})
    look_again(platform)
    assert waiting(platform) == []
    drain_all(platform)

    assert (inbox(platform), waiting(platform)) == ([], [])
    assert dead_letters(platform) == {"nobody": "unknown_entity"}
    ((subject, error),) = rows(platform, "SELECT subject, error FROM {schema}.dead_letters")
    assert subject == "mcp.task.updated"
    assert "task:nobody" in error
    assert ledger(platform) == {}


def test_looks_are_due_about_2_10_and_60_seconds_after_the_event_and_a_new_event_begins_again(
    platform: Platform,
) -> None:
    put_tasks(platform, {"t": "A task"})
    sync_all(platform)
    send_looks(platform, "t")
    drain_all(platform)
    after = "SELECT round(extract(epoch FROM due_at - noted_at))::int, looks FROM {schema}.rechecks"
    seen = rows(platform, after)
    for _ in range(2):
        # As if the time of the look had come: the next is counted from the event.
        look_again(platform)
        seen += rows(platform, after)
    assert seen == [(2, 0), (10, 1), (60, 2)]
    send_looks(platform, "t")
    drain_all(platform)

    assert rows(platform, after) == [(2, 0)]


def test_a_request_about_an_entity_that_is_not_committed_yet_is_answered_when_it_is_indexed_or_given_up(
    platform: Platform,
) -> None:
    def ask(entity_id: str) -> tuple[str, Any]:
        data = {"entity_id": entity_id, "entity_type": "task"}
        return "vector.index.request", {"message_id": f"asked-{entity_id}", "data": data}

    def answered() -> list[tuple[str, tuple[str, ...]]]:
        take_in(platform)
        found = []
        for drained in drain(without_linger(platform), "task", "test"):
            found += [(message.message_id, drained.given_up) for message in drained.identified]
        return found

    send(platform, ask("late"), ask("never"))
    assert answered() == []
    put_tasks(platform, {"late": "Here now"})
    look_again(platform)
    assert answered() == [("asked-late", ())]
    for _ in platform.tuning.index.rechecks_after_s[1:]:
        look_again(platform)
    assert answered() == [("asked-never", ("never",))]
    assert_points_are(platform, {"late": "Here now"})


def test_a_relationship_request_about_an_entity_that_is_not_committed_yet_is_kept_until_it_is(
    platform: Platform,
) -> None:
    data = {"entity_id": "late", "entity_type": "task"}
    send(platform, ("relationship.analyze.request", {"message_id": "asked", "data": data}))
    take_in(platform)
    assert [drained.relate for drained in drain(without_linger(platform), "task", "test") if drained.messages] == [()]
    put_tasks(platform, {"late": "Here now"})
    look_again(platform)
    related = [ref.id for drained in drain(without_linger(platform), "task", "test") for ref in drained.relate]

    assert related == ["late"]


def test_a_source_table_that_cannot_be_read_puts_off_the_rechecks_of_its_type_alone(
    platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    put_tasks(platform, {"t": "A task"})
    put(platform, "wiki_pages", id="p", title="A page")
    sync_all(platform)
    sync_all(platform, "page")
    send(platform, ("mcp.task.updated", {"taskId": "t"}), ("mcp.page.updated", {"pageId": "p"}))
    drain_all(platform)
    with platform.postgres.transaction() as connection:
        connection.execute("UPDATE mcp_assets.rechecks SET due_at = now()")
        connection.execute("UPDATE tasks SET title = 'Changed'")
        connection.execute("ALTER TABLE wiki_pages RENAME TO elsewhere")

    assert Rechecks(platform).take_due() == 1
    assert waiting(platform) == ["p"]
    assert "rechecks of page are put off" in caplog.text


def test_rechecks_of_a_table_in_another_database_read_it_there(
    platform: Platform, make_platform: Callable[..., Platform]
) -> None:
    url = platform.settings.require_database_url()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS elsewhere WITH (FORCE)")
        connection.execute("CREATE DATABASE elsewhere")
    other = url.replace("/test?", "/elsewhere?")
    with psycopg.connect(other) as connection:
        connection.execute("CREATE TABLE notes (id integer PRIMARY KEY, title text, content text, kind text)")
        connection.execute("INSERT INTO notes VALUES (7, 'Old', '', 'a%b')")
    source = SourceTable(table="notes", alive="kind LIKE 'a%'", database_url=other)
    own = make_platform(types={"note": TypeMapping(source=source, collection="notes")}, drain_linger_s=0)
    with closing(own):
        sync_all(own, "note")
        send(own, ("mcp.note.updated", {"noteId": 7}))
        drain_all(own)
        assert waiting(own) == ["7"]
        with psycopg.connect(other) as connection:
            connection.execute("UPDATE notes SET title = 'New'")
        assert look_again(own, "note") == 1
        drain_all(own)
        assert ledger(own, "note")["7"]["title"] == "New"


def test_a_publisher_that_is_always_ahead_of_its_commits_has_its_changes_indexed_without_a_full_sync(
    platform: Platform, make_platform: Callable[..., Platform]
) -> None:
    put_tasks(platform, {"changes": "Old", "goes": "Here for now"})
    sync_all(platform)

    def publish(statement: str, subject: str, entity_id: str) -> None:
        """As a server does it that publishes inside of its transaction, 0.3 s before it commits."""
        with psycopg.connect(platform.settings.require_database_url()) as server:
            server.execute(sql.SQL(statement))
            send(own, (subject, {"taskId": entity_id}))
            time.sleep(0.3)

    own = make_platform(tuning=Tuning(index=IndexTuning(rechecks_after_s=(1.0, 2.0, 4.0))), drain_linger_s=4.0)
    drained = threading.Thread(target=lambda: list(drain(own, "task", "living")))
    drained.start()
    publish("UPDATE tasks SET title = 'New' WHERE id = 'changes'", "mcp.task.updated", "changes")
    publish("INSERT INTO tasks (id, title) VALUES ('comes', 'Inserted')", "mcp.task.created", "comes")
    publish("DELETE FROM tasks WHERE id = 'goes'", "mcp.task.deleted", "goes")
    drained.join()

    assert_points_are(platform, {"changes": "New", "comes": "Inserted"})
    assert set(entity_points(platform)) == {"changes", "comes"}
    assert (inbox(platform), dead_letters(platform)) == ([], {})


def test_removing_a_row_that_an_event_restores_too_early_is_seen_both_times(platform: Platform) -> None:
    put_tasks(platform, {"t": "A task"})
    sync_all(platform)
    remove(platform, "tasks", "t")
    send(platform, ("mcp.task.restored", {"taskId": "t"}))
    drain_all(platform)
    assert ledger(platform)["t"]["deleted"]
    assert waiting(platform) == ["t"]
    put_tasks(platform, {"t": "Restored"})
    assert look_again(platform) == 1
    drain_all(platform)

    assert_points_are(platform, {"t": "Restored"})
