"""Diff of edges: what to write so that the stored edges become the wanted ones, and nothing else."""

from collections.abc import Iterable
from typing import NamedTuple

from mcp_assets.graph.edges import Edge, canonical, strongest


class EdgeDiff(NamedTuple):
    """The least writes, each ordered by (source, target, type), so that concurrent writers lock in one order."""

    added: tuple[Edge, ...]
    changed: tuple[Edge, ...]
    """As wanted: strength or metadata differ from what is stored."""
    removed: tuple[Edge, ...]
    """As stored."""


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
