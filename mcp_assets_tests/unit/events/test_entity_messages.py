"""Entity events, index requests and relationship requests: each dialect, each shape."""

import json
from typing import Any

import pytest

from mcp_assets.entities.refs import EntityRef
from mcp_assets.events import DEFAULT_TYPE_NAMES, Carried, Changed, Event, MessageKind, TypeNames, Verb, parse

TASK = EntityRef("task", "t1")
PAGE = EntityRef("page", "p1")
MEMORY = EntityRef("memory", "m1")


def accepted(subject: str, body: Any, types: TypeNames = DEFAULT_TYPE_NAMES) -> Event:
    event = parse(subject, json.dumps(body).encode(), types)
    assert isinstance(event, Event), event
    return event


def snake(data: Any) -> dict[str, Any]:
    return {"message_id": "n1", "timestamp": "2026-03-01T12:00:00Z", "source": "kanban-server", "data": data}


def camel(data: Any) -> dict[str, Any]:
    return {
        "messageId": "n1",
        "timestamp": 1772366400000,
        "source": "kanban-server",
        "version": "1.0",
        "type": "entity.event",
        "data": data,
    }


TASK_SHAPE = {
    "taskId": "t1",
    "boardId": "b1",
    "title": "Fix login",
    "description": "It fails",
    "priority": "high",
    "assigneeId": "u1",
    "tags": ["auth"],
}
TASK_STATE = Carried(
    "Fix login", "It fails", {"board_id": "b1", "priority": "high", "assignee_id": "u1", "tags": ["auth"]}
)
PAGE_SHAPE = {
    "pageId": "p1",
    "title": "Setup",
    "content": "Install it",
    "category": "guides",
    "authorId": "u1",
    "tags": [],
    "previousVersion": 3,
}
PAGE_STATE = Carried(
    "Setup", "Install it", {"category": "guides", "author_id": "u1", "tags": [], "previous_version": 3}
)
MEMORY_SHAPE = {
    "memoryId": "m1",
    "content": "Prefers tea",
    "context": "said at breakfast",
    "concepts": ["tea"],
    "authorId": "u1",
}
MEMORY_STATE = Carried(None, "Prefers tea", {"context": "said at breakfast", "concepts": ["tea"], "author_id": "u1"})


@pytest.mark.parametrize("envelope", [snake, camel, dict])
@pytest.mark.parametrize(
    ("subject", "shape", "ref", "state"),
    [
        ("mcp.task.created", TASK_SHAPE, TASK, TASK_STATE),
        ("mcp.kanban.task.assigned", TASK_SHAPE, TASK, TASK_STATE),
        ("mcp.kanban.card.moved", TASK_SHAPE, TASK, TASK_STATE),
        ("mcp.wiki.page.updated", PAGE_SHAPE, PAGE, PAGE_STATE),
        ("mcp.wiki.restored", PAGE_SHAPE, PAGE, PAGE_STATE),
        ("mcp.memory.node.stored", MEMORY_SHAPE, MEMORY, MEMORY_STATE),
        ("mcp.memory.stored", MEMORY_SHAPE, MEMORY, MEMORY_STATE),
        ("vector.index.request", TASK_SHAPE, TASK, TASK_STATE),
        ("vector.index.request", PAGE_SHAPE, PAGE, PAGE_STATE),
        ("vector.index.request", MEMORY_SHAPE, MEMORY, MEMORY_STATE),
    ],
)
def test_an_entity_shape_carries_its_state_in_any_envelope(
    envelope: Any, subject: str, shape: dict[str, Any], ref: EntityRef, state: Carried
) -> None:
    message_id = None if envelope is dict else "n1"
    assert accepted(subject, envelope(shape)) == Event(
        MessageKind.ENTITY, subject, ref, Verb.LOOK, state, message_id, request=None
    )


@pytest.mark.parametrize("envelope", [snake, camel, dict])
@pytest.mark.parametrize(
    "data",
    [
        {
            "entity_id": "p1",
            "entity_type": "page",
            "content": "Install it",
            "metadata": {"title": "Setup", "category": "guides"},
        },
        {
            "entityId": "p1",
            "entityType": "wiki_page",
            "title": "Setup",
            "content": "Install it",
            "metadata": {"category": "guides"},
        },
        {"id": "p1", "entity_type": "PAGE", "content": "Install it", "title": "Setup", "category": "guides"},
    ],
)
@pytest.mark.parametrize("subject", ["vector.index.request", "relationship.analyze.request", "mcp.wiki.page.updated"])
def test_the_generic_shape_carries_the_same_state_in_either_dialect(
    envelope: Any, data: dict[str, Any], subject: str
) -> None:
    event = accepted(subject, envelope(data))
    assert event.ref == PAGE
    assert event.carried == Carried("Setup", "Install it", {"category": "guides"})
    assert event.kind is (MessageKind.RELATE if subject == "relationship.analyze.request" else MessageKind.ENTITY)


@pytest.mark.parametrize("envelope", [snake, camel])
def test_a_relationship_request_bears_context_in_place_of_metadata(envelope: Any) -> None:
    data = {"entityId": "t1", "entityType": "task", "content": "c", "context": {"title": "Fix", "dependsOn": ["t2"]}}
    event = accepted("relationship.analyze.request", envelope(data))
    assert event == Event(
        MessageKind.RELATE,
        "relationship.analyze.request",
        TASK,
        Verb.LOOK,
        Carried("Fix", "c", {"dependsOn": ["t2"]}),
        "n1",
        request=None,
    )


@pytest.mark.parametrize(
    "data",
    [
        {"id": "t1"},
        {"taskId": "t1"},
        {"entity_id": "t1", "entity_type": "task"},
        {"taskId": "t1", "title": None, "description": None, "tags": None, "metadata": None},
        {"taskId": "t1", "metadata": {}},
        {"taskId": "t1", "boardId": "b2", "priority": 1},
        {"taskId": "t1", "context": {"reason": "moved"}},
    ],
)
def test_a_body_without_title_content_description_and_metadata_is_thin(data: dict[str, Any]) -> None:
    for body in (data, snake(data), camel(data)):
        event = accepted("mcp.kanban.task.moved", body)
        assert event.ref == TASK
        assert event.carried is None


@pytest.mark.parametrize(
    ("data", "state"),
    [
        ({"title": "T"}, Carried("T", "", {})),
        ({"title": ""}, Carried("", "", {})),
        ({"content": ""}, Carried(None, "", {})),
        ({"description": "d"}, Carried(None, "d", {})),
        ({"content": "", "description": "d"}, Carried(None, "d", {})),
        ({"content": "c", "description": "d"}, Carried(None, "c", {"description": "d"})),
        ({"metadata": {"priority": 1}}, Carried(None, "", {"priority": 1})),
    ],
)
def test_content_is_the_content_or_else_the_description(data: dict[str, Any], state: Carried) -> None:
    assert accepted("mcp.task.updated", {"id": "t1", **data}).carried == state


def test_a_shape_key_wins_over_metadata_and_metadata_over_context() -> None:
    data = {
        "memoryId": "m1",
        "content": "c",
        "importance": 1,
        "metadata": {"importance": 2, "mood": "good"},
        "context": {"importance": 3, "mood": "bad", "place": "home", "title": "Tea"},
    }
    assert accepted("mcp.memory.node.stored", camel(data)).carried == Carried(
        "Tea", "c", {"importance": 1, "mood": "good", "place": "home"}
    )


@pytest.mark.parametrize(
    ("title", "metadata_title", "context_title", "expected"),
    [("a", "b", "c", "a"), (None, "b", "c", "b"), (None, None, "c", "c"), ("", "b", "c", "")],
)
def test_a_title_is_taken_from_the_shape_then_metadata_then_context(
    title: str | None, metadata_title: str | None, context_title: str | None, expected: str
) -> None:
    data: dict[str, Any] = {"id": "m1", "content": "x", "title": title}
    data |= {"metadata": {"title": metadata_title}, "context": {"title": context_title}}
    assert accepted("mcp.memory.stored", data).carried == Carried(expected, "x", {})


def test_fields_of_the_body_are_put_into_snake_case_and_those_of_the_senders_metadata_are_not() -> None:
    metadata = {
        "parentPageID": "p0",
        "sourceURLPath": "/a",
        "HTTPStatus": 1,
        "see also": 2,
        "nested": {"innerKey": [{"deepKey": None}]},
    }
    carried = accepted("mcp.page.updated", {"pageId": "p1", "wikiId": "w", "metadata": metadata}).carried
    assert carried is not None
    assert carried.metadata == {**metadata, "wiki_id": "w"}


def test_a_null_field_is_an_absent_field() -> None:
    data = {"taskId": None, "task_id": "t1", "title": "T", "assigneeId": None, "metadata": {"dueDate": None, "n": 1}}
    event = accepted("mcp.task.updated", {"source": None, "version": None, "data": data})
    assert event.ref == TASK
    assert event.carried == Carried("T", "", {"n": 1})


def test_an_empty_message_id_is_none() -> None:
    assert accepted("mcp.task.updated", {"messageId": "", "data": {"id": "t1"}}).message_id is None


def test_a_body_without_envelope_keeps_source_version_and_type_for_the_entity() -> None:
    body = {
        "messageId": "n1",
        "timestamp": 0,
        "pageId": "p1",
        "content": "c",
        "version": 4,
        "source": "import",
        "type": "guide",
    }
    event = accepted("mcp.wiki.page.updated", body)
    assert event.message_id == "n1"
    assert event.carried == Carried(None, "c", {"version": 4, "source": "import", "type": "guide"})


def test_the_type_in_an_envelope_is_the_message_type() -> None:
    body = {"messageId": "n1", "type": "page", "data": {"taskId": "t1"}}
    assert accepted("vector.index.request", body).ref == TASK


@pytest.mark.parametrize(
    ("subject", "data", "ref"),
    [
        # Explicit wins.
        ("mcp.kanban.task.created", {"entityType": "page", "id": "p1"}, PAGE),
        ("mcp.kanban.task.created", {"entity_type": "Node", "entity_id": "m1", "taskId": "t1"}, MEMORY),
        ("mcp.whatever.created", {"entityType": "task", "id": "t1"}, TASK),
        # Then the subject, if the body has an id for it.
        ("mcp.memory.node.stored", {"id": "m1", "taskId": "t1"}, MEMORY),
        ("mcp.wiki.page.created", {"pageId": "p1", "taskId": "t1"}, PAGE),
        ("mcp.KANBAN.Task.created", {"entityId": "t1"}, TASK),
        ("mcp.wiki.task.created", {"id": "t1"}, TASK),
        # Then the only typed id key.
        ("mcp.kanban.board.updated", {"taskId": "t1", "boardId": "b1"}, TASK),
        ("vector.index.request", {"page_id": "p1"}, PAGE),
        ("vector.index.request", {"nodeId": "m1"}, MEMORY),
        ("relationship.analyze.request", {"memory_id": "m1", "id": "n1"}, MEMORY),
        # Which of several ids it is.
        ("mcp.task.created", {"id": "evt-1", "taskId": "t1"}, TASK),
        ("mcp.task.created", {"entityId": "t1", "taskId": "t1", "task_id": "t1"}, TASK),
        ("mcp.memory.stored", {"memoryId": "m1", "nodeId": "n9"}, MEMORY),
        ("mcp.memory.stored", {"entityId": "m1", "nodeId": "n9"}, MEMORY),
        ("mcp.memory.stored", {"nodeId": "m1", "id": "evt-1"}, MEMORY),
    ],
)
def test_the_entity_is_found_by_explicit_type_then_subject_then_typed_id_key(
    subject: str, data: dict[str, Any], ref: EntityRef
) -> None:
    assert accepted(subject, data).ref == ref
    assert accepted(subject, camel(data)).ref == ref


def test_ids_of_the_entity_are_no_metadata_but_ids_of_others_are() -> None:
    data = {"nodeId": "m1", "id": "evt-1", "taskId": "t1", "content": "c"}
    assert accepted("mcp.memory.node.stored", data).carried == Carried(None, "c", {"task_id": "t1"})


@pytest.mark.parametrize(
    ("entity_id", "text"),
    [(7, "7"), (-1, "-1"), (2**63 - 1, "9223372036854775807"), ("7", "7"), ("a b", "a b"), ("ß" * 512, "ß" * 512)],
)
def test_an_id_is_a_string_or_an_integer_in_decimal(entity_id: str | int, text: str) -> None:
    assert accepted("mcp.task.created", {"taskId": entity_id}).ref == EntityRef("task", text)


@pytest.mark.parametrize("subject", ["mcp.kanban.task.deleted", "mcp.task.archived"])
def test_of_a_delete_only_the_id_counts(subject: str) -> None:
    event = accepted(subject, camel({**TASK_SHAPE, "tags": 5, "metadata": "none"}))
    changed = Changed({}, alive=False) if subject.endswith("archived") else None
    assert event == Event(MessageKind.ENTITY, subject, TASK, Verb.DELETE, None, "n1", request=None, changed=changed)


@pytest.mark.parametrize(
    ("body", "verb"),
    [
        (snake({"task_id": "t1", "operation": "delete"}), Verb.DELETE),
        (camel({"taskId": "t1", "action": "DELETE"}), Verb.DELETE),
        ({**camel({"taskId": "t1"}), "operation": "delete"}, Verb.DELETE),
        ({"taskId": "t1", "action": "delete"}, Verb.DELETE),
        (camel({"taskId": "t1", "operation": "upsert"}), Verb.LOOK),
        ({**camel({"taskId": "t1", "operation": "upsert"}), "action": "delete"}, Verb.LOOK),
        (camel({"taskId": "t1"}), Verb.LOOK),
    ],
)
def test_an_index_request_may_ask_to_delete(body: dict[str, Any], verb: Verb) -> None:
    assert accepted("vector.index.request", body).verb is verb


def test_an_operation_is_metadata_except_in_an_index_request() -> None:
    data = {"taskId": "t1", "title": "T", "operation": "delete"}
    assert accepted("vector.index.request", {**data, "operation": "upsert"}).carried == Carried("T", "", {})
    event = accepted("mcp.task.updated", data)
    assert (event.verb, event.carried) == (Verb.LOOK, Carried("T", "", {"operation": "delete"}))


@pytest.mark.parametrize(
    "timestamp",
    [
        "2026-03-01T12:00:00Z",
        "2026-03-01t12:00:00.123456789z",
        "2026-03-01 12:00:00+05:30",
        "2026-03-01T12:00:00.5-00:00",
        "2016-12-31T23:59:60Z",
        "2026-03-01T12:00:00.123456",
        1772366400000,
        1772366400000.25,
        0,
        None,
    ],
)
def test_a_timestamp_is_rfc_3339_or_epoch_milliseconds(timestamp: Any) -> None:
    assert accepted("mcp.task.created", {"timestamp": timestamp, "data": {"id": "t1"}}).ref == TASK


def test_a_byte_order_mark_is_skipped() -> None:
    event = parse("mcp.task.created", b'\xef\xbb\xbf{"id": "t1"}', DEFAULT_TYPE_NAMES)
    assert isinstance(event, Event)
    assert event.ref == TASK


def test_a_type_that_the_caller_registers_has_an_id_key_of_its_own() -> None:
    types = TypeNames.of({"design_doc": ("doc",)})
    assert accepted("vector.index.request", {"designDocId": "d1"}, types).ref == EntityRef("design_doc", "d1")
    assert accepted("mcp.docs.doc.updated", {"id": "d1"}, types).ref == EntityRef("design_doc", "d1")
