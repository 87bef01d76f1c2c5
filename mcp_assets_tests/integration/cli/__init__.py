"""Tests of the `mcp-assets` command, as a process of its own."""
