"""Edge samples: some of our edges, drawn by a hash so that the same ones come each time; all edges at some ends.

Edges that stay by a verdict alone are left out, because no rule makes them.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from psycopg import sql

from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph import KEPT, EdgeType
from mcp_assets.stores.edge_table import EdgeTable
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.postgres.relationships_shape import ORIGIN
from mcp_assets.stores.postgres.rows import fetch_rows


@dataclass(frozen=True, slots=True)
class EdgeEnd:
    """An edge of `ref`, seen from there."""

    ref: EntityRef
    other: EntityRef
    type: EdgeType

    @classmethod
    def of_row(cls, *, ref_type: str, ref_id: str, other_type: str, other_id: str, edge_type: str) -> "EdgeEnd":
        return cls(EntityRef(ref_type, ref_id), EntityRef(other_type, other_id), EdgeType(edge_type))


def sampled_pairs(
    table: EdgeTable, connection: Connection, types: Collection[EdgeType], limit: int
) -> list[tuple[EntityRef, EntityRef]]:
    """At most `limit` pairs of entities that our edges of `types` link, each pair once, by a hash of both names.

    It reads all edges of these types.
    """
    statement = sql.SQL(
        "SELECT one_type, one_id, other_type, other_id FROM ("
        " SELECT DISTINCT CASE WHEN turned THEN target_type ELSE source_type END AS one_type,"
        " CASE WHEN turned THEN target_id ELSE source_id END AS one_id,"
        " CASE WHEN turned THEN source_type ELSE target_type END AS other_type,"
        " CASE WHEN turned THEN source_id ELSE target_id END AS other_id"
        " FROM (SELECT source_type, source_id::text, target_type, target_id::text,"
        " (source_type, source_id::text) > (target_type, target_id::text) AS turned"
        " FROM {table} WHERE origin = %(origin)s AND metadata ->> %(kept)s IS NULL"
        " AND relationship_type = ANY(%(types)s::text[]::{edge_type}[])) AS edge"
        ") AS pair ORDER BY md5(one_type || ':' || one_id || ' ' || other_type || ':' || other_id) LIMIT %(limit)s"
    ).format(table=table.table, edge_type=table.edge_type_type(connection))
    parameters = {"origin": ORIGIN, "types": [one.value for one in types], "limit": limit, "kept": KEPT}
    rows = connection.execute(statement, parameters).fetchall()
    return [(EntityRef(row[0], row[1]), EntityRef(row[2], row[3])) for row in rows]


def ends_of(
    table: EdgeTable,
    connection: Connection,
    refs: Sequence[EntityRef],
    *,
    leaving: Collection[EdgeType],
    touching: Collection[EdgeType],
) -> list[EdgeEnd]:
    """Our edges of the types `leaving` from `refs`, and those of the types `touching` in both directions."""
    wanted = table.castable(connection, refs)
    if not wanted:
        return []
    statement = sql.SQL(
        "SELECT wanted.entity_type AS ref_type, wanted.entity_id::text AS ref_id, edge.other_type, edge.other_id,"
        " edge.relationship_type AS edge_type"
        " FROM unnest(%(types)s::text[], %(ids)s::text[]::{id}[]) AS wanted (entity_type, entity_id)"
        " CROSS JOIN LATERAL ("
        " SELECT target_type AS other_type, target_id::text AS other_id, relationship_type FROM {table}"
        " WHERE source_type = wanted.entity_type AND source_id = wanted.entity_id AND origin = %(origin)s"
        " AND metadata ->> %(kept)s IS NULL"
        " AND relationship_type = ANY(%(leaving)s::text[]::{edge_type}[])"
        " UNION ALL"
        " SELECT source_type, source_id::text, relationship_type FROM {table}"
        " WHERE target_type = wanted.entity_type AND target_id = wanted.entity_id AND origin = %(origin)s"
        " AND metadata ->> %(kept)s IS NULL"
        " AND relationship_type = ANY(%(touching)s::text[]::{edge_type}[])"
        ") AS edge"
    ).format(table=table.table, id=table.id_type(connection), edge_type=table.edge_type_type(connection))
    parameters = {
        "types": [ref.type for ref in wanted],
        "ids": [ref.id for ref in wanted],
        "origin": ORIGIN,
        "kept": KEPT,
        "leaving": [one.value for one in (*leaving, *touching)],
        "touching": [one.value for one in touching],
    }
    return fetch_rows(connection, statement, EdgeEnd.of_row, parameters)


@dataclass(frozen=True, slots=True)
class JudgedEdges:
    """How many edges of a type, each with its direction, have a verdict."""

    edge_type: str
    decision: str
    """`accepted` or `rejected`."""
    edges: int
    """Those that the rules made when the verdict was given."""
    made_now: int
    """Those of them that the rules make now and that stand in the table."""


def judged_edges(table: EdgeTable, connection: Connection, schema: str) -> list[JudgedEdges]:
    """The edges with a verdict, by type and decision. It reads the table of edges once."""
    statement = sql.SQL(
        "SELECT verdict.edge_type, verdict.decision, count(*) AS edges, count(edge.source_id) AS made_now"
        " FROM {schema}.edge_verdicts AS verdict LEFT JOIN {table} AS edge"
        " ON edge.source_type = verdict.source_type AND edge.source_id::text = verdict.source_id"
        " AND edge.target_type = verdict.target_type AND edge.target_id::text = verdict.target_id"
        " AND edge.relationship_type::text = verdict.edge_type AND edge.origin = %(origin)s"
        " AND edge.metadata ->> %(kept)s IS NULL"
        " WHERE verdict.strength IS NOT NULL GROUP BY 1, 2 ORDER BY 1, 2"
    ).format(schema=sql.Identifier(schema), table=table.table)
    return fetch_rows(connection, statement, JudgedEdges, {"origin": ORIGIN, "kept": KEPT})
