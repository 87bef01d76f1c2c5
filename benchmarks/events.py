"""Events: some thousands of them through intake and drain, with an embedder that costs nothing; what each costs in CPU.

The rows are short tasks, and each event carries its whole task, as servers publish it. Intake and one drain are called
in a process of their own, without Dagster between them; the collection exists and is empty. `entities_per_s`: of that
process, by the clock. `process_us`, `postgres_us`, `qdrant_us`, `nats_us`: CPU microseconds an event, user and system;
`cpu_us`: of process, PostgreSQL and Qdrant together. Figures are medians of the rounds.

`--against PATH` names another checkout with an environment of its own in `.venv`. It has a stack of its own, the same
rows and events, and a turn in each round. `ratio`: its `cpu_us` over ours; `ratio_seconds`: its seconds over ours.
CPU seconds hold on a busy machine too; seconds need an idle one.

`--full-sync` measures a full sync of the same rows in place of their events.
"""

import argparse
import json
import sys
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import psutil
from harness import CHECKOUT, Bench, bench, in_fresh_process, load_entities, publish, report
from hash_embedder import scattered
from peers.rows import Row, short_rows
from turns import Figures, Side, side
from usage import watched

from mcp_assets.cli.load_entities import Line
from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.sync.inbox.drain import drain
from mcp_assets.sync.inbox.intake import intake
from mcp_assets.sync.index.full_sync import full_sync
from mcp_assets.sync.index.indexer import Indexer

DIMENSION = 384
"""Of the vectors: that of the comparison with other systems."""


def take_in_and_drain(settings: Settings, count: int) -> float:
    """What the sensor and its run do with `count` events, without Dagster between them; CPU seconds of this process."""
    before = _cpu_s(psutil.Process())
    with closing(Platform(settings, embedder=scattered(DIMENSION))) as platform:
        while intake(platform, wait_s=0.0).more:
            pass
        done = sum(drained.messages for drained in drain(platform, "task", "benchmark"))
    assert done == count, f"{done} events were applied, {count} expected"
    return _cpu_s(psutil.Process()) - before


def sync_all(settings: Settings, count: int) -> float:
    """A full sync of `count` tasks; CPU seconds of this process."""
    before = _cpu_s(psutil.Process())
    with closing(Platform(settings, embedder=scattered(DIMENSION))) as platform:
        news = full_sync(platform, "task", range(settings.shards))
        done = sum(progress.counts.embedded for progress in news if progress.complete)
    assert done == count, f"{done} entities were embedded, {count} expected"
    return _cpu_s(psutil.Process()) - before


def event_of(row: Row) -> tuple[str, bytes]:
    """The event of a new task, in the dialect of the servers that send the whole entity."""
    body = {
        "messageId": f"message-{row.entity_id}",
        "timestamp": "2026-01-01T00:00:00Z",
        "source": "kanban",
        "version": "1",
        "type": "task.created",
        "data": {"taskId": row.entity_id, "title": row.title, "description": row.content, **row.metadata},
    }
    return "mcp.kanban.task.created", json.dumps(body).encode()


def make_collections(settings: Settings) -> None:
    """What the first run of a platform does once."""
    with closing(Platform(settings, embedder=scattered(DIMENSION))) as platform:
        Indexer(platform, "task").ensure_collection()


def _line(row: Row) -> Line:
    return Line(row.entity_type, row.entity_id, row.title, row.content, row.metadata, None, None)


def measure(stores: Bench, count: int, *, events: bool) -> Figures:
    """One round on an empty ledger and an empty collection: seconds, and CPU seconds of each part."""
    stores.forget_index()
    settings = stores.settings(drain_linger_s=0)
    in_fresh_process(make_collections, settings)
    with watched(stores) as usage:
        measured = in_fresh_process(take_in_and_drain if events else sync_all, settings, count)
    return {"seconds": measured.seconds, "process": measured.result, **usage.cpu_s}


def _cpu_s(process: psutil.Process) -> float:
    """CPU seconds of a process and of its children that have ended."""
    used = process.cpu_times()
    return float(used.user + used.system + used.children_user + used.children_system)


def serve(count: int, *, events: bool) -> None:
    """One side: a stack with rows and events; a line of figures for each line of standard input."""
    rows = short_rows(count)
    with bench() as stores:
        load_entities(stores, map(_line, rows))
        if events:
            publish(stores, [event_of(row) for row in rows])
        print(json.dumps({}), flush=True)
        for _ in sys.stdin:
            print(json.dumps(measure(stores, count, events=events)), flush=True)


def figures_of(one: Side, count: int) -> dict[str, Any]:
    microseconds = {name: 1e6 * one.median(name) / count for name in ("process", "postgres", "qdrant", "nats")}
    return {
        "entities_per_s": count / one.median("seconds"),
        "cpu_us": 1e6 * one.median("process", "postgres", "qdrant") / count,
        **{f"{name}_us": value for name, value in microseconds.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=3_000, help="how many events, or rows of a full sync")
    parser.add_argument("--full-sync", action="store_true", help="a full sync of the rows, without events")
    parser.add_argument("--against", type=Path, metavar="PATH", help="another checkout, which takes turns")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.events, events=not arguments.full_sync)
        return
    passed = ["--events", str(arguments.events), *(["--full-sync"] if arguments.full_sync else [])]
    checkouts = [CHECKOUT]
    if arguments.against is not None:
        checkouts.append(arguments.against.resolve())
    with ExitStack() as running:
        sides = [running.enter_context(side(__file__, one, passed)) for one in checkouts]
        for number in range(arguments.rounds + 1):
            for one in sides:
                one.take_turn(counts=number > 0)
    ours, *others = (figures_of(one, arguments.events) for one in sides)
    for other in others:
        ours |= {f"against_{name}": value for name, value in other.items()}
        ours["ratio"] = other["cpu_us"] / ours["cpu_us"]
        ours["ratio_seconds"] = ours["entities_per_s"] / other["entities_per_s"]
    report(events=arguments.events, **ours)


if __name__ == "__main__":
    main()
