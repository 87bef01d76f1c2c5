"""A text that the provider has embedded is not sent again, whatever keeps its vectors from being written (I5)."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest
from qdrant_client import models

from mcp_assets.embedding.protocol import EmbedderUnavailable
from mcp_assets.entities.points import chunk_id, point_id
from mcp_assets.entities.refs import EntityRef
from mcp_assets.platform import Platform
from mcp_assets.stores.errors import StoreUnavailable
from mcp_assets.stores.qdrant import Qdrant
from mcp_assets.sync.inbox.drain import drain
from mcp_assets.sync.index import paid_vectors
from mcp_assets.sync.index.full_sync import full_sync
from mcp_assets.sync.index.indexer import Indexer, index_until_current
from mcp_assets.sync.index.ledger import Wanted, apply
from mcp_assets.sync.index.paid_vectors import Vectors
from mcp_assets.tuning import StoreTuning, Tuning
from mcp_assets_tests.clients import qdrant_of
from mcp_assets_tests.observing import (
    assert_points_are,
    dead_letters,
    entity_points,
    inbox,
    is_vector_of,
    ledger,
    points,
    put,
    put_tasks,
    rows,
    send_looks,
    sync_all,
    take_in,
)
from mcp_assets_tests.openai_stub import OpenAIStub
from mcp_assets_tests.waiting import until

LONG = " ".join(f"Sentence number {n} of a long page stands here." for n in range(400))

MakePlatform = Callable[..., Platform]


def kept(platform: Platform) -> list[str]:
    return [row[0] for row in rows(platform, "SELECT text_hash FROM {schema}.unwritten_vectors")]


class Outage:
    """Qdrant takes no write while it lasts."""

    def __init__(self) -> None:
        self.writes = 0
        self.over = threading.Event()


@contextmanager
def qdrant_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Outage]:
    outage = Outage()
    real = Qdrant.write

    def write(self: Qdrant, *args: Any, **options: Any) -> None:
        outage.writes += 1
        if not outage.over.is_set():
            raise StoreUnavailable("Qdrant does not answer")
        real(self, *args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Qdrant, "write", write)
        yield outage


def settle(platform: Platform, indexer: Indexer, *ids: str) -> None:
    wanted = [Wanted(entity_id) for entity_id in ids]
    index_until_current(platform, indexer, wanted, force=False, embed=True)


def test_what_qdrant_could_not_take_is_kept_and_written_by_the_next_run_without_embedding(
    platform: Platform, make_platform: MakePlatform, monkeypatch: pytest.MonkeyPatch, stub: OpenAIStub
) -> None:
    texts = {f"t{n}": f"Task {n}" for n in range(20)}
    put_tasks(platform, texts)
    put(platform, "tasks", id="long", title="Long", description=LONG)
    with qdrant_takes_nothing(monkeypatch), pytest.raises(StoreUnavailable):
        list(full_sync(platform, "task", range(4)))
    paid = stub.stats()["texts"]
    assert len(kept(platform)) > 0
    assert points(platform) == {}

    sync_all(make_platform())

    assert stub.stats()["texts"] == stub.stats()["distinct_texts"] >= paid
    stored = entity_points(platform)
    assert set(stored) == {*texts, "long"}
    assert all(is_vector_of(stored[entity_id], text) for entity_id, text in texts.items())
    assert is_vector_of(stored["long"], f"Long {LONG}"[:8000].rstrip())
    assert kept(platform) == []


def test_a_run_waits_for_qdrant_says_so_and_embeds_nothing_again(
    make_platform: MakePlatform,
    platform: Platform,
    monkeypatch: pytest.MonkeyPatch,
    stub: OpenAIStub,
    caplog: pytest.LogCaptureFixture,
) -> None:
    own = make_platform(store_wait_s=60, drain_linger_s=0)
    texts = {f"t{n}": f"Task {n}" for n in range(20)}
    put_tasks(own, texts)
    send_looks(own, *texts)
    take_in(own)
    with qdrant_takes_nothing(monkeypatch) as outage:
        worker = threading.Thread(target=lambda: list(drain(own, "task", "run")))
        worker.start()
        # More often than the retry policy tries.
        until(lambda: outage.writes > 5, "Qdrant is tried six times")
        assert len(kept(own)) == 20
        outage.over.set()
        worker.join()

    said = [record.getMessage() for record in caplog.records if record.name == "mcp_assets.notices"]
    assert "waits up to 60 s" in said[0]
    assert "20 entities" in said[-1]
    assert inbox(own) == []
    assert_points_are(own, texts)
    assert stub.stats()["texts"] == 20
    assert kept(own) == []


@pytest.mark.parametrize("how", ["drain", "full sync"])
def test_a_run_that_waits_for_qdrant_ends_at_once_when_it_is_interrupted_and_keeps_what_is_paid(
    make_platform: MakePlatform, platform: Platform, monkeypatch: pytest.MonkeyPatch, stub: OpenAIStub, how: str
) -> None:
    own = make_platform(store_wait_s=3600)
    put_tasks(own, {"a": "Mend the gate"})
    send_looks(own, "a")
    take_in(own)
    with qdrant_takes_nothing(monkeypatch) as outage:

        def interrupt() -> None:
            until(lambda: outage.writes > 4, "Qdrant is tried five times")
            os.kill(os.getpid(), signal.SIGINT)

        beside = threading.Thread(target=interrupt)
        beside.start()
        with pytest.raises(KeyboardInterrupt):
            list(drain(own, "task", "run") if how == "drain" else full_sync(own, "task", range(4)))
        beside.join()
    assert len(kept(own)) == 1

    sync_all(platform)

    assert_points_are(platform, {"a": "Mend the gate"})
    assert stub.stats()["texts"] == 1


def ended(own: Platform) -> BaseException | None:
    """What a drain ends with, which must be before a store that stays away comes back."""
    errors: list[BaseException] = []

    def work() -> None:
        try:
            list(drain(own, "task", "run"))
        except (StoreUnavailable, EmbedderUnavailable) as error:
            errors.append(error)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    worker.join(120)
    assert not worker.is_alive()
    return errors[0] if errors else None


def test_a_drain_whose_time_is_over_waits_no_longer_for_qdrant_and_keeps_what_is_paid(
    make_platform: MakePlatform, platform: Platform, monkeypatch: pytest.MonkeyPatch, stub: OpenAIStub
) -> None:
    own = make_platform(store_wait_s=3600, drain_max_s=2)
    put_tasks(own, {"a": "Mend the gate"})
    send_looks(own, "a")
    take_in(own)
    with qdrant_takes_nothing(monkeypatch):
        assert isinstance(ended(own), StoreUnavailable)
    assert len(kept(own)) == 1
    assert len(inbox(own)) == 1

    sync_all(platform)

    assert_points_are(platform, {"a": "Mend the gate"})
    assert stub.stats()["texts"] == 1


def test_a_batch_that_waits_for_qdrant_does_not_hold_up_a_drain_that_another_batch_has_failed(
    make_platform: MakePlatform, platform: Platform, monkeypatch: pytest.MonkeyPatch, stub: OpenAIStub
) -> None:
    own = make_platform(store_wait_s=3600, drain_max_s=3600, batch_size=1)
    put_tasks(own, {"a": "Mend the gate", "b": "No quota for this"})
    send_looks(own, "a", "b")
    take_in(own)
    stub.add_fault("insufficient_quota", times=None, contains="No quota")
    with qdrant_takes_nothing(monkeypatch):
        error = ended(own)
    assert error is not None
    assert "quota" in "".join([str(error), *getattr(error, "__notes__", [])])
    assert len(inbox(own)) == 2


def test_what_is_kept_is_bounded_and_the_newest_stays(make_platform: MakePlatform, platform: Platform) -> None:
    own = make_platform(kept_vectors_mb=1)
    vectors = Vectors(np.ones((100_000 // 4, 4), np.float32), [0.0])
    for number in range(5):
        paid_vectors.keep(own, "stub/16", {str(number): vectors})

    assert sorted(kept(own)) == ["3", "4"]


def test_states_that_move_on_in_their_metadata_while_a_text_is_embedded_share_one_embedding(
    platform: Platform, stub: OpenAIStub
) -> None:
    indexer = Indexer(platform, "task")
    stub.add_fault("hang", times=None)

    def has_n(n: int) -> bool:
        return bool(ledger(platform).get("a", {}).get("metadata", {}).get("n") == n)

    with ThreadPoolExecutor(4) as batches:
        running = []
        try:
            for n in range(4):
                put(platform, "tasks", id="a", title="Mend the gate", metadata={"n": n})
                running.append(batches.submit(settle, platform, indexer, "a"))
                until(partial(has_n, n), f"the ledger has n = {n}")
            until(lambda: stub.stats()["requests"] == 1, "a request hangs")
        finally:
            stub.clear_faults()
        for batch in running:
            batch.result()

    assert stub.stats()["texts"] == 1
    assert_points_are(platform, {"a": "Mend the gate"})
    assert entity_points(platform)["a"].payload["n"] == 3


def test_a_state_that_another_process_moved_on_without_embedding_it_keeps_the_vector(
    make_platform: MakePlatform, platform: Platform, monkeypatch: pytest.MonkeyPatch, stub: OpenAIStub
) -> None:
    other = make_platform()
    put(platform, "tasks", id="a", title="Mend the gate", metadata={"n": 0})
    real = platform.embedder.embed

    def embed(texts: Any, **options: Any) -> Any:
        result = real(texts, **options)
        put(other, "tasks", id="a", title="Mend the gate", metadata={"n": 1})
        apply(other, "task", [Wanted("a")])
        return result

    monkeypatch.setattr(platform.embedder, "embed", embed)
    settle(platform, Indexer(platform, "task"), "a")

    assert stub.stats()["texts"] == 1
    assert entity_points(platform)["a"].payload["n"] == 1
    assert_points_are(platform, {"a": "Mend the gate"})


def test_texts_sent_are_the_texts_changed_while_metadata_change_all_the_time(
    make_platform: MakePlatform, platform: Platform, stub: OpenAIStub
) -> None:
    own = make_platform(batch_size=3, drain_linger_s=1)
    texts = {f"t{n}": f"Task {n}" for n in range(12)}
    stub.add_fault("latency", times=None, latency_s=0.02)
    worker = threading.Thread(target=lambda: list(drain(own, "task", "run")))
    put_tasks(platform, texts)
    send_looks(platform, *texts)
    take_in(platform)
    worker.start()
    changed = len(texts)
    for turn in range(6):
        for number, entity_id in enumerate(texts):
            if number % 6 == turn:
                texts[entity_id] = f"Task {number} in turn {turn}"
                changed += 1
            put(platform, "tasks", id=entity_id, title=texts[entity_id], metadata={"turn": turn})
        send_looks(platform, *texts)
    worker.join()
    list(drain(own, "task", "next"))

    assert_points_are(platform, texts)
    assert {point.payload["turn"] for point in entity_points(platform).values()} == {5}
    # Those of whose texts no batch saw the state in between were not even sent.
    assert stub.stats()["texts"] == stub.stats()["distinct_texts"] <= changed


# A point that the ledger believes in and Qdrant does not hold.


@pytest.mark.parametrize("gone", ["entity", "chunk"])
def test_a_missing_point_whose_metadata_change_is_embedded_again_and_no_dead_letter(
    platform: Platform, stub: OpenAIStub, gone: str
) -> None:
    texts = {f"t{n}": f"Task {n}" for n in range(9)}
    put_tasks(platform, texts)
    put(platform, "tasks", id="long", title="Long", description=LONG)
    sync_all(platform)
    held = points(platform)
    entity_id = "t4" if gone == "entity" else "long"
    own = point_id(EntityRef("task", entity_id))
    missing = str(own if gone == "entity" else chunk_id(own, 3))
    assert missing in held
    client = qdrant_of(platform.settings)
    client.delete("kanban_tasks", models.PointIdsList(points=[missing]), wait=True)
    client.close()
    stub.reset_stats()
    for each, text in texts.items():
        put(platform, "tasks", id=each, title=text, metadata={"n": 2})
    put(platform, "tasks", id="long", title="Long", description=LONG, metadata={"n": 2})
    send_looks(platform, *texts, "long")
    take_in(platform)

    list(drain(platform, "task", "run"))

    assert dead_letters(platform) == {}
    assert inbox(platform) == []
    after = points(platform)
    assert after.keys() == held.keys()
    assert {point.payload["n"] for point in after.values()} == {2}
    of_missing = [one for one in held.values() if one.payload["entity_id"] == entity_id]
    assert stub.stats()["texts"] == len(of_missing)


# What Qdrant is sent at once.


@pytest.mark.tuning(Tuning(stores=StoreTuning(qdrant_bytes_a_request=100_000)))
def test_requests_to_qdrant_are_cut_by_their_bytes_and_chunks_repeat_no_long_metadata(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies: list[bytes] = []
    for name in ("_upsert", "_update"):
        real = getattr(Qdrant, name)

        def sent(self: Qdrant, collection: str, body: bytes, real: Any = real) -> Any:
            bodies.append(body)
            return real(self, collection, body)

        monkeypatch.setattr(Qdrant, name, sent)
    metadata = {"note": "x" * 30_000, "phase": "open", **{f"key{n:02}": "y" * 900 for n in range(20)}}
    ids = [f"t{n}" for n in range(8)]
    for entity_id in ids:
        put(platform, "tasks", id=entity_id, title=f"Task {entity_id}", description=LONG, metadata=metadata)
    indexer = Indexer(platform, "task")

    settle(platform, indexer, *ids)
    written = len(bodies)
    for entity_id in ids:
        put(platform, "tasks", id=entity_id, title=f"Task {entity_id}", description=LONG, metadata=metadata | {"n": 1})
    settle(platform, indexer, *ids)

    assert min(written, len(bodies) - written) > 5
    assert all(len(body) <= 100_000 for body in bodies)
    stored = points(platform)
    own_ids = {str(point_id(EntityRef("task", entity_id))) for entity_id in ids}
    own = [point for identifier, point in stored.items() if identifier in own_ids]
    chunks = [point for identifier, point in stored.items() if identifier not in own_ids]
    assert len(own) == 8
    assert all(metadata.items() <= point.payload.items() for point in own)
    assert len(chunks) > 50
    for chunk in chunks:
        assert (chunk.payload["entity_type"], chunk.payload["phase"], chunk.payload["n"]) == ("task", "open", 1)
        assert "note" not in chunk.payload
        assert sum(key.startswith("key") for key in chunk.payload) == 8
