"""Translation between Qdrant's REST models, as `qdrant-client` defines them, and the objects of the engine.

Pure: nothing here touches a collection. What the engine would take and a Qdrant server would not (NaN, a negative id)
is refused here; what a Qdrant server offers and this one does not is refused by name.
"""

# The engine's stubs name types that exist in them alone.
from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from typing import Any
from uuid import UUID

import numpy as np
import qdrant_edge as edge
from pydantic_core import from_json
from qdrant_client import models

from mcp_assets.embedded.qdrant.errors import (
    format_error,
    from_engine,
    no_vector_name,
    out_of_range,
    unsupported,
    wrong_dimension,
    wrong_input,
)

PointId = int | UUID | str

# The engine holds the GIL for a whole call: 1,000 points of 256 floats are about 15 ms.
POINTS_PER_CALL = 1_000

_FLOAT32_MAX = float(np.finfo(np.float32).max)
_MAX_DIMENSION = 65_536

_UPDATE_MODES = {
    models.UpdateMode.UPSERT: edge.UpdateMode.Upsert,
    models.UpdateMode.INSERT_ONLY: edge.UpdateMode.InsertOnly,
    models.UpdateMode.UPDATE_ONLY: edge.UpdateMode.UpdateOnly,
}
_INDEX_TYPES = {
    models.PayloadSchemaType.KEYWORD: edge.PayloadSchemaType.Keyword,
    models.PayloadSchemaType.INTEGER: edge.PayloadSchemaType.Integer,
    models.PayloadSchemaType.FLOAT: edge.PayloadSchemaType.Float,
    models.PayloadSchemaType.GEO: edge.PayloadSchemaType.Geo,
    models.PayloadSchemaType.TEXT: edge.PayloadSchemaType.Text,
    models.PayloadSchemaType.BOOL: edge.PayloadSchemaType.Bool,
    models.PayloadSchemaType.DATETIME: edge.PayloadSchemaType.Datetime,
    models.PayloadSchemaType.UUID: edge.PayloadSchemaType.Uuid,
}
_INDEX_PARAMS: dict[str, Callable[..., edge.PayloadSchemaParams]] = {
    "keyword": edge.KeywordIndexParams,
    "integer": edge.IntegerIndexParams,
    "float": edge.FloatIndexParams,
    "geo": edge.GeoIndexParams,
    "text": edge.TextIndexParams,
    "bool": edge.BoolIndexParams,
    "datetime": edge.DatetimeIndexParams,
    "uuid": edge.UuidIndexParams,
}
_DISTANCES = {
    models.Distance.COSINE: edge.Distance.Cosine,
    models.Distance.DOT: edge.Distance.Dot,
    models.Distance.EUCLID: edge.Distance.Euclid,
    models.Distance.MANHATTAN: edge.Distance.Manhattan,
}


# Ids, vectors, points


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


def _stored_vector(vector: object, dimension: int) -> list[float] | dict[str, Any]:
    """As `dense_vector`; an empty object stands for a point without a vector."""
    return {} if vector == {} else dense_vector(vector, dimension)


Row = tuple[int | str | UUID, object, dict[str, Any] | None]
"""Id, vector and payload of a point to be written."""


def plain_rows(body: bytes) -> list[Row] | None:
    """The points of an upsert that says nothing but them; None if it says more, or is wrong: its model tells what.

    A quarter of the time that the model takes, for all that bulk loads send.
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


def _point(id_: int | str | UUID, vector: object, payload: dict[str, Any] | None, dimension: int) -> edge.Point:
    stored = _stored_vector(vector, dimension)
    try:
        return edge.Point(id_, stored, payload)
    except (ValueError, TypeError) as error:
        point_id(id_)
        raise from_engine(error) from error


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


# Other updates


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
        edge.PointVectors(point_id(point.id), _stored_vector(point.vector, dimension)) for point in request.points
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


# Filters


def filter_(request: models.Filter) -> edge.Filter:
    """The engine's filter; a RequestError (400) that names the condition where the engine has no such condition."""
    try:
        return _filter(request)
    except (ValueError, TypeError, OverflowError) as error:
        raise format_error(str(error)) from error


def _filter(request: models.Filter) -> edge.Filter:
    at_least = request.min_should
    return edge.Filter(
        must=_conditions(request.must),
        should=_conditions(request.should),
        must_not=_conditions(request.must_not),
        min_should=(
            None if at_least is None else edge.MinShould(_conditions(at_least.conditions) or [], at_least.min_count)
        ),
    )


def _conditions(request: list[models.Condition] | models.Condition | None) -> list[edge.ConditionType] | None:
    if request is None:
        return None
    return [_condition(condition) for condition in (request if isinstance(request, list) else [request])]


def _condition(condition: models.Condition) -> edge.ConditionType:
    match condition:
        case models.FieldCondition():
            return _field_condition(condition)
        case models.IsEmptyCondition():
            return edge.IsEmptyCondition(condition.is_empty.key)
        case models.IsNullCondition():
            return edge.IsNullCondition(condition.is_null.key)
        case models.HasIdCondition():
            return edge.HasIdCondition(set(point_ids(condition.has_id)))
        case models.HasVectorCondition():
            return edge.HasVectorCondition(condition.has_vector)
        case models.NestedCondition():
            return edge.NestedCondition(condition.nested.key, _filter(condition.nested.filter))
        case models.Filter():
            return _filter(condition)
        case _:
            raise unsupported(f"The filter condition {type(condition).__name__} is")


def _field_condition(condition: models.FieldCondition) -> edge.FieldCondition:
    box, radius, polygon = condition.geo_bounding_box, condition.geo_radius, condition.geo_polygon
    return edge.FieldCondition(
        condition.key,
        match=None if condition.match is None else _match(condition.match),
        range=None if condition.range is None else _range(condition.range),
        geo_bounding_box=None if box is None else edge.GeoBoundingBox(_geo(box.top_left), _geo(box.bottom_right)),
        geo_radius=None if radius is None else edge.GeoRadius(_geo(radius.center), radius.radius),
        geo_polygon=(
            None
            if polygon is None
            else edge.GeoPolygon(
                [_geo(point) for point in polygon.exterior.points],
                [[_geo(point) for point in line.points] for line in polygon.interiors or []],
            )
        ),
        values_count=(
            None if condition.values_count is None else edge.ValuesCount(**condition.values_count.model_dump())
        ),
        is_empty=condition.is_empty,
        is_null=condition.is_null,
    )


def _geo(point: models.GeoPoint) -> edge.GeoPoint:
    return edge.GeoPoint(point.lon, point.lat)


def _match(match_: models.Match) -> edge.MatchType:
    match match_:
        case models.MatchValue():
            # The engine takes a Python bool for an integer, and numpy's for what it is.
            value: Any = np.bool_(match_.value) if isinstance(match_.value, bool) else match_.value
            return edge.MatchValue(value)
        case models.MatchText():
            return edge.MatchText(match_.text)
        case models.MatchTextAny():
            return edge.MatchTextAny(match_.text_any)
        case models.MatchPhrase():
            return edge.MatchPhrase(match_.phrase)
        case models.MatchPrefix():
            return edge.MatchPrefix(match_.prefix)
        case models.MatchSubstring():
            return edge.MatchSubstring(match_.substring)
        case models.MatchAny():
            return edge.MatchAny(match_.any)
        case models.MatchExcept():
            return edge.MatchExcept(match_.except_)


def _range(range_: models.Range | models.DatetimeRange) -> edge.RangeType:
    if isinstance(range_, models.Range):
        return edge.RangeFloat(gte=range_.gte, gt=range_.gt, lte=range_.lte, lt=range_.lt)
    return edge.RangeDateTime(gte=_iso(range_.gte), gt=_iso(range_.gt), lte=_iso(range_.lte), lt=_iso(range_.lt))


def _iso(moment: date | None) -> str | None:
    return None if moment is None else moment.isoformat()


# What to return, in which order, how to search


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


# Answers


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


# Collections and payload indexes


def vector_params(request: models.CreateCollection) -> models.VectorParams:
    """The one unnamed dense vector of the collection; a RequestError for what else Qdrant can hold."""
    vectors = request.vectors
    if request.sparse_vectors:
        raise unsupported("Sparse vectors are")
    if not isinstance(vectors, models.VectorParams):
        raise unsupported("A collection of named vectors, or of none, is")
    for name in ("quantization_config", "multivector_config"):
        if getattr(vectors, name) is not None:
            raise unsupported(f"vectors.{name} is")
    if vectors.datatype not in (None, models.Datatype.FLOAT32):
        raise unsupported(f"vectors.datatype {vectors.datatype.value} is")
    if request.quantization_config is not None:
        raise unsupported("quantization_config is")
    if request.sharding_method not in (None, models.ShardingMethod.AUTO) or request.shard_number not in (None, 1):
        raise unsupported("More than one shard is")
    if not 1 <= vectors.size <= _MAX_DIMENSION:
        raise out_of_range("vectors.size", vectors.size, f"must be from 1 to {_MAX_DIMENSION}")
    return vectors


def distance(request: models.Distance) -> edge.Distance:
    return _DISTANCES[request]


def index_schema(schema: models.PayloadFieldSchema | None) -> edge.PayloadSchemaType | edge.PayloadSchemaParams:
    """The engine's description of a payload index."""
    if schema is None:
        raise wrong_input("field_schema is missing: name the type of the payload index, e.g. `keyword`")
    if isinstance(schema, models.PayloadSchemaType):
        return _INDEX_TYPES[schema]
    given = schema.model_dump(mode="json", exclude_none=True)
    type_ = given.pop("type")
    for name in ("stopwords", "stemmer", "scoring"):
        if name in given:
            raise unsupported(f"{name} of a text index is")
    if "tokenizer" in given:
        given["tokenizer"] = getattr(edge.TokenizerType, given["tokenizer"].capitalize())
    if "memory" in given:
        given["memory"] = getattr(edge.Memory, given["memory"].capitalize())
    return _INDEX_PARAMS[type_](**given)


def index_info(info: edge.PayloadIndexInfo) -> dict[str, Any]:
    """A `PayloadIndexInfo` of the REST API."""
    type_ = _name(info.data_type)
    answer: dict[str, Any] = {"data_type": type_, "points": info.points}
    if info.params is not None:
        named = {name: getattr(info.params, name) for name in dir(info.params) if not name.startswith("_")}
        answer["params"] = {"type": type_} | {
            name: value if isinstance(value, bool | int | float | str) else _name(value)
            for name, value in named.items()
            if value is not None
        }
    return answer


def index_type(info: edge.PayloadIndexInfo) -> str:
    """`keyword`, `integer`, ..."""
    return _name(info.data_type)


def _name(member: object) -> str:
    """`keyword` for PayloadSchemaType.Keyword: the engine's enums are none of Python's, and tell their name in repr."""
    return repr(member).rpartition(".")[2].lower()
