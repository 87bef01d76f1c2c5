"""Conflicts: settles the differences of named entities by a strategy. What differs is what the census's look finds.

The source row wins; for an entity without one, its newest event, which the ledger holds. What is settled is mended as a
repair mends it, and looked at once more: only what is gone then counts as settled.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from mcp_assets.entities.points import Key, point_id
from mcp_assets.entities.refs import EntityRef
from mcp_assets.events import SyncTarget
from mcp_assets.graph import EdgeType
from mcp_assets.platform import Platform
from mcp_assets.sync.collections.serving import serving_collection
from mcp_assets.sync.consistency.drift import OF_ENTITIES, Drift, Kind
from mcp_assets.sync.consistency.validation import drift_of_entities, mend_named
from mcp_assets.sync.resolve_ids import by_type, find_targets, pages

_LEDGER_KINDS = frozenset({Kind.LEDGER_BEHIND, Kind.VANISHED_ROW, Kind.LYING_LEDGER, Kind.DAMAGED_ROW})

_WHAT: Mapping[Kind, str] = {
    Kind.LEDGER_BEHIND: "behind",
    Kind.VANISHED_ROW: "not deleted",
    Kind.LYING_LEDGER: "record",
    Kind.DAMAGED_ROW: "record",
    Kind.MISSING_VECTOR: "missing",
    Kind.STALE_VECTOR: "text",
    Kind.STALE_PAYLOAD: "metadata",
    Kind.WRONG_MODEL: "model",
    Kind.INVALID_VECTOR: "vector",
    Kind.SWAPPED_VECTOR: "vector",
    Kind.ORPHAN_VECTOR: "orphan",
    Kind.SURPLUS_CHUNK: "chunks",
    Kind.DUPLICATE_POINT: "duplicate",
}
"""The values of `difference`; of edges it is `edges`."""

_SOURCE_WINS = "the source row wins, or without one its newest event"

_EDGES_SHOWN = 5


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
        decided = _decided(compare(platform, batch), strategy)
        to_settle = list(dict.fromkeys(one.ref for one in decided if one.to_be_settled))
        if to_settle:
            mend_named(platform, [ref for ref in batch if ref in to_settle] or to_settle)
            left = {(one.ref, one.place, one.what) for one in compare(platform, batch)}
            decided = [
                replace(one, settled=one.to_be_settled and (one.ref, one.place, one.what) not in left)
                for one in decided
            ]
        resolution.differences += decided
    return resolution


def compare(platform: Platform, refs: Sequence[EntityRef]) -> list[Difference]:
    """How ledger, Qdrant and edges of `refs` differ from what is true of them; work under way is no difference."""
    drift = drift_of_entities(platform, refs)
    concerned = [one.ref for one in drift if one.ref is not None]
    times = _times(platform, list(dict.fromkeys(concerned)))
    found = []
    edges: dict[EntityRef, list[Drift]] = {}
    behind = {one.ref for one in drift if one.kind is Kind.LEDGER_BEHIND}
    for one in drift:
        if one.ref is None or (one.kind is Kind.LYING_LEDGER and one.ref in behind):
            continue
        if one.kind not in OF_ENTITIES:
            edges.setdefault(one.ref, []).append(one)
            continue
        truth_at, row_at, point_at = times.get(one.ref, (None, None, None))
        in_ledger = one.kind in _LEDGER_KINDS
        place, found_at = (Place.LEDGER, row_at) if in_ledger else (Place.QDRANT, point_at)
        found.append(Difference(one.ref, place, _WHAT[one.kind], one.kind.value, one.detail, truth_at, found_at))
    for ref, differing in edges.items():
        shown = "; ".join(f"{one.kind}: {one.detail}" for one in differing[:_EDGES_SHOWN])
        more = "; …" if len(differing) > _EDGES_SHOWN else ""
        found.append(
            Difference(ref, Place.EDGES, "edges", "what the rules make", f"{len(differing)} differ: {shown}{more}")
        )
    return found


_Times = tuple[datetime | None, datetime | None, datetime | None]
"""When the truth, the ledger row and the entity's own point were last written."""


def _times(platform: Platform, refs: Sequence[EntityRef]) -> dict[EntityRef, _Times]:
    found: dict[EntityRef, _Times] = {}
    for entity_type, ids in by_type(refs).items():
        if entity_type not in platform.settings.entity_types:
            continue
        reader = platform.source(entity_type)
        with platform.postgres.transaction() as connection:
            rows = connection.execute(
                platform.postgres.query("changed_at"), {"entity_type": entity_type, "ids": sorted(ids)}
            ).fetchall()
            sources = reader.updated_at(connection, ids) if reader is not None else {}
        rows_at = {row[0]: row[1] for row in rows}
        of_events = {row[0] for row in rows if row[2] == "event"}
        collection, _ = serving_collection(platform, entity_type)
        own = {str(point_id(EntityRef(entity_type, entity_id))): entity_id for entity_id in ids}
        points = platform.qdrant.points(collection.name, list(own), vectors=False) if collection is not None else []
        points_at = {own[point.id]: _time(point.payload.get(Key.INDEXED_AT)) for point in points}
        for entity_id in ids:
            row_at = rows_at.get(entity_id)
            truth_at = row_at if entity_id in of_events else sources.get(entity_id)
            found[EntityRef(entity_type, entity_id)] = truth_at, row_at, points_at.get(entity_id)
    return found


def _decided(differences: Iterable[Difference], strategy: Strategy) -> list[Difference]:
    """An entity's row and points are settled together, or left together."""
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
        elif one.truth == Kind.DAMAGED_ROW:
            decided.append(replace(one, decision="left: nothing says what is right; publish its event again"))
        elif one.ref in newer:
            decided.append(replace(one, decision=f"left: {one.place} was written after the source row"))
        else:
            wins = (
                "the rules win" if one.place is Place.EDGES else "the source row wins, or without one its newest event"
            )
            decided.append(replace(one, decision=wins, to_be_settled=True))
    return decided


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


def _time(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
