"""Truth: the state that an entity should have, by its source row, or without one by its newest events. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mcp_assets.events import Stated, merge_stated
from mcp_assets.stores.source_tables.rows import SourceRow

Origin = Literal["source", "event"]


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """An entity as the ledger has it."""

    origin: Origin
    title: str | None
    content: str
    metadata: Mapping[str, Any]
    source_hash: str | None
    prepared_by: str
    text_hash: str
    state_hash: str
    event_order: str | None
    deleted: bool
    dirty: bool
    changes: Mapping[str, Any] | None = None
    """Changes by events newer than `event_order`, for an entity without a source row, in the form of `_changes_of`."""


@dataclass(frozen=True, slots=True)
class Truth:
    """The state of an entity now, by its source row or, without one, by its newest event."""

    origin: Origin
    title: str | None
    content: str
    metadata: Mapping[str, Any]
    source_hash: str | None
    event_order: str | None
    deleted: bool
    changes: Mapping[str, Any] | None = None


def truth_of(current: LedgerRow | None, source: SourceRow | None, stated: Stated[str] | None) -> Truth | None:
    """The rule of truth. None: the entity is unknown.

    A living source row wins. A row that is not alive, or that is gone, means deleted. Only an entity that never had a
    row lives by its events: the newest event with a whole state wins, and after it the newest change of each field.
    """
    order = current.event_order if current is not None else None
    if source is not None and source.alive:
        return Truth("source", source.title, source.content, source.metadata, source.source_hash, order, deleted=False)
    if source is not None or (current is not None and current.origin == "source"):
        return Truth("source", None, "", {}, None, order, deleted=True)
    return _truth_by_events(current, stated)


def _truth_by_events(current: LedgerRow | None, stated: Stated[str] | None) -> Truth | None:
    known = _stated_before(current)
    merged = merge_stated(known, stated)
    if merged is None:
        return None
    archived = merged.alive is not None and not merged.alive[1]
    if merged.order is not None and (known is None or merged.order != known.order):
        gone, carried = merged.carried is None, merged.carried
        title, content = (carried.title, carried.content) if carried is not None else (None, "")
        metadata: Mapping[str, Any] = carried.metadata if carried is not None else {}
    elif current is not None:
        gone = current.deleted and _was_gone(current)
        title, content, metadata = current.title, current.content, current.metadata
    elif archived:
        # Only the archiving is known: an older state that arrives later is archived, too.
        gone, title, content, metadata = True, None, "", {}
    else:
        return None
    if merged.fields and not gone:
        metadata = {**metadata, **{name: value for name, (_, value) in merged.fields.items()}}
    return Truth(
        "event",
        title,
        content,
        metadata,
        None,
        merged.order,
        deleted=gone or archived,
        changes=_changes_of(merged, gone),
    )


def _stated_before(current: LedgerRow | None) -> Stated[str] | None:
    """The changes by earlier events, of which the ledger row holds the whole state."""
    if current is None:
        return None
    changes = current.changes or {}
    alive = changes.get("alive")
    fields = {name: (order, value) for name, (order, value) in changes.get("fields", {}).items()}
    return Stated(current.event_order, None, fields, None if alive is None else (alive[0], alive[1]))


def _was_gone(current: LedgerRow) -> bool:
    """Whether a deleted entity was deleted rather than archived: then there is no state to restore."""
    changes = current.changes or {}
    alive = changes.get("alive")
    return bool(changes.get("gone")) or alive is None or bool(alive[1])


def _changes_of(stated: Stated[str], gone: bool) -> dict[str, Any] | None:
    """The changes in `stated` as JSON; None if there are none. `gone`: the state that they change is not known yet."""
    changes: dict[str, Any] = {}
    if stated.fields:
        changes["fields"] = {name: [order, value] for name, (order, value) in stated.fields.items()}
    if stated.alive is not None:
        changes["alive"] = [*stated.alive]
    if changes and gone:
        changes["gone"] = True
    return changes or None
