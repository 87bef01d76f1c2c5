"""Payload keys: renames the keys of older versions (`kind`, `slot`, ...) in a collection to those with a prefix.

Nothing is embedded: a payload is read, its keys are renamed, and it replaces the old one. Older versions dropped
metadata under names that were reserved then; it is added from the ledger. The pass reads one page at a time. If it is
killed, the next pass renames only the payloads that are left.
"""

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from mcp_assets.entities.points import FORMER_KEYS, Key, bears_former_keys, with_prefix
from mcp_assets.platform import Platform
from mcp_assets.stores.qdrant_points import HeldPoint

logger = logging.getLogger(__name__)


def rename_payload_keys(platform: Platform, collection: str) -> int:
    """Rename the keys of all points that this platform wrote before they got a prefix; returns their number.

    No other process may write to the collection meanwhile.

    Raises:
        StoreUnavailable, StoreRefused: payloads renamed by then stay renamed; the next call renames the rest.
    """
    renamed = read = 0
    for page in platform.qdrant.payload_pages(collection, limit=platform.tuning.collections.payloads_a_page):
        former = [point for point in page if bears_former_keys(point.payload)]
        if former:
            if not renamed:
                logger.warning("the payload keys of %s get their prefix; nothing is embedded", collection)
            metadata = _reserved_metadata(platform, former)
            payloads = {
                UUID(point.id): with_prefix(point.payload, metadata.get(_state(point.payload), {}))
                for point in former
                if not point.id.isdecimal()
            }
            platform.qdrant.write(collection, payloads=payloads)
            renamed += len(payloads)
        read += len(page)
    if renamed:
        logger.warning("the payload keys of %d of %d points of %s have their prefix", renamed, read, collection)
    return renamed


_State = tuple[str, str, str]


def _state(payload: Any) -> _State:
    """Type and id of the entity that an old payload names, and the state hash that it was made of."""
    return payload[Key.ENTITY_TYPE], payload[Key.ENTITY_ID], payload["state_hash"]


def _reserved_metadata(platform: Platform, former: Sequence[HeldPoint]) -> dict[_State, dict[str, Any]]:
    """Metadata of the entities of `former` under names that were reserved: by type, id and state hash."""
    names = {_state(point.payload)[:2] for point in former}
    with platform.postgres.transaction() as connection:
        parameters = {
            "types": [name[0] for name in names],
            "ids": [name[1] for name in names],
            "keys": list(FORMER_KEYS),
        }
        rows = platform.postgres.rows(connection, "metadata_of_keys", _FormerMetadata, parameters)
    return {(row.entity_type, row.entity_id, row.state_hash): row.metadata for row in rows}


class _FormerMetadata(NamedTuple):
    """The metadata of an entity under names that were reserved, and the state that it belongs to."""

    entity_type: str
    entity_id: str
    state_hash: str
    metadata: dict[str, Any]
