"""Linker: links marked entities, so that the edges of all entities are what ledger, vectors and tag weights imply.

Marks are removed and edges written in one transaction: killed at any instruction, the linker leaves the marks of all
that is not done. One linker works at a time, one transaction after the other (`sync.link.locks`). The reason of a mark
decides which of two kinds of work it is:

- *changes*: the entity is compared with what it was when last linked (`linked`). The reference edges of the entity and
  of the users of its keys are resolved again; where its vector or tags changed, the lists of others are updated
  (`sync.link.changes`). Search words that the indexer left pending are written.
- *lists*: the entity's own neighbours are found, before the transaction that writes them (`sync.link.prefetch`).

When very many entities have changed at once, a *rebuild* is cheaper than comparing each change with the lists of
others: all living entities are marked for lists, and the changes that are marked then are covered by it (the column
`relink_marks.in_rebuild`), so that they leave the lists of others alone.
"""

import logging
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from typing import Literal, NamedTuple

from mcp_assets.entities.refs import EntityRef, partition_key
from mcp_assets.graph import EdgeType, ListDiff, NeighbourList
from mcp_assets.platform import Platform
from mcp_assets.retrying import retrying
from mcp_assets.stores.errors import StoreUnavailable
from mcp_assets.stores.postgres import Connection
from mcp_assets.sync.collections.gc_threshold import collected_seldom
from mcp_assets.sync.collections.journal import Journal, hold_collections
from mcp_assets.sync.collections.move import read_journal
from mcp_assets.sync.feed.edge_entries import EdgeCauses, begin_rebuild
from mcp_assets.sync.feed.edition import ChangeFeed
from mcp_assets.sync.index.search_words import write_pending_words
from mcp_assets.sync.link.changes import SEMANTIC, TOPICAL, ChangeLinker, any_change_outside_rebuild
from mcp_assets.sync.link.counts import LinkReport, LinkStage
from mcp_assets.sync.link.duplicates import DUPLICATE, Duplicates
from mcp_assets.sync.link.edge_writer import EdgeWriter
from mcp_assets.sync.link.index_wait import IndexWait
from mcp_assets.sync.link.link_state import read_link_states
from mcp_assets.sync.link.locks import by_index, exclusive, is_sole_linker, require_usable_edges, sole_linker
from mcp_assets.sync.link.marks import MarksMadeBefore, Reason, mark, pending_links
from mcp_assets.sync.link.prefetch import Prefetch
from mcp_assets.sync.link.semantic_neighbours import Entities, SemanticNeighbours
from mcp_assets.sync.link.settling import Answers
from mcp_assets.sync.link.stored_lists import write_cut_offs_and_reserves
from mcp_assets.sync.link.tag_weights import refresh_tag_weights
from mcp_assets.sync.link.topical_neighbours import TopicalNeighbours
from mcp_assets.sync.link.verdicts import read_verdicts

logger = logging.getLogger(__name__)

_WAIT_FOR_OTHERS_S = 0.2
"""Pause before the marks are read again, while another process holds them or the ledger rows that they are about."""


def link(platform: Platform, *, enough: Callable[[], bool] = lambda: False) -> Generator[LinkReport]:
    """Link until no mark is left, `enough` is true, or another linker works: that one links all marks, too.

    `enough` is called between two transactions. Marks that are left stay for the next linker.

    Raises:
        StoreUnavailable, StoreRefused, CollectionMismatch: the marks of all that was not committed stay.
    """
    while not enough() and pending_links(platform, up_to=1):
        with sole_linker(platform) as session:
            if session is None:
                return
            try:
                with closing(_link_marked(platform, session, enough)) as reports:
                    for report in reports:
                        _log(platform, report)
                        yield report
            except _Superseded:
                continue


def link_until_done(platform: Platform) -> Iterator[LinkReport]:
    """As `link`, and wait for other linkers: until no mark is left that was made before, nor one made by linking these.

    Marks of changes that are committed meanwhile may be left to other linkers. Otherwise it would never end while
    events come faster than they are linked.
    """
    made_before = MarksMadeBefore(platform)
    while not made_before.are_gone():
        yield from link(platform, enough=made_before.are_gone)
        if made_before.are_gone():
            return
        time.sleep(_WAIT_FOR_OTHERS_S)


def _link_marked(platform: Platform, session: int, enough: Callable[[], bool]) -> Generator[LinkReport]:
    require_usable_edges(platform)
    platform.companion(ChangeFeed).open()
    # The journal is read first, so that a move of the collections between the two is noticed.
    journal = read_journal(platform)
    semantic = SemanticNeighbours(platform)
    analyzed = weighed = False
    rebuild_from = platform.tuning.link.rebuild_from
    index = IndexWait(platform, semantic, enough)
    with collected_seldom(), Prefetch(platform, semantic, index.wait) as prefetch:
        linker = _Linker(platform, session, journal, semantic, prefetch, index)
        while not enough() and (marks := pending_links(platform, up_to=rebuild_from)):
            if marks >= rebuild_from and not analyzed:
                # If the table was last analysed when all marks were for lists, the planner reads the whole table for
                # each batch of changes.
                analyzed = True
                _analyze(platform, "relink_marks")
            while (report := linker.changes()).partitions:
                yield report
                if enough():
                    return
            if marks >= rebuild_from and not weighed:
                # Without weights all tags weigh the same; lists made so would be made again after the first night.
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
                # Another transaction holds the marks that are left, or they were written this moment.
                time.sleep(_WAIT_FOR_OTHERS_S)


def _log(platform: Platform, report: LinkReport) -> None:
    """The one line about a transaction of the linker; logs of text leave it out."""
    if logger.isEnabledFor(logging.INFO):
        total, shards = report.total(), platform.settings.shards
        changes = {"added": total.added, "changed": total.changed, "removed": total.removed}
        logger.info(
            "entities are linked",
            extra={
                "partitions": [partition_key(name, shard, shards) for name, shard in sorted(report.partitions)],
                "counts": {
                    "relinked": total.relinked,
                    "lists_in_blocks": total.lists_in_blocks,
                    "lists_asked": total.lists_asked,
                    **{name: number.total() for name, number in changes.items()},
                },
            },
        )


def _has_tag_weights(platform: Platform) -> bool:
    with platform.postgres.transaction() as connection:
        return connection.execute(platform.postgres.query("has_tag_weights")).fetchone() is not None


def _analyze(platform: Platform, table: Literal["linked", "relink_marks"]) -> None:
    """Refresh the planner's statistics of `table` after very many changes, before autovacuum does."""
    with platform.postgres.transaction() as connection:
        connection.execute(platform.postgres.query(f"analyze_{table}"))


class _ChangeMark(NamedTuple):
    """One row of the query `claim_changes`."""

    entity_type: str
    entity_id: str
    reason: str
    in_rebuild: bool
    """A rebuild covers the change."""


@dataclass(frozen=True, slots=True)
class _ChangesDone:
    """The result of one transaction of changes."""

    report: LinkReport
    in_rebuild: bool
    """A rebuild covers all changes that were marked: prefetched answers stay valid."""
    began_rebuild: bool = False
    """The transaction marked all entities for lists, and did nothing else."""
    many_searches: bool = False
    """The transaction did nothing, because so many changes are to be searched for that Qdrant's index is worth a
    wait."""


class _Superseded(Exception):
    """The transaction was rolled back: other collections serve now, or another linker may have begun."""


class _Linker:
    """Links marked entities. It looks collections up once, so it is used for one call of `link` or until they move."""

    def __init__(
        self,
        platform: Platform,
        session: int,
        journal: Journal,
        semantic: SemanticNeighbours,
        prefetch: Prefetch,
        index: IndexWait,
    ) -> None:
        self._platform = platform
        self._tuning = platform.tuning.link
        self._session = session
        self._journal = journal
        self._semantic = semantic
        self._prefetch = prefetch
        self._index = index
        self._entities: Entities = {}
        self._topical = TopicalNeighbours(platform)
        self._duplicates = Duplicates(platform)
        self._change_linker = ChangeLinker(platform, semantic, self._topical, prefetch)
        self._living: int | None = None
        """The living entities, once they are counted: the count reads all ledger rows, and batches of changes are
        many. A count that is out of date only makes a rebuild begin somewhat early or late."""

    def changes(self) -> LinkReport:
        """Link one batch of changes; an empty report if no change is marked."""
        self._entities = {}
        while True:
            done = retrying(self._platform.settings)(self._changes_or_invalidate)
            if done.many_searches:
                self._index.wait()
                continue
            if done.in_rebuild:
                self._prefetch.fill()
            if not done.began_rebuild:
                done.report.tell_wait(self._index.told)
                return done.report

    def lists(self) -> Iterator[LinkReport]:
        """Write the lists of some batches of marks."""
        for batch in self._prefetch.take(self._tuning.batches_between_changes):
            answers = batch.answers()
            in_blocks = batch.found_in_blocks()
            report = retrying(self._platform.settings)(self._lists_batch, batch.marks, answers, in_blocks=in_blocks)
            if report.partitions:
                report.tell_wait(self._index.told)
                yield report

    def _changes_or_invalidate(self) -> _ChangesDone:
        try:
            return self._changes_batch()
        except StoreUnavailable:
            # It may be committed all the same: then the next try finds no mark, and would not invalidate.
            self._prefetch.invalidate()
            raise

    def _changes_batch(self) -> _ChangesDone:
        with exclusive(self._platform) as connection:
            by_index(connection)
            self._hold_collections(connection)
            writer = EdgeWriter(self._platform, connection)
            in_rebuild = not any_change_outside_rebuild(self._platform, connection)
            many = not in_rebuild and self._are_changes(connection, self._tuning.rebuild_from)
            if many and self._begin_rebuild_if_cheaper(connection):
                # The new marks for lists are read at once, so that Qdrant is asked while the changes are linked.
                self._prefetch.invalidate()
                return _ChangesDone(writer.report, in_rebuild=True, began_rebuild=True)
            if many and not self._index.is_over:
                return _ChangesDone(writer.report, in_rebuild=False, many_searches=True)
            limit = self._tuning.changes_in_rebuild_at_once if in_rebuild else self._tuning.changes_at_once
            rows = connection.execute(self._platform.postgres.query("claim_changes"), {"limit": limit})
            reasons: dict[EntityRef, set[Reason]] = {}
            outside_rebuild: set[EntityRef] = set()
            blocked: set[EntityRef] = set()
            for row in map(_ChangeMark._make, rows):
                ref = EntityRef(row.entity_type, row.entity_id)
                reasons.setdefault(ref, set()).add(Reason(row.reason))
                if not row.in_rebuild:
                    outside_rebuild.add(ref)
            if outside_rebuild:
                self._prefetch.invalidate(outside_rebuild)
            if reasons:
                self._change_linker.link(connection, writer, reasons, outside_rebuild)
                writer.write_entries()
                # Last, because it locks rows of the ledger until the commit.
                blocked = write_pending_words(self._platform, connection, reasons.keys())
                mark(self._platform, connection, blocked, Reason.CHANGED)
        if blocked:
            time.sleep(_WAIT_FOR_OTHERS_S)
        return _ChangesDone(writer.report, in_rebuild=in_rebuild)

    def _hold_collections(self, connection: Connection) -> None:
        """Keep collections from moving until the transaction ends.

        Raises:
            _Superseded: they moved since they were looked up. The move marked entities, and linking these with the old
                collections would remove the marks.
        """
        if not hold_collections(self._platform, connection, self._journal):
            raise _Superseded

    def _begin_rebuild_if_cheaper(self, connection: Connection) -> bool:
        """Mark all living entities for lists if enough of them have changed; returns whether it has."""
        query, rebuild_from = self._platform.postgres.query, self._tuning.rebuild_from
        if self._living is None:
            self._living = _first(connection.execute(query("count_all_living")).fetchone())
        share = int(self._tuning.rebuild_share * self._living)
        if share <= rebuild_from or self._are_changes(connection, share):
            connection.execute(query("cover_changes_by_rebuild"))
            connection.execute(query("mark_all_for_lists"))
            begin_rebuild(self._platform, connection)
            return True
        return False

    def _are_changes(self, connection: Connection, entities: int) -> bool:
        """Whether so many entities have changed that no rebuild covers."""
        # An entity has some marks, one for each reason.
        parameters = {"limit": entities * len(Reason)}
        counted = connection.execute(self._platform.postgres.query("changes_up_to"), parameters)
        return _first(counted.fetchone()) >= entities

    def _lists_batch(self, marks: Sequence[int], answers: Answers, *, in_blocks: bool) -> LinkReport:
        """Write the lists of one batch; an empty report if other transactions claimed all of its marks.

        `in_blocks`: the answers were found in blocks, and not asked of Qdrant.
        """
        with exclusive(self._platform) as connection:
            by_index(connection)
            self._hold_collections(connection)
            if not is_sole_linker(self._platform, connection, self._session):
                raise _Superseded
            writer = EdgeWriter(self._platform, connection)
            writer.report.stage = LinkStage.LISTS
            claimed = [
                EntityRef(*row)
                for row in connection.execute(self._platform.postgres.query("claim_lists"), {"marks": marks})
            ]
            if not claimed:
                return writer.report
            living = read_link_states(self._platform, connection, claimed)
            verdicts = read_verdicts(self._platform, connection, living.keys())
            writer.explain(EdgeCauses(verdicts=verdicts))
            points = {ref: row.point for ref, row in living.items() if row.point}
            if len(self._entities) > self._tuning.entities_kept:
                self._entities = {}
            empty = dict.fromkeys(sorted(living), NeighbourList())
            semantic = empty | self._semantic.lists(connection, points, answers, self._entities)
            batches = list(self._topical.batches(connection, {ref: row.tags for ref, row in living.items()}))
            topical: dict[EntityRef, NeighbourList] = {}
            near = {ref: one.ranking for ref, one in semantic.items()}
            compared = self._duplicates.compared(connection, near)
            stored = self._platform.relationships.lists(connection, living.keys(), (SEMANTIC, TOPICAL, DUPLICATE))

            def diffs() -> Iterator[tuple[EdgeType, ListDiff]]:
                edges = self._semantic.edges(near)
                yield writer.list_diff(SEMANTIC, stored[SEMANTIC], verdicts.judged_list(semantic, SEMANTIC, edges))
                copies = verdicts.judged_list(semantic, DUPLICATE, compared.edges())
                yield writer.list_diff(DUPLICATE, stored[DUPLICATE], copies)
                for batch in batches:
                    found = {ref: batch.list_of(ref) for ref in batch.tags}
                    topical.update(found)
                    held = {ref: stored[TOPICAL][ref] for ref in found if ref in stored[TOPICAL]}
                    edges = chain.from_iterable(batch.edges(ref, one.ranking) for ref, one in found.items())
                    yield writer.list_diff(TOPICAL, held, verdicts.judged_list(found, TOPICAL, edges))

            writer.write_lists(diffs())
            write_cut_offs_and_reserves(self._platform, connection, semantic, topical)
            writer.count_lists(points, in_blocks=in_blocks)
            writer.count_relinked(claimed)
            writer.write_entries()
        return writer.report


def _first(row: tuple[int, ...] | None) -> int:
    assert row is not None  # noqa: S101  (an aggregate has one row)
    return row[0]
