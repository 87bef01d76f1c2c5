"""Properties of `parse` over generated input: it never raises, and what it accepts can be stored."""

import copy
import json
from dataclasses import asdict
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from mcp_assets.entities.refs import MAX_ID_LENGTH, EntityRef
from mcp_assets.events import DEFAULT_TYPE_NAMES, Carried, ErrorKind, Event, MessageKind, Rejected, Verb, parse

SUBJECTS = st.sampled_from(
    [
        "mcp.task.created",
        "mcp.kanban.task.moved",
        "mcp.wiki.page.deleted",
        "mcp.memory.node.stored",
        "mcp.kanban.board.updated",
        "vector.index.request",
        "relationship.analyze.request",
        "data.sync.request",
        "data.validate.request",
    ]
)
FIELD_NAMES = st.sampled_from(
    [
        "id",
        "taskId",
        "task_id",
        "pageId",
        "nodeId",
        "entityId",
        "entity_id",
        "entityType",
        "entity_type",
        "title",
        "content",
        "description",
        "metadata",
        "context",
        "tags",
        "concepts",
        "boardId",
        "operation",
        "data",
        "messageId",
        "message_id",
        "timestamp",
        "source",
        "version",
        "type",
        "syncType",
        "sync_type",
        "entityIds",
        "entity_ids",
    ]
)
ANY_TEXT = st.text(st.characters(), max_size=8) | st.sampled_from(["task", "full_sync", "delete", "\0", "\ud800"])
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from([2**63, -(2**64), 10**30]) | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(FIELD_NAMES | ANY_TEXT, inner, max_size=5),
    max_leaves=12,
)

STORABLE_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
STORABLE_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | STORABLE_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(STORABLE_TEXT, inner, max_size=3),
    max_leaves=6,
)
IDS = STORABLE_TEXT.filter(lambda text: text != "" and text == text.strip())

VALID_MESSAGES: list[tuple[str, dict[str, Any]]] = [
    (
        "mcp.kanban.task.created",
        {
            "messageId": "n1",
            "timestamp": "2026-03-01T12:00:00Z",
            "source": "s",
            "version": "1",
            "type": "task.created",
            "data": {
                "taskId": "t1",
                "boardId": "b1",
                "title": "T",
                "description": "D",
                "priority": 1,
                "tags": ["a", "b"],
            },
        },
    ),
    (
        "vector.index.request",
        {
            "message_id": "n1",
            "timestamp": 1772366400000,
            "data": {"entity_id": 7, "entity_type": "page", "content": "c", "metadata": {"title": "T", "tags": ["a"]}},
        },
    ),
    (
        "mcp.memory.node.stored",
        {"memoryId": "m1", "content": "c", "context": {"place": {"room": "x"}}, "concepts": ["a"]},
    ),
    (
        "data.sync.request",
        {"data": {"sync_type": "incremental_sync", "entity_ids": ["task:1", "2"], "context": {"why": "drift"}}},
    ),
]


def assert_sound(result: Event | Rejected) -> None:
    """UTF-8 and strict JSON can hold `result`, and it is consistent in itself."""
    if isinstance(result, Rejected):
        assert isinstance(result.error_kind, ErrorKind)
        assert result.error.encode()
        assert "\0" not in result.error
        return
    text = json.dumps(asdict(result), allow_nan=False, ensure_ascii=False)
    assert text.encode()
    assert r"\u0000" not in text.replace(r"\\", "")
    about_one_entity = result.kind in (MessageKind.ENTITY, MessageKind.RELATE)
    assert (result.ref is not None) is about_one_entity
    assert (result.request is None) is about_one_entity
    if result.ref is not None:
        assert result.ref.type in DEFAULT_TYPE_NAMES.known()
        assert 0 < len(result.ref.id) <= MAX_ID_LENGTH


@settings(deadline=None)
@given(SUBJECTS | st.text(st.characters(), max_size=20), st.binary(max_size=40))
@example("mcp.task.created", b'{"id":' + b"[" * 5000)
@example("mcp.task.created", b'{"id": ' + b"9" * 5000 + b"}")
def test_no_bytes_on_any_subject_make_it_raise(subject: str, raw: bytes) -> None:
    assert_sound(parse(subject, raw, DEFAULT_TYPE_NAMES))


@settings(deadline=None)
@given(SUBJECTS, ANY_JSON | st.dictionaries(FIELD_NAMES, ANY_JSON, max_size=6), st.booleans())
def test_no_json_makes_it_raise_and_what_it_accepts_can_be_stored(
    subject: str, document: Any, ensure_ascii: bool
) -> None:
    raw = json.dumps(document, ensure_ascii=ensure_ascii).encode("utf-8", "surrogatepass")
    assert_sound(parse(subject, raw, DEFAULT_TYPE_NAMES))


def places(document: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in `document`."""
    if isinstance(document, dict | list):
        keys = document.keys() if isinstance(document, dict) else range(len(document))
        return [place for key in keys for place in ((document, key), *places(document[key]))]
    return []


@settings(deadline=None)
@given(st.sampled_from(VALID_MESSAGES), st.data())
def test_a_valid_message_with_values_swapped_is_accepted_or_rejected_soundly(
    message: tuple[str, dict[str, Any]], data: st.DataObject
) -> None:
    subject, document = message[0], copy.deepcopy(message[1])
    for _ in range(data.draw(st.integers(1, 3))):
        container, key = data.draw(st.sampled_from(places(document)))
        container[key] = data.draw(ANY_JSON)
    assert_sound(parse(subject, json.dumps(document).encode(), DEFAULT_TYPE_NAMES))


@settings(deadline=None)
@given(st.sampled_from(VALID_MESSAGES), st.data())
def test_a_valid_message_with_bytes_damaged_is_accepted_or_rejected_soundly(
    message: tuple[str, dict[str, Any]], data: st.DataObject
) -> None:
    raw = json.dumps(message[1]).encode()
    start = data.draw(st.integers(0, len(raw)))
    end = data.draw(st.integers(start, min(len(raw), start + 6)))
    raw = raw[:start] + data.draw(st.binary(max_size=4)) + raw[end:]
    assert_sound(parse(message[0], raw, DEFAULT_TYPE_NAMES))


def test_the_valid_messages_are_valid() -> None:
    for subject, document in VALID_MESSAGES:
        assert isinstance(parse(subject, json.dumps(document).encode(), DEFAULT_TYPE_NAMES), Event)


def in_camel_case(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def in_dialect(fields: dict[str, Any], camel: bool) -> dict[str, Any]:
    return {in_camel_case(name): value for name, value in fields.items()} if camel else fields


RESERVED = {
    "id",
    "task_id",
    "page_id",
    "memory_id",
    "node_id",
    "entity_id",
    "entity_type",
    "title",
    "content",
    "description",
    "metadata",
    "context",
    "tags",
    "concepts",
    "message_id",
    "timestamp",
    "data",
    "operation",
    "action",
}
METADATA = st.dictionaries(
    st.from_regex(r"[a-z]{2,5}(_[a-z]{2,5}){0,2}", fullmatch=True).filter(lambda name: name not in RESERVED),
    STORABLE_JSON.filter(lambda value: value is not None),
    max_size=4,
)


@settings(deadline=None)
@given(
    entity_type=st.sampled_from(["task", "page", "memory"]),
    entity_id=IDS,
    title=st.none() | STORABLE_TEXT,
    content=STORABLE_TEXT,
    metadata=METADATA,
    tags=st.none() | st.lists(STORABLE_TEXT, max_size=3),
    message_id=st.none() | STORABLE_TEXT.filter(bool),
)
def test_every_dialect_and_shape_of_one_state_gives_the_same_event(
    entity_type: str,
    entity_id: str,
    title: str | None,
    content: str,
    metadata: dict[str, Any],
    tags: list[str] | None,
    message_id: str | None,
) -> None:
    metadata = metadata if tags is None else {**metadata, "tags": tags}
    subject = "vector.index.request"
    expected = Event(
        MessageKind.ENTITY,
        subject,
        EntityRef(entity_type, entity_id),
        Verb.LOOK,
        Carried(title, content, metadata),
        message_id,
        request=None,
    )
    for camel in (False, True):
        # The sender's own metadata keep their keys, whatever the dialect.
        inner = metadata
        shapes = [
            in_dialect({f"{entity_type}_id": entity_id, "title": title, "content": content, **metadata}, camel),
            in_dialect({f"{entity_type}_id": entity_id, "title": title, "description": content, **metadata}, camel),
            in_dialect(
                {
                    "entity_id": entity_id,
                    "entity_type": entity_type,
                    "title": title,
                    "content": content,
                    "metadata": inner,
                },
                camel,
            ),
            in_dialect(
                {
                    "entity_id": entity_id,
                    "entity_type": entity_type,
                    "content": content,
                    "metadata": {"title": title, **inner},
                },
                camel,
            ),
        ]
        envelope = in_dialect({"message_id": message_id, "timestamp": 0}, camel)
        for shape in shapes:
            for body in ({**envelope, "data": shape}, {**envelope, **shape}):
                assert parse(subject, json.dumps(body).encode(), DEFAULT_TYPE_NAMES) == expected
