"""Progress lines: a run's log says how far long work is, at most once in some seconds, however much is done in them.

Each line is an event of Dagster. So its events grow with the minutes that a run takes, and not with the entities.
"""

import time
from typing import Protocol

import dagster as dg

from mcp_assets.platform import Platform
from mcp_assets.sync.pace import Every


class LongWork(Protocol):
    """Work that knows how far it is."""

    @property
    def line(self) -> str: ...


class ProgressLines:
    """Writes to the log of one run. The first line comes after the same time, so that short runs write none."""

    def __init__(self, log: dg.DagsterLogManager, platform: Platform) -> None:
        self._log = log
        self._every = Every(platform.tuning.defs.events_every_s, time.monotonic())

    def say(self, work: LongWork) -> None:
        """To be called after each step of `work`; writes a line if that is due."""
        if self._every.is_due(time.monotonic()):
            self._log.info(work.line)
