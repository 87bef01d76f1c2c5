"""Graph: reads edges for a person: those around an entity, all of them for an export, and strengths for a plot."""

from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any

from psycopg import sql
from psycopg.rows import kwargs_row

from mcp_assets.entities.refs import EntityRef, slot_range
from mcp_assets.graph import STRENGTH_BINS, EdgeType
from mcp_assets.platform import Platform
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.postgres.rows import by_ref, fetch_rows
from mcp_assets.sync.link.locks import reading_edges

_ROWS_AT_ONCE = 10_000
"""Edges of an export that are fetched at once: some megabytes."""

_NEIGHBOURS_SHOWN = 500
"""Edges that are followed from one entity in each direction: more would fill no screen and slow the search down."""


class Format(StrEnum):
    """The file formats of an export."""

    GRAPHML = "graphml"
    CSV = "csv"
    PARQUET = "parquet"
    HTML = "html"


@dataclass(frozen=True, slots=True)
class Related:
    """One edge near an entity, of any program. `depth`: steps from the entity to the nearer end, plus one."""

    source: EntityRef
    target: EntityRef
    edge_type: str
    strength: float | None
    depth: int
    origin: str | None
    metadata: Mapping[str, Any]
    """The evidence: the rule that made the edge, and the words or tags that it found."""

    @classmethod
    def of_row(
        cls,
        depth: int,
        *,
        source_type: str | None,
        source_id: str,
        target_type: str | None,
        target_id: str,
        relationship_type: str,
        strength: float | None,
        origin: str | None,
        metadata: Any,
    ) -> "Related":
        """Rows of other programs may lack types, and have any JSON as metadata."""
        source, target = EntityRef(source_type or "?", source_id), EntityRef(target_type or "?", target_id)
        evidence = metadata if isinstance(metadata, dict) else {}
        return cls(source, target, relationship_type, _decimals(strength), depth, origin, evidence)


@dataclass(frozen=True, slots=True)
class ExportedEdge:
    """One row of an export."""

    source_type: str | None
    source_id: str
    target_type: str | None
    target_id: str
    relationship_type: str
    strength: float | None
    metadata: Mapping[str, Any]
    origin: str | None
    source_title: str | None
    target_title: str | None

    @classmethod
    def of_row(cls, *, strength: float | None, metadata: Any, **columns: Any) -> "ExportedEdge":
        return cls(strength=_decimals(strength), metadata=metadata or {}, **columns)


def related(
    platform: Platform, start: EntityRef, *, types: Collection[str] = (), depth: int = 1
) -> tuple[list[Related], dict[EntityRef, str | None]]:
    """The edges within `depth` steps of `start` in both directions, strongest first, and the titles of their ends.

    The search is breadth first. From an entity with very many edges, only the strongest are followed.

    Raises:
        StoreUnavailable.
        StoreRefused: the table of edges could not be made or adopted. The other readers of edges here raise it, too.
    """
    found: dict[tuple[EntityRef, EntityRef, str, str | None], Related] = {}
    seen = {start}
    border = deque([start])
    with reading_edges(platform) as connection:
        for step in range(1, depth + 1):
            reached: set[EntityRef] = set()
            for edge in _around(platform, connection, list(border), types, step):
                source, target = edge.source, edge.target
                key = (source, target, edge.edge_type, edge.origin)
                if key not in found:
                    found[key] = edge
                    reached |= {source, target}
            border = deque(sorted(reached - seen))
            seen |= reached
            if not border:
                break
        titles = _titles(platform, connection, seen)
    ordered = sorted(found.values(), key=lambda one: (one.depth, -(one.strength or 0), one.source, one.target))
    return ordered, titles


def exists(platform: Platform, ref: EntityRef) -> bool:
    with platform.postgres.transaction() as connection:
        return ref in _titles(platform, connection, [ref])


def find_by_id(platform: Platform, entity_id: str) -> list[EntityRef]:
    """The living entities of any type with this id."""
    with platform.postgres.transaction() as connection:
        rows = connection.execute(
            platform.postgres.query("living_by_id"),
            {"types": list(platform.settings.entity_types), "id": entity_id},
        ).fetchall()
    return [EntityRef(*row) for row in rows]


def entities_named(platform: Platform, written: str) -> list[EntityRef]:
    """The living entities that a person or program may mean: the one of `type:id`, or else those with this id."""
    name, colon, entity_id = written.partition(":")
    entity_type = platform.type_names.canonical(name) if colon else None
    if entity_type is not None and exists(platform, ref := EntityRef(entity_type, entity_id)):
        return [ref]
    return find_by_id(platform, written)


def exported(platform: Platform, *, types: Collection[str] = (), min_strength: float = 0.0) -> Iterator[ExportedEdge]:
    """Every edge, those of other programs too, by source, target and type; memory does not grow with their number."""
    statement = sql.SQL(
        "SELECT source_type, source_id::text, target_type, target_id::text, relationship_type, strength, edge.metadata,"
        " edge.origin, source.title AS source_title, target.title AS target_title"
        " FROM {table} AS edge"
        " LEFT JOIN {schema}.entities AS source ON source.entity_type = source_type"
        " AND source.entity_id = source_id::text"
        " LEFT JOIN {schema}.entities AS target ON target.entity_type = target_type"
        " AND target.entity_id = target_id::text"
        " WHERE (%(types)s::text[] = '{{}}' OR relationship_type::text = ANY(%(types)s))"
        " AND coalesce(strength, 0) >= %(min_strength)s"
        " ORDER BY source_type, source_id, target_type, target_id, relationship_type"
    ).format(table=platform.relationships.table, schema=sql.Identifier(platform.postgres.schema))
    with (
        reading_edges(platform) as connection,
        connection.cursor(name="export", row_factory=kwargs_row(ExportedEdge.of_row)) as cursor,
    ):
        cursor.itersize = _ROWS_AT_ONCE
        cursor.execute(statement, {"types": list(types), "min_strength": min_strength})
        yield from cursor


@dataclass(frozen=True, slots=True)
class _StrengthBin:
    """The edges of one type whose strengths fall into one of STRENGTH_BINS ranges."""

    edge_type: str
    bin: int
    edges: int


def strengths_of(platform: Platform, entity_type: str, shard: int) -> dict[EdgeType, list[int]]:
    """A histogram of the strengths of our edges from a partition: STRENGTH_BINS numbers for each edge type."""
    low, high = slot_range(shard, platform.settings.shards)
    with reading_edges(platform) as connection:
        ids = [
            row[0]
            for row in connection.execute(
                platform.postgres.query("living_ids"), {"entity_type": entity_type, "low": low, "high": high}
            )
        ]
        refs = platform.relationships.castable(connection, (EntityRef(entity_type, entity_id) for entity_id in ids))
        rows = fetch_rows(
            connection,
            sql.SQL(
                "SELECT relationship_type AS edge_type,"
                " least(floor(strength * %(bins)s)::integer, %(bins)s - 1) AS bin, count(*) AS edges"
                " FROM {} WHERE origin = 'mcp_assets' AND source_type = %(entity_type)s"
                " AND source_id = ANY(%(ids)s::text[]::{}[]) GROUP BY 1, 2"
            ).format(platform.relationships.table, platform.relationships.id_type(connection)),
            _StrengthBin,
            {"bins": STRENGTH_BINS, "entity_type": entity_type, "ids": [ref.id for ref in refs]},
        )
    found: dict[EdgeType, list[int]] = {}
    for row in rows:
        found.setdefault(EdgeType(row.edge_type), [0] * STRENGTH_BINS)[row.bin] = row.edges
    return found


def _around(
    platform: Platform, connection: Connection, refs: Sequence[EntityRef], types: Collection[str], depth: int
) -> Iterator[Related]:
    wanted = platform.relationships.castable(connection, refs)
    statement = sql.SQL(
        "SELECT edge.* FROM unnest(%(types)s::text[], %(ids)s::text[]::{id}[]) AS wanted (entity_type, entity_id)"
        " CROSS JOIN LATERAL ("
        " SELECT source_type, source_id::text, target_type, target_id::text, relationship_type, strength, origin,"
        " metadata FROM {table} WHERE {end_type} = wanted.entity_type AND {end_id} = wanted.entity_id"
        " AND (%(edge_types)s::text[] = '{{}}' OR relationship_type::text = ANY(%(edge_types)s))"
        " ORDER BY strength DESC NULLS LAST, source_id, target_id LIMIT %(limit)s) AS edge"
    )
    for end in ("source", "target"):
        yield from fetch_rows(
            connection,
            statement.format(
                id=platform.relationships.id_type(connection),
                table=platform.relationships.table,
                end_type=sql.Identifier(f"{end}_type"),
                end_id=sql.Identifier(f"{end}_id"),
            ),
            partial(Related.of_row, depth),
            {
                "types": [ref.type for ref in wanted],
                "ids": [ref.id for ref in wanted],
                "edge_types": list(types),
                "limit": _NEIGHBOURS_SHOWN,
            },
        )


def _titles(platform: Platform, connection: Connection, refs: Collection[EntityRef]) -> dict[EntityRef, str | None]:
    names = {"types": [ref.type for ref in refs], "ids": [ref.id for ref in refs]}
    return dict(platform.postgres.rows(connection, "read_titles", by_ref(_title), names))


def _title(title: str | None) -> str | None:
    return title


def _decimals(strength: float | None) -> float | None:
    """A strength with the 4 decimals with which it was written: a `real` is not exact."""
    return None if strength is None else round(strength, 4)
