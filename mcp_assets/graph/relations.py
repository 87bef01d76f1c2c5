"""Relations: which edge a metadata key, or a phrase before a reference, makes."""

from dataclasses import dataclass

from mcp_assets.graph.edges import EdgeType


@dataclass(frozen=True, slots=True)
class MetadataKey:
    """A metadata key whose value names other entities. Strength 1.0."""

    relation: EdgeType
    reverse: bool = False
    """The entity that has the key is the *target* of the edge."""
    of_type: str | None = None
    """The entity type of a bare id, if this type is registered; otherwise a bare id has the source's own type."""


@dataclass(frozen=True, slots=True)
class Phrase:
    """Words directly before a reference in a text. The entity that has the text is the source of the edge."""

    relation: EdgeType
    strength: float
    """0..1, less than that of metadata, because the words may be about something else."""
