"""The keeper of `mcp-assets dev`: runs Dagster's code servers, webserver and daemon, and restarts each that dies.

`python -m mcp_assets.processes.dagster_services FOLDER HOST PORT [WORKSPACE]`, started by `mcp_assets.cli.dagster_dev`,
which reads in the file `services.json` of FOLDER what each service does. WORKSPACE: the file that says what is loaded,
in place of what workspace.yaml or pyproject.toml of the working folder say.
`dagster dev` ends all services when one of them ends, does not notice the death of the process that has the definitions
loaded, and leaves its services behind when it is killed itself. In production systemd or an orchestrator does this.

Each service is a child that the kernel kills when the keeper dies. What a service starts (the process with the
definitions, the forkserver, runs in sessions of their own) becomes the keeper's child when its parent dies, so that
nothing outlives the keeper's own end.
"""

import asyncio
import itertools
import json
import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil
from dagster._cli.utils import get_instance_for_cli
from dagster._cli.workspace.cli_target import workspace_opts_to_load_target
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin, ManagedGrpcPythonEnvCodeLocationOrigin
from dagster._grpc.client import DagsterGrpcClient
from dagster._serdes import deserialize_value, serialize_value
from dagster_shared.cli import WorkspaceOpts
from dagster_shared.error import SerializableErrorInfo

from mcp_assets.logs import VARIABLE, use_json_if_set
from mcp_assets.processes.tree import Backoff, adopt_orphans, end_below, living_below, reap_adopted, tied

log = logging.getLogger("mcp_assets.services")

GAVE_UP = 1
"""Exit code when a service has never run: another start would fail as this one did."""

FAILED_STARTS = 4
"""A service that ended by itself at this many starts in a row, and never ran steadily, ends the keeper."""

STEADY_S = 30.0
"""As `Backoff.steady_s`: Dagster's services import for some seconds before they can fail."""

LONGEST_DELAY_S = 10.0
"""The longest delay before a restart; an outage of PostgreSQL ends the services, and they return this long after it."""

RELOAD_S = 15.0
"""How often a code server is asked whether it has loaded the definitions. Doubled after each that has not."""

LONGEST_RELOAD_S = 240.0
"""The longest time between two restarts of a code server whose definitions cannot be loaded."""

TICK_S = 1.0
"""How often the keeper looks for a code server without the process that has the definitions loaded."""

PATIENCE_S = 3.0
"""How long services and runs may take to end in good order. A sensor's tick may take minutes; it is done again."""

_POLL_S = 0.05


BOARD = "services.json"
"""File in the keeper's folder: a list of what each service does, as name, sentence, and whether it answers."""


class ServiceFailed(Exception):
    """A service that has never run steadily failed again and again; the message names it."""


@dataclass
class Service:
    """One process to keep running. `socket`: where a code server listens."""

    name: str
    command: Sequence[str]
    socket: Path | None = None
    backoff: Backoff = field(default_factory=lambda: Backoff(longest_s=LONGEST_DELAY_S, steady_s=STEADY_S))
    pid: int | None = None
    loaded: set[psutil.Process] = field(default_factory=set)
    """The processes, below a code server, that have the definitions loaded."""
    does: str = "waits for the code server"
    is_serving: bool = False
    on_change: Callable[[], None] = lambda: None
    """Called when `does` or `is_serving` has changed."""

    async def keep(self) -> None:
        """Run until cancelled, started again after each end. Raises ServiceFailed."""
        while True:
            if self.socket is not None:
                self.socket.unlink(missing_ok=True)
            began = time.monotonic()
            self._tell("loads Dagster" if self.socket is None else "loads the definitions")
            process = await asyncio.create_subprocess_exec(
                *tied(self.command, signal.SIGKILL), stdin=asyncio.subprocess.DEVNULL
            )
            self.pid = process.pid
            code = await process.wait()
            self.pid = None
            self._end_loaded()
            delay = self.backoff.after(time.monotonic() - began)
            reason = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
            if code >= 0 and not self.backoff.was_steady and self.backoff.failures >= FAILED_STARTS:
                raise ServiceFailed(f"the {self.name} {reason} at each of {self.backoff.failures} starts")
            log.warning("the %s %s; next start in %.1f s", self.name, reason, delay)
            self._tell(f"{reason}; starts again in {delay:.1f} s")
            await asyncio.sleep(delay)

    def _tell(self, does: str, *, is_serving: bool = False) -> None:
        self.does, self.is_serving = does, is_serving
        self.on_change()

    async def wait_until_serving(self) -> None:
        """Wait until a connection is taken: a code server listens once it has loaded the definitions, or failed to."""
        while True:
            try:
                _, writer = await asyncio.open_unix_connection(str(self.socket))
            except (FileNotFoundError, ConnectionRefusedError):
                await asyncio.sleep(_POLL_S)
                continue
            writer.close()
            self._tell("has loaded the definitions", is_serving=True)
            return

    async def restart_when_not_loaded(self) -> None:
        """Until cancelled: kill a code server that serves an error instead of the definitions, so that it starts again.

        The definitions may not have loaded because PostgreSQL was away at that moment, and Dagster does not try again
        by itself. Definitions that are wrong fail again, at longer and longer intervals; the UI shows why.
        """
        delay_s = RELOAD_S
        while True:
            await asyncio.sleep(delay_s)
            if self.socket is None or self.pid is None or not self.socket.exists():
                continue
            reason = await asyncio.to_thread(_load_error, self.socket)
            if reason is None:
                delay_s = RELOAD_S
                continue
            delay_s = min(2 * delay_s, LONGEST_RELOAD_S)
            log.warning("the %s could not load the definitions, and is started again: %s", self.name, reason)
            if self.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)

    def look_after_loaded(self) -> None:
        """Kill a code server, so that it is started again, when the process behind it has died.

        Dagster's code server passes requests on to a process that has the definitions loaded, and never replaces one
        that died. It listens once that process runs, so that one that listens without such a process has lost it, be it
        before it was seen here. Definitions that cannot be loaded are no reason for that process to end.
        """
        if self.socket is None or self.pid is None:
            return
        now = {process for process in living_below(self.pid) if _serves_definitions(process)}
        if now:
            self.loaded = now
            return
        if not self.loaded and not self.socket.exists():
            return
        log.warning("no process is left behind the %s: the %s is started again", self.name, self.name)
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def _end_loaded(self) -> None:
        for process in self.loaded:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.loaded = set()


def _load_error(socket: Path) -> str | None:
    """Why the code server at `socket` has not loaded the definitions. None: it has, or it does not answer."""
    client = DagsterGrpcClient(socket=str(socket), use_ssl=False)
    try:
        answer = deserialize_value(client.list_repositories())
    except DagsterUserCodeUnreachableError:
        return None
    return answer.message.strip() if isinstance(answer, SerializableErrorInfo) else None


def _serves_definitions(process: psutil.Process) -> bool:
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    return any(pair == ("api", "grpc") for pair in itertools.pairwise(words))


def services_of(folder: Path, host: str, port: int, given: Path | None) -> tuple[list[Service], list[Service]]:
    """The code servers of this folder's workspace, and the services that ask them. Writes their workspace to `folder`.

    `given`: the workspace file that counts, whatever the working folder has.
    Raises whatever Dagster does about a workspace or an instance that it cannot read.
    """
    target = workspace_opts_to_load_target(WorkspaceOpts(workspace=[str(given)]) if given else WorkspaceOpts())
    # Opened once before several processes open it at the same time: the first one makes the tables.
    with get_instance_for_cli() as instance:
        instance_ref = serialize_value(instance.get_ref())
        startup_timeout_s = instance.code_server_process_startup_timeout
    code_servers: list[Service] = []
    workspace: list[dict[str, object]] = []
    server: dict[str, object]
    for number, origin in enumerate(target.create_origins()):
        if isinstance(origin, GrpcServerCodeLocationOrigin):
            server = {"host": origin.host, "port": origin.port, "socket": origin.socket}
        elif isinstance(origin, ManagedGrpcPythonEnvCodeLocationOrigin):
            socket = folder / f"code{number}"
            loadable = origin.loadable_target_origin
            python = loadable.executable_path
            command = [
                *(python or sys.executable, "-m", "dagster", "code-server", "start"),
                *("--socket", str(socket), "--location-name", origin.location_name),
                *("--log-level", "warning", "--startup-timeout", str(startup_timeout_s)),
                *("--inject-env-vars-from-instance", "--instance-ref", instance_ref, *_log_format()),
                *(["--use-python-environment-entry-point"] if python else []),
                *loadable.get_cli_args(),
            ]
            code_servers.append(Service(f"code server {origin.location_name}", command, socket))
            server = {"host": "localhost", "socket": str(socket), "additional_metadata": loadable.as_dict}
        else:
            raise TypeError(f"workspace.yaml names a kind of code location that is not known here: {origin}")
        named = {"location_name": origin.location_name, **server}
        workspace.append({"grpc_server": {key: value for key, value in named.items() if value is not None}})
    file = folder / "workspace.yaml"
    file.write_text(json.dumps({"load_from": workspace}))
    common = ("--workspace", str(file), "--instance-ref", instance_ref, *_log_format())
    return code_servers, [
        Service(
            "webserver",
            [
                *(sys.executable, "-m", "mcp_assets.webserver", "--host", host, "--port", str(port)),
                *("--dagster-log-level", "info", *common),
            ],
        ),
        Service("daemon", [sys.executable, "-m", "dagster._daemon", "run", "--log-level", "info", *common]),
    ]


def _log_format() -> Sequence[str]:
    """The option by which Dagster's services write their logs as JSON, if the setting says so."""
    return ("--log-format", "json") if os.environ.get(VARIABLE) == "json" else ()


def _tell_all(services: Sequence[Service], file: Path) -> None:
    """Write what each service does, for the process that waits for all of them."""
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps([(one.name, one.does, one.is_serving) for one in services]))
    fresh.replace(file)


async def keep(
    code_servers: Sequence[Service], others: Sequence[Service], stop: asyncio.Event, *, folder: Path
) -> None:
    """Run all services until `stop`; what each does is in a file of `folder`. Raises ServiceFailed."""
    everything = [*code_servers, *others]
    tell_all = partial(_tell_all, everything, folder / BOARD)
    for service in everything:
        service.on_change = tell_all
    tell_all()
    running: list[asyncio.Task[None]] = []

    async def start() -> None:
        running.extend(asyncio.ensure_future(service.keep()) for service in code_servers)
        running.extend(asyncio.ensure_future(service.restart_when_not_loaded()) for service in code_servers)
        # A webserver or daemon that is up first shows an error until it looks for the code server again.
        for service in code_servers:
            await service.wait_until_serving()
        running.extend(asyncio.ensure_future(service.keep()) for service in others)

    starting = asyncio.ensure_future(start())
    try:
        while not stop.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), TICK_S)
            for task in (starting, *running):
                if task.done():
                    task.result()
            for service in code_servers:
                service.look_after_loaded()
            reap_adopted(service.pid for service in everything if service.pid is not None)
    finally:
        for task in (starting, *running):
            task.cancel()


async def _main(folder: Path, host: str, port: int, workspace: Path | None) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    code_servers, others = services_of(folder, host, port, workspace)
    try:
        await keep(code_servers, others, stop, folder=folder)
    except ServiceFailed as error:
        log.error("%s: see its output above", error)  # noqa: TRY400
        return GAVE_UP
    finally:
        end_below(PATIENCE_S)
    return 0


def main() -> int:
    """Keep the services of the workspace in this folder until SIGTERM."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    use_json_if_set()
    folder, host, port, *workspace = sys.argv[1:]
    starter = os.getppid()
    adopt_orphans()
    try:
        return asyncio.run(_main(Path(folder), host, int(port), Path(workspace[0]) if workspace else None))
    finally:
        if os.getppid() != starter:  # which would remove it otherwise
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
