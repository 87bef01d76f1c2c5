"""Drain: applies the inbox of an entity type until it is empty and stays so; does intake itself meanwhile.

What it takes in may be about other types, and a run for them starts seconds later: so it takes over those that wait
and that nobody drains. Each type that it works on is a lane: a thread that holds the type's drain lock, so that there
is one at most. One reader takes in for all lanes.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from queue import Queue
from typing import Any

from mcp_assets.entities.refs import EntityRef
from mcp_assets.events import Coalesced, Event, MessageKind, Verb, coalesce, said_in
from mcp_assets.platform import Platform
from mcp_assets.retrying import retrying
from mcp_assets.stores.postgres import Connection
from mcp_assets.sync.inbox.announce import announce_indexed, announce_when_linked
from mcp_assets.sync.inbox.drain_lock import drain_lock_name, hold_drain_lock
from mcp_assets.sync.inbox.intake import intake
from mcp_assets.sync.index.batch_report import BatchReport
from mcp_assets.sync.index.event_rechecks import (
    LAST_LOOK,
    LOOK_SUBJECT,
    LOOKS_AFTER_S,
    LOOKS_STREAM,
    Early,
    Rechecks,
    note,
)
from mcp_assets.sync.index.failed_entities import FailedEntity, dead_letter
from mcp_assets.sync.index.indexer import Indexer
from mcp_assets.sync.index.ledger import Wanted
from mcp_assets.sync.link.marks import Reason, mark
from mcp_assets.sync.pipeline import overlapped

logger = logging.getLogger(__name__)

TAKEN_OVER_S = 3.0
"""What came before a drain was asked for has a run of its own on the way, unless it has waited for this long."""

_INTAKE_WAIT_S = 0.5

_BATCHES_AHEAD = 16
"""Batches that lanes may be ahead of who is told of them."""

_KINDS = [MessageKind.ENTITY.value, MessageKind.RELATE.value]
"""A drain works off both: a relate request may carry the state of an entity, and events about it come in between."""


@dataclass(frozen=True, slots=True)
class _InboxRow:
    kind: str
    stream: str
    epoch: int
    seq: int
    entity_id: str
    subject: str
    verb: str
    payload: Mapping[str, Any] | None
    event_order: str
    attempts: int
    message_id: str | None

    def event(self, ref: EntityRef) -> Event:
        carried, changed = said_in(self.payload)
        return Event(MessageKind(self.kind), self.subject, ref, Verb(self.verb), carried, None, None, changed)


@dataclass(frozen=True, slots=True)
class Asked:
    """A message that bears an id, by which its sender knows the result that answers it."""

    subject: str
    entity_id: str
    message_id: str


@dataclass(slots=True)
class Drained:
    """What one batch of the inbox came to; without messages: all that was there is worked off, for now."""

    entity_type: str
    messages: int
    report: BatchReport = field(default_factory=BatchReport)
    relate: tuple[EntityRef, ...] = ()
    """Entities that were asked to be re-linked, and are marked for it."""
    entity_ids: tuple[str, ...] = ()
    """The entities that were looked at to the end: neither superseded nor to be looked at again."""
    given_up: tuple[str, ...] = ()
    """Those of which nothing is known after the last recheck: they were dead-lettered."""
    asked: tuple[Asked, ...] = ()
    """The messages with ids that are out of the inbox now."""
    error: BaseException | None = None
    """The type had been taken over, and its lane has ended with this; what it had not done is in the inbox."""


def drain(
    platform: Platform, entity_type: str, run_id: str, *, asked_s_ago: float = 0.0
) -> Generator[Drained, None, None]:
    """Work off the entity events and relate requests in the inbox: about `entity_type`, and about types taken over.

    The run was asked for `asked_s_ago` seconds ago: what came since is what nobody could ask a run for.
    Ends when there have been none for DRAIN_LINGER_S, or after DRAIN_MAX_S. An error of a type that was taken over ends
    that lane alone, and is yielded. Any other ends the drain, once the other lanes have worked off what waits. Who does
    not iterate it to its end closes it: its lanes work in threads of their own.

    Yields nothing and ends at once if another drain is at `entity_type`. When it lets go it looks once more, so that no
    event falls between two drains.

    Raises:
        StoreUnavailable, StoreRefused, CollectionMismatch, EmbedderUnavailable: batches in flight stay in the inbox.
    """
    asked_at = time.monotonic() - asked_s_ago
    deadline = time.monotonic() + platform.settings.drain_max_s
    failed: set[str] = set()
    types = [entity_type]
    while types:
        lanes = _Lanes(platform, entity_type, types, run_id, asked_at, deadline, failed)
        yield from lanes.drained()
        types = lanes.left_behind()


@dataclass(frozen=True, slots=True)
class _Ended:
    """A lane, or the reader, is at its end."""

    name: str
    error: BaseException | None


_READER = "(reader)"


class _Lanes:
    """The lanes of one drain. All end together: when none has had work for a while, or the drain's time is over."""

    def __init__(
        self,
        platform: Platform,
        own: str,
        types: Sequence[str],
        run_id: str,
        asked_at: float,
        deadline: float,
        failed: set[str],
    ) -> None:
        self._platform = platform
        self._own = own
        self._types = types
        self._run_id = run_id
        self._deadline = deadline
        self._failed = failed
        self._asked_at = asked_at
        self._idle_since = time.monotonic()
        self._rechecks = platform.companion(Rechecks)
        # A batch holds the connection of its claim while it asks for another: more of them would starve each other.
        self._slots = threading.BoundedSemaphore(platform.postgres.max_connections // 2)
        self._results: Queue[Drained | _Ended] = Queue(_BATCHES_AHEAD)
        self._executor = ThreadPoolExecutor(len(platform.settings.entity_types) + 1, thread_name_prefix="drain")
        # Guards what follows, and is notified when it changes.
        self._changed = threading.Condition()
        self._running: set[str] = set()
        self._busy: set[str] = set()
        self._held: set[str] = set()
        self._indexers: list[Indexer] = []
        self._unheard = 0
        self._looks = 0
        self._leaving = self._closed = self._read_out = False

    def drained(self) -> Iterator[Drained]:
        """What the lanes do, as they do it; to be iterated once."""
        errors: list[BaseException] = []
        try:
            for entity_type in self._types:
                self._start(entity_type, partial(self._lane, entity_type))
            while self._unheard:
                result = self._results.get()
                if isinstance(result, Drained):
                    yield result
                    continue
                with self._changed:
                    self._unheard -= 1
                if result.error is None:
                    continue
                if result.name in self._failed:
                    yield Drained(result.name, 0, error=result.error)
                else:
                    errors.append(result.error)
        finally:
            with self._changed:
                self._closed = True
                self._changed.notify_all()
            for indexer in self._indexers:
                indexer.abandon()
            while self._unheard:
                if isinstance(self._results.get(), _Ended):
                    with self._changed:
                        self._unheard -= 1
            self._executor.shutdown()
        if errors:
            first, *others = errors
            for other in others:
                first.add_note(f"and at the same time: {type(other).__name__}: {other}")
            raise first

    def left_behind(self) -> list[str]:
        """Types that this drain held and for which messages came as it let go; none if its time is over."""
        held = self._held - self._failed
        if not held or time.monotonic() >= self._deadline:
            return []
        waiting = retrying(self._platform.settings)(_waiting_undrained, self._platform, held)
        return sorted(waiting)

    def _start(self, name: str, work: Callable[[], None]) -> None:
        """In a thread of its own, unless it runs; its end is heard of in `drained`."""
        with self._changed:
            if name in self._running:
                return
            self._running.add(name)
            if name != _READER:
                self._busy.add(name)
            self._unheard += 1
        self._executor.submit(work).add_done_callback(partial(self._ended, name))

    def _ended(self, name: str, future: Future[None]) -> None:
        error = future.exception()
        with self._changed:
            self._running.discard(name)
            self._busy.discard(name)
            if error is not None and name in (self._own, _READER):
                self._leaving = True
                # The run fails in any case: the other lanes work off what they can without a store that is away.
                for indexer in self._indexers:
                    indexer.stop()
            elif error is not None:
                self._failed.add(name)
            self._changed.notify_all()
        self._results.put(_Ended(name, error))

    def _lane(self, entity_type: str) -> None:
        with hold_drain_lock(self._platform, entity_type, self._run_id) as alone:
            if not alone:
                return
            with self._changed:
                self._held.add(entity_type)
            self._start(_READER, self._read)
            self._until_idle(entity_type)

    def _read(self) -> None:
        """Take in and recheck, wake the lanes, and take over what nobody drains, until the lanes are about to leave."""
        settings = self._platform.settings
        try:
            while not self._leaving and not self._over():
                retrying(settings)(intake, self._platform, wait_s=_INTAKE_WAIT_S)
                retrying(settings)(self._rechecks.take_due)
                with self._changed:
                    self._looks += 1
                    self._changed.notify_all()
                self._take_over()
        finally:
            with self._changed:
                self._read_out = True
                self._changed.notify_all()

    def _take_over(self) -> None:
        with self._changed:
            others = self._platform.settings.entity_types.keys() - self._running - self._failed
        if not others:
            return
        asked_s_ago = time.monotonic() - self._asked_at
        waiting = retrying(self._platform.settings)(_waiting_undrained, self._platform, others)
        for entity_type, waited_s in waiting.items():
            if waited_s < asked_s_ago or waited_s >= TAKEN_OVER_S:
                self._start(entity_type, partial(self._lane, entity_type))

    def _until_idle(self, entity_type: str) -> None:
        indexer = Indexer(self._platform, entity_type, deadline=self._deadline)
        with self._changed:
            self._indexers.append(indexer)
        while not self._over():
            with self._changed:
                self._busy.add(entity_type)
                looks, last = self._looks, self._read_out
            worked = False
            for drained in self._work_off(entity_type, indexer):
                worked = True
                self._results.put(drained)
            if worked:
                self._results.put(Drained(entity_type, 0))
            if last:
                return
            self._rest(entity_type, looks, worked=worked)

    def _rest(self, entity_type: str, looks: int, *, worked: bool) -> None:
        """Until the reader has looked since it had looked `looks` times. The last lane to rest decides to leave."""
        with self._changed:
            self._busy.discard(entity_type)
            if worked:
                self._idle_since = time.monotonic()
            if not self._busy and time.monotonic() - self._idle_since >= self._platform.settings.drain_linger_s:
                self._leaving = True
            self._changed.wait_for(
                lambda: self._looks != looks or self._read_out or self._closed,
                timeout=max(0.0, self._deadline - time.monotonic()),
            )

    def _work_off(self, entity_type: str, indexer: Indexer) -> Iterator[Drained]:
        """Batches from the inbox, several in flight, until a batch finds it empty."""
        empty = threading.Event()

        def claims() -> Iterator[int]:
            number = 0
            while not empty.is_set() and not self._over():
                yield number
                number += 1

        def work(_: int) -> Drained:
            if empty.is_set():
                return Drained(entity_type, 0)
            with self._slots:
                drained = retrying(self._platform.settings)(_drain_batch, self._platform, entity_type, indexer)
            if not drained.messages:
                empty.set()
            return drained

        # One slot is left to the other lanes.
        in_flight = min(self._platform.embedder.concurrency + 1, self._platform.postgres.max_connections // 2 - 1)
        with closing(overlapped(claims(), work, in_flight=in_flight, give_up=indexer.give_up)) as batches:
            for _, drained in batches:
                if drained.messages:
                    yield drained

    def _over(self) -> bool:
        return self._closed or time.monotonic() >= self._deadline


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
            return Drained(entity_type, 0)
        by_entity = _coalesced(platform, connection, entity_type, rows)
        wanted = [
            Wanted(
                ref.id,
                folded.stated,
                deleting=folded.event.verb is Verb.DELETE,
                events=sum(row.stream != LOOKS_STREAM for row in messages),
            )
            for ref, (folded, messages) in by_entity.items()
        ]
        report = indexer.run(wanted)
        done: list[_InboxRow] = []
        late: list[_InboxRow] = []
        for ref, (_, messages) in by_entity.items():
            if ref.id in report.superseded:
                continue
            if ref.id in report.unknown:
                late += messages
            else:
                done += messages
        relate = tuple(
            ref
            for ref, (folded, _) in by_entity.items()
            if MessageKind.RELATE in folded.kinds and ref.id not in report.superseded | report.unknown
        )
        for reason in (Reason.CHANGED, Reason.REFERENCES, Reason.LISTS):
            mark(platform, connection, relate, reason)
        # A look of the platform's own at a row that came and went asks for nothing.
        given_up = [row for row in late if row.attempts >= LAST_LOOK and row.subject != LOOK_SUBJECT]
        _dead_letter_unknown(platform, connection, entity_type, given_up)
        _note_early(platform, connection, entity_type, by_entity, report)
        _for_messages(platform, connection, "delete_inbox", done + late)
        ids = {id(row): ref.id for ref, (_, messages) in by_entity.items() for row in messages}
        drained = Drained(
            entity_type,
            len(rows),
            report,
            relate,
            tuple(dict.fromkeys(ids[id(row)] for row in done)),
            tuple(dict.fromkeys(ids[id(row)] for row in given_up)),
            tuple(Asked(row.subject, ids[id(row)], row.message_id) for row in done + given_up if row.message_id),
        )
        # In the transaction that takes the messages out: no result is lost that they wait for.
        announce_indexed(platform, connection, drained)
        announce_when_linked(platform, connection, drained)
    return drained


def _note_early(
    platform: Platform,
    connection: Connection,
    entity_type: str,
    by_entity: Mapping[EntityRef, tuple[Coalesced[str], Sequence[_InboxRow]]],
    report: BatchReport,
) -> None:
    """Have those looked at again whose rows may not be committed yet; of an unknown one the messages are kept there."""
    early = []
    for ref, (_, messages) in by_entity.items():
        if ref.id in report.unknown:
            asked = [(row.kind, row.subject, row.message_id) for row in messages if row.attempts < LAST_LOOK]
            early += [Early(ref.id, asked)] if asked else []
        elif ref.id in report.early and ref.id not in report.superseded:
            early.append(Early(ref.id))
    note(platform, connection, entity_type, early)


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
    failed = (
        FailedEntity(
            row.entity_id,
            "apply",
            "unknown_entity",
            f"{row.subject} names {entity_type}:{row.entity_id}, which has no row in the source table and of which "
            f"no event carried any text, {LOOKS_AFTER_S[-1]:.0f} s after the message: check the source mapping, or "
            "publish it again",
            row.subject,
        )
        for row in newest.values()
    )
    dead_letter(platform, connection, entity_type, failed)


def _for_messages(
    platform: Platform, connection: Connection, query: str, rows: Sequence[_InboxRow], **parameters: Any
) -> None:
    if rows:
        connection.execute(
            platform.postgres.query(query),
            {
                "stream": [row.stream for row in rows],
                "epoch": [row.epoch for row in rows],
                "seq": [row.seq for row in rows],
                **parameters,
            },
        )


def _waiting_undrained(platform: Platform, entity_types: Collection[str]) -> dict[str, float]:
    """Those of `entity_types` with messages that are due and no drain; for how long the oldest has been, seconds."""
    postgres = platform.postgres
    with postgres.transaction() as connection:
        return dict(
            connection.execute(
                postgres.query("waiting_undrained"),
                {
                    "entity_types": sorted(entity_types),
                    "kinds": _KINDS,
                    "lock_prefix": drain_lock_name(postgres.schema, ""),
                },
            ).fetchall()
        )
