"""What Dagster loads in this folder: the platform, and whatever you add.

To add definitions of your own, put this in place of the import below:

    import dagster as dg
    from mcp_assets.definitions import defs as platform

    @dg.definitions
    def defs() -> dg.Definitions:
        return dg.Definitions.merge(platform(), dg.Definitions(assets=[...]))
"""

from mcp_assets.definitions import defs

__all__ = ["defs"]
