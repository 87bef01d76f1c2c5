"""Pace: how fast long work goes, how long it will still take, and the words that say so. Pure.

The code that works calls `Pace.seen` now and then; a log or a bar shows the result.
"""

from collections import deque
from dataclasses import dataclass

WINDOW_S = 60.0
"""Seconds over which a rate is measured: long enough that single batches do not show, short enough that a person sees
within a minute that work has become slower."""

_MINUTE_S, _HOUR_S = 60, 3_600


@dataclass(frozen=True, slots=True)
class Progress:
    """How far work is. `total` may grow while it is done."""

    done: int
    total: int
    per_second: float
    """The rate of about the last minute; 0: nothing was done in it."""

    @property
    def left_s(self) -> float | None:
        """Seconds that the rest will take at this rate; None: nothing was done, so that nobody can say."""
        left = max(0, self.total - self.done)
        if not left:
            return 0.0
        return left / self.per_second if self.per_second else None

    @property
    def rate(self) -> str:
        """`1,300 a second`."""
        return f"{self.per_second:,.0f} a second" if self.per_second >= _FAST else f"{self.per_second:.1f} a second"

    @property
    def rest(self) -> str:
        """`11 minutes left`."""
        left_s = self.left_s
        return "it is not known how long the rest takes" if left_s is None else f"{in_words(left_s)} left"

    def __str__(self) -> str:
        """`120,000 of 1,000,000, 1,300 a second, 11 minutes left`."""
        return f"{self.done:,} of {max(self.done, self.total):,}, {self.rate}, {self.rest}"


_FAST = 10
"""From so many a second on, a rate is shown without a decimal."""


class Pace:
    """Measures one kind of work from `began_at` on. All times are seconds of one monotonic clock."""

    def __init__(self, began_at: float) -> None:
        self._seen = deque([(began_at, 0)])

    def seen(self, now: float, done: int, total: int) -> Progress:
        """So much is done in all at `now`, of `total`."""
        self._seen.append((now, done))
        # The first of them is kept until the second is as old as the window, so that the rate is of at least that.
        while len(self._seen) > 2 and now - self._seen[1][0] >= WINDOW_S:
            self._seen.popleft()
        began_at, done_before = self._seen[0]
        seconds = now - began_at
        return Progress(done, total, max(0, done - done_before) / seconds if seconds > 0 else 0.0)


class Every:
    """Says when something that is worth saying at most once in `seconds` is due; the first time after that long."""

    def __init__(self, seconds: float, began_at: float) -> None:
        self._seconds = seconds
        self._last = began_at

    def is_due(self, now: float) -> bool:
        """Whether it is due at `now`; if so, the next time is `seconds` later."""
        due = now - self._last >= self._seconds
        if due:
            self._last = now
        return due


def in_words(seconds: float) -> str:
    """A duration for a person: `40 seconds`, `11 minutes`, `2.5 hours`."""
    if seconds < 1.5 * _MINUTE_S:
        return _of(round(seconds), "second")
    if seconds < 1.5 * _HOUR_S:
        return _of(round(seconds / _MINUTE_S), "minute")
    return f"{seconds / _HOUR_S:.1f} hours"


def _of(count: int, unit: str) -> str:
    return f"{count} {unit}" if count == 1 else f"{count} {unit}s"
