"""Edge: one typed, weighted link between two entities; of several statements of one edge, the strongest counts."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from mcp_assets.entities.refs import EntityRef

STRENGTH_DECIMALS = 4
"""A `real` holds 6 significant digits, so that a strength of 4 decimals is the same when it is read back."""

STRENGTH_BINS = 20
"""Equal bins of a histogram of strengths, from 0 to 1: 0.05 wide, fine enough to choose a threshold by."""


class EdgeType(StrEnum):
    """The values of `relationships.relationship_type`."""

    SEMANTIC_SIMILARITY = "semantic_similarity"
    POSSIBLE_DUPLICATE = "possible_duplicate"
    TOPICAL_RELEVANCE = "topical_relevance"
    SEQUENTIAL_DEPENDENCY = "sequential_dependency"
    CONCEPTUAL_HIERARCHY = "conceptual_hierarchy"
    CROSS_REFERENCE = "cross_reference"


UNDIRECTED = frozenset({EdgeType.SEMANTIC_SIMILARITY, EdgeType.POSSIBLE_DUPLICATE, EdgeType.TOPICAL_RELEVANCE})
"""Types that mean the same in both directions."""


class EdgeKey(NamedTuple):
    """The identity of an edge: no two edges of ours share it."""

    source: EntityRef
    target: EntityRef
    type: EdgeType


def rounded(score: float) -> float:
    """`score` at 4 decimals. Scores are rounded before they are ordered, compared with a threshold, or stored.

    A rounded score that was stored in a `real` column rounds to the same score when it is read back. The cosine of two
    equal float32 vectors, which may exceed 1 by a little, rounds to 1.

    Raises:
        ValueError: `score` is not finite.
    """
    if not math.isfinite(score):
        raise ValueError(f"a score must be a finite number, not {score}")
    return round(score, STRENGTH_DECIMALS) + 0.0  # + 0.0: no negative zero


@dataclass(frozen=True, slots=True)
class Edge:
    """A link from `source` to another entity, `target`.

    `strength`: 0..1, rounded when the edge is made. `metadata`: the evidence, JSON values only. Its key `rule` names
    the rule that made the edge.

    Raises:
        ValueError: source and target are one entity, or the strength is outside 0..1.
    """

    source: EntityRef
    target: EntityRef
    type: EdgeType
    strength: float
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.source == self.target:
            raise ValueError(f"{self.source} cannot have an edge ({self.type}) to itself")
        strength = rounded(self.strength)
        if not 0.0 <= strength <= 1.0:
            raise ValueError(
                f"the strength of {self.source} -> {self.target} ({self.type}) is {self.strength}: not 0..1"
            )
        object.__setattr__(self, "strength", strength)

    @property
    def key(self) -> EdgeKey:
        return EdgeKey(self.source, self.target, self.type)

    @property
    def bin(self) -> int:
        """The one of STRENGTH_BINS equal bins that the strength falls in."""
        return bin_of(self.strength)


class ListedEdge(NamedTuple):
    """An edge of a ranked list, whose type is that of the list. It is cheaper than an `Edge`: there are very many."""

    source: EntityRef
    target: EntityRef
    strength: float
    """0..1, rounded."""
    evidence: str
    """Its metadata, as JSON."""

    def of_type(self, edge_type: EdgeType) -> Edge:
        return Edge(self.source, self.target, edge_type, self.strength, json.loads(self.evidence))


def bin_of(strength: float) -> int:
    """The one of STRENGTH_BINS equal bins that a strength (0..1) falls in."""
    return min(int(strength * STRENGTH_BINS), STRENGTH_BINS - 1)


def canonical(metadata: Mapping[str, Any]) -> str:
    """`metadata` as a text that is the same for any two values that are equal as jsonb."""
    return json.dumps(metadata, sort_keys=True, ensure_ascii=False)


def strongest(edges: Iterable[Edge]) -> dict[EdgeKey, Edge]:
    """One edge for each key: the strongest, with its evidence; of equally strong ones that of the first rule name.

    The result does not depend on the order of `edges`.
    """
    best: dict[EdgeKey, Edge] = {}
    for edge in edges:
        key = edge.key
        rival = best.get(key)
        if rival is None or _precedence(edge) < _precedence(rival):
            best[key] = edge
    return best


def _precedence(edge: Edge) -> tuple[float, str, str]:
    return -edge.strength, str(edge.metadata.get("rule", "")), canonical(edge.metadata)
