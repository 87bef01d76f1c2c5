"""EntityRef: the name of one task, page or memory, and its slot, shard and partition."""

import hashlib
from functools import lru_cache
from typing import NamedTuple

SLOTS = 1 << 16
"""Enough for any number of shards. Never to be changed, because tables keep the slots of entities."""

MAX_ID_LENGTH = 512
"""In characters: ids are UUIDs, numbers or names."""

MAX_ID_BYTES = 1024
"""In UTF-8: an index of PostgreSQL takes rows of 2,704 bytes, and one row of `relationships` names two entities."""


class EntityRef(NamedTuple):
    """One entity. `id` is any text without NUL or lone surrogates, 1 to MAX_ID_LENGTH characters and at most
    MAX_ID_BYTES."""

    type: str
    id: str

    def __str__(self) -> str:
        return f"{self.type}:{self.id}"

    @property
    def slot(self) -> int:
        return slot_of(self.id)


def ref_or_none(entity_type: str | None, entity_id: str | None) -> EntityRef | None:
    """The entity that two columns name, which are both NULL where a row names none."""
    return None if entity_type is None or entity_id is None else EntityRef(entity_type, entity_id)


def id_excess(entity_id: str) -> str | None:
    """How an id is too long, as the end of a sentence; None if it is not."""
    if len(entity_id) > MAX_ID_LENGTH:
        return f"has {len(entity_id)} characters; an id has at most {MAX_ID_LENGTH}"
    # A lone surrogate counts here as three bytes; another check refuses it.
    size = len(entity_id) if entity_id.isascii() else len(entity_id.encode(errors="surrogatepass"))
    if size > MAX_ID_BYTES:
        return f"has {size} bytes in UTF-8; an id has at most {MAX_ID_BYTES}"
    return None


@lru_cache(maxsize=4096)  # each entity of a batch is asked for several times
def slot_of(entity_id: str) -> int:
    """First 16 bits of md5(id), 0..65535: the same number as `stores/postgres/sql` computes in PostgreSQL."""
    return int(hashlib.md5(entity_id.encode(), usedforsecurity=False).hexdigest()[:4], 16)


def shard_of(slot: int, shards: int) -> int:
    """The shard, 0..shards-1, that `slot` falls into."""
    return slot * shards >> 16


def partition_key(entity_type: str, shard: int, shards: int) -> str:
    """Such as `task-02`; as many digits as the highest shard has, at least two."""
    return f"{entity_type}-{shard:0{max(2, len(str(shards - 1)))}d}"


def slot_range(shard: int, shards: int) -> tuple[int, int]:
    """The slots of `shard` as a half-open range [low, high)."""
    return -(-(shard << 16) // shards), -(-((shard + 1) << 16) // shards)
