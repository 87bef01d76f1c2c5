"""Diff of edges: what to write so that the stored edges become the wanted ones, and nothing else."""

import json
from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import Any, NamedTuple

from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph.edges import Edge, EdgeType, canonical, strongest


class EdgeDiff(NamedTuple):
    """The least writes; rows that there are in the order of (source, target, type): concurrent writers lock alike."""

    added: tuple[Edge, ...]
    changed: tuple[Edge, ...]
    """As wanted: strength or metadata differ from what is stored."""
    removed: tuple[Edge, ...]
    """As stored."""


class StoredEdge(NamedTuple):
    """What is stored of one edge of a ranked list."""

    row: str
    """The id of its row."""
    strength: float
    evidence: str
    """Its metadata, as the text of a jsonb."""


StoredList = Mapping[EntityRef, StoredEdge]
"""The stored edges of one source and one ranked type, by target."""


def diff_list(source: EntityRef, edge_type: EdgeType, stored: StoredList, wanted: Iterable[Edge]) -> EdgeDiff:
    """As `diff`, of the list of one source: what stays as it is, nearly everything, is never made an `Edge`."""
    added: list[Edge] = []
    changed: list[Edge] = []
    left = dict(stored)
    metadata: Mapping[str, Any] | None = None
    text = ""
    for edge in wanted:
        held = left.pop(edge.target, None)
        if held is None:
            added.append(edge)
            continue
        if edge.metadata is not metadata:
            # The edges of a list may share their evidence.
            metadata, text = edge.metadata, json.dumps(edge.metadata, ensure_ascii=False)
        # A jsonb writes its text like this, but for the order of keys.
        same = held.evidence == text or json.loads(held.evidence) == json.loads(text)
        if not same or held.strength != edge.strength:
            changed.append(edge)
    return EdgeDiff(
        tuple(added), tuple(changed), tuple(Edge(source, target, edge_type, left[target].strength) for target in left)
    )


def joined(diffs: Iterable[EdgeDiff]) -> EdgeDiff:
    """Several diffs that cover different ground, as one."""
    added: list[Edge] = []
    changed: list[Edge] = []
    removed: list[Edge] = []
    for part in diffs:
        added += part.added
        changed += part.changed
        removed += part.removed
    by_key = attrgetter("key")
    return EdgeDiff(tuple(added), tuple(sorted(changed, key=by_key)), tuple(sorted(removed, key=by_key)))


def diff(current: Iterable[Edge], wanted: Iterable[Edge]) -> EdgeDiff:
    """From the stored edges to the wanted ones; an edge that is the same in both is in none of the three.

    Both must cover the same ground (say: all of our edges from the same sources): what is stored and not wanted is
    removed. `wanted` may state an edge several times: the strongest counts. Strengths are compared at 4 decimals, and
    metadata as jsonb holds it.
    """
    stored = {edge.key: edge for edge in current}
    target = strongest(wanted)
    return EdgeDiff(
        added=tuple(target[key] for key in sorted(target.keys() - stored.keys())),
        changed=tuple(
            target[key] for key in sorted(target.keys() & stored.keys()) if not _same(stored[key], target[key])
        ),
        removed=tuple(stored[key] for key in sorted(stored.keys() - target.keys())),
    )


def _same(stored: Edge, wanted: Edge) -> bool:
    return stored.strength == wanted.strength and (
        stored.metadata == wanted.metadata or canonical(stored.metadata) == canonical(wanted.metadata)
    )
