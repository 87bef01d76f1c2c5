"""Embedding requests: one request at a time to an OpenAI-compatible server: sent, retried, its answer checked."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from threading import Event, Lock
from urllib.parse import urlsplit

import numpy as np
import openai
from openai.types import CreateEmbeddingResponse
from tenacity import RetryCallState, Retrying, retry_if_exception, sleep_using_event, stop_after_attempt

from mcp_assets.embedding.profiles import ModelProfile
from mcp_assets.embedding.protocol import EmbedderClosed, EmbedderUnavailable, Refusal, Vector
from mcp_assets.embedding.request_errors import (
    GIVEN,
    LIMIT,
    is_out_of_quota,
    is_transient,
    message_of,
    retry_after_s,
    says_too_long,
)
from mcp_assets.embedding.request_gate import RequestGate
from mcp_assets.embedding.request_log import RequestLog
from mcp_assets.embedding.shared_limit import SharedLimit
from mcp_assets.embedding.vectors import VectorFault, fault_of

CLOSED = "the embedder was closed while it was in use: run this again"
"""The message of EmbedderClosed: what a person does about it."""

_MAX_DELAY_S = 30.0
"""The longest wait between two tries that the server does not ask for itself."""

_UNUSABLE_ANSWERS = frozenset(("bad_answer", *VectorFault))
"""Refusals that are a fault of the answer: asked once more, a server often answers well."""


def estimate_tokens(text: str) -> int:
    """Tokens of `text`, seldom too few: half a token per character, and one per byte beyond a character's first.

    The tokenizer itself is not available offline. English has some 4 characters a token. If the estimate is too low,
    the server refuses the request, and the request is halved.
    """
    return (len(text) + 1) // 2 + len(text.encode()) - len(text)


def server_of(url: str) -> str:
    """Host and port of an address, without a user and password in it."""
    return urlsplit(url).netloc.rpartition("@")[2]


class MalformedAnswerError(ValueError):
    """An answer whose vectors cannot be assigned to the inputs with certainty."""


def match_results(results: Iterable[tuple[object, object]], inputs: int) -> list[object]:
    """The embeddings of `results`, pairs of index and embedding in any order, in the order of the inputs.

    Raises MalformedAnswerError unless each index 0..inputs-1 is there exactly once: a server that leaves out an input
    and numbers the others from 0 would give vectors to the wrong texts.
    """
    pairs = list(results)
    by_index = {index: embedding for index, embedding in pairs if isinstance(index, int)}
    if len(pairs) != inputs:
        raise MalformedAnswerError(f"{len(pairs)} results for {inputs} inputs")
    if by_index.keys() != set(range(inputs)):
        raise MalformedAnswerError(f"the indexes of the results are not 0 to {inputs - 1}, each once")
    return [by_index[index] for index in range(inputs)]


@dataclass(frozen=True, slots=True)
class RequestAnswer:
    """For each input a sound vector, or the refusal of an unusable one."""

    vectors: list[Vector | Refusal]
    tokens: int | None

    @property
    def first_refusal(self) -> Refusal | None:
        return next((vector for vector in self.vectors if isinstance(vector, Refusal)), None)


@dataclass(frozen=True, slots=True)
class RequestFailure:
    """The request as a whole failed: it was refused, it had no answer, or the answer is unusable.

    `outage`: the error to raise if the server does not embed the probe either; None if the server blames the input.
    """

    refusal: Refusal
    outage: EmbedderUnavailable | None = None
    timed_out: bool = False

    @property
    def first_refusal(self) -> Refusal:
        return self.refusal

    @property
    def names_the_input(self) -> bool:
        """The server blames the input."""
        return self.refusal.error_kind in ("input_refused", "input_too_long")


class EmbeddingRequests:
    """Sends one request at a time, retries it, and checks its answer. Thread-safe."""

    def __init__(
        self,
        client: openai.OpenAI,
        profile: ModelProfile,
        attempts: int,
        retry_delay_s: float,
        timeout_s: float,
        closed: Event,
        gate: RequestGate,
        shared: SharedLimit,
    ) -> None:
        self.profile = profile
        self.server = server_of(str(client.base_url))
        self._client = client
        self._attempts = attempts
        self._retry_delay_s = retry_delay_s
        self._timeout_s = timeout_s
        self._closed = closed
        self._gate = gate
        self._shared = shared
        self.log = RequestLog()
        self._counting = Lock()
        self.answered = 0
        """Requests that the server has answered with vectors so far."""
        self._retrying = Retrying(
            stop=stop_after_attempt(attempts),
            retry=retry_if_exception(is_transient),
            wait=self._delay_s,
            sleep=sleep_using_event(closed),
            reraise=True,
        )

    def ask(
        self, inputs: list[str], *, patiently: bool = True, background: bool = False
    ) -> RequestAnswer | RequestFailure:
        """The answer to `inputs`; `patiently`: a transient failure or an unusable answer is tried again.

        `background`: each try lets requests about events go first.

        Raises EmbedderUnavailable if no input can be at fault: a wrong key, a used-up quota, a rate limit.
        """
        send = partial(self._send, inputs, sum(map(estimate_tokens, inputs)), background)
        reply = self._ask_once(
            inputs, send, self._retrying if patiently else self._retrying.copy(stop=stop_after_attempt(1))
        )
        if patiently and reply.first_refusal and reply.first_refusal.error_kind in _UNUSABLE_ANSWERS:
            reply = self._ask_once(inputs, send, self._retrying)
        return reply

    def share_that_fits(self, text: str, refusal: Refusal) -> float:
        """The share of `text`, refused for its length, that should fit: by the server's numbers, else half or less."""
        limit, given = LIMIT.search(refusal.sentence), GIVEN.search(refusal.sentence)
        if limit and given and int(limit[1]) < int(given[1]):
            return 0.95 * int(limit[1]) / int(given[1])
        return min(0.5, self.profile.max_input_tokens / estimate_tokens(text))

    def _ask_once(
        self, inputs: list[str], send: Callable[[], Callable[[], CreateEmbeddingResponse]], retrying: Retrying
    ) -> RequestAnswer | RequestFailure:
        try:
            parse = retrying(send)
        # The causes are left out of the chain, because a server may quote the key in its message.
        except openai.APIStatusError as error:
            if error.status_code in (401, 429) and not says_too_long(error):
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
        # The SDK checks nothing: a field that is missing or of another type raises only when it is read.
        except (ValueError, TypeError, AttributeError) as error:
            return RequestFailure(
                Refusal(
                    "bad_answer",
                    f"{self.server} gave an answer of which no use can be made: {self._scrubbed(str(error))}",
                )
            )
        with self._counting:
            self.answered += 1
        if tokens is not None:
            self._gate.answered(sum(map(estimate_tokens, inputs)), tokens)
        return RequestAnswer([self._checked(embedding) for embedding in embeddings], tokens)

    def _send(
        self, inputs: list[str], estimated_tokens: int, background: bool
    ) -> Callable[[], CreateEmbeddingResponse]:
        """The answer to one request with status 200, still to be parsed: a bad answer is not a bad connection."""
        self._gate.wait(estimated_tokens, background=background, closed=self._closed)
        with self._shared.place(self._closed):
            if self._closed.is_set():
                raise EmbedderClosed(CLOSED)
            began_at = time.monotonic()
            try:
                response = self._client.embeddings.with_raw_response.create(
                    input=inputs,
                    model=self.profile.name,
                    dimensions=self.profile.dimension if self.profile.dimension_requested else openai.omit,
                )
            except openai.APIError as error:
                self.log.refused(_status_of(error))
                asked_s = retry_after_s(error) if isinstance(error, openai.APIStatusError) else None
                if asked_s and is_transient(error):
                    self._shared.asked_to_wait(asked_s)
                raise
            self.log.answered(time.monotonic() - began_at)
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
        asked = retry_after_s(error) if isinstance(error, openai.APIStatusError) else None
        return max(asked or 0.0, min(self._retry_delay_s * 2.0 ** (state.attempt_number - 1), _MAX_DELAY_S))

    def _rejection(self, error: openai.APIStatusError) -> RequestFailure:
        said = f"({error.status_code}): {self._scrubbed(message_of(error))}"
        if says_too_long(error):
            return RequestFailure(Refusal("input_too_long", f"{self.server} refuses the input {said}"))
        if error.status_code in (400, 413, 422):
            return RequestFailure(Refusal("input_refused", f"{self.server} refuses the input {said}"))
        return RequestFailure(
            Refusal("embedding_failed", f"{self.server} fails on this text, while it embeds others {said}"),
            self._unavailable(error),
        )

    def _unavailable(self, error: openai.APIStatusError) -> EmbedderUnavailable:
        model = self.profile.name
        said = f"it said: {self._scrubbed(message_of(error))}"
        match error.status_code:
            # The message is left out, because OpenAI quotes part of a wrong key in it.
            case 401:
                reason = "refuses the API key (401): check OPENAI_API_KEY"
            case 403:
                reason = f"does not let this API key use {model} (403): check the permissions of OPENAI_API_KEY"
            case 404:
                reason = (
                    f"knows no model {model} or no such path (404): check EMBEDDING_MODEL and OPENAI_BASE_URL; {said}"
                )
            case 429 if is_out_of_quota(error):
                reason = "says that the quota of this account is used up (429): top it up or change OPENAI_API_KEY"
            case 429:
                reason = f"limits the rate (429): try later, or lower the concurrency of embedding; {said}"
            case status:
                reason = f"answers with status {status}: see its log, and try later; {said}"
        return EmbedderUnavailable(f"{self.server} {reason}")

    def _scrubbed(self, message: str) -> str:
        return message.replace(self._client.api_key, "[API key]")[:300]


def _status_of(error: openai.APIError) -> str:
    """The status of an answer that is no success, or why there is no answer."""
    match error:
        case openai.APIStatusError():
            return str(error.status_code)
        case openai.APITimeoutError():
            return "timeout"
    return "connection"


def _no_answer(sentence: str, *, timed_out: bool = False) -> RequestFailure:
    return RequestFailure(
        Refusal("embedding_failed", f"on this text, while others are embedded: {sentence}"),
        EmbedderUnavailable(sentence),
        timed_out,
    )
