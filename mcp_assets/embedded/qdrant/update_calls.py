"""Answers to requests that write: points, vectors, payloads, payload indexes."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import qdrant_edge as edge
from pydantic import ValidationError
from qdrant_client import models

from mcp_assets.embedded.qdrant import convert_points, convert_schemas, convert_updates
from mcp_assets.embedded.qdrant.calls import Call, parse
from mcp_assets.embedded.qdrant.collection import StoredCollection
from mcp_assets.embedded.qdrant.errors import (
    RequestError,
    from_validation,
)

_log = logging.getLogger(__name__)


def _update(
    call: Call,
    operations: Callable[[StoredCollection], Sequence[edge.UpdateOperation]],
    by: models.Filter | None = None,
) -> dict[str, Any]:
    """Apply an update. `by`: the filter that selects its points, if one does.

    Unless the client waits, an update of points that are not there is dropped with a log line, as on a server. Either
    way the update is applied before the answer: "acknowledged" promises less than has been done.
    """
    collection = call.collection()
    collection.check_filter(by, updates=True)
    if call.waits():
        return {"operation_id": collection.apply(operations(collection)), "status": "completed"}
    try:
        number: int | None = collection.apply(operations(collection))
    except RequestError as error:
        if error.status != 404:
            raise
        _log.warning(
            "an update of collection %s for which the client did not wait was dropped: %s", collection.name, error
        )
        number = None
    return {"operation_id": number or 0, "status": "acknowledged"}


def _parse_upsert(body: bytes) -> models.PointsList | models.PointsBatch:
    """As the union of both would be parsed, but with the errors of the usual one."""
    try:
        return models.PointsList.model_validate_json(body)
    except ValidationError as error:
        # Only a body without `points` can be the other.
        if not any(detail["loc"] == ("points",) for detail in error.errors(include_input=False, include_url=False)):
            raise from_validation(error) from None
    batch: models.PointsBatch = parse(models.PointsBatch, body)
    return batch


def upsert_points(call: Call) -> dict[str, Any]:
    rows = convert_points.plain_rows(call.body)
    if rows is not None:
        return _update(call, lambda collection: convert_updates.upsert(rows, collection.dimension))
    request = _parse_upsert(call.body)
    return _update(call, lambda collection: _upsert(collection, request), request.update_filter)


def _upsert(
    collection: StoredCollection, request: models.PointsList | models.PointsBatch
) -> list[edge.UpdateOperation]:
    condition, mode = convert_updates.upsert_condition(request), convert_updates.upsert_mode(request)
    return convert_updates.upsert(convert_points.rows_of(request), collection.dimension, condition=condition, mode=mode)


def _by(
    request: models.PointsSelector | models.SetPayload | models.DeletePayload | models.DeleteVectors,
) -> models.Filter | None:
    """The filter that selects the points of an update; None if ids do."""
    return None if isinstance(request, models.PointIdsList) else request.filter


def delete_points(call: Call) -> dict[str, Any]:
    request = call.points_selector()
    return _update(call, lambda _: [convert_updates.delete(request)], _by(request))


def set_payload(call: Call) -> dict[str, Any]:
    request = call.parse(models.SetPayload)
    return _update(call, lambda _: [convert_updates.set_payload(request)], _by(request))


def overwrite_payload(call: Call) -> dict[str, Any]:
    request = call.parse(models.SetPayload)
    return _update(call, lambda _: [convert_updates.overwrite_payload(request)], _by(request))


def delete_payload(call: Call) -> dict[str, Any]:
    request = call.parse(models.DeletePayload)
    return _update(call, lambda _: [convert_updates.delete_payload(request)], _by(request))


def clear_payload(call: Call) -> dict[str, Any]:
    request = call.points_selector()
    return _update(call, lambda _: [convert_updates.clear_payload(request)], _by(request))


def update_vectors(call: Call) -> dict[str, Any]:
    request = call.parse(models.UpdateVectors)
    return _update(
        call, lambda collection: [convert_updates.update_vectors(request, collection.dimension)], request.update_filter
    )


def delete_vectors(call: Call) -> dict[str, Any]:
    request = call.parse(models.DeleteVectors)
    return _update(call, lambda _: [convert_updates.delete_vectors(request)], _by(request))


def update_batch(call: Call) -> list[dict[str, Any]]:
    """The operations in order; the first that fails ends the batch, and those before it stay applied."""
    request = call.parse(models.UpdateOperations)
    return [_update(call, _of_batch(operation), _by_of_batch(operation)) for operation in request.operations]


def _by_of_batch(operation: models.UpdateOperation) -> models.Filter | None:
    match operation:
        case models.UpsertOperation():
            return operation.upsert.update_filter
        case models.UpdateVectorsOperation():
            return operation.update_vectors.update_filter
        case models.DeleteOperation():
            return _by(operation.delete)
        case models.SetPayloadOperation():
            return _by(operation.set_payload)
        case models.OverwritePayloadOperation():
            return _by(operation.overwrite_payload)
        case models.DeletePayloadOperation():
            return _by(operation.delete_payload)
        case models.ClearPayloadOperation():
            return _by(operation.clear_payload)
        case models.DeleteVectorsOperation():
            return _by(operation.delete_vectors)


def _of_batch(operation: models.UpdateOperation) -> Callable[[StoredCollection], Sequence[edge.UpdateOperation]]:
    match operation:
        case models.UpsertOperation():
            return lambda collection: _upsert(collection, operation.upsert)
        case models.DeleteOperation():
            return lambda _: [convert_updates.delete(operation.delete)]
        case models.SetPayloadOperation():
            return lambda _: [convert_updates.set_payload(operation.set_payload)]
        case models.OverwritePayloadOperation():
            return lambda _: [convert_updates.overwrite_payload(operation.overwrite_payload)]
        case models.DeletePayloadOperation():
            return lambda _: [convert_updates.delete_payload(operation.delete_payload)]
        case models.ClearPayloadOperation():
            return lambda _: [convert_updates.clear_payload(operation.clear_payload)]
        case models.UpdateVectorsOperation():
            return lambda collection: [convert_updates.update_vectors(operation.update_vectors, collection.dimension)]
        case models.DeleteVectorsOperation():
            return lambda _: [convert_updates.delete_vectors(operation.delete_vectors)]


def create_index(call: Call) -> dict[str, Any]:
    request = call.parse(models.CreateFieldIndex)
    schema = convert_schemas.index_schema(request.field_schema)
    return _change_index(call, edge.UpdateOperation.create_field_index(request.field_name, schema))


def delete_index(call: Call) -> dict[str, Any]:
    return _change_index(call, edge.UpdateOperation.delete_field_index(call.path["field"]))


def _change_index(call: Call, operation: edge.UpdateOperation) -> dict[str, Any]:
    status = "completed" if call.waits() else "acknowledged"
    return {"operation_id": call.collection().change_index(operation), "status": status}
