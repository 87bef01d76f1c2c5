"""Qdrant's identity: the marks that a Qdrant shows, read on each new connection before a request goes over it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from mcp_assets.loopback import is_loopback, unusable_proxy
from mcp_assets.stores.addresses import without_password
from mcp_assets.stores.errors import StoreRefused, StoreUnavailable
from mcp_assets.tls import trusted

METADATA_KEY = "mcp_assets_platform"
"""In the metadata of each of our collections: the key of the platform that made it."""

KEY_REFUSED = (
    "Qdrant refuses the key of this platform ({reason}): set QDRANT_API_KEY (or QDRANT_READ_API_KEY, for commands that "
    "only read) to a key that may do this"
)

Send = Callable[[httpx.Request], httpx.Response]

_PORT = 6333
"""Where a Qdrant answers if the address names no port: qdrant-client takes it, too."""

_TIMEOUT_S = 5.0
"""Seconds for one small read; a new connection waits for it before its first request."""


@dataclass(frozen=True, slots=True)
class QdrantIdentity:
    """The marks that a Qdrant shows."""

    server: str | None
    """The embedded server's own mark, the key of its state folder; a real Qdrant has none."""
    collections: Mapping[str, str | None]
    """Our collections, by their names, with the platform's key in their metadata; None: they have none.

    Not read from a server that has a mark of its own.
    """


class IdentityReader:
    """Reads the identity of a Qdrant, each time over a connection of its own."""

    def __init__(
        self, url: str, api_key: str | None, aliases: Sequence[str], *, tls_ca_file: Path | None = None
    ) -> None:
        self._url = url
        self._api_key = api_key
        self._tls_ca_file = tls_ca_file
        self._aliases = tuple(aliases)

    def read(self) -> QdrantIdentity:
        """Raises StoreUnavailable: no answer, or none that a Qdrant would give."""
        server = _object(self._get("/", missing_is_none=True) or {}).get("mcp_assets_mark")
        if server is not None:
            return QdrantIdentity(str(server), {})
        listed = self._result("/collections").get("collections")
        if not isinstance(listed, list):
            raise self._unlike_qdrant("/collections")
        names = [str(_object(entry).get("name")) for entry in listed]
        return QdrantIdentity(None, {name: self._mark_of(name) for name in names if self._is_ours(name)})

    def write_marks(self, collections: Sequence[str], key: str) -> None:
        """Put the platform's `key` into the metadata of `collections`."""
        for name in collections:
            body = {"metadata": {METADATA_KEY: key}}
            try:
                self._client.patch(f"/collections/{name}", json=body).raise_for_status()
            except httpx.HTTPError as error:
                raise self._silent(error) from error

    def version(self) -> str:
        """The version that the server says it has, such as 1.19.0.

        Raises:
            StoreUnavailable: it does not answer, or is not Qdrant.
        """
        said = _object(self._get("/")).get("version")
        if not isinstance(said, str):
            raise self._unlike_qdrant("/")
        return said

    def may_be_marked(self, name: str) -> bool:
        """Only this platform gives such names; a plain name may be that of another program's collection."""
        return any(name.startswith(f"{alias}__") for alias in self._aliases)

    def _is_ours(self, name: str) -> bool:
        return name in self._aliases or self.may_be_marked(name)

    def _mark_of(self, name: str) -> str | None:
        config = _object(self._result(f"/collections/{name}").get("config"))
        mark = _object(config.get("metadata") or {}).get(METADATA_KEY)
        return None if mark is None else str(mark)

    def _result(self, path: str) -> dict[str, Any]:
        result = _object(self._get(path)).get("result")
        if not isinstance(result, dict):
            raise self._unlike_qdrant(path)
        return result

    def _get(self, path: str, *, missing_is_none: bool = False) -> Any:
        try:
            response = self._client.get(path)
            if missing_is_none and response.status_code in (401, 403, 404):
                return None
            if response.status_code in (401, 403):
                raise StoreRefused(KEY_REFUSED.format(reason=text_of(response.content)))
            response.raise_for_status()
            return response.json()
        except httpx.HTTPError as error:
            raise self._silent(error) from error
        except ValueError as error:
            raise self._unlike_qdrant(path) from error

    @cached_property
    def _client(self) -> httpx.Client:
        """Made once, because it loads the system's certificates, which takes 20 ms; it keeps no connection."""
        no_keeping = httpx.Limits(max_keepalive_connections=0)
        try:
            return httpx.Client(
                base_url=rest_address(self._url),
                headers=key_header(self._api_key),
                verify=trusted(self._tls_ca_file, self._url),
                timeout=_TIMEOUT_S,
                limits=no_keeping,
                trust_env=not is_loopback(self._url),
            )
        except ImportError as error:
            raise StoreUnavailable(unusable_proxy("QDRANT_URL", error)) from error

    def _silent(self, error: Exception) -> StoreUnavailable:
        # httpx adds a line that sends the reader to a page about HTTP.
        reason = str(error).partition("\n")[0]
        return StoreUnavailable(
            f"Qdrant does not answer at {without_password(self._url)} ({reason}): check QDRANT_URL and that it runs"
        )

    def _unlike_qdrant(self, path: str) -> StoreUnavailable:
        return StoreUnavailable(
            f"what answers at {without_password(self._url)}{path} is not Qdrant: check QDRANT_URL, and which program "
            "listens on that port"
        )


def rest_address(url: str) -> str:
    """`url` with a port: qdrant-client connects to 6333 if it names none, where httpx takes 80 or 443."""
    parts = urlsplit(url)
    return url if parts.port is not None else parts._replace(netloc=f"{parts.netloc}:{_PORT}").geturl()


def text_of(content: bytes) -> str:
    """The start of an answer, as one line: Qdrant refuses a key in plain text."""
    return " ".join(content[:200].decode(errors="replace").split())


def key_header(api_key: str | None) -> dict[str, str]:
    """The header by which Qdrant knows its client.

    Given to qdrant-client as a header, because for its option `api_key` it warns of plain HTTP on loopback, too.
    """
    return {"api-key": api_key} if api_key else {}


def verify_connections(verify: Callable[[], None]) -> Callable[[httpx.Request, Send], httpx.Response]:
    """Middleware of qdrant-client that calls `verify` on each new connection, before a request goes over it.

    A program that takes over an address is always met on a new connection: the old one ends with the old program.
    """

    def trace(event: str, info: Mapping[str, Any]) -> None:
        if event == "connection.connect_tcp.complete":
            try:
                verify()
            except BaseException:
                info["return_value"].close()
                raise

    def middleware(request: httpx.Request, send: Send) -> httpx.Response:
        request.extensions["trace"] = trace
        return send(request)

    return middleware


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
