"""Counts: how many edges the linker added, changed and removed, by type of edge and by the partition of the source."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from heapq import nlargest
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import Literal

from mcp_assets.entities.refs import EntityRef, shard_of
from mcp_assets.graph import STRENGTH_BINS, Edge, EdgeDiff, EdgeType, ListDiff, ListedEdge, bin_of

NEW_EDGES_SHOWN = 10
"""The strongest of the new edges, which a materialization shows: a table of more is not read."""

_SOURCE, _STRENGTH = attrgetter("source"), attrgetter("strength")

Change = Literal["added", "changed", "removed"]


@dataclass(slots=True)
class LinkCounts:
    """What happened to the edges whose source is in one partition."""

    relinked: int = 0
    """Entities that were linked again; an entity with several marks may count several times."""
    lists_in_blocks: int = 0
    """Semantic lists that were found in blocks, from vectors that were read once (`sync.link.blocked_lists`)."""
    lists_asked: int = 0
    """Semantic lists that Qdrant was asked for."""
    index_wait: str = ""
    """How long the linker waited for Qdrant's index, a sentence (`sync.link.index_wait`); empty: it did not."""
    added: Counter[EdgeType] = field(default_factory=Counter)
    changed: Counter[EdgeType] = field(default_factory=Counter)
    removed: Counter[EdgeType] = field(default_factory=Counter)
    strongest: list[Edge] = field(default_factory=list)
    """The strongest of the new edges."""
    strengths: dict[EdgeType, list[int]] = field(default_factory=dict)
    """A histogram of the strengths of the edges that were added or changed: STRENGTH_BINS numbers a type of edge."""

    def add(self, other: "LinkCounts") -> None:
        self.relinked += other.relinked
        self.lists_in_blocks += other.lists_in_blocks
        self.lists_asked += other.lists_asked
        self.index_wait = other.index_wait or self.index_wait
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

    def keep_strongest(self) -> None:
        """Forget all new edges but the NEW_EDGES_SHOWN strongest."""
        self.strongest = _strongest(self.strongest)


class LinkStage(Enum):
    """The two kinds of the linker's transactions. An entity that has a mark for both is linked in one of each."""

    CHANGES = "changes"
    LISTS = "lists"


@dataclass(slots=True)
class LinkReport:
    """What one transaction of the linker did, by entity type and shard."""

    stage: LinkStage = LinkStage.CHANGES
    partitions: dict[tuple[str, int], LinkCounts] = field(default_factory=dict)

    def tell_wait(self, told: str) -> None:
        """Say in all partitions how long the linker waited for Qdrant's index."""
        for counts in self.partitions.values():
            counts.index_wait = told

    def total(self) -> LinkCounts:
        total = LinkCounts()
        for counts in self.partitions.values():
            total.add(counts)
        return total


class LinkCounter:
    """Counts what one transaction does into a report. `shards`: how many there are of each entity type."""

    def __init__(self, shards: int) -> None:
        self.report = LinkReport()
        self._shards = shards

    def count_diff(self, diff: EdgeDiff) -> None:
        partitions: dict[EntityRef, LinkCounts] = {}
        changes: tuple[tuple[Change, Sequence[Edge]], ...] = (
            ("added", diff.added),
            ("changed", diff.changed),
            ("removed", diff.removed),
        )
        for change, edges in changes:
            for edge in edges:
                counts = partitions.get(edge.source)
                if counts is None:
                    counts = partitions[edge.source] = self._counts(edge.source)
                counts.count(change, edge)

    def count_list_diff(self, edge_type: EdgeType, diff: ListDiff) -> None:
        self._count_listed("added", edge_type, diff.added)
        self._count_listed("changed", edge_type, [edge for _, edge in diff.changed])
        self._count_listed("removed", edge_type, [edge for _, edge in diff.removed])

    def count_lists(self, refs: Iterable[EntityRef], *, in_blocks: bool) -> None:
        """Semantic lists of these entities were found in blocks, or asked of Qdrant."""
        for ref in refs:
            counts = self._counts(ref)
            counts.lists_in_blocks += in_blocks
            counts.lists_asked += not in_blocks

    def count_relinked(self, refs: Iterable[EntityRef]) -> None:
        """The entities that the transaction linked: called last, once."""
        for ref in refs:
            self._counts(ref).relinked += 1
        for counts in self.report.partitions.values():
            counts.keep_strongest()

    def _count_listed(self, change: Change, edge_type: EdgeType, edges: Sequence[ListedEdge]) -> None:
        by_partition: dict[int, tuple[LinkCounts, list[ListedEdge]]] = {}
        for source, of_source in groupby(edges, _SOURCE):
            counts = self._counts(source)
            by_partition.setdefault(id(counts), (counts, []))[1].extend(of_source)
        for counts, listed in by_partition.values():
            counts.count_listed(change, edge_type, listed)

    def _counts(self, ref: EntityRef) -> LinkCounts:
        shard = shard_of(ref.slot, self._shards)
        return self.report.partitions.setdefault((ref.type, shard), LinkCounts())


def _strongest(edges: Iterable[Edge]) -> list[Edge]:
    return nlargest(NEW_EDGES_SHOWN, edges, key=lambda edge: (edge.strength, edge.key))
