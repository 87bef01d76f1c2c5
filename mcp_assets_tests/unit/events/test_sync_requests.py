"""Sync and validate requests in both dialects, with and without envelope."""

import json
from typing import Any

import pytest

from mcp_assets.events import (
    DEFAULT_TYPE_NAMES,
    ErrorKind,
    Event,
    MessageKind,
    Rejected,
    SyncRequest,
    SyncTarget,
    SyncType,
    Verb,
    parse,
)


def parsed(subject: str, body: Any) -> Event | Rejected:
    return parse(subject, json.dumps(body).encode(), DEFAULT_TYPE_NAMES)


@pytest.mark.parametrize("enveloped", [True, False])
@pytest.mark.parametrize("sync_type", SyncType)
@pytest.mark.parametrize(
    ("type_key", "ids_key", "context_key"),
    [("sync_type", "entity_ids", "batch_size"), ("syncType", "entityIds", "batchSize")],
)
def test_a_sync_request_reads_the_same_in_both_dialects(
    enveloped: bool, sync_type: SyncType, type_key: str, ids_key: str, context_key: str
) -> None:
    request = {
        type_key: sync_type,
        ids_key: ["task:1", "Wiki:a:b", "urn:isbn:1", "bare", 7, "bare"],
        "context": {context_key: 50},
    }
    body = {"messageId": "n1", "timestamp": 1, "version": 2, "data": request} if enveloped else request
    targets = (
        SyncTarget("task", "1"),
        SyncTarget("page", "a:b"),
        SyncTarget(None, "urn:isbn:1"),
        SyncTarget(None, "bare"),
        SyncTarget(None, "7"),
    )
    assert parsed("data.sync.request", body) == Event(
        MessageKind.SYNC,
        "data.sync.request",
        None,
        Verb.LOOK,
        None,
        "n1" if enveloped else None,
        SyncRequest(sync_type, targets, {"batch_size": 50}),
    )


@pytest.mark.parametrize("body", [{}, {"data": {}}, {"sync_type": "data_validation"}, {"entityIds": None}])
def test_a_validate_request_may_leave_out_everything(body: Any) -> None:
    event = parsed("data.validate.request", body)
    assert isinstance(event, Event)
    assert event.kind is MessageKind.VALIDATE
    assert event.request == SyncRequest(SyncType.DATA_VALIDATION, (), {})


@pytest.mark.parametrize("sync_type", ["full_sync", "data_validation"])
def test_a_request_over_everything_names_no_targets(sync_type: str) -> None:
    event = parsed("data.sync.request", {"sync_type": sync_type})
    assert isinstance(event, Event)
    assert event.request == SyncRequest(SyncType(sync_type), (), {})


@pytest.mark.parametrize(
    ("subject", "body", "error_kind", "error"),
    [
        ("sync", {}, ErrorKind.UNKNOWN_SYNC_TYPE, "The request has no sync_type; send incremental_sync or full_sync"),
        ("sync", {"syncType": "all"}, ErrorKind.UNKNOWN_SYNC_TYPE, '$.syncType is "all"; send'),
        ("sync", {"sync_type": 1}, ErrorKind.WRONG_TYPE, "$.sync_type is a number, and must be a string."),
        ("sync", {"sync_type": "incremental_sync"}, ErrorKind.MISSING_ID, "A request for incremental_sync names no"),
        (
            "sync",
            {"sync_type": "conflict_resolution", "entity_ids": None},
            ErrorKind.MISSING_ID,
            "A request for conflict_resolution names no",
        ),
        (
            "sync",
            {"data": {"sync_type": "full_sync", "entityIds": "task:1"}},
            ErrorKind.WRONG_TYPE,
            "$.data.entityIds is a string, and must be a list.",
        ),
        (
            "sync",
            {"sync_type": "full_sync", "entity_ids": ["a", True]},
            ErrorKind.WRONG_TYPE,
            "$.entity_ids[1] is a boolean, and must be a string or an integer.",
        ),
        ("sync", {"sync_type": "full_sync", "entity_ids": [""]}, ErrorKind.MISSING_ID, "$.entity_ids[0] is an empty"),
        ("sync", {"sync_type": "full_sync", "entity_ids": ["task:"]}, ErrorKind.MISSING_ID, "$.entity_ids[0] is an"),
        ("sync", {"sync_type": "full_sync", "entity_ids": ["task: 1"]}, ErrorKind.BAD_ID, "$.entity_ids[0] begins"),
        ("sync", {"sync_type": "full_sync", "context": []}, ErrorKind.WRONG_TYPE, "$.context is a list, and must be"),
        ("validate", {"sync_type": "full_sync"}, ErrorKind.UNKNOWN_SYNC_TYPE, '"full_sync"; send data_validation.'),
        ("validate", {"context": "all"}, ErrorKind.WRONG_TYPE, "$.context is a string, and must be an object."),
    ],
)
def test_a_malformed_request_is_rejected_with_its_reason(
    subject: str, body: Any, error_kind: ErrorKind, error: str
) -> None:
    rejected = parsed(f"data.{subject}.request", body)
    assert isinstance(rejected, Rejected)
    assert rejected.error_kind is error_kind
    assert error in rejected.error


@pytest.mark.parametrize("sync_type", list(SyncType))
def test_an_empty_list_of_entities_is_no_mistake(sync_type: SyncType) -> None:
    found = parsed("data.sync.request", {"sync_type": sync_type.value, "entity_ids": []})
    assert isinstance(found, Event)
    assert found.request is not None
    assert found.request.targets == ()
