"""Request log: how long a provider took for its answers, and what it refused, since the log was last taken."""

import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from mcp_assets.embedding.profiles import ModelProfile

LATENCY_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the histogram of latencies: from a local server to one that is busy."""


@dataclass(slots=True)
class Requests:
    """Requests to one model."""

    answered: Counter[float] = field(default_factory=Counter)
    """Answers with status 200 by bucket: the upper bound in seconds, or infinity."""
    seconds: float = 0.0
    """How long these answers took, together."""
    refused: Counter[str] = field(default_factory=Counter)
    """Other ends by status, such as 429, or `timeout` and `connection`."""


class RequestLog:
    """Counts requests. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests = Requests()

    def answered(self, seconds: float) -> None:
        """Count an answer that took `seconds`."""
        bucket = next((bound for bound in LATENCY_BUCKETS_S if seconds <= bound), float("inf"))
        with self._lock:
            self._requests.answered[bucket] += 1
            self._requests.seconds += seconds

    def refused(self, status: str) -> None:
        """Count a request that had no answer, or another one than vectors."""
        with self._lock:
            self._requests.refused[status] += 1

    def take(self) -> Requests:
        """The requests since this was last called."""
        with self._lock:
            taken, self._requests = self._requests, Requests()
        return taken


@runtime_checkable
class RequestingEmbedder(Protocol):
    """An embedder that sends requests to a provider, and counts them."""

    profile: ModelProfile

    @property
    def answered(self) -> int:
        """Requests that the provider has answered with vectors so far."""

    def take_requests(self) -> Requests:
        """What became of the requests since this was last called."""
