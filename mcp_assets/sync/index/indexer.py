"""Indexer: brings ledger rows to the truth, and the points of dirty entities to the state of their ledger rows.

An entity is dirty while some collection may lack the newest state of its ledger row. A batch goes through four steps:
apply to the ledger (`ledger`), plan the writes (`write_plan`), embed (`plan_embedder`), write (`point_writer`).
"""

import logging
import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence

from mcp_assets.embedding.protocol import Refusal
from mcp_assets.platform import Platform
from mcp_assets.retrying import retrying, waiting
from mcp_assets.stores.errors import StoreRefused, StoreUnavailable
from mcp_assets.sync.collections.serving import WriteTargets, write_targets
from mcp_assets.sync.collections.verify import mark_lacking
from mcp_assets.sync.index import paid_vectors
from mcp_assets.sync.index.batch_report import BatchReport, Counts
from mcp_assets.sync.index.embedding_rate import EmbeddingMeter
from mcp_assets.sync.index.ledger import Applied, Dirty, Wanted, apply
from mcp_assets.sync.index.plan_embedder import PlanEmbedder
from mcp_assets.sync.index.point_writer import PointWriter
from mcp_assets.sync.index.write_plan import Destination, WritePlan, plan_writes

notices = logging.getLogger("mcp_assets.notices")
"""Lines for a person who watches a run: dagster.yaml has them shown in the UI. They are few."""

CHARACTERS_AT_ONCE = 1_000_000
"""Texts embedded and held in memory together, in characters; with 1,536 dimensions some 10 MB of vectors."""

_TARGETS_VALID_S = 1.0
"""How long a look-up of the collections is reused: a bulk load asks once a second, not once a batch."""


class Indexer:
    """Applies and indexes batches of one entity type. Thread-safe: batches may overlap, also with other processes."""

    def __init__(
        self, platform: Platform, entity_type: str, *, deadline: float = math.inf, background: bool = False
    ) -> None:
        """`deadline`, of the monotonic clock: no batch waits longer for a store that is away.

        `background`: for a full sync, whose texts let those of events go first, and pause when the budget is spent.
        """
        self._platform = platform
        self._type = entity_type
        self._alias = platform.settings.entity_types[entity_type].collection_name
        self._looking_up = threading.Lock()
        self._known_targets: tuple[float, WriteTargets] | None = None
        self._deadline = deadline
        self._stopping = threading.Event()
        self._abandoned = threading.Event()
        self._embedder = PlanEmbedder(
            platform, entity_type, stopping=self._stopping, abandoned=self._abandoned, background=background
        )
        self._writer = PointWriter(platform, entity_type, self._forget_targets)

    @property
    def meter(self) -> EmbeddingMeter:
        """What was embedded so far."""
        return self._embedder.meter

    def stop(self) -> None:
        """Have the batches end that wait for a store; the vectors that they have paid for are kept."""
        self._stopping.set()

    def abandon(self) -> None:
        """Have all batches end at once. Embeddings that are under way at the provider are paid, and lost."""
        self._stopping.set()
        self._abandoned.set()

    def give_up(self, error: BaseException) -> None:
        """Have the batches end because of `error`: at once if it is an interrupt, because the process is to end."""
        if isinstance(error, Exception):
            self.stop()
        else:
            self.abandon()

    def run(
        self,
        wanted: Sequence[Wanted],
        *,
        force: bool = False,
        embed: bool = True,
    ) -> BatchReport:
        """Bring `wanted` to the truth: ledger first, then (unless `embed` is false) their points.

        Raises:
            StoreUnavailable, StoreRefused, CollectionMismatch, EmbedderUnavailable: what was committed before stands,
            the rest is as dirty as it was.
        """
        report = BatchReport()
        with report.stage("apply"):
            if embed:
                mark_lacking(self._platform, self._type, [entity.id for entity in wanted])
            applied = apply(self._platform, self._type, wanted, force=force)
        report.unknown |= set(applied.unknown)
        report.early |= set(applied.early)
        self._count_scanned(report, wanted, applied)
        report.refusals |= applied.unstorable
        self._dead_letter_unstorable(applied.unstorable)
        if embed:
            self.index(applied.dirty, report, force=force)
        return report

    def index(self, dirty: Sequence[Dirty], report: BatchReport, *, force: bool = False) -> None:
        """Write the points of `dirty` and count into `report`."""
        if not dirty:
            return
        targets = self._targets()
        for part in _by_volume(dirty):
            for target, embedder in targets.writable:
                # An entity that one collection has to be given again is not done because the next collection has it.
                part = [entity for entity in part if entity.id not in report.superseded]
                if not part:
                    break
                destination = Destination(target, embedder, targets)
                with report.stage("plan"):
                    plans = self._plan(part, destination, force)
                with report.stage("embed"):
                    tokens = self._embedder.embed(
                        [plan for plan in plans if plan.embeds and plan.vectors is None], embedder
                    )
                with report.stage("upsert"):
                    self._write(plans, destination, report)
                if tokens is not None:
                    self._counts(report, part[0].id).add(Counts(tokens=tokens))

    def ensure_collection(self) -> None:
        """Make the collections of this type that are absent. Raises CollectionMismatch if none may be written to."""
        self._forget_targets()
        self._targets()

    def _forget_targets(self) -> None:
        self._known_targets = None

    def _targets(self) -> WriteTargets:
        """Where points go, as of a moment ago. A write checks it again under a lock, by `hold_collections`."""
        with self._looking_up:
            if self._known_targets is None or time.monotonic() - self._known_targets[0] > _TARGETS_VALID_S:
                self._known_targets = None
                self._known_targets = (time.monotonic(), write_targets(self._platform, self._alias))
            return self._known_targets[1]

    def _counts(self, report: BatchReport, entity_id: str) -> Counts:
        return report.counts_for(entity_id, self._platform.settings.shards)

    def _count_scanned(self, report: BatchReport, wanted: Sequence[Wanted], applied: Applied) -> None:
        dirty = {entity.id for entity in applied.dirty}
        unknown = set(applied.unknown)
        for entity in wanted:
            counts = self._counts(report, entity.id)
            counts.scanned += 1
            if entity.id in applied.unstorable:
                counts.failed += 1
            elif entity.id not in dirty and entity.id not in unknown:
                counts.unchanged += 1

    def _dead_letter_unstorable(self, unstorable: Mapping[str, Refusal]) -> None:
        if unstorable:
            with self._platform.postgres.transaction() as connection:
                self._writer.dead_letter(connection, unstorable, dict.fromkeys(unstorable, "apply"))

    def _plan(self, dirty: Sequence[Dirty], destination: Destination, force: bool) -> list[WritePlan]:
        with self._platform.postgres.transaction() as connection:
            recorded = self._writer.read_recorded(connection, [entity.id for entity in dirty], destination.collection)
            return plan_writes(self._platform, connection, dirty, recorded, destination.embedder.profile, force=force)

    def _write(self, plans: Sequence[WritePlan], destination: Destination, report: BatchReport) -> None:
        """Write `plans`. If a store is away, PostgreSQL keeps the paid vectors, and the batch waits for the store.

        Raises:
            StoreUnavailable: no store came back within STORE_WAIT_S, or the run is to end. The paid vectors are kept.
        """
        paid = [plan for plan in plans if plan.vectors is not None]
        settings = self._platform.settings
        try:
            retrying(settings)(self._writer.write, plans, destination, report)
        except StoreRefused as error:
            self._keep(paid, destination, error)
            raise
        except StoreUnavailable as error:
            self._keep(paid, destination, error)
            wait_s = min(settings.store_wait_s, self._deadline - time.monotonic())
            if not paid or wait_s <= 0 or self._stopping.is_set():
                raise
            notices.warning(
                "%s; this run waits up to %.0f s for it, with %d entities that are embedded",
                error,
                wait_s,
                len(paid),
            )
            waiting(settings, self._stopping, wait_s)(self._write_when_back, plans, destination, report)
            notices.warning("the store is back: %d entities that waited for it are written", len(paid))

    def _write_when_back(self, plans: Sequence[WritePlan], destination: Destination, report: BatchReport) -> None:
        # Qdrant is asked first, because this takes no lock.
        self._platform.qdrant.collections()
        self._writer.write(plans, destination, report)

    def _keep(self, paid: Sequence[WritePlan], destination: Destination, error: Exception) -> None:
        """Keep the vectors of `paid` in PostgreSQL. If that is away, too, only this process has them."""
        new = {plan.text_hash: plan.vectors for plan in paid if plan.vectors is not None and not plan.vectors_kept}
        if not new:
            return
        try:
            paid_vectors.keep(self._platform, destination.embedder.profile.key, new)
        except StoreUnavailable as unavailable:
            error.add_note(f"and what was embedded could not be kept: {unavailable}")
            return
        for plan in paid:
            plan.vectors_kept = True


def index_until_current(
    platform: Platform,
    indexer: Indexer,
    wanted: Sequence[Wanted],
    *,
    force: bool,
    embed: bool,
) -> BatchReport:
    """Index `wanted`, and again the entities whose state changed meanwhile; by the retry policy if a store fails."""
    retry = retrying(platform.settings)
    report = retry.copy()(indexer.run, wanted, force=force, embed=embed)
    while report.superseded:
        again = [entity for entity in wanted if entity.id in report.superseded]
        report.superseded = set()
        later = retry.copy()(indexer.run, again, embed=embed)
        report.superseded = later.superseded
        report.unknown |= later.unknown
        report.refusals |= later.refusals
        for shard, counts in later.shards.items():
            counts.scanned = 0
            report.shards.setdefault(shard, Counts()).add(counts)
    return report


def _by_volume(dirty: Sequence[Dirty]) -> Iterator[list[Dirty]]:
    """`dirty` in parts of at most CHARACTERS_AT_ONCE characters, or of one entity."""
    part: list[Dirty] = []
    volume = 0
    for entity in dirty:
        if part and volume + len(entity.content) > CHARACTERS_AT_ONCE:
            yield part
            part, volume = [], 0
        part.append(entity)
        volume += len(entity.content)
    if part:
        yield part
