"""Kills a process at each moment at which PostgreSQL could have been left behind: around every statement and commit.

A piece of work is a function of a module that takes a platform. It runs in a process of its own: once to count its
moments, then once for each of them, to die there by SIGKILL. A moment is before a statement, before a commit, or after
a commit. The caller makes the state anew each time, and looks at what is left.

    for moment in range(1, moments(platform, work) + 1):
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
from pydantic import SecretStr

from mcp_assets.settings import load_settings, variable_of
from mcp_assets.sync.platform import Platform

WITHIN_S = 300.0

# What decides where a process works; anything else it has from its defaults, as its work expects.
_ADDRESSES = ("database_url", "nats_url", "qdrant_url", "openai_base_url", "embedding_model", "embedding_dimension")


Work = Callable[[Platform], object]


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


def environment(platform: Platform) -> dict[str, str]:
    """What leads a process of its own to the platform's stores."""
    given: dict[str, Any] = {name: getattr(platform.settings, name) for name in _ADDRESSES}
    plain = {
        variable_of(name): value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        for name, value in given.items()
        if value is not None
    }
    return {**os.environ, **plain}


def _run(platform: Platform, work: Work, moment: int) -> tuple[int | None, int]:
    """The exit code, and how many moments have passed."""
    # Forked from a process that has everything imported and no thread: hundreds of them take little time.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    passed = context.Value("q", 0)
    process = context.Process(target=_work, args=(environment(platform), work, moment, passed))
    process.start()
    process.join(WITHIN_S)
    assert process.exitcode is not None, f"not done within {WITHIN_S} s"
    return process.exitcode, passed.value


class _Moments:
    """Counts moments, in all threads, and dies at one of them; at 0 it only counts."""

    def __init__(self, last: int) -> None:
        self._last = last
        self._lock = threading.Lock()
        self.passed = 0

    def watch(self) -> None:
        """From here on, every statement and commit of psycopg is a moment."""
        for name in ("execute", "executemany"):
            setattr(psycopg.Cursor, name, self._before(getattr(psycopg.Cursor, name)))
        commit = self._before(psycopg.Connection.commit)

        def commit_and_pass(connection: psycopg.Connection[Any]) -> None:
            commit(connection)
            self._pass()

        psycopg.Connection.commit = commit_and_pass  # type: ignore[method-assign]

    def _before(self, act: Callable[..., Any]) -> Callable[..., Any]:
        def passed(*args: Any, **options: Any) -> Any:
            self._pass()
            return act(*args, **options)

        return passed

    def _pass(self) -> None:
        with self._lock:
            self.passed += 1
            if self.passed == self._last:
                os.kill(os.getpid(), signal.SIGKILL)


def _work(environment: dict[str, str], work: Work, moment: int, passed: Any) -> None:
    os.environ.update(environment)
    platform = Platform(load_settings())
    # The migration is no part of the work.
    with platform.postgres.transaction():
        pass
    counted = _Moments(moment)
    counted.watch()
    work(platform)
    passed.value = counted.passed
    platform.close()
