"""Drain: applies the inbox of one entity type until it is empty and stays so; does intake itself meanwhile."""

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg

from mcp_assets.entities.refs import EntityRef
from mcp_assets.events import Carried, Coalesced, Event, Kind, Verb, coalesce
from mcp_assets.retrying import retrying
from mcp_assets.stores.postgres import Connection
from mcp_assets.sync.indexer import BatchReport, Indexer
from mcp_assets.sync.intake import intake
from mcp_assets.sync.ledger import Wanted
from mcp_assets.sync.linker import Reason, mark
from mcp_assets.sync.pipeline import overlapped
from mcp_assets.sync.platform import Platform

logger = logging.getLogger(__name__)

BEAT_S = 5.0
STALE_BEAT_S = 4 * BEAT_S
"""A drain that has not beaten for this long is taken for dead."""

_INTAKE_WAIT_S = 0.5

_KINDS = [Kind.ENTITY.value, Kind.RELATE.value]
"""A drain works off both: a relate request may carry the state of an entity, and events about it come in between."""

UNKNOWN_TRIES = 3
"""Looks at an entity that nothing is known of (its row may not be committed yet) before it is dead-lettered."""


@dataclass(frozen=True, slots=True)
class _InboxRow:
    kind: str
    stream: str
    stream_created_at: Any
    seq: int
    entity_id: str
    subject: str
    verb: str
    payload: Mapping[str, Any] | None
    event_order: str
    attempts: int
    message_id: str | None

    def event(self, ref: EntityRef) -> Event:
        carried = None if self.payload is None else Carried(**self.payload)
        return Event(Kind(self.kind), self.subject, ref, Verb(self.verb), carried, None, None)


@dataclass(frozen=True, slots=True)
class Asked:
    """A message that bears an id, by which its sender knows the result that answers it."""

    subject: str
    entity_id: str
    message_id: str


@dataclass(slots=True)
class Drained:
    """What one batch of the inbox came to; without messages: all that was there is worked off, for now."""

    messages: int
    report: BatchReport = field(default_factory=BatchReport)
    relate: tuple[EntityRef, ...] = ()
    """Entities that were asked to be re-linked, and are marked for it."""
    entity_ids: tuple[str, ...] = ()
    """The entities that were looked at to the end: neither overtaken nor to be looked at again."""
    given_up: tuple[str, ...] = ()
    """Those of which nothing is known, after so many looks that they were dead-lettered."""
    asked: tuple[Asked, ...] = ()
    """The messages with ids that are out of the inbox now."""


def drain(platform: Platform, entity_type: str, run_id: str) -> Iterator[Drained]:
    """Work off the entity events and relate requests about `entity_type` in the inbox.

    Ends when there have been none for DRAIN_LINGER_S, or after DRAIN_MAX_S.

    Yields nothing and ends at once if another drain is at it. When it lets go it looks once more, so that no event
    falls between two drains.

    Raises:
        StoreUnavailable, StoreRefused, CollectionMismatch, EmbedderUnavailable: batches in flight stay in the inbox.
    """
    deadline = time.monotonic() + platform.settings.drain_max_s
    while True:
        with sole_drain(platform, entity_type, run_id) as alone:
            if not alone:
                return
            yield from _until_idle(platform, entity_type, deadline)
        if time.monotonic() >= deadline or not _has_pending(platform, entity_type):
            return


def drain_lock(schema: str, entity_type: str) -> str:
    """Name of the advisory lock that the drain of `entity_type` holds; hashed by PostgreSQL."""
    return f"{schema}/drain/{entity_type}"


def _until_idle(platform: Platform, entity_type: str, deadline: float) -> Iterator[Drained]:
    indexer = Indexer(platform, entity_type)
    idle_since = time.monotonic()
    while time.monotonic() < deadline:
        worked = False
        for drained in _work_off(platform, entity_type, indexer):
            worked = True
            yield drained
            if time.monotonic() >= deadline:
                return
        if worked:
            yield Drained(0)
            idle_since = time.monotonic()
        elif time.monotonic() - idle_since >= platform.settings.drain_linger_s:
            return
        retrying(platform.settings)(intake, platform, wait_s=_INTAKE_WAIT_S)


def _work_off(platform: Platform, entity_type: str, indexer: Indexer) -> Iterator[Drained]:
    """Batches from the inbox, several in flight, until a batch finds it empty."""
    empty = threading.Event()

    def claims() -> Iterator[int]:
        number = 0
        while not empty.is_set():
            yield number
            number += 1

    def work(_: int) -> Drained:
        if empty.is_set():
            return Drained(0)
        drained = retrying(platform.settings)(_drain_batch, platform, entity_type, indexer)
        if not drained.messages:
            empty.set()
        return drained

    # A batch holds the connection of its claim while it asks for another: more of them would starve each other.
    in_flight = min(platform.embedder.concurrency + 1, platform.postgres.max_connections // 2)
    for _, drained in overlapped(claims(), work, in_flight=in_flight):
        if drained.messages:
            yield drained


def _drain_batch(platform: Platform, entity_type: str, indexer: Indexer) -> Drained:
    """Claim some messages, index their entities, and only then take the messages out of the inbox.

    The claim is a row lock: it ends with this process, however that ends, and the messages are there again.
    Killed after the entities are committed, they are looked at once more, which finds nothing to do.
    """
    postgres = platform.postgres
    with postgres.transaction() as connection:
        rows = [
            _InboxRow(*row)
            for row in connection.execute(
                postgres.query("claim_inbox"),
                {"kinds": _KINDS, "entity_type": entity_type, "limit": platform.settings.batch_size},
            )
        ]
        if not rows:
            return Drained(0)
        by_entity = _coalesced(platform, connection, entity_type, rows)
        wanted = [
            Wanted(ref.id, folded.stated, deleting=folded.event.verb is Verb.DELETE)
            for ref, (folded, _) in by_entity.items()
        ]
        report = indexer.run(wanted)
        done: list[_InboxRow] = []
        late: list[_InboxRow] = []
        for ref, (_, messages) in by_entity.items():
            if ref.id in report.overtaken:
                continue
            if ref.id in report.unknown:
                late += messages
            else:
                done += messages
        relate = tuple(
            ref
            for ref, (folded, _) in by_entity.items()
            if Kind.RELATE in folded.kinds and ref.id not in report.overtaken | report.unknown
        )
        for reason in (Reason.CHANGED, Reason.REFERENCES, Reason.LISTS):
            mark(platform, connection, relate, reason)
        given_up = [row for row in late if row.attempts + 1 >= UNKNOWN_TRIES]
        _dead_letter_unknown(platform, connection, entity_type, given_up)
        _for_messages(platform, connection, "delete_inbox", done + given_up)
        postponed = [row for row in late if row.attempts + 1 < UNKNOWN_TRIES]
        _for_messages(platform, connection, "postpone_inbox", postponed, delay_ms=platform.settings.retry_delay_ms)
    ids = {id(row): ref.id for ref, (_, messages) in by_entity.items() for row in messages}
    return Drained(
        len(rows),
        report,
        relate,
        tuple(dict.fromkeys(ids[id(row)] for row in done)),
        tuple(dict.fromkeys(ids[id(row)] for row in given_up)),
        tuple(Asked(row.subject, ids[id(row)], row.message_id) for row in done + given_up if row.message_id),
    )


def _coalesced(
    platform: Platform, connection: Connection, entity_type: str, rows: Sequence[_InboxRow]
) -> dict[EntityRef, tuple[Coalesced[str], list[_InboxRow]]]:
    """The events folded to one an entity, with the messages that it came from."""
    reader = platform.source(entity_type)
    ids = [row.entity_id for row in rows]
    spelled = (
        reader.canonical_ids(connection, ids) if reader is not None else {entity_id: entity_id for entity_id in ids}
    )
    messages: dict[EntityRef, list[_InboxRow]] = {}
    events = []
    for row in rows:
        ref = EntityRef(entity_type, spelled[row.entity_id])
        messages.setdefault(ref, []).append(row)
        events.append((row.event_order, row.event(ref)))
    return {ref: (folded, messages[ref]) for ref, folded in coalesce(events).items()}


def _dead_letter_unknown(
    platform: Platform, connection: Connection, entity_type: str, rows: Sequence[_InboxRow]
) -> None:
    newest = {row.entity_id: row for row in rows}
    if not newest:
        return
    connection.execute(
        platform.postgres.query("insert_failed"),
        {
            "entity_type": entity_type,
            "entity_id": list(newest),
            "stage": ["apply"] * len(newest),
            "subject": [row.subject for row in newest.values()],
            "raw": [b""] * len(newest),
            "error_kind": ["unknown_entity"] * len(newest),
            "error": [
                f"{row.subject} names {entity_type}:{row.entity_id}, which has no row in the source table and of which "
                f"no event carried any text, after {UNKNOWN_TRIES} looks: check the source mapping, or publish it again"
                for row in newest.values()
            ],
        },
    )


def _for_messages(
    platform: Platform, connection: Connection, query: str, rows: Sequence[_InboxRow], **parameters: Any
) -> None:
    if rows:
        connection.execute(
            platform.postgres.query(query),
            {
                "stream": [row.stream for row in rows],
                "stream_created_at": [row.stream_created_at for row in rows],
                "seq": [row.seq for row in rows],
                **parameters,
            },
        )


@contextmanager
def sole_drain(platform: Platform, entity_type: str, run_id: str) -> Iterator[bool]:
    """Hold the drain lock of `entity_type` and beat while the block runs; False if another drain holds it."""
    postgres = platform.postgres
    names = {"entity_type": entity_type, "run_id": run_id}
    with postgres.session() as session:
        got = session.execute(
            "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", (drain_lock(postgres.schema, entity_type),)
        ).fetchone()
        if got is None or not got[0]:
            yield False
            return
        stop = threading.Event()
        session.execute(postgres.query("beat"), names)
        heart = threading.Thread(target=_beat, args=(platform, session, names, stop), name="beat", daemon=True)
        heart.start()
        try:
            yield True
        finally:
            stop.set()
            heart.join()
            if not session.broken:
                session.execute(postgres.query("leave_drain"), names)


def _beat(platform: Platform, session: Connection, names: Mapping[str, str], stop: threading.Event) -> None:
    """Beat on the connection that holds the lock: if it breaks, the lock is gone, and so is this heart."""
    while not stop.wait(BEAT_S):
        try:
            session.execute(platform.postgres.query("beat"), names)
        except psycopg.OperationalError:
            logger.warning("the drain of %s lost its lock: another may start beside it", names["entity_type"])
            return


def _has_pending(platform: Platform, entity_type: str) -> bool:
    with platform.postgres.transaction() as connection:
        pending = connection.execute(platform.postgres.query("pending_types"), {"kinds": _KINDS})
        return any(row[0] == entity_type for row in pending)
