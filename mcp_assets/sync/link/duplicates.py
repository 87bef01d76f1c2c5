"""Duplicates: the edges `possible_duplicate`, which follow from semantic lists and from the words of both ends.

An entity without a neighbour that is near enough costs nothing here: no text is read, and no edge of this type is
looked for, because one is stored only beside an edge of the semantic list that is near enough.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph import (
    COMPARED_CHARACTERS,
    DuplicateRule,
    EdgeType,
    ListedEdge,
    Neighbour,
    NeighbourList,
    Ranking,
    Wording,
    duplicate_edges,
    near_enough,
    ranked,
    wording_of,
)
from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.postgres.rows import by_ref
from mcp_assets.sync.link.edge_writer import EdgeWriter
from mcp_assets.sync.link.link_state import by_type_and_id
from mcp_assets.sync.link.marks import Reason, mark
from mcp_assets.sync.link.stored_lists import StoredLists
from mcp_assets.sync.link.verdicts import read_verdicts

DUPLICATE = EdgeType.POSSIBLE_DUPLICATE


def duplicate_rule(settings: Settings) -> DuplicateRule:
    return DuplicateRule(settings.duplicate_similarity, settings.duplicate_shared_words)


@dataclass(frozen=True, slots=True)
class ComparedLists:
    """Semantic lists, with the words of all ends that are near enough; asks no store."""

    _near: Mapping[EntityRef, Ranking]
    _wordings: Mapping[EntityRef, Wording]
    _rule: DuplicateRule

    def edges(self) -> Iterator[ListedEdge]:
        for source, near in self._near.items():
            yield from duplicate_edges(source, near, self._wordings, self._rule)


class Duplicates:
    """Finds the possible duplicates in semantic lists. Thread-safe."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._rule = duplicate_rule(platform.settings)

    def compared(self, connection: Connection, rankings: Mapping[EntityRef, Ranking]) -> ComparedLists:
        """The semantic lists with the words that their edges follow from, which one query reads."""
        near = {ref: found for ref, ranking in rankings.items() if (found := near_enough(ranking, self._rule))}
        named = {one.ref for found in near.values() for one in found}.union(near)
        return ComparedLists(near, self.wordings(connection, named), self._rule)

    def wordings(self, connection: Connection, refs: Collection[EntityRef]) -> dict[EntityRef, Wording]:
        if not refs:
            return {}
        postgres = self._platform.postgres
        parameters = {**by_type_and_id(refs), "characters": COMPARED_CHARACTERS}
        return dict(postgres.rows(connection, "read_wordings", by_ref(wording_of), parameters))

    def update(
        self,
        connection: Connection,
        writer: EdgeWriter,
        stored: StoredLists,
        written: Mapping[EntityRef, NeighbourList],
        unknown: Collection[EntityRef],
    ) -> None:
        """Write the edges from all entities whose duplicates may have changed, when semantic lists have.

        `stored`: the lists before the change. `written`: those that are different now, and those of moved entities.
        `unknown`: entities whose lists are asked for again, and their duplicates with these.
        """
        refs = {*written, *stored.listing, *stored.changed}.difference(unknown)
        # The stored edges of these are not their lists, so that they are asked for again, too.
        judged = (refs & stored.judged) - written.keys()
        mark(self._platform, connection, judged, Reason.LISTS)
        rankings: dict[EntityRef, Ranking] = {}
        for ref in refs - judged:
            before = self._stored_near(stored, ref)
            after = near_enough(written[ref].ranking, self._rule) if ref in written else before
            named = {one.ref for one in (*before, *after)}
            if named and (ref in stored.changed or before != after or not named.isdisjoint(stored.changed)):
                rankings[ref] = after
        if not rankings:
            return
        compared = self.compared(connection, rankings)
        held = self._platform.relationships.lists(connection, rankings.keys(), [DUPLICATE])[DUPLICATE]
        verdicts = read_verdicts(self._platform, connection, rankings.keys())
        edges = verdicts.judged_list(rankings.keys(), DUPLICATE, compared.edges())
        writer.write_lists([writer.list_diff(DUPLICATE, held, edges)])

    def _stored_near(self, stored: StoredLists, ref: EntityRef) -> Ranking:
        edges = stored.edges.get(ref, {})
        near = [
            Neighbour(target, edge.strength) for target, edge in edges.items() if edge.strength >= self._rule.similarity
        ]
        return ranked(near)
