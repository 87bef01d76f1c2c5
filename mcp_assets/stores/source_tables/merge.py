"""Merge of source rows and ledger rows that are in different databases: both come in the order of their ids."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import psycopg
from psycopg import sql
from psycopg.rows import args_row

from mcp_assets.stores.errors import StoreRefused
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.source_tables.mapping_sql import MappedTable

SourceSide = TypeVar("SourceSide", bound=tuple[Any, ...])
LedgerSide = TypeVar("LedgerSide", bound=tuple[Any, ...])


class SourceSize(NamedTuple):
    """A living source row: its hash, and the bytes of its content. Rows are made by position, as there are many."""

    id: str
    hash: str
    bytes: int


class LedgerSize(NamedTuple):
    """A ledger row, by what a full sync needs to know of it."""

    id: str
    hash_if_current: str | None
    """The hash of the source row if the entity is up to date; None: the entity is processed whatever the hash."""
    bytes_without_row: int | None
    """The bytes of the content if the entity is processed although it has no source row; None: it is not."""


@contextmanager
def both_sides(
    table: MappedTable,
    connection: Connection,
    prepare: Callable[[Connection], object],
    source: tuple[sql.Composed, type[SourceSide]],
    ledger: tuple[sql.Composed, type[LedgerSide]],
) -> Iterator[tuple[psycopg.ServerCursor[SourceSide], psycopg.ServerCursor[LedgerSide]]]:
    """The rows of a table in another database, and those of the ledger: each by a statement and the class of its rows.

    The columns of a statement stand in the order of the fields of the class. `prepare` is called with the connection to
    the other database before its statement.
    """
    assert table.database is not None  # noqa: S101  (the caller asked)
    with (
        table.database.transaction() as other,
        connection.transaction(),
        other.cursor("source", row_factory=args_row(source[1])) as theirs,
        connection.cursor("ledger", row_factory=args_row(ledger[1])) as ours,
    ):
        prepare(other)
        theirs.itersize = ours.itersize = table.database.tuning.source_rows_a_fetch
        table.run(lambda: theirs.execute(source[0]))
        ours.execute(ledger[0])
        yield theirs, ours


def differing(source: Iterable[SourceSize], ledger: Iterable[LedgerSize]) -> Iterator[tuple[str, int]]:
    """The ids that differ, with the bytes of their contents; both sides come in the order of ids, by code points.

    Raises:
        StoreRefused: a side is not in this order.
    """
    for row, known in merged(source, ledger):
        if row is None:
            if known is not None and known.bytes_without_row is not None:
                yield known.id, known.bytes_without_row
        elif known is None or row.hash != known.hash_if_current:
            yield row.id, row.bytes


def merged(
    source: Iterable[SourceSide], ledger: Iterable[LedgerSide]
) -> Iterator[tuple[SourceSide | None, LedgerSide | None]]:
    """The rows of both sides in pairs by id, None where a side has no row of that id.

    A row begins with its id, and the ids of each side ascend by code points.

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


def _ordered(rows: Iterable[SourceSide], side: str) -> Iterator[SourceSide]:
    """`rows`; of several that bear one id, the first alone."""
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
