"""The Qdrant engine behind its loopback server, `mcp_assets.embedded.qdrant`."""

import asyncio
import signal
import sys
from pathlib import Path

import psutil

from mcp_assets.embedded.ports import LOOPBACK, LoopbackPort, listens
from mcp_assets.embedded.servers.base import ANSWER_TIMEOUT_S, Command
from mcp_assets.embedded.state import SECRET_FILE, key_of, secret_of

USUAL_PORT = 6333

MODULE = "mcp_assets.embedded.qdrant"


class QdrantServer:
    """`directory` holds the collections; `remembered_port` is the one of the run before, if any."""

    stop_signal = signal.SIGTERM

    def __init__(self, directory: Path, remembered_port: int | None) -> None:
        self._directory = directory
        self._port = LoopbackPort(USUAL_PORT, remembered_port, "QDRANT_URL")

    @property
    def address(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def port(self) -> int:
        return self._port.number

    @property
    def notice(self) -> str | None:
        return self._port.notice

    def preparation(self) -> None:
        self._directory.mkdir(mode=0o700, exist_ok=True)
        self._port.choose()
        secret_of(self._directory.parent)

    def prepared(self) -> None:
        pass

    def command(self) -> Command:
        address = ("--host", LOOPBACK, "--port", str(self.port))
        return Command(
            argv=(
                sys.executable,
                "-m",
                MODULE,
                *address,
                "--storage",
                str(self._directory),
                "--mark",
                key_of(self._directory.parent),
                # The path and not the secret, which the list of processes would show.
                "--key-file",
                str(self._directory.parent / SECRET_FILE),
            ),
            directory=self._directory,
            end_signal=self.stop_signal,
        )

    def lost_its_port(self) -> bool:
        return self._port.was_lost()

    async def answers(self, pid: int) -> bool:
        if not listens(pid, self.port):
            return False
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                reader, writer = await asyncio.open_connection(LOOPBACK, self.port)
                try:
                    writer.write(f"GET /readyz HTTP/1.1\r\nHost: {LOOPBACK}\r\nConnection: close\r\n\r\n".encode())
                    status_line = await reader.readline()
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return False
        if status_line.split()[1:2] != [b"200"]:
            return False
        self._port.announce()
        return True

    def owns(self, process: psutil.Process) -> bool:
        return MODULE in process.cmdline() and Path(process.cwd()) == self._directory

    def close(self) -> None:
        pass
