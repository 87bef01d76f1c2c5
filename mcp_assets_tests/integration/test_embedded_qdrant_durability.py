"""What the embedded Qdrant still has after kill -9, and how it starts and stops."""

import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import httpx
import pytest
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ApiException

DIMENSION = 16


def command(storage: Path) -> list[str]:
    return [sys.executable, "-m", "mcp_assets.embedded.qdrant", "--port", "0", "--storage", str(storage)]


class Server:
    """The server as a process of its own, with a client; killed at the end of its `with` block if still running."""

    def __init__(self, storage: Path) -> None:
        self.process = subprocess.Popen(command(storage), stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        serving = self.process.stderr.readline()
        assert " on http://" in serving, serving + self.process.stderr.read()
        self.url = serving.split(" on ")[1].strip()
        self.client = QdrantClient(url=self.url, timeout=30, check_compatibility=False)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self, how: signal.Signals) -> str:
        """Ends the server; what it has logged since it began to serve."""
        self.process.send_signal(how)
        return self.process.communicate(timeout=30)[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.kill()
        assert self.process.stderr is not None
        self.process.stderr.close()


def vector(n: int) -> list[float]:
    return [float(1 + (n * 31 + i * 17) % 97) for i in range(DIMENSION)]


def create(client: QdrantClient, name: str) -> None:
    client.create_collection(
        name,
        vectors_config=models.VectorParams(size=DIMENSION, distance=models.Distance.COSINE),
        metadata={"model": "some-model"},
    )


def create_alias(collection: str, alias: str) -> models.CreateAliasOperation:
    return models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=collection, alias_name=alias))


def keep_doing(step: Callable[[int], None]) -> tuple[threading.Thread, threading.Event]:
    """Calls step(0), step(1), … in a thread until the server is gone; the event says that some were answered."""
    going = threading.Event()

    def run() -> None:
        n = 0
        while True:
            try:
                step(n)
            except (ApiException, httpx.TransportError):
                return
            n += 1
            if n == 5:
                going.set()

    thread = threading.Thread(target=run)
    thread.start()
    return thread, going


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    return tmp_path / "qdrant"


def test_every_acknowledged_point_survives_kill_9_in_a_stream_of_upserts(storage: Path) -> None:
    acknowledged = 0
    size = 100
    # The second round starts on a log that was cut off, and is cut off again.
    for _ in range(2):
        with Server(storage) as server:
            if not server.client.collection_exists("stream"):
                create(server.client, "stream")
            first = acknowledged

            def upsert(n: int, client: QdrantClient = server.client, first: int = first) -> None:
                nonlocal acknowledged
                start = first + n * size
                points = [
                    models.PointStruct(id=i, vector=vector(i), payload={"n": i}) for i in range(start, start + size)
                ]
                result = client.upsert("stream", points, wait=True)
                assert result.status == models.UpdateStatus.COMPLETED
                acknowledged = start + size

            thread, going = keep_doing(upsert)
            assert going.wait(30)
            server.kill()
            thread.join()

    with Server(storage) as server:
        records = server.client.retrieve("stream", list(range(acknowledged)), with_vectors=True)
        assert [(record.id, record.payload) for record in records] == [(i, {"n": i}) for i in range(acknowledged)]
        norm = sum(x * x for x in vector(7)) ** 0.5
        assert records[7].vector == pytest.approx([x / norm for x in vector(7)], abs=1e-6)


def test_updates_deletes_and_payload_survive_kill_9(storage: Path) -> None:
    with Server(storage) as server:
        client = server.client
        create(client, "c")
        client.upsert("c", [models.PointStruct(id=i, vector=vector(i), payload={"n": i}) for i in range(6)], wait=True)
        client.delete("c", [0], wait=True)
        client.set_payload("c", {"set": True}, [1], wait=True)
        client.overwrite_payload("c", {"only": True}, [2], wait=True)
        client.clear_payload("c", [3], wait=True)
        client.update_vectors("c", [models.PointVectors(id=4, vector=[1.0] + [0.0] * (DIMENSION - 1))], wait=True)
        server.kill()
    with Server(storage) as server:
        records = server.client.retrieve("c", list(range(6)), with_vectors=True)
        assert {record.id: record.payload or {} for record in records} == {
            1: {"n": 1, "set": True},
            2: {"only": True},
            3: {},
            4: {"n": 4},
            5: {"n": 5},
        }
        assert records[3].vector == [1.0] + [0.0] * (DIMENSION - 1)


def test_an_update_that_was_refused_does_not_spoil_the_log(storage: Path) -> None:
    with Server(storage) as server:
        create(server.client, "c")
        with pytest.raises(ApiException):
            server.client.set_payload("c", {"a": 1}, [99], wait=True)
        server.client.upsert("c", [models.PointStruct(id=1, vector=vector(1))], wait=True)
        server.kill()
    with Server(storage) as server:
        assert server.client.count("c").count == 1


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_collections_aliases_and_indexes_survive_the_end_of_the_server(storage: Path, end: signal.Signals) -> None:
    with Server(storage) as server:
        client = server.client
        create(client, "a")
        create(client, "b")
        client.update_collection("a", metadata={"extra": 1})
        client.update_collection_aliases([create_alias("a", "first"), create_alias("b", "second")])
        client.create_payload_index("first", "kind", models.PayloadSchemaType.KEYWORD, wait=True)
        client.create_payload_index("first", "slot", models.PayloadSchemaType.INTEGER, wait=True)
        client.delete_payload_index("first", "slot", wait=True)
        client.delete_collection("b")
        before = client.get_collection("a")
        server.stop(end)
    with Server(storage) as server:
        client = server.client
        assert [collection.name for collection in client.get_collections().collections] == ["a"]
        assert [(a.alias_name, a.collection_name) for a in client.get_aliases().aliases] == [("first", "a")]
        after = client.get_collection("first")
        assert after.config == before.config
        assert after.config.metadata == {"model": "some-model", "extra": 1}
        assert after.payload_schema == before.payload_schema
        assert list(after.payload_schema) == ["kind"]


def test_kill_9_among_creations_and_deletions_leaves_a_server_that_starts(storage: Path) -> None:
    for _ in range(4):
        with Server(storage) as server:
            client = server.client

            def create_and_delete(n: int, client: QdrantClient = client) -> None:
                name = f"c{n % 3}-{uuid.uuid4().hex[:8]}"
                create(client, name)
                client.update_collection_aliases([create_alias(name, f"alias-{name}")])
                client.upsert(name, [models.PointStruct(id=1, vector=vector(1))], wait=True)
                if n % 3:
                    client.delete_collection(name)

            thread, going = keep_doing(create_and_delete)
            assert going.wait(30)
            server.kill()
            thread.join()

    with Server(storage) as server:
        client = server.client
        names = {collection.name for collection in client.get_collections().collections}
        assert names
        assert {a.collection_name for a in client.get_aliases().aliases} <= names
        for name in names:
            result = client.upsert(name, [models.PointStruct(id=2, vector=vector(2))], wait=True)
            assert result.status == models.UpdateStatus.COMPLETED
        assert len(list((storage / "collections").iterdir())) == len(names)


def test_what_a_cut_off_creation_or_deletion_leaves_is_removed_at_start(storage: Path) -> None:
    with Server(storage) as server:
        create(server.client, "kept")
        server.stop(signal.SIGTERM)
    half_created = storage / "collections" / uuid.uuid4().hex
    (half_created / "segments").mkdir(parents=True)
    (storage / "catalogue.new").write_text('{"collections": {"to')
    with Server(storage) as server:
        assert [collection.name for collection in server.client.get_collections().collections] == ["kept"]
    assert not half_created.exists()


def test_a_second_server_on_the_same_storage_is_refused(storage: Path) -> None:
    with Server(storage) as server:
        second = subprocess.run(command(storage), capture_output=True, text=True, timeout=30, check=False)
        assert second.returncode == 1
        assert f"{storage} is in use by process {server.process.pid}" in second.stderr
        assert server.client.get_collections().collections == []


def test_a_damaged_catalogue_is_named_and_left_alone(storage: Path) -> None:
    storage.mkdir()
    catalogue = storage / "catalogue.json"
    catalogue.write_text("{torn")
    server = subprocess.run(command(storage), capture_output=True, text=True, timeout=30, check=False)
    assert server.returncode == 1
    assert str(catalogue) in server.stderr
    assert catalogue.read_text() == "{torn"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_finishes_requests_in_flight_and_exits_with_0(storage: Path, how: signal.Signals) -> None:
    with Server(storage) as server:
        create(server.client, "c")
        body = {"points": [{"id": i, "vector": vector(i)} for i in range(20_000)]}
        statuses: list[int] = []
        started = threading.Event()

        def content() -> Iterator[bytes]:
            started.set()
            yield httpx.Request("PUT", server.url, json=body).content

        def upsert() -> None:
            url = f"{server.url}/collections/c/points?wait=true"
            statuses.append(
                httpx.put(url, content=content(), headers={"content-type": "application/json"}, timeout=30).status_code
            )

        thread = threading.Thread(target=upsert)
        thread.start()
        assert started.wait(30)
        log = server.stop(how)
        thread.join()
        assert server.process.returncode == 0
        assert log.rstrip().endswith("stopped")
    with Server(storage) as server:
        assert statuses == [200]
        assert server.client.count("c").count == 20_000


def test_a_storage_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    storage = file / "storage"
    server = subprocess.run(command(storage), capture_output=True, text=True, timeout=30, check=False)
    assert server.returncode == 1
    assert str(storage) in server.stderr
