"""Edge table: the table of edges as it stands: its name, the types of its columns, and which ids it can hold.

The table may have been made by another program and adopted: then its ids may be UUIDs, and its types of edge an
enumeration.
"""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

from psycopg import sql

from mcp_assets.entities.refs import EntityRef
from mcp_assets.stores.errors import StoreRefused
from mcp_assets.stores.postgres import Connection

_REQUIRED = (
    "source_type",
    "source_id",
    "target_type",
    "target_id",
    "relationship_type",
    "strength",
    "metadata",
    "origin",
    "updated_at",
)
"""The columns that queries here name; others are left to the table's own defaults."""

_ID_TYPES = frozenset({"text", "uuid", "character varying"})
"""The types of source_id and target_id that hold an entity's id as it is."""


COUNTED_EDGES = 100_000
"""Edges that are counted: it takes some 10 ms, and seconds for millions. PostgreSQL's estimate of a table that is small
or new may be 0."""


class _Ends(Protocol):
    """An edge, of whichever form."""

    @property
    def source(self) -> EntityRef: ...

    @property
    def target(self) -> EntityRef: ...


Ends = TypeVar("Ends", bound=_Ends)


class EdgeTable:
    """The table `name`, which may be qualified by a schema. Types of columns are read once."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.table = sql.Identifier(*name.split("."))
        self._column_types: dict[str, str] | None = None

    def count_about(self, connection: Connection) -> int:
        """How many edges there are: counted up to COUNTED_EDGES, and beyond as PostgreSQL last estimated it."""
        row = connection.execute(
            sql.SQL(
                "SELECT CASE WHEN counted < %(most)s THEN counted ELSE greatest("
                " counted, (SELECT reltuples FROM pg_class WHERE oid = to_regclass(%(name)s))) END::bigint"
                " FROM (SELECT count(*) AS counted FROM (SELECT FROM {} LIMIT %(most)s) AS first) AS counting"
            ).format(self.table),
            {"most": COUNTED_EDGES, "name": self.name},
        ).fetchone()
        return row[0] if row is not None else 0

    def require_columns(self, connection: Connection, fault: str | None) -> None:
        """Check that the table has the columns that reading edges needs.

        `fault`: why the table could not be made or adopted; None if it could.

        Raises:
            StoreRefused: the table is absent, or was not adopted and lacks columns.
        """
        absent = [name for name in _REQUIRED if name not in self._types(connection)]
        if absent:
            reason = fault or "it was changed while this process ran"
            raise StoreRefused(self._unusable(f"it lacks {', '.join(absent)}; {reason}"))

    def storable(self, connection: Connection, edges: Iterable[Ends]) -> Iterable[Ends]:
        """Those of `edges` whose ids the table can hold: an adopted table may hold UUIDs only."""
        if self._type_of_id(connection) != "uuid":
            return edges
        return (edge for edge in edges if _is_uuid(edge.source.id) and _is_uuid(edge.target.id))

    def castable(self, connection: Connection, refs: Iterable[EntityRef]) -> Sequence[EntityRef]:
        """Those of `refs` whose id the table can hold: a query has to leave out the others."""
        if self._type_of_id(connection) != "uuid":
            return list(refs)
        return [ref for ref in refs if _is_uuid(ref.id)]

    def id_type(self, connection: Connection) -> sql.SQL:
        """The type of the columns source_id and target_id, to cast ids to."""
        return sql.SQL(self._type_of_id(connection))  # one of _ID_TYPES

    def row_id_type(self, connection: Connection) -> str:
        """The type of the column id, to cast ids of rows to; text if there is no such column."""
        return self._types(connection).get("id", "text")

    def edge_type_type(self, connection: Connection) -> sql.SQL:
        """The type of the column relationship_type, to cast names to: an adopted table may have an enumeration."""
        found = self._types(connection).get("relationship_type", "text")
        return sql.SQL("text" if found == "character varying" else found)

    def _unusable(self, why: str) -> str:
        return (
            f"the table {self.name} cannot hold our edges ({why}): take away what is in the way, or name another "
            "table in MCP_ASSETS_RELATIONSHIPS_TABLE; everything else goes on without edges"
        )

    def _type_of_id(self, connection: Connection) -> str:
        found = self._types(connection).get("source_id", "absent")
        if found not in _ID_TYPES:
            raise StoreRefused(
                f"the table {self.name} cannot hold edges: source_id is {found}, and has to be text or uuid: name "
                "another table in MCP_ASSETS_RELATIONSHIPS_TABLE"
            )
        return found

    def _types(self, connection: Connection) -> Mapping[str, str]:
        """The types of the columns, by name."""
        if not self._column_types:
            rows = connection.execute(
                "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute"
                " WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped",
                (self.table.as_string(connection),),
            )
            self._column_types = {str(name): str(type_name) for name, type_name in rows}
        return self._column_types


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
