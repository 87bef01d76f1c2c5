"""The services of deploy/compose: their commands, run as compose runs them, index an event; the proxy asks for a login.

The stores are those of `live`, in place of their images; nginx is the machine's own.
"""

import asyncio
import base64
import getpass
import json
import os
import shutil
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import websockets
import yaml

from mcp_assets.entities.refs import EntityRef
from mcp_assets_tests.acceptance.live import CHECKOUT, PATIENCE_S, SCRIPTS, Live
from mcp_assets_tests.clients import key_of
from mcp_assets_tests.nats_servers import free_port
from mcp_assets_tests.waiting import until

FILE: dict[str, Any] = yaml.safe_load((CHECKOUT / "deploy/compose/compose.yaml").read_text())
DOCKERFILE = (CHECKOUT / "deploy/docker/Dockerfile").read_text()
PROXY = CHECKOUT / "deploy/proxy"
HEALTHCHECK = CHECKOUT / "deploy/docker/healthcheck.py"

READERS, ADMINS = "dagster.localhost", "dagster-admin.localhost"

SERVERS = ("code", "webserver", "webserver-admin")

MUTATION = "mutation { reloadWorkspace { __typename } }"

pytestmark = pytest.mark.timeout(600)
"""The first test waits for four services of Dagster, each of which imports for seconds."""

nginx_is_here = pytest.mark.skipif(
    shutil.which("nginx") is None or shutil.which("openssl") is None,
    reason="nginx or openssl is not installed: the proxy's rules are not tried",
)


@dataclass
class Containers:
    """The services as processes. It stands for Docker: secrets are files, and each service has its own ports."""

    live: Live
    folder: Path
    ports: dict[str, str] = field(
        default_factory=lambda: {name: str(free_port()) for name in (*SERVERS, "proxy", "health")}
    )
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def prepare(self) -> None:
        for name in ("etc", "var", "secrets"):
            (self.folder / name).mkdir()
        addresses = self.live.addresses
        nats_url = addresses.nats_url
        for name, value in {
            "database_url": addresses.database_url,
            "nats_url": nats_url,
            "nats_admin_url": nats_url,
        }.items():
            # With the line break that an editor leaves at the end.
            (self.folder / "secrets" / name).write_text(f"{value}\n")
        (self.folder / "secrets/qdrant_api_key").write_text(key_of(addresses) + "\n")
        shutil.copy(CHECKOUT / "dagster.yaml", self.folder / "etc")
        workspace = (CHECKOUT / "deploy/docker/workspace.yaml").read_text()
        workspace = workspace.replace("host: code", "host: 127.0.0.1").replace("4266", self.ports["code"])
        (self.folder / "etc/workspace.yaml").write_text(workspace)

    def environment(self, name: str) -> dict[str, str]:
        given = {variable: self._here(value, name) for variable, value in FILE["services"][name]["environment"].items()}
        if "QDRANT_URL" in given:
            given["QDRANT_URL"] = self.live.addresses.qdrant_url or ""
        if "MCP_ASSETS_DAGSTER_URL" in given:
            host = ADMINS if "ADMIN_HOST" in given["MCP_ASSETS_DAGSTER_URL"] else READERS
            given["MCP_ASSETS_DAGSTER_URL"] = f"https://{host}:{self.ports['proxy']}"
        image = {"DAGSTER_HOME": str(self.folder / "etc"), "MCP_ASSETS_STATE_DIR": str(self.folder / "var")}
        return self.live.environment | image | given

    def command(self, name: str) -> list[str]:
        command = FILE["services"][name].get("command") or json.loads(DOCKERFILE.rpartition("\nCMD ")[2])
        return [self._here(word, name) for word in command]

    def start(self, name: str) -> None:
        program, *words = self.command(name)
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                [SCRIPTS / program, *words],
                cwd=self.folder / "var",
                env=self.environment(name),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def is_well(self, name: str) -> bool:
        """By the health check of the image or the service."""
        test = FILE["services"][name].get("healthcheck", {}).get("test")
        words = test[3:] if test is not None else ["grpc", "4266"]
        done = subprocess.run(
            [SCRIPTS / "python", HEALTHCHECK, *(self._here(word, name) for word in words)],
            capture_output=True,
            check=False,
        )
        return done.returncode == 0

    def migrate(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["env", f"PATH={SCRIPTS}:/usr/bin:/bin", *self.command("migrate")],
            cwd=self.folder / "var",
            env=self.environment("migrate"),
            capture_output=True,
            text=True,
            check=False,
        )

    def start_proxy(self) -> None:
        """nginx with the rules as its image fills them in."""
        rules = (PROXY / "default.conf.template").read_text()
        given = FILE["services"]["proxy"]["environment"] | {"PROXY_READERS_HOST": READERS, "PROXY_ADMINS_HOST": ADMINS}
        for name, value in given.items():
            rules = rules.replace(f"${{{name}}}", value)
        assert "${" not in rules
        replaced = {
            "/run/secrets": str(self.folder / "secrets"),
            "/etc/nginx/guard.conf": str(PROXY / "guard.conf"),
            "/dev/stdout": str(self.folder / "access.log"),
            "http://webserver:3000": f"http://127.0.0.1:{self.ports['webserver']}",
            "http://webserver-admin:3000": f"http://127.0.0.1:{self.ports['webserver-admin']}",
            "listen 8443": f"listen 127.0.0.1:{self.ports['proxy']}",
            "listen 8081": f"listen 127.0.0.1:{self.ports['health']}",
        }
        for text, other in replaced.items():
            assert text in rules
            rules = rules.replace(text, other)
        temporary = "".join(
            f"{name}_temp_path {self.folder}/{name}; " for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (self.folder / "nginx.conf").write_text(
            f"daemon off; pid {self.folder}/nginx.pid; error_log {self.folder}/error.log;\n"
            # Started by root, its workers would be another user, who cannot enter the folder of the test.
            f"{f'user {getpass.getuser()};' if os.geteuid() == 0 else ''}\n"
            f"events {{}}\nhttp {{ {temporary}\n{rules}\n}}\n"
        )
        self.running["proxy"] = subprocess.Popen(
            ["nginx", "-p", self.folder, "-c", self.folder / "nginx.conf"], start_new_session=True
        )

    def logins(self) -> None:
        for file, user in (("readers.htpasswd", "reader"), ("admins.htpasswd", "admin")):
            hashed = subprocess.run(["openssl", "passwd", "-6", user], capture_output=True, text=True, check=True)
            (self.folder / "secrets" / file).write_text(f"{user}:{hashed.stdout}")
        certificate = f"req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN={READERS}"
        subprocess.run(
            ["openssl", *certificate.split(), "-keyout", "tls.key", "-out", "tls.crt"],
            cwd=self.folder / "secrets",
            capture_output=True,
            check=True,
        )

    def _here(self, text: str, name: str) -> str:
        text = text.replace("/run/secrets", str(self.folder / "secrets")).replace(
            "/etc/mcp-assets", str(self.folder / "etc")
        )
        text = text.replace("0.0.0.0", "127.0.0.1").replace("4266", self.ports["code"])
        return text.replace("3000", self.ports.get(name, "3000"))


@pytest.fixture(scope="module")
def containers(live: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containers]:
    """All services, after the migration. They start at once, and not one after the other, because that is quicker."""
    started = Containers(live, tmp_path_factory.mktemp("containers"))
    started.prepare()
    try:
        done = started.migrate()
        assert done.returncode == 0, done.stdout + done.stderr
        for name in (*SERVERS, "daemon"):
            started.start(name)
        for name in SERVERS:
            until(lambda name=name: started.is_well(name), f"{name} is well", within_s=PATIENCE_S)  # type: ignore[misc]
        yield started
    finally:
        for process in started.running.values():
            process.terminate()
        for process in started.running.values():
            process.wait(60)


def test_an_event_is_indexed_with_every_secret_from_a_file(live: Live, containers: Containers) -> None:
    first = EntityRef("task", "first")
    live.write(first, "First", "Read with the password of a file.")
    live.publish([("mcp.task.created", {"taskId": "first"})])
    until(lambda: live.found_by("Read with the password of a file.") == [first], "it is found", within_s=2 * PATIENCE_S)
    assert all(process.poll() is None for process in containers.running.values())


def test_the_daemon_is_alive_by_its_health_check(containers: Containers) -> None:
    program, *words = FILE["services"]["daemon"]["healthcheck"]["test"][1:]
    environment = containers.environment("daemon")
    until(
        lambda: (
            subprocess.run([SCRIPTS / program, *words], env=environment, capture_output=True, check=False).returncode
            == 0
        ),
        "each of the daemon's loops has beaten",
        within_s=PATIENCE_S,
    )


@dataclass
class Browser:
    """What a person, or a page of another site in that person's browser, sends to the proxy."""

    port: str

    def ask(
        self,
        path: str = "/server_info",
        *,
        host: str = READERS,
        user: str | None = "reader",
        body: str | None = None,
        **headers: str,
    ) -> int:
        """The status of the answer."""
        return self.answer(path, host=host, user=user, body=body, **headers)[0]

    def answer(
        self, path: str, *, host: str = READERS, user: str | None = "reader", body: str | None = None, **headers: str
    ) -> tuple[int, str]:
        """Status and text of the answer. `headers`: with _ for -."""
        request = urllib.request.Request(f"https://127.0.0.1:{self.port}{path}", data=body.encode() if body else None)
        request.add_header("Host", f"{host}:{self.port}")
        if user is not None:
            request.add_header("Authorization", basic(user))
        if body is not None:
            request.add_header("Content-Type", "application/json")
        for name, value in headers.items():
            request.add_header(name.replace("_", "-"), value)
        try:
            with urllib.request.urlopen(request, context=unverified()) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, ""

    def mutate(self, *, host: str, user: str, **headers: str) -> str:
        """What the webserver says to a mutation; empty if the proxy refused it."""
        status, text = self.answer("/graphql", host=host, user=user, body=json.dumps({"query": MUTATION}), **headers)
        return str(json.loads(text)["data"]["reloadWorkspace"]["__typename"]) if status == 200 else ""

    async def subscribe(self, origin: str | None, user: str = "reader") -> int:
        """The status with which the WebSocket of the UI is answered."""
        try:
            async with websockets.connect(
                f"wss://{READERS}:{self.port}/graphql",
                host="127.0.0.1",
                ssl=unverified(),
                origin=websockets.Origin(origin) if origin is not None else None,
                subprotocols=[websockets.Subprotocol("graphql-ws")],
                additional_headers={"Authorization": basic(user)},
            ) as socket:
                await socket.send(json.dumps({"type": "connection_init"}))
                assert json.loads(await socket.recv())["type"] == "connection_ack"
                return 101
        except websockets.InvalidStatus as error:
            return error.response.status_code


def basic(user: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{user}".encode()).decode()


def unverified() -> ssl.SSLContext:
    """The certificate signs itself."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@pytest.fixture(scope="module")
def browser(containers: Containers) -> Browser:
    containers.logins()
    containers.start_proxy()
    started = Browser(containers.ports["proxy"])

    def serves() -> bool:
        with suppress(OSError):
            return started.ask() == 200
        return False

    until(serves, "the proxy serves", within_s=PATIENCE_S)
    return started


@nginx_is_here
def test_the_proxy_asks_for_the_login_of_the_host(browser: Browser) -> None:
    assert browser.ask(user=None) == 401
    assert browser.ask(user="stranger") == 401
    assert browser.ask(host=ADMINS, user="reader") == 401
    assert browser.ask(host=ADMINS, user="admin") == 200
    assert browser.ask("/", user="reader") == 200


@nginx_is_here
def test_readers_change_nothing_and_administrators_may(browser: Browser) -> None:
    assert browser.mutate(host=READERS, user="reader") == "UnauthorizedError"
    assert browser.mutate(host=ADMINS, user="admin") == "Workspace"


@nginx_is_here
def test_a_foreign_host_is_refused(browser: Browser) -> None:
    assert browser.ask(host="evil.example.com") == 421
    assert browser.ask(host="127.0.0.1") == 421


@nginx_is_here
def test_a_page_of_another_site_cannot_use_the_login_of_a_person(browser: Browser) -> None:
    own = f"https://{ADMINS}:{browser.port}"
    assert browser.mutate(host=ADMINS, user="admin", Origin=own) == "Workspace"
    for foreign in (
        "https://evil.example.com",
        "null",
        f"http://{ADMINS}:{browser.port}",
        f"https://{READERS}:{browser.port}",
        f"{own}0",
    ):
        assert browser.mutate(host=ADMINS, user="admin", Origin=foreign) == "", foreign
    link = f"/graphql?query={urllib.request.quote(MUTATION)}"  # type: ignore[attr-defined]
    assert browser.ask(link, host=ADMINS, user="admin") == 405
    assert browser.ask("/", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors") == 403
    # A link in a mail or a chat is followed.
    assert browser.ask("/", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate") == 200


@nginx_is_here
def test_the_websocket_of_the_ui_passes_and_that_of_another_site_does_not(browser: Browser) -> None:
    assert asyncio.run(browser.subscribe(f"https://{READERS}:{browser.port}")) == 101
    assert asyncio.run(browser.subscribe("https://evil.example.com")) == 403
    assert asyncio.run(browser.subscribe(f"https://{READERS}:{browser.port}", user="stranger")) == 401
