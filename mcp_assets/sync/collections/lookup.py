"""Lookup: remembers which collections are in service, so that work of many small steps asks Qdrant for them once.

A census asks for them several times, and each time costs a request for each collection. The memory is used only inside
`looked_up_once`. What is remembered is used only while the journal, which each move of the aliases changes, is the one
by which it was read.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from mcp_assets.platform import Platform
from mcp_assets.sync.collections.journal import Journal, is_same_choice

T = TypeVar("T")

_REMEMBERED_S = 5.0
"""Seconds after which Qdrant is asked again: a person may move an alias or delete a collection by hand."""


class Lookup(Generic[T]):
    """What was found at the last look, and by which journal. Thread-safe."""

    def __init__(self, _: Platform) -> None:
        self._lock = threading.Lock()
        self._blocks = 0
        self._known: tuple[float, Journal, T] | None = None

    def recall(self, journal: Journal) -> T | None:
        """What was found by the same journal a moment ago; None if Qdrant has to be asked."""
        with self._lock:
            if self._known is None:
                return None
            read_at, chosen_by, found = self._known
            if time.monotonic() - read_at > _REMEMBERED_S or not is_same_choice(chosen_by, journal):
                return None
            return found

    def keep(self, journal: Journal, found: T, *, read_at: float) -> None:
        """Remember what was found by `journal`, if a block wants it; `read_at`: monotonic seconds before the look."""
        with self._lock:
            if self._blocks:
                self._known = (read_at, journal, found)

    def enter(self) -> None:
        with self._lock:
            self._blocks += 1

    def leave(self) -> None:
        with self._lock:
            self._blocks -= 1
            if not self._blocks:
                self._known = None

    def close(self) -> None:
        """Nothing to close."""


@contextmanager
def looked_up_once(platform: Platform) -> Iterator[None]:
    """While the block runs, Qdrant is asked for the collections in service every few seconds at most."""
    lookup: Lookup[object] = platform.companion(Lookup)
    lookup.enter()
    try:
        yield
    finally:
        lookup.leave()
