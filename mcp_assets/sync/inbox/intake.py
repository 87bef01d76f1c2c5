"""Intake: reads each stream once, in order, into the inbox; the cursor moves in the same transaction."""

import logging
from collections import Counter as Tally
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING

from mcp_assets import traces
from mcp_assets.events import Event, MessageKind, Rejected, parse, payload_of
from mcp_assets.platform import Platform
from mcp_assets.stores.errors import StoreRefused, StoreUnavailable
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.streams import Message, Read, StreamState
from mcp_assets.sync import counters
from mcp_assets.sync.counters import Count, Counter
from mcp_assets.sync.inbox.message_warnings import keep_warnings
from mcp_assets.sync.inbox.stream_cursor import (
    UNIX_EPOCH,
    Cursor,
    find_gap,
    find_hole,
    find_replacement,
    find_rewind,
    is_left_behind,
)
from mcp_assets.sync.inbox.stream_limits import absent_stream, can_be_made

if TYPE_CHECKING:
    from opentelemetry.trace import Span

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class IntakeReport:
    """What one call of `intake` did."""

    accepted: int = 0
    rejected: int = 0
    gap: str | None = None
    """How messages were lost before they were read. A full sync has been asked for. None: none were lost."""
    more: bool = False
    """The stream holds more, or another reader moved the cursor: call again."""
    unread: tuple[str, ...] = ()
    """Streams that could not be read, each with the reason; the other streams were read."""

    def __add__(self, other: "IntakeReport") -> "IntakeReport":
        return IntakeReport(
            self.accepted + other.accepted,
            self.rejected + other.rejected,
            self.gap or other.gap,
            self.more or other.more,
            self.unread + other.unread,
        )


def intake(platform: Platform, *, wait_s: float) -> IntakeReport:
    """Take in what the streams hold beyond their cursors; waits up to `wait_s` for the first message.

    Every sensor and every drain calls this, also at the same time, because the cursor moves by compare-and-set.
    No transaction is open while waiting. A stream that cannot be read does not keep the others from being read.

    Raises:
        StoreUnavailable: NATS or PostgreSQL does not answer, for none of the streams.
        StoreRefused: none of the streams can be read: absent, not to be made, or forbidden.
    """
    streams = platform.settings.streams
    done = IntakeReport()
    errors: list[StoreRefused | StoreUnavailable] = []
    for name in streams:
        try:
            done += _intake_stream(platform, name, wait_s / len(streams))
        except (StoreRefused, StoreUnavailable) as error:
            errors.append(error)
            done += IntakeReport(unread=(f"{name}: {error}",))
    if len(errors) == len(streams):
        first, *others = errors
        for other in others:
            first.add_note(f"and at the same time: {other}")
        raise first
    for reason in done.unread:
        _warn_once(reason)
    return done


@cache
def _warn_once(reason: str) -> None:
    """Once a process, because intake is called every few seconds; the check `intake_is_current` shows what lasts."""
    logger.warning("a stream cannot be read, and the others are: %s", reason)


def _intake_stream(platform: Platform, name: str, wait_s: float) -> IntakeReport:
    # The cursor is read first. If another reader moved it after the state was read, the stream would seem to be reset.
    cursor = _cursor(platform, name) or _new_cursor(platform, name)
    state = _state(platform, name)
    rewound = find_rewind(cursor, state)
    if rewound is not None:
        if _still_holds_last(platform, name, cursor, state):
            # The state came from a server of the cluster that has not received the newest messages yet.
            return IntakeReport(more=True)
        return _begin_epoch(platform, name, cursor, state, rewound)
    gap = find_gap(cursor, state)
    if gap is not None:
        return _pass_gap(platform, name, cursor, replace(cursor, last_seq=state.first_seq - 1, last_digest=None), gap)
    read = platform.nats.read(
        state,
        cursor.last_seq,
        limit=platform.tuning.inbox.messages_a_read,
        max_bytes=platform.tuning.inbox.bytes_a_read,
        wait_s=max(wait_s, 0.05),
        with_last=cursor.last_digest is not None,
        past_foreign=is_left_behind(cursor, state),
    )
    replaced = find_replacement(cursor, read)
    if replaced is not None:
        return _begin_epoch(platform, name, cursor, _state(platform, name), replaced)
    if not read.messages:
        return IntakeReport()
    hole = _hole(platform, cursor, state, read.messages)
    return _take_in(platform, name, cursor, read, hole)


def _take_in(platform: Platform, name: str, cursor: Cursor, read: Read, hole: str | None) -> IntakeReport:
    ours = [message for message in read.messages if message.ours]
    parsed = [(message, parse(message.subject, message.data, platform.type_names)) for message in ours]
    with platform.postgres.transaction() as connection:
        if not _move(platform, connection, name, cursor, cursor.moved_to(read.messages)):
            # Another reader was first.
            return IntakeReport(more=True)
        again = _taken_in_before(platform, connection, name, cursor, parsed)
        parsed = [(message, event) for message, event in parsed if message.seq not in again]
        accepted = [(message, event) for message, event in parsed if isinstance(event, Event)]
        rejected = [(message, event) for message, event in parsed if isinstance(event, Rejected)]
        spans = _begin_spans(name, accepted)
        _insert_accepted(platform, connection, name, cursor, accepted, spans)
        keep_warnings(platform, connection, ((event, name, cursor.epoch, message.seq) for message, event in accepted))
        _insert_rejected(platform, connection, name, cursor, rejected)
        kinds = Tally(event.kind.value for _, event in accepted)
        counts = [Count(Counter.MESSAGES, kind, "accepted", number) for kind, number in kinds.items()]
        counts += [Count(Counter.MESSAGES, "", "rejected", len(rejected))] if rejected else []
        counters.add(platform, connection, counts)
        if hole is not None:
            _want_full_syncs(platform, connection, f"stream {name}: {hole}")
    for span in spans.values():
        span.end()
    logger.info(
        "messages are taken in from %s", name, extra={"counts": {"accepted": len(accepted), "rejected": len(rejected)}}
    )
    return IntakeReport(len(accepted), len(rejected), hole, read.more)


def _taken_in_before(
    platform: Platform,
    connection: Connection,
    name: str,
    cursor: Cursor,
    parsed: Sequence[tuple[Message, Event | Rejected]],
) -> set[int]:
    """Sequences of messages that an earlier epoch has taken in, and that must not be taken in again.

    These are messages that still wait or are dead letters, and requests, because no request may be executed twice.
    Any other event is applied again. This changes nothing, because it keeps its place in the order of events.
    """
    if cursor.read_before is None:
        return set()
    old = [(message, event) for message, event in parsed if message.stored_at <= cursor.read_before]
    if not old:
        return set()
    known = connection.execute(
        platform.postgres.query("known_of_earlier_epochs"),
        {
            "stream": name,
            "epoch": cursor.epoch,
            "seq": [message.seq for message, _ in old],
            "stored_at": [message.stored_at for message, _ in old],
        },
    )
    requests = {
        message.seq
        for message, event in old
        if isinstance(event, Event) and event.kind in (MessageKind.SYNC, MessageKind.VALIDATE)
    }
    return requests | {row[0] for row in known}


def _begin_epoch(platform: Platform, name: str, cursor: Cursor, state: StreamState, reason: str) -> IntakeReport:
    """Begin a new epoch: read the stream from its first message on. Messages accepted before stay as they are."""
    begun = Cursor(
        cursor.epoch + 1,
        state.created_at,
        state.first_seq - 1,
        read_before=max(cursor.newest_stored_at, cursor.read_before or UNIX_EPOCH),
    )
    return _pass_gap(platform, name, cursor, begun, reason)


def _pass_gap(platform: Platform, name: str, cursor: Cursor, moved: Cursor, reason: str) -> IntakeReport:
    """Move the cursor behind messages that may be lost, and ask for full syncs."""
    with platform.postgres.transaction() as connection:
        if not _move(platform, connection, name, cursor, moved):
            return IntakeReport(more=True)
        _want_full_syncs(platform, connection, f"stream {name}: {reason}")
    logger.warning("stream %s: %s; a full sync is asked for", name, reason)
    return IntakeReport(gap=reason, more=True)


def event_order(stored_at: datetime, stream: str, epoch: int, seq: int) -> str:
    """A key by which messages of all streams are ordered as text: time stored, stream, sequence, epoch.

    A message that is read again in a later epoch stands directly behind its first copy.
    """
    micros = (stored_at - UNIX_EPOCH) // datetime.resolution
    return f"{micros:017d}|{stream}|{seq:020d}|{epoch:010d}"


def _state(platform: Platform, name: str) -> StreamState:
    state = platform.nats.state(name)
    if state is None and can_be_made(platform.settings):
        platform.nats.ensure_stream(name)
        state = platform.nats.state(name)
    if state is None:
        raise StoreRefused(absent_stream(name))
    return state


def _cursor(platform: Platform, name: str) -> Cursor | None:
    with platform.postgres.transaction() as connection:
        return platform.postgres.row(connection, "read_cursor", Cursor, {"stream": name})


def _new_cursor(platform: Platform, name: str) -> Cursor:
    """The cursor of a stream that is read for the first time: before the first message that the stream holds."""
    state = _state(platform, name)
    with platform.postgres.transaction() as connection:
        connection.execute(
            platform.postgres.query("create_cursor"),
            {"stream": name, "created_at": state.created_at, "last_seq": state.first_seq - 1},
        )
    cursor = _cursor(platform, name)
    if cursor is None:
        raise StoreRefused(f"the cursor of the stream {name} was removed while it was made")
    return cursor


def _still_holds_last(platform: Platform, name: str, cursor: Cursor, state: StreamState) -> bool:
    """Whether the stream still holds the last message that was read, although its state ends before the cursor."""
    if state.created_at != cursor.stream_created_at or cursor.last_digest is None:
        return False
    held = platform.nats.message(name, cursor.last_seq)
    return held is not None and (held.stored_at, held.digest) == (cursor.last_stored_at, cursor.last_digest)


def _hole(platform: Platform, cursor: Cursor, state: StreamState, messages: Sequence[Message]) -> str | None:
    """The first messages that are missing among `messages` and may have been ours; None if none are."""
    hole = find_hole(cursor.last_seq, messages)
    if hole is None or state.traits.filtered_mirror:
        return None
    if not state.foreign_subjects:
        return hole
    limit = state.traits.max_per_subject
    subjects = Tally(message.subject for message in messages if message.ours)
    if limit and max(subjects.values(), default=0) < limit:
        # The limit discards one of our messages only if as many of the same subject stand behind it.
        return None
    deleted = platform.nats.deleted_between(state.name, cursor.last_seq, messages[-1].seq)
    if not deleted:
        return None
    return (
        f"{deleted} messages between {cursor.last_seq + 1} and {messages[-1].seq} were discarded before they were "
        "read, and may have been ours"
    )


def _move(platform: Platform, connection: Connection, stream: str, old: Cursor, new: Cursor) -> bool:
    """Compare-and-set; False if another reader has moved the cursor from `old`."""
    moved = connection.execute(
        platform.postgres.query("move_cursor"),
        {"stream": stream, "old_epoch": old.epoch, "old_seq": old.last_seq, **asdict(new)},
    )
    return moved.rowcount == 1


def _insert_accepted(
    platform: Platform,
    connection: Connection,
    stream: str,
    cursor: Cursor,
    accepted: list[tuple[Message, Event]],
    spans: "Mapping[int, Span]",
) -> None:
    """`spans`: of messages that belong to traces, by sequence."""
    if not accepted:
        return
    traced = [traces.traceparent_of(spans.get(message.seq), message.traceparent) for message, _ in accepted]
    stored_at = []
    newest = cursor.newest_stored_at
    for message, _ in accepted:
        # JetStream's clock may step back; the order of a stream is that of its sequences.
        newest = max(newest, message.stored_at)
        stored_at.append(newest)
    connection.execute(
        platform.postgres.query("insert_inbox"),
        {
            "stream": stream,
            "epoch": cursor.epoch,
            "seq": [message.seq for message, _ in accepted],
            **event_columns([event for _, event in accepted]),
            "event_order": [
                event_order(at, stream, cursor.epoch, message.seq)
                for at, (message, _) in zip(stored_at, accepted, strict=True)
            ],
            # As texts, because psycopg writes a list of texts at once.
            "stored_at": [at.isoformat() for at in stored_at],
            # A NULL in place of the array costs nothing, where no message belongs to a trace.
            "traceparent": traced if any(traced) else None,
        },
    )


def _begin_spans(stream: str, accepted: Sequence[tuple[Message, Event]]) -> "dict[int, Span]":
    """By sequence, the spans of messages that belong to traces: from the time of storing until intake has committed."""
    if not traces.are_on():
        return {}
    spans = {
        message.seq: traces.begin(
            "mcp_assets.intake",
            message.traceparent,
            began_ns=round(message.stored_at.timestamp() * 1_000_000_000),
            attributes={"messaging.system": "nats", "messaging.destination.name": message.subject, "stream": stream},
            kind="CONSUMER",
        )
        for message, _ in accepted
    }
    return {seq: span for seq, span in spans.items() if span is not None}


def event_columns(events: Sequence[Event]) -> dict[str, list[str | None]]:
    """The columns of rows of the inbox that follow from the events alone."""
    return {
        "kind": [event.kind.value for event in events],
        "subject": [event.subject for event in events],
        "entity_type": [event.ref and event.ref.type for event in events],
        "entity_id": [event.ref and event.ref.id for event in events],
        "verb": [event.verb.value for event in events],
        "payload": [payload_of(event) for event in events],
        "message_id": [event.message_id for event in events],
    }


def _insert_rejected(
    platform: Platform, connection: Connection, stream: str, cursor: Cursor, rejected: list[tuple[Message, Rejected]]
) -> None:
    if not rejected:
        return
    connection.execute(
        platform.postgres.query("insert_rejected"),
        {
            "stream": stream,
            "epoch": cursor.epoch,
            "seq": [message.seq for message, _ in rejected],
            # PostgreSQL's text takes neither NUL nor lone surrogates; the message's own bytes are kept as they came.
            "subject": [
                rejection.subject.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
                for _, rejection in rejected
            ],
            "stored_at": [message.stored_at for message, _ in rejected],
            "raw": [message.data for message, _ in rejected],
            "error_kind": [rejection.error_kind.value for _, rejection in rejected],
            "error": [rejection.error for _, rejection in rejected],
        },
    )


def _want_full_syncs(platform: Platform, connection: Connection, reason: str) -> None:
    connection.execute(
        platform.postgres.query("want_full_syncs"),
        {"entity_types": list(platform.settings.entity_types), "reason": reason},
    )
