"""The files that a code location consists of, as loaded: what has to be the same for a warm process to be current."""

import importlib.util
import site
import sys
import sysconfig
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

Stamp = tuple[int, int]
"""Modification time in nanoseconds, and size in bytes."""

UNKNOWN: Stamp = (0, 0)
"""The stamp of a file that was edited while it was loaded, because it is unknown which version was loaded. No file has
this stamp, so that such a file always counts as changed."""

# File systems stamp by a clock that ticks, so that an edit may seem to be this much older than it is.
_CLOCK_TICK_NS = 20_000_000


def loaded_project_files(since_ns: int) -> dict[str, Stamp]:
    """The files of all modules loaded from outside the standard library and site-packages.

    Args:
        since_ns: when loading began, in nanoseconds since the epoch. What was edited between then and now is UNKNOWN.
    """
    installed = _installed_folders()
    stamps: dict[str, Stamp] = {}
    now_ns = time.time_ns()
    for module in list(sys.modules.values()):
        name = getattr(module, "__file__", None)
        if not isinstance(name, str):
            continue
        path = Path(name).absolute()
        if any(path.is_relative_to(folder) for folder in installed):
            continue
        found = _stamp(path)
        edited_meanwhile = since_ns - _CLOCK_TICK_NS <= found[0] <= now_ns
        stamps[str(path)] = UNKNOWN if edited_meanwhile else found
    return stamps


def edited(stamps: Mapping[str, Stamp]) -> list[str]:
    """The files that are no longer what they were when `stamps` were taken, or are gone."""
    return [name for name, stamp in stamps.items() if stamp == UNKNOWN or _stamp(Path(name)) != stamp]


def forget_bytecode(names: Iterable[str]) -> None:
    """Remove what Python has compiled of these files.

    Python takes bytecode for current if the file's size and whole second are the same: two edits in one second are not.
    """
    for name in names:
        if name.endswith(".py"):
            Path(importlib.util.cache_from_source(name)).unlink(missing_ok=True)


def _stamp(path: Path) -> Stamp:
    try:
        found = path.stat()
    except FileNotFoundError:
        return UNKNOWN
    return found.st_mtime_ns, found.st_size


def _installed_folders() -> set[Path]:
    """Where the interpreter keeps what is installed, each folder as named and as resolved."""
    named = {Path(sysconfig.get_path(scheme)) for scheme in ("stdlib", "platstdlib", "purelib", "platlib")}
    named |= {Path(folder) for folder in (*site.getsitepackages(), site.getusersitepackages())}
    return named | {folder.resolve() for folder in named}
