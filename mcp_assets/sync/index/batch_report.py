"""Batch report: what happened to the entities of one batch, as counts by shard and as ids."""

from dataclasses import dataclass, field

from mcp_assets.embedding.protocol import Refusal


@dataclass(slots=True)
class Counts:
    """What happened to the entities of a batch, a partition or a run."""

    scanned: int = 0
    embedded: int = 0
    """Entities whose text was embedded."""
    texts: int = 0
    """Texts embedded: entities and chunks."""
    updated: int = 0
    """Entities whose payload was replaced without embedding."""
    unchanged: int = 0
    deleted: int = 0
    empty: int = 0
    """Entities without any text: they have no point."""
    failed: int = 0
    tokens: int | None = None

    def add(self, other: "Counts") -> None:
        self.scanned += other.scanned
        self.embedded += other.embedded
        self.texts += other.texts
        self.updated += other.updated
        self.unchanged += other.unchanged
        self.deleted += other.deleted
        self.empty += other.empty
        self.failed += other.failed
        if other.tokens is not None:
            self.tokens = (self.tokens or 0) + other.tokens


@dataclass(slots=True)
class BatchReport:
    """What one batch did, by shard, and what has to be looked at again."""

    shards: dict[int, Counts] = field(default_factory=dict)
    superseded: set[str] = field(default_factory=set)
    """Ids whose state moved on while they were embedded, or whose point turned out to be missing: not written yet."""
    unknown: set[str] = field(default_factory=set)
    """Ids of which neither source, ledger nor event says anything."""
    early: set[str] = field(default_factory=set)
    """Ids whose event may have come before the commit of their source row: they are to be looked at again."""
    refusals: dict[str, Refusal] = field(default_factory=dict)
    """Why entities, by id, were dead-lettered."""
    outcomes: dict[str, str] = field(default_factory=dict)
    """Which of the counts each entity that was written, or refused, is in, by id."""
