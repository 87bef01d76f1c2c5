"""Validation: compares partitions or named entities, repairs them if asked, and reports what was found and done."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mcp_assets.entities.points import Key
from mcp_assets.entities.refs import EntityRef, slot_range
from mcp_assets.graph import EdgeType
from mcp_assets.platform import Platform
from mcp_assets.sync.collections.lookup import looked_up_once
from mcp_assets.sync.collections.serving import serving_collection
from mcp_assets.sync.consistency.census import several_censuses, take_censuses
from mcp_assets.sync.consistency.drift import LIES, Drift, DriftKind, Severity
from mcp_assets.sync.consistency.edge_census import RELINKED_AT_ONCE, EdgeRules, orphaned_edges
from mcp_assets.sync.consistency.edge_repair import link_again, remove_orphaned_edges
from mcp_assets.sync.consistency.entity_repair import repair_entities
from mcp_assets.sync.consistency.list_recall import ListRecall
from mcp_assets.sync.consistency.progress import CensusProgress
from mcp_assets.sync.consistency.recheck import ENTITIES_AT_ONCE, recheck_entities
from mcp_assets.sync.consistency.repair import repair_drift
from mcp_assets.sync.consistency.stored_censuses import EXAMPLES, Census, LastCensus, last_censuses, recall_by_type
from mcp_assets.sync.consistency.word_census import drift_of_words_of, rewrite_words
from mcp_assets.sync.index.indexer import Indexer, index_until_current
from mcp_assets.sync.index.ledger import Wanted
from mcp_assets.sync.link.link_state import by_type_and_id
from mcp_assets.sync.link.linker import link_until_done
from mcp_assets.sync.resolve_ids import by_type, pages

_ROUNDS = 5
"""Times that a validation compares what others leave without a census. Each time means that another one ended at that
moment; a hole that stays is left to their repair, or to the next one."""

_NAMED = 5
"""Entities that a sentence names: it stays readable, and the number of all is in it."""


@dataclass(frozen=True, slots=True)
class Validation:
    """What a validation found and did."""

    checked: int = 0
    """Entities."""
    found: Mapping[str, int] = field(default_factory=dict)
    """How much drift, by kind."""
    mended: Mapping[str, int] = field(default_factory=dict)
    """How much of it was repaired, by kind."""
    examples: Sequence[Drift] = ()
    """Drift that was found: at most EXAMPLES of each kind and partition."""
    refused: str | None = None
    """Why a repair left what it would have removed: it was too much to remove unasked."""
    embedded: int = 0
    """Entities that the repair embedded."""
    by_events: int = 0
    """Entities that live by events alone though their type has a source table: no drift. A person may end them."""
    by_events_examples: Sequence[EntityRef] = ()
    recall: Mapping[str, ListRecall] = field(default_factory=dict)
    """By entity type, that of the similarity lists of a sample, before any repair; empty: all searches are exact."""
    given_up: Sequence[EntityRef] = ()
    """Entities whose present state is not indexed, because a store or the model refuses it: see their dead letters."""

    @property
    def left(self) -> dict[str, int]:
        """How much drift is not repaired, by kind; warnings do not count, because a person has to decide about them."""
        left = {kind: count - self.mended.get(kind, 0) for kind, count in self.found.items()}
        return {kind: count for kind, count in left.items() if count > 0 and DriftKind(kind).severity is Severity.ERROR}

    @property
    def unfinished(self) -> str | None:
        """One sentence for a person about what is still wrong; None: nothing is."""
        parts = [self.refused] if self.refused else []
        if self.left:
            parts.append("drift is left: " + ", ".join(f"{count} {kind}" for kind, count in self.left.items()))
        if self.given_up:
            named = ", ".join(map(str, self.given_up[:_NAMED]))
            more = f" and {len(self.given_up) - _NAMED} more" if len(self.given_up) > _NAMED else ""
            parts.append(
                f"{len(self.given_up)} entities could not be indexed ({named}{more}): see `mcp-assets dlq list`"
            )
        return "; ".join(parts) or None


def validate(
    platform: Platform,
    *,
    entity_types: Sequence[str],
    entities: Sequence[EntityRef] = (),
    repair: bool = False,
    deep: bool = False,
    allow_mass_delete: bool = False,
    foreign: bool = False,
    foreign_edges: bool = False,
    on_census: Callable[[CensusProgress], object] = lambda _: None,
) -> Validation:
    """Compare the stores for `entity_types`, or only for `entities` if there are any, and repair what differs if asked.

    `deep`: every text, payload and edge is compared, not a sample. `foreign`: a repair removes points that other
    programs wrote too; `foreign_edges`: and their rows of `relationships` that lack a living end. `allow_mass_delete`:
    a repair removes what is gone, however much it is. `on_census` is called after the censuses of each pass.

    Raises:
        StoreUnavailable, StoreRefused, CollectionMismatch, EmbedderUnavailable: what was repaired stays repaired.
    """
    if entities:
        refs = sorted(set(entities))
        done = _validate_entities(platform, refs, repair=repair)
        return replace(done, given_up=_given_up(platform, refs))
    taken = _censuses(platform, entity_types, deep=deep, on_census=on_census)
    seen = Validation(
        checked=sum(census.checked for census in taken),
        found=sum_of(taken),
        examples=tuple(drift for census in taken for drift in census.examples),
        by_events=sum(census.by_events for census in taken),
        by_events_examples=[ref for census in taken for ref in census.by_events_examples],
        recall=recall_by_type(taken),
    )
    if not repair:
        return replace(seen, given_up=_given_up(platform, of_types=entity_types))
    with looked_up_once(platform):
        # Censuses without drift, too: what an earlier, killed repair left dirty is no drift, and has to be indexed.
        repaired = repair_drift(
            platform,
            _standing(platform, taken, deep=deep),
            allow_mass_delete=allow_mass_delete,
            foreign=foreign,
            foreign_edges=foreign_edges,
        )
    return replace(
        seen,
        mended=_named(repaired.mended),
        refused="; ".join(repaired.refused) or None,
        embedded=repaired.embedded,
        given_up=_given_up(platform, of_types=entity_types),
    )


def _censuses(
    platform: Platform, entity_types: Sequence[str], *, deep: bool, on_census: Callable[[CensusProgress], object]
) -> list[Census]:
    """A census of each partition of the types, in as few passes as their sizes allow."""
    partitions = [(entity_type, shard) for entity_type in entity_types for shard in range(platform.settings.shards)]
    return _take(platform, CensusProgress(platform, partitions), deep=deep, on_census=on_census)


def _take(
    platform: Platform,
    progress: CensusProgress,
    *,
    deep: bool,
    on_census: Callable[[CensusProgress], object] = lambda _: None,
) -> list[Census]:
    taken: list[Census] = []
    with several_censuses(platform) as shared:
        for partitions in progress.passes:
            taken += take_censuses(platform, partitions, deep=deep, shared=shared)
            progress.add(partitions)
            on_census(progress)
    return taken


def _standing(platform: Platform, taken: Sequence[Census], *, deep: bool) -> list[LastCensus]:
    """The censuses to repair by: those `taken`, and those of others that have replaced some of them.

    Two validations at once may have other numbers of shards. A census replaces each that it overlaps, so that slots may
    be left without one: it has been replaced by a census that was replaced in turn by one of other slots. Their
    partitions are compared again.
    """
    shards = platform.settings.shards
    partitions = [(census.entity_type, census.shard) for census in taken]
    own = {census.id for census in taken}
    # A census of a collection that is being built says nothing about the one in service.
    compared = {(census.entity_type, census.collection) for census in taken}
    standing: list[LastCensus] = []
    for _ in range(_ROUNDS):
        standing = [
            one
            for one in last_censuses(platform)
            if one.id in own or ((one.entity_type, one.collection) in compared and (one.deep or not deep))
        ]
        absent = [
            (entity_type, shard)
            for entity_type, shard in partitions
            if not _covers([one.slots for one in standing if one.entity_type == entity_type], slot_range(shard, shards))
        ]
        if not absent:
            break
        own |= {census.id for census in _take(platform, CensusProgress(platform, absent), deep=deep)}
    return standing


def _covers(ranges: Iterable[tuple[int, int]], wanted: tuple[int, int]) -> bool:
    """Each slot from `wanted[0]` to before `wanted[1]` is in one of `ranges`."""
    reached, end = wanted
    for low, high in sorted(ranges):
        if low <= reached < high:
            reached = high
    return reached >= end


def sum_of(censuses: Sequence[Census]) -> dict[str, int]:
    """How much drift of each kind the censuses found together."""
    total: Counter[DriftKind] = Counter()
    for census in censuses:
        total += census.counts
    return _named(total)


def _validate_entities(platform: Platform, refs: Sequence[EntityRef], *, repair: bool) -> Validation:
    found, mended, embedded = _check(platform, refs, repair=repair)
    counts = Counter(drift.kind for drift in found)
    shown = Counter[DriftKind]()
    examples = []
    for drift in found:
        shown[drift.kind] += 1
        if shown[drift.kind] <= EXAMPLES:
            examples.append(drift)
    return Validation(len(refs), _named(counts), _named(mended), examples, None, embedded)


def drift_of_entities(platform: Platform, refs: Sequence[EntityRef]) -> list[Drift]:
    """The drift of ledger rows, points and edges of `refs`, as a deep census finds it; work under way is none.

    Raises:
        StoreUnavailable, StoreRefused, CollectionMismatch: a store could not be read.
    """
    return _check(platform, refs, repair=False)[0]


def repair_named(platform: Platform, refs: Sequence[EntityRef]) -> None:
    """Repair ledger rows, points and edges of `refs`.

    Raises:
        StoreUnavailable, StoreRefused, CollectionMismatch, EmbedderUnavailable: what was repaired stays repaired.
    """
    _check(platform, refs, repair=True)


def _check(
    platform: Platform, refs: Sequence[EntityRef], *, repair: bool
) -> tuple[list[Drift], Counter[DriftKind], int]:
    """The drift of `refs`; with `repair`, how much of each kind is repaired, and how many entities were embedded."""
    found: list[Drift] = []
    mended: Counter[DriftKind] = Counter()
    embedded = 0
    for entity_type, ids in by_type(refs).items():
        for part in pages(ids, ENTITIES_AT_ONCE):
            drift, mended_now, count = _check_points(platform, entity_type, part, repair=repair)
            found += drift
            mended += mended_now
            embedded += count
            words = drift_of_words_of(platform, entity_type, part)
            found += words
            if repair and words:
                rewrite_words(platform, entity_type, [drift.ref.id for drift in words if drift.ref])
                mended[DriftKind.WRONG_WORDS] += len(words) - len(drift_of_words_of(platform, entity_type, part))
    if repair:
        for _ in link_until_done(platform):
            pass
    rules = EdgeRules(platform)
    for some in pages(refs, RELINKED_AT_ONCE):
        orphaned = orphaned_edges(platform, _edge_ids(platform, some))
        # Wrong ledger rows are in `found` already.
        wrong = [drift for drift in rules.differing(some) if drift.kind not in LIES]
        found += [*orphaned, *wrong]
        if repair and orphaned:
            removed = remove_orphaned_edges(platform, [drift.subject for drift in orphaned], DriftKind.ORPHANED_EDGE)
            mended.update(drift.kind for drift in orphaned if drift.subject in removed)
        if repair and wrong:
            clean_refs = link_again(platform, sorted({drift.ref for drift in wrong if drift.ref}), rules)
            mended.update(drift.kind for drift in wrong if drift.ref in clean_refs)
    return found, mended, embedded


def _check_points(
    platform: Platform, entity_type: str, ids: Sequence[str], *, repair: bool
) -> tuple[list[Drift], Counter[DriftKind], int]:
    """As `_check`, for ledger rows and points of entities of one type; at most ENTITIES_AT_ONCE."""
    mended: Counter[DriftKind] = Counter()
    embedded = 0
    collection, profile = serving_collection(platform, entity_type)
    suspects: dict[str, list[str]] = {entity_id: [] for entity_id in ids}
    if collection is not None:
        # Surplus chunks and duplicates: their ids do not follow from the entity.
        for point in platform.qdrant.naming(collection.name, entity_type, ids):
            suspects[str(point.payload[Key.ENTITY_ID])].append(point.id)
    rechecked = recheck_entities(platform, entity_type, collection.name if collection else None, profile, suspects)
    found = [drift for one in rechecked.values() for drift in one.drift]
    waiting = [Wanted(key) for key, one in rechecked.items() if one.waiting]
    broken = {key: suspects[key] for key, one in rechecked.items() if one.drift}
    if repair and waiting:
        report = index_until_current(platform, Indexer(platform, entity_type), waiting, force=False, embed=True)
        embedded += sum(counts.embedded for counts in report.shards.values())
    if repair and broken:
        clean, count = repair_entities(platform, entity_type, broken, sparing=False)
        embedded += count
        mended.update(drift.kind for key in clean for drift in rechecked[key].drift)
    return found, mended, embedded


def _given_up(
    platform: Platform, refs: Sequence[EntityRef] = (), *, of_types: Sequence[str] | None = None
) -> list[EntityRef]:
    with platform.postgres.transaction() as connection:
        rows = connection.execute(
            platform.postgres.query("given_up_entities"),
            {**by_type_and_id(refs), "of_types": list(of_types or {ref.type for ref in refs})},
        ).fetchall()
    return [EntityRef(*row) for row in rows]


def _edge_ids(platform: Platform, refs: Sequence[EntityRef]) -> list[str]:
    """The ids of our rows of `relationships` from and to `refs`."""
    with platform.postgres.transaction() as connection:
        relationships = platform.relationships
        rows = {
            **relationships.of_sources(connection, refs, tuple(EdgeType)),
            **relationships.of_targets(connection, refs, tuple(EdgeType)),
        }
    return [str(row_id) for row_id, _ in rows.values()]


def _named(counts: Mapping[DriftKind, int]) -> dict[str, int]:
    return {kind.value: counts[kind] for kind in DriftKind if counts.get(kind)}
