"""Repair: mends exactly what a census found, and looks again whether it is mended.

What is listed is examined afresh first: nothing is done on the word of an old finding. Broken ledger rows and points
are made dirty in one transaction, and the indexer does the rest: killed anywhere, what is left is dirty or found by
the next census. A vector is made anew only where the one that is held is not the right one.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from mcp_assets.embedding.profiles import ModelProfile
from mcp_assets.entities.points import Key, point_id
from mcp_assets.entities.refs import EntityRef, shard_of
from mcp_assets.platform import Platform
from mcp_assets.retrying import retrying
from mcp_assets.stores.errors import CollectionMismatch
from mcp_assets.stores.orphan_edges import delete_orphans
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.qdrant import Collection
from mcp_assets.sync.collections.serving import serving_collection
from mcp_assets.sync.consistency.census import LastCensus, belongs, drift_counts, drift_of
from mcp_assets.sync.consistency.drift import (
    DELETING,
    OF_ENTITIES,
    OF_LINKS,
    TO_EMBED,
    Drift,
    Expected,
    FoundPoint,
    Kind,
    chunks_named,
    compare,
    is_duplicate,
    wanted_ids,
)
from mcp_assets.sync.consistency.edge_census import RELINKED_AT_ONCE, EdgeRules, orphaned_edges
from mcp_assets.sync.consistency.recheck import ENTITIES_AT_ONCE, Examined, examine, read_states, retrieve
from mcp_assets.sync.consistency.removed_types import clean_up_removed_types, removed_types
from mcp_assets.sync.index.full_sync import Stages, full_sync
from mcp_assets.sync.index.indexer import Indexer, index_until_current
from mcp_assets.sync.index.ledger import Wanted, apply
from mcp_assets.sync.index.mass_delete import MassDeletion, is_mass, sentence
from mcp_assets.sync.link.linker import link_until_done
from mcp_assets.sync.link.locks import exclusive
from mcp_assets.sync.link.marks import Reason, mark

_LEDGER = frozenset({Kind.LEDGER_BEHIND, Kind.LYING_LEDGER, Kind.VANISHED_ROW})
_REWRITTEN = frozenset({Kind.STALE_PAYLOAD, Kind.ORPHAN_VECTOR, Kind.SURPLUS_CHUNK})

_ROWS_AT_ONCE = 500


@dataclass(slots=True)
class Repaired:
    """What a repair did."""

    mended: Counter[Kind] = field(default_factory=Counter)
    """Findings that are gone, looked at again."""
    embedded: int = 0
    """Entities that were embedded."""
    refused: list[str] = field(default_factory=list)
    """What was left because so much would have been removed."""


def repair(
    platform: Platform,
    censuses: Sequence[LastCensus],
    *,
    allow_mass_delete: bool = False,
    foreign: bool = False,
    foreign_edges: bool = False,
) -> Repaired:
    """Mend what the drift table holds of these censuses: ledger rows and points first, then edges.

    What is mended leaves the table. `foreign`: points that other programs wrote are removed too; `foreign_edges`: so
    are their rows of `relationships` that lack a living end.

    Raises:
        StoreUnavailable, StoreRefused, CollectionMismatch, EmbedderUnavailable: what was mended stays mended.
    """
    done = Repaired()
    sparing = set() if allow_mass_delete else _types_to_spare(platform, censuses, done)
    for census in censuses:
        _finish_what_is_dirty(platform, census, done, allow_mass_delete=allow_mass_delete)
        _mend_partition(platform, census, done, sparing=census.entity_type in sparing)
        if foreign:
            _remove_foreign(platform, census, done)
    removed = list(_of_removed_types(platform, censuses))
    if removed:
        clean_up_removed_types(platform)
    # Neighbours of what was mended: an edge that was wrong for a broken vector is right after this.
    for _ in link_until_done(platform):
        pass
    _strike(platform, [row_id for row_id, drift in removed if not _is_removed(platform, drift.subject)], done)
    for census in censuses:
        _strike_edges_that_have_gone(platform, census, done)
    sparing = set() if allow_mass_delete else _types_to_spare_edges(platform, censuses, done)
    for census in censuses:
        if census.entity_type not in sparing:
            _remove_orphaned_edges(platform, census, Kind.ORPHANED_EDGE, done)
        if foreign_edges:
            _remove_orphaned_edges(platform, census, Kind.FOREIGN_EDGE, done)
        _relink(platform, census, done)
    return done


def mend_entities(
    platform: Platform, entity_type: str, suspects: Mapping[str, Sequence[str]], *, sparing: bool
) -> tuple[set[str], int]:
    """Mend ledger rows and points of `suspects`: ids, with points that name them. At most ENTITIES_AT_ONCE.

    Returns those that are clean now, and how many were embedded. `sparing`: what is to be removed is left.
    """
    indexer = Indexer(platform, entity_type)
    indexer.ensure_collection()
    collection, profile = serving_collection(platform, entity_type)
    if collection is None:
        raise CollectionMismatch(f"the collection of {entity_type} vanished: repair again")
    examined = examine(platform, entity_type, collection.name, profile, suspects)
    clean = {key for key, one in examined.items() if not one.drift and not one.waiting}
    spared = (DELETING if sparing else frozenset()) | {Kind.DAMAGED_ROW}
    broken = {
        key: one for key, one in examined.items() if one.drift and not (spared & {drift.kind for drift in one.drift})
    }
    if not broken:
        return clean, 0
    _rewrite_ledger(platform, entity_type, broken)
    retrying(platform.settings)(_distrust, platform, entity_type, collection, profile, broken)
    wanted = [Wanted(key) for key in sorted(broken)]
    report = index_until_current(platform, indexer, wanted, force=False, embed=True)
    again = examine(platform, entity_type, collection.name, profile, {key: suspects[key] for key in broken})
    clean |= {key for key, one in again.items() if not one.drift and not one.waiting}
    return clean, sum(counts.embedded for counts in report.shards.values())


def relink(platform: Platform, refs: Sequence[EntityRef], rules: EdgeRules) -> set[EntityRef]:
    """Have `refs` linked anew; those that are clean then."""
    with platform.postgres.transaction() as connection:
        for reason in (Reason.CHANGED, Reason.REFERENCES, Reason.LISTS):
            mark(platform, connection, set(refs), reason)
    for _ in link_until_done(platform):
        pass
    left: set[EntityRef] = set()
    for start in range(0, len(refs), RELINKED_AT_ONCE):
        left |= {drift.ref for drift in rules.differing(refs[start : start + RELINKED_AT_ONCE]) if drift.ref}
    return set(refs) - left


def remove_orphaned_edges(platform: Platform, ids: Sequence[str], kind: Kind) -> set[str]:
    """Remove those of the rows `ids` of `relationships` that lack a living end; which they were.

    `kind`: ORPHANED_EDGE for our rows alone, FOREIGN_EDGE for those of others alone.
    """
    orphaned = [drift.subject for drift in orphaned_edges(platform, ids) if drift.kind is kind]
    types = list(platform.settings.entity_types)
    if orphaned:
        with exclusive(platform) as connection:
            delete_orphans(
                platform.relationships,
                connection,
                platform.postgres.schema,
                orphaned,
                types,
                ours=kind is Kind.ORPHANED_EDGE,
            )
    return set(orphaned)


def _finish_what_is_dirty(platform: Platform, census: LastCensus, done: Repaired, *, allow_mass_delete: bool) -> None:
    """What an earlier run left dirty, this one's predecessor for instance, is no drift: it is only to be indexed."""
    shards = platform.settings.shards
    first, last = shard_of(census.slots[0], shards), shard_of(census.slots[1] - 1, shards)
    try:
        with closing(
            full_sync(
                platform,
                census.entity_type,
                range(first, last + 1),
                stages=Stages(ledger=False),
                allow_mass_delete=allow_mass_delete,
            )
        ) as progress:
            for news in progress:
                if news.complete:
                    done.embedded += news.counts.embedded
    except MassDeletion as refusal:
        if str(refusal) not in done.refused:
            done.refused.append(str(refusal))


def _types_to_spare(platform: Platform, censuses: Sequence[LastCensus], done: Repaired) -> set[str]:
    """The entity types of which so much would go that a person is asked; said once a type."""
    going: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for census in censuses:
        with platform.postgres.transaction() as connection:
            row = connection.execute(
                platform.postgres.query("entities_going"),
                {"census": census.id, "kinds": [kind.value for kind in DELETING]},
            ).fetchone()
        entities, vanished = row or (0, 0)
        going[census.entity_type] += entities
        total[census.entity_type] += census.checked + entities - vanished
    spared = {name for name in going if is_mass(platform, going[name], total[name])}
    done.refused += (sentence(platform, "entities", name, going[name], total[name]) for name in sorted(spared))
    return spared


def _mend_partition(platform: Platform, census: LastCensus, done: Repaired, *, sparing: bool) -> None:
    for listed in _entities_in_drift(platform, census):
        clean, embedded = mend_entities(platform, census.entity_type, listed, sparing=sparing)
        done.embedded += embedded
        _settle(platform, census, OF_ENTITIES, sorted(clean), done)


def _entities_in_drift(platform: Platform, census: LastCensus) -> Iterator[dict[str, Sequence[str]]]:
    after = ""
    while True:
        with platform.postgres.transaction() as connection:
            rows = connection.execute(
                platform.postgres.query("entities_in_drift"),
                {
                    "census": census.id,
                    "kinds": [kind.value for kind in OF_ENTITIES],
                    "after": after,
                    "limit": ENTITIES_AT_ONCE,
                },
            ).fetchall()
        if not rows:
            return
        after = rows[-1][0]
        yield {row[0]: row[2] or [] for row in rows}


def _settle(platform: Platform, census: LastCensus, kinds: frozenset[Kind], ids: Sequence[str], done: Repaired) -> None:
    """Strike what is mended from the table."""
    with platform.postgres.transaction() as connection:
        rows = connection.execute(
            platform.postgres.query("delete_drift_of_entities"),
            {"census": census.id, "kinds": [kind.value for kind in kinds], "ids": list(ids)},
        )
        done.mended.update(Kind(row[0]) for row in rows)


def _rewrite_ledger(platform: Platform, entity_type: str, broken: Mapping[str, Examined]) -> None:
    """Bring ledger rows that are behind, or lie, to the truth; what then has to be indexed is dirty."""
    ids = sorted(key for key, one in broken.items() if _LEDGER & {drift.kind for drift in one.drift})
    if not ids:
        return
    with platform.postgres.transaction() as connection:
        # A row that bears the source's hash is taken for right: it has to be prepared anew.
        connection.execute(platform.postgres.query("unprepare"), {"entity_type": entity_type, "ids": ids})
    retrying(platform.settings)(apply, platform, entity_type, [Wanted(key) for key in ids])


def _distrust(
    platform: Platform,
    entity_type: str,
    collection: Collection,
    profile: ModelProfile,
    broken: Mapping[str, Examined],
) -> None:
    """Have the ledger say what Qdrant holds of `broken`, under the locks of their rows; what is wrong is dirty then."""
    postgres = platform.postgres
    shared = {"entity_type": entity_type, "collection": collection.name, "model": profile.name}
    ids = sorted(broken)
    with postgres.transaction() as connection:
        gone = [key for key in ids if broken[key].expected is None]
        # A point of nobody is removed as that of an entity that was deleted.
        connection.execute(postgres.query("insert_tombstones"), {"entity_type": entity_type, "ids": gone})
        connection.execute(postgres.query("lock_states"), {"entity_type": entity_type, "ids": ids}).fetchall()
        states = read_states(platform, connection, entity_type, collection.name, ids)
        seen = [point.id for one in broken.values() for point in one.points]
        wanted = [
            identifier
            for key, one in broken.items()
            for identifier in wanted_ids(
                point_id(EntityRef(entity_type, key)), one.expected.points if one.expected else 1
            )
        ]
        points = retrieve(platform, collection.name, profile, dict.fromkeys([*seen, *wanted]))
        forget: list[str] = []
        adopt: list[tuple[str, Expected, list[float]]] = []
        dirty: dict[str, int] = {}
        duplicates: dict[str, str] = {}
        for key in ids:
            ref, state, expected = EntityRef(entity_type, key), states[key], broken[key].expected
            if not state.living:
                expected = None
            elif expected is None or (state.text_hash, state.state_hash) != (expected.text_hash, expected.state_hash):
                # It has moved on since it was examined, and is dirty for that.
                continue
            found = points.get(ref, [])
            kinds = {drift.kind for drift in compare(ref, expected, state.recorded, found, profile.name)}
            duplicates |= {point.id: key for point in found if is_duplicate(point)}
            if kinds & TO_EMBED:
                forget.append(key)
            elif Kind.LYING_LEDGER in kinds and expected is not None and expected.points:
                adopt.append((key, expected, _checks(ref, expected, found)))
            elif Kind.LYING_LEDGER in kinds:
                forget.append(key)
            if kinds & (TO_EMBED | _REWRITTEN):
                dirty[key] = chunks_named(found)
        connection.execute(postgres.query("delete_embedded"), {**shared, "ids": forget})
        _adopt(platform, connection, shared, adopt)
        connection.execute(
            postgres.query("distrust"),
            {"entity_type": entity_type, "entity_id": list(dirty), "chunks": list(dirty.values())},
        )
    if duplicates:
        platform.qdrant.delete(collection.name, list(duplicates), naming=sorted(set(duplicates.values())))


def _checks(ref: EntityRef, expected: Expected, found: Sequence[FoundPoint]) -> list[float]:
    """The vector_checks of the points of an entity in their order, as they were found."""
    by_id = {point.id: point for point in found}
    wanted = wanted_ids(point_id(ref), expected.points)
    return [float(by_id[identifier].payload[Key.VECTOR_CHECK]) for identifier in wanted]


def _adopt(
    platform: Platform,
    connection: Connection,
    shared: Mapping[str, str],
    adopt: Sequence[tuple[str, Expected, Sequence[float]]],
) -> None:
    """Have the ledger say that Qdrant holds these points, which were found right."""
    if not adopt:
        return
    connection.execute(
        platform.postgres.query("write_embedded"),
        {
            **shared,
            "entity_id": [key for key, _, _ in adopt],
            "text_hash": [expected.text_hash for _, expected, _ in adopt],
            "state_hash": [expected.state_hash for _, expected, _ in adopt],
            "points": [expected.points for _, expected, _ in adopt],
            "vector_checks": ["{" + ",".join(map(repr, checks)) + "}" for _, _, checks in adopt],
        },
    )


def _remove_foreign(platform: Platform, census: LastCensus, done: Repaired) -> None:
    for rows in _pages(platform, census, [Kind.FOREIGN_POINT]):
        held = platform.qdrant.points(census.collection, [drift.subject for _, drift in rows], vectors=False)
        still = [point.id for point in held if not belongs(platform, census.entity_type, point)]
        platform.qdrant.delete(census.collection, still)
        _strike(platform, [row_id for row_id, _ in rows], done)


def _of_removed_types(platform: Platform, censuses: Sequence[LastCensus]) -> Iterator[tuple[int, Drift]]:
    for census in censuses:
        for rows in _pages(platform, census, [Kind.REMOVED_TYPE]):
            yield from rows


def _is_removed(platform: Platform, name: str) -> bool:
    return any(one.name == name for one in removed_types(platform))


def _strike_edges_that_have_gone(platform: Platform, census: LastCensus, done: Repaired) -> None:
    """Linking has removed some of them, which nobody has to be asked about."""
    for rows in _pages(platform, census, [Kind.ORPHANED_EDGE]):
        left = {drift.subject for drift in orphaned_edges(platform, [drift.subject for _, drift in rows])}
        _strike(platform, [row_id for row_id, drift in rows if drift.subject not in left], done)


def _types_to_spare_edges(platform: Platform, censuses: Sequence[LastCensus], done: Repaired) -> set[str]:
    """The entity types of whose edges so many would go that a person is asked; said once a type."""
    counts = drift_counts(platform, [census.id for census in censuses])
    going: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for census in censuses:
        orphaned = counts[census.id][Kind.ORPHANED_EDGE]
        going[census.entity_type] += orphaned
        total[census.entity_type] += max(census.edges, orphaned)
    spared = {name for name in going if is_mass(platform, going[name], total[name])}
    done.refused += (sentence(platform, "edges", name, going[name], total[name]) for name in sorted(spared))
    return spared


def _remove_orphaned_edges(platform: Platform, census: LastCensus, kind: Kind, done: Repaired) -> None:
    for rows in _pages(platform, census, [kind]):
        listed = [drift.subject for _, drift in rows]
        remove_orphaned_edges(platform, listed, kind)
        left = {drift.subject for drift in orphaned_edges(platform, listed)}
        _strike(platform, [row_id for row_id, drift in rows if drift.subject not in left], done)


def _relink(platform: Platform, census: LastCensus, done: Repaired) -> None:
    rules: EdgeRules | None = None
    for rows in _pages(platform, census, list(OF_LINKS)):
        rules = rules or EdgeRules(platform)
        refs = sorted({drift.ref for _, drift in rows if drift.ref is not None})
        clean = relink(platform, refs, rules)
        _strike(platform, [row_id for row_id, drift in rows if drift.ref in clean], done)


def _pages(platform: Platform, census: LastCensus, kinds: Sequence[Kind]) -> Iterator[list[tuple[int, Drift]]]:
    after = 0
    while True:
        with platform.postgres.transaction() as connection:
            rows = connection.execute(
                platform.postgres.query("drift_page"),
                {
                    "census": census.id,
                    "kinds": [kind.value for kind in kinds],
                    "after": after,
                    "limit": _ROWS_AT_ONCE,
                },
            ).fetchall()
        if not rows:
            return
        after = rows[-1][0]
        yield [(row[0], drift_of(*row[1:])) for row in rows]


def _strike(platform: Platform, row_ids: Sequence[int], done: Repaired) -> None:
    with platform.postgres.transaction() as connection:
        rows = connection.execute(platform.postgres.query("delete_drift"), {"ids": list(row_ids)})
        done.mended.update(Kind(row[0]) for row in rows)
