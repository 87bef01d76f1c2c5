"""Link state: each entity as it was when last linked (the tables `linked` and `reference_uses`), and reference edges.

The linker compares this with the ledger: the difference is what has to be linked again.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mcp_assets.entities.points import point_id
from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph import (
    Edge,
    EdgeType,
    ReferenceKey,
    ReferenceKind,
    Use,
    id_key,
    keys_of,
    resolve,
    strongest,
    tags_of,
)
from mcp_assets.platform import Platform
from mcp_assets.stores.postgres import Connection


@dataclass(frozen=True, slots=True)
class LinkState:
    """One row of `linked`."""

    point: str | None
    """The entity's own point in Qdrant, if it has one."""
    title_key: str | None
    slug_key: str | None
    tags: frozenset[str]
    semantic_cut_off: float | None = None
    """Of the entity's semantic list (see `NeighbourList`): the column `linked.semantic_cut_off`."""
    topical_cut_off: float | None = None
    """The same of its topical list: the column `linked.topical_cut_off`."""
    linked_by: str = ""
    """The fingerprint of the rules by which it was last linked."""
    text_hash: str | None = None
    """The hash of the text by which its words were last compared: the column `linked.words_hash`; None: by none."""

    def keys(self, ref: EntityRef) -> frozenset[ReferenceKey]:
        """The keys under which references find `ref`, the entity of this row."""
        named = ((ReferenceKind.TITLE, self.title_key), (ReferenceKind.SLUG, self.slug_key))
        return frozenset((id_key(ref), *(ReferenceKey(kind, key) for kind, key in named if key is not None)))


class _LinkedRow(NamedTuple):
    """One row of the query `read_linked`."""

    entity_type: str
    entity_id: str
    point: str | None
    title_key: str | None
    slug_key: str | None
    tags: list[str]
    semantic_cut_off: float | None
    topical_cut_off: float | None
    linked_by: str
    text_hash: str | None


class _UseRow(NamedTuple):
    """One row of the queries `uses_of_sources` and `reverse_uses_of_keys`."""

    source_type: str
    source_id: str
    kind: str
    key: str
    within: str | None
    relation: str
    strength: float
    rule: str
    reverse: bool
    written: str
    place: int
    places: int
    form: str
    context: str

    def use(self) -> Use:
        return Use(
            ReferenceKind(self.kind),
            self.key,
            self.within,
            EdgeType(self.relation),
            self.strength,
            self.rule,
            self.reverse,
            self.written,
            self.place,
            self.places,
            self.form,
            self.context,
        )


class _KeyHolder(NamedTuple):
    """One row of the queries `holders_of_titles` and `holders_of_slugs`."""

    key: str
    entity_type: str
    entity_id: str


class _LedgerState(NamedTuple):
    """One row of the query `read_states`: the ledger row of an entity."""

    entity_type: str
    entity_id: str
    title: str | None
    content: str
    metadata: Mapping[str, Any]
    is_deleted: bool
    text_hash: str
    has_point: bool
    """Whether one of the collections that are searched has its point."""


@dataclass(slots=True)
class StateChanges:
    """How changed entities differ from what they were when they were last linked."""

    living: dict[EntityRef, LinkState] = field(default_factory=dict)
    gone: set[EntityRef] = field(default_factory=set)
    moved: set[EntityRef] = field(default_factory=set)
    """Entities whose vector came, went or changed, so that semantic lists change."""
    reworded: set[EntityRef] = field(default_factory=set)
    """Entities whose title or text changed, so that they may have other duplicates, also with the vector they had."""
    retagged: set[EntityRef] = field(default_factory=set)
    """Entities whose tags came, went or changed, so that topical lists change."""
    referring: set[EntityRef] = field(default_factory=set)
    """Entities whose reference edges may have changed: changed entities, and those that refer to one."""


def by_type_and_id(refs: Iterable[EntityRef]) -> dict[str, list[str]]:
    """`refs`, ordered, as the two parameters `types` and `ids` that queries take."""
    ordered = sorted(refs)
    return {"types": [ref.type for ref in ordered], "ids": [ref.id for ref in ordered]}


def read_link_states(
    platform: Platform, connection: Connection, refs: Collection[EntityRef]
) -> dict[EntityRef, LinkState]:
    """The states of `refs`; without those that were not living when they were last linked."""
    rows = connection.execute(platform.postgres.query("read_linked"), by_type_and_id(refs))
    return {
        EntityRef(row.entity_type, row.entity_id): LinkState(
            row.point,
            row.title_key,
            row.slug_key,
            frozenset(row.tags),
            row.semantic_cut_off,
            row.topical_cut_off,
            row.linked_by,
            row.text_hash,
        )
        for row in map(_LinkedRow._make, rows.fetchall())
    }


def update_link_states(
    platform: Platform,
    connection: Connection,
    refs: Collection[EntityRef],
    vectors: Collection[EntityRef],
    collections: Sequence[str],
    linked_by: str,
) -> StateChanges:
    """Update the rows of `refs` in `linked` and `reference_uses` to the ledger.

    `vectors`: those of `refs` that have a new vector. `collections`: the physical collections that are searched.
    `linked_by`: the fingerprint of the rules and settings in force.
    """
    names = by_type_and_id(refs)
    before = read_link_states(platform, connection, refs)
    stored_uses = _read_uses(platform, connection, "uses_of_sources", names)
    changes = StateChanges()
    now_living = _states(platform, connection, names, collections, linked_by)
    changes.living = {ref: row for ref, (row, _) in now_living.items()}
    new_uses = {ref: uses for ref, (_, uses) in now_living.items()}
    after_keys = {ref: row.keys(ref) for ref, row in changes.living.items()}
    changed_keys: set[ReferenceKey] = set()
    rewritten: list[EntityRef] = []
    stale_uses: list[EntityRef] = []
    for ref in refs:
        was, now = before.get(ref), changes.living.get(ref)
        if now is None:
            changes.gone.add(ref)
        changed_keys |= (was.keys(ref) if was else frozenset()) ^ after_keys.get(ref, frozenset())
        if (was.point if was else None) != (now.point if now else None) or (ref in vectors and now and now.point):
            changes.moved.add(ref)
        if was and now and (was.text_hash, was.title_key) != (now.text_hash, now.title_key):
            changes.reworded.add(ref)
        if (was.tags if was else frozenset()) != (now.tags if now else frozenset()):
            changes.retagged.add(ref)
        if now is not None and (was is None or not _same(was, now)):
            rewritten.append(ref)
        uses_before, uses_after = stored_uses.get(ref, ()), new_uses.get(ref, ())
        if set(uses_before) != set(uses_after):
            stale_uses.append(ref)
            changes.referring |= {ref, *_reverse_targets(uses_before), *_reverse_targets(uses_after)}
        if (was is None) != (now is None):
            changes.referring.add(ref)
    used = _used(platform, connection, changed_keys)
    found_before = _holders(platform, connection, used)
    _write_linked(platform, connection, changes, before, rewritten, linked_by)
    _write_uses(platform, connection, stale_uses, new_uses)
    found_now = _holders(platform, connection, used)
    # A title that many share means the first of them: its users are not concerned when another one comes or goes.
    moved = {key for key in used if found_before.get(key) != found_now.get(key)}
    changes.referring |= _users_or_marks(platform, connection, moved)
    return changes


def stale_link_states(
    platform: Platform, connection: Connection, refs: Collection[EntityRef], collections: Sequence[str], linked_by: str
) -> set[EntityRef]:
    """Those of `refs` whose rows in `linked` or `reference_uses` are not what the ledger implies."""
    names = by_type_and_id(refs)
    before = read_link_states(platform, connection, refs)
    stored_uses = _read_uses(platform, connection, "uses_of_sources", names)
    living = _states(platform, connection, names, collections, linked_by)
    found = set()
    for ref in refs:
        was = before.get(ref)
        now, uses = living.get(ref, (None, ()))
        same = _same(was, now) if was is not None and now is not None else was is now
        if not same or set(stored_uses.get(ref, ())) != set(uses):
            found.add(ref)
    return found


def _states(
    platform: Platform,
    connection: Connection,
    names: Mapping[str, Sequence[str]],
    collections: Sequence[str],
    linked_by: str,
) -> dict[EntityRef, tuple[LinkState, tuple[Use, ...]]]:
    """The link states that the ledger implies now, of the living entities of `names`, and the references they make."""
    found = {}
    rows = connection.execute(platform.postgres.query("read_states"), {**names, "collections": list(collections)})
    for row in map(_LedgerState._make, rows.fetchall()):
        if row.is_deleted or row.entity_type not in platform.settings.entity_types:
            continue
        ref = EntityRef(row.entity_type, row.entity_id)
        by_kind = {key.kind: key.key for key in keys_of(ref, row.title, row.metadata)}
        state = LinkState(
            str(point_id(ref)) if row.has_point else None,
            by_kind.get(ReferenceKind.TITLE),
            by_kind.get(ReferenceKind.SLUG),
            tags_of(row.metadata),
            linked_by=linked_by,
            text_hash=row.text_hash,
        )
        found[ref] = state, platform.reference_rules.uses(ref, row.title, row.content, row.metadata)
    return found


def reference_edges(platform: Platform, connection: Connection, refs: Collection[EntityRef]) -> list[Edge]:
    """Every edge that references make and that has one of `refs` as its source; an entity that is gone has none."""
    own = _read_uses(platform, connection, "uses_of_sources", by_type_and_id(refs))
    incoming = _read_uses(
        platform, connection, "reverse_uses_of_keys", {"keys": sorted(id_key(ref).key for ref in refs)}
    )
    named = {use.reference for uses in (*own.values(), *incoming.values()) for use in uses}
    named |= {id_key(ref) for ref in refs}
    holders = _holders(platform, connection, named)
    living = {ref for ref in refs if id_key(ref) in holders}
    stated = [
        edge
        for source, uses in (*own.items(), *incoming.items())
        for edge in resolve(source, uses, holders)
        if edge.source in living
    ]
    return list(strongest(stated).values())


def _same(was: LinkState, now: LinkState) -> bool:
    return (was.point, was.title_key, was.slug_key, was.tags, was.linked_by, was.text_hash) == (
        now.point,
        now.title_key,
        now.slug_key,
        now.tags,
        now.linked_by,
        now.text_hash,
    )


def _reverse_targets(uses: Iterable[Use]) -> Iterable[EntityRef]:
    return (_ref_of(use.key) for use in uses if use.reverse)


def _ref_of(key: str) -> EntityRef:
    """The entity that a reference key of the kind id names."""
    entity_type, _, entity_id = key.partition(":")
    return EntityRef(entity_type, entity_id)


def _used(platform: Platform, connection: Connection, keys: Collection[ReferenceKey]) -> set[ReferenceKey]:
    """Those of `keys` that an entity refers to."""
    if not keys:
        return set()
    rows = connection.execute(platform.postgres.query("used_keys"), _kinds_and_keys(keys))
    return {ReferenceKey(ReferenceKind(kind), key) for kind, key in rows}


def _users_or_marks(platform: Platform, connection: Connection, keys: Collection[ReferenceKey]) -> set[EntityRef]:
    """The entities that refer to one of `keys`. If they are too many for one transaction, none: they are marked."""
    if not keys:
        return set()
    named = _kinds_and_keys(keys)
    at_once = platform.tuning.link.referring_at_once
    rows = connection.execute(platform.postgres.query("users_of_keys"), {**named, "limit": at_once + 1}).fetchall()
    if len(rows) > at_once:
        connection.execute(platform.postgres.query("mark_users_of_keys"), named)
        # The planner would read the whole table for each batch of these marks if it took them for few.
        connection.execute(platform.postgres.query("analyze_relink_marks"))
        return set()
    return {EntityRef(*row) for row in rows}


def _kinds_and_keys(keys: Collection[ReferenceKey]) -> dict[str, list[str]]:
    return {"kinds": [key.kind.value for key in keys], "keys": [key.key for key in keys]}


def _read_uses(
    platform: Platform, connection: Connection, query: str, parameters: Mapping[str, Any]
) -> dict[EntityRef, tuple[Use, ...]]:
    found: dict[EntityRef, list[Use]] = {}
    for row in map(_UseRow._make, connection.execute(platform.postgres.query(query), parameters).fetchall()):
        found.setdefault(EntityRef(row.source_type, row.source_id), []).append(row.use())
    return {ref: tuple(uses) for ref, uses in found.items()}


def _holders(
    platform: Platform, connection: Connection, keys: Collection[ReferenceKey]
) -> dict[ReferenceKey, list[EntityRef]]:
    """The living entities that `keys` find. Of the holders of one title or slug, the first of each entity type."""
    postgres = platform.postgres
    holders: dict[ReferenceKey, list[EntityRef]] = {}
    ids = {_ref_of(key.key) for key in keys if key.kind is ReferenceKind.ID}
    for row in connection.execute(postgres.query("linked_among"), by_type_and_id(ids)).fetchall():
        ref = EntityRef(*row)
        holders[id_key(ref)] = [ref]
    for kind, query in ((ReferenceKind.TITLE, "holders_of_titles"), (ReferenceKind.SLUG, "holders_of_slugs")):
        named = sorted(key.key for key in keys if key.kind is kind)
        if named:
            for row in map(_KeyHolder._make, connection.execute(postgres.query(query), {"keys": named})):
                holders.setdefault(ReferenceKey(kind, row.key), []).append(EntityRef(row.entity_type, row.entity_id))
    return holders


def _write_linked(
    platform: Platform,
    connection: Connection,
    changes: StateChanges,
    before: Mapping[EntityRef, LinkState],
    rewritten: Sequence[EntityRef],
    linked_by: str,
) -> None:
    gone = changes.gone & before.keys()
    if gone:
        connection.execute(platform.postgres.query("delete_linked"), by_type_and_id(gone))
    if rewritten:
        rows = [changes.living[ref] for ref in sorted(rewritten)]
        connection.execute(
            platform.postgres.query("write_linked"),
            {
                **by_type_and_id(rewritten),
                "point": [row.point for row in rows],
                "title_key": [row.title_key for row in rows],
                "slug_key": [row.slug_key for row in rows],
                "tags": [json.dumps(sorted(row.tags), ensure_ascii=False) for row in rows],
                "linked_by": linked_by,
                "text_hash": [row.text_hash for row in rows],
            },
        )


def _write_uses(
    platform: Platform,
    connection: Connection,
    sources: Sequence[EntityRef],
    uses: Mapping[EntityRef, Sequence[Use]],
) -> None:
    if not sources:
        return
    connection.execute(platform.postgres.query("delete_uses"), by_type_and_id(sources))
    with connection.cursor() as cursor, cursor.copy(platform.postgres.query("copy_uses")) as writer:
        for source in sources:
            for use in uses.get(source, ()):
                kind, key, within, relation, *rest = use
                writer.write_row((*source, kind.value, key, within, relation.value, *rest))
