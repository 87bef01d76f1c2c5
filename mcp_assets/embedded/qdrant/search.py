"""Queries as a Qdrant server answers them over the engine: points as queries, look-up in other collections, groups."""

# The engine's stubs name types that exist in them alone.
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import qdrant_edge as edge
from qdrant_client import models

from mcp_assets.embedded.qdrant import convert_filters, convert_points, convert_reads
from mcp_assets.embedded.qdrant.collection import StoredCollection
from mcp_assets.embedded.qdrant.convert_points import PointId
from mcp_assets.embedded.qdrant.errors import (
    RequestError,
    bad_request,
    no_point,
    no_vector_name,
    not_found,
    unsupported,
)

_DEFAULT_LIMIT = 10
_DEFAULT_GROUP_SIZE = 3
# A Qdrant server looks for groups, and then for their missing hits, in so many rounds each.
_GROUPING_ROUNDS = 5

Resolve = Callable[[str], StoredCollection]
AnyQuery = models.QueryRequest | models.QueryGroupsRequest


def query(
    collection: StoredCollection, requests: Sequence[models.QueryRequest], resolve: Resolve
) -> list[list[edge.ScoredPoint]]:
    """The points that answer each of `requests`, in their order; `resolve` finds the collections of `lookup_from`."""
    for request in requests:
        collection.check_filter(request.filter)
    vectors = _Vectors(collection, requests, resolve)
    answers = collection.query([_request(request, vectors, collection) for request in requests])
    for position, request in enumerate(requests):
        itself = _itself(request, collection.name)
        if itself is not None:
            found = answers[position]
            # The point is among the first. The loop stops there, because the engine makes an object of each id read.
            own = next((place for place, point in enumerate(found) if point.id == itself), len(found))
            start = convert_reads.offset(request.offset)
            end = start + convert_reads.limit(request.limit, _DEFAULT_LIMIT)
            answers[position] = (found[:own] + found[own + 1 :])[start:end]
    return answers


def _request(request: models.QueryRequest, vectors: _Vectors, collection: StoredCollection) -> edge.QueryRequest:
    """The engine's request; where a point asks for its neighbours, one more than was asked for, from the first on.

    Leaving the point out by a filter would cost twice as much: the engine scores together only the queries of a batch
    whose filters are the same.
    """
    limit = convert_reads.limit(request.limit, _DEFAULT_LIMIT)
    offset = convert_reads.offset(request.offset)
    if _itself(request, collection.name) is not None:
        limit, offset = offset + limit + 1, 0
    return edge.QueryRequest(
        limit=limit,
        offset=offset,
        query=_scoring(request, vectors, collection.dimension),
        filter=None if request.filter is None else convert_filters.filter_(request.filter),
        score_threshold=request.score_threshold,
        params=convert_reads.search_params(request.params),
        with_vector=request.with_vector or False,
        with_payload=convert_reads.payload_selector(request.with_payload, default=False),
    )


def _input(request: AnyQuery) -> Any:
    """What the nearest points are asked of: a vector, an id, or None where the query is of another kind."""
    if isinstance(request.query, models.NearestQuery):
        if request.query.mmr is not None:
            raise unsupported("mmr is")
        return request.query.nearest
    if isinstance(request.query, list | int | str | UUID):
        return request.query
    return None


def _referenced_id(request: AnyQuery) -> PointId | None:
    asked = _input(request)
    return convert_points.point_id(asked) if isinstance(asked, int | str | UUID) else None


class _Vectors:
    """The vectors of the points that some queries name, read with one call a collection."""

    def __init__(self, collection: StoredCollection, requests: Sequence[AnyQuery], resolve: Resolve) -> None:
        self._collection = collection
        self._found: dict[tuple[str | None, PointId], Any] = {}
        wanted: dict[str | None, list[PointId]] = {}
        for request in requests:
            id_ = _referenced_id(request)
            if id_ is not None:
                wanted.setdefault(_looked_up(request), []).append(id_)
        for name, ids in wanted.items():
            source = collection if name is None else _look_up(name, resolve)
            for record in source.retrieve(ids, with_payload=False, with_vector=True):
                self._found[name, convert_points.point_id(record.id)] = record.vector

    def of(self, request: AnyQuery, id_: PointId) -> list[float]:
        """The vector of the point; a RequestError (404) if there is no such point, or none of its vector."""
        try:
            vector = self._found[_looked_up(request), id_]
        except KeyError:
            raise no_point(id_) from None
        if not vector:
            raise not_found('Vector with name "" for point not found')
        return convert_points.dense_vector(vector, self._collection.dimension)


def _looked_up(request: AnyQuery) -> str | None:
    if request.lookup_from is None:
        return None
    if request.lookup_from.vector:
        raise no_vector_name(request.lookup_from.vector)
    return request.lookup_from.collection


def _look_up(name: str, resolve: Resolve) -> StoredCollection:
    try:
        return resolve(name)
    except RequestError as error:
        raise not_found(f"Collection {name} not found") from error


def _scoring(request: AnyQuery, vectors: _Vectors, dimension: int) -> edge.ScoringQueryType | None:
    if request.prefetch:
        raise unsupported("prefetch is")
    if request.shard_key is not None:
        raise unsupported("shard_key is")
    if request.using:
        raise no_vector_name(request.using)
    match request.query:
        case None:
            if request.score_threshold is not None:
                raise bad_request(
                    "A query is needed to use the score_threshold. Can't have score_threshold without defining a query."
                )
            return None
        case models.OrderByQuery():
            if request.score_threshold is not None:
                raise bad_request("Can't use score_threshold with an order_by query.")
            return convert_reads.order_by(request.query.order_by)
        case models.SampleQuery():
            return edge.Sample.Random
    asked = _input(request)
    if asked is None:
        raise unsupported(f"A query of the kind {type(request.query).__name__} is")
    id_ = _referenced_id(request)
    return edge.Query.Nearest(
        convert_points.dense_vector(asked, dimension) if id_ is None else vectors.of(request, id_), None
    )


def _itself(request: AnyQuery, collection: str) -> PointId | None:
    """The point that asks and is not to be answered with itself: one of the searched collection."""
    return _referenced_id(request) if _looked_up(request) in (None, collection) else None


def _all_of(*filters: edge.Filter | None) -> edge.Filter:
    return edge.Filter(must=[filter_ for filter_ in filters if filter_ is not None])


# Groups


def query_groups(
    collection: StoredCollection, request: models.QueryGroupsRequest, resolve: Resolve
) -> list[tuple[int | str, list[edge.ScoredPoint]]]:
    """The best groups and the best hits of each, best first.

    A point whose `group_by` is a list belongs to the group of each of its values; a point with no value, or one that
    is neither a string nor an integer, belongs to none.
    """
    if request.with_lookup is not None:
        raise unsupported("with_lookup is")
    collection.check_filter(request.filter)
    wanted = convert_reads.limit(request.limit, _DEFAULT_LIMIT)
    size = convert_reads.limit(request.group_size, _DEFAULT_GROUP_SIZE, "group_size")
    scoring = _scoring(request, _Vectors(collection, [request], resolve), collection.dimension)
    itself = _itself(request, collection.name)
    filter_ = _all_of(
        None if request.filter is None else convert_filters.filter_(request.filter),
        None if itself is None else edge.Filter(must_not=[edge.HasIdCondition({itself})]),
        edge.Filter(must_not=[edge.IsEmptyCondition(request.group_by)]),
    )
    seen: dict[PointId, edge.ScoredPoint] = {}

    def next_hits(among: edge.Filter | None) -> list[edge.ScoredPoint]:
        unseen = edge.Filter(must_not=[edge.HasIdCondition(set(seen))]) if seen else None
        (hits,) = collection.query(
            [
                edge.QueryRequest(
                    limit=wanted * size,
                    query=scoring,
                    filter=_all_of(filter_, among, unseen),
                    score_threshold=request.score_threshold,
                    params=convert_reads.search_params(request.params),
                    with_payload=[request.group_by.removesuffix("[]")],
                )
            ]
        )
        seen.update((convert_points.point_id(hit.id), hit) for hit in hits)
        return hits

    groups: dict[int | str, list[edge.ScoredPoint]] = {}
    for _ in range(_GROUPING_ROUNDS):
        hits = next_hits(_with_other_values(request.group_by, list(groups)))
        for hit in hits:
            for key in _group_keys(hit.payload, request.group_by):
                if key in groups or len(groups) < wanted:
                    groups.setdefault(key, []).append(hit)
        if not hits or len(groups) == wanted:
            break
    for _ in range(_GROUPING_ROUNDS):
        unfilled = [key for key, members in groups.items() if len(members) < size]
        hits = next_hits(_with_values(request.group_by, unfilled)) if unfilled else []
        if not hits:
            break
        for hit in hits:
            for key in _group_keys(hit.payload, request.group_by):
                if key in groups:
                    groups[key].append(hit)
    return [(key, members[:size]) for key, members in groups.items()]


def _with_values(key: str, values: Sequence[int | str]) -> edge.Filter:
    conditions: list[edge.ConditionType] = [
        edge.FieldCondition(key, match=edge.MatchAny(some)) for some in _by_type(values)
    ]
    return edge.Filter(should=conditions)


def _with_other_values(key: str, values: Sequence[int | str]) -> edge.Filter | None:
    conditions: list[edge.ConditionType] = [
        edge.FieldCondition(key, match=edge.MatchExcept(some)) for some in _by_type(values)
    ]
    return edge.Filter(must=conditions) if conditions else None


def _by_type(values: Sequence[int | str]) -> list[list[int] | list[str]]:
    numbers = [value for value in values if isinstance(value, int)]
    texts = [value for value in values if isinstance(value, str)]
    return [some for some in (numbers, texts) if some]


def _group_keys(payload: dict[str, Any] | None, path: str) -> list[int | str]:
    """The distinct values at `path`, or none if one of them cannot name a group."""
    values: list[Any] = [payload]
    for step in path.split("."):
        name = step.removesuffix("[]")
        values = [value[name] for value in values if isinstance(value, dict) and name in value]
        values = [item for value in values for item in (value if isinstance(value, list) else [value])]
    if any(isinstance(value, bool) or not isinstance(value, int | str) for value in values):
        return []
    return list(dict.fromkeys(values))
