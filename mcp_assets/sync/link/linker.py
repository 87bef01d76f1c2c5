"""Linker: works off the marks, so that the edges of all entities are what ledger, vectors and tag weights imply.

Marks are taken and edges written in one transaction: killed at any instruction, it leaves the marks of what is not
done. One linker works at a time, one transaction after the other (`sync.link.locks`). Two kinds of work, told apart by
a mark's reason:

- *changes*: what an entity is now is compared with what it was when last linked (`linked`). Its reference edges and
  those of the users of its keys are resolved anew; where its vector or tags moved, it is worked into the lists of
  others.
- *lists*: an entity's own neighbours are asked for, ahead of the transaction that writes them (`sync.link.prefetch`).

When very much has changed at once, asking everybody is cheaper than working each change into the lists of others:
then everybody is marked for lists (a sweep).
"""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from heapq import nlargest
from itertools import chain, groupby
from operator import attrgetter, itemgetter
from typing import Literal

from mcp_assets.embedding.profiles import ModelProfile
from mcp_assets.entities.refs import EntityRef, shard_of, slot_range
from mcp_assets.graph import (
    LIST_LENGTH,
    STRENGTH_BINS,
    Edge,
    EdgeDiff,
    EdgeType,
    Known,
    ListDiff,
    ListedEdge,
    StoredList,
    bin_of,
    diff,
    diff_lists,
    differing,
    ranked,
    work_in,
)
from mcp_assets.platform import Platform
from mcp_assets.retrying import retrying
from mcp_assets.stores.errors import StoreUnavailable
from mcp_assets.stores.postgres import Connection
from mcp_assets.sync.collections.gc_threshold import collected_seldom
from mcp_assets.sync.collections.journal import Journal, hold_collections
from mcp_assets.sync.collections.move import read_journal
from mcp_assets.sync.collections.serving import serving_profile
from mcp_assets.sync.link.link_state import by_type_and_id, derive, read_linked, reference_edges
from mcp_assets.sync.link.locks import by_index, exclusive, is_sole_linker, require_usable_edges, sole_linker
from mcp_assets.sync.link.neighbours import NAMES_KEPT, Answers, Names, Reached, SemanticLists, TopicalLists
from mcp_assets.sync.link.prefetch import Ahead
from mcp_assets.sync.link.stored_lists import StoredLists, has_moved, write_known
from mcp_assets.sync.link.tag_weights import refresh_tag_weights

CHANGES_AT_ONCE = 200
SWEPT_AT_ONCE = 500
"""Changed entities that are not to be worked into the lists of others."""

REFERRING_AT_ONCE = 2_000
"""Entities whose reference edges are resolved in one transaction; more users of a key are marked, for the next."""

SWEEP_FROM = 500
SWEEP_SHARE = 0.08
"""From so many changed entities on, and from this share of all living, everybody is asked anew: a search down to the
threshold costs about ten times one for a list."""

NEW_EDGES_SHOWN = 10

_STRENGTH = attrgetter("strength")

RULES_VERSION = 2
"""Part of `linked.linked_by`: raise it when a rule changes what it makes of the same entities."""

_LISTS_BETWEEN_CHANGES = 20
_WAIT_FOR_OTHERS_S = 0.2

_MARKS_FOLLOW = 4
"""Tag weights mark holders, whose changes mark the lists of others, or more users of a key: no chain is longer."""

SEMANTIC, TOPICAL = EdgeType.SEMANTIC_SIMILARITY, EdgeType.TOPICAL_RELEVANCE
REFERENCE_TYPES = (EdgeType.SEQUENTIAL_DEPENDENCY, EdgeType.CONCEPTUAL_HIERARCHY, EdgeType.CROSS_REFERENCE)


Change = Literal["added", "changed", "removed"]


class Reason(StrEnum):
    """The values of `relink_marks.reason`."""

    CHANGED = "changed"
    VECTOR = "vector"
    TAGS = "tags"
    REFERENCES = "references"
    LISTS = "lists"


@dataclass(slots=True)
class LinkCounts:
    """What happened to the edges whose source is in one partition."""

    relinked: int = 0
    """Entities that were looked at; one may be several times."""
    added: Counter[EdgeType] = field(default_factory=Counter)
    changed: Counter[EdgeType] = field(default_factory=Counter)
    removed: Counter[EdgeType] = field(default_factory=Counter)
    strongest: list[Edge] = field(default_factory=list)
    """The strongest of the new edges."""
    strengths: dict[EdgeType, list[int]] = field(default_factory=dict)
    """How many of the edges added or changed have which strength: STRENGTH_BINS numbers a type of edge."""

    def add(self, other: "LinkCounts") -> None:
        self.relinked += other.relinked
        self.added += other.added
        self.changed += other.changed
        self.removed += other.removed
        self.strongest = _strongest([*self.strongest, *other.strongest])
        for edge_type, bins in other.strengths.items():
            own = self.strengths.setdefault(edge_type, [0] * STRENGTH_BINS)
            self.strengths[edge_type] = [one + more for one, more in zip(own, bins, strict=True)]

    def count(self, change: Change, edge: Edge) -> None:
        """An edge was added, changed or removed."""
        by_type: Counter[EdgeType] = getattr(self, change)
        by_type[edge.type] += 1
        if change == "added":
            self.strongest.append(edge)
        if change != "removed":
            self.strengths.setdefault(edge.type, [0] * STRENGTH_BINS)[edge.bin] += 1

    def count_listed(self, change: Change, edge_type: EdgeType, edges: Sequence[ListedEdge]) -> None:
        """Edges of ranked lists, all of one type, were added, changed or removed."""
        by_type: Counter[EdgeType] = getattr(self, change)
        by_type[edge_type] += len(edges)
        if change == "added":
            # A sort of all strengths takes a third of the time of a heap of all edges.
            least = sorted(map(_STRENGTH, edges))[-NEW_EDGES_SHOWN:][0]
            best = nlargest(
                NEW_EDGES_SHOWN, (edge for edge in edges if edge.strength >= least), key=itemgetter(2, 0, 1)
            )
            self.strongest += (edge.of_type(edge_type) for edge in best)
        if change != "removed":
            bins = self.strengths.setdefault(edge_type, [0] * STRENGTH_BINS)
            for number, count in Counter(bin_of(edge.strength) for edge in edges).items():
                bins[number] += count


@dataclass(slots=True)
class LinkReport:
    """What one transaction of the linker did, by entity type and shard."""

    partitions: dict[tuple[str, int], LinkCounts] = field(default_factory=dict)

    def total(self) -> LinkCounts:
        total = LinkCounts()
        for counts in self.partitions.values():
            total.add(counts)
        return total


def link(platform: Platform, *, enough: Callable[[], bool] = lambda: False) -> Generator[LinkReport]:
    """Work off the marks, until there are none, it is `enough`, or another linker works: that one sees all marks, too.

    `enough` is asked between two transactions. Marks that are left stay for the next linker.

    Raises:
        StoreUnavailable, StoreRefused, CollectionMismatch: the marks of what was not committed stay.
    """
    while not enough() and pending_links(platform, up_to=1):
        with sole_linker(platform) as session:
            if session is None:
                return
            try:
                yield from _work_off(platform, session, enough)
            except _Overtaken:
                continue


def _work_off(platform: Platform, session: int, enough: Callable[[], bool]) -> Iterator[LinkReport]:
    require_usable_edges(platform)
    # First the journal: a move of the collections between the two is noticed.
    journal = read_journal(platform)
    semantic = SemanticLists(platform)
    analyzed = weighed = False
    with collected_seldom(), Ahead(platform, semantic) as ahead:
        linker = _Linker(platform, session, journal, semantic, ahead)
        while not enough() and (marks := pending_links(platform, up_to=SWEEP_FROM)):
            if marks >= SWEEP_FROM and not analyzed:
                # Last seen with marks for lists alone, each batch of changes would read all that there are.
                analyzed = True
                _analyze(platform, "relink_marks")
            while (report := linker.changes()).partitions:
                yield report
                if enough():
                    return
            if marks >= SWEEP_FROM and not weighed:
                # Lists made with all tags alike would have to be made again after the first night.
                weighed = True
                _analyze(platform, "linked")
                if not _has_tag_weights(platform) and refresh_tag_weights(platform).marked:
                    continue
            worked = False
            for report in linker.lists():
                worked = True
                yield report
                if enough():
                    return
            if not worked and pending_links(platform, up_to=1):
                # What is left, somebody else has claimed; or it was marked this moment.
                time.sleep(_WAIT_FOR_OTHERS_S)


def link_until_done(platform: Platform) -> Iterator[LinkReport]:
    """As `link`, and wait for other linkers: at the end no mark is left that was made before, nor one made by its work.

    Marks of changes that are committed meanwhile may be left to other linkers. Otherwise it would never end while
    events come faster than they are linked.
    """
    made_before = _MarksMadeBefore(platform)
    while not made_before.are_gone():
        yield from link(platform, enough=made_before.are_gone)
        if made_before.are_gone():
            return
        time.sleep(_WAIT_FOR_OTHERS_S)


class _MarksMadeBefore:
    """The marks that are there now, and those that the work on them makes, generation by generation."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._newest = _newest_mark(platform)
        self._generations = 1

    def are_gone(self) -> bool:
        while self._newest is not None:
            if _marks_left(self._platform, self._newest):
                return False
            self._newest = _newest_mark(self._platform) if self._generations < _MARKS_FOLLOW else None
            self._generations += 1
        return True


def _newest_mark(platform: Platform) -> int | None:
    """The place of the mark that was made last; None if none is left."""
    with platform.postgres.transaction() as connection:
        row = connection.execute(platform.postgres.query("newest_mark")).fetchone()
    return row[0] if row else None


def _marks_left(platform: Platform, newest: int) -> bool:
    """Whether a mark is left that was made no later than `newest`."""
    with platform.postgres.transaction() as connection:
        return connection.execute(platform.postgres.query("marks_left"), {"newest": newest}).fetchone() is not None


def mark(platform: Platform, connection: Connection, refs: Collection[EntityRef], reason: Reason) -> None:
    """Have `refs` re-linked, once the caller's transaction is committed."""
    if refs:
        connection.execute(platform.postgres.query("mark"), {**by_type_and_id(refs), "reason": reason.value})


def mark_shards(platform: Platform, entity_type: str, shards: Iterable[int], *, force: bool) -> None:
    """Mark what was never linked, or by other rules or settings; with `force` everything in the shards."""
    rules = linked_by(platform, serving_profile(platform))
    with platform.postgres.transaction() as connection:
        for shard in shards:
            low, high = slot_range(shard, platform.settings.shards)
            connection.execute(
                platform.postgres.query("mark_range"),
                {
                    "entity_type": entity_type,
                    "low": low,
                    "high": high,
                    "linked_by": rules,
                    "force": force,
                },
            )


def pending_links(platform: Platform, *, up_to: int) -> int:
    """Marks that nobody has worked off; `up_to` if there are more."""
    with platform.postgres.transaction() as connection:
        return _first(connection.execute(platform.postgres.query("marks_up_to"), {"limit": up_to}).fetchone())


def oldest_link_s(platform: Platform) -> float | None:
    """Age in seconds of the oldest mark that nobody has worked off."""
    with platform.postgres.transaction() as connection:
        row = connection.execute(platform.postgres.query("oldest_mark")).fetchone()
    return row[0] if row else None


def _first(row: tuple[int, ...] | None) -> int:
    assert row is not None  # noqa: S101  (an aggregate has one row)
    return row[0]


def _has_tag_weights(platform: Platform) -> bool:
    with platform.postgres.transaction() as connection:
        return connection.execute(platform.postgres.query("has_tag_weights")).fetchone() is not None


def _analyze(platform: Platform, table: Literal["linked", "relink_marks"]) -> None:
    """Tell the planner what very much work has made of `table`, before autovacuum gets round to it."""
    with platform.postgres.transaction() as connection:
        connection.execute(platform.postgres.query(f"analyze_{table}"))


def linked_by(platform: Platform, profile: ModelProfile) -> str:
    """The name of the rules and settings that edges depend on, beside ledger, vectors and tag weights.

    `profile`: the model that serves.
    """
    stated = [
        RULES_VERSION,
        profile.name,
        profile.similarity_threshold,
        platform.settings.topical_threshold,
        sorted(platform.settings.link_forms.items()),
        sorted(platform.reference_rules.type_names.items()),
    ]
    return hashlib.md5(json.dumps(stated).encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True)
class _Done:
    """What one transaction made of the changes."""

    report: LinkReport
    swept: bool
    """None was left that would have to be worked into the lists of others."""
    began_sweep: bool = False
    """Nothing else was done."""


class _Overtaken(Exception):
    """Other collections serve than those that the linker looked up, or it may not be alone: nothing was done."""


class _Linker:
    """The work on the marks. Collections are looked up once: it lives for a call of `link`, or until their move."""

    def __init__(
        self, platform: Platform, session: int, journal: Journal, semantic: SemanticLists, ahead: Ahead
    ) -> None:
        self._platform = platform
        self._session = session
        self._journal = journal
        self._semantic = semantic
        self._ahead = ahead
        self._names: Names = {}
        self._topical = TopicalLists(platform)
        self._linked_by = linked_by(platform, semantic.profile)

    def changes(self) -> LinkReport:
        """Work off one batch of changes; an empty report if there are none."""
        self._names = {}
        while True:
            done = retrying(self._platform.settings)(self._changes_or_forget)
            if done.swept:
                self._ahead.ask()
            if not done.began_sweep:
                return done.report

    def lists(self) -> Iterator[LinkReport]:
        """Work off marks for lists, some batches."""
        for asked in self._ahead.take(_LISTS_BETWEEN_CHANGES):
            report = retrying(self._platform.settings)(self._lists_batch, asked.marks, asked.answers())
            if report.partitions:
                yield report

    def _changes_or_forget(self) -> _Done:
        try:
            return self._changes_batch()
        except StoreUnavailable:
            # It may be committed all the same, and the next try will find nothing left to do.
            self._ahead.forget()
            raise

    def _changes_batch(self) -> _Done:
        with exclusive(self._platform) as connection:
            by_index(connection)
            self._hold_collections(connection)
            report = LinkReport()
            swept = connection.execute(self._platform.postgres.query("any_unswept")).fetchone() is None
            if not swept and self._sweep_if_much(connection):
                # The marks for lists are to be seen at once: Qdrant is asked while the changes are worked off.
                self._ahead.forget()
                return _Done(report, swept=True, began_sweep=True)
            limit = SWEPT_AT_ONCE if swept else CHANGES_AT_ONCE
            rows = connection.execute(self._platform.postgres.query("claim_changes"), {"limit": limit})
            reasons: dict[EntityRef, set[Reason]] = {}
            unswept: set[EntityRef] = set()
            for entity_type, entity_id, reason, is_swept in rows:
                ref = EntityRef(entity_type, entity_id)
                reasons.setdefault(ref, set()).add(Reason(reason))
                if not is_swept:
                    unswept.add(ref)
            if unswept:
                self._ahead.forget()
            if reasons:
                self._apply(connection, reasons, unswept, report)
        return _Done(report, swept=swept)

    def _hold_collections(self, connection: Connection) -> None:
        """A mark that the move of the collections made is not to be worked off with those before it."""
        if not hold_collections(self._platform, connection, self._journal):
            raise _Overtaken

    def _sweep_if_much(self, connection: Connection) -> bool:
        """Have everybody asked anew if so much has changed that it is cheaper; returns whether it is."""
        query = self._platform.postgres.query

        def changed(up_to: int) -> int:
            # An entity has some marks, one for each reason.
            limit = up_to * len(Reason)
            return _first(connection.execute(query("changes_up_to"), {"limit": limit}).fetchone())

        if changed(SWEEP_FROM) < SWEEP_FROM:
            return False
        share = int(SWEEP_SHARE * _first(connection.execute(query("count_all_living")).fetchone()))
        if share <= SWEEP_FROM or changed(share) >= share:
            connection.execute(query("sweep_changes"))
            connection.execute(query("sweep_lists"))
            return True
        return False

    def _apply(
        self,
        connection: Connection,
        reasons: Mapping[EntityRef, set[Reason]],
        unswept: Collection[EntityRef],
        report: LinkReport,
    ) -> None:
        changed = {ref for ref, why in reasons.items() if why & {Reason.CHANGED, Reason.VECTOR, Reason.TAGS}}
        vectors = {ref for ref, why in reasons.items() if Reason.VECTOR in why}
        derived = derive(self._platform, connection, changed, vectors, self._semantic.collections, self._linked_by)
        referring = derived.referring | {ref for ref, why in reasons.items() if Reason.REFERENCES in why}
        self._write(connection, derived.gone, tuple(EdgeType), [], report)
        now = sorted(referring, key=lambda ref: (ref not in reasons, ref))[:REFERRING_AT_ONCE]
        mark(self._platform, connection, referring - set(now), Reason.REFERENCES)
        self._write(connection, now, REFERENCE_TYPES, reference_edges(self._platform, connection, now), report)

        moved = derived.moved & set(unswept)
        if moved:
            has_moved(self._platform, connection, moved)
        points = {ref: row.point for ref in moved if (row := derived.living.get(ref)) and row.point}
        stored = StoredLists(self._platform, connection, SEMANTIC, moved)
        # While Qdrant searches, and while its answers are worked through, lists are read.
        with connection.pipeline():
            reached = dict.fromkeys(moved, Reached()) | self._semantic.reached(connection, points, stored.read)
        self._work_in(connection, stored, reached, report)

        reweighted = {ref for ref, why in reasons.items() if Reason.TAGS in why and ref in derived.living}
        retagged = (derived.retagged | reweighted) & set(unswept)
        tags = {ref: row.tags for ref in retagged if (row := derived.living.get(ref))}
        reached = dict.fromkeys(retagged, Reached())
        for topics in self._topical.topics(connection, tags):
            reached |= {ref: topics.reached(ref) for ref in topics.tags}
        stored = StoredLists(self._platform, connection, TOPICAL, retagged)
        self._work_in(connection, stored, reached, report)
        self._count(report, reasons)

    def _work_in(
        self, connection: Connection, stored: StoredLists, reached: Mapping[EntityRef, Reached], report: LinkReport
    ) -> None:
        """Write the lists of the changed entities and of those whose lists they enter, leave or stay in."""
        if not reached:
            return
        edge_type = stored.edge_type
        stored.read({near.ref for one in reached.values() for near in one.within_reach})
        before = stored.known()
        lists = {ref: known for ref, known in before.items() if ref not in reached}
        changed = {ref: one.within_reach for ref, one in reached.items()}
        after, asking = work_in(changed, lists, LIST_LENGTH, stored.kept)
        mark(self._platform, connection, asking - reached.keys(), Reason.LISTS)
        if asking and connection.execute(self._platform.postgres.query("any_unswept")).fetchone() is None:
            # No other change is to be worked in that would make the answers stale.
            self._ahead.ask_for(asking - reached.keys())
        # While these are written, edges are compared.
        with connection.pipeline():
            known = after | {ref: one.known for ref, one in reached.items()}
            write_known(self._platform, connection, *((known, {}) if edge_type is SEMANTIC else ({}, known)))
            rankings = {ref: one.known.ranking for ref, one in reached.items()}
            held = {ref: stored.edges[ref] for ref in reached if ref in stored.edges}
            if edge_type is SEMANTIC:
                for ref, one in sorted(after.items()):
                    # The evidence follows from target and strength: none is another whose strength is the same.
                    others = differing(before[ref].ranking, one.ranking)
                    if others:
                        rankings[ref] = ranked(others.intersection(one.ranking))
                        edges = stored.edges.get(ref, {})
                        held[ref] = {target: edges[target] for target, _ in others if target in edges}
                wanted = self._semantic.edges(rankings)
            else:
                # The evidence names tags of both ends: it may be another where the strength is not.
                for ref in sorted(after.keys() | (stored.listing & lists.keys()) - asking):
                    rankings[ref] = after.get(ref, before[ref]).ranking
                    held[ref] = stored.edges.get(ref, {})
                wanted = self._topical.edges(connection, rankings)
            found = self._differing(connection, edge_type, held, wanted, report)
        self._platform.relationships.write_lists(connection, [found])

    def _lists_batch(self, marks: Sequence[int], answers: Answers) -> LinkReport:
        """Write the lists of one batch; an empty report if somebody else has claimed all of it."""
        with exclusive(self._platform) as connection:
            by_index(connection)
            self._hold_collections(connection)
            if not is_sole_linker(self._platform, connection, self._session):
                raise _Overtaken
            report = LinkReport()
            claimed = [
                EntityRef(*row)
                for row in connection.execute(self._platform.postgres.query("claim_lists"), {"marks": marks})
            ]
            if not claimed:
                return report
            living = read_linked(self._platform, connection, claimed)
            points = {ref: row.point for ref, row in living.items() if row.point}
            if len(self._names) > NAMES_KEPT:
                self._names = {}
            nobody = dict.fromkeys(sorted(living), Known())
            semantic = nobody | self._semantic.known(connection, points, answers, self._names)
            topics = list(self._topical.topics(connection, {ref: row.tags for ref, row in living.items()}))
            topical: dict[EntityRef, Known] = {}
            relationships = self._platform.relationships
            stored = relationships.lists(connection, living.keys(), (SEMANTIC, TOPICAL))

            def differing() -> Iterator[tuple[EdgeType, ListDiff]]:
                edges = self._semantic.edges({ref: known.ranking for ref, known in semantic.items()})
                yield self._differing(connection, SEMANTIC, stored[SEMANTIC], edges, report)
                for part in topics:
                    found = {ref: part.known(ref) for ref in part.tags}
                    topical.update(found)
                    held = {ref: stored[TOPICAL][ref] for ref in found if ref in stored[TOPICAL]}
                    edges = chain.from_iterable(part.edges(ref, known.ranking) for ref, known in found.items())
                    yield self._differing(connection, TOPICAL, held, edges, report)

            relationships.write_lists(connection, differing())
            write_known(self._platform, connection, semantic, topical)
            self._count(report, claimed)
        return report

    def _differing(
        self,
        connection: Connection,
        edge_type: EdgeType,
        stored: Mapping[EntityRef, StoredList],
        wanted: Iterable[ListedEdge],
        report: LinkReport,
    ) -> tuple[EdgeType, ListDiff]:
        """What brings lists of one type from what is `stored`, of the same sources, to what is wanted."""
        found = diff_lists(stored, self._platform.relationships.listable(connection, wanted))
        self._count_listed(report, "added", edge_type, found.added)
        self._count_listed(report, "changed", edge_type, [edge for _, edge in found.changed])
        self._count_listed(report, "removed", edge_type, [edge for _, edge in found.removed])
        return edge_type, found

    def _write(
        self,
        connection: Connection,
        sources: Collection[EntityRef],
        types: Collection[EdgeType],
        wanted: Iterable[Edge],
        report: LinkReport,
    ) -> None:
        """Bring our edges of `types` from `sources` to `wanted`: differences only. For lists see `_differing`."""
        if not sources:
            return
        relationships = self._platform.relationships
        stored = relationships.of_sources(connection, sources, types)
        found = diff((edge for _, edge in stored.values()), relationships.storable(connection, wanted))
        relationships.write(connection, found, {key: row for key, (row, _) in stored.items()})
        self._count_changes(report, found)

    def _count_changes(self, report: LinkReport, found: EdgeDiff) -> None:
        partitions: dict[EntityRef, LinkCounts] = {}
        changes: tuple[tuple[Change, Sequence[Edge]], ...] = (
            ("added", found.added),
            ("changed", found.changed),
            ("removed", found.removed),
        )
        for change, edges in changes:
            for edge in edges:
                counts = partitions.get(edge.source)
                if counts is None:
                    counts = partitions[edge.source] = self._counts(report, edge.source)
                counts.count(change, edge)

    def _count_listed(
        self, report: LinkReport, change: Change, edge_type: EdgeType, edges: Sequence[ListedEdge]
    ) -> None:
        by_partition: dict[int, tuple[LinkCounts, list[ListedEdge]]] = {}
        for source, of_source in groupby(edges, attrgetter("source")):
            counts = self._counts(report, source)
            by_partition.setdefault(id(counts), (counts, []))[1].extend(of_source)
        for counts, listed in by_partition.values():
            counts.count_listed(change, edge_type, listed)

    def _count(self, report: LinkReport, refs: Iterable[EntityRef]) -> None:
        for ref in refs:
            self._counts(report, ref).relinked += 1
        for counts in report.partitions.values():
            counts.strongest = _strongest(counts.strongest)

    def _counts(self, report: LinkReport, ref: EntityRef) -> LinkCounts:
        shard = shard_of(ref.slot, self._platform.settings.shards)
        return report.partitions.setdefault((ref.type, shard), LinkCounts())


def _strongest(edges: Iterable[Edge]) -> list[Edge]:
    return nlargest(NEW_EDGES_SHOWN, edges, key=lambda edge: (edge.strength, edge.key))
