"""Odd messages: a clear entity is looked at and its row decides; without one, what is sound of them; and warnings."""

import json
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.sync.inbox.message_warnings import find_warnings
from mcp_assets.tuning import InboxTuning, Tuning
from mcp_assets_tests.migrating import downgrade, upgrade
from mcp_assets_tests.observing import dead_letters, drain_all, ledger, put_tasks, replace_stream, rows, send, take_in

DEEP = b'{"taskId": "%s", "title": "stale", "a": ' + b"[" * 5_000 + b"]" * 5_000 + b"}"

ODD: list[Any] = [
    {"timestamp": "2026-03-01T12:00:00+0000", "data": {"taskId": "%s", "title": "stale"}},
    {"timestamp": "yesterday", "data": {"taskId": "%s"}},
    {"taskId": "%s", "title": "stale", "tags": "a, b"},
    {"taskId": "%s", "title": "stale", "tags": [{"name": "a"}, 3]},
    {"message_id": 17, "data": {"taskId": "%s"}},
    {"source": {"name": "kanban"}, "data": {"taskId": "%s"}},
    {"taskId": "%s", "boardId": "1", "board_id": "2"},
    {"taskId": "%s", "title": "a\0b"},
    {"taskId": "%s", "title": "\ud83d"},
    {"taskId": "%s", "metadata": {"\0": 1}},
    {"taskId": "%s", "estimate": 10**30},
    {"taskId": "%s", "estimate": float("inf")},
    {"taskId": "%s", "entityType": "person", "title": "stale"},
    {"taskId": "%s", "title": {"text": "stale"}},
    {"taskId": "%s", "content": ["stale"]},
    {"taskId": "%s", "metadata": "none"},
    {"taskId": "%s", "context": 7},
    {"version": [], "type": {}, "data": {"taskId": "%s"}},
    DEEP,
]


def naming(body: Any, entity_id: str) -> bytes:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return raw.replace(b"%s", entity_id.encode())


def test_a_row_is_looked_at_whatever_else_is_odd_in_its_message_and_the_row_decides(platform: Platform) -> None:
    ids = [f"t{number}" for number in range(len(ODD))]
    put_tasks(platform, dict.fromkeys(ids, "fresh"))
    send(platform, *(("mcp.task.updated", naming(body, one)) for body, one in zip(ODD, ids, strict=True)))

    drain_all(platform)

    assert {one: row["title"] for one, row in ledger(platform).items()} == dict.fromkeys(ids, "fresh")
    assert dead_letters(platform) == {}


def test_an_entity_without_a_row_is_what_is_sound_in_its_message(platform: Platform) -> None:
    body = {"memoryId": "m", "content": "tea\0", "tags": "a, b", "n": 2**70, "metadata": {"innerKey": 1}}
    send(platform, ("mcp.memory.stored", body))
    drain_all(platform)
    row = ledger(platform, "memory")["m"]
    assert (row["content"], row["metadata"]) == ("tea\ufffd", {"tags": ["a", "b"], "innerKey": 1})
    assert {warning.place for warning in find_warnings(platform, limit=10)} == {"$.content", "$.tags", "$.n"}


def test_a_warning_is_counted_by_subject_kind_and_place_and_names_the_newest_message(platform: Platform) -> None:
    send(platform, *(("mcp.task.updated", {"taskId": f"t{number}", "tags": "a"}) for number in range(3)))
    send(platform, ("mcp.task.created", {"taskId": "t9", "tags": [1, 2]}))
    take_in(platform)
    found = {(one.subject, one.place): one for one in find_warnings(platform, limit=10)}
    assert {key: one.messages for key, one in found.items()} == {
        ("mcp.task.updated", "$.tags"): 3,
        ("mcp.task.created", "$.tags[]"): 1,
    }
    newest = found["mcp.task.updated", "$.tags"]
    assert (str(newest.entity), newest.error_kind, newest.seq) == ("task:t2", "wrong_type", 3)
    assert newest.warning == "$.tags is a string, and must be a list."


def test_a_warning_names_its_message_by_stream_epoch_and_sequence(platform: Platform) -> None:
    send(platform, ("mcp.task.updated", {"taskId": "t", "tags": "a"}))
    take_in(platform)
    replace_stream(platform)
    take_in(platform)
    send(platform, ("mcp.task.updated", {"taskId": "t", "tags": "a"}))
    take_in(platform)
    (warning,) = find_warnings(platform, limit=10)
    epochs = rows(platform, "SELECT epoch FROM {schema}.intake_cursors")
    assert [(warning.epoch,)] == epochs
    assert (warning.stream, warning.seq, warning.messages) == (platform.settings.streams[0], 1, 2)
    assert warning.epoch is not None
    assert warning.as_dict()["epoch"] == warning.epoch > 1


def test_a_warning_that_was_kept_before_warnings_had_epochs_outlives_the_upgrade(
    settings: Settings, make_platform: Callable[..., Platform]
) -> None:
    upgrade(settings, "0017")
    with psycopg.connect(settings.require_database_url()) as connection:
        connection.execute(
            "INSERT INTO mcp_assets.warnings (subject, error_kind, place, warning, stream, seq, messages)"
            " VALUES ('mcp.task.updated', 'wrong_type', '$.tags', 'odd', 'S', 7, 3)"
        )
    (warning,) = find_warnings(make_platform(), limit=10)
    assert (warning.stream, warning.epoch, warning.seq, warning.messages) == ("S", None, 7, 3)
    downgrade(settings, "0017")


@pytest.mark.tuning(Tuning(inbox=InboxTuning(warnings_kept=3)))
def test_warnings_are_bounded_and_the_oldest_go_first(platform: Platform) -> None:
    for number in range(5):
        send(platform, ("mcp.task.updated", {"taskId": "t", f"f{number}": 2**70}))
        take_in(platform)
    assert [warning.place for warning in find_warnings(platform, limit=10)] == ["$.f4", "$.f3", "$.f2"]


def test_an_entity_without_a_row_is_moved_archived_and_restored_as_its_events_say(platform: Platform) -> None:
    send(
        platform,
        ("mcp.task.created", {"taskId": "e", "title": "Plan", "description": "all of it", "boardId": "b1"}),
        ("mcp.task.moved", {"taskId": "e", "boardId": "b2"}),
    )
    drain_all(platform)
    row = ledger(platform)["e"]
    assert (row["title"], row["content"], row["metadata"]) == ("Plan", "all of it", {"board_id": "b2"})
    send(platform, ("mcp.task.archived", {"taskId": "e"}))
    drain_all(platform)
    assert ledger(platform)["e"]["deleted"]
    send(platform, ("mcp.task.assigned", {"taskId": "e", "assigneeId": "u"}), ("mcp.task.restored", {"taskId": "e"}))
    drain_all(platform)
    row = ledger(platform)["e"]
    assert (row["deleted"], row["title"], row["metadata"]) == (False, "Plan", {"board_id": "b2", "assignee_id": "u"})
    send(platform, ("mcp.task.updated", {"taskId": "e", "title": "Another"}))
    drain_all(platform)
    assert ledger(platform)["e"]["metadata"] == {}


def test_a_relationship_request_makes_no_entity_unless_it_carries_content(platform: Platform) -> None:
    send(
        platform,
        ("relationship.analyze.request", {"entity_id": "a", "entity_type": "memory", "context": {"why": "x"}}),
        ("relationship.analyze.request", {"entity_id": "b", "entity_type": "memory", "content": "tea"}),
    )
    drain_all(platform, "memory")
    assert set(ledger(platform, "memory")) == {"b"}


def test_changes_that_wait_in_the_inbox_are_plain_json(platform: Platform) -> None:
    send(platform, ("mcp.task.moved", {"taskId": "e", "boardId": "b2"}))
    take_in(platform)
    assert rows(platform, "SELECT payload FROM {schema}.inbox") == [
        ({"changed": {"fields": {"board_id": "b2"}, "alive": None}},)
    ]
