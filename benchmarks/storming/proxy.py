"""Proxy: stands on the way between the platform and one store, and misbehaves on demand, while the store works.

It forwards bytes of TCP connections, to an address or to a UNIX socket. What it does to them is the same for every
protocol, but for two modes in which it answers HTTP requests itself.
"""

import asyncio
import re
import threading
from contextlib import suppress
from enum import StrEnum
from typing import Self

SLOW_S = 3.0
"""What each answer of the store takes longer in the mode `slow`."""

_CHUNK = 1 << 16

_WRITES = re.compile(
    rb"^(PUT|DELETE|PATCH) |^POST /collections/[^ ]+/points/(delete|payload|batch|vectors)|^POST /collections/aliases"
)
"""First bytes of a request that writes to Qdrant."""

_ERROR = b"the proxy of the storm answers this"
_NO_SPACE = b'{"status":{"error":"Service internal error: No space left on device (os error 28)"},"time":0.0}'


class Mode(StrEnum):
    """What the proxy does with connections."""

    PASS = "pass"
    DOWN = "down"
    """Nothing listens on the port, and connections that were open are reset."""
    REFUSING = "refusing"
    """Each connection is accepted and closed."""
    SLOW = "slow"
    GARBAGE = "garbage"
    """HTTP: status 500 with words; otherwise bytes that are no protocol."""
    NO_SPACE = "no_space"
    """HTTP: requests that write are answered with status 500, as Qdrant does when its disk is full."""


class Proxy:
    """One listening port, in a loop and a thread of its own. `target`: host and port, or the path of a socket."""

    def __init__(self, target: tuple[str, int] | str, *, http: bool) -> None:
        self._target = target
        self._http = http
        self._mode = Mode.PASS
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def set(self, mode: Mode) -> None:
        """Behave so from now on; connections that are open end, unless they go on as before or only slower."""
        asyncio.run_coroutine_threadsafe(self._set(mode), self._loop).result(10)

    async def _set(self, mode: Mode) -> None:
        self._mode = mode
        if mode is Mode.DOWN:
            await self._close()
        elif self._server is None:
            await self._listen()
        if mode not in (Mode.PASS, Mode.SLOW, Mode.NO_SPACE):
            self._cut()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        self._cut()
        for task in self._tasks:
            task.cancel()

    def _cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            if self._mode in (Mode.REFUSING, Mode.DOWN):
                return
            if self._mode is Mode.GARBAGE:
                await reader.read(_CHUNK)
                await self._answer(writer, _ERROR if self._http else b"\x15\x03garbage\r\n" * 8)
                return
            await self._forward(reader, writer)
        except (OSError, asyncio.CancelledError):
            return
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if isinstance(self._target, str):
            from_store, to_store = await asyncio.open_unix_connection(self._target)
        else:
            from_store, to_store = await asyncio.open_connection(*self._target)
        self._writers.add(to_store)
        try:
            await asyncio.gather(
                self._requests(reader, writer, to_store), self._answers(from_store, writer), return_exceptions=True
            )
        finally:
            self._writers.discard(to_store)
            to_store.close()

    async def _requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, to_store: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(_CHUNK):
            if self._mode is Mode.NO_SPACE and _WRITES.match(data):
                await self._answer(writer, _NO_SPACE)
                break
            to_store.write(data)
            await to_store.drain()
        to_store.close()

    async def _answers(self, from_store: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await from_store.read(_CHUNK):
            if self._mode is Mode.SLOW:
                await asyncio.sleep(SLOW_S)
            writer.write(data)
            await writer.drain()
        writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, body: bytes) -> None:
        if self._http:
            kind = b"application/json" if body.startswith(b"{") else b"text/plain"
            head = (
                b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: %s\r\nContent-Length: %d\r\n"
                b"Connection: close\r\n\r\n"
            )
            body = head % (kind, len(body)) + body
        writer.write(body)
        with suppress(OSError):
            await writer.drain()
        writer.close()
