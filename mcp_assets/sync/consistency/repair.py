"""Repair: repairs the drift that censuses found and stored, and deletes it from the table `drift`.

Ledger rows and points come first (`entity_repair`), because search words (`word_census`) and edges (`edge_repair`)
follow from them. Each
repair reads the stores again before and after: stored drift only says where to look. If a repair is killed, what it
has done stays, and the next one does the rest.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter

from mcp_assets.entities.refs import shard_of
from mcp_assets.platform import Platform
from mcp_assets.sync.consistency.drift import DELETING, OF_ENTITIES, OF_LINKS, DriftKind
from mcp_assets.sync.consistency.edge_census import EdgeRules, orphaned_edges
from mcp_assets.sync.consistency.edge_repair import link_again, remove_orphaned_edges
from mcp_assets.sync.consistency.entity_repair import repair_entities
from mcp_assets.sync.consistency.removed_types import clean_up_removed_types, removed_types
from mcp_assets.sync.consistency.stored_censuses import (
    DriftingEntity,
    LastCensus,
    StoredDrift,
    delete_drift,
    delete_drift_of_entities,
    drift_counts,
    drift_pages,
    drifting_entities,
)
from mcp_assets.sync.consistency.vector_census import belongs
from mcp_assets.sync.consistency.word_census import drift_of_words_of, rewrite_words
from mcp_assets.sync.index.full_sync import Stages, full_sync
from mcp_assets.sync.index.mass_delete import MassDeletion, is_mass, sentence
from mcp_assets.sync.link.linker import link_until_done
from mcp_assets.sync.link.marks import mark_waiting

_DRIFT_TOGETHER = 5_000
"""Rows of drift of several censuses that are repaired together: for each page, all rows that are left are read."""


@dataclass(slots=True)
class Repaired:
    """What a repair did."""

    mended: Counter[DriftKind] = field(default_factory=Counter)
    """Rows of `drift` that are repaired: another comparison found no drift."""
    embedded: int = 0
    """Entities that were embedded."""
    refused: list[str] = field(default_factory=list)
    """Sentences about what was left, because too much would have been removed."""


def repair_drift(
    platform: Platform,
    censuses: Sequence[LastCensus],
    *,
    allow_mass_delete: bool = False,
    foreign: bool = False,
    foreign_edges: bool = False,
) -> Repaired:
    """Repair what the table `drift` holds of these censuses: ledger rows and points first, then edges.

    `foreign`: points that other programs wrote are removed too; `foreign_edges`: and their rows of `relationships` that
    lack a living end.

    Raises:
        StoreUnavailable, StoreRefused, CollectionMismatch, EmbedderUnavailable: what was repaired stays repaired.
    """
    done = Repaired()
    # A census whose drift of a kind is none gets none later, so that there is nothing to read of it.
    found = drift_counts(platform, [census.id for census in censuses])
    together = list(_together(censuses, found))
    sparing = set() if allow_mass_delete else _types_to_spare(platform, censuses, found, done)
    for entity_type, slots in _ranges(censuses):
        mark_waiting(platform, entity_type, slots)
        _index_dirty(platform, entity_type, slots, done, allow_mass_delete=allow_mass_delete)
    for group in together:
        _repair_entities(platform, group, done, sparing=group.entity_type in sparing)
        _rewrite_words(platform, group, done)
        if foreign:
            _remove_foreign_points(platform, group, done)
    removed = [row for group in together for rows in group.pages(platform, DriftKind.REMOVED_TYPE) for row in rows]
    if removed:
        clean_up_removed_types(platform)
    # A broken vector made edges of its neighbours wrong. Linking corrects them, so that they need no repair below.
    for _ in link_until_done(platform):
        pass
    left = {one.name for one in removed_types(platform)} if removed else set()
    done.mended += delete_drift(platform, [row_id for row_id, drift in removed if drift.subject not in left])
    for group in together:
        _delete_drift_of_removed_edges(platform, group, done)
    sparing = set() if allow_mass_delete else _types_to_spare_edges(platform, censuses, done)
    for group in together:
        if group.entity_type not in sparing:
            _remove_orphaned_edges(platform, group, DriftKind.ORPHANED_EDGE, done)
        if foreign_edges:
            _remove_orphaned_edges(platform, group, DriftKind.FOREIGN_EDGE, done)
        _link_again(platform, group, done)
    return done


@dataclass(slots=True)
class _Together:
    """Censuses of one type and collection whose drift is repaired together: a few entities of each are one batch."""

    entity_type: str
    collection: str
    ids: list[int] = field(default_factory=list)
    counts: Counter[DriftKind] = field(default_factory=Counter)
    """How much drift of each kind they found."""

    def has(self, kinds: Collection[DriftKind]) -> bool:
        return not self.counts.keys().isdisjoint(kinds)

    def entities(self, platform: Platform, kinds: Collection[DriftKind]) -> Iterator[list[DriftingEntity]]:
        """The entities with drift of `kinds`, a page at a time."""
        return drifting_entities(platform, self.ids, kinds) if self.has(kinds) else iter(())

    def pages(self, platform: Platform, *kinds: DriftKind) -> Iterator[list[StoredDrift]]:
        """The drift of `kinds`, a page at a time."""
        return drift_pages(platform, self.ids, kinds) if self.has(kinds) else iter(())


def _together(censuses: Iterable[LastCensus], found: Mapping[int, Counter[DriftKind]]) -> Iterator[_Together]:
    """The censuses that found drift, in as few groups as _DRIFT_TOGETHER allows."""
    group: _Together | None = None
    for census in sorted(censuses, key=_place):
        counts = found[census.id]
        if not counts:
            continue
        if (
            group is None
            or (group.entity_type, group.collection) != (census.entity_type, census.collection)
            or group.counts.total() + counts.total() > _DRIFT_TOGETHER
        ):
            if group is not None:
                yield group
            group = _Together(census.entity_type, census.collection)
        group.ids.append(census.id)
        group.counts += counts
    if group is not None:
        yield group


def _ranges(censuses: Iterable[LastCensus]) -> Iterator[tuple[str, tuple[int, int]]]:
    """The slots of the partitions, by type, in as few ranges as there are.

    A full sync that finds nothing costs as much for one partition as for all that stand together.
    """
    for entity_type, of_type in groupby(sorted(censuses, key=_place), key=attrgetter("entity_type")):
        begin = end = 0
        for census in of_type:
            if census.low > end and end > begin:
                yield entity_type, (begin, end)
            if census.low > end or end == begin:
                begin = census.low
            end = max(end, census.high)
        yield entity_type, (begin, end)


def _place(census: LastCensus) -> tuple[str, int]:
    return census.entity_type, census.low


def _index_dirty(
    platform: Platform, entity_type: str, slots: tuple[int, int], done: Repaired, *, allow_mass_delete: bool
) -> None:
    """Index what is dirty. It is no drift, because its work is known; a repair that was killed leaves such entities."""
    shards = platform.settings.shards
    first, last = shard_of(slots[0], shards), shard_of(slots[1] - 1, shards)
    try:
        with closing(
            full_sync(
                platform,
                entity_type,
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


def _types_to_spare(
    platform: Platform, censuses: Sequence[LastCensus], found: Mapping[int, Counter[DriftKind]], done: Repaired
) -> set[str]:
    """The entity types of which a repair would remove so many entities that a person has to allow it first.

    `found`: how much drift of each kind each census (by id) found.
    """
    going: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for census in censuses:
        entities, vanished = 0, 0
        if not found[census.id].keys().isdisjoint(DELETING):
            with platform.postgres.transaction() as connection:
                row = connection.execute(
                    platform.postgres.query("entities_going"),
                    {"census": census.id, "kinds": [kind.value for kind in DELETING]},
                ).fetchone()
            entities, vanished = row or (0, 0)
        going[census.entity_type] += entities
        total[census.entity_type] += census.checked + entities - vanished
    return _spared(platform, "entities", going, total, done)


def _types_to_spare_edges(platform: Platform, censuses: Sequence[LastCensus], done: Repaired) -> set[str]:
    """The entity types of which a repair would remove so many edges that a person has to allow it first."""
    counts = drift_counts(platform, [census.id for census in censuses])
    going: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for census in censuses:
        orphaned = counts[census.id][DriftKind.ORPHANED_EDGE]
        going[census.entity_type] += orphaned
        total[census.entity_type] += max(census.edges, orphaned)
    return _spared(platform, "edges", going, total, done)


def _spared(platform: Platform, what: str, going: Counter[str], total: Counter[str], done: Repaired) -> set[str]:
    share = platform.settings.mass_delete_share
    spared = {name for name in going if is_mass(going[name], total[name], share)}
    done.refused += (sentence(what, name, going[name], total[name], share) for name in sorted(spared))
    return spared


def _repair_entities(platform: Platform, group: _Together, done: Repaired, *, sparing: bool) -> None:
    for page in group.entities(platform, OF_ENTITIES):
        clean, embedded = repair_entities(platform, group.entity_type, dict(page), sparing=sparing)
        done.embedded += embedded
        done.mended += delete_drift_of_entities(platform, group.ids, OF_ENTITIES, sorted(clean))


def _rewrite_words(platform: Platform, group: _Together, done: Repaired) -> None:
    for page in group.entities(platform, [DriftKind.WRONG_WORDS]):
        ids = [entity_id for entity_id, _ in page]
        rewrite_words(platform, group.entity_type, ids)
        left = {drift.ref.id for drift in drift_of_words_of(platform, group.entity_type, ids) if drift.ref}
        clean = [entity_id for entity_id in ids if entity_id not in left]
        done.mended += delete_drift_of_entities(platform, group.ids, [DriftKind.WRONG_WORDS], clean)


def _remove_foreign_points(platform: Platform, group: _Together, done: Repaired) -> None:
    for rows in group.pages(platform, DriftKind.FOREIGN_POINT):
        held = platform.qdrant.points(group.collection, [drift.subject for _, drift in rows], vectors=False)
        still_foreign = [point.id for point in held if not belongs(platform, group.entity_type, point)]
        platform.qdrant.delete(group.collection, still_foreign)
        done.mended += delete_drift(platform, [row_id for row_id, _ in rows])


def _delete_drift_of_removed_edges(platform: Platform, group: _Together, done: Repaired) -> None:
    """Linking has removed some of the orphaned edges: they do not count when a person has to allow a removal."""
    for rows in group.pages(platform, DriftKind.ORPHANED_EDGE):
        _delete_drift_without_orphan(platform, rows, done)


def _remove_orphaned_edges(platform: Platform, group: _Together, kind: DriftKind, done: Repaired) -> None:
    for rows in group.pages(platform, kind):
        remove_orphaned_edges(platform, [drift.subject for _, drift in rows], kind)
        _delete_drift_without_orphan(platform, rows, done)


def _delete_drift_without_orphan(platform: Platform, rows: Sequence[StoredDrift], done: Repaired) -> None:
    """Delete the drift of `rows` whose row of `relationships` is gone, or has both ends."""
    left = {drift.subject for drift in orphaned_edges(platform, [drift.subject for _, drift in rows])}
    done.mended += delete_drift(platform, [row_id for row_id, drift in rows if drift.subject not in left])


def _link_again(platform: Platform, group: _Together, done: Repaired) -> None:
    rules: EdgeRules | None = None
    for rows in group.pages(platform, *OF_LINKS):
        rules = rules or EdgeRules(platform)
        refs = sorted({drift.ref for _, drift in rows if drift.ref is not None})
        clean = link_again(platform, refs, rules)
        done.mended += delete_drift(platform, [row_id for row_id, drift in rows if drift.ref in clean])
