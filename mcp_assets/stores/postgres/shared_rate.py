"""Shared rate: requests and tokens a minute that all processes together send to one model, as a bucket in PostgreSQL.

The bucket refills all the time, and holds at most what flows in within BURST_S. A request about events reserves its
tokens by one UPDATE and then waits until they have flowed in, so that such requests go in the order in which they came.
A request of a full sync takes only what is there, and leaves a part: a request about an event finds it, and waits for
no full sync.
"""

import math
import threading

from mcp_assets.stores.postgres.connection import Postgres

BURST_S = 10.0
"""Seconds of the rate that may be sent at once. Providers count by the minute, some by the second: with a whole minute
in the bucket, twice the rate would be sent in the first one."""

_LEFT_TO_EVENTS = 0.25
"""The part of the bucket that full syncs leave."""

_ASKED_AGAIN_S = 0.5
"""The longest time after which a full sync that found too little asks again: what it waits for others may take."""

_UNLIMITED = 1e12
"""A minute's requests or tokens where the settings name no limit: more than any provider answers."""


class SharedRate:
    """The rate of one model, a `RequestGate`. Thread-safe."""

    def __init__(
        self, postgres: Postgres, model: str, *, requests_a_minute: float | None, tokens_a_minute: float | None
    ) -> None:
        """`requests_a_minute`, `tokens_a_minute`: None is no limit; at least one of them is one."""
        self._postgres = postgres
        self._model = model
        self._requests_a_s = (requests_a_minute or _UNLIMITED) / 60
        self._tokens_a_s = (tokens_a_minute or _UNLIMITED) / 60
        self._most_requests = max(1.0, self._requests_a_s * BURST_S)
        self._most_tokens = self._tokens_a_s * BURST_S
        self._lock = threading.Lock()
        self._begun = False
        self._owed = 0
        """Tokens by which the provider counted more than was reserved; below zero: less."""

    def wait(self, tokens: int, *, background: bool, closed: threading.Event) -> None:
        """Reserve a request with `tokens`, and return when it may be sent, or once `closed` is set.

        Raises:
            StoreUnavailable: PostgreSQL does not answer; nothing is reserved.
        """
        with self._lock:
            # What is left of too much that was reserved before lowers the next request: a bucket gets nothing back.
            needed, self._owed = max(0, tokens + self._owed), min(0, tokens + self._owed)
        try:
            left = self._take(needed, background=background)
            while left is None and not closed.wait(self._again_s(needed)):
                left = self._take(needed, background=background)
        except BaseException:
            with self._lock:
                self._owed += needed - tokens
            raise
        if left is not None:
            requests, left_tokens = left
            closed.wait(max(0.0, -requests / self._requests_a_s, -left_tokens / self._tokens_a_s))

    def answered(self, estimated: int, counted: int) -> None:
        """The next request reserves by so much more or less."""
        with self._lock:
            self._owed += counted - estimated

    def _take(self, tokens: int, *, background: bool) -> tuple[float, float] | None:
        """Reserve; the requests and tokens that are left then, below zero if they have still to flow in. None: a full
        sync has to wait."""
        parameters = {
            "model": self._model,
            "requests_a_s": self._requests_a_s,
            "tokens_a_s": self._tokens_a_s,
            "most_requests": self._most_requests,
            "most_tokens": self._most_tokens,
            "tokens": float(tokens),
            "least_requests": _least(1, self._most_requests) if background else -math.inf,
            "least_tokens": _least(tokens, self._most_tokens) if background else -math.inf,
        }
        with self._postgres.transaction() as connection:
            if not self._begun:
                connection.execute(self._postgres.query("begin_rate"), parameters)
                self._begun = True
            row = connection.execute(self._postgres.query("take_rate"), parameters).fetchone()
        return None if row is None else (row[0], row[1])

    def _again_s(self, tokens: int) -> float:
        """When a full sync that found too little asks again: what it needs may have flowed in by then."""
        return min(_ASKED_AGAIN_S, max(1 / self._requests_a_s, tokens / self._tokens_a_s, 0.02))


def _least(needed: float, most: float) -> float:
    """What has to be in the bucket so that a full sync may take `needed`; of a full bucket it may take any number."""
    return min(most, needed + _LEFT_TO_EVENTS * most)
