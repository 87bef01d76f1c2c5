"""Announcements: results told on NATS once they are committed. Nobody has to listen, and no run fails for them."""

import json
import logging
from collections.abc import Sequence
from datetime import UTC, datetime

from mcp_assets.entities.refs import EntityRef
from mcp_assets.stores.errors import StoreUnavailable
from mcp_assets.sync.graph_view import edge_counts
from mcp_assets.sync.linker import LinkCounts
from mcp_assets.sync.platform import Platform

logger = logging.getLogger(__name__)

RELATIONSHIPS_COMPLETED = "relationship.analyze.completed"

_NAMED = 1_000
"""Entities that one announcement names."""


def announce_links(platform: Platform, total: LinkCounts, requested: Sequence[EntityRef]) -> None:
    """Tell what was linked, and how many edges each entity that was asked for has now."""
    counts = edge_counts(platform, requested[:_NAMED])
    body = {
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "source": "mcp_assets",
        "data": {
            "relinked": total.relinked,
            "added": {edge_type.value: count for edge_type, count in total.added.items()},
            "changed": {edge_type.value: count for edge_type, count in total.changed.items()},
            "removed": {edge_type.value: count for edge_type, count in total.removed.items()},
            "entities": [
                {"entity_type": ref.type, "entity_id": ref.id, "edges": counts.get(ref, {})}
                for ref in requested[:_NAMED]
            ],
        },
    }
    try:
        platform.nats.announce(RELATIONSHIPS_COMPLETED, json.dumps(body, ensure_ascii=False).encode())
    except StoreUnavailable as error:
        logger.warning("the edges are committed, but %s could not be published: %s", RELATIONSHIPS_COMPLETED, error)
