"""Index wait: a linker that has many questions for Qdrant waits, within a bound, until its index is built.

While Qdrant optimizes a collection, searches by its index take about twelve times as long: a real Qdrant of two cores
answered 56 a second, and 688 once it was done. Exact searches do not use the index, so that nothing waits for it there.
"""

import logging
import time
from collections.abc import Callable

from mcp_assets.platform import Platform
from mcp_assets.retrying import retrying
from mcp_assets.sync.link.semantic_neighbours import SemanticNeighbours

logger = logging.getLogger(__name__)

_LOOKED_AGAIN_S = 1.0
"""Pause between two looks: an index of 100,000 points takes two minutes."""


class IndexWait:
    """Waits at most once. Used by one thread, outside any transaction."""

    def __init__(self, platform: Platform, semantic: SemanticNeighbours, enough: Callable[[], bool]) -> None:
        """`enough`: as for a linker, which ends; then there is nothing to wait for."""
        self._platform = platform
        self._semantic = semantic
        self._enough = enough
        self.is_over = False
        """Nothing is waited for any more, or again."""
        self.told = ""
        """One sentence for a person: how long the linker waited, and for what. Empty: it did not wait."""

    def wait(self) -> None:
        """Wait until Qdrant optimizes none of the collections that it searches by index, or the time is over.

        Raises:
            StoreUnavailable, StoreRefused: Qdrant does not say.
        """
        if self.is_over:
            return
        self.is_over = True
        began = time.monotonic()
        ends_at = began + self._platform.tuning.link.index_wait_s
        optimized = waited_for = self._optimized()
        while optimized and not self._enough() and (left := ends_at - time.monotonic()) > 0:
            time.sleep(min(_LOOKED_AGAIN_S, left))
            optimized = self._optimized()
        if waited_for:
            self.told = f"waited {time.monotonic() - began:.0f} s for Qdrant's index of {', '.join(waited_for)}" + (
                "; went on while it was still yellow, so that searches took longer" if optimized else ""
            )
            logger.info("%s", self.told)

    def _optimized(self) -> list[str]:
        """The collections that Qdrant searches by its index, and works on now."""

        def read() -> list[str]:
            return [name for name in self._semantic.approximate if self._platform.qdrant.is_optimized_now(name)]

        return retrying(self._platform.settings)(read)
