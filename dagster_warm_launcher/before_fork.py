"""What runs need and definitions do not: a code location names it, and the process that forks its runs loads it once.

A code server evaluates the same definitions and forks no runs, so that it is not to load what only runs need.
"""

from collections.abc import Callable

_loads: dict[str, Callable[[], object]] = {}


def before_fork(key: str, load: Callable[[], object]) -> None:
    """Have the process that forks runs call `load` once, before the first fork; no other process calls it.

    Called where the definitions are evaluated, which may be several times in a process: of the same `key` the last
    `load` counts. What `load` raises keeps runs from being launched. It must not start threads or open connections.
    """
    _loads[key] = load


def load_for_runs() -> None:
    """In the process that forks runs, after the definitions: call what they have asked for."""
    for load in list(_loads.values()):
        load()
