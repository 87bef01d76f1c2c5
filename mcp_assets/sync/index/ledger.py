"""Ledger: brings rows of `entities` to what the truth says now, and tells which of them Qdrant does not hold yet."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mcp_assets.embedding.protocol import Refusal
from mcp_assets.entities.refs import slot_of
from mcp_assets.entities.text import POINT_CHARACTERS, Prepared, prepare, state_hash
from mcp_assets.events import Stated, merge_stated
from mcp_assets.platform import Platform
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.source_tables.rows import SourceRow
from mcp_assets.sync.index.event_rechecks import may_be_early

Origin = Literal["source", "event"]

_NO_TEXT = ""

_CUT_UNDER_LOCK = 200_000
"""Characters of long texts that one transaction cuts into chunks while it holds rows; the rest it cuts after it."""


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One entity as the ledger has it."""

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
    """What events say of an entity without a source row beyond `event_order`, as `_changes_of` gives it."""


@dataclass(frozen=True, slots=True)
class Truth:
    """What an entity is now, by its source row or, without one, by its newest event."""

    origin: Origin
    title: str | None
    content: str
    metadata: Mapping[str, Any]
    source_hash: str | None
    event_order: str | None
    deleted: bool
    changes: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """An entity to look at; `stated` is what events say of it, for the case that it has no source row."""

    id: str
    stated: Stated[str] | None = None
    deleting: bool = False
    """The newest event deletes: then it is no surprise that nothing is known of the entity."""
    events: int = 0
    """How many events tell of it."""


@dataclass(frozen=True, slots=True)
class Dirty:
    """An entity whose state Qdrant does not hold yet (or is to be given again)."""

    id: str
    title: str | None
    content: str
    metadata: Mapping[str, Any]
    prepared: Prepared
    state_hash: str
    deleted: bool


@dataclass(slots=True)
class Applied:
    """What `apply` found: entities to index, and how many needed nothing."""

    dirty: list[Dirty] = field(default_factory=list)
    unchanged: int = 0
    unknown: list[str] = field(default_factory=list)
    """Ids of which neither the source, the ledger nor the event says anything."""
    early: list[str] = field(default_factory=list)
    """Ids whose event may have come before the commit of their source row."""
    unstorable: dict[str, Refusal] = field(default_factory=dict)
    """Entities whose source row holds what no store can keep, with the reason; the ledger keeps what it had."""


class _Texts:
    """Prepares texts for `apply`: short ones at once, long ones between two transactions, when no row is locked."""

    def __init__(self, platform: Platform) -> None:
        self._chunks = platform.settings.chunks
        self._room = _CUT_UNDER_LOCK
        self._put_off: dict[str, tuple[str | None, str]] = {}
        self._prepared: dict[str, tuple[tuple[str | None, str], Prepared]] = {}

    def prepared(self, entity_id: str, truth: Truth) -> Prepared | None:
        """What is embedded of `truth`; None if that takes too long for now: `prepare_rest` has it for the next try."""
        text = (truth.title, truth.content)
        of, prepared = self._prepared.get(entity_id, (None, None))
        if prepared is not None and of == text:
            return prepared
        length = len(truth.content)
        # A row that changes while its text is cut is cut at once the second time.
        if length > POINT_CHARACTERS and prepared is None:
            if length > self._room:
                self._put_off[entity_id] = text
                return None
            self._room -= length
        return prepare(*text, self._chunks)

    def prepare_rest(self) -> set[str]:
        """Prepare what was put off. Returns the ids."""
        ready = set(self._put_off)
        for entity_id, text in self._put_off.items():
            self._prepared[entity_id] = (text, prepare(*text, self._chunks))
        self._put_off = {}
        self._room = _CUT_UNDER_LOCK
        return ready


def truth_of(current: LedgerRow | None, source: SourceRow | None, stated: Stated[str] | None) -> Truth | None:
    """The rule of truth. None: nothing is known of the entity.

    A living source row wins; a row that is not alive, or is gone though there was one, means deleted. Only an entity
    that never had a row lives by its events: the newest that states the whole of it wins, and after it the newest
    change of each field.
    """
    order = current.event_order if current is not None else None
    if source is not None and source.alive:
        return Truth("source", source.title, source.content, source.metadata, source.source_hash, order, deleted=False)
    if source is not None or (current is not None and current.origin == "source"):
        return Truth("source", None, _NO_TEXT, {}, None, order, deleted=True)
    return _truth_by_events(current, stated)


def _truth_by_events(current: LedgerRow | None, stated: Stated[str] | None) -> Truth | None:
    known = _stated_before(current)
    merged = merge_stated(known, stated)
    if merged is None:
        return None
    archived = merged.alive is not None and not merged.alive[1]
    if merged.order is not None and (known is None or merged.order != known.order):
        gone, carried = merged.carried is None, merged.carried
        title, content = (carried.title, carried.content) if carried is not None else (None, _NO_TEXT)
        metadata: Mapping[str, Any] = carried.metadata if carried is not None else {}
    elif current is not None:
        gone = current.deleted and _was_gone(current)
        title, content, metadata = current.title, current.content, current.metadata
    elif archived:
        # Nothing is known of it but this; what was said before and comes late is archived, too.
        gone, title, content, metadata = True, None, _NO_TEXT, {}
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
    """What the ledger has of earlier events; its whole state is in the row itself."""
    if current is None:
        return None
    changes = current.changes or {}
    alive = changes.get("alive")
    fields = {name: (order, value) for name, (order, value) in changes.get("fields", {}).items()}
    return Stated(current.event_order, None, fields, None if alive is None else (alive[0], alive[1]))


def _was_gone(current: LedgerRow) -> bool:
    """A deleted row was deleted itself, rather than only archived: there is nothing to restore."""
    changes = current.changes or {}
    alive = changes.get("alive")
    return bool(changes.get("gone")) or alive is None or bool(alive[1])


def _changes_of(stated: Stated[str], gone: bool) -> dict[str, Any] | None:
    """The changes in `stated` as JSON; None if there are none. `gone`: there is no state that they change, yet."""
    changes: dict[str, Any] = {}
    if stated.fields:
        changes["fields"] = {name: [order, value] for name, (order, value) in stated.fields.items()}
    if stated.alive is not None:
        changes["alive"] = [*stated.alive]
    if changes and gone:
        changes["gone"] = True
    return changes or None


def apply(platform: Platform, entity_type: str, wanted: Iterable[Wanted], *, force: bool = False) -> Applied:
    """Bring the ledger rows of `wanted` to the truth, committed; what Qdrant lacks is returned.

    Each row is locked before its source row is read: of two appliers the later reads the newer truth, so that events
    and a full sync may come in any order. With `force` every living entity counts as dirty.

    Raises:
        StoreUnavailable, StoreRefused: the truth could not be read; nothing was changed.
    """
    result = Applied()
    texts = _Texts(platform)
    todo = {entity.id: entity for entity in wanted}
    while todo:
        with platform.postgres.transaction() as connection:
            again = _apply_once(platform, connection, entity_type, todo, force, result, texts)
        again |= texts.prepare_rest()
        todo = {entity_id: todo[entity_id] for entity_id in again}
    return result


def _apply_once(
    platform: Platform,
    connection: Connection,
    entity_type: str,
    wanted: Mapping[str, Wanted],
    force: bool,
    result: Applied,
    texts: _Texts,
) -> set[str]:
    """One transaction of `apply`. Returns the ids that another applier was the first to insert: they are to be redone.

    So are those whose texts were put off; nothing is done about them here.
    """
    ids = sorted(wanted)
    rows = connection.execute(platform.postgres.query("lock_entities"), {"entity_type": entity_type, "ids": ids})
    current = {row[0]: LedgerRow(*row[1:]) for row in rows}
    reader = platform.source(entity_type)
    sources = reader.read(connection, ids) if reader is not None else {}
    inserts: list[dict[str, Any]] = []
    updates: list[dict[str, Any]] = []
    found: dict[str, Dirty] = {}
    redirtied: list[str] = []
    for entity_id in ids:
        row = current.get(entity_id)
        source = sources.get(entity_id)
        if source is not None and source.alive and source.unstorable is not None:
            result.unstorable[entity_id] = (
                Refusal("repeated_id", f"{source.unstorable}: map a column that names each row")
                if source.repeated
                else Refusal("unfit_metadata", f"no store can hold the row's metadata: {source.unstorable}")
            )
            continue
        entity = wanted[entity_id]
        truth = truth_of(row, source, entity.stated)
        if truth is None:
            if not entity.deleting:
                result.unknown.append(entity_id)
            continue
        known = row is not None and _nothing_new(row, truth, platform.prepared_by(entity_type))
        if (
            entity.events
            and reader is not None
            and may_be_early(source, entity.stated, deleting=entity.deleting, changed=not known, events=entity.events)
        ):
            result.early.append(entity_id)
        if row is not None and known:
            if row.dirty or (force and not row.deleted):
                again_dirty = _dirty(texts, entity_id, truth, row)
                if again_dirty is not None:
                    found[entity_id] = again_dirty
                    if not row.dirty:
                        redirtied.append(entity_id)
            else:
                result.unchanged += 1
            continue
        try:
            dirty = _dirty(texts, entity_id, truth, None)
            if dirty is None:
                continue
            record = _record(entity_id, truth, dirty)
        except ValueError as error:
            result.unstorable[entity_id] = Refusal(
                "unfit_metadata", f"the metadata cannot be written as JSON ({error})"
            )
            continue
        if row is None:
            inserts.append(record)
            found[entity_id] = dirty
            continue
        changed = row.state_hash != dirty.state_hash or row.deleted != dirty.deleted
        updates.append({**record, "changed": changed or force, "relink": changed or not _says(row, truth)})
        if changed or row.dirty or force:
            found[entity_id] = dirty
        else:
            result.unchanged += 1
    again = _write(platform, connection, entity_type, inserts, updates, redirtied)
    result.dirty += [dirty for entity_id, dirty in found.items() if entity_id not in again]
    return again


def _nothing_new(row: LedgerRow, truth: Truth, prepared_by: str) -> bool:
    if row.origin != truth.origin or row.deleted != truth.deleted or row.event_order != truth.event_order:
        return False
    if row.changes != truth.changes:
        return False
    return row.deleted or (
        row.source_hash == truth.source_hash and row.prepared_by == prepared_by and _says(row, truth)
    )


def _says(row: LedgerRow, truth: Truth) -> bool:
    """The row's columns are the truth's; its hashes may say so though something else wrote into them."""
    return (row.title, row.content, row.metadata) == (truth.title, truth.content, truth.metadata)


def _dirty(texts: _Texts, entity_id: str, truth: Truth, row: LedgerRow | None) -> Dirty | None:
    """The state to index, with the hashes of `row` where it already has them; None if its text is put off."""
    if truth.deleted:
        return Dirty(entity_id, None, _NO_TEXT, {}, Prepared("", (), "deleted"), "deleted", deleted=True)
    prepared = texts.prepared(entity_id, truth)
    if prepared is None:
        return None
    hashed = row.state_hash if row is not None else state_hash(prepared, truth.title, truth.metadata)
    return Dirty(entity_id, truth.title, truth.content, truth.metadata, prepared, hashed, deleted=False)


def _record(entity_id: str, truth: Truth, dirty: Dirty) -> dict[str, Any]:
    return {
        "entity_id": entity_id,
        "slot": slot_of(entity_id),
        "origin": truth.origin,
        "title": truth.title,
        "content": truth.content,
        "metadata": json.dumps(truth.metadata, ensure_ascii=False, allow_nan=False),
        "source_hash": truth.source_hash,
        "text_hash": dirty.prepared.text_hash,
        "state_hash": dirty.state_hash,
        "event_order": truth.event_order,
        "changes": None if truth.changes is None else json.dumps(truth.changes, ensure_ascii=False, allow_nan=False),
        "deleted": truth.deleted,
        "chunks": len(dirty.prepared.chunks),
    }


def _write(
    platform: Platform,
    connection: Connection,
    entity_type: str,
    inserts: list[dict[str, Any]],
    updates: list[dict[str, Any]],
    redirtied: list[str],
) -> set[str]:
    """Write the rows, and mark what has to be re-linked. Returns the ids that someone else was first to insert."""
    postgres = platform.postgres
    shared = {"entity_type": entity_type, "prepared_by": platform.prepared_by(entity_type)}
    again: set[str] = set()
    if redirtied:
        connection.execute(postgres.query("mark_dirty"), {"entity_type": entity_type, "ids": redirtied})
    if updates:
        connection.execute(postgres.query("update_entities"), {**shared, **_columns(updates)})
    if inserts:
        inserted = connection.execute(postgres.query("insert_entities"), {**shared, **_columns(inserts)})
        again = {record["entity_id"] for record in inserts} - {row[0] for row in inserted}
    to_link = [record["entity_id"] for record in inserts if record["entity_id"] not in again]
    to_link += [record["entity_id"] for record in updates if record["relink"]]
    if to_link:
        connection.execute(
            postgres.query("mark"),
            {"types": [entity_type] * len(to_link), "ids": sorted(to_link), "reason": "changed"},
        )
    return again


def _columns(records: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Records turned into one list a column, as `unnest` takes them."""
    return {name: [record[name] for record in records] for name in records[0]}
