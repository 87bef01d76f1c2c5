"""Relations: what a metadata key or a phrase before a reference says about source and target."""

from dataclasses import dataclass

from mcp_assets.graph.edges import EdgeType


@dataclass(frozen=True, slots=True)
class MetadataKey:
    """A metadata key whose value names other entities. Strength 1.0."""

    relation: EdgeType
    reverse: bool = False
    """The entity that has the key is the *target* of the edge."""
    of_type: str | None = None
    """The entity type that a bare id means, if it is registered; otherwise it means the source's own type."""


@dataclass(frozen=True, slots=True)
class Phrase:
    """Words directly before a reference in text; the entity whose text it is is the source of the edge."""

    relation: EdgeType
    strength: float
    """0..1, below that of metadata: prose may say it of something else."""
