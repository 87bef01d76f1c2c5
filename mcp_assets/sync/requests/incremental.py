"""Incremental sync: brings just the named entities up to date, from their source rows: ledger, vectors, edges."""

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


@dataclass(slots=True)
class Synced:
    """What bringing entities up to date came to."""

    counts: Counts = field(default_factory=Counts)
    links: LinkCounts = field(default_factory=LinkCounts)
    refusals: dict[EntityRef, Refusal] = field(default_factory=dict)
    """Entities that were dead-lettered, with the reason."""
    unknown: set[EntityRef] = field(default_factory=set)


def bring_up_to_date(platform: Platform, refs: Sequence[EntityRef], *, force: bool = False) -> Synced:
    """Index `refs` by what their source rows say now, and link them; `force` embeds what has not changed, too.

    What was committed before an error stands; run again, it goes on from there.

    Raises:
        StoreUnavailable, StoreRefused, CollectionMismatch, EmbedderUnavailable.
    """
    synced = Synced()
    index(platform, refs, synced, force=force)
    relink(platform, refs, synced.links)
    return synced


def index(platform: Platform, refs: Sequence[EntityRef], synced: Synced, *, force: bool = False) -> None:
    """Ledger and points of `refs`, counted into `synced`."""
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
    """Work out all edges of `refs` anew, and whatever else waits for the linker."""

    def mark_all(page: Sequence[EntityRef]) -> None:
        with platform.postgres.transaction() as connection:
            for reason in (Reason.CHANGED, Reason.REFERENCES, Reason.LISTS):
                mark(platform, connection, page, reason)

    for page in pages(refs, _MARKED_AT_ONCE):
        retrying(platform.settings)(mark_all, page)
    for report in link_until_done(platform):
        links.add(report.total())
