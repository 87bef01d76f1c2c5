"""Drain batch: some messages of the inbox, applied together: claimed, folded by entity, indexed, and then deleted."""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mcp_assets import traces
from mcp_assets.entities.refs import EntityRef
from mcp_assets.events import Coalesced, Event, MessageKind, Verb, coalesce, read_payload
from mcp_assets.platform import Platform
from mcp_assets.stores.postgres import Connection
from mcp_assets.sync.counters import LAG_BUCKETS_S
from mcp_assets.sync.inbox.announce import announce_indexed, announce_when_linked
from mcp_assets.sync.inbox.drained import Drained, IdentifiedMessage, TracedEvent
from mcp_assets.sync.index.batch_report import BatchReport, log_batch
from mcp_assets.sync.index.event_rechecks import (
    LAST_LOOK,
    LOOK_SUBJECT,
    LOOKS_STREAM,
    Early,
    note,
)
from mcp_assets.sync.index.failed_entities import FailedEntity, dead_letter
from mcp_assets.sync.index.indexer import Indexer
from mcp_assets.sync.index.ledger import Wanted
from mcp_assets.sync.link.marks import Reason, mark

logger = logging.getLogger(__name__)

DRAINED_KINDS = [MessageKind.ENTITY.value, MessageKind.RELATE.value]
"""A drain applies both kinds, because a relate request may carry the state of an entity, and events about the entity
may stand before and after it."""


@dataclass(frozen=True, slots=True)
class InboxRow:
    """A message about one entity, as the inbox keeps it."""

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
    traceparent: str | None = None

    def event(self, ref: EntityRef) -> Event:
        carried, changed = read_payload(self.payload)
        return Event(MessageKind(self.kind), self.subject, ref, Verb(self.verb), carried, None, None, changed)


class _EntityMessages(NamedTuple):
    """The messages of a batch about one entity, and the one event that they fold to."""

    folded: Coalesced[str]
    rows: list[InboxRow]


def drain_batch(platform: Platform, entity_type: str, indexer: Indexer) -> Drained:
    """Claim some messages, index their entities, and only then delete the messages from the inbox.

    The claim is a row lock: it ends with this process, however that ends, and then the messages are free again. If the
    process is killed after the entities are committed, the messages are applied again, which changes nothing.
    """
    postgres = platform.postgres
    began_at = time.monotonic()
    with postgres.transaction() as connection:
        rows = claim(platform, connection, entity_type)
        if not rows:
            return Drained(entity_type, 0)
        by_entity = _by_entity(platform, connection, entity_type, rows)
        report = indexer.run([_wanted(ref, messages) for ref, messages in by_entity.items()])
        drained = _finish(platform, connection, entity_type, by_entity, report)
        # In the transaction that deletes the messages: their answers are kept exactly if they are gone.
        announce_indexed(platform, connection, drained)
        announce_when_linked(platform, connection, drained)
    if traces.are_on():
        _trace(entity_type, by_entity, drained)
    log_batch(logger, "messages are applied", platform, entity_type, drained.report, began_at)
    return drained


def claim(platform: Platform, connection: Connection, entity_type: str) -> list[InboxRow]:
    """The oldest messages of a type that no other batch has claimed, at most a batch; locked until the commit."""
    postgres = platform.postgres
    connection.execute(postgres.query("plan_in_order"))
    parameters = {"kinds": DRAINED_KINDS, "entity_type": entity_type, "limit": platform.settings.batch_size}
    return postgres.rows(connection, "claim_inbox", InboxRow, parameters)


def _trace(entity_type: str, by_entity: Mapping[EntityRef, _EntityMessages], drained: Drained) -> None:
    """Record what the batch did, for its messages that belong to traces."""
    traced: list[tuple[str, traces.Attributes]] = [
        (row.traceparent, {"mcp_assets.entity": str(ref), "messaging.destination.name": row.subject})
        for ref, messages in by_entity.items()
        for row in messages.rows
        if row.traceparent is not None
    ]
    attributes: traces.Attributes = {
        "mcp_assets.entity_type": entity_type,
        "messaging.batch.message_count": drained.messages,
    }
    traces.record_batch("mcp_assets.batch", traced, drained.report.stages, attributes)


def _by_entity(
    platform: Platform, connection: Connection, entity_type: str, rows: Sequence[InboxRow]
) -> dict[EntityRef, _EntityMessages]:
    reader = platform.source(entity_type)
    ids = [row.entity_id for row in rows]
    canonical = (
        reader.canonical_ids(connection, ids) if reader is not None else {entity_id: entity_id for entity_id in ids}
    )
    messages: dict[EntityRef, list[InboxRow]] = {}
    events = []
    for row in rows:
        ref = EntityRef(entity_type, canonical[row.entity_id])
        messages.setdefault(ref, []).append(row)
        events.append((row.event_order, row.event(ref)))
    return {ref: _EntityMessages(folded, messages[ref]) for ref, folded in coalesce(events).items()}


def _wanted(ref: EntityRef, messages: _EntityMessages) -> Wanted:
    folded = messages.folded
    return Wanted(
        ref.id,
        folded.stated,
        deleting=folded.event.verb is Verb.DELETE,
        events=sum(row.stream != LOOKS_STREAM for row in messages.rows),
    )


def _finish(
    platform: Platform,
    connection: Connection,
    entity_type: str,
    by_entity: Mapping[EntityRef, _EntityMessages],
    report: BatchReport,
) -> Drained:
    """Delete the messages whose entities are done or wait for a recheck, and mark entities that are to be re-linked."""
    done: list[InboxRow] = []
    unknown: list[InboxRow] = []
    relate: list[EntityRef] = []
    for ref, messages in by_entity.items():
        if ref.id in report.superseded:
            continue
        if ref.id in report.unknown:
            unknown += messages.rows
            continue
        done += messages.rows
        if MessageKind.RELATE in messages.folded.kinds:
            relate.append(ref)
    for reason in (Reason.CHANGED, Reason.REFERENCES, Reason.LISTS):
        mark(platform, connection, relate, reason)
    # A look of the platform's own at a row that came and went asks for no answer.
    given_up = [row for row in unknown if row.attempts >= LAST_LOOK and row.subject != LOOK_SUBJECT]
    _dead_letter_unknown(platform, connection, entity_type, given_up)
    _note_early(platform, connection, entity_type, by_entity, report)
    _delete(platform, connection, done, unknown)
    ids = {id(row): ref.id for ref, messages in by_entity.items() for row in messages.rows}
    return Drained(
        entity_type,
        len(ids),
        report,
        tuple(relate),
        tuple(dict.fromkeys(ids[id(row)] for row in done)),
        tuple(dict.fromkeys(ids[id(row)] for row in given_up)),
        tuple(
            IdentifiedMessage(row.subject, ids[id(row)], row.message_id, row.traceparent)
            for row in done + given_up
            if row.message_id
        ),
        tuple(
            TracedEvent(ids[id(row)], row.traceparent)
            for row in done
            if row.traceparent is not None and row.kind == MessageKind.ENTITY
        ),
    )


def _note_early(
    platform: Platform,
    connection: Connection,
    entity_type: str,
    by_entity: Mapping[EntityRef, _EntityMessages],
    report: BatchReport,
) -> None:
    """Have entities rechecked whose rows may not be committed yet; a recheck keeps the messages of unknown ones."""
    early = []
    for ref, messages in by_entity.items():
        if ref.id in report.unknown:
            answerable = [(row.kind, row.subject, row.message_id) for row in messages.rows if row.attempts < LAST_LOOK]
            early += [Early(ref.id, answerable)] if answerable else []
        elif ref.id in report.early and ref.id not in report.superseded:
            early.append(Early(ref.id))
    note(platform, connection, entity_type, early)


def _dead_letter_unknown(
    platform: Platform, connection: Connection, entity_type: str, rows: Iterable[InboxRow]
) -> None:
    newest = {row.entity_id: row for row in rows}
    rechecked_s = platform.tuning.index.rechecks_after_s[-1]
    failed = (
        FailedEntity(
            row.entity_id,
            "apply",
            "unknown_entity",
            f"{row.subject} names {entity_type}:{row.entity_id}, which has no row in the source table and of which "
            f"no event carried any text, {rechecked_s:.0f} s after the message: check the source mapping, or "
            "publish it again",
            row.subject,
        )
        for row in newest.values()
    )
    dead_letter(platform, connection, entity_type, failed)


def _delete(platform: Platform, connection: Connection, done: Sequence[InboxRow], unknown: Sequence[InboxRow]) -> None:
    """Delete the messages. Those that are done, and not looks of the platform's own, are counted with their lag."""
    rows = [*done, *unknown]
    if rows:
        connection.execute(
            platform.postgres.query("delete_inbox"),
            {
                "stream": [row.stream for row in rows],
                "epoch": [row.epoch for row in rows],
                "seq": [row.seq for row in rows],
                "counted": [*(row.stream != LOOKS_STREAM for row in done), *(False for _ in unknown)],
                "bounds": list(LAG_BUCKETS_S),
            },
        )
