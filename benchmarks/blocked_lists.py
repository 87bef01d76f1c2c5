"""Blocked lists: the neighbours of all entities found in blocks, against asking Qdrant for each, and the edges of both.

The entities are synthetic: vectors in clusters, 256 dimensions by default, over the three types of the preset, so that
three collections are searched. The embedder is a function of the text and costs next to nothing.

`asking_s` and `blocks_s`: seconds in which the nearest of all entities are found and settled, written nowhere, two
requests or parts at once as in the linker; in blocks, with reading all vectors. `asking_cpu_s` and `blocks_cpu_s`: CPU
seconds of the same, of the process and of Qdrant. `share` and `cpu_share`: blocks over asking. With --asked only so
many entities are asked about, and the seconds are those for all by proportion.

Then everything is linked from nothing both ways: `link_asking_s` and `link_blocks_s`, of which writing edges is the
rest; `edges`, and `edges_equal`: whether both ways make the same. `anon_mb`: the most anonymous memory of the process
that links in blocks; `qdrant_anon_mb`: that of the embedded Qdrant at the end.
"""

import argparse
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from threading import Event
from typing import Any

import psutil
from harness import Bench, bench, in_fresh_process, load_entities, report, say
from hash_embedder import clustered
from usage import anonymous_mb, stores_of

from mcp_assets.cli.load_entities import Line
from mcp_assets.entities.points import point_id
from mcp_assets.entities.refs import EntityRef
from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.sync.index.full_sync import full_sync
from mcp_assets.sync.link.blocked_lists import BlockedLists
from mcp_assets.sync.link.counts import LinkCounts
from mcp_assets.sync.link.linker import link_until_done
from mcp_assets.sync.link.marks import mark_shards
from mcp_assets.sync.link.semantic_neighbours import SemanticNeighbours
from mcp_assets.tuning import Tuning

IN_FLIGHT = 2
"""As in `sync.link.prefetch`."""

CLUSTER = 150
"""Entities in a cluster: more than a list holds."""

TYPES = ("task", "page", "memory")

NEVER, ALWAYS = {"block_start_s": 1e9}, {"ask_query_s": 1e9}
"""Tuning by which neighbours are never, or always, found in blocks."""


def entities(count: int) -> Iterator[Line]:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    clusters = max(1, count // CLUSTER)
    for number in range(count):
        text = f"@{number % clusters}/{number // clusters}"
        yield Line(
            entity_type=TYPES[number % len(TYPES)],
            entity_id=f"e{number:07}",
            title=text,
            content="",
            metadata={},
            created_at=now,
            updated_at=now,
        )


@contextmanager
def platform_with(settings: Settings, dimension: int, **link: float) -> Iterator[Platform]:
    tuning = Tuning()
    tuning = replace(tuning, link=replace(tuning.link, **link))  # type: ignore[arg-type]
    with closing(Platform(settings, embedder=clustered(dimension), tuning=tuning)) as platform:
        yield platform


def index(settings: Settings, dimension: int) -> None:
    with platform_with(settings, dimension) as platform:
        for entity_type in TYPES:
            for _ in full_sync(platform, entity_type, range(settings.shards)):
                pass


def find_all(settings: Settings, dimension: int, refs: list[EntityRef], *, in_blocks: bool) -> tuple[float, float]:
    """Seconds in which the neighbours of `refs` are found, and CPU seconds of this process."""
    with platform_with(settings, dimension) as platform:
        semantic = SemanticNeighbours(platform)
        points = {ref: str(point_id(ref)) for ref in refs}
        assert all(semantic.points_held.values())
        began, cpu = time.perf_counter(), time.process_time()
        blocks = BlockedLists(platform.qdrant, semantic.collections, dimension, Event()) if in_blocks else None
        if in_blocks:
            say(f"all vectors are read after {time.perf_counter() - began:.1f} s")
        with ThreadPoolExecutor(IN_FLIGHT) as executor:
            # No answer is kept, as the linker keeps none.
            parts = semantic.requests(points, in_blocks=in_blocks)
            found = sum(executor.map(lambda part: len(semantic.answer(part, blocks)), parts))
        assert found == len(refs)
        return time.perf_counter() - began, time.process_time() - cpu


def link_all(settings: Settings, dimension: int, **link: float) -> tuple[float, int, int, float]:
    """Seconds, lists found in blocks, lists asked of Qdrant, and the most anonymous memory in MB."""
    with platform_with(settings, dimension, **link) as platform, most_anonymous() as most:
        for entity_type in TYPES:
            mark_shards(platform, entity_type, range(settings.shards), force=True)
        began = time.perf_counter()
        total = LinkCounts()
        for linked in link_until_done(platform):
            total.add(linked.total())
        return time.perf_counter() - began, total.lists_in_blocks, total.lists_asked, most()


@contextmanager
def most_anonymous() -> Iterator[Callable[[], float]]:
    """Watches this process; the result is the most anonymous memory so far, in MB."""
    found = [0.0]
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            found[0] = max(found[0], anonymous_mb("self"))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield lambda: found[0]
    finally:
        ended.set()
        watcher.join()


def cpu_of(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def edges(stack: Bench) -> set[tuple[Any, ...]]:
    return set(
        stack.query(
            "SELECT source_type, source_id, target_type, target_id, relationship_type, strength FROM relationships"
        )
    )


def forget_links(stack: Bench) -> None:
    stack.query(
        "TRUNCATE mcp_assets.linked, mcp_assets.reserves, mcp_assets.reference_uses, mcp_assets.relink_marks,"
        " relationships"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("entities", nargs="?", type=int, default=20_000)
    parser.add_argument("--dimension", type=int, default=256)
    parser.add_argument("--asked", type=int, help="ask Qdrant about so many only")
    parser.add_argument("--no-linking", action="store_true", help="find neighbours only, and make no edges")
    arguments = parser.parse_args()
    count, dimension = arguments.entities, arguments.dimension
    refs = [EntityRef(line.entity_type, line.entity_id) for line in entities(count)]
    asked = refs[: arguments.asked]
    figures: dict[str, Any] = {}
    with bench() as stack:
        settings = stack.settings()
        say(f"{count} entities are loaded and embedded")
        load_entities(stack, entities(count))
        in_fresh_process(index, settings, dimension)
        qdrant = stores_of(stack)["qdrant"]
        for name, some, in_blocks in (("blocks", refs, True), ("asking", asked, False)):
            say(f"neighbours: {name}")
            before = cpu_of(qdrant)
            seconds, cpu = in_fresh_process(find_all, settings, dimension, some, in_blocks=in_blocks).result
            figures[f"{name}_s"] = seconds * len(refs) / len(some)
            figures[f"{name}_cpu_s"] = (cpu + cpu_of(qdrant) - before) * len(refs) / len(some)
        figures["share"] = figures["blocks_s"] / figures["asking_s"]
        figures["cpu_share"] = figures["blocks_cpu_s"] / figures["asking_cpu_s"]
        made = {}
        for name, link in (("blocks", ALWAYS), ("asking", NEVER)) if not arguments.no_linking else ():
            say(f"link all: {name}")
            forget_links(stack)
            seconds, in_blocks, by_asking, most = in_fresh_process(link_all, settings, dimension, **link).result
            say(f"{seconds:.1f} s, {in_blocks} lists in blocks, {by_asking} asked of Qdrant")
            figures[f"link_{name}_s"] = seconds
            if name == "blocks":
                figures["anon_mb"] = most
            made[name] = edges(stack)
        if made:
            figures |= {"edges": len(made["asking"]), "edges_equal": made["blocks"] == made["asking"]}
        figures["qdrant_anon_mb"] = anonymous_mb(qdrant.pid)
    report(entities=count, dimension=dimension, **figures)


if __name__ == "__main__":
    main()
