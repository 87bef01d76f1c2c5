"""Linking: the rate of linking everything against that of the neighbour queries alone, and the cost of 1 % changed.

`linked_per_s`: all entities linked from nothing, every edge written. `neighbour_queries_per_s`: entities whose
neighbours the same Qdrant gives in the same batched requests, when nothing else is done. `ratio`: the first over the
second. `relinked_all_per_s`: everything linked again by force, nothing to write. `relink_share`: seconds of re-linking
after each hundredth entity got the text of another one beside its own, over the seconds of linking all;
`equal_to_rebuild`: whether the edges are then those of linking all from nothing.

Queries alone and linking all take turns for some rounds; ratio and rates are those of the round with the median ratio.
As many times a hundredth of the entities changes, each time others; the median counts.
"""

import argparse
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from statistics import median

from harness import WORKSPACE, Bench, Measured, bench, in_fresh_process, load_entities, read_workspace, report, say

from mcp_assets.cli.load_entities import Line
from mcp_assets.entities.points import point_id
from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph import search_threshold
from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.stores.qdrant_search import QueryPoint
from mcp_assets.sync.collections.model_collections import find_collection
from mcp_assets.sync.collections.serving import serving_profile
from mcp_assets.sync.index.full_sync import full_sync
from mcp_assets.sync.link.counts import LinkCounts
from mcp_assets.sync.link.linker import link_until_done
from mcp_assets.sync.link.marks import mark_shards
from mcp_assets.sync.link.semantic_neighbours import QUERIES_A_REQUEST
from mcp_assets.sync.link.tag_weights import refresh_tag_weights

_CHANGED_EACH = 100


def index(settings: Settings) -> None:
    """A full sync of everything, without links."""
    with closing(Platform(settings)) as platform:
        for entity_type in settings.entity_types:
            for _ in full_sync(platform, entity_type, range(settings.shards)):
                pass


def link_all(settings: Settings, *, force: bool) -> float:
    """Seconds in which all marks are linked. As with the queries alone, connecting to the stores does not count."""
    with closing(Platform(settings)) as platform:
        serving_profile(platform)
        if force:
            for entity_type in settings.entity_types:
                mark_shards(platform, entity_type, range(settings.shards), force=True)
        began = time.perf_counter()
        total = LinkCounts()
        for linked in link_until_done(platform):
            total.add(linked.total())
        say(f"added {total.added.total()}, changed {total.changed.total()}, removed {total.removed.total()}")
        return time.perf_counter() - began


def refresh_tags(settings: Settings) -> None:
    with closing(Platform(settings)) as platform:
        refresh_tag_weights(platform)


def ask_alone(settings: Settings, refs: list[EntityRef]) -> float:
    """Seconds in which Qdrant gives the neighbours of `refs`, one request after the other, answers thrown away."""
    with closing(Platform(settings)) as platform:
        profile = platform.embedder.profile
        lowest = search_threshold(profile.similarity_threshold)
        made = {
            name: find_collection(platform.qdrant, entity_type.collection_name, profile)
            for name, entity_type in settings.entity_types.items()
        }
        held = {name: collection.name for name, collection in made.items() if collection is not None}
        began = time.perf_counter()
        for start in range(0, len(refs), QUERIES_A_REQUEST):
            asking = [QueryPoint(str(point_id(ref)), held[ref.type]) for ref in refs[start : start + QUERIES_A_REQUEST]]
            for collection in held.values():
                platform.qdrant.nearest(
                    collection, asking, limit=platform.tuning.link.list_hits, floor=lowest, exact=True
                )
        return time.perf_counter() - began


def changed(entities: list[Line], first: int) -> Iterator[Line]:
    """Each hundredth entity from the `first` on, with the text of another one added to its own."""
    for number in range(first, len(entities), _CHANGED_EACH):
        other = entities[(number + len(entities) // 2) % len(entities)]
        yield replace(entities[number], content=f"{entities[number].content}\n\n{other.content}")


@dataclass(frozen=True)
class Round:
    alone_s: float
    linking: Measured

    @property
    def ratio(self) -> float:
        return self.alone_s / float(self.linking.result)


def take_turns(stack: Bench, refs: list[EntityRef], rounds: int) -> list[Round]:
    """Queries alone and linking all from nothing: the marks of the full sync are linked each time."""
    settings = stack.settings()
    stack.query("CREATE TABLE marks AS SELECT entity_type, entity_id, reason FROM mcp_assets.relink_marks ORDER BY seq")
    stack.query("VACUUM ANALYZE")
    taken = []
    for _ in range(rounds):
        say("neighbour queries alone")
        alone_s = in_fresh_process(ask_alone, settings, refs).result
        stack.query("TRUNCATE mcp_assets.tag_weights")
        forget_links(stack)
        stack.query("INSERT INTO mcp_assets.relink_marks (entity_type, entity_id, reason) TABLE marks")
        say("link all")
        taken.append(Round(alone_s, in_fresh_process(link_all, settings, force=False)))
    return taken


def forget_links(stack: Bench) -> None:
    stack.query(
        "TRUNCATE mcp_assets.linked, mcp_assets.reserves, mcp_assets.reference_uses, mcp_assets.relink_marks,"
        " relationships"
    )


def edges(bench: Bench) -> set[tuple[object, ...]]:
    return set(
        bench.query(
            "SELECT source_type, source_id, target_type, target_id, relationship_type, strength FROM relationships"
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, default=WORKSPACE, help="gzipped JSON lines of entities")
    parser.add_argument("--limit", type=int, help="only the first so many")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    entities = list(read_workspace(arguments.file, arguments.limit))
    refs = sorted(EntityRef(line.entity_type, line.entity_id) for line in entities)
    with bench() as stack:
        settings = stack.settings()
        load_entities(stack, entities)
        in_fresh_process(index, settings)
        rounds = sorted(take_turns(stack, refs, arguments.rounds), key=attrgetter("ratio"))
        for taken in rounds:
            say(f"ratio {taken.ratio:.3f}: alone {taken.alone_s:.2f} s, linking {taken.linking.result:.2f} s")
        alone_s, linking = rounds[len(rounds) // 2].alone_s, rounds[len(rounds) // 2].linking
        in_fresh_process(refresh_tags, settings)
        say("link again by new tag weights, then by force")
        in_fresh_process(link_all, settings, force=False)
        again_s = in_fresh_process(link_all, settings, force=True).result
        relinks = []
        for first in range(arguments.rounds):
            load_entities(stack, changed(entities, first))
            in_fresh_process(index, settings)
            say("re-link after 1 % changed")
            relinks.append(in_fresh_process(link_all, settings, force=False).result)
        relink_s = median(relinks)
        for seconds in sorted(relinks):
            say(f"re-link {seconds:.2f} s")
        incremental = edges(stack)
        forget_links(stack)
        say("rebuild")
        in_fresh_process(link_all, settings, force=True)
        rebuilt = edges(stack)
    report(
        linked_per_s=len(refs) / linking.result,
        neighbour_queries_per_s=len(refs) / alone_s,
        ratio=alone_s / linking.result,
        relinked_all_per_s=len(refs) / again_s,
        relink_share=relink_s / linking.result,
        equal_to_rebuild=incremental == rebuilt,
        edges=len(rebuilt),
        peak_rss_mb=max(taken.linking.peak_rss_mb for taken in rounds),
    )


if __name__ == "__main__":
    main()
