"""Entity repair: brings the ledger rows and points of entities to what the source of truth implies.

The entities are rechecked first: drift that a census found earlier may be gone. Wrong ledger rows and points become
dirty in one transaction, and the indexer does the rest: after a kill, what is left is dirty, or the next census finds
it. A vector is computed again only if the one in Qdrant is wrong.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from mcp_assets.embedding.profiles import ModelProfile
from mcp_assets.entities.points import Key, point_id
from mcp_assets.entities.refs import EntityRef
from mcp_assets.platform import Platform
from mcp_assets.retrying import retrying
from mcp_assets.stores.errors import CollectionMismatch
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.qdrant_collections import Collection
from mcp_assets.sync.collections.serving import serving_collection
from mcp_assets.sync.consistency.compare import (
    Expected,
    FoundPoint,
    chunks_named,
    compare_points,
    is_duplicate,
    wanted_ids,
)
from mcp_assets.sync.consistency.drift import DELETING, TO_EMBED, DriftKind
from mcp_assets.sync.consistency.recheck import LedgerState, Rechecked, read_states, recheck_entities, retrieve
from mcp_assets.sync.index.indexer import Indexer, index_until_current
from mcp_assets.sync.index.ledger import Wanted, apply
from mcp_assets.sync.link.marks import Reason, mark

_OF_LEDGER = frozenset({DriftKind.LEDGER_BEHIND, DriftKind.LYING_LEDGER, DriftKind.VANISHED_ROW})
"""Repaired by applying the source row to the ledger."""

_REWRITTEN = frozenset({DriftKind.STALE_PAYLOAD, DriftKind.ORPHAN_VECTOR, DriftKind.SURPLUS_CHUNK})
"""Repaired by the indexer without a new vector: a payload is written, or points are deleted."""


def repair_entities(
    platform: Platform, entity_type: str, suspects: Mapping[str, Sequence[str]], *, sparing: bool
) -> tuple[set[str], int]:
    """Repair ledger rows and points of `suspects`: entity ids, each with ids of points that name the entity.

    At most ENTITIES_AT_ONCE. `sparing`: entities and points that would be removed are left.

    Returns the ids without drift afterwards, and how many entities were embedded.
    """
    indexer = Indexer(platform, entity_type)
    indexer.ensure_collection()
    collection, profile = serving_collection(platform, entity_type)
    if collection is None:
        raise CollectionMismatch(f"the collection of {entity_type} vanished: repair again")
    rechecked = recheck_entities(platform, entity_type, collection.name, profile, suspects)
    clean = {key for key, one in rechecked.items() if one.clean}
    spared = (DELETING if sparing else frozenset()) | {DriftKind.DAMAGED_ROW}
    broken = {
        key: one for key, one in rechecked.items() if one.drift and not (spared & {drift.kind for drift in one.drift})
    }
    if not broken:
        return clean, 0
    _rewrite_ledger(platform, entity_type, broken)
    retrying(platform.settings)(_mark_wrong, platform, entity_type, collection, profile, broken)
    wanted = [Wanted(key) for key in sorted(broken)]
    report = index_until_current(platform, indexer, wanted, force=False, embed=True)
    again = recheck_entities(platform, entity_type, collection.name, profile, {key: suspects[key] for key in broken})
    clean |= {key for key, one in again.items() if one.clean}
    return clean, sum(counts.embedded for counts in report.shards.values())


def _rewrite_ledger(platform: Platform, entity_type: str, broken: Mapping[str, Rechecked]) -> None:
    """Apply the source rows to ledger rows that are behind or wrong; what then has to be indexed is dirty."""
    ids = sorted(key for key, one in broken.items() if _OF_LEDGER & {drift.kind for drift in one.drift})
    if not ids:
        return
    with platform.postgres.transaction() as connection:
        # A ledger row that has the hash of the source row is skipped by `apply`, unless its text must be prepared.
        connection.execute(platform.postgres.query("unprepare"), {"entity_type": entity_type, "ids": ids})
    retrying(platform.settings)(apply, platform, entity_type, [Wanted(key) for key in ids])


class _RightPoints(NamedTuple):
    """Points of an entity that are right, and that the ledger does not record as they are."""

    entity_id: str
    expected: Expected
    vector_checks: Sequence[float]


@dataclass(slots=True)
class _Corrections:
    """What the ledger has to record of the points of some entities."""

    forget: list[str] = field(default_factory=list)
    """Entities whose row in `embedded` is deleted, so that the indexer embeds them."""
    record: list[_RightPoints] = field(default_factory=list)
    dirty: dict[str, int] = field(default_factory=dict)
    """Entities that the indexer has to write, with the number of chunks that Qdrant may hold of each."""
    duplicates: dict[str, str] = field(default_factory=dict)
    """Points to delete, each with the entity that it names: their ids are not made of the entity's name."""


def _mark_wrong(
    platform: Platform,
    entity_type: str,
    collection: Collection,
    profile: ModelProfile,
    broken: Mapping[str, Rechecked],
) -> None:
    """Let the ledger record what Qdrant holds of `broken`, and mark as dirty what is wrong, with the rows locked."""
    postgres = platform.postgres
    ids = sorted(broken)
    with postgres.transaction() as connection:
        gone = [key for key in ids if broken[key].expected is None]
        # A point without a ledger row gets a tombstone, so that the indexer removes it like that of a deleted entity.
        connection.execute(postgres.query("insert_tombstones"), {"entity_type": entity_type, "ids": gone})
        connection.execute(postgres.query("lock_states"), {"entity_type": entity_type, "ids": ids}).fetchall()
        states = read_states(platform, connection, entity_type, collection.name, ids)
        points = _read_points(platform, entity_type, collection, profile, broken)
        corrections = _corrections(entity_type, broken, states, points, profile)
        _write(platform, connection, entity_type, collection, profile, corrections)
    if corrections.duplicates:
        naming = sorted(set(corrections.duplicates.values()))
        platform.qdrant.delete(collection.name, list(corrections.duplicates), naming=naming)


def _read_points(
    platform: Platform,
    entity_type: str,
    collection: Collection,
    profile: ModelProfile,
    broken: Mapping[str, Rechecked],
) -> dict[EntityRef, list[FoundPoint]]:
    """The points of the entities: those that the recheck found, and those that should be there."""
    seen = [point.id for one in broken.values() for point in one.points]
    wanted = [
        identifier
        for key, one in broken.items()
        for identifier in wanted_ids(point_id(EntityRef(entity_type, key)), one.expected.points if one.expected else 1)
    ]
    return retrieve(platform, collection.name, profile, dict.fromkeys([*seen, *wanted]))


def _corrections(
    entity_type: str,
    broken: Mapping[str, Rechecked],
    states: Mapping[str, LedgerState],
    points: Mapping[EntityRef, Sequence[FoundPoint]],
    profile: ModelProfile,
) -> _Corrections:
    corrections = _Corrections()
    for key in sorted(broken):
        ref, state, expected = EntityRef(entity_type, key), states[key], broken[key].expected
        if not state.living:
            expected = None
        elif expected is None or (state.text_hash, state.state_hash) != (expected.text_hash, expected.state_hash):
            # The entity changed after the recheck, so that it is dirty already.
            continue
        found = points.get(ref, [])
        kinds = {drift.kind for drift in compare_points(ref, expected, state.recorded, found, profile.name)}
        corrections.duplicates |= {point.id: key for point in found if is_duplicate(point)}
        if kinds & TO_EMBED:
            corrections.forget.append(key)
        elif DriftKind.LYING_LEDGER in kinds and expected is not None and expected.points:
            corrections.record.append(_RightPoints(key, expected, _vector_checks(ref, expected, found)))
        elif DriftKind.LYING_LEDGER in kinds:
            corrections.forget.append(key)
        if kinds & (TO_EMBED | _REWRITTEN):
            corrections.dirty[key] = chunks_named(found)
    return corrections


def _vector_checks(ref: EntityRef, expected: Expected, found: Sequence[FoundPoint]) -> list[float]:
    """The vector_checks in the payloads of an entity's points: its own, then its chunks."""
    by_id = {point.id: point for point in found}
    wanted = wanted_ids(point_id(ref), expected.points)
    return [float(by_id[identifier].payload[Key.VECTOR_CHECK]) for identifier in wanted]


def _write(
    platform: Platform,
    connection: Connection,
    entity_type: str,
    collection: Collection,
    profile: ModelProfile,
    corrections: _Corrections,
) -> None:
    query = platform.postgres.query
    shared = {"entity_type": entity_type, "collection": collection.name, "model": profile.name}
    connection.execute(query("delete_embedded"), {**shared, "ids": corrections.forget})
    if corrections.record:
        right = corrections.record
        connection.execute(
            query("write_embedded"),
            {
                **shared,
                "entity_id": [one.entity_id for one in right],
                "text_hash": [one.expected.text_hash for one in right],
                "state_hash": [one.expected.state_hash for one in right],
                "points": [one.expected.points for one in right],
                "vector_checks": ["{" + ",".join(map(repr, one.vector_checks)) + "}" for one in right],
            },
        )
        # An entity that was linked while the ledger recorded no points of it was linked as one without a vector.
        mark(platform, connection, {EntityRef(entity_type, one.entity_id) for one in right}, Reason.VECTOR)
    connection.execute(
        query("mark_wrong"),
        {
            "entity_type": entity_type,
            "entity_id": list(corrections.dirty),
            "chunks": list(corrections.dirty.values()),
        },
    )
