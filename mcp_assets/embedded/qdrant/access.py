"""Access: who may ask this server at all; the key as a Qdrant server asks for it, and no page of a browser."""

import hmac

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

_OPEN = ("/", "/healthz", "/livez", "/readyz")
"""Answered without a key, as a Qdrant server does: its version, and whether it runs."""

_JSON = "application/json"


class Access:
    """ASGI middleware. `key`: what clients have to send; None: they need none."""

    def __init__(self, app: ASGIApp, key: str | None) -> None:
        self._app = app
        self._key = key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope, Headers(scope=scope)) if scope["type"] == "http" else None
        if refusal is not None:
            await PlainTextResponse(refusal[1], refusal[0])(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        """The status and the text of the refusal; None: the request goes on."""
        if "origin" in headers:
            return 403, "requests of web pages are refused"
        kind = headers.get("content-type", _JSON).partition(";")[0].strip().lower()
        if kind != _JSON:
            # Browsers send a text or a form to another site without asking that site first.
            return 415, f"send a body as {_JSON}"
        if self._key is None or scope["path"] in _OPEN:
            return None
        sent = headers.get("api-key") or headers.get("authorization", "").removeprefix("Bearer ")
        if not sent:
            return 401, "Must provide an API key or an Authorization bearer token"
        if not hmac.compare_digest(sent.encode(), self._key.encode()):
            return 401, "Invalid API key or JWT"
        return None
