"""Conflicts: of named entities, compares source row, ledger, Qdrant and edges, and settles each difference.

The source row wins; for an entity without one, its newest event, which the ledger holds. What is found is settled by
the same ways that events take, and then looked at once more: only what is gone then counts as settled.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from mcp_assets.embedding.vectors import VECTOR_CHECK_TOLERANCE, unit, vector_check
from mcp_assets.entities.points import Key, chunk_id, payload, point_id
from mcp_assets.entities.refs import EntityRef, slot_of
from mcp_assets.entities.text import Prepared, prepare, state_hash
from mcp_assets.events import SyncTarget
from mcp_assets.graph import EdgeType, diff
from mcp_assets.retrying import retrying
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.qdrant import Collection, HeldPoint
from mcp_assets.sync.collections import serving_collection
from mcp_assets.sync.incremental import Synced, index, relink
from mcp_assets.sync.ledger import LedgerRow, Truth, truth_of
from mcp_assets.sync.linked import read_linked, reference_edges
from mcp_assets.sync.linker import Reason, mark
from mcp_assets.sync.lists import SemanticLists, TopicalLists
from mcp_assets.sync.platform import Platform
from mcp_assets.sync.targets import by_type, find_targets, pages

_SURPLUS_CHUNKS = 8
"""Chunk points looked for beyond those that should be there: a text that shrank leaves them in a row."""

_UNTOLD = frozenset({Key.VECTOR_CHECK, Key.INDEXED_AT})
"""Payload keys that say nothing of the entity's state."""


class Strategy(StrEnum):
    """What decides a difference; the values of `context.strategy`."""

    SOURCE = "source"
    """The source row, or for an entity without one its newest event."""
    NEWEST = "newest"
    """The same, unless the other side was written later than the source row: that is left for a person to judge."""
    REPORT = "report"
    """Nothing: differences are told, and left."""


class Place(StrEnum):
    """Where an entity is not as its truth says."""

    LEDGER = "ledger"
    QDRANT = "qdrant"
    EDGES = "edges"


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference, and what was decided. Times are those of the last writes, where they are known."""

    ref: EntityRef
    place: Place
    what: str
    truth: str
    found: str
    truth_at: datetime | None = None
    found_at: datetime | None = None
    decision: str = ""
    to_be_settled: bool = False
    settled: bool = False

    def as_dict(self) -> dict[str, Any]:
        return {
            "entity": str(self.ref),
            "place": self.place.value,
            "difference": self.what,
            "truth": self.truth,
            "found": self.found,
            "truth_at": self.truth_at and self.truth_at.isoformat(),
            "found_at": self.found_at and self.found_at.isoformat(),
            "decision": self.decision,
            "settled": self.settled,
        }


@dataclass(slots=True)
class Resolution:
    """What was compared, and every difference that was found."""

    refs: list[EntityRef] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _State:
    """What is true of an entity, and what ledger and Qdrant hold of it."""

    ref: EntityRef
    truth: Truth | None
    truth_at: datetime | None
    row: LedgerRow | None
    row_at: datetime | None
    prepared: Prepared
    state_hash: str
    claim: tuple[str, int] | None
    """Text hash and number of points that the ledger takes to be in Qdrant."""

    @property
    def living(self) -> bool:
        return self.truth is not None and not self.truth.deleted

    @property
    def has_points(self) -> bool:
        return self.living and bool(self.prepared.text)


def resolve(platform: Platform, targets: Sequence[SyncTarget], strategy: Strategy) -> Resolution:
    """Compare the entities that `targets` name, and settle what differs by `strategy`.

    Raises:
        StoreUnavailable, StoreRefused, CollectionMismatch, EmbedderUnavailable: what was settled before stands.
    """
    found = find_targets(platform, targets)
    ghosts = _ghosts(platform, found.unknown)
    resolution = Resolution([*found.refs, *ghosts])
    ghostly = {str(ref) for ref in ghosts} | {ref.id for ref in ghosts}
    resolution.unknown = [name for name in found.unknown if name not in ghostly]
    for batch in pages(resolution.refs, platform.settings.batch_size):
        decided = [_decided(one, strategy) for one in compare(platform, batch)]
        to_settle = [one for one in decided if one.to_be_settled]
        if to_settle:
            _settle(platform, to_settle)
            refs = list(dict.fromkeys(one.ref for one in to_settle))
            left = {(one.ref, one.place) for one in compare(platform, refs)}
            decided = [replace(one, settled=one.to_be_settled and (one.ref, one.place) not in left) for one in decided]
        resolution.differences += decided
    return resolution


def compare(platform: Platform, refs: Sequence[EntityRef]) -> list[Difference]:
    """How ledger, Qdrant and edges of `refs` differ from what is true of them."""
    found: list[Difference] = []
    living: list[EntityRef] = []
    for entity_type, ids in by_type(refs).items():
        states = retrying(platform.settings)(_states, platform, entity_type, ids)
        collection, profile = serving_collection(platform, entity_type)
        for state in states:
            found += _ledger_differences(state)
        found += _qdrant_differences(platform, states, collection, profile.name)
        living += [state.ref for state in states if state.living]
    return found + retrying(platform.settings)(_edge_differences, platform, refs, living)


def _states(platform: Platform, entity_type: str, ids: Sequence[str]) -> list[_State]:
    """Truth and ledger as of one moment: ledger rows are locked while the source rows are read."""
    names = {"entity_type": entity_type, "ids": sorted(ids)}
    query = platform.postgres.query
    reader = platform.source(entity_type)
    collection, _ = serving_collection(platform, entity_type)
    with platform.postgres.transaction() as connection:
        rows = {row[0]: LedgerRow(*row[1:]) for row in connection.execute(query("lock_entities"), names)}
        rows_at: dict[str, datetime] = dict(connection.execute(query("changed_at"), names).fetchall())
        sources = reader.read(connection, ids) if reader is not None else {}
        sources_at = reader.updated_at(connection, ids) if reader is not None else {}
        claims = connection.execute(
            query("read_embedded"), {**names, "collection": collection.name if collection is not None else ""}
        ).fetchall()
    claimed = {row[0]: (row[1], row[3]) for row in claims}
    states = []
    for entity_id in ids:
        row = rows.get(entity_id)
        truth = truth_of(row, sources.get(entity_id), None)
        prepared, hashed = Prepared("", (), "deleted"), "deleted"
        if truth is not None and not truth.deleted:
            prepared = prepare(truth.title, truth.content, platform.settings.chunks)
            hashed = state_hash(prepared, truth.title, truth.metadata)
        row_at = rows_at.get(entity_id)
        truth_at = row_at if truth is not None and truth.origin == "event" else sources_at.get(entity_id)
        states.append(
            _State(
                EntityRef(entity_type, entity_id),
                truth,
                truth_at,
                row,
                row_at,
                prepared,
                hashed,
                claimed.get(entity_id),
            )
        )
    return states


def _ledger_differences(state: _State) -> list[Difference]:
    truth, row = state.truth, state.row

    def differs(what: str, wanted: str, held: str) -> list[Difference]:
        return [Difference(state.ref, Place.LEDGER, what, wanted, held, state.truth_at, state.row_at)]

    if truth is None:
        return []
    if row is None:
        return [] if truth.deleted else differs("missing", f"a living row, text {state.prepared.text_hash}", "nothing")
    if row.deleted != truth.deleted:
        return differs("deleted" if row.deleted else "not deleted", _life(truth.deleted), _life(row.deleted))
    if truth.deleted:
        return []
    if row.text_hash != state.prepared.text_hash or (row.title, row.content) != (truth.title, truth.content):
        return differs("text", state.prepared.text_hash, row.text_hash)
    if row.state_hash != state.state_hash or dict(row.metadata) != dict(truth.metadata):
        return differs("metadata", state.state_hash, row.state_hash)
    return []


def _qdrant_differences(
    platform: Platform, states: Sequence[_State], collection: Collection | None, model: str
) -> list[Difference]:
    asked: list[str] = []
    for state in states:
        own = point_id(state.ref)
        asked += [str(own), *(str(chunk_id(own, number)) for number in range(_chunks_asked(state)))]
    points = platform.qdrant.points(collection.name, asked) if collection is not None else []
    held = {point.id: point for point in points}
    found: list[Difference] = []
    for state in states:
        found += _differences_of_points(state, held, model)
    return found


def _differences_of_points(state: _State, held: Mapping[str, HeldPoint], model: str) -> list[Difference]:
    own_id = point_id(state.ref)
    own = held.get(str(own_id))
    found_at = _time(own.payload.get(Key.INDEXED_AT)) if own is not None else None

    def differs(what: str, wanted: str, found: str) -> list[Difference]:
        return [Difference(state.ref, Place.QDRANT, what, wanted, found, state.truth_at, found_at)]

    chunks = {number for number in range(_chunks_asked(state)) if str(chunk_id(own_id, number)) in held}
    if not state.has_points:
        return differs("orphan", "no point", f"{bool(own) + len(chunks)} points") if own or chunks else []
    text_hash = state.prepared.text_hash
    if own is None:
        return differs("missing", f"a point of text {text_hash}", "nothing")
    if own.payload.get(Key.TEXT_HASH) != text_hash:
        return differs("text", text_hash, str(own.payload.get(Key.TEXT_HASH)))
    if own.payload.get(Key.MODEL) != model:
        return differs("model", model, str(own.payload.get(Key.MODEL)))
    if chunks != set(range(len(state.prepared.chunks))):
        return differs("chunks", f"{len(state.prepared.chunks)} chunks", f"{len(chunks)} chunks")
    for point in (own, *(held[str(chunk_id(own_id, number))] for number in chunks)):
        if not _is_intact(point):
            return differs("vector", "the vector that was written with the payload", "another vector")
        if point.payload.get(Key.TEXT_HASH) != text_hash:
            return differs("text", text_hash, f"a chunk of {point.payload.get('text_hash')}")
    if state.claim != (text_hash, 1 + len(chunks)):
        claim = "nothing" if state.claim is None else f"{state.claim[1]} points of text {state.claim[0]}"
        return differs("record", f"{1 + len(chunks)} points of text {text_hash}", f"the ledger believes in {claim}")
    assert state.truth is not None  # noqa: S101  (an entity with points lives)
    wanted = payload(
        state.ref,
        state.truth.metadata,
        title=state.truth.title,
        text_hash=text_hash,
        state_hash=state.state_hash,
        model=model,
        vector_check=0.0,
        indexed_at="",
    )
    if _told(own.payload) != _told(wanted):
        keys = sorted(key for key in own.payload.keys() | wanted.keys() if own.payload.get(key) != wanted.get(key))
        named = ", ".join(key for key in keys if key not in _UNTOLD)
        return differs("metadata", state.state_hash, f"{own.payload.get('state_hash')} ({named[:200]})")
    return []


def _edge_differences(platform: Platform, refs: Sequence[EntityRef], living: Sequence[EntityRef]) -> list[Difference]:
    """Edges that are not what the rules make of ledger and vectors now, by source; of gone entities, any edge."""
    found: list[Difference] = []
    semantic, topical = SemanticLists(platform), TopicalLists(platform)
    with platform.postgres.transaction() as connection:
        linked = read_linked(platform, connection, living)
        points = {ref: row.point for ref, row in linked.items() if row.point is not None}
        near = {ref: known.ranking for ref, known in semantic.known(connection, points).items()}
        shared = topical.edges_of(connection, {ref: row.tags for ref, row in linked.items()})
        wanted = [
            *reference_edges(platform, connection, living),
            *(edge.of_type(EdgeType.SEMANTIC_SIMILARITY) for edge in semantic.edges(near)),
            *(edge.of_type(EdgeType.TOPICAL_RELEVANCE) for edge in shared),
        ]
        wanted = platform.relationships.storable(connection, wanted)
        types = tuple(EdgeType)
        stored = [edge for _, edge in platform.relationships.of_sources(connection, refs, types).values()]
        gone = set(refs) - set(living)
        stored_to_gone = [edge for _, edge in platform.relationships.of_targets(connection, gone, types).values()]
    changes = diff(stored, wanted)
    by_source: dict[EntityRef, list[str]] = {}
    for name, edges in (("missing", changes.added), ("changed", changes.changed), ("surplus", changes.removed)):
        for edge in edges:
            by_source.setdefault(edge.source, []).append(f"{name} {edge.type.value} to {edge.target}")
    for edge in stored_to_gone:
        by_source.setdefault(edge.target, []).append(f"surplus {edge.type.value} from {edge.source}")
    counts: dict[EntityRef, int] = {}
    for edge in wanted:
        counts[edge.source] = counts.get(edge.source, 0) + 1
    for ref, changed in by_source.items():
        shown = "; ".join(changed[:5]) + ("; …" if len(changed) > 5 else "")
        found.append(
            Difference(ref, Place.EDGES, "edges", f"{counts.get(ref, 0)} edges", f"{len(changed)} differ: {shown}")
        )
    return found


def _decided(one: Difference, strategy: Strategy) -> Difference:
    if strategy is Strategy.REPORT:
        return replace(one, decision="reported, not settled")
    newer = one.truth_at is not None and one.found_at is not None and one.found_at > one.truth_at
    if strategy is Strategy.NEWEST and newer:
        return replace(one, decision=f"left: {one.place} was written after the source row")
    wins = "the rules win" if one.place is Place.EDGES else "the source row wins, or without one its newest event"
    return replace(one, decision=wins, to_be_settled=True)


def _settle(platform: Platform, differences: Sequence[Difference]) -> None:
    """Have ledger, points and edges of the differing entities written anew, from the truth."""
    refs = list(dict.fromkeys(one.ref for one in differences if one.place is not Place.EDGES))
    untrusted = {one.ref for one in differences if one.place is Place.QDRANT and one.what != "metadata"}
    for entity_type, ids in by_type(refs).items():
        retrying(platform.settings)(_distrust, platform, entity_type, ids, untrusted)
    index(platform, refs, Synced())
    concerned = list(dict.fromkeys(one.ref for one in differences))
    retrying(platform.settings)(_mark_those_who_point_at, platform, concerned)
    relink(platform, concerned, Synced().links)


def _distrust(platform: Platform, entity_type: str, ids: Sequence[str], untrusted: Iterable[EntityRef]) -> None:
    """Forget what the ledger says of these entities, and of their vectors where those are not to be relied on."""
    query = platform.postgres.query
    names = sorted(ids)
    bounds = [_SURPLUS_CHUNKS] * len(names)
    collection, _ = serving_collection(platform, entity_type)
    with platform.postgres.transaction() as connection:
        shared = {"entity_type": entity_type, "ids": names}
        # A point that neither a row nor an event stands behind is removed as that of a deleted entity is.
        connection.execute(
            query("tombstone_unknown"),
            {
                "entity_type": entity_type,
                "entity_id": names,
                "slot": [slot_of(entity_id) for entity_id in names],
                "chunks": bounds,
            },
        )
        connection.execute(query("lock_states"), shared)
        connection.execute(query("distrust_entities"), shared)
        lost = [entity_id for entity_id in names if EntityRef(entity_type, entity_id) in untrusted]
        if lost:
            beyond = _known_chunks(connection, platform, entity_type, lost, collection)
            connection.execute(query("bound_held_chunks"), {"entity_type": entity_type, **beyond})
            if collection is not None:
                connection.execute(
                    query("delete_embedded"),
                    {"entity_type": entity_type, "ids": lost, "collection": collection.name},
                )


def _known_chunks(
    connection: Connection, platform: Platform, entity_type: str, ids: Sequence[str], collection: Collection | None
) -> dict[str, list[Any]]:
    """Bounds of the chunks that may be in Qdrant: those on record, and some beyond."""
    points: dict[str, int] = {}
    if collection is not None:
        rows = connection.execute(
            platform.postgres.query("read_embedded"),
            {"entity_type": entity_type, "ids": list(ids), "collection": collection.name},
        )
        points = {row[0]: row[3] for row in rows}
    return {
        "entity_id": list(ids),
        "chunks": [points.get(entity_id, 0) + _SURPLUS_CHUNKS for entity_id in ids],
    }


def _mark_those_who_point_at(platform: Platform, refs: Sequence[EntityRef]) -> None:
    """Edges that lead to these entities belong to the lists of others."""
    with platform.postgres.transaction() as connection:
        edges = platform.relationships.of_targets(connection, refs, tuple(EdgeType))
        sources = {key.source for key in edges}
        for reason in (Reason.REFERENCES, Reason.LISTS):
            mark(platform, connection, sources, reason)


def _ghosts(platform: Platform, unknown: Sequence[str]) -> list[EntityRef]:
    """Those of the ids that neither source nor ledger knows of which Qdrant, or an edge, does know."""
    found: list[EntityRef] = []
    named = [_candidates(platform, name) for name in unknown]
    for entity_type, ids in by_type(ref for refs in named for ref in refs).items():
        collection, _ = serving_collection(platform, entity_type)
        for page in pages((EntityRef(entity_type, entity_id) for entity_id in ids), platform.settings.batch_size):
            points = {str(point_id(ref)): ref for ref in page}
            held = platform.qdrant.existing(collection.name, list(points)) if collection is not None else set()
            with platform.postgres.transaction() as connection:
                edges = platform.relationships.of_sources(connection, page, tuple(EdgeType))
                edges |= platform.relationships.of_targets(connection, page, tuple(EdgeType))
            ends = {end for key in edges for end in (key.source, key.target)}
            found += [ref for point, ref in points.items() if point in held or ref in ends]
    return found


def _candidates(platform: Platform, name: str) -> list[EntityRef]:
    prefix, colon, rest = name.partition(":")
    if colon and prefix in platform.settings.entity_types:
        return [EntityRef(prefix, rest)]
    return [EntityRef(entity_type, name) for entity_type in platform.settings.entity_types]


def _chunks_asked(state: _State) -> int:
    """How many chunk points are looked for: those that should be there, those on record, and some beyond."""
    on_record = state.claim[1] - 1 if state.claim is not None else 0
    return max(len(state.prepared.chunks), on_record) + _SURPLUS_CHUNKS


def _is_intact(point: HeldPoint) -> bool:
    """The point bears the vector that its payload was written with."""
    stated = point.payload.get(Key.VECTOR_CHECK)
    if not isinstance(stated, int | float) or not point.vector.any():
        return False
    return abs(vector_check(unit(point.vector)) - stated) <= VECTOR_CHECK_TOLERANCE


def _told(payload_: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in payload_.items() if key not in _UNTOLD}


def _time(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None


def _life(deleted: bool) -> str:
    return "deleted" if deleted else "living"
