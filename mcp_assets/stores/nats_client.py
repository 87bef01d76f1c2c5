"""NATS client that verifies each server, and the mark by which a NATS is known."""

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, NoReturn

from nats.aio.client import Client
from nats.errors import Error as NatsError

from mcp_assets.stores.errors import StoreRefused, StoreUnavailable
from mcp_assets.stores.nats_access import tls_fault

_UNKNOWN_USER = (
    "NATS does not let this user in: check the user and password or the token in NATS_URL, or the file that "
    "NATS_CREDS_FILE or NATS_NKEY_FILE names"
)

_NO_TLS = (
    "NATS has no TLS at the address in NATS_URL, and NATS_URL (tls://) or a NATS_TLS_… setting asks for it: nothing "
    "was sent; turn TLS on in the server, or take the setting away"
)


class VerifiedClient(Client):
    """A client that calls `verify` with the mark of each server before it sends anything, after a reconnect too.

    The client sends what was published while the connection was lost to the next server, as soon as that is
    connected, so that a check after the reconnect would come too late.
    """

    def __init__(self, verify: Callable[[str | None], None] | None, *, demands_tls: bool = False) -> None:
        """`demands_tls`: send nothing to a server that asks for no TLS."""
        super().__init__()
        self._verify = verify
        self._demands_tls = demands_tls
        self._was_connected = False
        self.refused: StoreUnavailable | StoreRefused | None = None
        """Why the server that was found last is not used; None if it is."""

    async def _process_connect_init(self) -> None:
        try:
            await super()._process_connect_init()
        except ssl.SSLError as error:
            self._refuse(StoreUnavailable(tls_fault(error) or str(error)), error)
        except NatsError as error:
            if not _is_about_credentials(error):
                raise
            self._refuse(StoreRefused(_UNKNOWN_USER), error)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            # The client expects a NATS server, and what another program sends makes it fail in many ways.
            self._refuse(StoreUnavailable("what answers at the address in NATS_URL is no NATS server"), error)
        self.refused = None
        self._was_connected = True

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        await super()._process_info(info, initial_connection)
        if not initial_connection:
            return
        if self._demands_tls and not info.get("tls_required") and not self._is_encrypted:
            self._refuse(StoreRefused(_NO_TLS), None)
        if self._verify is None:
            return
        try:
            await asyncio.to_thread(self._verify, mark_of_server(info))
        except StoreUnavailable as error:
            self._refuse(error, error.__cause__)

    @property
    def _is_encrypted(self) -> bool:
        """The connection has TLS from its first byte."""
        return self._current_server is not None and self._current_server.uri.scheme == "wss"

    def _refuse(self, fault: StoreUnavailable | StoreRefused, cause: BaseException | None) -> NoReturn:
        """Close the connection to a server that cannot be used.

        Raises:
            StoreUnavailable, StoreRefused: it would be the first connection, so that the caller hears of it.
            NatsError: the client was connected before, and goes on with its tries; the next request raises the reason.
        """
        # The client's next try replaces the transport without closing it.
        assert self._transport is not None  # noqa: S101  (the server's bytes came by it)
        self._transport.close()  # type: ignore[no-untyped-call]
        if not self._was_connected:
            raise fault from cause
        self.refused = fault
        raise NatsError(str(fault)) from cause


def _is_about_credentials(error: NatsError) -> bool:
    return any(word in str(error).lower() for word in ("authorization", "authentication"))


def mark_of_server(info: dict[str, Any]) -> str | None:
    """The mark in a server's first message: its cluster's name, otherwise its own; None if it has neither."""
    if info.get("cluster"):
        return f"cluster {info['cluster']}"
    name = info.get("server_name")
    # A server without a configured name shows its id, which changes at each start.
    return None if name in (None, "", info["server_id"]) else f"server {name}"
