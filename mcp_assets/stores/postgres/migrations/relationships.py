"""The table `relationships`: made if absent; one that others made, in its original shape, is adopted row by row.

It stands beside the source tables and may be shared: rows that others wrote keep everything they have. Adopting adds
columns, fills the entity types of such rows where the ids belong to one source table alone, and widens the unique key
by types and origin. It runs after the migrations of our own schema, whenever the table is not yet as it has to be.
"""

from collections.abc import Mapping

import psycopg
import sqlalchemy
from psycopg.rows import TupleRow
from sqlalchemy import text

from mcp_assets.stores.postgres.relationships_shape import IdColumn, RelationshipsShape, quoted, read_shape


def ensure_relationships(connection: sqlalchemy.Connection, name: str, ids: Mapping[str, IdColumn]) -> str | None:
    """Make or adopt the table `name`; returns at once if it is as it has to be.

    Returns why it could not be, in one line, if so; then the table is as it was.
    """
    try:
        with connection.begin_nested():
            _ensure(connection, name, ids)
    except sqlalchemy.exc.DBAPIError as error:
        if isinstance(error, sqlalchemy.exc.OperationalError):
            raise
        return str(error.orig).strip().splitlines()[0]
    return None


def _ensure(connection: sqlalchemy.Connection, name: str, ids: Mapping[str, IdColumn]) -> None:
    shape = _shape(connection, name)
    if not shape.columns:
        _create(connection, shape.table)
    elif not shape.is_adopted:
        _adopt(connection, shape, ids)
    else:
        _fit(connection, shape)
    _index(connection, _shape(connection, name))


def _shape(connection: sqlalchemy.Connection, name: str) -> RelationshipsShape:
    driver: psycopg.Connection[TupleRow] | None = connection.connection.driver_connection
    assert driver is not None  # noqa: S101  (the connection is open)
    return read_shape(driver, name)


def _fit(connection: sqlalchemy.Connection, shape: RelationshipsShape) -> None:
    """Give columns the defaults that our rows need, and `strength` its four decimals; no row changes."""
    for name, default in shape.defaults_lacking.items():
        connection.execute(text(f"ALTER TABLE {shape.table} ALTER COLUMN {name} SET DEFAULT {default}"))
    if shape.cuts_strengths:
        connection.execute(text(f"ALTER TABLE {shape.table} ALTER COLUMN strength TYPE numeric"))


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


def _adopt(connection: sqlalchemy.Connection, shape: RelationshipsShape, ids: Mapping[str, IdColumn]) -> None:
    table, columns = shape.table, shape.columns
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
    _fit(connection, shape)
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


def _index(connection: sqlalchemy.Connection, shape: RelationshipsShape) -> None:
    """Have the indexes that look-ups need; ids come first: types alone tell hardly anything apart."""
    for name, (kind, columns) in shape.indexes_lacking.items():
        try:
            with connection.begin_nested():
                connection.execute(text(f'CREATE {kind} "{name}" ON {shape.table} {columns}'))
        except sqlalchemy.exc.IntegrityError:
            # Rows of others that state the same twice stay; ours are one linker's, which compares before it writes.
            plain = columns.removesuffix(" NULLS NOT DISTINCT")
            connection.execute(text(f'CREATE INDEX "{name}" ON {shape.table} {plain}'))
    for index in shape.indexes_to_drop:
        connection.execute(text(f"DROP INDEX {index}"))
