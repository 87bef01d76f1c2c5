"""An embedding provider with limits and nothing else: 256 texts after 200 ms, 8 requests at once, OpenAI's protocol.

It costs next to no CPU, so that what is measured is its client: vectors are made once and do not depend on the text.
"""

import asyncio
import base64
import json
import multiprocessing
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

TEXTS_A_BATCH = 256
BATCH_S = 0.2
AT_ONCE = 8

TEXTS_PER_S = TEXTS_A_BATCH * AT_ONCE / BATCH_S
"""What the limits allow: 10,240."""

_DISTINCT = 2048


@contextmanager
def provider(dimension: int) -> Iterator[str]:
    """The provider in a process of its own; its base URL."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        process = multiprocessing.get_context("fork").Process(target=_serve, args=(listening, dimension), daemon=True)
        process.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        finally:
            process.kill()
            process.join()


def _serve(listening: socket.socket, dimension: int) -> None:
    rows = np.random.default_rng(0).standard_normal((_DISTINCT, dimension), dtype=np.float32)
    vectors = [base64.b64encode(row.tobytes()).decode() for row in rows]
    turn = asyncio.Semaphore(AT_ONCE)

    @cache
    def answer(inputs: int) -> bytes:
        results = [
            {"object": "embedding", "index": index, "embedding": vectors[index % _DISTINCT]} for index in range(inputs)
        ]
        usage = {"prompt_tokens": inputs, "total_tokens": inputs}
        return json.dumps({"object": "list", "data": results, "model": "stub", "usage": usage}).encode()

    async def embeddings(request: Request) -> Response:
        body = json.loads(await request.body())
        inputs = 1 if isinstance(body["input"], str) else len(body["input"])
        async with turn:
            # More than a batch is that much more work; less than a batch is none the quicker.
            await asyncio.sleep(BATCH_S * max(1.0, inputs / TEXTS_A_BATCH))
        return Response(answer(inputs), media_type="application/json")

    app = Starlette(routes=[Route("/v1/embeddings", embeddings, methods=["POST"])])
    config = uvicorn.Config(app, http="httptools", ws="none", lifespan="off", log_level="error", access_log=False)
    uvicorn.Server(config).run(sockets=[listening])
