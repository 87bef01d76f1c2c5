"""Answers by which Qdrant refuses a request for the moment."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mcp_assets.stores.errors import StoreUnavailable
from mcp_assets.stores.qdrant import Qdrant


class _Busy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(429)
        self.send_header("Retry-After", "3")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing is said."""


@pytest.fixture
def busy_url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Busy) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_qdrant_that_takes_no_more_requests_is_unavailable_and_not_an_unknown_error(busy_url: str) -> None:
    qdrant = Qdrant(busy_url)

    with pytest.raises(StoreUnavailable, match="takes no more requests"):
        qdrant.collections()
    qdrant.close()
