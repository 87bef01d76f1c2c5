"""Points: the ids and payloads of the points of an entity and its chunks in Qdrant."""

import uuid
from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic_core import to_json

from mcp_assets.entities.chunks import Chunk
from mcp_assets.entities.refs import EntityRef

POINT_NAMESPACE = uuid.UUID("6b0d9f0e-9a53-5d53-8f3c-0c7c2c1f6a11")
"""Never to be changed: all points would get other ids."""

PREFIX = "mcp_"
"""Begins the platform's payload keys, so that metadata keep their names (`kind`, `start`, `model`, ...)."""


class Key:
    """The platform's payload keys. `entity_id` and `entity_type` have no prefix, because other programs read them."""

    ENTITY_ID: Final = "entity_id"
    ENTITY_TYPE: Final = "entity_type"
    KIND: Final = f"{PREFIX}kind"
    TEXT_HASH: Final = f"{PREFIX}text_hash"
    STATE_HASH: Final = f"{PREFIX}state_hash"
    MODEL: Final = f"{PREFIX}model"
    VECTOR_CHECK: Final = f"{PREFIX}vector_check"
    INDEXED_AT: Final = f"{PREFIX}indexed_at"
    SLOT: Final = f"{PREFIX}slot"
    CHUNK: Final = f"{PREFIX}chunk"
    START: Final = f"{PREFIX}start"
    END: Final = f"{PREFIX}end"


INDEXED_KEYS: Mapping[str, Literal["keyword", "integer"]] = {
    Key.ENTITY_ID: "keyword",
    Key.ENTITY_TYPE: "keyword",
    Key.SLOT: "integer",
    # Last: a collection with this index has all of them, and no point of it has the former keys.
    Key.KIND: "keyword",
}
"""Payload keys that Qdrant indexes: every key of a filter, because a strict Qdrant refuses filters by other keys.

They are made in this order. Filters are always positive (`mcp_kind = entity`).
"""

RESERVED_KEYS = frozenset(value for name, value in vars(Key).items() if name.isupper())
"""All payload keys of the platform: metadata of the same name are left out."""

FORMER_KEYS: Mapping[str, str] = {key.removeprefix(PREFIX): key for key in RESERVED_KEYS if key.startswith(PREFIX)}
"""The names of the keys before they got a prefix -> their names now."""

_FORMERLY_ALWAYS = frozenset(("entity_id", "entity_type", "kind", "text_hash", "state_hash", "model", "slot"))
"""Keys that every payload with former keys has."""

CHUNK_VALUE_BYTES = 1_000
"""See CHUNK_METADATA_BYTES."""

CHUNK_METADATA_BYTES = 8_000
"""The metadata that the point of a chunk carries, for filters: values of at most CHUNK_VALUE_BYTES of JSON, ordered by
their keys, CHUNK_METADATA_BYTES in all. A long text has hundreds of chunks, which do not repeat longer values."""


def point_id(ref: EntityRef) -> uuid.UUID:
    """The id of the entity point: a function of type and id, so that an update replaces the point and adds none."""
    return uuid.uuid5(POINT_NAMESPACE, str(ref))


def chunk_id(entity_point: uuid.UUID, number: int) -> uuid.UUID:
    """The id of the point of chunk `number`, counted from 0."""
    return uuid.uuid5(entity_point, str(number))


def is_own_id(point: str) -> bool:
    """Whether a point id, as text, is of the kind that this platform makes: a UUID of version 5."""
    return len(point) == _UUID_LENGTH and point[_UUID_VERSION_AT] == "5"


_UUID_LENGTH = 36
_UUID_VERSION_AT = 14
"""The position of the digit that gives the version of a UUID, in its text."""


def bears_former_keys(carried: Mapping[str, Any]) -> bool:
    """Whether this platform wrote the payload before its keys got a prefix."""
    return (
        Key.KIND not in carried
        and carried.keys() >= _FORMERLY_ALWAYS
        and carried["kind"] in ("entity", "chunk")
        and isinstance(carried[Key.ENTITY_ID], str)
        and isinstance(carried[Key.ENTITY_TYPE], str)
    )


def with_prefix(carried: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, Any]:
    """A payload with former keys, under the present keys, and with those of `metadata` that former keys replaced."""
    ours = {FORMER_KEYS.get(key, key): value for key, value in carried.items()}
    return {key: value for key, value in metadata.items() if key in FORMER_KEYS} | ours


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
    """The entity's metadata, flat, its title, and the reserved keys; `chunk`: the number of the chunk, and the chunk.

    The point of a chunk carries only the short values of the metadata.
    """
    if chunk is not None:
        metadata = _short(metadata)
    carried = {key: value for key, value in metadata.items() if key not in RESERVED_KEYS}
    if title is not None:
        carried["title"] = title
    carried |= {
        Key.KIND: "entity",
        Key.ENTITY_ID: ref.id,
        Key.ENTITY_TYPE: ref.type,
        Key.TEXT_HASH: text_hash,
        Key.STATE_HASH: state_hash,
        Key.MODEL: model,
        Key.VECTOR_CHECK: vector_check,
        Key.INDEXED_AT: indexed_at,
        Key.SLOT: ref.slot,
    }
    if chunk is not None:
        number, piece = chunk
        carried |= {Key.KIND: "chunk", Key.CHUNK: number, Key.START: piece.start, Key.END: piece.end}
    return carried


def _short(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The values that the points of chunks carry."""
    room = CHUNK_METADATA_BYTES
    carried: dict[str, Any] = {}
    for key in sorted(metadata):
        size = len(key.encode()) + len(to_json(metadata[key]))
        if size <= min(CHUNK_VALUE_BYTES, room):
            room -= size
            carried[key] = metadata[key]
    return carried
