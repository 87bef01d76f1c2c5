"""Shared limit: what several processes that send requests to one provider have to keep together."""

from contextlib import AbstractContextManager, nullcontext
from threading import Event
from typing import Protocol


class SharedLimit(Protocol):
    """Bounds the requests that all processes have in flight at one provider. Thread-safe."""

    def place(self, closed: Event) -> AbstractContextManager[object]:
        """Wait for a place, and hold it while the block runs; once `closed` is set, the block runs without one."""
        ...

    def asked_to_wait(self, seconds: float) -> None:
        """The provider asks not to be sent a request for that long: no process gets a place meanwhile."""
        ...


class OwnLimitAlone:
    """No limit beside that of the process."""

    def place(self, closed: Event) -> AbstractContextManager[object]:  # noqa: ARG002  (as the protocol has it)
        return nullcontext()

    def asked_to_wait(self, seconds: float) -> None:
        """Nobody else is told."""


OWN_LIMIT_ALONE = OwnLimitAlone()
"""Of an embedder whose processes keep no limit together."""
