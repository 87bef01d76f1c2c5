"""Burst: 10,000 events published at once, until all of their entities are searchable.

The entities are those of a workspace, repeated under other ids until there are enough. `seconds`: from the first
event published until Qdrant has all points, through the Dagster daemon with the shipped settings; `runs`: how many it
launched; `ratio`: seconds of a full sync of the same entities into empty stores, in one process and without Dagster,
over `seconds`; `lost`: entities without their point at the end. `seconds_without_dagster`: intake and drains called in
one process, and `ratio_without_dagster` that of the full sync to them.

Linking is part of none of these, but for what linkers did by then beside the drains. `seconds_until_linked`: from the
moment in which all are searchable until no entity waits to be linked; `seconds_linking`: of linking everything after
the full sync, in one process; `ratio_linked`: the first over the second. `cpu_s_…`: CPU seconds of the platform's own
process in what is called in one process, for machines that have other work.
"""

import argparse
import itertools
import json
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
from harness import (
    WORKSPACE,
    Bench,
    Daemon,
    bench,
    daemon,
    in_fresh_process,
    load_entities,
    publish,
    read_workspace,
    report,
    say,
    wait_until,
)
from qdrant_client import models

from mcp_assets.cli.load_entities import Line
from mcp_assets.entities.points import Key
from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.sync.inbox.drain import drain
from mcp_assets.sync.inbox.intake import intake
from mcp_assets.sync.index.full_sync import full_sync
from mcp_assets.sync.link.linker import link_until_done

_UNFINISHED = "('QUEUED', 'NOT_STARTED', 'STARTING', 'STARTED', 'CANCELING')"


def fill(settings: Settings) -> float:
    """A full sync of everything; CPU seconds of this process."""
    began = time.process_time()
    with closing(Platform(settings)) as platform:
        for entity_type in settings.entity_types:
            for _ in full_sync(platform, entity_type, range(settings.shards)):
                pass
    return time.process_time() - began


def link(settings: Settings) -> None:
    """All that waits to be linked."""
    with closing(Platform(settings)) as platform:
        for _ in link_until_done(platform):
            pass


def take_in_and_drain(settings: Settings) -> float:
    """What the sensor and its runs do, without Dagster between them; CPU seconds of this process."""
    began = time.process_time()
    with closing(Platform(settings)) as platform:
        while intake(platform, wait_s=0.0).more:
            pass
        for entity_type in settings.entity_types:
            for _ in drain(platform, entity_type, "benchmark"):
                pass
    return time.process_time() - began


def repeated(file: Path, count: int) -> Iterator[Line]:
    """`count` entities: those of `file`, then again under other ids and with another text."""
    entities = list(read_workspace(file, count))
    for number, line in zip(range(count), itertools.cycle(entities), strict=False):
        copy = number // len(entities)
        text = f"{line.content}\n\nCopy {copy}." if copy else line.content
        yield replace(line, entity_id=f"{line.entity_id}-{copy}" if copy else line.entity_id, content=text)


def event_of(entity: Line) -> tuple[str, bytes]:
    body = {"entity_type": entity.entity_type, "entity_id": entity.entity_id}
    return f"mcp.{entity.entity_type}.updated", json.dumps(body).encode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, default=WORKSPACE, help="entities, JSON lines, gzipped")
    parser.add_argument("--events", type=int, default=10_000)
    arguments = parser.parse_args()
    entities = list(repeated(arguments.file, arguments.events))
    with bench() as stores:
        load_entities(stores, entities)
        stores.forget_index()
        cold = in_fresh_process(fill, stores.settings())
        linking = in_fresh_process(link, stores.settings())
        say(f"cold fill: {cold.seconds:.1f} s, then linking: {linking.seconds:.1f} s")
        stores.forget_index()
        with daemon(stores, "dagster") as running:
            burst = measure(stores, running, entities)
        lost = missing(stores, entities)
        say(f"burst: {burst.seconds:.1f} s in {burst.runs} runs, {lost} lost; linked {burst.until_linked:.1f} s later")
        # The stream is read from its start again.
        stores.forget_index()
        drained = in_fresh_process(take_in_and_drain, stores.settings(drain_linger_s=0))
        lost += missing(stores, entities)
    report(
        seconds=burst.seconds,
        runs=burst.runs,
        ratio=cold.seconds / burst.seconds,
        ratio_linked=burst.until_linked / linking.seconds,
        ratio_without_dagster=cold.seconds / drained.seconds,
        lost=lost,
        seconds_cold_fill=cold.seconds,
        seconds_without_dagster=drained.seconds,
        seconds_until_linked=burst.until_linked,
        seconds_linking=linking.seconds,
        cpu_s_cold_fill=cold.result,
        cpu_s_without_dagster=drained.result,
    )


@dataclass(frozen=True, slots=True)
class Burst:
    """What became of the events."""

    seconds: float
    """From the first event until all is searchable."""
    until_linked: float
    """Seconds from then until nothing waits to be linked."""
    runs: int
    """How many runs that took."""


def measure(stores: Bench, running: Daemon, entities: list[Line]) -> Burst:
    """Publish the events, and wait until their entities are searchable and linked."""
    warm_up(stores, running, entities)
    runs_before = runs_launched(stores)
    began = time.monotonic()
    publish(stores, [event_of(entity) for entity in entities])
    say(f"{len(entities)} events published in {time.monotonic() - began:.1f} s")
    wait_until("all to be searchable", lambda: searchable(stores) >= len(entities), running, timeout_s=600)
    seconds = time.monotonic() - began
    wait_until("all to be linked", lambda: not waiting_for_links(stores), running, timeout_s=1_200)
    until_linked = time.monotonic() - began - seconds
    wait_until("the runs to end", lambda: not unfinished(stores), running, timeout_s=120)
    return Burst(seconds, until_linked, runs_launched(stores) - runs_before)


def waiting_for_links(stores: Bench) -> bool:
    """Whether there is a mark of an entity that a linker has to look at."""
    return bool(stores.query("SELECT 1 FROM mcp_assets.relink_marks LIMIT 1"))


def warm_up(stores: Bench, running: Daemon, entities: list[Line]) -> None:
    """One event of each type, and its run: a platform that has been up for a while is what is measured."""
    first = {entity.entity_type: entity for entity in reversed(entities)}
    publish(stores, [event_of(entity) for entity in first.values()])
    wait_until("the first entities", lambda: searchable(stores) >= len(first), running, timeout_s=180)
    wait_until("the first runs to end", lambda: not unfinished(stores), running, timeout_s=120)
    say("Dagster is up and warm")


def searchable(stores: Bench) -> int:
    """Entities that have a point."""
    entity_points = models.Filter(must=[models.FieldCondition(key=Key.KIND, match=models.MatchValue(value="entity"))])
    with closing(stores.qdrant()) as client:
        return sum(
            client.count(collection.name, count_filter=entity_points, exact=True).count
            for collection in client.get_collections().collections
        )


def missing(stores: Bench, entities: list[Line]) -> int:
    """Entities whose point is not in Qdrant, read from Qdrant itself."""
    found = set()
    with closing(stores.qdrant()) as client:
        for collection in client.get_collections().collections:
            offset = None
            while True:
                points, offset = client.scroll(
                    collection.name, limit=10_000, offset=offset, with_payload=[Key.KIND, "entity_type", "entity_id"]
                )
                payloads = [point.payload or {} for point in points]
                found |= {(p["entity_type"], p["entity_id"]) for p in payloads if p[Key.KIND] == "entity"}
                if offset is None:
                    break
    return len({(entity.entity_type, entity.entity_id) for entity in entities} - found)


def runs_launched(stores: Bench) -> int:
    return int(stores.query("SELECT count(*) FROM dagster.runs")[0][0])


def unfinished(stores: Bench) -> int:
    try:
        return int(stores.query(f"SELECT count(*) FROM dagster.runs WHERE status IN {_UNFINISHED}")[0][0])
    except psycopg.errors.UndefinedTable:
        return 0


if __name__ == "__main__":
    main()
