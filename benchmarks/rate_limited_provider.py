"""An embedding provider with limits and nothing else, which speaks OpenAI's protocol.

It costs next to no CPU, so that what is measured is its client: vectors are made once and do not depend on the text.
"""

import asyncio
import base64
import json
import multiprocessing
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


@dataclass(frozen=True, slots=True)
class Limits:
    """How soon, how many and how fast. A request above a limit waits, and is not refused."""

    request_s: float = 0.2
    """Seconds of a request of at most `texts_a_request`; more texts take that much longer, fewer take no less."""
    at_once: int = 8
    """Requests that are worked on at once."""
    texts_a_request: int = 256
    texts_per_s: float | None = None
    """Of all requests together; None: as many as the other limits allow."""

    @property
    def allowed_per_s(self) -> float:
        """Texts a second that the limits allow together."""
        fastest = self.texts_a_request * self.at_once / self.request_s
        return fastest if self.texts_per_s is None else min(fastest, self.texts_per_s)


FAST = Limits()
"""More than any provider gives, 10,240 texts a second: what is measured is the client."""

_DISTINCT = 2048


@contextmanager
def provider(dimension: int, limits: Limits = FAST) -> Iterator[str]:
    """The provider in a process of its own; its base URL."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        process = multiprocessing.get_context("fork").Process(
            target=_serve, args=(listening, dimension, limits), daemon=True
        )
        process.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        finally:
            process.kill()
            process.join()


def _serve(listening: socket.socket, dimension: int, limits: Limits) -> None:
    rows = np.random.default_rng(0).standard_normal((_DISTINCT, dimension), dtype=np.float32)
    vectors = [base64.b64encode(row.tobytes()).decode() for row in rows]
    turn = asyncio.Semaphore(limits.at_once)
    allowed_from = 0.0
    """When the texts that were accepted so far are used up, by the rate; monotonic seconds."""

    @cache
    def answer(inputs: int) -> bytes:
        results = [
            {"object": "embedding", "index": index, "embedding": vectors[index % _DISTINCT]} for index in range(inputs)
        ]
        usage = {"prompt_tokens": inputs, "total_tokens": inputs}
        return json.dumps({"object": "list", "data": results, "model": "stub", "usage": usage}).encode()

    async def embeddings(request: Request) -> Response:
        nonlocal allowed_from
        body = json.loads(await request.body())
        inputs = 1 if isinstance(body["input"], str) else len(body["input"])
        async with turn:
            began = time.monotonic()
            ready = began + limits.request_s * max(1.0, inputs / limits.texts_a_request)
            if limits.texts_per_s is not None:
                # No text is answered before the rate allows it, the first ones included: a burst gains nothing.
                allowed_from = max(began, allowed_from) + inputs / limits.texts_per_s
                ready = max(ready, allowed_from)
            await asyncio.sleep(ready - began)
        return Response(answer(inputs), media_type="application/json")

    app = Starlette(routes=[Route("/v1/embeddings", embeddings, methods=["POST"])])
    config = uvicorn.Config(app, http="httptools", ws="none", lifespan="off", log_level="error", access_log=False)
    uvicorn.Server(config).run(sockets=[listening])
