"""Pairs: how many pairs of entities that are known to belong together are linked, and how many linked ones are known.

A pair has no direction.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from mcp_assets.entities.refs import EntityRef

Pair = tuple[EntityRef, EntityRef]


@dataclass(frozen=True, slots=True)
class PairFigures:
    """Of edges, compared with pairs that are known to belong together."""

    recall: float
    """Share of the known pairs that an edge links, in either direction; 0 if none is known."""
    precision: float
    """Share of the edges that link a known pair; 0 if there is no edge. It is a floor, because two entities may belong
    together although nobody has said so."""
    edges: int
    """How many edges were compared."""


def recall(pairs: Collection[Pair], linked: Iterable[Pair]) -> float:
    """The share of `pairs` that are in `linked`, in either direction; 0 if there are no pairs."""
    either = {frozenset(pair) for pair in linked}
    return round(sum(frozenset(pair) in either for pair in pairs) / len(pairs), 4) if pairs else 0.0


def pair_figures(
    pairs: Collection[Pair],
    edges: Mapping[EntityRef, Collection[EntityRef]],
    partners: Mapping[EntityRef, Collection[EntityRef]],
) -> PairFigures:
    """The figures of `edges`, which lead from the ends of the `pairs` to other entities.

    `partners`: all entities that are known to belong to each end, more than those of `pairs` if these are a sample.
    """
    total = sum(map(len, edges.values()))
    known = sum(target in partners.get(source, ()) for source, targets in edges.items() for target in targets)
    return PairFigures(
        recall=recall(pairs, ((source, target) for source, targets in edges.items() for target in targets)),
        precision=round(known / total, 4) if total else 0.0,
        edges=total,
    )
