"""Requests that several callers share: filled where many wait, not held back where few do, and no text mixed up."""

import random
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_assets.embedding.full_requests import FullRequests, RequestOutcomes
from mcp_assets.embedding.protocol import EmbedderClosed, EmbedderUnavailable, EmbeddingOutcome, EmbeddingResult
from mcp_assets_tests.waiting import until

AT_ONCE = 2
MAX_INPUTS = 4
MAX_TOKENS = 100


class Provider:
    """Keeps the requests it gets; each is answered once it is let go."""

    def __init__(self) -> None:
        self.requests: list[list[str]] = []
        self.gates: dict[str, threading.Event] = {}
        self._asked = threading.Condition()

    def settle(self, texts: list[str], background: bool) -> RequestOutcomes:
        with self._asked:
            self.requests.append(texts)
            self._asked.notify_all()
        for text in texts:
            gate = self.gates.get(text)
            assert gate is None or gate.wait(10)
        if "bad" in texts:
            raise ValueError("out of order")
        if "down" in texts:
            raise EmbedderUnavailable("out of service")
        return RequestOutcomes([_embedded(text) for text in texts], 10 * len(texts))

    def wait_for(self, requests: int) -> None:
        with self._asked:
            assert self._asked.wait_for(lambda: len(self.requests) >= requests, 10)


def _embedded(text: str) -> EmbeddingOutcome:
    return EmbeddingOutcome(np.frombuffer(text.encode().ljust(8), dtype=np.uint8).astype(np.float32), None)


class Callers:
    """Callers in threads of their own."""

    def __init__(self, provider: Provider, pool: ThreadPoolExecutor) -> None:
        self.shared = FullRequests(provider.settle, pool, at_once=AT_ONCE, max_inputs=MAX_INPUTS, max_tokens=MAX_TOKENS)
        self._threads = ThreadPoolExecutor(16)

    def call(self, *texts: str, tokens: int = 1, stopping: threading.Event | None = None) -> "Future[EmbeddingResult]":
        return self._threads.submit(self.shared.outcomes, texts, [tokens] * len(texts), stopping)

    def wait_in_line(self, texts: int) -> None:
        """Wait until so many texts wait, and stay there."""
        until(lambda: len(self.shared._waiting) == texts, f"{texts} texts wait", within_s=10)
        time.sleep(0.1)
        assert len(self.shared._waiting) == texts

    def close(self) -> None:
        self._threads.shutdown()


@contextmanager
def calling(provider: Provider) -> Iterator[Callers]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        callers = Callers(provider, pool)
        yield callers
        callers.close()


@contextmanager
def calling_while_one_is_served(provider: Provider) -> Iterator[tuple[Callers, "Future[EmbeddingResult]"]]:
    """Callers, of whom the first has sent `a`, which is answered once its gate is opened."""
    provider.gates["a"] = threading.Event()
    with calling(provider) as callers:
        first = callers.call("a")
        provider.wait_for(1)
        yield callers, first


def _vectors(result: EmbeddingResult) -> list[list[float]]:
    return [list(outcome.vector) for outcome in result.outcomes if outcome.vector is not None]


def _expected(texts: Sequence[str]) -> list[list[float]]:
    return _vectors(EmbeddingResult([_embedded(text) for text in texts], None))


def test_what_waits_of_several_callers_fills_one_request() -> None:
    provider = Provider()
    with calling_while_one_is_served(provider) as (callers, first):
        second = callers.call("b", "c")
        callers.wait_in_line(2)
        third = callers.call("d", "e")
        assert _vectors(second.result(10)) == _expected(["b", "c"])
        assert _vectors(third.result(10)) == _expected(["d", "e"])
        assert provider.requests == [["a"], ["b", "c", "d", "e"]]
        provider.gates["a"].set()
        assert _vectors(first.result(10)) == _expected(["a"])


def test_few_texts_are_sent_as_soon_as_what_is_in_flight_is_answered() -> None:
    provider = Provider()
    with calling_while_one_is_served(provider) as (callers, first):
        second = callers.call("b")
        callers.wait_in_line(1)
        assert provider.requests == [["a"]]
        provider.gates["a"].set()
        assert _vectors(second.result(10)) == _expected(["b"])
        first.result(10)


@given(st.lists(st.integers(1, 400), max_size=60), st.integers(1, 12), st.integers(1, 900))
def test_each_text_is_in_one_request_within_the_limits_and_requests_are_as_few_as_the_order_allows(
    tokens: list[int], max_inputs: int, max_tokens: int
) -> None:
    sent: list[list[int]] = []

    def settle(texts: list[str], background: bool) -> RequestOutcomes:
        sent.append([int(text) for text in texts])
        return RequestOutcomes([_embedded(text) for text in texts], None)

    with ThreadPoolExecutor(1) as pool:
        shared = FullRequests(settle, pool, at_once=1, max_inputs=max_inputs, max_tokens=max_tokens)
        shared.outcomes([str(position) for position in range(len(tokens))], tokens)

    assert [position for request in sent for position in request] == list(range(len(tokens)))
    weights = [[tokens[position] for position in request] for request in sent]
    for request in weights:
        assert 1 <= len(request) <= max_inputs
        assert sum(request) <= max_tokens or len(request) == 1
    for request, following in pairwise(weights):
        assert len(request) == max_inputs or sum(request) + following[0] > max_tokens


def test_tokens_bound_a_request_but_not_a_single_text() -> None:
    provider = Provider()
    with calling(provider) as callers:
        callers.call("a", "b", "c", tokens=50).result(10)
        callers.call("d", tokens=500).result(10)
    assert sorted(map(len, provider.requests)) == [1, 1, 2]


def test_a_failed_request_fails_the_caller_whose_text_is_at_fault_and_no_other() -> None:
    provider = Provider()
    with calling_while_one_is_served(provider) as (callers, first):
        second = callers.call("b", "c", "bad")
        callers.wait_in_line(3)
        third = callers.call("d", "e", "f")
        with pytest.raises(ValueError, match="out of order"):
            second.result(10)
        # It went with one of the third's, which was sent once more by itself.
        provider.wait_for(4)
        provider.gates["a"].set()
        assert _vectors(third.result(10)) == _expected(["d", "e", "f"])
        assert _vectors(first.result(10)) == _expected(["a"])
    assert provider.requests[:4] == [["a"], ["b", "c", "bad", "d"], ["b", "c", "bad"], ["d"]]


def test_an_outage_fails_all_callers_of_the_request_and_none_of_them_is_sent_again() -> None:
    provider = Provider()
    with calling_while_one_is_served(provider) as (callers, first):
        second = callers.call("b", "c", "down")
        callers.wait_in_line(3)
        third = callers.call("d")
        for call in (second, third):
            with pytest.raises(EmbedderUnavailable, match="out of service"):
                call.result(10)
        provider.gates["a"].set()
        assert _vectors(first.result(10)) == _expected(["a"])
    assert provider.requests == [["a"], ["b", "c", "down", "d"]]


def test_what_waits_of_a_caller_whose_request_failed_is_not_sent() -> None:
    provider = Provider()
    provider.gates["bad"] = threading.Event()
    with calling_while_one_is_served(provider) as (callers, first):
        second = callers.call("b", "c", "d", "bad", "e", "f")
        provider.wait_for(2)
        callers.wait_in_line(2)
        provider.gates["bad"].set()
        with pytest.raises(ValueError, match="out of order"):
            second.result(10)
        provider.gates["a"].set()
        first.result(10)
    assert provider.requests == [["a"], ["b", "c", "d", "bad"]]


def test_tokens_are_shared_out_among_the_callers() -> None:
    provider = Provider()
    with calling_while_one_is_served(provider) as (callers, first):
        second = callers.call("b")
        callers.wait_in_line(1)
        third = callers.call("c", "d", "e", tokens=3)
        assert (second.result(10).tokens, third.result(10).tokens) == (4, 36)
        provider.gates["a"].set()
        assert first.result(10).tokens == 10


def test_no_caller_gets_the_vectors_of_another_and_no_text_is_sent_twice() -> None:
    provider = Provider()
    rng = random.Random(3)
    wanted = [[f"{caller}-{n}" for n in range(rng.randrange(0, 11))] for caller in range(200)]
    with calling(provider) as callers:
        results = [callers.call(*texts) for texts in wanted]
        for texts, result in zip(wanted, results, strict=True):
            assert _vectors(result.result(10)) == _expected(texts)
    sent = [text for request in provider.requests for text in request]
    assert sorted(sent) == sorted(text for texts in wanted for text in texts)
    assert max(map(len, provider.requests)) <= MAX_INPUTS


def test_a_pool_that_is_shut_down_takes_nothing_in() -> None:
    provider = Provider()
    pool = ThreadPoolExecutor(AT_ONCE)
    shared = FullRequests(provider.settle, pool, at_once=AT_ONCE, max_inputs=MAX_INPUTS, max_tokens=MAX_TOKENS)
    pool.shutdown()
    with pytest.raises(RuntimeError):
        shared.outcomes(["a"], [1])
    assert not shared._waiting


def test_a_caller_that_is_to_stop_waits_for_no_answer_and_has_nothing_more_sent() -> None:
    provider = Provider()
    stopping = threading.Event()
    gate = provider.gates["a"] = threading.Event()
    with calling(provider) as callers:
        in_flight = callers.call("a", stopping=stopping)
        provider.wait_for(1)
        in_line = callers.call("b", stopping=stopping)
        callers.wait_in_line(1)
        other = callers.call("c")
        callers.wait_in_line(2)
        stopping.set()
        for stopped in (in_flight, in_line):
            with pytest.raises(EmbedderClosed):
                stopped.result(10)
        gate.set()
        assert _vectors(other.result()) == _expected(["c"])
    assert provider.requests == [["a"], ["c"]]
