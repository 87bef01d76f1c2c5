"""semantic_similarity: b is among the 20 nearest of a, and their cosine reaches the threshold of the model."""

import json
import math
from bisect import bisect_left
from collections.abc import Container, Iterable, Mapping, Sequence
from functools import lru_cache

from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph.cosines import highest_score
from mcp_assets.graph.edges import ListedEdge, rounded
from mcp_assets.graph.ranking import Neighbour, NeighbourList, Ranking, ranked, truncated

Hit = tuple[EntityRef, float]
"""One answer of a search: an entity, and its cosine as Qdrant gives it."""

_new = tuple.__new__
"""Makes a NamedTuple from a tuple in half the time of the NamedTuple's own constructor. It is used where there are very
many edges or neighbours."""

_EXTRA_HITS = 4
"""Hits beyond a list that are ranked first: the source is one of them, the last may tie with hits behind it, and some
hits may be of entities that are gone."""

_NONE_GONE: frozenset[EntityRef] = frozenset()


def _falling(neighbour: Neighbour) -> float:
    return -neighbour.score


def search_threshold(threshold: float) -> float:
    """The score threshold of a search that finds every score that rounds to `threshold`: up to 0.00005 below it."""
    return threshold - 0.00006


def neighbourhood(
    source: EntityRef, hits: Iterable[Hit], threshold: float, gone: Container[EntityRef] = _NONE_GONE
) -> list[Neighbour]:
    """The neighbours of `source` among `hits` of one or more searches, best first, each once.

    `source` itself and the entities that are `gone` are left out. Scores are rounded, and at or above `threshold`
    (cosine, 0..1).
    """
    scores: dict[EntityRef, float] = {}
    for ref, cosine in hits:
        score = rounded(cosine)
        if score >= threshold and score > scores.get(ref, -1.0):
            scores[ref] = score
    scores.pop(source, None)
    return list(ranked((_new(Neighbour, named) for named in scores.items() if named[0] not in gone), len(scores)))


def nearest(
    source: EntityRef,
    answers: Iterable[Sequence[tuple[str, float]]],
    entities: Mapping[str, EntityRef | None],
    threshold: float,
    limit: int,
) -> list[Neighbour]:
    """The `limit` best of the neighbourhood that the answers of some searches make.

    `entities`: the entity of each point that was hit; a point with None is no neighbour.
    """
    hits = [hit for answer in answers for hit in answer]
    kept = limit + _EXTRA_HITS
    scores = sorted([cosine for _, cosine in hits])
    if len(hits) > kept and math.isfinite(sum(scores)):
        # Most hits of several searches are in no list, so that they are not even rounded.
        least = scores[-kept]
        near = neighbourhood(
            source, [(ref, cosine) for point, cosine in hits if cosine >= least and (ref := entities[point])], threshold
        )
        if len(near) >= limit and near[limit - 1].score > rounded(least):
            return near[:limit]
    return neighbourhood(source, [(ref, cosine) for point, cosine in hits if (ref := entities[point])], threshold)[
        :limit
    ]


def cut_off_of(answer: Sequence[tuple[object, float]], asked: int, threshold: float) -> float | None:
    """Upper bound, rounded, of the score of any point that the answer of one search leaves out.

    None: the answer leaves out no point at or above the threshold. `answer`: all its hits with their cosines, best
    first, also those that are no neighbours; the last as the engine gave it, not settled. `asked`: the limit of the
    search.
    """
    if len(answer) < asked:
        return None
    last = highest_score(answer[-1][1])
    return last if last >= threshold else None


def certain_list(near: Sequence[Neighbour], cut_offs: Iterable[float | None], kept: int) -> NeighbourList:
    """The list that the answers of some searches make: only neighbours that score above all that was left out.

    `near`: the best of the neighbourhood that the answers make, best first, kept + 1 of them if there are so many.
    `cut_offs`: the `cut_off_of` each answer. A neighbour that ties with a cut-off is left out: (type, id) decides a
    tie, and the points that were left out are unknown.
    """
    cut_off = max((one for one in cut_offs if one is not None), default=None)
    if cut_off is not None:
        near = near[: bisect_left(near, -cut_off, key=_falling)]
    return truncated(tuple(near), cut_off, kept)


def semantic_edges(source: EntityRef, ranking: Ranking, model: str, collections: Mapping[str, str]) -> list[ListedEdge]:
    """The edges of a list.

    `model`: the embedding model that the cosines come from. `collections`: the collection of each entity type.

    Raises:
        ValueError: a score exceeds 1, which no cosine does.
    """
    if ranking and ranking[0].score > 1.0:
        raise ValueError(f"the cosine of {source} and {ranking[0].ref} is {ranking[0].score}: more than 1")
    return [
        _new(ListedEdge, (source, target, score, f"{_evidence(model, collections[target.type])}{score}}}"))
        for target, score in ranking
    ]


@lru_cache(maxsize=64)
def _evidence(model: str, collection: str) -> str:
    """All of the evidence but the score, in the order in which a jsonb writes its keys.

    64 entries: one for each pair of model and collection, of which a site has a few.
    """
    text = json.dumps({"rule": "cosine", "model": model, "collection": collection}, ensure_ascii=False)
    return f'{text[:-1]}, "similarity_score": '
