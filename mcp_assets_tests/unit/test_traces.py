"""Traces: spans reach a collector over HTTP, a header is taken only in its valid form, a missing package is named."""

import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from mcp_assets import traces

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def collector() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """A collector's address, and the requests that it gets."""
    received: list[tuple[str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", received
    traces.use_provider(None)
    server.shutdown()
    thread.join()
    server.server_close()


def test_spans_reach_a_collector_when_they_are_flushed(collector: tuple[str, list[tuple[str, bytes]]]) -> None:
    address, received = collector
    traces.send_traces(address + "/")
    traces.send_traces(address)
    traces.record("mcp_assets.link", PARENT, 1, {"mcp_assets.entity": "task:a"})
    traces.flush()
    ((path, body),) = received
    assert path == "/v1/traces"
    assert bytes.fromhex(PARENT.split("-")[1]) in body
    assert b"mcp_assets.link" in body
    assert b"task:a" in body


@pytest.mark.parametrize(
    "header",
    [None, "", "x", PARENT + "-x", PARENT.upper(), "ff" + PARENT[2:], f"00-{'0' * 32}-00f067aa0ba902b7-01", b"00", 7],
)
def test_a_header_that_is_not_valid_names_no_trace(header: object) -> None:
    assert traces.traceparent_in({"traceparent": header}) is None
    assert traces.traceparent_in(None) is None


def test_a_valid_header_names_its_trace() -> None:
    assert traces.traceparent_in({"traceparent": PARENT}) == PARENT


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(traces.TracesUnavailable, match=r"is not installed: pip install 'mcp-assets\[otel\]'"):
        traces.send_traces(None)
    assert not traces.are_on()
