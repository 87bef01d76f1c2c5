"""ShownChange tools: the MCP server's tool that says what changed in the index, with its answer."""

from datetime import UTC, datetime
from typing import Annotated

from mcp.server.mcpserver.exceptions import ToolError
from pydantic import BaseModel, Field

from mcp_assets.mcp_server.tools import Tools
from mcp_assets.platform import Platform
from mcp_assets.sync.feed.entries import NoPosition, parse_since
from mcp_assets.sync.feed.reader import read_changes

MOST_CHANGES = 200
"""Changes of one answer: an assistant reads each of them."""


class ShownChange(BaseModel):
    """One change."""

    position: str
    kind: str = Field(
        description="indexed or removed: the entity; edge_added, edge_changed or edge_removed: the relationship from "
        "the entity to the target; edges_rebuilt: any relationship from the partition's entities; restarted: the feed "
        "does not tell what changed before."
    )
    reason: str = Field(description="What led to it, such as new, text, metadata, deleted, tags, reference, ranking.")
    made_at: datetime
    entity: str | None = None
    target: str | None = None
    edge_type: str | None = None
    strength: float | None = None
    state_hash: str | None = Field(default=None, description="It is another one when text or metadata are.")
    partition: str | None = None


class ChangesFound(BaseModel):
    """Changes, the oldest first."""

    changes: list[ShownChange]
    position: str = Field(description="Give it as `since` to go on.")
    more: bool = Field(description="There may be more now.")
    freshness: str = Field(description="How far the index may be behind the truth.")


class ChangeTools:
    """The tool over `platform`. `tools` name entity types and say how fresh an answer is."""

    def __init__(self, platform: Platform, tools: Tools) -> None:
        self._platform = platform
        self._tools = tools

    def changed_since(
        self,
        since: Annotated[
            str,
            Field(
                description="A position of an earlier answer, a time such as 2026-12-01T08:00, or a span such as 2h."
            ),
        ],
        types: Annotated[list[str], Field(description="Only these entity types; all if empty.")] = [],  # noqa: B006
        limit: Annotated[int, Field(ge=1, le=MOST_CHANGES)] = 50,
    ) -> ChangesFound:
        """List what changed in the index since a time or a position, and why, the oldest first."""
        try:
            start = parse_since(since, datetime.now(UTC))
        except NoPosition as error:
            raise ToolError(str(error)) from error
        wanted = [self._tools.entity_type(name) for name in types] or None
        page = read_changes(self._platform, start, types=wanted, limit=limit)
        shards = self._platform.settings.shards
        return ChangesFound(
            changes=[ShownChange.model_validate(entry.told(page.edition, shards)) for entry in page.entries],
            position=str(page.position),
            more=page.more,
            freshness=self._tools.freshness(),
        )
