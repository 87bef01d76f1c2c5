"""Stored censuses: the tables `censuses` and `drift`, as a census writes them and as checks, reports and repairs read.

A partition has one census that counts: the last one that ended. A repair deletes the drift that it has repaired.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from typing import Any, NamedTuple

from mcp_assets.entities.refs import EntityRef, ref_or_none
from mcp_assets.platform import Platform
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.postgres.locks import Lock, hold, lock_name, release
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

    @property
    def clean(self) -> bool:
        """Nothing of ours is broken; there may be drift that is only a warning."""
        return not any(count for kind, count in self.counts.items() if kind.severity == "error")


class DriftLog:
    """Takes the drift that a census finds: counts it, keeps examples, and writes all of it to the table in batches."""

    def __init__(self, platform: Platform, session: Connection, census: Census) -> None:
        self._platform = platform
        self._session = session
        self._census = census
        self._unwritten: list[Drift] = []

    def add(self, drift: Drift) -> None:
        counts = self._census.counts
        counts[drift.kind] += 1
        if counts[drift.kind] <= EXAMPLES:
            self._census.examples.append(drift)
        self._unwritten.append(drift)
        if len(self._unwritten) >= _DRIFT_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        if not self._unwritten:
            return
        with self._session.cursor() as cursor, cursor.copy(self._platform.postgres.query("copy_drift")) as writer:
            for one in self._unwritten:
                entity_type, entity_id = one.ref or (None, None)
                writer.write_row((self._census.id, one.kind.value, entity_type, entity_id, one.subject, one.detail))
        self._unwritten = []


@contextmanager
def running_census(
    platform: Platform, census: Census, slots: tuple[int, int], session: Connection, *, in_use: bool
) -> Iterator[DriftLog]:
    """A census that runs while the block does; a second one of the same partition waits.

    When the block ends without an error, the census takes the place of the one before it. `session`: a connection in
    autocommit; after an error it is closed, which releases the lock. `in_use`: the collection of the census is the one
    that serves; otherwise only an older census of the same collection is replaced.
    """
    query = platform.postgres.query
    partition = {
        "entity_type": census.entity_type,
        "collection": census.collection,
        "low": slots[0],
        "high": slots[1],
    }
    lock = lock_name(platform.postgres, Lock.CENSUS, census.entity_type, census.collection, f"{slots[0]}-{slots[1]}")
    hold(session, lock)
    row = session.execute(query("begin_census"), {**partition, "deep": census.deep}).fetchone()
    assert row is not None  # noqa: S101  (an insert returns its row)
    census.id = row[0]
    log = DriftLog(platform, session, census)
    yield log
    log.flush()
    with session.transaction():
        session.execute(query("delete_older_censuses"), {**partition, "census": census.id, "in_use": in_use})
        session.execute(
            query("end_census"),
            {
                "census": census.id,
                "checked": census.checked,
                "points": census.points,
                "edges": census.edges,
                **_recall_columns(census.recall),
            },
        )
    release(session, lock)


def _recall_columns(recall: ListRecall | None) -> dict[str, int | None]:
    names = ("lists_compared", "exact_neighbours", "neighbours_found")
    return dict(zip(names, recall or (None, None, None), strict=True))


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


def drift_pages(platform: Platform, census: int, kinds: Collection[DriftKind]) -> Iterator[list[StoredDrift]]:
    """The drift of `kinds` that the census (by id) found, a page at a time."""
    parameters = {"census": census, "kinds": _values(kinds), "limit": _DRIFT_A_PAGE}

    def read(after: int) -> list[StoredDrift]:
        with platform.postgres.transaction() as connection:
            return platform.postgres.rows(connection, "drift_page", _stored_drift, {**parameters, "after": after})

    return keyset_pages(read, attrgetter("id"), 0)


def drifting_entities(platform: Platform, census: int, kinds: Collection[DriftKind]) -> Iterator[list[DriftingEntity]]:
    """The entities of which the census (by id) found drift of `kinds`, a page at a time."""
    parameters = {"census": census, "kinds": _values(kinds), "limit": _DRIFT_A_PAGE}

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
    platform: Platform, census: int, kinds: Collection[DriftKind], entity_ids: Sequence[str]
) -> Counter[DriftKind]:
    """Delete the rows of `kinds` about some entities of a census (by id); returns how many of each kind."""
    with platform.postgres.transaction() as connection:
        rows = connection.execute(
            platform.postgres.query("delete_drift_of_entities"),
            {"census": census, "kinds": _values(kinds), "ids": list(entity_ids)},
        )
        return Counter(DriftKind(row[0]) for row in rows)


def _values(kinds: Iterable[DriftKind]) -> list[str]:
    return [kind.value for kind in kinds]


def _drift(kind: str, entity_type: str | None, entity_id: str | None, subject: str, detail: str) -> Drift:
    return Drift(DriftKind(kind), ref_or_none(entity_type, entity_id), detail, subject)


def _stored_drift(id: int, **columns: Any) -> StoredDrift:  # noqa: A002  (the name of the column)
    return StoredDrift(id, _drift(**columns))
