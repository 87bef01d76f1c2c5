"""Parts: a full sync into empty stores, against what embedder, Qdrant and PostgreSQL take alone for the same work.

The parts are CPU seconds. Those of PostgreSQL and of Qdrant are of their own processes during the full sync itself, so
that they are of exactly its statements, requests and bytes. Those of the local model are of a process of its own that
embeds the prepared texts of the full sync once more, in the same batches. `limit_s` is their sum over the cores of the
machine, and `ratio_parts` is `limit_s` over `seconds` of the full sync. Each figure is the median of some rounds.

What is missing from 1 has two causes, each with a ratio of its own, whose product is `ratio_parts`. `ratio_cpu` is the
share of the parts in all CPU seconds of the full sync: the rest, `own_cpu_s`, is the platform's own work. `busy` is the
share of the cores' time in which any of them works: the rest is waiting. CPU seconds, and with them `ratio_cpu`, are
also of use on a machine that has other work; `seconds`, `busy` and `ratio_parts` are not.
`cores_busy` has `busy` for each tenth of the full sync, from its start to its end.

QDRANT_URL (and QDRANT_API_KEY) name a Qdrant of this machine to measure with in place of the embedded engine. It has to
be empty, because the benchmark deletes all collections there.
"""

import os
import pickle
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psutil
from cold_fill import Batches, Recorder, fill_all
from harness import Bench, bench, in_fresh_process, load_entities, read_workspace, report, say, workspace_parser
from peers import stores

from mcp_assets.embedders import make_embedder
from mcp_assets.embedding.protocol import Embedder, EmbeddingResult
from mcp_assets.platform import Platform
from mcp_assets.settings import Settings

_SAMPLE_S = 0.05
"""Seconds between two looks at the CPU seconds of all processes."""

_TENTHS = 10


class RecordingEmbedder(Recorder):
    """The embedder of the settings; it keeps what it is asked for."""

    def __init__(self, embedder: Embedder) -> None:
        super().__init__(embedder.profile)
        self._embedder = embedder
        self.concurrency = embedder.concurrency

    def embed(
        self, texts: Sequence[str], *, stopping: threading.Event | None = None, background: bool = False
    ) -> EmbeddingResult:
        with self._lock:
            self.batches.append(list(texts))
        return self._embedder.embed(texts, stopping=stopping, background=background)

    def close(self) -> None:
        self._embedder.close()


@dataclass(frozen=True, slots=True)
class Fill:
    """One full sync: texts embedded, and CPU seconds of its process."""

    texts: int
    cpu_s: float
    began: float
    """By the monotonic clock, which all processes share."""
    ended: float


def fill(settings: Settings, batches_file: Path) -> Fill:
    """A full sync of everything. The batches of texts are kept in the file."""
    embedder = RecordingEmbedder(make_embedder(settings))
    # The model is loaded at its first text, which is part of neither side.
    embedder.embed(["warm"])
    embedder.batches.clear()
    cpu, began = _own_cpu_s(), time.monotonic()
    with closing(Platform(settings, embedder=embedder)) as platform:
        texts = fill_all(platform)
    done = Fill(texts, _own_cpu_s() - cpu, began, time.monotonic())
    batches_file.write_bytes(pickle.dumps(embedder.batches))
    return done


def embed_alone(settings: Settings, batches_file: Path) -> float:
    """CPU seconds in which the batches are embedded, and nothing else done."""
    batches: Batches = pickle.loads(batches_file.read_bytes())
    with closing(make_embedder(settings)) as embedder:
        embedder.embed(["warm"])
        began = _own_cpu_s()
        for batch in batches:
            embedder.embed(batch)
        return _own_cpu_s() - began


def _own_cpu_s() -> float:
    """CPU seconds of this process and of the processes that it had."""
    used = psutil.Process().cpu_times()
    return used.user + used.system + used.children_user + used.children_system


class Watch(threading.Thread):
    """Notes how many CPU seconds all processes of the machine have taken, at each moment while the block runs."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.notes: list[tuple[float, float]] = []
        self._stop_now = threading.Event()

    def run(self) -> None:
        while not self._stop_now.wait(_SAMPLE_S):
            used = psutil.cpu_times()
            # `user` contains `guest`.
            self.notes.append((time.monotonic(), used.user + used.nice + used.system))

    def __enter__(self) -> "Watch":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_now.set()
        self.join()

    def busy(self, began: float, ended: float) -> float:
        """Share of the cores' time between two moments in which they worked."""
        during = [note for note in self.notes if began <= note[0] <= ended]
        if len(during) < 2:
            return 0.0
        (first_at, first), (last_at, last) = during[0], during[-1]
        return (last - first) / (last_at - first_at) / _cores()


def _cores() -> int:
    return os.cpu_count() or 1


def measure_round(own: Bench, served: Bench, settings: Settings) -> dict[str, float]:
    """The figures of one full sync."""
    batches_file = own.folder / "batches"
    served.forget_index()
    before = stores.cpu_seconds(served)
    with Watch() as watch:
        done: Fill = in_fresh_process(fill, settings, batches_file).result
    after = stores.cpu_seconds(served)
    used = {name: (after[name] or 0.0) - (before[name] or 0.0) for name in ("postgres", "qdrant")}
    embedder_s: float = in_fresh_process(embed_alone, settings, batches_file).result
    parts_s = embedder_s + used["postgres"] + used["qdrant"]
    all_s = done.cpu_s + used["postgres"] + used["qdrant"]
    seconds = done.ended - done.began
    tenth = seconds / _TENTHS
    figures = {
        "ratio_parts": parts_s / _cores() / seconds,
        "ratio_cpu": parts_s / all_s,
        "busy": all_s / _cores() / seconds,
        "seconds": seconds,
        "limit_s": parts_s / _cores(),
        "texts": done.texts,
        "embedder_cpu_s": embedder_s,
        "qdrant_cpu_s": used["qdrant"],
        "postgres_cpu_s": used["postgres"],
        "own_cpu_s": done.cpu_s - embedder_s,
        **{
            f"busy_{place}": watch.busy(done.began + place * tenth, done.began + (place + 1) * tenth)
            for place in range(_TENTHS)
        },
    }
    say(", ".join(f"{name} {value:.3f}" for name, value in figures.items()))
    return figures


def main() -> None:
    arguments = workspace_parser(__doc__).parse_args()
    server = stores.named_server()
    if server is not None and (names := server.collections()):
        sys.exit(f"the Qdrant at {server.url} holds the collections {', '.join(names)}: set QDRANT_URL to an empty one")
    with bench() as own:
        served = stores.on_server(own, server)
        try:
            say(f"{load_entities(own, read_workspace(arguments.file, arguments.entities))} entities are loaded")
            settings = served.settings()
            if stores.cpu_seconds(served)["qdrant"] is None:
                sys.exit("Qdrant is not on this machine, so that its CPU seconds cannot be read: set QDRANT_URL")
            # A round of its own before them: the first one finds the files of the stores and of the model cold.
            rounds = [measure_round(own, served, settings) for _ in range(arguments.rounds + 1)][1:]
        finally:
            stores.empty(served)
    medians = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
    report(
        **{name: value for name, value in medians.items() if not name.startswith("busy_")},
        cores_busy=[round(medians[f"busy_{place}"], 2) for place in range(_TENTHS)],
    )


if __name__ == "__main__":
    main()
