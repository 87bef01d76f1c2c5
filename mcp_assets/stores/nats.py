"""NATS: reads a JetStream stream from a position and publishes; one connection a process, driven from any thread."""

import asyncio
import base64
import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Coroutine, Iterable, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js import JetStreamContext, api
from nats.js.errors import APIError, BadRequestError, FetchTimeoutError, NotFoundError

from mcp_assets.stores.errors import StoreRefused, StoreUnavailable

T = TypeVar("T")

_SUBJECTS_OVERLAP = 10065

_PORT = 4222

# Messages in one pull request; the caller's limit on bytes is kept to within one such request.
_PULL = 200

# Messages got one by one at once.
_SINGLY = 50

# A pull that waits longer is asked anew, so that a connection that broke is noticed.
_PULL_WAIT_S = 2.0

_NO_MESSAGE = 10037

# For a connection that was lost, before an announcement is given up.
_ANNOUNCE_WAIT_S = 1.0


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a stream. `stored_at` is JetStream's clock, UTC."""

    seq: int
    subject: str
    data: bytes
    stored_at: datetime

    @property
    def digest(self) -> bytes:
        """Of subject and bytes: with `stored_at` it tells a message from another one of the same sequence."""
        subject = self.subject.encode(errors="surrogatepass")
        return hashlib.blake2b(b"%d %b" % (len(subject), subject) + self.data, digest_size=16).digest()


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

        Nothing is acknowledged and no consumer outlives the call: the position is the caller's. Whatever the server
        stored is read: bytes of the subject that are not UTF-8 come as replacement characters.
        """
        return self._run(self._read(state, after_seq, limit, max_bytes, wait_s), wait_s + self._timeout_s * 4)

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

    def announce(self, subject: str, data: bytes) -> None:
        """Publish to whoever listens at this moment; returns when the server has it. No stream keeps it."""
        self._run(self._announce(subject, data), self._timeout_s * 2)

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
                self._client = await self._connect(allow_reconnect=True)
        return self._client

    async def _reach_one(self) -> None:
        """Raise OSError at once if no server takes a connection: a client that reconnects would try for ever."""
        refusals: list[OSError] = []
        for server in self._servers:
            address = urlsplit(server if "://" in server else f"nats://{server}")
            try:
                _, writer = await asyncio.open_connection(address.hostname, address.port or _PORT)
            except OSError as refusal:
                refusals.append(refusal)
                continue
            writer.close()
            return
        raise refusals[-1] if refusals else OSError("NATS_URL names no server")

    async def _connect(self, *, allow_reconnect: bool) -> Client:
        return await nats.connect(
            self._servers,
            name="mcp_assets",
            connect_timeout=int(self._timeout_s),
            allow_reconnect=allow_reconnect,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.25,
            # A hung server is noticed within a minute rather than within six.
            ping_interval=20,
            max_outstanding_pings=2,
            error_cb=_ignore,
        )

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
        try:
            read = await self._pull(state, after_seq, limit, max_bytes, wait_s)
        except (NatsError, OSError) as error:
            now = await self._state(state.name)
            if now is None or (now.last_seq <= after_seq and not isinstance(error, NatsTimeoutError)):
                raise
            # The server is well. If it was merely late, there is nothing to read.
            return await self._read_singly(now, after_seq)
        if read is None:
            return await self._read_singly(await self._state(state.name) or state, after_seq)
        return read

    async def _pull(self, state: StreamState, after_seq: int, limit: int, max_bytes: int, wait_s: float) -> Read | None:
        """Read by a pull consumer: fast. None: the first message came, but nats-py took it for one of the server's.

        A publisher can send what nats-py cannot take: a `Status` header makes it drop the message, a subject that is
        not UTF-8 or a header without an end breaks its connection. So each pull has a connection of its own, and a
        message that is missing in the consumer's count ends the read before it.
        """
        shared = await self._jetstream()
        client = await self._connect(allow_reconnect=False)
        try:
            js = client.jetstream(timeout=self._timeout_s)
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
            try:
                subscription = await js.pull_subscribe_bind(consumer.name, stream=state.name)
                first = await self._first(subscription, wait_s)
                if first is None:
                    delivered = (await shared.consumer_info(state.name, consumer.name)).delivered
                    return None if delivered is not None and delivered.consumer_seq else Read((), more=False)
                return await self._rest(subscription, first, limit, max_bytes)
            finally:
                # The server forgets an idle consumer by itself, should it not hear of this.
                with contextlib.suppress(NatsError, OSError):
                    await shared.delete_consumer(state.name, consumer.name)
        finally:
            await client.close()

    async def _first(self, subscription: JetStreamContext.PullSubscription, wait_s: float) -> Msg | None:
        """The first message; None if heartbeats came and no message: the server is well, and the stream has no more."""
        loop = asyncio.get_running_loop()
        end = loop.time() + wait_s
        while True:
            wait_s = min(max(end - loop.time(), 0.05), _PULL_WAIT_S)
            try:
                return (await subscription.fetch(1, timeout=wait_s, heartbeat=wait_s / 4))[0]
            except FetchTimeoutError:
                if loop.time() >= end:
                    return None

    async def _rest(
        self, subscription: JetStreamContext.PullSubscription, first: Msg, limit: int, max_bytes: int
    ) -> Read | None:
        messages: list[Message] = []
        fetched = [first]
        taken = 0
        while True:
            for message in fetched:
                metadata = message.metadata
                if metadata.sequence.consumer != len(messages) + 1:
                    return Read(messages, more=True) if messages else None
                messages.append(Message(metadata.sequence.stream, message.subject, message.data, metadata.timestamp))
                taken += len(message.data)
                pending = metadata.num_pending
            if not pending or len(messages) >= limit or taken >= max_bytes:
                return Read(messages, more=bool(pending))
            try:
                fetched = await subscription.fetch(min(pending, _PULL, limit - len(messages)), timeout=_PULL_WAIT_S)
            except (NatsError, OSError):
                # Those that came are sound; what stands after them is the next read's concern.
                return Read(messages, more=True)

    async def _read_singly(self, state: StreamState, after_seq: int) -> Read:
        """The next of our messages, got one by one as JSON, which holds whatever the server stored."""
        client = await self._connected()
        for start in range(after_seq + 1, state.last_seq + 1, _SINGLY):
            sequences = range(start, min(start + _SINGLY, state.last_seq + 1))
            got = await asyncio.gather(*(self._get(client, state.name, seq) for seq in sequences))
            messages = [message for message in got if message is not None and self._is_ours(message.subject)]
            if messages:
                return Read(messages, more=sequences[-1] < state.last_seq)
        return Read((), more=False)

    async def _get(self, client: Client, stream: str, seq: int) -> Message | None:
        """The message numbered `seq`; None if the stream does not hold it any more."""
        response = await client.request(
            f"$JS.API.STREAM.MSG.GET.{stream}", json.dumps({"seq": seq}).encode(), timeout=self._timeout_s
        )
        answer = json.loads(response.data)
        if "error" in answer:
            if answer["error"].get("err_code") == _NO_MESSAGE:
                return None
            raise APIError(**answer["error"])
        message = answer["message"]
        return Message(
            message["seq"],
            message["subject"],
            base64.b64decode(message.get("data", "")),
            datetime.fromisoformat(message["time"]),
        )

    def _is_ours(self, subject: str) -> bool:
        tokens = subject.split(".")
        return any(
            len(tokens) == len(ours) and all(own in ("*", token) for own, token in zip(ours, tokens, strict=True))
            for ours in (pattern.split(".") for pattern in self._subjects)
        )

    async def _publish(self, batch: Sequence[tuple[str, bytes]]) -> int:
        js = await self._jetstream()
        acknowledged = await asyncio.gather(*(js.publish(subject, data) for subject, data in batch))
        return len(acknowledged)

    async def _announce(self, subject: str, data: bytes) -> None:
        client = await self._connected()
        deadline = time.monotonic() + _ANNOUNCE_WAIT_S
        while not client.is_connected:
            # It is being reconnected. Who announces has work to go on with, and nobody may be listening.
            if time.monotonic() > deadline:
                raise NatsError("the connection is lost")
            await asyncio.sleep(0.05)
        await client.publish(subject, data)
        await client.flush(timeout=int(self._timeout_s))

    async def _max_payload(self) -> int:
        return (await self._connected()).max_payload


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.close()


async def _ignore(_: Exception) -> None:
    """Errors between reconnects: the call that needs the connection reports them."""
