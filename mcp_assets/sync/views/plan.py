"""Plan: what a full sync would do now and what that costs, by the full sync's own comparison and rules.

It writes nothing. Its temporary tables end with its session.
"""

import math
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import groupby

import numpy as np

from mcp_assets.embedding.profiles import ModelProfile, profile_for
from mcp_assets.entities.refs import partition_key, slot_range
from mcp_assets.platform import Platform
from mcp_assets.setting_errors import SettingsError
from mcp_assets.settings import Settings
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.postgres.rows import by_id
from mcp_assets.sync.collections.foreseen import ForeseenTarget, ForeseenTargets, foresee_targets
from mcp_assets.sync.collections.serving import serving_profile
from mcp_assets.sync.index.embedding_costs import BYTES_A_TOKEN
from mcp_assets.sync.index.embedding_rate import EmbeddingRate, measured_rate
from mcp_assets.sync.index.full_sync import ShardBatch, Stages, batches_of, find_differing
from mcp_assets.sync.index.ledger import Foreseen, foresee
from mcp_assets.sync.index.mass_delete import hold_back_vanished
from mcp_assets.sync.index.write_plan import EmbeddedRow, WritePlan, plan_writes
from mcp_assets.sync.link.link_rules import rules_fingerprint
from mcp_assets.sync.sums import add_fields

_ROWS_AT_ONCE = 1_000
"""Entities whose rows and texts are held in memory together; a full sync holds some batches of this size."""

_COMPACTED_AT = 1_000_000
"""Texts after which the hashes of equal ones are merged: 16 MB at most."""

_NAMED = 5
"""Partitions that an error names: they show how names are made."""


@dataclass(slots=True)
class PartitionPlan:
    """What would happen to the entities of one partition."""

    entity_type: str
    shard: int
    embed: int = 0
    """Entities whose texts would be embedded."""
    update: int = 0
    """Entities whose payload would be replaced without embedding."""
    delete: int = 0
    empty: int = 0
    """Entities without any text: they have no point, or lose it."""
    link: int = 0
    """Entities that would be linked again. Linking them may mark others, which are not counted."""
    unchanged: int = 0
    """Entities that would be prepared again, with the same result."""
    refused: int = 0
    """Source rows that cannot be entities, or that no store can hold."""
    texts: int = 0
    """Points that would get a vector: of entities and chunks."""


_COUNTS = ("embed", "update", "delete", "empty", "link", "unchanged", "refused", "texts")
"""The fields of PartitionPlan that are counts."""


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """What would be sent to one model."""

    model: str
    dimension: int
    texts: int
    """That would be sent. The text of several entities of a type is sent once, unless the sync is forced."""
    distinct_texts: int
    tokens: int
    tokens_are_measured: bool
    """By the provider's count for the texts of late full syncs; otherwise by the length of the texts."""
    usd: float | None
    """None: the price of the model is not known."""
    seconds: float | None
    """None: no full sync with this model was measured."""
    texts_per_s: float | None
    runs_measured: int


@dataclass(slots=True)
class Plan:
    """What a full sync would do."""

    partitions: list[PartitionPlan] = field(default_factory=list)
    models: list[ModelPlan] = field(default_factory=list)
    builds: list[str] = field(default_factory=list)
    """Collections that would be made, or filled beside those in service."""
    held_back: list[str] = field(default_factory=list)
    """Sentences about deletions that wait for a person; they are not counted in `partitions`."""

    def total(self) -> PartitionPlan:
        summed = PartitionPlan("all", 0)
        for part in self.partitions:
            add_fields(summed, part, _COUNTS)
        return summed


def partitions_named(settings: Settings, types: Iterable[str], names: Iterable[str]) -> dict[str, list[int]]:
    """By entity type, the shards of `types`, or those of them that `names` name as partitions.

    Raises:
        ValueError: a name is that of no partition of these types.
    """
    every = {
        partition_key(entity_type, shard, settings.shards): (entity_type, shard)
        for entity_type in types
        for shard in range(settings.shards)
    }
    wanted = list(dict.fromkeys(names))
    if unknown := [name for name in wanted if name not in every]:
        raise ValueError(f"no partition {unknown[0]!r}: one of {', '.join(list(every)[:_NAMED])} …")
    found: dict[str, list[int]] = {}
    for entity_type, shard in (every[name] for name in wanted or every):
        found.setdefault(entity_type, []).append(shard)
    return found


def model_named(model: str, dimension: int | None) -> ModelProfile:
    """The profile of a model to plan for, in place of the one that the settings name.

    Raises:
        SettingsError: the model is not known and no dimension is given, or it does not have that dimension.
    """
    try:
        return profile_for(model, dimension=dimension)
    except ValueError as error:
        raise SettingsError(str(error).replace("EMBEDDING_DIMENSION", "the dimension")) from error


def make_plan(
    platform: Platform,
    partitions: Mapping[str, Iterable[int]],
    *,
    force: bool = False,
    allow_mass_delete: bool = False,
    profile: ModelProfile | None = None,
) -> Plan:
    """What a full sync of these shards, by entity type, would do now. Memory: a batch of rows, 16 bytes an entity and 8
    a text.

    `profile`: another model than the one that the settings name.

    Raises:
        StoreUnavailable, StoreRefused, CollectionMismatch, CollectionNotOurs: the full sync would end with the same.
    """
    planner = _Planner(platform, profile or platform.embedder.profile, force=force, hold_back=not allow_mass_delete)
    for entity_type, shards in partitions.items():
        for first, last in _runs(sorted(set(shards))):
            planner.add_range(entity_type, range(first, last + 1))
    return planner.plan()


def _runs(shards: Sequence[int]) -> Iterator[tuple[int, int]]:
    """First and last of each contiguous run of ascending numbers."""
    for _, run in groupby(enumerate(shards), lambda item: item[1] - item[0]):
        numbers = [shard for _, shard in run]
        yield numbers[0], numbers[-1]


class _Planner:
    """Adds up the plan of one range of shards after the other."""

    def __init__(self, platform: Platform, profile: ModelProfile, *, force: bool, hold_back: bool) -> None:
        """`hold_back`: deletions that a person has to allow are left out, as the full sync does."""
        self._platform = platform
        self._force = force
        self._hold_back = hold_back
        self._targets = foresee_targets(platform, profile)
        self._moves_model = any(one.building for one in self._targets.values())
        served = {alias: one.serving for alias, one in self._targets.items() if one.serving is not None}
        self._linked_by = rules_fingerprint(platform, serving_profile(platform, served))
        self._sent: dict[tuple[str, int], tuple[ModelProfile, _Sent]] = {}
        self._plan = Plan()
        self._aliases: list[str] = []

    def plan(self) -> Plan:
        last = {alias: self._targets[alias].targets[-1] for alias in self._aliases}
        self._plan.builds = [one.name for alias, one in last.items() if one.is_new or self._targets[alias].building]
        with self._platform.postgres.transaction() as connection:
            self._plan.models = [
                self._model_plan(profile, texts, measured_rate(self._platform, connection, profile))
                for profile, texts in self._sent.values()
            ]
        return self._plan

    def add_range(self, entity_type: str, shards: range) -> None:
        platform, total = self._platform, self._platform.settings.shards
        slots = (slot_range(shards[0], total)[0], slot_range(shards[-1], total)[1])
        alias = platform.settings.entity_types[entity_type].collection_name
        self._aliases.append(alias)
        targets = self._targets[alias]
        lacking = targets.lacking_in
        parts = {shard: PartitionPlan(entity_type, shard) for shard in shards}
        with platform.postgres.session() as session:
            # Of a collection that is yet to be made nothing counts as recorded, whatever bore its name before.
            lacking_in = None if lacking is None else "" if lacking.is_new else lacking.name
            find_differing(platform, session, entity_type, slots, Stages(), lacking_in, force=self._force)
            held = hold_back_vanished(platform, session, entity_type, slots, records=False) if self._hold_back else None
            if held is not None:
                self._plan.held_back.append(held.sentence)
            reader = platform.source(entity_type)
            if reader is not None:
                faults = reader.id_faults(session, slots)
                parts[shards[0]].refused += faults.nameless + len(faults.too_long)
            session.execute(platform.postgres.query("make_to_link"))
            for batch in batches_of(session, _ROWS_AT_ONCE, total):
                marked = self._add_batch(entity_type, targets, batch, parts[batch.shard])
                with session.cursor() as cursor, cursor.copy("COPY to_link FROM STDIN") as writer:
                    for entity_id in marked:
                        writer.write_row((entity_id,))
            counted = session.execute(
                platform.postgres.query("count_to_link"),
                {
                    "entity_type": entity_type,
                    "shards": total,
                    "low": slots[0],
                    "high": slots[1],
                    "linked_by": self._linked_by,
                    "everything": self._force or self._moves_model,
                },
            )
            for shard, links in counted:
                parts[shard].link = links
        self._plan.partitions += parts.values()

    def _add_batch(
        self, entity_type: str, targets: ForeseenTargets, batch: ShardBatch, part: PartitionPlan
    ) -> set[str]:
        """Count a batch. Returns the ids of the entities that would be linked."""
        with self._platform.postgres.transaction() as connection:
            found, refused = foresee(self._platform, connection, entity_type, batch.wanted, force=self._force)
            by_target = [(target, self._writes(connection, entity_type, found, target)) for target in targets.targets]
        part.refused += len(refused.unstorable)
        marked = set()
        for number, one in enumerate(found):
            plans = [(target, writes[number]) for target, writes in by_target]
            if not one.is_dirty and not any(
                _is_lacking(plan) for target, plan in plans if target == targets.lacking_in
            ):
                part.unchanged += 1
                if one.is_marked:
                    marked.add(one.state.id)
                continue
            moved = self._count(part, targets, plans)
            if moved or one.is_marked:
                marked.add(one.state.id)
        return marked

    def _writes(
        self, connection: Connection, entity_type: str, found: Sequence[Foreseen], target: ForeseenTarget
    ) -> list[WritePlan]:
        states = [one.state for one in found]
        recorded: dict[str, EmbeddedRow] = {}
        if not target.is_new:
            wanted = {"entity_type": entity_type, "ids": [state.id for state in states], "collection": target.name}
            recorded = dict(self._platform.postgres.rows(connection, "read_embedded", by_id(EmbeddedRow), wanted))
        return plan_writes(self._platform, connection, states, recorded, target.profile, force=self._force)

    def _count(
        self, part: PartitionPlan, targets: ForeseenTargets, plans: Sequence[tuple[ForeseenTarget, WritePlan]]
    ) -> bool:
        """Count one entity that would be indexed. Returns whether its vector in service would change."""
        moved = False
        for target, plan in plans:
            if plan.refusal is not None or (targets.building and plan.written_already):
                continue
            if plan.embeds:
                part.texts += plan.point_count
                if plan.vectors is None:
                    self._send(part.entity_type, target.profile, plan)
            serves = not targets.building or target is not targets.targets[-1]
            moved |= serves and (plan.embeds or (plan.recorded is not None and plan.removes))
        last = plans[-1][1]
        if last.refusal is not None:
            part.refused += 1
        elif last.dirty.deleted:
            part.delete += 1
        elif last.removes:
            part.empty += 1
        elif any(plan.embeds for _, plan in plans):
            part.embed += 1
        else:
            part.update += 1
        return moved

    def _send(self, entity_type: str, profile: ModelProfile, plan: WritePlan) -> None:
        key = (profile.name, profile.dimension)
        if key not in self._sent:
            self._sent[key] = (profile, _Sent(every_entity=self._force))
        prepared = plan.dirty.prepared
        # Each entity type has an indexer of its own, so that a text of two types is sent twice.
        self._sent[key][1].add(
            f"{entity_type}:{plan.text_hash}", (prepared.text, *(chunk.text for chunk in prepared.chunks))
        )

    def _model_plan(self, profile: ModelProfile, texts: "_Sent", rate: EmbeddingRate | None) -> ModelPlan:
        sent, size = texts.sent()
        per_byte = rate.tokens_per_byte if rate is not None else None
        # The provider counts the prefix, too; it is part of what was measured.
        prefix = 0 if per_byte is not None else sent * len(profile.text_prefix.encode())
        tokens = math.ceil((size + prefix) * (per_byte or 1 / BYTES_A_TOKEN))
        price = self._platform.usd_per_million_tokens(profile)
        return ModelPlan(
            profile.name,
            profile.dimension,
            sent,
            texts.distinct(),
            tokens,
            per_byte is not None,
            None if price is None else tokens * price / 1_000_000,
            None if rate is None else sent / rate.texts_per_s,
            None if rate is None else rate.texts_per_s,
            0 if rate is None else rate.runs,
        )


def _is_lacking(plan: WritePlan) -> bool:
    """The collection does not hold the entity as the ledger has it, or holds one that it should not."""
    return plan.recorded is not None if plan.removes else not plan.written_already


class _Sent:
    """Counts the texts that one model would be sent, and how many of them are distinct.

    The indexer of a type sends a text that several entities have once, with its chunks; equal chunks of different texts
    are sent each. Texts are told apart by 64 bits of a hash: the probability that two of a million are taken for one is
    below 1 in 10 million.
    """

    def __init__(self, *, every_entity: bool) -> None:
        """`every_entity`: equal texts of several entities are sent for each of them."""
        self._every_entity = every_entity
        self._entities = _Distinct(weights=2)
        self._texts = _Distinct(weights=0)
        self._all = [0, 0]

    def add(self, sent_once: str, texts: Iterable[str]) -> None:
        """Count the texts of an entity: its own and those of its chunks. Entities of one `sent_once` share them."""
        encoded = [text.encode(errors="surrogatepass") for text in texts]
        for one in encoded:
            self._texts.add(one)
        counts = (len(encoded), sum(map(len, encoded)))
        self._entities.add(sent_once.encode(), *counts)
        self._all = [total + count for total, count in zip(self._all, counts, strict=True)]

    def sent(self) -> tuple[int, int]:
        """The number of texts, and their bytes in UTF-8."""
        _, (texts, size) = self._entities.counted()
        return (self._all[0], self._all[1]) if self._every_entity else (texts, size)

    def distinct(self) -> int:
        return self._texts.counted()[0]


class _Distinct:
    """Distinct keys, each with its first weights: 8 bytes a key and 4 a weight."""

    def __init__(self, *, weights: int) -> None:
        self._hashes = array("Q")
        self._weights = [array("I") for _ in range(weights)]
        self._compact_at = _COMPACTED_AT

    def add(self, key: bytes, *weights: int) -> None:
        self._hashes.append(int.from_bytes(blake2b(key, digest_size=8).digest()))
        for column, weight in zip(self._weights, weights, strict=True):
            column.append(weight)
        if len(self._hashes) >= self._compact_at:
            self._compact()
            self._compact_at = len(self._hashes) + _COMPACTED_AT

    def counted(self) -> tuple[int, list[int]]:
        """The number of distinct keys, and the sums of their weights."""
        self._compact()
        return len(self._hashes), [sum(column) for column in self._weights]

    def _compact(self) -> None:
        hashes, first = np.unique(np.asarray(self._hashes, dtype=np.uint64), return_index=True)
        columns = [np.asarray(column, dtype=np.uint32)[first] for column in self._weights]
        self._hashes = array("Q", hashes.tobytes())
        self._weights = [array("I", column.tobytes()) for column in columns]
