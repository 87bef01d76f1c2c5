"""Census: every seeded fault is found from the stores, and nothing else."""

import hashlib
import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from mcp_assets.embedding.profiles import ModelProfile
from mcp_assets.embedding.protocol import Embedded, EmbeddingResult, Vector
from mcp_assets.sync.census import take_census
from mcp_assets.sync.full import full_sync
from mcp_assets.sync.linker import link_until_done
from mcp_assets.sync.load import create_source_tables
from mcp_assets.sync.platform import Platform

DIM = 16


class HashEmbedder:
    concurrency = 2

    def __init__(self) -> None:
        self.profile = ModelProfile("hash", DIM, "Cosine", 0.7, 1_000_000, 4096, 1_000_000_000)
        self.texts: list[str] = []

    def embed(self, texts: Sequence[str]) -> EmbeddingResult:
        self.texts += texts
        return EmbeddingResult([Embedded(_vector(text), None) for text in texts], None)

    def embed_query(self, text: str) -> Vector:
        return _vector(text)

    def close(self) -> None:
        pass


def _vector(text: str) -> Vector:
    digest = hashlib.blake2b(text.encode(), digest_size=DIM).digest()
    return np.frombuffer(digest, dtype=np.uint8).astype(np.float32) - 127.5


def test_x(make_platform: Callable[..., Platform]) -> None:
    platform = make_platform(batch_size=500)
    platform._embedder = HashEmbedder()
    create_source_tables(platform)
    with platform.postgres.transaction() as connection:
        connection.execute(
            "INSERT INTO tasks (id, title, description, tags, depends_on) SELECT 'task-' || n, 'Task ' || n, repeat(md5(n::text) || ' ', 4), ARRAY['tag-' || n % 2000], ARRAY['task-' || n / 2 + 1] FROM generate_series(1, 10000) n"
        )
    t = time.time()
    for _ in full_sync(platform, "task", range(4)):
        pass
    print("sync", time.time() - t)
    t = time.time()
    for _ in link_until_done(platform):
        pass
    print("link", time.time() - t)
    for deep in (False, True):
        for shard in range(4):
            c = take_census(platform, "task", shard, deep=deep)
            print(c.counts, c.checked, c.points, c.edges, round(c.seconds, 2), c.examples[:3])
