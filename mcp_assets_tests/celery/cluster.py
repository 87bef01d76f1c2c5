"""Cluster: the live platform with Redis as a broker and Celery workers, each in a folder of its own."""

import os
import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import redis

from mcp_assets_tests.acceptance.live import CHECKOUT, PATIENCE_S, SCRIPTS, Live
from mcp_assets_tests.nats_servers import free_port
from mcp_assets_tests.waiting import until

BROKER = shutil.which("redis-server")
"""Debian's package redis-server."""


_READY_S = 300.0
"""Seconds for several workers to import everything, on two cores that are busy."""

UNIT = CHECKOUT / "deploy/celery/mcp-assets-worker.service"


@dataclass
class Cluster:
    """The platform on the stores of `live`, whose daemon hands runs to workers."""

    live: Live
    port: int = field(default_factory=free_port)
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    broker: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the broker, and have the daemon use it from now on."""
        folder = self.live.folder / "redis"
        folder.mkdir()
        assert BROKER is not None
        with (folder / "log").open("ab") as log:
            self.broker = subprocess.Popen(
                [BROKER, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                start_new_session=True,
            )
        client = redis.Redis(port=self.port)
        until(lambda: _answers(client), "the broker answers", within_s=PATIENCE_S)
        client.close()
        configure(self.live.folder)
        addresses = self.live.addresses
        self.live.settings |= {
            "CELERY_BROKER_URL": f"redis://127.0.0.1:{self.port}/0",
            "CELERY_RESULT_URL": f"redis://127.0.0.1:{self.port}/1",
            "DATABASE_URL": addresses.database_url or "",
            "NATS_URL": addresses.nats_url or "",
            "QDRANT_URL": addresses.qdrant_url or "",
            # The workers have states of their own, and so not the secret of this stack.
            "QDRANT_API_KEY": addresses.qdrant_api_key or "",
        }

    def start_worker(self, name: str, queues: str = "dagster,prompt", *, processes: int = 2) -> None:
        """A worker as another machine has it: its own DAGSTER_HOME, working folder and state folder."""
        folder = self.live.folder / name
        folder.mkdir(exist_ok=True)
        shutil.copy(self.live.folder / "dagster.yaml", folder / "dagster.yaml")
        own = {
            "DAGSTER_HOME": str(folder),
            "MCP_ASSETS_STATE_DIR": str(folder / "state"),
        }
        with (folder / "log").open("wb") as log:
            self.workers[name] = subprocess.Popen(
                [*command(), "--hostname", f"{name}@%h", "--queues", queues, "--concurrency", str(processes)],
                cwd=folder,
                env=self.live.environment | own,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_for_workers(self, *names: str) -> None:
        """Wait until they take runs: their logs say so once everything is imported."""
        until(
            lambda: all(b" ready." in self._log(name) for name in names),
            "the workers are ready",
            within_s=_READY_S,
        )

    def kill_worker(self, name: str) -> None:
        """kill -9 of the worker and of the runs that it has, as when its machine loses power."""
        worker = self.workers.pop(name)
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait(10)

    def stop_worker(self, name: str) -> None:
        """End a worker as a service manager does: it lets its runs finish."""
        worker = self.workers.pop(name)
        worker.terminate()
        try:
            worker.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait(10)

    def end(self) -> None:
        """End workers and broker."""
        for name in list(self.workers):
            self.stop_worker(name)
        if self.broker is not None:
            self.broker.terminate()
            self.broker.wait(10)

    def _log(self, name: str) -> bytes:
        return (self.live.folder / name / "log").read_bytes()


def command() -> list[str]:
    """The command of the unit of a worker, with this environment's programs."""
    (line,) = [line for line in UNIT.read_text().splitlines() if line.startswith("ExecStart=")]
    return line.removeprefix("ExecStart=").replace("/opt/mcp-assets/venv/bin", str(SCRIPTS)).split()


def configure(folder: Path) -> None:
    """The dagster.yaml of deploy/celery, as a site copies it."""
    shutil.copy(CHECKOUT / "deploy/celery/dagster.yaml", folder / "dagster.yaml")


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False
