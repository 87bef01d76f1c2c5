"""Qdrant connection: one client, and the answers of Qdrant that are errors as the errors of this package."""

import json
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import httpx
from pydantic_core import to_json
from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.api_client import Send
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from mcp_assets.loopback import is_loopback, unusable_proxy
from mcp_assets.stores.addresses import without_password
from mcp_assets.stores.errors import StoreRefused, StoreUnavailable
from mcp_assets.stores.qdrant_identity import KEY_REFUSED, key_header, text_of, verify_connections
from mcp_assets.tls import trusted
from mcp_assets.tuning import StoreTuning

T = TypeVar("T")

_CONNECTIONS = httpx.Limits(max_connections=None, max_keepalive_connections=16, keepalive_expiry=3.0)
"""Connections are kept for the next request, on loopback too, where qdrant-client would open one for each request:
every new connection is verified, which takes a request or more. They are closed before a server closes them, which
both the embedded server and a real Qdrant do after 5 s."""


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
        self._made: QdrantClient | None = None

    @property
    def _client(self) -> QdrantClient:
        with self._lock:
            if self._made is None:
                try:
                    self._made = QdrantClient(
                        url=self._url,
                        headers=key_header(self._api_key),
                        verify=trusted(self._tls_ca_file, self._url),
                        timeout=int(self._timeout_s),
                        check_compatibility=False,
                        limits=_CONNECTIONS,
                        trust_env=not is_loopback(self._url),
                    )
                except ImportError as error:
                    raise StoreUnavailable(unusable_proxy("QDRANT_URL", error)) from error
                self._made.http.client.add_middleware(freed_after_use)
                if self._verify is not None:
                    self._made.http.client.add_middleware(verify_connections(self._verify))
            return self._made

    def close(self) -> None:
        with self._lock:
            if self._made is not None:
                self._made.close()
                self._made = None

    def _applied(self, call: Callable[[], models.UpdateResult | Iterable[models.UpdateResult]]) -> None:
        """Do `call`, which writes and waits; raises StoreUnavailable unless Qdrant has applied all of it."""
        answer = self._call(call)
        results = [answer] if isinstance(answer, models.UpdateResult) else list(answer)
        for result in results:
            if result.status != models.UpdateStatus.COMPLETED:
                raise StoreUnavailable(
                    f"Qdrant took a write but has not applied it within {self._timeout_s:.0f} s "
                    f"(status {result.status.value}): it is repeated; if this goes on, look at Qdrant's load"
                )

    def _post(self, collection: str, path: str, body: Mapping[str, Any], read: Callable[[Any], T]) -> T:
        """What `read` makes of the result of a request about points, which is JSON.

        Without the client's models: one for each hit or vector, they cost three times what the request itself does.
        """
        answer: dict[str, Any] = self._call(
            lambda: self._client.http.client.request(
                type_=dict[str, Any],
                method="POST",
                url="/collections/{collection_name}/points" + path,
                path_params={"collection_name": collection},
                params={"timeout": str(int(self._timeout_s))},
                headers={"Content-Type": "application/json"},
                content=to_json(body),
            )
        )
        try:
            return read(answer["result"])
        except (KeyError, TypeError) as error:
            raise StoreUnavailable(
                f"Qdrant at {without_password(self._url)} answered a request for points with something else: "
                "check that QDRANT_URL leads to Qdrant itself"
            ) from error

    def _call(self, call: Callable[[], T]) -> T:
        """The result of `call`. Raises StoreRefused or StoreUnavailable."""
        try:
            return call()
        except UnexpectedResponse as error:
            if error.status_code in (401, 403):
                raise StoreRefused(KEY_REFUSED.format(reason=text_of(error.content))) from error
            reason = reason_of(error)
            if error.status_code is not None and 400 <= error.status_code < 500 and error.status_code not in (408, 429):
                raise StoreRefused(f"Qdrant refused ({error.status_code}): {reason}") from error
            raise StoreUnavailable(f"Qdrant failed ({error.status_code}): {reason}") from error
        except ResourceExhaustedResponse as error:
            # A 429 that names a time after which to try again; the client has an exception of its own for it.
            raise StoreUnavailable(f"Qdrant takes no more requests at the moment (429): {error}") from error
        except (ResponseHandlingException, ApiException) as error:
            source = error.source if isinstance(error, ResponseHandlingException) else None
            if isinstance(source, StoreUnavailable | StoreRefused):
                raise source from error
            raise StoreUnavailable(
                f"Qdrant does not answer at {without_password(self._url)} ({error}): check QDRANT_URL and that it runs"
            ) from error


def freed_after_use(request: httpx.Request, send: Send) -> httpx.Response:
    """Middleware of qdrant-client by which the memory of an answer is free as soon as the answer has been parsed.

    The stream of an httpx response refers to its response, so that only the garbage collector would free the two with
    the bytes of the answer. It counts objects and not bytes: while 100,000 vectors were read, 560 MB waited for it.
    """
    response = send(request)
    # The client has read the whole answer, and keeps its bytes elsewhere.
    response.stream = httpx.ByteStream(b"")
    return response


def reason_of(error: UnexpectedResponse) -> str:
    """The sentence in which Qdrant says why it refused."""
    try:
        return str(json.loads(error.content)["status"]["error"])[:500]
    except (ValueError, KeyError, TypeError):
        return error.reason_phrase


def is_not_found(error: StoreRefused) -> bool:
    return isinstance(error.__cause__, UnexpectedResponse) and error.__cause__.status_code == 404
