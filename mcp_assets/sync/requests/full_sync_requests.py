"""Full syncs on request: each is asked for once, told how far it is, and answers all requests that it serves."""

import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, astuple, dataclass, fields, replace
from typing import Any

from mcp_assets.platform import Platform
from mcp_assets.stores.postgres import Connection
from mcp_assets.sync.inbox.announce import result_subject
from mcp_assets.sync.inbox.drain_lock import heartbeats
from mcp_assets.sync.inbox.outbox import ResultMessage, keep, publish_waiting
from mcp_assets.sync.index.batch_report import Counts
from mcp_assets.sync.index.full_sync import Progress, full_sync
from mcp_assets.sync.index.mass_delete import MassDeletion
from mcp_assets.sync.link.linker import link_until_done
from mcp_assets.sync.link.marks import mark_shards

SYNC_REQUEST = "data.sync.request"

SENSOR = "(sensor)"
"""The name under which `sync_sensor` beats, among the entity types that are drained: no type can have it."""

ALIVE_S = 60.0
"""A sensor that has beaten in this time will start what is asked for: between two ticks lie some seconds."""

_WRITTEN_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class FullSync:
    """A full sync that was asked for. `id` is that of its backfill, too."""

    id: str
    entity_types: Sequence[str]
    force: bool
    requested_by: str
    started: bool
    finished: bool = False
    error: str | None = None
    """Why it failed; None if it is complete, or not finished."""


@dataclass(frozen=True, slots=True)
class Message:
    """The message that asks for a full sync, by its place in the stream."""

    stream: str
    epoch: int
    seq: int
    subject: str
    message_id: str | None


@dataclass(slots=True)
class PartitionProgress:
    """How far a partition is. `differing`: entities found to differ; `done`: how many of them were looked at."""

    entity_type: str
    shard: int
    differing: int = 0
    done: int = 0
    scanned: int = 0
    embedded: int = 0
    updated: int = 0
    deleted: int = 0
    failed: int = 0
    indexed: bool = False
    linked: bool = False


def ask(
    platform: Platform,
    connection: Connection,
    entity_types: Sequence[str],
    *,
    force: bool,
    requested_by: str,
    message: Message | None = None,
) -> FullSync:
    """The full sync that serves this request, once the caller's transaction is committed.

    A repeated message is served by the one that it asked for before, finished or not; another request by one that
    covers it and has not begun to compare; only else a new one is asked for. It follows those that are under way.
    """
    query = platform.postgres.query
    _one_at_a_time(platform, connection)
    wanted = {"entity_types": list(entity_types), "force": force}
    found = None
    if message is not None and message.message_id is not None:
        found = connection.execute(query("full_sync_of_message"), {"message_id": message.message_id}).fetchone()
    found = found or connection.execute(query("full_sync_covering"), wanted).fetchone()
    if found is not None:
        sync_id = str(found[0])
    else:
        sync_id = secrets.token_hex(6)
        connection.execute(query("insert_full_sync"), {**wanted, "id": sync_id, "requested_by": requested_by})
    if message is not None:
        joining = {**asdict(message), "full_sync_id": sync_id, "entity_types": list(entity_types)}
        connection.execute(query("join_full_sync"), joining)
    row = connection.execute(query("full_sync"), {"id": sync_id}).fetchone()
    assert row is not None  # noqa: S101  (found or inserted above)
    return FullSync(*row)


def unfinished(platform: Platform) -> list[FullSync]:
    """Those that are to be started or under way, the oldest first."""
    with platform.postgres.transaction() as connection:
        rows = connection.execute(platform.postgres.query("unfinished_full_syncs")).fetchall()
    return [FullSync(*row) for row in rows]


def find(platform: Platform, sync_id: str) -> FullSync | None:
    with platform.postgres.transaction() as connection:
        row = connection.execute(platform.postgres.query("full_sync"), {"id": sync_id}).fetchone()
    return None if row is None else FullSync(*row)


def started(platform: Platform, sync_id: str) -> None:
    """Its backfill exists."""
    with platform.postgres.transaction() as connection:
        connection.execute(platform.postgres.query("start_full_sync"), {"id": sync_id})


def begins_to_compare(platform: Platform, sync_id: str) -> None:
    """One of its runs is about to compare: what is written to the source tables from now on may be missed by it."""
    with platform.postgres.transaction() as connection:
        connection.execute(platform.postgres.query("full_sync_compares"), {"id": sync_id})


def finish(platform: Platform, sync: FullSync, error: str | None) -> None:
    """It has come to its end: with all done, or with `error`. Its requests are answered, once.

    A request joins it before or is served by another: both take the same lock.
    """
    with platform.postgres.transaction() as connection:
        _one_at_a_time(platform, connection)
        query = platform.postgres.query
        if not connection.execute(query("finish_full_sync"), {"id": sync.id, "error": error}).rowcount:
            return
        requests = connection.execute(query("requests_of_full_sync"), {"id": sync.id}).fetchall()
        for subject, message_id, entity_types in requests or [(SYNC_REQUEST, None, None)]:
            answer(platform, connection, replace(sync, error=error), subject, message_id, entity_types)
    publish_waiting(platform)


def answer(
    platform: Platform,
    connection: Connection,
    sync: FullSync,
    subject: str,
    message_id: str | None,
    entity_types: Sequence[str] | None,
) -> None:
    """Tell what the finished full sync came to, to one of those who asked for it: of `entity_types`; None: of all."""
    told = result_of(platform, sync, entity_types) | ({"error": sync.error} if sync.error is not None else {})
    message_ids = [message_id] if message_id is not None else []
    keep(platform, connection, ResultMessage(result_subject(subject, failed=sync.error is not None), told, message_ids))


def result_of(platform: Platform, sync: FullSync, entity_types: Sequence[str] | None = None) -> dict[str, Any]:
    """The counts of a full sync, by entity type and all together, as its answer tells them: of `entity_types` only."""
    told_types = list(sync.entity_types if entity_types is None else entity_types)
    by_type: dict[str, dict[str, int]] = {}
    total: dict[str, int] = {}
    for part in progress(platform, sync.id):
        for name in ("scanned", "embedded", "updated", "deleted", "failed") if part.entity_type in told_types else ():
            counts = by_type.setdefault(part.entity_type, {})
            counts[name] = counts.get(name, 0) + getattr(part, name)
            total[name] = total.get(name, 0) + getattr(part, name)
    return {
        "sync_type": "full_sync",
        "backfill_id": sync.id,
        "entity_types": told_types,
        "force": sync.force,
        "counts": total,
        "counts_by_type": by_type,
    }


def _one_at_a_time(platform: Platform, connection: Connection) -> None:
    """Who joins or finishes a full sync is alone at it until its transaction ends."""
    connection.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"{platform.postgres.schema}/full_syncs",)
    )


def progress(platform: Platform, sync_id: str) -> list[PartitionProgress]:
    """Every partition that work was begun on, by type and shard."""
    with platform.postgres.transaction() as connection:
        rows = connection.execute(platform.postgres.query("read_full_sync_progress"), {"id": sync_id}).fetchall()
    return [PartitionProgress(*row) for row in rows]


def forget_old(platform: Platform, days: float) -> int:
    """Forget full syncs that ended more than `days` ago. How many there were."""
    with platform.postgres.transaction() as connection:
        return connection.execute(platform.postgres.query("forget_full_syncs"), {"days": days}).rowcount


def sensor_lives(platform: Platform) -> None:
    """Beat, as the sensor that starts full syncs."""
    with platform.postgres.transaction() as connection:
        connection.execute(platform.postgres.query("heartbeat"), {"entity_type": SENSOR, "run_id": "sync_sensor"})


def is_served(platform: Platform) -> bool:
    """A running daemon will start what is asked for."""
    return any(beat.age_s < ALIVE_S for beat in heartbeats(platform).get(SENSOR, ()))


def run_here(
    platform: Platform, entity_types: Sequence[str], *, force: bool, allow_mass_delete: bool = False
) -> Iterator[PartitionProgress]:
    """Do a full sync in this process; yields the news of a partition: numbers are what came new, not sums.

    Raises:
        StoreUnavailable, StoreRefused, CollectionMismatch, EmbedderUnavailable: what was committed stands.
        MassDeletion: deletions are held back, of one type or of several; all else was done.
    """
    shards = range(platform.settings.shards)
    held: dict[str, MassDeletion] = {}
    for entity_type in entity_types:
        begun: set[int] = set()
        try:
            with closing(
                full_sync(platform, entity_type, shards, force=force, allow_mass_delete=allow_mass_delete)
            ) as progress:
                for news in progress:
                    yield news_of(entity_type, news, first=news.shard not in begun)
                    begun.add(news.shard)
        except MassDeletion as refusal:
            held[entity_type] = refusal
    for entity_type in entity_types:
        mark_shards(platform, entity_type, shards, force=force)
    for _ in link_until_done(platform):
        pass
    for entity_type in entity_types:
        for shard in shards:
            if entity_type not in held or shard not in held[entity_type].shards:
                yield PartitionProgress(entity_type, shard, linked=True)
    if held:
        raise MassDeletion("; ".join(map(str, held.values())))


def news_of(entity_type: str, news: Progress, *, first: bool) -> PartitionProgress:
    """`news` as what came new: what a batch did, or that a partition is indexed."""
    told = PartitionProgress(entity_type, news.shard, differing=news.differing if first else 0, indexed=news.complete)
    if news.complete:
        told.scanned = news.counts.scanned
    else:
        counts = news.counts
        told.done, told.embedded, told.updated = counts.scanned, counts.embedded, counts.updated
        told.deleted, told.failed = counts.deleted, counts.failed
    return told


class ProgressWriter:
    """Keeps what a backfill's run has done where `progress` finds it; does nothing for a run that nobody asked for."""

    def __init__(self, platform: Platform, sync_id: str | None) -> None:
        self._platform = platform
        self._id = sync_id
        self._begun: set[tuple[str, int]] = set()
        self._pending: dict[tuple[str, int], PartitionProgress] = {}
        self._written_at = 0.0

    def begins_to_compare(self) -> None:
        """The run is about to compare its partitions."""
        if self._id is not None:
            begins_to_compare(self._platform, self._id)

    def worked(self, entity_type: str, shard: int, counts: Counts, differing: int) -> None:
        """A batch is committed."""
        key = (entity_type, shard)
        news = Progress(shard, counts, complete=False, differing=differing)
        self._add(news_of(entity_type, news, first=key not in self._begun))
        self._begun.add(key)

    def indexed(self, entity_type: str, shard: int, counts: Counts) -> None:
        """All that differed in the partition is committed."""
        self._add(PartitionProgress(entity_type, shard, scanned=counts.scanned, indexed=True))
        self.flush()

    def linked(self, entity_type: str, shard: int) -> None:
        """All of the partition's entities are linked."""
        self._add(PartitionProgress(entity_type, shard, linked=True))
        self.flush()

    def flush(self) -> None:
        """Write what has not been written."""
        pending, self._pending = self._pending, {}
        if self._id is None or not pending:
            return
        names = [field.name for field in fields(PartitionProgress)]
        columns = dict(zip(names, map(list, zip(*map(astuple, pending.values()), strict=True)), strict=True))
        with self._platform.postgres.transaction() as connection:
            connection.execute(self._platform.postgres.query("write_full_sync_progress"), {"id": self._id, **columns})
        self._written_at = time.monotonic()

    def _add(self, news: PartitionProgress) -> None:
        add_progress(self._pending.setdefault((news.entity_type, news.shard), _none_yet(news)), news)
        if time.monotonic() - self._written_at >= _WRITTEN_EVERY_S:
            self.flush()


def add_progress(sum_: PartitionProgress, news: PartitionProgress) -> None:
    """Add what came new to `sum_`."""
    for name in ("differing", "done", "scanned", "embedded", "updated", "deleted", "failed"):
        setattr(sum_, name, getattr(sum_, name) + getattr(news, name))
    sum_.indexed |= news.indexed
    sum_.linked |= news.linked


def _none_yet(news: PartitionProgress) -> PartitionProgress:
    return PartitionProgress(news.entity_type, news.shard)
