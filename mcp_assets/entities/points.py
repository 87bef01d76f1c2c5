"""Points: the ids and payloads that Qdrant holds of an entity and of its chunks."""

import uuid
from collections.abc import Mapping
from typing import Any, Literal

from mcp_assets.entities.chunks import Chunk
from mcp_assets.entities.refs import EntityRef

POINT_NAMESPACE = uuid.UUID("6b0d9f0e-9a53-5d53-8f3c-0c7c2c1f6a11")

INDEXED_KEYS: Mapping[str, Literal["keyword", "integer"]] = {
    "kind": "keyword",
    "entity_id": "keyword",
    "slot": "integer",
}
"""Payload keys that Qdrant indexes; filters are always positive (`kind = entity`)."""

RESERVED_KEYS = frozenset(
    (
        "kind",
        "entity_id",
        "entity_type",
        "text_hash",
        "state_hash",
        "model",
        "vector_check",
        "indexed_at",
        "slot",
        "chunk",
        "start",
        "end",
    )
)
"""Payload keys that are ours: metadata of the same name is left out."""


def point_id(ref: EntityRef) -> uuid.UUID:
    """The entity's own point: a function of its name, so that an update replaces and never duplicates."""
    return uuid.uuid5(POINT_NAMESPACE, str(ref))


def chunk_id(entity_point: uuid.UUID, number: int) -> uuid.UUID:
    """The point of chunk `number`, counted from 0."""
    return uuid.uuid5(entity_point, str(number))


def payload(
    ref: EntityRef,
    metadata: Mapping[str, Any],
    *,
    title: str | None,
    text_hash: str,
    state_hash: str,
    model: str,
    vector_check: float,
    indexed_at: str,
    chunk: tuple[int, Chunk] | None = None,
) -> dict[str, Any]:
    """The entity's metadata, flat, its title, and the reserved keys; `chunk` is the chunk's number and itself."""
    carried = {key: value for key, value in metadata.items() if key not in RESERVED_KEYS}
    if title is not None:
        carried["title"] = title
    carried |= {
        "kind": "entity",
        "entity_id": ref.id,
        "entity_type": ref.type,
        "text_hash": text_hash,
        "state_hash": state_hash,
        "model": model,
        "vector_check": vector_check,
        "indexed_at": indexed_at,
        "slot": ref.slot,
    }
    if chunk is not None:
        number, piece = chunk
        carried |= {"kind": "chunk", "chunk": number, "start": piece.start, "end": piece.end}
    return carried
