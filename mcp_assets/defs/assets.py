"""Assets: `entities`, `embeddings`, `relationship_edges`: one multi-asset, so that a micro-batch is one step."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from enum import Enum
from threading import RLock
from typing import Any

import dagster as dg

from mcp_assets.defs.metadata import edges_metadata, embeddings_metadata, ledger_metadata
from mcp_assets.defs.partitions import ShardRange, partition_key, partitions_named, partitions_of, ranges_of
from mcp_assets.defs.resources import PlatformResource, embedding_until_interrupted
from mcp_assets.defs.sources import source_table_key, stream_key
from mcp_assets.entities.text import prepared_by
from mcp_assets.events import MessageKind
from mcp_assets.graph import EdgeType
from mcp_assets.platform import Platform
from mcp_assets.retrying import retrying
from mcp_assets.settings import Settings
from mcp_assets.sync.inbox.announce import announce_links, answer_relinked
from mcp_assets.sync.inbox.drain import drain
from mcp_assets.sync.inbox.drain_requests import is_drained, pending_types
from mcp_assets.sync.inbox.drained import Drained
from mcp_assets.sync.inbox.outbox import publish_waiting
from mcp_assets.sync.index.batch_report import Counts
from mcp_assets.sync.index.full_sync import Stages, full_sync
from mcp_assets.sync.index.mass_delete import MassDeletion
from mcp_assets.sync.link.counts import LinkCounts, LinkReport
from mcp_assets.sync.link.link_rules import RULES_VERSION
from mcp_assets.sync.link.linker import link, link_until_done
from mcp_assets.sync.link.marks import mark_shards
from mcp_assets.sync.requests.full_sync_requests import ProgressWriter
from mcp_assets.sync.views.graph import strengths_of

ENTITIES = dg.AssetKey("entities")
EMBEDDINGS = dg.AssetKey("embeddings")
EDGES = dg.AssetKey("relationship_edges")

OWNERS = ["team:mcp-assets"]

# Each event costs Dagster's event log some 8 ms, and a person reads no faster than this.
EVENTS_EVERY_S = 10.0


# A burst that lasts longer than this has waited long enough for its edges.
LINK_AT_LEAST_EVERY_S = 30.0


class Mode(Enum):
    """What a run brings up to date."""

    FULL = "full"
    """What differs between source, ledger and Qdrant in the partitions of the run."""
    DRAIN = "drain"
    """What the inbox names, of the run's entity type, until it stays empty."""


class IndexConfig(dg.Config):
    """Launched without any config, a run is a full sync of its partitions."""

    mode: Mode = Mode.FULL
    force: bool = False
    allow_mass_delete: bool = False


def build_index_assets(settings: Settings) -> dg.AssetsDefinition:
    """The multi-asset over all entity types and shards."""
    tables = [entity_type.source.table for entity_type in settings.entity_types.values() if entity_type.source]
    upstream = [*map(source_table_key, tables), *map(stream_key, settings.streams)]
    builder = prepared_by(settings.chunks)

    @dg.multi_asset(
        name="index_entities",
        specs=[
            dg.AssetSpec(
                ENTITIES,
                deps=upstream,
                skippable=True,
                description="The ledger: each entity's newest state and its hashes.",
                kinds={"postgres"},
                owners=OWNERS,
                group_name="mcp",
                code_version=builder,
            ),
            dg.AssetSpec(
                EMBEDDINGS,
                deps=[ENTITIES],
                skippable=True,
                description="Every entity as a point in Qdrant, a long one with points for its chunks.",
                kinds={"qdrant", settings.provider},
                owners=OWNERS,
                group_name="mcp",
                code_version=f"{settings.profile.name}-{settings.profile.dimension}/{builder}",
            ),
            dg.AssetSpec(
                EDGES,
                deps=[ENTITIES, EMBEDDINGS],
                skippable=True,
                description="Typed, weighted links from each entity of the partition to others, of any type.",
                kinds={"postgres"},
                owners=OWNERS,
                group_name="mcp",
                code_version=f"{settings.profile.name}-{settings.profile.similarity_threshold}/rules-{RULES_VERSION}",
            ),
        ],
        partitions_def=partitions_of(settings),
        backfill_policy=dg.BackfillPolicy.single_run(),
        can_subset=True,
    )
    def index_entities(
        context: dg.AssetExecutionContext, config: IndexConfig, platform: PlatformResource
    ) -> Iterator[None]:
        named = partitions_named(context)
        if named is None:
            raise dg.Failure(
                "the run names no partition: choose some in the launchpad, or launch a backfill of all of them "
                "(`mcp-assets sync --full`)",
                allow_retries=False,
            )
        ranges = ranges_of(named)
        with embedding_until_interrupted(platform.get()) as opened:
            log = _EventLog(context, opened)
            if config.mode is Mode.DRAIN:
                _drain(opened, ranges, context.run.run_id, log, asked_s_ago=_created_s_ago(context))
            else:
                _full(opened, ranges, log, force=config.force, allow_mass_delete=config.allow_mass_delete)
        # Materializations are logged as partitions are complete: an output would mark the whole range.
        yield from ()

    return index_entities


def _created_s_ago(context: dg.AssetExecutionContext) -> float:
    record = context.instance.get_run_record_by_id(context.run.run_id)
    if record is None:
        return 0.0
    created: datetime = record.create_timestamp
    return (datetime.now(UTC) - created.replace(tzinfo=UTC)).total_seconds()


def _drain(
    platform: Platform, ranges: Sequence[ShardRange], run_id: str, log: "_EventLog", *, asked_s_ago: float
) -> None:
    """Embed what comes, of types taken over too, and link it once all that waits is embedded, whoever drains it.

    In a burst, one by one, the many would displace each other from the lists, and keep what is not embedded waiting.
    The last drain to catch up links for all.
    """
    failed: dict[str, BaseException] = {}
    deadline = time.monotonic() + platform.settings.drain_max_s
    with (
        closing(log),
        ThreadPoolExecutor(1, thread_name_prefix="link") as linker,
        ThreadPoolExecutor(1, thread_name_prefix="answers") as publisher,
        closing(_Beside(platform, log, linker, publisher, deadline)) as beside,
    ):
        for shard_range in ranges:
            with closing(drain(platform, shard_range.entity_type, run_id, asked_s_ago=asked_s_ago)) as batches:
                failed |= _work_off(platform, batches, log, beside)
        beside.finish()
    if failed:
        names = ", ".join(failed)
        raise dg.Failure(
            f"{names}, which this drain had taken over, failed: {next(iter(failed.values()))}. What was not done waits "
            "in the inbox and has a run of its own asked for; the types that the run was launched for are done",
            allow_retries=False,
        ) from next(iter(failed.values()))


def _work_off(
    platform: Platform, batches: Iterable[Drained], log: "_EventLog", beside: "_Beside"
) -> dict[str, BaseException]:
    """Tell of a drain's batches and have them linked; the errors of the types that it took over, by type."""
    failed: dict[str, BaseException] = {}
    for drained in batches:
        if drained.error is not None:
            failed[drained.entity_type] = drained.error
            log.failed(drained.entity_type, drained.error)
            continue
        for shard, counts in drained.report.shards.items():
            log.touched(drained.entity_type, shard, counts)
        if drained.messages:
            beside.publish()
        if beside.is_linking:
            # What is embedded meanwhile is not kept waiting for it.
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
    """What a drain has done in threads of its own, so that what comes meanwhile is not kept waiting: links, answers."""

    def __init__(
        self,
        platform: Platform,
        log: "_EventLog",
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

    @property
    def is_linking(self) -> bool:
        return self._linking is not None and not self._linking.done()

    @property
    def unlinked_s(self) -> float:
        return time.monotonic() - self._linked_at

    def publish(self) -> None:
        """Have what is committed published; what is committed while it is under way is published with the next."""
        if self._publishing is None or self._publishing.done():
            _raise_error_of(self._publishing)
            self._publishing = self._publisher.submit(publish_waiting, self._platform)

    def link(self) -> None:
        """Have the marks worked off; only while that is not under way."""
        _raise_error_of(self._linking)
        self._linking = self._linker.submit(self._link)
        self.relate_requested, self._linked_at = False, time.monotonic()

    def finish(self) -> None:
        """Work off the marks that are left, until the drain's time is over at the latest; answer and publish.

        One run links at a time: where another links, the marks are left to it. After the deadline they are left to the
        next drain, or to the run that `relationship_sensor` asks for.
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
        """End the linking after its transaction, should it be under way: the drain has failed or is terminated."""
        self._closed = True

    def _link(self) -> None:
        if self._log.selects(EDGES):
            _link(self._platform, self._log, link(self._platform, enough=self._is_over), materialize=True)

    def _is_over(self) -> bool:
        return self._closed or time.monotonic() >= self._deadline


def _raise_error_of(work: "Future[Any] | None") -> None:
    """Wait for it, and raise what it raised."""
    if work is not None:
        work.result()


def _link(platform: Platform, log: "_EventLog", reports: Iterable[LinkReport], *, materialize: bool) -> None:
    """Tell what the linker does, and answer the requests that are served by it."""
    total = LinkCounts()
    for report in reports:
        total.add(report.total())
        for (entity_type, shard), counts in report.partitions.items():
            log.linked(entity_type, shard, counts, materialize=materialize)
    answered = answer_relinked(platform)
    if total.relinked and not answered:
        announce_links(platform, total)
    publish_waiting(platform)


def _full(
    platform: Platform, ranges: Sequence[ShardRange], log: "_EventLog", *, force: bool, allow_mass_delete: bool
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
        try:
            with closing(progress):
                for news in progress:
                    if news.complete:
                        log.complete(shard_range.entity_type, news.shard, news.counts)
                    else:
                        log.progressed(shard_range.entity_type, news.shard, news.counts, news.differing)
        except MassDeletion as refusal:
            # What is new or changed is done; other types go on, and all of it is linked.
            held[shard_range.entity_type] = refusal
    if log.selects(EDGES):
        # After everything is embedded: a text embedded later could displace a neighbour found before.
        for shard_range in ranges:
            mark_shards(platform, shard_range.entity_type, shard_range.shards, force=force)
        _link(platform, log, link_until_done(platform), materialize=False)
        for shard_range in ranges:
            refusal_of_type = held.get(shard_range.entity_type)
            for shard in shard_range.shards:
                if refusal_of_type is None or shard not in refusal_of_type.shards:
                    log.complete_links(shard_range.entity_type, shard)
    if held:
        raise MassDeletion("; ".join(map(str, held.values())))


def provenance_tags(assets: dg.AssetsDefinition, asset: dg.AssetKey, version: str) -> dict[str, str]:
    """The tags that Dagster gives an output, for a materialization that is logged: without them it reads as unsynced.

    All assets of the multi-asset are brought to one version together; what lies outside of it is never versioned.
    """
    tags = {
        "dagster/code_version": assets.code_versions_by_key[asset] or "",
        "dagster/data_version": version,
    }
    for upstream in assets.asset_deps[asset]:
        name = upstream.to_user_string()
        tags[f"dagster/input_data_version/{name}"] = version if upstream in assets.keys else "INITIAL"
        tags[f"dagster/input_event_pointer/{name}"] = "NULL"
    return tags


class _EventLog:
    """What a run tells Dagster: after the fact, and merged to one event a partition in EVENTS_EVERY_S."""

    def __init__(self, context: dg.AssetExecutionContext, platform: Platform) -> None:
        self._context = context
        self._platform = platform
        self._shards = platform.settings.shards
        self._told = ProgressWriter(platform, context.run.tags.get("dagster/backfill"))
        self._pending: dict[str, Counts] = {}
        self._pending_links: dict[str, LinkCounts] = {}
        self._progress: dict[str, Counts] = {}
        # Drained and linked beside each other: both tell.
        self._lock = RLock()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="events")
        self._written: Future[None] | None = None
        self._began = self._last_told = time.monotonic()

    def begins_to_compare(self) -> None:
        """The run of a backfill that requests wait for: those that come from now on need another one."""
        self._told.begins_to_compare()

    def selects(self, asset: dg.AssetKey) -> bool:
        return asset in self._context.selected_asset_keys

    def touched(self, entity_type: str, shard: int, counts: Counts) -> None:
        """A drain has committed a batch: the partition is as new as its last batch."""
        with self._lock:
            self._pending.setdefault(self._key(entity_type, shard), Counts()).add(counts)
            self._tell_when_due()

    def failed(self, entity_type: str, error: BaseException) -> None:
        """A type that a drain took over is given up: said at once, for the run goes on."""
        self._context.log.error(f"draining {entity_type}, which this run had taken over, failed: {error}")

    def close(self) -> None:
        """Tell what has not been told, and wait until all of it is in Dagster's event log."""
        self._tell()
        self._writer.shutdown(wait=True)
        if self._written is not None:
            self._written.result()

    def _tell_when_due(self) -> None:
        """Beside the work: a second's writing must not keep an event waiting. If it lags, more is merged."""
        if self._due() and (self._written is None or self._written.done()):
            self._tell()

    def _tell(self) -> None:
        if self._written is not None:
            self._written.result()
        pending, self._pending = self._pending, {}
        pending_links, self._pending_links = self._pending_links, {}
        seconds = time.monotonic() - self._began
        self._written = self._writer.submit(self._write, pending, pending_links, seconds)
        self._began = self._last_told = time.monotonic()

    def _write(self, pending: Mapping[str, Counts], pending_links: Mapping[str, LinkCounts], seconds: float) -> None:
        for key in sorted(pending):
            self._materialize(key, pending[key], seconds)
        for key in sorted(pending_links):
            self._materialize_links(key, pending_links[key])

    def linked(self, entity_type: str, shard: int, counts: LinkCounts, *, materialize: bool) -> None:
        """The linker has committed: told with the next flush, or for a full sync once the partition is complete."""
        with self._lock:
            self._pending_links.setdefault(self._key(entity_type, shard), LinkCounts()).add(counts)
            if materialize:
                self._tell_when_due()

    def complete_links(self, entity_type: str, shard: int) -> None:
        """All of the run's range is linked: its partitions are materialized, once."""
        key = self._key(entity_type, shard)
        counts = self._pending_links.pop(key, LinkCounts())
        self._materialize_links(key, counts, strengths_of(self._platform, entity_type, shard))
        self._told.linked(entity_type, shard)

    def progressed(self, entity_type: str, shard: int, counts: Counts, differing: int) -> None:
        """A full sync is under way: an observation now and then, for a materialization would claim completeness."""
        key = self._key(entity_type, shard)
        self._told.worked(entity_type, shard, counts, differing)
        self._progress.setdefault(key, Counts()).add(counts)
        if self._due():
            done = self._progress[key]
            self._context.log_event(
                dg.AssetObservation(
                    EMBEDDINGS if self.selects(EMBEDDINGS) else ENTITIES,
                    partition=key,
                    metadata={"differing": differing, "done": done.scanned, "failed": done.failed},
                )
            )
            self._last_told = time.monotonic()

    def complete(self, entity_type: str, shard: int, counts: Counts) -> None:
        """A full sync has a partition behind it: it is materialized, once."""
        self._materialize(self._key(entity_type, shard), counts, time.monotonic() - self._began)
        self._told.indexed(entity_type, shard, counts)
        self._began = time.monotonic()

    def _materialize(self, key: str, counts: Counts, seconds: float) -> None:
        version = datetime.now(UTC).isoformat(timespec="milliseconds")
        for asset, metadata in (
            (ENTITIES, ledger_metadata(counts)),
            (EMBEDDINGS, embeddings_metadata(counts, seconds)),
        ):
            if self.selects(asset):
                tags = provenance_tags(self._context.assets_def, asset, version)
                self._context.log_event(dg.AssetMaterialization(asset, partition=key, metadata=metadata, tags=tags))

    def _materialize_links(
        self, key: str, counts: LinkCounts, strengths: Mapping[EdgeType, Sequence[int]] | None = None
    ) -> None:
        tags = provenance_tags(self._context.assets_def, EDGES, datetime.now(UTC).isoformat(timespec="milliseconds"))
        self._context.log_event(
            dg.AssetMaterialization(EDGES, partition=key, metadata=edges_metadata(counts, strengths), tags=tags)
        )

    def _key(self, entity_type: str, shard: int) -> str:
        return partition_key(entity_type, shard, self._shards)

    def _due(self) -> bool:
        return time.monotonic() - self._last_told >= EVENTS_EVERY_S
