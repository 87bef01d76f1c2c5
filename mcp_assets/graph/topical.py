"""topical_relevance: entities that share tags, concepts and category, weighted by how rare these are; the 20 best."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph.edges import ListedEdge, rounded
from mcp_assets.graph.keys import folded
from mcp_assets.graph.metadata import texts_of
from mcp_assets.graph.ranking import LIST_LENGTH, Neighbour, Ranking, precedence, ranked

CATEGORY_PREFIX = "category:"

_ROUGH = 1e-3
"""Margin of a rough score: more than rounding to 4 decimals and the order of a sum of floats can change it."""

SHOWN_TAGS = 5
"""Shared tags that an edge's evidence names, those with the largest weights: enough to show why, few enough to read."""


class TagWeight(NamedTuple):
    """One row of `tag_weights`."""

    weight: float
    """0 < weight <= 1."""
    makes_candidates: bool
    """False for a tag with so many holders that sharing it alone does not make an entity a candidate."""


UNKNOWN_TAG = TagWeight(weight=1.0, makes_candidates=True)
"""The weight of a tag that `tag_weights` lacks: that of a tag with one holder."""


def tags_of(metadata: Mapping[str, Any]) -> frozenset[str]:
    """The tags of an entity, normalised: its tags and concepts, and its category as `category:<name>`."""
    named = (folded(text) for key in ("tags", "concepts") for text in texts_of(metadata.get(key)))
    categories = (folded(CATEGORY_PREFIX + text) for text in texts_of(metadata.get("category")))
    return frozenset((*named, *categories))


def weight_of(holders: int, candidate_limit: int) -> TagWeight:
    """The row of a tag with `holders` entities: weight 1 / (1 + floor(log2 holders)).

    A tag with more than `candidate_limit` holders makes no candidates.
    """
    return TagWeight(1 / max(holders, 1).bit_length(), holders <= candidate_limit)


def candidate_tags(tags: Iterable[str], weights: Mapping[str, TagWeight]) -> frozenset[str]:
    """Those of `tags` whose other holders are candidates."""
    return frozenset(tag for tag in tags if weights.get(tag, UNKNOWN_TAG).makes_candidates)


def relevance(a: AbstractSet[str], b: AbstractSet[str], weights: Mapping[str, TagWeight]) -> float:
    """Weighted Jaccard of two sets of tags: 0..1, rounded, the same both ways."""
    shared = _total(a & b, weights)
    return rounded(shared / _total(a | b, weights)) if shared else 0.0


def _total(tags: Iterable[str], weights: Mapping[str, TagWeight]) -> float:
    # fsum gives the same sum in any order of the set.
    return math.fsum(weights.get(tag, UNKNOWN_TAG).weight for tag in tags)


def topical_neighbourhood(
    source: EntityRef,
    tags: AbstractSet[str],
    holders: Iterable[tuple[EntityRef, AbstractSet[str]]],
    weights: Mapping[str, TagWeight],
    threshold: float,
) -> list[Neighbour]:
    """The neighbours of `source` among `holders`, best first.

    A neighbour shares a tag that makes candidates, and its relevance is above 0 and at least `threshold` (0..1).
    `holders`: at least every living entity that holds one of `candidate_tags(tags)`, each once, with all its tags.
    """
    makers = candidate_tags(tags, weights)
    scored = (
        Neighbour(ref, relevance(tags, theirs, weights))
        for ref, theirs in holders
        if ref != source and not makers.isdisjoint(theirs)
    )
    return sorted((neighbour for neighbour in scored if 0.0 < neighbour.score >= threshold), key=precedence)


def topical_edges(
    source: EntityRef,
    tags: frozenset[str],
    ranking: Ranking,
    holders: Mapping[EntityRef, frozenset[str]],
    weights: Mapping[str, TagWeight],
) -> Iterator[ListedEdge]:
    """The edges of a list. `holders`: the tags of each entity in it."""
    evidence: dict[frozenset[str], str] = {}
    for target, score in ranking:
        shared = tags & holders[target]
        text = evidence.get(shared)
        if text is None:
            weightiest = sorted(shared, key=lambda tag: (-weights.get(tag, UNKNOWN_TAG).weight, tag))[:SHOWN_TAGS]
            text = evidence[shared] = json.dumps({"rule": "tags", "shared": weightiest}, ensure_ascii=False)
        yield ListedEdge(source, target, score, text)


class TopicIndex:
    """Entities by their tags, to find the neighbours of many entities.

    All candidates are scored roughly, in one vector operation; only those near the threshold or the end of the list are
    scored exactly. `holders`: as for `topical_neighbourhood`, of all entities that will be asked about.
    """

    def __init__(
        self,
        holders: Iterable[tuple[EntityRef, AbstractSet[str]]],
        weights: Mapping[str, TagWeight],
        threshold: float,
    ) -> None:
        self._weights = weights
        self._threshold = threshold
        self._held = sorted(holders)
        self._totals = np.array([_total(tags, weights) for _, tags in self._held])
        self._relevance: dict[tuple[AbstractSet[str], AbstractSet[str]], float] = {}
        positions: dict[str, list[int]] = {}
        for position, (_, tags) in enumerate(self._held):
            for tag in tags:
                positions.setdefault(tag, []).append(position)
        self._positions = {tag: np.array(found) for tag, found in positions.items()}

    def ranking(self, source: EntityRef, tags: frozenset[str], limit: int = LIST_LENGTH) -> Ranking:
        """The list of `source`, which holds `tags`."""
        positions, rough = self._scored(tags)
        if len(positions) > limit + 1:
            # One of the limit + 1 best may be the source. Candidates that may tie with the last are scored exactly too.
            last = np.partition(rough, -(limit + 1))[-(limit + 1)]
            positions = positions[rough >= last - _ROUGH]
        return ranked(self._neighbours(source, tags, positions), limit)

    def neighbourhood(self, source: EntityRef, tags: frozenset[str]) -> list[Neighbour]:
        """As `topical_neighbourhood`."""
        positions, _ = self._scored(tags)
        return sorted(self._neighbours(source, tags, positions), key=precedence)

    def _scored(self, tags: frozenset[str]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Positions of the candidates that may reach the threshold, and their scores, exact to within _ROUGH."""
        makers = [tag for tag in candidate_tags(tags, self._weights) if tag in self._positions]
        if not makers:
            return np.empty(0, dtype=np.intp), np.empty(0)
        shared = np.zeros(len(self._held))
        for tag in tags:
            if tag in self._positions:
                shared[self._positions[tag]] += self._weights.get(tag, UNKNOWN_TAG).weight
        candidates = np.unique(np.concatenate([self._positions[tag] for tag in makers]))
        common = shared[candidates]
        scores = common / (_total(tags, self._weights) + self._totals[candidates] - common)
        enough = scores >= self._threshold - _ROUGH
        return candidates[enough], scores[enough]

    def _neighbours(self, source: EntityRef, tags: frozenset[str], positions: NDArray[np.intp]) -> Iterator[Neighbour]:
        for position in positions:
            ref, theirs = self._held[position]
            if ref == source:
                continue
            score = self._relevance.get((tags, theirs))
            if score is None:
                score = self._relevance[tags, theirs] = relevance(tags, theirs, self._weights)
            if 0.0 < score >= self._threshold:
                yield Neighbour(ref, score)
