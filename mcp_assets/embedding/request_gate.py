"""Request gate: what a request to the provider waits for before it is sent, such as a rate that all runs share."""

from threading import Event
from typing import Protocol


class RequestGate(Protocol):
    """Holds requests back. Thread-safe."""

    def wait(self, tokens: int, *, background: bool, closed: Event) -> None:
        """Return when a request with `tokens`, as estimated, may be sent, or once `closed` is set.

        `background`: its texts are of a full sync, which leaves room for events.
        """
        ...

    def answered(self, estimated: int, counted: int) -> None:
        """The provider counted `counted` tokens for a request of which `estimated` were reserved."""
        ...


class OpenGate:
    """Lets every request through."""

    def wait(self, tokens: int, *, background: bool, closed: Event) -> None:
        pass

    def answered(self, estimated: int, counted: int) -> None:
        pass


OPEN_GATE = OpenGate()
"""The gate of an embedder whose requests no setting limits."""
