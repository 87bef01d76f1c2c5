"""NATS: reads a JetStream stream from a position and publishes; one connection a process, driven from any thread."""

import asyncio
import base64
import contextlib
import json
import logging
import math
import re
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js import JetStreamContext, api
from nats.js.errors import APIError, BadRequestError, NotFoundError

from mcp_assets.stores.errors import StoreRefused, StoreUnavailable
from mcp_assets.stores.nats_denials import Denials
from mcp_assets.stores.nats_pull import Pulled
from mcp_assets.stores.streams import MAX_DELETED, Message, Read, Retention, StreamState, covers, instant, state_of

logger = logging.getLogger(__name__)

T = TypeVar("T")

_SUBJECTS_OVERLAP = 10065

_PORT = 4222

# Messages got one by one at once.
_SINGLY = 50

_NO_MESSAGE = 10037

# How often a stream is looked at that cannot be waited on.
_LOOK_EVERY_S = 0.5

# Foreign messages of one subject that are read so that a position can move past them, at most.
_FOREIGN = 50_000

_PLAIN_SUBJECT = re.compile(r"[!-)+-=?-~]+")
# How long the server remembers ids of announcements: longer than they wait after a failed try.
_DUPLICATES_KNOWN_S = 3600.0

_DAY_S = 86_400.0

# How often a stream for results is looked for where there was none.
_KEPT_AGAIN_S = 60.0

# For a connection that was lost, before an announcement is given up.
_ANNOUNCE_WAIT_S = 1.0


@dataclass(frozen=True, slots=True)
class Announcement:
    """A message to publish once: the server drops another one of the same `id`, for as long as it remembers it."""

    subject: str
    data: bytes
    id: str


@dataclass(frozen=True, slots=True)
class ResultsStream:
    """The stream that keeps what is announced: made on `subjects` if it is absent and may be made."""

    name: str
    subjects: Sequence[str]
    days: float
    create: bool


class NatsStreams:
    """One NATS connection and the JetStream streams on it. Thread-safe; connects lazily, reconnects for ever.

    `verify` is called with the mark of each server that a connection leads to, after each reconnect too, before
    anything is asked of it; it raises StoreUnavailable if that is another NATS. It may block.
    """

    def __init__(
        self,
        url: str,
        subjects: Sequence[str],
        results: ResultsStream | None = None,
        *,
        timeout_s: float = 10.0,
        verify: Callable[[str | None], None] | None = None,
    ) -> None:
        self._verify = verify
        self._servers = [part.strip() for part in url.split(",") if part.strip()]
        self._subjects = list(subjects)
        self._results = results
        self._kept: dict[str, tuple[bool, float]] = {}
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: _VerifiedClient | None = None
        self._connecting: asyncio.Lock | None = None
        self._denials = Denials()

    def ensure_stream(self, name: str) -> None:
        """Make the stream `name` on exactly our subjects, file storage, limits retention, if it is absent.

        Raises:
            StoreRefused: another stream already takes some of the subjects.
        """
        self._run(self._ensure_stream(name), self._timeout_s * 2)

    def state(self, name: str) -> StreamState | None:
        """What the stream holds; None if there is no such stream."""
        return self._run(self._state(name), self._timeout_s * 2)

    def read(
        self,
        state: StreamState,
        after_seq: int,
        *,
        limit: int,
        max_bytes: int,
        wait_s: float,
        with_last: bool = False,
        past_foreign: bool = False,
    ) -> Read:
        """Messages after `after_seq`, in order: at most `limit`, about `max_bytes`; waits up to `wait_s` for the first.

        Nothing is acknowledged and no consumer outlives the call: the position is the caller's. Whatever the server
        stored is read: bytes of the subject that are not UTF-8 come as replacement characters.

        With `with_last` the message `after_seq` is read, too. With `past_foreign` messages of one foreign subject are
        among those that are read: those that bear the subject of the stream's last message. They are delivered in
        order with ours, so that the last of them is a proof that none of ours before it was left out; that nothing
        came is none, for a node of a cluster that is behind delivers nothing, too.

        Raises:
            StoreUnavailable: NATS does not answer.
            StoreRefused: the user may not do what reading needs.
        """
        return self._run(
            self._read(state, after_seq, limit, max_bytes, wait_s, with_last, past_foreign),
            wait_s + self._timeout_s * 4,
        )

    def message(self, name: str, seq: int) -> Message | None:
        """The message numbered `seq`, as the stream's leader has it; None if it holds none."""
        return self._run(self._get(name, seq=seq), self._timeout_s * 2)

    def next_message(self, state: StreamState, after_seq: int) -> Message | None:
        """The first of our messages after `after_seq`, as the stream's leader has it; None if it holds none."""
        return self._run(self._next_of_ours(state, after_seq), self._timeout_s * 2)

    def deleted_between(self, name: str, after_seq: int, up_to_seq: int) -> int | None:
        """How many messages after `after_seq` and up to `up_to_seq` the stream held once, and does not any more.

        None: it does not tell, for too many are missing in it.
        """
        return self._run(self._deleted_between(name, after_seq, up_to_seq), self._timeout_s * 3)

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

    def announce(self, announcements: Sequence[Announcement]) -> None:
        """Publish all; returns when a stream has stored each, or, where no stream keeps its subject, the server has it.

        Core subscribers hear them in any case.

        Raises:
            StoreUnavailable, StoreRefused: some may be published. Announced again, a stream keeps each of them once.
        """
        self._run(self._announce(announcements), self._timeout_s * 3)

    def mark(self) -> str | None:
        """By what this NATS is known: its cluster's name, else the server's; None if it has none of its own."""
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
            # A connection that is broken already is closed enough.
            with suppress(OSError):
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
        client = _VerifiedClient(None)
        await client.connect(self._servers, connect_timeout=self._connect_timeout_s, allow_reconnect=False)
        try:
            return _mark(client._server_info)
        finally:
            await client.close()

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
        """Of each server: a silent one leaves time for the next."""
        return max(2, int(self._timeout_s / max(1, len(self._servers))))

    async def _connect(self, denials: Denials, *, allow_reconnect: bool) -> "_VerifiedClient":
        client = _VerifiedClient(self._verify)
        await client.connect(
            self._servers,
            name="mcp_assets",
            connect_timeout=self._connect_timeout_s,
            allow_reconnect=allow_reconnect,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.25,  # type: ignore[arg-type]
            # A hung server is noticed within a minute rather than within six.
            ping_interval=20,
            max_outstanding_pings=2,
            error_cb=denials.heard,
        )
        return client

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
        try:
            info = await self._ask(f"$JS.API.STREAM.INFO.{name}")
        except NotFoundError:
            return None
        if not info.get("created"):
            raise StoreUnavailable(
                f"NATS told no creation time of the stream {name}: mcp_assets needs NATS 2.10 or later"
            )
        return state_of(name, info, self._subjects, instant(info["created"]))

    async def _ask(self, subject: str, **options: Any) -> dict[str, Any]:
        """The answer of JetStream's API to a request; an error that it answers is raised."""
        client = await self._connected()
        body = json.dumps(options).encode() if options else b""
        response = await self._denials.unless_denied(subject, client.request(subject, body, timeout=self._timeout_s))
        answer: dict[str, Any] = json.loads(response.data)
        if "error" in answer:
            raise APIError.from_error(answer["error"])
        return answer

    async def _read(
        self,
        state: StreamState,
        after_seq: int,
        limit: int,
        max_bytes: int,
        wait_s: float,
        with_last: bool,
        past_foreign: bool,
    ) -> Read:
        loop = asyncio.get_running_loop()
        end = loop.time() + wait_s
        with_last = with_last and state.first_seq <= after_seq
        if state.traits.retention is not Retention.LIMITS:
            return await self._poll(state, after_seq, end, with_last)
        if with_last and not state.foreign_subjects:
            try:
                read = await self._pull(state, after_seq, after_seq, None, limit, max_bytes, end)
            except (NatsError, OSError):
                # What nats-py cannot take may be the last message itself: it is got by itself. If the server is away,
                # that fails, too.
                read = None
            if read is not None:
                return read
        last = await self._get(state.name, seq=after_seq) if with_last else None
        foreign = await self._foreign_end(state) if past_foreign else None
        subjects = [*self._subjects, *foreign] if foreign else self._subjects
        try:
            read = await self._pull(
                state, after_seq, after_seq + 1, subjects if state.foreign_subjects else None, limit, max_bytes, end
            )
        except (NatsError, OSError) as error:
            now = await self._state(state.name)
            if now is None or (now.last_seq <= after_seq and not isinstance(error, NatsTimeoutError)):
                raise
            # The server is well. If it was merely late, there is nothing to read.
            read = await self._read_singly(now, after_seq)
        if read is None:
            read = await self._read_singly(await self._state(state.name) or state, after_seq)
        return replace(read, last=last)

    async def _foreign_end(self, state: StreamState) -> list[str]:
        """The subject of the stream's last message, if that is foreign, and not too many messages bear it."""
        end = await self._get(state.name, seq=state.last_seq)
        if end is None or end.ours or not _PLAIN_SUBJECT.fullmatch(end.subject):
            return []
        info = await self._ask(f"$JS.API.STREAM.INFO.{state.name}", subjects_filter=end.subject)
        held = (info["state"].get("subjects") or {}).get(end.subject, 0)
        return [end.subject] if held <= _FOREIGN else []

    async def _pull(
        self,
        state: StreamState,
        after_seq: int,
        start_seq: int,
        subjects: Sequence[str] | None,
        limit: int,
        max_bytes: int,
        end: float,
    ) -> Read | None:
        """Read by a pull consumer: fast. None: a message came, but nats-py took it for one of the server's.

        A publisher can send what nats-py cannot take: a `Status` header makes it drop the message, a subject that is
        not UTF-8 or a header without an end breaks its connection. So each pull has a connection of its own, and a
        message that is missing in the consumer's count ends the read before it.
        """
        await self._connected()
        denials = Denials()
        client = await self._connect(denials, allow_reconnect=False)
        config = api.ConsumerConfig(
            deliver_policy=api.DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=max(start_seq, 1),
            ack_policy=api.AckPolicy.NONE,
            filter_subjects=list(subjects) if subjects is not None else None,
            inactive_threshold=max(0.0, end - asyncio.get_running_loop().time()) + 30.0,
            mem_storage=True,
        )
        try:
            return await denials.unless_denied(
                "", self._pull_on(client, state.name, config, after_seq, limit, max_bytes, end)
            )
        finally:
            await client.close()

    async def _pull_on(
        self,
        client: Client,
        stream: str,
        config: api.ConsumerConfig,
        after_seq: int,
        limit: int,
        max_bytes: int,
        end: float,
    ) -> Read | None:
        js = client.jetstream(timeout=self._timeout_s)
        shared = await self._jetstream()
        consumer = await js.add_consumer(stream, config)
        try:
            subscription = await js.pull_subscribe_bind(consumer.name, stream=stream)
            pulled = Pulled(after_seq, limit, max_bytes, partial(covers, self._subjects))
            await pulled.collect(subscription, end)
            if pulled.messages:
                return pulled.read()
            delivered = (await shared.consumer_info(stream, consumer.name)).delivered
            if delivered is not None and delivered.consumer_seq > pulled.taken:
                return None
            return pulled.read()
        finally:
            # The server forgets an idle consumer by itself, should it not hear of this.
            with contextlib.suppress(NatsError, OSError, StoreRefused):
                await self._denials.unless_denied("CONSUMER.DELETE", shared.delete_consumer(stream, consumer.name))

    async def _poll(self, state: StreamState, after_seq: int, end: float, with_last: bool) -> Read:
        """Read a stream that would take a delivered message for done and drop it: without a consumer."""
        last = await self._get(state.name, seq=after_seq) if with_last else None
        loop = asyncio.get_running_loop()
        while True:
            read = await self._read_singly(state, after_seq)
            left = end - loop.time()
            if read.messages or left <= 0:
                return replace(read, last=last)
            await asyncio.sleep(min(_LOOK_EVERY_S, left))
            state = await self._state(state.name) or state

    async def _read_singly(self, state: StreamState, after_seq: int) -> Read:
        """The next of our messages, got one by one as JSON, which holds whatever the server stored."""
        seq = after_seq
        while seq < state.last_seq:
            first = await self._get(state.name, seq=seq + 1, next_by_subj=">")
            if first is None:
                break
            seq = min(first.seq + _SINGLY - 1, state.last_seq)
            rest = await asyncio.gather(*(self._get(state.name, seq=n) for n in range(first.seq + 1, seq + 1)))
            messages = [message for message in (first, *rest) if message is not None and message.ours]
            if messages:
                return Read(messages, more=seq < state.last_seq)
        return Read((), more=False)

    async def _next_of_ours(self, state: StreamState, after_seq: int) -> Message | None:
        patterns = self._subjects if state.foreign_subjects else [">"]
        found = await asyncio.gather(
            *(self._get(state.name, seq=after_seq + 1, next_by_subj=pattern) for pattern in patterns)
        )
        return min((message for message in found if message is not None), key=lambda one: one.seq, default=None)

    async def _get(self, stream: str, **which: Any) -> Message | None:
        """The message that `which` names, as the stream's leader has it; None if there is none."""
        try:
            answer = await self._ask(f"$JS.API.STREAM.MSG.GET.{stream}", **which)
        except NotFoundError as error:
            if error.err_code == _NO_MESSAGE:
                return None
            raise
        message = answer["message"]
        return Message(
            message["seq"],
            message["subject"],
            base64.b64decode(message.get("data", "")),
            instant(message["time"]),
            ours=covers(self._subjects, message["subject"]),
        )

    async def _deleted_between(self, name: str, after_seq: int, up_to_seq: int) -> int | None:
        subject = f"$JS.API.STREAM.INFO.{name}"
        state = (await self._ask(subject))["state"]
        # Those before the first message are not listed.
        before = max(0, min(int(state["first_seq"]) - 1, up_to_seq) - after_seq)
        if not state.get("num_deleted"):
            return before
        if int(state["num_deleted"]) > MAX_DELETED:
            return None
        deleted = (await self._ask(subject, deleted_details=True))["state"].get("deleted") or ()
        return before + sum(after_seq < int(seq) <= up_to_seq for seq in deleted)

    async def _publish(self, batch: Sequence[tuple[str, bytes]]) -> int:
        js = await self._jetstream()
        acknowledged = await asyncio.gather(*(js.publish(subject, data) for subject, data in batch))
        return len(acknowledged)

    async def _announce(self, announcements: Sequence[Announcement]) -> None:
        client = await self._connected()
        deadline = time.monotonic() + _ANNOUNCE_WAIT_S
        while not client.is_connected:
            # It is being reconnected. Who announces has work to go on with, and the announcements are kept.
            if time.monotonic() > deadline:
                raise NatsError("the connection is lost")
            await asyncio.sleep(0.05)
        js = client.jetstream(timeout=self._timeout_s)
        stored = []
        for one in announcements:
            header = {api.Header.MSG_ID.value: one.id}
            if await self._is_kept(js, one.subject):
                publishing = js.publish(one.subject, one.data, headers=header)
                stored.append(self._denials.unless_denied(one.subject, publishing))
            else:
                await client.publish(one.subject, one.data, headers=header)
        try:
            await asyncio.gather(*stored)
        except BaseException:
            # The stream may be gone: before another try it is looked for.
            self._kept.clear()
            raise
        await client.flush(timeout=int(self._timeout_s))

    async def _is_kept(self, js: JetStreamContext, subject: str) -> bool:
        """Whether a stream stores what is published on `subject`; the results' stream is made if none does."""
        known, looked_at = self._kept.get(subject, (False, -math.inf))
        if not known and time.monotonic() - looked_at > _KEPT_AGAIN_S:
            known = await self._has_stream(js, subject) or (
                await self._make_results_stream(js) and await self._has_stream(js, subject)
            )
            self._kept[subject] = known, time.monotonic()
        return known

    async def _has_stream(self, js: JetStreamContext, subject: str) -> bool:
        try:
            await self._denials.unless_denied("STREAM.NAMES", js.find_stream_name_by_subject(subject))
        except NotFoundError:
            return False
        return True

    async def _make_results_stream(self, js: JetStreamContext) -> bool:
        results = self._results
        if results is None or not results.create:
            return False
        making = js.add_stream(
            name=results.name,
            subjects=list(results.subjects),
            storage=api.StorageType.FILE,
            retention=api.RetentionPolicy.LIMITS,
            discard=api.DiscardPolicy.OLD,
            max_age=results.days * _DAY_S,
            duplicate_window=min(_DUPLICATES_KNOWN_S, results.days * _DAY_S),
        )
        try:
            await self._denials.unless_denied("STREAM.CREATE", making)
        except (APIError, StoreRefused) as error:
            # Such as another stream on some of the subjects, or an account without room: they are told to who listens.
            logger.warning("results are kept by no stream, for %s cannot be made: %s", results.name, error)
            return False
        return True

    async def _max_payload(self) -> int:
        return (await self._connected()).max_payload


class _VerifiedClient(Client):
    """A client that has each server verified before it says a word to it, also when it reconnects by itself.

    What was published while the connection was lost is sent to the server that is found next, as soon as that is
    connected: a check after the reconnect would come too late.
    """

    def __init__(self, verify: Callable[[str | None], None] | None) -> None:
        super().__init__()
        self._verify = verify
        self._was_connected = False
        self.refused: StoreUnavailable | None = None
        """Why the server that was found last is none for us."""

    async def _process_connect_init(self) -> None:
        try:
            await super()._process_connect_init()
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            # The client expects the words of a NATS server, and fails in many ways at any others.
            assert self._transport is not None  # noqa: S101  (they came by it)
            self._transport.close()  # type: ignore[no-untyped-call]
            sentence = "what answers at the address in NATS_URL is no NATS server"
            if not self._was_connected:
                raise StoreUnavailable(sentence) from error
            raise NatsError(sentence) from error  # The client goes on with its tries.

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        await super()._process_info(info, initial_connection)
        if not initial_connection or self._verify is None:
            return
        try:
            await asyncio.to_thread(self._verify, _mark(info))
        except StoreUnavailable as error:
            # Its next try forgets this one, and does not close it.
            assert self._transport is not None  # noqa: S101  (it has just brought the server's words)
            self._transport.close()  # type: ignore[no-untyped-call]
            if not self._was_connected:
                raise
            self.refused = error
            raise NatsError(str(error)) from error  # The client goes on with its tries.
        self.refused = None
        self._was_connected = True


def _mark(info: dict[str, Any]) -> str | None:
    if info.get("cluster"):
        return f"cluster {info['cluster']}"
    name = info.get("server_name")
    # A server without a name of its own shows its id, which is another one after each start.
    return None if name in (None, "", info["server_id"]) else f"server {name}"


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.run_until_complete(_end_tasks())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


async def _end_tasks() -> None:
    """End what a closed client has left, a try to reconnect say."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
