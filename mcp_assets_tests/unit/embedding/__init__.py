"""Unit tests of `mcp_assets.embedding`: no server."""
