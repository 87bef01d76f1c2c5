"""Qdrant connection: requests over REST, and the answers of Qdrant that are errors as the errors of this package.

Requests and answers are plain JSON, as Qdrant's API describes them. qdrant-client is not used here, because to load it
takes half of the start of a command, and its objects cost more than the requests that they are made for.
"""

import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from pydantic_core import from_json, to_json

from mcp_assets.loopback import is_loopback, unusable_proxy
from mcp_assets.stores.addresses import without_password
from mcp_assets.stores.errors import PointsMissing, StoreRefused, StoreUnavailable
from mcp_assets.stores.qdrant_identity import KEY_REFUSED, key_header, text_of
from mcp_assets.tls import trusted
from mcp_assets.tuning import StoreTuning

_CONNECTIONS = httpx.Limits(max_connections=None, max_keepalive_connections=16, keepalive_expiry=3.0)
"""Connections are kept for the next request, because every new connection is verified, which takes a request or more.
They are closed before a server closes them, which both the embedded server and a real Qdrant do after 5 s."""

_TRIED_AGAIN = (408, 429)
"""Answers of 400 to 499 that say nothing about the request itself: it took too long, or there are too many of them."""

_JSON = {"Content-Type": "application/json"}

WAIT = {"wait": "true"}
"""The parameter by which Qdrant answers a write when it is applied, and not when it is accepted."""


class QdrantConnection:
    """One Qdrant. Thread-safe; connects lazily.

    `verify` is called on each new connection, and raises StoreUnavailable if it leads to another Qdrant. `mark` gives
    the platform's key, which new collections bear in their metadata.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        tls_ca_file: Path | None = None,
        timeout_s: float = 30.0,
        verify: Callable[[], None] | None = None,
        mark: Callable[[], str] | None = None,
        tuning: StoreTuning = StoreTuning(),
    ) -> None:
        self._tuning = tuning
        self._verify = verify
        self._mark = mark
        self._url = url
        self._api_key = api_key
        self._tls_ca_file = tls_ca_file
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._made: httpx.Client | None = None

    @property
    def _client(self) -> httpx.Client:
        with self._lock:
            if self._made is None:
                try:
                    self._made = httpx.Client(
                        base_url=self._url,
                        headers=key_header(self._api_key),
                        verify=trusted(self._tls_ca_file, self._url),
                        timeout=self._timeout_s,
                        limits=_CONNECTIONS,
                        trust_env=not is_loopback(self._url),
                    )
                except ImportError as error:
                    raise StoreUnavailable(unusable_proxy("QDRANT_URL", error)) from error
            return self._made

    def close(self) -> None:
        with self._lock:
            if self._made is not None:
                self._made.close()
                self._made = None

    def _request(self, method: str, path: str, body: Any = None, params: Mapping[str, str] | None = None) -> Any:
        """The `result` of Qdrant's answer, as JSON.

        `path`: made by `collection_path` where it names a collection. `body`: what is sent as JSON, or its bytes.

        Raises:
            PointsMissing: Qdrant answers 404. StoreRefused: it refuses the request otherwise.
            StoreUnavailable: it does not answer, or something else than Qdrant does.
        """
        content = body if body is None or isinstance(body, bytes) else to_json(body, inf_nan_mode="null")
        client = self._client
        try:
            answer = client.request(
                method,
                path,
                content=content,
                params=params,
                headers=None if content is None else _JSON,
                extensions={"trace": self._verify_connection} if self._verify is not None else None,
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise StoreUnavailable(
                f"Qdrant does not answer at {without_password(self._url)} ({error}): check QDRANT_URL and that it runs"
            ) from error
        if answer.is_success:
            try:
                return from_json(answer.content)["result"]
            except (ValueError, KeyError, TypeError) as error:
                raise self._unlike_qdrant(path) from error
        raise _error_of(answer)

    def _applied(self, results: Mapping[str, Any] | Iterable[Mapping[str, Any]]) -> None:
        """Raise StoreUnavailable unless Qdrant has applied all of a write that it has answered with `results`."""
        for result in [results] if isinstance(results, Mapping) else results:
            if result["status"] != "completed":
                raise StoreUnavailable(
                    f"Qdrant took a write but has not applied it within {self._timeout_s:.0f} s "
                    f"(status {result['status']}): it is repeated; if this goes on, look at Qdrant's load"
                )

    def _unlike_qdrant(self, path: str) -> StoreUnavailable:
        return StoreUnavailable(
            f"what answers at {without_password(self._url)}{path} is not Qdrant: check QDRANT_URL, and which program "
            "listens on that port"
        )

    def _verify_connection(self, event: str, info: Mapping[str, Any]) -> None:
        """Verify a new connection before a request goes over it; the HTTP client calls this at each event of a request.

        A program that takes over an address is always met on a new connection: the old one ends with the old program.
        """
        if event == "connection.connect_tcp.complete" and self._verify is not None:
            try:
                self._verify()
            except BaseException:
                info["return_value"].close()
                raise


def collection_path(collection: str, path: str = "") -> str:
    """The path of a request about a collection; `path`: what follows its name, such as `/points/scroll`.

    Raises:
        StoreRefused: a collection cannot have this name, because the path would be another one.
    """
    if collection in ("", ".", ".."):
        raise StoreRefused(f"{collection!r} is no name of a collection")
    return f"/collections/{quote(collection, safe='')}{path}"


def _error_of(answer: httpx.Response) -> StoreRefused | StoreUnavailable:
    status = answer.status_code
    if status in (401, 403):
        return StoreRefused(KEY_REFUSED.format(reason=text_of(answer.content)))
    said = f"({status}): {_reason_of(answer)}"
    if status == 404:
        return PointsMissing(f"Qdrant refused {said}")
    if 400 <= status < 500 and status not in _TRIED_AGAIN:
        return StoreRefused(f"Qdrant refused {said}")
    return StoreUnavailable(f"Qdrant failed {said}")


def _reason_of(answer: httpx.Response) -> str:
    """The sentence in which Qdrant says why it refused."""
    try:
        return str(from_json(answer.content)["status"]["error"])[:500]
    except (ValueError, KeyError, TypeError):
        return answer.reason_phrase
