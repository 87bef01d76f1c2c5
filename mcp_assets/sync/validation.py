"""Validation: takes a census of what is named, mends it if asked, and says what was found and done."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph import EdgeType
from mcp_assets.sync.census import EXAMPLES, Census, last_censuses, parts_of, take_census
from mcp_assets.sync.collections import serving_collection
from mcp_assets.sync.drift import LIES, Drift, Kind, Severity
from mcp_assets.sync.edge_census import RELINKED_AT_ONCE, EdgeRules, orphaned_edges
from mcp_assets.sync.examine import examine
from mcp_assets.sync.full import index_until_settled
from mcp_assets.sync.indexer import Indexer
from mcp_assets.sync.ledger import Wanted
from mcp_assets.sync.linker import link_until_done
from mcp_assets.sync.platform import Platform
from mcp_assets.sync.repair import mend_entities, relink, remove_orphaned_edges
from mcp_assets.sync.repair import repair as repair_all


@dataclass(frozen=True, slots=True)
class Validation:
    """What a validation found and did."""

    checked: int = 0
    """Entities."""
    found: Mapping[str, int] = field(default_factory=dict)
    """By kind of drift."""
    mended: Mapping[str, int] = field(default_factory=dict)
    examples: Sequence[Drift] = ()
    """Some of what was found, at most EXAMPLES of each kind and partition."""
    refused: str | None = None
    """Why a repair stopped before it removed very much."""
    embedded: int = 0
    """Entities that the repair embedded."""

    @property
    def left(self) -> dict[str, int]:
        """What is found and not mended, by kind; what a person has to decide on is not counted."""
        left = {kind: count - self.mended.get(kind, 0) for kind, count in self.found.items()}
        return {kind: count for kind, count in left.items() if count > 0 and Kind(kind).severity is Severity.ERROR}


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
) -> Validation:
    """Compare the stores for `entity_types`, or only for `entities` if there are any, and mend what differs if asked.

    `deep`: every text, payload and edge is looked at, not a sample. `foreign`: a repair removes points that other
    programs wrote too; `foreign_edges`: and their rows of `relationships` that lack a living end. `allow_mass_delete`:
    a repair may remove however much it finds gone.

    Raises:
        StoreUnavailable, StoreRefused, CollectionMismatch, EmbedderUnavailable: what was mended stays mended.
    """
    if entities:
        return _validate_entities(platform, sorted(set(entities)), repair=repair)
    taken = [
        take_census(platform, entity_type, shard, deep=deep)
        for entity_type in entity_types
        for shard in range(platform.settings.shards)
    ]
    found = sum_of(taken)
    examples = tuple(drift for census in taken for drift in census.examples)
    checked = sum(census.checked for census in taken)
    if not repair:
        return Validation(checked, found, examples=examples)
    # Where nothing was found, too: what a killed repair left dirty waits, and is no drift.
    ids = {census.id for census in taken}
    last = [one for one in last_censuses(platform) if one.id in ids]
    done = repair_all(platform, last, allow_mass_delete=allow_mass_delete, foreign=foreign, foreign_edges=foreign_edges)
    return Validation(checked, found, _named(done.mended), examples, "; ".join(done.refused) or None, done.embedded)


def sum_of(censuses: Sequence[Census]) -> dict[str, int]:
    """How much of each kind `censuses` found together."""
    total: Counter[Kind] = Counter()
    for census in censuses:
        total += census.counts
    return _named(total)


def _validate_entities(platform: Platform, refs: Sequence[EntityRef], *, repair: bool) -> Validation:
    found: list[Drift] = []
    mended: Counter[Kind] = Counter()
    embedded = 0
    for entity_type in dict.fromkeys(ref.type for ref in refs):
        suspects: dict[str, list[str]] = {ref.id: [] for ref in refs if ref.type == entity_type}
        collection, profile = serving_collection(platform, entity_type)
        for part in parts_of(suspects):
            examined = examine(platform, entity_type, collection.name if collection else None, profile, part)
            broken = {
                key: [drift.subject for drift in one.drift if drift.subject]
                for key, one in examined.items()
                if one.drift
            }
            found += (drift for one in examined.values() for drift in one.drift)
            waiting = [Wanted(key) for key, one in examined.items() if one.waiting]
            if repair and waiting:
                report = index_until_settled(platform, Indexer(platform, entity_type), waiting, force=False, embed=True)
                embedded += sum(counts.embedded for counts in report.shards.values())
            if repair and broken:
                clean, count = mend_entities(platform, entity_type, broken, sparing=False)
                embedded += count
                mended.update(drift.kind for key in clean for drift in examined[key].drift)
    if repair:
        for _ in link_until_done(platform):
            pass
    rules = EdgeRules(platform)
    for start in range(0, len(refs), RELINKED_AT_ONCE):
        some = refs[start : start + RELINKED_AT_ONCE]
        orphaned = orphaned_edges(platform, _edge_ids(platform, some))
        # Of rows that lie, the look at ledger and points has told.
        wrong = [drift for drift in rules.differing(some) if drift.kind not in LIES]
        found += [*orphaned, *wrong]
        if repair and orphaned:
            removed = remove_orphaned_edges(platform, [drift.subject for drift in orphaned], Kind.ORPHANED_EDGE)
            mended.update(drift.kind for drift in orphaned if drift.subject in removed)
        if repair and wrong:
            clean_refs = relink(platform, sorted({drift.ref for drift in wrong if drift.ref}), rules)
            mended.update(drift.kind for drift in wrong if drift.ref in clean_refs)
    counts = Counter(drift.kind for drift in found)
    shown = Counter[Kind]()
    examples = []
    for drift in found:
        shown[drift.kind] += 1
        if shown[drift.kind] <= EXAMPLES:
            examples.append(drift)
    return Validation(len(refs), _named(counts), _named(mended), examples, None, embedded)


def _edge_ids(platform: Platform, refs: Sequence[EntityRef]) -> list[str]:
    """The rows of our edges from and to `refs`."""
    with platform.postgres.transaction() as connection:
        relationships = platform.relationships
        rows = {
            **relationships.of_sources(connection, refs, tuple(EdgeType)),
            **relationships.of_targets(connection, refs, tuple(EdgeType)),
        }
    return [str(row_id) for row_id, _ in rows.values()]


def _named(counts: Mapping[Kind, int]) -> dict[str, int]:
    return {kind.value: counts[kind] for kind in Kind if counts.get(kind)}
