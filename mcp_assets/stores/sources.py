"""Source tables: read rows by id, and find in SQL which rows differ from the ledger."""

import json
import math
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Any, Protocol, TypeVar

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from mcp_assets.entities.refs import MAX_ID_BYTES, MAX_ID_LENGTH, SLOTS, id_excess, slot_of
from mcp_assets.entities.registry import SourceTable
from mcp_assets.events.decode import MAX_DEPTH
from mcp_assets.stores.errors import StoreRefused, StoreUnavailable
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.source_database import SourceDatabase

T = TypeVar("T")

_ROWS_A_FETCH = 10_000

# A hash of a million rows in memory, and workers, although the planner makes little of what md5 of a row costs.
# A cursor is read to its end: fetching each row by the order of an index would be random reads. `own`: for the
# transaction alone.
_COMPARING = """
SELECT set_config('work_mem', greatest(pg_size_bytes(current_setting('work_mem')) / 1024, 64 * 1024) || 'kB', %(own)s),
       set_config('parallel_setup_cost', '0', %(own)s), set_config('parallel_tuple_cost', '0', %(own)s),
       set_config('cursor_tuple_fraction', '1', %(own)s), set_config('jit', 'off', %(own)s)
"""


# For the transaction alone: one core, and no wait behind a change of the table.
_SWEEPING = """
SELECT set_config('work_mem', greatest(pg_size_bytes(current_setting('work_mem')) / 1024, 64 * 1024) || 'kB', true),
       set_config('max_parallel_workers_per_gather', '0', true), set_config('cursor_tuple_fraction', '1', true),
       set_config('jit', 'off', true), set_config('lock_timeout', '2s', true)
"""


@dataclass(frozen=True, slots=True)
class SourceRow:
    """An entity's row as its source table has it now. A row that is not alive carries no state."""

    alive: bool
    title: str | None
    content: str
    metadata: Mapping[str, Any]
    source_hash: str
    unstorable: str | None = None
    """Why no store could hold the metadata, which PostgreSQL's jsonb could; then `metadata` is empty."""
    repeated: bool = False
    """More than one living row bears the id: which of them is the entity is not known."""


@dataclass(slots=True)
class IdFaults:
    """Living rows of a source table that cannot be entities for their ids: of a view, or of a mapping to a wrong
    column."""

    nameless: int = 0
    """Rows whose id is NULL or empty."""
    repeated: dict[str, int] = field(default_factory=dict)
    """Ids that several rows bear, with their number; at most MOST_FAULTS."""
    too_long: dict[str, int] = field(default_factory=dict)
    """The beginnings of ids that are too long, with their bytes; at most MOST_FAULTS."""
    more: int = 0
    """Ids that are repeated or too long beyond those."""

    def sentences(self) -> dict[str, tuple[str, str]]:
        """What is wrong, by id: an error kind and a sentence; under NAMELESS the rows without one."""
        told = {}
        if self.nameless:
            told[NAMELESS] = (
                "missing_id",
                f"{self.nameless} rows of the source table have no id: the id column of the mapping must be filled",
            )
        for entity_id, count in self.repeated.items():
            told[entity_id] = (
                "repeated_id",
                f"{count} living rows of the source table bear this id: map a column that names each row, or let the "
                "view give each id once",
            )
        for beginning, size in self.too_long.items():
            told[beginning] = (
                "bad_id",
                f"the id of the source row has {size} bytes in UTF-8; an id has at most {MAX_ID_LENGTH} characters and "
                f"{MAX_ID_BYTES} bytes",
            )
        return told


NAMELESS = "(no id)"
"""Stands for the id of rows that have none, where what is wrong is told."""

MOST_FAULTS = 1_000
_BEGINNING = 200


@dataclass(slots=True)
class Comparison:
    """What a slice of a source table is beside its ledger rows: how many rows, and which of them differ."""

    rows: int = 0
    """Living rows of the source table."""
    living: int = 0
    """Entities that the ledger has as living and born of a row."""
    behind: int = 0
    """Rows that are new or changed."""
    vanished: int = 0
    otherwise_prepared: int = 0
    """Entities prepared by another mapping or text builder: whether their rows changed cannot be told by hash."""
    found: dict[str, str | None] = field(default_factory=dict)
    """Ids that differ, as many as were asked for: the hash of the row, None for one that vanished."""


class SourceReader:
    """Reads one source table through its mapping. The caller's transaction decides what is seen.

    `database`: where the table is, if not in the platform's own: then each call sees what is committed there.
    """

    def __init__(self, mapping: SourceTable, schema: str, database: SourceDatabase | None = None) -> None:
        self._mapping = mapping
        self._schema = schema
        self._database = database
        self._table = sql.Identifier(*mapping.table.split("."))
        self._id = sql.SQL('{}::text COLLATE "C"').format(sql.Identifier(mapping.id))
        # The predicate is the site's own setting, as trusted as the connection string beside it.
        self._alive = sql.SQL("({})").format(sql.SQL(mapping.alive))
        self._id_type: str | None = None
        self._unique: bool | None = None

    def read(self, connection: Connection, ids: Iterable[str]) -> dict[str, SourceRow]:
        """The rows of those of `ids` that have one, alive or not, by id. One statement: all or an error.

        Raises:
            StoreRefused: the table or a mapped column is not there, or may not be read.
            StoreUnavailable: the database that it is in does not answer.
        """
        with self._reading(connection) as reading:
            wanted = self._castable(reading, ids)
            if not wanted:
                return {}
            statement = sql.SQL(
                "SELECT {id}, {alive}, {title}, {content}, ({metadata})::text, {hash} FROM {table} WHERE {match}"
            ).format(
                id=self._id,
                alive=self._alive_with_parameters(),
                title=self._title(),
                content=self._content(),
                metadata=self._metadata(),
                hash=self._hash(),
                table=self._table,
                match=self._match(),
            )
            rows = self._run(lambda: reading.execute(statement, {"ids": wanted}).fetchall())
        found: dict[str, SourceRow] = {}
        for entity_id, alive, title, content, metadata, source_hash in rows:
            # Read here and not by the driver, which would fail all rows for one.
            fit, unstorable = _read_metadata(metadata)
            row = SourceRow(bool(alive), title, content, fit, source_hash, unstorable)
            before = found.get(entity_id)
            if before is not None and before.alive:
                if not row.alive:
                    continue
                row = replace(
                    row, unstorable="more than one living row of the source table bears this id", repeated=True
                )
            found[entity_id] = row
        return found

    def hashes(self, connection: Connection, ids: Iterable[str]) -> dict[str, tuple[bool, str]]:
        """Of those of `ids` that have a row: whether it is alive, and its hash.

        Raises:
            StoreRefused, StoreUnavailable: as `read`.
        """
        with self._reading(connection) as reading:
            wanted = self._castable(reading, ids)
            if not wanted:
                return {}
            statement = sql.SQL("SELECT {id}, {alive}, {hash} FROM {table} WHERE {match}").format(
                id=self._id,
                alive=self._alive_with_parameters(),
                hash=self._hash(),
                table=self._table,
                match=self._match(),
            )
            rows = self._run(lambda: reading.execute(statement, {"ids": wanted}).fetchall())
        # Of several rows that bear one id a living one counts, and of those always the same.
        return {row[0]: (bool(row[1]), row[2]) for row in sorted(rows, key=lambda row: (bool(row[1]), row[2]))}

    def id_faults(self, connection: Connection, slots: tuple[int, int]) -> IdFaults:
        """The living rows that cannot be entities for their ids; those without one count to the first slot.

        Raises:
            StoreRefused, StoreUnavailable: as `read`.
        """
        with self._reading(connection) as reading:
            statement = sql.SQL(
                "SELECT nullif({id}, ''), count(*), max(octet_length({id})), count(*) OVER () FROM {table}"
                " WHERE {alive} AND ({id} <> '' AND {within}{nameless}) {unnamed} GROUP BY 1{repeated}"
                " ORDER BY 1 NULLS FIRST LIMIT {limit}"
            ).format(
                id=self._id,
                table=self._table,
                alive=self._alive,
                within=_within(_slot(self._id), slots),
                nameless=sql.SQL(" OR nullif({}, '') IS NULL").format(self._id) if slots[0] == 0 else sql.SQL(""),
                unnamed=sql.SQL("AND {} IS NOT TRUE").format(self._named())
                if self._names_each_row(reading)
                else sql.SQL(""),
                repeated=sql.SQL("")
                if self._names_each_row(reading)
                else sql.SQL(" HAVING count(*) > 1 OR bool_or({} IS NOT TRUE)").format(self._named()),
                limit=sql.Literal(MOST_FAULTS + 1),
            )
            rows = self._run(lambda: reading.execute(statement).fetchall())
        faults = IdFaults()
        for entity_id, count, size, total in rows:
            if entity_id is None:
                faults.nameless = count
            elif len(faults.repeated) + len(faults.too_long) == MOST_FAULTS:
                break
            elif id_excess(entity_id) is not None:
                faults.too_long[entity_id[:_BEGINNING] + "…"] = size
            else:
                faults.repeated[entity_id] = count
            faults.more = total - bool(faults.nameless) - len(faults.repeated) - len(faults.too_long)
        return faults

    def _names_each_row(self, connection: Connection) -> bool:
        """Whether PostgreSQL sees to it that each row has an id of its own; of a view it is not known."""
        if self._unique is None:
            row = self._run(
                lambda: connection.execute(
                    "SELECT EXISTS (SELECT FROM pg_index"
                    " JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0]"
                    " WHERE indrelid = to_regclass(%s) AND attname = %s AND indisunique AND indisvalid"
                    " AND indnkeyatts = 1 AND indpred IS NULL)",
                    (self._table.as_string(connection), self._mapping.id),
                ).fetchone()
            )
            self._unique = row is not None and bool(row[0])
        return self._unique

    def updated_at(self, connection: Connection, ids: Iterable[str]) -> dict[str, datetime]:
        """When the rows of those of `ids` that have one were last updated; none where no column says so.

        Raises:
            StoreRefused: the table or a mapped column is not there, or may not be read.
        """
        if self._mapping.updated_at is None:
            return {}
        with self._reading(connection) as reading:
            wanted = self._castable(reading, ids)
            if not wanted:
                return {}
            statement = sql.SQL("SELECT {}, {}::timestamptz FROM {} WHERE {}").format(
                self._id, sql.Identifier(self._mapping.updated_at), self._table, self._match()
            )
            rows = self._run(lambda: reading.execute(statement, {"ids": wanted}).fetchall())
        return {entity_id: at for entity_id, at in rows if at is not None}

    def find_differing(
        self, connection: Connection, entity_type: str, slots: tuple[int, int], prepared_by: str, *, force: bool
    ) -> None:
        """Make the temporary table `differing(n, entity_id, slot, bytes)`, by slot: what a full sync looks at.

        Compares every living row of `slots` (half-open) with the ledger by hash, in one statement, or where the table
        is in another database by streaming ids and hashes across; finds rows that are new, changed or gone, ledger
        rows that Qdrant does not hold yet, and with `force` every living row.

        `connection`: in autocommit, and the caller's own: how it plans and how much memory it takes is set for it.
        """
        connection.execute(_COMPARING, {"own": False})
        if self._database is not None:
            self._merge_differing(connection, entity_type, slots, prepared_by, force=force)
            return
        statement = sql.SQL(
            """
            CREATE TEMPORARY TABLE differing AS
            SELECT row_number() OVER (ORDER BY slot, entity_id) AS n, entity_id, slot, bytes
            FROM (
                SELECT coalesce(source.id, found.entity_id) AS entity_id, {slot_of_found} AS slot,
                       CASE WHEN source.id IS NOT NULL THEN source.bytes ELSE (
                           SELECT octet_length(content) FROM {schema}.entities AS ledger
                           WHERE ledger.entity_type = {entity_type} AND ledger.entity_id = found.entity_id
                       ) END AS bytes
                FROM (
                    SELECT {id} AS id, {hash} AS hash, {bytes} AS bytes FROM {table}
                    WHERE {alive} AND {source_slots} AND {named}
                ) AS source
                FULL JOIN (
                    SELECT entity_id, origin, source_hash, prepared_by, deleted_at, dirty FROM {schema}.entities
                    WHERE entity_type = {entity_type} AND {ledger_slots}
                ) AS found ON source.id = found.entity_id
                WHERE coalesce(found.dirty, false) OR CASE
                    WHEN source.id IS NULL THEN
                        found.deleted_at IS NULL AND (found.origin = 'source' OR found.prepared_by <> {prepared_by})
                    ELSE {force} OR found.entity_id IS NULL OR found.deleted_at IS NOT NULL
                        OR found.source_hash IS DISTINCT FROM source.hash OR found.prepared_by <> {prepared_by}
                END OR ({force} AND found.deleted_at IS NULL)
            ) AS found
            """
        ).format(
            id=self._id,
            hash=self._hash(),
            bytes=self._bytes(),
            table=self._table,
            alive=self._alive,
            named=self._named(),
            schema=sql.Identifier(self._schema),
            slot_of_found=_slot(sql.SQL("coalesce(source.id, found.entity_id)")),
            source_slots=_within(_slot(self._id), slots),
            ledger_slots=_within(sql.SQL("slot"), slots),
            entity_type=sql.Literal(entity_type),
            prepared_by=sql.Literal(prepared_by),
            force=sql.Literal(force),
        )
        self._run(lambda: connection.execute(statement))

    def compare(
        self, connection: Connection, entity_type: str, slots: tuple[int, int], prepared_by: str, *, limit: int
    ) -> Comparison:
        """Compare the living rows of `slots` (half-open) with the ledger, and name up to `limit` that differ.

        One statement that writes nothing and locks no row; `connection` is in a transaction of its own, for which it
        plans without parallel workers. Where ids repeat, one row stands for all.

        Raises:
            StoreRefused, StoreUnavailable: as `read`, or the table has been locked for some seconds.
        """
        connection.execute(_SWEEPING)
        if self._database is not None:
            return self._compare_across(connection, entity_type, slots, prepared_by, limit)
        statement = sql.SQL(
            """
            SELECT count(id), count(*) FILTER (WHERE living AND origin = 'source'),
                   count(*) FILTER (WHERE behind), count(*) FILTER (WHERE vanished),
                   count(*) FILTER (WHERE otherwise_prepared),
                   (array_agg(coalesce(id, entity_id)) FILTER (WHERE behind OR vanished))[1:{limit}],
                   (array_agg(hash) FILTER (WHERE behind OR vanished))[1:{limit}]
            FROM (
                SELECT id, entity_id, origin, hash, living,
                       id IS NOT NULL AND (
                           living IS NOT TRUE OR prepared_by = {prepared_by} AND source_hash IS DISTINCT FROM hash
                       ) AS behind,
                       id IS NULL AND living AND origin = 'source' AS vanished,
                       id IS NOT NULL AND living AND prepared_by <> {prepared_by} AS otherwise_prepared
                FROM (SELECT {id} AS id, {hash} AS hash FROM {table} WHERE {alive} AND {source_slots} AND {named})
                    AS source
                FULL JOIN (
                    SELECT entity_id, origin, source_hash, prepared_by, deleted_at IS NULL AS living
                    FROM {schema}.entities WHERE entity_type = {entity_type} AND {ledger_slots}
                ) AS ledger ON source.id = ledger.entity_id
            ) AS compared
            """
        ).format(
            id=self._id,
            hash=self._hash(),
            table=self._table,
            alive=self._alive,
            named=self._named(),
            schema=sql.Identifier(self._schema),
            source_slots=_within(_slot(self._id), slots),
            ledger_slots=_within(sql.SQL("slot"), slots),
            entity_type=sql.Literal(entity_type),
            prepared_by=sql.Literal(prepared_by),
            limit=sql.Literal(limit),
        )
        row = self._run(lambda: connection.execute(statement).fetchone())
        assert row is not None  # noqa: S101  (an aggregate without groups has one row)
        rows, living, behind, vanished, otherwise_prepared, ids, hashes = row
        found = _by_id(zip(ids or (), hashes or (), strict=True))
        return Comparison(rows, living, behind, vanished, otherwise_prepared, found)

    def _compare_across(
        self, connection: Connection, entity_type: str, slots: tuple[int, int], prepared_by: str, limit: int
    ) -> Comparison:
        """`compare` of a table in another database: both sides in the order of ids, merged as they come."""
        assert self._database is not None  # noqa: S101  (the caller asked)
        source = sql.SQL(
            "SELECT {id}, {hash} FROM {table} WHERE {alive} AND {slots} AND {named} ORDER BY {id}, 2"
        ).format(
            id=self._id,
            hash=self._hash(),
            table=self._table,
            alive=self._alive,
            named=self._named(),
            slots=_within(_slot(self._id), slots),
        )
        ledger = sql.SQL(
            "SELECT entity_id, origin = 'source', source_hash, prepared_by = {prepared_by} FROM {schema}.entities"
            " WHERE entity_type = {entity_type} AND deleted_at IS NULL AND {slots} ORDER BY entity_id"
        ).format(
            schema=sql.Identifier(self._schema),
            entity_type=sql.Literal(entity_type),
            prepared_by=sql.Literal(prepared_by),
            slots=_within(sql.SQL("slot"), slots),
        )
        result = Comparison()
        with (
            self._database.transaction() as other,
            other.cursor("swept_source") as theirs,
            connection.cursor("swept_ledger") as ours,
        ):
            other.execute(_SWEEPING)
            theirs.itersize = ours.itersize = _ROWS_A_FETCH
            self._run(lambda: theirs.execute(source))
            ours.execute(ledger)
            for row, known in merged(theirs, ours):
                result.rows += row is not None
                result.living += known is not None and known[1]
                if row is None:
                    assert known is not None  # noqa: S101  (one of the two is there)
                    vanished, behind = bool(known[1]), False
                elif known is not None and not known[3]:
                    result.otherwise_prepared += 1
                    continue
                else:
                    vanished, behind = False, known is None or known[2] != row[1]
                result.vanished += vanished
                result.behind += behind
                if (vanished or behind) and len(result.found) < limit:
                    result.found[(row or known)[0]] = None if row is None else row[1]  # type: ignore[index]
        return result

    def copy_living(self, connection: Connection, slots: tuple[int, int]) -> None:
        """Make the temporary table `census_source(id, slot, hash)` of the living rows of `slots` (half-open).

        Raises:
            StoreRefused, StoreUnavailable: as `read`; then there is no such table.
        """
        with self._reading(connection) as reading:
            once = self._names_each_row(reading)
        # Of several rows that bear one id, which `id_faults` tells of, one is compared.
        statement = sql.SQL(
            "SELECT {once}{id} AS id, {slot} AS slot, {hash} AS hash FROM {table} WHERE {alive} AND {slots} AND {named}"
        )
        living = statement.format(
            once=sql.SQL("") if once else sql.SQL("DISTINCT ON ({}) ").format(self._id),
            named=self._named(),
            id=self._id,
            slot=_slot(self._id),
            hash=self._hash(),
            table=self._table,
            alive=self._alive,
            slots=_within(_slot(self._id), slots),
        )
        if self._database is None:
            self._run(lambda: connection.execute(sql.SQL("CREATE TEMPORARY TABLE census_source AS {}").format(living)))
            return
        with connection.transaction(), self._database.transaction() as other, other.cursor("living") as theirs:
            connection.execute('CREATE TEMPORARY TABLE census_source (id text COLLATE "C", slot integer, hash text)')
            theirs.itersize = _ROWS_A_FETCH
            self._run(lambda: theirs.execute(living))
            with connection.cursor() as cursor, cursor.copy("COPY census_source FROM STDIN") as writer:
                for row in theirs:
                    writer.write_row(row)

    def _merge_differing(
        self, connection: Connection, entity_type: str, slots: tuple[int, int], prepared_by: str, *, force: bool
    ) -> None:
        """`find_differing` of a table in another database: both sides in the order of ids, merged as they come."""
        assert self._database is not None  # noqa: S101  (the caller asked)
        source = sql.SQL(
            "SELECT {id}, {hash}, {bytes} FROM {table} WHERE {alive} AND {slots} AND {named} ORDER BY {id}"
        ).format(
            named=self._named(),
            id=self._id,
            hash=self._hash(),
            bytes=self._bytes(),
            table=self._table,
            alive=self._alive,
            slots=_within(_slot(self._id), slots),
        )
        # The hash of a row that needs no look if the source has the same; the bytes of one that needs a look if the
        # source has none.
        ledger = sql.SQL(
            """
            SELECT entity_id,
                   CASE WHEN deleted_at IS NULL AND NOT dirty AND NOT {force} AND prepared_by = {prepared_by}
                        THEN source_hash END,
                   CASE WHEN dirty OR (deleted_at IS NULL
                                       AND ({force} OR origin = 'source' OR prepared_by <> {prepared_by}))
                        THEN octet_length(content) END
            FROM {schema}.entities WHERE entity_type = {entity_type} AND {slots} ORDER BY entity_id
            """
        ).format(
            schema=sql.Identifier(self._schema),
            entity_type=sql.Literal(entity_type),
            prepared_by=sql.Literal(prepared_by),
            force=sql.Literal(force),
            slots=_within(sql.SQL("slot"), slots),
        )
        connection.execute('CREATE TEMPORARY TABLE found (entity_id text COLLATE "C", slot integer, bytes bigint)')
        with (
            self._database.transaction() as other,
            connection.transaction(),
            other.cursor("source") as theirs,
            connection.cursor("ledger") as ours,
        ):
            other.execute(_COMPARING, {"own": True})
            theirs.itersize = ours.itersize = _ROWS_A_FETCH
            self._run(lambda: theirs.execute(source))
            ours.execute(ledger)
            rows = differing(theirs, ours)
            while page := list(islice(rows, _ROWS_A_FETCH)):
                with connection.cursor() as cursor, cursor.copy("COPY found FROM STDIN") as writer:
                    for entity_id, size in page:
                        writer.write_row((entity_id, slot_of(entity_id), size))
        connection.execute(
            "CREATE TEMPORARY TABLE differing AS"
            " SELECT row_number() OVER (ORDER BY slot, entity_id) AS n, entity_id, slot, bytes FROM found"
        )
        connection.execute("DROP TABLE found")

    def canonical_ids(self, connection: Connection, ids: Iterable[str]) -> dict[str, str]:
        """Each of `ids` as the table spells it (`::text`): a UUID in capitals names the row of the one in small."""
        with self._reading(connection) as reading:
            spell = _SPELLING.get(self._type_of_id(reading))
        return {entity_id: (spell and spell(entity_id)) or entity_id for entity_id in ids}

    @contextmanager
    def _reading(self, connection: Connection) -> Iterator[Connection]:
        if self._database is None:
            yield connection
        else:
            with self._database.transaction() as other:
                yield other

    def _castable(self, connection: Connection, ids: Iterable[str]) -> list[Any]:
        """Those of `ids` that the id column can hold, for PostgreSQL refuses the whole list for one that it cannot."""
        spell = _SPELLING.get(self._type_of_id(connection))
        return [entity_id for entity_id in ids if spell is None or spell(entity_id) is not None]

    def _named(self) -> sql.Composable:
        """Rows that can be entities: they have an id, and it is not too long."""
        return sql.SQL(
            "(octet_length({id}) BETWEEN 1 AND {bytes}"
            " AND (octet_length({id}) <= {characters} OR char_length({id}) <= {characters}))"
        ).format(id=self._id, bytes=sql.Literal(MAX_ID_BYTES), characters=sql.Literal(MAX_ID_LENGTH))

    def _alive_with_parameters(self) -> sql.Composable:
        """With parameters in the statement, a percent sign in the predicate (LIKE '…%') has to be doubled."""
        return sql.SQL("({})").format(sql.SQL(self._mapping.alive.replace("%", "%%")))

    def _match(self) -> sql.Composable:
        if self._id_type is not None and self._id_type in _SPELLING:
            # Compared in the column's own type: a cast of the column would pass its index by.
            return sql.SQL("{} = ANY(%(ids)s::text[]::{}[])").format(
                sql.Identifier(self._mapping.id), sql.SQL(self._id_type)
            )
        return sql.SQL("{}::text = ANY(%(ids)s)").format(sql.Identifier(self._mapping.id))

    def _type_of_id(self, connection: Connection) -> str:
        if self._id_type is None:
            row = self._run(
                lambda: connection.execute(
                    "SELECT format_type(atttypid, NULL) FROM pg_attribute"
                    " WHERE attrelid = to_regclass(%s) AND attname = %s AND NOT attisdropped",
                    (self._table.as_string(connection), self._mapping.id),
                ).fetchone()
            )
            if row is None:
                raise StoreRefused(
                    f"the source table {self._mapping.table} with the id column {self._mapping.id} is not in the "
                    "database: check DATABASE_URL (or MCP_ASSETS_SOURCE_DATABASE_URL) and the source mapping "
                    "(MCP_ASSETS_SOURCE_PRESET, MCP_ASSETS_TYPES)"
                )
            self._id_type = str(row[0])
        return self._id_type

    def _run(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except psycopg.errors.LockNotAvailable as error:
            raise StoreUnavailable(
                f"the source table {self._mapping.table} is locked by another session, which changes its shape or "
                "rebuilds it: it is read when that is through"
            ) from error
        except (
            psycopg.errors.UndefinedTable,
            psycopg.errors.UndefinedColumn,
            psycopg.errors.InsufficientPrivilege,
        ) as error:
            raise StoreRefused(
                f"the source table {self._mapping.table} cannot be read as it is mapped "
                f"({error.diag.message_primary}): check MCP_ASSETS_SOURCE_PRESET or MCP_ASSETS_TYPES"
            ) from error

    def _title(self) -> sql.Composable:
        if self._mapping.title is None:
            return sql.SQL("NULL::text")
        return sql.SQL("{}::text").format(sql.Identifier(self._mapping.title))

    def _content(self) -> sql.Composable:
        if not self._mapping.content:
            return sql.SQL("''")
        parts = sql.SQL(", ").join(
            sql.SQL("nullif({}::text, '')").format(sql.Identifier(column)) for column in self._mapping.content
        )
        return sql.SQL("concat_ws(E'\\n\\n', {})").format(parts)

    def _bytes(self) -> sql.Composable:
        """Length of the content; of a text column, PostgreSQL knows it without reading a long value."""
        lengths = (
            sql.SQL("coalesce(octet_length({}::text), 0)").format(sql.Identifier(column))
            for column in self._mapping.content
        )
        return sql.SQL(" + ").join((sql.SQL("0"), *lengths))

    def _metadata(self) -> sql.Composable:
        named = sql.SQL("jsonb_build_object({})").format(
            sql.SQL(", ").join(
                sql.SQL("{}, {}").format(sql.Literal(key), sql.Identifier(column))
                for key, column in self._mapping.metadata.items()
            )
        )
        if self._mapping.metadata_json is None:
            return named
        free = sql.Identifier(self._mapping.metadata_json)
        return sql.SQL(
            "CASE jsonb_typeof(to_jsonb({free})) WHEN 'object' THEN to_jsonb({free}) ELSE '{{}}' END || {named}"
        ).format(free=free, named=named)

    @property
    def hash_expression(self) -> sql.Composable:
        """What `source_hash` is, in SQL over the source table."""
        return self._hash()

    def _hash(self) -> sql.Composable:
        mapping = self._mapping
        mapped = [
            *([mapping.title] if mapping.title else []),
            *mapping.content,
            *mapping.metadata.values(),
            *([mapping.metadata_json] if mapping.metadata_json else []),
        ]
        # ROW keeps NULL apart from the empty string and each column apart from the next.
        return sql.SQL("md5(ROW({})::text)").format(sql.SQL(", ").join(map(sql.Identifier, dict.fromkeys(mapped))))


def differing(
    source: Iterable[tuple[str, str, int]], ledger: Iterable[tuple[str, str | None, int | None]]
) -> Iterator[tuple[str, int]]:
    """The ids that differ, with the bytes of their contents; both sides in the order of ids, by code points.

    `source`: id, hash, bytes of each living row. `ledger`: id, the hash with which the source row needs no look, the
    bytes if it needs a look should there be no source row.

    Raises:
        StoreRefused: a side is not in this order.
    """
    for row, known in merged(source, ledger):
        if row is None:
            if known is not None and known[2] is not None:
                yield known[0], known[2]
        elif known is None or row[1] != known[1]:
            yield row[0], row[2]


Row = TypeVar("Row", bound=tuple[Any, ...])
Other = TypeVar("Other", bound=tuple[Any, ...])


def merged(source: Iterable[Row], ledger: Iterable[Other]) -> Iterator[tuple[Row | None, Other | None]]:
    """Rows of both sides by their ids, which stand first and ascend by code points; None where a side has none.

    Raises:
        StoreRefused: a side is not in this order.
    """
    theirs, ours = _ordered(source, "source table"), _ordered(ledger, "ledger")
    row, known = next(theirs, None), next(ours, None)
    while row is not None or known is not None:
        if known is None or (row is not None and row[0] < known[0]):
            yield row, None
            row = next(theirs, None)
        elif row is None or known[0] < row[0]:
            yield None, known
            known = next(ours, None)
        else:
            yield row, known
            row, known = next(theirs, None), next(ours, None)


def _ordered(rows: Iterable[Row], side: str) -> Iterator[Row]:
    """`rows`, of those that bear one id the first."""
    last: str | None = None
    for row in rows:
        if row[0] == last:
            continue
        if last is not None and row[0] < last:
            raise StoreRefused(
                f"the ids of the {side} do not come in the order of code points ({last!r} before {row[0]!r}): the "
                "database must be in UTF-8"
            )
        last = row[0]
        yield row


def _by_id(found: Iterable[tuple[str, str | None]]) -> dict[str, str | None]:
    """Of the rows that bear one id, the least hash: of passes over the same rows each names the same one."""
    return dict(sorted(found, key=lambda one: (one[0], one[1] or ""), reverse=True))


def _slot(entity_id: sql.Composable) -> sql.Composable:
    """`slot_of` in SQL."""
    return sql.SQL("('x' || substr(md5({}), 1, 4))::bit(16)::integer").format(entity_id)


def _within(slot: sql.Composable, slots: tuple[int, int]) -> sql.Composable:
    if slots == (0, SLOTS):
        # All of them: the slot of every id need not even be computed.
        return sql.SQL("true")
    return sql.SQL("({slot} >= {low} AND {slot} < {high})").format(
        slot=slot, low=sql.Literal(slots[0]), high=sql.Literal(slots[1])
    )


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
    """Writes rows into a source table through its mapping. For loading: the platform itself never writes there."""

    def __init__(self, mapping: SourceTable) -> None:
        self._mapping = mapping

    def upsert(self, connection: Connection, rows: Sequence[LoadedRow]) -> None:
        """Insert or replace `rows`, whose ids are distinct, in one statement.

        Metadata goes to the columns that are mapped for its keys, the rest to the free metadata column.

        Raises:
            StoreRefused: the table or a column is absent, or a value does not fit its column.
        """
        mapping = self._mapping
        values: dict[str, list[Any]] = {mapping.id: [row.entity_id for row in rows]}
        if mapping.title is not None:
            # A title column may be NOT NULL, and its entity have none.
            values[mapping.title] = [row.title or "" for row in rows]
        if mapping.content:
            values[mapping.content[0]] = [row.content for row in rows]
        for key, column in mapping.metadata.items():
            values[column] = [row.metadata.get(key) for row in rows]
        if mapping.metadata_json is not None:
            values[mapping.metadata_json] = [
                {key: value for key, value in row.metadata.items() if key not in mapping.metadata} for row in rows
            ]
        for stamp, times in (
            (mapping.created_at, [row.created_at for row in rows]),
            (mapping.updated_at, [row.updated_at for row in rows]),
        ):
            if stamp is not None:
                values[stamp] = [time.isoformat() if time else None for time in times]
        records = [dict(zip(values, record, strict=True)) for record in zip(*values.values(), strict=True)]
        table = sql.Identifier(*mapping.table.split("."))
        defaults = self._defaults(connection)
        names = [sql.Identifier(name) for name in values]
        statement = sql.SQL(
            "INSERT INTO {table} AS stored ({columns}) "
            "SELECT {values} FROM jsonb_populate_recordset(NULL::{table}, %s) AS row "
            "ON CONFLICT ({id}) DO UPDATE SET {updates}"
        ).format(
            table=table,
            columns=sql.SQL(", ").join(names),
            values=sql.SQL(", ").join(_or_default(name, defaults.get(name)) for name in values),
            id=sql.Identifier(mapping.id),
            updates=sql.SQL(", ").join(
                sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in values if name != mapping.id
            ),
        )
        try:
            connection.execute(statement, (Jsonb(records),))
        except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn, psycopg.errors.DataError) as error:
            raise StoreRefused(
                f"the source table {mapping.table} cannot be written ({error.diag.message_primary}): check "
                "DATABASE_URL and the source mapping; `mcp-assets load --create-tables` makes those of the preset `mcp`"
            ) from error

    def _defaults(self, connection: Connection) -> dict[str, str]:
        """The default expressions of the table's columns: what stands where an entity gives nothing."""
        rows = connection.execute(
            "SELECT attname, pg_get_expr(adbin, adrelid) FROM pg_attrdef"
            " JOIN pg_attribute ON attrelid = adrelid AND attnum = adnum WHERE adrelid = to_regclass(%s)",
            (sql.Identifier(*self._mapping.table.split(".")).as_string(connection),),
        )
        return dict(rows.fetchall())


def _or_default(column: str, default: str | None) -> sql.Composable:
    name = sql.SQL("row.{}").format(sql.Identifier(column))
    return name if default is None else sql.SQL("coalesce({}, {})").format(name, sql.SQL(default))


def _read_metadata(text: str) -> tuple[dict[str, Any], str | None]:
    """The metadata without their nulls, or why they are unfit: jsonb takes any nesting and numbers of any length."""
    try:
        metadata = json.loads(text, parse_int=_integer, parse_float=_float)
    except RecursionError:
        return {}, f"they are nested more than {MAX_DEPTH} levels deep"
    except ValueError as error:
        return {}, str(error)
    if _deeper_than(MAX_DEPTH, metadata):
        return {}, f"they are nested more than {MAX_DEPTH} levels deep"
    return {key: value for key, value in metadata.items() if value is not None}, None


def _integer(digits: str) -> int:
    _float(digits)
    return int(digits)


def _float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("they hold a number beyond 64-bit floats")
    return number


def _deeper_than(depth: int, value: Any) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return depth == 0 or any(_deeper_than(depth - 1, item) for item in inner)


def _spell_uuid(text: str) -> str | None:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return None


def _spell_integer(text: str, *, bits: int) -> str | None:
    if not text.removeprefix("-").isascii() or not text.removeprefix("-").isdigit() or len(text) > 20:
        return None
    number = int(text)
    return str(number) if -(1 << bits - 1) <= number < 1 << bits - 1 else None


def _spell_text(text: str) -> str | None:
    return text


_SPELLING: Mapping[str, Callable[[str], str | None]] = {
    "uuid": _spell_uuid,
    "smallint": partial(_spell_integer, bits=16),
    "integer": partial(_spell_integer, bits=32),
    "bigint": partial(_spell_integer, bits=64),
    "text": _spell_text,
    "character varying": _spell_text,
}
"""How the id types that identifiers usually have write an id; None for a text that the type cannot hold."""
