"""Messages that are no events: each reason, in words that say what is wrong and where."""

import json
from typing import Any

import pytest

from mcp_assets.entities.refs import MAX_ID_LENGTH
from mcp_assets.events import DEFAULT_TYPE_NAMES, ErrorKind, Event, Rejected, parse
from mcp_assets.events.decode import MAX_BYTES, MAX_DEPTH


def rejected(subject: str, raw: bytes) -> Rejected:
    result = parse(subject, raw, DEFAULT_TYPE_NAMES)
    assert isinstance(result, Rejected), result
    assert result.subject == subject
    return result


def nested(depth: int) -> bytes:
    return b'{"id": "t1", "a": ' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


@pytest.mark.parametrize(
    ("raw", "error_kind", "error"),
    [
        (b"", ErrorKind.EMPTY, "The message is empty."),
        (b" \r\n\t", ErrorKind.EMPTY, "The message is empty."),
        (b"\xef\xbb\xbf", ErrorKind.EMPTY, "The message is empty."),
        (b"\xff\xfe{", ErrorKind.BAD_JSON, "The message is not UTF-8: invalid start byte at byte 0."),
        (b'{"id": "\xed\xa0\x80"}', ErrorKind.BAD_JSON, "not UTF-8: invalid continuation byte at byte 8."),
        ('{"id": "t1"}'.encode("utf-16"), ErrorKind.BAD_JSON, "The message is not UTF-8"),
        (b"\x1f\x8b\x08\x00", ErrorKind.BAD_JSON, "The message is not UTF-8"),
        (b'{"id": "t1",}', ErrorKind.BAD_JSON, "The message is not JSON: "),
        (b'{"id": "t1', ErrorKind.BAD_JSON, "Unterminated string starting at line 1, column 8."),
        (b'{"id": "t1"}{}', ErrorKind.BAD_JSON, "Extra data at line 1, column 13."),
        (b'{"id": "a\x00b"}', ErrorKind.BAD_JSON, "Invalid control character at line 1, column 10."),
        (b"[]", ErrorKind.NOT_AN_OBJECT, "The message is a list, and must be a JSON object."),
        (b"null", ErrorKind.NOT_AN_OBJECT, "The message is null, and must be a JSON object."),
        (b'"t1"', ErrorKind.NOT_AN_OBJECT, "The message is a string, and must be a JSON object."),
        (b"NaN", ErrorKind.NOT_AN_OBJECT, "The message is a number, and must be a JSON object."),
        (
            b'{"id": 9223372036854775808}',
            ErrorKind.WRONG_TYPE,
            "$.id is an integer beyond 64 bits; send it as a string",
        ),
        (b'{"id": -9223372036854775809}', ErrorKind.WRONG_TYPE, "$.id is an integer beyond 64 bits"),
        (b'{"id": NaN}', ErrorKind.NOT_FINITE, "$.id is not a finite number"),
        (b'{"id": "a\\u0000b"}', ErrorKind.BAD_TEXT, "$.id holds a NUL character or a lone surrogate"),
        (b'{"data": {"taskId": "\\ud83d"}}', ErrorKind.BAD_TEXT, "$.data.taskId holds a NUL character"),
        (b"[" * 500_000, ErrorKind.BAD_JSON, "The message is not JSON"),
        (b" " * MAX_BYTES + b"{}", ErrorKind.TOO_LARGE, "The message has 1048578 bytes; at most 1048576 are read."),
    ],
)
def test_bytes_that_are_no_storable_json_object_are_rejected(raw: bytes, error_kind: ErrorKind, error: str) -> None:
    result = rejected("mcp.task.created", raw)
    assert result.error_kind is error_kind
    assert error in result.error


@pytest.mark.parametrize(
    "raw",
    [
        nested(MAX_DEPTH),
        b'{"id": "t1", "a": 1e308}',
        b'{"id": "t1", "a": [9223372036854775807, -9223372036854775808]}',
        b'{"id": "t1", "a": "\\ud83d\\ude00"}',
        b'{"id": "t1", "a": "\\\\u0000"}',
        b'{"id": "t1"}'.ljust(MAX_BYTES),
    ],
)
def test_what_is_just_within_the_limits_is_accepted(raw: bytes) -> None:
    assert isinstance(parse("mcp.task.created", raw, DEFAULT_TYPE_NAMES), Event)


@pytest.mark.parametrize(
    ("subject", "error_kind"),
    [
        ("", ErrorKind.UNKNOWN_SUBJECT),
        ("mcp", ErrorKind.UNKNOWN_SUBJECT),
        ("mcp.created", ErrorKind.UNKNOWN_SUBJECT),
        ("mcp..created", ErrorKind.UNKNOWN_SUBJECT),
        ("mcp.task.created\n", ErrorKind.UNKNOWN_SUBJECT),
        ("mcp.a.b.task.created", ErrorKind.UNKNOWN_SUBJECT),
        ("mcp.*.created", ErrorKind.UNKNOWN_SUBJECT),
        ("mcp.\ud800.task.created", ErrorKind.UNKNOWN_SUBJECT),
        ("MCP.task.created", ErrorKind.UNKNOWN_SUBJECT),
        ("vector.index.completed", ErrorKind.UNKNOWN_SUBJECT),
        ("mcp.task.Created", ErrorKind.UNKNOWN_VERB),
        ("mcp.kanban.task.get", ErrorKind.UNKNOWN_VERB),
    ],
)
def test_a_subject_that_the_stream_does_not_list_is_rejected(subject: str, error_kind: ErrorKind) -> None:
    assert rejected(subject, b'{"taskId": "t1"}').error_kind is error_kind


@pytest.mark.parametrize(
    ("subject", "body", "error_kind", "error"),
    [
        # Ids
        ("mcp.task.created", {}, ErrorKind.MISSING_ID, "names no task: it has neither task_id, entity_id nor id."),
        ("mcp.task.created", {"data": {}}, ErrorKind.MISSING_ID, "The message names no task"),
        ("mcp.task.created", {"id": None}, ErrorKind.MISSING_ID, "The message names no task"),
        ("mcp.task.created", {"data": {"taskId": ""}}, ErrorKind.MISSING_ID, "$.data.taskId is an empty id."),
        ("mcp.task.created", {"pageId": "p", "memoryId": "m"}, ErrorKind.MISSING_ID, "The message names no task"),
        ("mcp.task.created", {"id": True}, ErrorKind.WRONG_TYPE, "$.id is a boolean, and must be a string or an int"),
        (
            "mcp.task.created",
            {"id": 1.0},
            ErrorKind.WRONG_TYPE,
            "$.id is a number, and must be a string or an integer.",
        ),
        ("mcp.task.created", {"id": ["t1"]}, ErrorKind.WRONG_TYPE, "$.id is a list"),
        ("mcp.task.created", {"id": " t1"}, ErrorKind.BAD_ID, '$.id begins or ends with white space: " t1".'),
        ("mcp.task.created", {"id": "t1\u00a0"}, ErrorKind.BAD_ID, "$.id begins or ends with white space"),
        ("mcp.task.created", {"id": "  "}, ErrorKind.BAD_ID, "$.id begins or ends with white space"),
        ("mcp.task.created", {"id": "x" * (MAX_ID_LENGTH + 1)}, ErrorKind.BAD_ID, "$.id has 513 characters; an id has"),
        (
            "mcp.task.created",
            {"data": {"taskId": "t1", "entityId": "t2"}},
            ErrorKind.AMBIGUOUS,
            "$.data.taskId and $.data.entityId differ",
        ),
        (
            "mcp.task.created",
            {"taskId": "t1", "task_id": "t2"},
            ErrorKind.AMBIGUOUS,
            '$ has "task_id" in two spellings',
        ),
        # Entity types
        (
            "mcp.task.created",
            {"pageId": "p1"},
            ErrorKind.WRONG_TYPE,
            "The subject names a task, but the only id, $.pageId, is a page's.",
        ),
        (
            "vector.index.request",
            {"data": {"entityType": "page", "nodeId": "n1"}},
            ErrorKind.WRONG_TYPE,
            "$.data.entityType names a page, but the only id, $.data.nodeId, is a memory's.",
        ),
        (
            "mcp.sprint.created",
            {"data": {"entity_type": "sprint", "id": "1"}},
            ErrorKind.UNKNOWN_TYPE,
            '$.data.entity_type is "sprint", which is no registered entity type; there are task, page, memory.',
        ),
        ("vector.index.request", {"entityType": 1, "id": "1"}, ErrorKind.WRONG_TYPE, "$.entityType is a number"),
        ("mcp.kanban.board.created", {"id": "1"}, ErrorKind.UNKNOWN_TYPE, 'no entity type, and its subject "board";'),
        ("mcp.x.created", {"taskId": "1", "pageId": "2"}, ErrorKind.UNKNOWN_TYPE, "ids of several entity types, and"),
        ("vector.index.request", {"id": "1"}, ErrorKind.UNKNOWN_TYPE, "names no entity type; send entity_type as one"),
        ("vector.index.request", {"type": "task", "data": {"id": "1"}}, ErrorKind.UNKNOWN_TYPE, "no entity type; send"),
        (
            "relationship.analyze.request",
            {"taskId": "1", "pageId": "2"},
            ErrorKind.UNKNOWN_TYPE,
            "several entity types",
        ),
        ("mcp.task.created", {"data": "t1"}, ErrorKind.WRONG_TYPE, "$.data is a string, and must be an object."),
    ],
)
def test_a_body_that_names_no_one_entity_is_rejected(
    subject: str, body: Any, error_kind: ErrorKind, error: str
) -> None:
    result = rejected(subject, json.dumps(body).encode())
    assert result.error_kind is error_kind
    assert error in result.error


@pytest.mark.parametrize(
    ("subject", "body"),
    [
        ("é" * 300, {}),
        (f"mcp.task.{'é' * 300}", {}),
        (f"mcp.{'é' * 300}.created", {"id": "1"}),
        ("mcp.task.created", {"id": " " + "é" * 300}),
        ("vector.index.request", {"entityType": "é" * 300, "id": "1"}),
        ("data.sync.request", {"sync_type": "é" * 300}),
        ("data.sync.request", {"sync_type": "full_sync", "context": {"é" * 300: {"é" * 300: 2**64}}}),
        ("data.sync.request", {"sync_type": "full_sync", "context": {"aÉ" + "é" * 300: 1}, "é" * 300: "\0"}),
    ],
)
def test_an_error_echoes_at_most_a_hundred_characters_of_the_input(subject: str, body: Any) -> None:
    error = rejected(subject, json.dumps(body).encode()).error
    assert error.count("é") <= 100
    assert len(error) < 400


def test_an_error_echoes_nothing_that_could_not_be_stored() -> None:
    result = rejected("mcp.task.\x00\ud800", b"{}")
    assert "\x00" not in result.error
    assert result.error.encode()
