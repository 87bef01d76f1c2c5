"""Request guard: refuses what a page of another site makes the browser of the UI's user send; asks for no login."""

import ipaddress
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from graphql import GraphQLError, OperationDefinitionNode, OperationType, parse
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

_GRAPHQL = "/graphql"

_SAFE_TYPES = ("application/json", "application/graphql")
"""A page of another site can post none of these before the browser has asked for leave, by a request of OPTIONS."""

_DEFAULT_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}

_POLICY_VIOLATION = 1008
"""Of WebSocket's codes of closing."""


class RequestGuard:
    """ASGI middleware before Dagster's application."""

    def __init__(self, app: ASGIApp, *, names: Iterable[str], urls: Iterable[str] = ()) -> None:
        """`names`: host names by which the UI is reached. `urls`: addresses of it as browsers have them, where a proxy
        in front gives another Host."""
        self._app = app
        self._names = {name.lower() for name in names}
        self._origins = {_origin(url) for url in urls}

    @staticmethod
    def name_in(url: str) -> str:
        """The host name in an address."""
        return urlsplit(url).hostname or ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            refusal = self._refusal(scope)
            if refusal is not None:
                if scope["type"] == "websocket":
                    await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": refusal[1][:120]})
                    return
                answer = PlainTextResponse(refusal[1] + "\n", refusal[0], headers={"X-Content-Type-Options": "nosniff"})
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """The status and the sentence with which the request is refused; None: it goes on."""
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        host = hosts[0] if len(hosts) == 1 else ", ".join(hosts)
        if not self._is_ours(host):
            return 400, (
                f"the Dagster UI is not served under the name {host!r}: if people reach it by this name, set "
                "MCP_ASSETS_DAGSTER_URL to its address, or add the name to MCP_ASSETS_DAGSTER_HOSTS"
            )
        for origin in headers.getlist("origin"):
            if not self._may_ask(origin, host):
                return 403, f"a page of {origin} may not use the Dagster UI of {host}"
        if scope["type"] != "http" or not scope["path"].endswith(_GRAPHQL):
            return None
        if scope["method"] in ("GET", "HEAD") and _holds_mutation(scope):
            return 405, "a mutation is taken by POST alone, because any page can make a browser send a GET"
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if scope["method"] == "POST" and kind not in _SAFE_TYPES:
            return 415, f"post GraphQL as application/json, not as {kind or 'a body without a type'}"
        return None

    def _is_ours(self, host: str) -> bool:
        """Whether the UI is served under the name in a Host header.

        An IP address always is: a page of another site has its own name in Host, also where that leads to this machine.
        """
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _may_ask(self, origin: str, host: str) -> bool:
        asking = _origin(origin)
        scheme = asking[0]
        return asking in self._origins or (bool(scheme) and asking == _origin(f"{scheme}://{host}"))


def _origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port, as browsers compare them; ("", "", None) for `null` and what is no address."""
    try:
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return "", "", None
    return (parts.scheme, (parts.hostname or ""), port) if parts.hostname else ("", "", None)


def _holds_mutation(scope: Scope) -> bool:
    queries: Any = parse_qs(scope["query_string"].decode("latin-1")).get("query", [])
    for query in queries:
        try:
            document = parse(query)
        except GraphQLError:
            continue  # Dagster does not execute it either.
        if any(
            isinstance(part, OperationDefinitionNode) and part.operation == OperationType.MUTATION
            for part in document.definitions
        ):
            return True
    return False
