"""Tests of `mcp_assets.cli`."""
