"""Relationships: reads and writes our rows of the table of edges; rows of other programs are left alone.

Our rows are those whose `origin` is `mcp_assets`.
"""

import json
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain, groupby, islice, repeat
from operator import attrgetter
from typing import Any

import psycopg
from psycopg import sql

from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph import (
    Edge,
    EdgeDiff,
    EdgeKey,
    EdgeType,
    ListDiff,
    ListedEdge,
    StoredEdge,
    StoredList,
)
from mcp_assets.stores.edge_copy import copy_lines, rising_ids
from mcp_assets.stores.edge_rows import EdgeCounts, ListColumns, OurEdge
from mcp_assets.stores.edge_table import EdgeTable
from mcp_assets.stores.errors import StoreRefused
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.postgres.privileges import missing_privileges
from mcp_assets.stores.postgres.relationships_shape import ORIGIN
from mcp_assets.stores.postgres.rows import fetch_rows

_LINES_AT_ONCE = 250
"""Lines of COPY that are sent in one call. Measured with 30,000 lines of 150 bytes: a call for each line takes 48 ms of
CPU, calls of 50 lines or more take 6 ms."""

_TRIAL_STRENGTH = 0.1234
"""A strength with as many decimals as any has, so that a column of fewer is noticed."""


@dataclass(slots=True)
class EdgeChanges:
    """How many edges have one of some entities as their source, and how many of these changed: by type of edge."""

    now: Counter[str] = field(default_factory=Counter)
    added: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    removed: Counter[str] = field(default_factory=Counter)

    def add(self, other: "EdgeChanges") -> None:
        self.now += other.now
        self.added += other.added
        self.changed += other.changed
        self.removed += other.removed


class Relationships(EdgeTable):
    """Our rows of the table of edges. The caller's transaction decides what is seen and when it is written."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._is_usable = False

    def require_usable(self, connection: Connection, entity_types: Sequence[str], fault: str | None) -> None:
        """Try whether the table takes edges of ours, and gives them back as they were; tried once a process.

        Other programs may have put constraints on the table. `fault`: why it could not be made or adopted; None if it
        could.

        Raises:
            StoreRefused: the table does not take them; the message says why.
        """
        if self._is_usable:
            return
        self.require_columns(connection, fault)
        if fault is not None:
            raise StoreRefused(self._unusable(f"it lacks an index; {fault}"))
        try:
            with connection.transaction(force_rollback=True):
                stored = self._write_trial_edges(connection, entity_types)
        except (psycopg.IntegrityError, psycopg.DataError, psycopg.ProgrammingError, psycopg.InternalError) as error:
            why = " ".join((error.diag.message_primary or str(error)).split())
            if isinstance(error, psycopg.errors.InsufficientPrivilege):
                why = missing_privileges(connection, why) or why
            raise StoreRefused(self._unusable(why)) from error
        if {strength for _, strength in stored} != {_TRIAL_STRENGTH}:
            raise StoreRefused(self._unusable(f"a strength of {_TRIAL_STRENGTH} comes back as {stored[0][1]}"))
        self._is_usable = True

    def _write_trial_edges(self, connection: Connection, entity_types: Sequence[str]) -> list[tuple[Any, float]]:
        """Write an edge of each type, and one between each two entity types; returns id and strength as read back."""
        connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        pairs = [*((edge_type, entity_types[0], entity_types[-1]) for edge_type in EdgeType)]
        pairs += [(EdgeType.CROSS_REFERENCE, one, other) for one in entity_types for other in entity_types]
        ends = {name: (str(uuid.uuid4()), str(uuid.uuid4())) for name in entity_types}
        edges = {
            (edge_type, one, other): ListedEdge(
                EntityRef(one, ends[one][0]), EntityRef(other, ends[other][1]), _TRIAL_STRENGTH, "{}"
            )
            for edge_type, one, other in pairs
        }
        self._copy(connection, ((edge_type, [edge]) for (edge_type, _, _), edge in edges.items()))
        statement = sql.SQL("SELECT id, strength::real FROM {} WHERE source_id = ANY(%s::{}[]) AND origin = %s").format(
            self.table, self.id_type(connection)
        )
        found = connection.execute(statement, ([one for one, _ in ends.values()], ORIGIN)).fetchall()
        self._update(connection, [row[0] for row in found], [_TRIAL_STRENGTH] * len(found), ["{}"] * len(found))
        return [(row[0], row[1]) for row in connection.execute(statement, ([one for one, _ in ends.values()], ORIGIN))]

    def count_by_source(self, connection: Connection, sources: Collection[EntityRef]) -> dict[EntityRef, Counter[str]]:
        """How many of our edges each of `sources` is the source of, by type."""
        found = self.changes_since(connection, dict.fromkeys(sources, datetime.max.replace(tzinfo=UTC)), {})
        return {ref: changes.now for ref, changes in found.items()}

    def changes_since(
        self,
        connection: Connection,
        since: Mapping[EntityRef, datetime],
        before: Mapping[EntityRef, Mapping[str, int]],
    ) -> dict[EntityRef, EdgeChanges]:
        """How our edges from each source changed since a time.

        `before`: how many there were at that time, by type: removed edges leave no row to count.
        """
        found = {ref: EdgeChanges() for ref in since}
        wanted = self.castable(connection, since)
        statement = sql.SQL(
            "SELECT source_type, source_id::text, relationship_type AS edge_type, count(*) AS now,"
            " count(*) FILTER (WHERE created_at >= since) AS added,"
            " count(*) FILTER (WHERE updated_at >= since AND created_at < since) AS changed"
            " FROM unnest(%(types)s::text[], %(ids)s::text[]::{id}[], %(since)s::timestamptz[])"
            " AS wanted (entity_type, entity_id, since)"
            " JOIN {table} ON source_type = wanted.entity_type AND source_id = wanted.entity_id"
            " WHERE origin = %(origin)s GROUP BY 1, 2, 3"
        ).format(id=self.id_type(connection), table=self.table)
        parameters = {
            "types": [ref.type for ref in wanted],
            "ids": [ref.id for ref in wanted],
            "since": [since[ref] for ref in wanted],
            "origin": ORIGIN,
        }
        for row in fetch_rows(connection, statement, EdgeCounts, parameters):
            changes = found[EntityRef(row.source_type, row.source_id)]
            changes.now[row.edge_type] = row.now
            changes.added[row.edge_type] = row.added
            changes.changed[row.edge_type] = row.changed
        for ref, changes in found.items():
            for edge_type, count_before in before.get(ref, {}).items():
                gone = count_before + changes.added[edge_type] - changes.now[edge_type]
                # `before` may lack an edge that another transaction wrote at that very time.
                changes.removed[edge_type] = max(gone, 0)
        return found

    def of_sources(
        self, connection: Connection, sources: Collection[EntityRef], types: Collection[EdgeType]
    ) -> dict[EdgeKey, tuple[uuid.UUID, Edge]]:
        """Our edges of `types` that `sources` are the source of, each with its row's id."""
        return self._ours(connection, "source", sources, types)

    def of_targets(
        self, connection: Connection, targets: Collection[EntityRef], types: Collection[EdgeType]
    ) -> dict[EdgeKey, tuple[uuid.UUID, Edge]]:
        """Our edges of `types` that lead to `targets`, each with its row's id."""
        return self._ours(connection, "target", targets, types)

    def lists(
        self, connection: Connection, sources: Collection[EntityRef], types: Collection[EdgeType]
    ) -> dict[EdgeType, dict[EntityRef, StoredList]]:
        """Our edges of the ranked `types` from each of `sources`; a source without any of a type is left out there."""
        return self.reading_lists(connection, sources, types)()

    def reading_lists(
        self,
        connection: Connection,
        sources: Collection[EntityRef],
        types: Collection[EdgeType],
        *,
        with_evidence: bool = True,
    ) -> Callable[[], dict[EdgeType, dict[EntityRef, StoredList]]]:
        """Send the query of `lists`; calling the result receives the answer.

        In a pipeline of the connection, PostgreSQL works on the query while the caller does something else.
        """
        found: dict[EdgeType, dict[EntityRef, StoredList]] = {edge_type: {} for edge_type in types}
        wanted = self.castable(connection, sources)
        if not wanted:
            return lambda: found
        # One row a list: with one row an edge, receiving takes ten times as long as finding.
        statement = sql.SQL(
            "SELECT edge.relationship_type, wanted.entity_type, wanted.entity_id::text, edge.target_types,"
            " edge.target_ids, edge.row_ids, edge.strengths, edge.evidence"
            " FROM unnest(%(types)s::text[], %(ids)s::text[]::{id}[]) AS wanted (entity_type, entity_id)"
            " CROSS JOIN LATERAL ("
            " SELECT min(relationship_type) AS relationship_type, array_agg(target_type) AS target_types,"
            " array_agg(target_id::text) AS target_ids, array_agg(id::text) AS row_ids,"
            " array_agg(strength::real) AS strengths,"
            " {evidence} AS evidence"
            " FROM {table} WHERE source_type = wanted.entity_type AND source_id = wanted.entity_id"
            " AND origin = %(origin)s AND relationship_type = ANY(%(edge_types)s::text[]::{edge_type}[]) {each_type})"
            " AS edge"
        ).format(
            table=self.table,
            id=self.id_type(connection),
            edge_type=self.edge_type_type(connection),
            # Writing metadata as text takes a third of the time.
            evidence=sql.SQL("array_agg(coalesce(metadata::text, '{}'))" if with_evidence else "NULL::text[]"),
            # Edges of one type need not be sorted by it.
            each_type=sql.SQL("GROUP BY relationship_type" if len(types) > 1 else "HAVING count(*) > 0"),
        )
        rows = connection.execute(
            statement, {**_ours_of(wanted), "edge_types": [edge_type.value for edge_type in types]}
        )

        def read() -> dict[EdgeType, dict[EntityRef, StoredList]]:
            for row in map(ListColumns._make, rows.fetchall()):
                targets = map(EntityRef._make, zip(row.target_types, row.target_ids, strict=True))
                evidence = row.evidence or repeat(None, len(row.target_ids))
                edges = map(StoredEdge._make, zip(row.row_ids, row.strengths, evidence, strict=True))
                source = EntityRef(row.source_type, row.source_id)
                found[EdgeType(row.edge_type)][source] = dict(zip(targets, edges, strict=True))
            return found

        return read

    def sources_of(self, connection: Connection, targets: Collection[EntityRef], edge_type: EdgeType) -> set[EntityRef]:
        """The entities from which our edges of `edge_type` lead to `targets`."""
        wanted = self.castable(connection, targets)
        if not wanted:
            return set()
        statement = sql.SQL(
            "SELECT DISTINCT edge.* FROM unnest(%(types)s::text[], %(ids)s::text[]::{id}[])"
            " AS wanted (entity_type, entity_id) CROSS JOIN LATERAL ("
            " SELECT source_type, source_id::text FROM {table}"
            " WHERE target_type = wanted.entity_type AND target_id = wanted.entity_id"
            " AND origin = %(origin)s AND relationship_type = %(edge_type)s OFFSET 0) AS edge"
        ).format(table=self.table, id=self.id_type(connection))
        rows = connection.execute(statement, {**_ours_of(wanted), "edge_type": edge_type.value})
        return {EntityRef(*row) for row in rows}

    def write(self, connection: Connection, found: EdgeDiff, rows: Mapping[EdgeKey, uuid.UUID | str]) -> None:
        """Write the differences in `found`. `rows`: the id of the row of each edge that is changed or removed."""
        self._delete(connection, [rows[edge.key] for edge in found.removed])
        self._update(
            connection,
            [rows[edge.key] for edge in found.changed],
            [edge.strength for edge in found.changed],
            [_json(edge.metadata) for edge in found.changed],
        )
        by_type = attrgetter("type")
        self._copy(
            connection,
            (
                (
                    edge_type,
                    [ListedEdge(edge.source, edge.target, edge.strength, _json(edge.metadata)) for edge in edges],
                )
                for edge_type, edges in groupby(sorted(found.added, key=by_type), by_type)
            ),
        )

    def write_lists(self, connection: Connection, found: Iterable[tuple[EdgeType, ListDiff]]) -> None:
        """As `write`, of ranked lists.

        The next item of `found` is made while PostgreSQL writes the one before, so that making it must not use the same
        connection.
        """
        removed: list[str] = []
        changed: list[tuple[str, ListedEdge]] = []

        def added() -> Iterator[tuple[EdgeType, Sequence[ListedEdge]]]:
            for edge_type, part in found:
                removed.extend(row for row, _ in part.removed)
                changed.extend(part.changed)
                yield edge_type, part.added

        self._copy(connection, added())
        self._delete(connection, removed)
        self._update(
            connection,
            [row for row, _ in changed],
            [edge.strength for _, edge in changed],
            [edge.evidence for _, edge in changed],
        )

    def counts_from(self, connection: Connection, entity_type: str, ranges: Sequence[tuple[int, int]]) -> list[int]:
        """How many edges, ours and those of other programs, have their source in each of some ranges of slots.

        The ranges are half-open, and stand in rising order without gaps. All edges of the type are read once, and each
        source is hashed once.
        """
        lows, end = [low for low, _ in ranges], ranges[-1][1]
        rows = connection.execute(
            sql.SQL(
                "SELECT width_bucket(slot, %(lows)s::integer[]), sum(edges)::bigint FROM ("
                " SELECT ('x' || substr(md5(source_id::text), 1, 4))::bit(16)::integer AS slot, edges FROM ("
                " SELECT source_id, count(*) AS edges FROM {} WHERE source_type = %(entity_type)s GROUP BY source_id"
                ") AS counted) AS of_slots WHERE slot < %(end)s GROUP BY 1"
            ).format(self.table),
            {"lows": lows, "end": end, "entity_type": entity_type},
        )
        counts: dict[int, int] = dict(rows.fetchall())
        return [counts.get(number, 0) for number in range(1, len(ranges) + 1)]

    def _delete(self, connection: Connection, rows: Sequence[uuid.UUID | str]) -> None:
        if rows:
            connection.execute(sql.SQL("DELETE FROM {} WHERE id = ANY(%s)").format(self.table), (rows,))

    def _update(
        self,
        connection: Connection,
        rows: Sequence[uuid.UUID | str],
        strengths: Sequence[float],
        evidence: Sequence[str],
    ) -> None:
        if rows:
            connection.execute(
                sql.SQL(
                    "UPDATE {} AS edge SET strength = new.strength, metadata = new.metadata::jsonb, updated_at = now()"
                    " FROM unnest(%s::text[]::{}[], %s::real[], %s::text[]) AS new (id, strength, metadata)"
                    " WHERE edge.id = new.id"
                ).format(self.table, sql.SQL(self.row_id_type(connection))),
                (list(map(str, rows)), strengths, evidence),
            )

    def _copy(self, connection: Connection, added: Iterable[tuple[EdgeType, Sequence[ListedEdge]]]) -> None:
        own_ids = self.row_id_type(connection) == "uuid"
        copy = sql.SQL(
            "COPY {} ({}source_type, source_id, target_type, target_id, relationship_type, strength, metadata, origin)"
            " FROM STDIN"
        ).format(self.table, sql.SQL("id, " if own_ids else ""))
        lines = copy_lines(added, rising_ids() if own_ids else repeat(""))
        parts = iter(lambda: "".join(islice(lines, _LINES_AT_ONCE)), "")
        first = next(parts, None)
        if first is not None:
            with connection.cursor() as cursor, cursor.copy(copy) as writer:
                for part in chain((first,), parts):
                    writer.write(part)

    def _ours(
        self, connection: Connection, end: str, refs: Collection[EntityRef], types: Collection[EdgeType]
    ) -> dict[EdgeKey, tuple[uuid.UUID, Edge]]:
        wanted = self.castable(connection, refs)
        if not wanted:
            return {}
        # OFFSET 0 makes the planner look each entity up by itself. Otherwise it may read the whole table for every
        # batch, if the table has grown since it was last analysed.
        statement = sql.SQL(
            "SELECT edge.* FROM unnest(%(types)s::text[], %(ids)s::text[]::{id}[]) AS wanted (entity_type, entity_id)"
            " CROSS JOIN LATERAL ("
            " SELECT id, source_type, source_id::text, target_type, target_id::text, relationship_type AS edge_type,"
            " strength::real, metadata FROM {table}"
            " WHERE {end_type} = wanted.entity_type AND {end_id} = wanted.entity_id"
            " AND origin = %(origin)s AND relationship_type = ANY(%(edge_types)s::text[]::{edge_type}[]) OFFSET 0)"
            " AS edge"
        ).format(
            table=self.table,
            id=self.id_type(connection),
            edge_type=self.edge_type_type(connection),
            end_type=sql.Identifier(f"{end}_type"),
            end_id=sql.Identifier(f"{end}_id"),
        )
        parameters = {**_ours_of(wanted), "edge_types": [edge_type.value for edge_type in types]}
        found = {}
        for row in fetch_rows(connection, statement, OurEdge, parameters):
            source, target = EntityRef(row.source_type, row.source_id), EntityRef(row.target_type, row.target_id)
            edge = Edge(source, target, EdgeType(row.edge_type), row.strength, row.metadata or {})
            found[edge.key] = (row.id, edge)
        return found


def _ours_of(refs: Sequence[EntityRef]) -> dict[str, Any]:
    """The parameters of a query of our rows at `refs`."""
    return {"types": [ref.type for ref in refs], "ids": [ref.id for ref in refs], "origin": ORIGIN}


def _json(metadata: Mapping[str, Any]) -> str:
    return json.dumps(metadata, ensure_ascii=False)
