"""The supervisor: one detached process that starts the wanted servers, restarts those that die, and ends them all.

`python -m mcp_assets.embedded.supervisor STATE_DIR`; `stack.start` runs it. It goes into the background by itself, in a
session of its own, and ends on SIGTERM, or when its state directory is removed. The servers are its children, and the
kernel ends them should it be killed.
"""

import asyncio
import logging
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path

import psutil

from mcp_assets.embedded.servers.base import Command, PreparationError, Server
from mcp_assets.embedded.servers.nats import NatsServer
from mcp_assets.embedded.servers.postgres import PostgresServer
from mcp_assets.embedded.servers.qdrant import QdrantServer
from mcp_assets.embedded.state import PREPARING, Part, PartState, PartStatus, StackStatus, StateDir, shown_address
from mcp_assets.logs import use_json_if_set
from mcp_assets.processes import child
from mcp_assets.processes.tree import Backoff

log = logging.getLogger("mcp_assets.embedded.supervisor")

LOG_BYTES = 2_000_000
"""Size at which a log file is put aside; one older file is kept."""

GRACE_S = 8.0
"""How long a server may take to end in good order before it is killed."""

LEFTOVER_GRACE_S = 1.0
"""The same for processes that a crash left behind. It is short, because a restart waits for it and each server recovers
from a kill."""

TICK_S = 1.0
"""How often the supervisor looks whether more parts are wanted, and whether its state directory is still there."""


def server_of(part: Part, directory: Path, remembered_port: int | None) -> Server:
    match part:
        case Part.POSTGRES:
            return PostgresServer(directory)
        case Part.NATS:
            return NatsServer(directory, remembered_port)
        case Part.QDRANT:
            return QdrantServer(directory, remembered_port)


def end_leftovers(server: Server) -> bool:
    """End the processes that belong to `server`, also those of an earlier supervisor, and wait until they are gone.

    True if there were any. A dead process that no parent reaps is not waited for long.
    """
    leftovers = []
    for process in psutil.process_iter():
        try:
            if server.owns(process):
                process.send_signal(server.stop_signal)
                leftovers.append(process)
        except psutil.Error:
            continue  # gone meanwhile, or another user's and so not ours
    _, stubborn = psutil.wait_procs(leftovers, timeout=LEFTOVER_GRACE_S)
    for process in stubborn:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(stubborn, timeout=LEFTOVER_GRACE_S)
    return bool(leftovers)


class ServerOutput:
    """The bounded log file of one server: a pipe that its processes write to, and the supervisor empties."""

    def __init__(self, path: Path, *, max_bytes: int = LOG_BYTES) -> None:
        """`max_bytes`: size at which the file is put aside; one older file is kept."""
        self._file = RotatingFileHandler(path, maxBytes=max_bytes, backupCount=1, encoding="utf-8")
        self._file.terminator = ""
        self._read_end, self.write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        self._tail = ""
        asyncio.get_running_loop().add_reader(self._read_end, self._drain)

    def close(self) -> None:
        self._drain()
        asyncio.get_running_loop().remove_reader(self._read_end)
        os.close(self._read_end)
        os.close(self.write_end)
        self._file.close()

    def last_lines(self) -> str:
        """The end of what was written so far, for an error message."""
        self._drain()
        return " | ".join(self._tail.splitlines()[-3:])

    def _drain(self) -> None:
        while True:
            try:
                text = os.read(self._read_end, 1 << 16).decode(errors="replace")
            except BlockingIOError:
                return
            self._file.emit(logging.makeLogRecord({"msg": text}))
            self._tail = (self._tail + text)[-1500:]


class Keeper:
    """Keeps one server running: starts it, checks that it answers, restarts it with backoff when it dies."""

    def __init__(self, part: Part, server: Server, log_path: Path, publish: Callable[[Part, PartStatus], None]) -> None:
        self._part = part
        self._server = server
        self._log_path = log_path
        self._publish = publish
        self._status = PartStatus(port=server.port)

    async def keep(self) -> None:
        """Runs until cancelled, and then ends the server in good order."""
        loop = asyncio.get_running_loop()
        backoff = Backoff()
        self._tell(PartState.STARTING)
        try:
            while True:
                began = loop.time()
                try:
                    reason = await self._run_once()
                except (PreparationError, OSError) as error:
                    reason = str(error)
                else:
                    if self._server.lost_its_port():
                        log.warning("%s: another program has taken port %d: %s", self._part, self._server.port, reason)
                        self._tell(self._status.state, detail=f"port {self._server.port} is taken: trying the next")
                        continue
                delay = backoff.after(loop.time() - began)
                log.warning("%s: %s; next start in %.1f s", self._part, reason, delay)
                self._tell(PartState.RESTARTING, detail=reason, restarts=self._status.restarts + 1)
                await asyncio.sleep(delay)
        finally:
            await asyncio.to_thread(end_leftovers, self._server)
            self._server.close()
            self._tell(PartState.DOWN)

    async def _run_once(self) -> str:
        """Start the server and watch it until it ends unasked; how it ended, with its last lines.

        Raises PreparationError or OSError when it cannot be started.
        """
        if await asyncio.to_thread(end_leftovers, self._server):
            log.warning("%s: ended processes that were left of it", self._part)
        with self._output() as output:
            preparation = self._server.preparation()
            if preparation is not None:
                self._tell(self._status.state, detail=PREPARING)
                async with running(preparation, output) as process:
                    code = await process.wait()
                if code != 0:
                    return f"its files could not be made: {_end_of(code)}: {output.last_lines()}"
                self._server.prepared()
                self._tell(self._status.state)
            async with running(self._server.command(), output) as process:
                end = asyncio.ensure_future(process.wait())
                while not end.done():
                    if await self._server.answers(process.pid):
                        self._tell(
                            PartState.RUNNING,
                            pid=process.pid,
                            address=self._server.address,
                            detail=self._server.notice,
                        )
                        shown = shown_address(self._server.address)
                        log.info("%s: process %d answers at %s", self._part, process.pid, shown)
                        break
                    await asyncio.wait({end}, timeout=0.05)
                code = await end
            return f"{_end_of(code)}: {output.last_lines()}"

    @contextmanager
    def _output(self) -> Iterator[ServerOutput]:
        output = ServerOutput(self._log_path)
        try:
            yield output
        finally:
            output.close()

    def _tell(
        self,
        state: PartState,
        *,
        pid: int | None = None,
        address: str | None = None,
        detail: str | None = None,
        restarts: int | None = None,
    ) -> None:
        known = self._status
        self._status = PartStatus(
            state=state,
            pid=pid,
            address=address or known.address,
            port=self._server.port,
            restarts=known.restarts if restarts is None else restarts,
            since=known.since if state == known.state else datetime.now(UTC),
            detail=detail,
        )
        self._publish(self._part, self._status)


@asynccontextmanager
async def running(command: Command, output: ServerOutput) -> AsyncIterator[Process]:
    """The process of `command`, tied to this one's life; ended, first in good order, on the way out."""
    user = command.user or (-1, -1)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", child.__file__),
        *(str(number) for number in (os.getpid(), int(command.end_signal), *user)),
        *command.argv,
        stdin=DEVNULL,
        stdout=output.write_end,
        stderr=STDOUT,
        cwd=command.directory,
        env=command.environment,
        pass_fds=command.descriptors,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(command.end_signal)
            try:
                await asyncio.wait_for(process.wait(), GRACE_S)
            except TimeoutError:
                log.warning("process %d did not end within %.0f s: killed", process.pid, GRACE_S)
                process.kill()
                await process.wait()


def _end_of(code: int) -> str:
    return f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


async def supervise(state: StateDir, lock: int) -> None:
    """Run the wanted parts until SIGTERM or the removal of the state directory."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    statuses = {part: PartStatus(port=old.port) for part, old in state.published().parts.items()}

    def publish(part: Part, status: PartStatus) -> None:
        statuses[part] = status
        try:
            state.publish(StackStatus(supervisor_pid=os.getpid(), parts=statuses))
        except OSError as error:  # a full disk, or no directory any more: the servers matter more than their status
            log.error("stack.json could not be written: %s", error)  # noqa: TRY400

    keepers: dict[Part, asyncio.Task[None]] = {}
    stop_wanted = asyncio.ensure_future(stopping.wait())
    try:
        while not stopping.is_set() and state.is_still_locked_by(lock):
            for part in sorted(state.wanted() - keepers.keys(), key=list(Part).index):
                server = server_of(part, state.directory_of(part), statuses[part].port)
                keeper = Keeper(part, server, state.log_of(part), publish)
                keepers[part] = asyncio.create_task(keeper.keep(), name=part)
            await asyncio.wait({stop_wanted, *keepers.values()}, timeout=TICK_S, return_when=asyncio.FIRST_COMPLETED)
            for keeper_task in keepers.values():
                if keeper_task.done():
                    keeper_task.result()  # a keeper ends by itself only by a defect: raised here, and logged
    finally:
        stop_wanted.cancel()
        for part in reversed(Part):
            if part in keepers:
                keepers[part].cancel()
                await asyncio.wait({keepers[part]})


def main() -> None:
    """Take the state directory's lock, go into the background, supervise. Ends with a message if the lock is taken."""
    state = StateDir(Path(sys.argv[1]))
    os.umask(0o077)
    lock = state.become_supervisor()
    if lock is None:
        sys.exit(f"a supervisor runs in {state.path} already")
    if os.fork() != 0:
        os._exit(0)  # the starter waits for this: the background process has no parent that waits for it
    os.setsid()
    state.sign_supervisor_lock(lock)
    os.chdir("/")
    with Path(os.devnull).open("rb") as nothing, state.supervisor_log.open("ab") as crash_output:
        os.dup2(nothing.fileno(), 0)
        os.dup2(crash_output.fileno(), 1)
        os.dup2(crash_output.fileno(), 2)
    handler = RotatingFileHandler(state.supervisor_log, maxBytes=LOG_BYTES, backupCount=1, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    use_json_if_set()
    log.info("supervisor %d starts", os.getpid())
    asyncio.run(supervise(state, lock))
    log.info("supervisor %d ends", os.getpid())


if __name__ == "__main__":
    main()
