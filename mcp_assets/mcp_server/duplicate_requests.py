"""Duplicate requests: the MCP server's process answers `entity.duplicates.request` by NATS as its tool does."""

from collections.abc import Iterator
from contextlib import contextmanager

from mcp_assets.events.subjects import DUPLICATES_REQUEST
from mcp_assets.mcp_server.duplicate_tools import DuplicateTools, error_answer
from mcp_assets.mcp_server.tools import Tools
from mcp_assets.platform import Platform
from mcp_assets.stores.nats_replies import NatsReplies, ReplyRules

_GROUP = "mcp_assets"
"""Several MCP servers share the requests."""

_MOST_BYTES = 512 * 1024
"""Of a body: a content of MOST_CONTENT_CHARACTERS in any script, with its title."""

_AT_ONCE = 4
"""Requests that are answered at once, each by an embedding, a search and two queries: so many keep some cores busy and
leave connections to the tools."""

_MOST_WAITING = 60
"""Requests that wait: they are answered within some seconds, in which their requesters still wait."""


@contextmanager
def answering_duplicates(platform: Platform) -> Iterator[None]:
    """Answer requests by NATS until the end of the block, whenever NATS is there. Without NATS_URL none is answered."""
    if platform.settings.nats_url is None:
        yield
        return
    tools = DuplicateTools(platform, Tools(platform))
    replies = NatsReplies(
        platform.settings.require_nats_url(),
        ReplyRules(
            subject=DUPLICATES_REQUEST,
            group=_GROUP,
            answer=tools.answer,
            refuse=error_answer,
            most_bytes=_MOST_BYTES,
            at_once=_AT_ONCE,
            most_waiting=_MOST_WAITING,
        ),
        access=platform.nats_access,
        verify=lambda mark: platform.marks.check_nats(mark),
    )
    replies.start()
    try:
        yield
    finally:
        replies.close()
