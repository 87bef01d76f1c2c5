"""Freshness: how far the index may be behind the truth, as an answer from it says."""

import threading
import time
from dataclasses import dataclass

from mcp_assets.platform import Platform
from mcp_assets.stores.errors import StoreRefused, StoreUnavailable
from mcp_assets.sync.consistency.stored_censuses import drift_counts, last_censuses
from mcp_assets.sync.views.pending import Pending, pending

VALID_S = 2.0
"""Seconds for which a freshness that was read is given again: to read it asks each store."""

_MINUTE_S, _HOUR_S, _DAY_S = 60, 3_600, 86_400


@dataclass(frozen=True, slots=True)
class Freshness:
    """How fresh the index is. None: not known, because a store does not answer or nothing was compared yet."""

    behind_stream_s: float | None
    """Seconds for which the oldest message waits that is not applied; 0: none waits."""
    sources_compared_s: float | None
    """Seconds since all source tables were compared with the ledger; the oldest of them counts."""
    stores_compared_s: float | None
    """Seconds since the last census; that of the partition that was compared first counts."""
    drift: int | None
    """What that census found and nothing has repaired since."""
    unindexed: int | None
    """Entities whose present state is not in Qdrant yet."""
    unlinked: int | None
    """Entities that wait for the linker, which writes their edges, and the search words of large batches."""
    unavailable: tuple[str, ...]
    """Stores that do not answer, a sentence each."""

    def __str__(self) -> str:
        """One sentence for a person or an assistant."""
        parts = []
        if self.behind_stream_s is None:
            parts.append("it is not known how far the index is behind the stream")
        elif self.behind_stream_s:
            parts.append(f"{_span(self.behind_stream_s)} behind the stream")
        else:
            parts.append("up to date with the stream")
        if self.unindexed:
            parts.append(f"{_waits(self.unindexed)} to be indexed")
        if self.unlinked:
            parts.append(
                f"{_waits(self.unlinked)} to be linked, and until then relationships, and the words by which texts are "
                "found, may be those of earlier texts"
            )
        if self.sources_compared_s is not None:
            parts.append(f"sources compared {_span(self.sources_compared_s)} ago")
        if self.stores_compared_s is None:
            parts.append("stores not compared yet" if not self.unavailable else "last comparison of stores not known")
        else:
            drift = "no drift" if not self.drift else f"{self.drift:,} entities had drifted"
            parts.append(f"stores compared {_span(self.stores_compared_s)} ago, {drift}")
        return "; ".join([*parts, *self.unavailable])


class FreshnessReader:
    """Reads the freshness of a platform, at most each VALID_S seconds. Thread-safe."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._lock = threading.Lock()
        self._read: tuple[float, Freshness] | None = None

    def read(self) -> Freshness:
        with self._lock:
            now = time.monotonic()
            if self._read is None or now - self._read[0] > VALID_S:
                self._read = (now, read_freshness(self._platform, pending(self._platform)))
            return self._read[1]

    def close(self) -> None:
        """Nothing is open; a companion of a platform has this."""


def read_freshness(platform: Platform, waiting: Pending) -> Freshness:
    """The freshness, with what waits now. A store that does not answer is named in it, and raises nothing."""
    compared: float | None = None
    drift: int | None = None
    unavailable = list(waiting.unavailable)
    try:
        censuses = last_censuses(platform)
        if censuses:
            compared = max(census.age_s for census in censuses)
            found = drift_counts(platform, [census.id for census in censuses])
            drift = sum(counts.total() for counts in found.values())
    except (StoreUnavailable, StoreRefused) as error:
        unavailable.append(str(error))
    return Freshness(
        behind_stream_s=waiting.behind_s,
        sources_compared_s=_sources_compared_s(waiting),
        stores_compared_s=compared,
        drift=drift,
        unindexed=sum(dirty for _, dirty in waiting.entities.values()) if waiting.entities else None,
        unlinked=waiting.unlinked if waiting.entities else None,
        unavailable=tuple(dict.fromkeys(unavailable)),
    )


def _sources_compared_s(waiting: Pending) -> float | None:
    return max((one.age_s for one in waiting.sweeps), default=None)


def _waits(entities: int) -> str:
    return "1 entity waits" if entities == 1 else f"{entities:,} entities wait"


def _span(seconds: float) -> str:
    """A length of time as a person says it."""
    if seconds < 2 * _MINUTE_S:
        return f"{seconds:.0f} s"
    if seconds < 2 * _HOUR_S:
        return f"{seconds / _MINUTE_S:.0f} minutes"
    if seconds < 2 * _DAY_S:
        return f"{seconds / _HOUR_S:.0f} hours"
    return f"{seconds / _DAY_S:.0f} days"
