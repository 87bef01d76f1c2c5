"""Incremental sync: brings the named entities up to date with their source rows: ledger, points, edges."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field

from mcp_assets.embedding.protocol import Refusal
from mcp_assets.entities.refs import EntityRef
from mcp_assets.platform import Platform
from mcp_assets.retrying import retrying
from mcp_assets.sync.index.batch_report import BatchReport, Counts
from mcp_assets.sync.index.indexer import Indexer, index_until_current
from mcp_assets.sync.index.ledger import Wanted
from mcp_assets.sync.link.counts import LinkCounts
from mcp_assets.sync.link.linker import link_until_done
from mcp_assets.sync.link.marks import Reason, mark
from mcp_assets.sync.pipeline import overlapped
from mcp_assets.sync.resolve_ids import by_type, pages

_MARKED_AT_ONCE = 5_000
"""Entities that one transaction marks: it holds row locks, and the linker waits for them."""


@dataclass(slots=True)
class Synced:
    """The result of bringing entities up to date."""

    counts: Counts = field(default_factory=Counts)
    links: LinkCounts = field(default_factory=LinkCounts)
    refusals: dict[EntityRef, Refusal] = field(default_factory=dict)
    """Entities that were dead-lettered, with the reason."""
    unknown: set[EntityRef] = field(default_factory=set)
    """Entities without a source row and without a ledger row."""


def bring_up_to_date(platform: Platform, refs: Sequence[EntityRef], *, force: bool = False) -> Synced:
    """Index `refs` from their source rows, and link them. `force`: texts that have not changed are embedded, too.

    What was committed before an error stays; another call does the rest.

    Raises:
        StoreUnavailable, StoreRefused, CollectionMismatch, EmbedderUnavailable.
    """
    synced = Synced()
    index(platform, refs, synced, force=force)
    relink(platform, refs, synced.links)
    return synced


def index(platform: Platform, refs: Sequence[EntityRef], synced: Synced, *, force: bool = False) -> None:
    """Bring ledger rows and points of `refs` up to date; the counts are added to `synced`."""
    for entity_type, ids in by_type(refs).items():
        indexer = Indexer(platform, entity_type)

        def work(batch: list[str], indexer: Indexer = indexer) -> BatchReport:
            wanted = [Wanted(entity_id) for entity_id in batch]
            return index_until_current(platform, indexer, wanted, force=force, embed=True)

        batches = pages(ids, platform.settings.batch_size)
        with closing(
            overlapped(batches, work, in_flight=platform.embedder.concurrency + 1, give_up=indexer.give_up)
        ) as worked:
            for _, report in worked:
                for counts in report.shards.values():
                    synced.counts.add(counts)
                synced.unknown |= {EntityRef(entity_type, entity_id) for entity_id in report.unknown}
                synced.refusals |= {
                    EntityRef(entity_type, entity_id): refusal for entity_id, refusal in report.refusals.items()
                }


def relink(platform: Platform, refs: Sequence[EntityRef], links: LinkCounts) -> None:
    """Link `refs` again by all rules, and all other entities that are marked."""

    def mark_all(page: Sequence[EntityRef]) -> None:
        with platform.postgres.transaction() as connection:
            for reason in (Reason.CHANGED, Reason.REFERENCES, Reason.LISTS):
                mark(platform, connection, page, reason)

    for page in pages(refs, _MARKED_AT_ONCE):
        retrying(platform.settings)(mark_all, page)
    for report in link_until_done(platform):
        links.add(report.total())
