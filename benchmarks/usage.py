"""Usage: CPU seconds and anonymous memory of the measured process and of each store, while a block runs.

Anonymous memory is what a process has for itself. Pages of files that it maps, and the page cache, are left out,
because the system takes them back when it needs them.
"""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from harness import Bench

OURS = "ours"

_STORES = {"postgres": "postgres", "mcp_assets.embedded.qdrant": "qdrant", "nats-server": "nats"}
"""What stands in the command line of a store's first process, and the name of the store."""

_LOOK_EVERY_S = 0.5
"""A look costs some milliseconds of CPU, and growth that matters lasts longer than this."""


@dataclass(slots=True)
class Usage:
    """Of each part: `ours`, the processes that this one has started, and `postgres`, `qdrant`, `nats`."""

    cpu_s: dict[str, float] = field(default_factory=dict)
    """Complete when the block has ended. Of `ours` it is for the caller to add: a process that ends takes it along."""
    anonymous_mb: dict[str, float] = field(default_factory=dict)
    """The most of any one process of the part, in MB of 10^6 bytes."""

    def saw(self, part: str, process: psutil.Process) -> None:
        # A process may end meanwhile.
        with suppress(FileNotFoundError, ProcessLookupError, psutil.NoSuchProcess):
            self.anonymous_mb[part] = max(self.anonymous_mb.get(part, 0.0), anonymous_mb(process.pid))


@contextmanager
def watched(bench: Bench) -> Iterator[Usage]:
    """The usage of the stack of `bench`, and of the processes that this one starts in the block."""
    usage = Usage()
    stores = stores_of(bench)
    before = {part: _cpu_s(process) for part, process in stores.items()}
    ended = threading.Event()

    def look() -> None:
        own = psutil.Process()
        for child in own.children(recursive=True):
            # The stack is a descendant, too.
            if not any(child == store or store in child.parents() for store in stores.values()):
                usage.saw(OURS, child)
        for part, store in stores.items():
            for process in (store, *store.children()):
                usage.saw(part, process)

    def watch() -> None:
        while not ended.wait(_LOOK_EVERY_S):
            with suppress(psutil.NoSuchProcess):
                look()

    watcher = threading.Thread(target=watch, name="usage", daemon=True)
    watcher.start()
    try:
        yield usage
    finally:
        ended.set()
        watcher.join()
        look()
        usage.cpu_s |= {part: _cpu_s(process) - before[part] for part, process in stores.items()}


def stores_of(bench: Bench) -> dict[str, psutil.Process]:
    """The first process of each store of the embedded stack.

    Raises:
        RuntimeError: one of them is not found.
    """
    found: dict[str, psutil.Process] = {}
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            line = " ".join(process.cmdline())
            # PostgreSQL sees its folder by another path.
            if str(bench.folder) not in f"{line} {process.cwd()}":
                continue
            for word, part in _STORES.items():
                # A worker of PostgreSQL is younger than the first process.
                if word in line and (part not in found or process.create_time() < found[part].create_time()):
                    found[part] = process
    if missing := set(_STORES.values()) - found.keys():
        raise RuntimeError(f"no process of {', '.join(sorted(missing))} is found that works in {bench.folder}")
    return found


def anonymous_mb(process: int | str) -> float:
    """The anonymous memory of a process now, in MB of 10^6 bytes; `self` is this one."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    return int(found[1]) * 1024 / 1e6 if found else 0.0


def _cpu_s(process: psutil.Process) -> float:
    """CPU seconds of a process, of its living children, and of those that have ended and were waited for."""
    times = process.cpu_times()
    used = times.user + times.system + times.children_user + times.children_system
    for child in process.children():
        with suppress(psutil.NoSuchProcess):
            of_child = child.cpu_times()
            used += of_child.user + of_child.system
    return float(used)
