"""NATS connection: one client a process on an event loop in a thread of its own, driven from any thread."""

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from typing import Any, TypeVar
from urllib.parse import urlsplit

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.errors import APIError

from mcp_assets.stores.errors import StoreRefused, StoreUnavailable
from mcp_assets.stores.nats_access import PLAIN, NatsAccess
from mcp_assets.stores.nats_client import VerifiedClient, mark_of_server
from mcp_assets.stores.nats_denials import Denials

T = TypeVar("T")

_PORT = 4222
"""The port of a NATS server whose URL names none."""


_INBOX = "_INBOX.mcp_assets"
"""Before the subjects of answers: a user that may subscribe below it alone reads no other client's answers."""


class NatsConnection:
    """One NATS connection. Thread-safe; connects lazily, reconnects for ever.

    `verify` is called with the mark of each server that a connection leads to, after each reconnect too, before
    anything is asked of it; it raises StoreUnavailable if that is another NATS. It may block.
    """

    def __init__(
        self,
        url: str,
        *,
        access: NatsAccess = PLAIN,
        timeout_s: float = 10.0,
        verify: Callable[[str | None], None] | None = None,
    ) -> None:
        self._access = access
        self._verify = verify
        self._servers = [part.strip() for part in url.split(",") if part.strip()]
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: VerifiedClient | None = None
        self._connecting: asyncio.Lock | None = None
        self._denials = Denials()

    def mark(self) -> str | None:
        """The mark of this NATS: its cluster's name, otherwise the server's; None if it has no name of its own."""
        return self._run(self._shown_mark(), self._timeout_s * 2)

    def max_payload(self) -> int:
        """Bytes that the server takes in one message."""
        return self._run(self._max_payload(), self._timeout_s * 2)

    def close(self) -> None:
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is None:
            return
        client, self._client = self._client, None
        if client is not None:
            # A connection that is already broken needs no closing, and one that is just being made again is given up:
            # nats-py then cancels its own closing with its attempt to connect.
            with suppress(OSError, CancelledError):
                asyncio.run_coroutine_threadsafe(client.close(), loop).result(self._timeout_s)
        loop.call_soon_threadsafe(loop.stop)

    def _run(self, work: Coroutine[Any, Any, T], timeout_s: float) -> T:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._connecting = None
                threading.Thread(target=_run_loop, args=(self._loop,), name="nats", daemon=True).start()
            loop = self._loop
        future = asyncio.run_coroutine_threadsafe(work, loop)
        try:
            return future.result(timeout_s)
        except FutureTimeoutError as error:
            future.cancel()
            raise StoreUnavailable(self._silent("no answer in time")) from error
        except APIError as error:
            if error.code is not None and 400 <= error.code < 500:
                raise StoreRefused(f"NATS JetStream refused: {error.description} ({error.err_code})") from error
            raise StoreUnavailable(f"NATS JetStream failed: {error.description} ({error.err_code})") from error
        except (NatsError, OSError) as error:
            raise StoreUnavailable(self._silent(str(error) or type(error).__name__)) from error

    def _silent(self, reason: str) -> str:
        return f"NATS does not answer ({reason}): check NATS_URL and that the server runs with JetStream"

    async def _jetstream(self) -> JetStreamContext:
        return (await self._connected()).jetstream(timeout=self._timeout_s)

    async def _connected(self) -> Client:
        if self._connecting is None:
            self._connecting = asyncio.Lock()
        async with self._connecting:
            if self._client is None or self._client.is_closed:
                await self._reach_one()
                self._client = await self._connect(self._denials, allow_reconnect=True)
        if self._client.refused is not None:
            raise self._client.refused
        return self._client

    async def _shown_mark(self) -> str | None:
        await self._reach_one()
        client = VerifiedClient(None, demands_tls=self._access.demands_tls(self._servers))
        await client.connect(
            self._servers,
            connect_timeout=self._connect_timeout_s,
            allow_reconnect=False,
            **self._access.options(),
        )
        try:
            return mark_of_server(client._server_info)
        finally:
            await client.close()

    async def _max_payload(self) -> int:
        return (await self._connected()).max_payload

    async def _reach_one(self) -> None:
        """Raise OSError if no server takes a connection: a client that reconnects would try for ever.

        All are asked at once, because one whose machine is gone would use up the time of those after it.
        """
        tries = [asyncio.ensure_future(self._reach(server)) for server in self._servers]
        refusal = OSError("NATS_URL names no server")
        try:
            for reached in asyncio.as_completed(tries):
                try:
                    await reached
                except OSError as error:
                    refusal = error
                else:
                    return
        finally:
            for one in tries:
                one.cancel()
        raise refusal

    async def _reach(self, server: str) -> None:
        address = urlsplit(server if "://" in server else f"nats://{server}")
        opening = asyncio.open_connection(address.hostname, address.port or _PORT)
        _, writer = await asyncio.wait_for(opening, self._timeout_s)
        writer.close()

    @property
    def _connect_timeout_s(self) -> int:
        """For one server, so that a silent one leaves time for the next."""
        return max(2, int(self._timeout_s / max(1, len(self._servers))))

    async def _connect(
        self,
        denials: Denials,
        *,
        allow_reconnect: bool,
        closed_cb: Callable[[], Coroutine[Any, Any, None]] | None = None,
    ) -> VerifiedClient:
        """`closed_cb` is called when the connection is closed for good."""
        client = VerifiedClient(self._verify, demands_tls=self._access.demands_tls(self._servers))
        await client.connect(
            self._servers,
            **self._access.options(),
            name="mcp_assets",
            inbox_prefix=_INBOX,
            connect_timeout=self._connect_timeout_s,
            allow_reconnect=allow_reconnect,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.25,  # type: ignore[arg-type]
            # A hung server is noticed within a minute rather than within six.
            ping_interval=20,
            max_outstanding_pings=2,
            error_cb=denials.heard,
            closed_cb=closed_cb,
        )
        return client

    async def _ask(self, subject: str, /, **options: Any) -> dict[str, Any]:
        """The answer of JetStream's API to a request; an error that it answers is raised."""
        client = await self._connected()
        body = json.dumps(options).encode() if options else b""
        response = await self._denials.unless_denied(subject, client.request(subject, body, timeout=self._timeout_s))
        answer: dict[str, Any] = json.loads(response.data)
        if "error" in answer:
            raise APIError.from_error(answer["error"])
        return answer


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.run_until_complete(_end_tasks())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


async def _end_tasks() -> None:
    """End the tasks that a closed client leaves, such as an attempt to reconnect."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
