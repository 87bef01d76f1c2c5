"""Vector census: the ledger rows and points of some partitions, compared with the source table and with each other.

Both sides, the rows and the points, are read in the order of (slot, entity id) and merged, points a window of slots at
a time: memory does not grow with the partitions.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import attrgetter, itemgetter

from psycopg.rows import args_row

from mcp_assets.embedding.profiles import ModelProfile
from mcp_assets.entities.points import Key, is_own_id
from mcp_assets.entities.refs import EntityRef
from mcp_assets.platform import Platform
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.postgres.rows import keyset_pages
from mcp_assets.stores.qdrant_points import HeldPoint
from mcp_assets.stores.source_tables.ids import NAMELESS
from mcp_assets.stores.source_tables.reader import SourceReader
from mcp_assets.sync.collections.journal import types_of_alias
from mcp_assets.sync.consistency.compare import (
    Expected,
    FoundPoint,
    Pair,
    SlotAndId,
    claimed,
    compare_points,
    found_points,
    side_by_side,
)
from mcp_assets.sync.consistency.drift import Drift, DriftKind
from mcp_assets.sync.consistency.ledger_hashes import EntityText, LedgerHashes, read_texts
from mcp_assets.sync.consistency.recheck import (
    EMPTY_TEXT_HASH,
    ENTITIES_AT_ONCE,
    expected_of,
    recheck_entities,
)
from mcp_assets.sync.consistency.stored_censuses import EXAMPLES, CensusPass, DriftLog
from mcp_assets.sync.pipeline import overlapped
from mcp_assets.sync.resolve_ids import pages

SLOTS_A_SAMPLE = 20
"""A census that is not deep prepares the texts of one slot in so many again. The seed of its pass decides which, so
that hourly censuses reach all slots within some days."""

_POINTS_A_WINDOW = 1_000
"""Points read at once, with their vectors: some 6 MB at 1,536 dimensions."""

_WINDOWS_IN_FLIGHT = 2
"""One is compared while Qdrant reads the next."""

_ROWS_A_PAGE = 5_000
"""Rows of hashes read at once: some megabytes."""

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
"""The reserved keys that the first comparison needs; metadata is read by the recheck, and by a deep census."""


@dataclass(slots=True)
class _CensusRow(LedgerHashes):
    """A row of the query `census_page`: source table and ledger about one entity, by their hashes.

    The fields stand in the order of the columns. Rows are made by position, because a census reads all rows of a
    partition: to read 10,000 takes 31 ms, and 88 ms by the names of the columns.
    """

    n: int
    slot: int
    source_hash_now: str | None
    """Of the living source row; None: there is none."""
    in_source: bool

    @property
    def key(self) -> SlotAndId:
        return self.slot, self.entity_id


@dataclass(frozen=True, slots=True)
class _PointWindow:
    """The points of a range of slots."""

    totals: Mapping[int, int]
    """How many points have each slot."""
    ours: Sequence[tuple[SlotAndId, FoundPoint]]
    """Those that name an entity of the type, in order."""
    foreign: Sequence[tuple[int, HeldPoint]]
    """Those that name no entity of a type that lives in the collection, with their slots."""


@dataclass(slots=True)
class _Suspect:
    """An entity that looks wrong. `slot`: where it was found; a point may bear another slot than its entity has."""

    slot: int
    points: list[str] = field(default_factory=list)
    """Ids of points that name it."""


class VectorCensus:
    """The census of the ledger rows and points of the partitions of a pass."""

    def __init__(
        self,
        platform: Platform,
        taken: CensusPass,
        session: Connection,
        log: DriftLog,
        profile: ModelProfile,
        *,
        exists: bool,
    ) -> None:
        """`exists`: the collection of `taken` is there."""
        self._platform = platform
        self._pass = taken
        self._type = taken.entity_type
        self._session = session
        self._log = log
        self._collection = taken.collection if exists else None
        self._profile = profile
        # Several types may share the collection: its foreign points are reported by the first of them.
        self._reports_foreign = self._type == _types_beside(platform, self._type)[0]
        self._has_source = platform.source(self._type) is not None
        self._sampled_slots = taken.seed % SLOTS_A_SAMPLE
        self._suspects: dict[str, _Suspect] = {}

    def take(self) -> None:
        """Add what is wrong to the log, and the numbers of entities and points to the censuses."""
        self._prepare_rows()
        for batch in pages(side_by_side(self._rows(), self._points()), ENTITIES_AT_ONCE):
            self._compare(batch)
            if len(self._suspects) >= ENTITIES_AT_ONCE:
                self._recheck()
        self._recheck()
        if self._collection is not None and self._reports_foreign and self._pass.slots[0] == 0:
            # They belong to the first partition.
            for page in self._platform.qdrant.scroll_without_slot(self._collection, keys=_KEYS):
                self._pass.of_slot(0).points += len(page)
                for point in page:
                    if not belongs(self._platform, self._type, point):
                        self._report_foreign(0, point)

    def _prepare_rows(self) -> None:
        """Make the temporary table `census_rows`: source table and ledger, joined and numbered."""
        reader = self._platform.source(self._type)
        self._session.execute("DROP TABLE IF EXISTS census_source, census_rows")
        low, high = self._pass.slots
        if reader is not None:
            if reader.id_faults(self._session, (low, high)).sentences():
                self._report_id_faults(reader)
            reader.copy_living(self._session, (low, high))
        else:
            self._session.execute('CREATE TEMPORARY TABLE census_source (id text COLLATE "C", slot integer, hash text)')
        with self._session.transaction():
            # PostgreSQL has no statistics of the temporary table, and would look up each row through an index.
            self._session.execute("SET LOCAL enable_nestloop = off")
            made = self._session.execute(
                self._platform.postgres.query("census_rows"),
                {"entity_type": self._type, "low": low, "high": high, "collection": self._pass.collection},
            )
        if made.rowcount > _ROWS_A_PAGE:
            self._session.execute("CREATE UNIQUE INDEX census_rows_n ON census_rows (n)")

    def _report_id_faults(self, reader: SourceReader) -> None:
        # Each partition by itself: one read names a bounded number of ids, and of a long id the beginning only.
        for slots in self._pass.ranges:
            for entity_id, (_, sentence) in reader.id_faults(self._session, slots).sentences().items():
                ref = EntityRef(self._type, entity_id) if entity_id != NAMELESS else None
                subject = self._type if ref is None else ""
                self._log.add(Drift(DriftKind.UNUSABLE_ROW, ref, sentence, subject), slots[0])

    def _rows(self) -> Iterator[_CensusRow]:
        query = self._platform.postgres.query("census_page")
        cursor = self._session.cursor(row_factory=args_row(_CensusRow))

        def read(after: int) -> list[_CensusRow]:
            return cursor.execute(query, {"after": after, "limit": _ROWS_A_PAGE}).fetchall()

        return chain.from_iterable(keyset_pages(read, attrgetter("n"), 0))

    def _points(self) -> Iterator[tuple[SlotAndId, FoundPoint]]:
        """The points that name entities of the type, in order; foreign points go to the log meanwhile."""
        if self._collection is None:
            return
        low, high = self._pass.slots
        count = self._platform.qdrant.count(self._collection, (low, high))
        width = max(1, (high - low) * _POINTS_A_WINDOW // max(count, 1))
        windows = ((start, min(start + width, high)) for start in range(low, high, width))
        for _, window in overlapped(windows, self._read_window, in_flight=_WINDOWS_IN_FLIGHT):
            for slot, points in window.totals.items():
                self._pass.of_slot(slot).points += points
            for slot, point in window.foreign:
                self._report_foreign(slot, point)
            yield from window.ours

    def _read_window(self, slots: tuple[int, int]) -> _PointWindow:
        """The points of some slots. Their vectors are checked a page at a time, and not kept."""
        assert self._collection is not None  # noqa: S101  (there is no window without a collection)
        totals: Counter[int] = Counter()
        ours: list[tuple[SlotAndId, FoundPoint]] = []
        foreign: list[tuple[int, HeldPoint]] = []
        keys = None if self._pass.deep else _KEYS

        for page in self._platform.qdrant.scroll_slots(self._collection, slots, keys=keys):
            totals.update(_slot_of_point(point, slots[0]) for point in page)
            ours += (
                ((_slot_of_point(point, slots[0]), point.ref.id), point)
                for point in found_points(page, self._profile.dimension)
                if point.ref.type == self._type
            )
            if self._reports_foreign:
                foreign += (
                    (_slot_of_point(point, slots[0]), point)
                    for point in page
                    if not belongs(self._platform, self._type, point)
                )
        ours.sort(key=itemgetter(0))
        return _PointWindow(totals, ours, foreign)

    def _report_foreign(self, slot: int, point: HeldPoint) -> None:
        ref = claimed(point.payload)
        if ref is None:
            what = "it names no entity"
        elif not is_own_id(point.id):
            what = f"it names {ref} under an id that this platform does not make"
        else:
            what = f"it names {ref}, which does not belong in this collection"
        self._log.add(Drift(DriftKind.FOREIGN_POINT, None, what, point.id), slot)

    def _compare(self, batch: Sequence[Pair[_CensusRow]]) -> None:
        """The first comparison, by hashes; an entity that looks wrong becomes a suspect."""
        texts, lying = self._texts([pair.row for pair in batch if pair.row is not None and self._is_sampled(pair.row)])
        for pair in batch:
            row = pair.row
            if row is not None and (row.living or row.in_source):
                self._pass.of_slot(row.slot).checked += 1
                self._count_by_events(row)
            if row is None or row.entity_id in lying or self._is_suspect(row, pair.points, texts.get(row.entity_id)):
                if row is not None:
                    suspect = self._suspects.setdefault(row.entity_id, _Suspect(row.slot))
                    # A point that bears another slot may have been found before.
                    suspect.slot = row.slot
                else:
                    first = pair.points[0]
                    found_at = _Suspect(_slot_of_point(first, first.ref.slot))
                    suspect = self._suspects.setdefault(first.ref.id, found_at)
                suspect.points += (point.id for point in pair.points)

    def _count_by_events(self, row: _CensusRow) -> None:
        if row.living and row.origin == "event" and not row.in_source and self._has_source:
            census = self._pass.of_slot(row.slot)
            census.by_events += 1
            if len(census.by_events_examples) < EXAMPLES:
                census.by_events_examples.append(EntityRef(self._type, row.entity_id))

    def _is_sampled(self, row: _CensusRow) -> bool:
        sampled = self._pass.deep or row.slot % SLOTS_A_SAMPLE == self._sampled_slots
        return sampled and row.living and not row.dirty

    def _is_suspect(self, row: _CensusRow, points: Sequence[FoundPoint], text: Expected | None) -> bool:
        if row.dirty:
            return False
        if row.in_source:
            if not row.living or (row.origin, row.source_hash, row.prepared_by) != (
                "source",
                row.source_hash_now,
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
        return bool(
            compare_points(EntityRef(self._type, row.entity_id), expected, row.recorded, points, self._profile.name)
        )

    def _texts(self, rows: Sequence[_CensusRow]) -> tuple[dict[str, Expected], set[str]]:
        """Prepare the texts of `rows` again, from the source row, or from the ledger if the entity has none.

        Returns what follows from the texts, by entity id, and the ids of entities whose ledger row has other columns
        than their source row.
        """
        prepared: dict[str, Expected] = {}
        lying: set[str] = set()
        if not rows:
            return prepared, lying
        reader = self._platform.source(self._type)
        with self._platform.postgres.transaction() as connection:
            sources = (
                reader.read(connection, [row.entity_id for row in rows if row.in_source]) if reader is not None else {}
            )
            in_ledger = read_texts(self._platform, connection, self._type, [row.entity_id for row in rows])
        for row in rows:
            own, source = in_ledger.get(row.entity_id), sources.get(row.entity_id)
            text = own if source is None and row.origin == "event" else None
            if source is not None and source.alive and source.unstorable is None:
                text = EntityText(source.title, source.content, source.metadata)
                if own != text:
                    lying.add(row.entity_id)
            if text is not None:
                expected = expected_of(self._platform, text)
                if not self._pass.deep:
                    # Only the reserved keys of the payloads were read, so that metadata cannot be compared.
                    expected = Expected(expected.text_hash, expected.state_hash, expected.points)
                prepared[row.entity_id] = expected
        return prepared, lying

    def _recheck(self) -> None:
        """Read the suspects again; what is wrong then is drift."""
        suspects, self._suspects = self._suspects, {}
        for part in pages(suspects.items(), ENTITIES_AT_ONCE):
            points = {entity_id: suspect.points for entity_id, suspect in part}
            rechecked = recheck_entities(self._platform, self._type, self._collection, self._profile, points)
            for entity_id, one in rechecked.items():
                for drift in one.drift:
                    self._log.add(drift, suspects[entity_id].slot)


def _slot_of_point(point: HeldPoint | FoundPoint, otherwise: int) -> int:
    """The slot in the payload of a point; `otherwise`, if that is no number of a slot."""
    slot = point.payload.get(Key.SLOT)
    return slot if isinstance(slot, int) else otherwise


def belongs(platform: Platform, entity_type: str, point: HeldPoint) -> bool:
    """The point names, under an id of ours, an entity of a type that lives in the collection of `entity_type`."""
    ref = claimed(point.payload)
    return is_own_id(point.id) and ref is not None and ref.type in _types_beside(platform, entity_type)


def _types_beside(platform: Platform, entity_type: str) -> list[str]:
    """The entity types that live in the collection of `entity_type`, itself among them."""
    return types_of_alias(platform, platform.settings.entity_types[entity_type].collection_name)
