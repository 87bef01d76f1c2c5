"""NATS streams: what a JetStream stream holds, and its messages from a position on."""

import asyncio
import base64
import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js import api
from nats.js.errors import BadRequestError, NotFoundError

from mcp_assets.stores.errors import StoreRefused, StoreUnavailable
from mcp_assets.stores.nats_access import PLAIN, NatsAccess
from mcp_assets.stores.nats_denials import Denials
from mcp_assets.stores.nats_publishing import NatsPublisher
from mcp_assets.stores.nats_pull import Deliveries, Pulled
from mcp_assets.stores.streams import (
    MAX_DELETED,
    Message,
    Read,
    ResultsStream,
    Retention,
    StreamState,
    covers,
    instant,
    state_of,
)

_SUBJECTS_OVERLAP = 10065
"""JetStream's error code: another stream takes some of the subjects."""

_NO_MESSAGE = 10037
"""JetStream's error code: the stream holds no such message."""

_SINGLY = 50
"""Requests for single messages that are under way at once."""

_LOOK_EVERY_S = 0.5
"""How often a stream is read that no consumer can wait on."""

_FOREIGN = 50_000
"""Foreign messages of one subject that are read, at most, so that a position can move past them."""

_PLAIN_SUBJECT = re.compile(r"[!-)+-=?-~]+")
"""A subject of printable ASCII without wildcards, which a consumer takes as a filter."""


class NatsStreams(NatsPublisher):
    """The JetStream streams of one NATS, read and published to over one connection.

    `subjects`: the platform's own; messages of other subjects in a stream are *foreign*.
    """

    def __init__(
        self,
        url: str,
        subjects: Sequence[str],
        results: ResultsStream | None = None,
        *,
        access: NatsAccess = PLAIN,
        timeout_s: float = 10.0,
        verify: Callable[[str | None], None] | None = None,
    ) -> None:
        super().__init__(url, results, access=access, timeout_s=timeout_s, verify=verify)
        self._subjects = list(subjects)
        self._is_ours = partial(covers, self._subjects)

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
        order with ours, so that the last of them proves that none of ours before it was left out. An empty answer
        proves nothing, because a node of a cluster that is behind delivers nothing, too.

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
        """How many messages after `after_seq` and up to `up_to_seq` the stream has held and holds no more.

        None: unknown, because too many are missing for the server to list them.
        """
        return self._run(self._deleted_between(name, after_seq, up_to_seq), self._timeout_s * 3)

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
                f"NATS gave no creation time of the stream {name}: mcp_assets needs NATS 2.10 or later"
            )
        return state_of(name, info, self._subjects, instant(info["created"]))

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
                # The last message may be one that nats-py cannot parse; below it is requested by itself. If the
                # server is away, that fails, too.
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
            # The server answers; if the error was a late answer alone, there is nothing to read.
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

        A publisher can send what nats-py cannot take: a subject that is not UTF-8 or a header without an end breaks
        its connection. So each pull has a connection of its own, and a message that is missing in the consumer's count
        ends the read before it.
        """
        await self._connected()
        denials = Denials()
        changed = asyncio.Event()

        async def wake() -> None:
            changed.set()

        client = await self._connect(denials, allow_reconnect=False, closed_cb=wake)
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
                "", self._pull_on(client, changed, state.name, config, after_seq, limit, max_bytes, end)
            )
        finally:
            await client.close()

    async def _pull_on(
        self,
        client: Client,
        changed: asyncio.Event,
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
            deliveries = Deliveries(client, stream, consumer.name, changed)
            await deliveries.open()
            pulled = Pulled(after_seq, limit, max_bytes, self._is_ours)
            await pulled.collect(deliveries, end)
            if pulled.messages:
                return pulled.read()
            delivered = (await shared.consumer_info(stream, consumer.name)).delivered
            if delivered is not None and delivered.consumer_seq > pulled.taken:
                return None
            return pulled.read()
        finally:
            # If this request does not reach the server, it deletes the idle consumer by itself.
            with contextlib.suppress(NatsError, OSError, StoreRefused):
                await self._denials.unless_denied("CONSUMER.DELETE", shared.delete_consumer(stream, consumer.name))

    async def _poll(self, state: StreamState, after_seq: int, end: float, with_last: bool) -> Read:
        """Read without a consumer, because a stream of this retention deletes what a consumer has acknowledged."""
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
        """The next of our messages, requested one by one as JSON, which can hold any bytes."""
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
            ours=self._is_ours(message["subject"]),
        )

    async def _deleted_between(self, name: str, after_seq: int, up_to_seq: int) -> int | None:
        subject = f"$JS.API.STREAM.INFO.{name}"
        state = (await self._ask(subject))["state"]
        # Messages before the first one are not listed as deleted.
        before = max(0, min(int(state["first_seq"]) - 1, up_to_seq) - after_seq)
        if not state.get("num_deleted"):
            return before
        if int(state["num_deleted"]) > MAX_DELETED:
            return None
        deleted = (await self._ask(subject, deleted_details=True))["state"].get("deleted") or ()
        return before + sum(after_seq < int(seq) <= up_to_seq for seq in deleted)
