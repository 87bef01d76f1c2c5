"""Stored censuses: the tables `censuses` and `drift`, as a census writes them and as checks, reports and repairs read.

A partition has one census that counts: the last one that ended. A repair deletes the drift that it has repaired.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from typing import Any, NamedTuple

from mcp_assets.entities.refs import EntityRef, ref_or_none, slot_of, slot_range
from mcp_assets.platform import Platform
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.postgres.locks import Lock, hold_all, lock_name, release_all
from mcp_assets.stores.postgres.rows import keyset_pages
from mcp_assets.sync.consistency.drift import Drift, DriftKind
from mcp_assets.sync.consistency.list_recall import ListRecall, sum_of_recalls

EXAMPLES = 20
"""Drift of each kind that a census carries, for a person who reads it; the table `drift` has all."""

_DRIFT_AT_ONCE = 1_000
"""Rows of `drift` that one COPY writes: few round trips, and little memory."""

_DRIFT_A_PAGE = 500
"""Rows of `drift` that a repair reads, and works on, at once: as many as are rechecked at once."""


@dataclass(slots=True)
class Census:
    """What one census of a partition found."""

    entity_type: str
    shard: int
    collection: str
    """The physical one."""
    deep: bool
    id: int = 0
    checked: int = 0
    """Entities that are alive in the source table or in the ledger."""
    points: int = 0
    edges: int = 0
    """Rows of `relationships`, those of other programs too; 0 for a collection that is not in use."""
    counts: Counter[DriftKind] = field(default_factory=Counter)
    examples: list[Drift] = field(default_factory=list)
    """At most EXAMPLES of each kind."""
    by_events: int = 0
    """Entities that live by events alone though their type has a source table: no drift."""
    by_events_examples: list[EntityRef] = field(default_factory=list)
    """At most EXAMPLES."""
    recall: ListRecall | None = None
    """Of the similarity lists of a sample; None: they are exact, or the collection is not in use."""
    seconds: float = 0.0
    """Of the pass that took it, divided by the partitions of the pass."""

    @property
    def clean(self) -> bool:
        """Nothing of ours is broken; there may be drift that is only a warning."""
        return not any(count for kind, count in self.counts.items() if kind.severity == "error")


class CensusPass:
    """The censuses of contiguous partitions of one entity type, which are taken together."""

    def __init__(self, entity_type: str, shards: range, collection: str, *, of: int, deep: bool) -> None:
        """`shards`: without a gap; `of`: how many shards a type has. `collection`: the physical one."""
        self.entity_type = entity_type
        self.collection = collection
        self.deep = deep
        self.censuses = [Census(entity_type, shard, collection, deep) for shard in shards]
        """In the order of their slots."""
        self.ranges = [slot_range(shard, of) for shard in shards]
        """The slots of each census, half-open."""
        self._lows = [low for low, _ in self.ranges]

    @property
    def slots(self) -> tuple[int, int]:
        """Those of all partitions, half-open."""
        return self.ranges[0][0], self.ranges[-1][1]

    @property
    def bounds(self) -> dict[str, list[int]]:
        """The parameters of queries about several partitions: their first slots, and the slots behind their last."""
        return {"lows": self._lows, "highs": [high for _, high in self.ranges]}

    @property
    def seed(self) -> int:
        """Decides what the samples of the pass are.

        Not the id itself: passes that alternate have ids with a common step, and would leave the same slots out for
        ever.
        """
        return slot_of(str(self.censuses[0].id))

    def of_slot(self, slot: int) -> Census:
        """The census of the partition that `slot` is in; of a slot outside the pass, the nearest."""
        return self.censuses[max(0, bisect_right(self._lows, slot) - 1)]


class DriftLog:
    """Takes the drift that a pass finds: counts it by partition, keeps examples, and writes all of it in batches."""

    def __init__(self, platform: Platform, session: Connection, taken: CensusPass) -> None:
        self._platform = platform
        self._session = session
        self._pass = taken
        self._unwritten: list[tuple[int, Drift]] = []

    def add(self, drift: Drift, slot: int | None = None) -> None:
        """The drift belongs to the partition of `slot`.

        By default that is the slot of its entity, and for drift without an entity the first slot of the pass.
        """
        if slot is None:
            slot = drift.ref.slot if drift.ref is not None else self._pass.slots[0]
        census = self._pass.of_slot(slot)
        census.counts[drift.kind] += 1
        if census.counts[drift.kind] <= EXAMPLES:
            census.examples.append(drift)
        self._unwritten.append((census.id, drift))
        if len(self._unwritten) >= _DRIFT_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        if not self._unwritten:
            return
        with self._session.cursor() as cursor, cursor.copy(self._platform.postgres.query("copy_drift")) as writer:
            for census, one in self._unwritten:
                entity_type, entity_id = one.ref or (None, None)
                writer.write_row((census, one.kind.value, entity_type, entity_id, one.subject, one.detail))
        self._unwritten = []


@contextmanager
def running_pass(platform: Platform, taken: CensusPass, session: Connection, *, in_use: bool) -> Iterator[DriftLog]:
    """Censuses that run while the block does; a second census of one of the partitions waits.

    When the block ends without an error, each census takes the place of the one before it, all in one transaction.
    `session`: a connection in autocommit; after an error it is closed, which releases the locks. `in_use`: the
    collection of the censuses is the one that serves; otherwise only older censuses of the same collection are
    replaced.
    """
    query = platform.postgres.query
    parameters = {"entity_type": taken.entity_type, "collection": taken.collection, **taken.bounds}
    # In the order of their slots, so that two passes over some of the same partitions do not wait for each other.
    locks = [
        lock_name(platform.postgres, Lock.CENSUS, taken.entity_type, taken.collection, f"{low}-{high}")
        for low, high in taken.ranges
    ]
    hold_all(session, locks)
    begun = session.execute(query("begin_censuses"), {**parameters, "deep": taken.deep}).fetchall()
    ids: dict[int, int] = dict(begun)
    for census, (low, _) in zip(taken.censuses, taken.ranges, strict=True):
        census.id = ids[low]
    log = DriftLog(platform, session, taken)
    yield log
    log.flush()
    with session.transaction():
        own = [census.id for census in taken.censuses]
        session.execute(query("delete_older_censuses"), {**parameters, "censuses": own, "in_use": in_use})
        session.execute(
            query("end_censuses"),
            {
                "censuses": own,
                "checked": [census.checked for census in taken.censuses],
                "points": [census.points for census in taken.censuses],
                "edges": [census.edges for census in taken.censuses],
                **_recall_columns([census.recall for census in taken.censuses]),
            },
        )
    release_all(session, locks)


def _recall_columns(recalls: Iterable[ListRecall | None]) -> dict[str, list[int | None]]:
    names = ("lists_compared", "exact_neighbours", "neighbours_found")
    columns = zip(*(recall or (None, None, None) for recall in recalls), strict=True)
    return dict(zip(names, map(list, columns), strict=True))


@dataclass(frozen=True, slots=True)
class LastCensus:
    """The last census of a partition that ended, as the table has it."""

    id: int
    entity_type: str
    collection: str
    low: int
    high: int
    deep: bool
    checked: int
    points: int
    edges: int
    ended_at: datetime
    lists_compared: int | None
    exact_neighbours: int | None
    neighbours_found: int | None
    age_s: float

    @property
    def recall(self) -> ListRecall | None:
        """Of the similarity lists of a sample; None: all searches were exact."""
        if self.lists_compared is None or self.exact_neighbours is None or self.neighbours_found is None:
            return None
        return ListRecall(self.lists_compared, self.exact_neighbours, self.neighbours_found)

    @property
    def slots(self) -> tuple[int, int]:
        """The first slot of the partition, and the one behind its last."""
        return self.low, self.high


class StoredDrift(NamedTuple):
    """A row of the table `drift`."""

    id: int
    drift: Drift


class DriftingEntity(NamedTuple):
    """An entity in the table `drift`, and the points that its rows name."""

    entity_id: str
    points: Sequence[str]


class _DriftCount(NamedTuple):
    """How much drift of a kind a census found."""

    census: int
    kind: str
    drift: int


def last_censuses(platform: Platform) -> list[LastCensus]:
    """The last census of each partition that ever had one."""
    with platform.postgres.transaction() as connection:
        return platform.postgres.rows(connection, "last_censuses", LastCensus)


def recall_by_type(censuses: Iterable[LastCensus | Census]) -> dict[str, ListRecall]:
    """The recall of the similarity lists of each entity type, by the censuses that measured one."""
    by_type: dict[str, list[ListRecall]] = {}
    for census in censuses:
        if census.recall is not None:
            by_type.setdefault(census.entity_type, []).append(census.recall)
    return {name: sum_of_recalls(recalls) for name, recalls in by_type.items()}


def drift_examples(platform: Platform, censuses: Sequence[int], kinds: Iterable[DriftKind], limit: int) -> list[Drift]:
    """At most `limit` of the drift of `kinds` that the censuses (by id) found."""
    with platform.postgres.transaction() as connection:
        parameters = {"censuses": list(censuses), "kinds": _values(kinds), "limit": limit}
        return platform.postgres.rows(connection, "drift_examples", _drift, parameters)


def drift_counts(platform: Platform, censuses: Sequence[int]) -> dict[int, Counter[DriftKind]]:
    """How much drift of each kind each of the censuses (by id) found, less what was repaired since."""
    with platform.postgres.transaction() as connection:
        rows = platform.postgres.rows(connection, "drift_counts", _DriftCount, {"censuses": list(censuses)})
    counts: dict[int, Counter[DriftKind]] = {census: Counter() for census in censuses}
    for row in rows:
        counts[row.census][DriftKind(row.kind)] = row.drift
    return counts


def drift_pages(
    platform: Platform, censuses: Sequence[int], kinds: Collection[DriftKind]
) -> Iterator[list[StoredDrift]]:
    """The drift of `kinds` that the censuses (by id) found, a page at a time."""
    parameters = {"censuses": list(censuses), "kinds": _values(kinds), "limit": _DRIFT_A_PAGE}

    def read(after: int) -> list[StoredDrift]:
        with platform.postgres.transaction() as connection:
            return platform.postgres.rows(connection, "drift_page", _stored_drift, {**parameters, "after": after})

    return keyset_pages(read, attrgetter("id"), 0)


def drifting_entities(
    platform: Platform, censuses: Sequence[int], kinds: Collection[DriftKind]
) -> Iterator[list[DriftingEntity]]:
    """The entities of which the censuses (by id), all of one type, found drift of `kinds`, a page at a time."""
    parameters = {"censuses": list(censuses), "kinds": _values(kinds), "limit": _DRIFT_A_PAGE}

    def read(after: str) -> list[DriftingEntity]:
        with platform.postgres.transaction() as connection:
            return platform.postgres.rows(
                connection, "entities_in_drift", DriftingEntity, {**parameters, "after": after}
            )

    return keyset_pages(read, attrgetter("entity_id"), "")


def delete_drift(platform: Platform, ids: Sequence[int]) -> Counter[DriftKind]:
    """Delete rows of the table `drift`; returns how many of each kind."""
    with platform.postgres.transaction() as connection:
        rows = connection.execute(platform.postgres.query("delete_drift"), {"ids": list(ids)})
        return Counter(DriftKind(row[0]) for row in rows)


def delete_drift_of_entities(
    platform: Platform, censuses: Sequence[int], kinds: Collection[DriftKind], entity_ids: Sequence[str]
) -> Counter[DriftKind]:
    """Delete the rows of `kinds` about some entities of censuses (by id); returns how many of each kind."""
    with platform.postgres.transaction() as connection:
        rows = connection.execute(
            platform.postgres.query("delete_drift_of_entities"),
            {"censuses": list(censuses), "kinds": _values(kinds), "ids": list(entity_ids)},
        )
        return Counter(DriftKind(row[0]) for row in rows)


def _values(kinds: Iterable[DriftKind]) -> list[str]:
    return [kind.value for kind in kinds]


def _drift(kind: str, entity_type: str | None, entity_id: str | None, subject: str, detail: str) -> Drift:
    return Drift(DriftKind(kind), ref_or_none(entity_type, entity_id), detail, subject)


def _stored_drift(id: int, **columns: Any) -> StoredDrift:  # noqa: A002  (the name of the column)
    return StoredDrift(id, _drift(**columns))
