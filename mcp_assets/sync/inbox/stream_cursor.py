"""Stream cursor: how far a stream has been read, and what shows that messages were lost or the stream was replaced.

An epoch is the life of a stream until it is made again, restored from a backup, or reset. After each of these the
same sequences may belong to other messages, so that only (stream, epoch, sequence) identifies a message. Pure, no I/O.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from mcp_assets.stores.streams import Message, Read, StreamState

UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""Stands for the time of a message where none has been read: JetStream stores no message before it."""

_FOREIGN_PASSED_EVERY = timedelta(minutes=1)
"""How far, in stored time, the cursor may fall behind the end of a stream that gets foreign messages only.

Each move of the cursor past foreign messages is a request to NATS and a transaction.
"""


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a stream has been read in its present epoch: up to the message `last_seq`.

    `last_stored_at` and `last_digest` are of that message, None if it was not read. No message of the epoch was stored
    after `newest_stored_at`; a message stored at `read_before` or earlier may have been read in an earlier epoch.
    """

    epoch: int
    stream_created_at: datetime
    last_seq: int
    newest_stored_at: datetime = UNIX_EPOCH
    last_stored_at: datetime | None = None
    last_digest: bytes | None = None
    read_before: datetime | None = None

    def moved_to(self, messages: Sequence[Message]) -> "Cursor":
        """The cursor behind `messages`: at least one, in the order of the stream."""
        last = messages[-1]
        return replace(
            self,
            last_seq=last.seq,
            newest_stored_at=max(self.newest_stored_at, *(message.stored_at for message in messages)),
            last_stored_at=last.stored_at,
            last_digest=last.digest,
        )


def find_rewind(cursor: Cursor, state: StreamState) -> str | None:
    """What shows that the stream was made again or set back since it was read; None if nothing shows it."""
    if state.created_at != cursor.stream_created_at:
        return f"the stream was made again at {state.created_at.isoformat()}"
    if state.last_seq < cursor.last_seq:
        return (
            f"the stream ends at {state.last_seq}, before the {cursor.last_seq} already read: it was restored or reset"
        )
    return None


def find_replacement(cursor: Cursor, read: Read) -> str | None:
    """What shows that the stream was set back and filled again beyond the cursor; None if nothing shows it."""
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
    """Which messages were discarded between the cursor and the first that the stream holds; None if none are known."""
    if state.first_seq > cursor.last_seq + 1 and not state.traits.filtered_mirror:
        return f"messages {cursor.last_seq + 1} to {state.first_seq - 1} were discarded before they were read"
    return None


def is_left_behind(cursor: Cursor, state: StreamState) -> bool:
    """Whether the cursor should move past foreign messages. Once the stream discards them, they look like a loss.

    It moves once a minute, and when it stands in the older half of the stream.
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
    """The first sequences that are missing among `messages`, which should follow `after_seq`; None if none are."""
    for message in messages:
        if message.seq != after_seq + 1:
            return f"messages {after_seq + 1} to {message.seq - 1} were discarded before they were read"
        after_seq = message.seq
    return None
