"""Garbage: collected seldom while very many short-lived containers are made, as the linker does."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_CONTAINERS_BETWEEN = 50_000
"""Instead of some hundred: hits and edges are freed by their counts, and looking for cycles among them takes a seventh
of the linker's time. What cycles there are wait for some megabytes of others."""


@contextmanager
def collected_seldom() -> Iterator[None]:
    """For the whole process while the block runs. Not for two threads at once."""
    before = gc.get_threshold()
    gc.set_threshold(_CONTAINERS_BETWEEN, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
