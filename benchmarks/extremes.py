"""Extremes: a page that all entities name, a title that a thousand pages share, a tag that all entities hold.

Tasks name the page `Hub` and the title `Notes`, and hold the tag `everywhere`; all are indexed and linked. Then one
thing after the other changes, and the linker links what follows from it: `rename_hub`, whose references are all
resolved again; `rename_last_sharer`, a page that shares the title and is not the one that it means;
`rename_first_sharer`, which moves all references to the next one; `retag_holder`, one task that holds the common tag;
`new_tag`, which --newly-tagged tasks get at once, before its weight is counted; `weights`, the nightly count of all
tags, with what is linked again because of it.

Of each: `cpu_s`, of the linking process; `postgres_cpu_s`, `qdrant_cpu_s`; `relinked`, the entities that were linked
again, some of them several times; `longest_s`, the longest time by the clock from one committed transaction to the
next; `anonymous_mb`, the most memory of its own that the linking process had.
"""

import argparse
import time
from collections.abc import Mapping
from contextlib import closing
from typing import NamedTuple

from harness import Bench, bench, in_fresh_process, report, say
from hash_embedder import scattered
from usage import OURS, watched

from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.sync.index.full_sync import full_sync
from mcp_assets.sync.index.indexer import Indexer
from mcp_assets.sync.index.ledger import Wanted
from mcp_assets.sync.link.linker import link_until_done
from mcp_assets.sync.link.tag_weights import refresh_tag_weights

DIMENSION = 32
SHARERS = 1_000

_TASKS = """
INSERT INTO tasks (id, title, description, status, tags)
SELECT 'task-' || n, 'Task ' || n, 'Number ' || n || ' is about [[Hub]] and [[Notes]]', 'open',
       ARRAY['everywhere', 'tag-' || n %% 1000]
FROM generate_series(1, %s) AS n
"""
_PAGES = """
INSERT INTO wiki_pages (id, title, content)
SELECT 'notes-' || lpad(n::text, 5, '0'), 'Notes', 'Notes of day ' || n FROM generate_series(1, %s) AS n
UNION ALL SELECT 'hub', 'Hub', 'In the middle'
"""


class Linked(NamedTuple):
    """What one linking did."""

    relinked: int
    cpu_s: float
    longest_s: float


def fill(settings: Settings) -> Linked:
    """A full sync of all, and the linking of it."""
    with closing(Platform(settings, embedder=scattered(DIMENSION))) as platform:
        for entity_type in ("task", "page"):
            for _ in full_sync(platform, entity_type, range(settings.shards)):
                pass
        return _link(platform)


def change(settings: Settings, entity_type: str, ids: list[str]) -> Linked:
    """The linking that follows from changes of these entities."""
    with closing(Platform(settings, embedder=scattered(DIMENSION))) as platform:
        for start in range(0, len(ids), 500):
            Indexer(platform, entity_type).run([Wanted(entity_id) for entity_id in ids[start : start + 500]])
        return _link(platform)


def weigh(settings: Settings) -> Linked:
    """The nightly count of tags, and the linking that follows from it."""
    with closing(Platform(settings, embedder=scattered(DIMENSION))) as platform:
        began = time.process_time()
        refresh_tag_weights(platform)
        counted = time.process_time() - began
        linked = _link(platform)
        return linked._replace(cpu_s=linked.cpu_s + counted)


def _link(platform: Platform) -> Linked:
    cpu, last, longest, relinked = time.process_time(), time.perf_counter(), 0.0, 0
    for told in link_until_done(platform):
        relinked += told.total().relinked
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
    return Linked(relinked, time.process_time() - cpu, longest)


def measure(stores: Bench, tasks: int, newly_tagged: int) -> dict[str, Mapping[str, float]]:
    settings = stores.settings()
    stores.query(_TASKS, tasks)
    stores.query(_PAGES, SHARERS)
    first, last = "notes-00001", f"notes-{SHARERS:05}"
    new = [f"task-{number}" for number in range(1, newly_tagged + 1)]
    steps = (
        ("fill", None, fill, ()),
        ("rename_hub", "UPDATE wiki_pages SET title = 'Centre' WHERE id = 'hub'", change, ("page", ["hub"])),
        (
            "rename_last_sharer",
            f"UPDATE wiki_pages SET title = 'Other' WHERE id = '{last}'",
            change,
            ("page", [last]),
        ),
        (
            "rename_first_sharer",
            f"UPDATE wiki_pages SET title = 'Other' WHERE id = '{first}'",
            change,
            ("page", [first]),
        ),
        (
            "retag_holder",
            "UPDATE tasks SET tags = ARRAY['everywhere', 'tag-1', 'tag-2'] WHERE id = 'task-7'",
            change,
            ("task", ["task-7"]),
        ),
        (
            "new_tag",
            f"UPDATE tasks SET tags = tags || ARRAY['fresh'] WHERE substr(id, 6)::integer <= {newly_tagged}",
            change,
            ("task", new),
        ),
        ("weights", None, weigh, ()),
    )
    figures: dict[str, Mapping[str, float]] = {}
    for name, statement, work, arguments in steps:
        if statement is not None:
            stores.query(statement)
        with watched(stores) as usage:
            linked: Linked = in_fresh_process(work, settings, *arguments).result  # type: ignore[operator]  # of two signatures
        figures[name] = {
            "cpu_s": round(linked.cpu_s, 2),
            "postgres_cpu_s": round(usage.cpu_s["postgres"], 2),
            "qdrant_cpu_s": round(usage.cpu_s["qdrant"], 2),
            "relinked": linked.relinked,
            "longest_s": round(linked.longest_s, 2),
            "anonymous_mb": round(usage.anonymous_mb[OURS]),
        }
        say(f"{name}: {figures[name]}")
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entities", type=int, default=200_000, help="tasks that name the page and hold the tag")
    parser.add_argument("--newly-tagged", type=int, default=2_000, help="tasks that get a new tag at once")
    arguments = parser.parse_args()
    with bench() as stores:
        figures = measure(stores, arguments.entities, arguments.newly_tagged)
    report(entities=arguments.entities, sharers=SHARERS, newly_tagged=arguments.newly_tagged, **figures)


if __name__ == "__main__":
    main()
