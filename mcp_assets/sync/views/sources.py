"""Sources: the figures of source tables and streams, which show growth and lag."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.stores.source_tables.figures import TableFigures
from mcp_assets.sync.inbox.stream_limits import stream_backlog


@dataclass(frozen=True, slots=True)
class StreamFigures:
    """One JetStream stream, and how far intake and drains are behind it."""

    messages: int
    """Messages that the stream holds."""
    last_sequence: int
    unread: int
    """Messages that intake has not read: at most this many, because foreign messages between ours are counted, too."""
    unapplied: int
    """Messages in the inbox: they are read, and no drain has applied them yet."""
    lag_s: float
    """Seconds since JetStream stored the oldest message that is not applied; 0: all are applied."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """The messages of one stream in the inbox."""

    messages: int
    oldest_at: datetime | None


@dataclass(frozen=True, slots=True)
class Source:
    """A source table, with the entity types that its rows become, or a stream, which has none."""

    name: str
    entity_types: tuple[str, ...] = ()

    @property
    def is_table(self) -> bool:
        return bool(self.entity_types)


def sources_of(settings: Settings) -> list[Source]:
    """All source tables, in the order of their entity types, then all streams."""
    tables: dict[str, list[str]] = {}
    for name, entity_type in settings.entity_types.items():
        if entity_type.source is not None:
            tables.setdefault(entity_type.source.table, []).append(name)
    return [*(Source(table, tuple(types)) for table, types in tables.items()), *map(Source, settings.streams)]


def table_figures(platform: Platform, entity_types: Sequence[str]) -> TableFigures:
    """The figures of the source table that `entity_types` share. A row counts as alive if it is for one of them.

    Raises:
        StoreRefused, StoreUnavailable: the table cannot be read.
    """
    found = []
    with platform.postgres.transaction() as connection:
        for entity_type in entity_types:
            reader = platform.source(entity_type)
            assert reader is not None  # noqa: S101  (only types with a source table are asked for)
            found.append(reader.figures(connection))
    living = [one.living for one in found if one.living is not None]
    return TableFigures(
        found[0].rows,
        sum(living) if len(living) == len(found) else None,
        max((one.newest_at for one in found if one.newest_at is not None), default=None),
        found[0].columns,
    )


def stream_figures(platform: Platform, name: str) -> StreamFigures | None:
    """The figures of the stream `name`; None if it does not exist yet.

    Raises:
        StoreRefused, StoreUnavailable: NATS or PostgreSQL does not answer.
    """
    state = platform.nats.state(name)
    if state is None:
        return None
    backlog = stream_backlog(platform, name)
    with platform.postgres.transaction() as connection:
        waiting = platform.postgres.row(connection, "inbox_of_stream", _Waiting, {"stream": name})
    assert waiting is not None  # noqa: S101  (an aggregate without groups has one row)
    oldest = min((at for at in (backlog.oldest_unread_at, waiting.oldest_at) if at is not None), default=None)
    lag_s = (datetime.now(UTC) - oldest).total_seconds() if oldest is not None else 0.0
    return StreamFigures(
        messages=max(0, state.last_seq - state.first_seq + 1 - state.deleted),
        last_sequence=state.last_seq,
        unread=backlog.unread,
        unapplied=waiting.messages,
        lag_s=max(0.0, lag_s),
    )
