"""Changes: link one batch of changed entities, and update the lists of others that they enter, leave or stay in."""

from collections.abc import Collection, Mapping

from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph import (
    LIST_LENGTH,
    REFERENCE_TYPES,
    EdgeType,
    NeighbourList,
    Verdicts,
    differing,
    ranked,
    update_lists,
)
from mcp_assets.platform import Platform
from mcp_assets.stores.postgres import Connection
from mcp_assets.sync.feed.edge_entries import EdgeCauses
from mcp_assets.sync.link.duplicates import DUPLICATE, Duplicates
from mcp_assets.sync.link.edge_writer import EdgeWriter
from mcp_assets.sync.link.link_rules import rules_fingerprint
from mcp_assets.sync.link.link_state import StateChanges, reference_edges, update_link_states
from mcp_assets.sync.link.marks import Reason, mark
from mcp_assets.sync.link.prefetch import Prefetch
from mcp_assets.sync.link.reach import Reach
from mcp_assets.sync.link.semantic_neighbours import SemanticNeighbours
from mcp_assets.sync.link.stored_lists import StoredLists, record_move, write_cut_offs_and_reserves
from mcp_assets.sync.link.tag_weights import weigh_crowded
from mcp_assets.sync.link.topical_neighbours import TopicalNeighbours
from mcp_assets.sync.link.verdicts import read_verdicts

SEMANTIC, TOPICAL = EdgeType.SEMANTIC_SIMILARITY, EdgeType.TOPICAL_RELEVANCE
LISTED_TYPES = (SEMANTIC, DUPLICATE, TOPICAL)

_CHANGE_OF_ENTITY = frozenset({Reason.CHANGED, Reason.VECTOR, Reason.TAGS})


def any_change_outside_rebuild(platform: Platform, connection: Connection) -> bool:
    """Whether there is a mark of a change that no rebuild covers (see `sync.link.linker`)."""
    return connection.execute(platform.postgres.query("any_change_outside_rebuild")).fetchone() is not None


class ChangeLinker:
    """Links changed entities in the transactions of its caller."""

    def __init__(
        self, platform: Platform, semantic: SemanticNeighbours, topical: TopicalNeighbours, prefetch: Prefetch
    ) -> None:
        self._platform = platform
        self._semantic = semantic
        self._topical = topical
        self._duplicates = Duplicates(platform)
        self._prefetch = prefetch
        self._rules = rules_fingerprint(platform, semantic.profile)

    def link(
        self,
        connection: Connection,
        writer: EdgeWriter,
        reasons: Mapping[EntityRef, set[Reason]],
        outside_rebuild: Collection[EntityRef],
    ) -> None:
        """Link the entities of `reasons`, each marked for its reasons.

        `outside_rebuild`: those that have to be compared with the lists of others, because no rebuild makes these.
        """
        changed = {ref for ref, marked in reasons.items() if marked & _CHANGE_OF_ENTITY}
        vectors = {ref for ref, marked in reasons.items() if Reason.VECTOR in marked}
        changes = update_link_states(
            self._platform, connection, changed, vectors, self._semantic.collections, self._rules
        )
        self._weigh_crowded(connection, changes, outside_rebuild)
        referring = changes.referring | {ref for ref, marked in reasons.items() if Reason.REFERENCES in marked}
        at_once = self._platform.tuning.link.referring_at_once
        now = sorted(referring, key=lambda ref: (ref not in reasons, ref))[:at_once]
        mark(self._platform, connection, referring - set(now), Reason.REFERENCES)
        verdicts = read_verdicts(self._platform, connection, changed.union(now))
        self._mark_judged(connection, changed, now, verdicts)
        tags = {ref for ref, marked in reasons.items() if Reason.TAGS in marked}
        writer.explain(EdgeCauses(changes.gone, changes.moved | changes.reworded, changes.retagged | tags, verdicts))
        # The edges of entities that are gone are removed, and references resolved again that may have changed.
        writer.write(changes.gone, tuple(EdgeType), [])
        edges = reference_edges(self._platform, connection, now)
        writer.write(now, REFERENCE_TYPES, verdicts.judged(now, REFERENCE_TYPES, edges))
        self._update_semantic_lists(connection, writer, changes, outside_rebuild, verdicts)
        self._update_topical_lists(connection, writer, changes, tags, outside_rebuild, verdicts)
        writer.count_relinked(reasons)

    def _weigh_crowded(
        self, connection: Connection, changes: StateChanges, outside_rebuild: Collection[EntityRef]
    ) -> None:
        tags = {tag for ref in changes.retagged if (row := changes.living.get(ref)) for tag in row.tags}
        # A first linking counts all tags before it makes lists; see `sync.link.linker`.
        if tags and (
            outside_rebuild or connection.execute(self._platform.postgres.query("has_tag_weights")).fetchone()
        ):
            weigh_crowded(self._platform, connection, tags, mark_holders=bool(outside_rebuild))

    def _mark_judged(
        self, connection: Connection, changed: Collection[EntityRef], now: Collection[EntityRef], verdicts: Verdicts
    ) -> None:
        """Have the edges judged again whose verdict may apply otherwise, because one of their ends changed.

        A rejected edge is not stored, so that the lists that name a changed entity do not show it. `now`: the entities
        whose references are resolved in this transaction.
        """
        mark(self._platform, connection, verdicts.sources_of(changed, LISTED_TYPES), Reason.LISTS)
        referring = verdicts.sources_of(changed, REFERENCE_TYPES).difference(now)
        mark(self._platform, connection, referring, Reason.REFERENCES)

    def _update_semantic_lists(
        self,
        connection: Connection,
        writer: EdgeWriter,
        changes: StateChanges,
        outside_rebuild: Collection[EntityRef],
        verdicts: Verdicts,
    ) -> None:
        moved = changes.moved & set(outside_rebuild)
        reworded = changes.reworded & set(outside_rebuild)
        if not moved and not reworded:
            return
        if moved:
            record_move(self._platform, connection, moved)
        points = {ref: row.point for ref in moved if (row := changes.living.get(ref)) and row.point}
        stored = StoredLists(self._platform, connection, SEMANTIC, moved | reworded)
        # PostgreSQL reads lists while Qdrant searches and while its answers are processed.
        with connection.pipeline():
            reach = dict.fromkeys(moved, Reach()) | self._semantic.reach(connection, points, stored.read)
        written, unknown = self._update_lists(connection, writer, stored, reach, verdicts)
        self._duplicates.update(connection, writer, stored, written, unknown)

    def _update_topical_lists(
        self,
        connection: Connection,
        writer: EdgeWriter,
        changes: StateChanges,
        reweighted: Collection[EntityRef],
        outside_rebuild: Collection[EntityRef],
        verdicts: Verdicts,
    ) -> None:
        """`reweighted`: entities that hold a tag whose weight changed."""
        retagged = (changes.retagged | (set(reweighted) & changes.living.keys())) & set(outside_rebuild)
        tags = {ref: row.tags for ref in retagged if (row := changes.living.get(ref))}
        reach = dict.fromkeys(retagged, Reach())
        for batch in self._topical.batches(connection, tags):
            reach |= {ref: batch.reach_of(ref) for ref in batch.tags}
        stored = StoredLists(self._platform, connection, TOPICAL, retagged)
        self._update_lists(connection, writer, stored, reach, verdicts)

    def _update_lists(
        self,
        connection: Connection,
        writer: EdgeWriter,
        stored: StoredLists,
        reach: Mapping[EntityRef, Reach],
        verdicts: Verdicts,
    ) -> tuple[dict[EntityRef, NeighbourList], set[EntityRef]]:
        """Write the lists of the changed entities, and of those whose lists they enter, leave or stay in.

        `reach`: that of each changed entity; empty of one that is gone. `verdicts`: about edges of the changed
        entities. A list of another entity that has a verdict counts as unknown, so that Qdrant is asked for it.

        Returns the lists that were written, and the entities whose list only a query can give, which are marked.
        """
        if not stored.changed:
            return {}, set()
        edge_type = stored.edge_type
        stored.read({near.ref for one in reach.values() for near in one.within_reach})
        before = stored.lists()
        if not reach:
            return {}, set()
        lists = {ref: one for ref, one in before.items() if ref not in reach}
        within_reach = {ref: one.within_reach for ref, one in reach.items()}
        updated, to_query = update_lists(within_reach, lists, LIST_LENGTH, stored.kept)
        mark(self._platform, connection, to_query - reach.keys(), Reason.LISTS)
        if to_query and not any_change_outside_rebuild(self._platform, connection):
            # Otherwise the next change would make the answers invalid.
            self._prefetch.ask_early(to_query - reach.keys())
        # Edges are compared while PostgreSQL writes.
        with connection.pipeline():
            written = updated | {ref: one.own for ref, one in reach.items()}
            by_type = (written, {}) if edge_type is SEMANTIC else ({}, written)
            write_cut_offs_and_reserves(self._platform, connection, *by_type)
            rankings = {ref: one.own.ranking for ref, one in reach.items()}
            held = {ref: stored.edges[ref] for ref in reach if ref in stored.edges}
            if edge_type is SEMANTIC:
                for ref, one in sorted(updated.items()):
                    # The evidence follows from target and strength, so that it is compared only where these differ.
                    others = differing(before[ref].ranking, one.ranking)
                    if others:
                        rankings[ref] = ranked(others.intersection(one.ranking))
                        edges = stored.edges.get(ref, {})
                        held[ref] = {target: edges[target] for target, _ in others if target in edges}
                wanted = self._semantic.edges(rankings)
            else:
                # The evidence names tags of both ends, so that it may change where the strength does not.
                for ref in sorted(updated.keys() | (stored.listing & lists.keys()) - to_query):
                    rankings[ref] = updated.get(ref, before[ref]).ranking
                    held[ref] = stored.edges.get(ref, {})
                wanted = self._topical.edges(connection, rankings)
            found = writer.list_diff(edge_type, held, verdicts.judged_list(reach.keys(), edge_type, wanted))
        writer.write_lists([found])
        return written, to_query
