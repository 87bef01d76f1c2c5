"""The OpenAI-compatible provider: any server with OpenAI's `POST /embeddings`, behind the `openai` SDK.

Who retries what. Transient failures (no connection, a cut one, 408, 409, 429, 5xx): here, with tenacity, `attempts`
times, after `retry_delay_s` doubling, or after the server's Retry-After. The SDK's own retries are off: they also
retry an exhausted quota, and their delay cannot be set. An answer that does not hold a sound vector for each input:
asked for once more.

What is at fault, a text or the server? No status says: servers answer 500 for one text, and firewalls a page of HTML.
Only a wrong key (401), a used-up quota and a rate limit (429) are no text's fault. Whatever else comes, the server is
asked for a probe: if it does not embed that either, it is an outage, and no text is blamed. If it does, the request is
divided until the texts at fault stand alone. A text is refused if it fails a second time, alone, and the server embeds
the probe after that. "Too long", in any status, divides the request and then shortens the text before all this.
"""

import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from threading import Event
from urllib.parse import urlsplit

import numpy as np
import openai
from openai.types import CreateEmbeddingResponse
from tenacity import RetryCallState, Retrying, retry_if_exception, sleep_using_event, stop_after_attempt

from mcp_assets.embedding.full_requests import FullRequests, Settled
from mcp_assets.embedding.profiles import ModelProfile
from mcp_assets.embedding.protocol import (
    Embedded,
    EmbedderClosed,
    EmbedderUnavailable,
    EmbeddingResult,
    Refusal,
    Vector,
    only_vector,
    refusal_before_sending,
)
from mcp_assets.embedding.vectors import VectorFault, fault_of

OPENAI_URL = "https://api.openai.com/v1"

# What servers without accounts are sent: the SDK insists on a key.
_PLACEHOLDER_KEY = "no-key"

_MAX_DELAY_S = 30.0
_MAX_RETRY_AFTER_S = 120.0
_CONNECT_TIMEOUT_S = 5.0
_MAX_SHORTENINGS = 4

_UNFIT_ANSWERS = frozenset(("bad_answer", *VectorFault))

# A text that every working model embeds. If it is refused too, the fault is not in the texts.
_PROBE = "hello world"

# How OpenAI, vLLM, text-embeddings-inference, llama.cpp and Ollama say that an input is too long, and by how much.
# llama.cpp names its batch size as the limit.
_TOO_LONG = re.compile(
    r"context.(?:length|size)|maximum.*(?:length|tokens)|too (?:long|large)"
    r"|(?:less|fewer) than \d+ tokens|max \d+ tokens",
    re.IGNORECASE | re.DOTALL,
)
# In an answer that does not say by its status that the input is at fault, what took too long may be the server.
_TAKES_TOO_LONG = re.compile(r"(?:input|text|prompt|sequence)\b.{0,40}\btoo long", re.IGNORECASE | re.DOTALL)
_LIMIT = re.compile(r"(?:length is|less than|fewer than|max|batch size:)\s+(\d+)", re.IGNORECASE)
_GIVEN = re.compile(r"(?:requested|given:|has|input \()\s*(\d+)", re.IGNORECASE)


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
    ) -> None:
        if not api_key and not base_url:
            raise ValueError("no embedding provider: set OPENAI_API_KEY, or OPENAI_BASE_URL for a server without keys")
        self.profile = profile
        # A call seldom fills its last request: more calls than requests keep all requests full.
        self.concurrency = concurrency + concurrency // 2
        self._closed = Event()
        self._client = openai.OpenAI(
            api_key=_checked_key(api_key) if api_key else _PLACEHOLDER_KEY,
            base_url=base_url or OPENAI_URL,
            max_retries=0,
            timeout=openai.Timeout(timeout_s, connect=min(timeout_s, _CONNECT_TIMEOUT_S)),
        )
        self._requests = _Requests(self._client, profile, attempts, retry_delay_s, timeout_s, self._closed)
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="embed")
        self._shared = FullRequests(
            lambda texts: _Batch(self._requests, profile.text_prefix).settle(texts),
            self._pool,
            at_once=concurrency,
            max_inputs=profile.max_inputs_per_request,
            max_tokens=profile.max_tokens_per_request,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.profile.name!r}, {self._requests.server!r})"

    def embed(self, texts: Sequence[str], *, stopping: Event | None = None) -> EmbeddingResult:
        refusals = [refusal_before_sending(text) for text in texts]
        to_send = [text for text, refusal in zip(texts, refusals, strict=True) if refusal is None]
        tokens = [estimate_tokens(self.profile.text_prefix + text) for text in to_send]
        with self._open():
            sent = self._shared.outcomes(to_send, tokens, stopping)
        outcomes = iter(sent.outcomes)
        return EmbeddingResult(
            [next(outcomes) if refusal is None else Embedded(None, refusal) for refusal in refusals], sent.tokens
        )

    def embed_query(self, text: str) -> Vector:
        refusal = refusal_before_sending(text)
        if refusal is not None:
            return only_vector(EmbeddingResult([Embedded(None, refusal)], None))
        with self._open():
            # It does not wait in line behind the texts of a full sync.
            settled = self._pool.submit(_Batch(self._requests, self.profile.query_prefix).settle, [text]).result()
        return only_vector(EmbeddingResult(list(settled.outcomes), settled.tokens))

    def stop(self) -> None:
        self._closed.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        self._closed.set()
        self._pool.shutdown(wait=True)
        self._client.close()

    @contextmanager
    def _open(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError:
            if self._closed.is_set():
                raise EmbedderClosed(_CLOSED) from None
            raise


def _checked_key(api_key: str) -> str:
    """The key as it can stand in a header: the HTTP library's own error would quote it."""
    key = api_key.strip()
    if not (key.isascii() and key.isprintable()):
        raise ValueError("OPENAI_API_KEY holds characters that no key has: set it again, without line breaks or quotes")
    return key


_CLOSED = "the embedder was closed while it was in use: run this again"


def estimate_tokens(text: str) -> int:
    """Tokens of `text`, seldom too few: half a token per character, and one per byte beyond a character's first.

    The tokenizer itself is not at hand offline. English has some 4 characters a token; where the estimate is too low
    all the same, the server refuses the request and it is halved.
    """
    return (len(text) + 1) // 2 + len(text.encode()) - len(text)


class MalformedAnswerError(ValueError):
    """An answer whose vectors cannot be assigned to the inputs with certainty."""


def match_results(results: Iterable[tuple[object, object]], inputs: int) -> list[object]:
    """The embeddings of `results`, pairs of index and embedding in any order, in the order of the inputs.

    Raises MalformedAnswerError unless each index 0..inputs-1 is there exactly once: a short answer whose indexes were
    counted anew would give vectors to the wrong texts.
    """
    pairs = list(results)
    by_index = {index: embedding for index, embedding in pairs if isinstance(index, int)}
    if len(pairs) != inputs:
        raise MalformedAnswerError(f"{len(pairs)} results for {inputs} inputs")
    if by_index.keys() != set(range(inputs)):
        raise MalformedAnswerError(f"the indexes of the results are not 0 to {inputs - 1}, each once")
    return [by_index[index] for index in range(inputs)]


@dataclass(frozen=True, slots=True)
class _Answer:
    """Per input a sound vector, or the refusal for the one that came."""

    vectors: list[Vector | Refusal]
    tokens: int | None

    @property
    def first_refusal(self) -> Refusal | None:
        return next((vector for vector in self.vectors if isinstance(vector, Refusal)), None)


@dataclass(frozen=True, slots=True)
class _Rejection:
    """The request as a whole came to nothing: refused, failed, or answered with something that is no answer.

    `outage`: what it means if the server embeds nothing else either; None where the server said that it is the input.
    """

    refusal: Refusal
    outage: EmbedderUnavailable | None = None
    timed_out: bool = False

    @property
    def first_refusal(self) -> Refusal:
        return self.refusal

    @property
    def names_the_input(self) -> bool:
        """The server says itself that it refuses this input."""
        return self.refusal.error_kind in ("input_refused", "input_too_long")


class _Batch:
    """The inputs of one request on their way to one outcome each, by as many requests as that takes.

    Of n inputs of which k are at fault it takes about 2 k log2(n) requests (2 k sqrt(n) where they time out, which
    costs waiting rather than money), and a few for each of the k.
    """

    def __init__(self, requests: "_Requests", prefix: str) -> None:
        self._tokens: int | None = None
        self._requests = requests
        self._prefix = prefix
        self._server_is_sound = False

    def settle(self, texts: list[str]) -> Settled:
        """One outcome per text. Raises EmbedderUnavailable."""
        return Settled(self._settle(texts), self._tokens)

    def _settle(self, texts: list[str], *, divided: bool = False) -> list[Embedded]:
        """`divided`: they were part of a request that failed."""
        # Once the server is known to work, a request of several that fails is divided rather than repeated.
        reply = self._ask(texts, patiently=len(texts) == 1 or not self._server_is_sound)
        if len(texts) == 1:
            return [self._settle_one(texts[0], reply, failed_before=divided)]
        if isinstance(reply, _Answer):
            if reply.first_refusal:
                self._check_server()
            return [
                self._settle_one(text, self._ask([text]), failed_before=True)
                if isinstance(vector, Refusal)
                else Embedded(vector, None)
                for text, vector in zip(texts, reply.vectors, strict=True)
            ]
        if reply.refusal.error_kind != "input_too_long":
            self._check_server(reply)
        # Each level of division costs a time-out: there are fewer if it goes into more parts.
        length = -(-len(texts) // (math.isqrt(len(texts)) + 1)) if reply.timed_out else len(texts) // 2
        parts = [texts[start : start + length] for start in range(0, len(texts), length)]
        return [outcome for part in parts for outcome in self._settle(part, divided=True)]

    def _settle_one(self, text: str, reply: _Answer | _Rejection, *, failed_before: bool) -> Embedded:
        sent, reply = self._shortened(text, reply)
        if isinstance(reply, _Rejection) and reply.outage is not None and not failed_before:
            # It may have been the server, which has recovered since.
            self._check_server(reply, anew=True)
            sent, reply = self._shortened(sent, self._ask([sent]))
        if isinstance(reply, _Answer):
            (vector,) = reply.vectors
            if not isinstance(vector, Refusal):
                return Embedded(vector, None, embedded_characters=len(sent) if sent != text else None)
            self._check_server(anew=True)
            return Embedded(None, vector)
        self._check_server(reply, anew=not reply.names_the_input)
        return Embedded(None, reply.refusal)

    def _shortened(self, text: str, reply: _Answer | _Rejection) -> tuple[str, _Answer | _Rejection]:
        """What was sent of `text` in the end, and the reply to that: shortened while the server finds it too long."""
        for _ in range(_MAX_SHORTENINGS):
            if not (isinstance(reply, _Rejection) and reply.refusal.error_kind == "input_too_long"):
                break
            text = shorten(text, self._requests.share_that_fits(text, reply.refusal))
            reply = self._ask([text])
        return text, reply

    def _check_server(self, failed: _Rejection | None = None, *, anew: bool = False) -> None:
        """Raises EmbedderUnavailable if the server does not even embed the probe.

        Asked once a batch, and `anew` where a text is about to be blamed for what an outage would look like, too.
        """
        if self._server_is_sound and not anew:
            return
        outage = failed.outage if failed is not None else None
        refusal = self._ask([_PROBE], patiently=outage is None).first_refusal
        if refusal is not None:
            raise outage or EmbedderUnavailable(
                f"{self._requests.server} embeds no text at all, not even {_PROBE!r}: {refusal.sentence}. "
                f"Check that EMBEDDING_MODEL ({self._requests.profile.name}) is the model it serves, and that "
                f"EMBEDDING_DIMENSION ({self._requests.profile.dimension}) is the length of that model's vectors."
            )
        self._server_is_sound = True

    def _ask(self, texts: list[str], *, patiently: bool = True) -> _Answer | _Rejection:
        reply = self._requests.ask([self._prefix + text for text in texts], patiently=patiently)
        if isinstance(reply, _Answer) and reply.tokens is not None:
            self._tokens = (self._tokens or 0) + reply.tokens
        return reply


def shorten(text: str, share: float) -> str:
    """The first `share`, 0..1, of `text`, cut at a white space if that keeps half of it; at least 1 character."""
    head = text[: max(1, int(len(text) * share))]
    border = max(head.rfind(" "), head.rfind("\n"))
    return head[:border] if border > len(head) // 2 else head


class _Requests:
    """One request at a time: sent, retried, its answer checked. Knows the server's errors; shared by all threads."""

    def __init__(
        self,
        client: openai.OpenAI,
        profile: ModelProfile,
        attempts: int,
        retry_delay_s: float,
        timeout_s: float,
        closed: Event,
    ) -> None:
        self.profile = profile
        self.server = urlsplit(str(client.base_url)).netloc.rpartition("@")[2]
        self._client = client
        self._attempts = attempts
        self._retry_delay_s = retry_delay_s
        self._timeout_s = timeout_s
        self._closed = closed
        self._retrying = Retrying(
            stop=stop_after_attempt(attempts),
            retry=retry_if_exception(_is_transient),
            wait=self._delay_s,
            sleep=sleep_using_event(closed),
            reraise=True,
        )

    def ask(self, inputs: list[str], *, patiently: bool = True) -> _Answer | _Rejection:
        """The answer to `inputs`; `patiently`: transient failures are tried again, and an unfit answer is.

        Raises EmbedderUnavailable where no input can be at fault: a wrong key, a used-up quota, a rate limit.
        """
        reply = self._ask_once(inputs, self._retrying if patiently else self._retrying.copy(stop=stop_after_attempt(1)))
        if patiently and reply.first_refusal and reply.first_refusal.error_kind in _UNFIT_ANSWERS:
            reply = self._ask_once(inputs, self._retrying)
        return reply

    def share_that_fits(self, text: str, refusal: Refusal) -> float:
        """The share of `text`, refused for its length, that should fit: by the server's numbers, else half or less."""
        limit, given = _LIMIT.search(refusal.sentence), _GIVEN.search(refusal.sentence)
        if limit and given and int(limit[1]) < int(given[1]):
            return 0.95 * int(limit[1]) / int(given[1])
        return min(0.5, self.profile.max_input_tokens / estimate_tokens(text))

    def _ask_once(self, inputs: list[str], retrying: Retrying) -> _Answer | _Rejection:
        try:
            parse = retrying(self._send, inputs)
        # The causes are left out of the chain: a server may quote the key in its message, and so would a traceback.
        except openai.APIStatusError as error:
            if error.status_code in (401, 429) and not _says_too_long(error):
                raise self._unavailable(error) from None
            return self._rejection(error)
        except openai.APITimeoutError:
            return _no_answer(
                f"{self.server} did not answer within {self._timeout_s:g} s: "
                "see whether it is overloaded, or raise EMBEDDING_TIMEOUT_S",
                timed_out=True,
            )
        except openai.APIConnectionError as error:
            return _no_answer(
                f"no answer from {self.server} in {self._attempts} attempts "
                f"({self._scrubbed(str(error.__cause__))}): see whether it runs, and check OPENAI_BASE_URL"
            )
        try:
            answer = parse()
            embeddings = match_results([(item.index, item.embedding) for item in answer.data], len(inputs))
            tokens = answer.usage.total_tokens if getattr(answer, "usage", None) else None
        # The SDK checks nothing: what is missing or of another type shows at access.
        except (ValueError, TypeError, AttributeError) as error:
            return _Rejection(
                Refusal(
                    "bad_answer",
                    f"{self.server} gave an answer of which no use can be made: {self._scrubbed(str(error))}",
                )
            )
        return _Answer([self._checked(embedding) for embedding in embeddings], tokens)

    def _send(self, inputs: list[str]) -> Callable[[], CreateEmbeddingResponse]:
        """The answer to one request with status 200, still to be parsed: a bad answer is not a bad connection."""
        if self._closed.is_set():
            raise EmbedderClosed(_CLOSED)
        response = self._client.embeddings.with_raw_response.create(
            input=inputs,
            model=self.profile.name,
            dimensions=self.profile.dimension if self.profile.dimension_requested else openai.omit,
        )
        return response.parse

    def _checked(self, embedding: object) -> Vector | Refusal:
        try:
            with np.errstate(over="ignore"):
                vector: Vector = np.asarray(embedding, dtype=np.float32)
        except (ValueError, TypeError):
            return Refusal("bad_answer", f"{self.server} gave something other than a list of numbers for a vector")
        match fault_of(vector, self.profile.dimension):
            case None:
                return vector
            case VectorFault.WRONG_DIMENSION as fault:
                sentence = f"a vector of {vector.size} dimensions, where {self.profile.dimension} are expected"
            case VectorFault.NOT_FINITE as fault:
                sentence = "a vector that holds NaN or infinity"
            case VectorFault.ZERO as fault:
                sentence = "a vector of length 0"
        return Refusal(fault, f"{self.server} gave {sentence}")

    def _delay_s(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = _retry_after_s(error) if isinstance(error, openai.APIStatusError) else None
        return max(asked or 0.0, min(self._retry_delay_s * 2.0 ** (state.attempt_number - 1), _MAX_DELAY_S))

    def _rejection(self, error: openai.APIStatusError) -> _Rejection:
        said = f"({error.status_code}): {self._scrubbed(_message(error))}"
        if _says_too_long(error):
            return _Rejection(Refusal("input_too_long", f"{self.server} refuses the input {said}"))
        if error.status_code in (400, 413, 422):
            return _Rejection(Refusal("input_refused", f"{self.server} refuses the input {said}"))
        return _Rejection(
            Refusal("embedding_failed", f"{self.server} fails on this text, while it embeds others {said}"),
            self._unavailable(error),
        )

    def _unavailable(self, error: openai.APIStatusError) -> EmbedderUnavailable:
        model = self.profile.name
        said = f"it said: {self._scrubbed(_message(error))}"
        match error.status_code:
            # OpenAI quotes part of a wrong key: what it said is left out.
            case 401:
                reason = "refuses the API key (401): check OPENAI_API_KEY"
            case 403:
                reason = f"does not let this API key use {model} (403): check the permissions of OPENAI_API_KEY"
            case 404:
                reason = (
                    f"knows no model {model} or no such path (404): check EMBEDDING_MODEL and OPENAI_BASE_URL; {said}"
                )
            case 429 if _is_out_of_quota(error):
                reason = "says that the quota of this account is used up (429): top it up or change OPENAI_API_KEY"
            case 429:
                reason = f"limits the rate (429): try later, or lower the concurrency of embedding; {said}"
            case status:
                reason = f"answers with status {status}: see its log, and try later; {said}"
        return EmbedderUnavailable(f"{self.server} {reason}")

    def _scrubbed(self, message: str) -> str:
        return message.replace(self._client.api_key, "[API key]")[:300]


def _message(error: openai.APIStatusError) -> str:
    """What the server said: OpenAI nests it, others answer with a plain string."""
    match error.body:
        case {"message": str(message)} | str(message):
            return message
    return error.message


def _no_answer(sentence: str, *, timed_out: bool = False) -> _Rejection:
    return _Rejection(
        Refusal("embedding_failed", f"on this text, while others are embedded: {sentence}"),
        EmbedderUnavailable(sentence),
        timed_out,
    )


def _says_too_long(error: openai.APIStatusError) -> bool:
    if error.status_code == 413 or error.code == "context_length_exceeded":
        return True
    if _is_out_of_quota(error):
        return False
    message = _message(error)
    if error.status_code not in (400, 422):
        message = message if _TAKES_TOO_LONG.search(message) else message.replace("too long", "")
    return _TOO_LONG.search(message) is not None


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, openai.APIStatusError):
        return (
            (error.status_code in (408, 409, 429) or error.status_code >= 500)
            and not _is_out_of_quota(error)
            and not _says_too_long(error)
            and (_retry_after_s(error) or 0) <= _MAX_RETRY_AFTER_S
        )
    # A time-out is not repeated as it was: the probe tells sooner whether the server hangs.
    return isinstance(error, openai.APIConnectionError) and not isinstance(error, openai.APITimeoutError)


def _is_out_of_quota(error: openai.APIStatusError) -> bool:
    return "insufficient_quota" in (error.code, error.type)


def _retry_after_s(error: openai.APIStatusError) -> float | None:
    """Seconds that the server asks to wait: Retry-After as a number or as a date; None if it asks for nothing."""
    value = error.response.headers.get("retry-after", "")
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None
