"""Conversion of points: ids, vectors and payloads of a request, checked as a Qdrant server checks them."""

# The engine's stubs name types that exist in them alone.
from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any
from uuid import UUID

import numpy as np
from pydantic_core import from_json
from qdrant_client import models

from mcp_assets.embedded.qdrant.errors import (
    format_error,
    no_vector_name,
    unsupported,
    wrong_dimension,
)

PointId = int | UUID | str

_FLOAT32_MAX = float(np.finfo(np.float32).max)
"""The largest number that a vector can hold: the engine stores 32-bit floats."""


def point_id(value: int | str | UUID) -> PointId:
    """The id as the engine gives it back; a RequestError (400) for anything but an unsigned integer or a UUID."""
    if isinstance(value, int):
        if 0 <= value < 1 << 64:
            return value
    elif isinstance(value, UUID):
        return value
    else:
        try:
            return UUID(value)
        except ValueError:
            pass
    raise format_error(f"value {value} is not a valid point ID, valid values are either an unsigned integer or a UUID")


def point_ids(values: Iterable[int | str | UUID]) -> list[PointId]:
    return [point_id(value) for value in values]


def dense_vector(vector: object, dimension: int) -> list[float]:
    """`vector` if it is `dimension` finite 32-bit floats; else a RequestError (400)."""
    if isinstance(vector, dict):
        other = next((name for name in vector if name != ""), None)
        if other is not None:
            raise no_vector_name(other)
        vector = vector[""]
    if not isinstance(vector, list):
        raise unsupported(f"A vector given as {type(vector).__name__} is")
    if vector and isinstance(vector[0], list):
        raise unsupported("A multivector is")
    if len(vector) != dimension:
        raise wrong_dimension(dimension, len(vector))
    try:
        # The norm is not finite if any number is not, and costs a fifth of looking at each.
        sound = math.hypot(*vector) <= _FLOAT32_MAX or all(abs(number) <= _FLOAT32_MAX for number in vector)
    except OverflowError:
        # An integer too large for any float.
        sound = False
    if not sound:
        raise format_error("a vector holds a number that is not a finite 32-bit float")
    return vector


def stored_vector(vector: object, dimension: int) -> list[float] | dict[str, Any]:
    """As `dense_vector`; an empty object stands for a point without a vector."""
    return {} if vector == {} else dense_vector(vector, dimension)


Row = tuple[int | str | UUID, object, dict[str, Any] | None]
"""Id, vector and payload of a point to be written."""


def plain_rows(body: bytes) -> list[Row] | None:
    """The points of an upsert that holds nothing else; None if it holds more, or is invalid: then the model parses it.

    For bulk loads it takes a quarter of the time of the model.
    """
    try:
        request = from_json(body, allow_inf_nan=False)
    except ValueError:
        return None
    if not isinstance(request, dict) or request.keys() != {"points"} or not isinstance(request["points"], list):
        return None
    rows: list[Row] = []
    for point in request["points"]:
        if not isinstance(point, dict) or not point.keys() <= {"id", "vector", "payload"}:
            return None
        id_, vector, payload = point.get("id"), point.get("vector"), point.get("payload")
        if not isinstance(id_, int | str) or not isinstance(vector, list) or not isinstance(payload, dict | None):
            return None
        # A bool is an int to `isinstance` alone.
        if not {float, int}.issuperset(map(type, vector)) or isinstance(id_, bool):
            return None
        rows.append((id_, vector, payload))
    return rows


def rows_of(request: models.PointsList | models.PointsBatch) -> Iterable[Row]:
    """The points of an upsert."""
    if isinstance(request, models.PointsList):
        return ((point.id, point.vector, point.payload) for point in request.points)
    ids, payloads = request.batch.ids, request.batch.payloads
    vectors: Any = request.batch.vectors
    if isinstance(vectors, dict):
        other = next((name for name in vectors if name != ""), None)
        if other is not None:
            raise no_vector_name(other)
        vectors = vectors.get("", [])
    if len(vectors) != len(ids):
        raise format_error(f"number of ids and vectors must be equal ({len(ids)} != {len(vectors)})")
    if payloads is not None and len(payloads) != len(ids):
        raise format_error(f"number of ids and payloads must be equal ({len(ids)} != {len(payloads)})")
    return zip(ids, vectors, payloads if payloads is not None else [None] * len(ids), strict=True)
