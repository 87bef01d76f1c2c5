"""Stream limits: what the configuration of a stream means for intake, and where a loss cannot be noticed."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.stores.streams import MAX_DELETED, Retention, StreamState
from mcp_assets.sync.inbox.stream_cursor import Cursor

_OWN_STREAM = "let the platform read a stream of its own that sources from it with the platform's subjects"


@dataclass(frozen=True, slots=True)
class Meaning:
    """What the configuration means, in sentences. `blind`: why a loss may go unnoticed; empty if it cannot."""

    words: tuple[str, ...]
    blind: tuple[str, ...]


def can_be_made(settings: Settings) -> bool:
    """Whether intake makes an absent stream."""
    return settings.create_stream and len(settings.streams) == 1


def absent_stream(name: str) -> str:
    """The error for a stream that the settings name, that is absent, and that intake may not make."""
    return (
        f"there is no stream {name} on the NATS server: check MCP_ASSETS_STREAMS, or let it be made "
        "(MCP_ASSETS_CREATE_STREAM=true, with a single stream)"
    )


def meaning_of(state: StreamState) -> Meaning:
    """What the configuration of a stream means for intake."""
    return Meaning((*_retention(state), *_limits(state), *_copies(state), *_origin(state)), tuple(_blind(state)))


@dataclass(frozen=True, slots=True)
class StreamBacklog:
    """The messages of a stream that intake has not read, as its leader reports them."""

    name: str
    unread: int = 0
    """At most this many, because foreign messages between ours are counted, too."""
    oldest_unread_at: datetime | None = None
    """When the stream stored the first unread message; None if there is none."""
    blind: tuple[str, ...] = ()
    """Why a loss may go unnoticed."""
    absent: str | None = None
    """What to do about a stream that is absent and that intake may not make; None if it is there or can be made."""


def stream_backlog(platform: Platform, name: str) -> StreamBacklog:
    """Compare the stream `name` with its cursor.

    Raises:
        StoreUnavailable, StoreRefused: the stream or the cursor cannot be read.
    """
    state = platform.nats.state(name)
    if state is None:
        return StreamBacklog(name, absent=None if can_be_made(platform.settings) else absent_stream(name))
    with platform.postgres.transaction() as connection:
        cursor = platform.postgres.row(connection, "read_cursor", Cursor, {"stream": name})
    blind = meaning_of(state).blind
    # If the stream was made again since, the cursor is that of its predecessor.
    if cursor is not None and cursor.stream_created_at == state.created_at:
        read = cursor.last_seq
    else:
        read = state.first_seq - 1
    if state.last_seq <= read:
        return StreamBacklog(name, blind=blind)
    first = platform.nats.next_message(state, read)
    if first is None:
        return StreamBacklog(name, blind=blind)
    return StreamBacklog(name, state.last_seq - first.seq + 1, first.stored_at, blind)


def _retention(state: StreamState) -> Iterator[str]:
    match state.traits.retention:
        case Retention.LIMITS:
            return
        case Retention.WORK_QUEUE:
            yield (
                "it is a work queue: a message that another consumer acknowledges is gone, and if the platform has not "
                "read it by then, that is a loss which asks for a full sync"
            )
        case Retention.INTEREST:
            yield (
                "it keeps a message only while some consumer waits for it, and the platform, which has no lasting "
                "consumer, does not count as one: what is gone before it is read is a loss which asks for a full sync"
            )
    yield f"it is read without a consumer, more slowly; better {_OWN_STREAM}"


def _limits(state: StreamState) -> Iterator[str]:
    traits = state.traits
    limits = [
        *([f"{_duration(traits.max_age_s)}"] if traits.max_age_s else []),
        *([f"{traits.max_messages:,} messages"] if traits.max_messages else []),
        *([f"{traits.max_bytes:,} bytes"] if traits.max_bytes else []),
    ]
    if not limits:
        yield "it keeps messages without limit: it grows until the disk of NATS is full"
    elif traits.refuses_new:
        yield f"it keeps {' or '.join(limits)}, and refuses what is published when it is full"
    else:
        yield (
            f"it keeps {' or '.join(limits)}: if the platform is away for longer than that lasts, "
            "events are lost, which is noticed and asks for a full sync"
        )
    if traits.max_per_subject:
        yield (
            f"it keeps {traits.max_per_subject:,} messages of each subject, and events share subjects: more events in "
            "a row than that, while nothing reads, push out one another"
        )
    if traits.message_ttl:
        yield "a message may bear its own time to live, and is lost if that ends before it is read"


def _copies(state: StreamState) -> Iterator[str]:
    traits = state.traits
    if traits.in_memory:
        yield "it is kept in memory: what was not read when its server ends is lost; the end is noticed"
    elif traits.replicas == 1:
        yield (
            "it has one replica: what its server confirms before it reaches the disk (sync_interval of the server, "
            "2 minutes unless it is set; NATS does not tell it to its users) a power cut may take away; that the "
            "stream was set back is noticed, and asks for a full sync"
        )
    else:
        yield f"it has {traits.replicas} replicas: the loss of one server loses no message"


def _origin(state: StreamState) -> Iterator[str]:
    traits = state.traits
    if traits.mirror_of is not None:
        yield f"it mirrors {traits.mirror_of}{', and leaves messages out' if traits.filtered_mirror else ''}"
    if traits.sources:
        yield f"it is sourced from {', '.join(traits.sources)}"
    if state.foreign_subjects:
        yield "it carries foreign subjects too, which are not read"


def _blind(state: StreamState) -> Iterator[str]:
    traits = state.traits
    if state.foreign_subjects and state.deleted > MAX_DELETED:
        yield (
            f"{state.deleted:,} messages are missing in it, too many to tell whether ours are among them. "
            f"Better {_OWN_STREAM}"
        )
    if traits.filtered_mirror:
        yield (
            f"it is a filtered mirror: a message that was discarded looks like one that was left out. Better {_SOURCED}"
        )
    if traits.sources:
        yield f"what {', '.join(traits.sources)} discards before it is copied here leaves no trace here"
    if state.foreign_subjects and traits.max_per_subject:
        yield (
            "it limits the messages of each subject and carries foreign subjects: a message that was pushed out may "
            f"have been foreign, or one of ours. Better {_OWN_STREAM}, or raise the limit"
        )


_SOURCED = "a stream that sources from the same origin, for that has sequences of its own"


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"
