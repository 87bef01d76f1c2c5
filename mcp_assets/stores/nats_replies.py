"""NATS replies: answers requests on one subject, over a connection of its own, for as long as the process wants."""

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.js.errors import APIError

from mcp_assets.stores.errors import StoreRefused, StoreUnavailable
from mcp_assets.stores.nats_access import PLAIN, NatsAccess
from mcp_assets.stores.nats_connection import NatsConnection
from mcp_assets.stores.nats_denials import Denials

logger = logging.getLogger(__name__)

_END_WITHIN_S = 3.0
"""Seconds that the end of a process waits for answers that are being made."""

_TRY_AGAIN_S = 10.0
"""Seconds after which a NATS that was away is tried again, and a connection looked at; the client itself reconnects
sooner."""


@dataclass(frozen=True, slots=True)
class ReplyRules:
    """What is answered, and how much of it at once.

    `refuse`: makes the answer to a request that is not worked on, of a sentence.
    """

    subject: str
    group: str
    """Of the processes of one group, NATS gives each request to one."""
    answer: Callable[[bytes], bytes]
    refuse: Callable[[str], bytes]
    most_bytes: int
    """Of a body; a longer one is refused."""
    at_once: int
    """Requests that are answered at the same time, each in a thread."""
    most_waiting: int
    """Requests that wait for that; further ones are refused."""


class NatsReplies(NatsConnection):
    """Answers requests by NATS, in the background, from `start` to `close`.

    Without NATS nothing is answered and nothing fails: it is tried again until it is there.
    """

    def __init__(
        self,
        url: str,
        rules: ReplyRules,
        *,
        access: NatsAccess = PLAIN,
        timeout_s: float = 10.0,
        verify: Callable[[str | None], None] | None = None,
    ) -> None:
        super().__init__(url, access=access, timeout_s=timeout_s, verify=verify)
        self._rules = rules
        self._denials = _LoggedDenials(rules.subject)
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._subscribed_on: object = None
        """The client that has the subscription; it subscribes again by itself when it reconnects."""
        self._subscription: Subscription | None = None
        self._places: asyncio.Semaphore | None = None
        self._taken = 0
        """Requests that are answered or wait."""
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        self._thread = threading.Thread(target=self._keep_subscribed, name="replies", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Answer what has come, for some seconds, and take no more."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join(_END_WITHIN_S)
        if self._subscription is not None:
            with suppress(StoreUnavailable):
                self._run(self._finish(self._subscription), 2 * _END_WITHIN_S)
        super().close()

    async def _finish(self, subscription: Subscription) -> None:
        with suppress(NatsError):
            await subscription.unsubscribe()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_END_WITHIN_S)

    def _keep_subscribed(self) -> None:
        told = ""
        while True:
            try:
                self._run(self._subscribe(), self._timeout_s * 3)
                told = ""
            except CancelledError:
                # The connection was closed meanwhile.
                return
            except (StoreUnavailable, StoreRefused) as error:
                if str(error) != told:
                    told = str(error)
                    logger.warning("requests on %s are not answered: %s", self._rules.subject, error)
            if self._ending.wait(_TRY_AGAIN_S):
                return

    async def _subscribe(self) -> None:
        client = await self._connected()
        if self._subscribed_on is client:
            return
        self._places = asyncio.Semaphore(self._rules.at_once)
        self._subscription = await client.subscribe(self._rules.subject, queue=self._rules.group, cb=self._received)
        await client.flush()
        self._subscribed_on = client
        await self._warn_of_streams()

    async def _warn_of_streams(self) -> None:
        """A stream that takes the subject acknowledges each request, and the acknowledgement comes first."""
        try:
            answer = await self._ask("$JS.API.STREAM.NAMES", subject=self._rules.subject)
        except (NatsError, APIError, OSError, StoreRefused):
            # A NATS without JetStream has no streams. A user who may not ask is not warned, and is served all the same.
            return
        if answer.get("streams"):
            logger.warning(
                "the stream %s takes %s, so that JetStream answers each request with an acknowledgement before it is "
                "answered here: take the subject out of the stream",
                ", ".join(answer["streams"]),
                self._rules.subject,
            )

    async def _received(self, message: Msg) -> None:
        if not message.reply:
            return
        rules = self._rules
        refusal = None
        if len(message.data) > rules.most_bytes:
            refusal = f"the request has {len(message.data):,} bytes, and at most {rules.most_bytes:,} are read: cut it"
        elif self._taken >= rules.at_once + rules.most_waiting:
            refusal = f"{self._taken} requests are under way, and no more are taken: ask again in a second"
        if refusal is not None:
            await self._respond(message, rules.refuse(refusal))
            return
        self._taken += 1
        task = asyncio.create_task(self._work(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, message: Msg) -> None:
        assert self._places is not None  # noqa: S101  (made before the subscription)
        try:
            async with self._places:
                answer = await asyncio.to_thread(self._answered, message.data)
            if self._client is not None and len(answer) > (most := self._client.max_payload):
                answer = self._rules.refuse(
                    f"the answer has {len(answer):,} bytes, and NATS takes {most:,} in one message: ask for less"
                )
            await self._respond(message, answer)
        finally:
            self._taken -= 1

    def _answered(self, body: bytes) -> bytes:
        try:
            return self._rules.answer(body)
        except Exception:
            # The requester waits: what is a fault of ours is logged, and answered as one.
            logger.exception("a request on %s could not be answered", self._rules.subject)
            return self._rules.refuse("a fault kept the request from being answered: the log of the server has it")

    async def _respond(self, message: Msg, answer: bytes) -> None:
        try:
            await message.respond(answer)
        except (NatsError, OSError) as error:
            logger.warning("an answer on %s was not sent: %s", self._rules.subject, error)


class _LoggedDenials(Denials):
    """Says in the log that the user may not subscribe, which NATS reports on the connection alone."""

    def __init__(self, subject: str) -> None:
        super().__init__()
        self._subject = subject

    async def heard(self, error: Exception) -> None:
        message = str(error)
        if "permissions violation" in message.lower() and self._subject in message.lower():
            logger.warning(
                "requests on %s are not answered, because NATS forbids it to this user (%s): let it subscribe to the "
                "subject and answer (allow_responses), as deploy/nats/mcp_assets.conf does",
                self._subject,
                message,
            )
        await super().heard(error)
