"""NATS: reads a JetStream stream from a position and publishes; one connection a process, driven from any thread."""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterable, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext, api
from nats.js.errors import APIError, BadRequestError, FetchTimeoutError, NotFoundError

from mcp_assets.stores.errors import StoreRefused, StoreUnavailable

T = TypeVar("T")

_SUBJECTS_OVERLAP = 10065

# Messages in one pull request; the caller's limit on bytes is kept to within one such request.
_PULL = 200


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a stream. `stored_at` is JetStream's clock, UTC."""

    seq: int
    subject: str
    data: bytes
    stored_at: datetime


@dataclass(frozen=True, slots=True)
class StreamState:
    """What a stream holds now: sequences `first_seq` to `last_seq` (empty: last_seq = first_seq - 1)."""

    name: str
    created_at: datetime
    first_seq: int
    last_seq: int
    foreign_subjects: bool
    """It also carries subjects that are not ours, so that sequences we are shown have holes by nature."""


@dataclass(frozen=True, slots=True)
class Read:
    """An answer to `read`: messages in order; `more`: the stream held more of them."""

    messages: Sequence[Message]
    more: bool


class NatsStreams:
    """One NATS connection and the JetStream streams on it. Thread-safe; connects lazily, reconnects for ever."""

    def __init__(self, url: str, subjects: Sequence[str], *, timeout_s: float = 10.0) -> None:
        self._servers = [part.strip() for part in url.split(",") if part.strip()]
        self._subjects = list(subjects)
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: Client | None = None
        self._connecting: asyncio.Lock | None = None

    def ensure_stream(self, name: str) -> None:
        """Make the stream `name` on exactly our subjects, file storage, limits retention, if it is absent.

        Raises:
            StoreRefused: another stream already takes some of the subjects.
        """
        self._run(self._ensure_stream(name), self._timeout_s)

    def state(self, name: str) -> StreamState | None:
        """What the stream holds; None if there is no such stream."""
        return self._run(self._state(name), self._timeout_s)

    def read(self, state: StreamState, after_seq: int, *, limit: int, max_bytes: int, wait_s: float) -> Read:
        """Messages after `after_seq`, in order: at most `limit`, about `max_bytes`; waits up to `wait_s` for the first.

        Nothing is acknowledged and no consumer outlives the call: the position is the caller's.
        """
        return self._run(self._read(state, after_seq, limit, max_bytes, wait_s), wait_s + self._timeout_s)

    def publish(self, messages: Iterable[tuple[str, bytes]], *, flush_every: int = 500) -> int:
        """Publish to JetStream or plain subjects; returns when the server has taken all. The number published."""
        count = 0
        batch: list[tuple[str, bytes]] = []
        for message in messages:
            batch.append(message)
            if len(batch) >= flush_every:
                count += self._run(self._publish(batch), self._timeout_s * 3)
                batch = []
        return count + (self._run(self._publish(batch), self._timeout_s * 3) if batch else 0)

    def close(self) -> None:
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is None:
            return
        client, self._client = self._client, None
        if client is not None:
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
        if self._connecting is None:
            self._connecting = asyncio.Lock()
        async with self._connecting:
            if self._client is None or self._client.is_closed:
                self._client = await nats.connect(
                    self._servers,
                    name="mcp_assets",
                    connect_timeout=int(self._timeout_s),
                    allow_reconnect=True,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=0.25,
                    # A hung server is noticed within a minute rather than within six.
                    ping_interval=20,
                    max_outstanding_pings=2,
                    error_cb=_ignore,
                )
        return self._client.jetstream(timeout=self._timeout_s)

    async def _ensure_stream(self, name: str) -> None:
        if await self._state(name) is not None:
            return
        js = await self._jetstream()
        try:
            await js.add_stream(
                name=name,
                subjects=self._subjects,
                storage=api.StorageType.FILE,
                retention=api.RetentionPolicy.LIMITS,
                discard=api.DiscardPolicy.OLD,
            )
        except BadRequestError as error:
            if error.err_code == _SUBJECTS_OVERLAP:
                raise StoreRefused(
                    f"the stream {name} cannot be made, for another stream already takes some of its subjects: "
                    "name the existing stream(s) in MCP_ASSETS_STREAMS"
                ) from error
            if await self._state(name) is None:
                raise

    async def _state(self, name: str) -> StreamState | None:
        js = await self._jetstream()
        try:
            info = await js.stream_info(name)
        except NotFoundError:
            return None
        if info.created is None:
            raise StoreUnavailable(
                f"NATS told no creation time of the stream {name}: mcp_assets needs NATS 2.10 or later"
            )
        return StreamState(
            name=name,
            created_at=info.created,
            first_seq=info.state.first_seq or 1,
            last_seq=info.state.last_seq,
            foreign_subjects=not set(info.config.subjects or ()) <= set(self._subjects),
        )

    async def _read(self, state: StreamState, after_seq: int, limit: int, max_bytes: int, wait_s: float) -> Read:
        js = await self._jetstream()
        consumer = await js.add_consumer(
            state.name,
            api.ConsumerConfig(
                deliver_policy=api.DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=after_seq + 1,
                ack_policy=api.AckPolicy.NONE,
                filter_subjects=self._subjects if state.foreign_subjects else None,
                inactive_threshold=wait_s + 30.0,
                mem_storage=True,
            ),
        )
        subscription = await js.pull_subscribe_bind(consumer.name, stream=state.name)
        messages: list[Message] = []
        try:
            try:
                first = await subscription.fetch(1, timeout=wait_s, heartbeat=wait_s / 4)
            except FetchTimeoutError:
                # Heartbeats came: the server is well, and the stream has no more.
                return Read((), more=False)
            messages.append(_message(first[0]))
            pending = first[0].metadata.num_pending
            taken = len(messages[0].data)
            while pending and len(messages) < limit and taken < max_bytes:
                fetched = await subscription.fetch(min(pending, _PULL, limit - len(messages)), timeout=self._timeout_s)
                messages += map(_message, fetched)
                taken += sum(len(message.data) for message in fetched)
                pending = fetched[-1].metadata.num_pending
            return Read(messages, more=bool(pending))
        finally:
            await self._drop(js, state.name, consumer.name, subscription)

    async def _drop(
        self, js: JetStreamContext, stream: str, consumer: str, subscription: JetStreamContext.PullSubscription
    ) -> None:
        if self._client is None or not self._client.is_connected:
            # Nobody to tell: the server forgets an idle consumer by itself.
            return
        await subscription.unsubscribe()
        with contextlib.suppress(NotFoundError):
            await js.delete_consumer(stream, consumer)

    async def _publish(self, batch: Sequence[tuple[str, bytes]]) -> int:
        js = await self._jetstream()
        acknowledged = await asyncio.gather(*(js.publish(subject, data) for subject, data in batch))
        return len(acknowledged)


def _message(message: Msg) -> Message:
    metadata = message.metadata
    return Message(metadata.sequence.stream, message.subject, message.data, metadata.timestamp)


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.close()


async def _ignore(_: Exception) -> None:
    """Errors between reconnects: the call that needs the connection reports them."""
