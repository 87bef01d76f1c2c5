"""Table counts: how many messages, entities and dead letters wait in the platform's tables; wanted full syncs."""

from dataclasses import dataclass
from datetime import datetime

from mcp_assets.platform import Platform
from mcp_assets.stores.postgres import Connection


@dataclass(frozen=True, slots=True)
class InboxCount:
    """The messages of one kind about one entity type in the inbox."""

    kind: str
    entity_type: str
    """Empty for a request, which is about no single type."""
    messages: int
    oldest_at: datetime
    """When JetStream stored the oldest of them."""

    @property
    def name(self) -> str:
        return f"{self.kind} {self.entity_type}".strip()


@dataclass(frozen=True, slots=True)
class LedgerCount:
    """The living entities of one type, and the dirty ones, whose present state is not in Qdrant yet."""

    entity_type: str
    living: int
    dirty: int


@dataclass(frozen=True, slots=True)
class DeadLetterCount:
    """The dead letters of one stage and kind of error that are not replayed."""

    stage: str
    error_kind: str
    letters: int

    @property
    def name(self) -> str:
        return f"{self.stage}/{self.error_kind}"


@dataclass(frozen=True, slots=True)
class WantedFullSync:
    """An entity type whose events were lost, so that it needs a full sync."""

    entity_type: str
    reason: str


def inbox_counts(platform: Platform, connection: Connection) -> list[InboxCount]:
    """By kind and entity type, in this order."""
    return platform.postgres.rows(connection, "inbox_counts", InboxCount)


def ledger_counts(platform: Platform, connection: Connection) -> list[LedgerCount]:
    """By entity type. A dirty entity with a dead letter of its present state is not counted as dirty."""
    return platform.postgres.rows(connection, "ledger_counts", LedgerCount)


def dead_letter_counts(platform: Platform, connection: Connection) -> list[DeadLetterCount]:
    """By stage and kind of error, in this order."""
    return platform.postgres.rows(connection, "dead_letter_counts", DeadLetterCount)


def wanted_full_syncs(platform: Platform, connection: Connection) -> list[WantedFullSync]:
    """By entity type; also of types that the settings do not name any more."""
    return platform.postgres.rows(connection, "wanted_full_syncs", WantedFullSync)
