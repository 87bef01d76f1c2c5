"""A message whose entity is clear is an event, whatever else is odd: what is sound is taken, what is not is named."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_assets.entities.refs import EntityRef
from mcp_assets.events import DEFAULT_TYPE_NAMES, Carried, Changed, ErrorKind, Event, Verb, parse
from mcp_assets.events.decode import MAX_BYTES, MAX_DEPTH
from mcp_assets.events.oddities import MAX_KEPT

TASK = EntityRef("task", "1")


def accepted(subject: str, body: Any) -> Event:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    event = parse(subject, raw, DEFAULT_TYPE_NAMES)
    assert isinstance(event, Event), event
    return event


def places(event: Event) -> set[tuple[str, ErrorKind]]:
    return {(oddity.place, oddity.kind) for oddity in event.oddities}


WRONG, BAD_TIME = ErrorKind.WRONG_TYPE, ErrorKind.BAD_TIMESTAMP
UNKNOWN = ErrorKind.UNKNOWN_TYPE
NOT_FINITE, BAD_TEXT, TOO_DEEP = ErrorKind.NOT_FINITE, ErrorKind.BAD_TEXT, ErrorKind.TOO_DEEP


@pytest.mark.parametrize(
    ("body", "place", "kind", "state"),
    [
        ({"title": 5}, "$.title", WRONG, Carried("5", "", {})),
        ({"title": "t", "content": {"text": "x"}}, "$.content", WRONG, Carried("t", "", {})),
        ({"content": 5}, "$.content", WRONG, Carried(None, "5", {})),
        ({"description": {}, "title": "t"}, "$.description", WRONG, Carried("t", "", {})),
        ({"title": "t", "tags": "a, b,"}, "$.tags", WRONG, Carried("t", "", {"tags": ["a", "b"]})),
        ({"title": "t", "tags": {"a": 1}}, "$.tags", WRONG, Carried("t", "", {})),
        ({"title": "t", "tags": ["a", None]}, "$.tags[]", WRONG, Carried("t", "", {"tags": ["a"]})),
        (
            {"title": "t", "tags": [{"name": "a"}, {"label": "b"}, {"colour": "red"}, 7, True]},
            "$.tags[]",
            WRONG,
            Carried("t", "", {"tags": ["a", "b", "7"]}),
        ),
        ({"title": "t", "concepts": [1]}, "$.concepts[]", WRONG, Carried("t", "", {"concepts": ["1"]})),
        ({"title": "t", "metadata": []}, "$.metadata", WRONG, Carried("t", "", {})),
        ({"metadata": {"tags": "a,b"}}, "$.metadata.tags", WRONG, Carried(None, "", {"tags": ["a", "b"]})),
        ({"metadata": {"title": 1, "n": 2}}, "$.metadata.title", WRONG, Carried("1", "", {"n": 2})),
        ({"title": "t", "context": 5}, "$.context", WRONG, Carried("t", "", {})),
        (
            {"title": "t", "boardId": 1, "board_id": 2},
            "$.board_id",
            ErrorKind.AMBIGUOUS,
            Carried("t", "", {"board_id": 1}),
        ),
        ({"title": "t", "n": 2**64}, "$.n", WRONG, Carried("t", "", {})),
        ({"title": "t", "n": [1, 2**64]}, "$.n[]", WRONG, Carried("t", "", {"n": [1, None]})),
        ({"title": "t", "n": float("nan")}, "$.n", NOT_FINITE, Carried("t", "", {})),
        ({"title": "a\0b"}, "$.title", BAD_TEXT, Carried("a\ufffdb", "", {})),
        ({"title": "t", "s": ["x\ud83d"]}, "$.s[]", BAD_TEXT, Carried("t", "", {"s": ["x\ufffd"]})),
        ({"metadata": {"a\0": 1, "b": 2}}, '$.metadata["a\\u0000"]', BAD_TEXT, Carried(None, "", {"b": 2})),
        ({"title": "t", "entityType": "person"}, "$.entityType", UNKNOWN, Carried("t", "", {"entityType": "person"})),
        ({"title": "t", "entityType": 7}, "$.entityType", WRONG, Carried("t", "", {})),
        ({"title": "t", "data": "x"}, None, None, Carried("t", "", {"data": "x"})),
    ],
)  # fmt: skip
def test_what_is_sound_of_an_odd_state_is_taken_and_what_is_not_is_named(
    body: dict[str, Any], place: str | None, kind: ErrorKind | None, state: Carried
) -> None:
    event = accepted("mcp.task.created", {"id": "1", **body})
    assert (event.ref, event.carried) == (TASK, state)
    assert places(event) == (set() if place is None else {(place, kind)})


@pytest.mark.parametrize(
    ("envelope", "place", "kind", "message_id"),
    [
        ({"messageId": 5}, "$.messageId", WRONG, "5"),
        ({"messageId": {}}, "$.messageId", WRONG, None),
        ({"message_id": "x" * 513}, "$.message_id", ErrorKind.BAD_ID, None),
        ({"message_id": "a\0"}, "$.message_id", BAD_TEXT, None),
        ({"message_id": "a", "messageId": "b"}, "$.messageId", ErrorKind.AMBIGUOUS, "a"),
        ({"source": {"name": "s"}}, "$.source", WRONG, None),
        ({"type": 1}, "$.type", WRONG, None),
        ({"version": True}, "$.version", WRONG, None),
        ({"timestamp": False}, "$.timestamp", WRONG, None),
        *(
            ({"timestamp": timestamp}, "$.timestamp", BAD_TIME, None)
            for timestamp in [
                "",
                "yesterday",
                "2026-03-01",
                "2026-02-30T12:00:00Z",
                "2026-03-01T24:00:00Z",
                "2026-03-01T12:00:61Z",
                "2026-03-01T12:00:00+24:00",
                "2026-W09-7T12:00:00Z",
                "٢٠٢٦-03-01T12:00:00Z",
                "1772366400000",
                -1,
                1e20,
            ]
        ),
    ],
)
def test_an_odd_envelope_does_not_stand_in_the_way_of_its_entity(
    envelope: dict[str, Any], place: str, kind: ErrorKind, message_id: str | None
) -> None:
    event = accepted("mcp.task.created", {**envelope, "data": {"id": "1", "title": "t"}})
    assert (event.ref, event.carried, event.message_id) == (TASK, Carried("t", "", {}), message_id)
    assert places(event) == {(place, kind)}


@pytest.mark.parametrize("offset", ["+0000", "-0530", "+00"])
def test_an_offset_without_a_colon_is_no_oddity(offset: str) -> None:
    assert accepted("mcp.task.created", {"timestamp": f"2026-03-01T12:00:00{offset}", "id": "1"}).oddities == ()


def test_an_operation_that_is_no_text_is_looked_past() -> None:
    event = accepted("vector.index.request", {"taskId": "1", "operation": 5})
    assert (event.ref, event.verb, places(event)) == (TASK, Verb.LOOK, {("$.operation", WRONG)})


def nested(depth: int) -> bytes:
    return b'{"id": "1", "a": ' + b"[" * (depth - 1) + b"]" * (depth - 1) + b', "title": "t ]}"}'


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 900, 5_000, 400_000])
def test_a_field_that_is_nested_too_deep_is_cut_off_where_it_is(depth: int) -> None:
    event = accepted("mcp.task.created", nested(depth))
    assert event.ref == TASK
    assert event.carried is not None
    assert event.carried.title == "t ]}"
    assert {kind for _, kind in places(event)} == {TOO_DEEP}
    assert json.dumps(event.carried.metadata).count("[") == MAX_DEPTH - 1


def test_the_reference_memory_server_is_understood() -> None:
    body = {"name": "Ada", "entityType": "person", "observations": ["likes tea", "lives in Bath"]}
    event = accepted("mcp.memory.node.stored", {"data": body})
    assert event.ref == EntityRef("memory", "Ada")
    assert event.carried == Carried("Ada", "likes tea\nlives in Bath", {"entityType": "person"})
    assert accepted("mcp.memory.node.stored", {"memoryId": "m", **body}).ref == EntityRef("memory", "m")


def test_observations_beside_a_text_are_metadata() -> None:
    event = accepted("mcp.memory.stored", {"memoryId": "m", "content": "c", "observations": ["o"], "name": "n"})
    assert event.carried == Carried(None, "c", {"observations": ["o"], "name": "n"})


def test_keys_of_the_senders_own_metadata_keep_their_spelling() -> None:
    metadata = {"parentId": 1, "parent_id": 2, "HTTPStatus": 3}
    event = accepted("mcp.task.created", {"taskId": "1", "boardId": "b", "metadata": metadata})
    assert event.carried == Carried(None, "", {**metadata, "board_id": "b"})
    assert event.oddities == ()


def test_two_spellings_of_an_id_that_agree_are_clear_and_an_unsound_other_field_does_not_matter() -> None:
    assert accepted("mcp.task.created", {"taskId": "1", "task_id": "1", "id": 2**70}).ref == TASK


@pytest.mark.parametrize(
    ("subject", "body", "verb", "changed"),
    [
        ("mcp.kanban.task.moved", {"boardId": "b2"}, Verb.LOOK, Changed({"board_id": "b2"})),
        ("mcp.task.assigned", {"metadata": {"assignee": "u"}}, Verb.LOOK, Changed({"assignee": "u"})),
        ("mcp.task.restored", {}, Verb.LOOK, Changed({}, alive=True)),
        ("mcp.task.restored", {"status": "open"}, Verb.LOOK, Changed({"status": "open"}, alive=True)),
        ("mcp.task.archived", {"title": "t"}, Verb.DELETE, Changed({}, alive=False)),
        ("mcp.task.moved", {}, Verb.LOOK, None),
        ("mcp.task.deleted", {"title": "t"}, Verb.DELETE, None),
        ("mcp.task.updated", {"boardId": "b2"}, Verb.LOOK, None),
    ],
)
def test_moved_assigned_archived_and_restored_change_what_they_say_and_no_more(
    subject: str, body: dict[str, Any], verb: Verb, changed: Changed | None
) -> None:
    event = accepted(subject, {"taskId": "1", **body})
    assert (event.verb, event.carried, event.changed) == (verb, None, changed)


def test_a_moved_event_with_the_whole_state_states_it() -> None:
    event = accepted("mcp.task.moved", {"taskId": "1", "title": "t", "boardId": "b"})
    assert (event.carried, event.changed) == (Carried("t", "", {"board_id": "b"}), None)


@pytest.mark.parametrize("body", [{"title": "t"}, {"metadata": {"a": 1}}, {"context": {"a": 1}}, {"content": ""}])
def test_a_relationship_request_without_a_text_carries_nothing(body: dict[str, Any]) -> None:
    assert accepted("relationship.analyze.request", {"taskId": "1", **body}).carried is None


def test_warnings_of_one_message_are_few_and_name_a_list_once() -> None:
    many = {f"f{number}": 2**70 for number in range(1_000)}
    assert len(accepted("mcp.task.created", {"id": "1", **many}).oddities) == MAX_KEPT
    event = accepted("mcp.task.created", {"id": "1", "title": "t", "tags": [1] * 1_000})
    assert places(event) == {("$.tags[]", WRONG)}


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from([2**64, 10**30, "\0", "\ud800", "a, b"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "a\0", "tags"]), inner),
    max_leaves=8,
)
FIELDS = ["title", "content", "description", "tags", "concepts", "metadata", "context", "priority", "entityType"]
ENVELOPE = ["timestamp", "messageId", "source", "type", "version"]


@settings(deadline=None)
@given(
    st.sampled_from(["created", "moved", "restored", "deleted"]),
    st.dictionaries(st.sampled_from(FIELDS), ODD),
    st.dictionaries(st.sampled_from(ENVELOPE), ODD),
)
def test_no_field_but_the_id_stands_in_the_way_of_a_look(
    verb: str, data: dict[str, Any], envelope: dict[str, Any]
) -> None:
    event = accepted(f"mcp.kanban.task.{verb}", {**envelope, "data": {"taskId": "1", **data}})
    assert event.ref == TASK
    assert len(json.dumps([oddity.sentence for oddity in event.oddities])) < MAX_BYTES
