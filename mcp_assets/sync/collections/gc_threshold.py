"""Threshold of the garbage collector: raised while very many short-lived containers are made, as by the linker."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_CONTAINERS_BETWEEN = 50_000
"""Containers made between two collections, instead of some hundred. Hits and edges are freed by their reference counts,
so that the search for cycles among them finds nothing, and it took a seventh of the linker's time. Real cycles stay in
memory for longer: some megabytes."""


@contextmanager
def collected_seldom() -> Iterator[None]:
    """Collect garbage seldom while the block runs, in the whole process. Not for two threads at once."""
    before = gc.get_threshold()
    gc.set_threshold(_CONTAINERS_BETWEEN, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
