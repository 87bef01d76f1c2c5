"""Running: the platform as processes, under `mcp-assets dev`, in a folder of its own; and what the storm does to them.

`mcp-assets dev` brings back whatever dies below it. Dev itself, and the supervisor of the embedded stack, are started
again by this module, as a service manager would.
"""

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import psutil

from mcp_assets.embedded import stack
from mcp_assets.settings import Settings, variable_of

DIMENSION = 32

_SCRIPTS = Path(sys.executable).parent


class ProcessClass(StrEnum):
    """What the storm kills, by what it does."""

    RUN = "run"
    FORKSERVER = "forkserver"
    DAEMON = "daemon"
    CODE_SERVER = "code_server"
    GRPC_CHILD = "grpc_child"
    WEBSERVER = "webserver"
    NATS = "nats"
    POSTGRES = "postgres"
    QDRANT = "qdrant"
    SUPERVISOR = "supervisor"
    DEV = "dev"


_WORDS: Mapping[ProcessClass, str] = {
    ProcessClass.DAEMON: "dagster._daemon run",
    ProcessClass.CODE_SERVER: "dagster code-server start",
    ProcessClass.GRPC_CHILD: "dagster api grpc",
    ProcessClass.WEBSERVER: "dagster_webserver",
    ProcessClass.NATS: "nats-server --config",
    ProcessClass.QDRANT: "mcp_assets.embedded.qdrant",
    ProcessClass.SUPERVISOR: "mcp_assets.embedded.supervisor",
    ProcessClass.DEV: "mcp-assets dev",
}
"""Words of the command line, without the path of the interpreter, by which a process of the class is known."""

_LAUNCHER = "dagster_warm_launcher"


@dataclass
class Running:
    """The platform in `folder`, once `start` has returned."""

    folder: Path
    provider_url: str
    port: int
    embedded: bool
    """Whether the stores are those of the embedded stack, which has a supervisor to watch."""
    changes: Mapping[str, str] = field(default_factory=dict)
    """Environment variables beside the storm's own."""
    restarted: int = 0
    _dev: "subprocess.Popen[bytes] | None" = None
    _ending: threading.Event = field(default_factory=threading.Event)

    @property
    def state_dir(self) -> Path:
        return self.folder / ".mcp"

    @property
    def environment(self) -> dict[str, str]:
        known = {variable_of(name) for name in Settings.model_fields} | {"DAGSTER_HOME"}
        return {
            **{name: value for name, value in os.environ.items() if name not in known},
            "MCP_ASSETS_STATE_DIR": str(self.state_dir),
            "DAGSTER_HOME": str(self.folder),
            "OPENAI_BASE_URL": self.provider_url,
            "EMBEDDING_MODEL": "stub",
            "EMBEDDING_DIMENSION": str(DIMENSION),
            "SIMILARITY_THRESHOLD": "0.6",
            **self.changes,
        }

    def start(self) -> None:
        """`mcp-assets dev`, and a thread that starts it again whenever it has ended."""
        self._start_dev()
        threading.Thread(target=self._manage, name="service-manager", daemon=True).start()

    def end(self) -> None:
        """End everything in good order; what is left over after that is killed."""
        self._ending.set()
        if self._dev is not None:
            self._dev.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._dev.wait(60)
        self.command("down")
        for process in self.processes():
            with suppress(psutil.Error):
                process.kill()

    def command(self, *words: str, timeout_s: float = 120) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [_SCRIPTS / "mcp-assets", *words],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )

    def status(self) -> dict[str, Any]:
        """What `mcp-assets status` says; raises RuntimeError if it says nothing that is JSON."""
        done = self.command("status", "--json")
        try:
            said: dict[str, Any] = json.loads(done.stdout)
        except ValueError as error:
            raise RuntimeError(f"status: exit {done.returncode}: {done.stdout} {done.stderr}") from error
        return said

    def addresses(self) -> stack.StackAddresses:
        """Where the embedded stores are; raises RuntimeError while the stack does not run."""
        known = stack.addresses(self.state_dir)
        if known is None:
            raise RuntimeError(f"the embedded stack of {self.state_dir} does not run")
        return known

    def ui_answers(self) -> bool:
        """Whether the Dagster UI answers, with the definitions loaded."""
        query = b'{"query": "{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }"}'
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/graphql", query, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return bool(json.load(answer)["data"]["repositoriesOrError"].get("nodes"))
        except (OSError, ValueError):
            return False

    # Processes

    def processes(self) -> list[psutil.Process]:
        """All living processes that work in this folder, also those that this object did not start."""
        place = str(self.folder)
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                    continue
                here = process.environ().get("MCP_ASSETS_STATE_DIR", "").startswith(place)
                if here or any(place in word for word in (process.cwd(), *process.cmdline())):
                    found.append(process)
        return found

    def find(self, wanted: ProcessClass) -> list[psutil.Process]:
        """The processes of one class that are alive now."""
        return [process for process in self.processes() if _class_of(process) is wanted]

    def kill(self, wanted: ProcessClass) -> bool:
        """kill -9 one process of the class; False if there is none at the moment."""
        for process in self.find(wanted):
            with suppress(psutil.NoSuchProcess):
                process.kill()
                return True
        return False

    def _start_dev(self) -> None:
        with (self.folder / "dev.log").open("ab") as log:
            self._dev = subprocess.Popen(
                [sys.executable, _SCRIPTS / "mcp-assets", "dev", "--port", str(self.port)],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _manage(self) -> None:
        while not self._ending.wait(1.0):
            if self._dev is not None and self._dev.poll() is not None:
                self.restarted += 1
                self._start_dev()
            elif self.embedded and not self.find(ProcessClass.SUPERVISOR):
                self.restarted += 1
                self.command("up")


def _class_of(process: psutil.Process) -> ProcessClass | None:
    try:
        words = process.cmdline()
        if not words:
            return None
        line = " ".join(
            [Path(words[0]).name, *(Path(word).name if word.startswith("/") else word for word in words[1:])]
        )
        if _LAUNCHER in words:
            parent = process.parent()
            forked = parent is not None and _LAUNCHER in parent.cmdline()
            return ProcessClass.RUN if forked else ProcessClass.FORKSERVER
        if Path(words[0]).name == "postgres" and "-D" in words:
            return ProcessClass.POSTGRES
    except psutil.Error:
        return None
    return next((found for found, words in _WORDS.items() if words in line), None)


@contextmanager
def running(
    folder: Path, provider_url: str, files: Mapping[str, str], changes: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """The platform up in `folder`, with `files` (name to text) beside its state; all of it ends with the block.

    `changes`: environment variables beside the storm's own; with DATABASE_URL among them nothing embedded is started.
    """
    changes = changes or {}
    for name, text in files.items():
        (folder / name).write_text(text)
    platform = Running(folder, provider_url, _free_port(), "DATABASE_URL" not in changes, changes)
    try:
        platform.start()
        wait_until("the Dagster UI to answer", platform.ui_answers, timeout_s=300)
        yield platform
    finally:
        platform.end()


def wait_until(what: str, look: Callable[[], bool], *, timeout_s: float, every_s: float = 0.2) -> float:
    """Wait until `look` is true; returns the seconds that it took. Raises TimeoutError."""
    began = time.monotonic()
    while not look():
        if time.monotonic() - began > timeout_s:
            raise TimeoutError(f"waited {timeout_s:.0f} s in vain for {what}")
        time.sleep(every_s)
    return time.monotonic() - began


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
