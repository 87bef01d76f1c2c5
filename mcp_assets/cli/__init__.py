"""The `mcp-assets` command: Typer and Rich over what `sync` and `embedded` do. One module a group of commands."""

from mcp_assets.cli.app import main

__all__ = ["main"]
