"""Scale: full syncs and updates of 10,000, 100,000 and 1,000,000 synthetic entities.

The embedder is a hash of the text, 64 dimensions: it costs next to nothing, and vectors this short keep the embedded
Qdrant engine out of the way, so that what is measured is the platform. For each size: `us_per_entity` of a full sync
into empty stores; `unchanged_s`, a full sync that finds nothing to do; `update_s`, 1 % of the entities updated, by
their events; `update_ratio`, the cost of an updated entity over that of one in the full sync, less `start_s`, what an
update of one entity takes; `peak_rss_mb`, of the process that did the full sync, with Dagster loaded as in a
run. `flatness`: the largest `us_per_entity` over the smallest. Up to --link-up-to entities, also `link_us_per_entity`
and `link_peak_rss_mb` of linking all of them, which compares each with each and so is quadratic. With --index,
`index_s`: what building Qdrant's index takes, with the stack stopped.
"""

import argparse
import hashlib
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
from harness import Bench, bench, in_fresh_process, publish, report, say

from mcp_assets.embedded import stack
from mcp_assets.embedded.qdrant.storage import Storage
from mcp_assets.embedded.state import StateDir
from mcp_assets.embedding.profiles import ModelProfile
from mcp_assets.embedding.protocol import EmbeddingOutcome, EmbeddingResult, Vector
from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.sync.inbox.drain import drain
from mcp_assets.sync.inbox.intake import intake
from mcp_assets.sync.index.full_sync import full_sync
from mcp_assets.sync.link.linker import link_until_done

DIMENSION = 64
ENTITY_TYPE = "task"

# Some 600 characters each, all different.
_INSERT = """
INSERT INTO tasks (id, title, description, status, tags)
SELECT 'task-' || n, 'Task ' || n, repeat(md5(n::text) || ' ', 18), 'open', ARRAY['tag-' || n % 1000]
FROM generate_series(1, %s) AS n
"""
_UPDATE = """
UPDATE tasks SET description = description || ' again', updated_at = now()
WHERE id IN (SELECT 'task-' || n FROM generate_series(1, %s, 100) AS n)
"""


class HashEmbedder:
    """Deterministic vectors at the cost of one hash a text."""

    concurrency = 2

    def __init__(self) -> None:
        self.profile = ModelProfile("hash", DIMENSION, "Cosine", 0.7, 1_000_000, 4096, 1_000_000_000)

    def embed(
        self,
        texts: Sequence[str],
        *,
        stopping: Event | None = None,  # noqa: ARG002
        background: bool = False,  # noqa: ARG002
    ) -> EmbeddingResult:
        return EmbeddingResult([EmbeddingOutcome(_vector(text), None) for text in texts], None)

    def embed_query(self, text: str) -> Vector:
        return _vector(text)

    def stop(self) -> None:
        """Nothing to stop."""

    def close(self) -> None:
        """Nothing to close."""


def _vector(text: str) -> Vector:
    digest = hashlib.blake2b(text.encode(), digest_size=DIMENSION).digest()
    return np.frombuffer(digest, dtype=np.uint8).astype(np.float32) - 127.5


def fill(settings: Settings) -> int:
    """A full sync; the number of entities embedded."""
    with closing(Platform(settings, embedder=HashEmbedder())) as platform:
        news = full_sync(platform, ENTITY_TYPE, range(settings.shards))
        return sum(told.counts.embedded for told in news if told.complete)


def take_in_and_drain(settings: Settings) -> tuple[int, float]:
    """The events in the stream applied; the number of entities embedded, and the seconds until the last of them."""
    began = ended = time.perf_counter()
    embedded = 0
    with closing(Platform(settings, embedder=HashEmbedder())) as platform:
        while intake(platform, wait_s=0.0).more:
            pass
        for batch in drain(platform, ENTITY_TYPE, "benchmark"):
            embedded += sum(counts.embedded for counts in batch.report.shards.values())
            # The drain itself then waits for more.
            ended = time.perf_counter()
    return embedded, ended - began


def link_all(settings: Settings) -> int:
    """All marks worked off; the number of edges made."""
    with closing(Platform(settings, embedder=HashEmbedder())) as platform:
        return sum(linked.total().added.total() for linked in link_until_done(platform))


def build_index(directory: Path) -> float:
    """Seconds of the engine's optimizing of all collections in `directory`, of which no server is open."""
    storage = Storage.open(directory)
    began = time.perf_counter()
    for collection in storage.collections():
        collection.optimize()
    seconds = time.perf_counter() - began
    storage.close()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entities", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--link-up-to", type=int, default=100_000, help="link no more entities than these")
    parser.add_argument("--index", action="store_true", help="also build Qdrant's index, which may take long")
    arguments = parser.parse_args()
    sizes = []
    for entities in arguments.entities:
        with bench() as stores:
            figures = measure(stores, entities)
            if entities <= arguments.link_up_to:
                figures |= measure_linking(stores, entities)
            if arguments.index:
                stack.stop(stores.state_dir)
                figures["index_s"] = in_fresh_process(
                    build_index, StateDir(stores.state_dir).directory_of(stack.Part.QDRANT)
                ).result
        say(f"{figures}")
        sizes.append({name: round(value, 3) for name, value in figures.items()})
    costs = [figures["us_per_entity"] for figures in sizes]
    report(
        sizes=sizes,
        flatness=max(costs) / min(costs),
        peak_rss_mb=max(figures[name] for figures in sizes for name in figures if name.endswith("peak_rss_mb")),
        update_ratio=max(figures["update_ratio"] for figures in sizes),
    )


def measure_linking(stores: Bench, entities: int) -> dict[str, Any]:
    stores.settle()
    linked = in_fresh_process(link_all, stores.settings())
    assert linked.result, "no edge was made"
    say(f"linking: {linked.seconds:.1f} s, {linked.result} edges")
    return {
        "link_s": linked.seconds,
        "link_us_per_entity": linked.seconds / entities * 1e6,
        "link_peak_rss_mb": linked.peak_rss_mb,
    }


def measure(stores: Bench, entities: int) -> dict[str, Any]:
    settings = stores.settings(drain_linger_s=0)
    stores.query(_INSERT.replace("%s", str(entities)))
    stores.forget_index()
    say(f"{entities} entities are in the source table")
    filled = in_fresh_process(fill, settings)
    assert filled.result == entities, f"{filled.result} of {entities} entities were embedded"
    say(f"full sync: {filled.seconds:.1f} s")
    unchanged = in_fresh_process(fill, settings)
    assert unchanged.result == 0, f"{unchanged.result} unchanged entities were embedded again"
    stores.query(_UPDATE.replace("%s", str(entities)))
    stores.settle()
    changed = [f"task-{number}" for number in range(1, entities + 1, 100)]
    took = []
    for ids in (changed[:1], changed[1:]):
        publish(stores, [("mcp.task.updated", f'{{"taskId": "{entity_id}"}}'.encode()) for entity_id in ids])
        embedded, seconds = in_fresh_process(take_in_and_drain, settings).result
        assert embedded == len(ids), f"{embedded} of {len(ids)} updates were embedded"
        took.append(seconds)
    start_s, update_s = took
    return {
        "entities": entities,
        "seconds": filled.seconds,
        "us_per_entity": filled.seconds / entities * 1e6,
        "unchanged_s": unchanged.seconds,
        "update_s": update_s,
        "start_s": start_s,
        "update_ratio": ((update_s - start_s) / (len(changed) - 2)) / (filled.seconds / entities),
        "peak_rss_mb": filled.peak_rss_mb,
    }


if __name__ == "__main__":
    main()
