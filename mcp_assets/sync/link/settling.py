"""Settling: doubtful cosines in the answers of searches get their exact score, from the stored vectors of both points.

`graph.cosines` says which cosines are doubtful. A few of a hundred are; one request for each collection reads their
vectors.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph import cut_off_of, doubtful_hits, settled_scores
from mcp_assets.stores.qdrant_search import QueryPoint

Hits = list[tuple[str, float]]
"""Points and their cosines, best first. A hit that was settled has its rounded score in place of the cosine."""

Answers = Mapping[EntityRef, Mapping[str, Hits]]
"""The hits nearest to each entity, by collection."""


class VectorReader(Protocol):
    """Reads stored vectors: Qdrant, or what was read from it."""

    def vectors(self, collection: str, ids: Sequence[str]) -> Mapping[str, NDArray[np.float32]]: ...


class Place(NamedTuple):
    """A hit in answers."""

    ref: EntityRef
    """The entity that was asked about."""
    collection: str
    position: int


def doubtful_places(
    ref: EntityRef, hits: Mapping[str, Hits], limits: Mapping[str, int], threshold: float, best: int
) -> Iterator[Place]:
    """The hits of an entity that have to be settled before its list is made.

    `limits`: those of the searches, by collection. `best`: how many hits have to be known, the best of all.
    """
    names = list(hits)
    cut_offs = (cut_off_of(hits[name], limits[name], threshold) for name in names)
    cut_off = max((one for one in cut_offs if one is not None), default=None)
    for number, position in doubtful_hits(list(hits.values()), cut_off, threshold, best):
        yield Place(ref, names[number], position)


def settle(
    places: Collection[Place], answers: Answers, asking: Mapping[EntityRef, QueryPoint], reader: VectorReader
) -> None:
    """Put the settled score in the place of each of these cosines.

    A point that is gone meanwhile leaves the cosine as it is: its entity is marked, and linked again.
    """
    wanted: dict[str, set[str]] = {}
    for ref, collection, position in places:
        wanted.setdefault(asking[ref].collection, set()).add(asking[ref].point)
        wanted.setdefault(collection, set()).add(answers[ref][collection][position][0])
    vectors = {collection: reader.vectors(collection, sorted(points)) for collection, points in wanted.items()}
    there: list[tuple[Hits, int]] = []
    ones: list[NDArray[np.float32]] = []
    others: list[NDArray[np.float32]] = []
    for ref, collection, position in places:
        answer = answers[ref][collection]
        one = vectors[asking[ref].collection].get(asking[ref].point)
        other = vectors[collection].get(answer[position][0])
        if one is not None and other is not None:
            there.append((answer, position))
            ones.append(one)
            others.append(other)
    if there:
        for (answer, position), score in zip(there, settled_scores(np.stack(ones), np.stack(others)), strict=True):
            if math.isfinite(score):
                answer[position] = (answer[position][0], score)
