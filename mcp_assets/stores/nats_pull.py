"""A pull consumer's messages, in order."""

import asyncio
import json
from collections.abc import Callable

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import ConnectionClosedError
from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js.api import Header, StatusCode
from nats.js.errors import APIError, FetchTimeoutError

from mcp_assets.stores.streams import Message, Read, stored_at
from mcp_assets.traces import traceparent_in

_PULL = 200
"""Messages in one pull request; the caller's limit on bytes can be exceeded by one such request."""

_PULL_WAIT_S = 2.0
"""A pull request that waits longer is sent again, so that a broken connection is noticed."""

_DELIVERED = "$JS.ACK."
"""How the reply subject of each message of a consumer begins. The server's own news of a pull request have none."""

_V1_TOKENS, _V1_SEQ, _V2_SEQ = 9, 5, 7
"""Tokens of a message's reply subject, and which of them is its sequence in the stream; behind it stand its sequence in
the consumer, the time of storing, and how many follow. Servers before 2.10 have the first form."""


class Deliveries:
    """What the pull requests of one consumer bring.

    nats-py's own `fetch` makes two tasks for each message, which take more time than all else that is done with it.
    """

    def __init__(self, client: Client, stream: str, consumer: str, changed: asyncio.Event) -> None:
        """`changed` is set by this object, and by the owner of `client` when that is closed."""
        self._client = client
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._inbox = client.new_inbox()
        self._messages: list[Msg] = []
        self._wanted = 0
        self._statuses: list[Msg] = []
        """The server's news of the pull request that is under way: the first of them ends it."""
        self._is_answered = False
        self._changed = changed

    async def open(self) -> None:
        await self._client.subscribe(self._inbox, cb=self._arrived)

    async def _arrived(self, message: Msg) -> None:
        if message.reply.startswith(_DELIVERED):
            self._messages.append(message)
            if len(self._messages) < self._wanted:
                return
        elif (message.headers or {}).get(Header.STATUS) == StatusCode.CONTROL_MESSAGE:
            self._is_answered = True
            return
        else:
            self._statuses.append(message)
        self._changed.set()

    async def fetch(self, number: int, timeout_s: float) -> list[Msg]:
        """At most `number` messages, at least one: those that the consumer has now, else those that come.

        Raises:
            NatsError: no message came. FetchTimeoutError: the server answers, and has none.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        self._is_answered = False
        # Without a time the server sends what it has, and then says that it has no more.
        found = await self._pulled({"batch": number, "no_wait": True}, number, end) if number > 1 else []
        if not found and (nanoseconds := int((end - loop.time()) * 1e9) - 100_000) > 0:
            waiting = {"batch": 1, "expires": nanoseconds, "idle_heartbeat": nanoseconds // 4}
            found = await self._pulled(waiting, 1, end)
        if found:
            return found
        raise FetchTimeoutError if self._is_answered else NatsTimeoutError

    async def _pulled(self, request: dict[str, int], number: int, end: float) -> list[Msg]:
        """What a pull request brings until `number` messages are there, the server ends it, or `end` is reached."""
        if self._messages:
            # They came after the wait for the request before had ended.
            found, self._messages = self._messages, []
            return found
        self._wanted = number
        self._statuses.clear()
        self._changed.clear()
        await self._client.publish(self._subject, json.dumps(request).encode(), self._inbox)
        try:
            async with asyncio.timeout_at(end):
                await self._changed.wait()
        except TimeoutError:
            pass
        found, self._messages = self._messages, []
        if found:
            return found
        if self._client.is_closed:
            raise ConnectionClosedError
        for message in self._statuses:
            status = (message.headers or {}).get(Header.STATUS)
            if status not in (StatusCode.NO_MESSAGES, StatusCode.CONFLICT, StatusCode.REQUEST_TIMEOUT):
                APIError.from_msg(message)
            self._is_answered = True
        return []


class Pulled:
    """What a pull consumer delivers, as far as nats-py shows it."""

    def __init__(self, after_seq: int, limit: int, max_bytes: int, is_ours: Callable[[str], bool]) -> None:
        self.messages: list[Message] = []
        self.taken = 0
        """Messages that the consumer has delivered and nats-py has shown."""
        self.has_dropped = False
        """A message is missing among those that were delivered."""
        self._after_seq = after_seq
        self._limit = limit
        self._max_bytes = max_bytes
        self._is_ours = is_ours
        self._last: Message | None = None
        self._bytes = 0
        self._pending = 0

    def read(self) -> Read:
        return Read(self.messages, more=bool(self._pending) or self.has_dropped, last=self._last)

    async def collect(self, deliveries: Deliveries, end: float) -> None:
        """Take messages until there are no more, or enough; waits until `end` (the loop's clock) for the first.

        Raises:
            NatsError, OSError: before the first message.
        """
        loop = asyncio.get_running_loop()
        while not self._is_done():
            if self.taken and not self.messages and self._pending and loop.time() >= end:
                # The node lags: it has only messages that were read before.
                return
            if self._pending:
                try:
                    fetched = await deliveries.fetch(
                        min(self._pending, _PULL, self._limit - len(self.messages)), _PULL_WAIT_S
                    )
                except (NatsError, OSError):
                    if not self.messages:
                        raise
                    # The messages that came are valid; the next read takes those after them.
                    return
            else:
                fetched = await _first(deliveries, end)
                if not fetched:
                    return
            for message in fetched:
                if not self._take(message):
                    self.has_dropped = True
                    return

    def _is_done(self) -> bool:
        if not self.messages:
            return False
        return not self._pending or len(self.messages) >= self._limit or self._bytes >= self._max_bytes

    def _take(self, delivered: Msg) -> bool:
        """Note the message; False if one before it is missing."""
        # Read here, because `metadata` of nats-py costs as much as the rest, and rounds the time.
        tokens = delivered.reply.split(".")
        first = _V1_SEQ if len(tokens) == _V1_TOKENS else _V2_SEQ
        seq, number, nanoseconds, pending = map(int, tokens[first : first + 4])
        if number != self.taken + 1:
            return False
        self.taken += 1
        self._pending = pending
        # A consumer on a node that is behind starts at that node's end, with what was read before.
        if seq < self._after_seq:
            return True
        message = Message(
            seq,
            delivered.subject,
            delivered.data,
            stored_at(nanoseconds),
            ours=self._is_ours(delivered.subject),
            traceparent=traceparent_in(delivered.headers),
        )
        if seq == self._after_seq:
            self._last = message
        else:
            self.messages.append(message)
            self._bytes += len(message.data)
        return True


async def _first(deliveries: Deliveries, end: float) -> list[Msg]:
    """The next message; empty if heartbeats came and no message: the server answers, and has no more or lags."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            return await deliveries.fetch(1, min(max(end - loop.time(), 0.05), _PULL_WAIT_S))
        except FetchTimeoutError:
            if loop.time() >= end:
                return []
