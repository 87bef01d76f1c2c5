"""Point writer: writes plans to Qdrant, and records in the ledger what Qdrant has confirmed, no more."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from mcp_assets.embedding.protocol import Refusal
from mcp_assets.entities.refs import EntityRef
from mcp_assets.logs import ENTITIES_NAMED
from mcp_assets.platform import Platform
from mcp_assets.stores.errors import PointsMissing, StoreRefused
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.postgres.rows import by_id
from mcp_assets.stores.qdrant_collections import Collection
from mcp_assets.sync.collections.journal import hold_collections
from mcp_assets.sync.feed.edition import ChangeFeed
from mcp_assets.sync.index import paid_vectors
from mcp_assets.sync.index.batch_report import BatchReport, Counts
from mcp_assets.sync.index.entity_entries import fed_state, told
from mcp_assets.sync.index.failed_entities import FailedEntity, dead_letter
from mcp_assets.sync.index.write_plan import Destination, EmbeddedRow, PointChanges, WritePlan

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _LockedState:
    """The state of a ledger row that the transaction has locked."""

    state_hash: str
    deleted: bool
    chunk_bound: int
    fed_state: str | None


class PointWriter:
    """Writes plans of one entity type. Thread-safe: batches may overlap, also with those of other processes."""

    def __init__(self, platform: Platform, entity_type: str, forget_targets: Callable[[], None]) -> None:
        """`forget_targets` is called when the collections are not those that the plans were made for."""
        self._platform = platform
        self._type = entity_type
        self._forget_targets = forget_targets

    def write(self, plans: Sequence[WritePlan], destination: Destination, report: BatchReport) -> None:
        """Write `plans` to Qdrant under the locks of their ledger rows, record them, and count into `report`."""
        collection = destination.collection
        self._platform.companion(ChangeFeed).open()
        self._forget_replaced(plans, collection)
        with self._platform.postgres.transaction() as connection:
            if not hold_collections(self._platform, connection, destination.targets.journal):
                self._forget_targets()
                report.superseded |= {plan.id for plan in plans}
                return
            current, locked = self._lock(connection, plans)
            current = self._without_stale(connection, current, collection)
            report.superseded |= {plan.id for plan in plans} - {plan.id for plan in current}
            embedded = [plan for plan in current if plan.refusal is None]
            indexed_at = datetime.now(UTC).isoformat(timespec="milliseconds")
            lacking = [plan for plan in embedded if not (destination.targets.building and plan.written_already)]
            chunk_bounds = {entity_id: row.chunk_bound for entity_id, row in locked.items()}
            self._write_points(lacking, destination, chunk_bounds, indexed_at)
            missing = {plan.id for plan in lacking if plan.point_missing}
            if missing:
                self._forget(connection, missing, collection)
                report.superseded |= missing
                current, embedded, lacking = (
                    [plan for plan in plans_of if not plan.point_missing] for plans_of in (current, embedded, lacking)
                )
            self._record(connection, [plan for plan in lacking if plan.refusal is None], destination)
            written = [plan.text_hash for plan in lacking if plan.vectors_kept]
            if written:
                paid_vectors.forget(self._platform, connection, destination.embedder.profile.key, written)
            if destination.is_last:
                # An entity is done, or given up, once the last of its collections is written.
                self._finish(connection, [plan for plan in embedded if plan.refusal is None], locked, destination)
                self._dead_letter_refused(connection, current, {plan.id for plan in embedded}, report)
        self._count(current, destination, report)

    def _forget_replaced(self, plans: Sequence[WritePlan], collection: Collection) -> None:
        """Commit, before anything is written, that it is unknown which vectors the collection holds.

        If this process dies between the write and its commit, and the text then returns to its former state, the ledger
        must not take the new vector for the former text's. The entities are dirty until the commit, also if another
        batch has written the same state meanwhile: otherwise no run would index them again.
        """
        replacing = [plan for plan in plans if plan.replaces]
        if not replacing:
            return
        with self._platform.postgres.transaction() as connection:
            current, _ = self._lock(connection, replacing)
            connection.execute(
                self._platform.postgres.query("forget_replaced"),
                {"entity_type": self._type, "collection": collection.name, "ids": [plan.id for plan in current]},
            )

    def _forget(self, connection: Connection, ids: Iterable[str], collection: Collection) -> None:
        """Delete the records of `ids` in `collection`, so that their next plan embeds."""
        connection.execute(
            self._platform.postgres.query("delete_embedded"),
            {"entity_type": self._type, "collection": collection.name, "ids": list(ids)},
        )

    def _lock(
        self, connection: Connection, plans: Sequence[WritePlan]
    ) -> tuple[list[WritePlan], dict[str, _LockedState]]:
        """Lock the ledger rows of `plans`. Returns the plans whose state has not changed, and the rows by id."""
        parameters = {"entity_type": self._type, "ids": sorted(plan.id for plan in plans)}
        locked = dict(self._platform.postgres.rows(connection, "lock_states", by_id(_LockedState), parameters))
        current: list[WritePlan] = []
        for plan in plans:
            row = locked.get(plan.id)
            if row is not None and (row.state_hash, row.deleted) == (plan.dirty.state_hash, plan.dirty.deleted):
                current.append(plan)
        return current, locked

    def read_recorded(
        self, connection: Connection, ids: Sequence[str], collection: Collection
    ) -> dict[str, EmbeddedRow]:
        """What `collection` holds of `ids`, as recorded."""
        parameters = {"entity_type": self._type, "ids": ids, "collection": collection.name}
        return dict(self._platform.postgres.rows(connection, "read_embedded", by_id(EmbeddedRow), parameters))

    def _without_stale(
        self, connection: Connection, plans: Sequence[WritePlan], collection: Collection
    ) -> list[WritePlan]:
        """The locked `plans` without those that keep vectors which were replaced since the plan was made."""
        keeping = [plan.id for plan in plans if not plan.removes and not plan.embeds]
        recorded = self.read_recorded(connection, keeping, collection) if keeping else {}
        return [
            plan
            for plan in plans
            if plan.removes
            or plan.embeds
            or (plan.recorded is not None and plan.recorded.same_vectors(recorded.get(plan.id)))
        ]

    def _write_points(
        self,
        plans: Sequence[WritePlan],
        destination: Destination,
        chunk_bounds: Mapping[str, int],
        indexed_at: str,
    ) -> None:
        """Write `plans` to Qdrant. A batch that Qdrant refuses is halved until the plan at fault stands alone."""
        if not plans:
            return
        collection = destination.collection
        changes = PointChanges()
        for plan in plans:
            changes.add(
                EntityRef(self._type, plan.id),
                plan,
                chunk_bound=chunk_bounds[plan.id],
                model=destination.embedder.profile.name,
                indexed_at=indexed_at,
            )
        try:
            self._platform.qdrant.write(
                collection.name, upsert=changes.upsert, payloads=changes.payloads, delete=changes.delete
            )
        except StoreRefused as error:
            self._forget_targets()
            # If the collection itself is refused, this raises, and no entity is blamed.
            self._platform.qdrant.count(collection.name)
            if len(plans) == 1:
                if isinstance(error, PointsMissing):
                    plans[0].point_missing = True
                else:
                    plans[0].refusal = Refusal("point_refused", str(error))
                return
            half = len(plans) // 2
            self._write_points(plans[:half], destination, chunk_bounds, indexed_at)
            self._write_points(plans[half:], destination, chunk_bounds, indexed_at)

    def _record(self, connection: Connection, plans: Sequence[WritePlan], destination: Destination) -> None:
        """Record what Qdrant has confirmed, and mark the entities whose vectors changed for re-linking."""
        if not plans:
            return
        postgres = self._platform.postgres
        shared = {"entity_type": self._type, "collection": destination.collection.name}
        removed = [plan.id for plan in plans if plan.removes]
        kept = [plan for plan in plans if not plan.removes]
        if removed:
            connection.execute(postgres.query("delete_embedded"), {**shared, "ids": removed})
        if kept:
            connection.execute(
                postgres.query("write_embedded"),
                {
                    **shared,
                    "model": destination.embedder.profile.name,
                    "entity_id": [plan.id for plan in kept],
                    "text_hash": [plan.text_hash for plan in kept],
                    "state_hash": [plan.dirty.state_hash for plan in kept],
                    "points": [plan.point_count for plan in kept],
                    "vector_checks": [_array(plan.checks) for plan in kept],
                },
            )
        moved = sorted(plan.id for plan in plans if plan.removes or plan.vectors is not None)
        if moved and destination.serves:
            connection.execute(
                postgres.query("mark_changes"), {"types": [self._type] * len(moved), "ids": moved, "reason": "vector"}
            )

    def _finish(
        self,
        connection: Connection,
        plans: Sequence[WritePlan],
        locked: Mapping[str, _LockedState],
        destination: Destination,
    ) -> None:
        """Mark the entities clean, and delete their dead letters: every collection that is to hold them does.

        The same statement writes the entries of the change feed.
        """
        if not plans:
            return
        postgres = self._platform.postgres
        ids = [plan.id for plan in plans]
        if destination.targets.complete:
            clean = {
                "entity_type": self._type,
                "entity_id": ids,
                "chunks": [max(plan.point_count - 1, 0) for plan in plans],
            }
            if self._platform.companion(ChangeFeed).is_on:
                entries = [told(plan, locked[plan.id].fed_state) for plan in plans]
                kinds = {"kind": [entry and entry[0].value for entry in entries]}
                reasons = {"reason": [entry and entry[1].value for entry in entries]}
                states = {"fed_state": [fed_state(plan) for plan in plans]}
                connection.execute(postgres.query("mark_clean_and_tell"), clean | states | kinds | reasons)
            else:
                connection.execute(postgres.query("mark_clean"), clean)
        connection.execute(postgres.query("resolve_dead_letters"), {"entity_type": self._type, "ids": ids})

    def _dead_letter_refused(
        self, connection: Connection, plans: Sequence[WritePlan], reached_qdrant: set[str], report: BatchReport
    ) -> None:
        refusals = {plan.id: plan.refusal for plan in plans if plan.refusal is not None}
        stages = {entity_id: "upsert" if entity_id in reached_qdrant else "embed" for entity_id in refusals}
        self.dead_letter(connection, refusals, stages)
        report.refusals |= refusals

    def dead_letter(self, connection: Connection, refusals: Mapping[str, Refusal], stages: Mapping[str, str]) -> None:
        """Keep the refused entities with their reasons. Their last good points stay as they are."""
        self._log_refused("dead-lettered", refusals, stages)
        failed = (
            FailedEntity(entity_id, stages[entity_id], refusal.error_kind, refusal.sentence)
            for entity_id, refusal in refusals.items()
        )
        dead_letter(self._platform, connection, self._type, failed)

    def _log_refused(self, became: str, refusals: Mapping[str, Refusal], stages: Mapping[str, str]) -> None:
        """One line for all of them; it says why of the first."""
        if not refusals:
            return
        (first, refusal), *others = refusals.items()
        logger.warning(
            "%s:%s%s %s: %s",
            self._type,
            first,
            f" and {len(others)} more are" if others else " is",
            became,
            refusal.sentence,
            extra={
                "entity_type": self._type,
                "entities": [f"{self._type}:{entity_id}" for entity_id in [*refusals][:ENTITIES_NAMED]],
                "stage": stages[first],
            },
        )

    def _count(self, plans: Sequence[WritePlan], destination: Destination, report: BatchReport) -> None:
        """Count each entity once, with the last of its collections; texts are counted with each collection."""
        shards = self._platform.settings.shards
        if not destination.is_last:
            refused = {plan.id: plan.refusal for plan in plans if plan.refusal is not None}
            self._log_refused(f"not in {destination.collection.name}", refused, dict.fromkeys(refused, "embed"))
        for plan in plans:
            if destination.is_last:
                report.outcomes[plan.id] = _count(report.counts_for(plan.id, shards), plan)
            elif plan.refusal is None and plan.vectors is not None:
                report.counts_for(plan.id, shards).texts += plan.point_count


def _count(counts: Counts, plan: WritePlan) -> str:
    """Count what was done. Returns the name of the count."""
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


def _array(values: Iterable[float]) -> str:
    """A PostgreSQL array literal, because arrays of different lengths cannot travel as one array of arrays."""
    return "{" + ",".join(map(repr, values)) + "}"
