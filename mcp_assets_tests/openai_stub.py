"""A server with OpenAI's `POST /v1/embeddings` that counts what it embeds and misbehaves on demand.

In a test, in a thread:

    with OpenAIStub(dimension=8) as stub:
        stub.add_fault("rate_limit", times=2, retry_after_s=0.1)
        ... OPENAI_BASE_URL = stub.base_url ...
        assert stub.stats()["texts"] == 3

As its own process: `python -m mcp_assets_tests.openai_stub --port 8081`, where `--port 0` takes a free one; the first
line it prints is the base URL. It is then steered over HTTP:

    GET    /stats    what `stats()` returns
    POST   /stats    counts from zero again
    POST   /faults   {"kind": "rate_limit", "times": 2, "retry_after_s": 0.1}: the fields of `Fault`
    DELETE /faults   ends all faults, and lets go of hanging requests

Vectors: the sum of one fixed vector per word, scaled to length 1. So the same text has the same vector in every
process, and texts that share words are near each other. Always refused, each with OpenAI's status and error code: an
input that contains REFUSE_MARKER, an empty input, an input or a request above its token limit, too many inputs. Tokens
are counted as a quarter of the UTF-8 bytes, rounded up.
"""

import argparse
import base64
import hashlib
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

REFUSE_MARKER = "REFUSE-ME"

Kind = Literal[
    # the request as a whole
    "rate_limit",  # 429, with Retry-After if retry_after_s is set
    "insufficient_quota",  # 429 that no retry mends
    "server_error",  # 500
    "unauthorized",  # 401, quoting the key it was sent
    "forbidden",  # 403
    "model_not_found",  # 404
    "refuse",  # 400
    "too_large",  # 413
    "status",  # `status` with `message`
    "page",  # `status` with a web page, as a firewall has it
    "hang",  # no answer until the faults are ended
    "drop",  # the connection is closed without an answer
    "latency",  # answers after latency_s
    # the answer
    "html",  # 200 with a web page
    "no_data",  # 200 with an error object
    "too_few",  # one result short, the indexes counted anew
    "duplicate_index",  # two results with the same index
    "reordered",  # results in reverse order, the indexes right
    "no_usage",  # no count of tokens
    # the vectors, of the inputs that contain `contains`, else of all
    "nan",
    "zero",
    "wrong_dimension",  # one dimension short
]


@dataclass
class Fault:
    """One misbehaviour, for the next `times` requests (None: for ever) with an input that contains `contains`."""

    kind: Kind
    times: int | None = 1
    contains: str = ""
    retry_after_s: float | None = None
    latency_s: float = 0.0
    status: int = 500
    message: str = "failed"

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"unknown fault {self.kind!r}: one of {', '.join(get_args(Kind))}")


class OpenAIStub:
    """The server. `dimension`: of its vectors unless a request asks for another. `api_key`: the only one it takes."""

    def __init__(
        self,
        *,
        dimension: int = 1536,
        port: int = 0,
        api_key: str | None = None,
        float_lists: bool = False,
        max_input_tokens: int = 8192,
        max_request_tokens: int = 300_000,
        max_inputs: int = 2048,
    ) -> None:
        self.dimension = dimension
        self.api_key = api_key
        self.float_lists = float_lists  # as servers do that do not know encoding_format
        self.max_input_tokens = max_input_tokens
        self.max_request_tokens = max_request_tokens
        self.max_inputs = max_inputs
        self.request_sizes: list[int] = []
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._released = threading.Event()
        self._embedded: Counter[bytes] = Counter()
        self._refused = self._tokens = self._in_flight = self._max_in_flight = 0
        self._server = _Server(("127.0.0.1", port), _handler_for(self))
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, name="openai-stub"
        )

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear_faults()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._server.close_connections()

    def run(self) -> None:
        """Serves in this thread until interrupted."""
        try:
            self._server.serve_forever()
        finally:
            self._server.server_close()

    def add_fault(self, kind: Kind, **fields: Any) -> None:
        with self._lock:
            self._released.clear()
            self._faults.append(Fault(kind, **fields))

    def clear_faults(self) -> None:
        with self._lock:
            self._faults.clear()
            self._released.set()

    def stats(self) -> dict[str, int]:
        """`requests` for embeddings, `refused` among them (any status but 200), `texts` embedded, `distinct_texts`
        among them, `tokens`, and `max_in_flight`: the most requests that were being answered at once."""
        with self._lock:
            return {
                "requests": len(self.request_sizes),
                "refused": self._refused,
                "texts": self._embedded.total(),
                "distinct_texts": len(self._embedded),
                "tokens": self._tokens,
                "max_in_flight": self._max_in_flight,
            }

    def reset_stats(self) -> None:
        with self._lock:
            self.request_sizes.clear()
            self._embedded.clear()
            self._refused = self._tokens = 0
            self._max_in_flight = self._in_flight

    def times_embedded(self, text: str) -> int:
        with self._lock:
            return self._embedded[_digest(text)]

    def answer(self, body: dict[str, Any], key: str) -> "_Response":
        """The answer to one `POST /embeddings`, counted."""
        inputs = [body["input"]] if isinstance(body["input"], str) else list(body["input"])
        with self._lock:
            self.request_sizes.append(len(inputs))
            self._in_flight += 1
            self._max_in_flight = max(self._max_in_flight, self._in_flight)
            faults = self._take_faults(inputs)
        try:
            response = self._respond(body, inputs, key, faults)
        finally:
            with self._lock:
                self._in_flight -= 1
        with self._lock:
            if response.status == 200:
                self._embedded.update(_digest(text) for text in inputs)
                self._tokens += sum(map(count_tokens, inputs))
            else:
                self._refused += 1
        return response

    def _take_faults(self, inputs: list[str]) -> dict[Kind, Fault]:
        taken: dict[Kind, Fault] = {}
        for fault in self._faults:
            if fault.kind not in taken and any(fault.contains in text for text in inputs):
                taken[fault.kind] = fault
                if fault.times is not None:
                    fault.times -= 1
        self._faults = [fault for fault in self._faults if fault.times != 0]
        return taken

    def _respond(self, body: dict[str, Any], inputs: list[str], key: str, faults: dict[Kind, Fault]) -> "_Response":
        if "latency" in faults:
            time.sleep(faults["latency"].latency_s)
        if "hang" in faults:
            self._released.wait()
        for kind, response in _REFUSALS.items():
            if kind in faults:
                return response(faults[kind], key)
        if self.api_key is not None and key != self.api_key:
            return _REFUSALS["unauthorized"](Fault("unauthorized"), key)
        refusal = self._refusal_of(inputs)
        if refusal is not None:
            return refusal
        if "html" in faults:
            return _Response(200, b"<html>a proxy's page</html>", content_type="text/html")
        if "no_data" in faults:
            return _error(200, "upstream failed", None, "upstream_error")
        vectors = [self._vector(text, body.get("dimensions", self.dimension), faults) for text in inputs]
        as_base64 = body.get("encoding_format") == "base64" and not self.float_lists
        results = [
            {"object": "embedding", "index": index, "embedding": _encoded(vector, as_base64=as_base64)}
            for index, vector in enumerate(vectors)
        ]
        if "too_few" in faults:
            results = [{**result, "index": index} for index, result in enumerate(results[1:])]
        if "duplicate_index" in faults:
            results = [{**result, "index": 0} for result in results]
        if "reordered" in faults:
            results.reverse()
        answer: dict[str, Any] = {"object": "list", "data": results, "model": body["model"]}
        if "no_usage" not in faults:
            tokens = sum(map(count_tokens, inputs))
            answer["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
        return _Response(200, json.dumps(answer).encode())

    def _refusal_of(self, inputs: list[str]) -> "_Response | None":
        if len(inputs) > self.max_inputs:
            return _error(400, f"'$.input' is too big: at most {self.max_inputs} inputs", None)
        tokens = [count_tokens(text) for text in inputs]
        for position, (text, count) in enumerate(zip(inputs, tokens, strict=True)):
            if not text:
                return _error(400, f"'$.input[{position}]' is invalid: it is empty", None)
            if count > self.max_input_tokens:
                return _error(
                    400,
                    f"This model's maximum context length is {self.max_input_tokens} tokens, however you requested "
                    f"{count} tokens ({count} in your prompt; 0 for the completion). Please reduce your prompt.",
                    "context_length_exceeded",
                )
            if REFUSE_MARKER in text:
                return _error(400, "the input was refused", "content_refused")
        if sum(tokens) > self.max_request_tokens:
            return _error(
                400,
                f"Requested {sum(tokens)} tokens, max {self.max_request_tokens} tokens per request",
                "max_tokens_per_request",
            )
        return None

    def _vector(self, text: str, dimension: int, faults: dict[Kind, Fault]) -> NDArray[np.float32]:
        vector = vector_of(text, dimension)
        struck = {kind for kind, fault in faults.items() if fault.contains in text}
        if "nan" in struck:
            vector[0] = np.nan
        if "zero" in struck:
            vector[:] = 0
        return vector[:-1] if "wrong_dimension" in struck else vector


def count_tokens(text: str) -> int:
    return -(-len(text.encode()) // 4)


def vector_of(text: str, dimension: int) -> NDArray[np.float32]:
    """The vector of `text`, shape (dimension,), length 1: what the stub answers."""
    total = np.sum([_word_vector(word, dimension) for word in text.lower().split() or [text]], axis=0)
    vector: NDArray[np.float32] = (total / np.linalg.norm(total)).astype(np.float32)
    return vector


@lru_cache(maxsize=20_000)
def _word_vector(word: str, dimension: int) -> NDArray[np.float64]:
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8])
    return np.random.default_rng(seed).standard_normal(dimension)


def _encoded(vector: NDArray[np.float32], *, as_base64: bool) -> str | list[float]:
    return base64.b64encode(vector.tobytes()).decode() if as_base64 else vector.tolist()


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


@dataclass(frozen=True)
class _Response:
    status: int
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


_DROP = _Response(0, b"")


def _error(status: int, message: str, code: str | None, kind: str = "invalid_request_error") -> _Response:
    return _Response(status, json.dumps({"error": {"message": message, "type": kind, "code": code}}).encode())


def _rate_limit(fault: Fault, key: str) -> _Response:
    response = _error(429, "Rate limit reached", "rate_limit_exceeded", "requests")
    if fault.retry_after_s is None:
        return response
    return _Response(429, response.body, headers=(("Retry-After", str(fault.retry_after_s)),))


_REFUSALS: dict[Kind, Callable[[Fault, str], _Response]] = {
    "drop": lambda fault, key: _DROP,
    "rate_limit": _rate_limit,
    "insufficient_quota": lambda fault, key: _error(
        429, "You exceeded your current quota", "insufficient_quota", "insufficient_quota"
    ),
    "server_error": lambda fault, key: _error(500, "The server had an error", None, "server_error"),
    "unauthorized": lambda fault, key: _error(401, f"Incorrect API key provided: {key}", "invalid_api_key"),
    "forbidden": lambda fault, key: _error(403, f"The key {key} may not use this model", None),
    "model_not_found": lambda fault, key: _error(404, "The model does not exist", "model_not_found"),
    "refuse": lambda fault, key: _error(400, "the request was refused", None),
    "too_large": lambda fault, key: _error(413, "Payload Too Large", None),
    "status": lambda fault, key: _error(fault.status, fault.message, None, "server_error"),
    "page": lambda fault, key: _Response(
        fault.status, b"<html><title>Blocked</title></html>", content_type="text/html"
    ),
}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self._connections: set[socket.socket] = set()

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self._connections.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        """Ends the connections that clients keep open, so that their threads end."""
        for connection in list(self._connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:  # the other side was first
                continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that gave up waiting is what some faults are for."""


def _handler_for(stub: OpenAIStub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self._json(200, stub.stats()) if self.path == "/stats" else self._json(404, {"error": "no such path"})

        def do_DELETE(self) -> None:
            body = self._body()
            if self.path != "/faults" or body:
                return self._json(404, {"error": "no such path"})
            stub.clear_faults()
            return self._json(200, {})

        def do_POST(self) -> None:
            body = self._body()
            if self.path == "/v1/embeddings":
                key = self.headers.get("Authorization", "").removeprefix("Bearer ")
                return self._send(stub.answer(json.loads(body), key))
            if self.path == "/stats":
                stub.reset_stats()
                return self._json(200, {})
            if self.path == "/faults":
                try:
                    stub.add_fault(**json.loads(body))
                except (TypeError, ValueError) as error:
                    return self._json(400, {"error": str(error)})
                return self._json(200, {})
            return self._json(404, {"error": {"message": f"no path {self.path}"}})

        def _body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def _json(self, status: int, content: object) -> None:
            self._send(_Response(status, json.dumps(content).encode()))

        def _send(self, response: _Response) -> None:
            if response is _DROP:
                self.close_connection = True
                return
            self.send_response(response.status)
            self.send_header("Content-Type", response.content_type)
            self.send_header("Content-Length", str(len(response.body)))
            for name, value in response.headers:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(response.body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Silent: the counts are in /stats."""

    return Handler


def main() -> None:
    parser = argparse.ArgumentParser(description="A stub of OpenAI's embeddings endpoint, on 127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--dimension", type=int, default=1536)
    parser.add_argument("--max-input-tokens", type=int, default=8192)
    parser.add_argument("--api-key", help="the only key it takes; default: any")
    options = parser.parse_args()
    stub = OpenAIStub(
        port=options.port,
        dimension=options.dimension,
        max_input_tokens=options.max_input_tokens,
        api_key=options.api_key,
    )
    print(stub.base_url, flush=True)
    try:
        stub.run()
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()
