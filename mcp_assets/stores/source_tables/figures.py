"""Figures of a source table: how many rows it has, when the newest was updated, and which columns."""

from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg import sql

from mcp_assets.stores.errors import StoreUnavailable
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.postgres.rows import fetch_row, fetch_rows
from mcp_assets.stores.source_tables.mapping_sql import MappedTable

COUNTED_ROWS = 1_000_000
"""Rows that are counted one by one, in less than a second. Of a larger table, PostgreSQL's estimate is taken."""


LONGEST_S = 20
"""Seconds that a statement may take: a view may be slow however few rows it has, and a tick may last 60 s."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table, with its type as PostgreSQL prints it and its comment."""

    name: str
    type: str
    nullable: bool
    comment: str | None


@dataclass(frozen=True, slots=True)
class TableFigures:
    """The figures of one source table. `living` and `newest_at` are None where the table has over COUNTED_ROWS rows."""

    rows: int
    living: int | None
    """Rows that the mapping counts as alive."""
    newest_at: datetime | None
    """When the row that was updated last was updated; None also if no column is mapped for it, or there is no row."""
    columns: tuple[Column, ...]


@dataclass(frozen=True, slots=True)
class _Counted:
    """What one scan of at most COUNTED_ROWS + 1 rows finds; `estimate`: PostgreSQL's, of all rows."""

    rows: int
    living: int
    newest_at: datetime | None
    estimate: int


def read_figures(table: MappedTable, connection: Connection) -> TableFigures:
    """Read the figures with two statements. `connection`: to the database of the table, in a transaction of its own.

    Raises:
        StoreUnavailable: a statement takes longer than LONGEST_S.
        StoreRefused: the table or a mapped column is not there, or may not be read.
    """
    connection.execute(sql.SQL("SET LOCAL statement_timeout = {}").format(sql.Literal(f"{LONGEST_S}s")))
    try:
        return _read(table, connection)
    except psycopg.errors.QueryCanceled as error:
        raise StoreUnavailable(f"counting the rows of {table.mapping.table} takes longer than {LONGEST_S} s") from error


def _read(table: MappedTable, connection: Connection) -> TableFigures:
    updated_at = table.mapping.updated_at
    counting = sql.SQL(
        "SELECT count(*) AS rows, count(*) FILTER (WHERE alive) AS living, max(updated_at) AS newest_at,"
        " coalesce((SELECT reltuples FROM pg_class WHERE oid = to_regclass({name})), 0)::bigint AS estimate"
        " FROM (SELECT {alive} AS alive, {updated_at} AS updated_at FROM {table} LIMIT {most}) AS first_rows"
    ).format(
        name=sql.Literal(table.table.as_string(connection)),
        alive=table.alive,
        updated_at=sql.SQL("{}::timestamptz").format(sql.Identifier(updated_at))
        if updated_at is not None
        else sql.SQL("NULL::timestamptz"),
        table=table.table,
        most=sql.Literal(COUNTED_ROWS + 1),
    )
    counted = table.run(lambda: fetch_row(connection, counting, _Counted))
    assert counted is not None  # noqa: S101  (an aggregate without groups has one row)
    columns = fetch_rows(
        connection,
        "SELECT attname AS name, format_type(atttypid, atttypmod) AS type, NOT attnotnull AS nullable,"
        " col_description(attrelid, attnum) AS comment FROM pg_attribute"
        " WHERE attrelid = to_regclass(%(name)s) AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        Column,
        {"name": table.table.as_string(connection)},
    )
    if counted.rows > COUNTED_ROWS:
        return TableFigures(max(counted.rows, counted.estimate), None, None, tuple(columns))
    return TableFigures(counted.rows, counted.living, counted.newest_at, tuple(columns))
