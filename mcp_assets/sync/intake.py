"""Intake: a stream is read once, in order, into the inbox; the cursor and what it passed move in one transaction."""

import json
import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from mcp_assets.events import Event, Rejected, parse
from mcp_assets.stores.errors import StoreRefused
from mcp_assets.stores.nats import Message, StreamState
from mcp_assets.stores.postgres import Connection
from mcp_assets.sync.platform import Platform

logger = logging.getLogger(__name__)

MESSAGES_A_READ = 5_000
BYTES_A_READ = 16 << 20


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a stream has been read: `last_seq` is the last message taken in."""

    stream_created_at: datetime
    last_seq: int
    last_stored_at: datetime


@dataclass(frozen=True, slots=True)
class Intake:
    """What one call of `intake` did."""

    accepted: int = 0
    rejected: int = 0
    gap: str | None = None
    """Messages were lost before they were read: what happened. A full sync has been asked for."""
    more: bool = False
    """The stream holds more, or someone else moved the cursor: call again."""

    def __add__(self, other: "Intake") -> "Intake":
        return Intake(
            self.accepted + other.accepted,
            self.rejected + other.rejected,
            self.gap or other.gap,
            self.more or other.more,
        )


def intake(platform: Platform, *, wait_s: float) -> Intake:
    """Take in what the streams hold beyond their cursors; waits up to `wait_s` for the first message.

    Every sensor and every drain calls this, at once if it comes so: the cursor moves by compare-and-set.
    No transaction is open while waiting.

    Raises:
        StoreUnavailable: NATS or PostgreSQL does not answer.
        StoreRefused: a stream named in MCP_ASSETS_STREAMS is absent and may not be made.
    """
    streams = platform.settings.streams
    done = Intake()
    for name in streams:
        done += _intake_stream(platform, name, wait_s / len(streams))
    return done


def _intake_stream(platform: Platform, name: str, wait_s: float) -> Intake:
    # The cursor first: one that someone else moves after the state was read would look like a stream that was reset.
    cursor = _cursor(platform, name) or _new_cursor(platform, name)
    state = _state(platform, name)
    gap = find_gap(cursor, state)
    if gap is not None:
        jumped = Cursor(state.created_at, state.first_seq - 1, cursor.last_stored_at)
        with platform.postgres.transaction() as connection:
            if not _move(platform, connection, name, cursor, jumped):
                return Intake(more=True)
            _want_full_syncs(platform, connection, f"stream {name}: {gap}")
        logger.warning("stream %s: %s; a full sync is asked for", name, gap)
        return Intake(gap=gap, more=True)
    read = platform.nats.read(
        state, cursor.last_seq, limit=MESSAGES_A_READ, max_bytes=BYTES_A_READ, wait_s=max(wait_s, 0.05)
    )
    if not read.messages:
        return _pass_over(platform, name, cursor, state)
    hole = None if state.foreign_subjects else find_hole(cursor.last_seq, read.messages)
    moved = Cursor(state.created_at, read.messages[-1].seq, max(cursor.last_stored_at, read.messages[-1].stored_at))
    parsed = [(message, parse(message.subject, message.data, platform.type_names)) for message in read.messages]
    with platform.postgres.transaction() as connection:
        if not _move(platform, connection, name, cursor, moved):
            # Someone else was first.
            return Intake(more=True)
        accepted = [(message, event) for message, event in parsed if isinstance(event, Event)]
        rejected = [(message, event) for message, event in parsed if isinstance(event, Rejected)]
        _insert_accepted(platform, connection, state, cursor, accepted)
        _insert_rejected(platform, connection, state, rejected)
        if hole is not None:
            _want_full_syncs(platform, connection, f"stream {name}: {hole}")
    return Intake(len(accepted), len(rejected), hole, read.more)


def find_gap(cursor: Cursor, state: StreamState) -> str | None:
    """What was lost between the cursor and what the stream still holds; None if nothing was."""
    if state.created_at != cursor.stream_created_at:
        return f"the stream was made anew at {state.created_at.isoformat()}"
    if state.last_seq < cursor.last_seq:
        return (
            f"the stream ends at {state.last_seq}, before the {cursor.last_seq} already read: it was restored or reset"
        )
    if state.first_seq > cursor.last_seq + 1:
        return f"messages {cursor.last_seq + 1} to {state.first_seq - 1} were discarded before they were read"
    return None


def find_hole(after_seq: int, messages: Iterable[Message]) -> str | None:
    """The first sequence missing among `messages`, which should go on from `after_seq`; None if none is."""
    for message in messages:
        if message.seq != after_seq + 1:
            return f"messages {after_seq + 1} to {message.seq - 1} were discarded before they were read"
        after_seq = message.seq
    return None


def event_order(stored_at: datetime, stream: str, seq: int) -> str:
    """Place of a message among all of all streams, to compare as text: time stored, stream, sequence."""
    micros = (stored_at - datetime(1970, 1, 1, tzinfo=UTC)) // _MICROSECOND
    return f"{micros:017d}|{stream}|{seq:020d}"


_MICROSECOND = datetime.resolution


def _state(platform: Platform, name: str) -> StreamState:
    state = platform.nats.state(name)
    if state is None and platform.settings.create_stream and len(platform.settings.streams) == 1:
        platform.nats.ensure_stream(name)
        state = platform.nats.state(name)
    if state is None:
        raise StoreRefused(
            f"there is no stream {name} on the NATS server: check MCP_ASSETS_STREAMS, or let it be made "
            "(MCP_ASSETS_CREATE_STREAM=true, with a single stream)"
        )
    return state


def _cursor(platform: Platform, name: str) -> Cursor | None:
    with platform.postgres.transaction() as connection:
        row = connection.execute(platform.postgres.query("read_cursor"), {"stream": name}).fetchone()
    return None if row is None else Cursor(*row)


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


def _pass_over(platform: Platform, name: str, cursor: Cursor, state: StreamState) -> Intake:
    """Nothing to read: step over what the stream ended with before the wait and is not ours or was deleted."""
    if state.last_seq == cursor.last_seq:
        return Intake()
    passed = Cursor(cursor.stream_created_at, state.last_seq, cursor.last_stored_at)
    hole = f"messages {cursor.last_seq + 1} to {state.last_seq} were discarded before they were read"
    with platform.postgres.transaction() as connection:
        if not _move(platform, connection, name, cursor, passed):
            return Intake(more=True)
        if state.foreign_subjects:
            return Intake()
        _want_full_syncs(platform, connection, f"stream {name}: {hole}")
    return Intake(gap=hole)


def _move(platform: Platform, connection: Connection, stream: str, old: Cursor, new: Cursor) -> bool:
    """Compare-and-set; False if the cursor is no longer at `old`."""
    moved = connection.execute(
        platform.postgres.query("move_cursor"),
        {
            "stream": stream,
            "old_seq": old.last_seq,
            "old_created_at": old.stream_created_at,
            "new_seq": new.last_seq,
            "new_created_at": new.stream_created_at,
            "new_stored_at": new.last_stored_at,
        },
    )
    return moved.rowcount == 1


def _insert_accepted(
    platform: Platform,
    connection: Connection,
    state: StreamState,
    cursor: Cursor,
    accepted: list[tuple[Message, Event]],
) -> None:
    if not accepted:
        return
    stored_at = []
    newest = cursor.last_stored_at
    for message, _ in accepted:
        # JetStream's clock may step back; the order of a stream is that of its sequences.
        newest = max(newest, message.stored_at)
        stored_at.append(newest)
    connection.execute(
        platform.postgres.query("insert_inbox"),
        {
            "stream": state.name,
            "created_at": state.created_at,
            "seq": [message.seq for message, _ in accepted],
            "kind": [event.kind.value for _, event in accepted],
            "subject": [event.subject for _, event in accepted],
            "entity_type": [event.ref and event.ref.type for _, event in accepted],
            "entity_id": [event.ref and event.ref.id for _, event in accepted],
            "verb": [event.verb.value for _, event in accepted],
            "payload": [payload_of(event) for _, event in accepted],
            "message_id": [event.message_id for _, event in accepted],
            "event_order": [
                event_order(at, state.name, message.seq) for at, (message, _) in zip(stored_at, accepted, strict=True)
            ],
            "stored_at": stored_at,
        },
    )


def payload_of(event: Event) -> str | None:
    """What the inbox keeps of an event beside its name and verb, as JSON; None for a thin event."""
    carried = event.carried or event.request
    return None if carried is None else json.dumps(asdict(carried), ensure_ascii=False)


def _insert_rejected(
    platform: Platform, connection: Connection, state: StreamState, rejected: list[tuple[Message, Rejected]]
) -> None:
    if not rejected:
        return
    connection.execute(
        platform.postgres.query("insert_rejected"),
        {
            "stream": state.name,
            "created_at": state.created_at,
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
