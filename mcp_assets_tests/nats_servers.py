"""NATS servers of a test's own, to be stopped, set back and clustered; real ones, from the wheel."""

import asyncio
import contextlib
import shutil
import signal
import socket
import subprocess
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import nats
from nats.js import JetStreamContext
from nats.js.errors import APIError
from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_fixed

from mcp_assets.embedded.servers.nats import _binary
from mcp_assets_tests.waiting import until

T = TypeVar("T")

STARTED_WITHIN_S = 60.0

STORE_NOT_MADE = 10049
"""The server's error code: it could not make the folder of a stream."""


class Server:
    """One server in a folder of its own. What it stores outlives its process, until it is set back."""

    def __init__(self, folder: Path, configuration: str = "", port: int | None = None, *, jetstream: str = "") -> None:
        self.folder = folder
        self.port = port or free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.folder.mkdir(parents=True, exist_ok=True)
        self._store = folder / "store"
        (folder / "nats.conf").write_text(
            f'listen: "127.0.0.1:{self.port}"\njetstream {{ store_dir: "{self._store}"\n{jetstream} }}\n'
            f"{configuration}\n"
        )

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self, user: str = "") -> None:
        """Returns when it answers `user` (`name:password@`, if it has users)."""
        self.launch()
        self.wait_until_it_answers(user)

    def launch(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(_binary()), "-c", str(self.folder / "nats.conf")], stdout=log, stderr=subprocess.STDOUT
            )

    def wait_until_it_answers(self, user: str = "") -> None:
        until(
            partial(self._answers, user),
            f"NATS answers at {self.url} (its log is {self.folder}/log)",
            within_s=STARTED_WITHIN_S,
        )

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait()

    def keep(self) -> None:
        """Keep a copy of what the server stores, as a backup or a restored disk has it."""
        self.stop()
        shutil.copytree(self._store, self.folder / "kept")
        self.start()

    def set_back(self) -> None:
        """Lose everything that was stored since `keep`."""
        self.stop()
        shutil.rmtree(self._store)
        shutil.copytree(self.folder / "kept", self._store)
        self.start()

    def lose_all(self) -> None:
        """Begin anew with nothing stored, as a new server of the same name on the same address."""
        self.stop()
        shutil.rmtree(self._store)
        self.start()

    def _answers(self, user: str) -> bool:
        async def ask() -> None:
            client = await nats.connect(
                self.url.replace("//", f"//{user}"), allow_reconnect=False, connect_timeout=2, reconnect_time_wait=0
            )
            await client.close()

        try:
            asyncio.run(ask())
        except (OSError, nats.errors.Error):
            return False
        return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def on_jetstream(url: str, act: Callable[[JetStreamContext], Awaitable[T]]) -> T:
    """Run `act` with a JetStream client of its own: what an operator does to a stream."""

    async def run() -> T:
        client = await nats.connect(url)
        try:
            return await act(client.jetstream())
        finally:
            await client.close()

    return asyncio.run(run())


async def remake_stream(js: JetStreamContext, name: str, subjects: Sequence[str]) -> None:
    """Delete the stream and make it again, as an operator does who starts anew.

    The server removes a deleted stream's folder after it has answered, and refuses to make the stream until then.
    """
    await js.delete_stream(name)
    async for attempt in AsyncRetrying(
        retry=retry_if_exception(lambda error: isinstance(error, APIError) and error.err_code == STORE_NOT_MADE),
        wait=wait_fixed(0.1),
        stop=stop_after_delay(STARTED_WITHIN_S),
        reraise=True,
    ):
        with attempt:
            await js.add_stream(name=name, subjects=list(subjects))


@contextlib.contextmanager
def cluster(folder: Path, size: int = 3) -> Iterator[Sequence[Server]]:
    """Servers n0, n1, … that form a cluster; all are killed at the end.

    A node that was away catches up slowly, as over a network, so that it can be read while it does.
    """
    routes = [free_port() for _ in range(size)]
    known = ", ".join(f'"nats://127.0.0.1:{port}"' for port in routes)
    nodes = [
        Server(
            folder / f"n{n}",
            f'server_name: n{n}\ncluster {{ name: c, listen: "127.0.0.1:{routes[n]}", routes: [{known}] }}',
            jetstream="max_outstanding_catchup: 32KB",
        )
        for n in range(size)
    ]
    try:
        for node in nodes:
            node.launch()
        for node in nodes:
            node.wait_until_it_answers()
        yield nodes
    finally:
        for node in nodes:
            node.stop(signal.SIGKILL)
