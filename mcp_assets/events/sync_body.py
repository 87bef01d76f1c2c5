"""Sync body: which kind of sync the body of a request asks for, and for which entities."""

from mcp_assets.events.fields import Fields, checked_id, id_text
from mcp_assets.events.model import ErrorKind, JsonValue, MessageKind, SyncRequest, SyncTarget, SyncType
from mcp_assets.events.rejection import Path, Rejection, quote
from mcp_assets.events.type_names import TypeNames

_NEEDS_TARGETS = frozenset({SyncType.INCREMENTAL_SYNC, SyncType.CONFLICT_RESOLUTION})
"""Requests that must name entities; the others are about everything if they name none."""


def sync_request(body: Fields, kind: MessageKind, types: TypeNames) -> SyncRequest:
    """Targets in the order sent, each once. Raises Rejection (unknown_sync_type, wrong_type, missing_id, bad_id).

    An empty list is a request without work; a missing list is a mistake of the sender.
    """
    sync_type = _sync_type(body, kind)
    path = body.path("entity_ids")
    items = body.items("entity_ids")
    targets = tuple(dict.fromkeys(_target(item, (path, index), types) for index, item in enumerate(items or ())))
    if items is None and sync_type in _NEEDS_TARGETS:
        raise Rejection(
            ErrorKind.MISSING_ID, f"A request for {sync_type} names no entities; send their ids in entity_ids."
        )
    context = body.object("context")
    return SyncRequest(sync_type, targets, {} if context is None else context.all_but())


def _sync_type(body: Fields, kind: MessageKind) -> SyncType:
    allowed = (SyncType.DATA_VALIDATION,) if kind is MessageKind.VALIDATE else tuple(SyncType)
    name = body.text("sync_type")
    if name is None and kind is MessageKind.VALIDATE:
        return SyncType.DATA_VALIDATION
    if name not in allowed:
        found = "The request has no sync_type" if name is None else f"{body.rendered('sync_type')} is {quote(name)}"
        raise Rejection(ErrorKind.UNKNOWN_SYNC_TYPE, f"{found}; send {' or '.join(allowed)}.")
    return SyncType(name)


def _target(item: JsonValue, path: Path, types: TypeNames) -> SyncTarget:
    """`task:7` names its type; `urn:7` is a bare id, because no entity type is called `urn`."""
    text = id_text(item, path)
    prefix, colon, rest = text.partition(":")
    entity_type = types.canonical(prefix) if colon else None
    return SyncTarget(None, text) if entity_type is None else SyncTarget(entity_type, checked_id(rest, path))
