"""Warnings: oddities of messages that were accepted all the same, counted by subject and place; a bounded number."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mcp_assets.entities.refs import EntityRef, ref_or_none
from mcp_assets.events import Event
from mcp_assets.platform import Platform
from mcp_assets.stores.postgres import Connection

_MAX_SUBJECT = 200
"""Characters of a subject that are kept: an index row of PostgreSQL is bounded."""


@dataclass(frozen=True, slots=True)
class MessageWarning:
    """One kind of oddity at one place of the messages on one subject.

    `entity`, `stream`, `epoch` and `seq` are of the newest of these messages.
    """

    subject: str
    error_kind: str
    place: str
    """JSON path, such as `$.data.tags[]`."""
    warning: str
    entity_type: str | None
    entity_id: str | None
    stream: str | None
    epoch: int | None
    """None: the row is older than the column."""
    seq: int | None
    messages: int
    first_at: datetime
    last_at: datetime

    @property
    def entity(self) -> EntityRef | None:
        return ref_or_none(self.entity_type, self.entity_id)

    def as_dict(self) -> dict[str, Any]:
        return {
            "subject": self.subject,
            "error_kind": self.error_kind,
            "place": self.place,
            "warning": self.warning,
            "entity": str(self.entity) if self.entity is not None else None,
            "stream": self.stream,
            "epoch": self.epoch,
            "seq": self.seq,
            "messages": self.messages,
            "first_at": self.first_at,
            "last_at": self.last_at,
        }


def keep_warnings(platform: Platform, connection: Connection, taken_in: Iterable[tuple[Event, str, int, int]]) -> None:
    """Keep the oddities of `taken_in`: events, each with its stream, epoch and sequence."""
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for event, stream, epoch, seq in taken_in:
        for oddity in event.oddities:
            subject = event.subject[:_MAX_SUBJECT]
            known = rows.get((subject, oddity.kind.value, oddity.place))
            rows[subject, oddity.kind.value, oddity.place] = {
                "subject": subject,
                "error_kind": oddity.kind.value,
                "place": oddity.place,
                "warning": oddity.sentence,
                "entity_type": event.ref.type if event.ref is not None else None,
                "entity_id": event.ref.id if event.ref is not None else None,
                "stream": stream,
                "epoch": epoch,
                "seq": seq,
                "messages": 1 + (known["messages"] if known is not None else 0),
            }
    if not rows:
        return
    ordered = [rows[key] for key in sorted(rows)]
    columns = {name: [row[name] for row in ordered] for name in ordered[0]}
    connection.execute(platform.postgres.query("keep_warnings"), columns)
    connection.execute(platform.postgres.query("forget_old_warnings"), {"kept": platform.tuning.inbox.warnings_kept})


def find_warnings(
    platform: Platform, *, entity_type: str | None = None, error_kind: str | None = None, limit: int
) -> list[MessageWarning]:
    """The warnings that match all given filters, the newest first."""
    with platform.postgres.transaction() as connection:
        filters = {"entity_type": entity_type, "error_kind": error_kind, "limit": limit}
        return platform.postgres.rows(connection, "find_warnings", MessageWarning, filters)
