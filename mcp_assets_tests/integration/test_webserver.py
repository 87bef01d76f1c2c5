"""The webserver of the UI: what a page of another site can make a browser send is refused, and the UI itself works."""

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pytest
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

from mcp_assets_tests.command import bare_environment
from mcp_assets_tests.nats_servers import free_port
from mcp_assets_tests.waiting import until

PUBLIC = "https://dagster.example.org"

QUERY = "{ version }"

MUTATION = "mutation { setNuxSeen }"
"""One without an effect that anybody would miss."""

SUBSCRIPTION = {
    "type": "start",
    "id": "1",
    "payload": {"query": "subscription { locationStateChangeEvents { event { message } } }"},
}


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A webserver without any code location; the port at which it listens."""
    folder = tmp_path_factory.mktemp("webserver")
    (folder / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    (folder / "workspace.yaml").write_text("load_from: []\n")
    port = free_port()
    environment = bare_environment() | {
        "DAGSTER_HOME": str(folder),
        "MCP_ASSETS_DAGSTER_URL": PUBLIC,
        "MCP_ASSETS_DAGSTER_HOSTS": '["webserver"]',
    }
    words = ("-m", "mcp_assets.webserver", "--host", "127.0.0.1", "--port", str(port))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, *words], cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        until(lambda: _answers(port) or process.poll() is not None, "the webserver answers", within_s=90)
        assert process.poll() is None, (folder / "log").read_text()
        yield port
    finally:
        process.terminate()
        process.wait()


def _answers(port: int) -> bool:
    with suppress(OSError):
        return ask(port, "GET", "/server_info")[0] == 200
    return False


def ask(
    port: int, method: str, path: str, headers: Mapping[str, str] = {}, body: str | None = None
) -> tuple[int, str, Mapping[str, str]]:
    """Status, text and headers of the answer. `Host` is that of the address, unless `headers` has another one."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.putrequest(method, path, skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name, value)
        content = (body or "").encode()
        connection.putheader("Content-Length", str(len(content)))
        connection.endheaders(content)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), {name.lower(): value for name, value in answer.getheaders()}
    finally:
        connection.close()


def post(port: int, query: str, **headers: str) -> tuple[int, str]:
    given = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return ask(port, "POST", "/graphql", given, json.dumps({"query": query}))[:2]


def by_get(query: str) -> str:
    return f"/graphql?query={quote(query)}"


def test_the_ui_and_programs_on_this_machine_are_served(port: int) -> None:
    status, page, headers = ask(port, "GET", "/runs", {"Accept": "text/html"})
    assert (status, "<html" in page) == (200, True)
    assert headers["x-frame-options"] == "DENY"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]

    for origin in ({}, {"Origin": f"http://127.0.0.1:{port}"}):
        assert post(port, QUERY, **origin)[0] == 200
        assert json.loads(post(port, MUTATION, **origin)[1])["data"] == {"setNuxSeen": True}
    assert ask(port, "GET", by_get(QUERY))[0] == 200


@pytest.mark.parametrize(
    "host", ["dagster.example.org", "webserver:3000", "localhost:3000", "10.1.2.3:3000", "[::1]:3000"]
)
def test_a_name_that_the_settings_give_is_served_and_so_is_an_address(port: int, host: str) -> None:
    assert post(port, QUERY, Host=host)[0] == 200
    assert post(port, QUERY, Host=host, Origin=f"http://{host}")[0] == 200
    # A proxy ends TLS, and may name the machine behind it.
    assert post(port, QUERY, Host=host, Origin=PUBLIC)[0] == 200


@pytest.mark.parametrize("host", ["evil.example.com", "dagster.example.org.evil.example.com", "127.0.0.1.nip.io", ""])
def test_another_name_is_refused_so_that_no_page_reaches_the_ui_by_a_name_of_its_own(port: int, host: str) -> None:
    status, said = post(port, QUERY, Host=host, Origin=f"http://{host}")

    assert status == 400
    assert "MCP_ASSETS_DAGSTER_URL" in said


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example.com",
        "null",
        "https://127.0.0.1:1",
        f"{PUBLIC}.evil.example.com",
        "file://",
        "http://localhost:1",
    ],
)
def test_a_page_of_another_origin_is_refused(port: int, origin: str) -> None:
    assert post(port, MUTATION, Origin=origin)[0] == 403
    assert ask(port, "GET", by_get(QUERY), {"Origin": origin})[0] == 403


@pytest.mark.parametrize("query", [MUTATION, f"query a {QUERY} {MUTATION.replace('mutation', 'mutation b')}"])
def test_a_mutation_by_get_is_refused(port: int, query: str) -> None:
    status, said, _ = ask(port, "GET", by_get(query))

    assert status == 405
    assert "by POST alone" in said


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_a_body_that_a_form_can_send_is_refused(port: int, kind: str) -> None:
    # Dagster reads the query of such a request from its address.
    status, _, _ = ask(port, "POST", by_get(MUTATION), {"Content-Type": kind} if kind else {}, "{}")

    assert status == 415


def test_subscriptions_work_for_the_ui_and_for_no_other_page(port: int) -> None:
    own = Origin(f"http://127.0.0.1:{port}")
    with connect(f"ws://127.0.0.1:{port}/graphql", origin=own, subprotocols=[Subprotocol("graphql-ws")]) as opened:
        opened.send(json.dumps({"type": "connection_init"}))
        assert json.loads(opened.recv(timeout=30)) == {"type": "connection_ack"}
        opened.send(json.dumps({"type": "start", "id": "1", "payload": {"query": SUBSCRIPTION}}))
        opened.send(json.dumps({"type": "stop", "id": "1"}))

    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Protocol": "graphql-ws",
    }
    for foreign in ({"Origin": "http://evil.example.com"}, {"Host": "evil.example.com"}):
        assert ask(port, "GET", "/graphql", upgrade | foreign)[0] == 403


def test_without_the_guard_dagster_does_all_of_this(tmp_path: Path) -> None:
    """When this fails, Dagster has learned it, and the guard may go."""
    from dagster import DagsterInstance
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import EmptyWorkspaceTarget
    from dagster_webserver.webserver import DagsterWebserver
    from starlette.testclient import TestClient

    with (
        DagsterInstance.local_temp(str(tmp_path)) as instance,
        WorkspaceProcessContext(instance, EmptyWorkspaceTarget()) as context,
    ):
        client = TestClient(DagsterWebserver(context).create_asgi_app())
        answer = client.get(by_get(MUTATION), headers={"Host": "evil.example.com", "Origin": "http://evil.example.com"})

    assert answer.json() == {"data": {"setNuxSeen": True}}
