"""Batch report: what happened to the entities of one batch, as counts by shard and as ids."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields

from mcp_assets.embedding.protocol import Refusal
from mcp_assets.entities.refs import partition_key, shard_of, slot_of
from mcp_assets.platform import Platform
from mcp_assets.sync.sums import add_fields
from mcp_assets.traces import Stage


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
    """None: the provider does not report tokens."""

    def add(self, other: "Counts") -> None:
        add_fields(self, other, (field.name for field in fields(self) if field.name != "tokens"))
        if other.tokens is not None:
            self.tokens = (self.tokens or 0) + other.tokens


@dataclass(slots=True)
class BatchReport:
    """What one batch did, and which entities have to be indexed again."""

    shards: dict[int, Counts] = field(default_factory=dict)
    superseded: set[str] = field(default_factory=set)
    """Ids that were not written, because their state changed meanwhile, or because a point turned out to be missing."""
    unknown: set[str] = field(default_factory=set)
    """Ids that neither source, ledger nor event knows."""
    early: set[str] = field(default_factory=set)
    """Ids whose event may have come before the commit of their source row: they need a recheck."""
    refusals: dict[str, Refusal] = field(default_factory=dict)
    """Why entities, by id, were dead-lettered."""
    outcomes: dict[str, str] = field(default_factory=dict)
    """For each entity that was written or refused, by id: the field of `Counts` that counts it."""
    stages: list[Stage] = field(default_factory=list)
    """What the batch did, in order."""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Note what the block does."""
        began_ns = time.time_ns()
        yield
        self.stages.append(Stage(name, began_ns, time.time_ns()))

    def counts_for(self, entity_id: str, shards: int) -> Counts:
        """The counts of the shard that `entity_id` falls into; `shards`: how many there are."""
        return self.shards.setdefault(shard_of(slot_of(entity_id), shards), Counts())


def log_batch(
    logger: logging.Logger, message: str, platform: Platform, entity_type: str, report: BatchReport, began_at: float
) -> None:
    """The one line about a batch that began at `began_at`, of the monotonic clock; logs of text leave it out."""
    if not logger.isEnabledFor(logging.INFO):
        return
    total = Counts()
    for counts in report.shards.values():
        total.add(counts)
    shards = platform.settings.shards
    logger.info(
        message,
        extra={
            "entity_type": entity_type,
            "partitions": [partition_key(entity_type, shard, shards) for shard in sorted(report.shards)],
            "counts": {name: number for name, number in asdict(total).items() if number},
            "seconds": round(time.monotonic() - began_at, 3),
        },
    )
