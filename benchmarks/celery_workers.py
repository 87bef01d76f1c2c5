"""Celery workers: the embeddings of a full sync on one worker and on two, with a provider that takes 200 ms.

Each worker executes one run at a time, each run has at most two requests in flight, and the limit that all share lies
above both: so a second worker should double the speed. `texts_a_s_one`, `texts_a_s_two`: texts embedded in a second,
from the first request of a full sync to its last, the medians of some rounds that take turns; `ratio`: of the two.
What a worker does between two runs, a census among it, counts. `in_flight_one`, `in_flight_two`: the most requests that
the provider has seen at once.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from harness import report, say

from mcp_assets.entities.refs import EntityRef
from mcp_assets_tests.acceptance.live import TABLES, Live, end, launch
from mcp_assets_tests.celery.cluster import BROKER, Cluster
from mcp_assets_tests.waiting import until

LATENCY_S = 0.2
REQUESTS = 2
SHARED = 8
WORKERS = ("east", "west")
PATIENCE_S = 600.0

_WORDS = ("gate", "river", "copper", "harbour", "ledger", "violet", "engine", "winter", "meadow", "signal", "orchid")


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """The stores, a broker, the daemon and the first worker."""
    live = launch(folder)
    made = Cluster(live)
    try:
        live.settings |= {
            "MCP_ASSETS_SHARDS": "4",
            "MCP_ASSETS_PARTITIONS_A_RUN": "2",
            "MCP_ASSETS_SWEEP": "false",
            "MCP_ASSETS_BATCH_SIZE": "8",
            "EMBEDDING_CONCURRENCY": str(REQUESTS),
            "EMBEDDING_SHARED_CONCURRENCY": str(SHARED),
        }
        made.start()
        made.start_worker(WORKERS[0], processes=1)
        made.wait_for_workers(WORKERS[0])
        live.start_daemon()
        yield made
    finally:
        # `end` kills what takes too long to end by itself.
        with suppress(subprocess.TimeoutExpired):
            live.stop_daemon()
        made.end()
        end(live)


def write(live: Live, entities: int, version: int) -> None:
    """Another text for each entity, so that each is embedded."""
    names = list(TABLES)
    live.write_all(
        {
            EntityRef(names[number % len(names)], f"e{number}"): (
                f"Entity {number}",
                " ".join(_WORDS[(number * 7 + place * version) % len(_WORDS)] for place in range(12))
                + f" {number} {version}",
            )
            for number in range(entities)
        }
    )


def embed(running: Cluster, entities: int, name: str) -> tuple[float, int]:
    """A full sync by the workers that are there; texts a second while it embeds, and the most requests at once."""
    live = running.live
    live.count_from_zero()
    live.slow_embedder(LATENCY_S)
    data = {"sync_type": "full_sync", "entity_ids": [], "context": {}}
    live.publish([("data.sync.request", {"message_id": name, "data": data})])
    until(lambda: live.embedded()["texts"] > 0, "the first text is embedded", within_s=PATIENCE_S)
    began = time.monotonic()
    until(lambda: live.embedded()["texts"] >= entities, "all texts are embedded", within_s=PATIENCE_S)
    seconds = time.monotonic() - began
    most = live.embedded()["max_in_flight"]
    live.quick_embedder()
    until(
        lambda: live.query("SELECT 1 FROM mcp_assets.full_syncs WHERE finished_at IS NULL") == [],
        "the full sync is done",
        within_s=PATIENCE_S,
    )
    return entities / seconds, most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--entities", type=int, default=2400)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    if BROKER is None:
        sys.exit("no broker: redis-server is not on the path (Debian: apt-get install redis-server)")
    speeds: dict[int, list[float]] = {1: [], 2: []}
    most: dict[int, int] = {1: 0, 2: 0}
    with tempfile.TemporaryDirectory(prefix="celery-") as folder, cluster(Path(folder)) as running:
        version = 0
        for _ in range(arguments.rounds):
            for workers in speeds:
                for worker in WORKERS[:workers]:
                    if worker not in running.workers:
                        running.start_worker(worker, processes=1)
                running.wait_for_workers(*WORKERS[:workers])
                version += 1
                write(running.live, arguments.entities, version)
                speed, in_flight = embed(running, arguments.entities, f"round-{version}")
                say(f"{workers} worker{'s' if workers > 1 else ''}: {speed:.0f} texts a second")
                speeds[workers].append(speed)
                most[workers] = max(most[workers], in_flight)
            running.stop_worker(WORKERS[1])
    one, two = statistics.median(speeds[1]), statistics.median(speeds[2])
    report(
        entities=arguments.entities,
        rounds=arguments.rounds,
        texts_a_s_one=round(one),
        texts_a_s_two=round(two),
        ratio=round(two / one, 2),
        in_flight_one=most[1],
        in_flight_two=most[2],
    )


if __name__ == "__main__":
    main()
