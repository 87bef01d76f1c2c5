"""NATS client that verifies each server, and the mark by which a NATS is known."""

import asyncio
from collections.abc import Callable
from typing import Any

from nats.aio.client import Client
from nats.errors import Error as NatsError

from mcp_assets.stores.errors import StoreUnavailable


class VerifiedClient(Client):
    """A client that calls `verify` with the mark of each server before it sends anything, after a reconnect too.

    The client sends what was published while the connection was lost to the next server, as soon as that is
    connected, so that a check after the reconnect would come too late.
    """

    def __init__(self, verify: Callable[[str | None], None] | None) -> None:
        super().__init__()
        self._verify = verify
        self._was_connected = False
        self.refused: StoreUnavailable | None = None
        """Why the server that was found last is not this platform's; None if it is."""

    async def _process_connect_init(self) -> None:
        try:
            await super()._process_connect_init()
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            # The client expects a NATS server, and what another program sends makes it fail in many ways.
            assert self._transport is not None  # noqa: S101  (the server's bytes came by it)
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
            await asyncio.to_thread(self._verify, mark_of_server(info))
        except StoreUnavailable as error:
            # The client's next try replaces the transport without closing it.
            assert self._transport is not None  # noqa: S101  (the server's first message came by it)
            self._transport.close()  # type: ignore[no-untyped-call]
            if not self._was_connected:
                raise
            self.refused = error
            raise NatsError(str(error)) from error  # The client goes on with its tries.
        self.refused = None
        self._was_connected = True


def mark_of_server(info: dict[str, Any]) -> str | None:
    """The mark in a server's first message: its cluster's name, otherwise its own; None if it has neither."""
    if info.get("cluster"):
        return f"cluster {info['cluster']}"
    name = info.get("server_name")
    # A server without a configured name shows its id, which changes at each start.
    return None if name in (None, "", info["server_id"]) else f"server {name}"
