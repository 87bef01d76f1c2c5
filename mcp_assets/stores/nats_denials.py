"""Denied requests: NATS reports a permissions violation on the connection, and the request itself gets no answer.

Without this module such a request would end by its timeout, and the error would not name the reason.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, NoReturn, TypeVar

from mcp_assets.stores.errors import StoreRefused

T = TypeVar("T")


class Denials:
    """Listens to the errors of one connection; ends work that waits for the answer to a forbidden request."""

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Future[NoReturn], str] = {}

    async def heard(self, error: Exception) -> None:
        """The connection's `error_cb`. Errors of any other kind are reported by the call that needs the connection."""
        message = str(error)
        if "permissions violation" not in message.lower():
            return
        for waiting, subject in self._waiting.items():
            if subject.lower() in message.lower() and not waiting.done():
                waiting.set_exception(
                    StoreRefused(
                        f"NATS forbids this user a request ({message}): let it publish to $JS.API.STREAM.INFO.*, "
                        "$JS.API.STREAM.MSG.GET.* and $JS.API.CONSUMER.> of its streams, and to its results' subjects, "
                        "and subscribe to _INBOX.mcp_assets.>; deploy/nats/mcp_assets.conf has all of them"
                    )
                )

    async def unless_denied(self, subject: str, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, whose requests go to subjects that contain `subject`.

        Raises:
            StoreRefused: the user may not send one of them; `work` is cancelled.
        """
        task = asyncio.ensure_future(work)
        denied: asyncio.Future[NoReturn] = asyncio.get_running_loop().create_future()
        self._waiting[denied] = subject
        try:
            either: set[asyncio.Future[Any]] = {task, denied}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                denied.result()
            return task.result()
        finally:
            del self._waiting[denied]
            if not denied.cancel():
                denied.exception()
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
