"""Writes entities into a source table through its mapping. For loading alone: the platform reads source tables."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from mcp_assets.entities.composite_ids import split_id
from mcp_assets.entities.registry import SourceTable
from mcp_assets.stores.errors import StoreRefused
from mcp_assets.stores.postgres import Connection


class LoadedRow(Protocol):
    """What `SourceWriter` writes of an entity."""

    @property
    def entity_id(self) -> str: ...
    @property
    def title(self) -> str | None: ...
    @property
    def content(self) -> str: ...
    @property
    def metadata(self) -> Mapping[str, Any]: ...
    @property
    def created_at(self) -> datetime | None: ...
    @property
    def updated_at(self) -> datetime | None: ...


class SourceWriter:
    """Writes rows into one source table through its mapping."""

    def __init__(self, mapping: SourceTable) -> None:
        self._mapping = mapping

    def upsert(self, connection: Connection, rows: Sequence[LoadedRow]) -> None:
        """Insert or replace `rows`, whose ids are distinct, in one statement.

        Metadata goes to the columns that are mapped for its keys, the rest to the free metadata column.

        Raises:
            StoreRefused: the table or a column is absent, or a value does not fit its column.
        """
        mapping = self._mapping
        values: dict[str, list[Any]] = {}
        self._spread(values, mapping.id, [row.entity_id for row in rows])
        self._check_ids(rows, values[mapping.id_columns[0]])
        if mapping.title is not None:
            # A title column may be NOT NULL although the entity has no title.
            values[mapping.title] = [row.title or "" for row in rows]
        if mapping.content:
            values[mapping.content[0]] = [row.content for row in rows]
        for key, columns in mapping.metadata.items():
            self._spread(values, columns, [row.metadata.get(key) for row in rows])
        if mapping.metadata_json is not None:
            values[mapping.metadata_json] = [
                {key: value for key, value in row.metadata.items() if key not in mapping.metadata} for row in rows
            ]
        defaults = self._defaults(connection)
        for field, stamp, times in (
            ("created_at", mapping.created_at, [row.created_at for row in rows]),
            ("updated_at", mapping.updated_at, [row.updated_at for row in rows]),
        ):
            # A column that the mapping does not name, because its default does, need not be there.
            if stamp is not None and (stamp in defaults or field in mapping.model_fields_set):
                values[stamp] = [time.isoformat() if time else None for time in times]
        records = [dict(zip(values, record, strict=True)) for record in zip(*values.values(), strict=True)]
        table = sql.Identifier(*mapping.table.split("."))
        names = [sql.Identifier(name) for name in values]
        statement = sql.SQL(
            "INSERT INTO {table} AS stored ({columns}) "
            "SELECT {values} FROM jsonb_populate_recordset(NULL::{table}, %s) AS row "
            "ON CONFLICT ({id}) DO UPDATE SET {updates}"
        ).format(
            table=table,
            columns=sql.SQL(", ").join(names),
            values=sql.SQL(", ").join(_or_default(name, defaults.get(name)) for name in values),
            id=sql.SQL(", ").join(map(sql.Identifier, mapping.id_columns)),
            updates=sql.SQL(", ").join(
                sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name))
                for name in values
                if name not in mapping.id_columns
            ),
        )
        try:
            connection.execute(statement, (Jsonb(records),))
        except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn, psycopg.errors.DataError) as error:
            raise StoreRefused(
                f"the source table {mapping.table} cannot be written ({error.diag.message_primary}): check "
                "DATABASE_URL and the source mapping; `mcp-assets load --create-tables` makes those of the preset `mcp`"
            ) from error

    def _check_ids(self, rows: Sequence[LoadedRow], first_column: Sequence[Any]) -> None:
        """Raise StoreRefused for the first row whose id is none of the key's columns, of which the first is given."""
        if None in first_column:
            raise StoreRefused(
                f"the id {rows[first_column.index(None)].entity_id!r} is none of the source table "
                f"{self._mapping.table}: its key has the columns {', '.join(self._mapping.id_columns)}, whose values "
                "stand in an id with a slash between them"
            )

    def _spread(self, values: dict[str, list[Any]], columns: str | tuple[str, ...], of_rows: list[Any]) -> None:
        """Give the columns that stand for one value theirs, in `values`; a column that has values already keeps them.

        Of a value that is no key of several columns, each column is NULL.
        """
        if isinstance(columns, str):
            values.setdefault(columns, of_rows)
            return
        none = (None,) * len(columns)
        keys = [(split_id(value, len(columns)) if isinstance(value, str) else None) or none for value in of_rows]
        for column, parts in zip(columns, zip(*keys, strict=True), strict=True):
            values.setdefault(column, list(parts))

    def _defaults(self, connection: Connection) -> dict[str, str | None]:
        """By column, its default expression, which is written where the entity gives no value; None: it has none."""
        rows = connection.execute(
            "SELECT attname, pg_get_expr(adbin, adrelid) FROM pg_attribute"
            " LEFT JOIN pg_attrdef ON attrelid = adrelid AND attnum = adnum"
            " WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped",
            (sql.Identifier(*self._mapping.table.split(".")).as_string(connection),),
        )
        return dict(rows.fetchall())


def _or_default(column: str, default: str | None) -> sql.Composable:
    name = sql.SQL("row.{}").format(sql.Identifier(column))
    return name if default is None else sql.SQL("coalesce({}, {})").format(name, sql.SQL(default))
