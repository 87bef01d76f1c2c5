"""mcp_assets: embeddings, relationship edges and consistency of an MCP workspace, as Dagster assets."""
