"""Edge entries: collects the changes of edges that one transaction makes, and writes their entries at its end."""

from collections.abc import Collection, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph import REFERENCE_TYPES, EdgeDiff, EdgeKey, EdgeType, ListDiff, ListedEdge
from mcp_assets.platform import Platform
from mcp_assets.stores.edge_copy import escaped
from mcp_assets.stores.postgres import Connection
from mcp_assets.sync.feed.edition import ChangeFeed
from mcp_assets.sync.feed.entries import ChangeKind, EdgeReason

_LINES_AT_ONCE = 250
"""Lines of COPY that are sent in one call, as in `stores.relationships`."""

_NULL = "\\N"
"""In the text format of COPY."""


@dataclass(slots=True)
class EdgeCauses:
    """The entities whose change led to the changes of edges in one transaction."""

    gone: Collection[EntityRef] = frozenset()
    moved: Collection[EntityRef] = frozenset()
    """Their vectors are new or others."""
    retagged: Collection[EntityRef] = frozenset()
    """Their tags, or the weights of these, are others."""
    verdicts: Container[EdgeKey] = frozenset()
    """The edges that have one."""

    def reason(self, edge_type: EdgeType, source: EntityRef, target: EntityRef) -> EdgeReason:
        """Why the edge changed."""
        if source in self.gone or target in self.gone:
            return EdgeReason.ENTITY_REMOVED
        by_tags = edge_type is EdgeType.TOPICAL_RELEVANCE
        changed = self.retagged if by_tags else self.moved
        is_reference = edge_type in REFERENCE_TYPES
        if not is_reference and (source in changed or target in changed):
            return EdgeReason.TAGS if by_tags else EdgeReason.TEXT
        if EdgeKey(source, target, edge_type) in self.verdicts:
            return EdgeReason.VERDICT
        return EdgeReason.REFERENCE if is_reference else EdgeReason.RANKING


@dataclass(slots=True)
class _Group:
    """Edges of one type that changed in one way."""

    kind: ChangeKind
    edge_type: EdgeType
    edges: Sequence[ListedEdge]


@dataclass(slots=True)
class EdgeEntries:
    """The entries of one transaction, which holds the lock of edges. While a rebuild is under way it writes none.

    One entry a partition tells of the rebuild, once it is over. It tells of all edges, so that entries of single edges
    meanwhile would say nothing more.
    """

    platform: Platform
    connection: Connection
    causes: EdgeCauses = field(default_factory=EdgeCauses)
    _is_on: bool = False
    _in_rebuild: bool = False
    _groups: list[_Group] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._is_on = self.platform.companion(ChangeFeed).is_on
        if self._is_on:
            rows = self.connection.execute(self.platform.postgres.query("rebuild_under_way"))
            self._in_rebuild = rows.fetchone() is not None

    def add(self, diff: EdgeDiff) -> None:
        """Edges of any type that changed."""
        if self._is_on and not self._in_rebuild:
            kinds = (ChangeKind.EDGE_ADDED, ChangeKind.EDGE_CHANGED, ChangeKind.EDGE_REMOVED)
            for kind, edges in zip(kinds, diff, strict=True):
                for edge in edges:
                    listed = ListedEdge(edge.source, edge.target, edge.strength, "")
                    self._groups.append(_Group(kind, edge.type, (listed,)))

    def add_lists(self, edge_type: EdgeType, diff: ListDiff) -> None:
        """Edges of ranked lists that changed."""
        if self._is_on and not self._in_rebuild:
            self._groups += (
                _Group(ChangeKind.EDGE_ADDED, edge_type, diff.added),
                _Group(ChangeKind.EDGE_CHANGED, edge_type, [edge for _, edge in diff.changed]),
                _Group(ChangeKind.EDGE_REMOVED, edge_type, [edge for _, edge in diff.removed]),
            )

    def write(self) -> None:
        """Write the entries; of a rebuild that is over with this transaction, one a partition."""
        if self._in_rebuild:
            settings = self.platform.settings
            ended = {
                "kind": ChangeKind.EDGES_REBUILT,
                "reason": EdgeReason.REBUILD,
                "entity_types": list(settings.entity_types),
                "shards": settings.shards,
            }
            self.connection.execute(self.platform.postgres.query("end_rebuild_entry"), ended)
        elif self._groups:
            copy_entries(self.platform, self.connection, _lines(self._groups, self.causes))


def begin_rebuild(platform: Platform, connection: Connection) -> None:
    """From now on, until the marks that are there now are linked, entries of single edges are not written."""
    if platform.companion(ChangeFeed).is_on:
        connection.execute(platform.postgres.query("begin_rebuild_entry"))


def copy_entries(platform: Platform, connection: Connection, lines: Iterator[str]) -> None:
    """Write entries of edges: lines in the text format of COPY."""
    first = "".join(islice(lines, _LINES_AT_ONCE))
    if not first:
        return
    with connection.cursor() as cursor, cursor.copy(platform.postgres.query("copy_edge_changes")) as writer:
        writer.write(first)
        while part := "".join(islice(lines, _LINES_AT_ONCE)):
            writer.write(part)


def entry_line(
    kind: ChangeKind, reason: EdgeReason, edge_type: str, source: str, target: str, strength: float | None
) -> str:
    """One line of COPY. `source` and `target`: type and id, escaped, with a tab between."""
    return f"{kind}\t{reason}\t{source}\t{edge_type}\t{target}\t{_NULL if strength is None else strength}\n"


def name_of(ref: EntityRef) -> str:
    """Type and id, escaped for COPY, with a tab between."""
    return f"{escaped(ref.type)}\t{escaped(ref.id)}"


def _lines(groups: Iterable[_Group], causes: EdgeCauses) -> Iterator[str]:
    # An entity is an end of many edges, so that its name is escaped once.
    names: dict[EntityRef, str] = {}
    for group in groups:
        kind, edge_type = group.kind, group.edge_type
        for source, target, strength, _ in group.edges:
            if (source_name := names.get(source)) is None:
                source_name = names[source] = name_of(source)
            if (target_name := names.get(target)) is None:
                target_name = names[target] = name_of(target)
            reason = causes.reason(edge_type, source, target)
            yield entry_line(kind, reason, edge_type, source_name, target_name, strength)
