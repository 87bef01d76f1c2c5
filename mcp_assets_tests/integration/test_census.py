"""Census and repair over 10,000 points: every seeded fault is found from the stores, nothing else, and mended alone."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from psycopg import sql
from qdrant_client import models

from mcp_assets.entities.points import Key, point_id
from mcp_assets.entities.refs import EntityRef
from mcp_assets.platform import Platform
from mcp_assets.stores.errors import StoreRefused
from mcp_assets.sync.consistency.drift import DriftKind
from mcp_assets.sync.consistency.validation import validate
from mcp_assets.sync.inbox.drain import drain
from mcp_assets.sync.index.full_sync import full_sync
from mcp_assets.sync.link.linker import link, link_until_done
from mcp_assets_tests.hashing import (
    TASKS,
    HashEmbedder,
    censuses,
    fill,
    found,
    points,
    qdrant,
    sync,
    task_point,
)
from mcp_assets_tests.observing import drain_all, put, remove, send_looks, without_linger

MANY = 10_000


@pytest.fixture
def many(make_platform: Callable[..., Platform]) -> Platform:
    platform = make_platform(embedder=HashEmbedder(), batch_size=1_000)
    fill(platform, MANY)
    return platform


def embedded(platform: Platform) -> list[str]:
    assert isinstance(platform.embedder, HashEmbedder)
    return platform.embedder.texts


def execute(platform: Platform, statement: str, *parameters: object) -> None:
    with platform.postgres.transaction() as connection:
        connection.execute(sql.SQL(statement), parameters)


def numbers(*ranges: tuple[int, int]) -> list[int]:
    return [number for low, high in ranges for number in range(low, high)]


def ids(*ranges: tuple[int, int]) -> list[str]:
    return [f"t{number}" for number in numbers(*ranges)]


def test_every_seeded_fault_is_found_and_mended_and_only_the_broken_are_embedded(many: Platform) -> None:
    with qdrant(many) as client:
        # 2 % of the points are gone.
        client.delete(TASKS, models.PointIdsList(points=[task_point(n) for n in numbers((1, 201))]), wait=True)
        # Ten texts are others than those that the points were made of.
        for n in numbers((301, 311)):
            client.set_payload(TASKS, {Key.TEXT_HASH: "0" * 32}, points=[task_point(n)], wait=True)
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
                orphan.payload = {**(orphan.payload or {}), "entity_id": ref.id, Key.SLOT: ref.slot}
        foreign = [models.PointStruct(id=n, vector=[1.0] * 16, payload={"of": "others"}) for n in range(3)]
        client.upsert(TASKS, [*orphans, *foreign], wait=True)
        # Ten points say another model.
        client.set_payload(TASKS, {Key.MODEL: "other"}, points=[task_point(n) for n in numbers((701, 711))], wait=True)
        # A slot that is not the entity's hides the point from its partition.
        client.set_payload(TASKS, {Key.SLOT: 70_000}, points=[task_point(801)], wait=True)
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
        "INSERT INTO relationships (source_type, source_id, target_type, target_id, relationship_type, strength,"
        " origin) SELECT 'task', 't' || n, 'task', 't' || n + 500, 'cross_reference', 1, 'mcp_assets'"
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
    assert got.pop(DriftKind.MISSING_VECTOR) == 200
    # What was lied about or changed is stale, too, against what the source row says now.
    assert got.pop(DriftKind.STALE_VECTOR) == 10 + 5
    assert got.pop(DriftKind.STALE_PAYLOAD) == 10 + 1
    assert got.pop(DriftKind.SWAPPED_VECTOR) == 10
    assert got.pop(DriftKind.ORPHAN_VECTOR) == 4 + 10
    assert got.pop(DriftKind.DUPLICATE_POINT) == 1
    assert got.pop(DriftKind.FOREIGN_POINT) == 3
    assert got.pop(DriftKind.WRONG_MODEL) == 10
    assert got.pop(DriftKind.LYING_LEDGER) >= 10 + 10 + 5
    assert got.pop(DriftKind.LEDGER_BEHIND) == 5 + 5
    assert got.pop(DriftKind.VANISHED_ROW) == 10
    assert got.pop(DriftKind.WRONG_EDGE) >= 5
    assert got.pop(DriftKind.MISSING_EDGE) >= 2
    assert got.pop(DriftKind.SURPLUS_EDGE) >= 5
    assert got.pop(DriftKind.ORPHANED_EDGE) == 4
    assert got.pop(DriftKind.FOREIGN_EDGE) == 3
    assert set(got) <= {DriftKind.STALE_LINK}
    assert report.left == {}
    # Missing, stale, swapped, of another model, changed: nothing else.
    assert len(embedded(many)) == report.embedded == 200 + 10 + 10 + 10 + 5
    of_others = {DriftKind.FOREIGN_POINT: 3, DriftKind.FOREIGN_EDGE: 3}
    assert found(censuses(many, deep=True)) == of_others
    with qdrant(many) as client:
        assert client.count(TASKS).count == MANY - 10 + 3
    assert validate(many, entity_types=["task"], repair=True, foreign=True, foreign_edges=True).mended == of_others
    with qdrant(many) as client:
        assert client.count(TASKS).count == MANY - 10


def test_clean_censuses_raise_no_false_alarm_with_writers_at_work_or_at_rest(
    make_platform: Callable[..., Platform],
) -> None:
    platform = make_platform(embedder=HashEmbedder(), batch_size=200, shards=1)
    fill(platform, 600)
    platform.nats.ensure_stream(platform.settings.streams[0])
    done = threading.Event()
    failed: list[BaseException] = []

    def write() -> None:
        """As a server does: the row, a little later its event; new rows, changed, archived and deleted ones."""
        rng = random.Random(1)
        try:
            while not done.is_set():
                ref = f"t{rng.randrange(1, 700)}"
                match rng.randrange(4):
                    case 0:
                        remove(platform, "tasks", ref)
                    case 1:
                        put(platform, "tasks", id=ref, title="T", description=f"{rng.random()}", archived_at=None)
                    case 2:
                        put(platform, "tasks", id=ref, title="T", tags=[f"tag-{rng.randrange(9)}"], archived_at=None)
                    case _:
                        put(platform, "tasks", id=ref, title="T", archived_at="2026-01-01")
                time.sleep(0.01)
                send_looks(platform, ref)
        except BaseException as error:
            failed.append(error)
            raise

    def drain_and_link() -> None:
        hasty = without_linger(platform)
        try:
            while not done.is_set():
                for _ in drain(hasty, "task", "test"):
                    for _ in link_until_done(platform):
                        pass
        except BaseException as error:
            failed.append(error)
            raise

    assert found([census for _ in range(8) for census in censuses(platform)]) == {}
    threads = [threading.Thread(target=work) for work in (write, drain_and_link)]
    for thread in threads:
        thread.start()
    try:
        told = [found(censuses(platform, deep=number % 4 == 0)) for number in range(12)]
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not failed
    # A task that somebody depends on may be gone: that is true, and no fault of a store.
    assert [{kind for kind in one if kind != DriftKind.DANGLING_REFERENCE} for one in told] == [set()] * 12
    drain_all(platform, "task")
    for _ in link_until_done(platform):
        pass
    assert found(censuses(platform, deep=True)).keys() <= {DriftKind.DANGLING_REFERENCE}


def test_an_edge_to_an_entity_that_is_gone_is_no_fault_while_a_rebuild_has_not_reached_its_source(
    make_platform: Callable[..., Platform], monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = make_platform(embedder=HashEmbedder(), shards=1)
    fill(platform, 20)
    monkeypatch.setattr("mcp_assets.sync.link.linker.REBUILD_FROM", 1)
    monkeypatch.setattr("mcp_assets.sync.link.linker.REBUILD_SHARE", 0.0)
    remove(platform, "tasks", "t3")
    for _ in full_sync(platform, "task", [0]):
        pass
    linking = link(platform)
    # What changed is worked off; the lists, t2's with the tag that it shared with t3 among them, are not.
    next(linking)
    assert found(censuses(platform, deep=True)) == {DriftKind.DANGLING_REFERENCE: 1}
    linking.close()
    with platform.postgres.transaction() as connection:
        connection.execute("DELETE FROM mcp_assets.relink_marks")
    assert found(censuses(platform, deep=True))[DriftKind.ORPHANED_EDGE] == 1


_DIES_AT = """
import os, signal, sys
import psycopg
from mcp_assets.settings import load_settings
from mcp_assets.stores.qdrant import Qdrant
from mcp_assets.sync.link.linker import link_until_done
from mcp_assets.platform import Platform
from mcp_assets.sync.consistency.validation import validate
from mcp_assets_tests.hashing import HashEmbedder

left = int(sys.argv[1])

def dying(call):
    def counted(*args, **kwargs):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **kwargs)
    return counted

class Writing(HashEmbedder):
    def embed(self, texts, **options):
        with open(sys.argv[2], "a") as file:
            file.writelines(text + "\\n" for text in texts)
        return super().embed(texts)

platform = Platform(load_settings(), embedder=Writing())
with platform.postgres.transaction():
    pass
from mcp_assets.sync.consistency import validation
repair = validation.repair_drift
def armed(*args, **kwargs):
    psycopg.Connection.execute = dying(psycopg.Connection.execute)
    Qdrant.write = dying(Qdrant.write)
    return repair(*args, **kwargs)
validation.repair_drift = armed
validate(platform, entity_types=["task"], repair=True, deep=True)
"""


def test_a_repair_killed_anywhere_is_resumed_and_embeds_nothing_twice_but_the_batch_in_flight(
    make_platform: Callable[..., Platform], tmp_path: Path
) -> None:
    platform = make_platform(embedder=HashEmbedder(), shards=1)
    fill(platform, 150)
    with qdrant(platform) as client:
        client.delete(TASKS, models.PointIdsList(points=[task_point(n) for n in range(1, 31)]), wait=True)
        client.set_payload(TASKS, {Key.STATE_HASH: "0"}, points=[task_point(40)], wait=True)
    execute(platform, "DELETE FROM mcp_assets.embedded WHERE entity_id = 't50'")
    execute(platform, "DELETE FROM tasks WHERE id = 't60'")
    execute(
        platform,
        "INSERT INTO relationships (source_type, source_id, target_type, target_id, relationship_type, strength,"
        " origin) SELECT 'task', 't' || n, 'page', 'nowhere', 'cross_reference', 1, 'mcp_assets'"
        " FROM generate_series(1, 5) AS n",
    )
    embedded_texts = tmp_path / "texts"
    embedded_texts.touch()
    environment = {
        **os.environ,
        "DATABASE_URL": platform.settings.require_database_url(),
        "NATS_URL": platform.settings.require_nats_url(),
        "QDRANT_URL": platform.settings.require_qdrant_url(),
        "EMBEDDING_MODEL": "hash",
        "EMBEDDING_DIMENSION": "16",
        "MCP_ASSETS_SHARDS": "1",
    }
    killed = 0
    for calls in (15, 45, 75, 110):
        ended = subprocess.run(
            [sys.executable, "-c", _DIES_AT, str(calls), str(embedded_texts)],
            env=environment,
            capture_output=True,
            timeout=120,
        )
        assert ended.returncode in (0, -signal.SIGKILL), ended.stderr.decode()
        killed += ended.returncode != 0
    assert killed >= 3
    embedded(platform).clear()
    report = validate(platform, entity_types=["task"], repair=True, deep=True)
    assert report.left == {}
    assert found(censuses(platform, deep=True)) == {}
    texts = Counter([*embedded_texts.read_text().splitlines(), *embedded(platform)])
    # Thirty were lost and are one batch; each kill may cost the batch that was in flight.
    assert len(texts) == 30
    assert max(texts.values()) <= 1 + killed
    with qdrant(platform) as client:
        assert client.count(TASKS).count == 149


@pytest.mark.parametrize("named", [False, True])
def test_what_a_killed_repair_left_to_be_embedded_is_embedded_by_the_next(
    make_platform: Callable[..., Platform], named: bool
) -> None:
    platform = make_platform(embedder=HashEmbedder(), shards=1)
    fill(platform, 20)
    with qdrant(platform) as client:
        client.delete(TASKS, models.PointIdsList(points=[task_point(n) for n in (1, 2)]), wait=True)
    execute(platform, "DELETE FROM mcp_assets.embedded WHERE entity_id = ANY(%s)", ["t1", "t2"])
    execute(platform, "UPDATE mcp_assets.entities SET dirty = true WHERE entity_id = ANY(%s)", ["t1", "t2"])
    assert found(censuses(platform, deep=True)) == {}
    entities = [EntityRef("task", "t1"), EntityRef("task", "t2")] if named else []
    assert validate(platform, entity_types=["task"], entities=entities, repair=True).embedded == 2
    with qdrant(platform) as client:
        assert client.count(TASKS).count == 20


def test_a_failed_read_of_the_source_deletes_nothing(make_platform: Callable[..., Platform]) -> None:
    platform = make_platform(embedder=HashEmbedder())
    fill(platform, 40)
    execute(platform, "ALTER TABLE tasks RENAME TO elsewhere")
    with pytest.raises(StoreRefused, match="source table tasks"):
        validate(platform, entity_types=["task"], repair=True, allow_mass_delete=True)
    execute(platform, "ALTER TABLE elsewhere RENAME TO tasks")
    assert found(censuses(platform, deep=True)) == {}
    with qdrant(platform) as client:
        assert client.count(TASKS).count == 40


def test_named_entities_are_validated_by_themselves(make_platform: Callable[..., Platform]) -> None:
    platform = make_platform(embedder=HashEmbedder())
    fill(platform, 20)
    with qdrant(platform) as client:
        client.delete(TASKS, models.PointIdsList(points=[task_point(n) for n in (1, 2)]), wait=True)
    execute(platform, "UPDATE relationships SET strength = 0.1 WHERE source_id = 't4'")
    named = [EntityRef("task", "t1"), EntityRef("task", "t4"), EntityRef("task", "unknown")]
    report = validate(platform, entity_types=["task"], entities=named, repair=True)
    assert report.checked == 3
    assert report.found["missing_vector"] == 1
    assert report.left == {}
    assert report.embedded == 1
    assert found(censuses(platform, deep=True)) == {DriftKind.MISSING_VECTOR: 1}


def test_a_reference_to_nothing_is_told_of_and_is_no_broken_store(make_platform: Callable[..., Platform]) -> None:
    platform = make_platform(embedder=HashEmbedder())
    fill(platform, 3)
    put(platform, "tasks", id="t4", title="T", description="depends on task:404, see [[Nobody]]")
    sync(platform)
    report = validate(platform, entity_types=["task"], repair=True)
    assert report.found[DriftKind.DANGLING_REFERENCE] >= 2
    assert report.left == {}


def _id(ref: EntityRef) -> str:
    return str(point_id(ref))
