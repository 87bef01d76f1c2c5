"""Live: one place on disk where the whole platform runs as processes, and what a test does to it from outside."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import nats
import numpy as np
import psutil
import psycopg
from dagster._core.execution.backfill import PartitionBackfill
from nats.errors import Error as NatsError

import mcp_assets
from mcp_assets.embedded import stack
from mcp_assets.entities.points import point_id
from mcp_assets.entities.refs import EntityRef
from mcp_assets.entities.text import build_text, collapse
from mcp_assets.settings import Settings
from mcp_assets_tests.clients import qdrant_at
from mcp_assets_tests.openai_stub import vector_of
from mcp_assets_tests.waiting import until

CHECKOUT = Path(mcp_assets.__file__).parents[1]
SCRIPTS = Path(sys.executable).parent
DIMENSION = 16
BATCH_SIZE = 20
CONCURRENCY = 2

TABLES = {"task": ("tasks", "description"), "page": ("wiki_pages", "content"), "memory": ("memory_nodes", "content")}
COLLECTIONS = {"task": "kanban_tasks", "page": "wiki_pages", "memory": "memory_nodes"}

PATIENCE_S = 90.0
"""Seconds for a step of the platform: processes start, and two cores are shared."""

Message = tuple[str, bytes | Mapping[str, Any]]
"""Subject and body; an object is sent as JSON."""


@dataclass
class Live:
    """The running platform.

    `texts`: what every living entity should say, kept by the test as it writes. `settings`: more environment variables,
    which count for what is started after they are set.
    """

    folder: Path
    addresses: stack.StackAddresses
    embedder: subprocess.Popen[str]
    embedder_url: str
    texts: dict[EntityRef, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    daemon: subprocess.Popen[bytes] | None = None

    @property
    def state_dir(self) -> Path:
        return self.folder / ".mcp"

    @property
    def environment(self) -> dict[str, str]:
        return clean_environment() | {
            "MCP_ASSETS_STATE_DIR": str(self.state_dir),
            "DAGSTER_HOME": str(self.folder),
            "OPENAI_BASE_URL": self.embedder_url,
            "EMBEDDING_MODEL": "stub",
            "EMBEDDING_DIMENSION": str(DIMENSION),
            "EMBEDDING_CONCURRENCY": str(CONCURRENCY),
            "MCP_ASSETS_BATCH_SIZE": str(BATCH_SIZE),
            "MCP_ASSETS_SENSOR_TICK_S": "10",
            "MCP_ASSETS_DRAIN_LINGER_S": "3",
            **self.settings,
        }

    # Dagster

    def start_daemon(self) -> None:
        """`dagster-daemon run`, as an init system would; it starts the code server of workspace.yaml by itself."""
        if self.daemon is not None and self.daemon.poll() is None:
            return
        self.daemon = self.start_a_daemon("daemon.log")

    def start_a_daemon(self, log_name: str) -> subprocess.Popen[bytes]:
        """One more daemon on the same Dagster instance, as on a second machine; the caller stops it."""
        with (self.folder / log_name).open("ab") as log:
            return subprocess.Popen(
                [SCRIPTS / "dagster-daemon", "run"],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def stop_daemon(self) -> None:
        if self.daemon is not None:
            self.daemon.terminate()
            self.daemon.wait(60)

    def kill_daemon(self) -> None:
        assert self.daemon is not None
        self.daemon.kill()
        self.daemon.wait(10)

    def running_pid(self, instance: dg.DagsterInstance) -> int | None:
        """Process of some run that executes its step now."""
        for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])):
            for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
                event = entry.dagster_event
                pid = event.engine_event_data.metadata.get("pid") if event is not None else None
                if pid is not None and psutil.pid_exists(int(str(pid.value))):
                    return int(str(pid.value))
        return None

    def request_backfill(self, instance: dg.DagsterInstance, definitions: dg.Definitions) -> str:
        """A backfill of all partitions of both assets, as the UI writes it; the daemon takes it from there."""
        graph = definitions.resolve_asset_graph()
        keys = [dg.AssetKey("entities"), dg.AssetKey("embeddings")]
        partitions = graph.get(keys[0]).partitions_def
        assert partitions is not None
        backfill = PartitionBackfill.from_asset_partitions(
            asset_graph=graph,
            backfill_id="everything",
            tags={},
            backfill_timestamp=time.time(),
            asset_selection=keys,
            partition_names=list(partitions.get_partition_keys()),
            dynamic_partitions_store=instance,
            all_partitions=False,
            title=None,
            description=None,
            run_config=None,
        )
        instance.add_backfill(backfill)
        return backfill.backfill_id

    # The stack

    def kill(self, part: stack.Part) -> None:
        """kill -9 the server; the supervisor has to bring it back."""
        before = stack.status(self.state_dir).parts[part]
        assert before.pid is not None
        psutil.Process(before.pid).kill()
        until(
            lambda: stack.status(self.state_dir).parts[part].restarts > before.restarts,
            f"{part} is restarted",
            within_s=PATIENCE_S,
        )

    # What MCP servers do

    def write(self, ref: EntityRef, title: str, text: str) -> None:
        """Write the entity's source row."""
        table, column = TABLES[ref.type]
        self._execute(
            f"INSERT INTO {table} (id, title, {column}) VALUES (%s, %s, %s) "
            f"ON CONFLICT (id) DO UPDATE SET title = excluded.title, {column} = excluded.{column}, updated_at = now()",
            [(ref.id, title, text)],
        )
        self.texts[ref] = collapse(build_text(title, text))

    def write_all(self, entities: Mapping[EntityRef, tuple[str, str]]) -> None:
        """The same for many, in one transaction a type."""
        for name, (table, column) in TABLES.items():
            self._execute(
                f"INSERT INTO {table} (id, title, {column}) VALUES (%s, %s, %s) "
                f"ON CONFLICT (id) DO UPDATE SET title = excluded.title, {column} = excluded.{column}",
                [(ref.id, *texts) for ref, texts in entities.items() if ref.type == name],
            )
        self.texts |= {ref: collapse(build_text(*texts)) for ref, texts in entities.items()}

    def delete(self, ref: EntityRef) -> None:
        self._execute(f"DELETE FROM {TABLES[ref.type][0]} WHERE id = %s", [(ref.id,)])
        del self.texts[ref]

    def publish(self, messages: Sequence[Message]) -> None:
        """By a plain NATS client, as the MCP servers do; each message is published until the stream has it."""
        asyncio.run(self._publish(messages))

    async def _publish(self, messages: Sequence[Message]) -> None:
        url = self.addresses.nats_url
        assert url is not None
        left = list(messages)
        deadline = time.monotonic() + 60
        while left:
            assert time.monotonic() < deadline, "NATS did not come back"
            try:
                client = await nats.connect(url, allow_reconnect=False, error_cb=_quiet)
            except (NatsError, OSError):
                await asyncio.sleep(0.1)
                continue
            try:
                stream = client.jetstream()
                while left:
                    subject, body = left[0]
                    await stream.publish(subject, body if isinstance(body, bytes) else json.dumps(body).encode())
                    left.pop(0)
            except (NatsError, OSError):
                await asyncio.sleep(0.1)
            finally:
                with suppress(NatsError, OSError):
                    await client.close()

    # What people see

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [SCRIPTS / "mcp-assets", *words],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def found_by(self, query: str) -> list[EntityRef]:
        """Entities that `mcp-assets search` answers, best first."""
        done = self.command("search", query, "--json")
        assert done.returncode in (0, 1), done.stderr
        return [EntityRef(hit["entity_type"], hit["entity_id"]) for hit in json.loads(done.stdout)]

    def status(self) -> dict[str, Any]:
        done = self.command("status", "--json")
        assert done.returncode in (0, 3), done.stderr
        reported: dict[str, Any] = json.loads(done.stdout)
        return reported

    # The audit

    def audit(self) -> list[str]:
        """What of the collections is not as the texts say: missing, stale, orphan and duplicate points."""
        client = qdrant_at(self.addresses)
        wrong: list[str] = []
        seen: set[EntityRef] = set()
        try:
            for name, collection in COLLECTIONS.items():
                if not client.collection_exists(collection):
                    continue
                points, rest = client.scroll(collection, limit=10_000, with_vectors=True)
                assert rest is None
                for point in points:
                    payload = point.payload or {}
                    ref = EntityRef(payload["entity_type"], payload["entity_id"])
                    if ref.type != name or ref not in self.texts:
                        wrong.append(f"orphan {ref} in {collection}")
                    elif ref in seen or str(point.id) != str(point_id(ref)):
                        wrong.append(f"duplicate {ref}")
                    elif not np.allclose(np.array(point.vector), vector_of(self.texts[ref], DIMENSION), atol=1e-4):
                        wrong.append(f"stale {ref}")
                    seen.add(ref)
        finally:
            client.close()
        return wrong + [f"missing {ref}" for ref in self.texts.keys() - seen]

    def settled(self) -> bool:
        """Nothing is unread, unapplied or dirty."""
        return bool(self.status()["pending"]["idle"])

    def wait_until_converged(self, timeout_s: float = 120.0) -> None:
        """Wait until all is applied; then the collections hold exactly what the texts say."""
        until(lambda: self.pending() == 0, "everything is applied", within_s=timeout_s)
        until(self.settled, "status is idle", within_s=timeout_s)
        wrong = self.audit()
        assert not wrong, f"{len(wrong)} points are not as the truth says: {sorted(wrong)[:10]}"

    def pending(self) -> int | None:
        """Messages in the inbox and entities that Qdrant does not hold yet; None while PostgreSQL is down."""
        try:
            with psycopg.connect(self._database) as connection:
                row = connection.execute(
                    "SELECT (SELECT count(*) FROM mcp_assets.inbox)"
                    " + (SELECT count(*) FROM mcp_assets.entities WHERE dirty)"
                ).fetchone()
        except psycopg.OperationalError:
            return None
        assert row is not None
        return int(row[0])

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self._database) as connection:
            return connection.execute(sql.encode()).fetchall()

    def _execute(self, sql: str, rows: Iterable[tuple[Any, ...]]) -> None:
        with psycopg.connect(self._database) as connection, connection.cursor() as cursor:
            cursor.executemany(sql.encode(), rows)

    @property
    def _database(self) -> str:
        assert self.addresses.database_url is not None
        return self.addresses.database_url

    # The embedder

    def embedded(self) -> dict[str, int]:
        """The stub's counts: `texts` embedded, `distinct_texts` among them."""
        with urllib.request.urlopen(f"{self._stub}/stats") as answer:
            counts: dict[str, int] = json.load(answer)
        return counts

    def count_from_zero(self) -> None:
        """What `embedded` counts begins again."""
        urllib.request.urlopen(urllib.request.Request(f"{self._stub}/stats", data=b"")).close()

    def slow_embedder(self, latency_s: float) -> None:
        """Each request takes `latency_s` from now on, so that work is in flight when something is killed."""
        body = json.dumps({"kind": "latency", "times": None, "latency_s": latency_s}).encode()
        urllib.request.urlopen(urllib.request.Request(f"{self._stub}/faults", data=body)).close()

    def quick_embedder(self) -> None:
        urllib.request.urlopen(urllib.request.Request(f"{self._stub}/faults", method="DELETE")).close()

    @property
    def _stub(self) -> str:
        return self.embedder_url.removesuffix("/v1")

    # The end

    def processes(self) -> list[psutil.Process]:
        """Every living process that works in this place or whose environment names it, whatever started it."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE and self._is_here(process):
                    found.append(process)
        return found

    def _is_here(self, process: psutil.Process) -> bool:
        place = str(self.folder)
        with suppress(psutil.Error):
            if process.environ().get("MCP_ASSETS_STATE_DIR", "").startswith(place):
                return True
        return any(place in text for text in (process.cwd(), *process.cmdline()))


def launch(folder: Path) -> Live:
    """Stack and embedder up in `folder`, with copies of the checkout's workspace.yaml and dagster.yaml."""
    for name in ("workspace.yaml", "dagster.yaml"):
        shutil.copy(CHECKOUT / name, folder / name)
    addresses = stack.start(folder / ".mcp", list(stack.Part))
    embedder = subprocess.Popen(
        [sys.executable, "-m", "mcp_assets_tests.openai_stub", "--port", "0", "--dimension", str(DIMENSION)],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert embedder.stdout is not None
    live = Live(folder, addresses, embedder, embedder.stdout.readline().strip())
    # Makes the stack's tables and the stream; the stack itself runs already.
    done = live.command("up", "--json")
    assert done.returncode == 0, done.stderr
    return live


def end(live: Live) -> list[str]:
    """End all of it in good order; the command lines of what was left over then, and had to be killed."""
    live.stop_daemon()
    # A code server waits for its runs; that of a daemon that was killed misses the daemon's heartbeats first.
    _, left = psutil.wait_procs([found for found in live.processes() if "dagster" in _words(found)], timeout=90)
    live.embedder.kill()
    live.embedder.communicate()
    stack.stop(live.state_dir)
    left += [found for found in live.processes() if found not in left]
    reported = [_words(found) for found in left]
    for found in left:
        with suppress(psutil.NoSuchProcess):
            found.kill()
    return reported


def _words(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def clean_environment() -> dict[str, str]:
    """This process's environment without any of the platform's settings."""
    settings = {str(known.validation_alias) for known in Settings.model_fields.values()}
    return {name: value for name, value in os.environ.items() if name not in settings | {"DAGSTER_HOME"}}


async def _quiet(_: Exception) -> None:
    """The test kills servers: the loop above tries again."""
