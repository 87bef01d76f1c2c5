"""Processes tied to each other: `child` is a process that ends with its parent, `tree` all processes of a command.

These two know nothing of what the processes do. The embedded stack's supervisor uses them, and so does
`dagster_services`, which keeps the services of `mcp-assets dev` running.
"""
