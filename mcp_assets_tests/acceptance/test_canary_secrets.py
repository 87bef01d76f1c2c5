"""Canary secrets: in every secret setting stands a word that must come to light nowhere, also when things go wrong."""

import json
import secrets
import shutil
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg
import pytest
from psycopg import sql

from mcp_assets.secret_files import file_variables
from mcp_assets.settings import Settings
from mcp_assets_tests.acceptance.live import CHECKOUT, DIMENSION, PATIENCE_S, SCRIPTS
from mcp_assets_tests.command import Place, bare_environment
from mcp_assets_tests.nats_servers import Server, free_port
from mcp_assets_tests.openai_stub import OpenAIStub
from mcp_assets_tests.postgres_server import PasswordServer, password_server
from mcp_assets_tests.waiting import until

EVERYTHING = """
{ instance { info daemonHealth { allDaemonStatuses { lastHeartbeatErrors { message } } } }
  runsOrError { ... on Runs { results {
    status runConfigYaml tags { key value }
    eventConnection { events { ... on MessageEvent { message } ... on ErrorEvent { error { message stack } } } }
  } } }
  workspaceOrError { ... on Workspace { locationEntries { locationOrLoadError {
    ... on RepositoryLocation { name dagsterLibraryVersions { name } } ... on PythonError { message stack } } } } }
  schedulesOrError: repositoriesOrError { ... on RepositoryConnection { nodes { sensors { sensorState {
    ticks(limit: 50) { error { message stack } } } } } } } }
"""
"""What a person can ask the UI about instance, runs, logs and ticks."""


@dataclass
class World:
    """The platform of `mcp-assets dev` on stores that each ask for a canary."""

    place: Place
    postgres: PasswordServer
    provider: OpenAIStub
    qdrant: subprocess.Popen[bytes]
    port: int
    canaries: Mapping[str, str]
    dev: subprocess.Popen[bytes] | None = None

    def ask_ui(self, query: str) -> str:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/graphql",
            json.dumps({"query": query}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return str(answer.read().decode())

    def write(self, entity_id: str) -> None:
        """Write a task, and publish that it was written."""
        with psycopg.connect(self.postgres.url()) as connection:
            connection.execute("INSERT INTO tasks (id, title) VALUES (%s, %s)", [entity_id, f"Task {entity_id}"])
        done = self.place.run("publish", "mcp.task.created", json.dumps({"taskId": entity_id}))
        assert done.code == 0, done.stderr

    def runs(self, status: str) -> int:
        with psycopg.connect(self.postgres.url()) as connection:
            row = connection.execute("SELECT count(*) FROM dagster.runs WHERE status = %s", [status]).fetchone()
        return 0 if row is None else int(row[0])

    def indexed(self) -> set[str]:
        with psycopg.connect(self.postgres.url()) as connection:
            return {row[0] for row in connection.execute("SELECT entity_id FROM mcp_assets.embedded").fetchall()}

    def words_of_processes(self) -> str:
        assert self.dev is not None
        tree = psutil.Process(self.dev.pid)
        found = []
        for process in (tree, *tree.children(recursive=True)):
            with suppress(psutil.Error):
                found.append(" ".join(process.cmdline()))
        return "\n".join(found)

    def rows(self) -> Iterator[tuple[str, str]]:
        """Each table of the platform and of Dagster, with all its rows as text."""
        with psycopg.connect(self.postgres.url()) as connection:
            tables = connection.execute(
                "SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('mcp_assets', 'dagster', 'public')"
            ).fetchall()
            for schema, table in tables:
                statement = sql.SQL("SELECT t::text FROM {} AS t").format(sql.Identifier(schema, table))
                yield f"{schema}.{table}", "\n".join(row[0] for row in connection.execute(statement).fetchall())


@contextmanager
def qdrant(folder: Path, key: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    port = free_port()
    (folder / "key").write_text(key)
    words = ("--port", str(port), "--storage", str(folder / "storage"), "--key-file", str(folder / "key"))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "mcp_assets.embedded.qdrant", *words], stdout=log, stderr=log)
    try:
        yield process, port
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Not started. Half of the secrets are variables, and half stand in files."""
    canaries = {name: f"canary{secrets.token_hex(8)}" for name in file_variables(Settings.model_fields)}
    folder, hidden, bus = tmp_path / "place", tmp_path / "hidden", tmp_path / "bus"
    for made in (folder, hidden, tmp_path / "qdrant"):
        made.mkdir()
    with ExitStack() as opened:
        postgres = opened.enter_context(password_server(canaries["DATABASE_URL"]))
        reader = canaries["MCP_ASSETS_SOURCE_DATABASE_URL"]
        with psycopg.connect(postgres.url()) as connection:
            connection.execute((CHECKOUT / "mcp_assets/stores/source_tables.sql").read_bytes())
            connection.execute(f"CREATE ROLE reader LOGIN PASSWORD '{reader}'")
            connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
        server = Server(bus, f"authorization {{ user: someone, password: {canaries['NATS_URL']} }}")
        server.start(f"someone:{canaries['NATS_URL']}@")
        opened.callback(server.stop)
        engine, engine_port = opened.enter_context(qdrant(tmp_path / "qdrant", canaries["QDRANT_API_KEY"]))
        provider = opened.enter_context(OpenAIStub(dimension=DIMENSION, api_key=canaries["OPENAI_API_KEY"]))
        values = {
            "DATABASE_URL": postgres.url(),
            "MCP_ASSETS_SOURCE_DATABASE_URL": postgres.url(password=reader).replace("//app:", "//reader:"),
            "NATS_URL": server.url.replace("//", f"//someone:{canaries['NATS_URL']}@"),
            "MCP_ASSETS_MCP_TOKEN": canaries["MCP_ASSETS_MCP_TOKEN"],
            "MCP_ASSETS_ALERT_WEBHOOK": f"http://127.0.0.1:{free_port()}/{canaries['MCP_ASSETS_ALERT_WEBHOOK']}",
            # The engine knows one key. A wrong one for reading shows that no error quotes it.
            **{name: canaries[name] for name in canaries if name.endswith("API_KEY")},
        }
        assert values.keys() == canaries.keys(), "a new secret setting needs a value here"
        secret: dict[str, str] = {}
        for number, (name, value) in enumerate(sorted(values.items())):
            if number % 2:
                (hidden / name).write_text(value + "\n")
                secret[f"{name}_FILE"] = str(hidden / name)
            else:
                secret[name] = value
        for file in ("dagster.yaml", "workspace.yaml"):
            shutil.copy(CHECKOUT / file, folder)
        environment = (
            bare_environment()
            | secret
            | {
                "QDRANT_URL": f"http://127.0.0.1:{engine_port}",
                "OPENAI_BASE_URL": provider.base_url,
                "EMBEDDING_MODEL": "stub",
                "EMBEDDING_DIMENSION": str(DIMENSION),
                "MCP_ASSETS_DRAIN_LINGER_S": "1",
                "MCP_ASSETS_ALERT_EVERY_S": "1",
                "MCP_ASSETS_STORE_WAIT_S": "0",
                "MCP_ASSETS_RETRY_DELAY_MS": "10",
                "MCP_ASSETS_PROVIDER_RETRY_S": "1",
                "MCP_ASSETS_STATE_DIR": str(folder / ".mcp"),
                "DAGSTER_HOME": str(folder),
            }
        )
        found = World(Place(folder, environment), postgres, provider, engine, free_port(), canaries)
        try:
            yield found
        finally:
            if found.dev is not None and found.dev.poll() is None:
                found.dev.terminate()
                found.dev.wait(60)


def files_below(folder: Path) -> Iterator[tuple[str, str]]:
    for file in folder.rglob("*"):
        with suppress(OSError):
            if file.is_file():
                yield str(file), file.read_text(errors="replace")


@pytest.mark.timeout(600)
def test_no_secret_comes_to_light_in_a_sync_with_failures(world: World, tmp_path: Path) -> None:
    seen: dict[str, str] = {}
    with (tmp_path / "output of dev").open("wb") as output:
        words = [str(SCRIPTS / "mcp-assets"), "dev", "--port", str(world.port)]
        world.dev = subprocess.Popen(
            words, cwd=world.place.folder, env=dict(world.place.environment), stdout=output, stderr=output
        )
    log = tmp_path / "output of dev"
    until(lambda: "Dagster UI:" in log.read_text() or _ended(world), "dev is up", within_s=3 * PATIENCE_S)
    assert world.dev.poll() is None, log.read_text()

    world.write("first")
    until(lambda: "first" in world.indexed(), "the first task is indexed", within_s=PATIENCE_S)
    seen["the list of processes"] = world.words_of_processes()
    world.provider.add_fault("unauthorized", times=None)
    world.write("refused")
    until(lambda: world.runs("FAILURE") > 0, "a run fails because the provider refuses", within_s=2 * PATIENCE_S)
    world.qdrant.kill()
    for command in (
        ("doctor",), ("status", "--json"), ("search", "task"), ("env",), ("dead-letters", "list"),
        ("graph", "export", "graph.html"),
    ):  # fmt: skip
        done = world.place.run(*command)
        seen[" ".join(command)] = done.stdout + done.stderr
    seen["GraphQL"] = world.ask_ui(EVERYTHING)
    world.dev.terminate()
    world.dev.wait(60)
    seen["the output of dev"] = log.read_text()
    seen |= dict(world.rows())
    seen |= dict(files_below(world.place.folder))

    assert "mcp_assets.webserver" in seen["the list of processes"]
    assert "refuse" in seen["dagster.event_logs"]
    assert '"status":"FAILURE"' in seen["GraphQL"].replace(" ", "")
    assert any("compute" in name or "storage" in name for name in seen)
    found = [
        f"the secret of {name} is in {where}"
        for where, text in seen.items()
        for name, canary in world.canaries.items()
        if canary in text
    ]
    assert found == []
    mode = stat.S_IMODE((world.place.folder / ".mcp").stat().st_mode)
    assert mode == 0o700


def _ended(world: World) -> bool:
    return world.dev is not None and world.dev.poll() is not None
