"""Entity: one entity as the ledger has it, for a person or a program that wants to read it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mcp_assets.entities.refs import EntityRef
from mcp_assets.platform import Platform


@dataclass(frozen=True, slots=True)
class StoredEntity:
    """A living entity."""

    title: str | None
    content: str
    metadata: Mapping[str, Any]
    origin: str
    """`source`: it has a row in its source table; `event`: it lives by its events alone."""
    changed_at: datetime
    """When the ledger took its present state."""
    embedded_at: datetime | None
    """When its present state was written to the collection in service; None: it is not there yet."""


def read_entity(platform: Platform, ref: EntityRef) -> StoredEntity | None:
    """The entity; None if there is none of that type and id, or if it is deleted.

    Raises:
        StoreUnavailable.
    """
    parameters = {"entity_type": ref.type, "entity_id": ref.id}
    with platform.postgres.transaction() as connection:
        return platform.postgres.row(connection, "read_entity", StoredEntity, parameters)
