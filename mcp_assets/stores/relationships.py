"""Relationships: reads and writes our rows of the table of edges; those of others are left alone."""

import json
import re
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain, count, groupby, islice, repeat
from operator import attrgetter
from typing import Any, NamedTuple

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
from mcp_assets.stores.errors import StoreRefused
from mcp_assets.stores.migrations.relationships import ORIGIN
from mcp_assets.stores.postgres import Connection

_LINES_AT_ONCE = 250

_SOURCE, _TARGET, _EVIDENCE = attrgetter("source"), attrgetter("target"), attrgetter("evidence")

_TO_ESCAPE = re.compile(r"[\\\t\n\r]")

_COPY_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})

_NEEDED = (
    "source_type",
    "source_id",
    "target_type",
    "target_id",
    "relationship_type",
    "strength",
    "metadata",
    "origin",
    "updated_at",
)

_TRIED = 0.1234
"""A strength with as many decimals as any has."""

_ID_TYPES = frozenset({"text", "uuid", "character varying"})


class Orphan(NamedTuple):
    """An edge, ours or of others, that lacks a living end. A type may be unknown in the rows of others."""

    id: str
    source_type: str | None
    source_id: str
    target_type: str | None
    target_id: str
    edge_type: str
    origin: str | None
    has_source: bool
    has_target: bool


@dataclass(slots=True)
class EdgeChanges:
    """What became of the edges that an entity, or several, are the source of: numbers by edge type."""

    now: Counter[str] = field(default_factory=Counter)
    added: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    removed: Counter[str] = field(default_factory=Counter)

    def add(self, other: "EdgeChanges") -> None:
        self.now += other.now
        self.added += other.added
        self.changed += other.changed
        self.removed += other.removed


class Relationships:
    """The table of edges. The caller's transaction decides what is seen and when it is written."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.table = sql.Identifier(*name.split("."))
        self._column_types: dict[str, str] | None = None
        self._is_usable = False

    def require_usable(self, connection: Connection, entity_types: Sequence[str], fault: str | None) -> None:
        """Try whether the table takes edges of ours, and gives them back as they were; tried once a process.

        `fault`: why it could not be made or adopted, if so. Others may have put constraints on it.

        Raises:
            StoreRefused: it does not, with what is in the way.
        """
        if self._is_usable:
            return
        self.require_columns(connection, fault)
        if fault is not None:
            raise StoreRefused(self._unusable(f"it lacks an index; {fault}"))
        try:
            with connection.transaction(force_rollback=True):
                stored = self._try(connection, entity_types)
        except (psycopg.IntegrityError, psycopg.DataError, psycopg.ProgrammingError, psycopg.InternalError) as error:
            what = " ".join((error.diag.message_primary or str(error)).split())
            raise StoreRefused(self._unusable(what)) from error
        if {strength for _, strength in stored} != {_TRIED}:
            raise StoreRefused(self._unusable(f"a strength of {_TRIED} comes back as {stored[0][1]}"))
        self._is_usable = True

    def require_columns(self, connection: Connection, fault: str | None) -> None:
        """What reading edges needs; `fault` as of `require_usable`.

        Raises:
            StoreRefused: the table is absent, or was not adopted and lacks columns.
        """
        absent = [name for name in _NEEDED if name not in self._types(connection)]
        if absent:
            reason = fault or "it was changed while this process ran"
            raise StoreRefused(self._unusable(f"it lacks {', '.join(absent)}; {reason}"))

    def _try(self, connection: Connection, entity_types: Sequence[str]) -> list[tuple[Any, float]]:
        """Write an edge of each type and between each two entity types; what comes back of them."""
        connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        pairs = [*((edge_type, entity_types[0], entity_types[-1]) for edge_type in EdgeType)]
        pairs += [(EdgeType.CROSS_REFERENCE, one, other) for one in entity_types for other in entity_types]
        ends = {name: (str(uuid.uuid4()), str(uuid.uuid4())) for name in entity_types}
        edges = {
            (edge_type, one, other): ListedEdge(
                EntityRef(one, ends[one][0]), EntityRef(other, ends[other][1]), _TRIED, "{}"
            )
            for edge_type, one, other in pairs
        }
        self._copy(connection, ((edge_type, [edge]) for (edge_type, _, _), edge in edges.items()))
        statement = sql.SQL("SELECT id, strength::real FROM {} WHERE source_id = ANY(%s::{}[]) AND origin = %s").format(
            self.table, self.id_type(connection)
        )
        found = connection.execute(statement, ([one for one, _ in ends.values()], ORIGIN)).fetchall()
        self._update(connection, [row[0] for row in found], [_TRIED] * len(found), ["{}"] * len(found))
        return [(row[0], row[1]) for row in connection.execute(statement, ([one for one, _ in ends.values()], ORIGIN))]

    def _unusable(self, what: str) -> str:
        return (
            f"the table {self.name} cannot hold our edges ({what}): take away what is in the way, or name another "
            "table in MCP_ASSETS_RELATIONSHIPS_TABLE; everything else goes on without edges"
        )

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
        """What became of our edges from each source since a time; `before`: how many there were then, by type."""
        found = {ref: EdgeChanges() for ref in since}
        wanted = self.castable(connection, since)
        statement = sql.SQL(
            "SELECT source_type, source_id::text, relationship_type, count(*),"
            " count(*) FILTER (WHERE created_at >= since),"
            " count(*) FILTER (WHERE updated_at >= since AND created_at < since)"
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
        for entity_type, entity_id, edge_type, now, added, changed in connection.execute(statement, parameters):
            changes = found[EntityRef(entity_type, entity_id)]
            changes.now[edge_type] = now
            changes.added[edge_type] = added
            changes.changed[edge_type] = changed
        for ref, changes in found.items():
            for edge_type, count_before in before.get(ref, {}).items():
                gone = count_before + changes.added[edge_type] - changes.now[edge_type]
                # An edge that another transaction wrote at that very time may be missing in `before`.
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
        """As `lists`, to be called when they are needed: in a pipeline of the connection they are read meanwhile."""
        found: dict[EdgeType, dict[EntityRef, StoredList]] = {edge_type: {} for edge_type in types}
        wanted = self.castable(connection, sources)
        if not wanted:
            return lambda: found
        # Aggregated, for one row an edge takes ten times as long to receive as it does to find.
        statement = sql.SQL(
            "SELECT edge.relationship_type, wanted.entity_type, wanted.entity_id::text, edge.types, edge.ids,"
            " edge.rows, edge.strengths, edge.evidence"
            " FROM unnest(%(types)s::text[], %(ids)s::text[]::{id}[]) AS wanted (entity_type, entity_id)"
            " CROSS JOIN LATERAL ("
            " SELECT min(relationship_type) AS relationship_type, array_agg(target_type) AS types,"
            " array_agg(target_id::text) AS ids, array_agg(id::text) AS rows, array_agg(strength::real) AS strengths,"
            " {evidence} AS evidence"
            " FROM {table} WHERE source_type = wanted.entity_type AND source_id = wanted.entity_id"
            " AND origin = %(origin)s AND relationship_type = ANY(%(edge_types)s::text[]::{kind}[]) {each_type})"
            " AS edge"
        ).format(
            table=self.table,
            id=self.id_type(connection),
            kind=self._kind(connection),
            # Writing it as a text is a third of the work.
            evidence=sql.SQL("array_agg(coalesce(metadata::text, '{}'))" if with_evidence else "NULL::text[]"),
            # Edges of one type need not be sorted by it.
            each_type=sql.SQL("GROUP BY relationship_type" if len(types) > 1 else "HAVING count(*) > 0"),
        )
        rows = connection.execute(
            statement, {**_ours_of(wanted), "edge_types": [edge_type.value for edge_type in types]}
        )

        def read() -> dict[EdgeType, dict[EntityRef, StoredList]]:
            for edge_type, source_type, source_id, types, ids, *held, evidence in rows.fetchall():
                targets = map(EntityRef._make, zip(types, ids, strict=True))
                edges = map(StoredEdge._make, zip(*held, evidence or repeat(None, len(ids)), strict=True))
                found[EdgeType(edge_type)][EntityRef(source_type, source_id)] = dict(zip(targets, edges, strict=True))
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
        """Bring our rows to what `found` says; `rows` has the row of each edge that changes or goes."""
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

        `found` is made while PostgreSQL writes what came before: it cannot ask the same connection for anything.
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

    def orphans(self, schema: str, entity_type: str, slots: tuple[int, int], types: Sequence[str]) -> sql.Composed:
        """The query of edges from a partition that lack a living end; rows as `Orphan` takes them.

        Edges of others are judged by their registered types, or by their ids where they bear no type. What bears no
        registered source type belongs to the first of `types`.
        """
        owned = sql.SQL("edge.source_type = {}").format(sql.Literal(entity_type))
        if entity_type == types[0]:
            owned = sql.SQL("({} OR edge.source_type IS NULL OR edge.source_type <> ALL({}))").format(
                owned, sql.Literal(list(types))
            )
        return self._orphans(schema, types) + sql.SQL(
            " AND {owned} AND ('x' || substr(md5(edge.source_id::text), 1, 4))::bit(16)::integer >= {low}"
            " AND ('x' || substr(md5(edge.source_id::text), 1, 4))::bit(16)::integer < {high}"
        ).format(owned=owned, low=sql.Literal(slots[0]), high=sql.Literal(slots[1]))

    def orphans_among(
        self, connection: Connection, schema: str, ids: Sequence[str], types: Sequence[str]
    ) -> list["Orphan"]:
        """Those of the rows `ids` that lack a living end now."""
        statement = self._orphans(schema, types) + sql.SQL(" AND edge.id::text = ANY({})").format(
            sql.Literal(list(ids))
        )
        return [Orphan(*row) for row in connection.execute(statement)]

    def delete_orphans(
        self, connection: Connection, schema: str, ids: Sequence[str], types: Sequence[str], *, ours: bool
    ) -> int:
        """Remove those of the rows `ids` that lack a living end now. Returns how many.

        `ours`: rows of ours alone, or else rows of others alone.
        """
        orphans = [
            orphan.id
            for orphan in self.orphans_among(connection, schema, ids, types)
            if (orphan.origin == ORIGIN) is ours
        ]
        return connection.execute(
            sql.SQL("DELETE FROM {} WHERE id::text = ANY(%s) AND (origin IS NOT DISTINCT FROM %s) = %s").format(
                self.table
            ),
            (orphans, ORIGIN, ours),
        ).rowcount

    def count_from(self, connection: Connection, entity_type: str, slots: tuple[int, int]) -> int:
        """How many edges, of whatever origin, have their source in a partition."""
        row = connection.execute(
            sql.SQL(
                "SELECT count(*) FROM {} WHERE source_type = %s"
                " AND ('x' || substr(md5(source_id::text), 1, 4))::bit(16)::integer >= %s"
                " AND ('x' || substr(md5(source_id::text), 1, 4))::bit(16)::integer < %s"
            ).format(self.table),
            (entity_type, *slots),
        ).fetchone()
        return row[0] if row else 0

    def _orphans(self, schema: str, types: Sequence[str]) -> sql.Composed:
        lacking = sql.SQL(
            "(edge.origin IS NOT DISTINCT FROM {ours} AND edge.{end_type} <> ALL({types})"
            " OR {end}.entity_id IS NULL AND (edge.origin IS NOT DISTINCT FROM {ours}"
            " OR coalesce(edge.{end_type} = ANY({types}), false)"
            " OR (edge.{end_type} IS NULL AND NOT EXISTS (SELECT FROM {schema}.entities AS any_type"
            " WHERE any_type.entity_type = ANY({types}) AND any_type.entity_id = edge.{end_id}::text"
            " AND any_type.deleted_at IS NULL))))"
        )
        joined = sql.SQL(
            " LEFT JOIN {schema}.entities AS {end} ON {end}.entity_type = edge.{end_type}"
            " AND {end}.entity_id = edge.{end_id}::text AND {end}.deleted_at IS NULL"
        )
        ends = [
            {
                "schema": sql.Identifier(schema),
                "end": sql.Identifier(end),
                "end_type": sql.Identifier(f"{end}_type"),
                "end_id": sql.Identifier(f"{end}_id"),
                "ours": sql.Literal(ORIGIN),
                "types": sql.Literal(list(types)),
            }
            for end in ("source", "target")
        ]
        return sql.SQL(
            "SELECT edge.id::text, edge.source_type, edge.source_id::text, edge.target_type, edge.target_id::text,"
            " edge.relationship_type, edge.origin, NOT {no_source}, NOT {no_target}"
            " FROM {table} AS edge{joins} WHERE ({no_source} OR {no_target})"
        ).format(
            table=self.table,
            joins=sql.SQL("").join(joined.format(**end) for end in ends),
            no_source=lacking.format(**ends[0]),
            no_target=lacking.format(**ends[1]),
        )

    def storable(self, connection: Connection, edges: Iterable[Edge]) -> list[Edge]:
        """Those of `edges` whose ids the table can hold: an adopted table may hold UUIDs only."""
        if self._type_of_id(connection) != "uuid":
            return list(edges)
        return [edge for edge in edges if _is_uuid(edge.source.id) and _is_uuid(edge.target.id)]

    def listable(self, connection: Connection, edges: Iterable[ListedEdge]) -> Iterable[ListedEdge]:
        """As `storable`, of edges of ranked lists."""
        if self._type_of_id(connection) != "uuid":
            return edges
        return (edge for edge in edges if _is_uuid(edge.source.id) and _is_uuid(edge.target.id))

    def id_type(self, connection: Connection) -> sql.SQL:
        """The type of the columns source_id and target_id, to cast ids to."""
        return sql.SQL(self._type_of_id(connection))  # one of _ID_TYPES

    def castable(self, connection: Connection, refs: Iterable[EntityRef]) -> Sequence[EntityRef]:
        """Those of `refs` that the table can name."""
        if self._type_of_id(connection) != "uuid":
            return list(refs)
        return [ref for ref in refs if _is_uuid(ref.id)]

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
                ).format(self.table, sql.SQL(self._types(connection)["id"])),
                (list(map(str, rows)), strengths, evidence),
            )

    def _copy(self, connection: Connection, added: Iterable[tuple[EdgeType, Sequence[ListedEdge]]]) -> None:
        own_ids = self._types(connection).get("id") == "uuid"
        copy = sql.SQL(
            "COPY {} ({}source_type, source_id, target_type, target_id, relationship_type, strength, metadata, origin)"
            " FROM STDIN"
        ).format(self.table, sql.SQL("id, " if own_ids else ""))
        lines = _lines(added, _uuids() if own_ids else repeat(""))
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
        # OFFSET 0 keeps the look-up of each entity apart: joined as a whole, a table that has grown since it was last
        # analysed is read from end to end for every batch.
        statement = sql.SQL(
            "SELECT edge.* FROM unnest(%(types)s::text[], %(ids)s::text[]::{id}[]) AS wanted (entity_type, entity_id)"
            " CROSS JOIN LATERAL ("
            " SELECT id, source_type, source_id::text, target_type, target_id::text, relationship_type,"
            " strength::real, metadata FROM {table}"
            " WHERE {end_type} = wanted.entity_type AND {end_id} = wanted.entity_id"
            " AND origin = %(origin)s AND relationship_type = ANY(%(edge_types)s::text[]::{kind}[]) OFFSET 0) AS edge"
        ).format(
            table=self.table,
            id=self.id_type(connection),
            kind=self._kind(connection),
            end_type=sql.Identifier(f"{end}_type"),
            end_id=sql.Identifier(f"{end}_id"),
        )
        rows = connection.execute(
            statement, {**_ours_of(wanted), "edge_types": [edge_type.value for edge_type in types]}
        )
        found = {}
        for row_id, source_type, source_id, target_type, target_id, edge_type, strength, metadata in rows:
            source, target = EntityRef(source_type, source_id), EntityRef(target_type, target_id)
            edge = Edge(source, target, EdgeType(edge_type), strength, metadata or {})
            found[edge.key] = (row_id, edge)
        return found

    def _kind(self, connection: Connection) -> sql.SQL:
        """The type of the column relationship_type, to cast names to: an adopted table may have an enumeration."""
        found = self._types(connection).get("relationship_type", "text")
        return sql.SQL("text" if found == "character varying" else found)

    def _type_of_id(self, connection: Connection) -> str:
        found = self._types(connection).get("source_id", "absent")
        if found not in _ID_TYPES:
            raise StoreRefused(
                f"the table {self.name} cannot hold edges: source_id is {found}, and has to be text or uuid: name "
                "another table in MCP_ASSETS_RELATIONSHIPS_TABLE"
            )
        return found

    def _types(self, connection: Connection) -> Mapping[str, str]:
        """The types of the columns, by name."""
        if not self._column_types:
            rows = connection.execute(
                "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute"
                " WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped",
                (self.table.as_string(connection),),
            )
            self._column_types = {str(name): str(type_name) for name, type_name in rows}
        return self._column_types


def _lines(added: Iterable[tuple[EdgeType, Sequence[ListedEdge]]], ids: Iterator[str]) -> Iterator[str]:
    """The rows as COPY takes them, each with the next of `ids` at its start."""
    # Many edges share names and evidence.
    names: dict[EntityRef, str] = {}
    copied: dict[str, str] = {}
    for edge_type, edges in added:
        for ref in {*map(_SOURCE, edges), *map(_TARGET, edges)} - names.keys():
            names[ref] = f"{_copied(ref.type)}\t{_copied(ref.id)}\t"
        for text in {*map(_EVIDENCE, edges)} - copied.keys():
            copied[text] = f"\t{_copied(text)}\t{ORIGIN}\n"
        of_type = f"{edge_type.value}\t"
        for row, (source, target, strength, text) in zip(ids, edges, strict=False):
            yield f"{row}{names[source]}{names[target]}{of_type}{strength}{copied[text]}"


def _uuids() -> Iterator[str]:
    """UUIDs of version 7, rising, each with a tab behind it.

    Made here: PostgreSQL draws random bits for each row, which takes a third of the time of writing it.
    """
    drawn = uuid.uuid4().hex
    moment = f"{time.time_ns() // 1_000_000:012x}"
    # Variant and random bits as they were drawn; what is left counts.
    prefix = f"{moment[:8]}-{moment[8:]}-7{drawn[:3]}-{drawn[16:20]}-{drawn[20:24]}"
    return (f"{prefix}{number:08x}\t" for number in count())


def _ours_of(refs: Sequence[EntityRef]) -> dict[str, Any]:
    """The parameters that name `refs`, and our rows."""
    return {"types": [ref.type for ref in refs], "ids": [ref.id for ref in refs], "origin": ORIGIN}


def _copied(text: str) -> str:
    """`text` as COPY takes it."""
    return text.translate(_COPY_ESCAPES) if _TO_ESCAPE.search(text) else text


def _json(metadata: Mapping[str, Any]) -> str:
    return json.dumps(metadata, ensure_ascii=False)


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
