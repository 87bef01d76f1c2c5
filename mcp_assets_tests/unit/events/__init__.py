"""Tests of `mcp_assets.events`."""
