"""Index run: what a run of the multi-asset does, a drain or a full sync, and the linking beside it."""

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from mcp_assets.defs.event_log import EventLog
from mcp_assets.defs.keys import EDGES, EMBEDDINGS, ENTITIES
from mcp_assets.defs.partitions import ShardRange
from mcp_assets.events import MessageKind
from mcp_assets.platform import Platform
from mcp_assets.retrying import retrying
from mcp_assets.sync.feed.publisher import publish_changes
from mcp_assets.sync.inbox.announce import announce_links, answer_relinked
from mcp_assets.sync.inbox.drain import drain
from mcp_assets.sync.inbox.drain_requests import is_drained, pending_types
from mcp_assets.sync.inbox.drained import Drained, TracedEvent
from mcp_assets.sync.inbox.outbox import publish_waiting
from mcp_assets.sync.index.full_sync import Stages, full_sync
from mcp_assets.sync.index.mass_delete import MassDeletion
from mcp_assets.sync.index.progress import IndexProgress
from mcp_assets.sync.index.synced_partitions import LinkingPartitions
from mcp_assets.sync.link.counts import LinkCounts, LinkReport
from mcp_assets.sync.link.linker import link, link_until_done
from mcp_assets.sync.link.marks import mark_shards
from mcp_assets.sync.link.progress import LinkProgress
from mcp_assets.traces import record

# In a burst that lasts longer than this, entities are linked before the burst has ended.
LINK_AT_LEAST_EVERY_S = 30.0


def created_s_ago(context: dg.AssetExecutionContext) -> float:
    record = context.instance.get_run_record_by_id(context.run.run_id)
    if record is None:
        return 0.0
    created: datetime = record.create_timestamp
    return (datetime.now(UTC) - created.replace(tzinfo=UTC)).total_seconds()


def run_drain(
    platform: Platform, entity_types: Sequence[str], run_id: str, log: EventLog, *, asked_s_ago: float
) -> None:
    """Apply and embed the messages of the run's types and of types taken over; link when all that waits is embedded.

    In a burst, entities that are linked one by one would displace each other from lists of neighbours, and linking
    would keep other entities from being embedded. So the drain that catches up last links for all drains.
    """
    failed: dict[str, BaseException] = {}
    deadline = time.monotonic() + platform.settings.drain_max_s
    with (
        closing(log),
        ThreadPoolExecutor(1, thread_name_prefix="link") as linker,
        ThreadPoolExecutor(1, thread_name_prefix="answers") as publisher,
        closing(_Beside(platform, log, linker, publisher, deadline)) as beside,
    ):
        for entity_type in entity_types:
            with closing(drain(platform, entity_type, run_id, asked_s_ago=asked_s_ago)) as batches:
                failed |= _follow(platform, batches, log, beside)
        beside.finish()
    if failed:
        names = ", ".join(failed)
        raise dg.Failure(
            f"{names}, which this drain had taken over, failed: {next(iter(failed.values()))}. What was not done waits "
            "in the inbox and has a run of its own asked for; the types that the run was launched for are done",
            allow_retries=False,
        ) from next(iter(failed.values()))


def _follow(
    platform: Platform, batches: Iterable[Drained], log: EventLog, beside: "_Beside"
) -> dict[str, BaseException]:
    """Report a drain's batches and have them linked. Returns the errors of the types that it took over, by type."""
    failed: dict[str, BaseException] = {}
    for drained in batches:
        if drained.error is not None:
            failed[drained.entity_type] = drained.error
            log.failed(drained.entity_type, drained.error)
            continue
        for shard, counts in drained.report.shards.items():
            log.touched(drained.entity_type, shard, counts)
        beside.traced += drained.traced
        if drained.messages:
            beside.publish()
        if beside.is_linking:
            # Linking runs beside the drain, so that batches go on.
            beside.relate_requested |= bool(drained.relate)
            continue
        caught_up = not drained.messages and (
            beside.relate_requested or not retrying(platform.settings)(pending_types, platform, MessageKind.ENTITY)
        )
        beside.relate_requested |= bool(drained.relate)
        if caught_up or beside.unlinked_s > LINK_AT_LEAST_EVERY_S:
            beside.link()
    return failed


class _Beside:
    """Linking and publishing of answers, in threads beside a drain, so that new messages do not wait for them."""

    def __init__(
        self,
        platform: Platform,
        log: EventLog,
        linker: ThreadPoolExecutor,
        publisher: ThreadPoolExecutor,
        deadline: float,
    ) -> None:
        self._platform = platform
        self._log = log
        self._linker = linker
        self._publisher = publisher
        self._deadline = deadline
        self._closed = False
        self._linking: Future[None] | None = None
        self._publishing: Future[int] | None = None
        self._linked_at = time.monotonic()
        self.relate_requested = False
        """A request to re-link has come since the last link."""
        self.traced: list[TracedEvent] = []
        """Events that belong to traces, and whose entities this run has not linked yet."""

    @property
    def is_linking(self) -> bool:
        return self._linking is not None and not self._linking.done()

    @property
    def unlinked_s(self) -> float:
        return time.monotonic() - self._linked_at

    def publish(self) -> None:
        """Publish committed answers in their thread. Answers committed meanwhile go with the next call."""
        if self._publishing is None or self._publishing.done():
            _raise_error_of(self._publishing)
            self._publishing = self._publisher.submit(publish_waiting, self._platform)

    def link(self) -> None:
        """Link what is marked, in the thread for it. To be called only while no linking is under way."""
        _raise_error_of(self._linking)
        self._linking = self._linker.submit(self._link)
        self.relate_requested, self._linked_at = False, time.monotonic()

    def finish(self) -> None:
        """Link the marks that are left, until the drain's time is over at the latest; then answer and publish.

        One run links at a time, so that marks stay for another run that links. After the deadline the marks stay for
        the next drain, or for the run that `relationship_sensor` asks for.
        """
        _raise_error_of(self._linking)
        if self.relate_requested or not retrying(self._platform.settings)(
            is_drained, self._platform, MessageKind.ENTITY
        ):
            self._link()
        _raise_error_of(self._publishing)
        answer_relinked(self._platform)
        publish_waiting(self._platform)

    def close(self) -> None:
        """End linking after its transaction, because the drain has failed or is terminated."""
        self._closed = True

    def _link(self) -> None:
        if not self._log.selects(EDGES):
            return
        traced, self.traced = self.traced, []
        began_ns = time.time_ns()
        if _link(self._platform, self._log, link(self._platform, enough=self._is_over), materialize=True):
            for event in traced:
                record("mcp_assets.link", event.traceparent, began_ns, {"mcp_assets.entity": event.entity_id})

    def _is_over(self) -> bool:
        return self._closed or time.monotonic() >= self._deadline


def _raise_error_of(work: "Future[Any] | None") -> None:
    """Wait for it, and raise what it raised."""
    if work is not None:
        work.result()


def _link(platform: Platform, log: EventLog, reports: Iterable[LinkReport], *, materialize: bool) -> int:
    """Report what the linker does, and answer the requests that asked for it. Returns the number of entities linked."""
    total, progress = LinkCounts(), LinkProgress(platform)
    for report in reports:
        total.add(report.total())
        progress.add(report)
        for (entity_type, shard), counts in report.partitions.items():
            log.linked(entity_type, shard, counts, materialize=materialize)
        log.say(progress)
    answered = answer_relinked(platform)
    if total.relinked and not answered:
        announce_links(platform, total)
    publish_waiting(platform)
    publish_changes(platform)
    return total.relinked


def run_full_sync(
    platform: Platform, ranges: Sequence[ShardRange], log: EventLog, *, force: bool, allow_mass_delete: bool
) -> None:
    log.begins_to_compare()
    stages = Stages(ledger=log.selects(ENTITIES), embeddings=log.selects(EMBEDDINGS))
    held: dict[str, MassDeletion] = {}
    for shard_range in ranges if stages.ledger or stages.embeddings else ():
        progress = full_sync(
            platform,
            shard_range.entity_type,
            shard_range.shards,
            stages=stages,
            force=force,
            allow_mass_delete=allow_mass_delete,
        )
        indexing = IndexProgress(shard_range.entity_type)
        try:
            with closing(progress):
                for news in progress:
                    indexing.add(news)
                    if news.complete:
                        log.complete(shard_range.entity_type, news.shard, news.counts)
                    else:
                        log.progressed(shard_range.entity_type, news.shard, news.counts, news.differing)
                        log.say(indexing)
        except MassDeletion as refusal:
            # What is new or changed is done; other types go on, and all of it is linked.
            held[shard_range.entity_type] = refusal
    if log.selects(EDGES):
        # After everything is embedded: a text embedded later could displace a neighbour found before.
        linking = LinkingPartitions(platform, ((one.entity_type, shard) for one in ranges for shard in one.shards))
        for shard_range in ranges:
            mark_shards(platform, shard_range.entity_type, shard_range.shards, force=force)
        _link(platform, log, link_until_done(platform), materialize=False)
        linking.record_linked()
        for shard_range in ranges:
            refusal_of_type = held.get(shard_range.entity_type)
            for shard in shard_range.shards:
                if refusal_of_type is None or shard not in refusal_of_type.shards:
                    log.complete_links(shard_range.entity_type, shard)
    if held:
        raise MassDeletion("; ".join(map(str, held.values())))
