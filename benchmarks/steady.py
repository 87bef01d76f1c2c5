"""Steady: an hour of events at a fixed rate, poison among them and a full sync in the middle; what grows meanwhile.

The platform runs under the Dagster daemon with the shipped settings. Each event announces a change of text and status
of one of a fixed set of entities; of a hundred messages, two are no events. `lag_p50_s`, `lag_p99_s`: from the message
published until Qdrant has the new status in the entity's point, read from Qdrant itself five times a second. `lost`:
changes that are not in Qdrant at the end. `memory_growth`: of each process that lives throughout, by class, the largest
share by which its own memory (what it does not share with others) grew after the first sixth of the time;
`memory_mb`: its own memory at the end. `connections`: of PostgreSQL, the most in the first sixth of the time and the
most in the rest. `backlog_max`: the most entities that waited to be linked; `backlog_gone_s`: how long after the last
event none waited. `dagster_events_a_minute`: rows of Dagster's event log in the first sixth and in the rest, beside
`messages_a_minute`. `full_sync_s`: from the request to its end.
"""

import argparse
import asyncio
import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import nats
import psutil
import psycopg
from burst import searchable, unfinished
from harness import (
    WORKSPACE,
    Bench,
    Daemon,
    bench,
    daemon,
    load_entities,
    percentile,
    read_workspace,
    report,
    say,
    wait_until,
)

from mcp_assets.cli.load_entities import Line
from mcp_assets.entities.points import point_id
from mcp_assets.entities.refs import EntityRef

_COLLECTION = "kanban_tasks"

_POISON_EACH = 50
"""Each fiftieth message is no event."""

_FIRST = 1 / 6
"""Of the time: what has grown by then is caches that fill."""

_CLASSES = {
    "postgres": "postgres",
    "nats-server": "nats",
    "mcp_assets.embedded.qdrant": "qdrant",
    "mcp_assets.embedded.supervisor": "supervisor",
    "forkserver": "forkserver",
    "dagster_webserver": "webserver",
    "dagster-webserver": "webserver",
    "dagster._daemon": "daemon",
    "dagster-daemon": "daemon",
    "dagster dev": "dev",
    "code-server": "code server",
    "grpc": "code server",
}
"""A word of the command of each class of processes, the first that fits, and its name."""

_LOOKED_EACH_S = 0.2
_SAMPLED_EACH_S = 5.0

_CHANGE = """
UPDATE tasks SET description = left(description, 2000) || %(mark)s::text, status = %(mark)s, updated_at = now()
WHERE id = %(id)s
"""


class Lags:
    """Changes that are published, and when Qdrant had each. Thread-safe."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._lock = threading.Lock()
        self._waiting: dict[str, list[tuple[int, float]]] = {}

    def published(self, point: str, number: int) -> None:
        with self._lock:
            self._waiting.setdefault(point, []).append((number, time.monotonic()))

    def points(self) -> list[str]:
        """Those that wait for a change."""
        with self._lock:
            return list(self._waiting)

    def seen(self, statuses: dict[str, int]) -> None:
        """`statuses`: the number of the newest change that each point shows. It stands for the changes before it."""
        now = time.monotonic()
        with self._lock:
            for point, number in statuses.items():
                waiting = self._waiting.get(point, [])
                self.seconds += [now - at for known, at in waiting if known <= number]
                if left := [(known, at) for known, at in waiting if known > number]:
                    self._waiting[point] = left
                else:
                    self._waiting.pop(point, None)

    @property
    def waiting(self) -> int:
        with self._lock:
            return sum(map(len, self._waiting.values()))


@dataclass
class Samples:
    """What was sampled, with the seconds since the beginning."""

    memory: dict[tuple[str, int], list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    """By class and process id: its own memory, in MB."""
    connections: list[tuple[float, int]] = field(default_factory=list)
    backlog: list[tuple[float, int]] = field(default_factory=list)
    dagster_events: list[tuple[float, int]] = field(default_factory=list)


@contextmanager
def thread(work: Any, *arguments: Any) -> Iterator[None]:
    """Calls `work` with an event that ends it, in a thread; an error of it is raised at the end of the block."""
    ending, errors = threading.Event(), []

    def run() -> None:
        try:
            work(ending, *arguments)
        except Exception as error:  # noqa: BLE001  (it is raised below)
            errors.append(error)

    started = threading.Thread(target=run)
    started.start()
    try:
        yield
    finally:
        ending.set()
        started.join()
    if errors:
        raise errors[0]


def look(ending: threading.Event, stores: Bench, lags: Lags) -> None:
    """Read the points that wait, until all is over."""
    with closing(stores.qdrant()) as client:
        while not ending.wait(_LOOKED_EACH_S):
            if points := lags.points():
                found = client.retrieve(_COLLECTION, points, with_payload=["status"])
                statuses = {str(point.id): (point.payload or {}).get("status") or "" for point in found}
                lags.seen(
                    {point: int(status.rpartition(" ")[2]) for point, status in statuses.items() if "beat" in status}
                )


def sample(ending: threading.Event, stores: Bench, running: Daemon, began: float, samples: Samples) -> None:
    with psycopg.connect(stores.database_url, autocommit=True) as connection:
        while not ending.wait(_SAMPLED_EACH_S):
            running.check()
            at = time.monotonic() - began
            for name, process in processes(stores, running):
                with suppress(psutil.Error):
                    memory = process.memory_info()
                    samples.memory[name, process.pid].append((at, (memory.rss - memory.shared) / 1e6))
            for figures, query in (
                (samples.connections, "SELECT count(*) FROM pg_stat_activity WHERE datname IS NOT NULL"),
                (
                    samples.backlog,
                    "SELECT count(*) FROM (SELECT DISTINCT entity_type, entity_id FROM mcp_assets.relink_marks) AS one",
                ),
                (samples.dagster_events, "SELECT coalesce(max(id), 0) FROM dagster.event_logs"),
            ):
                row = connection.execute(query.encode()).fetchone()
                assert row is not None
                figures.append((at, row[0]))


def processes(stores: Bench, running: Daemon) -> Iterator[tuple[str, psutil.Process]]:
    """The processes of the platform and of its stores, each with the name of its class."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            command = " ".join(process.cmdline())
            if not (
                str(stores.folder) in command
                or "postgres:" in command
                or process.environ().get("DAGSTER_HOME") == str(running.home)
            ):
                continue
            yield next((name for word, name in _CLASSES.items() if word in command), "other"), process


async def send(stores: Bench, entities: list[Line], rate: float, seconds: float, lags: Lags, ask_at: float) -> int:
    """Change rows and publish, at `rate` messages a second; returns how many messages there were."""
    client = await nats.connect(stores.nats_url)
    began, number, asked = time.monotonic(), 0, False
    async with await psycopg.AsyncConnection.connect(stores.database_url, autocommit=True) as connection:
        while (now := time.monotonic() - began) < seconds:
            if now > ask_at and not asked:
                asked = True
                body = {"message_id": "steady", "data": {"sync_type": "full_sync", "entity_ids": [], "context": {}}}
                await client.publish("data.sync.request", json.dumps(body).encode())
            if number % _POISON_EACH == 0:
                await client.publish("mcp.task.updated", b'{"taskId": ')
            else:
                entity = entities[number % len(entities)]
                await connection.execute(_CHANGE, {"mark": f" beat {number}", "id": entity.entity_id})
                lags.published(str(point_id(EntityRef("task", entity.entity_id))), number)
                await client.publish("mcp.task.updated", json.dumps({"taskId": entity.entity_id}).encode())
            number += 1
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
    await client.close()
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, default=WORKSPACE, help="entities, JSON lines, gzipped")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=float, default=50, help="messages a second")
    parser.add_argument("--entities", type=int, default=2_000)
    arguments = parser.parse_args()
    entities = [replace(line, entity_type="task") for line in read_workspace(arguments.file, arguments.entities)]
    entities = list({line.entity_id: line for line in entities}.values())
    seconds = arguments.minutes * 60
    with bench() as stores, daemon(stores, "dagster") as running:
        load_entities(stores, entities)
        warm_up(stores, running, entities)
        lags, samples, began = Lags(), Samples(), time.monotonic()
        with thread(look, stores, lags), thread(sample, stores, running, began, samples):
            messages = asyncio.run(send(stores, entities, arguments.rate, seconds, lags, seconds / 2))
            ended = time.monotonic()
            say(f"{messages} messages are published; {lags.waiting} changes are not in Qdrant yet")
            wait_until("nothing to be linked", lambda: not waits(stores), running, timeout_s=900, every_s=1)
            gone_s = time.monotonic() - ended
            time.sleep(2 * _SAMPLED_EACH_S)
        report(
            **figures(samples, lags, seconds),
            backlog_gone_s=gone_s,
            messages_a_minute=messages / seconds * 60,
            full_sync_s=full_sync_seconds(stores),
        )


def warm_up(stores: Bench, running: Daemon, entities: list[Line]) -> None:
    """A full sync of everything by the platform itself, so that all that comes later is changes."""

    async def ask() -> None:
        client = await nats.connect(stores.nats_url)
        body = {"message_id": "first", "data": {"sync_type": "full_sync", "entity_ids": [], "context": {}}}
        await client.publish("data.sync.request", json.dumps(body).encode())
        await client.close()

    asyncio.run(ask())
    wait_until("the first full sync", lambda: searchable(stores) >= len(entities), running, timeout_s=300)
    wait_until("the first linking", lambda: not waits(stores) and not unfinished(stores), running, timeout_s=300)
    say(f"{len(entities)} entities are indexed and linked")


def waits(stores: Bench) -> bool:
    """Messages, entities or marks wait."""
    return bool(
        stores.query(
            "SELECT EXISTS (SELECT FROM mcp_assets.inbox) OR EXISTS (SELECT FROM mcp_assets.relink_marks)"
            " OR EXISTS (SELECT FROM mcp_assets.entities WHERE dirty)"
        )[0][0]
    )


def full_sync_seconds(stores: Bench) -> float | None:
    """Of the backfill in the middle; None: it has not ended."""
    rows = stores.query(
        "SELECT max(end_time) - min(start_time) FROM dagster.runs AS run JOIN dagster.run_tags AS tag USING (run_id)"
        " WHERE tag.key = 'dagster/backfill' GROUP BY tag.value ORDER BY min(start_time) DESC LIMIT 1"
    )
    return float(rows[0][0]) if rows and rows[0][0] is not None else None


def figures(samples: Samples, lags: Lags, seconds: float) -> dict[str, Any]:
    first = seconds * _FIRST

    def most(values: list[tuple[float, int]], *, early: bool) -> int:
        return max((value for at, value in values if (at <= first) == early), default=0)

    growth: dict[str, float] = {}
    memory: dict[str, float] = {}
    for (name, _), values in samples.memory.items():
        before = [value for at, value in values if at <= first]
        after = [value for at, value in values if at > seconds - first]
        # A process that did not live throughout has no growth.
        if len(before) > 1 and after:
            share = sorted(after)[len(after) // 2] / max(sorted(before[len(before) // 2 :])[len(before) // 4], 1.0) - 1
            growth[name] = round(max(growth.get(name, -1.0), share), 3)
            memory[name] = round(memory.get(name, 0.0) + after[-1], 1)

    def rate(low: float, high: float) -> float:
        ids = [value for at, value in samples.dagster_events if low <= at <= high]
        return (ids[-1] - ids[0]) / (high - low) * 60 if len(ids) > 1 else 0.0

    return {
        "lag_p50_s": percentile(lags.seconds, 0.5),
        "lag_p99_s": percentile(lags.seconds, 0.99),
        "lost": lags.waiting,
        "memory_growth": growth,
        "memory_mb": memory,
        "connections": [most(samples.connections, early=True), most(samples.connections, early=False)],
        "backlog_max": max(value for _, value in samples.backlog),
        "dagster_events_a_minute": [round(rate(0, first)), round(rate(first, seconds))],
    }


if __name__ == "__main__":
    main()
