"""Write plan: what one collection needs of one entity: new vectors, a new payload on old vectors, or a removal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from mcp_assets.embedding.profiles import ModelProfile
from mcp_assets.embedding.protocol import Embedder, Refusal
from mcp_assets.entities.points import chunk_id, payload, point_id
from mcp_assets.entities.refs import EntityRef
from mcp_assets.entities.text import LONGEST_TEXT
from mcp_assets.platform import Platform
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.qdrant_collections import Collection
from mcp_assets.stores.qdrant_points import Point
from mcp_assets.sync.collections.serving import WriteTarget, WriteTargets
from mcp_assets.sync.index import paid_vectors
from mcp_assets.sync.index.ledger import Dirty
from mcp_assets.sync.index.paid_vectors import Vectors


@dataclass(frozen=True, slots=True)
class Destination:
    """One of the collections that the points of a batch go to."""

    target: WriteTarget
    embedder: Embedder
    targets: WriteTargets

    @property
    def collection(self) -> Collection:
        return self.target.collection

    @property
    def serves(self) -> bool:
        """Searches read this collection."""
        return self.target is self.targets.serving

    @property
    def is_last(self) -> bool:
        """A batch is written to this collection after all others."""
        return self.target is self.targets.writable[-1][0]


@dataclass(frozen=True, slots=True)
class EmbeddedRow:
    """A row of `embedded`: what a collection holds of an entity, as last recorded."""

    text_hash: str
    state_hash: str
    points: int
    vector_checks: Sequence[float]

    def same_vectors(self, other: "EmbeddedRow | None") -> bool:
        return other is not None and (self.text_hash, self.vector_checks) == (other.text_hash, other.vector_checks)


@dataclass(slots=True, eq=False)
class WritePlan:
    """What is to be written of one entity to one collection."""

    dirty: Dirty
    recorded: EmbeddedRow | None
    """None: no point of the entity is recorded for the collection."""
    force: bool = False
    vectors: Vectors | None = None
    vectors_kept: bool = False
    """PostgreSQL keeps the vectors, too, until they are written."""
    refusal: Refusal | None = None
    point_missing: bool = False
    """Qdrant lacks a point that is recorded. The entity has to be embedded again."""
    removes: bool = field(init=False)
    """The entity has no points: it is deleted, or has no text."""

    def __post_init__(self) -> None:
        self.removes = self.dirty.deleted or not self.dirty.prepared.text

    @property
    def id(self) -> str:
        return self.dirty.id

    @property
    def text_hash(self) -> str:
        return self.dirty.prepared.text_hash

    @property
    def embeds(self) -> bool:
        return not self.removes and (self.force or self.recorded is None or self.recorded.text_hash != self.text_hash)

    @property
    def written_already(self) -> bool:
        """The collection holds this state: nothing is to be written."""
        return (
            not self.force
            and not self.removes
            and self.recorded is not None
            and (self.recorded.text_hash, self.recorded.state_hash) == (self.text_hash, self.dirty.state_hash)
        )

    @property
    def replaces(self) -> bool:
        """Vectors that the collection holds are replaced or removed."""
        return self.recorded is not None and self.refusal is None and (self.removes or self.vectors is not None)

    @property
    def point_count(self) -> int:
        return 0 if self.removes else 1 + len(self.dirty.prepared.chunks)

    @property
    def checks(self) -> Sequence[float]:
        """The vector checks of the points as they are once the plan is written."""
        if self.vectors is not None:
            return self.vectors.checks
        return self.recorded.vector_checks if self.recorded is not None else ()


def plan_writes(
    platform: Platform,
    connection: Connection,
    dirty: Sequence[Dirty],
    recorded: Mapping[str, EmbeddedRow],
    profile: ModelProfile,
    *,
    force: bool,
) -> list[WritePlan]:
    """What a collection needs of `dirty`, with the vectors that an earlier run has paid for and could not write.

    `recorded`: what it holds, by entity. `profile`: its model.
    """
    plans = [WritePlan(entity, recorded.get(entity.id), force) for entity in dirty]
    embedding = [plan for plan in plans if plan.embeds and not force]
    if embedding:
        hashes = [plan.text_hash for plan in embedding]
        kept = paid_vectors.kept(platform, connection, profile.key, profile.dimension, hashes)
        for plan in embedding:
            vectors = kept.get(plan.text_hash)
            if vectors is not None and len(vectors.rows) == plan.point_count:
                plan.vectors, plan.vectors_kept = vectors, True
    for plan in plans:
        length = len(plan.dirty.content)
        if length > LONGEST_TEXT:
            plan.refusal = Refusal(
                "text_too_long",
                f"the text has {length:,} characters; at most {LONGEST_TEXT:,} can be indexed: split the entity",
            )
    return plans


@dataclass(slots=True)
class PointChanges:
    """One write to Qdrant: points to upsert, payloads to replace, points to delete."""

    upsert: list[Point] = field(default_factory=list)
    payloads: dict[UUID, Mapping[str, Any]] = field(default_factory=dict)
    delete: list[UUID] = field(default_factory=list)

    def add(self, ref: EntityRef, plan: WritePlan, *, chunk_bound: int, model: str, indexed_at: str) -> None:
        """Add what `plan` needs; `chunk_bound`: Qdrant holds no chunk of the entity numbered this or higher."""
        dirty = plan.dirty
        own = point_id(ref)
        chunks = () if plan.removes else dirty.prepared.chunks
        self.delete += [chunk_id(own, number) for number in range(len(chunks), chunk_bound)]
        if plan.removes:
            self.delete.append(own)
            return
        numbered = [None, *enumerate(chunks)]
        for row, (chunk, check) in enumerate(zip(numbered, plan.checks, strict=True)):
            identifier = own if chunk is None else chunk_id(own, chunk[0])
            carried = payload(
                ref,
                dirty.metadata,
                title=dirty.title,
                text_hash=plan.text_hash,
                state_hash=dirty.state_hash,
                model=model,
                vector_check=check,
                indexed_at=indexed_at,
                chunk=chunk,
            )
            if plan.vectors is not None:
                self.upsert.append(Point(identifier, plan.vectors.rows[row], carried))
            else:
                self.payloads[identifier] = carried
