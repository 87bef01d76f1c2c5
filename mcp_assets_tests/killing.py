"""Kills a process at each moment at which it could have left the stores behind.

A piece of work is a function of a module that takes a platform. It runs in a process of its own: once to count its
moments, then once for each of them, to die there by SIGKILL. A moment is before a statement, before or after a commit,
or after a write to Qdrant. The caller has the state before, and looks at what is left.

    for moment in chosen(moments(platform, work)):
        ...                                   # the state before
        killed_at(platform, work, moment)
        ...                                   # what must hold now, and after the work is done once more
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import psycopg

from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.stores.qdrant import Qdrant
from mcp_assets.tuning import Tuning

WITHIN_S = 300.0

MOMENTS_VARIABLE = "MCP_ASSETS_TESTS_MOMENTS"
MOMENTS_CHOSEN = int(os.environ.get(MOMENTS_VARIABLE, "20"))
"""How many of the moments of one work `chosen` gives at most."""

# Work imports them when it first needs them, which takes longer than the work.
_PRELOADED = [
    __name__,
    "alembic.command",
    "openai",
    "pytest",
    "qdrant_client",
    "sqlalchemy.dialects.postgresql.psycopg",
]

_QDRANT_WRITES = (
    "create_collection",
    "create_indexes",
    "drop_indexes",
    "move_aliases",
    "drop_collection",
    "delete",
    "_upsert",
    "_update",
)

Work = Callable[[Platform], object]


def chosen(count: int) -> range:
    """Moments 1 to `count`, in equal steps if they are more than MOMENTS_CHOSEN."""
    step = max(1, -(-count // MOMENTS_CHOSEN))
    return range(1 + step // 2, count + 1, step)


def moments(platform: Platform, work: Work) -> int:
    """How many moments `work` has, done once to its end in a process of its own."""
    exit_code, passed = _run(platform, work, 0)
    assert exit_code == 0
    return passed


def killed_at(platform: Platform, work: Work, moment: int) -> bool:
    """Do `work` in a process that dies at `moment` (from 1 on). False: it had fewer moments this time, and is done."""
    exit_code, _ = _run(platform, work, moment)
    assert exit_code in (0, -signal.SIGKILL)
    return exit_code == -signal.SIGKILL


def _run(platform: Platform, work: Work, moment: int) -> tuple[int | None, int]:
    """The exit code, and how many moments have passed."""
    # Forked from a process that has everything imported and no thread: hundreds of them take little time.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    passed = context.Value("q", 0)
    process = context.Process(target=_work, args=(platform.settings, platform.tuning, work, moment, passed))
    process.start()
    process.join(WITHIN_S)
    if process.exitcode is None:
        process.kill()
        raise AssertionError(f"the work is not done within {WITHIN_S} s")
    return process.exitcode, passed.value


class _Moments:
    """Counts moments, in all threads, and dies at one of them; at 0 it only counts."""

    def __init__(self, last: int) -> None:
        self._last = last
        self._lock = threading.Lock()
        self.passed = 0

    def watch(self) -> None:
        """From here on, every statement, every commit and every write to Qdrant is a moment."""
        for cursor in (psycopg.Cursor, psycopg.ServerCursor):
            for name in ("execute", "executemany"):
                setattr(cursor, name, self._before(getattr(cursor, name)))
        psycopg.Cursor.copy = self._before(psycopg.Cursor.copy)  # type: ignore[method-assign]
        psycopg.Connection.commit = self._around(psycopg.Connection.commit)  # type: ignore[method-assign]
        psycopg.Transaction.__exit__ = self._around(psycopg.Transaction.__exit__)  # type: ignore[method-assign]
        for name in _QDRANT_WRITES:
            setattr(Qdrant, name, self._after(getattr(Qdrant, name)))

    def _before(self, act: Callable[..., Any]) -> Callable[..., Any]:
        def passed(cursor: Any, query: Any, *args: Any, **options: Any) -> Any:
            # An empty one is how the pool looks whether a connection lives.
            if query != "":
                self._pass()
            return act(cursor, query, *args, **options)

        return passed

    def _around(self, act: Callable[..., Any]) -> Callable[..., Any]:
        after = self._after(act)

        def passed(*args: Any, **options: Any) -> Any:
            self._pass()
            return after(*args, **options)

        return passed

    def _after(self, act: Callable[..., Any]) -> Callable[..., Any]:
        def passed(*args: Any, **options: Any) -> Any:
            answer = act(*args, **options)
            self._pass()
            return answer

        return passed

    def _pass(self) -> None:
        with self._lock:
            self.passed += 1
            if self.passed == self._last:
                os.kill(os.getpid(), signal.SIGKILL)


def _work(settings: Settings, tuning: Tuning, work: Work, moment: int, passed: Any) -> None:
    platform = Platform(settings, tuning=tuning)
    # The migration is no part of the work.
    with platform.postgres.transaction():
        pass
    counted = _Moments(moment)
    counted.watch()
    work(platform)
    passed.value = counted.passed
    platform.close()
