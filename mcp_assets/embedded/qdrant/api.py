"""The REST API: which function answers which path, and the envelope around every answer.

Requests are answered in a small pool of threads: parsing and conversion give way to one another there, while the event
loop stays free to take in bodies and to answer the health checks.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import Any

from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from mcp_assets.embedded.qdrant import (
    collection_calls,
    read_calls,
    update_calls,
)
from mcp_assets.embedded.qdrant.calls import Answer, Call
from mcp_assets.embedded.qdrant.errors import (
    RequestError,
)
from mcp_assets.embedded.qdrant.storage import Storage

QDRANT_VERSION = "1.19.0"
"""The server whose behaviour this one has; qdrant-client compares it with its own version."""

MAX_BODY_BYTES = 32 * 1024 * 1024
"""The limit of a Qdrant server."""

_log = logging.getLogger(__name__)


_ANSWERS: tuple[tuple[str, str, Answer], ...] = (
    ("GET", "/collections", collection_calls.list_collections),
    ("POST", "/collections/aliases", collection_calls.change_aliases),
    ("GET", "/aliases", collection_calls.list_aliases),
    ("PUT", "/collections/{collection}", collection_calls.create_collection),
    ("GET", "/collections/{collection}", collection_calls.collection_info),
    ("PATCH", "/collections/{collection}", collection_calls.update_collection),
    ("DELETE", "/collections/{collection}", collection_calls.delete_collection),
    ("GET", "/collections/{collection}/exists", collection_calls.collection_exists),
    ("GET", "/collections/{collection}/aliases", collection_calls.collection_aliases),
    ("PUT", "/collections/{collection}/index", update_calls.create_index),
    ("DELETE", "/collections/{collection}/index/{field}", update_calls.delete_index),
    ("PUT", "/collections/{collection}/points", update_calls.upsert_points),
    ("POST", "/collections/{collection}/points", read_calls.get_points),
    ("POST", "/collections/{collection}/points/delete", update_calls.delete_points),
    ("POST", "/collections/{collection}/points/payload", update_calls.set_payload),
    ("PUT", "/collections/{collection}/points/payload", update_calls.overwrite_payload),
    ("POST", "/collections/{collection}/points/payload/delete", update_calls.delete_payload),
    ("POST", "/collections/{collection}/points/payload/clear", update_calls.clear_payload),
    ("PUT", "/collections/{collection}/points/vectors", update_calls.update_vectors),
    ("POST", "/collections/{collection}/points/vectors/delete", update_calls.delete_vectors),
    ("POST", "/collections/{collection}/points/batch", update_calls.update_batch),
    ("POST", "/collections/{collection}/points/scroll", read_calls.scroll_points),
    ("POST", "/collections/{collection}/points/count", read_calls.count_points),
    ("POST", "/collections/{collection}/points/query", read_calls.query_points),
    ("POST", "/collections/{collection}/points/query/batch", read_calls.query_points_batch),
    ("POST", "/collections/{collection}/points/query/groups", read_calls.query_points_groups),
    ("POST", "/collections/{collection}/facet", read_calls.facet),
    ("GET", "/collections/{collection}/points/{id}", read_calls.get_point),
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
