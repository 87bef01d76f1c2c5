"""A mapped source table as SQL: the expressions that the mapping of an entity type implies, and how a read runs."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg
from psycopg import sql

from mcp_assets.entities.composite_ids import ESCAPES, SEPARATOR, join_id, split_id
from mcp_assets.entities.refs import MAX_ID_BYTES, MAX_ID_LENGTH, SLOTS
from mcp_assets.entities.registry import SourceTable
from mcp_assets.stores.errors import StoreRefused, StoreUnavailable
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.source_tables.database import SourceDatabase
from mcp_assets.stores.source_tables.ids import SPELLING

T = TypeVar("T")


class MappedTable:
    """One source table through its mapping.

    `database`: the database that the table is in; None: the platform's own.
    """

    def __init__(self, mapping: SourceTable, database: SourceDatabase | None = None) -> None:
        self.mapping = mapping
        self.database = database
        self.table = sql.Identifier(*mapping.table.split("."))
        self.id = sql.SQL('{} COLLATE "C"').format(_as_id(mapping.id))
        # The predicate is the site's own setting, as trusted as the connection string beside it.
        self.alive = sql.SQL("({})").format(sql.SQL(mapping.alive))
        self._column_types: dict[str, str] | None = None
        self._id_types: tuple[str, ...] | None = None
        self._ids_are_unique: bool | None = None

    @contextmanager
    def reading(self, connection: Connection) -> Iterator[Connection]:
        """A connection to the database of the table: `connection`, or one in a transaction of its own."""
        if self.database is None:
            yield connection
        else:
            with self.database.transaction() as other:
                yield other

    def run(self, call: Callable[[], T]) -> T:
        """The result of `call`, which reads the table.

        Raises:
            StoreRefused: the table or a mapped column is not there, or may not be read.
            StoreUnavailable: another session locks the table for longer than this one waits.
        """
        try:
            return call()
        except psycopg.errors.LockNotAvailable as error:
            raise StoreUnavailable(
                f"the source table {self.mapping.table} is locked by another session, which changes its shape or "
                "rebuilds it: it is read when that is through"
            ) from error
        except psycopg.errors.InsufficientPrivilege as error:
            raise StoreRefused(
                f"the source table {self.mapping.table} may not be read ({error.diag.message_primary}): grant SELECT "
                "on it, and USAGE on its schema, to the role of the address by which it is reached"
            ) from error
        except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
            raise StoreRefused(
                f"the source table {self.mapping.table} cannot be read as it is mapped "
                f"({error.diag.message_primary}): check the source mapping "
                "(MCP_ASSETS_SOURCES_FILE, MCP_ASSETS_SOURCE_PRESET, MCP_ASSETS_TYPES)"
            ) from error

    def ids_are_unique(self, connection: Connection) -> bool:
        """A unique index keeps the ids apart. False for a view, of which it is unknown."""
        if self._ids_are_unique is None:
            row = self.run(
                lambda: connection.execute(
                    # An index over a part of the key keeps the whole keys apart, too.
                    "SELECT EXISTS (SELECT FROM pg_index WHERE indrelid = to_regclass(%s)"
                    " AND indisunique AND indisvalid AND indpred IS NULL AND ("
                    "  SELECT bool_and(coalesce(attname = ANY(%s), false))"
                    "  FROM unnest(indkey[0:indnkeyatts - 1]) AS keys (attnum)"
                    "  LEFT JOIN pg_attribute ON attrelid = indrelid AND pg_attribute.attnum = keys.attnum))",
                    (self.table.as_string(connection), list(self.mapping.id_columns)),
                ).fetchone()
            )
            self._ids_are_unique = row is not None and bool(row[0])
        return self._ids_are_unique

    def id_types(self, connection: Connection) -> tuple[str, ...]:
        """The types of the id columns, as PostgreSQL names them.

        Raises:
            StoreRefused: the table or an id column is not there.
        """
        if self._id_types is None:
            found = self.column_types(connection)
            absent = next((column for column in self.mapping.id_columns if column not in found), None)
            if absent is not None:
                raise StoreRefused(
                    f"the source table {self.mapping.table} with the id column {absent} is not in the "
                    "database: check DATABASE_URL (or MCP_ASSETS_SOURCE_DATABASE_URL) and the source mapping "
                    "(MCP_ASSETS_SOURCES_FILE, MCP_ASSETS_SOURCE_PRESET, MCP_ASSETS_TYPES)"
                )
            self._id_types = tuple(found[column] for column in self.mapping.id_columns)
        return self._id_types

    def column_types(self, connection: Connection) -> dict[str, str]:
        """By column of the table, its type as PostgreSQL names it; empty if there is no such table."""
        if not self._column_types:
            self._column_types = self.run(
                lambda: dict(
                    connection.execute(
                        "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute"
                        " WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped",
                        (self.table.as_string(connection),),
                    ).fetchall()
                )
            )
        return self._column_types

    def spelled(self, connection: Connection, entity_id: str) -> str | None:
        """The id as the table prints it (a UUID in capitals becomes small); None if no row can have it."""
        types = self.id_types(connection)
        values = (entity_id,) if len(types) == 1 else split_id(entity_id, len(types))
        if values is None:
            return None
        printed = [SPELLING.get(kind, str)(value) for kind, value in zip(types, values, strict=True)]
        found = [value for value in printed if value is not None]
        if len(found) < len(types):
            return None
        return found[0] if len(types) == 1 else join_id(found)

    def parameters_of(self, connection: Connection, ids: Iterable[str]) -> dict[str, Any] | None:
        """The parameters of `has_id_of`: those of `ids` that the id columns can hold; None if there are none.

        PostgreSQL refuses a whole list because of one that it cannot hold.
        """
        spelled = [one for entity_id in ids if (one := self.spelled(connection, entity_id)) is not None]
        if not spelled:
            return None
        columns = len(self.mapping.id_columns)
        if columns == 1:
            return {"id_0": spelled}
        keys = [split_id(entity_id, columns) or () for entity_id in spelled]
        return {f"id_{number}": list(values) for number, values in enumerate(zip(*keys, strict=True))}

    def has_id_of(self) -> sql.Composable:
        """The predicate of rows whose id is in the parameters; `parameters_of` has been called before."""
        compared, wanted = [], []
        for number, column in enumerate(self.mapping.id_columns):
            kind = self._id_types[number] if self._id_types is not None else None
            name = sql.Identifier(column)
            # Compared in the column's own type, because an index does not serve a cast of the column.
            known = kind is not None and kind in SPELLING
            compared.append(name if known else sql.SQL("{}::text").format(name))
            wanted.append(
                sql.SQL("{}::text[]{}").format(
                    sql.Placeholder(f"id_{number}"), sql.SQL(f"::{kind}[]") if known else sql.SQL("")
                )
            )
        if len(compared) == 1:
            return sql.SQL("{} = ANY({})").format(compared[0], wanted[0])
        return sql.SQL("({}) IN (SELECT * FROM unnest({}))").format(
            sql.SQL(", ").join(compared), sql.SQL(", ").join(wanted)
        )

    def id_is_storable(self) -> sql.Composable:
        """The predicate of rows that can be entities: they have an id, and it is not too long."""
        return sql.SQL(
            "(octet_length({id}) BETWEEN 1 AND {bytes}"
            " AND (octet_length({id}) <= {characters} OR char_length({id}) <= {characters}))"
        ).format(id=self.id, bytes=sql.Literal(MAX_ID_BYTES), characters=sql.Literal(MAX_ID_LENGTH))

    def alive_with_parameters(self) -> sql.Composable:
        """`alive` for a statement with parameters, where a percent sign (LIKE '…%') has to be doubled."""
        return sql.SQL("({})").format(sql.SQL(self.mapping.alive.replace("%", "%%")))

    def fill(self, statement: str, **parts: sql.Composable) -> sql.Composed:
        """The SQL of `statement`, with the table's own expressions and `parts` in place of their names in braces."""
        return sql.SQL(statement).format(
            id=self.id,
            table=self.table,
            alive=self.alive,
            hash=self.hash(),
            bytes=self.content_bytes(),
            slot=slot_of_id(self.id),
            storable=self.id_is_storable(),
            **parts,
        )

    def has_entity_in(self, slots: tuple[int, int]) -> sql.Composable:
        """The predicate of living rows of `slots` (half-open) that can be entities."""
        return self.fill("{alive} AND {within} AND {storable}", within=self.within(slots))

    def within(self, slots: tuple[int, int]) -> sql.Composable:
        """The predicate of rows whose slot is in `slots` (half-open)."""
        return slot_within(slot_of_id(self.id), slots)

    def title(self) -> sql.Composable:
        if self.mapping.title is None:
            return sql.SQL("NULL::text")
        return sql.SQL("{}::text").format(sql.Identifier(self.mapping.title))

    def content(self) -> sql.Composable:
        if not self.mapping.content:
            return sql.SQL("''")
        parts = sql.SQL(", ").join(
            sql.SQL("nullif({}::text, '')").format(sql.Identifier(column)) for column in self.mapping.content
        )
        return sql.SQL("concat_ws(E'\\n\\n', {})").format(parts)

    def content_bytes(self) -> sql.Composable:
        """Bytes of the content; of a text column, PostgreSQL knows them without reading a long value."""
        lengths = (
            sql.SQL("coalesce(octet_length({}::text), 0)").format(sql.Identifier(column))
            for column in self.mapping.content
        )
        return sql.SQL(" + ").join((sql.SQL("0"), *lengths))

    def metadata(self) -> sql.Composable:
        named = sql.SQL("jsonb_build_object({})").format(
            sql.SQL(", ").join(
                sql.SQL("{}, {}").format(
                    sql.Literal(key), sql.Identifier(columns) if isinstance(columns, str) else _as_id(columns)
                )
                for key, columns in self.mapping.metadata.items()
            )
        )
        if self.mapping.metadata_json is None:
            return named
        free = sql.Identifier(self.mapping.metadata_json)
        return sql.SQL(
            "CASE jsonb_typeof(to_jsonb({free})) WHEN 'object' THEN to_jsonb({free}) ELSE '{{}}' END || {named}"
        ).format(free=free, named=named)

    def hash(self) -> sql.Composable:
        """The hash of the mapped columns of a row, which the ledger keeps as `source_hash`."""
        # ROW keeps NULL apart from the empty string and each column apart from the next.
        return sql.SQL("md5(ROW({})::text)").format(sql.SQL(", ").join(map(sql.Identifier, self.mapping.columns)))


@dataclass(frozen=True, slots=True)
class ComparedSlots:
    """The rows of a source table, and those of the ledger, that are compared: of one entity type, in `slots`."""

    table: MappedTable
    schema: str
    entity_type: str
    slots: tuple[int, int]
    """Half-open."""
    prepared_by: str
    """What the ledger rows of entities that are up to date have in the column of this name."""

    def fill(self, statement: str, **parts: sql.Composable) -> sql.Composed:
        """As `MappedTable.fill`; `has_entity` and `in_ledger` are the predicates of the rows of both sides."""
        return self.table.fill(
            statement,
            has_entity=self.table.has_entity_in(self.slots),
            in_ledger=sql.SQL("entity_type = {} AND {}").format(
                sql.Literal(self.entity_type), slot_within(sql.SQL("slot"), self.slots)
            ),
            entities=sql.Identifier(self.schema, "entities"),
            entity_type=sql.Literal(self.entity_type),
            prepared_by=sql.Literal(self.prepared_by),
            **parts,
        )


def _as_id(columns: str | tuple[str, ...]) -> sql.Composable:
    """The id in these columns, as `composite_ids.join_id` writes it if there are several; NULL if one is NULL."""
    if isinstance(columns, str):
        return sql.SQL("{}::text").format(sql.Identifier(columns))
    written = []
    for column in columns:
        value: sql.Composable = sql.SQL("{}::text").format(sql.Identifier(column))
        for character, escape in ESCAPES:
            value = sql.SQL("replace({}, {}, {})").format(value, sql.Literal(character), sql.Literal(escape))
        written.append(value)
    return sql.SQL("({})").format(sql.SQL(f" || '{SEPARATOR}' || ").join(written))


def slot_of_id(entity_id: sql.Composable) -> sql.Composable:
    """`entities.refs.slot_of` in SQL."""
    return sql.SQL("('x' || substr(md5({}), 1, 4))::bit(16)::integer").format(entity_id)


def slot_within(slot: sql.Composable, slots: tuple[int, int]) -> sql.Composable:
    """The predicate that `slot` is in `slots` (half-open)."""
    if slots == (0, SLOTS):
        # Every id is in the range, so that no slot is computed.
        return sql.SQL("true")
    return sql.SQL("({slot} >= {low} AND {slot} < {high})").format(
        slot=slot, low=sql.Literal(slots[0]), high=sql.Literal(slots[1])
    )
