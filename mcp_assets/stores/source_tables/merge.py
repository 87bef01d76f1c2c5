"""Merge of source rows and ledger rows that are in different databases: both come in the order of their ids."""

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from mcp_assets.stores.errors import StoreRefused

SourceSide = TypeVar("SourceSide", bound=tuple[Any, ...])
LedgerSide = TypeVar("LedgerSide", bound=tuple[Any, ...])


def differing(
    source: Iterable[tuple[str, str, int]], ledger: Iterable[tuple[str, str | None, int | None]]
) -> Iterator[tuple[str, int]]:
    """The ids that differ, with the bytes of their contents; both sides come in the order of ids, by code points.

    `source`: id, hash, bytes of each living row. `ledger`: id; the hash that a source row must have for the entity to
    be up to date, None if no hash suffices; the bytes if the entity must be processed although it has no source row.

    Raises:
        StoreRefused: a side is not in this order.
    """
    for row, known in merged(source, ledger):
        if row is None:
            if known is not None and known[2] is not None:
                yield known[0], known[2]
        elif known is None or row[1] != known[1]:
            yield row[0], row[2]


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
