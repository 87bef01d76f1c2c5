"""Waiting: how a test waits for a state that other threads or processes bring about."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.2
"""A look may cost as much as a scan of all processes, so that the pauses grow with the time that was waited."""


def until(condition: Callable[[], T | None], what: str, *, within_s: float = 60.0) -> T:
    """The first true value of `condition`; `what`: the condition as a clause, such as "the run has ended".

    Raises:
        AssertionError: there is none within `within_s`.
    """
    began = time.monotonic()
    while not (value := condition()):
        waited_s = time.monotonic() - began
        assert waited_s < within_s, f"it has not come true within {within_s:g} s that {what}"
        time.sleep(min(max(waited_s / 20, _FIRST_PAUSE_S), _LONGEST_PAUSE_S))
    return value
