"""Upkeep of the collections in the background: when segments are flushed, and when they are optimized.

The policy, in one place. Flushing: every FLUSH_INTERVAL_S, what was written since. It bounds the write-ahead log and
so the time that a start takes; durability does not hang on it.

Optimizing (merging, vacuuming, and from INDEXED_FROM_POINTS points on building HNSW) holds the GIL, so that the server
answers no request meanwhile: some 0.1 s for 20,000 points without HNSW, some 15 s for 100,000 with it. So HNSW is never
built below INDEXED_FROM_POINTS, where exact search is fast enough, and optimizing waits for QUIET_S without a request.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Protocol

_log = logging.getLogger(__name__)

FLUSH_INTERVAL_S = 5.0
"""A start replays at most this much of the write-ahead log."""

QUIET_S = 60.0
"""Without a request for this long, clients are taken to be idle."""

INDEXED_FROM_POINTS = 100_000
"""Below it exact search is fast enough, and building HNSW would stall the server (see above)."""


class Upkept(Protocol):
    """What upkeep sees of a collection."""

    name: str
    unflushed: bool
    unoptimized: bool

    def flush(self) -> None: ...

    def optimize(self) -> None: ...


def indexing_threshold_kb(dimension: int) -> int:
    """The engine's `indexing_threshold`: the size in KB from which on it builds HNSW for a segment."""
    return INDEXED_FROM_POINTS * dimension * 4 // 1024 + 1


class Upkeep:
    """The thread that carries the policy out; `collections` gives the open ones whenever it is called."""

    def __init__(self, collections: Callable[[], Iterable[Upkept]]) -> None:
        self._collections = collections
        self._last_request = time.monotonic()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="upkeep", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def request_seen(self) -> None:
        self._last_request = time.monotonic()

    def _run(self) -> None:
        while not self._stopping.wait(FLUSH_INTERVAL_S):
            for collection in self._collections():
                try:
                    self._attend(collection)
                except Exception as error:  # noqa: BLE001  one collection's trouble is not the others', and is logged
                    _log.error("upkeep of collection %s failed: %s", collection.name, error)

    def _attend(self, collection: Upkept) -> None:
        if collection.unflushed:
            collection.flush()
        if collection.unoptimized and time.monotonic() - self._last_request > QUIET_S:
            collection.optimize()
