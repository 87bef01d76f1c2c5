"""Census: compares source table, ledger, Qdrant and edges of one partition, read from the stores themselves.

Both sides are read in the order of (slot, id) and merged, a window of slots at a time: memory does not grow with the
partition. The first look goes by hashes; what looks wrong is looked at once more, closely
(`sync.consistency.recheck`), before it counts. A sample of the texts is prepared anew, and with `deep` all of them.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from operator import itemgetter
from typing import Any

from mcp_assets.embedding.profiles import ModelProfile
from mcp_assets.entities.points import Key, is_own_id
from mcp_assets.entities.refs import EntityRef, slot_range
from mcp_assets.platform import Platform
from mcp_assets.stores.errors import CollectionMismatch, StoreRefused
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.qdrant import Collection, HeldPoint, physical_name
from mcp_assets.stores.sources import NAMELESS
from mcp_assets.sync.collections.serving import serving_collection
from mcp_assets.sync.consistency.drift import (
    Drift,
    Expected,
    FoundPoint,
    Kind,
    Pair,
    Place,
    Recorded,
    claimed,
    compare,
    found_points,
    side_by_side,
)
from mcp_assets.sync.consistency.edge_census import EdgeCensus
from mcp_assets.sync.consistency.recheck import (
    EMPTY_TEXT_HASH,
    ENTITIES_AT_ONCE,
    examine,
    expected_of,
    recorded_of,
)
from mcp_assets.sync.consistency.removed_types import drift_of_removed_types
from mcp_assets.sync.link.locks import require_usable_edges
from mcp_assets.sync.pipeline import overlapped

EXAMPLES = 20
"""Of each kind of drift, that a census carries; all that was found is in the table `drift`."""

TEXTS_SAMPLED = 20
"""One text in so many is prepared anew by a census that is not deep: another one each time."""

_POINTS_A_WINDOW = 1_000
_ROWS_AT_ONCE = 5_000
_DRIFT_AT_ONCE = 1_000
_WINDOWS_IN_FLIGHT = 2

_KEYS = (
    Key.KIND,
    Key.ENTITY_ID,
    Key.ENTITY_TYPE,
    Key.TEXT_HASH,
    Key.STATE_HASH,
    Key.MODEL,
    Key.VECTOR_CHECK,
    Key.SLOT,
    Key.CHUNK,
)


@dataclass(slots=True)
class Census:
    """What one census of a partition found."""

    entity_type: str
    shard: int
    collection: str
    deep: bool
    id: int = 0
    checked: int = 0
    """Entities."""
    points: int = 0
    edges: int = 0
    """Of others too; 0 for a collection that is not in use."""
    counts: Counter[Kind] = field(default_factory=Counter)
    examples: list[Drift] = field(default_factory=list)
    """At most EXAMPLES of each kind."""
    by_events: int = 0
    """Entities that live by events alone though their type has a source table: no drift."""
    by_events_examples: list[EntityRef] = field(default_factory=list)
    """At most EXAMPLES."""
    seconds: float = 0.0

    @property
    def clean(self) -> bool:
        """Nothing of ours is broken; warnings aside."""
        return not any(count for kind, count in self.counts.items() if kind.severity == "error")


def take_census(
    platform: Platform, entity_type: str, shard: int, *, deep: bool = False, collection: Collection | None = None
) -> Census:
    """Compare what the four stores hold of a partition, and put what is wrong into the table `drift`.

    `deep`: every text is prepared anew, every payload compared whole, every edge recomputed; else a sample.
    `collection`: a physical one beside that behind the alias; then edges are left out.

    Raises:
        StoreUnavailable, StoreRefused, CollectionMismatch: nothing is said of the partition, and what the census
            before it found stays.
    """
    began = time.monotonic()
    found, profile = serving_collection(platform, entity_type)
    if collection is not None:
        found, profile = collection, platform.embedder.profile
        if platform.qdrant.shape(collection.name)[0] != profile.dimension:
            raise CollectionMismatch(
                f"the collection {collection.name} does not hold vectors of {profile.dimension} dimensions"
            )
    alias = platform.settings.entity_types[entity_type].collection_name
    name = found.name if found is not None else physical_name(alias, profile)
    census = Census(entity_type, shard, name, deep)
    slots = slot_range(shard, platform.settings.shards)
    with _log(platform, census, slots, in_use=collection is None) as (session, log):
        _Vectors(platform, census, slots, session, log, profile, is_there=found is not None).take()
        if collection is None:
            _take_edges(platform, census, slots, log)
    census.seconds = time.monotonic() - began
    return census


def _take_edges(platform: Platform, census: Census, slots: tuple[int, int], log: "DriftLog") -> None:
    # One partition tells of what is no partition's.
    tells_for_all = census.entity_type == next(iter(platform.settings.entity_types)) and slots[0] == 0
    if tells_for_all:
        for drift in drift_of_removed_types(platform):
            log.add(drift)
    try:
        require_usable_edges(platform)
    except StoreRefused as refusal:
        # Ledger and points are compared all the same.
        if tells_for_all:
            log.add(Drift(Kind.UNUSABLE_TABLE, None, str(refusal), platform.relationships.name))
        return
    edges = EdgeCensus(platform, census.entity_type, slots, deep=census.deep, seed=census.id)
    for drift in edges.take():
        log.add(drift)
    census.edges = edges.count()


class DriftLog:
    """Keeps what a census finds: counted, some as examples, all in the table, in batches."""

    def __init__(self, platform: Platform, session: Connection, census: Census) -> None:
        self._platform = platform
        self._session = session
        self._census = census
        self._waiting: list[Drift] = []

    def add(self, drift: Drift) -> None:
        counts = self._census.counts
        counts[drift.kind] += 1
        if counts[drift.kind] <= EXAMPLES:
            self._census.examples.append(drift)
        self._waiting.append(drift)
        if len(self._waiting) >= _DRIFT_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        if not self._waiting:
            return
        with self._session.cursor() as cursor, cursor.copy(self._platform.postgres.query("copy_drift")) as writer:
            for one in self._waiting:
                entity_type, entity_id = one.ref or (None, None)
                writer.write_row((self._census.id, one.kind.value, entity_type, entity_id, one.subject, one.detail))
        self._waiting = []


@contextmanager
def _log(
    platform: Platform, census: Census, slots: tuple[int, int], *, in_use: bool
) -> Iterator[tuple[Connection, DriftLog]]:
    """A census under way, alone on its partition; it counts, in place of the one before it, when the block ends."""
    query = platform.postgres.query
    place = {
        "entity_type": census.entity_type,
        "collection": census.collection,
        "low": slots[0],
        "high": slots[1],
    }
    lock = f"{platform.postgres.schema}/census/{census.entity_type}/{census.collection}/{slots}"
    with platform.postgres.session() as session:
        session.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", (lock,))
        row = session.execute(query("begin_census"), {**place, "deep": census.deep}).fetchone()
        assert row is not None  # noqa: S101  (an insert returns its row)
        census.id = row[0]
        log = DriftLog(platform, session, census)
        yield session, log
        log.flush()
        with session.transaction():
            session.execute(query("delete_older_censuses"), {**place, "census": census.id, "in_use": in_use})
            session.execute(
                query("end_census"),
                {"census": census.id, "checked": census.checked, "points": census.points, "edges": census.edges},
            )


@dataclass(frozen=True, slots=True)
class _Row:
    """What source table and ledger say of one entity, by their hashes."""

    slot: int
    id: str
    hash_now: str | None
    in_source: bool
    in_ledger: bool
    origin: str | None
    source_hash: str | None
    prepared_by: str | None
    text_hash: str | None
    state_hash: str | None
    deleted: bool
    dirty: bool
    chunk_bound: int
    recorded: Recorded | None

    @property
    def place(self) -> Place:
        return self.slot, self.id

    @property
    def living(self) -> bool:
        return self.in_ledger and not self.deleted


class _Vectors:
    """The census of ledger rows and points."""

    def __init__(
        self,
        platform: Platform,
        census: Census,
        slots: tuple[int, int],
        session: Connection,
        log: DriftLog,
        profile: ModelProfile,
        *,
        is_there: bool,
    ) -> None:
        self._platform = platform
        self._census = census
        self._type = census.entity_type
        self._slots = slots
        self._session = session
        self._log = log
        self._collection = census.collection if is_there else None
        self._profile = profile
        # Of several types in one collection, the first tells of the points that are nobody's.
        self._owns_foreign = self._type == _sharing(platform, self._type)[0]
        self._has_source = platform.source(self._type) is not None
        self._suspects: dict[str, list[str]] = {}

    def take(self) -> None:
        self._prepare_rows()
        pairs = side_by_side(self._rows(), self._points())
        batch: list[Pair[_Row]] = []
        for pair in pairs:
            batch.append(pair)
            if len(batch) >= ENTITIES_AT_ONCE:
                self._look(batch)
                batch = []
        self._look(batch)
        self._look_closely()
        if self._collection is not None and self._owns_foreign and self._slots[0] == 0:
            for page in self._platform.qdrant.scroll_without_slot(self._collection, keys=_KEYS):
                self._census.points += len(page)
                for point in page:
                    if not belongs(self._platform, self._type, point):
                        self._foreign(point)

    def _prepare_rows(self) -> None:
        reader = self._platform.source(self._type)
        self._session.execute("DROP TABLE IF EXISTS census_source, census_rows")
        if reader is not None:
            faults = reader.id_faults(self._session, self._slots).sentences()
            for entity_id, (_, sentence) in faults.items():
                ref = EntityRef(self._type, entity_id) if entity_id != NAMELESS else None
                self._log.add(Drift(Kind.UNUSABLE_ROW, ref, sentence, self._type if ref is None else ""))
            reader.copy_living(self._session, self._slots)
        else:
            self._session.execute('CREATE TEMPORARY TABLE census_source (id text COLLATE "C", slot integer, hash text)')
        low, high = self._slots
        with self._session.transaction():
            # PostgreSQL knows nothing of the temporary table, and would look up each row by itself.
            self._session.execute("SET LOCAL enable_nestloop = off")
            self._session.execute(
                self._platform.postgres.query("census_rows"),
                {"entity_type": self._type, "low": low, "high": high, "collection": self._census.collection},
            )
        self._session.execute("CREATE UNIQUE INDEX census_rows_n ON census_rows (n)")

    def _rows(self) -> Iterator[_Row]:
        last = 0
        query = self._platform.postgres.query("census_page")
        while page := self._session.execute(query, {"after": last, "limit": _ROWS_AT_ONCE}).fetchall():
            last = page[-1][0]
            for row in page:
                yield _Row(*row[1:14], *[recorded_of(*row[14:])])

    def _points(self) -> Iterator[tuple[Place, FoundPoint]]:
        """The points of the partition by place, a window of slots at a time; others are told of as they come."""
        if self._collection is None:
            return
        low, high = self._slots
        count = self._platform.qdrant.count(self._collection, self._slots)
        width = max(1, (high - low) * _POINTS_A_WINDOW // max(count, 1))
        windows = ((start, min(start + width, high)) for start in range(low, high, width))
        for _, (total, ours, others) in overlapped(windows, self._window, in_flight=_WINDOWS_IN_FLIGHT):
            self._census.points += total
            for point in others:
                self._foreign(point)
            yield from ours

    def _window(self, slots: tuple[int, int]) -> tuple[int, list[tuple[Place, FoundPoint]], list[HeldPoint]]:
        """The number of points in a window, those that name an entity of this type, and those that name none of ours.

        A vector is looked through at once and let go.
        """
        assert self._collection is not None  # noqa: S101  (there is no window without a collection)
        total = 0
        ours: list[tuple[Place, FoundPoint]] = []
        others: list[HeldPoint] = []
        keys = None if self._census.deep else _KEYS
        for page in self._platform.qdrant.scroll_slots(self._collection, slots, keys=keys):
            total += len(page)
            for point in found_points(page, self._profile.dimension):
                if point.ref.type == self._type:
                    slot = point.payload.get(Key.SLOT)
                    place = (slot if isinstance(slot, int) else slots[0], point.ref.id)
                    ours.append((place, point))
            if self._owns_foreign:
                others += (point for point in page if not belongs(self._platform, self._type, point))
        ours.sort(key=itemgetter(0))
        return total, ours, others

    def _foreign(self, point: HeldPoint) -> None:
        ref = claimed(point.payload)
        if ref is None:
            what = "it names no entity"
        elif not is_own_id(point.id):
            what = f"it names {ref} under an id that this platform does not make"
        else:
            what = f"it names {ref}, which does not belong in this collection"
        self._log.add(Drift(Kind.FOREIGN_POINT, None, what, point.id))

    def _look(self, batch: Sequence[Pair[_Row]]) -> None:
        """The first look, by hashes; what looks wrong becomes a suspect."""
        texts, lying = self._texts([pair.row for pair in batch if pair.row is not None and self._is_sampled(pair.row)])
        for pair in batch:
            row = pair.row
            if row is not None and (row.living or row.in_source):
                self._census.checked += 1
                self._note_origin(row)
            if row is None or row.id in lying or self._is_suspect(row, pair.points, texts.get(row.id)):
                entity_id = row.id if row is not None else pair.points[0].ref.id
                self._suspects.setdefault(entity_id, []).extend(point.id for point in pair.points)
        self._look_closely_if_many()

    def _note_origin(self, row: _Row) -> None:
        if row.living and row.origin == "event" and not row.in_source and self._has_source:
            self._census.by_events += 1
            if len(self._census.by_events_examples) < EXAMPLES:
                self._census.by_events_examples.append(EntityRef(self._type, row.id))

    def _is_sampled(self, row: _Row) -> bool:
        sampled = self._census.deep or row.slot % TEXTS_SAMPLED == self._census.id % TEXTS_SAMPLED
        return sampled and row.living and not row.dirty

    def _is_suspect(self, row: _Row, points: Sequence[FoundPoint], text: Expected | None) -> bool:
        if row.dirty:
            return False
        if row.in_source:
            if not row.living or (row.origin, row.source_hash, row.prepared_by) != (
                "source",
                row.hash_now,
                self._platform.prepared_by(self._type),
            ):
                return True
        elif row.living and row.origin == "source":
            return True
        expected = None
        if row.living:
            assert row.text_hash is not None and row.state_hash is not None  # noqa: S101  (columns are NOT NULL)
            points_wanted = 0 if row.text_hash == EMPTY_TEXT_HASH else 1 + row.chunk_bound
            expected = Expected(row.text_hash, row.state_hash, points_wanted)
            if text is not None:
                if (text.text_hash, text.state_hash) != (row.text_hash, row.state_hash):
                    return True
                expected = text
        return bool(compare(EntityRef(self._type, row.id), expected, row.recorded, points, self._profile.name))

    def _texts(self, rows: Sequence[_Row]) -> tuple[dict[str, Expected], set[str]]:
        """What the texts of `rows` come to, prepared anew from what the source table, or else the ledger, says now; and
        the ids whose ledger columns are not what their source row, or their hashes, say."""
        found: dict[str, Expected] = {}
        lying: set[str] = set()
        if not rows:
            return found, lying
        reader = self._platform.source(self._type)
        with self._platform.postgres.transaction() as connection:
            sources = reader.read(connection, [row.id for row in rows if row.in_source]) if reader is not None else {}
            held: dict[str, tuple[str | None, str, Mapping[str, Any]]] = {
                entity_id: (title, content, metadata)
                for entity_id, title, content, metadata in connection.execute(
                    self._platform.postgres.query("census_texts"),
                    {"entity_type": self._type, "ids": [row.id for row in rows]},
                )
            }
        for row in rows:
            own, source = held.get(row.id), sources.get(row.id)
            text = own if source is None and row.origin == "event" else None
            if source is not None and source.alive and source.unstorable is None:
                text = source.title, source.content, source.metadata
                if own != text:
                    lying.add(row.id)
            if text is not None:
                expected = expected_of(self._platform, *text)
                if not self._census.deep:
                    # The first look has read the reserved keys of the payload only.
                    expected = Expected(expected.text_hash, expected.state_hash, expected.points)
                found[row.id] = expected
        return found, lying

    def _look_closely_if_many(self) -> None:
        if len(self._suspects) >= ENTITIES_AT_ONCE:
            self._look_closely()

    def _look_closely(self) -> None:
        suspects, self._suspects = self._suspects, {}
        for part in parts_of(suspects):
            for examined in examine(self._platform, self._type, self._collection, self._profile, part).values():
                for drift in examined.drift:
                    self._log.add(drift)


def belongs(platform: Platform, entity_type: str, point: HeldPoint) -> bool:
    """The point names, under an id of ours, an entity of a type that lives in the collection of `entity_type`."""
    ref = claimed(point.payload)
    return is_own_id(point.id) and ref is not None and ref.type in _sharing(platform, entity_type)


def _sharing(platform: Platform, entity_type: str) -> list[str]:
    types = platform.settings.entity_types
    alias = types[entity_type].collection_name
    return [name for name in types if types[name].collection_name == alias]


def parts_of(suspects: Mapping[str, Iterable[str]]) -> Iterator[dict[str, Sequence[str]]]:
    """`suspects` in parts that can be examined at once."""
    ids = list(suspects)
    for start in range(0, len(ids), ENTITIES_AT_ONCE):
        yield {entity_id: list(suspects[entity_id]) for entity_id in ids[start : start + ENTITIES_AT_ONCE]}


@dataclass(frozen=True, slots=True)
class LastCensus:
    """The last census of a partition, as the table has it."""

    id: int
    entity_type: str
    collection: str
    slots: tuple[int, int]
    deep: bool
    checked: int
    points: int
    edges: int
    ended_at: datetime
    age_s: float

    @property
    def place(self) -> str:
        return f"{self.entity_type}, slots {self.slots[0]} to {self.slots[1] - 1}"


def last_censuses(platform: Platform) -> list[LastCensus]:
    """The last census of each partition that ever had one."""
    with platform.postgres.transaction() as connection:
        rows = connection.execute(platform.postgres.query("last_censuses")).fetchall()
    return [LastCensus(row[0], row[1], row[2], (row[3], row[4]), *row[5:]) for row in rows]


def examples(platform: Platform, censuses: Sequence[int], kinds: Iterable[Kind], limit: int) -> list[Drift]:
    """Some of what `censuses` found of `kinds`."""
    with platform.postgres.transaction() as connection:
        rows = connection.execute(
            platform.postgres.query("drift_examples"),
            {"censuses": list(censuses), "kinds": [kind.value for kind in kinds], "limit": limit},
        ).fetchall()
    return [drift_of(*row) for row in rows]


def drift_counts(platform: Platform, censuses: Sequence[int]) -> dict[int, Counter[Kind]]:
    """How much of each kind `censuses` found."""
    with platform.postgres.transaction() as connection:
        rows = connection.execute(platform.postgres.query("drift_counts"), {"censuses": list(censuses)}).fetchall()
    found: dict[int, Counter[Kind]] = {census: Counter() for census in censuses}
    for census, kind, count in rows:
        found[census][Kind(kind)] = count
    return found


def drift_of(kind: str, entity_type: str | None, entity_id: str | None, subject: str, detail: str) -> Drift:
    """A row of the table `drift`."""
    ref = EntityRef(entity_type, entity_id) if entity_type is not None and entity_id is not None else None
    return Drift(Kind(kind), ref, detail, subject)
