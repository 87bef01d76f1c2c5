"""The embedded Qdrant: the engine of `qdrant-edge-py` behind a loopback server that speaks Qdrant's REST API.

What belongs here: everything that makes `qdrant-client` see a Qdrant server (`python -m mcp_assets.embedded.qdrant`):
routes, translation between REST and engine, the catalogue of collections and aliases, upkeep. What does not: anything
that knows of entities, embeddings or edges; those talk to Qdrant through `stores/`, embedded or not.
"""

STRICT_VARIABLE = "EMBEDDED_QDRANT_STRICT"
"""An environment variable: set to 1 it has the same effect as `--strict`. The embedded stack hands it down."""
