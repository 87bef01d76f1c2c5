"""Fusion: merges rankings into one by weighted reciprocal rank fusion. Pure.

An entity at rank r of a ranking gets weight / (RANK_CONSTANT + r) from it. Ranks are compared and not scores, because a
cosine and a sum of word weights have no common unit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mcp_assets.entities.refs import EntityRef

RANK_CONSTANT = 10
"""The smaller, the more the first ranks count. Chosen among 5, 10, 30 and 60 in a trial on 1,146 questions such as
`benchmarks/search_quality.py` makes; 60, the usual one, suits rankings that are equally good."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """An entity in a ranking. `share`: from 0 to 1, how much of the ranking's weight it gets for its rank."""

    ref: EntityRef
    score: float
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one ranking adds to the score of an entity; `rank` counts from 1, `score` is the ranking's own."""

    ranking: str
    rank: int
    score: float
    added: float


@dataclass(frozen=True, slots=True)
class Fused:
    """An entity in the merged ranking. `score`: 1.0 if it is the first of each ranking, with all shares."""

    ref: EntityRef
    score: float
    contributions: tuple[Contribution, ...]


def fuse(rankings: Mapping[str, tuple[float, Sequence[Ranked]]]) -> list[Fused]:
    """The entities of all rankings, best first; equal scores in the order of type and id.

    `rankings`: by name, the weight and the entities, best first.
    """
    best = sum(weight / (RANK_CONSTANT + 1) for weight, _ in rankings.values())
    found: dict[EntityRef, list[Contribution]] = {}
    for name, (weight, entities) in rankings.items():
        for rank, entity in enumerate(entities, start=1):
            added = weight * entity.share / (RANK_CONSTANT + rank) / best if best else 0.0
            found.setdefault(entity.ref, []).append(Contribution(name, rank, entity.score, added))
    # Rounded, because sums of the same parts in another order differ in the last digit.
    fused = [Fused(ref, round(sum(part.added for part in parts), 9), tuple(parts)) for ref, parts in found.items()]
    return sorted(fused, key=lambda one: (-one.score, one.ref.type, one.ref.id))
