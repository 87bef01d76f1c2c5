"""The shape of the table `relationships`: its columns and indexes as they are, and whether they are as they have to be.

Each start of a process reads it. What makes the table, or brings it to this shape, is in `migrations.relationships`,
which a start loads only if something is lacking.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import psycopg
from psycopg.rows import TupleRow

ORIGIN = "mcp_assets"
"""`relationships.origin` of the rows that are ours. Those of others have NULL or a word of their own."""

DECIMALS = 4
"""Of a strength, as the rules make it."""

DRAWN = {
    "uuid": "gen_random_uuid()",
    "text": "gen_random_uuid()::text",
    "character varying": "gen_random_uuid()::text",
}
"""By the type of the column `id`, the default that gives a row its id."""

INDEXES = {
    # Origin is part of the key: what others state stands beside what we find. NULLS NOT DISTINCT keeps rows whose
    # types are unknown as unique as they were.
    "by_source": (
        "UNIQUE INDEX",
        "(source_id, target_id, relationship_type, source_type, target_type, origin) NULLS NOT DISTINCT",
    ),
    "by_target_id": ("INDEX", "(target_id, target_type)"),
}
"""By the end of its name, the kind and the columns of each index that look-ups need."""

FORMER_INDEXES = frozenset({"relationships_key", "relationships_by_target"})
"""Names of indexes of older versions, which are dropped."""

_COLUMNS = """
SELECT attname, format_type(atttypid, NULL),
       -- The modifier of numeric(p, s) is ((p << 16) | s) + 4.
       CASE WHEN atttypid = 'numeric'::regtype AND atttypmod >= 4 THEN (atttypmod - 4) & 2047 END,
       NOT attnotnull OR atthasdef OR attidentity <> ''
FROM pg_attribute
WHERE attrelid = to_regclass(%(table)s) AND attnum > 0 AND NOT attisdropped
"""

_INDEXES = """
SELECT relname, indexrelid::regclass::text FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
WHERE indrelid = to_regclass(%(table)s)
"""


class IdColumn(NamedTuple):
    """Where the ids of an entity type stand: a source table, which may be qualified by its schema, and its column."""

    table: str
    column: str


class Column(NamedTuple):
    """A column of the table."""

    type_name: str
    """Without its modifier, such as `numeric`."""
    scale: int | None
    """Decimals of a `numeric` that bounds them."""
    is_filled: bool
    """It may be left out of an insert: it takes NULL, or has a default."""


@dataclass(frozen=True, slots=True)
class RelationshipsShape:
    """What the table has."""

    table: str
    """Quoted, as SQL."""
    columns: Mapping[str, Column]
    """By name; empty: there is no such table."""
    indexes: Mapping[str, str]
    """By name, the name as SQL, which may be qualified."""

    @property
    def is_adopted(self) -> bool:
        """It has the columns that distinguish our rows from those of others."""
        return "origin" in self.columns and "source_type" in self.columns

    @property
    def defaults_lacking(self) -> dict[str, str]:
        """By column, the default that our rows need and it lacks.

        The original worker wrote `created_at` itself, so that a table of its time may have no default for it.
        """
        wanted = dict.fromkeys(("created_at", "updated_at"), "now()")
        own_id = self.columns.get("id")
        if own_id is not None and own_id.type_name in DRAWN:
            wanted["id"] = DRAWN[own_id.type_name]
        return {
            name: default
            for name, default in wanted.items()
            if name in self.columns and not self.columns[name].is_filled
        }

    @property
    def cuts_strengths(self) -> bool:
        """It stores fewer decimals than the rules make, so that each edge would be written again each time."""
        strength = self.columns.get("strength")
        return strength is not None and strength.scale is not None and strength.scale < DECIMALS

    @property
    def indexes_lacking(self) -> dict[str, tuple[str, str]]:
        """By name, the kind and the columns of each index that is not there."""
        start = _unqualified(self.table)
        named = {f"{start}_{suffix}": made for suffix, made in INDEXES.items()}
        return {name: made for name, made in named.items() if name not in self.indexes}

    @property
    def indexes_to_drop(self) -> list[str]:
        """The indexes of older versions, as SQL."""
        return [self.indexes[name] for name in sorted(FORMER_INDEXES & self.indexes.keys())]

    @property
    def is_right(self) -> bool:
        """The table is there, and as it has to be."""
        lacking = self.defaults_lacking or self.cuts_strengths or self.indexes_lacking or self.indexes_to_drop
        return self.is_adopted and not lacking


def read_shape(connection: psycopg.Connection[TupleRow], name: str) -> RelationshipsShape:
    """The shape of the table `name`, which may be qualified by its schema."""
    table = quoted(name)
    columns = connection.execute(_COLUMNS, {"table": table})
    found = {str(column): Column(*rest) for column, *rest in columns}
    indexes: dict[str, str] = dict(connection.execute(_INDEXES, {"table": table}).fetchall())
    return RelationshipsShape(table, found, indexes)


def quoted(name: str) -> str:
    """`name`, which may be qualified, as SQL. Settings allow only identifiers in it."""
    return ".".join(f'"{part}"' for part in name.split("."))


def _unqualified(table: str) -> str:
    """The start of a quoted name's last part: with something behind it, PostgreSQL does not cut it off."""
    return table.rpartition(".")[2].strip('"')[:40]
