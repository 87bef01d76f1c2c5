"""Lying rows: living ledger rows whose hashes were not made of their own columns, so that no edge is made from them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from mcp_assets.entities.refs import EntityRef
from mcp_assets.platform import Platform
from mcp_assets.stores.postgres import Connection
from mcp_assets.sync.consistency.drift import Drift, DriftKind
from mcp_assets.sync.consistency.ledger_hashes import EntityText
from mcp_assets.sync.consistency.recheck import LIE, lies
from mcp_assets.sync.link.link_state import by_type_and_id


@dataclass(frozen=True, slots=True)
class _HashedText:
    """A living ledger row: the columns that hashes are made of, and the hashes."""

    entity_type: str
    entity_id: str
    origin: str
    prepared_by: str
    text_hash: str
    state_hash: str
    title: str | None
    content: str
    metadata: Mapping[str, Any]


def lying_rows(platform: Platform, connection: Connection, refs: Collection[EntityRef]) -> dict[EntityRef, Drift]:
    """The drift of entities among `refs` whose ledger row has hashes that were not made of its own columns."""
    found: dict[EntityRef, Drift] = {}
    if not refs:
        return found
    for row in platform.postgres.rows(connection, "texts_with_hashes", _HashedText, by_type_and_id(refs)):
        text = EntityText(row.title, row.content, row.metadata)
        if lies(platform, row.entity_type, row.prepared_by, (row.text_hash, row.state_hash), text):
            ref = EntityRef(row.entity_type, row.entity_id)
            kind = DriftKind.LYING_LEDGER if row.origin == "source" else DriftKind.DAMAGED_ROW
            found[ref] = Drift(kind, ref, LIE)
    return found
