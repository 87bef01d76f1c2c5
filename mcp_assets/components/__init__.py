"""Components: the platform as a part of another Dagster project. `dg` finds this module by the package's entry point.

Belongs here: what `defs.yaml` may say, and how it becomes settings. Does not belong here: any definition, for those are
in `defs`, or any rule.
"""

from mcp_assets.components.mcp_assets_component import McpAssetsComponent

__all__ = ["McpAssetsComponent"]
