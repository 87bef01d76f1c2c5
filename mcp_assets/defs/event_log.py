"""Event log: what a run reports to Dagster about its partitions, after the commit and merged."""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from threading import RLock

import dagster as dg
from dagster._core.definitions.source_asset import SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION

from mcp_assets.defs.keys import EDGES, EMBEDDINGS, ENTITIES, FULL_SYNC_ID_TAG
from mcp_assets.defs.metadata import edges_metadata, embeddings_metadata, ledger_metadata
from mcp_assets.defs.partitions import shard_of_key
from mcp_assets.defs.progress_lines import LongWork, ProgressLines
from mcp_assets.defs.totals import Totals
from mcp_assets.embedding.request_log import RequestingEmbedder
from mcp_assets.entities.refs import partition_key
from mcp_assets.graph import EdgeType
from mcp_assets.platform import Platform
from mcp_assets.sync.index.batch_report import Counts
from mcp_assets.sync.link.counts import LinkCounts
from mcp_assets.sync.requests.full_sync_requests import ProgressWriter
from mcp_assets.sync.views.graph import strengths_of


def provenance_tags(assets: dg.AssetsDefinition, asset: dg.AssetKey, version: str) -> dict[str, str]:
    """The tags that Dagster gives an output, for a logged materialization. Without them the UI shows it as unsynced.

    All assets of the multi-asset get one version together. Assets outside of it have no version.
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


def made(asset: dg.AssetKey) -> dg.MaterializeResult[None]:
    """The output of an asset whose partitions the run has materialized itself. It logs no materialization of its own.

    Without an output, Dagster skips the steps behind it: the checks of the asset, and the census. An ordinary output
    would materialize each partition of the run's range once more.
    """
    # Dagster logs nothing for an output with this entry, which it puts on outputs whose code has logged for itself.
    return dg.MaterializeResult(asset_key=asset, metadata={SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION: True})


class EventLog:
    """What a run reports to Dagster: after the commit, and merged to one event a partition in `events_every_s`."""

    def __init__(self, context: dg.AssetExecutionContext, platform: Platform) -> None:
        self._context = context
        self._platform = platform
        self._shards = platform.settings.shards
        self._progress_writer = ProgressWriter(platform, context.run.tags.get(FULL_SYNC_ID_TAG))
        self._totals = Totals(platform)
        self._answered = self._answered_requests()
        self._pending: dict[str, Counts] = {}
        self._pending_links: dict[str, LinkCounts] = {}
        self._progress: dict[str, Counts] = {}
        # The drain and the linker report from threads of their own.
        self._lock = RLock()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="events")
        self._written: Future[None] | None = None
        self._began = self._last_reported = time.monotonic()
        self._lines = ProgressLines(context.log, platform)

    def begins_to_compare(self) -> None:
        """Note that the run of a backfill compares. Requests that come from now on need another backfill."""
        self._progress_writer.begins_to_compare()

    def selects(self, asset: dg.AssetKey) -> bool:
        return asset in self._context.selected_asset_keys

    def say(self, work: LongWork) -> None:
        """Write to the run's log how far `work` is, if this is due."""
        with self._lock:
            self._lines.say(work)

    def touched(self, entity_type: str, shard: int, counts: Counts) -> None:
        """A drain has committed a batch: the partition is as new as its last batch."""
        with self._lock:
            self._pending.setdefault(self._key(entity_type, shard), Counts()).add(counts)
            self._report_when_due()

    def failed(self, entity_type: str, error: BaseException) -> None:
        """A type that a drain took over is given up. This is logged at once, because the run continues."""
        self._context.log.error(f"draining {entity_type}, which this run had taken over, failed: {error}")

    def close(self) -> None:
        """Report all that is pending, and wait until it is in Dagster's event log."""
        self._report()
        self._writer.shutdown(wait=True)
        if self._written is not None:
            self._written.result()

    def _report_when_due(self) -> None:
        """Write in a thread, so that no event waits for a second of writing. If writing lags, more is merged."""
        if self._due() and (self._written is None or self._written.done()):
            self._report()

    def _report(self) -> None:
        if self._written is not None:
            self._written.result()
        pending, self._pending = self._pending, {}
        pending_links, self._pending_links = self._pending_links, {}
        seconds = time.monotonic() - self._began
        self._written = self._writer.submit(self._write, pending, pending_links, seconds)
        self._began = self._last_reported = time.monotonic()

    def _write(self, pending: Mapping[str, Counts], pending_links: Mapping[str, LinkCounts], seconds: float) -> None:
        for key in sorted(pending):
            self._materialize(key, pending[key], seconds)
        for key in sorted(pending_links):
            self._materialize_links(key, pending_links[key])

    def linked(self, entity_type: str, shard: int, counts: LinkCounts, *, materialize: bool) -> None:
        """The linker has committed. The next flush reports it, or for a full sync the partition's materialization."""
        with self._lock:
            self._pending_links.setdefault(self._key(entity_type, shard), LinkCounts()).add(counts)
            if materialize:
                self._report_when_due()

    def complete_links(self, entity_type: str, shard: int) -> None:
        """All of the run's range is linked: its partitions are materialized, once."""
        key = self._key(entity_type, shard)
        counts = self._pending_links.pop(key, LinkCounts())
        self._materialize_links(key, counts, strengths_of(self._platform, entity_type, shard))
        self._progress_writer.linked(entity_type, shard)

    def progressed(self, entity_type: str, shard: int, counts: Counts, differing: int) -> None:
        """A full sync is under way. It logs observations, because a materialization would claim completeness."""
        key = self._key(entity_type, shard)
        self._progress_writer.worked(entity_type, shard, counts, differing)
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
            self._last_reported = time.monotonic()

    def complete(self, entity_type: str, shard: int, counts: Counts) -> None:
        """A full sync has completed a partition, which is materialized once."""
        self._materialize(self._key(entity_type, shard), counts, time.monotonic() - self._began)
        self._progress_writer.indexed(entity_type, shard, counts)
        self._began = time.monotonic()

    def _materialize(self, key: str, counts: Counts, seconds: float) -> None:
        version = datetime.now(UTC).isoformat(timespec="milliseconds")
        entity_type, shard = shard_of_key(key)
        for asset in (ENTITIES, EMBEDDINGS):
            if not self.selects(asset):
                continue
            if asset == ENTITIES:
                metadata = {**self._totals.of_entities(entity_type, shard), **ledger_metadata(counts)}
            else:
                price = self._platform.usd_per_million_tokens(self._platform.embedder.profile)
                figures = embeddings_metadata(counts, seconds, self._new_calls(), price)
                metadata = {**self._totals.of_embeddings(entity_type), **figures}
            tags = provenance_tags(self._context.assets_def, asset, version)
            self._context.log_event(dg.AssetMaterialization(asset, partition=key, metadata=metadata, tags=tags))

    def _materialize_links(
        self, key: str, counts: LinkCounts, strengths: Mapping[EdgeType, Sequence[int]] | None = None
    ) -> None:
        tags = provenance_tags(self._context.assets_def, EDGES, datetime.now(UTC).isoformat(timespec="milliseconds"))
        metadata = {**self._totals.of_edges(), **edges_metadata(counts, strengths)}
        self._context.log_event(dg.AssetMaterialization(EDGES, partition=key, metadata=metadata, tags=tags))

    def _new_calls(self) -> int | None:
        """Requests that the provider has answered since this was last asked; None: the model is local.

        A request carries texts of several partitions, so that only their sum over all materializations is exact.
        """
        answered = self._answered_requests()
        if answered is None or self._answered is None:
            return None
        calls, self._answered = answered - self._answered, answered
        return calls

    def _answered_requests(self) -> int | None:
        if self._platform.settings.provider != "openai" or not self.selects(EMBEDDINGS):
            return None
        embedder = self._platform.embedder
        return embedder.answered if isinstance(embedder, RequestingEmbedder) else None

    def _key(self, entity_type: str, shard: int) -> str:
        return partition_key(entity_type, shard, self._shards)

    def _due(self) -> bool:
        return time.monotonic() - self._last_reported >= self._platform.tuning.defs.events_every_s
