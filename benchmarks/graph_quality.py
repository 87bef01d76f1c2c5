"""Graph quality: how many pairs that are known to be related the edges find, and whether edges say more than chance.

FILE has JSON lines `[type, id, other_id]`: two entities of one type. The workspace is linked with its `depends_on`,
`replaces` and `superseded_by` hidden from the rules. `recall`: share of the pairs with an edge between them, in either
direction; `edges_per_entity`; `same_tag`: share of edges between entities that share a tag, a concept or the category,
and `same_tag_chance`: of pairs of entities of the same types drawn at random. For all edges, and for each type.
Without FILE, the pairs are those that the hidden keys state.
"""

import argparse
import json
import random
from collections.abc import Collection, Iterable
from contextlib import closing
from pathlib import Path

from harness import WORKSPACE, Bench, bench, load_entities, read_workspace, report, say

from mcp_assets.cli.load_entities import Line
from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph import EdgeType, tags_of
from mcp_assets.platform import Platform
from mcp_assets.quality import Pair, recall
from mcp_assets.sync.index.full_sync import full_sync
from mcp_assets.sync.link.linker import link_until_done
from mcp_assets.sync.link.tag_weights import refresh_tag_weights

HIDDEN = ("depends_on", "replaces", "superseded_by")

_DRAWN = 200_000


def pairs_of(file: Path) -> list[Pair]:
    return [
        (EntityRef(entity_type, one), EntityRef(entity_type, other))
        for entity_type, one, other in map(json.loads, file.read_text().splitlines())
    ]


def stated_pairs(entities: Iterable[Line], keys: Collection[str] = HIDDEN) -> list[Pair]:
    """What the hidden keys say, of entities that there are."""
    known = {EntityRef(line.entity_type, line.entity_id): line for line in entities}
    return sorted(
        {
            (ref, other)
            for ref, line in known.items()
            for key in keys
            for named in line.metadata.get(key) or ()
            if (other := EntityRef(ref.type, named)) in known and other != ref
        }
    )


def link(bench: Bench) -> None:
    with closing(Platform(bench.settings())) as platform:
        # cached_property: what is set is what all of the platform uses.
        platform.reference_rules = platform.reference_rules.hiding(*HIDDEN)
        for entity_type in platform.settings.entity_types:
            for _ in full_sync(platform, entity_type, range(platform.settings.shards)):
                pass
        for _ in range(2):
            for _ in link_until_done(platform):
                pass
            refresh_tag_weights(platform)


def figures(edges: Collection[Pair], pairs: Collection[Pair], entities: Collection[Line]) -> dict[str, float]:
    tags = {EntityRef(line.entity_type, line.entity_id): tags_of(line.metadata) for line in entities}
    by_type: dict[str, list[EntityRef]] = {}
    for ref in sorted(tags):
        by_type.setdefault(ref.type, []).append(ref)
    draw, ordered = random.Random(0), sorted(edges)
    drawn = [
        (draw.choice(by_type[one.type]), draw.choice(by_type[other.type]))
        for one, other in (draw.choice(ordered) for _ in range(min(_DRAWN, len(edges))))
    ] if edges else []  # fmt: skip
    return {
        "recall": recall(pairs, edges),
        "edges_per_entity": round(len(edges) / max(len(entities), 1), 3),
        "same_tag": _share_a_tag(edges, tags),
        "same_tag_chance": _share_a_tag([pair for pair in drawn if pair[0] != pair[1]], tags),
    }


def _share_a_tag(pairs: Collection[Pair], tags: dict[EntityRef, frozenset[str]]) -> float:
    return round(sum(not tags[one].isdisjoint(tags[other]) for one, other in pairs) / max(len(pairs), 1), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, help="JSON lines [type, id, other_id]")
    parser.add_argument("--workspace", type=Path, default=WORKSPACE, help="gzipped JSON lines of entities")
    arguments = parser.parse_args()
    entities = list(read_workspace(arguments.workspace))
    pairs = pairs_of(arguments.file) if arguments.file else stated_pairs(entities)
    with bench() as stack:
        load_entities(stack, entities)
        say("index and link")
        link(stack)
        rows = stack.query(
            "SELECT source_type, source_id, target_type, target_id, relationship_type FROM relationships"
        )
    edges: dict[str, set[Pair]] = {edge_type.value: set() for edge_type in EdgeType}
    for source_type, source_id, target_type, target_id, edge_type in rows:
        edges[edge_type].add((EntityRef(source_type, source_id), EntityRef(target_type, target_id)))
    everything = set().union(*edges.values())
    report(
        pairs=len(pairs),
        **figures(everything, pairs, entities),
        by_type={edge_type: figures(found, pairs, entities) for edge_type, found in edges.items()},
        by_key={
            key: figures(everything, stated_pairs(entities, [key]), entities)["recall"] for key in HIDDEN
        } if arguments.file is None else {},
    )  # fmt: skip


if __name__ == "__main__":
    main()
