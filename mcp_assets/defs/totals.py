"""Totals: what each materialization says about its whole asset, beside what its run did in one partition."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from mcp_assets.platform import Platform
from mcp_assets.stores.errors import CollectionMismatch, StoreRefused, StoreUnavailable
from mcp_assets.sync.consistency.stored_censuses import drift_counts, last_censuses
from mcp_assets.sync.index.embedding_costs import budget_today
from mcp_assets.sync.views.totals import CollectionTotal, collection_totals, edges_about, living_entities

_FREE_S = 0.3
"""Seconds that a run may spend on totals in any case: a small sync has new ones with each partition."""

_SHARE = 0.02
"""The part of a run's time that it may spend on totals beyond that. Between two reads, the last totals are repeated."""

Entries = Mapping[str, int | float | str]


@dataclass(frozen=True, slots=True)
class _Totals:
    living: Mapping[tuple[str, int], int]
    """By entity type and shard."""
    collections: Mapping[str, CollectionTotal]
    """By alias."""
    edges: int
    usd_today: float


def census_totals(platform: Platform) -> Entries:
    """What the last censuses of all partitions have compared and found."""
    last = last_censuses(platform)
    counts = drift_counts(platform, [census.id for census in last])
    return {
        "total/checked": sum(census.checked for census in last),
        "total/points": sum(census.points for census in last),
        "total/drift": sum(found.total() for found in counts.values()),
    }


class Totals:
    """The totals of a run's platform, read again as time allows. Thread-safe."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._began = time.monotonic()
        self._spent_s = 0.0
        self._last: _Totals | str | None = None
        self._reading = threading.Lock()

    def of_entities(self, entity_type: str, shard: int) -> Entries:
        """Living entities: of all types, of the partition, and of each type."""
        totals = self._read()
        if isinstance(totals, str):
            return {"totals": totals}
        by_type = dict.fromkeys(self._platform.settings.entity_types, 0)
        for (name, _), living in totals.living.items():
            by_type[name] += living
        return {
            "dagster/row_count": sum(by_type.values()),
            "dagster/partition_row_count": totals.living.get((entity_type, shard), 0),
            **{f"total/{name}": living for name, living in by_type.items()},
        }

    def of_embeddings(self, entity_type: str) -> Entries:
        """Points: of all collections, of each, and the collection of the type with its model; what today has cost."""
        totals = self._read()
        if isinstance(totals, str):
            return {"totals": totals}
        entries: dict[str, int | float | str] = {
            "dagster/row_count": sum(one.points for one in totals.collections.values())
        }
        entries |= {f"total/{alias}": one.points for alias, one in totals.collections.items()}
        # Without a known price, nothing says what the texts have cost; the local model costs nothing.
        if self._platform.usd_per_million_tokens(self._platform.embedder.profile):
            entries["total/cost_dollars_today"] = round(totals.usd_today, 6)
        serving = totals.collections.get(self._platform.settings.entity_types[entity_type].collection_name)
        if serving is not None:
            # As text: the UI would draw a plot of the dimension.
            entries |= {"collection": serving.name, "model": f"{serving.model}, {serving.dimension} dimensions"}
        return entries

    def of_edges(self) -> Entries:
        """Edges of all partitions."""
        totals = self._read()
        return {"totals": totals} if isinstance(totals, str) else {"dagster/row_count": totals.edges}

    def _read(self) -> _Totals | str:
        """The totals, or why they are not known: a report is no reason to fail a run whose work is done."""
        with self._reading:
            now = time.monotonic()
            if self._last is not None and self._spent_s > _FREE_S + _SHARE * (now - self._began):
                return self._last
            try:
                self._last = _Totals(
                    living_entities(self._platform),
                    collection_totals(self._platform),
                    edges_about(self._platform),
                    budget_today(self._platform).spent_usd,
                )
            except (StoreUnavailable, StoreRefused, CollectionMismatch) as error:
                self._last = f"could not be read: {error}"
            self._spent_s += time.monotonic() - now
            return self._last
