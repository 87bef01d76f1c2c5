"""Full sync: compares shards of one type with the source table, and indexes entities that differ or lack points."""

import logging
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import chain
from operator import attrgetter
from typing import NamedTuple

from mcp_assets.entities.refs import SLOTS, shard_of, slot_range
from mcp_assets.entities.text import NO_TEXT_HASH
from mcp_assets.platform import Platform
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.postgres.rows import fetch_rows, keyset_pages
from mcp_assets.sync.collections.journal import building_collection
from mcp_assets.sync.collections.model_change import prepare_model_change
from mcp_assets.sync.index.batch_report import BatchReport, Counts, log_batch
from mcp_assets.sync.index.embedding_costs import EmbeddingCosts
from mcp_assets.sync.index.failed_entities import FailedEntity, dead_letter
from mcp_assets.sync.index.indexer import CHARACTERS_AT_ONCE, Indexer, index_until_current
from mcp_assets.sync.index.ledger import Wanted
from mcp_assets.sync.index.mass_delete import HeldBack, MassDeletion, hold_back_vanished
from mcp_assets.sync.index.model_gate import finish_gated_model_change
from mcp_assets.sync.index.synced_partitions import record_indexed
from mcp_assets.sync.pipeline import overlapped

logger = logging.getLogger(__name__)

_ROWS_AT_ONCE = 10_000
"""Rows of `differing` that are read and held in memory at once."""


@dataclass(frozen=True, slots=True)
class Stages:
    """Which of the assets a full run brings up to date."""

    ledger: bool = True
    """Compare the source table with the ledger. Without it, only ledger rows that are dirty already are indexed."""
    embeddings: bool = True


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a full sync: what a batch did in `shard`, or that `shard` is complete."""

    shard: int
    counts: Counts
    """Of the batch; of the whole shard once it is complete."""
    complete: bool
    differing: int
    """Entities of the shard that were found to differ."""
    differing_in_all: int
    """The same of all shards of the full sync."""


@dataclass(frozen=True, slots=True)
class ShardBatch:
    """Entities of one shard that are processed together."""

    shard: int
    wanted: Sequence[Wanted]


def full_sync(
    platform: Platform,
    entity_type: str,
    shards: Sequence[int],
    *,
    stages: Stages = Stages(),
    force: bool = False,
    allow_mass_delete: bool = False,
) -> Generator[Progress, None, None]:
    """Bring the shards (a contiguous range, ascending) to the truth; each is reported as complete once, in order.

    Batches committed before an error stand, and the next run goes on from there. A caller that does not iterate it to
    its end closes it, because its batches work in threads.

    Raises:
        MassDeletion: so many source rows are gone that a person has to allow it. All other rows were applied. The
            shards whose deletions are held back were not reported as complete.
        StoreUnavailable, StoreRefused, CollectionMismatch, EmbedderUnavailable.
    """
    total = platform.settings.shards
    slots = (slot_range(shards[0], total)[0], slot_range(shards[-1], total)[1])
    indexer = Indexer(platform, entity_type, background=True)
    building: str | None = None
    if stages.embeddings:
        prepare_model_change(platform)
        # So that entities of a collection that has vanished differ, too.
        indexer.ensure_collection()
        building = building_collection(platform, entity_type)
    with platform.postgres.session() as session:
        started_at = _now(session)
        find_differing(platform, session, entity_type, slots, stages, building, force=force)
        faulty = _report_id_faults(platform, session, entity_type, slots) if stages.ledger else 0
        held = None if allow_mass_delete else hold_back_vanished(platform, session, entity_type, slots, records=True)
        shards_done = _Shards(platform, entity_type, shards, _count_by_shard(session, total), faulty, held)
        if stages == Stages():
            shards_done.compared_at = started_at
        if stages.embeddings and held is None:
            # Before the last shard is reported as complete, because a retry of a run that fails here begins with it.
            shards_done.before_last = partial(finish_gated_model_change, platform, started_at)

        def work(batch: ShardBatch) -> BatchReport:
            began_at = time.monotonic()
            report = index_until_current(platform, indexer, batch.wanted, force=force, embed=stages.embeddings)
            log_batch(logger, "differing entities are indexed", platform, entity_type, report, began_at)
            return report

        batches = batches_of(session, platform.settings.batch_size, total)
        yield from shards_done.completed()
        with closing(
            overlapped(batches, work, in_flight=platform.embedder.concurrency + 1, give_up=indexer.give_up)
        ) as worked:
            for batch, report in worked:
                yield shards_done.add(batch, report)
                yield from shards_done.completed()
    indexer.meter.record(platform)
    platform.companion(EmbeddingCosts).write()
    if held is not None:
        raise MassDeletion(held.sentence, held.shards)


class _Shards:
    """The shards of one full sync: how much of each is done, and which are complete."""

    def __init__(
        self,
        platform: Platform,
        entity_type: str,
        shards: Sequence[int],
        differing: Mapping[int, int],
        faulty: int,
        held: HeldBack | None,
    ) -> None:
        """`differing`: how many entities of each shard differ. `faulty`: rows whose ids cannot be those of entities."""
        self._platform = platform
        self._type = entity_type
        self._first = shards[0]
        self._differing = differing
        self._faulty = faulty
        self._held = held.shards if held is not None else frozenset()
        self._done = {shard: Counts() for shard in shards}
        self._outstanding = {shard: differing.get(shard, 0) for shard in shards}
        self._remaining = list(shards)
        self.before_last: Callable[[], object] | None = None
        """Called before the last shard is reported as complete."""
        self.compared_at: datetime | None = None
        """When the comparison with the source table began; None: it was not compared, or will not be indexed."""

    def add(self, batch: ShardBatch, report: BatchReport) -> Progress:
        """Count a batch that is done."""
        counts = Counts()
        for part in report.shards.values():
            counts.add(part)
        self._done[batch.shard].add(counts)
        self._outstanding[batch.shard] -= len(batch.wanted)
        return self._progress(batch.shard, counts, complete=False)

    def completed(self) -> Iterator[Progress]:
        """The shards that are complete since the last call, in order; to be taken at once: the next batch may fail."""
        while self._remaining and not self._outstanding[self._remaining[0]]:
            if self._remaining[0] in self._held:
                self._remaining.pop(0)
                continue
            if len(self._remaining) == 1 and self.before_last is not None:
                self.before_last()
            yield self._complete(self._remaining.pop(0))

    def _complete(self, shard: int) -> Progress:
        """The report that `shard` is complete, with its living entities as scanned. The first includes faulty rows."""
        counts = self._done[shard]
        faulty = self._faulty if shard == self._first else 0
        counts.failed += faulty
        low, high = slot_range(shard, self._platform.settings.shards)
        with self._platform.postgres.transaction() as connection:
            living = connection.execute(
                self._platform.postgres.query("count_living"), {"entity_type": self._type, "low": low, "high": high}
            ).fetchone()
        if self.compared_at is not None:
            record_indexed(self._platform, self._type, shard, self.compared_at)
        counts.scanned = (living[0] if living else 0) + counts.deleted + faulty
        counts.unchanged = max(
            0, counts.scanned - counts.embedded - counts.updated - counts.empty - counts.deleted - counts.failed
        )
        return self._progress(shard, counts, complete=True)

    def _progress(self, shard: int, counts: Counts, *, complete: bool) -> Progress:
        return Progress(
            shard,
            counts,
            complete=complete,
            differing=self._differing.get(shard, 0),
            differing_in_all=sum(self._differing.values()),
        )


def count_differing(platform: Platform) -> int:
    """How many entities a full sync of everything would index now."""
    with platform.postgres.session() as session:
        total = 0
        for entity_type in platform.settings.entity_types:
            building = building_collection(platform, entity_type)
            find_differing(platform, session, entity_type, (0, SLOTS), Stages(), building, force=False)
            row = session.execute("SELECT count(*) FROM differing").fetchone()
            total += row[0] if row else 0
        return total


def find_differing(
    platform: Platform,
    session: Connection,
    entity_type: str,
    slots: tuple[int, int],
    stages: Stages,
    lacking_in: str | None,
    *,
    force: bool,
) -> None:
    """Make the temporary table `differing(n, entity_id, slot, bytes)`, so that no transaction is open while it is read.

    `lacking_in`: a collection, such as the one that is built for another model; entities that it lacks differ, too.
    """
    reader = platform.source(entity_type)
    session.execute("DROP TABLE IF EXISTS differing")
    if stages.ledger and reader is not None:
        reader.find_differing(session, entity_type, slots, platform.prepared_by(entity_type), force=force)
    else:
        session.execute(
            platform.postgres.query("differing_in_ledger"),
            {
                "entity_type": entity_type,
                "low": slots[0],
                "high": slots[1],
                "force": force,
                "prepared_by": platform.prepared_by(entity_type),
            },
        )
    if lacking_in is not None:
        session.execute(
            platform.postgres.query("add_lacking"),
            {
                "entity_type": entity_type,
                "low": slots[0],
                "high": slots[1],
                "collection": lacking_in,
                "no_text": NO_TEXT_HASH,
            },
        )
        session.execute("DROP TABLE differing")
        session.execute("ALTER TABLE differing_or_lacking RENAME TO differing")
    session.execute("CREATE UNIQUE INDEX differing_n ON differing (n)")


def _count_by_shard(session: Connection, shards: int) -> dict[int, int]:
    rows = session.execute("SELECT slot * %s >> 16, count(*) FROM differing GROUP BY 1", (shards,))
    return dict(rows.fetchall())


def batches_of(session: Connection, size: int, shards: int) -> Iterator[ShardBatch]:
    """The entities that differ, in batches of one shard each, in the order of shards.

    Batches of long texts are smaller, because one thread holds a batch in memory, embeds and commits it.
    """
    shard = volume = 0
    batch: list[Wanted] = []
    for row in _differing(session):
        own_shard = shard_of(row.slot, shards)
        if batch and (own_shard != shard or len(batch) == size or volume + row.bytes > CHARACTERS_AT_ONCE):
            yield ShardBatch(shard, batch)
            batch, volume = [], 0
        shard = own_shard
        volume += row.bytes
        batch.append(Wanted(row.entity_id))
    if batch:
        yield ShardBatch(shard, batch)


class _Differing(NamedTuple):
    """A row of the temporary table `differing`; `bytes`: those of its content."""

    n: int
    entity_id: str
    slot: int
    bytes: int


def _differing(session: Connection) -> Iterator[_Differing]:
    def read(after: int) -> list[_Differing]:
        statement = "SELECT n, entity_id, slot, bytes FROM differing WHERE n > %s ORDER BY n LIMIT %s"
        return fetch_rows(session, statement, _Differing, (after, _ROWS_AT_ONCE))

    return chain.from_iterable(keyset_pages(read, attrgetter("n"), 0))


def _report_id_faults(platform: Platform, session: Connection, entity_type: str, slots: tuple[int, int]) -> int:
    """Dead-letter the rows of `slots` with unusable ids, and delete the letters of rows that are mended.

    Returns the number of rows that no other count includes.
    """
    reader = platform.source(entity_type)
    if reader is None:
        return 0
    faults = reader.id_faults(session, slots)
    reasons = faults.sentences()
    with session.transaction():
        if slots == (0, SLOTS) and not faults.more:
            session.execute(
                platform.postgres.query("resolve_id_faults"),
                {"entity_type": entity_type, "kinds": ["missing_id", "repeated_id", "bad_id"], "ids": list(reasons)},
            )
        failed = (FailedEntity(name, "apply", kind, sentence) for name, (kind, sentence) in reasons.items())
        dead_letter(platform, session, entity_type, failed)
    return faults.nameless + len(faults.too_long)


def _now(session: Connection) -> datetime:
    row = session.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None  # noqa: S101  (a select without FROM has one row)
    now: datetime = row[0]
    return now
