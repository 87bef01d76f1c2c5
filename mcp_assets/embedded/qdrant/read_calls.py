"""Answers to requests that read: points by id, scrolls, counts, facets, searches."""

from typing import Any

import qdrant_edge as edge
from qdrant_client import models

from mcp_assets.embedded.qdrant import convert_filters, convert_points, convert_reads, search
from mcp_assets.embedded.qdrant.calls import Call
from mcp_assets.embedded.qdrant.errors import (
    RequestError,
    bad_request,
    not_found,
)

_SCROLL_LIMIT = 10
"""Points in a page if the request names no limit, as on a server."""

_FACET_LIMIT = 10
"""Values of a facet if the request names no limit, as on a server."""


def get_point(call: Call) -> dict[str, Any]:
    collection, text = call.collection(), call.path["id"]
    try:
        id_ = convert_points.point_id(int(text) if text.isdecimal() else text)
    except RequestError:
        raise bad_request(f'Can not recognize "{text}" as point id') from None
    records = collection.retrieve([id_], with_payload=True, with_vector=True)
    if not records:
        raise not_found(f"Point with id {text} does not exists!")
    return convert_reads.record(records[0])


def get_points(call: Call) -> list[dict[str, Any]]:
    collection, request = call.collection(), call.parse(models.PointRequest)
    records = collection.retrieve(
        convert_points.point_ids(request.ids),
        convert_reads.payload_selector(request.with_payload, default=True),
        request.with_vector or False,
    )
    return [convert_reads.record(record) for record in records]


def scroll_points(call: Call) -> dict[str, Any]:
    collection, request = call.collection(), call.parse(models.ScrollRequest)
    limit = convert_reads.limit(request.limit, _SCROLL_LIMIT)
    collection.check_filter(request.filter)
    filter_ = None if request.filter is None else convert_filters.filter_(request.filter)
    with_payload = convert_reads.payload_selector(request.with_payload, default=True)
    with_vector = request.with_vector or False
    offset = None if request.offset is None else convert_points.point_id(request.offset)
    following: convert_points.PointId | None = None
    if request.order_by is None:
        records, following = collection.scroll(offset, limit, filter_, with_payload, with_vector)
    elif offset is not None:
        raise bad_request(
            "Cannot use an `offset` when using `order_by`. The alternative for paging is to use `order_by.start_from` "
            "and a filter to exclude the IDs that you've already seen for the `order_by.start_from` value"
        )
    else:
        order = convert_reads.order_by(request.order_by)
        records = collection.scroll_ordered(edge.ScrollRequest(None, limit, filter_, with_payload, with_vector, order))
    return {"points": [convert_reads.record(record) for record in records], "next_page_offset": following}


def count_points(call: Call) -> dict[str, int]:
    collection, request = call.collection(), call.parse(models.CountRequest)
    collection.check_filter(request.filter)
    filter_ = None if request.filter is None else convert_filters.filter_(request.filter)
    return {"count": collection.count(edge.CountRequest(request.exact is not False, filter_))}


def facet(call: Call) -> dict[str, Any]:
    collection, request = call.collection(), call.parse(models.FacetRequest)
    collection.check_filter(request.filter)
    response = collection.facet(
        edge.FacetRequest(
            request.key,
            convert_reads.limit(request.limit, _FACET_LIMIT),
            request.exact or False,
            None if request.filter is None else convert_filters.filter_(request.filter),
        )
    )
    return {"hits": [{"value": hit.value, "count": hit.count} for hit in response.hits]}


def query_points(call: Call) -> dict[str, Any]:
    (points,) = search.query(call.collection(), [call.parse(models.QueryRequest)], call.storage.resolve)
    return {"points": [convert_reads.scored_point(point) for point in points]}


def query_points_batch(call: Call) -> list[dict[str, Any]]:
    answers = search.query(call.collection(), call.parse(models.QueryRequestBatch).searches, call.storage.resolve)
    return [{"points": [convert_reads.scored_point(point) for point in points]} for points in answers]


def query_points_groups(call: Call) -> dict[str, Any]:
    collection, request = call.collection(), call.parse(models.QueryGroupsRequest)
    groups = search.query_groups(collection, request, call.storage.resolve)
    records = collection.retrieve(
        [hit.id for _, hits in groups for hit in hits],
        convert_reads.payload_selector(request.with_payload, default=False),
        request.with_vector or False,
    )
    details = {record.id: convert_reads.record(record) for record in records}
    return {
        "groups": [
            {
                "id": key,
                "hits": [
                    {"version": hit.version, "score": hit.score, **details[hit.id]}
                    for hit in hits
                    # A point that was deleted since it was found is no hit any more.
                    if hit.id in details
                ],
            }
            for key, hits in groups
        ]
    }
