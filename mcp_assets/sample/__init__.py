"""Sample workspace: the tasks, pages and memories of one software team, which `make demo` loads as source rows."""

import json
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

from mcp_assets.entities.refs import EntityRef

SEARCHES: tuple[str, str, str] = (
    "sunny weather brings more shoppers",
    "notifications reach the shop in the wrong order",
    "where are the printed emergency phone numbers kept",
)
"""Searches in everyday words that name what they look for otherwise than its texts do.

The answer to the last one stands only at the end of a long page.
"""

RELATED = EntityRef("task", "CHK-104")
"""An entity with edges of every type."""


def entities() -> Iterator[dict[str, Any]]:
    """The entities in the order in which they were written, oldest first, read one line at a time.

    Each has `entity_type` (task, page, memory), `entity_id`, `title`, `content` (Markdown), `metadata`, and
    `created_at` and `updated_at` (RFC 3339, UTC). Metadata keys are the columns of the source tables; a key without
    a value is left out. For a task, `epic_id`, `estimate_days` and `quarter` are metadata beyond the columns.
    """
    with files(__name__).joinpath("workspace.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
