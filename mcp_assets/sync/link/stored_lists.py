"""Known: what is stored of the neighbours of entities. Lists are edges in `relationships`; floors are in `linked`.

Behind a semantic list some spares are kept, in `spares`. Who is a spare of whom no index tells: a spare that has moved
since it was listed is struck out when it is read. One that moved and is near still has been listed again since.
"""

import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping

from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph import KNOWN, LIST_LENGTH, UNKNOWN, EdgeType, Known, Neighbour, Ranking, StoredList, ranked
from mcp_assets.platform import Platform
from mcp_assets.stores.postgres import Connection, Cursor
from mcp_assets.sync.link.link_state import by_type_and_id

_READ = {EdgeType.SEMANTIC_SIMILARITY: "read_spares", EdgeType.TOPICAL_RELEVANCE: "read_topical_floors"}

_new = tuple.__new__
"""As in `graph.semantic`: there are very many neighbours."""

_Edges = Callable[[], Mapping[EdgeType, Mapping[EntityRef, StoredList]]]
_Spares = list[tuple[tuple[str, str], float]]


class StoredLists:
    """Lists of one type as they are stored, each read once, before any of them is written.

    Those of `changed` entities, and those that name one of these, are read with the first.
    """

    def __init__(
        self, platform: Platform, connection: Connection, edge_type: EdgeType, changed: Collection[EntityRef]
    ) -> None:
        self.edge_type = edge_type
        self.changed = changed
        self.edges: dict[EntityRef, StoredList] = {}
        """The stored edges of all that were read, once `known` was called."""
        self.listing: set[EntityRef] = set()
        """Whose list names a changed entity, once anything was read."""
        self.kept = KNOWN if edge_type is EdgeType.SEMANTIC_SIMILARITY else LIST_LENGTH
        """Neighbours that are known of an entity, at most."""
        self._platform = platform
        self._connection = connection
        self._rankings: dict[EntityRef, Ranking] = {}
        self._floors: dict[EntityRef, float | None] = {}
        self._spares: dict[EntityRef, tuple[_Spares, int]] = {}
        self._begun = False
        self._reading: list[tuple[_Edges, Cursor]] = []

    def read(self, sources: Collection[EntityRef]) -> None:
        """Have the lists of `sources` read; in a pipeline, meanwhile."""
        if not self._begun:
            self._begun = True
            self.listing = self._platform.relationships.sources_of(self._connection, self.changed, self.edge_type)
            self._read(self.changed, with_evidence=True)
            sources = self.listing.union(sources)
        # The evidence of semantic edges is the same in all: none of an unchanged entity is another for that.
        self._read(sources, with_evidence=self.edge_type is EdgeType.TOPICAL_RELEVANCE)

    def _read(self, sources: Collection[EntityRef], *, with_evidence: bool) -> None:
        new = sorted(set(sources) - self._floors.keys())
        if new:
            self._floors |= dict.fromkeys(new)
            edges = self._platform.relationships.reading_lists(
                self._connection, new, [self.edge_type], with_evidence=with_evidence
            )
            query = self._platform.postgres.query(_READ[self.edge_type])
            before, self._reading = self._reading, [(edges, self._connection.execute(query, by_type_and_id(new)))]
            self._receive(before)

    def known(self) -> dict[EntityRef, Known]:
        """What is known of the neighbours of all whose lists were read."""
        self._receive(self._reading)
        self._reading.clear()
        spares = self._living_spares()
        found = {}
        for ref, floor in self._floors.items():
            near = self._rankings.get(ref, ())
            if len(near) == LIST_LENGTH:
                found[ref] = Known((*near, *spares.get(ref, ())), floor)
            elif floor is None and ref not in spares:
                found[ref] = Known(near)
            else:
                # An edge that somebody took away, or that the table cannot hold.
                found[ref] = UNKNOWN
        return found

    def _receive(self, reading: Iterable[tuple[_Edges, Cursor]]) -> None:
        for edges, floors in reading:
            lists = edges()[self.edge_type]
            self.edges |= lists
            for ref, held in lists.items():
                near = [_new(Neighbour, (target, edge.strength)) for target, edge in held.items()]
                self._rankings[ref] = ranked(near, LIST_LENGTH)
            for entity_type, entity_id, floor, *spares in floors.fetchall():
                ref = EntityRef(entity_type, entity_id)
                self._floors[ref] = floor
                if spares and spares[0]:
                    self._spares[ref] = spares[0], spares[1]

    def _living_spares(self) -> dict[EntityRef, list[Neighbour]]:
        """Those that have not moved since."""
        named = {_new(EntityRef, name) for spares, _ in self._spares.values() for name, _ in spares}
        rows = self._connection.execute(self._platform.postgres.query("moved_of"), by_type_and_id(named))
        moved = {EntityRef(entity_type, entity_id): epoch for entity_type, entity_id, epoch in rows.fetchall()}
        return {
            ref: [
                _new(Neighbour, (spare, score))
                for name, score in spares
                if moved.get(spare := _new(EntityRef, name), math.inf) <= listed
            ]
            for ref, (spares, listed) in self._spares.items()
        }


def has_moved(platform: Platform, connection: Connection, refs: Collection[EntityRef]) -> None:
    """A new epoch begins: the vectors of `refs` are worked into the lists of others, in the same transaction."""
    connection.execute(platform.postgres.query("has_moved"), by_type_and_id(refs))


def write_known(
    platform: Platform, connection: Connection, semantic: Mapping[EntityRef, Known], topical: Mapping[EntityRef, Known]
) -> None:
    """Write floors and spares of those that are living; the same entity may have both lists."""
    refs = sorted({*semantic, *topical})
    if not refs:
        return
    connection.execute(
        platform.postgres.query("write_floors"),
        {
            **by_type_and_id(refs),
            "is_semantic": [ref in semantic for ref in refs],
            "semantic": [semantic[ref].floor if ref in semantic else None for ref in refs],
            "is_topical": [ref in topical for ref in refs],
            "topical": [topical[ref].floor if ref in topical else None for ref in refs],
        },
    )
    if semantic:
        connection.execute(
            platform.postgres.query("write_spares"),
            {
                **by_type_and_id(semantic),
                # As one text: of an array each would have its quotes escaped.
                "neighbours": json.dumps([semantic[ref].spares for ref in sorted(semantic)], ensure_ascii=False),
            },
        )
