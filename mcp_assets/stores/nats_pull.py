"""A pull consumer's messages, in order, as far as nats-py shows them."""

import asyncio
from collections.abc import Callable

from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.errors import FetchTimeoutError

from mcp_assets.stores.streams import Message, Read, stored_at
from mcp_assets.traces import traceparent_in

_PULL = 200
"""Messages in one pull request; the caller's limit on bytes can be exceeded by one such request."""

_PULL_WAIT_S = 2.0
"""A pull request that waits longer is sent again, so that a broken connection is noticed."""

_V1_TOKENS, _V1_TIME = 9, 7
"""Tokens of a message's reply subject, and which of them is the time of storing; servers before 2.10 have this form."""


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

    async def collect(self, subscription: JetStreamContext.PullSubscription, end: float) -> None:
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
                    fetched = await subscription.fetch(
                        min(self._pending, _PULL, self._limit - len(self.messages)), timeout=_PULL_WAIT_S
                    )
                except (NatsError, OSError):
                    if not self.messages:
                        raise
                    # The messages that came are valid; the next read takes those after them.
                    return
            else:
                first = await _first(subscription, end)
                if first is None:
                    return
                fetched = [first]
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
        metadata = delivered.metadata
        if metadata.sequence.consumer != self.taken + 1:
            return False
        self.taken += 1
        self._pending = metadata.num_pending
        # A consumer on a node that is behind starts at that node's end, with what was read before.
        if metadata.sequence.stream < self._after_seq:
            return True
        message = Message(
            metadata.sequence.stream,
            delivered.subject,
            delivered.data,
            stored_at(_nanoseconds(delivered)),
            ours=self._is_ours(delivered.subject),
            traceparent=traceparent_in(delivered.headers),
        )
        if message.seq == self._after_seq:
            self._last = message
        else:
            self.messages.append(message)
            self._bytes += len(message.data)
        return True


async def _first(subscription: JetStreamContext.PullSubscription, end: float) -> Msg | None:
    """The next message; None if heartbeats came and no message: the server answers, and has no more or lags."""
    loop = asyncio.get_running_loop()
    while True:
        wait_s = min(max(end - loop.time(), 0.05), _PULL_WAIT_S)
        try:
            return (await subscription.fetch(1, timeout=wait_s, heartbeat=wait_s / 4))[0]
        except FetchTimeoutError:
            if loop.time() >= end:
                return None


def _nanoseconds(message: Msg) -> int:
    """When the stream stored the message; nats-py converts it to a float, which loses the last digits."""
    tokens = message.reply.split(".")
    return int(tokens[_V1_TIME] if len(tokens) == _V1_TOKENS else tokens[Msg.Ack.Timestamp])
