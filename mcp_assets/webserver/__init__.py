"""Dagster's webserver behind a guard: `python -m mcp_assets.webserver` takes the options of `dagster-webserver`.

Dagster's own takes mutations by GET, and from pages of any site that the browser of its user shows.
"""
