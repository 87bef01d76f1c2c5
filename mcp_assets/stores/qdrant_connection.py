"""Qdrant connection: one client, and the answers of Qdrant that are errors as the errors of this package.

qdrant-client is loaded with the first request that needs it, because most commands make none.
"""

import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
from pydantic_core import to_json

from mcp_assets.loopback import is_loopback, unusable_proxy
from mcp_assets.stores.errors import StoreRefused, StoreUnavailable
from mcp_assets.stores.qdrant_identity import Send, key_header, verify_connections
from mcp_assets.stores.qdrant_reads import CONNECTIONS, QdrantReads, reason_in, refusal, silent, unlike_qdrant
from mcp_assets.tls import trusted
from mcp_assets.tuning import StoreTuning

if TYPE_CHECKING:
    from qdrant_client import QdrantClient, models
    from qdrant_client.http.exceptions import UnexpectedResponse

T = TypeVar("T")


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
        self._reads = QdrantReads(url, api_key, tls_ca_file=tls_ca_file, timeout_s=timeout_s, verify=verify)

    @property
    def _client(self) -> "QdrantClient":
        with self._lock:
            if self._made is None:
                from qdrant_client import QdrantClient

                try:
                    self._made = QdrantClient(
                        url=self._url,
                        headers=key_header(self._api_key),
                        verify=trusted(self._tls_ca_file, self._url),
                        timeout=int(self._timeout_s),
                        check_compatibility=False,
                        limits=CONNECTIONS,
                        trust_env=not is_loopback(self._url),
                    )
                except ImportError as error:
                    raise StoreUnavailable(unusable_proxy("QDRANT_URL", error)) from error
                self._made.http.client.add_middleware(freed_after_use)
                if self._verify is not None:
                    self._made.http.client.add_middleware(verify_connections(self._verify))
            return self._made

    def close(self) -> None:
        self._reads.close()
        with self._lock:
            if self._made is not None:
                self._made.close()
                self._made = None

    def _applied(self, call: "Callable[[], models.UpdateResult | Iterable[models.UpdateResult]]") -> None:
        """Do `call`, which writes and waits; raises StoreUnavailable unless Qdrant has applied all of it."""
        from qdrant_client import models

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
            raise unlike_qdrant(self._url) from error

    def _call(self, call: Callable[[], T]) -> T:
        """The result of `call`. Raises StoreRefused or StoreUnavailable."""
        from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
        from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

        try:
            return call()
        except UnexpectedResponse as error:
            raise refusal(error.status_code, error.content, error.reason_phrase, error.headers) from error
        except ResourceExhaustedResponse as error:
            # A 429 that names a time after which to try again; the client has an exception of its own for it.
            raise StoreUnavailable(f"Qdrant takes no more requests at the moment (429): {error}") from error
        except (ResponseHandlingException, ApiException) as error:
            source = error.source if isinstance(error, ResponseHandlingException) else None
            if isinstance(source, StoreUnavailable | StoreRefused):
                raise source from error
            raise silent(self._url, error) from error


def freed_after_use(request: httpx.Request, send: Send) -> httpx.Response:
    """Middleware of qdrant-client by which the memory of an answer is free as soon as the answer has been parsed.

    The stream of an httpx response refers to its response, so that only the garbage collector would free the two with
    the bytes of the answer. It counts objects and not bytes: while 100,000 vectors were read, 560 MB waited for it.
    """
    response = send(request)
    # The client has read the whole answer, and keeps its bytes elsewhere.
    response.stream = httpx.ByteStream(b"")
    return response


def reason_of(error: "UnexpectedResponse") -> str:
    """The sentence in which Qdrant says why it refused."""
    return reason_in(error.content, error.reason_phrase)


def is_not_found(error: StoreRefused) -> bool:
    """Qdrant has no such collection or point."""
    from qdrant_client.http.exceptions import UnexpectedResponse

    cause = error.__cause__
    if isinstance(cause, httpx.HTTPStatusError):
        return cause.response.status_code == 404
    return isinstance(cause, UnexpectedResponse) and cause.status_code == 404
