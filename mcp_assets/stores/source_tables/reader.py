"""Source reader: rows of one source table by id, faulty ids, and the rows that differ from the ledger."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple, TypeVar

from psycopg import sql

from mcp_assets.entities.refs import id_excess
from mcp_assets.entities.registry import SourceTable
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.postgres.rows import fetch_rows
from mcp_assets.stores.source_tables import full_sync_diff, slot_comparison
from mcp_assets.stores.source_tables.database import SourceDatabase
from mcp_assets.stores.source_tables.figures import TableFigures, read_figures
from mcp_assets.stores.source_tables.ids import BEGINNING, MOST_FAULTS, IdFaults
from mcp_assets.stores.source_tables.mapping_sql import ComparedSlots, MappedTable
from mcp_assets.stores.source_tables.rows import RowHash, SourceRow, read_metadata

Row = TypeVar("Row")


class _MappedRow(NamedTuple):
    """A row of a source table, through its mapping."""

    id: str
    alive: bool | None
    """None: the mapping's predicate is neither true nor false, so that the row is not alive."""
    title: str | None
    content: str
    metadata: str
    """JSON."""
    hash: str


class _HashedRow(NamedTuple):
    """As `_MappedRow`, by its hash alone."""

    id: str
    alive: bool | None
    hash: str


class _UpdatedRow(NamedTuple):
    """When a row was last updated."""

    id: str
    at: datetime | None


class _FaultyId(NamedTuple):
    """Living rows that bear one id, and cannot be an entity because of it; `id`: None if they have none."""

    id: str | None
    rows: int
    bytes: int | None
    total: int
    """Different ids that are faulty, in the whole table."""


class SourceReader:
    """Reads one source table through its mapping.

    `database`: the database that the table is in; None: the platform's own. A table in the platform's own database is
    read as the caller's transaction sees it; for another database each call sees what is committed there.
    """

    def __init__(self, mapping: SourceTable, schema: str, database: SourceDatabase | None = None) -> None:
        self._table = MappedTable(mapping, database)
        self._schema = schema

    def read(self, connection: Connection, ids: Iterable[str]) -> dict[str, SourceRow]:
        """By id, the rows of those of `ids` that have one, alive or not. One statement: all rows or an error.

        Raises:
            StoreRefused: the table or a mapped column is not there, or may not be read.
            StoreUnavailable: the database that it is in does not answer.
        """
        table = self._table
        rows = self._rows_of(
            connection,
            ids,
            "SELECT {id} AS id, {is_alive} AS alive, {title} AS title, {content} AS content,"
            " ({metadata})::text AS metadata, {hash} AS hash FROM {table} WHERE {wanted}",
            _MappedRow,
            title=table.title(),
            content=table.content(),
            metadata=table.metadata(),
        )
        found: dict[str, SourceRow] = {}
        for mapped in rows:
            # Parsed here and not by the driver, which would fail all rows because of one.
            metadata, unstorable = read_metadata(mapped.metadata)
            row = SourceRow(bool(mapped.alive), mapped.title, mapped.content, metadata, mapped.hash, unstorable)
            before = found.get(mapped.id)
            if before is not None and before.alive:
                if not row.alive:
                    continue
                row = replace(
                    row, unstorable="more than one living row of the source table bears this id", repeated=True
                )
            found[mapped.id] = row
        return found

    def some_ids(self, connection: Connection, limit: int) -> list[str]:
        """The ids of some living rows that can be entities, at most `limit`.

        Raises:
            StoreRefused, StoreUnavailable: as `read`.
        """
        table = self._table
        with table.reading(connection) as reading:
            table.id_types(reading)
            statement = table.fill(
                "SELECT {id} FROM {table} WHERE {alive} AND {storable} LIMIT {limit}", limit=sql.Literal(limit)
            )
            return [row[0] for row in table.run(lambda: reading.execute(statement).fetchall())]

    def hashes(self, connection: Connection, ids: Iterable[str]) -> dict[str, RowHash]:
        """By id, for those of `ids` that have a row: whether it is alive, and its hash.

        Raises:
            StoreRefused, StoreUnavailable: as `read`.
        """
        rows = self._rows_of(
            connection,
            ids,
            "SELECT {id} AS id, {is_alive} AS alive, {hash} AS hash FROM {table} WHERE {wanted}",
            _HashedRow,
        )
        # If several rows bear one id, a living row stands for them, and the one of the greatest hash, so that each read
        # of the same rows gives the same answer.
        rows.sort(key=lambda row: (bool(row.alive), row.hash))
        return {row.id: RowHash(bool(row.alive), row.hash) for row in rows}

    def updated_at(self, connection: Connection, ids: Iterable[str]) -> dict[str, datetime]:
        """By id, when the rows of those of `ids` that have one were last updated; empty if no column is mapped for it.

        A table need not have the column that is the default of the mapping.

        Raises:
            StoreRefused, StoreUnavailable: as `read`.
        """
        column = self._table.mapping.updated_at
        if column is None:
            return {}
        if "updated_at" not in self._table.mapping.model_fields_set:
            with self._table.reading(connection) as reading:
                if column not in self._table.column_types(reading):
                    return {}
        rows = self._rows_of(
            connection,
            ids,
            "SELECT {id} AS id, {updated_at}::timestamptz AS at FROM {table} WHERE {wanted}",
            _UpdatedRow,
            updated_at=sql.Identifier(column),
        )
        return {row.id: row.at for row in rows if row.at is not None}

    def _rows_of(
        self,
        connection: Connection,
        ids: Iterable[str],
        statement: str,
        make: Callable[..., Row],
        **parts: sql.Composable,
    ) -> list[Row]:
        """The rows of `ids`. The statement has the names of `MappedTable.fill` and of `parts`, is_alive and wanted."""
        table = self._table
        with table.reading(connection) as reading:
            parameters = table.parameters_of(reading, ids)
            if parameters is None:
                return []
            filled = table.fill(statement, is_alive=table.alive_with_parameters(), wanted=table.has_id_of(), **parts)
            return table.run(lambda: fetch_rows(reading, filled, make, parameters))

    def canonical_ids(self, connection: Connection, ids: Iterable[str]) -> dict[str, str]:
        """By each of `ids`, the id as the table prints it: a UUID in capitals names the row of the same one in small.

        Raises:
            StoreRefused, StoreUnavailable: as `read`.
        """
        with self._table.reading(connection) as reading:
            return {entity_id: self._table.spelled(reading, entity_id) or entity_id for entity_id in ids}

    def id_faults(self, connection: Connection, slots: tuple[int, int]) -> IdFaults:
        """The living rows of `slots` (half-open) that cannot be entities because of their ids.

        Rows without an id belong to the first slot.

        Raises:
            StoreRefused, StoreUnavailable: as `read`.
        """
        table = self._table
        with table.reading(connection) as reading:
            unique = table.ids_are_unique(reading)
            statement = table.fill(
                "SELECT nullif({id}, '') AS id, count(*) AS rows, max(octet_length({id})) AS bytes,"
                " count(*) OVER () AS total FROM {table}"
                " WHERE {alive} AND ({id} <> '' AND {within}{nameless}) {unstorable} GROUP BY 1{repeated}"
                " ORDER BY 1 NULLS FIRST LIMIT {limit}",
                within=table.within(slots),
                nameless=sql.SQL(" OR nullif({}, '') IS NULL").format(table.id) if slots[0] == 0 else sql.SQL(""),
                unstorable=sql.SQL("AND {} IS NOT TRUE").format(table.id_is_storable()) if unique else sql.SQL(""),
                repeated=sql.SQL("")
                if unique
                else sql.SQL(" HAVING count(*) > 1 OR bool_or({} IS NOT TRUE)").format(table.id_is_storable()),
                limit=sql.Literal(MOST_FAULTS + 1),
            )
            faulty = table.run(lambda: fetch_rows(reading, statement, _FaultyId))
        faults = IdFaults()
        for fault in faulty:
            if fault.id is None:
                faults.nameless = fault.rows
            elif len(faults.repeated) + len(faults.too_long) == MOST_FAULTS:
                break
            elif id_excess(fault.id) is not None:
                faults.too_long[fault.id[:BEGINNING] + "…"] = fault.bytes or 0
            else:
                faults.repeated[fault.id] = fault.rows
            faults.more = fault.total - bool(faults.nameless) - len(faults.repeated) - len(faults.too_long)
        return faults

    def find_differing(
        self, connection: Connection, entity_type: str, slots: tuple[int, int], prepared_by: str, *, force: bool
    ) -> None:
        """Make the temporary table `differing(n, entity_id, slot, bytes)`, by slot: what a full sync processes.

        Every living row of `slots` (half-open) is compared with the ledger by hash. The table holds the entities whose
        row is new, changed or gone, those whose ledger row Qdrant does not hold yet, and with `force` every living one.

        `connection`: the caller's own, in autocommit; planner settings and memory are set for the whole session.

        Raises:
            StoreRefused, StoreUnavailable: as `read`.
        """
        find = full_sync_diff.find_in_sql if self._table.database is None else full_sync_diff.find_across_databases
        find(ComparedSlots(self._table, self._schema, entity_type, slots, prepared_by), connection, force=force)

    def compare(
        self, connection: Connection, entity_type: str, slots: tuple[int, int], prepared_by: str, *, limit: int
    ) -> slot_comparison.Comparison:
        """Compare the living rows of `slots` (half-open) with the ledger, and name up to `limit` that differ.

        One statement that writes nothing and locks no row. `connection` is in a transaction of its own, for which
        parallel workers are off. Where ids repeat, one row stands for all.

        Raises:
            StoreRefused, StoreUnavailable: as `read`, or the table has been locked for some seconds.
        """
        comparing = (
            slot_comparison.compare_in_sql if self._table.database is None else slot_comparison.compare_across_databases
        )
        return comparing(ComparedSlots(self._table, self._schema, entity_type, slots, prepared_by), connection, limit)

    def copy_living(self, connection: Connection, slots: tuple[int, int]) -> None:
        """Make the temporary table `census_source(id, slot, hash)` of the living rows of `slots` (half-open).

        Raises:
            StoreRefused, StoreUnavailable: as `read`; then there is no such table.
        """
        table = self._table
        with table.reading(connection) as reading:
            unique = table.ids_are_unique(reading)
        # Of several rows that bear one id, which `id_faults` reports, one is compared.
        living = table.fill(
            "SELECT {once}{id} AS id, {slot} AS slot, {hash} AS hash FROM {table} WHERE {has_entity}",
            once=sql.SQL("") if unique else sql.SQL("DISTINCT ON ({}) ").format(table.id),
            has_entity=table.has_entity_in(slots),
        )
        if table.database is None:
            table.run(lambda: connection.execute(sql.SQL("CREATE TEMPORARY TABLE census_source AS {}").format(living)))
            return
        with connection.transaction(), table.database.transaction() as other, other.cursor("living") as theirs:
            connection.execute('CREATE TEMPORARY TABLE census_source (id text COLLATE "C", slot integer, hash text)')
            theirs.itersize = table.database.tuning.source_rows_a_fetch
            table.run(lambda: theirs.execute(living))
            with connection.cursor() as cursor, cursor.copy("COPY census_source FROM STDIN") as writer:
                for row in theirs:
                    writer.write_row(row)

    def figures(self, connection: Connection) -> TableFigures:
        """How many rows the table has, when the newest was updated, and which columns.

        Raises:
            StoreRefused, StoreUnavailable: as `read`.
        """
        with self._table.reading(connection) as reading:
            return read_figures(self._table, reading)

    @property
    def hash_expression(self) -> sql.Composable:
        """`source_hash` in SQL over the source table."""
        return self._table.hash()
