"""Conversion of filters: which points a request selects."""

# The engine's stubs name types that exist in them alone.
from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import qdrant_edge as edge
from qdrant_client import models

from mcp_assets.embedded.qdrant.convert_points import point_ids
from mcp_assets.embedded.qdrant.errors import (
    format_error,
    unsupported,
)


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
            # The engine takes a Python bool for an integer, and numpy's bool for a bool.
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
