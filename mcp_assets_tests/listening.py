"""Listener: what the platform tells on NATS, heard by a client of its own."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from mcp_assets_tests.waiting import until

SUBJECTS = ("*.*.completed", "*.*.failed", "mcp_assets.>")


class Listener:
    """Subscribed to all results and dead letters while the block runs."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._heard: list[tuple[str, dict[str, Any]]] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._client: Client | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._subscribe(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._client is not None
        asyncio.run_coroutine_threadsafe(self._client.close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def heard(self) -> list[tuple[str, dict[str, Any]]]:
        """Subject and body of each message so far."""
        return list(self._heard)

    def all(self, subject: str, count: int, timeout_s: float = 5.0) -> list[dict[str, Any]]:
        """The messages on `subject`, once there are `count`; fails after `timeout_s`."""

        def found() -> list[dict[str, Any]]:
            return [body for heard, body in self._heard if heard == subject]

        with self._telling_what_was_heard():
            until(lambda: len(found()) >= count, f"there are {count} messages on {subject}", within_s=timeout_s)
        return found()

    def one(self, subject: str, timeout_s: float = 5.0) -> dict[str, Any]:
        """The message on `subject`; there is no other on it so far."""
        (found,) = self.all(subject, 1, timeout_s)
        return found

    def answer(self, message_id: str, timeout_s: float = 5.0) -> tuple[str, dict[str, Any]]:
        """Subject and body of the result that answers the request `message_id`."""

        def found() -> tuple[str, dict[str, Any]] | None:
            for subject, body in list(self._heard):
                if message_id in body["data"]["requests"] and subject != "mcp_assets.dead_letter":
                    return subject, body
            return None

        with self._telling_what_was_heard():
            return until(found, f"{message_id} is answered", within_s=timeout_s)

    @contextmanager
    def _telling_what_was_heard(self) -> Iterator[None]:
        try:
            yield
        except AssertionError as error:
            error.add_note(f"heard: {self._heard}")
            raise

    def clear(self) -> None:
        self._heard.clear()

    async def _subscribe(self) -> None:
        self._client = await nats.connect(
            self._url, max_reconnect_attempts=-1, reconnect_time_wait=0.1, error_cb=_quiet
        )
        for subject in SUBJECTS:
            await self._client.subscribe(subject, cb=self._hear)
        await self._client.flush()

    async def _hear(self, message: Msg) -> None:
        self._heard.append((message.subject, json.loads(message.data)))


async def _quiet(_: Exception) -> None:
    """Servers are killed in tests; the client comes back."""
