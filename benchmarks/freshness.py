"""Freshness: from an event published until its entity's vector is found in Qdrant, and what the start of a run costs.

A plain NATS client publishes, qdrant-client looks until the point bears the hash of the new text. Loads: idle (one
event after the other, each a random time after the last run has ended), steady (1 a second), busy (50 a second), entity
types in turn, with the shipped settings; then idle again with Dagster's stock settings: default launcher and queue,
SQLite, a sensor that returns at once, drains that do not stay. An idle event never meets a run that is at work or about
to start, because the slower start would gain by it. `lost`: vectors never found. `cpu_warm_s` and `cpu_stock_s`: CPU
seconds of a run's process at the first line of its asset, and `cpu_warm_run_s` and `cpu_stock_run_s` at its last;
`cpu_ratio`, `cpu_run_ratio`: warm ÷ stock.
"""

import argparse
import asyncio
import json
import random
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nats
from harness import (
    Bench,
    Daemon,
    bench,
    daemon,
    load_entities,
    percentile,
    report,
    say,
)
from qdrant_client import AsyncQdrantClient
from timed_location import NOTES

from mcp_assets.cli.load_entities import Line
from mcp_assets.entities.points import Key, point_id
from mcp_assets.entities.refs import EntityRef
from mcp_assets.entities.text import prepare
from mcp_assets_tests.clients import key_of

TYPES = {"task": "kanban_tasks", "page": "wiki_pages", "memory": "memory_nodes"}
"""Entity types and their collections."""

STOCK_YAML = """
telemetry:
  enabled: false
"""
STOCK_ENVIRONMENT = {"MCP_ASSETS_SENSOR_TICK_S": "0.05", "MCP_ASSETS_DRAIN_LINGER_S": "0"}

_LOOK_EVERY_S = 0.02
_PATIENCE_S = 300.0

_REST_LOOK_EVERY_S = 0.5
"""How often Dagster is asked whether a run is at work: an answer costs milliseconds, and runs take seconds to start."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is published when: seconds from the start, ascending.

    `at_rest`: instead, each event is published so many seconds after the platform has come to rest since the last one.
    """

    name: str
    times: Sequence[float]
    at_rest: bool = False


@dataclass(frozen=True, slots=True)
class Latencies:
    """Seconds from publishing to finding of each event that was found, and how many were not."""

    seconds: Sequence[float]
    lost: int

    def figures(self, name: str) -> dict[str, float]:
        return {f"{name}_p50_s": percentile(self.seconds, 0.5), f"{name}_p95_s": percentile(self.seconds, 0.95)}


class Probe:
    """Publishes events about entities that are in the source tables, and looks for their vectors."""

    def __init__(self, stores: Bench, running: Daemon) -> None:
        self._stores = stores
        self._running = running
        self._waiting: dict[EntityRef, float] = {}
        self._seconds: list[float] = []
        self._publishing = False

    def run(self, load: Load) -> Latencies:
        """Go through `load`; its entities are written to the source tables first, so that only events are published."""
        entities = [_entity(load.name, number) for number in range(len(load.times))]
        load_entities(self._stores, entities)
        least_s = sum(load.times) if load.at_rest else load.times[-1]
        say(f"{load.name}: {len(entities)} events in {least_s:.0f} s or more")
        self._waiting, self._seconds = {}, []
        asyncio.run(self._run(load, entities))
        measured = Latencies(self._seconds, len(self._waiting))
        if not measured.seconds:
            raise RuntimeError(f"none of the {len(entities)} vectors was found; see {self._running.log}")
        say(f"{load.name}: {measured.figures(load.name)}, {measured.lost} lost")
        return measured

    async def _run(self, load: Load, entities: Sequence[Line]) -> None:
        hashes = {_ref(entity): prepare(entity.title, entity.content, None).text_hash for entity in entities}
        self._publishing = True
        looking = asyncio.create_task(self._look(hashes))
        client = await nats.connect(self._stores.nats_url)
        began = time.monotonic()
        for at, entity in zip(load.times, entities, strict=True):
            if load.at_rest:
                await self._rest(at)
            else:
                await asyncio.sleep(max(0.0, began + at - time.monotonic()))
            body = {"entity_type": entity.entity_type, "entity_id": entity.entity_id}
            self._waiting[_ref(entity)] = time.monotonic()
            await client.publish(f"mcp.{entity.entity_type}.created", json.dumps(body).encode())
            await client.flush()
        await client.close()
        self._publishing = False
        await looking

    async def _rest(self, seconds: float) -> None:
        """Return when every vector is found, and there has been no run for so many seconds."""
        rested_since = time.monotonic()
        while time.monotonic() - rested_since < seconds:
            self._running.check()
            if self._waiting or not await asyncio.to_thread(self._running.is_idle):
                rested_since = time.monotonic()
            await asyncio.sleep(_REST_LOOK_EVERY_S)

    async def _look(self, hashes: Mapping[EntityRef, str]) -> None:
        """Look for the vectors that are waited for, until there are none, or patience ends."""
        assert self._stores.addresses.qdrant_url is not None
        headers = {"api-key": key_of(self._stores.addresses)}
        qdrant = AsyncQdrantClient(url=self._stores.addresses.qdrant_url, headers=headers, check_compatibility=False)
        existing: set[str] = set()
        last_news = time.monotonic()
        while self._publishing or (self._waiting and time.monotonic() - last_news < _PATIENCE_S):
            self._running.check()
            for entity_type, collection in TYPES.items():
                wanted = {str(point_id(ref)): ref for ref in self._waiting if ref.type == entity_type}
                if not wanted:
                    continue
                if collection not in existing:
                    if not await qdrant.collection_exists(collection):
                        continue
                    existing.add(collection)
                for point in await qdrant.retrieve(collection, list(wanted), with_payload=[Key.TEXT_HASH]):
                    ref = wanted[str(point.id)]
                    if point.payload and point.payload[Key.TEXT_HASH] == hashes[ref]:
                        last_news = time.monotonic()
                        self._seconds.append(last_news - self._waiting.pop(ref))
            await asyncio.sleep(_LOOK_EVERY_S)
        await qdrant.close()


def _entity(load: str, number: int) -> Line:
    entity_type = list(TYPES)[number % len(TYPES)]
    words = random.Random(f"{load} {number}").choices(["board", "sprint", "release", "vector", "page", "review"], k=80)
    return Line(entity_type, f"{load}-{number}", f"{load} {number}", " ".join(words), {}, None, None)


def _ref(entity: Line) -> EntityRef:
    return EntityRef(entity.entity_type, entity.entity_id)


def idle(name: str, events: int, rest_s: Sequence[float]) -> Load:
    """`events`, each a random time between the two of `rest_s` after the last run; the same in each benchmark."""
    rng = random.Random(0)
    return Load(name, [rng.uniform(*rest_s) for _ in range(events)], at_rest=True)


def regular(name: str, per_s: float, seconds: float) -> Load:
    return Load(name, [number / per_s for number in range(int(per_s * seconds))])


@contextmanager
def platform(
    stores: Bench, name: str, dagster_yaml: str | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[Probe]:
    """The daemon with these settings, up and through with a first event of each type."""
    location = Path(__file__).with_name("timed_location.py")
    workspace = {"load_from": [{"python_file": {"relative_path": str(location), "location_name": "mcp_assets"}}]}
    with daemon(
        stores,
        name,
        dagster_yaml=dagster_yaml,
        # YAML takes JSON.
        workspace_yaml=json.dumps(workspace),
        environment={**(environment or {}), NOTES: str(_notes(stores, name))},
    ) as running:
        probe = Probe(stores, running)
        probe.run(Load(f"{name}-start", [0.0] * len(TYPES)))
        # Drains stay for a while; idle begins without one.
        time.sleep(10)
        yield probe


def _notes(stores: Bench, name: str) -> Path:
    return stores.folder / f"{name}.notes"


def cpu_of_runs(stores: Bench, name: str, moment: str) -> float:
    """Median CPU seconds of runs at a moment of `timed_location`; the first ones, which warm up, are left out."""
    notes = [json.loads(line) for line in _notes(stores, name).read_text().splitlines()]
    seconds = [note["cpu_s"] for note in notes if note["moment"] == moment]
    return float(statistics.median(seconds[len(TYPES) :]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--idle-events", type=int, default=20)
    parser.add_argument("--rest", type=float, nargs=2, default=[5.0, 20.0], help="without a run, before an idle event")
    parser.add_argument("--seconds", type=float, default=60.0, help="of the steady and the busy load")
    parser.add_argument("--busy-per-s", type=float, default=50.0)
    arguments = parser.parse_args()
    with bench() as stores:
        with platform(stores, "warm") as probe:
            resting = probe.run(idle("idle", arguments.idle_events, arguments.rest))
            steady = probe.run(regular("steady", 1.0, arguments.seconds))
            busy = probe.run(regular("busy", arguments.busy_per_s, arguments.seconds))
        with platform(stores, "stock", STOCK_YAML, STOCK_ENVIRONMENT) as probe:
            stock = probe.run(idle("stock", arguments.idle_events, arguments.rest))
        figures = {**resting.figures("idle"), **steady.figures("steady"), **busy.figures("busy")}
        stock_p50_s = stock.figures("stock")["stock_p50_s"]
        cpu = {
            (name, moment): cpu_of_runs(stores, name, moment)
            for name in ("warm", "stock")
            for moment in ("first_line", "end")
        }
        report(
            **figures,
            stock_p50_s=stock_p50_s,
            speedup_p50=stock_p50_s / figures["idle_p50_s"],
            lost=resting.lost + steady.lost + busy.lost + stock.lost,
            cpu_warm_s=cpu["warm", "first_line"],
            cpu_stock_s=cpu["stock", "first_line"],
            cpu_ratio=cpu["warm", "first_line"] / cpu["stock", "first_line"],
            cpu_warm_run_s=cpu["warm", "end"],
            cpu_stock_run_s=cpu["stock", "end"],
            cpu_run_ratio=cpu["warm", "end"] / cpu["stock", "end"],
        )


if __name__ == "__main__":
    main()
