"""A port that another process takes between the choice of it and the start of the server on it."""

import asyncio
import socket
from contextlib import ExitStack
from pathlib import Path

from mcp_assets.embedded.ports import LOOPBACK
from mcp_assets.embedded.servers.nats import NatsServer
from mcp_assets.embedded.stack import FAILED_STARTS
from mcp_assets.embedded.state import Part, PartState, PartStatus
from mcp_assets.embedded.supervisor import Keeper


class RobbedServer(NatsServer):
    """Its port is taken `times` times just before the server starts on it."""

    def __init__(self, directory: Path, listeners: ExitStack, times: int) -> None:
        super().__init__(directory, None)
        self._listeners = listeners
        self._times = times
        self.taken: set[int] = set()

    def preparation(self) -> None:
        super().preparation()
        if len(self.taken) < self._times:
            listener = self._listeners.enter_context(socket.socket())
            # What is left of a server's connections on that port would be in the way.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((LOOPBACK, self.port))
            listener.listen()
            self.taken.add(self.port)


def test_a_server_whose_port_is_taken_at_the_last_moment_moves_on_at_once_and_has_not_failed(tmp_path: Path) -> None:
    statuses: list[PartStatus] = []

    async def keep(server: RobbedServer) -> None:
        running = asyncio.Event()

        def publish(_: Part, status: PartStatus) -> None:
            statuses.append(status)
            if status.state == PartState.RUNNING:
                running.set()

        keeper = asyncio.create_task(Keeper(Part.NATS, server, tmp_path / "log", publish).keep())
        await running.wait()
        keeper.cancel()
        await asyncio.wait({keeper})

    with ExitStack() as listeners:
        server = RobbedServer(tmp_path / "nats", listeners, FAILED_STARTS + 1)
        asyncio.run(keep(server))

    ran = next(status for status in statuses if status.state == PartState.RUNNING)
    assert len(server.taken) == FAILED_STARTS + 1
    assert ran.port not in server.taken
    assert {status.restarts for status in statuses} == {0}
