"""Examine: each part of a mapping tried by itself on its table, so that the one at fault can be named."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import psycopg
from psycopg import sql

from mcp_assets.entities.refs import SLOTS
from mcp_assets.entities.registry import SourceTable
from mcp_assets.stores.errors import first_line
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.postgres.rows import fetch_row
from mcp_assets.stores.source_tables.mapping_sql import MappedTable
from mcp_assets.stores.source_tables.reader import SourceReader

_NAMED = 3
"""Ids at fault that a sentence names: it stays readable, and the number of all is in it."""

_DEFAULTS = ("id", "title", "content", "created_at", "updated_at")
"""Fields whose columns a mapping need not name."""

_JSON = ("json", "jsonb")


@dataclass(slots=True)
class Examined:
    """What was found. `wrong`: why entities cannot be read, or not all; `notes`: what a person may want to change."""

    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    kind: str = "table"
    rows: int | None = None
    """Of the whole table; None: it cannot be read."""
    living: int = 0


class _Counts(NamedTuple):
    rows: int
    living: int
    undecided: int
    """Rows for which the predicate is neither true nor false."""


def examine(mapping: SourceTable, schema: str, connection: Connection) -> Examined:
    """Try every column and expression of `mapping`, and look for ids that cannot be those of entities.

    `connection`: in a transaction, to the database of the table. It reads the whole table.

    Raises:
        StoreRefused: the table itself cannot be read.
    """
    table = MappedTable(mapping)
    found = Examined()
    types = table.column_types(connection)
    if not types:
        found.wrong.append(f"there is no table or view {mapping.table}, or the user may not look into its schema")
        return found
    found.kind = _kind(connection, table)
    found.wrong += _absent_columns(mapping, types)
    found.notes += _absent_defaults(mapping, types)
    if mapping.metadata_json in types and types[mapping.metadata_json] not in _JSON:
        found.notes.append(
            f"metadata_json is the column {mapping.metadata_json} of type {types[mapping.metadata_json]}: only of a "
            "jsonb column keys are read"
        )
    if found.wrong:
        return found
    found.wrong += _failing_expressions(table, connection)
    if found.wrong:
        return found
    counts = fetch_row(
        connection,
        table.fill(
            "SELECT count(*) AS rows, count(*) FILTER (WHERE {alive}) AS living,"
            " count(*) FILTER (WHERE {alive} IS NULL) AS undecided FROM {table}"
        ),
        _Counts,
    )
    assert counts is not None  # noqa: S101  (an aggregate has one row)
    found.rows, found.living = counts.rows, counts.living
    found.notes += _about_counts(mapping, counts)
    found.notes += _about_keys(table, connection, found.kind)
    faults = SourceReader(mapping, schema).id_faults(connection, (0, SLOTS))
    sentences = [f"{entity_id}: {fault}" for entity_id, (_, fault) in faults.sentences().items()]
    if sentences:
        more = len(sentences) + faults.more - _NAMED
        found.wrong.append("; ".join(sentences[:_NAMED]) + (f"; and {more} more ids at fault" if more > 0 else ""))
    return found


def _kind(connection: Connection, table: MappedTable) -> str:
    row = connection.execute(
        "SELECT relkind::text FROM pg_class WHERE oid = to_regclass(%s)", (table.table.as_string(connection),)
    ).fetchone()
    return {"v": "view", "m": "materialized view", "f": "foreign table"}.get(row[0] if row else "", "table")


def _absent_columns(mapping: SourceTable, types: Mapping[str, str]) -> Iterator[str]:
    """For each field that names columns which are not there, a sentence."""
    for name, columns in _mapped(mapping):
        absent = [column for column in columns if column not in types]
        is_default = name in _DEFAULTS and name not in mapping.model_fields_set
        if absent and not (is_default and name in ("created_at", "updated_at")):
            of_default = ", the default" if is_default else ""
            yield (
                f"{name}: {mapping.table} has no column {', '.join(absent)}{of_default} (it has {_some(types)}): name "
                f"another column{', or null' if name not in ('id', 'content') else ''}"
            )


def _absent_defaults(mapping: SourceTable, types: Mapping[str, str]) -> Iterator[str]:
    is_default = "updated_at" not in mapping.model_fields_set
    if is_default and mapping.updated_at is not None and mapping.updated_at not in types:
        yield (
            "there is no column updated_at, the default: a conflict that is resolved by time takes the row as "
            "without a time; name the column, or say `updated_at: null`"
        )


def _mapped(mapping: SourceTable) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each field that names columns, with them."""
    yield "id", mapping.id_columns
    for name, column in (
        ("title", mapping.title),
        ("metadata_json", mapping.metadata_json),
        ("created_at", mapping.created_at),
        ("updated_at", mapping.updated_at),
    ):
        if column is not None:
            yield name, (column,)
    yield "content", mapping.content
    for key, columns in mapping.metadata.items():
        yield f"metadata.{key}", (columns,) if isinstance(columns, str) else columns


def _failing_expressions(table: MappedTable, connection: Connection) -> Iterator[str]:
    """For each expression that PostgreSQL refuses, a sentence."""
    expressions = {
        "alive": table.alive,
        "id": table.id,
        "title": table.title(),
        "content": table.content(),
        "metadata": table.metadata(),
        "the hash of the mapped columns": table.hash(),
    }
    if table.mapping.updated_at is not None and "updated_at" in table.mapping.model_fields_set:
        expressions["updated_at"] = sql.SQL("{}::timestamptz").format(sql.Identifier(table.mapping.updated_at))
    for name, expression in expressions.items():
        predicate = sql.SQL("WHERE {}").format(expression) if name == "alive" else sql.SQL("")
        statement = sql.SQL("SELECT {} FROM {} {} LIMIT 1").format(expression, table.table, predicate)
        try:
            with connection.transaction():
                connection.execute(statement)
        except psycopg.errors.InsufficientPrivilege as error:
            yield f"{first_line(error)}: grant SELECT on {table.mapping.table} to the user of the address"
            return
        except psycopg.OperationalError:
            raise
        except psycopg.Error as error:
            given = f" `{table.mapping.alive}`" if name == "alive" else ""
            yield f"{name}{given}: PostgreSQL refuses it ({first_line(error)}): correct it in the mapping"


def _about_counts(mapping: SourceTable, counts: _Counts) -> Iterator[str]:
    if counts.rows and not counts.living:
        yield f"no row is alive by `{mapping.alive}`: every entity of the type counts as deleted"
    if counts.undecided:
        yield (
            f"for {counts.undecided:,} rows `{mapping.alive}` is neither true nor false, because a column is NULL: "
            "they count as deleted"
        )


def _about_keys(table: MappedTable, connection: Connection, kind: str) -> Iterator[str]:
    columns = ", ".join(table.mapping.id_columns)
    if kind != "table":
        yield f"it is a {kind}, so that no key keeps its ids apart: they were counted, and none repeats"
        return
    if not table.ids_are_unique(connection):
        yield f"no unique index on ({columns}) keeps the ids apart: they were counted, and none repeats"
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM pg_index WHERE indrelid = to_regclass(%s) AND indisvalid AND indpred IS NULL AND ("
        "  SELECT bool_or(attname = ANY(%s)) FROM pg_attribute WHERE attrelid = indrelid AND attnum = indkey[0]))",
        (table.table.as_string(connection), list(table.mapping.id_columns)),
    ).fetchone()
    if row is not None and not row[0]:
        yield f"no index begins with a column of ({columns}), so that each event reads the whole table: make one"


def _some(types: Mapping[str, str]) -> str:
    names = list(types)
    return ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
