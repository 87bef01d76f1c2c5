"""Full sync of a range of shards of one type: what differs from the source, and what Qdrant lacks, is indexed."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime

from mcp_assets.entities.refs import SLOTS, shard_of, slot_range
from mcp_assets.entities.text import NO_TEXT_HASH
from mcp_assets.platform import Platform
from mcp_assets.stores.postgres import Connection
from mcp_assets.sync.collections.journal import building_collection
from mcp_assets.sync.collections.model_change import finish_model_change, prepare_model_change
from mcp_assets.sync.index.batch_report import BatchReport, Counts
from mcp_assets.sync.index.failed_entities import FailedEntity, dead_letter
from mcp_assets.sync.index.indexer import CHARACTERS_AT_ONCE, Indexer, index_until_current
from mcp_assets.sync.index.ledger import Wanted
from mcp_assets.sync.index.mass_delete import MassDeletion, hold_back_vanished
from mcp_assets.sync.pipeline import overlapped

_ROWS_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True)
class Stages:
    """Which of the assets a full run brings up to date."""

    ledger: bool = True
    """Compare the source table with the ledger; without it, only what the ledger already knows is looked at."""
    embeddings: bool = True


@dataclass(frozen=True, slots=True)
class Progress:
    """News of a full sync: what a batch did in `shard`, or that `shard` is complete."""

    shard: int
    counts: Counts
    """Of the batch; of the whole shard once it is complete."""
    complete: bool
    differing: int
    """Entities of the shard that were found to differ."""


@dataclass(frozen=True, slots=True)
class _Batch:
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
    """Bring the shards (a contiguous range, ascending) to what the source says; each is complete once, in order.

    What was committed before an error stands; run it again and it goes on from there. A caller that does not iterate it
    to its end closes it: its batches work in threads of their own.

    Raises:
        MassDeletion: so many source rows are gone that a person has to allow it. All else was done; the shards whose
            deletions are held back were not complete.
        StoreUnavailable, StoreRefused, CollectionMismatch, EmbedderUnavailable.
    """
    total = platform.settings.shards
    slots = (slot_range(shards[0], total)[0], slot_range(shards[-1], total)[1])
    indexer = Indexer(platform, entity_type)
    building: str | None = None
    if stages.embeddings:
        prepare_model_change(platform)
        # What a vanished collection held is found to differ, too.
        indexer.ensure_collection()
        building = building_collection(platform, entity_type)
    with platform.postgres.session() as session:
        started_at = _now(session)
        _find_differing(platform, session, entity_type, slots, stages, building, force=force)
        faulty = _report_id_faults(platform, session, entity_type, slots) if stages.ledger else 0
        held = None if allow_mass_delete else hold_back_vanished(platform, session, entity_type, slots)
        differing = _count_by_shard(session, total)

        def work(batch: _Batch) -> BatchReport:
            return index_until_current(platform, indexer, batch.wanted, force=force, embed=stages.embeddings)

        done = {shard: Counts() for shard in shards}
        remaining = list(shards)
        outstanding = {shard: differing.get(shard, 0) for shard in shards}
        batches = _batches(session, platform.settings.batch_size, total)

        def completed() -> Iterator[Progress]:
            """The shards that have come to their end, in order: at once, for the next batch may fail."""
            while remaining and not outstanding[remaining[0]]:
                if held is not None and remaining[0] in held.shards:
                    remaining.pop(0)
                    continue
                if stages.embeddings and len(remaining) == 1 and held is None:
                    # Before the last is told to be complete: a retry of a run that fails here has to come by again.
                    finish_model_change(platform, started_at)
                shard = remaining.pop(0)
                yield _complete(
                    platform, entity_type, shard, done, differing, faulty=faulty if shard == shards[0] else 0
                )

        yield from completed()
        with closing(
            overlapped(batches, work, in_flight=platform.embedder.concurrency + 1, give_up=indexer.give_up)
        ) as worked:
            for batch, report in worked:
                counts = Counts()
                for part in report.shards.values():
                    counts.add(part)
                done[batch.shard].add(counts)
                outstanding[batch.shard] -= len(batch.wanted)
                yield Progress(batch.shard, counts, complete=False, differing=differing.get(batch.shard, 0))
                yield from completed()
    if held is not None:
        raise MassDeletion(held.sentence, held.shards)
    if stages == Stages() and list(shards) == list(range(total)):
        with platform.postgres.transaction() as connection:
            connection.execute(
                platform.postgres.query("full_sync_done"), {"entity_type": entity_type, "started_at": started_at}
            )


def count_differing(platform: Platform) -> int:
    """How many entities a full sync of everything would look at now."""
    with platform.postgres.session() as session:
        total = 0
        for entity_type in platform.settings.entity_types:
            building = building_collection(platform, entity_type)
            _find_differing(platform, session, entity_type, (0, SLOTS), Stages(), building, force=False)
            row = session.execute("SELECT count(*) FROM differing").fetchone()
            total += row[0] if row else 0
        return total


def _find_differing(
    platform: Platform,
    session: Connection,
    entity_type: str,
    slots: tuple[int, int],
    stages: Stages,
    building: str | None,
    *,
    force: bool,
) -> None:
    """Make the temporary table `differing(n, entity_id, slot, bytes)`: it is worked off with no transaction open.

    `building`: the collection that is being built for another model, of which it also has what that lacks.
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
    if building is not None:
        session.execute(
            platform.postgres.query("add_lacking"),
            {
                "entity_type": entity_type,
                "low": slots[0],
                "high": slots[1],
                "collection": building,
                "no_text": NO_TEXT_HASH,
            },
        )
        session.execute("DROP TABLE differing")
        session.execute("ALTER TABLE differing_or_lacking RENAME TO differing")
    session.execute("CREATE UNIQUE INDEX differing_n ON differing (n)")


def _count_by_shard(session: Connection, shards: int) -> dict[int, int]:
    rows = session.execute("SELECT slot * %s >> 16, count(*) FROM differing GROUP BY 1", (shards,))
    return dict(rows.fetchall())


def _batches(session: Connection, size: int, shards: int) -> Iterator[_Batch]:
    """What differs, in batches that keep to one shard, in the order of shards.

    Long texts make smaller batches: one is held in memory as a whole, and embedded and committed by one thread.
    """
    shard = volume = 0
    batch: list[Wanted] = []
    for entity_id, slot, content_bytes in _differing(session):
        own_shard = shard_of(slot, shards)
        if batch and (own_shard != shard or len(batch) == size or volume + content_bytes > CHARACTERS_AT_ONCE):
            yield _Batch(shard, batch)
            batch, volume = [], 0
        shard = own_shard
        volume += content_bytes
        batch.append(Wanted(entity_id))
    if batch:
        yield _Batch(shard, batch)


def _differing(session: Connection) -> Iterator[tuple[str, int, int]]:
    last = 0
    while page := session.execute(
        "SELECT n, entity_id, slot, bytes FROM differing WHERE n > %s ORDER BY n LIMIT %s", (last, _ROWS_AT_ONCE)
    ).fetchall():
        last = page[-1][0]
        yield from ((entity_id, slot, content_bytes) for _, entity_id, slot, content_bytes in page)


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


def _complete(
    platform: Platform,
    entity_type: str,
    shard: int,
    done: dict[int, Counts],
    differing: dict[int, int],
    *,
    faulty: int,
) -> Progress:
    """The news that `shard` is complete, with the number of living entities as what was scanned.

    `faulty`: rows beside them that cannot be entities, for their ids.
    """
    counts = done[shard]
    counts.failed += faulty
    low, high = slot_range(shard, platform.settings.shards)
    with platform.postgres.transaction() as connection:
        living = connection.execute(
            platform.postgres.query("count_living"), {"entity_type": entity_type, "low": low, "high": high}
        ).fetchone()
    counts.scanned = (living[0] if living else 0) + counts.deleted + faulty
    counts.unchanged = max(
        0, counts.scanned - counts.embedded - counts.updated - counts.empty - counts.deleted - counts.failed
    )
    return Progress(shard, counts, complete=True, differing=differing.get(shard, 0))


def _now(session: Connection) -> datetime:
    row = session.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None  # noqa: S101  (a select without FROM has one row)
    now: datetime = row[0]
    return now
