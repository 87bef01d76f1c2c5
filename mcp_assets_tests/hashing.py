"""What the tests of drift share: a cheap embedder that counts, tasks by the thousand, and faults made on purpose."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from threading import Event
from typing import Any

import numpy as np
from qdrant_client import QdrantClient, models

from mcp_assets.cli.load_entities import create_source_tables
from mcp_assets.embedding.profiles import ModelProfile
from mcp_assets.embedding.protocol import EmbeddingOutcome, EmbeddingResult, Vector
from mcp_assets.entities.points import point_id
from mcp_assets.entities.refs import EntityRef
from mcp_assets.platform import Platform
from mcp_assets.sync.consistency.census import take_census
from mcp_assets.sync.consistency.stored_censuses import Census
from mcp_assets.sync.index.full_sync import full_sync
from mcp_assets.sync.link.linker import link_until_done
from mcp_assets_tests.clients import qdrant_of

DIMENSION = 16
TASKS = "kanban_tasks"


class HashEmbedder:
    """Deterministic vectors at the cost of one hash a text; it keeps what it embedded."""

    concurrency = 2

    def __init__(self, threshold: float = 0.9) -> None:
        self.profile = ModelProfile("hash", DIMENSION, "Cosine", threshold, 1_000_000, 4096, 1_000_000_000)
        self.texts: list[str] = []

    def embed(
        self, texts: Sequence[str], *, stopping: Event | None = None, background: bool = False
    ) -> EmbeddingResult:
        self.texts += texts
        return EmbeddingResult([EmbeddingOutcome(vector_of(text), None) for text in texts], None)

    def embed_query(self, text: str) -> Vector:
        return vector_of(text)

    def stop(self) -> None:
        """Nothing to stop."""

    def close(self) -> None:
        """Nothing to close."""


def vector_of(text: str) -> Vector:
    digest = hashlib.blake2b(text.encode(), digest_size=DIMENSION).digest()
    return np.frombuffer(digest, dtype=np.uint8).astype(np.float32) - 127.5


def fill(platform: Platform, tasks: int) -> None:
    """So many tasks in the source table, indexed and linked; every second one depends on the one before it."""
    create_source_tables(platform)
    with platform.postgres.transaction() as connection:
        connection.execute(
            "INSERT INTO tasks (id, title, description, tags, depends_on)"
            " SELECT 't' || n, 'Task ' || n, md5(n::text), ARRAY['tag-' || n / 2],"
            " CASE WHEN n %% 2 = 0 THEN ARRAY['t' || n - 1] ELSE '{}' END"
            " FROM generate_series(1, %s) AS n",
            (tasks,),
        )
    sync(platform)


def sync(platform: Platform) -> None:
    for _ in full_sync(platform, "task", range(platform.settings.shards)):
        pass
    for _ in link_until_done(platform):
        pass


def censuses(platform: Platform, *, deep: bool = False) -> list[Census]:
    """One of each partition of tasks."""
    return [take_census(platform, "task", shard, deep=deep) for shard in range(platform.settings.shards)]


def found(taken: Sequence[Census]) -> dict[str, int]:
    total: dict[str, int] = {}
    for census in taken:
        for kind, count in census.counts.items():
            total[kind.value] = total.get(kind.value, 0) + count
    return total


def task_point(number: int) -> str:
    return str(point_id(EntityRef("task", f"t{number}")))


@contextmanager
def qdrant(platform: Platform) -> Iterator[QdrantClient]:
    with closing(qdrant_of(platform.settings)) as client:
        yield client


def points(client: QdrantClient, *numbers: int) -> list[models.PointStruct]:
    """The points of tasks, to be written again otherwise."""
    records = client.retrieve(TASKS, [task_point(n) for n in numbers], with_payload=True, with_vectors=True)
    by_id = {str(record.id): record for record in records}
    return [
        models.PointStruct(
            id=task_point(n), vector=list(_vector(by_id[task_point(n)])), payload=by_id[task_point(n)].payload
        )
        for n in numbers
    ]


def _vector(record: models.Record) -> Any:
    assert isinstance(record.vector, list)
    return record.vector
