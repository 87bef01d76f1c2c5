"""Conversion of reads: what a request asks to return, in which order, and points as an answer holds them."""

# The engine's stubs name types that exist in them alone.
from __future__ import annotations

from datetime import date
from typing import Any

import qdrant_edge as edge
from qdrant_client import models

from mcp_assets.embedded.qdrant.errors import (
    format_error,
    out_of_range,
)


def payload_selector(request: models.WithPayloadInterface | None, default: bool) -> edge.WithPayloadType:
    match request:
        case None:
            return default
        case models.PayloadSelectorInclude():
            return edge.PayloadSelector.Include(request.include)
        case models.PayloadSelectorExclude():
            return edge.PayloadSelector.Exclude(request.exclude)
        case _:
            return request


def order_by(request: models.OrderByInterface) -> edge.OrderBy:
    if isinstance(request, str):
        return edge.OrderBy(request)
    direction = {
        None: None,
        models.Direction.ASC: edge.Direction.Asc,
        models.Direction.DESC: edge.Direction.Desc,
    }[request.direction]
    start = request.start_from
    return edge.OrderBy(request.key, direction, start.isoformat() if isinstance(start, date) else start)


def search_params(request: models.SearchParams | None) -> edge.SearchParams | None:
    """Quantization and ACORN are tuning of an index that is not built here, and have no effect."""
    if request is None:
        return None
    return edge.SearchParams(
        hnsw_ef=request.hnsw_ef, exact=bool(request.exact), indexed_only=bool(request.indexed_only)
    )


def limit(value: int | None, default: int, field: str = "limit") -> int:
    """`value`, or `default` if it is None; a RequestError (422) if it is below 1."""
    if value is None:
        return default
    if value < 1:
        raise out_of_range(field, value, "must be 1 or larger")
    return value


def offset(value: int | None) -> int:
    if value is not None and value < 0:
        raise format_error(f"offset: invalid value: integer `{value}`, expected usize")
    return value or 0


def record(point: edge.Record) -> dict[str, Any]:
    """A `Record` of the REST API."""
    answer: dict[str, Any] = {"id": point.id}
    _add_details(answer, point)
    return answer


def scored_point(point: edge.ScoredPoint) -> dict[str, Any]:
    """A `ScoredPoint` of the REST API."""
    answer: dict[str, Any] = {"id": point.id, "version": point.version, "score": point.score}
    _add_details(answer, point)
    return answer


def _add_details(answer: dict[str, Any], point: edge.Record | edge.ScoredPoint) -> None:
    payload, vector, order_value = point.payload, point.vector, point.order_value
    if payload is not None:
        answer["payload"] = payload
    if vector is not None:
        answer["vector"] = vector
    if order_value is not None:
        answer["order_value"] = order_value
