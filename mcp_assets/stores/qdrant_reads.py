"""Qdrant reads: what every process asks of Qdrant, such as which collections there are, as plain JSON.

Most commands and the sensors ask nothing else. They go without qdrant-client, because to load it takes half of the time
in which such a command starts, and 36 MB.
"""

import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import httpx

from mcp_assets.loopback import is_loopback, unusable_proxy
from mcp_assets.stores.addresses import without_password
from mcp_assets.stores.errors import StoreRefused, StoreUnavailable
from mcp_assets.stores.qdrant_identity import KEY_REFUSED, key_header, rest_address, text_of, verify_connections
from mcp_assets.tls import trusted

T = TypeVar("T")

CONNECTIONS = httpx.Limits(max_connections=None, max_keepalive_connections=16, keepalive_expiry=3.0)
"""Connections are kept for the next request, on loopback too, where qdrant-client would open one for each request:
every new connection is verified, which takes a request or more. They are closed before a server closes them, which
both the embedded server and a real Qdrant do after 5 s."""


class QdrantReads:
    """Asks one Qdrant. Thread-safe; connects lazily.

    `verify`: called on each new connection, as of `QdrantConnection`.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None,
        *,
        tls_ca_file: Path | None,
        timeout_s: float,
        verify: Callable[[], None] | None,
    ) -> None:
        self._url = url
        self._api_key = api_key
        self._tls_ca_file = tls_ca_file
        self._timeout_s = timeout_s
        self._verified = verify_connections(verify) if verify is not None else None
        self._lock = threading.Lock()
        self._made: httpx.Client | None = None

    def get(self, path: str, read: Callable[[Any], T]) -> T:
        """What `read` makes of the result of a GET of `path`.

        Raises:
            StoreRefused, StoreUnavailable: as of `QdrantConnection`.
        """
        return self._result("GET", path, None, read)

    def post(self, path: str, body: Mapping[str, Any], read: Callable[[Any], T]) -> T:
        """The same of a POST of `body`, which asks and changes nothing."""
        return self._result("POST", path, body, read)

    def close(self) -> None:
        with self._lock:
            if self._made is not None:
                self._made.close()
                self._made = None

    def _result(self, method: str, path: str, body: Mapping[str, Any] | None, read: Callable[[Any], T]) -> T:
        client = self._client
        request = client.build_request(method, path, json=body)
        try:
            answer = client.send(request) if self._verified is None else self._verified(request, client.send)
        except (httpx.HTTPError, httpx.InvalidURL, RuntimeError) as error:
            # RuntimeError: another thread has closed the client.
            raise silent(self._url, error) from error
        if not answer.is_success:
            cause = httpx.HTTPStatusError(answer.reason_phrase, request=request, response=answer)
            raise refusal(answer.status_code, answer.content, answer.reason_phrase, answer.headers) from cause
        try:
            return read(answer.json()["result"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise unlike_qdrant(self._url) from error

    @property
    def _client(self) -> httpx.Client:
        with self._lock:
            if self._made is None:
                try:
                    self._made = httpx.Client(
                        base_url=rest_address(self._url),
                        headers=key_header(self._api_key),
                        verify=trusted(self._tls_ca_file, self._url),
                        timeout=self._timeout_s,
                        limits=CONNECTIONS,
                        trust_env=not is_loopback(self._url),
                    )
                except ImportError as error:
                    raise StoreUnavailable(unusable_proxy("QDRANT_URL", error)) from error
            return self._made


def path_of(collection: str) -> str:
    """The path of a collection, whatever its name."""
    return f"/collections/{quote(collection, safe='')}"


def refusal(
    status: int | None, content: bytes, phrase: str, headers: Mapping[str, str]
) -> StoreRefused | StoreUnavailable:
    """The error that an answer other than success is. `phrase`: said where the answer gives no reason."""
    if status in (401, 403):
        return StoreRefused(KEY_REFUSED.format(reason=text_of(content)))
    reason = reason_in(content, phrase)
    if status == 429 and headers.get("Retry-After"):
        return StoreUnavailable(f"Qdrant takes no more requests at the moment (429): {reason}")
    if status is not None and 400 <= status < 500 and status not in (408, 429):
        return StoreRefused(f"Qdrant refused ({status}): {reason}")
    return StoreUnavailable(f"Qdrant failed ({status}): {reason}")


def reason_in(content: bytes, phrase: str) -> str:
    """The sentence in which Qdrant says why it refused; `phrase` if it says nothing."""
    try:
        return str(json.loads(content)["status"]["error"])[:500]
    except (ValueError, KeyError, TypeError):
        return phrase


def silent(url: str, error: Exception) -> StoreUnavailable:
    """The error that there is no answer."""
    return StoreUnavailable(
        f"Qdrant does not answer at {without_password(url)} ({error}): check QDRANT_URL and that it runs"
    )


def unlike_qdrant(url: str) -> StoreUnavailable:
    """The error that an answer is none of Qdrant's."""
    return StoreUnavailable(
        f"Qdrant at {without_password(url)} answered a request with something else: check that QDRANT_URL leads to "
        "Qdrant itself"
    )
