"""semantic_similarity: b is among the 20 nearest of a, and their cosine reaches the threshold of the model."""

import json
import math
from bisect import bisect_left
from collections.abc import Container, Iterable, Mapping, Sequence
from functools import lru_cache

from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph.edges import ListedEdge, rounded
from mcp_assets.graph.ranking import Known, Neighbour, Ranking, cut, ranked

Hit = tuple[EntityRef, float]
"""One answer of a search: an entity, and its cosine as Qdrant gives it."""

_new = tuple.__new__
"""Makes a NamedTuple of a tuple in half the time of its own function: of edges and neighbours there are very many."""

_SPARE = 4
"""Hits beyond a list that are looked at first: the source is one of them, and the last does not count."""

_NOBODY: frozenset[EntityRef] = frozenset()


def _falling(neighbour: Neighbour) -> float:
    return -neighbour.score


def query_floor(threshold: float) -> float:
    """The score threshold to search with: what rounds to `threshold` lies up to 0.00005 below it."""
    return threshold - 0.00006


def neighbourhood(
    source: EntityRef, hits: Iterable[Hit], threshold: float, gone: Container[EntityRef] = _NOBODY
) -> list[Neighbour]:
    """The neighbours among `hits` of one or more searches, best first: without `source` itself and those that are
    `gone`, each once, rounded scores at or above `threshold` (cosine, 0..1)."""
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
    names: Mapping[str, EntityRef | None],
    threshold: float,
    limit: int,
) -> list[Neighbour]:
    """The `limit` best of the neighbourhood that the answers of some searches make.

    `names`: the entity of each point that was hit; None is no neighbour.
    """
    hits = [hit for answer in answers for hit in answer]
    kept = limit + _SPARE
    scores = sorted([cosine for _, cosine in hits])
    if len(hits) > kept and math.isfinite(sum(scores)):
        # Most of what several searches find is in no list: it is not even rounded.
        least = scores[-kept]
        near = neighbourhood(
            source, [(ref, cosine) for point, cosine in hits if cosine >= least and (ref := names[point])], threshold
        )
        if len(near) >= limit and near[limit - 1].score > rounded(least):
            return near[:limit]
    return neighbourhood(source, [(ref, cosine) for point, cosine in hits if (ref := names[point])], threshold)[:limit]


def left_out(answer: Sequence[tuple[object, float]], asked: int, threshold: float) -> float | None:
    """The rounded score that nobody exceeds whom the answer of one search, asked for at most `asked` hits, leaves out;
    None if it leaves out nobody at or above the threshold.

    `answer`: all its hits, those that make no neighbours too, with their cosines, best first.
    """
    if len(answer) < asked:
        return None
    last = rounded(answer[-1][1])
    return last if last >= threshold else None


def known_of(near: Sequence[Neighbour], floors: Iterable[float | None], kept: int) -> Known:
    """What answers of some searches say for certain: those that stand above whoever was left out of any.

    `near`: the best of the neighbourhood that they make, best first, kept + 1 of them if there are so many. `floors`:
    what was `left_out` of each answer. A tie at the end is decided by (type, id): one who ties with somebody left out
    is not known.
    """
    floor = max((floor for floor in floors if floor is not None), default=None)
    if floor is not None:
        near = near[: bisect_left(near, -floor, key=_falling)]
    return cut(tuple(near), floor, kept)


def semantic_edges(source: EntityRef, ranking: Ranking, model: str, collections: Mapping[str, str]) -> list[ListedEdge]:
    """The edges of a list; `model` is the embedding model that the cosines come from, `collections` has the collection
    of each entity type.

    Raises:
        ValueError: a score is no cosine: it exceeds 1.
    """
    if ranking and ranking[0].score > 1.0:
        raise ValueError(f"the cosine of {source} and {ranking[0].ref} is {ranking[0].score}: more than 1")
    return [
        _new(ListedEdge, (source, target, score, f"{_evidence(model, collections[target.type])}{score}}}"))
        for target, score in ranking
    ]


@lru_cache(maxsize=64)
def _evidence(model: str, collection: str) -> str:
    """All but the score, in the order in which a jsonb writes its keys."""
    text = json.dumps({"rule": "cosine", "model": model, "collection": collection}, ensure_ascii=False)
    return f'{text[:-1]}, "similarity_score": '
