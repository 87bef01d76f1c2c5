"""The table `relationships`: made if absent; one that others made, in its original shape, is adopted row by row.

It stands beside the source tables and may be shared: rows that others wrote keep everything they have. Adopting adds
columns, fills the entity types of such rows where the ids belong to one source table alone, and widens the unique key
by types and origin. It runs after the migrations of our own schema, whenever the table is not yet as it has to be.
"""

from collections.abc import Mapping
from typing import NamedTuple

import sqlalchemy
from sqlalchemy import text

ORIGIN = "mcp_assets"
"""`relationships.origin` of the rows that are ours. Those of others have NULL or a word of their own."""


_INDEXES = {
    # Origin is part of the key: what others state stands beside what we find. NULLS NOT DISTINCT keeps rows whose
    # types are unknown as unique as they were.
    "by_source": (
        "UNIQUE INDEX",
        "(source_id, target_id, relationship_type, source_type, target_type, origin) NULLS NOT DISTINCT",
    ),
    "by_target_id": ("INDEX", "(target_id, target_type)"),
}
_FORMER_INDEXES = {"relationships_key", "relationships_by_target"}


class IdColumn(NamedTuple):
    """Where the ids of an entity type stand: a source table, which may be qualified by its schema, and its column."""

    table: str
    column: str


def quoted(name: str) -> str:
    """`name`, which may be qualified, as SQL. Settings allow only identifiers in it."""
    return ".".join(f'"{part}"' for part in name.split("."))


class _Column(NamedTuple):
    type_name: str
    """Without its modifier, such as `numeric`."""
    scale: int | None
    """Decimals of a `numeric` that bounds them."""
    is_filled: bool
    """It may be left out of an insert: it takes NULL, or has a default."""


def ensure_relationships(connection: sqlalchemy.Connection, name: str, ids: Mapping[str, IdColumn]) -> str | None:
    """Make or adopt the table `name`; returns at once if it is as it has to be.

    Returns why it could not be, in one line, if so; then the table is as it was.
    """
    try:
        with connection.begin_nested():
            _ensure(connection, quoted(name), ids)
    except sqlalchemy.exc.DBAPIError as error:
        if isinstance(error, sqlalchemy.exc.OperationalError):
            raise
        return str(error.orig).strip().splitlines()[0]
    return None


def _ensure(connection: sqlalchemy.Connection, table: str, ids: Mapping[str, IdColumn]) -> None:
    columns = _columns(connection, table)
    if not columns:
        _create(connection, table)
    elif "origin" not in columns or "source_type" not in columns:
        _adopt(connection, table, columns, ids)
    else:
        _fit(connection, table, columns)
    _index(connection, table)


def _columns(connection: sqlalchemy.Connection, table: str) -> dict[str, _Column]:
    rows = connection.execute(
        text(
            "SELECT attname, format_type(atttypid, NULL),"
            # The modifier of numeric(p, s) is ((p << 16) | s) + 4.
            " CASE WHEN atttypid = 'numeric'::regtype AND atttypmod >= 4 THEN (atttypmod - 4) & 2047 END,"
            " NOT attnotnull OR atthasdef OR attidentity <> '' FROM pg_attribute"
            " WHERE attrelid = to_regclass(:table) AND attnum > 0 AND NOT attisdropped"
        ),
        {"table": table},
    )
    return {str(name): _Column(*rest) for name, *rest in rows}


def _fit(connection: sqlalchemy.Connection, table: str, columns: Mapping[str, _Column]) -> None:
    """Give columns the defaults that our rows need, and `strength` its four decimals; no row changes.

    The original worker wrote `created_at` itself, so that a table of its time may have no default for it.
    """
    for name in ("created_at", "updated_at"):
        if name in columns and not columns[name].is_filled:
            connection.execute(text(f"ALTER TABLE {table} ALTER COLUMN {name} SET DEFAULT now()"))
    own_id = columns.get("id")
    if own_id is not None and not own_id.is_filled and own_id.type_name in _DRAWN:
        connection.execute(text(f"ALTER TABLE {table} ALTER COLUMN id SET DEFAULT {_DRAWN[own_id.type_name]}"))
    strength = columns.get("strength")
    if strength is not None and strength.scale is not None and strength.scale < _DECIMALS:
        # Stored with fewer, each edge would differ from what the rules make, and be written again each time.
        connection.execute(text(f"ALTER TABLE {table} ALTER COLUMN strength TYPE numeric"))


_DECIMALS = 4

_DRAWN = {
    "uuid": "gen_random_uuid()",
    "text": "gen_random_uuid()::text",
    "character varying": "gen_random_uuid()::text",
}


def _create(connection: sqlalchemy.Connection, table: str) -> None:
    connection.execute(
        text(
            f"""
            CREATE TABLE {table} (
                id                uuid PRIMARY KEY DEFAULT gen_random_uuid(),
                source_type       text COLLATE "C",
                source_id         text COLLATE "C" NOT NULL,
                target_type       text COLLATE "C",
                target_id         text COLLATE "C" NOT NULL,
                relationship_type text COLLATE "C" NOT NULL,
                strength          real NOT NULL CHECK (strength BETWEEN 0 AND 1),
                metadata          jsonb NOT NULL DEFAULT '{{}}',
                origin            text,
                created_at        timestamptz NOT NULL DEFAULT now(),
                updated_at        timestamptz NOT NULL DEFAULT now()
            )
            """
        )
    )


def _adopt(
    connection: sqlalchemy.Connection, table: str, columns: Mapping[str, _Column], ids: Mapping[str, IdColumn]
) -> None:
    connection.execute(text(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))
    connection.execute(
        text(
            f"""
            ALTER TABLE {table}
                ADD COLUMN IF NOT EXISTS source_type text COLLATE "C",
                ADD COLUMN IF NOT EXISTS target_type text COLLATE "C",
                ADD COLUMN IF NOT EXISTS strength real,
                ADD COLUMN IF NOT EXISTS metadata jsonb DEFAULT '{{}}',
                ADD COLUMN IF NOT EXISTS origin text,
                ADD COLUMN IF NOT EXISTS created_at timestamptz DEFAULT now(),
                ADD COLUMN IF NOT EXISTS updated_at timestamptz DEFAULT now()
            """
        )
    )
    if "id" not in columns:
        connection.execute(text(f"ALTER TABLE {table} ADD COLUMN id uuid NOT NULL DEFAULT gen_random_uuid()"))
    elif columns["id"].type_name == "uuid":
        connection.execute(text(f"ALTER TABLE {table} ALTER COLUMN id SET DEFAULT gen_random_uuid()"))
    _fit(connection, table, columns)
    for name in _narrow_keys(connection, table):
        connection.execute(text(f'ALTER TABLE {table} DROP CONSTRAINT "{name}"'))
    for name in _narrow_indexes(connection, table):
        connection.execute(text(f"DROP INDEX {name}"))
    for end in ("source", "target"):
        _fill_types(connection, table, end, ids)


_NARROW = "{source_id,target_id,relationship_type}"


def _narrow_keys(connection: sqlalchemy.Connection, table: str) -> list[str]:
    """The unique constraints on source, target and type alone, which two entities of one id would break."""
    return list(
        connection.execute(
            text(
                "SELECT conname FROM pg_constraint WHERE conrelid = to_regclass(:table) AND contype = 'u' AND ("
                " SELECT array_agg(attname::text ORDER BY attname) FROM pg_attribute"
                " WHERE attrelid = conrelid AND attnum = ANY(conkey)"
                ") = ARRAY(SELECT unnest(CAST(:narrow AS text[])) ORDER BY 1)"
            ),
            {"table": table, "narrow": _NARROW},
        ).scalars()
    )


def _narrow_indexes(connection: sqlalchemy.Connection, table: str) -> list[str]:
    """The same made as unique indexes."""
    return list(
        connection.execute(
            text(
                "SELECT indexrelid::regclass::text FROM pg_index"
                " WHERE indrelid = to_regclass(:table) AND indisunique AND NOT indisprimary AND indpred IS NULL AND ("
                " SELECT array_agg(attname::text ORDER BY attname) FROM pg_attribute"
                " WHERE attrelid = indrelid AND attnum = ANY(indkey::smallint[])"
                ") = ARRAY(SELECT unnest(CAST(:narrow AS text[])) ORDER BY 1)"
            ),
            {"table": table, "narrow": _NARROW},
        ).scalars()
    )


def _fill_types(connection: sqlalchemy.Connection, table: str, end: str, ids: Mapping[str, IdColumn]) -> None:
    """Give rows without a type the one whose source table alone holds the id."""
    holders = []
    parameters = {}
    for number, (entity_type, (source, column)) in enumerate(ids.items()):
        found = connection.execute(
            text("SELECT 1 FROM pg_attribute WHERE attrelid = to_regclass(:table) AND attname = :column"),
            {"table": quoted(source), "column": column},
        ).first()
        if found is not None:
            parameters[f"type_{number}"] = entity_type
            holders.append(
                f'SELECT CAST(:type_{number} AS text) AS entity_type, "{column}"::text AS entity_id'  # noqa: S608
                f" FROM {quoted(source)}"
            )
    if holders:
        connection.execute(
            text(
                f"""
                UPDATE {table} AS edge SET {end}_type = named.entity_type
                FROM (
                    SELECT entity_id, min(entity_type) AS entity_type FROM ({" UNION ALL ".join(holders)}) AS every
                    GROUP BY entity_id HAVING count(*) = 1
                ) AS named
                WHERE edge.{end}_type IS NULL AND edge.{end}_id::text = named.entity_id
                """  # noqa: S608  (names are identifiers by their type in Settings)
            ),
            parameters,
        )


def _index(connection: sqlalchemy.Connection, table: str) -> None:
    """Have the indexes that look-ups need; ids come first: types alone tell hardly anything apart."""
    rows = connection.execute(
        text(
            "SELECT relname, indexrelid::regclass::text FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid"
            " WHERE indrelid = to_regclass(:table)"
        ),
        {"table": table},
    )
    found = {str(name): str(qualified) for name, qualified in rows}
    for suffix, (kind, columns) in _INDEXES.items():
        name = f"{_unqualified(table)}_{suffix}"
        if name not in found:
            try:
                with connection.begin_nested():
                    connection.execute(text(f'CREATE {kind} "{name}" ON {table} {columns}'))
            except sqlalchemy.exc.IntegrityError:
                # Rows of others that state the same twice stay; ours are one linker's, which compares before it writes.
                plain = columns.removesuffix(" NULLS NOT DISTINCT")
                connection.execute(text(f'CREATE INDEX "{name}" ON {table} {plain}'))
    for name in _FORMER_INDEXES & found.keys():
        connection.execute(text(f"DROP INDEX {found[name]}"))


def _unqualified(table: str) -> str:
    """The start of a quoted name's last part: with something behind it, PostgreSQL does not cut it off."""
    return table.rpartition(".")[2].strip('"')[:40]
