"""Census and repair of many points, beside writers, after kills, and of entities that are named."""

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
from qdrant_client import models

from mcp_assets.entities.points import Key
from mcp_assets.entities.refs import EntityRef
from mcp_assets.platform import Platform
from mcp_assets.stores.errors import StoreRefused
from mcp_assets.sync.consistency.drift import DriftKind
from mcp_assets.sync.consistency.validation import validate
from mcp_assets.sync.inbox.drain import drain
from mcp_assets.sync.index.full_sync import full_sync
from mcp_assets.sync.link.linker import link, link_until_done
from mcp_assets.tuning import LinkTuning, Tuning
from mcp_assets_tests.clients import key_in
from mcp_assets_tests.faults import BROKEN, FAULTS, execute
from mcp_assets_tests.hashing import (
    TASKS,
    HashEmbedder,
    censuses,
    fill,
    found,
    qdrant,
    sync,
    task_point,
)
from mcp_assets_tests.observing import drain_all, put, remove, send_looks, without_linger

MANY = 5_000
"""Tasks: each of four partitions has more than one window of a census, which is 1,000 points."""


def embedded(platform: Platform) -> list[str]:
    assert isinstance(platform.embedder, HashEmbedder)
    return platform.embedder.texts


def test_all_kinds_of_faults_at_once_among_thousands_of_points_are_found_as_each_alone(
    make_platform: Callable[..., Platform],
) -> None:
    embedder = HashEmbedder()
    platform = make_platform(embedder=embedder, batch_size=1_000)
    fill(platform, MANY)
    embedder.texts.clear()
    # Far from each other, and in all partitions.
    for place, fault in enumerate(FAULTS):
        first = place * (MANY // len(FAULTS)) // 2 * 2 + 3
        fault.make(platform, range(first, first + BROKEN))

    report = validate(platform, entity_types=["task"], repair=True, deep=True)

    allowed = frozenset[DriftKind]().union(*(fault.besides for fault in FAULTS))
    expected: Counter[DriftKind] = Counter()
    for fault in FAULTS:
        expected.update(fault.drift)
    assert {kind: n for kind, n in report.found.items() if kind not in allowed} == {
        kind: n for kind, n in expected.items() if kind not in allowed
    }
    assert report.refused is None
    assert report.left == {}
    assert len(embedder.texts) == report.embedded == sum(fault.embedded for fault in FAULTS)
    left = {kind: fault.drift[kind] for fault in FAULTS for kind in fault.left}
    assert found(censuses(platform, deep=True)) == left
    with qdrant(platform) as client:
        assert client.count(TASKS).count == MANY - sum(fault.gone for fault in FAULTS) + left[DriftKind.FOREIGN_POINT]


def test_search_words_that_are_all_lost_are_found_and_written_again_without_embedding(
    make_platform: Callable[..., Platform],
) -> None:
    """More than one page of a census and of what it writes."""
    embedder = HashEmbedder()
    platform = make_platform(embedder=embedder, batch_size=1_000, shards=1)
    fill(platform, MANY + 200)
    embedder.texts.clear()
    execute(platform, "TRUNCATE mcp_assets.search_words")

    report = validate(platform, entity_types=["task"], repair=True)

    assert report.found == report.mended == {"wrong_search_words": MANY + 200}
    assert embedder.texts == []
    assert found(censuses(platform, deep=True)) == {}


def test_clean_censuses_raise_no_false_alarm_with_writers_at_work_or_at_rest(
    make_platform: Callable[..., Platform],
) -> None:
    platform = make_platform(embedder=HashEmbedder(), batch_size=200, shards=1)
    fill(platform, 600)
    platform.nats.ensure_stream(platform.settings.streams[0])
    done = threading.Event()
    failed: list[BaseException] = []

    def write() -> None:
        """Write as a server does: a row and a little later its event; add, change, archive and delete rows."""
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
        drift = [found(censuses(platform, deep=number % 4 == 0)) for number in range(12)]
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not failed
    # A task on which another depends may be gone: this is the truth, and no store is wrong.
    assert [{kind for kind in one if kind != DriftKind.DANGLING_REFERENCE} for one in drift] == [set()] * 12
    drain_all(platform, "task")
    for _ in link_until_done(platform):
        pass
    assert found(censuses(platform, deep=True)).keys() <= {DriftKind.DANGLING_REFERENCE}


def test_an_edge_to_an_entity_that_is_gone_is_no_fault_while_a_rebuild_has_not_reached_its_source(
    make_platform: Callable[..., Platform],
) -> None:
    platform = make_platform(embedder=HashEmbedder(), shards=1)
    fill(platform, 20)
    platform.tuning = Tuning(link=LinkTuning(rebuild_from=1, rebuild_share=0.0))
    remove(platform, "tasks", "t3")
    for _ in full_sync(platform, "task", [0]):
        pass
    linking = link(platform)
    # The changed entities are linked. The lists are not yet, among them t2's with the tag that it shared with t3.
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
        "QDRANT_API_KEY": key_in(platform.settings),
        "EMBEDDING_PROVIDER": "openai",
        "OPENAI_BASE_URL": "http://127.0.0.1:9",
        "EMBEDDING_MODEL": "hash",
        "EMBEDDING_DIMENSION": "16",
        "MCP_ASSETS_SHARDS": "1",
    }
    killed = 0
    for calls in (8, 20, 35, 50):
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


def test_a_reference_to_nothing_is_reported_and_is_no_broken_store(make_platform: Callable[..., Platform]) -> None:
    platform = make_platform(embedder=HashEmbedder())
    fill(platform, 3)
    put(platform, "tasks", id="t4", title="T", description="depends on task:404, see [[No such page]]")
    sync(platform)
    report = validate(platform, entity_types=["task"], repair=True)
    assert report.found[DriftKind.DANGLING_REFERENCE] >= 2
    assert report.left == {}
