"""Qdrant: what the platform asks of one Qdrant, through qdrant-client over REST. It knows nothing of models.

`qdrant_collections`, `qdrant_points` and `qdrant_search` hold the requests, `qdrant_connection` the client. Which
collection belongs to which model is decided in `sync.collections`.
"""

from mcp_assets.stores.qdrant_collections import QdrantCollections
from mcp_assets.stores.qdrant_points import QdrantPoints
from mcp_assets.stores.qdrant_search import QdrantSearches


class Qdrant(QdrantCollections, QdrantPoints, QdrantSearches):
    """One Qdrant. Thread-safe; connects lazily. Every write waits until it is applied."""
