"""The OpenAI-compatible provider: any server with OpenAI's `POST /embeddings`, behind the `openai` SDK.

Retries happen here alone. A transient failure (no connection, a cut connection, 408, 409, 429, 5xx) is tried `attempts`
times with tenacity, after `retry_delay_s` doubling, or after the server's Retry-After. The SDK's own retries are off,
because they also retry an exhausted quota, and their delay cannot be set. An answer without a sound vector for each
input is asked for once more. `input_batch` finds out whether a text or the server is at fault.
"""

import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import openai

from mcp_assets.embedding.embedding_requests import CLOSED, EmbeddingRequests, estimate_tokens
from mcp_assets.embedding.full_requests import FullRequests
from mcp_assets.embedding.input_batch import InputBatch
from mcp_assets.embedding.profiles import ModelProfile
from mcp_assets.embedding.protocol import (
    EmbedderClosed,
    EmbedderUnavailable,
    EmbeddingOutcome,
    EmbeddingResult,
    Vector,
    only_vector,
    refusal_before_sending,
)
from mcp_assets.embedding.request_gate import OPEN_GATE, RequestGate
from mcp_assets.embedding.request_log import Requests
from mcp_assets.embedding.shared_limit import OWN_LIMIT_ALONE, SharedLimit
from mcp_assets.loopback import is_loopback, unusable_proxy
from mcp_assets.tls import trusted

OPENAI_URL = "https://api.openai.com/v1"

_PLACEHOLDER_KEY = "no-key"
"""Sent to servers without accounts, because the SDK insists on a key."""

_CONNECT_TIMEOUT_S = 5.0
"""A server that runs accepts a connection within milliseconds; a wrong address should fail soon."""


class OpenAICompatibleEmbedder:
    """Embeds over HTTP: requests within the profile's limits, at most `concurrency` in flight over all callers.

    `api_key` may be None where `base_url` names a server that needs none. `attempts` counts the first one.
    `timeout_s`: seconds without any byte from the server; a call of `embed` that meets a hanging server ends in
    EmbedderUnavailable after at most twice that: once for its texts, and once for the probe. `close` waits as long.
    """

    def __init__(
        self,
        profile: ModelProfile,
        *,
        api_key: str | None,
        base_url: str | None = None,
        concurrency: int = 8,
        attempts: int = 3,
        retry_delay_s: float = 1.0,
        timeout_s: float = 60.0,
        tls_ca_file: Path | None = None,
        gate: RequestGate = OPEN_GATE,
        shared: SharedLimit = OWN_LIMIT_ALONE,
    ) -> None:
        """`gate`: each request waits for it. `shared`: the limit of requests in flight that all processes keep."""
        if not api_key and not base_url:
            raise ValueError("no embedding provider: set OPENAI_API_KEY, or OPENAI_BASE_URL for a server without keys")
        self.profile = profile
        # A call seldom fills its last request, so that more calls than requests are needed to keep all requests full.
        self.concurrency = concurrency + concurrency // 2
        self._closed = Event()
        try:
            self._client = openai.OpenAI(
                api_key=_checked_key(api_key) if api_key else _PLACEHOLDER_KEY,
                base_url=base_url or OPENAI_URL,
                max_retries=0,
                timeout=openai.Timeout(timeout_s, connect=min(timeout_s, _CONNECT_TIMEOUT_S)),
                http_client=openai.DefaultHttpxClient(
                    trust_env=not (base_url and is_loopback(base_url)),
                    # It follows redirects, which may lead from http to https.
                    verify=trusted(tls_ca_file),
                ),
            )
        except ImportError as error:
            raise EmbedderUnavailable(unusable_proxy("OPENAI_BASE_URL", error)) from error
        # Where the embedder was only stopped, its connections are closed when it is collected.
        self._close_client = weakref.finalize(self, self._client.close)
        self._requests = EmbeddingRequests(
            self._client, profile, attempts, retry_delay_s, timeout_s, self._closed, gate, shared
        )
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="embed")
        self._shared = FullRequests(
            lambda texts, background: InputBatch(self._requests, profile.text_prefix, background=background).outcomes(
                texts
            ),
            self._pool,
            at_once=concurrency,
            max_inputs=profile.max_inputs_per_request,
            max_tokens=profile.max_tokens_per_request,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.profile.name!r}, {self._requests.server!r})"

    @property
    def answered(self) -> int:
        """Requests that the provider has answered with vectors so far."""
        return self._requests.answered

    def take_requests(self) -> Requests:
        """What became of the requests since this was last called."""
        return self._requests.log.take()

    def embed(
        self, texts: Sequence[str], *, stopping: Event | None = None, background: bool = False
    ) -> EmbeddingResult:
        refusals = [refusal_before_sending(text) for text in texts]
        to_send = [text for text, refusal in zip(texts, refusals, strict=True) if refusal is None]
        tokens = [estimate_tokens(self.profile.text_prefix + text) for text in to_send]
        with self._open():
            sent = self._shared.outcomes(to_send, tokens, stopping, background=background)
        outcomes = iter(sent.outcomes)
        return EmbeddingResult(
            [next(outcomes) if refusal is None else EmbeddingOutcome(None, refusal) for refusal in refusals],
            sent.tokens,
        )

    def embed_query(self, text: str) -> Vector:
        refusal = refusal_before_sending(text)
        if refusal is not None:
            return only_vector(EmbeddingResult([EmbeddingOutcome(None, refusal)], None))
        with self._open():
            # It does not wait in line behind the texts of a full sync.
            batch = InputBatch(self._requests, self.profile.query_prefix)
            answer = self._pool.submit(batch.outcomes, [text]).result()
        return only_vector(EmbeddingResult(list(answer.outcomes), answer.tokens))

    def stop(self) -> None:
        self._closed.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        self._closed.set()
        self._pool.shutdown(wait=True)
        self._close_client()
        self._client.close()

    @contextmanager
    def _open(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError:
            if self._closed.is_set():
                raise EmbedderClosed(CLOSED) from None
            raise


def _checked_key(api_key: str) -> str:
    """The key as it can stand in a header: the HTTP library's own error would quote it."""
    key = api_key.strip()
    if not (key.isascii() and key.isprintable()):
        raise ValueError("OPENAI_API_KEY holds characters that no key has: set it again, without line breaks or quotes")
    return key
