"""Waiting entities: those that are marked to be linked or whose ledger row is dirty, so that their edges may change."""

from collections.abc import Collection

from mcp_assets.entities.refs import EntityRef
from mcp_assets.platform import Platform
from mcp_assets.stores.postgres import Connection
from mcp_assets.sync.link.link_state import by_type_and_id


def entities_that_wait(platform: Platform, connection: Connection, refs: Collection[EntityRef]) -> set[EntityRef]:
    """Those of `refs`."""
    if not refs:
        return set()
    rows = connection.execute(platform.postgres.query("waiting_for_links"), by_type_and_id(refs))
    return {EntityRef(*row) for row in rows}
