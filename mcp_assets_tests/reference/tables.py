"""The platform's tables as a page of the reference, made from the comments in the database."""

from dataclasses import dataclass

from mcp_assets.platform import Platform

_HEAD = """# Tables

The platform's own tables are in the schema `mcp_assets` (`MCP_ASSETS_SCHEMA`).
Read them as you like; only the platform writes them.
The table of edges, `relationships`, stands beside the source tables and may be shared: [edges](edges.md).
[Architecture](../explanation/architecture.md#tables) says which part of the platform writes which table.
"""

_COLUMNS = """
SELECT t.relname AS table_name, obj_description(t.oid, 'pg_class') AS table_comment, a.attname AS column_name,
       format_type(a.atttypid, a.atttypmod) AS type, NOT a.attnotnull AS nullable,
       col_description(t.oid, a.attnum) AS column_comment
FROM pg_class t
JOIN pg_namespace n ON n.oid = t.relnamespace
JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE n.nspname = %(schema)s AND t.relkind = 'r' AND t.relname <> 'schema_version'
ORDER BY t.relname, a.attnum
"""


@dataclass(frozen=True, slots=True)
class _Column:
    table_name: str
    table_comment: str
    column_name: str
    type: str
    nullable: bool
    column_comment: str


def page(platform: Platform) -> str:
    with platform.postgres.transaction() as connection, connection.cursor() as cursor:
        found = cursor.execute(_COLUMNS, {"schema": platform.settings.schema_name}).fetchall()
    parts = [_HEAD]
    table = ""
    for column in (_Column(*row) for row in found):
        if column.table_name != table:
            table = column.table_name
            parts.append(
                f"\n## `{table}`\n\n{column.table_comment}\n\n| column | type | may be NULL | |\n|---|---|---|---|\n"
            )
        parts.append(
            f"| `{column.column_name}` | {column.type} | {'yes' if column.nullable else ''} | "
            f"{column.column_comment.replace('|', chr(92) + '|')} |\n"
        )
    return "".join(parts)
