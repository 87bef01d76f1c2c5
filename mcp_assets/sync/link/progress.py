"""Progress of linking: how many entities are linked, how many are left, how fast it goes, in a line for a person."""

import time
from collections.abc import Callable

from mcp_assets.platform import Platform
from mcp_assets.retrying import retrying
from mcp_assets.sync.link.counts import LinkReport, LinkStage
from mcp_assets.sync.link.marks import MarksLeft, marks_left
from mcp_assets.sync.pace import Pace, Progress

_RESTS_FOR = 50
"""How many times as long as a count of the marks took no other count is made: a count reads all marks, some seconds
where there are three million, and so takes at most 2 % of the time."""


class LinkProgress:
    """Follows one linker. Other linkers and new changes are seen at the next count of the marks."""

    def __init__(self, platform: Platform, clock: Callable[[], float] = time.monotonic) -> None:
        self._platform = platform
        self._clock = clock
        self._reported_at = clock()
        self._done = dict.fromkeys(LinkStage, 0)
        self._paces: dict[LinkStage, Pace] = {}
        self._stage = LinkStage.CHANGES
        self._left = MarksLeft(0, 0)
        """As counted last, less what is done since."""
        self._count_at = self._reported_at

    def add(self, report: LinkReport) -> None:
        """A transaction of the linker is committed."""
        # A stage begins when the transaction before its first one ended.
        self._paces.setdefault(report.stage, Pace(self._reported_at))
        linked = sum(counts.relinked for counts in report.partitions.values())
        self._done[report.stage] += linked
        self._left = self._left.less(report.stage, linked)
        self._stage = report.stage
        self._reported_at = self._clock()

    @property
    def seen(self) -> Progress:
        """How far the present stage is; counts the marks if that is due.

        Raises:
            StoreUnavailable.
        """
        now = self._clock()
        if now >= self._count_at:
            self._left = retrying(self._platform.settings)(marks_left, self._platform)
            self._count_at = self._clock() + _RESTS_FOR * (self._clock() - now)
        done = self._done[self._stage]
        pace = self._paces.setdefault(self._stage, Pace(self._reported_at))
        return pace.seen(self._clock(), done, done + self._left.of(self._stage))

    @property
    def name(self) -> str:
        """Of the present stage."""
        return "linking lists of neighbours" if self._stage is LinkStage.LISTS else "linking changes"

    @property
    def line(self) -> str:
        """`linking lists of neighbours: 120,000 of 1,000,000, 1,300 a second, 11 minutes left`.

        Raises:
            StoreUnavailable.
        """
        line = f"{self.name}: {self.seen}"
        if self._stage is LinkStage.CHANGES and self._left.lists:
            line += f"; then {self._left.lists:,} lists of neighbours"
        return line
