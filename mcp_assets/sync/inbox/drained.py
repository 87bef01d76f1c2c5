"""Drained: what one batch of the inbox came to."""

from dataclasses import dataclass, field

from mcp_assets.entities.refs import EntityRef
from mcp_assets.sync.index.batch_report import BatchReport


@dataclass(frozen=True, slots=True)
class IdentifiedMessage:
    """A message with an id: its sender recognizes the answer by this id."""

    subject: str
    entity_id: str
    message_id: str
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class TracedEvent:
    """An event that belongs to a trace."""

    entity_id: str
    traceparent: str


@dataclass(slots=True)
class Drained:
    """What one batch of the inbox came to. Without messages: for now the inbox of the type is empty."""

    entity_type: str
    messages: int
    report: BatchReport = field(default_factory=BatchReport)
    relate: tuple[EntityRef, ...] = ()
    """Entities that messages asked to re-link; they are marked for it."""
    entity_ids: tuple[str, ...] = ()
    """The entities that are done: neither superseded nor waiting for a recheck."""
    given_up: tuple[str, ...] = ()
    """Entities that are unknown after the last recheck: they were dead-lettered."""
    identified: tuple[IdentifiedMessage, ...] = ()
    """The messages with ids that have left the inbox."""
    traced: tuple[TracedEvent, ...] = ()
    """The events that belong to traces and whose entities are done: they are linked later."""
    error: BaseException | None = None
    """The worker of a type that was taken over has ended with this error; messages in flight stay in the inbox."""
