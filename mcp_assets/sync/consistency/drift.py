"""Drift: what a census can find: the kinds, how severe each is, and what a person can do about it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from mcp_assets.entities.refs import EntityRef


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"
    """Nothing of ours is broken: a person has to decide."""


class DriftKind(StrEnum):
    """What can be wrong; the values of `drift.kind`."""

    LEDGER_BEHIND = "ledger_behind_source"
    VANISHED_ROW = "vanished_row"
    UNUSABLE_ROW = "unusable_source_row"
    LYING_LEDGER = "lying_ledger"
    DAMAGED_ROW = "damaged_row"
    MISSING_VECTOR = "missing_vector"
    STALE_VECTOR = "stale_vector"
    STALE_PAYLOAD = "stale_payload"
    WRONG_MODEL = "wrong_model"
    INVALID_VECTOR = "invalid_vector"
    SWAPPED_VECTOR = "swapped_vector"
    ORPHAN_VECTOR = "orphan_vector"
    SURPLUS_CHUNK = "surplus_chunk"
    DUPLICATE_POINT = "duplicate_point"
    FOREIGN_POINT = "foreign_point"
    WRONG_WORDS = "wrong_search_words"
    ORPHANED_EDGE = "orphaned_edge"
    FOREIGN_EDGE = "foreign_orphaned_edge"
    MISSING_EDGE = "missing_edge"
    WRONG_EDGE = "wrong_edge"
    SURPLUS_EDGE = "surplus_edge"
    STALE_LINK = "stale_link"
    REMOVED_TYPE = "removed_type"
    UNUSABLE_TABLE = "unusable_relationships"
    DANGLING_REFERENCE = "dangling_reference"

    @property
    def severity(self) -> Severity:
        return Severity.WARNING if self in _WARNINGS else Severity.ERROR

    @property
    def advice(self) -> str:
        """What is wrong and what to do about it, for a person."""
        return _ADVICE[self]


_WARNINGS = frozenset({DriftKind.FOREIGN_POINT, DriftKind.FOREIGN_EDGE, DriftKind.DANGLING_REFERENCE})
"""What other programs or authors wrote; a repair leaves it unless a person asks for more."""

_REPAIR = "`mcp-assets validate --repair`, or the job `repair`,"

_ADVICE: Mapping[DriftKind, str] = {
    DriftKind.LEDGER_BEHIND: "The source row is new or has changed, and no event announced it. "
    f"{_REPAIR} updates the ledger. If this comes back, the server that writes the rows does not publish its events.",
    DriftKind.VANISHED_ROW: "The source row is gone, and no event announced it. "
    f"{_REPAIR} removes the entity; if very many rows are gone, it stops until a person allows it.",
    DriftKind.UNUSABLE_ROW: "A source row has no id, an id that other rows bear too, or one that is too long, so that "
    "it is no entity. Correct the view or the mapping; `mcp-assets doctor` names the rows.",
    DriftKind.LYING_LEDGER: "The ledger row contradicts the source row, or what Qdrant holds. "
    f"{_REPAIR} rewrites the row from what the stores hold.",
    DriftKind.DAMAGED_ROW: "The entity has no source row, and the hashes of its ledger row were not made of the row's "
    "own title, content and metadata, because another program wrote there. Nothing shows which of the two is right, so "
    "that a repair leaves the row, its points and its edges as they are. Publish the entity's event again.",
    DriftKind.MISSING_VECTOR: f"A living entity has no point, or lacks a chunk. {_REPAIR} embeds only these entities.",
    DriftKind.STALE_VECTOR: "The point was made of another text than the entity has now. "
    f"{_REPAIR} embeds only these entities.",
    DriftKind.STALE_PAYLOAD: "The vector is right, its payload is not. "
    f"{_REPAIR} rewrites the payload without embedding.",
    DriftKind.WRONG_MODEL: f"The point was made by another embedding model. {_REPAIR} embeds only these entities.",
    DriftKind.INVALID_VECTOR: "The vector has the wrong dimension, holds numbers that are not finite, or is not of "
    f"length 1. {_REPAIR} embeds only these entities.",
    DriftKind.SWAPPED_VECTOR: "The vector is not the one that was written with this payload. "
    f"{_REPAIR} embeds only these entities.",
    DriftKind.ORPHAN_VECTOR: "A point belongs to an entity that is not living. "
    f"{_REPAIR} removes it; if there are very many, it stops until a person allows it.",
    DriftKind.SURPLUS_CHUNK: f"A chunk that the entity's text does not have. {_REPAIR} removes it.",
    DriftKind.DUPLICATE_POINT: f"A second point names the entity. {_REPAIR} removes it.",
    DriftKind.FOREIGN_POINT: "A point that this platform did not write. It stays; `mcp-assets validate --repair "
    "--foreign` removes it.",
    DriftKind.WRONG_WORDS: "The words by which an entity is searched are missing, are not those of its text, or are of "
    f"an entity that is not living. {_REPAIR} writes them again, without embedding.",
    DriftKind.ORPHANED_EDGE: f"One end of an edge is no living entity. {_REPAIR} removes the edge.",
    DriftKind.FOREIGN_EDGE: "A row of `relationships` that another program wrote names an entity that this platform "
    "does not know as living. The row stays; `mcp-assets validate --repair --foreign-edges` removes it.",
    DriftKind.MISSING_EDGE: f"The rules make an edge that is not in the table. {_REPAIR} re-links the entity.",
    DriftKind.WRONG_EDGE: "An edge has another strength or evidence than the rules give. "
    f"{_REPAIR} re-links the entity.",
    DriftKind.SURPLUS_EDGE: f"The table has an edge that the rules do not make. {_REPAIR} re-links the entity.",
    DriftKind.STALE_LINK: "The entity is not as the linker last saw it, and it is not marked to be linked. "
    f"{_REPAIR} re-links it.",
    DriftKind.REMOVED_TYPE: "The settings no longer name the type, and its edges and messages are still there. Name it "
    f"again in MCP_ASSETS_TYPES, or {_REPAIR} removes the edges that lead to its entities and makes its messages dead "
    "letters; its ledger rows and points stay.",
    DriftKind.UNUSABLE_TABLE: "The table of edges does not accept ours, so that nothing is linked and edges are not "
    "compared: `mcp-assets doctor` names the obstacle.",
    DriftKind.DANGLING_REFERENCE: "A text or its metadata names an entity that does not exist. An edge is made when "
    "the entity appears; otherwise the author has to correct the reference.",
}

DELETING = frozenset({DriftKind.VANISHED_ROW, DriftKind.ORPHAN_VECTOR})
"""A repair removes entities or points for these: a person has to allow it if there are very many."""

OF_POINTS = frozenset({DriftKind.ORPHAN_VECTOR, DriftKind.SURPLUS_CHUNK, DriftKind.DUPLICATE_POINT})
"""Points that should not exist. Each point is drift by itself; of the other kinds there is one drift an entity."""

TO_EMBED = frozenset(
    {
        DriftKind.MISSING_VECTOR,
        DriftKind.STALE_VECTOR,
        DriftKind.WRONG_MODEL,
        DriftKind.INVALID_VECTOR,
        DriftKind.SWAPPED_VECTOR,
    }
)
"""A repair needs a new vector for these."""

OF_ENTITIES = TO_EMBED | {
    DriftKind.LEDGER_BEHIND,
    DriftKind.VANISHED_ROW,
    DriftKind.LYING_LEDGER,
    DriftKind.DAMAGED_ROW,
    DriftKind.STALE_PAYLOAD,
    DriftKind.ORPHAN_VECTOR,
    DriftKind.SURPLUS_CHUNK,
    DriftKind.DUPLICATE_POINT,
}
"""About an entity's ledger row and points."""

LIES = frozenset({DriftKind.LYING_LEDGER, DriftKind.DAMAGED_ROW})
"""The ledger row is wrong, so that the edges that follow from it may be wrong, too."""

OF_LINKS = frozenset({DriftKind.MISSING_EDGE, DriftKind.WRONG_EDGE, DriftKind.SURPLUS_EDGE, DriftKind.STALE_LINK})
"""Repaired by linking the entity again."""


@dataclass(frozen=True, slots=True)
class Drift:
    """One finding of a census. `subject`: the id of the point, or of the row of `relationships`, that it is about."""

    kind: DriftKind
    ref: EntityRef | None
    detail: str
    subject: str = ""
