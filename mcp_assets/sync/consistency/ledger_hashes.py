"""Ledger hashes: what ledger and table `embedded` record of an entity, and the texts that their hashes are made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mcp_assets.platform import Platform
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.postgres.rows import by_id
from mcp_assets.sync.consistency.compare import Recorded


@dataclass(slots=True)
class LedgerHashes:
    """An entity in the ledger and in the table `embedded`, for one collection. NULLs stand for an absent row.

    It is not frozen, because a census makes one for each entity: 10,000 take 3 ms, and 26 ms if they are frozen.
    """

    entity_id: str
    in_ledger: bool
    origin: str | None
    source_hash: str | None
    prepared_by: str | None
    text_hash: str | None
    state_hash: str | None
    deleted: bool
    dirty: bool
    chunk_bound: int
    recorded_model: str | None
    recorded_text_hash: str | None
    recorded_state_hash: str | None
    recorded_points: int | None
    recorded_vector_checks: Sequence[float] | None

    @property
    def living(self) -> bool:
        return self.in_ledger and not self.deleted

    @property
    def recorded(self) -> Recorded | None:
        """What the ledger records of the entity's points in the collection."""
        if (
            self.recorded_model is None
            or self.recorded_text_hash is None
            or self.recorded_state_hash is None
            or self.recorded_points is None
            or self.recorded_vector_checks is None
        ):
            return None
        return Recorded(
            self.recorded_model,
            self.recorded_text_hash,
            self.recorded_state_hash,
            self.recorded_points,
            self.recorded_vector_checks,
        )


class EntityText(NamedTuple):
    """What the text and the payload of an entity are made of."""

    title: str | None
    content: str
    metadata: Mapping[str, Any]


def read_texts(
    platform: Platform, connection: Connection, entity_type: str, ids: Sequence[str]
) -> dict[str, EntityText]:
    """Title, content and metadata of the living entities of `ids`, by id, as the ledger has them."""
    parameters = {"entity_type": entity_type, "ids": list(ids)}
    return dict(platform.postgres.rows(connection, "census_texts", by_id(EntityText), parameters))
