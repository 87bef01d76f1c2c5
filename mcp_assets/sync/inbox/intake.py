"""Intake: a stream is read once, in order, into the inbox; the cursor and what it passed move in one transaction."""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache

from mcp_assets.events import Event, MessageKind, Rejected, parse, payload_of
from mcp_assets.platform import Platform
from mcp_assets.stores.errors import StoreRefused, StoreUnavailable
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.streams import Message, Read, StreamState
from mcp_assets.sync.inbox.message_warnings import keep_warnings
from mcp_assets.sync.inbox.stream_limits import absent_stream, can_be_made

logger = logging.getLogger(__name__)

MESSAGES_A_READ = 5_000
BYTES_A_READ = 16 << 20

_FOREIGN_PASSED_EVERY = timedelta(minutes=1)

_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a stream has been read in its present epoch: to the message `last_seq`.

    `last_stored_at` and `last_digest` are of that message, None if it was not read. No message of the epoch was stored
    after `newest_stored_at`; a message stored at `read_before` or earlier may have been read in an earlier epoch.
    """

    epoch: int
    stream_created_at: datetime
    last_seq: int
    newest_stored_at: datetime = _NEVER
    last_stored_at: datetime | None = None
    last_digest: bytes | None = None
    read_before: datetime | None = None

    def moved_to(self, messages: Sequence[Message]) -> "Cursor":
        """The cursor behind `messages`, which are not empty and in the order of the stream."""
        last = messages[-1]
        return replace(
            self,
            last_seq=last.seq,
            newest_stored_at=max(self.newest_stored_at, *(message.stored_at for message in messages)),
            last_stored_at=last.stored_at,
            last_digest=last.digest,
        )


@dataclass(frozen=True, slots=True)
class Intake:
    """What one call of `intake` did."""

    accepted: int = 0
    rejected: int = 0
    gap: str | None = None
    """Messages were lost before they were read: what happened. A full sync has been asked for."""
    more: bool = False
    """The stream holds more, or someone else moved the cursor: call again."""
    unread: tuple[str, ...] = ()
    """Streams that could not be read, each with the reason; the others were."""

    def __add__(self, other: "Intake") -> "Intake":
        return Intake(
            self.accepted + other.accepted,
            self.rejected + other.rejected,
            self.gap or other.gap,
            self.more or other.more,
            self.unread + other.unread,
        )


def intake(platform: Platform, *, wait_s: float) -> Intake:
    """Take in what the streams hold beyond their cursors; waits up to `wait_s` for the first message.

    Every sensor and every drain calls this, at once if it comes so: the cursor moves by compare-and-set.
    No transaction is open while waiting. A stream that cannot be read does not stop those named after it.

    Raises:
        StoreUnavailable: NATS or PostgreSQL does not answer, for none of the streams.
        StoreRefused: none of the streams can be read: absent, not to be made, or forbidden.
    """
    streams = platform.settings.streams
    done = Intake()
    errors: list[StoreRefused | StoreUnavailable] = []
    for name in streams:
        try:
            done += _intake_stream(platform, name, wait_s / len(streams))
        except (StoreRefused, StoreUnavailable) as error:
            errors.append(error)
            done += Intake(unread=(f"{name}: {error}",))
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
    """Intake is called every few seconds; the check `intake_is_current` tells what lasts."""
    logger.warning("a stream cannot be read, and the others are: %s", reason)


def _intake_stream(platform: Platform, name: str, wait_s: float) -> Intake:
    # The cursor first: one that someone else moves after the state was read would look like a stream that was reset.
    cursor = _cursor(platform, name) or _new_cursor(platform, name)
    state = _state(platform, name)
    rewound = find_rewind(cursor, state)
    if rewound is not None:
        if _still_holds_last(platform, name, cursor, state):
            # A node that was asked has not heard of it yet.
            return Intake(more=True)
        return _begin_epoch(platform, name, cursor, state, rewound)
    gap = find_gap(cursor, state)
    if gap is not None:
        return _pass_gap(platform, name, cursor, replace(cursor, last_seq=state.first_seq - 1, last_digest=None), gap)
    read = platform.nats.read(
        state,
        cursor.last_seq,
        limit=MESSAGES_A_READ,
        max_bytes=BYTES_A_READ,
        wait_s=max(wait_s, 0.05),
        with_last=cursor.last_digest is not None,
        past_foreign=is_left_behind(cursor, state),
    )
    replaced = find_replacement(cursor, read)
    if replaced is not None:
        return _begin_epoch(platform, name, cursor, _state(platform, name), replaced)
    if not read.messages:
        return Intake()
    hole = _hole(platform, cursor, state, read.messages)
    return _take_in(platform, name, cursor, read, hole)


def _take_in(platform: Platform, name: str, cursor: Cursor, read: Read, hole: str | None) -> Intake:
    ours = [message for message in read.messages if message.ours]
    parsed = [(message, parse(message.subject, message.data, platform.type_names)) for message in ours]
    with platform.postgres.transaction() as connection:
        if not _move(platform, connection, name, cursor, cursor.moved_to(read.messages)):
            # Someone else was first.
            return Intake(more=True)
        again = _taken_in_before(platform, connection, name, cursor, parsed)
        parsed = [(message, event) for message, event in parsed if message.seq not in again]
        accepted = [(message, event) for message, event in parsed if isinstance(event, Event)]
        rejected = [(message, event) for message, event in parsed if isinstance(event, Rejected)]
        _insert_accepted(platform, connection, name, cursor, accepted)
        keep_warnings(platform, connection, ((event, name, cursor.epoch, message.seq) for message, event in accepted))
        _insert_rejected(platform, connection, name, cursor, rejected)
        if hole is not None:
            _want_full_syncs(platform, connection, f"stream {name}: {hole}")
    return Intake(len(accepted), len(rejected), hole, read.more)


def _taken_in_before(
    platform: Platform,
    connection: Connection,
    name: str,
    cursor: Cursor,
    parsed: Sequence[tuple[Message, Event | Rejected]],
) -> set[int]:
    """Sequences of messages that were taken in in an earlier epoch, and that are not to be taken in again.

    Those are messages that still wait or are dead letters, and requests: an old request must not be worked off twice.
    Any other event that is read again is applied again, which changes nothing: it has its old place in the order.
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


def _begin_epoch(platform: Platform, name: str, cursor: Cursor, state: StreamState, reason: str) -> Intake:
    """Read the stream from its first message on as another life of it. What was accepted before stays as it is."""
    begun = Cursor(
        cursor.epoch + 1,
        state.created_at,
        state.first_seq - 1,
        read_before=max(cursor.newest_stored_at, cursor.read_before or _NEVER),
    )
    return _pass_gap(platform, name, cursor, begun, reason)


def _pass_gap(platform: Platform, name: str, cursor: Cursor, moved: Cursor, reason: str) -> Intake:
    """Messages may be lost: go on behind them, and ask for full syncs."""
    with platform.postgres.transaction() as connection:
        if not _move(platform, connection, name, cursor, moved):
            return Intake(more=True)
        _want_full_syncs(platform, connection, f"stream {name}: {reason}")
    logger.warning("stream %s: %s; a full sync is asked for", name, reason)
    return Intake(gap=reason, more=True)


def find_rewind(cursor: Cursor, state: StreamState) -> str | None:
    """What shows that the stream is not the one that was read, or was set back; None if nothing does."""
    if state.created_at != cursor.stream_created_at:
        return f"the stream was made anew at {state.created_at.isoformat()}"
    if state.last_seq < cursor.last_seq:
        return (
            f"the stream ends at {state.last_seq}, before the {cursor.last_seq} already read: it was restored or reset"
        )
    return None


def find_replacement(cursor: Cursor, read: Read) -> str | None:
    """What shows that the stream was set back and filled again, past what was read of it; None if nothing does."""
    if read.last is not None:
        if cursor.last_digest is None or (read.last.stored_at, read.last.digest) == (
            cursor.last_stored_at,
            cursor.last_digest,
        ):
            return None
        return f"message {cursor.last_seq} is another one than was read: the stream was set back and has been refilled"
    if not read.messages or cursor.last_stored_at is None or read.messages[0].stored_at >= cursor.last_stored_at:
        return None
    return (
        f"message {read.messages[0].seq} was stored before message {cursor.last_seq}, which was read and is gone: "
        "the stream was set back and has been refilled"
    )


def find_gap(cursor: Cursor, state: StreamState) -> str | None:
    """What was lost between the cursor and what the stream still holds; None if nothing was, or nothing shows it."""
    if state.first_seq > cursor.last_seq + 1 and not state.traits.filtered_mirror:
        return f"messages {cursor.last_seq + 1} to {state.first_seq - 1} were discarded before they were read"
    return None


def is_left_behind(cursor: Cursor, state: StreamState) -> bool:
    """Whether the cursor should move past foreign messages, before the stream discards them and they look like a loss.

    It does so once a minute, and when it stands in the older half of the stream.
    """
    if not state.foreign_subjects or state.last_seq <= cursor.last_seq:
        return False
    if cursor.last_stored_at is None or state.last_stored_at is None:
        return True
    return (
        state.last_stored_at - cursor.last_stored_at > _FOREIGN_PASSED_EVERY
        or cursor.last_seq < (state.first_seq + state.last_seq) // 2
    )


def find_hole(after_seq: int, messages: Iterable[Message]) -> str | None:
    """The first sequence missing among `messages`, which should go on from `after_seq`; None if none is."""
    for message in messages:
        if message.seq != after_seq + 1:
            return f"messages {after_seq + 1} to {message.seq - 1} were discarded before they were read"
        after_seq = message.seq
    return None


def event_order(stored_at: datetime, stream: str, epoch: int, seq: int) -> str:
    """Place of a message among all of all streams, to compare as text: time stored, stream, sequence, epoch.

    A message that is read again in a later epoch stands directly behind itself, before all that was stored after it.
    """
    micros = (stored_at - _NEVER) // _MICROSECOND
    return f"{micros:017d}|{stream}|{seq:020d}|{epoch:010d}"


_MICROSECOND = datetime.resolution


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


def _still_holds_last(platform: Platform, name: str, cursor: Cursor, state: StreamState) -> bool:
    """Whether the stream, which said that it ends before the cursor, nevertheless has the message that was read."""
    if state.created_at != cursor.stream_created_at or cursor.last_digest is None:
        return False
    held = platform.nats.message(name, cursor.last_seq)
    return held is not None and (held.stored_at, held.digest) == (cursor.last_stored_at, cursor.last_digest)


def _hole(platform: Platform, cursor: Cursor, state: StreamState, messages: Sequence[Message]) -> str | None:
    """The first messages that are missing among those that were read and that may have been ours."""
    hole = find_hole(cursor.last_seq, messages)
    if hole is None or state.traits.filtered_mirror:
        return None
    if not state.foreign_subjects:
        return hole
    limit = state.traits.max_per_subject
    subjects = Counter(message.subject for message in messages if message.ours)
    if limit and max(subjects.values(), default=0) < limit:
        # The limit takes away one of ours only if as many of the same subject stand behind it.
        return None
    deleted = platform.nats.deleted_between(state.name, cursor.last_seq, messages[-1].seq)
    if not deleted:
        return None
    return (
        f"{deleted} messages between {cursor.last_seq + 1} and {messages[-1].seq} were discarded before they were "
        "read, and may have been ours"
    )


def _move(platform: Platform, connection: Connection, stream: str, old: Cursor, new: Cursor) -> bool:
    """Compare-and-set; False if the cursor is no longer at `old`."""
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
) -> None:
    if not accepted:
        return
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
            "kind": [event.kind.value for _, event in accepted],
            "subject": [event.subject for _, event in accepted],
            "entity_type": [event.ref and event.ref.type for _, event in accepted],
            "entity_id": [event.ref and event.ref.id for _, event in accepted],
            "verb": [event.verb.value for _, event in accepted],
            "payload": [payload_of(event) for _, event in accepted],
            "message_id": [event.message_id for _, event in accepted],
            "event_order": [
                event_order(at, stream, cursor.epoch, message.seq)
                for at, (message, _) in zip(stored_at, accepted, strict=True)
            ],
            "stored_at": stored_at,
        },
    )


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
