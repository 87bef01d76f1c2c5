"""Full sync requests: one full sync serves several requests, records its progress, and answers them all at its end."""

import secrets
import time
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, fields, replace
from typing import Any

from mcp_assets.platform import Platform
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.postgres.locks import Lock, hold_in_transaction, lock_name
from mcp_assets.sync.inbox.announce import result_subject
from mcp_assets.sync.inbox.drain_lock import heartbeats
from mcp_assets.sync.inbox.drain_requests import EndedRun
from mcp_assets.sync.inbox.outbox import ResultMessage, keep, publish_waiting
from mcp_assets.sync.index.batch_report import Counts
from mcp_assets.sync.index.full_sync import Progress
from mcp_assets.sync.sums import add_fields
from mcp_assets.traces import distinct

SYNC_REQUEST = "data.sync.request"
"""The subject whose results answer a full sync that a command asked for."""

NIGHTLY = "nightly_reconcile"
"""Who asks for the full sync of each night, where several runs share it."""

LOST_EVENTS = "vector_index_sensor"
"""Who asks for a full sync because events were lost, where several runs share it."""

SENSOR = "(sensor)"
"""The name of the heartbeat of `sync_sensor`. It stands among the names of entity types, and no type can have it."""

ALIVE_S = 60.0
"""Age of the last heartbeat up to which the sensor counts as running: between two ticks lie some seconds."""

_WRITTEN_EVERY_S = 1.0
"""Seconds between two writes of progress: a person who watches sees it move, and batches are not slowed down."""


@dataclass(frozen=True, slots=True)
class FullSync:
    """A full sync that was asked for. Its backfill has the same `id`."""

    id: str
    entity_types: Sequence[str]
    force: bool
    requested_by: str
    started: bool
    finished: bool = False
    error: str | None = None
    """Why it failed; None: it is complete, or not finished."""
    finished_s_ago: float | None = None
    """Only of `last_full_sync`."""


@dataclass(frozen=True, slots=True)
class JoinedRequest:
    """A request that a full sync serves."""

    subject: str
    message_id: str | None = None
    traceparent: str | None = None
    entity_types: Sequence[str] | None = None
    """The types that it asks for; None: all types of the full sync."""


@dataclass(frozen=True, slots=True)
class RequestMessage:
    """The message that asks for a full sync, by its place in the stream."""

    stream: str
    epoch: int
    seq: int
    subject: str
    message_id: str | None
    traceparent: str | None = None


@dataclass(slots=True)
class PartitionProgress:
    """How far a partition is. `differing`: entities found to differ; `done`: how many of them were compared."""

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


@dataclass(frozen=True, slots=True)
class UnfinishedPartition:
    """A partition that a full sync has not brought to its end."""

    entity_type: str
    shard: int
    indexed: bool
    linked: bool


def ask(
    platform: Platform,
    connection: Connection,
    entity_types: Sequence[str],
    *,
    force: bool,
    requested_by: str,
    message: RequestMessage | None = None,
) -> FullSync:
    """The full sync that serves this request, once the caller's transaction is committed.

    A message that was sent again gets the full sync that it got before, finished or not. Any other request joins a full
    sync that covers its types and has not begun to compare; otherwise a new one is inserted, to run after the others.
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
    sync = platform.postgres.row(connection, "full_sync", FullSync, {"id": sync_id})
    assert sync is not None  # noqa: S101  (found or inserted above)
    return sync


def ask_unless_under_way(platform: Platform, entity_types: Sequence[str], requested_by: str) -> FullSync | None:
    """Ask for a full sync on the platform's own behalf; None if a full sync of these types is not finished yet."""
    if any(set(entity_types) <= set(sync.entity_types) for sync in unfinished(platform)):
        return None
    with platform.postgres.transaction() as connection:
        return ask(platform, connection, entity_types, force=False, requested_by=requested_by)


def unfinished(platform: Platform) -> list[FullSync]:
    """The full syncs that are to be started or under way, the oldest first."""
    with platform.postgres.transaction() as connection:
        return platform.postgres.rows(connection, "unfinished_full_syncs", FullSync)


def find(platform: Platform, sync_id: str) -> FullSync | None:
    with platform.postgres.transaction() as connection:
        return platform.postgres.row(connection, "full_sync", FullSync, {"id": sync_id})


def started(platform: Platform, sync_id: str) -> None:
    """Record that the backfill exists."""
    with platform.postgres.transaction() as connection:
        connection.execute(platform.postgres.query("start_full_sync"), {"id": sync_id})


def begins_to_compare(platform: Platform, sync_id: str) -> None:
    """Record that one of its runs is about to compare: it may miss what is written to source tables from now on."""
    with platform.postgres.transaction() as connection:
        connection.execute(platform.postgres.query("full_sync_compares"), {"id": sync_id})


def finish(platform: Platform, sync: FullSync, error: str | None) -> None:
    """Record the end of a full sync, with all done or with `error`, and answer its requests; later calls do nothing.

    Joining takes the same lock: a request has joined before the end and is answered, or it gets another full sync.
    """
    with platform.postgres.transaction() as connection:
        _one_at_a_time(platform, connection)
        query = platform.postgres.query
        if not connection.execute(query("finish_full_sync"), {"id": sync.id, "error": error}).rowcount:
            return
        requests = platform.postgres.rows(connection, "requests_of_full_sync", JoinedRequest, {"id": sync.id})
        for request in requests or _command_of(sync):
            answer(platform, connection, replace(sync, error=error), request)
    publish_waiting(platform)


def _command_of(sync: FullSync) -> list[JoinedRequest]:
    """What is answered if no message asked: the command that did. The platform's own full syncs have nobody to tell."""
    return [] if sync.requested_by in (NIGHTLY, LOST_EVENTS) else [JoinedRequest(SYNC_REQUEST)]


def answer(platform: Platform, connection: Connection, sync: FullSync, request: JoinedRequest) -> None:
    """Answer one request with the result of the finished full sync."""
    failed = sync.error is not None
    result = result_of(platform, sync, request.entity_types) | ({"error": sync.error} if failed else {})
    message_ids = [request.message_id] if request.message_id is not None else []
    subject = result_subject(request.subject, failed=failed)
    keep(platform, connection, ResultMessage(subject, result, message_ids, distinct([request.traceparent])))


def result_of(platform: Platform, sync: FullSync, entity_types: Sequence[str] | None = None) -> dict[str, Any]:
    """The result of a full sync as its answer has it: counts by entity type and in total, for `entity_types` only."""
    of_types = list(sync.entity_types if entity_types is None else entity_types)
    by_type: dict[str, dict[str, int]] = {}
    total: dict[str, int] = {}
    for part in progress(platform, sync.id):
        for name in ("scanned", "embedded", "updated", "deleted", "failed") if part.entity_type in of_types else ():
            counts = by_type.setdefault(part.entity_type, {})
            counts[name] = counts.get(name, 0) + getattr(part, name)
            total[name] = total.get(name, 0) + getattr(part, name)
    return {
        "sync_type": "full_sync",
        "backfill_id": sync.id,
        "entity_types": of_types,
        "force": sync.force,
        "counts": total,
        "counts_by_type": by_type,
    }


def _one_at_a_time(platform: Platform, connection: Connection) -> None:
    """Wait until no other transaction joins or finishes a full sync, and keep others from it until this one ends."""
    hold_in_transaction(connection, lock_name(platform.postgres, Lock.FULL_SYNCS))


def progress(platform: Platform, sync_id: str) -> list[PartitionProgress]:
    """The partitions in which work has begun, by type and shard."""
    with platform.postgres.transaction() as connection:
        return platform.postgres.rows(connection, "read_full_sync_progress", PartitionProgress, {"id": sync_id})


def unfinished_partitions(platform: Platform, sync: FullSync) -> list[UnfinishedPartition]:
    """The partitions of a full sync that are not both indexed and linked, by whatever run; empty once it is done."""
    registered = [name for name in platform.settings.entity_types if name in sync.entity_types]
    parameters = {"id": sync.id, "entity_types": registered, "shards": platform.settings.shards}
    with platform.postgres.transaction() as connection:
        return platform.postgres.rows(connection, "unfinished_partitions", UnfinishedPartition, parameters)


def ended(platform: Platform, requested_by: str, entity_type: str, limit: int) -> list[EndedRun]:
    """The last full syncs that `requested_by` asked for of the type alone and that have ended, the newest first."""
    parameters = {"requested_by": requested_by, "entity_type": entity_type, "limit": limit}
    with platform.postgres.transaction() as connection:
        return platform.postgres.rows(connection, "ended_full_syncs", EndedRun, parameters)


def forget_old(platform: Platform, days: float) -> int:
    """Delete full syncs that ended more than `days` ago; returns their number."""
    with platform.postgres.transaction() as connection:
        return connection.execute(platform.postgres.query("forget_full_syncs"), {"days": days}).rowcount


def sensor_lives(platform: Platform) -> None:
    """Record a heartbeat of the sensor that starts full syncs."""
    with platform.postgres.transaction() as connection:
        connection.execute(platform.postgres.query("heartbeat"), {"entity_type": SENSOR, "run_id": "sync_sensor"})


def sensor_age_s(platform: Platform) -> float | None:
    """Seconds since the sensor that starts full syncs ticked; None: it never has."""
    return min((beat.age_s for beat in heartbeats(platform).get(SENSOR, ())), default=None)


def is_served(platform: Platform) -> bool:
    """The sensor that starts full syncs runs."""
    age_s = sensor_age_s(platform)
    return age_s is not None and age_s < ALIVE_S


def last_full_sync(platform: Platform) -> FullSync | None:
    """The full sync that was asked for last; None: none is remembered."""
    with platform.postgres.transaction() as connection:
        return platform.postgres.row(connection, "last_full_sync", FullSync)


def progress_of(entity_type: str, news: Progress, *, first: bool) -> PartitionProgress:
    """The progress that one item of a full sync means: of a batch, or that a partition is indexed."""
    if news.complete:
        progress = PartitionProgress(entity_type, news.shard, scanned=news.counts.scanned, indexed=True)
    else:
        progress = _batch_of(entity_type, news.shard, news.counts)
    progress.differing = news.differing if first else 0
    return progress


def _batch_of(entity_type: str, shard: int, counts: Counts) -> PartitionProgress:
    """The progress that a batch means, whatever differs in all."""
    return PartitionProgress(
        entity_type,
        shard,
        done=counts.scanned,
        embedded=counts.embedded,
        updated=counts.updated,
        deleted=counts.deleted,
        failed=counts.failed,
    )


class ProgressWriter:
    """Stores the progress of a run of a backfill for `progress`. Does nothing for a run without a full sync request."""

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
        news = _batch_of(entity_type, shard, counts)
        news.differing = 0 if key in self._begun else differing
        self._add(news)
        self._begun.add(key)

    def indexed(self, entity_type: str, shard: int, counts: Counts) -> None:
        """Everything that differed in the partition is committed."""
        self._add(PartitionProgress(entity_type, shard, scanned=counts.scanned, indexed=True))
        self.flush()

    def linked(self, entity_type: str, shard: int) -> None:
        """All of the partition's entities are linked."""
        self._add(PartitionProgress(entity_type, shard, linked=True))
        self.flush()

    def flush(self) -> None:
        """Write the progress that is not written yet."""
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
    """Add progress to a sum."""
    add_fields(sum_, news, ("differing", "done", "scanned", "embedded", "updated", "deleted", "failed"))
    sum_.indexed |= news.indexed
    sum_.linked |= news.linked


def _none_yet(news: PartitionProgress) -> PartitionProgress:
    return PartitionProgress(news.entity_type, news.shard)
