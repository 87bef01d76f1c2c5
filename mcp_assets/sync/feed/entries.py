"""Entries: what the change feed tells, and where a reader stands in it."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Self

from mcp_assets.entities.refs import partition_key

_POSITION = re.compile(r"([0-9a-f]{8})-(\d{1,19})-(\d{1,19})")

_SPAN = re.compile(r"(\d{1,6})(s|m|h|d)")

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class ChangeKind(StrEnum):
    """What changed."""

    INDEXED = "indexed"
    REMOVED = "removed"
    EDGE_ADDED = "edge_added"
    EDGE_CHANGED = "edge_changed"
    EDGE_REMOVED = "edge_removed"
    EDGES_REBUILT = "edges_rebuilt"
    """All edges from the entities of a partition may have changed."""
    RESTARTED = "restarted"
    """Changes were made before of which the feed does not tell."""


class EntityReason(StrEnum):
    """What led to a change of an entity."""

    NEW = "new"
    TEXT = "text"
    METADATA = "metadata"
    DELETED = "deleted"
    EMPTY = "empty"
    """The entity lives, and has no text left by which it could be found."""


class EdgeReason(StrEnum):
    """What led to a change of an edge."""

    TEXT = "text"
    """The text of one of its ends is new or another."""
    TAGS = "tags"
    """The tags of one of its ends, or the weight of one, are others."""
    REFERENCE = "reference"
    """A reference came or went, or what it leads to did."""
    RANKING = "ranking"
    """The ends did not change: another entity took or freed a place in a list, or the rules are others."""
    VERDICT = "verdict"
    """A person accepted or rejected it."""
    ENTITY_REMOVED = "entity_removed"
    REBUILD = "rebuild"
    REPAIR = "repair"
    """A repair removed it, because an end was missing."""


class RestartReason(StrEnum):
    """Why the feed tells nothing of what was before."""

    BEGUN = "begun"
    """The feed was off, or the database was restored."""
    EXPIRED = "expired"
    """Entries were deleted because of their age before NATS had them."""


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """The place behind an entry; as text, what a reader keeps and gives again."""

    edition: str
    xid: int
    seq: int

    def __str__(self) -> str:
        return f"{self.edition}-{self.xid}-{self.seq}"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The position that `text` is; None if it is none."""
        found = _POSITION.fullmatch(text)
        return cls(found[1], int(found[2]), int(found[3])) if found else None


class NoPosition(ValueError):
    """A text is neither a position nor a time."""


def parse_since(text: str, now: datetime) -> Position | datetime:
    """A position, a time, or a span before `now` such as 90s, 30m, 2h or 7d. A time without a zone is UTC.

    Raises:
        NoPosition: it is none of them.
    """
    position = Position.parse(text)
    if position is not None:
        return position
    span = _SPAN.fullmatch(text)
    try:
        if span:
            return now - timedelta(**{_UNITS[span[2]]: int(span[1])})
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise NoPosition(
            f"{text!r} is neither a position of the feed, nor a time such as 2026-12-01T08:00, nor a span such as 2h"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Entry:
    """One change. Which fields are set follows from `kind`."""

    xid: str
    seq: int
    made_at: datetime
    kind: str
    reason: str
    entity_type: str | None
    entity_id: str | None
    state_hash: str | None
    edge_type: str | None
    target_type: str | None
    target_id: str | None
    strength: float | None
    shard: int | None

    def position(self, edition: str) -> Position:
        """The place behind this entry."""
        return Position(edition, int(self.xid), self.seq)

    def told(self, edition: str, shards: int) -> dict[str, Any]:
        """The entry as programs get it: by the command line, by MCP and by NATS alike. `shards`: of each type."""
        told: dict[str, Any] = {
            "position": str(self.position(edition)),
            "kind": self.kind,
            "reason": self.reason,
            "made_at": self.made_at.isoformat(timespec="milliseconds"),
        }
        if self.entity_id is not None:
            told["entity"] = f"{self.entity_type}:{self.entity_id}"
        if self.state_hash is not None:
            told["state_hash"] = self.state_hash
        if self.edge_type is not None:
            told |= {"edge_type": self.edge_type, "target": f"{self.target_type}:{self.target_id}"}
            told["strength"] = None if self.strength is None else round(self.strength, 4)
        if self.shard is not None:
            told["partition"] = partition_key(str(self.entity_type), self.shard, shards)
        return told
