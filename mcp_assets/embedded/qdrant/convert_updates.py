"""Conversion of updates: requests that write or delete points, vectors and payloads, as operations of the engine."""

# The engine's stubs name types that exist in them alone.
from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

import qdrant_edge as edge
from qdrant_client import models

from mcp_assets.embedded.qdrant.convert_filters import filter_
from mcp_assets.embedded.qdrant.convert_points import PointId, Row, point_id, point_ids, stored_vector
from mcp_assets.embedded.qdrant.errors import (
    format_error,
    from_engine,
    no_vector_name,
    unsupported,
)

POINTS_PER_CALL = 1_000
"""The engine holds the GIL for a whole call: 1,000 points of 256 floats are about 15 ms."""

_UPDATE_MODES = {
    models.UpdateMode.UPSERT: edge.UpdateMode.Upsert,
    models.UpdateMode.INSERT_ONLY: edge.UpdateMode.InsertOnly,
    models.UpdateMode.UPDATE_ONLY: edge.UpdateMode.UpdateOnly,
}


def upsert(
    rows: Iterable[Row],
    dimension: int,
    *,
    condition: edge.Filter | None = None,
    mode: edge.UpdateMode | None = None,
) -> list[edge.UpdateOperation]:
    """The engine's operations for an upsert, at most POINTS_PER_CALL points each.

    Raises a RequestError (400) if the collection cannot take one of the points.
    """
    points = [_point(id_, vector, payload, dimension) for id_, vector, payload in rows]
    return [
        edge.UpdateOperation.upsert_points(points[start : start + POINTS_PER_CALL], condition, mode)
        for start in range(0, len(points), POINTS_PER_CALL)
    ]


def upsert_condition(request: models.PointsList | models.PointsBatch) -> edge.Filter | None:
    """Which points an upsert may replace; a RequestError if it names a shard."""
    _no_shard_key(request.shard_key)
    return None if request.update_filter is None else filter_(request.update_filter)


def upsert_mode(request: models.PointsList | models.PointsBatch) -> edge.UpdateMode | None:
    return None if request.update_mode is None else _UPDATE_MODES[request.update_mode]


def _no_shard_key(shard_key: object) -> None:
    if shard_key is not None:
        raise unsupported("shard_key is")


def _target(points: Sequence[int | str | UUID] | None, by: models.Filter | None) -> list[PointId] | edge.Filter:
    if points is not None:
        return point_ids(points)
    if by is not None:
        return filter_(by)
    raise format_error("Either list of point ids or filter must be provided")


def _selected(selector: models.PointsSelector) -> list[PointId] | edge.Filter:
    _no_shard_key(selector.shard_key)
    return point_ids(selector.points) if isinstance(selector, models.PointIdsList) else filter_(selector.filter)


def delete(selector: models.PointsSelector) -> edge.UpdateOperation:
    target = _selected(selector)
    if isinstance(target, edge.Filter):
        return edge.UpdateOperation.delete_points_by_filter(target)
    return edge.UpdateOperation.delete_points(list(target))


def set_payload(request: models.SetPayload) -> edge.UpdateOperation:
    _no_shard_key(request.shard_key)
    target = _target(request.points, request.filter)
    if isinstance(target, edge.Filter):
        return edge.UpdateOperation.set_payload_by_filter(target, request.payload, request.key)
    return edge.UpdateOperation.set_payload(list(target), request.payload, request.key)


def overwrite_payload(request: models.SetPayload) -> edge.UpdateOperation:
    _no_shard_key(request.shard_key)
    target = _target(request.points, request.filter)
    if isinstance(target, edge.Filter):
        return edge.UpdateOperation.overwrite_payload_by_filter(target, request.payload, request.key)
    return edge.UpdateOperation.overwrite_payload(list(target), request.payload, request.key)


def delete_payload(request: models.DeletePayload) -> edge.UpdateOperation:
    _no_shard_key(request.shard_key)
    target = _target(request.points, request.filter)
    if isinstance(target, edge.Filter):
        return edge.UpdateOperation.delete_payload_by_filter(target, request.keys)
    return edge.UpdateOperation.delete_payload(list(target), request.keys)


def clear_payload(selector: models.PointsSelector) -> edge.UpdateOperation:
    target = _selected(selector)
    if isinstance(target, edge.Filter):
        return edge.UpdateOperation.clear_payload_by_filter(target)
    return edge.UpdateOperation.clear_payload(list(target))


def update_vectors(request: models.UpdateVectors, dimension: int) -> edge.UpdateOperation:
    _no_shard_key(request.shard_key)
    condition = None if request.update_filter is None else filter_(request.update_filter)
    vectors = [
        edge.PointVectors(point_id(point.id), stored_vector(point.vector, dimension)) for point in request.points
    ]
    return edge.UpdateOperation.update_vectors(vectors, condition)


def delete_vectors(request: models.DeleteVectors) -> edge.UpdateOperation:
    _no_shard_key(request.shard_key)
    other = next((name for name in request.vector if name != ""), None)
    if other is not None:
        raise no_vector_name(other)
    target = _target(request.points, request.filter)
    if isinstance(target, edge.Filter):
        return edge.UpdateOperation.delete_vectors_by_filter(target, request.vector)
    return edge.UpdateOperation.delete_vectors(list(target), request.vector)


def _point(id_: int | str | UUID, vector: object, payload: dict[str, Any] | None, dimension: int) -> edge.Point:
    stored = stored_vector(vector, dimension)
    try:
        return edge.Point(id_, stored, payload)
    except (ValueError, TypeError) as error:
        point_id(id_)
        raise from_engine(error) from error
