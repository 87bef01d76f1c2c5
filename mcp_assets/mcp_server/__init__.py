"""The MCP server: gives assistants and other programs the index by the Model Context Protocol.

Belongs here: tools, resources, their descriptions, who may connect. Does not: how something is found, which is in
`mcp_assets.sync`.

Writes nothing, and takes no lock.
"""
