"""Orphan edges: edges, ours and those of other programs, whose source or target is no living entity."""

from collections.abc import Sequence
from typing import NamedTuple

from psycopg import sql

from mcp_assets.entities.refs import SLOTS
from mcp_assets.stores.edge_table import EdgeTable
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.postgres.relationships_shape import ORIGIN
from mcp_assets.stores.postgres.rows import fetch_rows


class Orphan(NamedTuple):
    """One orphan; in rows of other programs a type may be missing."""

    id: str
    source_type: str | None
    source_id: str
    target_type: str | None
    target_id: str
    edge_type: str
    origin: str | None
    has_source: bool
    has_target: bool


def orphans_of_slots(
    table: EdgeTable, schema: str, entity_type: str, slots: tuple[int, int], types: Sequence[str]
) -> sql.Composed:
    """The query of the orphans whose source is in `slots` (half-open); its columns are the fields of `Orphan`.

    `types`: all registered entity types. An edge of another program without types is an orphan if no living entity has
    the id, of whichever type. An edge without a registered source type belongs to the first of `types`, so that one
    partition reports it.
    """
    owned = sql.SQL("edge.source_type = {}").format(sql.Literal(entity_type))
    if entity_type == types[0]:
        owned = sql.SQL("({} OR edge.source_type IS NULL OR edge.source_type <> ALL({}))").format(
            owned, sql.Literal(list(types))
        )
    statement = _orphans(table, schema, types) + sql.SQL(" AND ") + owned
    if slots == (0, SLOTS):
        return statement
    # The ledger knows the slot of a source that is living, so that few are hashed: it took as long as all else.
    slot = sql.SQL(
        "CASE WHEN source.entity_id IS NOT NULL THEN source.slot"
        " ELSE ('x' || substr(md5(edge.source_id::text), 1, 4))::bit(16)::integer END"
    )
    return statement + sql.SQL(" AND {slot} <@ int4range({low}, {high})").format(
        slot=slot, low=sql.Literal(slots[0]), high=sql.Literal(slots[1])
    )


def orphans_among(
    table: EdgeTable, connection: Connection, schema: str, ids: Sequence[str], types: Sequence[str]
) -> list[Orphan]:
    """Those of the rows `ids` that lack a living end now."""
    statement = _orphans(table, schema, types) + sql.SQL(" AND edge.id::text = ANY({})").format(sql.Literal(list(ids)))
    return fetch_rows(connection, statement, Orphan)


def delete_orphans(
    table: EdgeTable, connection: Connection, schema: str, ids: Sequence[str], types: Sequence[str], *, ours: bool
) -> list[Orphan]:
    """Remove those of the rows `ids` that lack a living end now. Returns them.

    `ours`: of our rows alone; if false, of the rows of other programs alone.
    """
    orphans = [
        orphan for orphan in orphans_among(table, connection, schema, ids, types) if (orphan.origin == ORIGIN) is ours
    ]
    connection.execute(
        sql.SQL("DELETE FROM {} WHERE id::text = ANY(%s) AND (origin IS NOT DISTINCT FROM %s) = %s").format(
            table.table
        ),
        ([orphan.id for orphan in orphans], ORIGIN, ours),
    )
    return orphans


def _orphans(table: EdgeTable, schema: str, types: Sequence[str]) -> sql.Composed:
    # Our edge lacks an end whose type is not registered, or which is no living entity. An edge of another program lacks
    # an end only if this platform knows the end's type, or the edge has none and no registered type has a living entity
    # of that id.
    lacking = sql.SQL(
        "(edge.origin IS NOT DISTINCT FROM {ours} AND edge.{end_type} <> ALL({types})"
        " OR {end}.entity_id IS NULL AND (edge.origin IS NOT DISTINCT FROM {ours}"
        " OR coalesce(edge.{end_type} = ANY({types}), false)"
        " OR (edge.{end_type} IS NULL AND NOT EXISTS (SELECT FROM {schema}.entities AS any_type"
        " WHERE any_type.entity_type = ANY({types}) AND any_type.entity_id = edge.{end_id}::text"
        " AND any_type.deleted_at IS NULL))))"
    )
    joined = sql.SQL(
        " LEFT JOIN {schema}.entities AS {end} ON {end}.entity_type = edge.{end_type}"
        " AND {end}.entity_id = edge.{end_id}::text AND {end}.deleted_at IS NULL"
    )
    ends = [
        {
            "schema": sql.Identifier(schema),
            "end": sql.Identifier(end),
            "end_type": sql.Identifier(f"{end}_type"),
            "end_id": sql.Identifier(f"{end}_id"),
            "ours": sql.Literal(ORIGIN),
            "types": sql.Literal(list(types)),
        }
        for end in ("source", "target")
    ]
    return sql.SQL(
        "SELECT edge.id::text, edge.source_type, edge.source_id::text, edge.target_type, edge.target_id::text,"
        " edge.relationship_type AS edge_type, edge.origin,"
        " NOT {no_source} AS has_source, NOT {no_target} AS has_target"
        " FROM {table} AS edge{joins} WHERE ({no_source} OR {no_target})"
    ).format(
        table=table.table,
        joins=sql.SQL("").join(joined.format(**end) for end in ends),
        no_source=lacking.format(**ends[0]),
        no_target=lacking.format(**ends[1]),
    )
