"""Faults that the tests of a census make in the stores, one for each kind of drift, and what has to be found of each.

Each fault breaks some of the tasks that `hashing.fill` makes, or adds rows and points beside them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from psycopg import sql
from qdrant_client import models

from mcp_assets.entities.points import Key, chunk_id, point_id
from mcp_assets.entities.refs import EntityRef
from mcp_assets.platform import Platform
from mcp_assets.sync.consistency.drift import DriftKind
from mcp_assets_tests.hashing import TASKS, points, qdrant, task_point

BROKEN = 4
"""Tasks that each fault breaks: an even number, because some of them break pairs."""


@dataclass(frozen=True)
class Fault:
    """`make` breaks the tasks t1, t2, … of the numbers that it gets, BROKEN of them."""

    name: str
    make: Callable[[Platform, Sequence[int]], None]
    drift: Mapping[DriftKind, int]
    """What a deep census finds of it."""
    embedded: int = 0
    """Texts that a repair embeds for it."""
    besides: frozenset[DriftKind] = field(default_factory=frozenset)
    """Kinds that may be found, too."""
    left: frozenset[DriftKind] = field(default_factory=frozenset)
    """Kinds of `drift` that a repair leaves unless a person asks for more."""
    gone: int = 0
    """Tasks that no longer exist after the repair."""


def execute(platform: Platform, statement: str, *parameters: object) -> None:
    with platform.postgres.transaction() as connection:
        connection.execute(sql.SQL(statement), parameters)


def ids(numbers: Sequence[int]) -> list[str]:
    return [f"t{number}" for number in numbers]


def _delete_points(platform: Platform, numbers: Sequence[int]) -> None:
    with qdrant(platform) as client:
        client.delete(TASKS, models.PointIdsList(points=[task_point(n) for n in numbers]), wait=True)


def _payload(**changed: object) -> Callable[[Platform, Sequence[int]], None]:
    def make(platform: Platform, numbers: Sequence[int]) -> None:
        with qdrant(platform) as client:
            client.set_payload(TASKS, changed, points=[task_point(n) for n in numbers], wait=True)

    return make


def _swap_vectors(platform: Platform, numbers: Sequence[int]) -> None:
    with qdrant(platform) as client:
        swapped = points(client, *numbers)
        for one, other in zip(swapped[::2], swapped[1::2], strict=True):
            one.vector, other.vector = other.vector, one.vector
        client.upsert(TASKS, swapped, wait=True)


def _points_of_entities_that_never_were(platform: Platform, numbers: Sequence[int]) -> None:
    with qdrant(platform) as client:
        orphans = points(client, *numbers)
        for number, orphan in zip(numbers, orphans, strict=True):
            ref = EntityRef("task", f"never{number}")
            orphan.id = str(point_id(ref))
            orphan.payload = {**(orphan.payload or {}), Key.ENTITY_ID: ref.id, Key.SLOT: ref.slot}
        client.upsert(TASKS, orphans, wait=True)


def _second_points(platform: Platform, numbers: Sequence[int]) -> None:
    with qdrant(platform) as client:
        copies = points(client, *numbers)
        for number, copy in zip(numbers, copies, strict=True):
            copy.id = f"00000000-0000-5000-8000-{number:012}"
        client.upsert(TASKS, copies, wait=True)


def _surplus_chunks(platform: Platform, numbers: Sequence[int]) -> None:
    with qdrant(platform) as client:
        chunks = points(client, *numbers)
        for number, chunk in zip(numbers, chunks, strict=True):
            chunk.id = str(chunk_id(point_id(EntityRef("task", f"t{number}")), 0))
            chunk.payload = {**(chunk.payload or {}), Key.KIND: "chunk", Key.CHUNK: 0}
        client.upsert(TASKS, chunks, wait=True)


def _points_of_others(platform: Platform, numbers: Sequence[int]) -> None:
    with qdrant(platform) as client:
        foreign = [models.PointStruct(id=n, vector=[1.0] * 16, payload={"of": "others"}) for n in numbers]
        client.upsert(TASKS, foreign, wait=True)


def _statement(statement: str) -> Callable[[Platform, Sequence[int]], None]:
    def make(platform: Platform, numbers: Sequence[int]) -> None:
        execute(platform, statement, ids(numbers))

    return make


def _edges(columns: str) -> Callable[[Platform, Sequence[int]], None]:
    """A row of `relationships` for each task `id`."""
    return _statement(
        "INSERT INTO relationships (source_type, source_id, target_type, target_id, relationship_type, strength,"
        f" origin) SELECT {columns} FROM unnest(%s::text[]) AS id"
    )


FAULTS = (
    Fault("points that are gone", _delete_points, {DriftKind.MISSING_VECTOR: BROKEN}, embedded=BROKEN),
    Fault("points of another text", _payload(**{Key.TEXT_HASH: "0" * 32}), {DriftKind.STALE_VECTOR: BROKEN}, BROKEN),
    Fault("points of another model", _payload(**{Key.MODEL: "other"}), {DriftKind.WRONG_MODEL: BROKEN}, BROKEN),
    Fault("vectors exchanged in pairs", _swap_vectors, {DriftKind.SWAPPED_VECTOR: BROKEN}, BROKEN),
    Fault("payloads with other metadata", _payload(status="invented"), {DriftKind.STALE_PAYLOAD: BROKEN}),
    Fault(
        "payloads with a slot that hides them from their partition",
        _payload(**{Key.SLOT: 70_000}),
        {DriftKind.STALE_PAYLOAD: BROKEN},
    ),
    Fault("points of entities that never were", _points_of_entities_that_never_were, {DriftKind.ORPHAN_VECTOR: BROKEN}),
    Fault("second points", _second_points, {DriftKind.DUPLICATE_POINT: BROKEN}),
    Fault("chunks that the text does not have", _surplus_chunks, {DriftKind.SURPLUS_CHUNK: BROKEN}),
    Fault(
        "points of another program",
        _points_of_others,
        {DriftKind.FOREIGN_POINT: BROKEN},
        left=frozenset({DriftKind.FOREIGN_POINT}),
    ),
    Fault(
        "a record of another text than was embedded",
        _statement("UPDATE mcp_assets.embedded SET text_hash = 'lie' WHERE entity_id = ANY(%s)"),
        {DriftKind.LYING_LEDGER: BROKEN},
    ),
    Fault(
        "no record of what was embedded",
        _statement("DELETE FROM mcp_assets.embedded WHERE entity_id = ANY(%s)"),
        {DriftKind.LYING_LEDGER: BROKEN, DriftKind.STALE_LINK: BROKEN},
    ),
    Fault(
        "a ledger with hashes of another text",
        _statement("UPDATE mcp_assets.entities SET text_hash = 'lie', state_hash = 'lie' WHERE entity_id = ANY(%s)"),
        {DriftKind.LYING_LEDGER: BROKEN},
    ),
    Fault(
        "a ledger without the rows",
        _statement("DELETE FROM mcp_assets.entities WHERE entity_id = ANY(%s)"),
        {DriftKind.LEDGER_BEHIND: BROKEN, DriftKind.WRONG_WORDS: BROKEN},
        # Their neighbours, too: how many these are depends on the tags that they share.
        besides=frozenset({DriftKind.STALE_LINK}),
    ),
    Fault(
        "source rows that changed without an event",
        _statement("UPDATE tasks SET title = title || '!' WHERE id = ANY(%s)"),
        {DriftKind.LEDGER_BEHIND: BROKEN, DriftKind.STALE_VECTOR: BROKEN, DriftKind.LYING_LEDGER: BROKEN},
        embedded=BROKEN,
    ),
    Fault(
        "source rows that went without an event",
        _statement("DELETE FROM tasks WHERE id = ANY(%s)"),
        {DriftKind.VANISHED_ROW: BROKEN, DriftKind.ORPHAN_VECTOR: BROKEN, DriftKind.LYING_LEDGER: BROKEN},
        gone=BROKEN,
    ),
    Fault(
        "search words that are gone",
        _statement("DELETE FROM mcp_assets.search_words WHERE entity_id = ANY(%s)"),
        {DriftKind.WRONG_WORDS: BROKEN},
    ),
    Fault(
        "search words of another text",
        _statement("UPDATE mcp_assets.search_words SET words = 'other:1' WHERE entity_id = ANY(%s)"),
        {DriftKind.WRONG_WORDS: BROKEN},
    ),
    Fault(
        "search words of entities that are not there",
        _statement(
            "INSERT INTO mcp_assets.search_words SELECT 'task', 'none-' || id, 'other:1', 1"
            " FROM unnest(%s::text[]) AS t (id)"
        ),
        {DriftKind.WRONG_WORDS: BROKEN},
    ),
    Fault(
        "edges of another strength",
        _statement(
            "UPDATE relationships SET strength = 0.5"
            " WHERE source_id = ANY(%s) AND relationship_type = 'sequential_dependency'"
        ),
        {DriftKind.WRONG_EDGE: BROKEN // 2},
    ),
    Fault(
        "edges that are gone",
        _statement(
            "DELETE FROM relationships WHERE source_id = ANY(%s) AND relationship_type = 'sequential_dependency'"
        ),
        {DriftKind.MISSING_EDGE: BROKEN // 2},
    ),
    Fault(
        "edges that no rule makes",
        _edges("'task', id, 'task', 't1', 'cross_reference', 1, 'mcp_assets'"),
        {DriftKind.SURPLUS_EDGE: BROKEN},
    ),
    Fault(
        "edges to nothing",
        _edges("'task', id, 'page', 'nowhere', 'cross_reference', 1, 'mcp_assets'"),
        {DriftKind.ORPHANED_EDGE: BROKEN, DriftKind.SURPLUS_EDGE: BROKEN},
    ),
    Fault(
        "edges of another program from nothing",
        _edges("'task', 'nowhere', 'task', id, 'follows', 1, 'others'"),
        {DriftKind.FOREIGN_EDGE: BROKEN},
        left=frozenset({DriftKind.FOREIGN_EDGE}),
    ),
    Fault(
        "edges of another program from a thing that this platform does not know",
        _edges("'board', 'b1', 'task', id, 'holds', 1, 'others'"),
        {},
    ),
)
