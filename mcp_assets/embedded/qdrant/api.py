"""The REST API: which function answers which path, and the envelope around every answer.

Requests are answered in a small pool of threads: parsing and conversion give way to one another there, while the event
loop stays free to take in bodies and to answer the health checks.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import qdrant_edge as edge
from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json
from qdrant_client import models
from starlette.applications import Starlette
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from mcp_assets.embedded.qdrant import search, translate
from mcp_assets.embedded.qdrant.collection import Collection
from mcp_assets.embedded.qdrant.errors import (
    RequestError,
    bad_request,
    from_validation,
    not_found,
)
from mcp_assets.embedded.qdrant.storage import Storage

# The server whose behaviour this one has; qdrant-client compares it with its own version.
QDRANT_VERSION = "1.19.0"
MAX_BODY_BYTES = 32 * 1024 * 1024

_SCROLL_LIMIT = 10
_FACET_LIMIT = 10

Model = TypeVar("Model")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Call:
    """One request: placeholders of its path, its query parameters, its body as it came."""

    storage: Storage
    path: dict[str, str]
    parameters: QueryParams
    body: bytes

    def parse(self, model: type[Model]) -> Model:
        """The body as a `model`; a RequestError (400) if it is not JSON or not of that shape."""
        parsed: Model = _parse(model, self.body)
        return parsed

    def points_selector(self) -> models.PointsSelector:
        """As `parse`, for the union of a list of ids and a filter."""
        selector: models.PointsSelector = _parse(models.PointsSelector, self.body)
        return selector

    def collection(self) -> Collection:
        return self.storage.resolve(self.path["collection"])

    def waits(self) -> bool:
        """Whether the client waits for the update to be applied and durable."""
        wait = self.parameters.get("wait", "false")
        if wait not in ("true", "false"):
            raise bad_request("Deserialize error in query parameters: wait: provided string was not `true` or `false`")
        return wait == "true"


Answer = Callable[[Call], Any]


@cache
def _adapter(model: Any) -> TypeAdapter[Any]:
    return TypeAdapter(model)


def _parse(model: Any, body: bytes) -> Any:
    try:
        return _adapter(model).validate_json(body)
    except ValidationError as error:
        raise from_validation(error) from None


# Collections


def list_collections(call: Call) -> dict[str, Any]:
    return {"collections": [{"name": name} for name in call.storage.names()]}


def create_collection(call: Call) -> bool:
    call.storage.create(call.path["collection"], call.parse(models.CreateCollection))
    return True


def update_collection(call: Call) -> bool:
    call.storage.update(call.path["collection"], call.parse(models.UpdateCollection))
    return True


def delete_collection(call: Call) -> bool:
    return call.storage.delete(call.path["collection"])


def collection_exists(call: Call) -> dict[str, bool]:
    return {"exists": call.storage.exists(call.path["collection"])}


def collection_info(call: Call) -> dict[str, Any]:
    collection = call.collection()
    info = collection.info()
    return {
        "status": "green",
        "optimizer_status": "ok",
        "indexed_vectors_count": info.indexed_vectors_count,
        "points_count": info.points_count,
        "segments_count": info.segments_count,
        "config": collection.config.model_dump(mode="json", exclude_none=True),
        "payload_schema": {key: translate.index_info(index) for key, index in info.payload_schema.items()},
    }


def list_aliases(call: Call) -> dict[str, Any]:
    return _aliases(call.storage.aliases())


def collection_aliases(call: Call) -> dict[str, Any]:
    name = call.collection().name
    return _aliases({alias: target for alias, target in call.storage.aliases().items() if target == name})


def _aliases(targets: dict[str, str]) -> dict[str, Any]:
    return {"aliases": [{"alias_name": alias, "collection_name": name} for alias, name in targets.items()]}


def change_aliases(call: Call) -> bool:
    call.storage.change_aliases(call.parse(models.ChangeAliasesOperation))
    return True


# Updates


def _update(
    call: Call,
    operations: Callable[[Collection], Sequence[edge.UpdateOperation]],
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
        _log.warning("an update of collection %s that nobody waited for was dropped: %s", collection.name, error)
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
    batch: models.PointsBatch = _parse(models.PointsBatch, body)
    return batch


def upsert_points(call: Call) -> dict[str, Any]:
    rows = translate.plain_rows(call.body)
    if rows is not None:
        return _update(call, lambda collection: translate.upsert(rows, collection.dimension))
    request = _parse_upsert(call.body)
    return _update(call, lambda collection: _upsert(collection, request), request.update_filter)


def _upsert(collection: Collection, request: models.PointsList | models.PointsBatch) -> list[edge.UpdateOperation]:
    condition, mode = translate.upsert_condition(request), translate.upsert_mode(request)
    return translate.upsert(translate.rows_of(request), collection.dimension, condition=condition, mode=mode)


def _by(
    request: models.PointsSelector | models.SetPayload | models.DeletePayload | models.DeleteVectors,
) -> models.Filter | None:
    """The filter that selects the points of an update; None if ids do."""
    return None if isinstance(request, models.PointIdsList) else request.filter


def delete_points(call: Call) -> dict[str, Any]:
    request = call.points_selector()
    return _update(call, lambda _: [translate.delete(request)], _by(request))


def set_payload(call: Call) -> dict[str, Any]:
    request = call.parse(models.SetPayload)
    return _update(call, lambda _: [translate.set_payload(request)], _by(request))


def overwrite_payload(call: Call) -> dict[str, Any]:
    request = call.parse(models.SetPayload)
    return _update(call, lambda _: [translate.overwrite_payload(request)], _by(request))


def delete_payload(call: Call) -> dict[str, Any]:
    request = call.parse(models.DeletePayload)
    return _update(call, lambda _: [translate.delete_payload(request)], _by(request))


def clear_payload(call: Call) -> dict[str, Any]:
    request = call.points_selector()
    return _update(call, lambda _: [translate.clear_payload(request)], _by(request))


def update_vectors(call: Call) -> dict[str, Any]:
    request = call.parse(models.UpdateVectors)
    return _update(
        call, lambda collection: [translate.update_vectors(request, collection.dimension)], request.update_filter
    )


def delete_vectors(call: Call) -> dict[str, Any]:
    request = call.parse(models.DeleteVectors)
    return _update(call, lambda _: [translate.delete_vectors(request)], _by(request))


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


def _of_batch(operation: models.UpdateOperation) -> Callable[[Collection], Sequence[edge.UpdateOperation]]:
    match operation:
        case models.UpsertOperation():
            return lambda collection: _upsert(collection, operation.upsert)
        case models.DeleteOperation():
            return lambda _: [translate.delete(operation.delete)]
        case models.SetPayloadOperation():
            return lambda _: [translate.set_payload(operation.set_payload)]
        case models.OverwritePayloadOperation():
            return lambda _: [translate.overwrite_payload(operation.overwrite_payload)]
        case models.DeletePayloadOperation():
            return lambda _: [translate.delete_payload(operation.delete_payload)]
        case models.ClearPayloadOperation():
            return lambda _: [translate.clear_payload(operation.clear_payload)]
        case models.UpdateVectorsOperation():
            return lambda collection: [translate.update_vectors(operation.update_vectors, collection.dimension)]
        case models.DeleteVectorsOperation():
            return lambda _: [translate.delete_vectors(operation.delete_vectors)]


def create_index(call: Call) -> dict[str, Any]:
    request = call.parse(models.CreateFieldIndex)
    schema = translate.index_schema(request.field_schema)
    return _change_index(call, edge.UpdateOperation.create_field_index(request.field_name, schema))


def delete_index(call: Call) -> dict[str, Any]:
    return _change_index(call, edge.UpdateOperation.delete_field_index(call.path["field"]))


def _change_index(call: Call, operation: edge.UpdateOperation) -> dict[str, Any]:
    status = "completed" if call.waits() else "acknowledged"
    return {"operation_id": call.collection().change_index(operation), "status": status}


# Reads


def get_point(call: Call) -> dict[str, Any]:
    collection, text = call.collection(), call.path["id"]
    try:
        id_ = translate.point_id(int(text) if text.isdecimal() else text)
    except RequestError:
        raise bad_request(f'Can not recognize "{text}" as point id') from None
    records = collection.retrieve([id_], with_payload=True, with_vector=True)
    if not records:
        raise not_found(f"Point with id {text} does not exists!")
    return translate.record(records[0])


def get_points(call: Call) -> list[dict[str, Any]]:
    collection, request = call.collection(), call.parse(models.PointRequest)
    records = collection.retrieve(
        translate.point_ids(request.ids),
        translate.payload_selector(request.with_payload, default=True),
        request.with_vector or False,
    )
    return [translate.record(record) for record in records]


def scroll_points(call: Call) -> dict[str, Any]:
    collection, request = call.collection(), call.parse(models.ScrollRequest)
    limit = translate.limit(request.limit, _SCROLL_LIMIT)
    collection.check_filter(request.filter)
    filter_ = None if request.filter is None else translate.filter_(request.filter)
    with_payload = translate.payload_selector(request.with_payload, default=True)
    with_vector = request.with_vector or False
    offset = None if request.offset is None else translate.point_id(request.offset)
    following: translate.PointId | None = None
    if request.order_by is None:
        records, following = collection.scroll(offset, limit, filter_, with_payload, with_vector)
    elif offset is not None:
        raise bad_request(
            "Cannot use an `offset` when using `order_by`. The alternative for paging is to use `order_by.start_from` "
            "and a filter to exclude the IDs that you've already seen for the `order_by.start_from` value"
        )
    else:
        order = translate.order_by(request.order_by)
        records = collection.scroll_ordered(edge.ScrollRequest(None, limit, filter_, with_payload, with_vector, order))
    return {"points": [translate.record(record) for record in records], "next_page_offset": following}


def count_points(call: Call) -> dict[str, int]:
    collection, request = call.collection(), call.parse(models.CountRequest)
    collection.check_filter(request.filter)
    filter_ = None if request.filter is None else translate.filter_(request.filter)
    return {"count": collection.count(edge.CountRequest(request.exact is not False, filter_))}


def facet(call: Call) -> dict[str, Any]:
    collection, request = call.collection(), call.parse(models.FacetRequest)
    collection.check_filter(request.filter)
    response = collection.facet(
        edge.FacetRequest(
            request.key,
            translate.limit(request.limit, _FACET_LIMIT),
            request.exact or False,
            None if request.filter is None else translate.filter_(request.filter),
        )
    )
    return {"hits": [{"value": hit.value, "count": hit.count} for hit in response.hits]}


def query_points(call: Call) -> dict[str, Any]:
    (points,) = search.query(call.collection(), [call.parse(models.QueryRequest)], call.storage.resolve)
    return {"points": [translate.scored_point(point) for point in points]}


def query_points_batch(call: Call) -> list[dict[str, Any]]:
    answers = search.query(call.collection(), call.parse(models.QueryRequestBatch).searches, call.storage.resolve)
    return [{"points": [translate.scored_point(point) for point in points]} for points in answers]


def query_points_groups(call: Call) -> dict[str, Any]:
    collection, request = call.collection(), call.parse(models.QueryGroupsRequest)
    groups = search.query_groups(collection, request, call.storage.resolve)
    records = collection.retrieve(
        [hit.id for _, hits in groups for hit in hits],
        translate.payload_selector(request.with_payload, default=False),
        request.with_vector or False,
    )
    details = {record.id: translate.record(record) for record in records}
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


_ANSWERS: tuple[tuple[str, str, Answer], ...] = (
    ("GET", "/collections", list_collections),
    ("POST", "/collections/aliases", change_aliases),
    ("GET", "/aliases", list_aliases),
    ("PUT", "/collections/{collection}", create_collection),
    ("GET", "/collections/{collection}", collection_info),
    ("PATCH", "/collections/{collection}", update_collection),
    ("DELETE", "/collections/{collection}", delete_collection),
    ("GET", "/collections/{collection}/exists", collection_exists),
    ("GET", "/collections/{collection}/aliases", collection_aliases),
    ("PUT", "/collections/{collection}/index", create_index),
    ("DELETE", "/collections/{collection}/index/{field}", delete_index),
    ("PUT", "/collections/{collection}/points", upsert_points),
    ("POST", "/collections/{collection}/points", get_points),
    ("POST", "/collections/{collection}/points/delete", delete_points),
    ("POST", "/collections/{collection}/points/payload", set_payload),
    ("PUT", "/collections/{collection}/points/payload", overwrite_payload),
    ("POST", "/collections/{collection}/points/payload/delete", delete_payload),
    ("POST", "/collections/{collection}/points/payload/clear", clear_payload),
    ("PUT", "/collections/{collection}/points/vectors", update_vectors),
    ("POST", "/collections/{collection}/points/vectors/delete", delete_vectors),
    ("POST", "/collections/{collection}/points/batch", update_batch),
    ("POST", "/collections/{collection}/points/scroll", scroll_points),
    ("POST", "/collections/{collection}/points/count", count_points),
    ("POST", "/collections/{collection}/points/query", query_points),
    ("POST", "/collections/{collection}/points/query/batch", query_points_batch),
    ("POST", "/collections/{collection}/points/query/groups", query_points_groups),
    ("POST", "/collections/{collection}/facet", facet),
    ("GET", "/collections/{collection}/points/{id}", get_point),
)


# The envelope


def _envelope(status: int, content: dict[str, Any], started: float) -> Response:
    body = to_json({**content, "time": time.perf_counter() - started})
    return Response(body, status, media_type="application/json")


def _failed(status: int, message: str, started: float) -> Response:
    return _envelope(status, {"status": {"error": message}}, started)


def _answered(answer: Answer, call: Call, started: float) -> Response:
    try:
        return _envelope(200, {"result": answer(call), "status": "ok"}, started)
    except RequestError as error:
        if error.status >= 500:
            _log.error("%s", error)
        return _failed(error.status, error.message, started)


async def _read_body(request: Request) -> bytes | None:
    """The body, or None if it is too large; then it is read to its end so that the client hears the answer."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= MAX_BODY_BYTES:
            chunks.append(chunk)
        else:
            chunks.clear()
    return b"".join(chunks) if size <= MAX_BODY_BYTES else None


def _endpoint(
    answer: Answer, storage: Storage, pool: Executor, request_seen: Callable[[], None]
) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        started = time.perf_counter()
        body = await _read_body(request)
        request_seen()
        if body is None:
            return _failed(400, f"Payload error: JSON payload is larger than allowed ({MAX_BODY_BYTES} bytes)", started)
        call = Call(storage, request.path_params, request.query_params, body)
        response = await asyncio.get_running_loop().run_in_executor(pool, _answered, answer, call, started)
        request_seen()
        return response

    return endpoint


def _root(mark: str | None) -> Callable[[Request], Awaitable[Response]]:
    said = {"title": "qdrant - vector search engine", "version": QDRANT_VERSION}
    if mark is not None:
        said["mcp_assets_mark"] = mark

    async def root(_: Request) -> Response:
        return Response(to_json(said), media_type="application/json")

    return root


async def _healthy(request: Request) -> Response:
    return PlainTextResponse("all shards are ready" if request.url.path == "/readyz" else f"{request.url.path} ok")


async def _no_such_path(_: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    return Response(status_code=error.status_code, headers=error.headers)


async def _unexpected(request: Request, error: Exception) -> Response:
    _log.error("%s %s: %s: %s", request.method, request.url.path, type(error).__name__, error)
    return _failed(500, f"Service internal error: {type(error).__name__}: {error}", time.perf_counter())


def application(
    storage: Storage, pool: Executor, request_seen: Callable[[], None], mark: str | None = None
) -> Starlette:
    """The ASGI application over an open `storage`; `pool` runs the requests, `request_seen` hears of each.

    `mark`: by what clients know this server from another one on the same address.
    """
    routes = [
        Route(path, _endpoint(answer, storage, pool, request_seen), methods=[method])
        for method, path, answer in _ANSWERS
    ]
    return Starlette(
        routes=[
            Route("/", _root(mark)),
            *(Route(path, _healthy) for path in ("/healthz", "/livez", "/readyz")),
            *routes,
        ],
        exception_handlers={HTTPException: _no_such_path, Exception: _unexpected},
    )
