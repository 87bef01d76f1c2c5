"""Tests of `mcp_assets.graph`."""
