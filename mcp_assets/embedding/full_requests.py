"""Full requests: texts of several callers travel together, so that each request carries as many as it may.

A batch of the indexer seldom fills its last request, and a provider takes as long for a few texts as for many.
Therefore the texts of all callers wait in one queue, and each request takes as many of them as it may carry. A request
that would not be full is sent at once while fewer than half of the threads are busy. Otherwise it waits until a thread
is free, and more texts may come meanwhile: an idle embedder answers without delay, a busy one sends full requests.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

from mcp_assets.embedding.protocol import EmbedderClosed, EmbedderUnavailable, EmbeddingOutcome, EmbeddingResult

_STOP_SEEN_S = 0.2
"""How soon a caller notices that it is to stop: a run that is ended has a few seconds."""


class RequestOutcomes(NamedTuple):
    """One outcome for each text of a request, and the tokens of all, if the provider reports them."""

    outcomes: Sequence[EmbeddingOutcome]
    tokens: int | None


@dataclass(eq=False)
class _Order:
    """The texts of one caller, which waits for their outcomes."""

    outcomes: list[EmbeddingOutcome | None]
    left: int
    background: bool = False
    tokens: float | None = None
    error: BaseException | None = None
    done: threading.Event = field(default_factory=threading.Event)


class _Input(NamedTuple):
    order: _Order
    position: int
    text: str
    tokens: int


class FullRequests:
    """Sends texts with `embed`, which takes the texts of one request, on the threads of `pool`. Thread-safe.

    `embed` is told, too, whether the texts are of background work alone.
    `at_once`: the threads of `pool`. A request carries at most `max_inputs` texts, and of more than one text at most
    `max_tokens`, as the callers estimate them.
    """

    def __init__(
        self,
        embed: Callable[[list[str], bool], RequestOutcomes],
        pool: ThreadPoolExecutor,
        *,
        at_once: int,
        max_inputs: int,
        max_tokens: int,
    ) -> None:
        self._embed = embed
        self._pool = pool
        self._at_once = at_once
        self._hold_back_from = max(1, at_once // 2)
        self._max_inputs = max_inputs
        self._max_tokens = max_tokens
        self._lock = threading.Lock()
        self._waiting: deque[_Input] = deque()
        self._busy = 0

    def outcomes(
        self,
        texts: Sequence[str],
        tokens: Sequence[int],
        stopping: threading.Event | None = None,
        *,
        background: bool = False,
    ) -> EmbeddingResult:
        """One outcome per text. `tokens`: of each, estimated. `background`: requests about events go first.

        Raises:
            RuntimeError: the pool is shut down.
            EmbedderClosed: `stopping` was set. Queued texts are not sent, requests in flight are not waited for.
            EmbedderUnavailable: a request with some of `texts` met an outage. The others of `texts` are not sent.
            Any other error that `embed` raises for a request with texts of this caller alone.
        """
        order = _Order([None] * len(texts), len(texts), background)
        with self._lock:
            self._waiting += (
                _Input(order, position, text, estimate)
                for position, (text, estimate) in enumerate(zip(texts, tokens, strict=True))
            )
        try:
            # Each call of `_send` goes on until the queue is empty, so that one for each thread is enough.
            for _ in range(min(self._at_once, len(texts))):
                self._pool.submit(self._send)
            if texts:
                _wait(order, stopping)
        finally:
            if order.left:
                self._withdraw(order)
        if order.error is not None:
            raise order.error
        return EmbeddingResult(
            [outcome for outcome in order.outcomes if outcome is not None],
            round(order.tokens) if order.tokens is not None else None,
        )

    def _send(self) -> None:
        """Send requests until the queue is empty or too short."""
        while taken := self._take():
            try:
                self._carry(taken)
            finally:
                with self._lock:
                    self._busy -= 1

    def _carry(self, taken: Sequence[_Input]) -> None:
        """Send one request. If it fails, the texts of each caller are sent by themselves, because an
        error that the text of one caller causes is not for the others.

        An outage of the provider ends the orders of all callers.
        """
        try:
            background = all(each.order.background for each in taken)
            self._deliver(taken, self._embed([each.text for each in taken], background))
        except EmbedderUnavailable as error:
            for order in dict.fromkeys(each.order for each in taken):
                self._end(order, error)
        except BaseException as error:  # noqa: BLE001  (raised in the caller, whose texts these are)
            orders = list(dict.fromkeys(each.order for each in taken))
            if len(orders) == 1:
                self._end(orders[0], error)
                return
            for order in orders:
                self._carry([each for each in taken if each.order is order])

    def _take(self) -> list[_Input]:
        """The texts of the next request; none if the queue is empty, or if its few texts can wait for more."""
        with self._lock:
            count = total = 0
            for waiting in self._waiting:
                if count == self._max_inputs or (count and total + waiting.tokens > self._max_tokens):
                    break
                count, total = count + 1, total + waiting.tokens
            full = count == self._max_inputs or count < len(self._waiting)
            if not count or (not full and self._busy >= self._hold_back_from):
                return []
            self._busy += 1
            return [self._waiting.popleft() for _ in range(count)]

    def _deliver(self, taken: Sequence[_Input], answered: RequestOutcomes) -> None:
        estimated = sum(each.tokens for each in taken)
        with self._lock:
            for each, outcome in zip(taken, answered.outcomes, strict=True):
                order = each.order
                order.outcomes[each.position] = outcome
                if answered.tokens is not None:
                    order.tokens = (order.tokens or 0.0) + answered.tokens * each.tokens / max(estimated, 1)
                order.left -= 1
                if not order.left:
                    order.done.set()

    def _end(self, order: _Order, error: BaseException) -> None:
        self._withdraw(order)
        order.error = order.error or error
        order.done.set()

    def _withdraw(self, order: _Order) -> None:
        """Take the texts of `order` out of the queue."""
        with self._lock:
            self._waiting = deque(each for each in self._waiting if each.order is not order)


def _wait(order: _Order, stopping: threading.Event | None) -> None:
    """Wait until the order is done. Raises EmbedderClosed once `stopping` is set."""
    while not order.done.wait(None if stopping is None else _STOP_SEEN_S):
        if stopping is not None and stopping.is_set():
            raise EmbedderClosed("the run was ended while the embedding provider had not answered: run this again")
