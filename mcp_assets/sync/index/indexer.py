"""Indexer: brings the points of dirty entities to their ledger state; what Qdrant confirmed is committed, no more."""

import itertools
import logging
import math
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from mcp_assets.embedding.protocol import Embedder, EmbedderClosed, EmbedderUnavailable, EmbeddingResult, Refusal
from mcp_assets.embedding.vectors import unit, vector_checks
from mcp_assets.entities.points import chunk_id, payload, point_id
from mcp_assets.entities.refs import EntityRef, shard_of, slot_of
from mcp_assets.entities.text import LONGEST_TEXT
from mcp_assets.platform import Platform
from mcp_assets.retrying import retrying, waiting
from mcp_assets.stores.errors import PointsMissing, StoreRefused, StoreUnavailable
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.qdrant import Collection, Point
from mcp_assets.sync.collections.journal import hold_collections
from mcp_assets.sync.collections.serving import WriteTarget, WriteTargets, write_targets
from mcp_assets.sync.collections.verify import mark_lacking
from mcp_assets.sync.index import paid_vectors
from mcp_assets.sync.index.batch_report import BatchReport, Counts
from mcp_assets.sync.index.ledger import Applied, Dirty, Wanted, apply
from mcp_assets.sync.index.paid_vectors import Key, Outcome, RecentVectors, Vectors
from mcp_assets.sync.index.provider_outage import model_key, provider_answers, provider_refuses

logger = logging.getLogger(__name__)

notices = logging.getLogger("mcp_assets.notices")
"""What whoever watches a run is to see: dagster.yaml has these lines shown in the UI. They are few."""

CHARACTERS_AT_ONCE = 1_000_000
"""Texts embedded and held in memory together, in characters; with 1,536 dimensions some 10 MB of vectors."""

_ANSWERS_NOTED_EVERY_S = 5.0
"""How often it is put on record that the provider embeds: it ends an outage that another process has met."""

_TARGETS_KNOWN_S = 1.0
"""How long it is taken for granted which collections are there: a bulk load asks once, not once a batch."""


@dataclass(frozen=True, slots=True)
class _Held:
    """What the collection holds of an entity, as last written."""

    text_hash: str
    state_hash: str
    points: int
    vector_checks: Sequence[float]

    def same_vectors(self, other: "_Held | None") -> bool:
        return other is not None and (self.text_hash, self.vector_checks) == (other.text_hash, other.vector_checks)


@dataclass(slots=True, eq=False)
class _Plan:
    """What is to be written of one entity: new vectors, a payload on old ones, or nothing but a removal."""

    dirty: Dirty
    held: _Held | None
    force: bool = False
    vectors: Vectors | None = None
    kept: bool = False
    """Its vectors are in PostgreSQL, too, until they are written."""
    refusal: Refusal | None = None
    missing: bool = False
    """The collection lacks a point that the ledger believes to be there: it has to be embedded."""

    @property
    def removes(self) -> bool:
        return self.dirty.deleted or not self.dirty.prepared.text

    @property
    def embeds(self) -> bool:
        return not self.removes and (
            self.force or self.held is None or self.held.text_hash != self.dirty.prepared.text_hash
        )

    @property
    def held_already(self) -> bool:
        """The collection holds just this: nothing is to be written."""
        return (
            not self.force
            and not self.removes
            and self.held is not None
            and (self.held.text_hash, self.held.state_hash) == (self.dirty.prepared.text_hash, self.dirty.state_hash)
        )

    @property
    def replaces(self) -> bool:
        """Vectors that the collection holds are replaced or removed."""
        return self.held is not None and self.refusal is None and (self.removes or self.vectors is not None)

    @property
    def point_count(self) -> int:
        return 0 if self.removes else 1 + len(self.dirty.prepared.chunks)


@dataclass(frozen=True, slots=True)
class _Writing:
    """One collection that a batch is written to, of those that it is to be in."""

    target: WriteTarget
    embedder: Embedder
    targets: WriteTargets

    @property
    def collection(self) -> Collection:
        return self.target.collection

    @property
    def serves(self) -> bool:
        return self.target is self.targets.serving

    @property
    def is_last(self) -> bool:
        return self.target is self.targets.writable[-1][0]


class Indexer:
    """Applies and indexes batches of one entity type. Thread-safe: batches may overlap, also with other processes."""

    def __init__(self, platform: Platform, entity_type: str, *, deadline: float = math.inf) -> None:
        """`deadline`, of the monotonic clock: no batch waits longer for a store that is away."""
        self._platform = platform
        self._type = entity_type
        self._alias = platform.settings.entity_types[entity_type].collection_name
        self._looking_up = threading.Lock()
        self._known: tuple[float, WriteTargets] | None = None
        self._answered: dict[str, float] = {}
        self._recent = RecentVectors()
        self._deadline = deadline
        self._stopping = threading.Event()
        self._abandoned = threading.Event()

    def stop(self) -> None:
        """Have the batches end that wait for a store; what they have paid for is kept."""
        self._stopping.set()

    def abandon(self) -> None:
        """Have all batches end at once. What the provider is embedding for them is paid, and lost."""
        self._stopping.set()
        self._abandoned.set()

    def give_up(self, error: BaseException) -> None:
        """Have the batches end because of `error`, at once if it is an interrupt: the process is to end."""
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
            StoreUnavailable, StoreRefused, CollectionMismatch, EmbedderUnavailable: what had been committed before
            stands, the rest is as dirty as it was.
        """
        if embed:
            mark_lacking(self._platform, self._type, [entity.id for entity in wanted])
        applied = apply(self._platform, self._type, wanted, force=force)
        report = BatchReport(unknown=set(applied.unknown), early=set(applied.early))
        self._count_scanned(report, wanted, applied)
        report.refusals |= applied.unstorable
        self._dead_letter_unfit(applied.unstorable)
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
                # What one collection is to be given again must not pass for done because the next one holds it.
                part = [entity for entity in part if entity.id not in report.superseded]
                if not part:
                    break
                writing = _Writing(target, embedder, targets)
                plans = self._plan(part, writing, force)
                tokens = self._embed([plan for plan in plans if plan.embeds and plan.vectors is None], embedder)
                self._write(plans, writing, report)
                if tokens is not None:
                    self._counts(report, part[0].id).add(Counts(tokens=tokens))

    def ensure_collection(self) -> None:
        """Make the collections of this type that are absent. Raises CollectionMismatch if none may be written to."""
        self._known = None
        self._targets()

    def _targets(self) -> WriteTargets:
        """Where points go, looked up no more than a moment ago; `hold` tells whether it is still so."""
        with self._looking_up:
            if self._known is None or time.monotonic() - self._known[0] > _TARGETS_KNOWN_S:
                self._known = None
                self._known = (time.monotonic(), write_targets(self._platform, self._alias))
            return self._known[1]

    def _counts(self, report: BatchReport, entity_id: str) -> Counts:
        shard = shard_of(slot_of(entity_id), self._platform.settings.shards)
        return report.shards.setdefault(shard, Counts())

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

    def _dead_letter_unfit(self, unfit: Mapping[str, Refusal]) -> None:
        if unfit:
            with self._platform.postgres.transaction() as connection:
                self._dead_letter(connection, unfit, dict.fromkeys(unfit, "apply"))

    def _plan(self, dirty: Sequence[Dirty], writing: "_Writing", force: bool) -> list[_Plan]:
        with self._platform.postgres.transaction() as connection:
            held = self._read_held(connection, [entity.id for entity in dirty], writing.collection)
            plans = [_Plan(entity, held.get(entity.id), force) for entity in dirty]
            self._take_kept(connection, [plan for plan in plans if plan.embeds and not force], writing.embedder)
        for plan in plans:
            entity = plan.dirty
            if len(entity.content) > LONGEST_TEXT:
                plan.refusal = Refusal(
                    "text_too_long",
                    f"the text has {len(entity.content):,} characters; at most {LONGEST_TEXT:,} can be indexed: "
                    "split the entity",
                )
        return plans

    def _take_kept(self, connection: Connection, plans: Sequence[_Plan], embedder: Embedder) -> None:
        """Give those of `plans` their vectors that were paid for when they could not be written."""
        if not plans:
            return
        hashes = [plan.dirty.prepared.text_hash for plan in plans]
        profile = embedder.profile
        found = paid_vectors.kept(self._platform, connection, model_key(profile), profile.dimension, hashes)
        for plan in plans:
            vectors = found.get(plan.dirty.prepared.text_hash)
            if vectors is not None and len(vectors.rows) == plan.point_count:
                plan.vectors, plan.kept = vectors, True

    def _embed(self, plans: Sequence[_Plan], embedder: Embedder) -> int | None:
        """Give each plan its vectors or its refusal. Returns the tokens, where the provider tells.

        What another batch is embedding, or has embedded a short while ago, is not embedded again.
        """
        model = model_key(embedder.profile)
        own: dict[Key, _Plan] = {}
        others: list[tuple[_Plan, Future[Outcome]]] = []
        forced: list[_Plan] = []
        for plan in plans:
            key = (model, plan.dirty.prepared.text_hash)
            if plan.refusal is not None:
                continue
            if plan.force:
                forced.append(plan)
            elif (outcome := self._recent.claim(key)) is not None:
                others.append((plan, outcome))
            else:
                own[key] = plan
        try:
            tokens = self._embed_all([*own.values(), *forced], embedder)
        except BaseException as error:
            self._recent.drop(own, error)
            raise
        for key, plan in own.items():
            found = plan.vectors or plan.refusal
            assert found is not None  # noqa: S101  (a plan that was embedded has one of the two)
            self._recent.give(key, found)
        for plan, outcome in others:
            shared = outcome.result()
            if isinstance(shared, Vectors):
                plan.vectors = shared
            else:
                plan.refusal = shared
        return tokens

    def _embed_all(self, plans: Sequence[_Plan], embedder: Embedder) -> int | None:
        texts = [
            text
            for plan in plans
            for text in (plan.dirty.prepared.text, *(chunk.text for chunk in plan.dirty.prepared.chunks))
        ]
        if not texts:
            return None
        result = self._ask(embedder, texts)
        outcomes = iter(result.outcomes)
        sound: list[tuple[_Plan, list[NDArray[np.float32]]]] = []
        for plan in plans:
            own = list(itertools.islice(outcomes, plan.point_count))
            plan.refusal = next((outcome.refusal for outcome in own if outcome.refusal is not None), None)
            if plan.refusal is None:
                sound.append((plan, [_sound(outcome.vector) for outcome in own]))
        if sound:
            rows = unit(np.stack([vector for _, vectors in sound for vector in vectors]))
            checks = vector_checks(rows).tolist()
            end = 0
            for plan, vectors in sound:
                start, end = end, end + len(vectors)
                # A copy of its own: one that is remembered must not hold the memory of all.
                plan.vectors = Vectors(rows[start:end].copy(), checks[start:end])
        return result.tokens

    def _ask(self, embedder: Embedder, texts: Sequence[str]) -> EmbeddingResult:
        """The outcomes of `texts`. Whether the provider embeds at all is put on record."""
        try:
            result = embedder.embed(texts, stopping=self._abandoned)
        except EmbedderClosed:
            raise
        except EmbedderUnavailable as error:
            try:
                provider_refuses(self._platform, embedder.profile, str(error))
            except StoreUnavailable as unavailable:
                error.add_note(f"and it could not be put on record: {unavailable}")
            raise
        now = time.monotonic()
        model = embedder.profile.name
        if now - self._answered.get(model, -math.inf) > _ANSWERS_NOTED_EVERY_S and any(
            outcome.vector is not None for outcome in result.outcomes
        ):
            self._answered[model] = now
            provider_answers(self._platform, embedder.profile)
        return result

    def _read_held(self, connection: Connection, ids: Sequence[str], collection: Collection) -> dict[str, _Held]:
        rows = connection.execute(
            self._platform.postgres.query("read_embedded"),
            {"entity_type": self._type, "ids": ids, "collection": collection.name},
        )
        return {row[0]: _Held(*row[1:]) for row in rows}

    def _write(self, plans: Sequence[_Plan], writing: "_Writing", report: BatchReport) -> None:
        """Commit `plans`. What is paid outlasts an outage of a store: it is kept, and waited for.

        Raises:
            StoreUnavailable: no store came back within STORE_WAIT_S, or the run is to end. What is paid is kept.
        """
        paid = [plan for plan in plans if plan.vectors is not None]
        settings = self._platform.settings
        try:
            retrying(settings)(self._commit, plans, writing, report)
        except StoreRefused as error:
            self._keep(paid, writing, error)
            raise
        except StoreUnavailable as error:
            self._keep(paid, writing, error)
            wait_s = min(settings.store_wait_s, self._deadline - time.monotonic())
            if not paid or wait_s <= 0 or self._stopping.is_set():
                raise
            notices.warning(
                "%s; this run waits up to %.0f s for it, with %d entities that are embedded",
                error,
                wait_s,
                len(paid),
            )
            waiting(settings, self._stopping, wait_s)(self._commit_when_back, plans, writing, report)
            notices.warning("the store is back: %d entities that waited for it are written", len(paid))

    def _commit_when_back(self, plans: Sequence[_Plan], writing: "_Writing", report: BatchReport) -> None:
        # Asked first, for it costs no lock.
        self._platform.qdrant.collections()
        self._commit(plans, writing, report)

    def _keep(self, paid: Sequence[_Plan], writing: "_Writing", error: Exception) -> None:
        """Keep the vectors of `paid` in PostgreSQL. If it is away, too, this process alone has them."""
        new = {
            plan.dirty.prepared.text_hash: plan.vectors for plan in paid if plan.vectors is not None and not plan.kept
        }
        if not new:
            return
        try:
            paid_vectors.keep(self._platform, model_key(writing.embedder.profile), new)
        except StoreUnavailable as unavailable:
            error.add_note(f"and what was embedded could not be kept: {unavailable}")
            return
        for plan in paid:
            plan.kept = True

    def _commit(self, plans: Sequence[_Plan], writing: "_Writing", report: BatchReport) -> None:
        """Write to Qdrant under the locks of the ledger rows, and what it confirmed to the ledger."""
        postgres, collection = self._platform.postgres, writing.collection
        self._forget_replaced(plans, collection)
        with postgres.transaction() as connection:
            if not hold_collections(self._platform, connection, writing.targets.journal):
                self._known = None
                report.superseded |= {plan.dirty.id for plan in plans}
                return
            current, bounds = self._lock(connection, plans)
            current = self._without_stale(connection, current, collection)
            report.superseded |= {plan.dirty.id for plan in plans} - {plan.dirty.id for plan in current}
            embedded = [plan for plan in current if plan.refusal is None]
            indexed_at = datetime.now(UTC).isoformat(timespec="milliseconds")
            lacking = [plan for plan in embedded if not (writing.targets.building and plan.held_already)]
            self._write_points(lacking, writing, bounds, indexed_at)
            missing = {plan.dirty.id for plan in lacking if plan.missing}
            if missing:
                self._forget(connection, missing, collection)
                report.superseded |= missing
                current, embedded, lacking = (
                    [plan for plan in plans_of if not plan.missing] for plans_of in (current, embedded, lacking)
                )
            self._record(connection, [plan for plan in lacking if plan.refusal is None], writing)
            written = [plan.dirty.prepared.text_hash for plan in lacking if plan.kept]
            if written:
                paid_vectors.forget(self._platform, connection, model_key(writing.embedder.profile), written)
            if writing.is_last:
                # It is done, or given up, when the last of its collections was written.
                self._settle(connection, [plan for plan in embedded if plan.refusal is None], writing)
                refusals = {plan.dirty.id: plan.refusal for plan in current if plan.refusal is not None}
                reached_qdrant = {plan.dirty.id for plan in embedded}
                stages = {entity_id: "upsert" if entity_id in reached_qdrant else "embed" for entity_id in refusals}
                self._dead_letter(connection, refusals, stages)
                report.refusals |= refusals
        for plan in current:
            if writing.is_last:
                report.outcomes[plan.dirty.id] = self._count(self._counts(report, plan.dirty.id), plan)
            elif plan.refusal is not None:
                logger.warning("%s:%s: %s: %s", self._type, plan.dirty.id, collection.name, plan.refusal.sentence)
            elif plan.vectors is not None:
                self._counts(report, plan.dirty.id).texts += plan.point_count

    def _forget_replaced(self, plans: Sequence[_Plan], collection: Collection) -> None:
        """Commit, before anything is written, that it is no longer known which vectors the collection holds.

        If this process dies between the write and its commit, and the text returns to what it was, the ledger must
        not take the new vector for the old text's. And the entities are dirty until then, also where another batch has
        written the same state since they were read: otherwise nothing would look at them again.
        """
        replacing = [plan for plan in plans if plan.replaces]
        if not replacing:
            return
        with self._platform.postgres.transaction() as connection:
            current, _ = self._lock(connection, replacing)
            connection.execute(
                self._platform.postgres.query("forget_replaced"),
                {
                    "entity_type": self._type,
                    "collection": collection.name,
                    "ids": [plan.dirty.id for plan in current],
                },
            )

    def _forget(self, connection: Connection, ids: Iterable[str], collection: Collection) -> None:
        """Drop what the ledger believes that `collection` holds of `ids`: their next plan embeds."""
        connection.execute(
            self._platform.postgres.query("delete_embedded"),
            {"entity_type": self._type, "collection": collection.name, "ids": list(ids)},
        )

    def _lock(self, connection: Connection, plans: Sequence[_Plan]) -> tuple[list[_Plan], dict[str, int]]:
        """Lock the ledger rows of `plans`. Returns those whose state has not moved on, and their chunk bounds."""
        rows = connection.execute(
            self._platform.postgres.query("lock_states"),
            {"entity_type": self._type, "ids": sorted(plan.dirty.id for plan in plans)},
        ).fetchall()
        locked = {row[0]: row[1:] for row in rows}
        current: list[_Plan] = []
        bounds: dict[str, int] = {}
        for plan in plans:
            state, deleted, bound = locked.get(plan.dirty.id, (None, None, 0))
            if (state, deleted) == (plan.dirty.state_hash, plan.dirty.deleted):
                current.append(plan)
                bounds[plan.dirty.id] = bound
        return current, bounds

    def _without_stale(self, connection: Connection, plans: Sequence[_Plan], collection: Collection) -> list[_Plan]:
        """Those of the locked `plans` that do not rest on vectors which were replaced since they were made."""
        resting = [plan.dirty.id for plan in plans if not plan.removes and not plan.embeds]
        held = self._read_held(connection, resting, collection) if resting else {}
        return [
            plan
            for plan in plans
            if plan.removes
            or plan.embeds
            or (plan.held is not None and plan.held.same_vectors(held.get(plan.dirty.id)))
        ]

    def _write_points(
        self, plans: Sequence[_Plan], writing: "_Writing", bounds: Mapping[str, int], indexed_at: str
    ) -> None:
        """Write `plans` to Qdrant; one that it refuses gets its refusal: halved out, it takes no neighbour down."""
        if not plans:
            return
        collection = writing.collection
        upsert: list[Point] = []
        payloads: dict[UUID, Mapping[str, Any]] = {}
        delete: list[UUID] = []
        for plan in plans:
            self._points_of(plan, writing, bounds[plan.dirty.id], indexed_at, upsert, payloads, delete)
        try:
            self._platform.qdrant.write(collection.name, upsert=upsert, payloads=payloads, delete=delete)
        except StoreRefused as refusal:
            # A refusal of everything is about the collection, not about an entity.
            self._known = None
            self._platform.qdrant.count(collection.name)
            if len(plans) == 1:
                if isinstance(refusal, PointsMissing):
                    plans[0].missing = True
                else:
                    plans[0].refusal = Refusal("point_refused", str(refusal))
                return
            half = len(plans) // 2
            self._write_points(plans[:half], writing, bounds, indexed_at)
            self._write_points(plans[half:], writing, bounds, indexed_at)

    def _points_of(
        self,
        plan: _Plan,
        writing: "_Writing",
        bound: int,
        indexed_at: str,
        upsert: list[Point],
        payloads: dict[UUID, Mapping[str, Any]],
        delete: list[UUID],
    ) -> None:
        """Add what is to be written of one entity; `bound`: Qdrant holds no chunk numbered this or higher."""
        dirty = plan.dirty
        ref = EntityRef(self._type, dirty.id)
        own = point_id(ref)
        chunks = () if plan.removes else dirty.prepared.chunks
        delete += [chunk_id(own, number) for number in range(len(chunks), bound)]
        if plan.removes:
            delete.append(own)
            return
        if plan.vectors is not None:
            checks = plan.vectors.checks
        else:
            assert plan.held is not None  # noqa: S101  (no vectors are made only where the held ones still serve)
            checks = plan.held.vector_checks
        numbered = [None, *enumerate(chunks)]
        for row, (chunk, check) in enumerate(zip(numbered, checks, strict=True)):
            identifier = own if chunk is None else chunk_id(own, chunk[0])
            carried = payload(
                ref,
                dirty.metadata,
                title=dirty.title,
                text_hash=dirty.prepared.text_hash,
                state_hash=dirty.state_hash,
                model=writing.embedder.profile.name,
                vector_check=check,
                indexed_at=indexed_at,
                chunk=chunk,
            )
            if plan.vectors is not None:
                upsert.append(Point(identifier, plan.vectors.rows[row], carried))
            else:
                payloads[identifier] = carried

    def _record(self, connection: Connection, plans: Sequence[_Plan], writing: "_Writing") -> None:
        """Commit to the ledger what Qdrant has confirmed."""
        if not plans:
            return
        postgres = self._platform.postgres
        shared = {"entity_type": self._type, "collection": writing.collection.name}
        removed = [plan.dirty.id for plan in plans if plan.removes]
        kept = [plan for plan in plans if not plan.removes]
        if removed:
            connection.execute(postgres.query("delete_embedded"), {**shared, "ids": removed})
        if kept:
            connection.execute(
                postgres.query("write_embedded"),
                {
                    **shared,
                    "model": writing.embedder.profile.name,
                    "entity_id": [plan.dirty.id for plan in kept],
                    "text_hash": [plan.dirty.prepared.text_hash for plan in kept],
                    "state_hash": [plan.dirty.state_hash for plan in kept],
                    "points": [plan.point_count for plan in kept],
                    "vector_checks": [_array(_checks(plan)) for plan in kept],
                },
            )
        moved = sorted(plan.dirty.id for plan in plans if plan.removes or plan.vectors is not None)
        if moved and writing.serves:
            connection.execute(
                postgres.query("mark"), {"types": [self._type] * len(moved), "ids": moved, "reason": "vector"}
            )

    def _settle(self, connection: Connection, plans: Sequence[_Plan], writing: "_Writing") -> None:
        """Every collection that is to hold `plans` does."""
        if not plans:
            return
        postgres = self._platform.postgres
        ids = [plan.dirty.id for plan in plans]
        if writing.targets.complete:
            connection.execute(
                postgres.query("mark_clean"),
                {
                    "entity_type": self._type,
                    "entity_id": ids,
                    "chunks": [max(plan.point_count - 1, 0) for plan in plans],
                },
            )
        connection.execute(postgres.query("resolve_dead_letters"), {"entity_type": self._type, "ids": ids})

    def _dead_letter(self, connection: Connection, refusals: Mapping[str, Refusal], stages: Mapping[str, str]) -> None:
        """Keep the refused entities with their reasons. Their last good points stay as they are."""
        if not refusals:
            return
        for entity_id, refusal in refusals.items():
            logger.warning("%s:%s is dead-lettered: %s", self._type, entity_id, refusal.sentence)
        connection.execute(
            self._platform.postgres.query("insert_failed"),
            {
                "entity_type": self._type,
                "entity_id": list(refusals),
                "stage": [stages[entity_id] for entity_id in refusals],
                "subject": [None] * len(refusals),
                "raw": [b""] * len(refusals),
                "error_kind": [refusal.error_kind for refusal in refusals.values()],
                "error": [refusal.sentence for refusal in refusals.values()],
            },
        )

    @staticmethod
    def _count(counts: Counts, plan: _Plan) -> str:
        """Count what was done, and name the count."""
        if plan.refusal is not None:
            counts.failed += 1
            return "failed"
        if plan.dirty.deleted:
            counts.deleted += 1
            return "deleted"
        if plan.removes:
            counts.empty += 1
            return "empty"
        if plan.vectors is not None:
            counts.embedded += 1
            counts.texts += plan.point_count
            return "embedded"
        counts.updated += 1
        return "updated"


def index_until_current(
    platform: Platform,
    indexer: Indexer,
    wanted: Sequence[Wanted],
    *,
    force: bool,
    embed: bool,
) -> BatchReport:
    """Index `wanted`, and again those whose state moved on meanwhile, by the retry policy where a store fails."""
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


def _checks(plan: _Plan) -> Sequence[float]:
    if plan.vectors is not None:
        return plan.vectors.checks
    return plan.held.vector_checks if plan.held is not None else ()


def _array(values: Iterable[float]) -> str:
    """A PostgreSQL array literal; arrays of different lengths cannot travel as one array of arrays."""
    return "{" + ",".join(map(repr, values)) + "}"


def _sound(vector: NDArray[np.float32] | None) -> NDArray[np.float32]:
    assert vector is not None  # noqa: S101  (an outcome without a refusal has a vector)
    return vector


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
