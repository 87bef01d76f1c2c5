"""How much memory this machine, or the container that we run in, has."""

from pathlib import Path

import psutil

_CONTAINER_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
"""Files of the control groups of Linux, version 2 and 1. Version 2 says `max` where there is no limit."""


def memory_bytes(limits: tuple[Path, ...] = _CONTAINER_LIMITS) -> int:
    """Memory that may be used: the machine's, or the limit of the container where that is less."""
    stated = [path.read_text().strip() for path in limits if path.is_file()]
    return min([psutil.virtual_memory().total, *(int(limit) for limit in stated if limit.isdigit())])
