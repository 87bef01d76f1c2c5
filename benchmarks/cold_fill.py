"""Cold fill: a full sync of a workspace into empty stores, against its embedder called alone.

`ratio_local`: seconds of the local model alone on the same prepared texts in the same batches, over those of the full
sync. `ratio_remote`: texts a second of a full sync with a provider that has limits, over what these limits allow;
`ratio_remote_alone` is the same of a client that embeds and does nothing else. Each is the median of some rounds, in
which both sides take turns; `seconds` and `peak_rss_mb` are of the full sync with the local model.
`seconds_without_embedder`: the same full sync with an embedder that costs nothing; `seconds_qdrant_alone`: the points
of it written to Qdrant once more, in the same requests by one client, and nothing else done. With the embedded Qdrant
engine on a machine of few cores these two, not the embedder, are what a full sync takes.
"""

import pickle
import statistics
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from uuid import UUID

import numpy as np
from harness import Bench, bench, in_fresh_process, load_entities, read_workspace, report, say, workspace_parser
from rate_limited_provider import FAST, provider

from mcp_assets.embedders import make_embedder
from mcp_assets.embedding.profiles import ModelProfile
from mcp_assets.embedding.protocol import EmbeddingOutcome, EmbeddingResult, Vector, only_vector
from mcp_assets.entities.refs import SLOTS
from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.stores.qdrant_points import Point
from mcp_assets.sync.index.full_sync import full_sync

REMOTE_MODEL = "text-embedding-3-small"
REMOTE_DIMENSION = 256
"""As the local model has, so that both full syncs write points of one size."""

Batches = list[list[str]]

_TEXTS_APART = 0.01
"""Share of the texts by which fills may differ: equal texts are embedded once, or twice if both are in flight."""


class Recorder:
    """An embedder that costs nothing and keeps what it is asked for: the prepared texts, in the platform's batches."""

    concurrency = 2

    def __init__(self, profile: ModelProfile) -> None:
        self.profile = profile
        self.batches: Batches = []
        self._lock = threading.Lock()
        self._vector = np.full(profile.dimension, profile.dimension**-0.5, dtype=np.float32)

    def embed(
        self,
        texts: Sequence[str],
        *,
        stopping: threading.Event | None = None,  # noqa: ARG002
        background: bool = False,  # noqa: ARG002
    ) -> EmbeddingResult:
        with self._lock:
            self.batches.append(list(texts))
        return EmbeddingResult([EmbeddingOutcome(self._vector, None) for _ in texts], None)

    def embed_query(self, text: str) -> Vector:
        return only_vector(self.embed([text]))

    def stop(self) -> None:
        """Nothing to stop."""

    def close(self) -> None:
        """Nothing to close."""


def fill(settings: Settings) -> int:
    """A full sync of everything; the number of texts embedded."""
    with closing(Platform(settings)) as platform:
        return fill_all(platform)


def record(settings: Settings, batches_file: Path) -> int:
    """A full sync with an embedder that costs nothing, its batches kept in `batches_file`."""
    recorder = Recorder(settings.profile)
    with closing(Platform(settings, embedder=recorder)) as platform:
        texts = fill_all(platform)
    batches_file.write_bytes(pickle.dumps(recorder.batches))
    return texts


def fill_all(platform: Platform) -> int:
    """A full sync of everything; the number of texts embedded."""
    texts = 0
    for entity_type in platform.settings.entity_types:
        for news in full_sync(platform, entity_type, range(platform.settings.shards)):
            if news.complete:
                texts += news.counts.texts
                assert not news.counts.failed, f"{news.counts.failed} entities of {entity_type} failed"
    return texts


def embed_alone(settings: Settings, batches_file: Path) -> int:
    """The batches embedded, as many at once as the embedder is worth; the number of texts."""
    batches: Batches = pickle.loads(batches_file.read_bytes())
    with closing(make_embedder(settings)) as embedder, ThreadPoolExecutor(embedder.concurrency) as pool:
        return sum(len(result.outcomes) for result in pool.map(embedder.embed, batches))


def upsert_alone(settings: Settings) -> float:
    """Seconds in which Qdrant takes the points that it holds, once more, in collections of their own."""
    seconds = 0.0
    with closing(Platform(settings)) as platform:
        profile = platform.embedder.profile
        for held in platform.qdrant.aliases().values():
            copy = f"{held}_copy"
            platform.qdrant.create_collection(copy, dimension=profile.dimension, distance=profile.distance)
            for page in platform.qdrant.scroll_slots(held, (0, SLOTS)):
                points = [Point(UUID(point.id), point.vector, point.payload) for point in page]
                began = time.perf_counter()
                platform.qdrant.write(copy, upsert=points)
                seconds += time.perf_counter() - began
            platform.qdrant.drop_collection(copy)
    return seconds


def main() -> None:
    arguments = workspace_parser(__doc__).parse_args()
    with bench() as stores:
        loaded = load_entities(stores, read_workspace(arguments.file, arguments.entities))
        say(f"{loaded} entities are in the source tables")
        measure(stores, arguments.rounds)


def measure(stores: Bench, rounds: int) -> None:
    batches_file = stores.folder / "batches"
    local = stores.settings()
    stores.forget_index()
    recorded = in_fresh_process(record, local, batches_file)
    say(f"{recorded.result} texts; the full sync took {recorded.seconds:.1f} s with an embedder that costs nothing")
    with provider(REMOTE_DIMENSION) as base_url:
        remote = stores.settings(
            openai_base_url=base_url, embedding_model=REMOTE_MODEL, embedding_dimension=REMOTE_DIMENSION
        )
        alone, filled, upserted, remote_alone, remote_filled = [], [], [], [], []
        for _ in range(rounds):
            alone.append(in_fresh_process(embed_alone, local, batches_file))
            stores.forget_index()
            filled.append(in_fresh_process(fill, local))
            upserted.append(in_fresh_process(upsert_alone, local).result)
            remote_alone.append(in_fresh_process(embed_alone, remote, batches_file))
            stores.forget_index()
            remote_filled.append(in_fresh_process(fill, remote))
            say(
                f"local: {alone[-1].seconds:.1f} s alone, {filled[-1].seconds:.1f} s full sync; "
                f"remote: {remote_alone[-1].seconds:.1f} s alone, {remote_filled[-1].seconds:.1f} s full sync"
            )
    texts = recorded.result
    assert all(run.result == texts for run in (*alone, *remote_alone))
    for run in (*filled, *remote_filled):
        assert abs(run.result - texts) <= texts * _TEXTS_APART, f"{run.result} texts embedded, {texts} expected"
    report(
        ratio_local=statistics.median(a.seconds / f.seconds for a, f in zip(alone, filled, strict=True)),
        ratio_remote=statistics.median(texts / run.seconds / FAST.allowed_per_s for run in remote_filled),
        ratio_remote_alone=statistics.median(texts / run.seconds / FAST.allowed_per_s for run in remote_alone),
        texts=texts,
        seconds=statistics.median(run.seconds for run in filled),
        seconds_without_embedder=recorded.seconds,
        seconds_qdrant_alone=statistics.median(upserted),
        peak_rss_mb=max(run.peak_rss_mb for run in filled),
    )


if __name__ == "__main__":
    main()
