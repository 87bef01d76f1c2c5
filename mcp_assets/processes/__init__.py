"""Processes tied to each other: `child` is a process that ends with its parent, `tree` all processes of a command.

Nothing here knows what the processes do. The embedded stack's supervisor and the keeper of Dagster's services use it.
"""
