"""Census and repair over 10,000 points: every seeded fault is found from the stores, nothing else, and mended alone."""

import threading
from collections.abc import Callable, Iterator

import pytest
from psycopg import sql
from qdrant_client import models

from mcp_assets.entities.refs import EntityRef
from mcp_assets.sync.drift import Kind
from mcp_assets.sync.indexer import Indexer
from mcp_assets.sync.ledger import Wanted
from mcp_assets.sync.linker import link_until_done
from mcp_assets.sync.platform import Platform
from mcp_assets.sync.validation import validate
from mcp_assets_tests.hashing import TASKS, HashEmbedder, censuses, counting, fill, found, points, qdrant, task_point

MANY = 10_000


@pytest.fixture
def embedder() -> HashEmbedder:
    return HashEmbedder()


@pytest.fixture
def many(make_platform: Callable[..., Platform]) -> Iterator[Platform]:
    platform = make_platform(batch_size=1_000)
    counting(platform)
    fill(platform, MANY)
    return platform


def embedded(platform: Platform) -> list[str]:
    assert isinstance(platform._embedder, HashEmbedder)
    return platform._embedder.texts


def execute(platform: Platform, statement: str, *parameters: object) -> None:
    with platform.postgres.transaction() as connection:
        connection.execute(sql.SQL(statement), parameters)  # type: ignore[arg-type]


def numbers(*ranges: tuple[int, int]) -> list[int]:
    return [number for low, high in ranges for number in range(low, high)]


def ids(*ranges: tuple[int, int]) -> list[str]:
    return [f"t{number}" for number in numbers(*ranges)]


def test_every_seeded_fault_is_found_and_mended_and_only_the_broken_are_embedded(many: Platform) -> None:
    assert found(censuses(many, deep=True)) == {}
    with qdrant(many) as client:
        # 2 % of the points are gone.
        client.delete(TASKS, models.PointIdsList(points=[task_point(n) for n in numbers((1, 201))]), wait=True)
        # Ten texts are others than those that the points were made of.
        for n in numbers((301, 311)):
            client.set_payload(TASKS, {"text_hash": "0" * 32}, points=[task_point(n)], wait=True)
        # Ten payloads bear a status that the entity does not have.
        for n in numbers((401, 411)):
            client.set_payload(TASKS, {"status": "invented"}, points=[task_point(n)], wait=True)
        # Ten vectors were exchanged, two and two.
        swapped = points(client, *numbers((501, 511)))
        for one, other in zip(swapped[::2], swapped[1::2], strict=True):
            one.vector, other.vector = other.vector, one.vector
        client.upsert(TASKS, swapped, wait=True)
        # Points of entities that never were, a second point of an entity that is, points of another hand.
        orphans = points(client, *numbers((601, 606)))
        for number, orphan in enumerate(orphans):
            ref = EntityRef("task", f"never{number}")
            orphan.id = f"00000000-0000-5000-8000-00000000000{number}" if number == 0 else _id(ref)
            if number:
                orphan.payload = {**(orphan.payload or {}), "entity_id": ref.id, "slot": ref.slot}
        foreign = [models.PointStruct(id=n, vector=[1.0] * 16, payload={"of": "others"}) for n in range(3)]
        client.upsert(TASKS, [*orphans, *foreign], wait=True)
        # Ten points say another model.
        client.set_payload(TASKS, {"model": "other"}, points=[task_point(n) for n in numbers((701, 711))], wait=True)
        # A slot that is not the entity's hides the point from its partition.
        client.set_payload(TASKS, {"slot": 70_000}, points=[task_point(801)], wait=True)
    # Ledger rows that lie about what was embedded, about the text, and about an entity's life.
    execute(many, "UPDATE mcp_assets.embedded SET text_hash = 'lie' WHERE entity_id = ANY(%s)", ids((1001, 1011)))
    execute(many, "DELETE FROM mcp_assets.embedded WHERE entity_id = ANY(%s)", ids((1011, 1021)))
    execute(
        many,
        "UPDATE mcp_assets.entities SET text_hash = 'lie', state_hash = 'lie' WHERE entity_id = ANY(%s)",
        ids((1101, 1106)),
    )
    execute(many, "DELETE FROM mcp_assets.entities WHERE entity_id = ANY(%s)", ids((1201, 1206)))
    # Rows that changed, and rows that went, without any event.
    execute(many, "UPDATE tasks SET title = title || '!' WHERE id = ANY(%s)", ids((1301, 1306)))
    execute(many, "DELETE FROM tasks WHERE id = ANY(%s)", ids((9801, 9811)))
    # Edges: of the wrong strength, gone, invented, to nowhere, of others to nowhere.
    execute(
        many,
        "UPDATE relationships SET strength = 0.5 WHERE source_id = ANY(%s) AND relationship_type = 'topical_relevance'",
        ids((2001, 2006)),
    )
    execute(
        many,
        "DELETE FROM relationships WHERE source_id = ANY(%s) AND relationship_type = 'sequential_dependency'",
        ids((2102, 2103), (2104, 2105)),
    )
    execute(
        many,
        "INSERT INTO relationships (source_type, source_id, target_type, target_id, relationship_type, strength, origin)"
        " SELECT 'task', 't' || n, 'task', 't' || n + 500, 'cross_reference', 1, 'mcp_assets'"
        " FROM generate_series(2201, 2205) AS n"
        " UNION ALL SELECT 'task', 't' || n, 'page', 'nowhere', 'cross_reference', 1, 'mcp_assets'"
        " FROM generate_series(2301, 2304) AS n"
        " UNION ALL SELECT 'task', 'nowhere', 'task', 't' || n, 'follows', 1, 'others'"
        " FROM generate_series(2301, 2303) AS n"
        " UNION ALL SELECT 'board', 'b1', 'task', 't' || n, 'holds', 1, 'others'"
        " FROM generate_series(2301, 2303) AS n",
    )
    embedded(many).clear()

    report = validate(many, entity_types=["task"], repair=True, deep=True)

    assert report.refused is None
    got = dict(report.found)
    assert got.pop(Kind.MISSING_VECTOR) == 200
    # What was lied about or changed is stale, too, against what the source row says now.
    assert got.pop(Kind.STALE_VECTOR) == 10 + 5
    assert got.pop(Kind.STALE_PAYLOAD) == 10 + 1
    assert got.pop(Kind.SWAPPED_VECTOR) == 10
    assert got.pop(Kind.ORPHAN_VECTOR) == 4 + 10
    assert got.pop(Kind.DUPLICATE_POINT) == 1
    assert got.pop(Kind.FOREIGN_POINT) == 3
    assert got.pop(Kind.WRONG_MODEL) == 10
    assert got.pop(Kind.LYING_LEDGER) >= 10 + 10 + 5
    assert got.pop(Kind.LEDGER_BEHIND) == 5 + 5
    assert got.pop(Kind.VANISHED_ROW) == 10
    assert got.pop(Kind.WRONG_EDGE) >= 5
    assert got.pop(Kind.MISSING_EDGE) >= 2
    assert got.pop(Kind.SURPLUS_EDGE) >= 5
    assert got.pop(Kind.ORPHANED_EDGE) == 4 + 3
    assert set(got) <= {Kind.STALE_LINK}
    assert report.left == {}
    # Missing, stale, swapped, of another model, changed: nothing else.
    assert len(embedded(many)) == report.embedded == 200 + 10 + 10 + 10 + 5
    assert found(censuses(many, deep=True)) == {Kind.FOREIGN_POINT: 3}
    with qdrant(many) as client:
        assert client.count(TASKS).count == MANY - 10 + 3
    assert validate(many, entity_types=["task"], repair=True, foreign=True).mended == {Kind.FOREIGN_POINT: 3}
    with qdrant(many) as client:
        assert client.count(TASKS).count == MANY - 10


def _id(ref: EntityRef) -> str:
    from mcp_assets.entities.points import point_id

    return str(point_id(ref))
