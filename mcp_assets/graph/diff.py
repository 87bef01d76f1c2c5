"""Diff of edges: the fewest writes that turn the stored edges into the wanted ones."""

import json
from collections.abc import Iterable, Mapping
from operator import itemgetter
from typing import NamedTuple

from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph.edges import Edge, ListedEdge, canonical, strongest


class EdgeDiff(NamedTuple):
    """The fewest writes.

    Stored edges are in the order of (source, target, type): concurrent writers lock rows in one order, so that they do
    not deadlock.
    """

    added: tuple[Edge, ...]
    changed: tuple[Edge, ...]
    """As wanted: strength or metadata differ from what is stored."""
    removed: tuple[Edge, ...]
    """As stored."""


class StoredEdge(NamedTuple):
    """One stored edge of a ranked list; source, target and type are known from where it stands."""

    row: str
    """The id of its row."""
    strength: float
    evidence: str | None
    """Its metadata, as the text of a jsonb; None if it was not read, and is not compared."""


StoredList = Mapping[EntityRef, StoredEdge]
"""The stored edges of one source and one ranked type, by target."""


class ListDiff(NamedTuple):
    """As `EdgeDiff`, of ranked lists of one type. Each stored edge comes with the id of its row."""

    added: list[ListedEdge]
    changed: list[tuple[str, ListedEdge]]
    """As wanted."""
    removed: list[tuple[str, ListedEdge]]
    """As stored; evidence that was not read is `{}`."""


def diff_lists(stored: Mapping[EntityRef, StoredList], wanted: Iterable[ListedEdge]) -> ListDiff:
    """As `diff`, of the lists of some sources, all of one type. `wanted` has each edge once."""
    left = {source: dict(held) for source, held in stored.items()}
    added: list[ListedEdge] = []
    changed: list[tuple[str, ListedEdge]] = []
    for edge in wanted:
        list_left = left.get(edge.source)
        held = list_left.pop(edge.target, None) if list_left else None
        if held is None:
            added.append(edge)
        elif held.strength != edge.strength or not _same_evidence(held.evidence, edge.evidence):
            changed.append((held.row, edge))
    removed = [
        (held.row, ListedEdge(source, target, held.strength, held.evidence or "{}"))
        for source, list_left in left.items()
        for target, held in list_left.items()
    ]
    by_edge = itemgetter(1)
    return ListDiff(added, sorted(changed, key=by_edge), sorted(removed, key=by_edge))


def _same_evidence(stored: str | None, wanted: str) -> bool:
    # PostgreSQL writes the text of a jsonb as `json.dumps` does, except for the order of keys.
    return stored is None or stored == wanted or json.loads(stored) == json.loads(wanted)


def diff(current: Iterable[Edge], wanted: Iterable[Edge]) -> EdgeDiff:
    """The writes that turn the `current` edges into the `wanted` ones; an edge that is the same in both needs none.

    Both must cover the same edges, for instance all of ours from the same sources, because an edge that is stored and
    not wanted is removed. If `wanted` has an edge several times, the strongest counts. Strengths are compared at 4
    decimals, and metadata as jsonb holds it.
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
