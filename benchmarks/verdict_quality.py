"""Verdict quality: precision and recall of edges before and after a team has judged half of what the rules guess.

The workspace is linked with its `depends_on`, `replaces` and `superseded_by` hidden from the rules. A *guess* is an
edge of similarity or of shared tags; it is right if the links that people wrote, hidden ones included, lead from one
end to the other in at most two steps. `precision`: share of the guesses that are right. `recall`: share of the pairs
that the hidden keys state with a guess between them.

A rule plays the team: of the pairs whose first entity has an even slot it rejects each wrong guess and accepts each
right one. `judged` are the figures of these pairs, `others` those of all other pairs, on which no verdict was given.
Then the threshold of similarity is raised, as another model would have it, with the verdicts and without them.
"""

import argparse
from collections.abc import Collection, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from graph_quality import HIDDEN, Pair, link, stated_pairs
from harness import WORKSPACE, Bench, bench, load_entities, read_workspace, report, say

from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph import REFERENCE_TYPES, UNDIRECTED, Decision, EdgeKey, EdgeType
from mcp_assets.platform import Platform
from mcp_assets.sync.collections.serving import serving_profile
from mcp_assets.sync.link.judging import record_verdict
from mcp_assets.sync.link.linker import link_until_done
from mcp_assets.sync.link.marks import mark_shards

_STEPS = 2
"""Links that people wrote, from one end of a right guess to the other: the tasks of one epic are two apart."""


def platform_of(stack: Bench, **changes: Any) -> Platform:
    platform = Platform(stack.settings(**changes))
    platform.reference_rules = platform.reference_rules.hiding(*HIDDEN)
    return platform


def edges_of(stack: Bench) -> list[EdgeKey]:
    rows = stack.query("SELECT source_type, source_id, target_type, target_id, relationship_type FROM relationships")
    return sorted(EdgeKey(EntityRef(*row[:2]), EntityRef(*row[2:4]), EdgeType(row[4])) for row in rows)


def near_of(links: Iterable[Pair]) -> dict[EntityRef, set[EntityRef]]:
    """Of each entity, those that at most _STEPS links lead to, in either direction."""
    beside: dict[EntityRef, set[EntityRef]] = {}
    for one, other in links:
        beside.setdefault(one, set()).add(other)
        beside.setdefault(other, set()).add(one)
    near = {ref: set(others) for ref, others in beside.items()}
    for _ in range(_STEPS - 1):
        near = {ref: others.union(*(beside[other] for other in others)) for ref, others in near.items()}
    return near


def is_judged(one: EntityRef, other: EntityRef) -> bool:
    return min(one, other).slot % 2 == 0


def figures(
    edges: Collection[EdgeKey], near: dict[EntityRef, set[EntityRef]], stated: Collection[Pair]
) -> dict[str, Any]:
    guesses = {frozenset(key[:2]) for key in edges if key.type in UNDIRECTED}
    found: dict[str, Any] = {}
    for part, judged in (("judged", True), ("others", False)):
        made = [(min(pair), max(pair)) for pair in guesses if is_judged(*pair) is judged]
        wanted = [frozenset(pair) for pair in stated if is_judged(*pair) is judged]
        right = sum(other in near.get(one, ()) for one, other in made)
        found[part] = {
            "guesses": len(made),
            "precision": round(right / max(len(made), 1), 4),
            "recall": round(sum(pair in guesses for pair in wanted) / max(len(wanted), 1), 4),
        }
    return found


def judge_all(stack: Bench, edges: Iterable[EdgeKey], near: dict[EntityRef, set[EntityRef]]) -> dict[str, int]:
    given = {decision.value: 0 for decision in Decision}
    with closing(platform_of(stack)) as platform:
        # One verdict is about both directions.
        keys = {
            EdgeKey(min(key[:2]), max(key[:2]), key.type)
            for key in edges
            if key.type in UNDIRECTED and is_judged(key.source, key.target)
        }
        for one, other, edge_type in sorted(keys):
            decision = Decision.ACCEPTED if other in near.get(one, ()) else Decision.REJECTED
            record_verdict(platform, one, other, edge_type=edge_type, decision=decision, by="verdict_quality")
            given[decision.value] += 1
        for _ in link_until_done(platform):
            pass
    return given


def link_by_threshold(stack: Bench, threshold: float) -> None:
    with closing(platform_of(stack, similarity_threshold=threshold)) as platform:
        for entity_type in platform.settings.entity_types:
            mark_shards(platform, entity_type, range(platform.settings.shards), force=True)
        for _ in link_until_done(platform):
            pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workspace", type=Path, default=WORKSPACE, help="gzipped JSON lines of entities")
    parser.add_argument("--limit", type=int, help="only the first entities; each edge is judged in a transaction")
    parser.add_argument("--raise-by", type=float, default=0.1, help="by how much the threshold is raised")
    arguments = parser.parse_args()
    entities = list(read_workspace(arguments.workspace, arguments.limit))
    stated = stated_pairs(entities)
    with bench() as stack:
        load_entities(stack, entities)
        say("index and link")
        link(stack)
        edges = edges_of(stack)
        near = near_of([*((key.source, key.target) for key in edges if key.type in REFERENCE_TYPES), *stated])
        measured = {"before": figures(edges, near, stated)}
        say("judge")
        given = judge_all(stack, edges, near)
        measured["after"] = figures(edges_of(stack), near, stated)
        with closing(platform_of(stack)) as platform:
            threshold = round(serving_profile(platform).similarity_threshold + arguments.raise_by, 4)
        say("raise the threshold")
        link_by_threshold(stack, threshold)
        measured["raised_with_verdicts"] = figures(edges_of(stack), near, stated)
        stack.query("TRUNCATE mcp_assets.edge_verdicts")
        link_by_threshold(stack, threshold)
        measured["raised_without_verdicts"] = figures(edges_of(stack), near, stated)
    report(stated=len(stated), verdicts=given, threshold=threshold, **measured)


if __name__ == "__main__":
    main()
