"""Ledger: brings rows of `entities` to the truth, and returns the entities whose points are not up to date yet."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mcp_assets.embedding.protocol import Refusal
from mcp_assets.entities.refs import slot_of
from mcp_assets.entities.text import POINT_CHARACTERS, Prepared, prepare, state_hash
from mcp_assets.entities.words import Words, words_of
from mcp_assets.events import Stated
from mcp_assets.platform import Platform
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.postgres.rows import by_id
from mcp_assets.stores.source_tables.rows import SourceRow
from mcp_assets.sync.index.event_rechecks import may_be_early
from mcp_assets.sync.index.search_words import write_words
from mcp_assets.sync.index.truth import LedgerRow, Truth, truth_of

_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)

_CUT_UNDER_LOCK = 200_000
"""Characters of long texts that one transaction cuts into chunks while it holds rows.

Further texts are cut after it, so that no row is locked for long.
"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """An entity to bring to the truth; `stated`: its state by events, in case that it has no source row."""

    id: str
    stated: Stated[str] | None = None
    deleting: bool = False
    """The newest event deletes: then the entity may well be unknown."""
    events: int = 0
    """How many events are about it."""


@dataclass(frozen=True, slots=True)
class Dirty:
    """An entity whose state Qdrant does not hold yet, or is to be given again."""

    id: str
    title: str | None
    content: str
    metadata: Mapping[str, Any]
    prepared: Prepared
    state_hash: str
    deleted: bool


@dataclass(slots=True)
class Applied:
    """What `apply` found: the entities to index, and how many need nothing."""

    dirty: list[Dirty] = field(default_factory=list)
    unchanged: int = 0
    unknown: list[str] = field(default_factory=list)
    """Ids that neither source, ledger nor event knows."""
    early: list[str] = field(default_factory=list)
    """Ids whose event may have come before the commit of their source row."""
    unstorable: dict[str, Refusal] = field(default_factory=dict)
    """Why no store can hold the source row of an entity, by id. The ledger row stays as it was."""


class _Texts:
    """Prepares texts for `apply`: short ones at once, long ones between two transactions, when no row is locked."""

    def __init__(self, platform: Platform, *, room: float = _CUT_UNDER_LOCK) -> None:
        """`room`: characters of long texts that are cut before others are put off."""
        self._chunks = platform.settings.chunks
        self._room = room
        self._put_off: dict[str, tuple[str | None, str]] = {}
        self._prepared: dict[str, tuple[tuple[str | None, str], Prepared]] = {}

    def prepared(self, entity_id: str, truth: Truth) -> Prepared | None:
        """The prepared text of `truth`; None if this takes too long under a lock: `prepare_rest` prepares it."""
        text = (truth.title, truth.content)
        of, prepared = self._prepared.get(entity_id, (None, None))
        if prepared is not None and of == text:
            return prepared
        length = len(truth.content)
        # If the row changes while its text is cut, the new text is cut at once, so that this ends.
        if length > POINT_CHARACTERS and prepared is None:
            if length > self._room:
                self._put_off[entity_id] = text
                return None
            self._room -= length
        return prepare(*text, self._chunks)

    def prepare_rest(self) -> set[str]:
        """Prepare the texts that were put off. Returns the ids of their entities."""
        ready = set(self._put_off)
        for entity_id, text in self._put_off.items():
            self._prepared[entity_id] = (text, prepare(*text, self._chunks))
        self._put_off = {}
        self._room = _CUT_UNDER_LOCK
        return ready


def apply(platform: Platform, entity_type: str, wanted: Iterable[Wanted], *, force: bool = False) -> Applied:
    """Bring the ledger rows of `wanted` to the truth, and commit. Returns the entities that Qdrant lacks.

    Each ledger row is locked before its source row is read, so that of two appliers the later one reads the newer
    truth: events and a full sync may come in any order. With `force` every living entity counts as dirty.

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
    """One transaction of `apply`. Returns the ids that another applier was the first to insert: apply them again.

    Entities whose texts were put off are left as they are.
    """
    ids = sorted(wanted)
    parameters = {"entity_type": entity_type, "ids": ids}
    current = dict(platform.postgres.rows(connection, "lock_entities", by_id(LedgerRow), parameters))
    reader = platform.source(entity_type)
    sources = reader.read(connection, ids) if reader is not None else {}
    changes = _RowChanges(platform.prepared_by(entity_type), reader is not None, force, result, texts)
    for entity_id in ids:
        changes.add(wanted[entity_id], current.get(entity_id), sources.get(entity_id))
    again = _write(platform, connection, entity_type, changes)
    result.dirty += [dirty for entity_id, dirty in changes.dirty.items() if entity_id not in again]
    return again


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What `apply` would make of one entity."""

    state: Dirty
    is_dirty: bool
    """The entity would be indexed; otherwise its ledger row alone is written, or nothing."""
    is_marked: bool
    """The entity would be linked again."""


def foresee(
    platform: Platform, connection: Connection, entity_type: str, wanted: Iterable[Wanted], *, force: bool
) -> tuple[list[Foreseen], Applied]:
    """What `apply` would do now, by the same rules. It writes nothing and locks no row.

    Returns every entity that has a state, also where nothing is to be done for it, because a collection may lack it;
    and, of `Applied`, the entities that could not be stored or are unknown.

    Raises:
        StoreUnavailable, StoreRefused: the truth could not be read.
    """
    entities = {entity.id: entity for entity in wanted}
    ids = sorted(entities)
    current = dict(
        platform.postgres.rows(connection, "read_entities", by_id(LedgerRow), {"entity_type": entity_type, "ids": ids})
    )
    reader = platform.source(entity_type)
    sources = reader.read(connection, ids) if reader is not None else {}
    refused = Applied()
    texts = _Texts(platform, room=math.inf)
    changes = _RowChanges(platform.prepared_by(entity_type), reader is not None, force, refused, texts)
    for entity_id in ids:
        row = current.get(entity_id)
        # As if it were dirty, so that its state is prepared in any case.
        changes.add(entities[entity_id], row and replace(row, dirty=True), sources.get(entity_id))
    marked = {record["entity_id"] for record in changes.inserts}
    marked |= {record["entity_id"] for record in changes.updates if record["relink"]}
    found = []
    for entity_id, state in changes.dirty.items():
        row = current.get(entity_id)
        changed = row is None or (row.state_hash, row.deleted) != (state.state_hash, state.deleted)
        is_dirty = changed or (row is not None and row.dirty) or (force and not state.deleted)
        found.append(Foreseen(state, is_dirty, entity_id in marked))
    return found, refused


@dataclass(slots=True)
class _RowChanges:
    """What one transaction of `apply` writes to the ledger."""

    prepared_by: str
    has_source: bool
    force: bool
    result: Applied
    texts: _Texts
    inserts: list[dict[str, Any]] = field(default_factory=list)
    updates: list[dict[str, Any]] = field(default_factory=list)
    worded: dict[str, tuple[str | None, str]] = field(default_factory=dict)
    """Living entities whose search words change, with title and content."""
    unworded: list[str] = field(default_factory=list)
    """Entities that lose their search words, because they are deleted."""
    redirtied: list[str] = field(default_factory=list)
    """Entities that are up to date and are to be indexed again, because of `force`."""
    dirty: dict[str, Dirty] = field(default_factory=dict)

    def add(self, entity: Wanted, row: LedgerRow | None, source: SourceRow | None) -> None:
        """Decide what happens to the ledger row of `entity`."""
        if source is not None and source.alive and source.unstorable is not None:
            self.result.unstorable[entity.id] = (
                Refusal("repeated_id", f"{source.unstorable}: map a column that names each row")
                if source.repeated
                else Refusal("unfit_metadata", f"no store can hold the row's metadata: {source.unstorable}")
            )
            return
        truth = truth_of(row, source, entity.stated)
        if truth is None:
            if not entity.deleting:
                self.result.unknown.append(entity.id)
            return
        up_to_date = row is not None and _nothing_new(row, truth, self.prepared_by)
        if (
            entity.events
            and self.has_source
            and may_be_early(
                source, entity.stated, deleting=entity.deleting, changed=not up_to_date, events=entity.events
            )
        ):
            self.result.early.append(entity.id)
        if row is not None and up_to_date:
            self._keep(entity.id, row, truth)
        else:
            self._change(entity.id, row, truth)

    def _keep(self, entity_id: str, row: LedgerRow, truth: Truth) -> None:
        """The row is up to date; its points may not be."""
        if not row.dirty and (not self.force or row.deleted):
            self.result.unchanged += 1
            return
        dirty = _dirty(self.texts, entity_id, truth, row)
        if dirty is None:
            return
        self.dirty[entity_id] = dirty
        if not row.dirty:
            self.redirtied.append(entity_id)

    def _change(self, entity_id: str, row: LedgerRow | None, truth: Truth) -> None:
        try:
            dirty = _dirty(self.texts, entity_id, truth, None)
            if dirty is None:
                return
            record = _record(entity_id, truth, dirty)
        except ValueError as error:
            self.result.unstorable[entity_id] = Refusal(
                "unfit_metadata", f"the metadata cannot be written as JSON ({error})"
            )
            return
        if truth.deleted:
            self.unworded.append(entity_id)
        elif row is None or row.deleted or not self._has_words_of(row, truth):
            self.worded[entity_id] = (truth.title, truth.content)
        if row is None:
            self.inserts.append(record)
            self.dirty[entity_id] = dirty
            return
        changed = row.state_hash != dirty.state_hash or row.deleted != dirty.deleted
        relink = changed or not _says(row, truth)
        self.updates.append({**record, "changed": changed or self.force, "relink": relink})
        if changed or row.dirty or self.force:
            self.dirty[entity_id] = dirty
        else:
            self.result.unchanged += 1

    def _has_words_of(self, row: LedgerRow, truth: Truth) -> bool:
        """The search words of the row are those of `truth`, by the rules of now."""
        return (row.prepared_by, row.title, row.content) == (self.prepared_by, truth.title, truth.content)


def _nothing_new(row: LedgerRow, truth: Truth, prepared_by: str) -> bool:
    if row.origin != truth.origin or row.deleted != truth.deleted or row.event_order != truth.event_order:
        return False
    if row.changes != truth.changes:
        return False
    return row.deleted or (
        row.source_hash == truth.source_hash and row.prepared_by == prepared_by and _says(row, truth)
    )


def _says(row: LedgerRow, truth: Truth) -> bool:
    """Whether the columns of the row equal the truth. Equal hashes do not show it if another program wrote to it."""
    return (row.title, row.content, row.metadata) == (truth.title, truth.content, truth.metadata)


def _dirty(texts: _Texts, entity_id: str, truth: Truth, row: LedgerRow | None) -> Dirty | None:
    """The state to index, with the state hash of `row` if given; None if its text is put off."""
    if truth.deleted:
        return Dirty(entity_id, None, "", {}, Prepared("", (), "deleted"), "deleted", deleted=True)
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
        "metadata": _ENCODER.encode(truth.metadata),
        "source_hash": truth.source_hash,
        "text_hash": dirty.prepared.text_hash,
        "state_hash": dirty.state_hash,
        "event_order": truth.event_order,
        "changes": None if truth.changes is None else _ENCODER.encode(truth.changes),
        "deleted": truth.deleted,
        "chunks": len(dirty.prepared.chunks),
    }


def _write(platform: Platform, connection: Connection, entity_type: str, changes: _RowChanges) -> set[str]:
    """Write the rows, and mark entities to be re-linked. Returns the ids that another applier was first to insert."""
    postgres = platform.postgres
    inserts, updates = changes.inserts, changes.updates
    shared = {"entity_type": entity_type, "prepared_by": changes.prepared_by}
    again: set[str] = set()
    characters = sum(len(title or "") + len(content) for title, content in changes.worded.values())
    pending = characters > platform.tuning.index.words_cut_at_once
    for record in (*inserts, *updates):
        # None: the words are not concerned.
        settled = False if record["deleted"] else None
        record["words_pending"] = pending if record["entity_id"] in changes.worded else settled
    if changes.redirtied:
        connection.execute(postgres.query("mark_dirty"), {"entity_type": entity_type, "ids": changes.redirtied})
    if updates:
        connection.execute(postgres.query("update_entities"), {**shared, **_columns(updates)})
    if inserts:
        inserted = connection.execute(postgres.query("insert_entities"), {**shared, **_columns(inserts)})
        again = {record["entity_id"] for record in inserts} - {row[0] for row in inserted}
    worded = {entity_id: text for entity_id, text in changes.worded.items() if entity_id not in again}
    words: dict[str, Words | None] = dict.fromkeys(one for one in changes.unworded if one not in again)
    if not pending:
        words |= {entity_id: words_of(entity_id, *text) for entity_id, text in worded.items()}
    write_words(platform, connection, entity_type, words)
    to_link = {record["entity_id"] for record in inserts if record["entity_id"] not in again}
    to_link |= {record["entity_id"] for record in updates if record["relink"]}
    if pending:
        to_link |= worded.keys()
    if to_link:
        connection.execute(
            postgres.query("mark_changes"),
            {"types": [entity_type] * len(to_link), "ids": sorted(to_link), "reason": "changed"},
        )
    return again


def _columns(records: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Records turned into one list a column, as `unnest` takes them."""
    return {name: [record[name] for record in records] for name in records[0]}
