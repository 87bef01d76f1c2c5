"""Conflicts: resolves the differences between the stores for named entities, by a strategy.

A difference is drift that a recheck of the entity finds. The source row wins; for an entity without one, its newest
event, which the ledger holds. A difference is resolved as a repair would repair it. The entities are compared again
afterwards, and a difference that is still there does not count as resolved.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from mcp_assets.entities.points import Key, point_id
from mcp_assets.entities.refs import EntityRef
from mcp_assets.events import SyncTarget
from mcp_assets.graph import EdgeType
from mcp_assets.platform import Platform
from mcp_assets.sync.collections.serving import serving_collection
from mcp_assets.sync.consistency.drift import LIES, OF_ENTITIES, Drift, DriftKind
from mcp_assets.sync.consistency.validation import drift_of_entities, repair_named
from mcp_assets.sync.resolve_ids import by_type, find_entities, pages

_LEDGER_KINDS = LIES | {DriftKind.LEDGER_BEHIND, DriftKind.VANISHED_ROW}
"""Kinds of drift in the ledger row; the other kinds of OF_ENTITIES are in Qdrant."""

_WHAT: Mapping[DriftKind, str] = {
    DriftKind.LEDGER_BEHIND: "behind",
    DriftKind.VANISHED_ROW: "not deleted",
    DriftKind.LYING_LEDGER: "record",
    DriftKind.DAMAGED_ROW: "record",
    DriftKind.MISSING_VECTOR: "missing",
    DriftKind.STALE_VECTOR: "text",
    DriftKind.STALE_PAYLOAD: "metadata",
    DriftKind.WRONG_MODEL: "model",
    DriftKind.INVALID_VECTOR: "vector",
    DriftKind.SWAPPED_VECTOR: "vector",
    DriftKind.ORPHAN_VECTOR: "orphan",
    DriftKind.SURPLUS_CHUNK: "chunks",
    DriftKind.DUPLICATE_POINT: "duplicate",
}
"""The values of `difference` in an answer, by kind of drift; the drift of an entity's edges is `edges`."""

_SOURCE_WINS = "the source row wins, or without one its newest event"
"""The decision about a difference in ledger or Qdrant."""

_EDGES_SHOWN = 5
"""Edges that the sentence about an entity's edges names: it stays readable, and the number of all is in it."""


class Strategy(StrEnum):
    """What decides a difference; the values of `context.strategy`."""

    SOURCE = "source"
    """The source row, or for an entity without one its newest event."""
    NEWEST = "newest"
    """The same, unless ledger row or point were written after the source row: then a person has to decide."""
    REPORT = "report"
    """Nothing: differences are reported, and stay."""


class ComparedStore(StrEnum):
    """The store in which an entity differs from its truth (source row, or newest event); the values of `place`."""

    LEDGER = "ledger"
    QDRANT = "qdrant"
    EDGES = "edges"


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference, and the decision about it."""

    ref: EntityRef
    place: ComparedStore
    what: str
    truth: str
    """The kind of drift; of edges, that the rules decide."""
    found: str
    truth_at: datetime | None = None
    """Last write of the source row, or of the ledger row of an entity without one; None: not known."""
    found_at: datetime | None = None
    """Last write of the ledger row or the point that differs; None: not known."""
    decision: str = ""
    to_resolve: bool = False
    resolved: bool = False

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
            "settled": self.resolved,
        }


@dataclass(slots=True)
class Resolution:
    """The entities that were compared, and every difference that was found."""

    refs: list[EntityRef] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    """Ids that name no entity in any store."""
    differences: list[Difference] = field(default_factory=list)


def resolve_conflicts(platform: Platform, named: Sequence[SyncTarget], strategy: Strategy) -> Resolution:
    """Compare the entities that `named` names, and resolve what differs by `strategy`.

    Raises:
        StoreUnavailable, StoreRefused, CollectionMismatch, EmbedderUnavailable: what was resolved stays resolved.
    """
    found = find_entities(platform, named)
    leftovers = _leftovers(platform, found.unknown)
    resolution = Resolution([*found.refs, *leftovers])
    names_of_leftovers = {str(ref) for ref in leftovers} | {ref.id for ref in leftovers}
    resolution.unknown = [name for name in found.unknown if name not in names_of_leftovers]
    for batch in pages(resolution.refs, platform.settings.batch_size):
        decided = _decided(find_differences(platform, batch), strategy)
        to_resolve = list(dict.fromkeys(one.ref for one in decided if one.to_resolve))
        if to_resolve:
            repair_named(platform, [ref for ref in batch if ref in to_resolve] or to_resolve)
            left = {(one.ref, one.place, one.what) for one in find_differences(platform, batch)}
            decided = [
                replace(one, resolved=one.to_resolve and (one.ref, one.place, one.what) not in left) for one in decided
            ]
        resolution.differences += decided
    return resolution


def find_differences(platform: Platform, refs: Sequence[EntityRef]) -> list[Difference]:
    """How ledger, Qdrant and edges of `refs` differ from their truth. Work under way is no difference."""
    drift = drift_of_entities(platform, refs)
    concerned = [one.ref for one in drift if one.ref is not None]
    times = _times(platform, list(dict.fromkeys(concerned)))
    differences = []
    edges: dict[EntityRef, list[Drift]] = {}
    behind = {one.ref for one in drift if one.kind is DriftKind.LEDGER_BEHIND}
    for one in drift:
        if one.ref is None or (one.kind is DriftKind.LYING_LEDGER and one.ref in behind):
            continue
        if one.kind not in OF_ENTITIES:
            edges.setdefault(one.ref, []).append(one)
            continue
        at = times.get(one.ref, _Times())
        place, found_at = ComparedStore.QDRANT, at.point
        if one.kind in _LEDGER_KINDS:
            place, found_at = ComparedStore.LEDGER, at.ledger
        differences.append(Difference(one.ref, place, _WHAT[one.kind], one.kind.value, one.detail, at.truth, found_at))
    for ref, differing in edges.items():
        shown = "; ".join(f"{one.kind}: {one.detail}" for one in differing[:_EDGES_SHOWN])
        more = "; …" if len(differing) > _EDGES_SHOWN else ""
        sentence = f"{len(differing)} differ: {shown}{more}"
        differences.append(Difference(ref, ComparedStore.EDGES, "edges", "what the rules make", sentence))
    return differences


class _Times(NamedTuple):
    """When an entity's truth, its ledger row and its point were last written; None: not known."""

    truth: datetime | None = None
    ledger: datetime | None = None
    point: datetime | None = None


class _LedgerChange(NamedTuple):
    """When a ledger row was last changed, and where its state comes from."""

    entity_id: str
    changed_at: datetime
    origin: str


def _times(platform: Platform, refs: Sequence[EntityRef]) -> dict[EntityRef, _Times]:
    found: dict[EntityRef, _Times] = {}
    for entity_type, ids in by_type(refs).items():
        if entity_type not in platform.settings.entity_types:
            continue
        reader = platform.source(entity_type)
        with platform.postgres.transaction() as connection:
            rows = platform.postgres.rows(
                connection, "changed_at", _LedgerChange, {"entity_type": entity_type, "ids": sorted(ids)}
            )
            sources = reader.updated_at(connection, ids) if reader is not None else {}
        ledger_at = {row.entity_id: row.changed_at for row in rows}
        of_events = {row.entity_id for row in rows if row.origin == "event"}
        collection, _ = serving_collection(platform, entity_type)
        own = {str(point_id(EntityRef(entity_type, entity_id))): entity_id for entity_id in ids}
        points = platform.qdrant.points(collection.name, list(own), vectors=False) if collection is not None else []
        points_at = {own[point.id]: _time(point.payload.get(Key.INDEXED_AT)) for point in points}
        for entity_id in ids:
            row_at = ledger_at.get(entity_id)
            truth_at = row_at if entity_id in of_events else sources.get(entity_id)
            found[EntityRef(entity_type, entity_id)] = _Times(truth_at, row_at, points_at.get(entity_id))
    return found


def _decided(differences: Iterable[Difference], strategy: Strategy) -> list[Difference]:
    """The differences with their decisions. An entity's row and points are resolved together, or left together."""
    differences = list(differences)
    newer = {
        one.ref
        for one in differences
        if strategy is Strategy.NEWEST
        and one.truth_at is not None
        and one.found_at is not None
        and one.found_at > one.truth_at
    }
    decided = []
    for one in differences:
        if strategy is Strategy.REPORT:
            decided.append(replace(one, decision="reported, not settled"))
        elif one.truth == DriftKind.DAMAGED_ROW:
            decided.append(replace(one, decision="left: nothing says what is right; publish its event again"))
        elif one.ref in newer:
            decided.append(replace(one, decision=f"left: {one.place} was written after the source row"))
        else:
            wins = "the rules win" if one.place is ComparedStore.EDGES else _SOURCE_WINS
            decided.append(replace(one, decision=wins, to_resolve=True))
    return decided


def _leftovers(platform: Platform, unknown: Sequence[str]) -> list[EntityRef]:
    """Entities that an id in `unknown` may mean: not in source table or ledger, but in Qdrant or at an edge."""
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


def _time(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
