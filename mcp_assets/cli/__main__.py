"""`python -m mcp_assets.cli`: the `mcp-assets` command."""

from mcp_assets.cli.app import main

main()
