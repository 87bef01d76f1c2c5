"""Catalog: the tables and views of a database that the user may read, with their columns, keys and references."""

from collections.abc import Collection
from typing import NamedTuple

from mcp_assets.entities.mapping_proposal import TableShape
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.postgres.rows import fetch_rows

_KINDS = {"r": "table", "p": "table", "v": "view", "m": "materialized view", "f": "foreign table"}

_TABLES = """
SELECT pg_class.oid::bigint AS oid, relkind::text AS kind, nspname AS schema, relname AS name,
       pg_table_is_visible(pg_class.oid) AS visible, CASE WHEN reltuples >= 0 THEN reltuples::bigint END AS rows,
       columns.names, columns.types
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
CROSS JOIN LATERAL (
    SELECT array_agg(attname::text ORDER BY attnum) AS names,
           array_agg(format_type(atttypid, NULL) ORDER BY attnum) AS types
    FROM pg_attribute WHERE attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped
      AND has_column_privilege(pg_class.oid, attnum, 'SELECT')
) AS columns
WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT relispartition AND columns.names IS NOT NULL
  AND nspname <> 'information_schema' AND nspname NOT LIKE 'pg\\_%%' AND nspname <> ALL(%(without)s)
  AND has_schema_privilege(pg_namespace.oid, 'USAGE')
  -- A mapping separates schema and table by a dot.
  AND strpos(nspname || relname, '.') = 0
ORDER BY NOT pg_table_is_visible(pg_class.oid), nspname, relname
"""

_KEYS = """
SELECT DISTINCT ON (indrelid) indrelid::bigint AS oid, keys.names
FROM pg_index CROSS JOIN LATERAL (
    SELECT array_agg(attname::text ORDER BY place) AS names, bool_and(attnotnull) AS filled, count(*) AS found
    FROM unnest(indkey[0:indnkeyatts - 1]) WITH ORDINALITY AS part (attnum, place)
    JOIN pg_attribute ON attrelid = indrelid AND pg_attribute.attnum = part.attnum
) AS keys
WHERE indisunique AND indisvalid AND indpred IS NULL AND keys.filled AND keys.found = indnkeyatts
  AND indrelid = ANY(%(oids)s::oid[])
ORDER BY indrelid, indisprimary DESC, indnkeyatts, indexrelid
"""

_REFERENCES = """
SELECT conrelid::bigint AS oid, confrelid::bigint AS leads_to,
       (SELECT array_agg(attname::text ORDER BY place) FROM unnest(conkey) WITH ORDINALITY AS part (attnum, place)
        JOIN pg_attribute ON attrelid = conrelid AND pg_attribute.attnum = part.attnum) AS names
FROM pg_constraint WHERE contype = 'f' AND conrelid = ANY(%(oids)s::oid[]) ORDER BY oid, conname
"""


class _Table(NamedTuple):
    oid: int
    kind: str
    schema: str
    name: str
    visible: bool
    rows: int | None
    names: list[str]
    types: list[str]


class _Key(NamedTuple):
    oid: int
    names: list[str]


class _Reference(NamedTuple):
    oid: int
    leads_to: int
    names: list[str]


def read_catalog(connection: Connection, *, without: Collection[str]) -> list[TableShape]:
    """Every table and view, those on the search path first. `without`: schemas that are left out."""
    tables = fetch_rows(connection, _TABLES, _Table, {"without": list(without)})
    oids = {"oids": [table.oid for table in tables]}
    keys = {key.oid: tuple(key.names) for key in fetch_rows(connection, _KEYS, _Key, oids)}
    names = {table.oid: table.name if table.visible else f"{table.schema}.{table.name}" for table in tables}
    references: dict[int, dict[tuple[str, ...], str]] = {}
    for one in fetch_rows(connection, _REFERENCES, _Reference, oids):
        references.setdefault(one.oid, {})[tuple(one.names)] = names.get(one.leads_to, "")
    return [
        TableShape(
            names[table.oid],
            _KINDS[table.kind],
            dict(zip(table.names, table.types, strict=True)),
            keys.get(table.oid, ()),
            references.get(table.oid, {}),
            table.rows,
        )
        for table in tables
    ]
