"""The change feed: how long it is kept, and whether it is published."""

from pydantic import Field, NonNegativeFloat
from pydantic_settings import BaseSettings


class ChangeFields(BaseSettings):
    """The change feed: how long it is kept, and whether it is published."""

    changes_kept: NonNegativeFloat = Field(
        default=7.0,
        validation_alias="MCP_ASSETS_CHANGES_KEPT",
        description="Days for which the change feed keeps an entry; 0 turns the feed off; docs/how-to/change-feed.md.",
    )
    publish_changes: bool = Field(
        default=False,
        validation_alias="MCP_ASSETS_PUBLISH_CHANGES",
        description="Publish the change feed on `mcp_assets.changes.>`, which a stream of yours has to take.",
    )
