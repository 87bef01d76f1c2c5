"""Edge census: edges without a living end, references to nothing, and edges that differ from those of the rules.

Edges that look wrong are compared again under the link lock, so that no linker writes while the rules' edges and the
stored ones are read. An entity *waits* if it is marked to be linked or its ledger row is dirty: its edges are about to
change. An entity is left out if it waits, or if the other end of a wrong edge does.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar
from uuid import UUID

from psycopg import sql
from psycopg.rows import kwargs_row

from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph import KEPT, Edge, EdgeKey, EdgeType, Ranking, diff, ranked
from mcp_assets.platform import Platform
from mcp_assets.stores.orphan_edges import Orphan, orphans_among, orphans_of_slots
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.postgres.relationships_shape import ORIGIN
from mcp_assets.stores.postgres.rows import keyset_pages
from mcp_assets.sync.collections.serving import WriteTarget, serving_collections
from mcp_assets.sync.consistency.drift import LIES, Drift, DriftKind
from mcp_assets.sync.consistency.list_recall import measure_recall
from mcp_assets.sync.consistency.lying_rows import lying_rows
from mcp_assets.sync.consistency.stored_censuses import CensusPass
from mcp_assets.sync.consistency.waiting import entities_that_wait
from mcp_assets.sync.link.duplicates import DUPLICATE, Duplicates
from mcp_assets.sync.link.link_rules import rules_fingerprint
from mcp_assets.sync.link.link_state import (
    LinkState,
    read_link_states,
    reference_edges,
    stale_link_states,
)
from mcp_assets.sync.link.locks import exclusive
from mcp_assets.sync.link.semantic_neighbours import SemanticNeighbours
from mcp_assets.sync.link.topical_neighbours import TopicalNeighbours
from mcp_assets.sync.link.verdicts import read_verdicts
from mcp_assets.sync.resolve_ids import by_type, pages

Row = TypeVar("Row")

EDGES_SAMPLED = 200
"""Entities of a partition whose edges are recomputed by a census that is not deep: others each time. The cost of the
sample does not grow with the partition."""

RELINKED_AT_ONCE = 250
"""Entities whose edges are recomputed at once: the link lock is held meanwhile, and linkers wait for it."""

_OF_SEMANTIC_LISTS = (EdgeType.SEMANTIC_SIMILARITY, DUPLICATE)
"""The types of edge that follow from semantic lists, and so from the points in Qdrant."""

_ROWS_A_PAGE = 5_000
"""Rows that are read at once: some hundred kilobytes."""

_SUSPECTS_AT_ONCE = 500
"""Edges that are read again under one lock."""


@dataclass(frozen=True, slots=True)
class _DanglingReference:
    """A reference of which no name finds an entity: the entity that makes it, and the first of its names."""

    source_type: str
    source_id: str
    kind: str
    key: str
    rule: str


class EdgeCensus:
    """The census of the edges whose source is in one of the partitions of a pass."""

    def __init__(self, platform: Platform, taken: CensusPass, rules: "RulesInService") -> None:
        self._platform = platform
        self._rules = rules
        self._pass = taken
        self._type = taken.entity_type
        self._types = list(platform.settings.entity_types)

    def take(self) -> Iterator[Drift]:
        with self._platform.postgres.transaction() as connection:
            # Every row of the tables is read. PostgreSQL may expect few rows and look them up one by one through an
            # index, which takes a hundred times as long.
            connection.execute("SET LOCAL enable_nestloop = off")
            yield from self._orphans(connection)
            yield from self._dangling(connection)
            for part in pages(self._not_linked(connection), RELINKED_AT_ONCE):
                yield from self._differing(part)
        for ids in self._deep_pages() if self._pass.deep else [self._sample()]:
            for part in pages((EntityRef(self._type, entity_id) for entity_id in ids), RELINKED_AT_ONCE):
                yield from self._differing(part)

    def count(self) -> None:
        """Write how many edges there are to the censuses."""
        with self._platform.postgres.transaction() as connection:
            counts = self._platform.relationships.counts_from(connection, self._type, self._pass.ranges)
        for census, count in zip(self._pass.censuses, counts, strict=True):
            census.edges = count

    def measure_recall(self) -> None:
        """Write the recall of the similarity lists of a sample to each census; None: all searches are exact."""
        semantic = self._rules.now().semantic
        for census, slots in zip(self._pass.censuses, self._pass.ranges, strict=True):
            census.recall = measure_recall(self._platform, semantic, self._type, slots, self._pass.seed)

    def _differing(self, refs: Collection[EntityRef]) -> Iterator[Drift]:
        # The deep vector census of the same partitions reports wrong ledger rows.
        return (drift for drift in self._rules.now().differing(refs) if not (self._pass.deep and drift.kind in LIES))

    def _orphans(self, connection: Connection) -> Iterator[Drift]:
        relationships = self._platform.relationships
        schema, slots = self._platform.postgres.schema, self._pass.slots
        statement = orphans_of_slots(relationships, schema, self._type, slots, self._types)
        for part in pages((orphan.id for orphan in self._stream(connection, statement, Orphan)), _SUSPECTS_AT_ONCE):
            yield from orphaned_edges(self._platform, part)

    def _dangling(self, connection: Connection) -> Iterator[Drift]:
        waits: bool | None = None
        for found in self._stream(connection, self._platform.postgres.query("dangling_references"), _DanglingReference):
            if waits is None:
                waits = self._any_change_waits()
            if waits:
                # The entity that the reference names may be about to be linked.
                return
            ref = EntityRef(found.source_type, found.source_id)
            sentence = f"{found.kind} {found.key!r}, by {found.rule}, names no entity"
            yield Drift(DriftKind.DANGLING_REFERENCE, ref, sentence, found.key)

    def _any_change_waits(self) -> bool:
        with self._platform.postgres.transaction() as connection:
            row = connection.execute(self._platform.postgres.query("any_change_waits")).fetchone()
        return bool(row and row[0])

    def _not_linked(self, connection: Connection) -> Iterator[EntityRef]:
        statement = self._platform.postgres.query("living_not_linked")
        return (EntityRef(self._type, entity_id) for entity_id in self._stream(connection, statement, _entity_id))

    def _stream(
        self, connection: Connection, statement: sql.SQL | sql.Composed, make: Callable[..., Row]
    ) -> Iterator[Row]:
        """The rows of a query over all partitions, each made by `make`; memory does not grow with them."""
        low, high = self._pass.slots
        with connection.cursor(name="census", row_factory=kwargs_row(make)) as cursor:
            cursor.itersize = _ROWS_A_PAGE
            parameters = {"entity_type": self._type, "low": low, "high": high}
            cursor.execute(statement, parameters if isinstance(statement, sql.SQL) else None)
            yield from cursor

    def _sample(self) -> list[str]:
        return self._ids("sample_of_living", **self._pass.bounds, seed=str(self._pass.seed), limit=EDGES_SAMPLED)

    def _deep_pages(self) -> Iterator[list[str]]:
        low, high = self._pass.slots

        def read(after: str) -> list[str]:
            return self._ids("linked_or_living", low=low, high=high, after=after, limit=_ROWS_A_PAGE)

        return keyset_pages(read, lambda entity_id: entity_id, "")

    def _ids(self, query: str, **parameters: str | int | list[int]) -> list[str]:
        with self._platform.postgres.transaction() as connection:
            rows = connection.execute(
                self._platform.postgres.query(query), {"entity_type": self._type, **parameters}
            ).fetchall()
        return [row[0] for row in rows]


def orphaned_edges(platform: Platform, ids: Sequence[str]) -> list[Drift]:
    """The drift of those rows `ids` of `relationships`, ours and other programs', that lack a living end.

    Rows with an end that waits, or that has a living source row, are left out.
    """
    types = list(platform.settings.entity_types)
    with exclusive(platform) as connection:
        found = orphans_among(platform.relationships, connection, platform.postgres.schema, ids, types)
        # The edges of a source that waits are written again. In a rebuild they lose a target that is gone only then.
        waiting = entities_that_wait(platform, connection, {end for orphan in found for end in _ends(orphan, types)})
        # An end without a ledger row may have a source row, of which no event has come yet.
        alive = _in_source(platform, connection, {end for orphan in found for end in _lacking(orphan, types)})
    drift = []
    for orphan in found:
        if waiting.intersection(_ends(orphan, types)) or alive.intersection(_lacking(orphan, types)):
            continue
        source = f"{orphan.source_type or '?'}:{orphan.source_id}"
        target = f"{orphan.target_type or '?'}:{orphan.target_id}"
        ours = orphan.origin == ORIGIN
        whose = "" if ours else f", origin {orphan.origin or 'unknown'}"
        gone = " and ".join(
            name for name, there in ((source, orphan.has_source), (target, orphan.has_target)) if not there
        )
        drift.append(
            Drift(
                DriftKind.ORPHANED_EDGE if ours else DriftKind.FOREIGN_EDGE,
                EntityRef(orphan.source_type or "?", orphan.source_id),
                f"{source} → {target} ({orphan.edge_type}{whose}): {gone} is no living entity",
                orphan.id,
            )
        )
    return drift


@dataclass(frozen=True, slots=True)
class _EdgeDrift:
    """Drift of an entity's edges."""

    drift: Drift
    other: EntityRef | None = None
    """The other end of the edge, if the drift is about one edge."""
    semantic: bool = False

    @property
    def involved(self) -> list[EntityRef]:
        return [ref for ref in (self.drift.ref, self.other) if ref is not None]


_Stored = Mapping[EdgeKey, tuple[UUID, Edge]]
"""Edges of `relationships`, each with its row's id."""


class _Near(NamedTuple):
    """Semantic lists by the rules."""

    lists: Mapping[EntityRef, Ranking]
    of_duplicates: Mapping[EntityRef, Ranking]
    """The lists that the duplicates follow from. A rejected edge is not stored, and still makes a duplicate."""


class EdgeRules:
    """Compares the edges that the rules make with those that are stored. Collections are looked up once."""

    def __init__(self, platform: Platform, served: Mapping[str, WriteTarget] | None = None) -> None:
        """`served`: what `serving_collections` returned; read if it is not given."""
        self._platform = platform
        self.semantic = SemanticNeighbours(platform, served)
        self._topical = TopicalNeighbours(platform)
        self._duplicates = Duplicates(platform)
        self._linked_by = rules_fingerprint(platform, self.semantic.profile)

    def differing(self, refs: Collection[EntityRef]) -> list[Drift]:
        """The drift of the edges of `refs` that two comparisons find.

        If an entity's ledger row is wrong, only that is reported, because its edges follow from the row.
        """
        with self._platform.postgres.transaction() as connection:
            # A linker may be at work: either all of its transaction is visible, or nothing.
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            suspects = {one.drift.ref for one in self._compare(connection, refs) if one.drift.ref is not None}
        if not suspects:
            return []
        with exclusive(self._platform) as locked:
            found = self._compare(locked, suspects)
            involved = {ref for one in found for ref in one.involved}
            waiting = entities_that_wait(self._platform, locked, involved)
            states = read_link_states(self._platform, locked, involved)
            points = {ref: row.point for ref, row in states.items() if row.point}
            lying = lying_rows(self._platform, locked, {one.drift.ref for one in found if one.drift.ref is not None})
        moving = {one.drift.ref for one in found if waiting.intersection(one.involved)}
        # A lost point is reported as a missing vector; the lists that had it are right again once it is back.
        lost = self.semantic.missing(points)
        lacking = {one.drift.ref for one in found if one.semantic and lost.intersection(one.involved)}
        # Linking an entity by a wrong ledger row would remove edges that are right.
        reported = [drift for ref, drift in lying.items() if ref not in moving]
        return reported + [
            one.drift
            for one in found
            if one.drift.ref not in moving
            and one.drift.ref not in lying
            and not (one.semantic and one.drift.ref in lacking)
        ]

    def _compare(self, connection: Connection, refs: Collection[EntityRef]) -> list[_EdgeDrift]:
        platform = self._platform
        relationships = platform.relationships
        stored = relationships.of_sources(connection, refs, tuple(EdgeType))
        wanted = relationships.storable(connection, self._wanted(connection, refs, stored))
        found = diff((edge for _, edge in stored.values()), wanted)
        drift: list[_EdgeDrift] = []
        for kind, edges in (
            (DriftKind.MISSING_EDGE, found.added),
            (DriftKind.WRONG_EDGE, found.changed),
            (DriftKind.SURPLUS_EDGE, found.removed),
        ):
            for edge in edges:
                row_id, held = stored.get(edge.key, ("", edge))
                instead = f": {held.strength}" if held.strength != edge.strength else ""
                detail = f"{edge.source} → {edge.target} ({edge.type}, {edge.strength}){instead}"
                semantic = edge.type in _OF_SEMANTIC_LISTS
                drift.append(_EdgeDrift(Drift(kind, edge.source, detail, str(row_id)), edge.target, semantic))
        collections = self.semantic.collections
        drift += (
            _EdgeDrift(Drift(DriftKind.STALE_LINK, ref, "the linker last saw it otherwise than it is"))
            for ref in sorted(stale_link_states(platform, connection, refs, collections, self._linked_by))
        )
        return drift

    def _wanted(self, connection: Connection, refs: Collection[EntityRef], stored: _Stored) -> Iterable[Edge]:
        platform = self._platform
        living = read_link_states(platform, connection, refs)
        near = self._near(connection, living, stored)
        topical = self._topical.edges_of(connection, {ref: row.tags for ref, row in living.items()})
        verdicts = read_verdicts(platform, connection, refs)
        made = [
            *(edge.of_type(EdgeType.SEMANTIC_SIMILARITY) for edge in self.semantic.edges(near.lists)),
            *(edge.of_type(DUPLICATE) for edge in self._duplicates.compared(connection, near.of_duplicates).edges()),
            *(edge.of_type(EdgeType.TOPICAL_RELEVANCE) for edge in topical),
            *reference_edges(platform, connection, refs),
        ]
        return verdicts.judged(refs, tuple(EdgeType), made)

    def _near(self, connection: Connection, living: Mapping[EntityRef, LinkState], stored: _Stored) -> "_Near":
        """The semantic lists by the rules.

        Where a collection is beyond the bound of exact searches, two searches may differ a little. There the lists are
        those that are stored, scored again: an edge whose strength is not that of the vectors, or that is below the
        threshold, is drift. How many neighbours the lists lack is measured by `sync.consistency.list_recall`.
        """
        if self.semantic.exact:
            points = {ref: row.point for ref, row in living.items() if row.point}
            lists = {ref: found.ranking for ref, found in self.semantic.lists(connection, points).items()}
            return _Near(lists, lists)
        listed: dict[EntityRef, set[EntityRef]] = {}
        named: dict[EntityRef, set[EntityRef]] = {}
        for key, (_, edge) in stored.items():
            # An edge that only a verdict keeps is no edge of the list.
            if key.type in _OF_SEMANTIC_LISTS and key.source in living and KEPT not in edge.metadata:
                named.setdefault(key.source, set()).add(key.target)
                if key.type is EdgeType.SEMANTIC_SIMILARITY:
                    listed.setdefault(key.source, set()).add(key.target)
        scored = self.semantic.scored_again(named)
        return _Near(
            {ref: ranked(one for one in scored[ref] if one.ref in others) for ref, others in listed.items()},
            {ref: ranked(near, len(near)) for ref, near in scored.items()},
        )


class RulesInService:
    """The rules by the collections in service, made when they are first needed, and again after a move of an alias."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._made: tuple[Mapping[str, WriteTarget], EdgeRules] | None = None

    def now(self) -> EdgeRules:
        served = serving_collections(self._platform)
        if self._made is None or self._made[0] != served:
            self._made = served, EdgeRules(self._platform, served)
        return self._made[1]


def _entity_id(entity_id: str) -> str:
    """A row of one column, as a value."""
    return entity_id


def _ends(orphan: Orphan, types: Sequence[str]) -> list[EntityRef]:
    """Both ends. An end without a type stands for the entities of all types with its id."""
    return [
        *_named(orphan.source_type, orphan.source_id, types),
        *_named(orphan.target_type, orphan.target_id, types),
    ]


def _lacking(orphan: Orphan, types: Sequence[str]) -> list[EntityRef]:
    """The ends that are not living."""
    source = _named(orphan.source_type, orphan.source_id, types)
    target = _named(orphan.target_type, orphan.target_id, types)
    return [*([] if orphan.has_source else source), *([] if orphan.has_target else target)]


def _named(entity_type: str | None, entity_id: str, types: Sequence[str]) -> list[EntityRef]:
    return [EntityRef(name, entity_id) for name in ([entity_type] if entity_type is not None else types)]


def _in_source(platform: Platform, connection: Connection, refs: Collection[EntityRef]) -> set[EntityRef]:
    """The entities of `refs` with a living source row."""
    found: set[EntityRef] = set()
    for entity_type, ids in by_type(refs).items():
        reader = platform.source(entity_type) if entity_type in platform.settings.entity_types else None
        if reader is not None:
            rows = reader.read(connection, ids)
            found |= {EntityRef(entity_type, key) for key, row in rows.items() if row.alive}
    return found
