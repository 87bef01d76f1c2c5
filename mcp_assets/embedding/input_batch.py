"""Input batch: the inputs of one request on their way to one outcome each, by as many requests as that takes.

No status shows whether a text or the server is at fault: servers answer 500 for one text, and firewalls send a page of
HTML. Only a wrong key (401), a used-up quota and a rate limit (429) are never the fault of a text. After any other
failure the server is asked to embed a probe. If it does not, this is an outage, and no text is blamed. If it does, the
request is divided until the texts at fault stand alone. A text is refused if it fails a second time, alone, and the
server embeds the probe after that. "Too long", in any status, divides the request and then shortens the text first.
"""

import math

from mcp_assets.embedding.embedding_requests import EmbeddingRequests, RequestAnswer, RequestFailure
from mcp_assets.embedding.full_requests import RequestOutcomes
from mcp_assets.embedding.protocol import EmbedderUnavailable, EmbeddingOutcome, Refusal

_MAX_SHORTENINGS = 4
"""Tries to shorten one text. Each uses the server's numbers or halves the text: 16 times too long still fits."""

PROBE = "hello world"
"""A text that every working model embeds. If it is refused too, the fault is not in the texts."""


class InputBatch:
    """The inputs of one request.

    If k of n inputs are at fault, about 2 k log2(n) requests are needed (2 k sqrt(n) if they time out, because each
    level of division costs a time-out), and a few for each of the k.
    """

    def __init__(self, requests: EmbeddingRequests, prefix: str, *, background: bool = False) -> None:
        """`background`: requests about events go before these."""
        self._background = background
        self._tokens: int | None = None
        self._requests = requests
        self._prefix = prefix
        self._server_is_sound = False

    def outcomes(self, texts: list[str]) -> RequestOutcomes:
        """One outcome per text. Raises EmbedderUnavailable."""
        return RequestOutcomes(self._outcomes(texts), self._tokens)

    def _outcomes(self, texts: list[str], *, divided: bool = False) -> list[EmbeddingOutcome]:
        """`divided`: the texts were part of a request that failed."""
        # Once the server is known to work, a request of several that fails is divided rather than repeated.
        reply = self._ask(texts, patiently=len(texts) == 1 or not self._server_is_sound)
        if len(texts) == 1:
            return [self._outcome_of(texts[0], reply, failed_before=divided)]
        if isinstance(reply, RequestAnswer):
            if reply.first_refusal:
                self._check_server()
            return [
                self._outcome_of(text, self._ask([text]), failed_before=True)
                if isinstance(vector, Refusal)
                else EmbeddingOutcome(vector, None)
                for text, vector in zip(texts, reply.vectors, strict=True)
            ]
        if reply.refusal.error_kind != "input_too_long":
            self._check_server(reply)
        # After a time-out the request is divided into more parts, so that fewer levels of division time out.
        length = -(-len(texts) // (math.isqrt(len(texts)) + 1)) if reply.timed_out else len(texts) // 2
        parts = [texts[start : start + length] for start in range(0, len(texts), length)]
        return [outcome for part in parts for outcome in self._outcomes(part, divided=True)]

    def _outcome_of(self, text: str, reply: RequestAnswer | RequestFailure, *, failed_before: bool) -> EmbeddingOutcome:
        sent, reply = self._shortened(text, reply)
        if isinstance(reply, RequestFailure) and reply.outage is not None and not failed_before:
            # The server may have been at fault, and may have recovered since.
            self._check_server(reply, again=True)
            sent, reply = self._shortened(sent, self._ask([sent]))
        if isinstance(reply, RequestAnswer):
            (vector,) = reply.vectors
            if not isinstance(vector, Refusal):
                return EmbeddingOutcome(vector, None, embedded_characters=len(sent) if sent != text else None)
            self._check_server(again=True)
            return EmbeddingOutcome(None, vector)
        self._check_server(reply, again=not reply.names_the_input)
        return EmbeddingOutcome(None, reply.refusal)

    def _shortened(
        self, text: str, reply: RequestAnswer | RequestFailure
    ) -> tuple[str, RequestAnswer | RequestFailure]:
        """The text that was sent last, and its reply: `text` is shortened while the server finds it too long."""
        for _ in range(_MAX_SHORTENINGS):
            if not (isinstance(reply, RequestFailure) and reply.refusal.error_kind == "input_too_long"):
                break
            text = shorten(text, self._requests.share_that_fits(text, reply.refusal))
            reply = self._ask([text])
        return text, reply

    def _check_server(self, failed: RequestFailure | None = None, *, again: bool = False) -> None:
        """Raises EmbedderUnavailable if the server does not even embed the probe.

        The probe is sent once a batch, and `again` before a text is blamed for a failure that an outage also causes.
        """
        if self._server_is_sound and not again:
            return
        outage = failed.outage if failed is not None else None
        refusal = self._ask([PROBE], patiently=outage is None).first_refusal
        if refusal is not None:
            raise outage or EmbedderUnavailable(
                f"{self._requests.server} embeds no text at all, not even {PROBE!r}: {refusal.sentence}. "
                f"Check that EMBEDDING_MODEL ({self._requests.profile.name}) is the model it serves, and that "
                f"EMBEDDING_DIMENSION ({self._requests.profile.dimension}) is the length of that model's vectors."
            )
        self._server_is_sound = True

    def _ask(self, texts: list[str], *, patiently: bool = True) -> RequestAnswer | RequestFailure:
        reply = self._requests.ask(
            [self._prefix + text for text in texts], patiently=patiently, background=self._background
        )
        if isinstance(reply, RequestAnswer) and reply.tokens is not None:
            self._tokens = (self._tokens or 0) + reply.tokens
        return reply


def shorten(text: str, share: float) -> str:
    """The first `share`, 0..1, of `text`, cut at a white space if that keeps half of it; at least 1 character."""
    head = text[: max(1, int(len(text) * share))]
    border = max(head.rfind(" "), head.rfind("\n"))
    return head[:border] if border > len(head) // 2 else head
