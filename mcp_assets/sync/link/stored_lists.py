"""Stored lists: the lists of neighbours as they are stored, read and written.

The members of a list are edges in `relationships`, the reserves of a semantic list are a row of `reserves`, and the
cut-off is a column of `linked` (`semantic_cut_off`, `topical_cut_off`). `graph.ranking` defines these terms.

There is no reverse index from a reserve to the lists that hold it. A reserve whose vector changed after the list was
written is dropped when the list is read. If it is still near, the list was written again since. To find out which came
later, each batch of changed vectors gets a *move number* from the sequence `move_numbers`. `linked.last_move` holds the
number of the last batch in which the entity's vector changed, `reserves.written_after_move` the highest number when the
reserves were written.

An edge of a list that has a verdict may be stored although it is not in the list, or the reverse. Such a list counts as
unknown, so that it is asked for again whenever a change reaches it.
"""

import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph import (
    LIST_AND_RESERVES,
    LIST_LENGTH,
    UNKNOWN_LIST,
    EdgeType,
    Neighbour,
    NeighbourList,
    Ranking,
    StoredList,
    ranked,
)
from mcp_assets.platform import Platform
from mcp_assets.stores.postgres import Connection, Cursor
from mcp_assets.sync.link.link_state import by_type_and_id

_READ = {EdgeType.SEMANTIC_SIMILARITY: "read_reserves", EdgeType.TOPICAL_RELEVANCE: "read_topical_cut_offs"}

_new = tuple.__new__
"""As in `graph.semantic`: there are very many neighbours."""

_Edges = Callable[[], Mapping[EdgeType, Mapping[EntityRef, StoredList]]]
_Reserves = list[tuple[tuple[str, str], float]]
"""The column `reserves.neighbours`: (entity type, id) and score of each, best first."""


class _StoredCutOff(NamedTuple):
    """One row of the queries `read_reserves` and `read_topical_cut_offs`."""

    entity_type: str
    entity_id: str
    cut_off: float | None
    judged: bool
    """Whether an edge of the list has a verdict."""
    reserves: _Reserves | None = None
    """None: the entity has no row in `reserves`, or the list is topical, so that it has none."""
    written_after_move: int = 0


class _Move(NamedTuple):
    """One row of the query `read_last_moves`."""

    entity_type: str
    entity_id: str
    last_move: int


class StoredLists:
    """Lists of one type as they are stored, each read once, before any of them is written.

    The lists of `changed` entities, and the lists that name one of these, are read with the first.
    """

    def __init__(
        self, platform: Platform, connection: Connection, edge_type: EdgeType, changed: Collection[EntityRef]
    ) -> None:
        self.edge_type = edge_type
        self.changed = changed
        self.edges: dict[EntityRef, StoredList] = {}
        """The stored edges of all lists that were read; complete once `lists` was called."""
        self.listing: set[EntityRef] = set()
        """The entities whose list names a changed entity; complete once `read` was called."""
        self.kept = LIST_AND_RESERVES if edge_type is EdgeType.SEMANTIC_SIMILARITY else LIST_LENGTH
        """Neighbours that are stored of an entity, at most: topical lists have no reserves."""
        self._platform = platform
        self._connection = connection
        self._rankings: dict[EntityRef, Ranking] = {}
        self._cut_offs: dict[EntityRef, float | None] = {}
        self._reserves: dict[EntityRef, tuple[_Reserves, int]] = {}
        """The reserves of an entity, and the highest move number when they were written."""
        self.judged: set[EntityRef] = set()
        """The entities of whose list an edge has a verdict: their stored edges may differ from the list."""
        self._begun = False
        self._reading: list[tuple[_Edges, Cursor]] = []

    def read(self, sources: Collection[EntityRef]) -> None:
        """Send the queries that read the lists of `sources`; in a pipeline, PostgreSQL works while the caller does."""
        if not self._begun:
            self._begun = True
            self.listing = self._platform.relationships.sources_of(self._connection, self.changed, self.edge_type)
            self._read(self.changed, with_evidence=True)
            sources = self.listing.union(sources)
        # The evidence of a semantic edge follows from the edge, so that an unchanged entity keeps that of its edges.
        self._read(sources, with_evidence=self.edge_type is EdgeType.TOPICAL_RELEVANCE)

    def _read(self, sources: Collection[EntityRef], *, with_evidence: bool) -> None:
        new = sorted(set(sources) - self._cut_offs.keys())
        if new:
            self._cut_offs |= dict.fromkeys(new)
            edges = self._platform.relationships.reading_lists(
                self._connection, new, [self.edge_type], with_evidence=with_evidence
            )
            query = self._platform.postgres.query(_READ[self.edge_type])
            before, self._reading = self._reading, [(edges, self._connection.execute(query, by_type_and_id(new)))]
            self._receive(before)

    def lists(self) -> dict[EntityRef, NeighbourList]:
        """The lists of all entities that were read."""
        self._receive(self._reading)
        self._reading.clear()
        reserves = self._unmoved_reserves()
        found = {}
        for ref, cut_off in self._cut_offs.items():
            near = self._rankings.get(ref, ())
            if ref in self.judged:
                found[ref] = UNKNOWN_LIST
            elif len(near) == LIST_LENGTH:
                found[ref] = NeighbourList((*near, *reserves.get(ref, ())), cut_off)
            elif cut_off is None and ref not in reserves:
                found[ref] = NeighbourList(near)
            else:
                # The list was full when it was written: another program removed an edge, or the table cannot hold one.
                found[ref] = UNKNOWN_LIST
        return found

    def _receive(self, reading: Iterable[tuple[_Edges, Cursor]]) -> None:
        for edges, cut_offs in reading:
            lists = edges()[self.edge_type]
            self.edges |= lists
            for ref, held in lists.items():
                near = [_new(Neighbour, (target, edge.strength)) for target, edge in held.items()]
                self._rankings[ref] = ranked(near, LIST_LENGTH)
            for row in cut_offs.fetchall():
                stored = _StoredCutOff(*row)
                ref = EntityRef(stored.entity_type, stored.entity_id)
                self._cut_offs[ref] = stored.cut_off
                if stored.judged:
                    self.judged.add(ref)
                if stored.reserves:
                    self._reserves[ref] = stored.reserves, stored.written_after_move

    def _unmoved_reserves(self) -> dict[EntityRef, list[Neighbour]]:
        """The reserves that are living and whose vector has not changed since they were written."""
        named = {_new(EntityRef, name) for reserves, _ in self._reserves.values() for name, _ in reserves}
        rows = self._connection.execute(self._platform.postgres.query("read_last_moves"), by_type_and_id(named))
        moves = {EntityRef(row.entity_type, row.entity_id): row.last_move for row in map(_Move._make, rows.fetchall())}
        return {
            ref: [
                _new(Neighbour, (reserve, score))
                for name, score in reserves
                if moves.get(reserve := _new(EntityRef, name), math.inf) <= written
            ]
            for ref, (reserves, written) in self._reserves.items()
        }


def record_move(platform: Platform, connection: Connection, refs: Collection[EntityRef]) -> None:
    """Give `refs`, whose vectors changed, the next move number; their neighbours' lists follow in this transaction."""
    connection.execute(platform.postgres.query("record_move"), by_type_and_id(refs))


def write_cut_offs_and_reserves(
    platform: Platform,
    connection: Connection,
    semantic: Mapping[EntityRef, NeighbourList],
    topical: Mapping[EntityRef, NeighbourList],
) -> None:
    """Write all of the lists but their edges; of living entities only. The same entity may have both lists."""
    refs = sorted({*semantic, *topical})
    if not refs:
        return
    connection.execute(
        platform.postgres.query("write_cut_offs"),
        {
            **by_type_and_id(refs),
            "is_semantic": [ref in semantic for ref in refs],
            "semantic": [semantic[ref].cut_off if ref in semantic else None for ref in refs],
            "is_topical": [ref in topical for ref in refs],
            "topical": [topical[ref].cut_off if ref in topical else None for ref in refs],
        },
    )
    if semantic:
        connection.execute(
            platform.postgres.query("write_reserves"),
            {
                **by_type_and_id(semantic),
                # One JSON text: psycopg would escape the quotes of each item of an array.
                "neighbours": json.dumps([semantic[ref].reserves for ref in sorted(semantic)], ensure_ascii=False),
            },
        )
