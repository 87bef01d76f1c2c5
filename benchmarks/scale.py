"""Scale: up to 1,000,000 synthetic entities, each phase of their life with its seconds, CPU seconds and memory.

A third of the entities are tasks, pages and memories each. CLUSTER of them share words and are near each other, so that
each has as many neighbours as a list holds, at every size. Each has a topic that some hundred share, and one of twenty
areas that makes no candidates; each tenth names another task by its id, and each tenth a page by its title. The
embedder costs next to nothing (`hash_embedder`). So what is measured is the platform with its stores.

Phases, each in a process of its own with Dagster loaded, as a run has:

- `sync`: a full sync into empty stores; `unchanged`: a full sync that finds nothing to do;
- `lists`: the semantic lists of all entities are found as the linker would find them, and written nowhere;
- `link`: everything is linked from nothing. Its CPU seconds less those of `lists` are those of writing;
- `census`: all partitions are compared; `deep`: with every text and every edge;
- `changes`: --changed entities get other texts, by events: applied, embedded and linked;
- `events`: --events messages about entities that are spread over all, applied and embedded.

Of each phase: `s` and `cpu_s` (of the process and the stores together), `us` (CPU microseconds an entity that is
worked on), CPU of `ours`, `postgres` and `qdrant` apart, and the most anonymous memory in MB of one process of each.
`linear_in_changes`: CPU seconds a changed entity at the largest size over those at the smallest. `events_spread`: the
same of an event. `files_mb`: the files of PostgreSQL and Qdrant at the end.

With --keep the stores stay in a folder, so that a long run may be cut into parts: name the same folder, one size, and
the phases that are still to be done.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path
from threading import Event
from typing import Any

from harness import Bench, Measured, bench, in_fresh_process, publish, report, say
from hash_embedder import clustered
from usage import OURS, watched

from mcp_assets.entities.points import point_id
from mcp_assets.entities.refs import EntityRef
from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.sync.consistency.validation import validate
from mcp_assets.sync.inbox.drain import drain
from mcp_assets.sync.inbox.intake import intake
from mcp_assets.sync.index.full_sync import full_sync
from mcp_assets.sync.link.blocked_lists import BlockedLists, list_costs
from mcp_assets.sync.link.linker import link_until_done
from mcp_assets.sync.link.semantic_neighbours import SemanticNeighbours

TYPES = ("task", "page", "memory")

CLUSTER = 24
"""Entities that are near each other: a few more than the 20 that a list holds."""

TOPIC_HOLDERS = 100
"""Entities of a topic: fewer than the 200 up to which a tag makes candidates."""

PHASES = ("sync", "unchanged", "lists", "link", "census", "deep", "changes", "events")

_REQUESTS_IN_FLIGHT = 2
"""As in `sync.link.prefetch`."""

_SAY_EVERY_S = 10.0

_EVENTS = {
    "task": ("mcp.task.updated", "taskId"),
    "page": ("mcp.wiki.page.updated", "pageId"),
    "memory": ("mcp.memory.node.updated", "memoryId"),
}
"""Subject of the event of each type, and the key of the id in it."""

_TEXTS = (("tasks", "description"), ("wiki_pages", "content"), ("memory_nodes", "content"))
"""Source table of each type, and the column of its text."""

_TABLES = tuple(f"{table} (id, title, {text}, tags)" for table, text in _TEXTS)

# Some 550 characters each: 40 words that the cluster shares, and 25 of its own. Members of a cluster are {clusters}
# apart, so that they are of all types and in all partitions.
_INSERT = """
INSERT INTO {target}
SELECT '{type}-' || n, 'About subject ' || n % {clusters} || ', piece ' || n,
       '@' || n % {clusters} || '/' || n / {clusters}
       || (SELECT string_agg(' ' || substr(md5(n % {clusters} || '-' || word), 1, 7), '')
           FROM generate_series(1, 40) AS word)
       || (SELECT string_agg(' ' || substr(md5(n || ' ' || word), 1, 7), '') FROM generate_series(1, 25) AS word)
       || CASE n % 10 WHEN 3 THEN '. It depends on task:task-' || (n + {clusters}) % {total} / 3 * 3 || '.'
                      WHEN 7 THEN '. See [[About subject ' || (n / 3 * 3 + 1) % {clusters} || ', piece '
                                  || n / 3 * 3 + 1 || ']].'
                      ELSE '.' END,
       ARRAY['topic-' || n % {clusters} % {topics}, 'area-' || n % 20]
FROM generate_series({remainder}, {total} - 1, 3) AS n
"""


def insert(stores: Bench, entities: int) -> None:
    """The source rows of so many entities."""
    clusters = max(1, entities // CLUSTER)
    # A multiple of the number of types would put a cluster into one type.
    clusters += clusters % len(TYPES) == 0
    values = {"clusters": clusters, "total": entities, "topics": max(1, entities // TOPIC_HOLDERS)}
    for remainder, target in enumerate(_TABLES):
        stores.query(_INSERT.format(target=target, type=TYPES[remainder], remainder=remainder, **values))
    stores.settle()


def spread(entities: int, count: int, offset: int) -> list[int]:
    """So many numbers of entities, spread over all of them. Calls with other offsets give others."""
    step = max(1, entities // count)
    return [(number * step + offset) % entities for number in range(min(count, entities))]


def change(stores: Bench, numbers: Sequence[int]) -> None:
    """Give entities other texts, and publish the events that say so."""
    listed = ", ".join(map(str, numbers))
    for remainder, (table, text) in enumerate(_TEXTS):
        stores.query(
            f"UPDATE {table} SET {text} = {text} || ' again {time.time_ns()}', updated_at = now()"
            f" WHERE id IN (SELECT '{TYPES[remainder]}-' || n FROM unnest(ARRAY[{listed}]) AS n)"
        )
    stores.settle()
    events = []
    for number in numbers:
        entity_type = TYPES[number % len(TYPES)]
        subject, key = _EVENTS[entity_type]
        events.append((subject, f'{{"{key}": "{entity_type}-{number}"}}'.encode()))
    publish(stores, events)


def sync(settings: Settings, dimension: int) -> int:
    """A full sync; the number of entities embedded."""
    embedded = 0
    with closing(Platform(settings, embedder=clustered(dimension))) as platform:
        for entity_type in TYPES:
            with closing(full_sync(platform, entity_type, range(settings.shards))) as news:
                embedded += sum(one.counts.embedded for one in news if one.complete)
    return embedded


def find_lists(settings: Settings, dimension: int, numbers: Sequence[int]) -> int:
    """Find the semantic lists of entities, as the linker would for all; how many were found in blocks."""
    with closing(Platform(settings, embedder=clustered(dimension))) as platform:
        semantic = SemanticNeighbours(platform)
        held = list(semantic.points_held.values())
        costs = list_costs(sum(held), held, dimension, platform.tuning.link, settings.exact_up_to)
        in_blocks = costs.blocks_are_better(platform.tuning.link.exact_for_s)
        blocks = BlockedLists(platform.qdrant, semantic.collections, dimension, Event()) if in_blocks else None
        points = {ref: str(point_id(ref)) for ref in map(_ref, numbers)}
        with ThreadPoolExecutor(_REQUESTS_IN_FLIGHT) as executor:
            # No answer is kept, as the linker keeps none.
            parts = semantic.requests(points, in_blocks=blocks is not None)
            found = sum(executor.map(lambda part: len(semantic.answer(part, blocks)), parts))
        assert found == len(numbers), f"{found} of {len(numbers)} lists were found"
        return found if in_blocks else 0


def link_all(settings: Settings, dimension: int) -> int:
    """Link all that is marked; the number of edges made."""
    edges = linked = 0
    said = time.monotonic()
    with closing(Platform(settings, embedder=clustered(dimension))) as platform:
        for one in link_until_done(platform):
            total = one.total()
            edges += total.added.total()
            linked += total.relinked
            if time.monotonic() - said > _SAY_EVERY_S:
                said = time.monotonic()
                say(f"  {linked:,} entities are linked, {edges:,} edges are made")
    return edges


def take_in_and_drain(settings: Settings, dimension: int) -> int:
    """Apply the events in the stream; the number of entities embedded."""
    embedded = 0
    with closing(Platform(settings, embedder=clustered(dimension))) as platform:
        while intake(platform, wait_s=0.0).more:
            pass
        for entity_type in TYPES:
            for batch in drain(platform, entity_type, "benchmark"):
                embedded += sum(counts.embedded for counts in batch.report.shards.values())
    return embedded


def apply_and_link(settings: Settings, dimension: int) -> int:
    """Apply the events in the stream, and link; the number of entities embedded."""
    embedded = take_in_and_drain(settings, dimension)
    link_all(settings, dimension)
    return embedded


def take_census(settings: Settings, dimension: int, *, deep: bool) -> int:
    """Compare everything; the number of entities compared."""
    with closing(Platform(settings, embedder=clustered(dimension))) as platform:
        report = validate(platform, entity_types=TYPES, deep=deep)
        assert not report.found, f"the census found drift: {report.found}"
        return report.checked


def _ref(number: int) -> EntityRef:
    entity_type = TYPES[number % len(TYPES)]
    return EntityRef(entity_type, f"{entity_type}-{number}")


@dataclass(frozen=True, slots=True)
class Run:
    """One size of the benchmark."""

    stores: Bench
    entities: int
    options: argparse.Namespace

    def measure(self) -> dict[str, Any]:
        """The figures of the phases that are asked for, in their order."""
        figures: dict[str, Any] = {"entities": self.entities}
        if "sync" in self.options.phases:
            insert(self.stores, self.entities)
            self.stores.forget_index()
            say(f"{self.entities:,} entities are in the source tables")
        for name in PHASES:
            if name in self.options.phases:
                figures[name] = getattr(self, f"_{name}")()
                say(f"{self.entities:,} entities, {name}: {figures[name]}")
        figures["files_mb"] = _files_mb(self.stores.folder)
        return figures

    def _sync(self) -> dict[str, Any]:
        figures, embedded = self._phase(sync, self.entities)
        assert embedded == self.entities, f"{embedded} of {self.entities} entities were embedded"
        self.stores.settle()
        return figures

    def _unchanged(self) -> dict[str, Any]:
        figures, embedded = self._phase(sync, self.entities)
        assert embedded == 0, f"{embedded} unchanged entities were embedded again"
        return figures

    def _lists(self) -> dict[str, Any]:
        numbers = spread(self.entities, self.options.lists or self.entities, 0)
        figures, in_blocks = self._phase(partial(find_lists, numbers=numbers), len(numbers))
        return figures | {"lists": len(numbers), "lists_in_blocks": in_blocks}

    def _link(self) -> dict[str, Any]:
        figures, edges = self._phase(link_all, self.entities)
        assert edges, "no edge was made"
        self.stores.settle()
        return figures | {"edges": edges}

    def _census(self) -> dict[str, Any]:
        return self._phase(partial(take_census, deep=False), self.entities)[0]

    def _deep(self) -> dict[str, Any]:
        return self._phase(partial(take_census, deep=True), self.entities)[0]

    def _changes(self) -> dict[str, Any]:
        return self._by_events(apply_and_link, self.options.changed, 1)

    def _events(self) -> dict[str, Any]:
        figures = self._by_events(take_in_and_drain, self.options.events, 2)
        say(f"  before they are linked: {figures}")
        # Otherwise a later phase in a folder that is kept would link what this one has marked.
        in_fresh_process(link_all, self.stores.settings(), self.options.dimension)
        return figures

    def _by_events(self, work: Callable[[Settings, int], int], count: int, offset: int) -> dict[str, Any]:
        numbers = spread(self.entities, count, offset)
        change(self.stores, numbers)
        figures, embedded = self._phase(work, len(numbers))
        assert embedded == len(numbers), f"{embedded} of {len(numbers)} changed entities were embedded"
        return figures

    def _phase(self, work: Callable[..., int], worked_on: int) -> tuple[dict[str, Any], int]:
        """`work` in a process of its own; the figures of it, and its result."""
        settings = self.stores.settings(drain_linger_s=0)
        with watched(self.stores) as usage:
            done: Measured = in_fresh_process(work, settings, self.options.dimension)
        cpu = {OURS: done.cpu_s, **usage.cpu_s}
        figures: dict[str, Any] = {
            "s": done.seconds,
            "cpu_s": sum(cpu.values()),
            "us": sum(cpu.values()) / worked_on * 1e6,
            **{f"{part}_cpu_s": cpu[part] for part in (OURS, "postgres", "qdrant")},
            **{f"{part}_anon_mb": usage.anonymous_mb[part] for part in (OURS, "postgres", "qdrant")},
        }
        return {name: round(value, 2) for name, value in figures.items()}, done.result


def _files_mb(folder: Path) -> float:
    """What the files of the stores take."""
    taken = 0
    for file in folder.rglob("*"):
        # The stores are at work: a temporary file may be gone by now.
        with suppress(FileNotFoundError):
            taken += file.lstat().st_blocks * 512
    return round(taken / 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entities", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--dimension", type=int, default=256)
    parser.add_argument("--phases", nargs="+", choices=PHASES, default=[name for name in PHASES if name != "deep"])
    parser.add_argument("--lists", type=int, help="in the phase lists: find so many only, spread over all")
    parser.add_argument("--changed", type=int, default=400, help="entities of the phase changes")
    parser.add_argument("--events", type=int, default=1_000, help="messages of the phase events")
    parser.add_argument("--keep", type=Path, help="a folder for the stores, which stays; its path has to be short")
    options = parser.parse_args()
    if options.keep and len(options.entities) > 1:
        parser.error("--keep goes with one size")
    if not options.keep and "sync" not in options.phases:
        parser.error("the phase sync may be left out only with --keep, in a folder in which it was done")
    sizes = []
    for entities in options.entities:
        with bench(options.keep) as stores:
            sizes.append(Run(stores, entities, options).measure())
    report(dimension=options.dimension, sizes=sizes, **_growth(sizes))


def _growth(sizes: Sequence[dict[str, Any]]) -> dict[str, float]:
    """What a change and an event cost at the largest size, over the smallest."""
    least, most = (pick(sizes, key=itemgetter("entities")) for pick in (min, max))
    names = {"changes": "linear_in_changes", "events": "events_spread"}
    return {
        name: most[phase]["us"] / least[phase]["us"]
        for phase, name in names.items()
        if len(sizes) > 1 and phase in least
    }


if __name__ == "__main__":
    main()
