"""Comparison of a range of slots with the ledger: how many rows differ, and which. It writes nothing (the sweep)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from psycopg import sql

from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.postgres.rows import fetch_row
from mcp_assets.stores.source_tables import merge
from mcp_assets.stores.source_tables.mapping_sql import ComparedSlots

_PLANNING = """
SELECT set_config('work_mem', greatest(pg_size_bytes(current_setting('work_mem')) / 1024, 64 * 1024) || 'kB', true),
       set_config('max_parallel_workers_per_gather', '0', true), set_config('cursor_tuple_fraction', '1', true),
       set_config('jit', 'off', true), set_config('lock_timeout', '2s', true)
"""
"""For the transaction alone: one core, and no wait behind a session that changes the table's shape."""


@dataclass(slots=True)
class Comparison:
    """A range of slots of a source table beside its ledger rows: how many rows, and which of them differ."""

    rows: int = 0
    """Living rows of the source table."""
    living: int = 0
    """Entities that are alive in the ledger and came from a source row."""
    behind: int = 0
    """Rows that are new or changed."""
    vanished: int = 0
    """Entities that are alive in the ledger and have no living row any more."""
    otherwise_prepared: int = 0
    """Entities prepared by another mapping or text builder, whose hash does not show whether their rows changed."""
    found: dict[str, str | None] = field(default_factory=dict)
    """Ids that differ, at most as many as were asked for, with the hash of the row; None for one that vanished."""


def compare_in_sql(compared: ComparedSlots, connection: Connection, limit: int) -> Comparison:
    """Compare a table that is in the database of the ledger, in one statement."""
    connection.execute(_PLANNING)
    statement = compared.fill(
        """
        SELECT count(id) AS rows, count(*) FILTER (WHERE living AND origin = 'source') AS living,
               count(*) FILTER (WHERE behind) AS behind, count(*) FILTER (WHERE vanished) AS vanished,
               count(*) FILTER (WHERE otherwise_prepared) AS otherwise_prepared,
               (array_agg(coalesce(id, entity_id)) FILTER (WHERE behind OR vanished))[1:{limit}] AS ids,
               (array_agg(hash) FILTER (WHERE behind OR vanished))[1:{limit}] AS hashes
        FROM (
            SELECT id, entity_id, origin, hash, living,
                   id IS NOT NULL AND (
                       living IS NOT TRUE OR prepared_by = {prepared_by} AND source_hash IS DISTINCT FROM hash
                   ) AS behind,
                   id IS NULL AND living AND origin = 'source' AS vanished,
                   id IS NOT NULL AND living AND prepared_by <> {prepared_by} AS otherwise_prepared
            FROM (SELECT {id} AS id, {hash} AS hash FROM {table} WHERE {has_entity}) AS source
            FULL JOIN (
                SELECT entity_id, origin, source_hash, prepared_by, deleted_at IS NULL AS living
                FROM {entities} WHERE {in_ledger}
            ) AS ledger ON source.id = ledger.entity_id
        ) AS compared
        """,
        limit=sql.Literal(limit),
    )
    result = compared.table.run(lambda: fetch_row(connection, statement, _comparison))
    assert result is not None  # noqa: S101  (an aggregate without groups has one row)
    return result


def _comparison(*, ids: Sequence[str] | None, hashes: Sequence[str | None] | None, **counts: int) -> Comparison:
    return Comparison(**counts, found=_by_id(zip(ids or (), hashes or (), strict=True)))


def compare_across_databases(compared: ComparedSlots, connection: Connection, limit: int) -> Comparison:
    """Compare a table that is in another database: both sides come in the order of ids and are merged."""
    connection.execute(_PLANNING)
    source = compared.fill("SELECT {id}, {hash} FROM {table} WHERE {has_entity} ORDER BY {id}, 2")
    ledger = compared.fill(
        "SELECT entity_id, source_hash, origin = 'source' AS from_source, prepared_by = {prepared_by} AS prepared_alike"
        " FROM {entities} WHERE {in_ledger} AND deleted_at IS NULL ORDER BY entity_id"
    )
    result = Comparison()
    with merge.both_sides(
        compared.table,
        connection,
        lambda other: other.execute(_PLANNING),
        (source, _SourceHash),
        (ledger, _LedgerHash),
    ) as (theirs, ours):
        for row, known in merge.merged(theirs, ours):
            _count(result, row, known, limit)
    return result


class _SourceHash(NamedTuple):
    """A living source row. Like `_LedgerHash` it is made by position, because a sweep merges all rows of a table."""

    id: str
    hash: str


class _LedgerHash(NamedTuple):
    """The ledger row of a living entity."""

    id: str
    source_hash: str | None
    from_source: bool
    prepared_alike: bool


def _count(result: Comparison, row: _SourceHash | None, known: _LedgerHash | None, limit: int) -> None:
    """Add one pair to `result`: source row and ledger row of an entity, of which at least one is there."""
    result.rows += row is not None
    result.living += known is not None and known.from_source
    if row is None:
        assert known is not None  # noqa: S101  (one of the two is there)
        if known.from_source:
            result.vanished += 1
            if len(result.found) < limit:
                result.found[known.id] = None
    elif known is not None and not known.prepared_alike:
        result.otherwise_prepared += 1
    elif known is None or known.source_hash != row.hash:
        result.behind += 1
        if len(result.found) < limit:
            result.found[row.id] = row.hash


def _by_id(found: Iterable[tuple[str, str | None]]) -> dict[str, str | None]:
    """By id, the least hash of the rows that bear it, so that each pass over the same rows names the same hash."""
    return dict(sorted(found, key=lambda one: (one[0], one[1] or ""), reverse=True))
