"""Edge writer: writes the differences between stored and wanted edges in one transaction, counts and tells them."""

from collections.abc import Collection, Iterable, Mapping

from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph import Edge, EdgeType, ListDiff, ListedEdge, StoredList, diff, diff_lists
from mcp_assets.platform import Platform
from mcp_assets.stores.postgres import Connection
from mcp_assets.sync.feed.edge_entries import EdgeCauses, EdgeEntries
from mcp_assets.sync.link.counts import LinkCounter, LinkReport


class EdgeWriter:
    """Writes edges in the transaction of `connection`, and at its end the entries of the change feed about them."""

    def __init__(self, platform: Platform, connection: Connection) -> None:
        self._relationships = platform.relationships
        self._connection = connection
        self._counter = LinkCounter(platform.settings.shards)
        self._entries = EdgeEntries(platform, connection)

    @property
    def report(self) -> LinkReport:
        return self._counter.report

    def explain(self, causes: EdgeCauses) -> None:
        """Which changes of entities led to what is written in this transaction; without them, other lists did."""
        self._entries.causes = causes

    def write(self, sources: Collection[EntityRef], types: Collection[EdgeType], wanted: Iterable[Edge]) -> None:
        """Bring our edges of `types` from `sources` to `wanted`."""
        if not sources:
            return
        stored = self._relationships.of_sources(self._connection, sources, types)
        found = diff((edge for _, edge in stored.values()), self._relationships.storable(self._connection, wanted))
        self._relationships.write(self._connection, found, {key: row for key, (row, _) in stored.items()})
        self._counter.count_diff(found)
        self._entries.add(found)

    def list_diff(
        self, edge_type: EdgeType, stored: Mapping[EntityRef, StoredList], wanted: Iterable[ListedEdge]
    ) -> tuple[EdgeType, ListDiff]:
        """The changes that bring `stored` lists to `wanted`, counted; `write_lists` writes them.

        Both have the lists of the same sources, all of one type.
        """
        found = diff_lists(stored, self._relationships.storable(self._connection, wanted))
        self._counter.count_list_diff(edge_type, found)
        self._entries.add_lists(edge_type, found)
        return edge_type, found

    def write_lists(self, diffs: Iterable[tuple[EdgeType, ListDiff]]) -> None:
        """Write the results of `list_diff`; an iterator makes the next one while PostgreSQL writes."""
        self._relationships.write_lists(self._connection, diffs)

    def count_lists(self, refs: Iterable[EntityRef], *, in_blocks: bool) -> None:
        """The entities whose semantic lists this transaction writes, found in blocks or asked of Qdrant."""
        self._counter.count_lists(refs, in_blocks=in_blocks)

    def count_relinked(self, refs: Iterable[EntityRef]) -> None:
        """The entities that this transaction linked: called last, once."""
        self._counter.count_relinked(refs)

    def write_entries(self) -> None:
        """Write the entries of the change feed about all that this transaction wrote: called before its commit."""
        self._entries.write()
