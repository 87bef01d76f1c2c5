"""NATS publishing: messages to streams, and announcements (results of the platform) that are stored exactly once."""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence

from nats.errors import Error as NatsError
from nats.js import JetStreamContext, api
from nats.js.errors import APIError, NoStreamResponseError, NotFoundError

from mcp_assets.stores.errors import StoreRefused
from mcp_assets.stores.nats_access import PLAIN, NatsAccess
from mcp_assets.stores.nats_connection import NatsConnection
from mcp_assets.stores.streams import Announcement, ResultsStream
from mcp_assets.traces import HEADER

logger = logging.getLogger(__name__)

_DUPLICATES_KNOWN_S = 3600.0
"""How long the server remembers ids of announcements: longer than an announcement waits after a failed attempt."""

_DAY_S = 86_400.0

_KEPT_AGAIN_S = 60.0
"""How often a subject that no stream kept is looked up again."""

_NO_STREAM = "mcp_assets_none"
"""The name of a stream that does not exist."""

_PUBLISH_ELSEWHERE = (
    "publish on a subject of a stream in MCP_ASSETS_STREAMS (`mcp-assets doctor` names them), or add it to one"
)
_MAKE_ONE = "make a stream of yours that takes it; the platform makes none"
"""What to do if no stream takes a subject: of messages that the platform reads, and of those that others read."""

_ANNOUNCE_WAIT_S = 1.0
"""How long an announcement waits for a lost connection. It is short because announcements are kept and sent later."""


class NatsPublisher(NatsConnection):
    """Publishes over one connection. `results`: the stream that keeps announcements; None: none is made."""

    def __init__(
        self,
        url: str,
        results: ResultsStream | None = None,
        *,
        access: NatsAccess = PLAIN,
        timeout_s: float = 10.0,
        verify: Callable[[str | None], None] | None = None,
    ) -> None:
        super().__init__(url, access=access, timeout_s=timeout_s, verify=verify)
        self._results = results
        self._kept: dict[str, tuple[bool, float]] = {}

    def publish(self, messages: Iterable[tuple[str, bytes]], *, flush_every: int = 500) -> int:
        """Publish to JetStream; returns when streams have stored all. The number published.

        Raises:
            StoreUnavailable, StoreRefused: some may be published. No stream takes a subject, for example.
        """
        count = 0
        batch: list[tuple[str, bytes]] = []
        for message in messages:
            batch.append(message)
            if len(batch) >= flush_every:
                count += self._run(self._publish(batch), self._timeout_s * 3)
                batch = []
        return count + (self._run(self._publish(batch), self._timeout_s * 3) if batch else 0)

    def announce(self, announcements: Sequence[Announcement]) -> None:
        """Publish all; returns when a stream has stored each, or, if no stream keeps its subject, the server has it.

        Core subscribers receive them in any case.

        Raises:
            StoreUnavailable, StoreRefused: some may be published. Announced again, a stream keeps each of them once.
        """
        self._run(self._announce(announcements), self._timeout_s * 3)

    def store(self, announcements: Sequence[Announcement]) -> None:
        """As `announce`, of announcements that a stream has to keep.

        Raises:
            StoreUnavailable: some may be stored. StoreRefused: no stream takes a subject, or the user may not publish.
        """
        self._run(self._store(announcements), self._timeout_s * 3)

    async def _store(self, announcements: Sequence[Announcement]) -> None:
        js = await self._jetstream()
        storing = (
            self._denials.unless_denied(
                one.subject, js.publish(one.subject, one.data, headers={api.Header.MSG_ID.value: one.id})
            )
            for one in announcements
        )
        try:
            await asyncio.gather(*storing)
        except NoStreamResponseError:
            await self._raise_if_taken_by_no_stream(js, sorted({one.subject for one in announcements}), _MAKE_ONE)
            raise

    def require_stream(self, subject: str) -> None:
        """A stream stores what is published on `subject`.

        Raises:
            StoreUnavailable: NATS does not answer. StoreRefused: none does.
        """
        self._run(self._require_stream(subject), self._timeout_s * 2)

    async def _require_stream(self, subject: str) -> None:
        await self._raise_if_taken_by_no_stream(await self._jetstream(), [subject], _MAKE_ONE)

    def ensure_results_stream(self) -> None:
        """Make the stream that keeps announcements, unless each of them is kept already or the settings forbid it.

        The first announcement makes it otherwise, by a user who may have no right to.

        Raises:
            StoreUnavailable, StoreRefused: NATS does not answer, or tells this user of no stream.
        """
        self._run(self._ensure_results_stream(), self._timeout_s * 2)

    async def _ensure_results_stream(self) -> None:
        js = (await self._connected()).jetstream()
        for subject in self._results.subjects if self._results is not None else ():
            await self._is_kept(js, subject)

    def round_trip(self, subject: str) -> float:
        """Publish a message that no stream stores and receive it. Returns the seconds that it took.

        Raises:
            StoreRefused: the user may not publish there, or not subscribe. StoreUnavailable: it did not come back.
        """
        return self._run(self._round_trip(subject), self._timeout_s * 2)

    async def _round_trip(self, subject: str) -> float:
        client = await self._connected()
        # A stream that takes every subject refuses a message that expects to go to another stream.
        header = {api.Header.EXPECTED_STREAM.value: _NO_STREAM}
        subscription = await client.subscribe(subject)
        try:
            began = time.monotonic()
            await client.publish(subject, b"", headers=header)
            await self._denials.unless_denied(subject, subscription.next_msg(timeout=self._timeout_s))
            return time.monotonic() - began
        except StoreRefused as error:
            raise StoreRefused(
                f"NATS forbids this user to publish on {subject} or to subscribe to it: let it publish its results "
                f"({', '.join(self._results.subjects if self._results else ())}) and on mcp_assets.>"
            ) from error
        finally:
            await subscription.unsubscribe()

    async def _publish(self, batch: Sequence[tuple[str, bytes]]) -> int:
        js = await self._jetstream()
        try:
            acknowledged = await asyncio.gather(
                *(self._denials.unless_denied(subject, js.publish(subject, data)) for subject, data in batch)
            )
        except NoStreamResponseError:
            await self._raise_if_taken_by_no_stream(js, sorted({subject for subject, _ in batch}))
            raise
        return len(acknowledged)

    async def _raise_if_taken_by_no_stream(
        self, js: JetStreamContext, subjects: Sequence[str], advice: str = _PUBLISH_ELSEWHERE
    ) -> None:
        """Raises StoreRefused with the first of `subjects` that no stream takes. A stream may also lack its leader."""
        for subject in subjects:
            try:
                await js.find_stream_name_by_subject(subject)
            except NotFoundError as error:
                raise StoreRefused(
                    f"no stream takes messages on the subject {subject}, so that what is published there is not "
                    f"stored: {advice}"
                ) from error

    async def _announce(self, announcements: Sequence[Announcement]) -> None:
        client = await self._connected()
        deadline = time.monotonic() + _ANNOUNCE_WAIT_S
        while not client.is_connected:
            # The client reconnects by itself. The caller does not wait for it: the announcements are kept.
            if time.monotonic() > deadline:
                raise NatsError("the connection is lost")
            await asyncio.sleep(0.05)
        js = client.jetstream(timeout=self._timeout_s)
        stored = []
        for one in announcements:
            header = {api.Header.MSG_ID.value: one.id}
            if one.traceparent is not None:
                header[HEADER] = one.traceparent
            if await self._is_kept(js, one.subject):
                publishing = js.publish(one.subject, one.data, headers=header)
                stored.append(self._denials.unless_denied(one.subject, publishing))
            else:
                await client.publish(one.subject, one.data, headers=header)
        try:
            await asyncio.gather(*stored)
        except BaseException:
            # The stream may be gone: the next attempt looks for it again.
            self._kept.clear()
            raise
        await client.flush(timeout=int(self._timeout_s))

    async def _is_kept(self, js: JetStreamContext, subject: str) -> bool:
        """A stream stores what is published on `subject`; the stream of results is made if none does."""
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
            # For example, another stream takes some of the subjects, or the account has no room. The announcements
            # still reach present subscribers.
            logger.warning("results are kept by no stream, for %s cannot be made: %s", results.name, error)
            return False
        return True
